"""SRAM: the closed form of every stream equals the walk cycle by cycle; conflicts, energy and peaks by hand."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from archsim.config.errors import UserError
from archsim.config.loading import data_root, load_spec, unsourced_numbers
from archsim.memory.device import Completion
from archsim.memory.sram import Gathered, PortTime, SramCounts, SramSpec, Stream, Strided, group_cycles
from archsim.memory.sram_device import SramDevice
from archsim.memory.sram_oracle import walk

PRESETS = sorted((data_root() / "hwconfigs" / "sram").glob("*.yaml"))
WORDS = 4096


def spec(**changes: object) -> SramSpec:
    """One slice of eight banks of 512 words, four lanes, one cycle of latency."""
    numbers = {
        "kind": "sram",
        "name": "small",
        "capacity": "16 KiB",
        "slices": 1,
        "banks": 8,
        "ports": 1,
        "word": "4 B",
        "clock": "1 GHz",
        "read_lanes": 4,
        "write_lanes": 2,
        "array_latency": "0.5 ns",
        "wire_latency": "0.5 ns",
        "energy": {"read": "0.1 pJ/b", "write": "0.2 pJ/b", "wire": "0.05 pJ/b"},
    }
    return SramSpec.model_validate({**numbers, **changes})


@st.composite
def specs(draw: st.DrawFn) -> SramSpec:
    small = st.integers(1, 5)
    banks = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    cycles = draw(small)
    interval = cycles + draw(st.integers(1, 12))
    leaky = {"retention": f"{7 * interval} ns", "rows": 7, "cycles": cycles}
    return spec(
        capacity=f"{banks * WORDS * 4} B",
        banks=banks,
        ports=draw(st.integers(1, 3)),
        bank_cycles=draw(st.integers(1, 3)),
        read_lanes=draw(small),
        write_lanes=draw(small),
        wire_latency=f"{draw(st.integers(0, 5))} ns",
        refresh=draw(st.sampled_from([None, leaky])),
    )


streams: st.SearchStrategy[Stream] = st.one_of(
    st.builds(Strided, st.integers(0, 50), st.integers(1, 25), st.integers(0, 20), st.booleans()),
    st.builds(Gathered, st.lists(st.integers(0, 200), min_size=1, max_size=25).map(tuple), st.booleans()),
)


@settings(deadline=None, max_examples=400)
@given(specs(), st.lists(streams, min_size=1, max_size=4))
def test_every_stream_ends_when_the_walk_says(small: SramSpec, asked: list[Stream]) -> None:
    device = SramDevice(small)
    jobs = [device.submit(stream) for stream in asked]
    arrivals, busy = walk(small, asked)
    assert [device.advance() for _ in asked] == [Completion(job, at) for job, at in zip(jobs, arrivals, strict=True)]
    assert device.advance() is None
    assert device.counts.reads + device.counts.writes == sum(stream.accesses for stream in asked)
    assert sum(busy) == small.bank_cycles * sum(stream.accesses for stream in asked)
    assert device.counts.busy_cycles + device.counts.refresh_cycles + small.latency_cycles == arrivals[-1]
    assert 0 <= device.counts.conflict_cycles <= device.counts.busy_cycles


@settings(deadline=None, max_examples=100)
@given(specs(), st.lists(streams, min_size=1, max_size=3), st.lists(st.integers(0, 60), max_size=6))
def test_stops_on_the_way_change_nothing(small: SramSpec, asked: list[Stream], horizons: list[int]) -> None:
    straight, halting = SramDevice(small), SramDevice(small)
    for device in (straight, halting):
        for stream in asked:
            device.submit(stream)
    found, plain = [], []
    counted = 0
    for horizon in sorted(horizons):
        while (done := halting.advance(horizon)) is not None:
            assert done.tick == halting.now <= horizon
            found.append(done)
        assert halting.now == horizon
        assert counted <= (counted := halting.counts.reads + halting.counts.writes)
    while (done := halting.advance()) is not None:
        found.append(done)
    while (done := straight.advance()) is not None:
        plain.append(done)
    assert found == plain
    assert halting.counts == straight.counts


@settings(deadline=None, max_examples=200)
@given(specs(), st.lists(st.tuples(st.integers(0, 40), streams), min_size=1, max_size=4))
def test_transfers_that_come_one_by_one(small: SramSpec, asked: list[tuple[int, Stream]]) -> None:
    """A transfer starts when it comes, or when a refresh that is under way has ended, and waits for that alone."""
    device, ports = SramDevice(small), small.port_time
    for pause, stream in asked:
        begin = device.now + pause
        device.advance(begin)
        device.submit(stream)
        done = device.advance()
        assert done is not None
        worked = stream.groups(small).cycles
        left_ports = done.tick - small.latency_cycles
        assert ports.worked(left_ports) - ports.worked(begin) == worked
        assert ports.worked(left_ports - 1) - ports.worked(begin) == worked - 1
    assert device.counts.refresh_cycles <= device.now - device.counts.busy_cycles


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 400))
def test_port_time_is_a_count_of_cycles(working: int, stopped: int, cycle: int) -> None:
    ports = PortTime(working + stopped, stopped)
    worked = sum(each % ports.interval < working for each in range(cycle))
    assert ports.worked(cycle) == worked == ports.worked(np.array([cycle]))[0]
    first = next(each for each in range(10**6) if ports.worked(each) == worked)
    assert ports.cycle(worked) == first == ports.cycle(np.array([worked]))[0]
    assert ports.refreshes(cycle) == cycle // ports.interval


def test_a_gain_cell_by_hand() -> None:
    """Ten cycles of work in twelve: thirty groups of a cycle each end behind two refreshes of two cycles."""
    leaky = spec(refresh={"retention": "84 ns", "rows": 7, "cycles": 2})
    device = SramDevice(leaky)
    device.submit(Strided(0, 120))
    assert device.advance() == Completion(0, 30 + 2 * 2 + 1)
    assert device.counts == SramCounts(reads=120, busy_cycles=30, refresh_cycles=4)
    assert leaky.port_time.share == Fraction(5, 6)
    # 16 KiB read at 0.1 pJ/b and written at 0.2 pJ/b every 84 ns.
    assert leaky.refresh_watts == pytest.approx(131072 * 0.3e-12 / 84e-9)


def test_a_refresh_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"7 rows in 14 ns are one in 2 cycles, and each takes 2"):
        spec(refresh={"retention": "14 ns", "rows": 7, "cycles": 2})


def test_counts_on_the_way_are_those_of_the_groups_that_ended() -> None:
    device = SramDevice(spec())
    device.submit(Strided(0, 40, stride=8))  # every group of four on one bank: four cycles
    assert device.advance(11) is None
    assert device.counts == SramCounts(reads=8, busy_cycles=11)
    assert device.advance() == Completion(0, 41)
    assert device.counts == SramCounts(reads=40, busy_cycles=40, conflict_cycles=30)


@pytest.mark.parametrize(
    ("stride", "cycles"), [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (16, 4), (0, 4), (5, 1), (6, 1), (12, 2)]
)
def test_strides_by_hand(stride: int, cycles: int) -> None:
    """Four lanes over eight banks: stride 4 hits two of them, stride 8 one, odd ones all."""
    assert group_cycles(spec(), 4, stride) == cycles
    assert group_cycles(spec(ports=2), 4, stride) == -(-cycles // 2)
    assert group_cycles(spec(bank_cycles=3), 4, stride) == 3 * cycles


def test_one_transfer_of_several_streams_completes_once() -> None:
    device = SramDevice(spec())
    assert device.submit(Strided(0, 8), Strided(8, 4, write=True), Strided(0, 0)) == 0
    assert device.advance() == Completion(0, 2 + 2 + 1)
    assert (device.counts.reads, device.counts.writes) == (8, 4)


def test_idle_time_passes() -> None:
    device = SramDevice(spec())
    assert device.advance(100) is None
    device.submit(Strided(0, 4))
    assert device.advance() == Completion(0, 102)
    assert (device.to_ticks(1), device.to_fs(102)) == (1, 102 * 10**6)


def test_energy_is_counts_times_the_table() -> None:
    wide = spec(slices=4, capacity="64 KiB")
    assert wide.energy_pj(SramCounts(reads=10, writes=5)) == pytest.approx(4 * 32 * (10 * 0.15 + 5 * 0.25))


def test_what_is_refused() -> None:
    device = SramDevice(spec())
    with pytest.raises(UserError, match="without accesses"):
        device.submit(Strided(0, 0))
    with pytest.raises(UserError, match=r"word 4096 of a slice of small .*0 to 4095"):
        device.submit(Strided(4090, 7))
    with pytest.raises(UserError, match="word -1 "):
        device.submit(Gathered((3, -1)))
    with pytest.raises(ValueError, match="not a whole number of words"):
        spec(capacity="16383 B")


# ---------------------------------------------------------------- presets


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_every_number_of_a_preset_has_its_source(file: Path) -> None:
    assert unsourced_numbers(load_spec(file, SramSpec)) == []


@pytest.mark.parametrize(
    ("name", "read_and_write", "capacity", "tolerance"),
    [
        ("sram_wse3", 21e15, 44e9, 0.02),  # published: 21 PB/s, 44 GB
        ("sram_groq_lpu", 56.3e12, 230e6, 0.01),  # ISCA 2020: 55 TiB/s and more, 220 MiB; advertised: 80 TB/s
        ("sram_gpu_l2", 2 * 5120 * 1.41e9, 40 * 2**20, 0.001),  # white paper: 5120 B a clock each way
    ],
)
def test_presets_meet_published_figures(name: str, read_and_write: float, capacity: float, tolerance: float) -> None:
    (file,) = (file for file in PRESETS if file.stem == name)
    preset = load_spec(file, SramSpec).spec
    both = preset.peak_bytes_per_second() + preset.peak_bytes_per_second(write=True)
    assert float(both) == pytest.approx(read_and_write, rel=tolerance)
    assert preset.capacity == pytest.approx(capacity, rel=tolerance)


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_a_long_read_reaches_the_peak(file: Path) -> None:
    preset = load_spec(file, SramSpec).spec
    device = SramDevice(preset)
    words = preset.words // preset.read_lanes * preset.read_lanes
    device.submit(Strided(0, words))
    done = device.advance()
    assert done is not None
    seconds = (done.tick - preset.latency_cycles) / preset.clock
    rate = float(preset.peak_bytes_per_second() * preset.port_time.share)
    assert words * preset.word * preset.slices / seconds == pytest.approx(rate, rel=2e-4)  # the last interval is cut
    random, _ = walk(preset, [Gathered((0,))])
    assert random == [1 + preset.latency_cycles]

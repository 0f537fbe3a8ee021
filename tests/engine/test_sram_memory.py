"""SRAM as a device's memory: times against a walk cycle by cycle, capacity, energy, the way along a row of chips."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_experiment import write_phases, write_requests

import archsim
from archsim.config.errors import SpecError, UserError
from archsim.config.loading import load_mapping
from archsim.engine.main_memory import main_memory, with_hops
from archsim.engine.phases import Setup, phase_machine
from archsim.kernels.timing import Count
from archsim.memory.device import Range, Transfer
from archsim.memory.sram import SramSpec, Strided
from archsim.memory.sram_memory import SramMemory, SramMemorySpec
from archsim.memory.sram_oracle import walk
from archsim.records import OperatorKind
from archsim.results import RunResult
from archsim.system import load_system
from archsim.workload.operators import lower_decode
from archsim.workload.precision import Precision
from archsim.workload.shapes import load_model

PICOJOULES = {"read": "1 pJ/b", "write": "2 pJ/b", "wire": "0.5 pJ/b"}


LEAKY = {"retention": "310 ns", "rows": 10, "cycles": 4}
"""A refresh of four cycles in every 31."""


def memory(*, chips: int = 1, **changes: object) -> SramMemory:
    """Three slices of 1000 words in each bank."""
    technology = {"kind": "sram", "name": "small", "slices": 3, "banks": 4, "ports": 1, "word": "8 B", "clock": "1 GHz",
                  "bank_cycles": 2, "read_lanes": 2, "write_lanes": 1, "array_latency": "3 ns", "wire_latency": "2 ns",
                  "energy": PICOJOULES} | changes  # fmt: skip
    held = 3 * 8 * 1000 * int(str(technology["banks"]))
    row = {"chips": chips, "latency": "5 ns", "bandwidth": "1 GB/s"} if chips > 1 else None
    spec = {"kind": "sram", "technology": technology | {"capacity": f"{held} B"}, "capacity": f"{held * chips} B"}
    return SramMemory(load_mapping(spec | {"row": row}, SramMemorySpec).spec)


def end_by_walk(spec: SramSpec, transfer: Transfer) -> int:
    """When the last tile has ended, cycle by cycle: reads of a tile from the oracle, tiles one after the other."""
    reads = [Strided(data.first_burst, data.bursts) for data in transfer.ranges if not data.write]
    writes = [Strided(data.first_burst, data.bursts, write=True) for data in transfer.ranges if data.write]
    arrivals, _ = walk(spec, [*reads, *writes])
    latency = spec.latency_cycles if reads else 0

    def worked(cycle: int) -> int:
        refreshed = 31 - 4 if spec.refresh is not None else 31
        return sum(each % 31 < refreshed for each in range(cycle))

    read_cycles = worked(arrivals[len(reads) - 1] - latency) if reads else 0
    cycle = ended = 0
    while ended < transfer.tiles:
        # Tile k has its data when k / tiles of the cycles that reads work are over and the words have come.
        if cycle >= latency and worked(cycle - latency) * transfer.tiles >= (ended + 1) * read_cycles:
            ended += 1
            cycle += transfer.tile_ticks
        else:
            cycle += 1
    return max(cycle, arrivals[-1])


@settings(max_examples=60, deadline=None)
@given(
    reads=st.lists(st.tuples(st.integers(0, 500), st.integers(1, 300)), min_size=0, max_size=3),
    writes=st.lists(st.tuples(st.integers(0, 500), st.integers(1, 100)), min_size=0, max_size=2),
    tiles=st.integers(0, 12),
    tile_ticks=st.integers(1, 90),
    organisation=st.sampled_from([(4, 1, 2, 2), (4, 2, 1, 4), (3, 1, 1, 2), (1, 1, 3, 1)]),
    refresh=st.sampled_from([None, LEAKY]),
)
def test_times_are_those_of_a_walk(
    reads: list[tuple[int, int]],
    writes: list[tuple[int, int]],
    tiles: int,
    tile_ticks: int,
    organisation: tuple[int, int, int, int],
    refresh: dict[str, object] | None,
) -> None:
    if not reads and not writes:
        return
    banks, ports, bank_cycles, lanes = organisation
    sram = memory(banks=banks, ports=ports, bank_cycles=bank_cycles, read_lanes=lanes, refresh=refresh)
    ranges = tuple(Range(*data) for data in reads) + tuple(Range(*data, write=True) for data in writes)
    transfer = Transfer(ranges, tiles, tile_ticks if tiles else 0)
    sram.submit(transfer)
    done = sram.advance()
    assert done is not None
    assert done.tick == end_by_walk(sram.spec.technology, transfer)
    counts = sram.count_vector()
    assert counts[Count.REFAB] == (done.tick // 31 if refresh else 0)
    assert counts[Count.BUSY] + counts[Count.ROW] + counts[Count.REFRESH] + counts[Count.IDLE] == done.tick
    assert counts[Count.RD] == 3 * sum(bursts for _, bursts in reads)
    assert counts[Count.WR] == 3 * sum(bursts for _, bursts in writes)


def test_a_range_over_the_end_of_a_chip_goes_on_the_next() -> None:
    """4000 words in each slice of a chip: the last 10 of one and the first 20 of the next."""
    whole, cut = memory(chips=3), memory(chips=3)
    whole.submit(Transfer((Range(100, 30),)))
    cut.submit(Transfer((Range(3990, 30),)))
    assert (done := cut.advance()) is not None and done == whole.advance()
    assert cut.count_vector().tolist() == whole.count_vector().tolist()


def test_it_waits_at_a_horizon_and_goes_on() -> None:
    sram, other = memory(), memory()
    transfer = Transfer((Range(0, 64), Range(70, 8, write=True)), 4, 30)
    sram.submit(transfer)
    other.submit(transfer)
    assert sram.advance(17) is None and sram.now == 17
    assert sram.advance() == other.advance()
    assert sram.count_vector().tolist() == other.count_vector().tolist()


# ---------------------------------------------------------------- machines


@pytest.fixture(scope="module")
def on_sram(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Two small layers on two of the wafer's regions."""
    folder = tmp_path_factory.mktemp("sram")
    return archsim.run(write_phases(folder), WAFER, out=folder / "run")


WAFER = {
    "system": "wse3",
    "workload.prefill": None,
    "system.device.memory.row.chips": 2,
    "system.device.memory.capacity": "2700000 kB",
}


def test_a_machine_without_dram_runs(on_sram: RunResult) -> None:
    """Its energy is that of counted words; nothing is activated or refreshed."""
    technology = load_system("wse3").spec.device.memory.technology
    assert isinstance(technology, SramSpec)
    operators = on_sram.operators
    read_bits = 8 * int(operators["dram_read_bytes"].sum())
    assert read_bits == 8 * technology.word * int(operators["dram_reads"].sum()) > 0
    assert on_sram.metrics["decode.energy.hbm_read"].value == pytest.approx(read_bits * technology.energy.read * 1e-12)
    assert (
        on_sram.metrics["decode.energy.hbm_activate"].value == on_sram.metrics["decode.energy.hbm_refresh"].value == 0
    )
    assert on_sram.metrics["decode.time.refresh"].value == 0
    assert on_sram.summary.phases[0].memory == "SRAM"
    (hops,) = [operators[operators["kind"] == "hop"]]
    assert hops["name"].tolist() == ["layers[1].hop"]


def test_a_roofline_bounds_it(on_sram: RunResult, tmp_path: Path) -> None:
    bound = archsim.run(write_phases(tmp_path), WAFER | {"fidelity": "roofline"}, out=tmp_path / "bound")
    assert bound.metrics["decode.tpot"].value < on_sram.metrics["decode.tpot"].value


def test_hops_are_where_layers_change_their_chip() -> None:
    memory_spec = load_system("groq_lpu").spec.device.memory
    precision = Precision(weights="int8", kv="fp16", activations="fp16", compute="fp16", embedding="int8")
    trace = lower_decode(load_model("llama-2-70b"), precision, 8, (1024,))
    operators = list(with_hops(trace.operators, memory_spec))
    hops = [operator for operator in operators if operator.kind is OperatorKind.HOP]
    assert len(hops) == 71
    assert {hop.collective_bytes for hop in hops} == {8192 * 2}
    assert [operator for operator in operators if operator.kind is not OperatorKind.HOP] == list(trace.operators)
    assert list(with_hops(trace.operators, load_system("h200").spec.device.memory)) == list(trace.operators)


@pytest.mark.parametrize(("nodes", "fits"), [(38, False), (39, True)])
def test_70b_in_8_bits_needs_307_groq_chips(nodes: int, fits: bool) -> None:
    """Llama-3-70B: 70.55 GB over 230 MB are 307; nodes of eight make 304 or 312."""
    row = {"chips": nodes}
    system = load_system("groq_lpu", {"device.memory.row": row, "device.memory.capacity": f"{nodes * 220} MiB"}).spec
    precision = Precision(weights="int8", kv="fp16", activations="fp16", compute="fp16", embedding="int8")
    setup = Setup(system, load_model("llama-3-70b"), precision, 8)
    if fits:
        phase_machine(setup, 1, 16)
        return
    with pytest.raises(UserError, match=r"the model and its KV cache need 8\.8.* on each device"):
        phase_machine(setup, 1, 16)


# ---------------------------------------------------------------- what can't be


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("device.memory.capacity=16 GiB", r"more than 72 x Groq LPU SRAM hold.*a row of more chips"),
        ("device.prefetch=true", "prefetch from SRAM"),
        ("device.memory.stacks=2", "unknown key 'stacks'"),
        ("device.memory.kind=srm", "device.memory.kind: got 'srm'.*dram.*did you mean 'sram'"),
        ("device.stream_window=1 KiB", "can't keep 88 slices busy"),
        ("energy.hbm={row: 1 KiB, burst: 32 B, activate: 1 nJ, read: 1 pJ, write: 1 pJ, refresh_all_bank: 1 nJ, "
         "refresh_per_bank: 1 nJ, io: 1 pJ/b}", "SRAM, which has its own energies"),
    ],
)  # fmt: skip
def test_bad_sram_machines(override: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_system("groq_lpu", [override])


def test_sram_has_no_paged_cache() -> None:
    from archsim.engine.placement import PagedKv

    spec = load_system("wse3").spec.device.memory
    with pytest.raises(UserError, match="a paged KV cache in SRAM"):
        main_memory(spec, shortcuts=True, paged_kv=PagedKv(16, 4096, 1, 64))


def test_what_needs_dram_says_so() -> None:
    from archsim.commands.curve import _target

    with pytest.raises(UserError, match="groq_lpu has no DRAM"):
        _target("groq_lpu", "fr_fcfs", "all_bank")


def test_it_serves_requests(tmp_path: Path) -> None:
    trace = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,60,3\n2023-11-16 18:15:46.69,40,2\n"
    run = archsim.run(write_requests(tmp_path, trace), {"system": "wse3"}, out=tmp_path / "run")
    assert run.metrics["serving.requests"].value == 2
    assert run.metrics["serving.output_tokens"].value == 5

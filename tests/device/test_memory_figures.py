"""What each shipped memory reaches in the kernel, against formulas: one read, random reads, a stream."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from dram_cases import Case, run_kernel

from archsim.config.loading import data_root, load_spec
from archsim.kernels.oracle import OracleJob, OracleStream
from archsim.memory.standard import ControllerSpec, DramStandard, RefreshPolicy, RefreshTurn

PRESETS = sorted((data_root() / "hwconfigs" / "memory").glob("*.yaml"))
BY_PRESET = pytest.mark.parametrize("preset", PRESETS, ids=[preset.stem for preset in PRESETS])
HBM3 = next(preset for preset in PRESETS if preset.stem == "hbm3_16gb_8hi")
HBM4 = next(preset for preset in PRESETS if preset.stem == "hbm4_36gb_12hi")
GUIDE = data_root() / "docs" / "howto_memory_standard.md"
INTERVALS = 20  # refresh intervals that a stream lasts
RANDOM_READS = 8000  # per pseudo-channel
DEEP = 64  # requests: more than any memory's row change lasts


@cache
def standard(preset: Path) -> DramStandard:
    return load_spec(preset, DramStandard).spec


def case(preset: Path, controller: ControllerSpec, stream: OracleStream) -> Case:
    memory = standard(preset)
    tables = memory.address_tables(controller)
    bank, column = tables.bank.astype(np.int64), tables.column.astype(np.int64)
    return Case(memory.timing(controller), bank, column, (stream,), (OracleJob(),))


def gb_per_s(preset: Path, bursts: int, ticks: int) -> float:
    """Of one channel, `bursts` in each pseudo-channel."""
    organisation = standard(preset).organisation
    moved = bursts * organisation.pseudo_channels * organisation.burst_bytes
    return moved / (ticks * float(standard(preset).tick_fs) * 1e-6)


@cache
def streamed(
    preset: Path, refresh: RefreshPolicy, queue: int = 32, order: RefreshTurn = RefreshTurn.UNWANTED_FIRST
) -> float:
    """GB/s of a channel that reads its addresses in order."""
    controller = ControllerSpec(refresh=refresh, refresh_order=order, read_queue=queue)
    q = standard(preset).timing(controller)
    bursts = INTERVALS * q.tREFI // q.tCCDS
    result = run_kernel(case(preset, controller, OracleStream([np.arange(bursts)] * q.pseudo_channels)))
    return gb_per_s(preset, bursts, int(result.job_done[0]))


@cache
def random_reads(preset: Path) -> float:
    """GB/s of a channel that reads anywhere, without refresh."""
    controller = ControllerSpec(refresh=RefreshPolicy.NONE)
    memory, draw = standard(preset), np.random.default_rng(5)
    span = memory.organisation.row_set * memory.organisation.rows
    pcs = range(memory.organisation.pseudo_channels)
    stream = OracleStream(
        [draw.integers(0, span, RANDOM_READS) for _ in pcs], arrivals=[np.zeros(RANDOM_READS, np.int64) for _ in pcs]
    )
    return gb_per_s(preset, RANDOM_READS, int(run_kernel(case(preset, controller, stream)).job_done[0]))


@cache
def read_latencies_ns(preset: Path) -> tuple[float, float]:
    """Of a read of a closed bank, and of a later one of another row of it."""
    controller = ControllerSpec(refresh=RefreshPolicy.NONE)
    memory = standard(preset)
    others = memory.organisation.pseudo_channels - 1
    nothing = np.zeros(0, np.int64)
    later = 100_000
    stream = OracleStream(
        [np.array([0, memory.organisation.row_set]), *[nothing] * others],
        arrivals=[np.array([0, later]), *[nothing] * others],
    )
    done = run_kernel(case(preset, controller, stream)).done
    tick_ns = float(memory.tick_fs) * 1e-6
    return int(done[0]) * tick_ns, int(done[1] - later) * tick_ns


@BY_PRESET
def test_one_read_takes_the_sum_of_its_steps(preset: Path) -> None:
    memory = standard(preset)
    clock_ns = float(memory.clock_fs) * 1e-6
    closed = sum(memory.clocks(step) for step in ("tRCDRD", "tCL", "tBL")) * clock_ns
    assert read_latencies_ns(preset) == pytest.approx((closed, closed + memory.clocks("tRP") * clock_ns))


def test_one_read_of_hbm3_is_that_of_the_reference() -> None:
    """34.1 ns and 49.7 ns in Ramulator 2.1, whose commands take effect on their last edge and whose requests wait for a
    tick: up to two clocks more."""
    closed, conflict = read_latencies_ns(HBM3)
    assert closed == pytest.approx(34.1, abs=2 * 0.625)
    assert conflict == pytest.approx(49.7, abs=2 * 0.625)


def random_bound(preset: Path) -> float:
    """GB/s of a channel when every read opens a row: tFAW, tRRDS, the command bus and the turnover of the banks."""
    q = standard(preset).timing(ControllerSpec())
    pcs, banks = q.pseudo_channels, q.stack_ids * q.bank_groups * q.banks_per_group
    each_pc = max(q.tFAW / 4, q.tRRDS, q.tCCDS, q.tRC / banks) / pcs
    commands = q.activate_ticks + q.precharge_ticks + (q.column_ticks if q.shared_command_bus else 0)
    ticks = max(each_pc, commands)
    return gb_per_s(preset, 1, 1) / pcs / ticks


def test_four_activates_bound_random_reads_of_hbm3() -> None:
    assert random_bound(HBM3) == pytest.approx(17.07, abs=0.005)
    assert random_reads(HBM3) == pytest.approx(17.07, rel=0.01)


@BY_PRESET
def test_random_reads_come_close_to_their_bound(preset: Path) -> None:
    few_banks = standard(preset).organisation.banks < 16  # reads meet in a bank now and then
    found, bound = random_reads(preset), random_bound(preset)
    assert (0.9 if few_banks else 0.985) * bound < found <= bound * (1 + 4 / RANDOM_READS)


@BY_PRESET
def test_a_stream_fills_the_pins_but_for_refresh(preset: Path) -> None:
    memory = standard(preset)
    peak = float(memory.peak_bytes_per_second) * 1e-9
    stolen = memory.clocks("tRFCab") / memory.clocks("tREFI")
    without = streamed(preset, RefreshPolicy.NONE, DEEP) / peak
    refreshed = streamed(preset, RefreshPolicy.ALL_BANK, DEEP) / peak
    assert 0.99 < without <= 1
    # Around each refresh the pins idle a while: the last rows close, and the first ones open again.
    reopen = sum(memory.clocks(step) for step in ("tRTP", "tRP", "tRCDRD", "tCL")) / memory.clocks("tREFI")
    assert without - stolen - 2 * reopen < refreshed < 1 - stolen
    assert 0.85 < refreshed < 0.97


def test_refresh_steals_ten_percent_of_hbm3() -> None:
    """8.97% is tRFC/tREFI, 10.0% with closing and opening."""
    hbm3 = standard(HBM3)
    assert hbm3.clocks("tRFCab") / hbm3.clocks("tREFI") == pytest.approx(0.0897, abs=1e-4)
    loss = 1 - streamed(HBM3, RefreshPolicy.ALL_BANK) / streamed(HBM3, RefreshPolicy.NONE)
    assert loss == pytest.approx(0.100, abs=0.003)


def test_a_queue_shorter_than_a_row_change_costs_hbm4_bandwidth() -> None:
    """32 queued reads last 64 clocks at two clocks each; a row change of HBM4 takes tRP + tRCDRD = 72."""
    memory = standard(HBM4)
    assert 32 * memory.clocks("tCCDS") < memory.clocks("tRP") + memory.clocks("tRCDRD") < DEEP * memory.clocks("tCCDS")
    assert streamed(HBM4, RefreshPolicy.NONE) < 0.95 * streamed(HBM4, RefreshPolicy.NONE, DEEP)


def test_the_guide_tells_what_the_kernel_does() -> None:
    """The table of docs/howto_memory_standard.md: GB/s of all channels, share of the peak, nanoseconds."""
    told = {
        name: [float(figure) for figure in figures]
        for name, *figures in re.findall(
            r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+)% \| ([\d.]+) \| ([\d.]+) ns \|$", GUIDE.read_text(), re.M
        )
    }
    assert set(told) == {preset.stem for preset in PRESETS}
    for preset in PRESETS:
        channels = standard(preset).channels_per_stack
        peak = float(channels * standard(preset).peak_bytes_per_second) * 1e-9
        stream = channels * streamed(preset, RefreshPolicy.ALL_BANK)
        found = [peak, stream, 100 * stream / peak, channels * random_reads(preset), read_latencies_ns(preset)[0]]
        assert told[preset.stem] == pytest.approx(found, rel=5e-3), preset.stem


def test_a_stream_of_hbm4_walks_behind_a_refresh_in_turn() -> None:
    """A row of two banks is refreshed in two tREFIpb, and read in 64 bursts: the slower of the two sets the pace.

    So the order is `unwanted_first` if nothing else is said."""
    memory = standard(HBM4)
    peak = float(memory.peak_bytes_per_second) * 1e-9
    read = 2 * memory.organisation.columns * memory.clocks("tCCDS")
    refreshed = 2 * memory.clocks("tREFIpb")
    assert read < refreshed
    in_turn = streamed(HBM4, RefreshPolicy.PER_BANK, order=RefreshTurn.IN_TURN)
    assert in_turn / peak == pytest.approx(read / refreshed, abs=0.02)
    assert streamed(HBM4, RefreshPolicy.PER_BANK) > streamed(HBM4, RefreshPolicy.ALL_BANK)

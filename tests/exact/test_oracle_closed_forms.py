"""What the oracle must give where a pencil is enough: HBM3 at 6.4 Gb/s, one channel, ticks of 0.3125 ns."""

from __future__ import annotations

import numpy as np
import pytest

from archsim.config.loading import data_root, load_spec
from archsim.kernels.oracle import OracleJob, OracleResult, OracleStream, Trace, run_oracle, run_streams
from archsim.kernels.timing import Count, DramTiming
from archsim.memory.standard import AddressTables, ControllerSpec, DramStandard

STANDARD = load_spec(data_root() / "hwconfigs" / "memory" / "hbm3_16gb_8hi.yaml", DramStandard).spec
TABLES: AddressTables = STANDARD.address_tables(ControllerSpec())
ROW_SET = STANDARD.organisation.row_set
NS_PER_TICK = float(STANDARD.tick_fs) / 1e6
SLOTS_NS = 4 * NS_PER_TICK  # the reference counts up to two clocks of command slots that this policy does not


def timing(refresh: str = "none", **changes: int) -> DramTiming:
    return STANDARD.timing(ControllerSpec(refresh=refresh))._replace(**changes)


def one_channel(
    table: DramTiming, requests: list[tuple[int, int, int]], other: list[tuple[int, int, int]] | None = None
) -> OracleResult:
    """Requests (address, write, arrival) on PC 0, and on PC 1."""
    both = [*requests, *(other or [])]
    address, write, arrival = (np.array([request[k] for request in both], np.int64) for k in range(3))
    trace = Trace(address, write.astype(np.int8), arrival, np.array([0, len(requests), len(both)]))
    return run_oracle(table, TABLES.bank, trace)


def full_channel(table: DramTiming, address: np.ndarray) -> OracleResult:
    """The same read addresses on both pseudo-channels, all there at tick 0."""
    both = np.tile(address, 2)
    n = len(address)
    trace = Trace(both, np.zeros(2 * n, np.int8), np.zeros(2 * n, np.int64), np.array([0, n, 2 * n]))
    return run_oracle(table, TABLES.bank, trace)


def gb_per_s(result: OracleResult, table: DramTiming) -> float:
    return len(result.done) * table.burst_bytes / (int(result.done.max()) * NS_PER_TICK)


def test_unloaded_read_of_a_closed_bank() -> None:
    t = timing()
    result = one_channel(t, [(0, 0, 1000)])
    assert result.counts[Count.LATENCY] == t.tRCDRD + t.tCL + t.tBL
    assert result.counts[Count.MISSES] == 1
    assert result.counts[Count.LATENCY] * NS_PER_TICK == pytest.approx(34.1, abs=SLOTS_NS)


def test_unloaded_read_on_a_row_conflict() -> None:
    t = timing()
    result = one_channel(t, [(0, 0, 0), (ROW_SET, 0, 1000)])
    assert result.done[1] - 1000 == t.tRP + t.tRCDRD + t.tCL + t.tBL
    assert result.counts[Count.CONFLICTS] == 1
    assert (result.done[1] - 1000) * NS_PER_TICK == pytest.approx(49.7, abs=SLOTS_NS)


def test_unloaded_row_hit_and_write() -> None:
    t = timing()
    result = one_channel(t, [(0, 0, 0), (4, 0, 1000), (8, 1, 2000), (9 + ROW_SET, 1, 3001)])
    assert result.done[1] - 1000 == t.tCL + t.tBL
    assert result.done[2] - 2000 == t.tCWL + t.tBL
    # Bank 1 is still closed; the request comes on a falling edge and waits for the rising one.
    assert result.done[3] - 3001 == 1 + t.tRCDWR + t.tCWL + t.tBL
    assert result.counts[Count.HITS] == 2


def test_random_reads_are_bound_by_four_activates_per_tfaw() -> None:
    t = timing()
    address = np.random.default_rng(1).integers(0, 1 << 23, 4000)
    bound = t.pseudo_channels * 4 * t.burst_bytes / (t.tFAW * NS_PER_TICK)
    assert bound == pytest.approx(17.07, abs=0.01)
    achieved = gb_per_s(full_channel(t, address), t)
    assert 0.98 * bound < achieved <= bound


def test_a_stream_without_refresh_fills_the_data_bus() -> None:
    t = timing()
    result = full_channel(t, np.arange(8000))
    assert gb_per_s(result, t) > 0.99 * 51.2
    assert result.counts[Count.BUSY] == 16000 * t.tCCDS


def test_refresh_takes_its_share_of_a_stream() -> None:
    """Each REFab costs tRFCab, and at most the closing and opening of rows around it: 8.97% and a little."""
    t = timing("all_bank")
    address = np.arange(16_000)
    with_refresh, without = full_channel(t, address), full_channel(timing(), address)
    refreshes = int(with_refresh.counts[Count.REFAB]) / t.pseudo_channels
    lost = (int(with_refresh.done.max()) - int(without.done.max())) / refreshes
    assert t.tRFCab / t.tREFI == pytest.approx(0.0897, abs=0.0001)
    assert t.tRFCab < lost <= t.tRFCab + t.tRTP + t.tRP + t.tRCDRD + t.tFAW


def test_per_bank_refresh_disturbs_a_stream_less_per_command() -> None:
    address = np.arange(8000)
    all_bank, per_bank = full_channel(timing("all_bank"), address), full_channel(timing("per_bank"), address)
    assert per_bank.counts[Count.REFPB] > 16 * all_bank.counts[Count.REFAB]
    assert int(per_bank.done.max()) < 1.25 * int(all_bank.done.max())


@pytest.mark.parametrize("refresh", ["none", "all_bank", "per_bank"])
def test_every_tick_of_the_data_bus_has_a_cause(refresh: str) -> None:
    t = timing(refresh)
    random = np.random.default_rng(3)
    n = 1500
    arrival = np.sort(random.integers(0, 60_000, 2 * n).reshape(2, n), axis=1).reshape(-1)
    write = (random.random(2 * n) < 0.4).astype(np.int8)
    trace = Trace(random.integers(0, 1 << 15, 2 * n), write, arrival, np.array([0, n, 2 * n]))
    result = run_oracle(t, TABLES.bank, trace)
    counts = result.counts
    ends = [int(result.issued[a:b].max()) + t.tCCDS for a, b in ((0, n), (n, 2 * n))]
    assert counts[Count.BUSY : Count.IDLE + 1].sum() == sum(ends)
    assert (counts >= 0).all()
    assert counts[Count.HITS] + counts[Count.MISSES] + counts[Count.CONFLICTS] == 2 * n
    assert counts[Count.RD] + counts[Count.WR] == 2 * n
    assert counts[Count.LATENCY] == (result.done - arrival).sum()
    assert (counts[Count.REFRESH] > 0) == (refresh == "all_bank")
    assert counts[Count.IDLE] > 0
    assert counts[Count.TURNAROUND] > 0


def test_idle_and_turnaround_of_two_requests() -> None:
    """A read at tick 0, a write to the same open row long after: the bus is idle until it comes."""
    t = timing()
    counts = one_channel(t, [(0, 0, 0), (4, 1, 1000)]).counts
    assert counts[Count.ROW] == t.tRCDRD
    assert counts[Count.IDLE] == 1000 - (t.tRCDRD + t.tCCDS)
    assert counts[Count.TURNAROUND] == 0


def test_a_write_after_a_read_waits_for_the_turnaround() -> None:
    t = timing()
    result = one_channel(t, [(0, 0, 0), (4, 1, 0)])
    assert result.issued[1] - result.issued[0] == t.tRTW
    assert result.counts[Count.TURNAROUND] == t.tRTW - t.tCCDS


def test_refresh_goes_on_while_nothing_happens() -> None:
    t = timing("all_bank", refresh_stagger=100)
    stream = OracleStream(addresses=[np.array([0]), np.array([], np.int64)])
    result = run_streams(t, TABLES.bank, [stream], run_until=3 * t.tREFI + 50)
    assert result.ticks == 3 * t.tREFI + 50
    assert result.counts[Count.REFAB] == 3 + 2


# ---- jobs and tiles --------------------------------------------------------------------------------------------------


def consecutive(n: int, start: int = 0) -> list[np.ndarray]:
    return [np.arange(start, start + n), np.arange(start, start + n)]


def test_a_slow_consumer_paces_its_job() -> None:
    """With a wide window all data wait for the tiles: the first share's load, then tile after tile."""
    t = timing()
    tile_ticks = 5000
    result = run_streams(t, TABLES.bank, [OracleStream(consecutive(64))], [OracleJob(tiles=8, tile_ticks=tile_ticks)])
    first_share = np.sort(result.issued.reshape(2, 64), axis=1)[:, 7].max() + t.tCL + t.tBL
    assert result.job_done[0] == first_share + 8 * tile_ticks
    assert result.issued.max() < 1000


def test_a_window_of_one_share_takes_turns_with_the_tiles() -> None:
    t = timing()
    tile_ticks = 5000
    stream = OracleStream(consecutive(64), window=8)
    result = run_streams(t, TABLES.bank, [stream], [OracleJob(tiles=8, tile_ticks=tile_ticks)])
    for share in range(1, 8):
        admitted = result.admitted.reshape(2, 64)[:, share * 8 : share * 8 + 8]
        assert len(set(admitted.ravel().tolist())) == 1  # in the tick in which the tile before ended
    arrived = np.sort(result.issued.reshape(2, 8, 8).max(axis=(0, 2))) + t.tCL + t.tBL
    assert result.admitted[8] == arrived[0] + tile_ticks
    assert result.job_done[0] == arrived[7] + tile_ticks


def test_a_gate_holds_the_tiles_and_not_the_reads() -> None:
    t = timing()
    job = OracleJob(tiles=4, tile_ticks=100, gate=20_000)
    result = run_streams(t, TABLES.bank, [OracleStream(consecutive(16))], [job])
    assert result.issued.max() < 1000
    assert result.job_done[0] == 20_000 + 4 * 100


def test_writes_follow_the_tiles_that_made_them() -> None:
    t = timing()
    tile_ticks = 3000
    streams = [OracleStream(consecutive(16)), OracleStream(consecutive(8, ROW_SET), write=True)]
    result = run_streams(t, TABLES.bank, streams, [OracleJob(tiles=4, tile_ticks=tile_ticks)])
    first_share = np.sort(result.issued[:32].reshape(2, 16), axis=1)[:, 3].max() + t.tCL + t.tBL
    admitted = result.admitted[32:].reshape(2, 8)
    expected = first_share + tile_ticks * (1 + np.arange(8) // 2)
    assert (admitted == expected).all()
    assert result.job_done[0] == result.issued[32:].max() + t.tCWL + t.tBL


def test_a_job_of_compute_alone() -> None:
    t = timing()
    stream = OracleStream([np.array([], np.int64)] * 2)
    result = run_streams(t, TABLES.bank, [stream], [OracleJob(tiles=3, tile_ticks=100, gate=7)])
    assert result.job_done[0] == 7 + 300


def test_streams_take_turns_at_the_queue() -> None:
    t = timing()
    streams = [OracleStream(consecutive(64)), OracleStream(consecutive(64, 8 * ROW_SET))]
    result = run_streams(t, TABLES.bank, streams, [OracleJob()])
    at_once = [(result.admitted[s * 128 : s * 128 + 64] == 0).sum() for s in range(2)]
    assert at_once == [t.read_queue // 2, t.read_queue // 2]
    assert (result.done >= 0).all()

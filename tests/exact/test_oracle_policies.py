"""Schedulers, page policies, the answering write queue and the shared bus of the oracle, where a pencil is enough.

HBM3 at 6.4 Gb/s, one pseudo-channel in use, ticks of 0.3125 ns.
"""

from __future__ import annotations

import numpy as np
import pytest
from dram_cases import Case, random_case, run_oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.config.loading import data_root, load_spec
from archsim.kernels import oracle
from archsim.kernels.histogram import BUCKETS, bucket_floor, bucket_of, quantile_bounds
from archsim.kernels.oracle import OracleResult, Trace
from archsim.kernels.timing import Command, Count, DramTiming, LogField, SchedulerMode
from archsim.memory.checker import check_commands
from archsim.memory.standard import ControllerSpec, DramStandard

STANDARD = load_spec(data_root() / "hwconfigs" / "memory" / "hbm3_16gb_8hi.yaml", DramStandard).spec
TABLES = STANDARD.address_tables(ControllerSpec())
ROW_SET = STANDARD.organisation.row_set
NEXT_COLUMN = STANDARD.organisation.bank_groups  # bursts to the next column of the same row
Request = tuple[int, int, int]  # address, write, arrival


def timing(refresh: str = "none", **changes: int) -> DramTiming:
    return STANDARD.timing(ControllerSpec(refresh=refresh))._replace(**changes)


def run(table: DramTiming, requests: list[Request]) -> OracleResult:
    """Requests of pseudo-channel 0. The log must be clean."""
    address, write, arrival = (np.array([request[k] for request in requests], np.int64) for k in range(3))
    trace = Trace(address, write.astype(np.int8), arrival, np.array([0, len(requests), len(requests)]))
    result = oracle.run_oracle(table, TABLES.bank, trace, log=True, column_table=TABLES.column)
    assert check_commands(table, result.log) == []
    return result


def ticks_of(result: OracleResult, command: Command) -> list[int]:
    return result.log[result.log[:, LogField.COMMAND] == command, LogField.TICK].tolist()


def hits_around_a_conflict(hits: int) -> list[Request]:
    """A read of row 0, one of row 1 of the same bank, and `hits` younger ones of row 0, all there at tick 0."""
    return [(0, 0, 0), (ROW_SET, 0, 0), *((NEXT_COLUMN * (1 + k), 0, 0) for k in range(hits))]


# ---- schedulers ------------------------------------------------------------------------------------------------------


def test_fr_fcfs_serves_every_hit_before_the_conflict() -> None:
    issued = run(timing(), hits_around_a_conflict(20)).issued
    assert (issued[2:] < issued[1]).all()


@pytest.mark.parametrize("cap", [1, 4, 16])
def test_a_cap_closes_the_row_after_so_many_passed_the_older_request(cap: int) -> None:
    t = timing(row_hit_cap=cap)
    result = run(t, hits_around_a_conflict(20))
    passed = result.issued[2:] < result.issued[1]
    assert passed.tolist() == [True] * cap + [False] * (20 - cap)
    closed = max(t.tRCDRD + cap * t.tCCDL + t.tRTP, t.tRAS)
    assert result.issued[1] == max(-(-(closed + t.tRP) // 2) * 2, t.tRC) + t.tRCDRD


def test_hits_that_pass_nobody_are_not_capped() -> None:
    stream = [(NEXT_COLUMN * k, 0, 0) for k in range(20)]
    assert (run(timing(row_hit_cap=2), stream).issued == run(timing(), stream).issued).all()


def test_fcfs_serves_in_order_of_age() -> None:
    t = timing(scheduler=int(SchedulerMode.FCFS))
    random = np.random.default_rng(4)
    requests = [(int(a), 0, 0) for a in random.integers(0, 1 << 14, 200)]
    issued = run(t, requests).issued
    assert (np.diff(issued) > 0).all()
    assert (np.diff(run(timing(), requests).issued) < 0).any()


def test_fcfs_opens_no_row_ahead() -> None:
    """Two banks: the second ACT waits for the first read, and the second read for tRCDRD after it."""
    t = timing(scheduler=int(SchedulerMode.FCFS))
    issued = run(t, [(0, 0, 0), (1, 0, 0)]).issued
    assert issued.tolist() == [t.tRCDRD, 2 * t.tRCDRD]


def test_a_starved_request_goes_first() -> None:
    wait = 200
    t = timing(starve_after=wait)
    result = run(t, hits_around_a_conflict(31))
    before = np.delete(result.issued, 1) < result.issued[1]
    last_hit = np.delete(result.issued, 1)[before].max()
    assert wait - t.tCCDL <= last_hit < wait
    assert result.issued[1] == last_hit + t.tRTP + t.tRP + t.tRCDRD
    late = run(timing(starve_after=100_000), hits_around_a_conflict(31))
    assert (late.issued == run(timing(), hits_around_a_conflict(31)).issued).all()


# ---- page policies ---------------------------------------------------------------------------------------------------


def test_a_closed_page_is_precharged_as_soon_as_legal() -> None:
    t = timing(page_timeout=0)
    result = run(t, [(0, 0, 0), (NEXT_COLUMN, 0, 1000)])
    closed = max(t.tRAS, t.tRCDRD + t.tRTP)
    assert ticks_of(result, Command.PRE)[0] == closed
    assert result.done[1] - 1000 == t.tRCDRD + t.tCL + t.tBL
    assert result.counts[Count.MISSES] == 2


def test_a_closed_page_waits_for_queued_hits_of_either_direction() -> None:
    """A write below the watermark waits for the reads; its row stays open until it has come."""
    t = timing(page_timeout=0)
    reads = [(ROW_SET * k + 1, 0, 0) for k in range(3)]  # three rows of another bank
    result = run(t, [(0, 0, 0), (NEXT_COLUMN, 1, 0), *reads])
    assert result.issued[1] > result.issued[2:].max()
    assert (
        result.log[(result.log[:, LogField.COMMAND] == Command.ACT) & (result.log[:, LogField.BANK_GROUP] == 0)].shape[
            0
        ]
        == 1
    )
    assert result.counts[Count.HITS] == 1


@pytest.mark.parametrize(("arrival", "outcome"), [(0, Count.HITS), (1, Count.MISSES)])
def test_an_adaptive_page_times_out(arrival: int, outcome: Count) -> None:
    """A request that is queued in the tick of the timeout still finds the row open, one a tick later does not."""
    timeout = 600
    t = timing(page_timeout=timeout)
    result = run(t, [(0, 0, 0), (NEXT_COLUMN, 0, t.tRCDRD + timeout + arrival)])
    assert result.counts[outcome] == (1 if outcome == Count.HITS else 2)
    assert ticks_of(result, Command.PRE)[:1] == ([t.tRCDRD + timeout] if arrival else [])


# ---- the write queue answers -----------------------------------------------------------------------------------------


def test_a_read_of_a_queued_write_is_forwarded() -> None:
    reads = [(ROW_SET * k, 0, 0) for k in range(4)]
    requests = [*reads, (7, 1, 0), (7, 0, 10)]
    t = timing(write_forwarding=1, forward_ticks=6)
    result = run(t, requests)
    assert result.done[-1] == 10 + 6
    assert (result.counts[Count.FORWARDED], result.counts[Count.RD], result.counts[Count.WR]) == (1, 4, 1)
    assert run(timing(), requests).done[-1] > 100


def test_a_read_of_another_burst_of_the_row_is_not_forwarded() -> None:
    t = timing(write_forwarding=1, forward_ticks=6)
    assert run(t, [(0, 0, 0), (7, 1, 0), (7 + NEXT_COLUMN, 0, 0)]).counts[Count.FORWARDED] == 0


def test_a_write_to_a_queued_address_merges() -> None:
    t = timing(write_coalescing=1, forward_ticks=4)
    result = run(t, [(5, 1, 0), (5, 1, 3), (5, 1, 9000)])
    assert result.done[1] == 3 + 4
    assert (result.counts[Count.COALESCED], result.counts[Count.WR]) == (1, 2)  # the third finds the queue empty


# ---- command bus and write to write ----------------------------------------------------------------------------------


def test_row_commands_wait_for_the_column_commands_of_a_shared_bus() -> None:
    """Two banks: the read of the first comes when the ACT of the second has left the bus, not beside it."""
    between = 2 * ((timing().tRCDRD - 1) // 2)
    requests = [(0, 0, 0), (1, 0, between)]
    separate, shared = run(timing(), requests), run(timing(shared_command_bus=1), requests)
    t = timing()
    assert separate.issued[0] == t.tRCDRD
    assert shared.issued[0] == between + -(-t.activate_ticks // 2) * 2
    assert shared.issued[0] > separate.issued[0]


def test_writes_of_a_group_keep_their_own_distance() -> None:
    t = timing(tCCDLW=24)
    writes = [(NEXT_COLUMN * k, 1, 0) for k in range(8)]
    assert np.diff(run(t, writes).issued).tolist() == [24] * 7
    assert np.diff(run(timing(), writes).issued).tolist() == [t.tCCDL] * 7
    reads = [(NEXT_COLUMN * k, 0, 0) for k in range(8)]
    assert np.diff(run(t, reads).issued).tolist() == [t.tCCDL] * 7


# ---- latencies -------------------------------------------------------------------------------------------------------


def test_buckets_follow_one_another_and_are_narrow() -> None:
    floors = [bucket_floor(k) for k in range(BUCKETS)]
    for k, floor in enumerate(floors):
        assert bucket_of(np.int64(floor)) == k
        if k:
            assert bucket_of(np.int64(floor - 1)) == k - 1
            assert floor - floors[k - 1] <= max(1, floors[k - 1] // 8)
    assert bucket_of(np.int64(1 << 36)) == BUCKETS - 1


def test_the_histogram_counts_every_latency() -> None:
    random = np.random.default_rng(8)
    n = 600
    arrival = np.cumsum(random.integers(0, 60, n))
    write = random.random(n) < 0.3
    requests = list(zip(random.integers(0, 1 << 12, n).tolist(), write.tolist(), arrival.tolist(), strict=True))
    result = run(timing("all_bank", latency_histogram=1, write_forwarding=1, forward_ticks=4), requests)
    latency = result.done - arrival
    for direction in range(2):
        expected = np.bincount([bucket_of(value) for value in latency[write == direction]], minlength=BUCKETS)
        assert (result.histogram[direction] == expected).all()
    low, high = quantile_bounds(result.histogram[0], 0.99)
    assert low <= np.quantile(latency[~write], 0.99, method="inverted_cdf") < high
    assert run(timing(), requests).histogram.sum() == 0
    with pytest.raises(ValueError, match="quantile of 0 latencies"):
        quantile_bounds(np.zeros(BUCKETS, np.int64), 0.5)


# ---- all at random ---------------------------------------------------------------------------------------------------


def with_everything(seed: int) -> tuple[Case, OracleResult]:
    case = random_case(seed, requests=120, policies=True)
    return case, run_oracle(case, run_until=6000)


@settings(max_examples=80)
@given(st.integers(0, 2**32 - 1))
def test_any_mixture_of_policies_keeps_the_timings(seed: int) -> None:
    """Random mixtures obey every rule of the checker, serve every request, and count what they do."""
    case, result = with_everything(seed)
    broken = {violation.rule for violation in check_commands(case.timing, result.log)}
    assert broken <= {"refresh overdue"}  # the random intervals may ask for more than fits
    counts, requests = result.counts, len(result.done)
    assert (result.done >= 0).all()
    answered = counts[Count.FORWARDED] + counts[Count.COALESCED]
    assert counts[Count.HITS : Count.CONFLICTS + 1].sum() + answered == requests
    assert counts[Count.RD] + counts[Count.WR] + answered == requests
    logged = np.bincount(result.log[:, LogField.COMMAND], minlength=len(Command))
    assert [counts[Count[command.name]] for command in Command] == logged.tolist()
    assert counts[Count.PDE] - counts[Count.PDX] in range(case.timing.pseudo_channels + 1)
    assert result.histogram.sum() == (requests if case.timing.latency_histogram else 0)

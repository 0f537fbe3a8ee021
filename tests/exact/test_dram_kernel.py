"""The kernel does what the oracle does: every command, count and completion, and what a pencil says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dram_cases import (
    FEATURE_SETS,
    HORIZON,
    REFRESH_MODES,
    Case,
    Feature,
    address_tables,
    differences,
    feature_case,
    random_case,
    random_timing,
    run_kernel,
    run_oracle,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_python import run_plain_python

from archsim.kernels import channel
from archsim.kernels.oracle import OracleJob, OracleStream
from archsim.kernels.timing import Count, DramTiming

SEEDS = st.integers(0, 2**32 - 1)


def feature_names(features: frozenset[Feature]) -> str:
    return " ".join(sorted(feature.name.lower() for feature in features))


@settings(max_examples=240)
@given(SEEDS, st.sampled_from(REFRESH_MODES), st.integers(1, 2), st.integers(1, 4), st.sampled_from([1, 2]))
def test_kernel_equals_oracle(seed: int, refresh: int, pseudo_channels: int, stack_ids: int, ticks_per_ck: int) -> None:
    case = random_case(seed, refresh, pseudo_channels, stack_ids, ticks_per_ck)
    expected = run_oracle(case)
    assert differences(case, run_kernel(case, expected.ticks), expected) == []


@pytest.mark.interpreted
@settings(max_examples=120)
@given(SEEDS, st.sampled_from(REFRESH_MODES))
def test_front_policies_equal_the_oracle(seed: int, refresh: int) -> None:
    case = random_case(seed, refresh, front=True)
    expected = run_oracle(case)
    assert differences(case, run_kernel(case, expected.ticks), expected) == []


@pytest.mark.interpreted
@pytest.mark.parametrize("features", FEATURE_SETS, ids=feature_names)
@settings(max_examples=60)
@given(SEEDS, st.sampled_from(REFRESH_MODES), st.integers(1, 2), st.booleans())
def test_kernel_equals_oracle_with_features(
    features: frozenset[Feature], seed: int, refresh: int, pseudo_channels: int, front: bool
) -> None:
    """Also in the idle time after the last request, where refreshes come early and pseudo-channels power down."""
    case = feature_case(seed, features, requests=100, refresh=refresh, pseudo_channels=pseudo_channels, front=front)
    expected = run_oracle(case, run_until=(seed % 2) * 12_000)
    assert differences(case, run_kernel(case, expected.ticks), expected) == []


@pytest.mark.interpreted
@settings(max_examples=30)
@given(SEEDS, st.lists(st.integers(1, 20_000), min_size=1, max_size=40))
def test_a_run_in_pieces_is_the_same_run_with_all_features(seed: int, cuts: list[int]) -> None:
    case = feature_case(seed, frozenset(Feature), pseudo_channels=2)
    whole, pieces = run_kernel(case, 20_001), run_kernel(case, 20_001, cuts)
    assert np.array_equal(whole.log, pieces.log)
    assert np.array_equal(whole.counts, pieces.counts)
    assert np.array_equal(whole.job_done, pieces.job_done)


@settings(max_examples=60)
@given(SEEDS, st.lists(st.integers(1, 20_000), min_size=1, max_size=40))
def test_a_run_in_pieces_is_the_same_run(seed: int, cuts: list[int]) -> None:
    case = random_case(seed)
    whole, pieces = run_kernel(case, 20_001), run_kernel(case, 20_001, cuts)
    assert np.array_equal(whole.log, pieces.log)
    assert np.array_equal(whole.counts, pieces.counts)
    assert np.array_equal(whole.done, pieces.done)
    assert np.array_equal(whole.job_done, pieces.job_done)


@settings(max_examples=20)
@given(SEEDS, st.sampled_from(REFRESH_MODES[1:]))
def test_refresh_goes_on_in_idle_time(seed: int, refresh: int) -> None:
    case = random_case(seed, refresh, requests=20)
    expected = run_oracle(case, run_until=12_000)
    assert differences(case, run_kernel(case, expected.ticks), expected) == []


PLAIN_PYTHON = """
import numpy as np
from archsim.kernels import admission, channel, dram
from dram_cases import Feature, feature_case, random_case, run_kernel
from plain_python import Guarded

def case_of(seed):
    return feature_case(seed, frozenset(Feature), requests=40) if seed % 3 == 0 else random_case(seed, requests=40)

admission.AGE_SPAN = 40  # ages are renumbered all the time
with np.load(PATH) as saved:
    for seed in SEEDS:
        case = case_of(seed)
        state = channel.new_state(case.timing).view(Guarded)
        result = run_kernel(case, int(saved[f"{seed} ticks"]), state=state)
        assert np.array_equal(result.log, saved[f"{seed} log"]), seed
        assert np.array_equal(result.counts, saved[f"{seed} counts"]), seed
        assert np.array_equal(result.job_done, saved[f"{seed} job_done"]), seed
"""


def test_plain_python_stays_inside_its_arrays(tmp_path: Path) -> None:
    """Without compilation: indices are checked, and queued requests get new ages at every other admission."""
    seeds = range(12)
    saved = {}
    for seed in seeds:
        everything = feature_case(seed, frozenset(Feature), requests=40)
        expected = run_oracle(everything if seed % 3 == 0 else random_case(seed, requests=40))
        fields = ("ticks", "log", "counts", "job_done")
        saved |= {f"{seed} {field}": np.asarray(getattr(expected, field)) for field in fields}
    np.savez(tmp_path / "expected.npz", **saved)
    program = f"PATH = {str(tmp_path / 'expected.npz')!r}\nSEEDS = {list(seeds)}\n" + PLAIN_PYTHON
    run_plain_python(program)


# ---- closed forms ----------------------------------------------------------------------------------------------------


def hbm3(refresh: int = 0, **changes: int) -> DramTiming:
    """HBM3 at 6.4 Gb/s in clocks, one pseudo-channel of 16 banks."""
    table = random_timing(np.random.default_rng(0), refresh, 1, 1, 1)
    return table._replace(
        bank_groups=4, banks_per_group=4, columns=32, column_ticks=1, activate_ticks=1, precharge_ticks=1, tCL=20,
        tCWL=10, tBL=2, tRCDRD=31, tRCDWR=15, tRP=26, tRAS=45, tRC=72, tRTP=9, tWR=33, tCCDS=2, tCCDL=4, tCCDR=3,
        tRRDS=4, tRRDL=5, tFAW=24, tWTRS=7, tWTRL=10, tRTW=20, tPPD=2, tRFCab=560, tRFCpb=320, tRREFD=13, tREFI=6240,
        tREFIpb=390, refresh_stagger=0, read_queue=32, write_queue=32, write_high=24, write_low=8,
    )._replace(**changes)  # fmt: skip


def case_of(q: DramTiming, *streams: OracleStream) -> Case:
    return Case(q, *address_tables(q), streams, (OracleJob(),))


def reads(n: int, first: int = 0) -> OracleStream:
    return OracleStream([first + np.arange(n)])


def trace(requests: list[tuple[int, int, int]]) -> OracleStream:
    """(address, write, arrival)."""
    address, write, arrival = (np.array([request[k] for request in requests], np.int64) for k in range(3))
    return OracleStream([address], arrivals=[arrival], writes=[write])


def test_unloaded_latencies() -> None:
    q = hbm3()
    row_set = len(address_tables(q)[0])
    case = case_of(q, trace([(0, 0, 100), (4, 0, 1000), (4 + row_set, 0, 2000), (5, 1, 3000)]))
    latency = run_kernel(case).done - np.array([100, 1000, 2000, 3000])
    data = q.tCL + q.tBL
    assert latency.tolist() == [q.tRCDRD + data, data, q.tRP + q.tRCDRD + data, q.tRCDWR + q.tCWL + q.tBL]


def test_a_stream_fills_the_bus_but_for_refresh() -> None:
    n = 200_000
    without = run_kernel(case_of(hbm3(), reads(n)), log_rows=0)
    q = hbm3(1)
    with_refresh = run_kernel(case_of(q, reads(n)), log_rows=0)
    assert without.job_done[0] - n * q.tCCDS < 100
    refreshes = int(with_refresh.counts[Count.REFAB])
    assert refreshes == with_refresh.job_done[0] // q.tREFI
    lost = (with_refresh.job_done[0] - without.job_done[0]) / refreshes
    assert q.tRFCab < lost <= q.tRFCab + q.tRTP + q.tRP + q.tRCDRD + q.tFAW


@pytest.mark.parametrize("refresh", REFRESH_MODES)
def test_causes_tile_the_time_of_the_data_bus(refresh: int) -> None:
    random = np.random.default_rng(5)
    n = 20_000
    arrival = np.cumsum(random.integers(0, 30, n))
    requests = list(zip(random.integers(0, 1 << 14, n), random.random(n) < 0.3, arrival, strict=True))
    q = hbm3(refresh)
    result = run_kernel(case_of(q, trace(requests)), log_rows=0)
    counts = result.counts
    assert counts[Count.BUSY : Count.IDLE + 1].sum() == channel.ChannelView(result.state).slot_end[0]
    assert counts[Count.BUSY] == n * q.tCCDS
    assert counts[Count.HITS : Count.CONFLICTS + 1].sum() == n
    assert counts[Count.LATENCY] == (result.done - arrival).sum()


def test_a_write_that_waits_through_many_reads() -> None:
    """Below the low watermark a write waits for as long as there are reads: here for more of them than ages in keys."""
    n = channel.AGE_SPAN + 20_000
    q = hbm3(1)
    alone = run_kernel(case_of(q, reads(n)), log_rows=0)
    write = OracleStream([np.array([1 << 24])], write=True)
    beside = run_kernel(case_of(q, reads(n), write), log_rows=0)
    extra = beside.job_done[0] - alone.job_done[0]
    assert 0 < extra < q.tRTW + q.tRP + q.tRCDWR + q.tREFI
    assert beside.counts[Count.WR] == 1


def test_a_channel_with_nothing_to_do_reaches_the_horizon() -> None:
    q = hbm3()
    state = channel.new_state(q)
    result = run_kernel(Case(q, *address_tables(q), (), ()), 1000, state=state)
    assert result.state[channel.NOW] == 1000
    assert result.counts.sum() == 0
    assert HORIZON > 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pseudo_channels": 3}, "3 pseudo-channels"),
        ({"banks_per_group": 32}, "banks per pseudo-channel"),
        ({"read_queue": 0}, "0 read queue entries"),
        ({"ticks_per_ck": 3}, "power of two"),
    ],
)
def test_what_the_kernel_has_no_room_for(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        channel.new_state(hbm3(**change))

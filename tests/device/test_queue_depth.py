"""What a deeper queue promises (docs/validation.md, "DRAM: depth of the queues"): a sequential read without refresh is
never slower; everything else is by no more than a measured bound, and a pencil shows why."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from dram_cases import Case, run_kernel

from archsim.kernels.oracle import OracleJob, OracleStream
from archsim.kernels.timing import Command, DramTiming, LogField, RefreshMode
from archsim.memory.standard import RefreshPolicy

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from queue_depth import DEPTHS, FIXED_WRITE_QUEUE, MEMORIES, Traffic, ticks, worst

OFTEN = ("hbm3_16gb_8hi", "hbm4_36gb_12hi")
NAMES = [pytest.param(name, marks=() if name in OFTEN else pytest.mark.validate) for name in MEMORIES]


@pytest.mark.parametrize("memory", NAMES)
def test_a_sequential_read_without_refresh_is_never_slower(memory: str) -> None:
    ends = [ticks(memory, RefreshPolicy.NONE, Traffic.STREAM, depth, bursts=4000) for depth in DEPTHS]
    assert ends == sorted(ends, reverse=True)
    assert ends[0] > ends[-1]


@pytest.mark.validate
@pytest.mark.parametrize("bursts", [777, 5000, 30_000])
@pytest.mark.parametrize("memory", MEMORIES)
def test_nor_is_it_at_any_depth_and_length(memory: str, bursts: int) -> None:
    ends = [ticks(memory, RefreshPolicy.NONE, Traffic.STREAM, depth, bursts=bursts) for depth in range(1, 129)]
    assert ends == sorted(ends, reverse=True)


BOUNDS = {  # per cent slower than a shallower queue: without refresh, all-bank, per-bank
    (Traffic.STREAM, None): (0.0, 0.16, 0.36),
    (Traffic.TWO_STREAMS, None): (0.0, 0.0, 0.0),
    (Traffic.TWO_STREAMS, FIXED_WRITE_QUEUE): (11.6, 9.2, 7.1),
    (Traffic.RANDOM, None): (0.03, 0.05, 0.85),
    (Traffic.MIXED, None): (0.0, 0.0, 0.0),
    (Traffic.MIXED, FIXED_WRITE_QUEUE): (0.72, 0.67, 1.71),
}


@pytest.mark.validate
@pytest.mark.parametrize(("traffic", "write_queue"), BOUNDS)
def test_elsewhere_it_is_slower_by_no_more_than_was_measured(traffic: Traffic, write_queue: int | None) -> None:
    policies = (RefreshPolicy.NONE, RefreshPolicy.ALL_BANK, RefreshPolicy.PER_BANK)
    for refresh, bound in zip(policies, BOUNDS[traffic, write_queue], strict=True):
        found = worst(traffic, refresh, write_queue)
        assert 100 * found.share <= bound, found


def five_reads(depth: int) -> tuple[list[tuple[int, str, int, int]], int]:
    """Commands (tick, name, bank, row) and end of five reads that a queue of so many entries takes in order: bank 0
    row 0 twice, bank 0 row 1, bank 1 row 0, bank 0 row 0."""
    q = DramTiming(
        ticks_per_ck=1, pseudo_channels=1, stack_ids=1, bank_groups=1, banks_per_group=2, columns=4, burst_bytes=32,
        column_ticks=1, activate_ticks=1, precharge_ticks=1, tCL=4, tCWL=2, tBL=2, tRCDRD=4, tRCDWR=4, tRP=4, tRAS=8,
        tRC=12, tRTP=2, tWR=4, tCCDS=2, tCCDL=2, tCCDR=0, tRRDS=4, tRRDL=4, tFAW=16, tWTRS=2, tWTRL=2, tRTW=6, tPPD=0,
        tRFCab=60, tRFCpb=40, tRREFD=4, tREFI=4000, tREFIpb=1000, refresh_mode=int(RefreshMode.NONE),
        refresh_stagger=0, read_queue=depth, write_queue=4, write_high=3, write_low=1,
    )  # fmt: skip
    banks, rows = np.array([0, 0, 0, 1, 0]), np.array([0, 0, 1, 0, 0])
    stream = OracleStream([rows * 8 + banks * 4], arrivals=[np.zeros(5, np.int64)])
    tables = np.repeat(np.arange(2), 4), np.tile(np.arange(4), 2)
    result = run_kernel(Case(q, *tables, (stream,), (OracleJob(),)))
    fields = (LogField.TICK, LogField.COMMAND, LogField.BANK, LogField.ROW)
    log = [tuple(int(row[field]) for field in fields) for row in result.log]
    return [(tick, Command(command).name, bank, row) for tick, command, bank, row in log], int(result.job_done[0])


def test_the_smallest_anomaly_by_pencil() -> None:
    """The fourth entry lets bank 1 open a tick earlier. Its read, now ready, is older than the last hit of bank 0 and
    goes first, as FR-FCFS has it; so bank 0, on which everything waits, is closed two ticks later."""
    three, end_of_three = five_reads(3)
    four, end_of_four = five_reads(4)
    assert three == [
        (0, "ACT", 0, 0), (4, "RD", 0, 0), (5, "ACT", 1, 0), (6, "RD", 0, 0), (8, "RD", 0, 0), (10, "RD", 1, 0),
        (10, "PRE", 0, -1), (14, "ACT", 0, 1), (18, "RD", 0, 1),
    ]  # fmt: skip
    assert four == [
        (0, "ACT", 0, 0), (4, "RD", 0, 0), (4, "ACT", 1, 0), (6, "RD", 0, 0), (8, "RD", 1, 0), (10, "RD", 0, 0),
        (12, "PRE", 0, -1), (16, "ACT", 0, 1), (20, "RD", 0, 1),
    ]  # fmt: skip
    assert (end_of_three, end_of_four) == (24, 26)

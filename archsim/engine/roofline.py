"""Records of operators at `fidelity: roofline`: the bound that no machine can beat, with the bytes as lowered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from archsim.engine.outcome import engine_counts, record_of
from archsim.engine.prepare import Prepared
from archsim.kernels.program import END_FS, START_FS
from archsim.records import CAUSES, OperatorRecord, OperatorTrace, TierCounts


def bound_records(
    trace: OperatorTrace, prepared: Sequence[Prepared], outcomes: np.ndarray, burst_bytes: int, iteration: int
) -> list[OperatorRecord]:
    """One record per operator: all of its time is what bounds it, and its bytes are the lowered ones."""
    return [
        _bound_record(trace, item, int(outcome[START_FS]), int(outcome[END_FS]), iteration, burst_bytes)
        for item, outcome in zip(prepared, outcomes, strict=True)
    ]


def overlapped(prepared: Sequence[Prepared]) -> list[Prepared]:
    """Bounds of a trace in which PIM and the device go on together: the larger of the two's sums, so that an operator
    on PIM has its share of what PIM's sum is larger by, and none if it isn't."""
    device_fs = sum(item.roofline_fs for item in prepared if not item.pim_alone)
    pim_fs = sum(item.pim.bound_fs for item in prepared if item.pim is not None)
    alone_fs = sum(item.roofline_fs for item in prepared if item.pim_alone)
    surplus_fs = max(0, pim_fs - device_fs)
    return [
        replace(item, roofline_fs=min(surplus_fs, alone_fs) * item.roofline_fs // alone_fs) if item.pim_alone else item
        for item in prepared
    ]


def _bound_record(
    trace: OperatorTrace, item: Prepared, start_fs: int, end_fs: int, iteration: int, burst_bytes: int
) -> OperatorRecord:
    """One operator that took exactly its bound, all of it for the one cause that sets the bound."""
    cause_fs = dict.fromkeys(CAUSES, 0)
    cause = "link" if item.link_fs else "transfer" if item.memory_fs >= item.roofline_fs else "compute"
    if item.noc_bound_fs > item.memory_fs and item.noc_bound_fs >= item.roofline_fs:
        cause = "noc"
    if item.tier_fs and item.tier_fs >= item.roofline_fs:
        cause = "tier"
    if item.pim_alone or (item.pim is not None and item.pim.bound_fs >= item.roofline_fs):
        cause = "pim"
    cause_fs[cause] = end_fs - start_fs
    counts = engine_counts((item,))
    writes = sum(data.bursts for data in item.transfer.ranges if data.write) if item.transfer is not None else 0
    reads = sum(data.bursts for data in item.transfer.ranges if not data.write) if item.transfer is not None else 0
    total = max(1, reads + writes)
    counts.dram_write_bytes = item.memory_bytes * writes // total
    counts.dram_read_bytes = item.memory_bytes - counts.dram_write_bytes
    counts.dram_reads = -(-counts.dram_read_bytes // burst_bytes)
    counts.dram_writes = -(-counts.dram_write_bytes // burst_bytes)
    for name, part in item.parts.items():
        counts.tiers[name] = TierCounts(read_bytes=part.read_bytes, write_bytes=part.write_bytes)
    counts.noc_bytes = item.memory_bytes + sum(part.read_bytes + part.write_bytes for part in item.parts.values())
    counts.noc_bytes += counts.pim.host_bytes if counts.pim is not None else 0
    return record_of(trace, item, iteration, start_fs, end_fs, cause_fs, counts)

"""From what the memory reported to operator records: where each operator's time went, what it counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from archsim.engine.prepare import Prepared
from archsim.engine.tiers import TierOutcome, tier_bound_fs
from archsim.kernels.program import END_FS, FIRST_COUNT, START_FS, STREAM_END_FS, STREAM_START_FS
from archsim.kernels.timing import Count
from archsim.memory.main import MainMemory
from archsim.records import CAUSES, Counts, OperatorKind, OperatorRecord, OperatorTrace, TierCounts
from archsim.system import DeviceSpec

MEMORY_CAUSES = (
    ("transfer", Count.BUSY),
    ("refresh", Count.REFRESH),
    ("turnaround", Count.TURNAROUND),
    ("row", Count.ROW),
)


def cause_table(
    prepared: Sequence[Prepared],
    outcomes: np.ndarray,
    memory: MainMemory,
    tiers: Sequence[TierOutcome],
    pim_waits: Sequence[int],
) -> np.ndarray:
    """int64[n, len(CAUSES)]: the time of each operator by cause, in femtoseconds, tiling it exactly.

    Memory causes are the data bus's time, mean over the pseudo-channels, granted in the order of `MEMORY_CAUSES` until
    the stream's time is used; PIM's are `pim_waits`, or all that is left of an operator on PIM but what the host adds;
    what is left then is another tier's (data that arrive while the operator runs, at the
    tier's ceiling, or waiting for them if that is longer), then the simulated network's where that is slower than the
    engines, or the engines', up to their own time; the rest is pipeline fill."""
    column = {cause: k for k, cause in enumerate(CAUSES)}
    table = np.zeros((len(prepared), len(CAUSES)), np.int64)
    through_memory = np.array([item.transfer is not None for item in prepared])
    engine = np.array([item.engine_fs for item in prepared], np.int64)
    launch = np.array([item.launch_fs for item in prepared], np.int64)
    link = np.array([item.link_fs for item in prepared], np.int64)
    left = outcomes[:, STREAM_END_FS] - outcomes[:, STREAM_START_FS]
    numerator, denominator = memory.tick_fs.numerator, memory.tick_fs.denominator
    for cause, count in MEMORY_CAUSES:
        mean = outcomes[:, FIRST_COUNT + count] // memory.channels
        bus_fs = -(-mean * numerator // denominator) // (memory.pseudo_channels // memory.channels)
        share = np.where(through_memory, np.minimum(left, bus_fs), 0)
        table[:, column[cause]] = share
        left = left - share
    if tiers:
        table[:, column["tier"]] = np.minimum(left, [max(one.wait_fs, one.data_fs) for one in tiers])
        left = left - table[:, column["tier"]]
    if any(item.pim_alone for item in prepared) and not pim_waits:
        alone = np.array([item.pim_alone for item in prepared])
        table[:, column["pim"]] = np.where(alone, np.maximum(left - engine, 0), 0)
        left = left - table[:, column["pim"]]
    elif pim_waits:
        table[:, column["pim"]] = pim_waits
    table[:, column["link"]] = link
    left = left - link
    table[:, column["noc"]] = np.minimum(left, [item.noc_fs for item in prepared])
    left = left - table[:, column["noc"]]
    table[:, column["compute"]] = np.minimum(left, engine)
    table[:, column["launch"]] = np.minimum(launch, outcomes[:, STREAM_START_FS] - outcomes[:, START_FS])
    duration = outcomes[:, END_FS] - outcomes[:, START_FS]
    table[:, column["fill"]] = duration - table.sum(axis=1)
    return table


def records_of(
    trace: OperatorTrace,
    prepared: Sequence[Prepared],
    outcomes: np.ndarray,
    memory: MainMemory,
    iteration: int,
    tiers: Sequence[TierOutcome] = (),
    pim_waits: Sequence[int] = (),
) -> list[OperatorRecord]:
    """One record per operator."""
    table = cause_table(prepared, outcomes, memory, tiers, pim_waits)
    assert (table >= 0).all(), "an operator's causes don't tile its time"
    records = []
    for index, (item, outcome, causes) in enumerate(zip(prepared, outcomes, table.tolist(), strict=True)):
        cause_fs = dict(zip(CAUSES, causes, strict=True))
        counts = engine_counts((item,))
        memory.add_counts(outcome[FIRST_COUNT:], counts)
        _count_traffic(counts, item.padding_bytes, tiers[index : index + 1])
        records.append(
            record_of(trace, item, iteration, int(outcome[START_FS]), int(outcome[END_FS]), cause_fs, counts)
        )
    return records


def engine_counts(prepared: Sequence[Prepared]) -> Counts:
    """What operators count besides their memory, added up: a sum of its own, to be added to."""
    total = Counts()
    for part in (item.counts for item in prepared):
        total.buffer_read_bytes += part.buffer_read_bytes
        total.buffer_write_bytes += part.buffer_write_bytes
        total.link_bytes += part.link_bytes
        total.vector_flops += part.vector_flops
        for fmt, macs in part.matrix_macs.items():
            total.matrix_macs[fmt] = total.matrix_macs.get(fmt, 0) + macs
        if part.pim is not None:
            total.add(Counts(pim=part.pim))
    return total


def record_of(
    trace: OperatorTrace,
    item: Prepared,
    iteration: int,
    start_fs: int,
    end_fs: int,
    cause_fs: dict[str, int],
    counts: Counts,
) -> OperatorRecord:
    """The record of one operator."""
    operator = item.operator
    return OperatorRecord(
        name=operator.name,
        kind=operator.kind,
        layer=operator.layer,
        phase=trace.phase,
        iteration=iteration,
        start_fs=start_fs,
        end_fs=end_fs,
        bound=bound_of(cause_fs),
        roofline_fs=item.roofline_fs,
        cause_fs=cause_fs,
        matrix_flops=0 if item.pim_alone else operator.matrix_flops,  # PIM's are counts.pim.macs
        vector_flops=operator.vector_flops,
        counts=counts,
    )


@dataclass(slots=True)
class _Group:
    """The operators of an iteration that differ in their layer alone, added up."""

    kind: OperatorKind
    members: list[int]
    roofline_fs: int = 0
    matrix_flops: int = 0
    vector_flops: int = 0
    padding_bytes: int = 0


def folded_records_of(
    trace: OperatorTrace,
    prepared: Sequence[Prepared],
    outcomes: np.ndarray,
    memory: MainMemory,
    iteration: int,
    tiers: Sequence[TierOutcome] = (),
    pim_waits: Sequence[int] = (),
) -> list[OperatorRecord]:
    """One record for all layers' operators of a name ("32 x qkv_proj"), laid end to end over the iteration's time.

    A server runs millions of operators; their sums per iteration are exact, the order within it is given up."""
    table = cause_table(prepared, outcomes, memory, tiers, pim_waits)
    assert (table >= 0).all(), "an operator's causes don't tile its time"
    groups: dict[str, _Group] = {}
    for index, item in enumerate(prepared):
        group = groups.get(item.group)
        if group is None:
            group = groups[item.group] = _Group(item.operator.kind, [])
        group.members.append(index)
        group.roofline_fs += item.roofline_fs
        group.matrix_flops += 0 if item.pim_alone else item.operator.matrix_flops
        group.vector_flops += item.operator.vector_flops
        group.padding_bytes += item.padding_bytes
    records = []
    start_fs = int(outcomes[0, START_FS])
    for name, group in groups.items():
        cause_fs = dict(zip(CAUSES, table[group.members].sum(axis=0).tolist(), strict=True))
        counts = engine_counts([prepared[index] for index in group.members])
        memory.add_counts(outcomes[group.members, FIRST_COUNT:].sum(axis=0), counts)
        _count_traffic(counts, group.padding_bytes, [tiers[index] for index in group.members] if tiers else ())
        end_fs = start_fs + sum(cause_fs.values())
        records.append(
            OperatorRecord(
                name=f"{len(group.members)} x {name}" if len(group.members) > 1 else name,
                kind=group.kind,
                layer=-1,
                phase=trace.phase,
                iteration=iteration,
                start_fs=start_fs,
                end_fs=end_fs,
                bound=bound_of(cause_fs),
                roofline_fs=group.roofline_fs,
                cause_fs=cause_fs,
                matrix_flops=group.matrix_flops,
                vector_flops=group.vector_flops,
                counts=counts,
            )
        )
        start_fs = end_fs
    return records


def bound_of(cause_fs: dict[str, int]) -> str:
    """What an operator's time mostly went to: memory, on-chip network, another tier, PIM, compute, link,
    latency (launch and fill)."""
    groups = {
        "memory": cause_fs["transfer"] + cause_fs["row"] + cause_fs["turnaround"] + cause_fs["refresh"],
        "noc": cause_fs["noc"],
        "tier": cause_fs["tier"],
        "pim": cause_fs["pim"],
        "compute": cause_fs["compute"],
        "link": cause_fs["link"],
        "latency": cause_fs["launch"] + cause_fs["fill"],
    }
    return max(groups, key=lambda name: groups[name])


def _count_traffic(counts: Counts, padding_bytes: int, tiers: Sequence[TierOutcome]) -> None:
    """What went over the on-chip network in an operator's time, and what pads its ranges to whole rounds of bursts."""
    for outcome in tiers:
        for name, part in outcome.counts.items():
            counts.tiers.setdefault(name, TierCounts()).add(part)
    beside = sum(part.read_bytes + part.write_bytes for part in counts.tiers.values())
    beside += counts.pim.host_bytes if counts.pim is not None else 0
    counts.noc_bytes = counts.dram_read_bytes + counts.dram_write_bytes + beside
    counts.dram_padding_bytes = padding_bytes


def check_bounds(prepared: Sequence[Prepared], outcomes: np.ndarray, device: DeviceSpec) -> None:
    """Nothing beats its roofline bound: no operator; where loads overlap other operators' work, no trace its bytes."""
    duration = outcomes[:, END_FS] - outcomes[:, START_FS]
    if device.prefetch or any(tier.staging is not None for tier in device.tiers.values()):
        least = {"memory": sum(item.memory_fs for item in prepared)}
        for name, tier in device.tiers.items():
            read_bytes = sum(item.parts[name].read_bytes for item in prepared if name in item.parts)
            least[name] = tier_bound_fs(read_bytes, tier)
        for name, bound_fs in least.items():
            assert duration.sum() >= bound_fs, f"a trace is faster than its bytes at the full rate of {name}"
        return
    bound = np.array([item.roofline_fs for item in prepared], np.int64)
    if device.pim is not None and device.pim.overlap.any:
        assert duration.sum() >= bound.sum(), "a trace is faster than PIM's bytes at the full rate of its units"
        bound[[item.pim_alone for item in prepared]] = 0  # `overlapped` has made them shares of the trace's
    too_fast = np.flatnonzero(duration < bound)
    assert not len(too_fast), f"{prepared[too_fast[0]].operator.name} is faster than its roofline bound"

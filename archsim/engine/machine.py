"""One machine running operator traces: a group of equal devices, of which one is simulated and stands for all.

The devices of a tensor-parallel group run the same operators on the same sizes at the same time, so they are one
class; the links between them carry the collectives. While nothing else happens in the simpy environment, a trace runs
as one chain in the memory's kernel; a device that prefetches runs it operator by operator. Where both are possible
they give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from archsim.config.errors import UserError
from archsim.engine.chain import chains, check_lengths, why_unfinished
from archsim.engine.main_memory import main_memory, with_hops
from archsim.engine.memory_port import MemoryPort, NoProgressError
from archsim.engine.outcome import check_bounds, folded_records_of, records_of
from archsim.engine.pim import PimUnit
from archsim.engine.pim_overlap import PimOverlap
from archsim.engine.placement import PagedKv
from archsim.engine.prepare import Prepared, Preparer
from archsim.engine.roofline import bound_records, overlapped
from archsim.engine.tiering import KvAges, TieredPlacement
from archsim.engine.tiers import TierOutcome, Tiers
from archsim.engine.work import COLLECTIVE_KINDS
from archsim.kernels.program import (
    END_FS,
    FIRST_COUNT,
    FIRST_RANGE,
    OPERATOR_WORDS,
    OUTCOME_WORDS,
    START_FS,
    STREAM_END_FS,
    STREAM_START_FS,
)
from archsim.memory.device import HbmDevice, StuckMemoryError
from archsim.record_log import OperatorLog
from archsim.records import Access, BandwidthSample, Operator, OperatorRecord, OperatorTrace, Span
from archsim.system import SystemSpec

Step = Callable[[int], object]
"""Told how many more operators have finished."""


@dataclass(slots=True)
class Trail:
    """What a machine has recorded: operators in order (packed if they are folded), boxes and bandwidth samples for the
    timeline."""

    operators: list[OperatorRecord] | OperatorLog = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    bandwidth: list[BandwidthSample] = field(default_factory=list)


class Machine:
    """A system with its simulated memory, ready to run operator traces one after the other.

    Args:
        system: the machine.
        devices: how many of its devices work together (the tensor-parallel degree).
        cycle: simulate memory cycle by cycle; otherwise every operator takes its roofline bound.
        shortcuts: let the memory use its memo (same numbers, sooner).
        stepwise: run operator by operator also where a chain would do (same numbers, later).
        cold: no operand stays on chip between operators (single kernels, as benchmarks measure them).
        folded: record an iteration's operators of all layers under one name, and no timeline.
        paged_kv: the blocks of the KV cache, if it is paged.
        kv_ages: of a layer's cache on one device, for placement by age.
    """

    def __init__(
        self,
        system: SystemSpec,
        devices: int,
        *,
        cycle: bool = True,
        shortcuts: bool = True,
        stepwise: bool = False,
        cold: bool = False,
        folded: bool = False,
        paged_kv: PagedKv | None = None,
        kv_ages: KvAges | None = None,
    ) -> None:
        self.system = system
        self.devices = devices
        self.memory, main = main_memory(system.device.memory, shortcuts=shortcuts, paged_kv=paged_kv)
        self._tiers = Tiers(system.device, shortcuts=shortcuts)
        self.placement = TieredPlacement(main, system.device.placement, self._tiers.stores, kv_ages)
        pim = system.device.pim
        if pim is not None and paged_kv is not None:
            raise UserError("PIM lays out a contiguous KV cache", expected="no kv_block_tokens with `pim`")
        self.pim = PimUnit(system.device, cycle=cycle, shortcuts=shortcuts) if pim is not None else None
        self._overlaps = pim.overlap if pim is not None and pim.overlap.any else None
        self._overlap: PimOverlap | None = None
        self._preparer = Preparer(system, devices, self.memory, self.placement, cold=cold, pim=self.pim)
        self._cycle = cycle
        self._stepwise = (
            stepwise or system.device.prefetch or self.memory.layout is not None or bool(system.device.tiers)
        )
        self._stepwise |= self._overlaps is not None
        self._folded = folded
        self._hopped: tuple[OperatorTrace, tuple[Operator, ...]] | None = None
        self.restart()

    def restart(self) -> None:
        """Back to time 0 with an idle memory and nothing recorded; tensors keep their places."""
        self.memory.reset()
        self._tiers.restart()
        self._tier_outcomes: list[TierOutcome] = []
        self.environment = simpy.Environment(initial_time=0)
        self.trail = Trail(OperatorLog() if self._folded else [])
        self._port = MemoryPort(self.environment, self.memory, "GPU[0].HBM")
        self._seen = self.memory.count_vector()

    @property
    def now_fs(self) -> int:
        """The time the machine has reached."""
        return int(self.environment.now)

    def reserve(self, accesses: Iterable[Access]) -> None:
        """Place tensors in memory. Raises UserError if they don't fit."""
        self.placement.reserve(accesses if self.pim is None else self.pim.reserve(accesses))

    def name_experts(self, experts_of: Mapping[str, int]) -> None:
        """Tell which weights are stacks of experts, and of how many. Before they are placed."""
        self.placement.name_experts(experts_of)
        if self.pim is not None:
            self.pim.name_experts(experts_of)

    def run(self, trace: OperatorTrace, iteration: int = 0, step: Step | None = None) -> list[OperatorRecord]:
        """Run a trace to its end, from now on; its records. Raises NoProgressError if a component is stuck."""
        prepared = [self._preparer.prepare(operator) for operator in self._operators(trace)]
        self._pim_waits: list[int] = []
        if self._overlaps is not None:
            prepared = overlapped(prepared)
            self._pim_waits = [0] * len(prepared)
            self._overlap = PimOverlap(self._overlaps.heads)
        check_lengths(prepared, self.memory, self.now_fs)
        process = self.environment.process(self._execute(prepared, step))
        outcomes: np.ndarray = self.environment.run(until=process)  # type: ignore[assignment]
        make = folded_records_of if self._folded else records_of
        if self._cycle:
            check_bounds(prepared, outcomes, self.system.device)
            records = make(trace, prepared, outcomes, self.memory, iteration, self._tier_outcomes, self._pim_waits)
        else:
            records = bound_records(trace, prepared, outcomes, self.memory.burst_bytes, iteration)
        self.trail.operators.extend(records)
        if not self._folded:
            self._add_timeline(prepared, outcomes, records)
        return records

    def _operators(self, trace: OperatorTrace) -> tuple[Operator, ...]:
        """What one device does, hops along its row of chips included; the same objects for the same trace."""
        if self._hopped is None or self._hopped[0] is not trace:
            self._hopped = (trace, tuple(with_hops(trace.operators, self.system.device.memory)))
        return self._hopped[1]

    def wait_until(self, time_fs: int) -> None:
        """Let time pass (idle) up to `time_fs`."""
        if time_fs > self.environment.now:
            self.environment.run(until=time_fs)

    # ------------------------------------------------------------ executing a trace

    def _execute(self, prepared: list[Prepared], step: Step | None) -> Generator[simpy.Event, Any, np.ndarray]:
        if not self._cycle:
            outcomes = yield from self._run_bounds(prepared)
        elif self._stepwise or not isinstance(self.memory, HbmDevice):
            outcomes = yield from self._run_stepwise(prepared, step)
        else:
            outcomes = yield from self._run_chain(prepared, step)
        return outcomes

    def _run_chain(self, prepared: list[Prepared], step: Step | None) -> Generator[simpy.Event, Any, np.ndarray]:
        """All operators in the memory's kernel, piece by piece; then time moves on to the end.

        A piece that the kernel can't count to its end is run again as far as it went, and what is left starts anew."""
        parts = []
        time_fs = self.now_fs
        assert isinstance(self.memory, HbmDevice)  # SRAM goes step by step
        for piece in chains(prepared, self.memory):
            while piece:
                try:
                    outcomes = self.memory.run_program(*_program(piece), time_fs)
                except StuckMemoryError as stuck:
                    if stuck.finished == 0:
                        raise why_unfinished(piece[0], self.memory, self._port.name, stuck) from None
                    outcomes = self.memory.run_program(*_program(piece[: stuck.finished]), time_fs)
                parts.append(outcomes)
                time_fs = int(outcomes[-1, END_FS])
                if step is not None:
                    step(len(outcomes))
                piece = piece[len(outcomes) :]
        yield self.environment.timeout(time_fs - self.now_fs)
        return np.concatenate(parts)

    def _run_stepwise(self, prepared: list[Prepared], step: Step | None) -> Generator[simpy.Event, Any, np.ndarray]:
        """Operator by operator; a device that prefetches starts each one's loads behind those of the one before."""
        outcomes = np.zeros((len(prepared), OUTCOME_WORDS), np.int64)
        ahead: tuple[int, simpy.Event] | None = None
        self._port.catch_up()
        self._seen = self.memory.count_vector()
        self._tiers.load([item.parts for item in prepared], self.now_fs)
        self._tier_outcomes = [TierOutcome() for _ in prepared]
        for index, item in enumerate(prepared):
            following = prepared[index + 1] if index + 1 < len(prepared) else None
            ahead = yield from self._run_one(index, item, following, ahead, outcomes[index])
            self._tiers.count_commands(self.now_fs, self._tier_outcomes[index])
            if step is not None:
                step(1)
        return outcomes

    def _run_one(
        self,
        index: int,
        item: Prepared,
        following: Prepared | None,
        ahead: tuple[int, simpy.Event] | None,
        outcome: np.ndarray,
    ) -> Generator[simpy.Event, Any, tuple[int, simpy.Event] | None]:
        """One operator: launch and lead, then memory and engines together, then tail. Returns what it prefetched."""
        environment = self.environment
        outcome[START_FS] = environment.now
        yield environment.timeout(self._wait_for_pim(index, item))
        lead_fs = item.launch_fs + item.lead_fs if ahead is None else item.lead_fs
        begin_fs = self.now_fs
        yield environment.timeout(lead_fs)
        outcome[STREAM_START_FS] = environment.now
        self._port.catch_up()
        self._tiers.begin(index, self.now_fs, item.engine_fs)
        done: simpy.Event | None = None
        if ahead is not None:
            job, done = ahead
            self._port.open_gate(job)
        elif item.transfer is not None:
            _, done = self._port.submit(item.transfer)
        prefetched = self._prefetch(item, following)
        submitted = self._overlap is not None and item.pim_alone
        yield done if done is not None else environment.timeout(0 if submitted else item.fixed_fs)
        if item.parts:
            end_fs = self._tiers.finish(item.parts, self._tier_outcomes[index])
            yield environment.timeout(max(0, end_fs - self.now_fs))
        outcome[STREAM_END_FS] = environment.now
        yield environment.timeout(item.tail_fs)
        yield environment.timeout(self._work_with_pim(index, item, begin_fs, int(outcome[STREAM_START_FS])))
        outcome[END_FS] = environment.now
        self._port.catch_up()
        counts = self.memory.count_vector()
        outcome[FIRST_COUNT:] = counts - self._seen
        self._seen = counts
        return prefetched

    def _wait_for_pim(self, index: int, item: Prepared) -> int:
        """Until what an operator reads of PIM's results is there."""
        if self._overlap is None:
            return 0
        wait_fs = max(0, self._overlap.ready_fs(item.operator) - self.now_fs)
        self._pim_waits[index] = wait_fs
        return wait_fs

    def _work_with_pim(self, index: int, item: Prepared, begin_fs: int, stream_fs: int) -> int:
        """An operator that PIM does goes there; one that PIM takes part in, or whose last inputs are PIM's, waits."""
        overlap = self._overlap
        if overlap is None:
            return 0
        end_fs = self.now_fs
        if item.pim is not None and not item.pim_alone:
            end_fs = max(end_fs, overlap.beside(index, item.pim, stream_fs))
        overlap.begin(item.operator, begin_fs)
        end_fs = overlap.end_fs(item.operator, begin_fs, end_fs)
        if item.pim is not None and item.pim_alone:
            overlap.submit(index, item.operator, item.pim, end_fs)
        self._pim_waits[index] += end_fs - self.now_fs
        return end_fs - self.now_fs

    def _prefetch(self, item: Prepared, following: Prepared | None) -> tuple[int, simpy.Event] | None:
        """Start the next operator's loads, if the device does that; its consumer waits at a gate.

        What this operator still writes can't be loaded yet: then the next one loads when it starts."""
        if not self.system.device.prefetch or following is None or following.transfer is None:
            return None
        if any(access.tensor in following.loads for access in item.operator.writes):
            return None
        return self._port.submit(following.transfer, gated=True)

    def _run_bounds(self, prepared: list[Prepared]) -> Generator[simpy.Event, Any, np.ndarray]:
        """Every operator at its roofline bound."""
        outcomes = np.zeros((len(prepared), OUTCOME_WORDS), np.int64)
        ends = self.now_fs + np.cumsum([item.roofline_fs for item in prepared])
        outcomes[:, END_FS] = outcomes[:, STREAM_END_FS] = ends
        outcomes[0, START_FS] = self.now_fs
        outcomes[1:, START_FS] = ends[:-1]
        outcomes[:, STREAM_START_FS] = outcomes[:, START_FS]
        yield self.environment.timeout(int(ends[-1]) - self.now_fs)
        return outcomes

    def _add_timeline(self, prepared: list[Prepared], outcomes: np.ndarray, records: list[OperatorRecord]) -> None:
        for tiers, record in zip(self._tier_outcomes, records, strict=False):  # a chain touches no other tier
            for name, (issue_fs, arrival_fs) in tiers.busy.items():
                self.trail.spans.append(Span(f"GPU[0].{name}", record.name, issue_fs, arrival_fs))
        for index, begin_fs, done_fs in self._overlap.busy if self._overlap is not None else ():
            self.trail.spans.append(Span("GPU[0].PIM", records[index].name, begin_fs, done_fs))
        for item, outcome, record in zip(prepared, outcomes, records, strict=True):
            start_fs, end_fs = int(outcome[STREAM_START_FS]), int(outcome[STREAM_END_FS])
            for component in _components(item):
                if end_fs > start_fs:
                    self.trail.spans.append(Span(component, record.name, start_fs, end_fs))
            if item.transfer is not None:
                read, written = record.counts.dram_read_bytes, record.counts.dram_write_bytes
                self.trail.bandwidth.append(BandwidthSample(start_fs, end_fs, read, written))


def _program(prepared: list[Prepared]) -> tuple[np.ndarray, np.ndarray]:
    """Operators and ranges as the kernel's tables."""
    operators = np.array([item.row for item in prepared], np.int64).reshape(len(prepared), OPERATOR_WORDS)
    ranges = [row for item in prepared for row in item.range_rows]
    counts = np.array([len(item.range_rows) for item in prepared], np.int64)
    operators[:, FIRST_RANGE] = np.cumsum(counts) - counts
    return operators, np.array(ranges, np.int64).reshape(len(ranges), 3)


def _components(item: Prepared) -> list[str]:
    """The parts of the device that an operator keeps busy."""
    if item.operator.kind in COLLECTIVE_KINDS:
        return ["GPU[0].Link"]
    if item.pim_alone:
        return ["GPU[0].PIM"]
    parts = ["GPU[0].HBM"] if item.transfer is not None else []
    if item.engine_fs:
        parts.append("GPU[0].Matrix" if item.operator.matrix_flops else "GPU[0].Vector")
    return parts


__all__ = ["Machine", "NoProgressError", "Trail"]

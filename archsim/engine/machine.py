"""One machine running operator traces: a group of equal devices, of which one is simulated and stands for all.

The devices of a tensor-parallel group run the same operators on the same sizes at the same time, so they are one class; the links
between them carry the collectives.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from archsim.engine.memory_port import MemoryPort, NoProgress
from archsim.engine.placement import Placement
from archsim.engine.work import (
    COLLECTIVE_KINDS,
    OperatorWork,
    collective_time,
    operator_work,
    roofline_fs,
)
from archsim.kernels.timing import Count
from archsim.memory.device import HbmDevice, Transfer
from archsim.records import (
    CAUSES,
    Access,
    BandwidthSample,
    Counts,
    Operator,
    OperatorRecord,
    OperatorTrace,
    Span,
)
from archsim.system import SystemSpec

TILES_IN_WINDOW = 4
"""The consumer works on a quarter of the window at a time: what it frees is refilled while it goes on."""
LEAST_TILES = 16
"""An operator is consumed in at least so many steps, so that filling the first and using the last stay small."""


@dataclass(slots=True)
class _Run:
    """An operator under way."""

    operator: Operator
    work: OperatorWork
    job: int | None = None
    done: simpy.Event | None = None


@dataclass(slots=True)
class Trail:
    """What a machine has recorded: operators in order, boxes and bandwidth samples for the timeline."""

    operators: list[OperatorRecord] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    bandwidth: list[BandwidthSample] = field(default_factory=list)


class Machine:
    """A system with its simulated memory, ready to run operator traces one after the other.

    Args:
        system: the machine.
        devices: how many of its devices work together (the tensor-parallel degree).
        cycle: simulate memory cycle by cycle; otherwise every operator takes its roofline bound.
        shortcuts: let the memory use its memo (same numbers, sooner).
        cold: no operand stays on chip between operators (single kernels, as benchmarks measure them).
    """

    def __init__(
        self,
        system: SystemSpec,
        devices: int,
        *,
        cycle: bool = True,
        shortcuts: bool = True,
        cold: bool = False,
        keep_spans: bool = True,
    ) -> None:
        self.system = system
        self.devices = devices
        memory = system.device.memory
        self.memory = HbmDevice(memory.technology, memory.controller, memory.channels, shortcuts=shortcuts)
        self.placement = Placement(self.memory, memory.capacity, memory.stacks * memory.technology.stack_capacity)
        self._cycle = cycle
        self._cold = cold
        self._keep_spans = keep_spans
        self._works: dict[Operator, OperatorWork] = {}
        self.restart()

    def restart(self) -> None:
        """Back to time 0 with an idle memory and nothing recorded; tensors keep their places."""
        self.memory.reset()
        self.environment = simpy.Environment(initial_time=0)
        self.trail = Trail()
        self._port = MemoryPort(self.environment, self.memory, "GPU[0].HBM")
        self._seen = self.memory.count_vector()

    @property
    def now_fs(self) -> int:
        """The time the machine has reached."""
        return int(self.environment.now)

    def reserve(self, accesses: Iterator[Access] | tuple[Access, ...]) -> None:
        """Place tensors in memory. Raises UserError if they don't fit."""
        self.placement.reserve(accesses)

    def run(self, trace: OperatorTrace, iteration: int = 0, on_operator: Any = None) -> list[OperatorRecord]:
        """Run a trace to its end, from now on; its records. Raises NoProgress if a component is stuck."""
        first = len(self.trail.operators)
        process = self.environment.process(self._execute(trace, iteration, on_operator))
        self.environment.run(until=process)
        return self.trail.operators[first:]

    def wait_until(self, time_fs: int) -> None:
        """Let time pass (idle) up to `time_fs`."""
        if time_fs > self.environment.now:
            self.environment.run(until=time_fs)

    # ------------------------------------------------------------ executing a trace

    def _execute(
        self, trace: OperatorTrace, iteration: int, on_operator: Any
    ) -> Generator[simpy.Event, Any, None]:
        prefetched: _Run | None = None
        for position, operator in enumerate(trace.operators):
            if operator.kind in COLLECTIVE_KINDS:
                yield from self._communicate(trace, operator, iteration)
            elif self._cycle:
                current = prefetched if prefetched is not None else _Run(operator, self._work(operator))
                following = trace.operators[position + 1] if position + 1 < len(trace.operators) else None
                prefetched = yield from self._compute(trace, current, following, iteration)
            else:
                yield from self._bound(trace, operator, iteration)
            if on_operator is not None:
                on_operator()

    def _work(self, operator: Operator) -> OperatorWork:
        work = self._works.get(operator)
        if work is None:
            work = operator_work(operator, self.system.device, self.memory.unloaded_read_fs, cold=self._cold)
            if len(self._works) > 20_000:
                self._works.clear()
            self._works[operator] = work
        return work

    def _compute(
        self, trace: OperatorTrace, run: _Run, following: Operator | None, iteration: int
    ) -> Generator[simpy.Event, Any, _Run | None]:
        """One operator: launch, then memory and engines together, then its tail. The next operator, if it was prefetched."""
        environment, work = self.environment, run.work
        start_fs = int(environment.now)
        launch_fs = 0 if run.job is not None else work.launch_fs
        if launch_fs + work.lead_fs:
            yield environment.timeout(launch_fs + work.lead_fs)
        stream_start_fs = int(environment.now)
        self._port.catch_up()
        transfer = self._transfer(work)
        if run.job is not None:
            self._port.open_gate(run.job)
        elif transfer is not None:
            run.job, run.done = self._port.submit(transfer)
        ahead = self._prefetch(following)
        if run.done is not None:
            yield run.done
        elif work.engine_fs:
            yield environment.timeout(work.engine_fs)
        stream_fs = int(environment.now) - stream_start_fs
        if work.tail_fs:
            yield environment.timeout(work.tail_fs)
        self._record(trace, run, iteration, start_fs, launch_fs, stream_start_fs, stream_fs)
        return ahead

    def _transfer(self, work: OperatorWork, *, gated: bool = False) -> Transfer | None:
        """An operator's memory traffic, cut into tiles that fit the window; None if all of it stays on chip."""
        ranges = tuple(self.placement.range_of(access, write=False) for access in work.reads) + tuple(
            self.placement.range_of(access, write=True) for access in work.writes
        )
        ranges = tuple(data for data in ranges if data.bursts > 0)
        if not ranges:
            return None
        window = max(1, self.memory.bursts(self.system.device.window_bytes) // max(1, len(work.reads)))
        tiles, tile_ticks = self._tiles(max(data.bursts for data in ranges), window, work.engine_fs)
        return Transfer(ranges, tiles, tile_ticks, window, gated)

    def _tiles(self, bursts: int, window: int, engine_fs: int) -> tuple[int, int]:
        """How many tiles an operator is consumed in, and the ticks of each; together at least the engines' time.

        A tile is a row set, or half, a quarter, ... of one, so that an operator has enough of them and they fit the
        window several times over: tile boundaries then fall on the same places of every row set."""
        share = self.memory.row_set_bursts
        while share > 1 and (share * LEAST_TILES > bursts or share * TILES_IN_WINDOW > window):
            share //= 2
        shortest_ticks = self.memory.timing.tCL + self.memory.timing.tBL
        engine_ticks = self.memory.to_ticks(engine_fs)
        tiles = -(-bursts // share)
        while tiles > 1 and tiles * shortest_ticks > engine_ticks and -(-bursts // (tiles // 2)) <= window:
            tiles = -(-tiles // 2)  # less arithmetic per tile than a read's latency: fewer, longer tiles
        return tiles, max(-(-engine_ticks // tiles), shortest_ticks)

    def _prefetch(self, following: Operator | None) -> _Run | None:
        """Start the next operator's loads behind the present one's, if the device does that; its consumer waits at a gate."""
        if not self.system.device.prefetch or following is None or following.kind in COLLECTIVE_KINDS:
            return None
        run = _Run(following, self._work(following))
        transfer = self._transfer(run.work, gated=True)
        if transfer is not None:
            run.job, run.done = self._port.submit(transfer)
        return run

    def _communicate(
        self, trace: OperatorTrace, operator: Operator, iteration: int
    ) -> Generator[simpy.Event, Any, None]:
        """A collective among the devices of the group; the operator before it has written what it sends."""
        start_fs = int(self.environment.now)
        time = collective_time(operator, self.system, self.devices)
        duration_fs = time.total_fs if self._cycle else time.transfer_fs
        yield self.environment.timeout(duration_fs)
        counts = Counts(link_bytes=time.link_bytes)
        self._add_record(trace, operator, iteration, start_fs, {"link": duration_fs}, time.transfer_fs, counts)
        self._span("GPU[0].Link", operator.name, start_fs, int(self.environment.now))

    def _bound(self, trace: OperatorTrace, operator: Operator, iteration: int) -> Generator[simpy.Event, Any, None]:
        """An operator at `fidelity: roofline`: no machine is faster."""
        start_fs = int(self.environment.now)
        work = self._work(operator)
        bound_fs = roofline_fs(operator, work, self.system.device)
        yield self.environment.timeout(bound_fs)
        burst = self.memory.timing.burst_bytes
        counts = self._engine_counts(operator, work)
        counts.dram_read_bytes = sum(access.bytes for access in work.reads)
        counts.dram_write_bytes = sum(access.bytes for access in work.writes)
        counts.dram_reads = -(-counts.dram_read_bytes // burst)
        counts.dram_writes = -(-counts.dram_write_bytes // burst)
        memory_bound = bound_fs > 0 and bound_fs == roofline_fs(_without_arithmetic(operator), work, self.system.device)
        cause = "transfer" if memory_bound else "compute"
        self._add_record(trace, operator, iteration, start_fs, {cause: bound_fs}, bound_fs, counts)

    # ------------------------------------------------------------ recording

    def _record(
        self,
        trace: OperatorTrace,
        run: _Run,
        iteration: int,
        start_fs: int,
        launch_fs: int,
        stream_start_fs: int,
        stream_fs: int,
    ) -> None:
        """Count what the memory did since the last record, and say where the operator's time went."""
        vector = self.memory.count_vector()
        delta = vector - self._seen
        self._seen = vector
        counts = self._engine_counts(run.operator, run.work)
        self.memory.add_counts(delta, counts)
        if run.job is not None:
            moved = counts.dram_read_bytes + counts.dram_write_bytes
            counts.dram_padding_bytes = max(0, moved - run.work.memory_bytes)
            counts.noc_bytes = moved
            self._span("GPU[0].HBM", run.operator.name, stream_start_fs, stream_start_fs + stream_fs)
            if self._keep_spans:
                self.trail.bandwidth.append(
                    BandwidthSample(
                        stream_start_fs, stream_start_fs + stream_fs, counts.dram_read_bytes, counts.dram_write_bytes
                    )
                )
        causes = self._memory_causes(delta, stream_fs) if run.job is not None else {}
        rest_fs = stream_fs - sum(causes.values())
        causes["compute"] = min(rest_fs, run.work.engine_fs)
        causes["launch"] = launch_fs
        causes["fill"] = rest_fs - causes["compute"] + run.work.tail_fs + stream_start_fs - start_fs - launch_fs
        bound_fs = roofline_fs(run.operator, run.work, self.system.device)
        self._add_record(trace, run.operator, iteration, start_fs, causes, bound_fs, counts)
        if run.work.engine_fs:
            engine = "GPU[0].Matrix" if run.operator.matrix_flops else "GPU[0].Vector"
            self._span(engine, run.operator.name, stream_start_fs, stream_start_fs + stream_fs)

    def _memory_causes(self, delta: np.ndarray, stream_fs: int) -> dict[str, int]:
        """Data-bus time by cause, mean over the pseudo-channels, in the order it is granted until the stream's time is used."""
        left_fs = stream_fs
        causes = {}
        for cause, count in (
            ("transfer", Count.BUSY),
            ("refresh", Count.REFRESH),
            ("turnaround", Count.TURNAROUND),
            ("row", Count.ROW),
        ):
            share_fs = self.memory.to_fs(int(delta[count])) // self.memory.timing.pseudo_channels
            causes[cause] = min(left_fs, share_fs)
            left_fs -= causes[cause]
        return causes

    def _engine_counts(self, operator: Operator, work: OperatorWork) -> Counts:
        macs = {operator.compute_format: operator.matrix_flops // 2} if operator.matrix_flops else {}
        return Counts(
            buffer_read_bytes=work.buffer_read_bytes,
            buffer_write_bytes=work.buffer_write_bytes,
            matrix_macs=macs,
            vector_flops=operator.vector_flops,
        )

    def _add_record(
        self,
        trace: OperatorTrace,
        operator: Operator,
        iteration: int,
        start_fs: int,
        causes: dict[str, int],
        bound_fs: int,
        counts: Counts,
    ) -> None:
        end_fs = int(self.environment.now)
        cause_fs = {cause: causes.get(cause, 0) for cause in CAUSES}
        assert sum(cause_fs.values()) == end_fs - start_fs, f"{operator.name}: causes don't tile its time"
        assert end_fs - start_fs >= bound_fs, f"{operator.name} is faster than its roofline bound"
        self.trail.operators.append(
            OperatorRecord(
                name=operator.name,
                kind=operator.kind,
                layer=operator.layer,
                phase=trace.phase,
                iteration=iteration,
                start_fs=start_fs,
                end_fs=end_fs,
                bound=_bound_of(cause_fs),
                roofline_fs=bound_fs,
                cause_fs=cause_fs,
                matrix_flops=operator.matrix_flops,
                vector_flops=operator.vector_flops,
                counts=counts,
            )
        )

    def _span(self, component: str, name: str, start_fs: int, end_fs: int) -> None:
        if self._keep_spans and end_fs > start_fs:
            self.trail.spans.append(Span(component, name, start_fs, end_fs))


def _bound_of(cause_fs: dict[str, int]) -> str:
    """What an operator's time mostly went to: memory, compute, link, or latency (launch and fill)."""
    groups = {
        "memory": cause_fs["transfer"] + cause_fs["row"] + cause_fs["turnaround"] + cause_fs["refresh"],
        "compute": cause_fs["compute"],
        "link": cause_fs["link"],
        "latency": cause_fs["launch"] + cause_fs["fill"],
    }
    return max(groups, key=lambda name: groups[name])


def _without_arithmetic(operator: Operator) -> Operator:
    from dataclasses import replace

    return replace(operator, matrix_flops=0)


__all__ = ["Machine", "NoProgress", "Trail"]

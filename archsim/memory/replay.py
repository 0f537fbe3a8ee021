"""Replays a memory trace: chunks of requests in, completion ticks, counts and latencies out.

Each channel is fed in order (replay_channel.py): the memory needed is that of a few chunks, not of the trace. Times are
ticks of the memory (half a clock for HBM3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from archsim.config.errors import UserError
from archsim.memory.interleave import Interleave
from archsim.memory.latency import Latencies
from archsim.memory.replay_channel import LogSink, ReplayChannel
from archsim.memory.standard import ControllerSpec, DramStandard
from archsim.memory.traces import Chunk, TimeUnit, Trace

LAST_ARRIVAL = 1 << 36
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ReplayResult:
    """What a replay found. `counts` (indices: timing.Count) has a row per channel; latencies are in ticks.

    `from_arrival` and `from_queue` hold reads' and writes' latencies, counted from a request's arrival and from the
    tick it entered its queue. Without times in the trace they are the same."""

    requests: tuple[int, int]  # reads, writes
    counts: Ints
    from_arrival: tuple[Latencies, Latencies]
    from_queue: tuple[Latencies, Latencies]
    end_tick: int
    tick_fs: Fraction
    burst_bytes: int
    timed: bool

    @property
    def elapsed_seconds(self) -> float:
        """From tick 0 to the last completion."""
        return float(self.end_tick * self.tick_fs) * 1e-15

    @property
    def nanoseconds_per_tick(self) -> float:
        return float(self.tick_fs) * 1e-6


def replay(
    trace: Trace,
    standard: DramStandard,
    controller: ControllerSpec,
    interleave: Interleave,
    log_sink: LogSink | None = None,
) -> ReplayResult:
    """Run a trace through a memory. `controller.address_map` must be `interleave.local_map`.

    Raises UserError for what is wrong in the trace, an address beyond the capacity or an arrival beyond 2^36 ticks."""
    timing = standard.timing(controller)
    tables = standard.address_tables(controller)
    bank_of, column_of = (table.astype(np.int64) for table in tables)
    timed = trace.time_unit is not TimeUnit.NONE
    channels = [ReplayChannel(timing, bank_of, column_of, timed, log_sink, n) for n in range(interleave.channels)]
    to_ticks = _converter(trace, standard)
    for chunk in trace.chunks():
        ticks = to_ticks(chunk.time)
        for number, parts in _split(chunk, ticks, interleave):
            channels[number].feed(parts)
        unread = int(ticks[-1]) if len(ticks) else 0
        for one in channels:
            one.run(unread)
    for one in channels:
        one.finish()
    return ReplayResult(
        requests=(sum(one.requests[0] for one in channels), sum(one.requests[1] for one in channels)),
        counts=np.array([one.counts for one in channels]),
        from_arrival=_merged(channels, lambda one: one.from_arrival),
        from_queue=_merged(channels, lambda one: one.from_queue),
        end_tick=max(one.end_tick for one in channels),
        tick_fs=standard.tick_fs,
        burst_bytes=timing.burst_bytes,
        timed=timed,
    )


def _merged(
    channels: list[ReplayChannel], pick: Callable[[ReplayChannel], tuple[Latencies, Latencies]]
) -> tuple[Latencies, Latencies]:
    both = Latencies(), Latencies()
    for one in channels:
        for total, part in zip(both, pick(one), strict=True):
            total.merge(part)
    return both


def _converter(trace: Trace, standard: DramStandard) -> Callable[[Ints], Ints]:
    """A trace's times as ticks: the first one at or after the time."""
    ratio = Fraction(standard.commands.edges_per_clock)  # ticks per unit of time
    if trace.time_unit is TimeUnit.FEMTOSECONDS:
        ratio = 1 / standard.tick_fs
    latest = LAST_ARRIVAL / ratio

    def to_ticks(time: Ints) -> Ints:
        if len(time) and int(time[-1]) > latest:
            raise UserError(
                f"{trace.file} has a request at {int(time[-1])} {trace.time_unit}",
                expected=f"at most {int(latest)} {trace.time_unit}",
            )
        whole, part = np.divmod(time, ratio.denominator)  # keeps the products small
        ticks: Ints = whole * ratio.numerator - (-part * ratio.numerator) // ratio.denominator
        return ticks

    return to_ticks


def _split(chunk: Chunk, ticks: Ints, interleave: Interleave) -> Iterator[tuple[int, list[tuple[Ints, Ints]]]]:
    """For each channel its number and, per pseudo-channel, (words `local address << 1 | write`, arrival ticks)."""
    unit, local = interleave.place(chunk.address)
    order = np.argsort(unit.astype(np.uint16), kind="stable")
    words = (local << 1 | chunk.write)[order]
    arrivals = ticks[order]
    ends = np.cumsum(np.bincount(unit, minlength=interleave.channels * interleave.pseudo_channels))
    starts = np.concatenate(([0], ends[:-1]))
    for number in range(interleave.channels):
        first = number * interleave.pseudo_channels
        yield (
            number,
            [
                (words[starts[u] : ends[u]], arrivals[starts[u] : ends[u]])
                for u in range(first, first + interleave.pseudo_channels)
            ],
        )

"""The driver of an SRAM: streams in, completions and counts out, in closed form (the policy is in sram.py)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from archsim.config.errors import UserError
from archsim.memory.device import Completion
from archsim.memory.sram import Gathered, Groups, SramCounts, SramSpec, Stream, group_cycles
from archsim.memory.ticks import Ticking


@dataclass(slots=True)
class _Running:
    """A stream under way: when it started and what of it has been counted. `start` is in cycles that ports worked,
    `ready` is the cycle in which it could have started."""

    job: int
    stream: Stream
    groups: Groups
    last_of_job: bool
    start: int = -1
    ready: int = -1
    counted: int = 0
    counted_cycles: int = 0
    counted_refresh: int = 0


class SramDevice(Ticking):
    """An SRAM as the event core drives it: `submit`, then `advance` to the next completion or a horizon.

    Time is in clock cycles, from `to_ticks` and `to_fs`. Times and counts are those of the oracle, in closed form."""

    def __init__(self, spec: SramSpec) -> None:
        self.spec = spec
        self.tick_fs = spec.tick_fs
        self.counts = SramCounts()
        self._ports = spec.port_time
        self._now = 0
        self._free = 0  # the front end takes the next stream once ports have worked so many cycles,
        self._ready = 0  # which, but for a refresh, is in this cycle
        self._jobs = 0
        self._queue: deque[_Running] = deque()
        self._arriving: deque[Completion] = deque()

    @property
    def now(self) -> int:
        """The cycle the device has been simulated to."""
        return self._now

    def accesses(self, size_bytes: int) -> int:
        """Accesses of every slice that hold `size_bytes`."""
        return -(-size_bytes // (self.spec.slices * self.spec.word))

    def submit(self, *streams: Stream) -> int:
        """Queue a transfer of streams now; its job number, which comes back in a `Completion`.

        Raises UserError for a transfer without accesses and for words beyond the capacity."""
        if not any(stream.accesses for stream in streams):
            raise UserError("a transfer without accesses", expected="at least one word")
        for stream in streams:
            self._check(stream)
        job, self._jobs = self._jobs, self._jobs + 1
        moving = [stream for stream in streams if stream.accesses]
        for stream in moving:
            self._queue.append(_Running(job, stream, stream.groups(self.spec), stream is moving[-1]))
        self._free = max(self._free, self._ports.worked(self._now))
        self._ready = max(self._ready, self._now)
        return job

    def advance(self, until: int | None = None) -> Completion | None:
        """Simulate to the next completion or to cycle `until` (None: as long as it takes), whichever is first."""
        while self._queue and not self._arriving:
            if until is not None and self._free_after_head() > until:
                break
            self._finish_head()
        if self._arriving and (until is None or self._arriving[0].tick <= until):
            done = self._arriving.popleft()
            self._move_to(max(self._now, done.tick))
            return done
        if until is not None:
            self._move_to(max(self._now, until))
        return None

    def _free_after_head(self) -> int:
        head = self._queue[0]
        return self._ports.cycle((self._free if head.start < 0 else head.start) + head.groups.cycles)

    def _finish_head(self) -> None:
        """The front end is through with the first stream; its last word is on its way."""
        head = self._queue[0]
        self._start(head)
        self._free = head.start + head.groups.cycles
        self._ready = self._ports.cycle(self._free)
        self._count(head, self._ready)
        self._queue.popleft()
        if head.last_of_job:
            self._arriving.append(Completion(head.job, self._ready + self.spec.latency_cycles))

    def _move_to(self, tick: int) -> None:
        """Let time pass; groups that end on the way are counted."""
        self._now = tick
        while self._queue and self._free_after_head() <= tick:
            self._finish_head()
        if self._queue:
            self._start(self._queue[0])
            self._count(self._queue[0], tick)

    def _start(self, head: _Running) -> None:
        if head.start < 0:
            head.start, head.ready = self._free, self._ready

    def _count(self, head: _Running, tick: int) -> None:
        elapsed = self._ports.worked(tick) - head.start
        ended = head.groups.ended(elapsed)
        lanes = self.spec.lanes(head.stream.write)
        served = min(ended * lanes, head.stream.accesses) - min(head.counted * lanes, head.stream.accesses)
        if head.stream.write:
            self.counts.writes += served
        else:
            self.counts.reads += served
        cycles = min(elapsed, head.groups.cycles)
        self.counts.busy_cycles += cycles - head.counted_cycles
        stopped = tick - head.ready - cycles
        self.counts.refresh_cycles += stopped - head.counted_refresh
        if elapsed >= head.groups.cycles:
            groups = head.groups.ended(head.groups.cycles)
            whole = head.stream.accesses // lanes
            ideal = whole * group_cycles(self.spec, lanes, 1)
            if groups > whole:
                ideal += group_cycles(self.spec, head.stream.accesses - whole * lanes, 1)
            self.counts.conflict_cycles += head.groups.cycles - ideal
        head.counted, head.counted_cycles, head.counted_refresh = ended, cycles, stopped

    def _check(self, stream: Stream) -> None:
        words = (stream.addresses if isinstance(stream, Gathered) else _ends(stream)) if stream.accesses else ()
        for word in words:
            if not 0 <= word < self.spec.words:
                raise UserError(
                    f"word {word} of a slice of {self.spec.name}", expected=f"0 to {self.spec.words - 1}, its capacity"
                )


def _ends(stream: Stream) -> tuple[int, int]:
    return stream.word(0), stream.word(stream.accesses - 1)

"""How a tier's data reach the engines: loads staged ahead of their operators as far as a buffer has room.

Loads are cut into chunks of a part of the buffer and issued in program order. A chunk holds its room from its issue
until the engines have consumed it. Chunks are consumed in order, each once it has arrived, the one before is consumed
and its operator has begun; consuming takes the chunk's share of the operator's engine time. Writes are posted: they
gather to a part and are then written; an operator waits only if all write parts are under way. docs/tiers.md numbers
what is simplified.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from archsim.engine.memory_port import NoProgressError
from archsim.memory.device import HbmDevice, Range, Transfer
from archsim.memory.flash_device import FlashDevice
from archsim.memory.tiers import PARTS, WRITE_PARTS, TierLinkSpec


@dataclass(frozen=True, slots=True)
class TierPart:
    """What an operator moves on one tier. `ranges` are (first round, rounds) of what it reads; bytes are as lowered.

    `reads` and `writes` name the activations among it: they can't be loaded before they are written."""

    tier: str
    ranges: tuple[tuple[int, int], ...]
    read_bytes: int
    write_bytes: int
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()

    @property
    def rounds(self) -> int:
        return sum(rounds for _, rounds in self.ranges)


@dataclass(slots=True)
class _Chunk:
    """Some rounds of an operator's reads. `after` is the last operator that writes them, -1 for none."""

    operator: int
    first_round: int
    rounds: int
    after: int
    arrival_fs: int = -1
    issue_fs: int = -1
    wire_end_fs: int = 0


@dataclass(slots=True)
class _Current:
    """The operator whose data are being consumed."""

    index: int
    start_fs: int
    engine_fs: int
    rounds: int
    last: int  # chunk behind its last one
    done_rounds: int = 0
    late_rounds: int = 0  # that arrived after the operator had begun
    end_fs: int = 0
    wait_fs: int = 0


@dataclass(frozen=True, slots=True)
class Consumed:
    """When the engines were through with an operator's data of a tier, how long they stood idle for them, and from the
    first issue to the last arrival (equal if it read nothing). `late_rounds` arrived after the operator had begun,
    `written_bytes` went to the tier."""

    end_fs: int
    wait_fs: int
    late_rounds: int
    issue_fs: int
    arrival_fs: int
    written_bytes: int


@dataclass(slots=True)
class _Room:
    """Rounds of the buffer in use, and when those that are being consumed will be free."""

    used: int = 0
    leaving: deque[tuple[int, int]] = field(default_factory=deque)

    def free_until(self, now_fs: int) -> None:
        while self.leaving and self.leaving[0][0] <= now_fs:
            self.used -= self.leaving.popleft()[1]


class TierPipeline:
    """One tier at work for one device. Times are femtoseconds; the device's own time follows.

    Args:
        name: for messages.
        device: the tier's memory, on which nobody else submits.
        buffer_bytes: what data pass through, at least `PARTS` rounds.
        ahead: whether loads of coming operators are staged, or start with their operator.
        link: between tier and device, if there is one.
        jobs: transfers that the device takes at a time.
        rounds: what the device holds.
    """

    def __init__(
        self,
        name: str,
        device: HbmDevice | FlashDevice,
        buffer_bytes: int,
        *,
        ahead: bool,
        link: TierLinkSpec | None,
        jobs: int,
        rounds: int,
    ) -> None:
        self.device = device
        self._name, self._ahead, self._link = name, ahead, link
        self._part_rounds = buffer_bytes // PARTS // device.round_bytes
        self._read_rounds = (PARTS - WRITE_PARTS) * self._part_rounds
        self._read_jobs = jobs - WRITE_PARTS
        self._write_head, self._rounds = 0, rounds
        self.restart()

    def restart(self) -> None:
        """Back to time 0, idle."""
        self.device.reset()
        self._now_fs = self._wire_free_fs = self._write_wire_free_fs = 0
        self._jobs: dict[int, _Chunk | None] = {}  # None: a write
        self._gathered_bytes = 0
        self._room = _Room()
        self.load((), 0, 0)

    def load(self, parts: Sequence[TierPart | None], first_free_round: int, now_fs: int) -> None:
        """The program from `now_fs` on: a part, or none, for each operator. What was loaded before has been consumed.

        Writes go round and round behind `first_free_round`."""
        self._chunks: list[_Chunk] = []
        self._end_of: list[int] = []
        self._rounds_of = [part.rounds if part is not None else 0 for part in parts]
        self._first_free_round = first_free_round
        written: dict[str, int] = {}
        for index, part in enumerate(parts):
            if part is not None:
                after = max([written[name] for name in part.reads if name in written], default=-1)
                self._chunks += self._cut(index, part, after)
                written |= dict.fromkeys(part.writes, index)
            self._end_of.append(len(self._chunks))
        self._issued = self._consumed = 0
        self._current = _Current(-1, now_fs, 0, 0, 0)
        self.advance_to(now_fs)

    def begin(self, index: int, start_fs: int, engine_fs: int) -> None:
        """Operator `index` is ready for data: the engines work on them for `engine_fs` in all."""
        self.advance_to(start_fs)
        self._current = _Current(index, start_fs, engine_fs, self._rounds_of[index], self._end_of[index])
        self._current.end_fs = start_fs if self._current.rounds else start_fs + engine_fs
        self._consume()

    def finish(self, written_bytes: int) -> Consumed:
        """Simulate until the current operator's data are consumed and what it writes is taken.

        Raises NoProgressError if the device is stuck."""
        current = self._current
        while self._consumed < current.last:
            self._step(None)
        mine = self._chunks[self._begin_of(current.index) : current.last]
        written, end_fs = self._post(written_bytes, current.end_fs)
        return Consumed(
            end_fs=end_fs,
            wait_fs=current.wait_fs,
            late_rounds=current.late_rounds,
            issue_fs=min((chunk.issue_fs for chunk in mine), default=current.start_fs),
            arrival_fs=max((chunk.arrival_fs for chunk in mine), default=current.start_fs),
            written_bytes=written,
        )

    def advance_to(self, time_fs: int) -> None:
        """Simulate up to a time."""
        while self._now_fs < time_fs:
            self._step(time_fs)
        self._issue()

    def catch_up(self) -> None:
        """Let an idle device's own time (its refreshes) reach this one's."""
        if not self._jobs:
            self.device.idle_until(self.device.to_ticks(self._now_fs))

    # ------------------------------------------------------------ events

    def _step(self, until_fs: int | None) -> None:
        """Simulate to the next arrival, the next room that becomes free or `until_fs`, whichever is first."""
        self._issue()
        times = [self._room.leaving[0][0]] if self._room.leaving else []
        times += [until_fs] if until_fs is not None else []
        target_fs = min(times, default=None)
        if not self._jobs:
            if target_fs is None:
                raise NoProgressError(f"{self._name} makes no progress: {self.device.describe_work()}")
            self._now_fs = max(self._now_fs, target_fs)
        else:
            self._advance_device(target_fs)
        self._room.free_until(self._now_fs)
        self._consume()

    def _advance_device(self, target_fs: int | None) -> None:
        device = self.device
        completion = device.advance(None if target_fs is None else device.to_ticks(target_fs))
        if completion is None:
            if target_fs is None:
                raise NoProgressError(f"{self._name} makes no progress: {device.describe_work()}")
            self._now_fs = max(self._now_fs, target_fs)
            return
        chunk = self._jobs.pop(completion.job)
        now_fs = device.to_fs(device.now)
        self._now_fs = max(self._now_fs, now_fs if target_fs is None else min(now_fs, target_fs))
        if chunk is not None:
            latency_fs = self._link.latency if self._link is not None else 0
            chunk.arrival_fs = max(device.to_fs(completion.tick), chunk.wire_end_fs) + latency_fs

    def _consume(self) -> None:
        """The engines take what has arrived for the current operator, in order."""
        current = self._current
        while self._consumed < current.last:
            chunk = self._chunks[self._consumed]
            if chunk.arrival_fs < 0:
                return
            begin_fs = max(current.end_fs, chunk.arrival_fs)
            current.wait_fs += begin_fs - current.end_fs
            current.late_rounds += chunk.rounds if chunk.arrival_fs > current.start_fs else 0
            before_fs = current.engine_fs * current.done_rounds // current.rounds
            current.done_rounds += chunk.rounds
            current.end_fs = begin_fs + current.engine_fs * current.done_rounds // current.rounds - before_fs
            self._room.leaving.append((current.end_fs, chunk.rounds))
            self._consumed += 1

    def _issue(self) -> None:
        """Start loads in order while there is room, as far ahead as this tier goes."""
        while self._issued < len(self._chunks):
            chunk = self._chunks[self._issued]
            reads = sum(one is not None for one in self._jobs.values())
            early = chunk.operator > self._current.index
            if reads >= self._read_jobs or self._room.used + chunk.rounds > self._read_rounds:
                return
            if early and (not self._ahead or chunk.after >= max(0, self._current.index)):
                return
            self._submit(chunk, Range(chunk.first_round, chunk.rounds))
            chunk.issue_fs = self._now_fs
            self._room.used += chunk.rounds
            self._issued += 1
            if self._link is not None:
                wire_fs = self._link.wire_fs(chunk.rounds * self.device.round_bytes)
                self._wire_free_fs = max(self._wire_free_fs, self._now_fs) + wire_fs
                chunk.wire_end_fs = self._wire_free_fs

    def _submit(self, chunk: _Chunk | None, data: Range) -> None:
        self.catch_up()
        self._jobs[self.device.submit(Transfer((data,)))] = chunk

    def _post(self, size_bytes: int, end_fs: int) -> tuple[int, int]:
        """Take what an operator writes at `end_fs`: (bytes that are now being written, when all of it was taken)."""
        self._gathered_bytes += size_bytes
        part_bytes = self._part_rounds * self.device.round_bytes
        written = 0
        while self._gathered_bytes >= part_bytes:
            self.advance_to(max(end_fs, self._write_wire_free_fs))
            while sum(one is None for one in self._jobs.values()) >= WRITE_PARTS:
                self._step(None)
            end_fs = max(end_fs, self._now_fs)
            self._submit(None, self._next_write())
            if self._link is not None:
                self._write_wire_free_fs = end_fs + self._link.wire_fs(part_bytes)
            self._gathered_bytes -= part_bytes
            written += part_bytes
        return written, end_fs

    def _next_write(self) -> Range:
        """The next part of the log that is written, from the first free round to the last and around."""
        first, last = self._first_free_round, self._rounds
        if not first <= self._write_head <= last - self._part_rounds:
            self._write_head = min(first, last - self._part_rounds)
        begin = self._write_head
        self._write_head += self._part_rounds
        return Range(begin, self._part_rounds, write=True)

    # ------------------------------------------------------------ chunks

    def _begin_of(self, operator: int) -> int:
        return self._end_of[operator - 1] if operator > 0 else 0

    def _cut(self, operator: int, part: TierPart, after: int) -> list[_Chunk]:
        return [
            _Chunk(operator, first + done, min(self._part_rounds, rounds - done), after)
            for first, rounds in part.ranges
            for done in range(0, rounds, self._part_rounds)
        ]

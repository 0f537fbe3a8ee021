"""One channel of a replay: a kernel that is fed requests in order, and resumed.

It is simulated only so far that it can't run out of requests it has not been given yet, so the result is the same as
if the whole trace had been there from the beginning:

* a request not yet read arrives at the time of the last one read, or later; nothing before that tick depends on it;
* in d ticks at most d / column_ticks + 1 requests leave the queues, so that a pseudo-channel with n requests in hand
  admits none beyond them for (n - both queues' entries - 2) x column_ticks ticks. Where queued writes answer requests
  any number may be admitted at once: then that is tried, and taken back if a pseudo-channel has run out of requests.

A marker that never arrives stands for what is still to come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archsim.config.errors import UserError
from archsim.kernels import channel, dram
from archsim.kernels.canonical import settle_idle
from archsim.kernels.jit import kernel, pointer
from archsim.kernels.tiles import submit_job, submit_stream
from archsim.kernels.timing import Count, DramTiming, answers_from_write_queue
from archsim.memory.latency import Latencies

HORIZON_TICKS = 1 << 37
LOG_ROWS = 1 << 17
"""Rows of the command log between two hand-overs."""

Ints = NDArray[np.int64]
LogSink = Callable[[int, Ints], None]
"""Takes a channel's number and rows of its command log (columns: timing.LogField), in order of time."""


class _Lane:
    """What one pseudo-channel has been given and has not finished: requests `first` .. `first + len(words)`."""

    def __init__(self) -> None:
        self.first = 0
        self.words = np.zeros(0, np.int64)
        self.arrivals = np.zeros(0, np.int64)
        self.done = np.zeros(0, np.int64)  # -1: not yet; -2: counted
        self.answered = np.zeros(0, np.bool_)  # by the write queue, without a command
        self.entered = np.zeros(0, np.int64)  # tick it entered its queue, -1: not known yet
        self.new: list[tuple[Ints, Ints]] = []
        self.known = 0  # requests whose entry into the queue is known
        self.last_entry = 0
        self.admitted_of = [0, 0]  # reads, writes among them that entered their queue
        self.issued_of = [0, 0]  # column commands known
        self.history = [np.zeros(0, np.int64), np.zeros(0, np.int64)]  # their ticks, sorted, the latest ones

    @property
    def given(self) -> int:
        """Requests given in all."""
        return self.first + len(self.words)

    def take_new(self) -> None:
        """Append what was fed to the arrays."""
        words = [self.words, *(pair[0] for pair in self.new)]
        arrivals = [self.arrivals, *(pair[1] for pair in self.new)]
        self.new.clear()
        self.words, self.arrivals = np.concatenate(words), np.concatenate(arrivals)
        fresh = np.full(len(self.words) - len(self.done), -1, np.int64)
        self.done = np.concatenate((self.done, fresh))
        self.answered = np.concatenate((self.answered, np.zeros(len(fresh), np.bool_)))
        self.entered = np.concatenate((self.entered, fresh))

    def drop_finished(self) -> None:
        """Forget the requests before the oldest one that is not finished."""
        open_ones = self.done != -2
        n = int(np.argmax(open_ones)) if open_ones.any() else len(self.done)
        self.first += n
        for name in ("words", "arrivals", "done", "answered", "entered"):
            setattr(self, name, getattr(self, name)[n:])


class ReplayChannel:
    """One channel that is fed requests per pseudo-channel and simulated as far as they determine what happens."""

    def __init__(
        self,
        timing: DramTiming,
        bank_of: Ints,
        column_of: Ints,
        timed: bool,
        log_sink: LogSink | None = None,
        number: int = 0,
    ) -> None:
        self._timing = timing
        self._tables = bank_of, column_of
        self._timed = timed
        self._sink = log_sink
        self._number = number
        self._state = channel.new_state(timing)
        self._view = channel.ChannelView(self._state)
        self._lanes = [_Lane() for _ in range(timing.pseudo_channels)]
        self._log = np.zeros((LOG_ROWS if log_sink is not None else 0, 8), np.int64)
        self._to_issue = (timing.tCL + timing.tBL, timing.tCWL + timing.tBL)  # from a column command to its completion
        self._depths = (timing.read_queue, timing.write_queue)
        self._answers = answers_from_write_queue(timing)
        self.from_arrival = Latencies(), Latencies()
        self.from_queue = Latencies(), Latencies()
        self.end_tick = 0
        _open_stream(self._state, timing)

    @property
    def counts(self) -> Ints:
        """Counts so far, indices as in timing.Count; the sum of latencies is from arrival."""
        counts = self._view.counts.copy()
        counts[Count.LATENCY] = sum(part.total for part in self.from_arrival)
        return counts

    @property
    def requests(self) -> tuple[int, int]:
        """Reads and writes completed."""
        return self.from_queue[0].count, self.from_queue[1].count

    @property
    def waiting_requests(self) -> int:
        """Requests in memory: given and not finished, or finished after an older one that is not."""
        return sum(len(lane.words) + sum(len(pair[0]) for pair in lane.new) for lane in self._lanes)

    def feed(self, parts: list[tuple[Ints, Ints]]) -> None:
        """Give requests to each pseudo-channel: words `local burst address << 1 | write` and arrival ticks."""
        for lane, part in zip(self._lanes, parts, strict=True):
            if len(part[0]):
                lane.new.append(part)

    def run(self, unread_arrival: int) -> None:
        """Simulate as far as no request matters that has not been given: such arrive from `unread_arrival` on."""
        slack = sum(self._depths) + 2
        least = min(len(lane.words) + sum(len(pair[0]) for pair in lane.new) for lane in self._lanes)
        if unread_arrival <= self._state[channel.NOW] and least <= 4 * slack:
            return  # not worth it yet
        arrays = self._begin(last=False)
        if self._answers:
            self._run_answering(arrays, unread_arrival, slack)
        else:
            while (until := max(unread_arrival, self._now + self._safe_ticks(slack))) >= self._now + slack:
                self._advance(arrays, until)
        self._end(arrays)

    def _run_answering(self, arrays: tuple[Ints, Ints, Ints], unread_arrival: int, slack: int) -> None:
        """As `run`, where requests may be admitted without a command: go on as long as none is missed."""
        while self._now < unread_arrival:
            self._advance(arrays, unread_arrival)
        share = 2
        while (ticks := self._safe_ticks(slack) // share) >= slack:
            if not self._try(arrays, self._now + ticks):
                share *= 2

    def _safe_ticks(self, slack: int) -> int:
        """Ticks in which no request beyond those in hand is admitted if each of them takes a command."""
        in_hand = min(lane.given - int(self._next(p)) for p, lane in enumerate(self._lanes))
        return (in_hand - slack) * self._timing.column_ticks

    def _try(self, arrays: tuple[Ints, Ints, Ints], until: int) -> bool:
        """Advance, unless a pseudo-channel admits all it has been given: then the next might have come too."""
        state, done = self._state.copy(), arrays[2].copy()
        self._simulate(arrays, until)
        if all(int(self._next(p)) < lane.given for p, lane in enumerate(self._lanes)):
            self._hand_over_log()
            return True
        self._state[:], arrays[2][:] = state, done
        return False

    def finish(self) -> None:
        """Simulate to the last completion; nothing more will be fed."""
        arrays = self._begin(last=True)
        while any(int(self._view.stream_issued[0, p]) < lane.given for p, lane in enumerate(self._lanes)):
            self._advance(arrays, HORIZON_TICKS)
        self._end(arrays)
        _settle_bus(self._state, self._timing)

    @property
    def _now(self) -> int:
        return int(self._state[channel.NOW])

    def _next(self, p: int) -> int:
        return int(self._view.stream_next[0, p])

    def _begin(self, last: bool) -> tuple[Ints, Ints, Ints]:
        """The kernel's trace arrays (words, arrivals, completions); a marker ends each lane unless it is the last."""
        words, arrivals, done, offset, remaining = [], [], [], 0, 0
        marker = 0 if last else 1
        now = self._state[channel.NOW]
        for p, lane in enumerate(self._lanes):
            lane.take_new()
            words += [lane.words, np.zeros(marker, np.int64)]
            arrivals += [lane.arrivals, np.full(marker, channel.NEVER, np.int64)]
            done += [lane.done, np.full(marker, -1, np.int64)]
            self._view.stream_base[0, p] = offset - lane.first
            self._view.stream_total[0, p] = lane.given + marker
            remaining += lane.given + marker - int(self._view.stream_issued[0, p])
            offset += len(lane.words) + marker
            self._view.admit_at[p] = min(int(self._view.admit_at[p]), now)
        self._view.job[0, channel.JOB_OPEN_READS] = remaining
        return np.concatenate(words), np.concatenate(arrivals), np.concatenate(done)

    def _advance(self, arrays: tuple[Ints, Ints, Ints], until: int) -> None:
        """Run the kernel to a tick, or less far if the command log has to be handed over."""
        self._simulate(arrays, until)
        self._hand_over_log()

    def _simulate(self, arrays: tuple[Ints, Ints, Ints], until: int) -> None:
        if self._state[channel.NOW] >= HORIZON_TICKS:
            raise UserError(f"the trace takes more than the {HORIZON_TICKS} ticks that can be simulated")
        if self._sink is not None:
            until = min(until, int(self._state[channel.NOW]) + LOG_ROWS // 2 - 8)  # two commands per tick at most
        _advance(self._state, self._timing, *self._tables, *arrays, self._log, min(until, HORIZON_TICKS), False)

    def _hand_over_log(self) -> None:
        if self._sink is not None:
            n = int(self._state[channel.LOG_LENGTH])
            self._state[channel.LOG_LENGTH] = 0
            if n:
                self._sink(self._number, self._log[:n].copy())

    def _end(self, arrays: tuple[Ints, Ints, Ints]) -> None:
        """Take the completions over, count what is new, and forget what is finished."""
        for p, lane in enumerate(self._lanes):
            offset = int(self._view.stream_base[0, p]) + lane.first
            lane.done = arrays[2][offset : offset + len(lane.words)].copy()
            answered = lane.done >= channel.ANSWERED
            lane.answered |= answered
            lane.done[answered] -= channel.ANSWERED
            self._count(lane, self._next(p))
            lane.drop_finished()

    def _count(self, lane: _Lane, admitted: int) -> None:
        """Note entries into the queue and the latencies of what has been completed since the last time."""
        fresh = lane.done >= 0
        writes = (lane.words & 1).astype(bool)
        for w in (0, 1):
            commanded = fresh & ~lane.answered & (writes == bool(w))
            issued = np.sort(lane.done[commanded]) - self._to_issue[w]
            lane.history[w] = np.concatenate((lane.history[w], issued))
            lane.issued_of[w] += len(issued)
        self._note_entries(lane, writes, admitted)
        if fresh.any():
            self.end_tick = max(self.end_tick, int(lane.done.max()))
        for w in (0, 1):
            mine = fresh & (writes == bool(w))
            done, entered = lane.done[mine], lane.entered[mine]
            self.from_queue[w].add(done - entered)
            self.from_arrival[w].add(done - (lane.arrivals[mine] if self._timed else entered))
        lane.done[fresh] = -2

    def _note_entries(self, lane: _Lane, writes: NDArray[np.bool_], admitted: int) -> None:
        """When each newly admitted request entered its queue.

        Requests enter in order, on arrival or as soon as there is room. A queue of depth d has room for its k-th
        request (from 0 on) in the tick after its (k - d + 1)-th column command. A request that is answered then and
        there waits for room like any other, and takes none."""
        first, last = lane.known - lane.first, admitted - lane.first
        if last <= first:
            return
        entry = lane.arrivals[first:last].copy()
        for w in (0, 1):
            mine = np.flatnonzero(writes[first:last] == bool(w))
            oldest = lane.issued_of[w] - len(lane.history[w])  # rank of history[0]
            queued = ~lane.answered[first:last][mine]
            rank = lane.admitted_of[w] + np.cumsum(queued) - queued - self._depths[w]
            bound = rank >= 0
            entry[mine[bound]] = np.maximum(entry[mine[bound]], lane.history[w][rank[bound] - oldest] + 1)
            lane.admitted_of[w] += int(queued.sum())
            keep_from = max(lane.admitted_of[w] - self._depths[w] - oldest, 0)
            lane.history[w] = lane.history[w][keep_from:]
        entry[0] = max(int(entry[0]), lane.last_entry)
        lane.entered[first:last] = np.maximum.accumulate(entry)
        lane.last_entry = int(lane.entered[last - 1])
        lane.known = admitted


@kernel
def _open(state, q):  # type: ignore[no-untyped-def]
    """One job of one trace stream that takes requests whenever there are any."""
    st = pointer(state)
    submit_job(st, q, 0, 0, 0, 0)
    for p in range(q.pseudo_channels):
        channel.pseudo_channel(st, p)[channel.STREAM_TOTAL] = 1
    submit_stream(st, q, 0, 0, 0, 0, 1)
    for p in range(q.pseudo_channels):
        channel.pseudo_channel(st, p)[channel.STREAM_TOTAL] = 0


@kernel
def _settle(state, q):  # type: ignore[no-untyped-def]
    settle_idle(pointer(state), q)


# Kernels are untyped.
_advance: Any = dram.advance
_open_stream: Any = _open
_settle_bus: Any = _settle

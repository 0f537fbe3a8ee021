"""Channels that are given equal work evolve equally: one state stands for all of them, for as long as that lasts.

A class is a state and the channels it stands for. Work that differs between channels splits a class; classes whose
states become equal are merged. Both are decided by comparing, never by assuming, so that every number is that of
simulating each channel on its own; only the cost depends on how many classes there are (docs/channel_classes.md).

Classes are simulated one after the other, each as far as nothing can reach it from the others: the end of a transfer,
which is when its last channel is done, or the start of a tile, which waits for the slowest channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from archsim.kernels import channel
from archsim.kernels.classes import IDENTITY_LENGTH, earliest_ready, run_to_ready, set_gate, write_identity
from archsim.kernels.dram import advance
from archsim.kernels.entries import open_job, open_stream, settle, shift_clock, start_job
from archsim.kernels.histogram import BUCKETS
from archsim.kernels.memo import advance_with_memo
from archsim.kernels.memo_tables import Memo
from archsim.kernels.timing import COUNT_WORDS, DramTiming
from archsim.memory.channel_class import NO_WORDS, ChannelClass, Job, Stream
from archsim.memory.layout import Shares

Ints = NDArray[np.int64]

NO_LOG = np.zeros((0, 8), np.int64)
MERGE_INTERVALS = 2
"""Classes are first compared after so many refresh intervals of a transfer, then after twice as long, and so on."""


class ChannelClasses:
    """The channels of a device, as few classes as are exact. Ticks count from the last `shift`.

    Args:
        timing, bank_of, column_of: the channel, as in `dram.advance`.
        channels: how many there are.
        memo: known periods, or None to simulate every command.
        merging: False keeps classes apart once they are split, and `split_all` starts so: the plain simulation.
    """

    def __init__(
        self,
        timing: DramTiming,
        bank_of: Ints,
        column_of: Ints,
        channels: int,
        memo: Memo | None,
        *,
        merging: bool = True,
        split_all: bool = False,
    ) -> None:
        self._timing, self._tables, self._memo = timing, (bank_of, column_of), memo
        self._merging = merging
        self._channels = channels
        self._split_all = split_all
        self._scratch = np.zeros(IDENTITY_LENGTH, np.int64)
        interval = timing.tREFIpb if timing.refresh_mode == 2 else timing.tREFI
        self._interval = interval  # about the length of a period of the memo
        self.reset()

    def reset(self) -> None:
        """Back to tick 0: drained, every bank closed, nothing counted."""
        fresh, everyone = channel.new_state(self._timing), np.arange(self._channels)
        groups = everyone.reshape(-1, 1) if self._split_all else everyone.reshape(1, -1)
        self.classes = [ChannelClass(fresh.copy(), members) for members in groups]
        self._jobs: dict[int, Job] = {}
        self._beyond = np.zeros((self._channels, COUNT_WORDS), np.int64)  # a channel's counts beyond those of its class
        self._histogram_beyond = np.zeros((2, BUCKETS), np.int64)  # the same for histograms of latencies, in sum
        self._held = False

    @property
    def now(self) -> int:
        """The tick that all channels have reached."""
        return self.classes[0].now

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return bool(self._jobs)

    def counts(self) -> Ints:
        """Counts of every channel, int64[channels, count] (timing.Count); idle time is counted up to now."""
        counts = self._beyond.copy()
        for one in self.classes:
            settle(one.state, self._timing)
            counts[one.members] += one.counts
        return counts

    def total_counts(self) -> Ints:
        """Counts of all channels together, int64[COUNT_WORDS]."""
        total = self._beyond.sum(axis=0)
        for one in self.classes:
            settle(one.state, self._timing)
            total += len(one.members) * one.counts
        return np.asarray(total)

    def total_histogram(self) -> Ints:
        """Latencies of all channels together, int64[2, BUCKETS] (kernels/histogram.py)."""
        total = self._histogram_beyond.copy()
        for one in self.classes:
            total += len(one.members) * one.histogram
        return total

    def shift(self, ticks: int) -> None:
        """Set the clock back by a whole number of clocks; nothing else changes."""
        for one in self.classes:
            shift_clock(one.state, self._timing, ticks)
            one.arrival = one.arrival - ticks
            one.ended = {job: (tick - ticks, last_data - ticks) for job, (tick, last_data) in one.ended.items()}
        for job in self._jobs.values():
            if job.gate < channel.NEVER:
                job.gate -= ticks

    # ------------------------------------------------------------ jobs

    def submit(self, job: int, tiles: int, tile_ticks: int, gated: bool, streams: Sequence[Stream]) -> None:
        """Open a job now, in the channels that have a share of it. Splits classes whose members' shares differ."""
        self.merge()
        self._jobs[job] = Job(tiles, tile_ticks, int(channel.NEVER) if gated else 0)
        uneven = [stream.work for stream in streams if isinstance(stream.work, Shares)]
        if uneven:
            self.classes = [part for one in self.classes for part in self._split(one, uneven)]
        for one in self.classes:
            self._open(one, job, streams)

    def open_gate(self, job: int) -> None:
        """Let the tiles of a gated job start from now on."""
        self._jobs[job].gate = self.now
        if not self._held:
            set_gate(self.classes[0].state, self._timing, job, self.now)

    def _split(self, one: ChannelClass, works: Sequence[Shares]) -> list[ChannelClass]:
        groups: dict[tuple[int, ...], list[int]] = {}
        for member in one.members.tolist():
            groups.setdefault(tuple(work.kinds[member] for work in works), []).append(member)
        if len(groups) == 1:
            return [one]
        return [one.split_off(np.array(members)) for members in groups.values()]

    def _open(self, one: ChannelClass, job: int, streams: Sequence[Stream]) -> None:
        """Open a job in one class, unless it has no share in it."""
        works = [stream.runs_of(int(one.members[0]), self._timing.pseudo_channels) for stream in streams]
        if not any(count.sum() for runs in works for _, count in runs):
            return
        data = self._jobs[job]
        open_job(one.state, self._timing, job, data.tiles, data.tile_ticks, data.gate)
        view = channel.ChannelView(one.state)
        for stream, runs in zip(streams, works, strict=True):
            listed = any(len(first) > 1 for first, _ in runs)
            for p, (first, count) in enumerate(runs):
                view.stream_total[stream.slot, p] = count.sum()
                view.stream_base[stream.slot, p] = first[0] if len(first) else 0
                if listed:
                    view.stream_base[stream.slot, p] = one.list_requests(job, first, count, stream.write)
            arguments = (stream.slot, job, int(stream.write), stream.window_bursts, int(listed))
            open_stream(one.state, self._timing, *arguments)
        start_job(one.state, self._timing, job)
        one.active.add(job)

    # ------------------------------------------------------------ time

    def advance(self, limit: int) -> tuple[int, int] | None:
        """Simulate to the end of a job, which is returned with the tick of its last data, or to tick `limit`."""
        finished = self._finished()
        if finished is not None:
            return finished
        if len(self.classes) == 1:
            self._release()
            self._run(self.classes[0], limit)
            return self._finished()
        interval = MERGE_INTERVALS * self._interval
        while True:
            stop = min(limit, self.now + interval)
            self._advance_together(stop)
            finished = self._finished()
            if finished is not None or stop >= limit:
                return finished
            self.merge()
            if len(self.classes) == 1:
                return self.advance(limit)
            interval *= 2

    def merge(self) -> None:
        """Make one class of those whose states, and what is left of their lists, are equal. All are at one tick."""
        if len(self.classes) == 1 or not self._merging:
            return
        kept: dict[tuple[bytes, int], ChannelClass] = {}
        for one in self.classes:
            n = write_identity(one.state, self._timing, self._scratch)
            key = (self._scratch[:n].tobytes(), id(one.words) if one.listed else 0)
            other = kept.setdefault(key, one)
            if other is not one:
                self._join(other, one)
        self.classes = list(kept.values())

    def _join(self, other: ChannelClass, one: ChannelClass) -> None:
        """Let `other` stand for the members of `one`, whose state is equal; counts stay each channel's own."""
        self._beyond[one.members] += one.counts - other.counts
        self._histogram_beyond += len(one.members) * (one.histogram - other.histogram)
        other.members = np.sort(np.concatenate((other.members, one.members)))
        for job, (tick, last_data) in one.ended.items():
            known = other.ended.get(job, (0, 0))
            other.ended[job] = (max(known[0], tick), max(known[1], last_data))

    def _finished(self) -> tuple[int, int] | None:
        """A job that has ended in all its channels, with the tick of its last data; forget it."""
        now = self.now
        for job in sorted(self._jobs):
            ends = [one.ended[job] for one in self.classes if job in one.ended]
            if ends and not any(job in one.active for one in self.classes) and max(tick for tick, _ in ends) <= now:
                del self._jobs[job]
                for one in self.classes:
                    one.ended.pop(job, None)
                return job, max(last_data for _, last_data in ends)
        return None

    def _advance_together(self, limit: int) -> None:
        """Bring all classes to tick `limit`, or to the first tick at which a job has ended in all its channels."""
        self._hold()
        while True:
            limit = min(limit, self._first_end())
            self._start_tiles()
            ends = {job: self._end_bound(job) for job in self._jobs}
            starts = {job: self._start_bound(job) for job in self._jobs}
            if all(one.now >= limit for one in self.classes):
                return
            for one in self.classes:
                horizon = self._horizon(one, limit, ends, starts)
                if one.now < horizon:
                    self._run(one, horizon)

    def _first_end(self) -> int:
        """The first tick at which a job has ended in all its channels, NEVER if none has."""
        first = int(channel.NEVER)
        for job in self._jobs:
            ends = [one.ended[job][0] for one in self.classes if job in one.ended]
            if ends and not any(job in one.active for one in self.classes):
                first = min(first, max(ends))
        return first

    def _end_bound(self, job: int) -> int:
        """A tick before which the job does not end."""
        ends = [one.ended[job][0] for one in self.classes if job in one.ended]
        return max([*ends, *(self._least_end(one, job) for one in self.classes if job in one.active)])

    def _least_end(self, one: ChannelClass, job: int) -> int:
        """A tick before which a class does not end a job: the column bus carries one command at a time, the engines
        take their time for each tile."""
        data = self._jobs[job]
        commands = one.job_word(job, channel.JOB_OPEN_READS) + one.job_word(job, channel.JOB_OPEN_WRITES)
        drained = one.now + (commands - 1) * self._timing.column_ticks + 1 if commands else one.now
        running = one.job_word(job, channel.JOB_TILE_END)
        consumed = running if running < channel.NEVER else one.now
        return max(drained, consumed + (data.tiles - one.job_word(job, channel.JOB_STARTED)) * data.tile_ticks)

    def _ends_now(self, one: ChannelClass) -> bool:
        """Whether nothing but the end of a last tile, at the tick reached, is missing to the end of a job."""
        return any(
            one.job_word(job, channel.JOB_TILE_END) <= one.now and self._least_end(one, job) == one.now
            for job in one.active
        )

    def _waits_for_tile(self, one: ChannelClass, job: int) -> bool:
        """Whether the class has tiles of a job yet to start."""
        data = self._jobs[job]
        return job in one.active and one.job_word(job, channel.JOB_STARTED) < data.tiles

    def _horizon(self, one: ChannelClass, limit: int, ends: dict[int, int], starts: dict[int, int]) -> int:
        """How far a class can run before something in another one matters to it."""
        horizon = limit
        for job, data in self._jobs.items():
            if job not in one.active:
                horizon = min(horizon, ends[job])  # a new job may come when this one ends
            elif self._waits_for_tile(one, job) and data.gate < channel.NEVER:
                if one.job_word(job, channel.JOB_STARTED) == data.tile:
                    horizon = min(horizon, data.start + 1)
                elif one.job_word(job, channel.JOB_READY) < channel.NEVER:  # else it runs to where that is known
                    horizon = min(horizon, max(one.job_word(job, channel.JOB_READY), starts[job]))
        if horizon <= one.now < limit and self._ends_now(one):
            return one.now + 1  # the channel stops where the job ends, at the tick that it has reached
        return horizon

    def _start_bound(self, job: int) -> int:
        """A tick before which the next tile of a job does not start: its data are not there yet in every channel."""
        waiting = [one for one in self.classes if self._waits_for_tile(one, job)]
        tiles = [one.job_word(job, channel.JOB_STARTED) for one in waiting]
        return max(
            (
                earliest_ready(one.state, self._timing, job)
                for one, tile in zip(waiting, tiles, strict=True)
                if tile == min(tiles)
            ),
            default=0,
        )

    def _start_tiles(self) -> None:
        """For each job whose next tile has its data in every channel, set when it starts."""
        for job, data in self._jobs.items():
            waiting = [one for one in self.classes if self._waits_for_tile(one, job)]
            if not waiting or data.gate >= channel.NEVER:
                continue
            started = {one.job_word(job, channel.JOB_STARTED) for one in waiting}
            ready = [one.job_word(job, channel.JOB_READY) for one in waiting]
            if len(started) > 1 or max(ready) >= channel.NEVER or started == {data.tile}:
                continue
            running = [one.job_word(job, channel.JOB_TILE_END) for one in waiting]
            data.start = max(*ready, data.gate, *(tick for tick in running if tick < channel.NEVER), 0)
            data.tile = started.pop()
            for one in waiting:
                set_gate(one.state, self._timing, job, data.start)

    def _hold(self) -> None:
        """Keep every class from starting tiles on its own."""
        self._held = True
        for job, data in self._jobs.items():
            data.tile = -1
            for one in self.classes:
                if data.tiles and job in one.active:
                    set_gate(one.state, self._timing, job, channel.NEVER)

    def _release(self) -> None:
        """Let the only class start its tiles by itself."""
        if self._held:
            self._held = False
            for job, data in self._jobs.items():
                if data.tiles and job in self.classes[0].active:
                    set_gate(self.classes[0].state, self._timing, job, data.gate)

    def _run(self, one: ChannelClass, until: int) -> None:
        """Simulate one class to tick `until`, or to the end of a job, or to where a tile's data are known to come."""
        unknown = [
            job
            for job in one.active
            if self._held and self._waits_for_tile(one, job) and one.job_word(job, channel.JOB_READY) >= channel.NEVER
        ]
        if len(unknown) > 1:
            until = min(until, *(earliest_ready(one.state, self._timing, job) for job in unknown))
        lists = (one.words, one.arrival)
        if len(unknown) == 1:
            run_to_ready(one.state, self._timing, *self._tables, *lists, unknown[0], until)
        elif self._memo is not None and not one.listed and (not self._held or until - one.now >= self._interval):
            advance_with_memo(one.state, self._timing, *self._tables, self._memo, until)
        else:
            advance(one.state, self._timing, *self._tables, *lists, NO_WORDS, NO_LOG, until, False)
        self._note_progress(one)

    def _note_progress(self, one: ChannelClass) -> None:
        """Note a job that has ended in a class, and hold the tiles after one that has started."""
        job = int(one.state[channel.FINISHED_JOB])
        if job >= 0:
            one.state[channel.FINISHED_JOB] = -1
            one.active.discard(job)
            one.ended[job] = (one.now, one.job_word(job, channel.JOB_LAST_DATA))
            one.state[channel.JOB + job * channel.JOB_FIELDS + channel.JOB_GATE] = 0  # as in a channel without a share
            one.listed.discard(job)
            if not one.listed:
                one.words = one.arrival = NO_WORDS
        if self._held:
            for tiled, data in self._jobs.items():
                if tiled in one.active and one.job_word(tiled, channel.JOB_STARTED) == data.tile + 1 > 0:
                    set_gate(one.state, self._timing, tiled, channel.NEVER)

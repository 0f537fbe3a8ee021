"""The driver of a device's HBM: ranges of bytes in, completions and counts out.

Most ranges are cut burst by burst over all pseudo-channels and padded to a whole round, so that every channel runs
through the same states and one stands for all. Work that differs between channels (`layout.Shares`: ragged ends,
channel subsets, pages) splits the channels into classes, each simulated on its own (classes.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from archsim.config.errors import UserError
from archsim.kernels import channel
from archsim.kernels.memo_tables import Memo, new_memo
from archsim.kernels.program import FIRST_COUNT, OUTCOME_WORDS, run_program
from archsim.kernels.timing import Count, DramTiming, answers_from_write_queue, least_tile_ticks
from archsim.memory.channel_class import ChannelClass, Stream
from archsim.memory.classes import ChannelClasses
from archsim.memory.layout import InterleaveSpec, Layout, Shares
from archsim.memory.standard import ControllerSpec, DramStandard
from archsim.memory.ticks import Ticking
from archsim.records import Counts

HORIZON_TICKS = 1 << 37
REBASE_TICKS = 1 << 35
"""The kernel's clock is set back before it comes near its limit."""
LOADED_ROW_SETS = 32
"""A stream of so many row sets (ten refresh intervals of HBM3E) has the mean latency of any longer one."""


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of one tensor: the first burst in every pseudo-channel and how many bursts there, read or written."""

    first_burst: int
    bursts: int
    write: bool = False


@dataclass(frozen=True, slots=True)
class Transfer:
    """An operator's memory traffic and the consumer of its data: `tiles` steps of `tile_ticks`, a window of
    `window_bursts` per pseudo-channel (docs/dram_policy.md, "Jobs and tiles"). `gated` holds the consumer until
    `open_gate`."""

    ranges: tuple[Range | Shares, ...]
    tiles: int = 0
    tile_ticks: int = 0
    window_bursts: int = 0
    gated: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """A transfer that has finished: its job, and the tick at which its last data arrived or its last tile ended."""

    job: int
    tick: int


class StuckMemoryError(RuntimeError):
    """The memory did not end a transfer within the ticks that are counted: the message says where.

    Of a chain, `finished` operators would have ended."""

    def __init__(self, message: str, finished: int = 0) -> None:
        super().__init__(message)
        self.finished = finished


class HbmDevice(Ticking):
    """The HBM of one device: `channels` equal channels of a standard, simulated as classes of channels with equal work.

    Time is in ticks of the standard's command clock, from `to_ticks` and `to_fs`. Without `shortcuts` every command is
    simulated in every channel; with them, known periods are taken from a memo, channels that do the same are simulated
    once, and every number is the same. `layout` says how addresses fall on channels, None that ranges are padded.
    """

    def __init__(
        self,
        standard: DramStandard,
        controller: ControllerSpec,
        channels: int,
        *,
        shortcuts: bool = True,
        interleave: InterleaveSpec | None = None,
    ) -> None:
        self.timing: DramTiming = standard.timing(controller)
        self.channels = channels
        self.tick_fs = standard.tick_fs
        tables = standard.address_tables(controller)
        self._bank_of = tables.bank.astype(np.int64)
        self._column_of = tables.column.astype(np.int64)
        self._memo: Memo | None = _shared_memo(self.timing, self._bank_of) if shortcuts else None
        self.layout: Layout | None = None
        if interleave is not None:
            if answers_from_write_queue(self.timing):
                raise UserError(
                    "an interleaved memory does not know write_forwarding and write_coalescing yet",
                    expected="both off, or no interleave",
                )
            sizes = (channels, self.timing.pseudo_channels, self.timing.burst_bytes, len(self._bank_of))
            self.layout = Layout(interleave, *sizes)
        self._classes = self._new_classes(channels, merging=shortcuts or interleave is None)
        self._origin = 0  # tick that the kernel's clock counts from
        self._streams_of: dict[int, tuple[int, ...]] = {}

    @property
    def pseudo_channels(self) -> int:
        """Pseudo-channels of the whole device."""
        return self.channels * self.timing.pseudo_channels

    @property
    def classes(self) -> int:
        """Classes of channels that are simulated at present."""
        return len(self._classes.classes)

    @property
    def round_bytes(self) -> int:
        """Bytes of one burst in every pseudo-channel: what ranges are padded to."""
        return self.pseudo_channels * self.timing.burst_bytes

    @property
    def row_set_bursts(self) -> int:
        """Bursts of a pseudo-channel that fill one row of all its banks."""
        return len(self._bank_of)

    @property
    def burst_bytes(self) -> int:
        """Bytes of one burst of one pseudo-channel."""
        return self.timing.burst_bytes

    @property
    def burst_ticks(self) -> int:
        """The least time between two bursts of a pseudo-channel."""
        return self.timing.tCCDS

    @property
    def least_tile_ticks(self) -> int:
        """The shortest tile that a consumer may have."""
        return least_tile_ticks(self.timing)

    @cached_property
    def loaded_read_fs(self) -> int:
        """Mean latency of reads while a sequential stream keeps every channel busy: what one more access waits."""
        one = ChannelClasses(self.timing, self._bank_of, self._column_of, 1, None)
        one.submit(0, 0, 0, False, [Stream(0, (0, LOADED_ROW_SETS * self.row_set_bursts), False, 0)])
        one.advance(HORIZON_TICKS)
        counts = one.total_counts()
        return self.to_fs(int(counts[Count.LATENCY]) // int(counts[Count.RD]))

    @property
    def now(self) -> int:
        """The tick the device has been simulated to."""
        return self._origin + self._classes.now

    def bursts(self, size_bytes: int) -> int:
        """Bursts of every pseudo-channel that hold `size_bytes`."""
        return -(-size_bytes // self.round_bytes)

    def moved_bytes(self, data: Range | Shares) -> int:
        """Bytes that all pseudo-channels move for a range, in whole bursts."""
        if isinstance(data, Shares):
            return int(data.totals.sum()) * self.timing.burst_bytes
        return data.bursts * self.round_bytes

    def reset(self) -> None:
        """Back to tick 0: drained, every bank closed, nothing counted. What the memo learnt stays."""
        self._classes.reset()
        self._origin = 0
        self._streams_of.clear()

    # ------------------------------------------------------------ transfers

    def submit(self, transfer: Transfer) -> int:
        """Start a transfer now; its job number, which comes back in a `Completion`.

        Raises UserError if a tile is larger than the window or too short for the data to arrive in."""
        self.check(transfer)
        self._rebase()
        job, slots = self._free_job(), self._free_slots(len(transfer.ranges))
        streams = [
            Stream(slot, _work_of(data), data.write, transfer.window_bursts)
            for slot, data in zip(slots, transfer.ranges, strict=True)
        ]
        self._classes.submit(job, transfer.tiles, transfer.tile_ticks, transfer.gated, streams)
        self._streams_of[job] = slots
        return job

    def open_gate(self, job: int) -> None:
        """Let a gated transfer's consumer start from now on."""
        self._classes.open_gate(job)

    def advance(self, until: int | None = None) -> Completion | None:
        """Simulate to the next completion or to tick `until` (None: as long as it takes), whichever is first."""
        limit = HORIZON_TICKS if until is None else min(HORIZON_TICKS, until - self._origin)
        finished = self._classes.advance(limit)
        if finished is None:
            return None
        job, last_data = finished
        self._streams_of.pop(job, None)
        return Completion(job, self._origin + last_data)

    def idle_until(self, tick: int) -> None:
        """Let time pass up to `tick` while no transfer is under way; refresh goes on."""
        assert not self._streams_of, "a transfer is under way"
        while self.now < tick:
            self._rebase()
            self.advance(min(tick, self.now + REBASE_TICKS))

    def run_program(self, operators: np.ndarray, ranges: np.ndarray, start_fs: int) -> np.ndarray:
        """Run a chain of operators on an otherwise idle memory (see `kernels.program`): int64[n, OUTCOME_WORDS], counts
        those of all channels together. All channels are one class: no layout.

        Raises StuckMemoryError if it does not end before the horizon; the memory is then as it was before."""
        self.idle_until(self.to_ticks(start_fs))
        self._rebase()
        outcomes = np.zeros((len(operators), OUTCOME_WORDS), np.int64)
        tick = np.array([self.tick_fs.numerator, self.tick_fs.denominator], np.int64)
        (everyone,) = self._classes.classes
        before = everyone.state.copy()
        finished = run_program(
            everyone.state,
            self.timing,
            self._bank_of,
            self._column_of,
            self._memo if self._memo is not None else _no_memo(),
            self._memo is not None,
            operators,
            ranges,
            tick,
            self._origin,
            start_fs,
            HORIZON_TICKS,
            outcomes,
        )
        if finished < len(operators):
            stuck = StuckMemoryError(f"operator {finished} of the chain: {self.describe_work()}", finished)
            everyone.state[:] = before
            raise stuck
        outcomes[:, FIRST_COUNT:] *= self.channels
        return outcomes

    # ------------------------------------------------------------ what happened

    def count_vector(self) -> np.ndarray:
        """Counts of all channels together so far, int64[COUNT_WORDS] (timing.Count), idle time up to now included."""
        return self._classes.total_counts()

    def channel_counts(self) -> np.ndarray:
        """As `count_vector`, of each channel: int64[channels, COUNT_WORDS]."""
        return self._classes.counts()

    def latency_histogram(self) -> np.ndarray:
        """Latencies of all channels' requests so far, int64[2, BUCKETS]: reads, then writes, by bucket
        (kernels/histogram.py). All zero unless the controller keeps it (`latency_histogram: true`)."""
        return self._classes.total_histogram()

    def add_counts(self, delta: np.ndarray, counts: Counts) -> None:
        """Add a difference of two count vectors to a device's counts."""
        n = [int(word) for word in delta]
        counts.dram_activates += n[Count.ACT]
        counts.dram_precharges += n[Count.PRE] + n[Count.PREAB]
        counts.dram_reads += n[Count.RD]
        counts.dram_writes += n[Count.WR]
        counts.dram_refreshes_all_bank += n[Count.REFAB]
        counts.dram_refreshes_per_bank += n[Count.REFPB] + n[Count.REFSB] * self.timing.bank_groups
        counts.dram_row_hits += n[Count.HITS]
        counts.dram_row_misses += n[Count.MISSES]
        counts.dram_row_conflicts += n[Count.CONFLICTS]
        counts.dram_latency_ticks += n[Count.LATENCY]
        counts.dram_busy_ticks += n[Count.BUSY]
        counts.dram_refresh_ticks += n[Count.REFRESH]
        counts.dram_turnaround_ticks += n[Count.TURNAROUND]
        counts.dram_row_ticks += n[Count.ROW]
        counts.dram_idle_ticks += n[Count.IDLE]
        counts.dram_read_bytes += n[Count.RD] * self.timing.burst_bytes
        counts.dram_write_bytes += n[Count.WR] * self.timing.burst_bytes

    def describe_work(self) -> str:
        """What is in flight, for a message about a device that makes no progress."""
        return "; ".join(self._describe(one) for one in self._classes.classes[:4])

    def _describe(self, one: ChannelClass) -> str:
        queued = channel.ChannelView(one.state).queued[: self.timing.pseudo_channels]
        jobs = ", ".join(
            f"job {job}: {one.job_word(job, channel.JOB_OPEN_READS)} reads and "
            f"{one.job_word(job, channel.JOB_OPEN_WRITES)} writes to go, tile "
            f"{one.job_word(job, channel.JOB_ENDED)} of {one.job_word(job, channel.JOB_TILES)}"
            for job in sorted(one.active)
        )
        where = f"channel {one.members[0]}" + (f" and {len(one.members) - 1} like it" if len(one.members) > 1 else "")
        return f"{where}: queued per pseudo-channel (reads, writes): {queued.tolist()}; {jobs or 'no transfer'}"

    # ------------------------------------------------------------ slots and checks

    def _new_classes(self, channels: int, *, merging: bool) -> ChannelClasses:
        tables = (self._bank_of, self._column_of)
        return ChannelClasses(self.timing, *tables, channels, self._memo, merging=merging, split_all=not merging)

    def check(self, transfer: Transfer) -> None:
        """Refuse a transfer that the consumer could not work on. Raises UserError."""
        if transfer.tiles == 0:
            return
        shortest = least_tile_ticks(self.timing)
        if transfer.tile_ticks < shortest:
            raise UserError(f"a tile of {transfer.tile_ticks} ticks", expected=f"at least {shortest}, a read's latency")
        for data in transfer.ranges:
            share = -(-data.bursts // transfer.tiles)
            if not data.write and share > transfer.window_bursts:
                raise UserError(
                    f"a tile of {share} bursts is larger than the window of {transfer.window_bursts}",
                    expected="more tiles, or a larger stream_window",
                )

    def _free_job(self) -> int:
        for job in range(channel.MAX_JOBS):
            if job not in self._streams_of:
                return job
        raise UserError("more transfers at the same time than the device takes", expected=f"at most {channel.MAX_JOBS}")

    def _free_slots(self, number: int) -> tuple[int, ...]:
        """The lowest free stream slots: like work on an idle device takes like slots, so its states look alike."""
        used = {slot for slots in self._streams_of.values() for slot in slots}
        free = [slot for slot in range(channel.MAX_STREAMS) if slot not in used][:number]
        if len(free) < number:
            raise UserError(
                "more streams at the same time than the device takes", expected=f"at most {channel.MAX_STREAMS}"
            )
        return tuple(free)

    def _rebase(self) -> None:
        if self._classes.now > REBASE_TICKS:
            shift = self._classes.now // self.timing.ticks_per_ck * self.timing.ticks_per_ck
            self._classes.shift(shift)
            self._origin += shift


def _work_of(data: Range | Shares) -> tuple[int, int] | Shares:
    return data if isinstance(data, Shares) else (data.first_burst, data.bursts)


_MEMOS: dict[tuple[DramTiming, bytes, int], Memo] = {}
_MEMO_BUDGET_BYTES = [1 << 30]


def bound_memo(budget_bytes: int) -> None:
    """Memory that the memo of devices made from now on may take in this process; it changes speed, no result."""
    _MEMO_BUDGET_BYTES[0] = budget_bytes


def _shared_memo(timing: DramTiming, bank_of: np.ndarray) -> Memo:
    """One memo per timing and address map in a process: runs learn from each other, and none changes a result."""
    budget_bytes = _MEMO_BUDGET_BYTES[0]
    key = (timing, bank_of.tobytes(), budget_bytes)
    if key not in _MEMOS:
        _MEMOS.clear()  # keeps the memory of a sweep over timings bounded
        _MEMOS[key] = new_memo(budget_bytes, latency_histogram=bool(timing.latency_histogram))
    return _MEMOS[key]


@lru_cache(maxsize=1)
def _no_memo() -> Memo:
    """A placeholder of the memo's type for runs without it."""
    return new_memo(0)

"""The driver of a flash stack: ranges of pages in, completions and counts out.

All channels get equal requests: ranges are cut page by page over all channels and padded to a whole round, so one
channel stands for all, as in device.py. A burst of a `Range` is a whole page here: writes are aggregated into pages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archsim.config.errors import UserError
from archsim.kernels.flash import advance_flash
from archsim.kernels.flash_forward import advance_flash_streams, new_scratch
from archsim.kernels.flash_state import (
    FINISHED,
    LOG_LENGTH,
    MAX_JOBS,
    MAX_STREAMS,
    NEVER,
    NOW,
    TRACE,
    TRACE_WORDS,
    USED,
    FlashCount,
    FlashTiming,
    FlashView,
    Kind,
    new_state,
    open_stream,
)
from archsim.memory.device import Completion, Range, Transfer
from archsim.memory.flash import FlashStandard
from archsim.memory.ticks import Ticking

Int64 = NDArray[np.int64]

NO_WORDS: Int64 = np.zeros(0, np.int64)
NO_LOG: Int64 = np.zeros((0, 8), np.int64)
HORIZON_TICKS = int(NEVER) // 2


@dataclass(frozen=True, slots=True)
class FlashCounts:
    """Events of a whole stack since tick 0."""

    senses: int
    programs: int
    erases: int
    array_operations: int
    reads: int
    writes: int
    joined_reads: int
    read_bytes: int
    write_bytes: int
    bus_bytes: int  # both directions, parity included
    latency_ticks: int  # sum over requests
    bus_busy_ticks: int  # sum over channels
    link_busy_ticks: int
    array_busy_ticks: int  # sum over planes


class FlashDevice(Ticking):
    """The flash of one device, `stacks` equal stacks. Time is in ticks from `to_ticks` and `to_fs`.

    Without `shortcuts` every request is simulated; with them whole periods of streams are skipped, and every number
    is the same.
    """

    def __init__(self, standard: FlashStandard, *, stacks: int = 1, shortcuts: bool = True) -> None:
        self.standard = standard
        self.timing: FlashTiming = standard.timing()
        self.channels = stacks * standard.organisation.channels
        self.tick_fs = standard.tick_fs
        self._shortcuts = shortcuts
        self._stripes = standard.striping.table(standard.organisation)
        self._scratch = new_scratch(self.timing)
        self._state = new_state(self.timing)
        self._view = FlashView(self._state)
        self._streams_of: dict[int, tuple[int, ...]] = {}

    @property
    def round_bytes(self) -> int:
        """Bytes of one page in every channel: what ranges are padded to."""
        return self.channels * self.standard.organisation.page

    @property
    def channel_pages(self) -> int:
        """Pages of one channel that can be addressed: where the striping table's fullest plane ends."""
        o = self.standard.organisation
        rounds = o.blocks * o.pages_per_block // int(self._stripes.per_round.max())
        return rounds * len(self._stripes.plane_of)

    @property
    def now(self) -> int:
        """The tick the device has been simulated to."""
        return int(self._state[NOW])

    def bursts(self, size_bytes: int) -> int:
        """Pages of every channel that hold `size_bytes`."""
        return -(-size_bytes // self.round_bytes)

    def reset(self) -> None:
        """Back to tick 0: drained, nothing counted."""
        self._state[:] = new_state(self.timing)
        self._streams_of.clear()

    def submit(self, transfer: Transfer, *, granules: int | None = None) -> int:
        """Start a transfer now; its job number, which comes back in a `Completion`.

        `window_bursts` bounds the requests of each range under way in a channel (0: only queue and staging do).
        Reads ask for `granules` at a time (a whole page if left out). Raises UserError for what the device can't do
        or has no room for.
        """
        size = self.timing.granules if granules is None else granules
        ranges = self.check(transfer, size)
        job = self._free_job()
        slots = self._free_slots(len(ranges))
        window = transfer.window_bursts or self.timing.queue
        for slot, data in zip(slots, ranges, strict=True):
            kind, part = (Kind.PROGRAM, self.timing.granules) if data.write else (Kind.READ, size)
            parts = self.timing.granules // part
            base, total = data.first_burst * parts, data.bursts * parts
            open_stream(self._state, slot, job, kind, base, total, window, part)
        self._streams_of[job] = slots
        return job

    def check(self, transfer: Transfer, granules: int) -> tuple[Range, ...]:
        """The pages that a transfer moves in each channel. Raises UserError for what the device can't do."""
        if transfer.tiles or transfer.gated:
            raise UserError(
                "a paced transfer on flash", expected="tiles = 0 and no gate: data are taken as they arrive"
            )
        if not 1 <= granules <= self.timing.granules or self.timing.granules % granules:
            raise UserError(
                f"reads of {granules} granules", expected=f"a divisor of the {self.timing.granules} granules of a page"
            )
        ranges = tuple(data for data in transfer.ranges if isinstance(data, Range))
        if len(ranges) < len(transfer.ranges):
            raise UserError("uneven shares of channels on flash", expected="ranges, the same in every channel")
        if not sum(data.bursts for data in ranges):
            raise UserError("a transfer of no pages", expected="at least one page per channel")
        for data in ranges:
            if data.first_burst < 0 or data.first_burst + data.bursts > self.channel_pages:
                raise UserError(
                    f"pages {data.first_burst} to {data.first_burst + data.bursts - 1} of a channel",
                    expected=f"0 to {self.channel_pages - 1}",
                )
        return ranges

    def advance(self, until: int | None = None) -> Completion | None:
        """Simulate to the next completion or to tick `until` (None: as long as it takes), whichever is first."""
        limit = HORIZON_TICKS if until is None else until
        if until is None and not self._streams_of:
            return None
        if not self._state[FINISHED]:
            if self._shortcuts:
                advance_flash_streams(self._state, self.timing, self._stripes, self._scratch, limit)
            else:
                advance_flash(self._state, self.timing, self._stripes, NO_WORDS, NO_WORDS, NO_WORDS, NO_LOG, limit)
        if not self._state[FINISHED]:
            return None
        self._state[FINISHED] -= 1
        finished = [job for job in self._streams_of if self._view.job_open[job] == 0]
        job = min(finished, key=lambda candidate: (int(self._view.job_done[candidate]), candidate))
        del self._streams_of[job]
        return Completion(job, int(self._view.job_done[job]))

    def idle_until(self, tick: int) -> None:
        """Let time pass up to `tick` while no transfer is under way."""
        assert not self._streams_of, "a transfer is under way"
        self._state[NOW] = max(self.now, tick)

    def replay(self, trace: Int64, arrival: Int64, window: int, log_rows: int = 0) -> tuple[Int64, Int64]:
        """Run requests of one channel on an idle device.

        Args:
            trace: int64[n, 4], kind (a `Kind`), page in the channel's linear space, first granule, granules (of a
                program a whole page, of an erase 0).
            arrival: int64[n], ticks, ascending. window: requests under way at a time.
        Returns:
            Completion ticks int64[n], and the command log int64[m, 8] of at most `log_rows` rows.
        """
        assert not self._streams_of, "a transfer is under way"
        self._check_trace(trace)
        done = np.full(len(trace), -1, np.int64)
        log = np.zeros((log_rows, 8), np.int64)
        open_stream(self._state, 0, 0, TRACE, 0, len(trace), window, 0)
        words = np.ascontiguousarray(trace, np.int64).reshape(-1)
        ticks = np.ascontiguousarray(arrival, np.int64)
        self._state[LOG_LENGTH] = 0
        advance_flash(self._state, self.timing, self._stripes, words, ticks, done, log, HORIZON_TICKS)
        self._state[FINISHED] = 0
        return done, log[: int(self._state[LOG_LENGTH])]

    def _check_trace(self, trace: Int64) -> None:
        if trace.ndim != 2 or trace.shape[1] != TRACE_WORDS or not len(trace):
            raise UserError(f"a trace of shape {trace.shape}", expected=f"(n, {TRACE_WORDS}), n at least 1")
        kind, page, first, size = trace.T
        whole = np.where(kind == Kind.ERASE, 0, self.timing.granules)
        bad = (kind < 0) | (kind > 2) | (page < 0) | (page >= self.channel_pages) | (first < 0)
        bad |= np.where(kind == Kind.READ, (size < 1) | (first + size > self.timing.granules), size != whole)
        if bad.any():
            index = int(np.argmax(bad))
            raise UserError(f"request {index} of the trace is none of this device: {trace[index].tolist()}")

    def counts(self) -> FlashCounts:
        """What has happened on the whole stack since tick 0."""
        n = [int(word) * self.channels for word in self._view.counts]
        o = self.standard.organisation
        return FlashCounts(
            senses=n[FlashCount.SENSES],
            programs=n[FlashCount.PROGRAMS],
            erases=n[FlashCount.ERASES],
            array_operations=n[FlashCount.OPERATIONS],
            reads=n[FlashCount.READS],
            writes=n[FlashCount.WRITES],
            joined_reads=n[FlashCount.JOINED],
            read_bytes=n[FlashCount.GRANULES] * o.granule,
            write_bytes=n[FlashCount.WRITES] * o.page,
            bus_bytes=n[FlashCount.CODEWORDS] * self.timing.codeword_ticks,
            latency_ticks=n[FlashCount.LATENCY],
            bus_busy_ticks=n[FlashCount.BUS_BUSY],
            link_busy_ticks=n[FlashCount.LINK_BUSY],
            array_busy_ticks=n[FlashCount.ARRAY_BUSY],
        )

    def plane_senses(self) -> Int64:
        """Senses of each plane of a channel so far: int64[planes]."""
        return self._view.senses[: self.timing.planes].copy()

    def describe_work(self) -> str:
        """What is in flight, for a message about a device that makes no progress."""
        jobs = {job: int(self._view.job_open[job]) for job in self._streams_of}
        return f"{int(self._state[USED])} requests in the channel; requests to go by job: {jobs}"

    def _free_job(self) -> int:
        for job in range(MAX_JOBS):
            if job not in self._streams_of:
                return job
        raise UserError("more transfers at the same time than the device takes", expected=f"at most {MAX_JOBS}")

    def _free_slots(self, number: int) -> tuple[int, ...]:
        used = {slot for slots in self._streams_of.values() for slot in slots}
        free = [slot for slot in range(MAX_STREAMS) if slot not in used][:number]
        if len(free) < number:
            raise UserError("more streams at the same time than the device takes", expected=f"at most {MAX_STREAMS}")
        return tuple(free)

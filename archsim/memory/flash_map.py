"""Where logical pages lie on flash, and what that wears: a log-structured map with garbage collection, zones, a ledger.

A map turns writes into programs, reads for copies, and erases of blocks; the ledger counts them by block. Both know
nothing of time: what they ask for can be replayed on a `FlashDevice`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from archsim.config.errors import UserError
from archsim.memory.flash import FS_PER_SECOND, FlashStandard

Int64 = NDArray[np.int64]

FS_PER_YEAR = 31_557_600 * FS_PER_SECOND
"""A Julian year, 365.25 days."""
SPARE_BLOCKS = 2
"""The block being written by the host and the one that garbage collection copies to."""


@dataclass
class WearLedger:
    """What has been done to each block: int64[blocks] each. Reads count since the block's last erase."""

    erases: Int64
    reads: Int64
    programs: int = 0
    host_programs: int = 0
    copies: int = 0

    @staticmethod
    def new(blocks: int) -> WearLedger:
        """All zero."""
        return WearLedger(np.zeros(blocks, np.int64), np.zeros(blocks, np.int64))

    @property
    def write_amplification(self) -> float:
        """Pages programmed per page the host wrote; 1 before the first."""
        return self.programs / self.host_programs if self.host_programs else 1.0

    def erase(self, block: int) -> None:
        """A block is erased: its reads start anew."""
        self.erases[block] += 1
        self.reads[block] = 0

    def disturbed(self, limit: int) -> Int64:
        """Blocks read `limit` times or more since their last erase: they must be rewritten."""
        return np.flatnonzero(self.reads >= limit).astype(np.int64)


@dataclass
class LogMap:
    """A log-structured map: a page is written where the log stands; when free blocks run out, the block with the least
    valid pages (of several, the one filled first) is copied on and erased.

    Raises UserError if there are not `SPARE_BLOCKS` more blocks than the logical pages fill.
    """

    blocks: int
    pages_per_block: int
    logical_pages: int
    place: Int64 = field(init=False)  # physical page of each logical one, -1 if never written
    owner: Int64 = field(init=False)  # logical page in each physical one, -1 if invalid
    valid: Int64 = field(init=False)  # valid pages by block
    ledger: WearLedger = field(init=False)

    def __post_init__(self) -> None:
        filled = -(-self.logical_pages // self.pages_per_block)
        if self.blocks < filled + SPARE_BLOCKS:
            raise UserError(
                f"{self.logical_pages} logical pages fill {filled} of {self.blocks} blocks",
                expected=f"at least {filled + SPARE_BLOCKS} blocks: one to write to, one to copy to",
            )
        self.place = np.full(self.logical_pages, -1, np.int64)
        self.owner = np.full(self.blocks * self.pages_per_block, -1, np.int64)
        self.valid = np.zeros(self.blocks, np.int64)
        self.ledger = WearLedger.new(self.blocks)
        self._free: deque[int] = deque(range(self.blocks))
        self._full: list[int] = []  # in the order in which they were filled
        self._open = self._free.popleft()
        self._used = 0  # pages of the open block

    def write(self, page: int) -> None:
        """The host writes a logical page."""
        self._check(page)
        self.ledger.host_programs += 1
        self._append(page)
        self._collect()

    def read(self, page: int) -> int:
        """The physical page that a logical one is read from. Raises UserError if it was never written."""
        self._check(page)
        if self.place[page] < 0:
            raise UserError(f"logical page {page} was never written")
        self.ledger.reads[self.place[page] // self.pages_per_block] += 1
        return int(self.place[page])

    def refresh(self, block: int) -> int:
        """Rewrite a block's valid pages elsewhere and erase it (retention, read disturb); the pages copied.

        The block that is being written is left alone: 0."""
        if block not in self._full:
            return 0
        copied = self._move(block)
        self._collect()
        return copied

    def _check(self, page: int) -> None:
        if not 0 <= page < self.logical_pages:
            raise UserError(f"logical page {page}", expected=f"0 to {self.logical_pages - 1}")

    def _append(self, page: int) -> None:
        if self._used == self.pages_per_block:
            self._full.append(self._open)
            self._open = self._free.popleft()
            self._used = 0
        old = self.place[page]
        if old >= 0:
            self.owner[old] = -1
            self.valid[old // self.pages_per_block] -= 1
        new = self._open * self.pages_per_block + self._used
        self._used += 1
        self.place[page] = new
        self.owner[new] = page
        self.valid[self._open] += 1
        self.ledger.programs += 1

    def _collect(self) -> None:
        """Keep one block free for copies. The open block has just been begun then, so what is valid in the emptiest
        full block fits behind its first page: some full block has an invalid page, as two blocks are spare."""
        while not self._free:
            self._move(min(self._full, key=lambda block: int(self.valid[block])))

    def _move(self, block: int) -> int:
        """Copy a block's valid pages to the log and erase it; the pages copied."""
        self._full.remove(block)
        begin = block * self.pages_per_block
        pages = [int(page) for page in self.owner[begin : begin + self.pages_per_block] if page >= 0]
        self.ledger.reads[block] += len(pages)
        for page in pages:
            self._append(page)
        self.ledger.copies += len(pages)
        self.ledger.erase(block)
        self._free.append(block)
        return len(pages)


@dataclass
class ZonedMap:
    """Zones that the host writes in order and resets as a whole: nothing is ever copied, wear is what the host makes.

    A zone is one erase block."""

    zones: int
    pages_per_zone: int
    written: Int64 = field(init=False)  # pages of each zone
    ledger: WearLedger = field(init=False)

    def __post_init__(self) -> None:
        if self.zones < 1 or self.pages_per_zone < 1:
            raise UserError(f"{self.zones} zones of {self.pages_per_zone} pages", expected="at least one of each")
        self.written = np.zeros(self.zones, np.int64)
        self.ledger = WearLedger.new(self.zones)

    def append(self, zone: int) -> int:
        """Write the next page of a zone; its physical page. Raises UserError if the zone is full."""
        self._check(zone)
        if self.written[zone] == self.pages_per_zone:
            raise UserError(f"zone {zone} is full", expected="a reset of the zone first")
        page = zone * self.pages_per_zone + int(self.written[zone])
        self.written[zone] += 1
        self.ledger.programs += 1
        self.ledger.host_programs += 1
        return page

    def read(self, zone: int, page: int) -> int:
        """The physical page. Raises UserError if it has not been written since the last reset."""
        self._check(zone)
        if not 0 <= page < self.written[zone]:
            raise UserError(f"page {page} of zone {zone}", expected=f"below {self.written[zone]}, what is written")
        self.ledger.reads[zone] += 1
        return zone * self.pages_per_zone + page

    def reset(self, zone: int) -> None:
        """Erase a zone."""
        self._check(zone)
        self.written[zone] = 0
        self.ledger.erase(zone)

    def _check(self, zone: int) -> None:
        if not 0 <= zone < self.zones:
            raise UserError(f"zone {zone}", expected=f"0 to {self.zones - 1}")


def years_to_wear_out(
    standard: FlashStandard, write_bytes_per_second: float, write_amplification: float = 1.0
) -> float:
    """Years until every block has used up its cycles: pe_cycles x capacity / (host writes x write amplification).

    Writes are spread evenly over all blocks. Infinite without writes."""
    if write_bytes_per_second == 0:
        return float("inf")
    seconds = standard.wear.pe_cycles * standard.capacity / (write_bytes_per_second * write_amplification)
    return seconds * FS_PER_SECOND / FS_PER_YEAR


def cycles_used(standard: FlashStandard, write_bytes_per_second: float, years: float) -> float:
    """Program/erase cycles of each block after some years of writing at a rate, evenly spread."""
    return write_bytes_per_second * years * FS_PER_YEAR / FS_PER_SECOND / standard.capacity


def seconds_until_disturbed(standard: FlashStandard, block_reads_per_second: float) -> float | None:
    """How long a block stands being read so often before it must be rewritten; None if no limit is given."""
    limit = standard.wear.read_disturb
    return None if limit is None else limit / block_reads_per_second


@dataclass(frozen=True, slots=True)
class RefreshLoad:
    """Rewriting what is stored before it fades: a read, a program and their share of an erase for each page."""

    bytes_per_second: float
    plane_share: float
    """Of the planes' time. What it leaves is there for the host."""
    years_to_wear_out: float


def retention_refresh(standard: FlashStandard, filled: float = 1.0) -> RefreshLoad | None:
    """The load of retention refresh if a share `filled` of the capacity holds data; None if no retention is given."""
    if standard.wear.retention is None:
        return None
    o, t = standard.organisation, standard.timings
    rate = standard.capacity * filled * FS_PER_SECOND / standard.wear.retention
    page_fs = t.tR + t.tPROG + t.tERASE / o.pages_per_block
    planes = o.channels * o.channel_planes
    return RefreshLoad(
        bytes_per_second=rate,
        plane_share=rate / o.page * page_fs / FS_PER_SECOND / planes,
        years_to_wear_out=years_to_wear_out(standard, rate),
    )

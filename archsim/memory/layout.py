"""How bytes fall on pseudo-channels: granules dealt round by round, ragged ends, hashes, channel subsets, pages.

The memory is cut into granules of `granularity` bytes. A round is one granule in every pseudo-channel, in the order of
their numbers (`channel * pseudo_channels + own`); the granule of round r lies at the pseudo-channel's local granule r.
A hash permutes the granules of a round among the pseudo-channels by exclusive or with bits of the round's number:

    channel^=round[3:0] channel^=round[7:4] pseudo_channel^=round[8]

so that strides do not pile up on a few channels. Because it only permutes within rounds, a contiguous range of bytes
is one run of bursts in each pseudo-channel, and only its ragged ends depend on the hash. Everything is computed per
run, in closed form, never per burst.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from archsim.config.errors import UserError
from archsim.config.schema import Spec
from archsim.config.units import ByteCount

Ints = NDArray[np.int64]

_HASH = re.compile(r"(channel|pseudo_channel)\^=round\[(\d+)(?::(\d+))?\]")


class InterleaveSpec(Spec):
    """How the addresses of a device are dealt to its pseudo-channels.

    `granularity` bytes lie together in one of them; `hash` is a line of terms such as "channel^=round[3:0]" (see
    above), none by default. With `ragged` false, every range is padded to whole rounds and all channels stay equal.
    """

    granularity: ByteCount
    hash: str = ""
    ragged: bool = True

    @model_validator(mode="after")
    def _check(self) -> InterleaveSpec:
        parse_hash(self.hash)
        return self


def even_interleave(burst_bytes: int) -> InterleaveSpec:
    """Burst by burst, ranges padded to whole rounds: what a device does that has no interleave of its own."""
    return InterleaveSpec.model_validate({"granularity": f"{burst_bytes} B", "ragged": False})


class HashTerm(NamedTuple):
    """`field` is combined by exclusive or with (round >> shift) & mask."""

    field: str
    shift: int
    mask: int


def parse_hash(text: str) -> list[HashTerm]:
    """The terms of a hash. Raises UserError at the first one that isn't a term."""
    terms = []
    for token in text.split():
        match = _HASH.fullmatch(token)
        high, low = (int(match[2]), int(match[3] or match[2])) if match else (0, 1)
        if match is None or high < low or high > 40:
            raise UserError(
                f"'{token}' is no term of a channel hash",
                expected="such as 'channel^=round[3:0]' or 'channel^=round[5]'",
            )
        terms.append(HashTerm(match[1], low, (1 << (high - low + 1)) - 1))
    return terms


@dataclass(frozen=True, eq=False)
class Shares:
    """The local work of one stream: for each pseudo-channel, runs of bursts in the order they are asked for.

    Runs `offsets[u] : offsets[u + 1]` are pseudo-channel u's; run i is bursts `first[i] .. first[i] + count[i] - 1`,
    all of them `moved` bursts farther on.
    """

    first: Ints
    count: Ints
    offsets: Ints
    pseudo_channels: int  # of one channel
    write: bool = False
    moved: int = 0

    @cached_property
    def totals(self) -> Ints:
        """Bursts of each pseudo-channel, int64[pseudo-channels of the device]."""
        ends = np.concatenate(([0], np.cumsum(self.count)))
        return np.asarray(ends[self.offsets[1:]] - ends[self.offsets[:-1]])

    @property
    def bursts(self) -> int:
        """Bursts of the busiest pseudo-channel."""
        return int(self.totals.max())

    @cached_property
    def kinds(self) -> list[int]:
        """A number for each channel; two channels have the same one if and only if they have the same runs."""
        known: dict[tuple[bytes, ...], int] = {}
        keys = (
            tuple(part.tobytes() for runs in self.of(channel) for part in runs)
            for channel in range(len(self.offsets) // self.pseudo_channels)
        )
        return [known.setdefault(key, len(known)) for key in keys]

    def of(self, channel: int) -> tuple[tuple[Ints, Ints], ...]:
        """(first, count) of the runs of each of a channel's pseudo-channels."""
        unit = channel * self.pseudo_channels
        bounds = self.offsets[unit : unit + self.pseudo_channels + 1].tolist()
        return tuple((self.first[a:b] + self.moved, self.count[a:b]) for a, b in pairwise(bounds))

    def moved_by(self, bursts: int) -> Shares:
        """The same runs so many local bursts farther on; nothing is copied."""
        moved = replace(self, moved=self.moved + bursts)
        moved.__dict__.update(totals=self.totals, kinds=self.kinds)  # they stay as they are
        return moved


class Layout:
    """The interleave of one device: `channels` channels of `pseudo_channels`, in bursts of `burst_bytes`.

    Raises UserError if the granularity is no whole number of bursts that divides `row_set_bursts`, or the hash doesn't
    fit the numbers of channels."""

    def __init__(
        self, spec: InterleaveSpec, channels: int, pseudo_channels: int, burst_bytes: int, row_set_bursts: int
    ) -> None:
        self.spec = spec
        self.channels, self.pseudo_channels = channels, pseudo_channels
        self.units = channels * pseudo_channels
        self.burst_bytes = burst_bytes
        self.granule = spec.granularity // burst_bytes
        if spec.granularity % burst_bytes or self.granule < 1 or row_set_bursts % self.granule:
            raise UserError(
                f"a granularity of {spec.granularity} B does not cut a row set of {row_set_bursts} bursts of "
                f"{burst_bytes} B evenly",
                expected=f"a divisor of {row_set_bursts * burst_bytes} B and a multiple of {burst_bytes} B",
            )
        sizes = {"channel": channels, "pseudo_channel": pseudo_channels}
        self._terms = parse_hash(spec.hash)
        for term in self._terms:
            if sizes[term.field] % (term.mask + 1):
                raise UserError(
                    f"the channel hash '{spec.hash}' takes {term.mask.bit_length()} bits for {term.field}, of which "
                    f"there are {sizes[term.field]}",
                    expected=f"at most {(sizes[term.field] & -sizes[term.field]).bit_length() - 1} bits",
                )

    @property
    def round_bytes(self) -> int:
        """Bytes of one granule in every pseudo-channel."""
        return self.units * self.spec.granularity

    def span(self, size_bytes: int, channels: range | None = None) -> int:
        """Local bursts that hold `size_bytes` from the start of a round on, in whole granules."""
        units = self.units if channels is None else len(channels) * self.pseudo_channels
        return -(-size_bytes // (units * self.spec.granularity)) * self.granule

    def contiguous(self, first_byte: int, size_bytes: int, *, write: bool = False) -> Shares:
        """A contiguous range of the device's address space."""
        if not self.spec.ragged:
            last_byte = -(-(first_byte + size_bytes) // self.round_bytes) * self.round_bytes
            first_byte = first_byte // self.round_bytes * self.round_bytes
            size_bytes = last_byte - first_byte
        return self.pieces(np.array([first_byte]), np.array([size_bytes]), write=write)

    def pieces(self, first_byte: Ints, size_bytes: Ints, *, write: bool = False) -> Shares:
        """Contiguous ranges one after the other: pages of a cache, rows of a table. Bursts are moved whole."""
        first_byte, size_bytes = first_byte[size_bytes > 0], size_bytes[size_bytes > 0]
        begin = first_byte // self.burst_bytes
        begin, end = _joined(begin, -(-(first_byte + size_bytes) // self.burst_bytes))
        granules = int(((end - 1) // self.granule - begin // self.granule + 1).sum())
        if granules < len(begin) * self.units:
            unit, first, count = self._by_granule(begin, end)
        else:
            unit, first, count = self._by_unit(begin, end)
        return self._shares(unit, first, count, write)

    def on_channels(self, channels: range, first_burst: int, size_bytes: int, *, write: bool = False) -> Shares:
        """A tensor dealt over some of the channels alone, from their local burst `first_burst` on; no hash."""
        low, high = channels.start * self.pseudo_channels, channels.stop * self.pseudo_channels
        width = high - low
        plain = self.spec.model_copy(update={"hash": ""})
        inside = Layout(plain, len(channels), self.pseudo_channels, self.burst_bytes, self.granule)
        begin = first_burst * width  # the part of the tensor's own address space that ends where it begins
        end = begin + -(-size_bytes // self.burst_bytes)
        unit, first, count = inside._by_unit(np.array([begin]), np.array([end]))
        return self._shares(unit + low, first, count, write)

    def on_groups(self, channels: int, members: Ints, size_bytes: int) -> Shares:
        """Equal members of a tensor, each on one group of `channels` channels: member i is number i // groups of group
        i % groups. The members named, one after the other, of a tensor that begins at local burst 0."""
        groups = self.channels // channels
        length = self.span(size_bytes, range(channels))
        parts = [
            self.on_channels(
                range(i % groups * channels, (i % groups + 1) * channels), i // groups * length, size_bytes
            )
            for i, g in ((i, i % groups) for i in members.tolist())
        ]
        unit = np.concatenate([np.repeat(np.arange(self.units), np.diff(part.offsets)) for part in parts])
        first = np.concatenate([part.first for part in parts])
        return self._shares(unit, first, np.concatenate([part.count for part in parts]), False)

    def unit_of(self, granule: Ints) -> Ints:
        """The pseudo-channel that holds each granule of the device's address space."""
        return self._hashed(granule % self.units, granule // self.units)

    def _hashed(self, unit: Ints, round_: Ints) -> Ints:
        """The hash applied to unit numbers; applied twice, it undoes itself."""
        channel, own = np.divmod(unit, self.pseudo_channels)
        for term in self._terms:
            bits = (round_ >> term.shift) & term.mask
            if term.field == "channel":
                channel = channel ^ bits
            else:
                own = own ^ bits
        return np.asarray(channel * self.pseudo_channels + own)

    def _by_unit(self, begin: Ints, end: Ints) -> tuple[Ints, Ints, Ints]:
        """(unit, first, count) of the run that each range of bursts is in every pseudo-channel, range by range."""
        units = np.arange(self.units)
        first = self._local(units, begin[:, None])
        count = self._local(units, end[:, None]) - first
        return np.broadcast_to(units, first.shape).ravel(), first.ravel(), count.ravel()

    def _local(self, unit: Ints, burst: Ints) -> Ints:
        """How many local bursts of each pseudo-channel lie before a burst of the device's address space."""
        granule, offset = np.divmod(burst, self.granule)
        round_, position = np.divmod(granule, self.units)
        own = self._hashed(unit, round_)  # where the round's granule of this pseudo-channel lies in the address space
        return np.asarray(
            round_ * self.granule + np.where(own < position, self.granule, np.where(own == position, offset, 0))
        )

    def _by_granule(self, begin: Ints, end: Ints) -> tuple[Ints, Ints, Ints]:
        """(unit, first, count) of every granule that the ranges touch, in order: short pieces touch few."""
        lowest = begin // self.granule
        number = (end - 1) // self.granule - lowest + 1
        piece = np.repeat(np.arange(len(begin)), number)
        granule = lowest[piece] + np.arange(len(piece)) - np.repeat(np.cumsum(number) - number, number)
        start = np.maximum(begin[piece], granule * self.granule)
        stop = np.minimum(end[piece], (granule + 1) * self.granule)
        local = granule // self.units * self.granule + start - granule * self.granule
        return self.unit_of(granule), local, stop - start

    def _shares(self, unit: Ints, first: Ints, count: Ints, write: bool) -> Shares:
        """Runs in the order they are asked for, by pseudo-channel; neighbours that continue each other are one."""
        some = count > 0
        unit, first, count = unit[some], first[some], count[some]
        order = np.argsort(unit, kind="stable")
        unit, first, count = unit[order], first[order], count[order]
        starts = np.ones(len(unit), bool)
        starts[1:] = (unit[1:] != unit[:-1]) | (first[1:] != first[:-1] + count[:-1])
        begin = np.flatnonzero(starts)
        joined = np.add.reduceat(count, begin) if len(begin) else count
        offsets = np.searchsorted(unit[begin], np.arange(self.units + 1))
        return Shares(first[begin], joined, offsets, self.pseudo_channels, write)


def _joined(begin: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Ranges with those made one that follow each other without a gap."""
    breaks = np.flatnonzero(begin[1:] != end[:-1]) + 1
    starts = np.concatenate(([0], breaks)) if len(begin) else np.zeros(0, np.int64)
    stops = np.concatenate((breaks, [len(begin)])) - 1 if len(begin) else np.zeros(0, np.int64)
    return begin[starts], end[stops]

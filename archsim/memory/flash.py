"""A flash stack as a user writes it, and as the parameter table that the flash kernel reads.

Bandwidth is not among the numbers: it follows from planes, pages and tR, and from the buses the pages leave over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from fractions import Fraction
from typing import ClassVar, Literal

import numpy as np
from pydantic import model_validator

from archsim.config.errors import UserError
from archsim.config.schema import Spec
from archsim.config.units import (
    ByteCount,
    BytesPerSecond,
    PicojoulePerBit,
    PositiveInt,
    TimeFs,
    Watts,
)
from archsim.kernels.flash_state import (
    MAX_BUFFERS,
    MAX_PLANES,
    MAX_REQUESTS,
    FlashTiming,
    Striping,
    check_timing,
    striping,
)

FS_PER_SECOND = 10**15


class PlaneMode(StrEnum):
    """Which planes of a die sense, program and erase on their own."""

    INDEPENDENT = "independent"  # every plane
    MULTI_PLANE = "multi_plane"  # none: one operation per die, on the same page number of several planes


class FlashOrganisation(Spec):
    """Counts of one level per the level above; `page` without parity.

    A `granule` is the least that can be read over the link, a `codeword` the least that ECC takes. `parity` comes
    with each page over the channel's bus, `page_buffers` belong to each plane.
    """

    channels: PositiveInt
    dies: PositiveInt
    planes: PositiveInt
    blocks: PositiveInt
    pages_per_block: PositiveInt
    page: ByteCount
    granule: ByteCount
    codeword: ByteCount
    parity: ByteCount | None = None
    page_buffers: PositiveInt = 2
    plane_mode: PlaneMode = PlaneMode.INDEPENDENT

    @property
    def channel_planes(self) -> int:
        """Planes of a channel."""
        return self.dies * self.planes

    @property
    def block_bytes(self) -> int:
        """Bytes of an erase block of one plane."""
        return self.pages_per_block * self.page

    @property
    def total_blocks(self) -> int:
        """Erase blocks of the stack."""
        return self.channels * self.channel_planes * self.blocks

    @property
    def capacity_bytes(self) -> int:
        """Bytes of the stack."""
        return self.total_blocks * self.block_bytes


class FlashTimings(Spec):
    """Times of array operations; `command` holds the channel's command bus before each (0: not modelled)."""

    tR: TimeFs  # noqa: N815 (the standards' names)
    tPROG: TimeFs  # noqa: N815
    tERASE: TimeFs  # noqa: N815
    command: TimeFs = 0
    ecc: TimeFs = 0


class FlashBuses(Spec):
    """Data paths: of one channel between page buffers and base die; of the whole stack to the host (none: as fast as
    needed)."""

    channel: BytesPerSecond
    link: BytesPerSecond | None = None


class FlashWear(Spec):
    """What wears out: a block's program/erase cycles, its reads until it must be rewritten, how long data stay."""

    pe_cycles: PositiveInt
    read_disturb: PositiveInt | None = None
    retention: TimeFs | None = None


class FlashEnergy(Spec):
    """Energy per bit of a page sensed and brought to the host, and of a page programmed.

    `read_low` and `read_high` are the least and the most that sources say of reads (none: nobody else says)."""

    read: PicojoulePerBit
    program: PicojoulePerBit
    read_low: PicojoulePerBit | None = None
    read_high: PicojoulePerBit | None = None

    @property
    def read_band(self) -> tuple[float, float]:
        """Least and most of reads."""
        low, high = self.read_low, self.read_high
        return self.read if low is None else low, self.read if high is None else high

    @model_validator(mode="after")
    def _check(self) -> FlashEnergy:
        low, high = self.read_band
        if not low <= self.read <= high:
            raise UserError(f"read_low {low:g}, read {self.read:g}, read_high {high:g} pJ/b are not in ascending order")
        return self


class StripingPolicy(Spec):
    """In which order a channel's pages are dealt to its planes.

    `order` plane_first goes through the planes of a die before the next die, die_first the other way round. A plane
    gets `run` pages before the next one's turn. `hot_planes` of the planes get `hot_share` times the pages of the
    others: imbalance as data."""

    order: Literal["plane_first", "die_first"] = "plane_first"
    run: PositiveInt = 1
    hot_planes: int = 0
    hot_share: PositiveInt = 1

    def table(self, organisation: FlashOrganisation) -> Striping:
        """The kernel's striping table of a channel. Raises UserError if there are not so many planes."""
        planes = organisation.channel_planes
        if not 0 <= self.hot_planes <= planes:
            raise UserError(f"{self.hot_planes} hot planes", expected=f"0 to {planes}, the planes of a channel")
        order = np.arange(planes)
        if self.order == "die_first":
            order = order.reshape(organisation.dies, organisation.planes).T.ravel()
        rounds = [order] + [order[: self.hot_planes]] * (self.hot_share - 1)
        return striping(np.repeat(np.concatenate(rounds), self.run), planes)


class FlashStandard(Spec):
    """One kind of flash stack or package. `capacity` is what the maker says; it is checked against the organisation.

    `staging` is the SRAM of the base die, `power_limit` what array operations may draw (none: no limit), both of the
    whole stack; `queue` counts requests per channel."""

    kind_in_words: ClassVar[str] = "a flash memory"

    kind: Literal["flash"]
    name: str
    capacity: ByteCount
    organisation: FlashOrganisation
    timings: FlashTimings
    buses: FlashBuses
    staging: ByteCount
    wear: FlashWear
    energy: FlashEnergy
    queue: PositiveInt = MAX_REQUESTS
    power_limit: Watts | None = None
    striping: StripingPolicy = StripingPolicy()

    @property
    def tick_fs(self) -> Fraction:
        """Length of a tick of the flash kernel in femtoseconds, exact: a byte on a channel's bus."""
        return Fraction(FS_PER_SECOND, self.buses.channel)

    def ticks(self, time_fs: int) -> int:
        """Whole ticks that cover a time."""
        return math.ceil(time_fs / self.tick_fs)

    @property
    def plane_bytes_per_second(self) -> Fraction:
        """What all planes of the stack can sense: planes x page / tR, the command included."""
        o, t = self.organisation, self.timings
        return Fraction(o.channels * o.channel_planes * o.page * FS_PER_SECOND, t.tR + t.command)

    @property
    def bus_bytes_per_second(self) -> Fraction:
        """Page data over all channel buses; parity takes its share."""
        o = self.organisation
        return Fraction(self.buses.channel * o.channels * o.codeword, self.codeword_bus_bytes)

    @property
    def codeword_bus_bytes(self) -> int:
        """Bytes of a codeword with its part of the parity on the channel bus, rounded up."""
        o = self.organisation
        return o.codeword + -(-(o.parity or 0) * o.codeword // o.page)

    @property
    def most_active(self) -> int:
        """Array operations of a channel under way at a time: all of them, or what the power limit lets.

        A sense is taken to draw `energy.read` x page bits over tR."""
        o = self.organisation
        group = self.group_planes
        groups = o.channel_planes // group
        if self.power_limit is None:
            return groups
        watts = self.energy.read * 8 * o.page * group / (self.timings.tR * 1e-15) * 1e-12
        return min(groups, int(self.power_limit / o.channels / watts))

    @property
    def group_planes(self) -> int:
        """Planes that share one array control."""
        return 1 if self.organisation.plane_mode is PlaneMode.INDEPENDENT else self.organisation.planes

    @property
    def ceilings(self) -> dict[str, Fraction]:
        """What each resource of the stack lets through when reading whole pages, bytes per second."""
        found = {"planes": self.plane_bytes_per_second, "channel": self.bus_bytes_per_second}
        if self.buses.link is not None:
            found["link"] = Fraction(self.buses.link)
        groups = self.organisation.channel_planes // self.group_planes
        if self.most_active < groups:
            found["power"] = self.plane_bytes_per_second * self.most_active / groups
        return found

    @property
    def read_latency_fs(self) -> int:
        """One page alone: command, sense, bus, ECC and link."""
        return math.ceil(self._alone_ticks * self.tick_fs)

    @property
    def _alone_ticks(self) -> int:
        """The kernel's arithmetic for one page in an idle stack."""
        q = self.timing()
        codewords = q.granules // q.codeword
        out = q.codeword_ticks + q.ecc_ticks
        last = out + (codewords - 1) * q.codeword_ticks + q.codeword * q.link_ticks
        return q.command_ticks + q.t_read + max(out + q.granules * q.link_ticks, last)

    @property
    def staging_needed_bytes(self) -> int:
        """SRAM that hides the latency: 2 x bandwidth x latency of a page alone."""
        return math.ceil(2 * min(self.ceilings.values()) * self.read_latency_fs / FS_PER_SECOND)

    def timing(self) -> FlashTiming:
        """The table of one channel that the kernel reads."""
        o, t = self.organisation, self.timings
        share = None if self.buses.link is None else Fraction(self.buses.link, o.channels)
        return FlashTiming(
            planes=o.channel_planes,
            group_planes=self.group_planes,
            buffers=o.page_buffers,
            granules=o.page // o.granule,
            codeword=o.codeword // o.granule,
            codeword_ticks=self.codeword_bus_bytes,
            ecc_ticks=self.ticks(t.ecc),
            link_ticks=0 if share is None else math.ceil(o.granule * self.buses.channel / share),
            command_ticks=self.ticks(t.command),
            t_read=self.ticks(t.tR),
            t_program=self.ticks(t.tPROG),
            t_erase=self.ticks(t.tERASE),
            most_active=self.most_active,
            queue=self.queue,
            staging=self.staging // o.channels // o.granule,
        )

    @model_validator(mode="after")
    def _check(self) -> FlashStandard:
        problems = [*self._geometry_problems(), *self._room_problems()]
        if problems:
            raise UserError("; ".join(problems))
        check_timing(self.timing())  # whatever is left is a bug of the checks above
        self.striping.table(self.organisation)
        return self

    def _geometry_problems(self) -> Sequence[str]:
        o = self.organisation
        problems = []
        if o.page % o.codeword:
            problems.append(f"a page of {o.page} B is not a multiple of the codeword of {o.codeword} B")
        if o.codeword % o.granule:
            problems.append(f"a codeword of {o.codeword} B is not a multiple of the read granule of {o.granule} B")
        if o.capacity_bytes != self.capacity:
            problems.append(
                f"capacity is {self.capacity} B, but {o.channels} channels x {o.dies} dies x {o.planes} planes x "
                f"{o.blocks} blocks x {o.pages_per_block} pages of {o.page} B hold {o.capacity_bytes} B; "
                f"{self._blocks_that_fit()}"
            )
        for name, time in (("tR", self.timings.tR), ("tPROG", self.timings.tPROG), ("tERASE", self.timings.tERASE)):
            if time == 0:
                problems.append(f"{name} is zero")
        return problems

    def _blocks_that_fit(self) -> str:
        o = self.organisation
        row_bytes = o.capacity_bytes // o.blocks
        blocks, rest = divmod(self.capacity, row_bytes)
        if blocks and not rest:
            return f"{blocks} blocks would fit"
        return f"no whole number of blocks does, the capacity has to be a multiple of {row_bytes} B"

    def _room_problems(self) -> Sequence[str]:
        o = self.organisation
        problems = []
        if o.channel_planes > MAX_PLANES:
            problems.append(f"{o.channel_planes} planes per channel, at most {MAX_PLANES} are supported")
        if o.page_buffers > MAX_BUFFERS:
            problems.append(f"{o.page_buffers} page buffers per plane, at most {MAX_BUFFERS} are supported")
        if self.queue > MAX_REQUESTS:
            problems.append(f"a queue of {self.queue} requests per channel, at most {MAX_REQUESTS} are supported")
        if self.staging // o.channels < o.page:
            problems.append(
                f"staging of {self.staging} B holds no page of {o.page} B for each of {o.channels} channels"
            )
        if self.timings.tR and self.most_active < 1:
            problems.append(
                f"a power limit of {self.power_limit} W does not pay for one sense per channel at "
                f"{self.energy.read} pJ/b"
            )
        return problems

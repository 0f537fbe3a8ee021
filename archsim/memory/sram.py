"""On-chip SRAM: equal slices of banks, with conflicts counted exactly.

The policy, which the driver (sram_device.py) and the cycle-by-cycle oracle (sram_oracle.py) both follow:

- A device has `slices` equal slices. A stream is dealt over them evenly, so one is simulated and stands for all.
- A slice has `banks` banks; word w lies in bank w mod banks. Each of a bank's `ports` starts an access of one word
  every `bank_cycles` cycles.
- The front end takes the accesses of a stream in groups of `read_lanes` (or `write_lanes`), in order. A group's
  accesses queue at their banks; the next group starts when the last of them has left its port.
- A word arrives `latency_cycles` (array and wires, rounded up) after it has left its port.
- Cells that leak (gain cells) are refreshed: the last `cycles` of every interval all ports stand still, wherever they
  are in an access. Time that ports don't stand still is `PortTime`; all the rest is counted in it.
- Streams of a transfer follow each other without a gap, and so do transfers, in the order of their submission.

So a group takes max over banks of ceil(accesses of the bank / ports) x bank_cycles. With a stride s, any n consecutive
accesses hit banks / gcd(s, banks) banks in turn: ceil(n x gcd / banks) accesses for the busiest, and the time of a
whole stream is a product.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from math import gcd
from typing import ClassVar, Literal, Protocol, TypeVar

import numpy as np
from pydantic import model_validator

from archsim.config.errors import UserError
from archsim.config.quantities import FS_PER_PJ_AND_WATT, FS_PER_SECOND
from archsim.config.schema import Spec
from archsim.config.units import ByteCount, FrequencyHz, PicojoulePerBit, PositiveInt, TimeFs, format_time_fs

Cycles = TypeVar("Cycles", int, np.ndarray)


@dataclass(frozen=True, slots=True)
class PortTime:
    """Cycles in which ports work: all but the last `stopped` of every `interval` (0: never stopped).

    Both ways work on ints and on int64 arrays."""

    interval: int
    stopped: int

    @property
    def share(self) -> Fraction:
        """Of all time."""
        return Fraction(self.interval - self.stopped, self.interval) if self.interval else Fraction(1)

    def worked(self, cycle: Cycles) -> Cycles:
        """Cycles before `cycle` in which ports worked."""
        if not self.interval:
            return cycle
        working = self.interval - self.stopped
        into = cycle % self.interval
        worked: Cycles = cycle // self.interval * working + into - (into > working) * (into - working)
        return worked

    def cycle(self, worked: Cycles) -> Cycles:
        """The first cycle before which ports have worked so many."""
        if not self.interval:
            return worked
        cycle: Cycles = worked + (worked > 0) * ((worked - 1) // (self.interval - self.stopped)) * self.stopped
        return cycle

    def refreshes(self, cycle: int) -> int:
        """Refreshes that have ended by then."""
        return cycle // self.interval if self.interval else 0


class SramEnergySpec(Spec):
    """Energy per bit: `read` and `write` in the bank, `wire` between bank and engine."""

    read: PicojoulePerBit
    write: PicojoulePerBit
    wire: PicojoulePerBit


class SramRefreshSpec(Spec):
    """What keeps cells that leak: within `retention` each of the `rows` of an array is read and written back once.

    All arrays of all banks do the same row at a time, which stops their ports for `cycles`."""

    retention: TimeFs
    rows: PositiveInt
    cycles: PositiveInt


class SramSpec(Spec):
    """An SRAM of `capacity` bytes in all its slices; see the module's own text for what the numbers mean.

    `array_latency` is the bank's, `wire_latency` that of the way between bank and engine. Without `refresh` its cells
    hold their data by themselves."""

    kind_in_words: ClassVar[str] = "an SRAM"

    kind: Literal["sram"]
    name: str
    capacity: ByteCount
    slices: PositiveInt
    banks: PositiveInt
    ports: PositiveInt
    word: ByteCount
    clock: FrequencyHz
    bank_cycles: PositiveInt = 1
    read_lanes: PositiveInt
    write_lanes: PositiveInt
    array_latency: TimeFs
    wire_latency: TimeFs
    energy: SramEnergySpec
    refresh: SramRefreshSpec | None = None

    @model_validator(mode="after")
    def _check(self) -> SramSpec:
        if self.refresh is not None and self.port_time.interval <= self.refresh.cycles:
            raise UserError(
                f"{self.refresh.rows} rows in {format_time_fs(self.refresh.retention)} are one in "
                f"{self.port_time.interval} cycles, and each takes {self.refresh.cycles}",
                expected="a longer retention, fewer rows or fewer cycles",
            )
        row = self.slices * self.banks * self.word
        if self.capacity % row:
            raise UserError(
                f"{self.capacity} B are not a whole number of words in each of {self.slices * self.banks} banks",
                expected=f"a multiple of {row} B",
            )
        return self

    @property
    def tick_fs(self) -> Fraction:
        """Femtoseconds of a clock cycle."""
        return Fraction(FS_PER_SECOND, self.clock)

    @property
    def port_time(self) -> PortTime:
        """When ports work, and when a refresh stops them."""
        if self.refresh is None:
            return PortTime(0, 0)
        interval = Fraction(self.refresh.retention, self.refresh.rows) // self.tick_fs
        return PortTime(interval, self.refresh.cycles)

    @property
    def refresh_bits(self) -> float:
        """Bits of all slices that one refresh reads and writes back, a mean."""
        return 0.0 if self.refresh is None else 8 * self.capacity / self.refresh.rows

    @property
    def refresh_watts(self) -> float:
        """What keeping the data takes: every bit read and written once per `retention`."""
        if self.refresh is None:
            return 0.0
        each_pj = 8 * self.capacity * (self.energy.read + self.energy.write)
        return each_pj * FS_PER_PJ_AND_WATT / self.refresh.retention

    @property
    def words(self) -> int:
        """Words of one slice."""
        return self.capacity // (self.slices * self.word)

    @property
    def latency_cycles(self) -> int:
        """From a word's leaving its port to its arrival."""
        return -(-(self.array_latency + self.wire_latency) // self.tick_fs)

    def lanes(self, write: bool) -> int:
        """Accesses of a group."""
        return self.write_lanes if write else self.read_lanes

    def peak_bytes_per_second(self, *, write: bool = False) -> Fraction:
        """Of all slices, with accesses that follow each other in address."""
        cycles = group_cycles(self, self.lanes(write), 1)
        return Fraction(self.slices * self.lanes(write) * self.word * self.clock, cycles)

    def energy_pj(self, counts: SramCounts) -> float:
        """Of counted accesses of all slices."""
        reads, writes = (8 * self.word * self.slices * n for n in (counts.reads, counts.writes))
        return reads * (self.energy.read + self.energy.wire) + writes * (self.energy.write + self.energy.wire)


def group_cycles(spec: SramSpec, accesses: int, stride: int) -> int:
    """Cycles of a group of consecutive accesses `stride` words apart."""
    busiest = -(-accesses * gcd(stride, spec.banks) // spec.banks)
    return -(-min(busiest, accesses) // spec.ports) * spec.bank_cycles


def busiest_cycles(spec: SramSpec, words: np.ndarray, lanes: int) -> np.ndarray:
    """int64[groups]: cycles of each group of `lanes` accesses to `words` (int64), by its busiest bank."""
    group = np.arange(len(words)) // lanes
    owner, counts = np.unique(group * spec.banks + words % spec.banks, return_counts=True)
    busiest = np.zeros(-(-len(words) // lanes), np.int64)
    np.maximum.at(busiest, owner // spec.banks, counts)
    return np.asarray(-(-busiest // spec.ports) * spec.bank_cycles)


# ---------------------------------------------------------------- what is asked of it


class Stream(Protocol):
    """Accesses of one slice, in order, all reads or all writes."""

    @property
    def write(self) -> bool: ...

    @property
    def accesses(self) -> int: ...

    def groups(self, spec: SramSpec) -> Groups: ...

    def word(self, index: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Strided:
    """`accesses` words from `first` on, `stride` words apart (1: sequential)."""

    first: int
    accesses: int
    stride: int = 1
    write: bool = False

    def word(self, index: int) -> int:
        """The word of an access."""
        return self.first + index * self.stride

    def groups(self, spec: SramSpec) -> Groups:
        """Equal groups, and a last one of what is left."""
        lanes = spec.lanes(self.write)
        whole, rest = divmod(self.accesses, lanes)
        each = group_cycles(spec, lanes, self.stride)
        return EqualGroups(whole, each, group_cycles(spec, rest, self.stride) if rest else 0)


@dataclass(frozen=True)
class Gathered:
    """Words in any order: table look-ups, pages, random accesses."""

    addresses: tuple[int, ...]
    write: bool = False

    @property
    def accesses(self) -> int:
        """How many."""
        return len(self.addresses)

    def word(self, index: int) -> int:
        """The word of an access."""
        return self.addresses[index]

    def groups(self, spec: SramSpec) -> Groups:
        """Each group by its busiest bank."""
        cycles = busiest_cycles(spec, np.asarray(self.addresses, np.int64), spec.lanes(self.write))
        return ListedGroups(tuple(accumulate(int(each) for each in cycles)))


class Groups(Protocol):
    """When the groups of a stream end, in cycles from its start."""

    @property
    def cycles(self) -> int: ...

    def ended(self, cycle: int) -> int: ...


@dataclass(frozen=True, slots=True)
class EqualGroups:
    """`whole` groups of `each` cycles, then one of `last` (0: none)."""

    whole: int
    each: int
    last: int

    @property
    def cycles(self) -> int:
        """Of all groups."""
        return self.whole * self.each + self.last

    def ended(self, cycle: int) -> int:
        """Groups that have ended by then."""
        if cycle >= self.cycles:
            return self.whole + (self.last > 0)
        return min(self.whole, cycle // self.each)


@dataclass(frozen=True, slots=True)
class ListedGroups:
    """Groups with the cycle in which each ends."""

    ends: tuple[int, ...]

    @property
    def cycles(self) -> int:
        """Of all groups."""
        return self.ends[-1]

    def ended(self, cycle: int) -> int:
        """Groups that have ended by then."""
        return bisect_right(self.ends, cycle)


@dataclass(slots=True)
class SramCounts:
    """Events of one slice. busy_cycles = what groups would take without conflicts + conflict_cycles.

    `refresh_cycles` are those in which a refresh stopped a stream."""

    reads: int = 0
    writes: int = 0
    busy_cycles: int = 0
    conflict_cycles: int = 0
    refresh_cycles: int = 0

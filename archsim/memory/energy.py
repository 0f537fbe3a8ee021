"""What a memory's commands cost, by up to two independent methods. Picojoules as floats.

**Per bit**: published energies of a row and of each stretch of the data path, times bits (most papers go back to
O'Connor et al., "Fine-Grained DRAM", MICRO 2017). **Currents**: supply currents of a data sheet, as Micron's
power calculators use them (TN-40-07). They are a maximum that a vendor guarantees for one part and contain no pins.

    ACT and PRE   (IDD0 tRC - IDD3N tRAS - IDD2N (tRC - tRAS)) VDD
    RD            (IDD4R - IDD3N) t_burst VDD
    WR            (IDD4W - IDD3N) t_burst VDD
    REF           (IDD5 - IDD3N) tRFC VDD

Currents are often known of a smaller or older relative alone. Its energies carry over per byte of row, per bit of burst
and per refreshed row. Neither method counts what a memory draws when it stands by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from fractions import Fraction
from typing import ClassVar, Literal

from pydantic import model_validator

from archsim.config.errors import UserError
from archsim.config.schema import Spec
from archsim.config.units import (
    ByteCount,
    Milliamperes,
    PicojoulePerBit,
    Picojoules,
    PositiveFloat,
    PositiveInt,
    TimeFs,
    Volts,
)

FS_PER_NS = 10**6


class Method(StrEnum):
    """How command energies are found."""

    PER_BIT = "per_bit"
    CURRENTS = "currents"


@dataclass(frozen=True, slots=True)
class CommandEnergy:
    """Picojoules per command of one pseudo-channel, all of its chips; `activate` includes its precharge.

    `io` is per bit on the pins, and not part of `read` and `write`."""

    activate: float
    read: float
    write: float
    refresh_all_bank: float
    refresh_per_bank: float
    io: float

    def scaled(self, factor: float) -> CommandEnergy:
        """Every energy times `factor`."""
        return CommandEnergy(*(getattr(self, field.name) * factor for field in fields(self)))

    def streaming(self, row_bytes: int, burst_bytes: int) -> float:
        """Picojoules per bit of reading whole rows, pins included and refresh not."""
        return self.activate / (8 * row_bytes) + self.read / (8 * burst_bytes) + self.io

    def random(self, burst_bytes: int) -> float:
        """Picojoules per bit of reading one burst per activate, pins included and refresh not."""
        return (self.activate + self.read) / (8 * burst_bytes) + self.io


@dataclass(frozen=True, slots=True)
class EnergyBand:
    """What commands cost: `likely`, and the least and the most that the sources allow."""

    low: CommandEnergy
    likely: CommandEnergy
    high: CommandEnergy

    def items(self) -> Iterator[tuple[str, CommandEnergy]]:
        """The three with their names."""
        yield from (("low", self.low), ("likely", self.likely), ("high", self.high))


@dataclass(frozen=True, slots=True)
class Geometry:
    """What of a memory its energies depend on. `refreshed_rows` are those of one all-bank command, a mean."""

    row_bytes: int
    burst_bytes: int
    banks: int
    refreshed_rows: float


class PerBitSpec(Spec):
    """Energies per bit of the data path, from the cells to the pins, and of activating a row of `row` bytes.

    `path` is everything between the cells and the pins: column path, buses of the die, TSVs. `write_over_read` is what
    a write takes inside the memory, relative to a read."""

    row: ByteCount
    activate: Picojoules
    cell: PicojoulePerBit
    path: PicojoulePerBit
    write_over_read: PositiveFloat

    def commands(self, geometry: Geometry, io: float) -> CommandEnergy:
        """Picojoules per command of a memory."""
        activate = self.activate * geometry.row_bytes / self.row
        read = (self.cell + self.path) * 8 * geometry.burst_bytes
        refresh = activate * geometry.refreshed_rows
        return CommandEnergy(activate, read, read * self.write_over_read, refresh, refresh / geometry.banks, io)


class CurrentsSpec(Spec):
    """Supply currents of one `part`, and the times and sizes they were measured with.

    `row`, `burst` and `refreshed_rows` (of one REF command) are the part's own; `burst_time` is how long a burst holds
    the pins."""

    part: str
    vdd: Volts
    idd0: Milliamperes
    idd2n: Milliamperes
    idd3n: Milliamperes
    idd4r: Milliamperes
    idd4w: Milliamperes
    idd5: Milliamperes
    trc: TimeFs
    tras: TimeFs
    trfc: TimeFs
    burst_time: TimeFs
    row: ByteCount
    burst: ByteCount
    refreshed_rows: PositiveInt

    @property
    def activate_pj(self) -> float:
        """Of the part's own row, precharge included."""
        standby = self.idd3n * self.tras + self.idd2n * (self.trc - self.tras)
        return (self.idd0 * self.trc - standby) * self.vdd / FS_PER_NS

    @property
    def read_pj(self) -> float:
        """Of the part's own burst."""
        return (self.idd4r - self.idd3n) * self.burst_time * self.vdd / FS_PER_NS

    @property
    def write_pj(self) -> float:
        """Of the part's own burst."""
        return (self.idd4w - self.idd3n) * self.burst_time * self.vdd / FS_PER_NS

    @property
    def refresh_pj(self) -> float:
        """Of the part's own REF command."""
        return (self.idd5 - self.idd3n) * self.trfc * self.vdd / FS_PER_NS

    def commands(self, geometry: Geometry, io: float) -> CommandEnergy:
        """Picojoules per command of a memory of the part's kind."""
        bursts, rows = geometry.burst_bytes / self.burst, geometry.row_bytes / self.row
        refresh = self.refresh_pj / self.refreshed_rows * rows * geometry.refreshed_rows
        return CommandEnergy(
            activate=self.activate_pj * rows,
            read=self.read_pj * bursts,
            write=self.write_pj * bursts,
            refresh_all_bank=refresh,
            refresh_per_bank=refresh / geometry.banks,
            io=io,
        )

    @model_validator(mode="after")
    def _check(self) -> CurrentsSpec:
        for name in ("activate_pj", "read_pj", "write_pj", "refresh_pj"):
            if getattr(self, name) <= 0:
                raise UserError(
                    f"the currents of {self.part} give {getattr(self, name):g} pJ for {name.removesuffix('_pj')}",
                    expected="currents above those of standing by, and tRC above tRAS",
                )
        return self


class MemoryEnergySpec(Spec):
    """The energy of a memory technology: by `per_bit`, by `currents`, or by both, which then make a band.

    With both, `per_bit` is the likely one. `io` is what the pins take per bit, on both sides. All rows are refreshed
    once in `refresh_window`. `spread` widens the band at both ends: how far a source may be off, relative."""

    kind_in_words: ClassVar[str] = "a table of memory energies"

    kind: Literal["energy"] = "energy"
    per_bit: PerBitSpec | None = None
    currents: CurrentsSpec | None = None
    io: PicojoulePerBit
    refresh_window: TimeFs
    spread: PositiveFloat

    @model_validator(mode="after")
    def _check(self) -> MemoryEnergySpec:
        if self.per_bit is None and self.currents is None:
            raise UserError("there is neither per_bit nor currents", expected="at least one of the two")
        if self.spread >= 1:
            raise UserError(f"a spread of {self.spread:g} reaches below zero", expected="less than 1")
        return self

    def refreshed_rows(self, rows: int, banks: int, interval_fs: Fraction) -> float:
        """Rows that an all-bank command refreshes, a mean, if one comes per `interval_fs`."""
        return float(rows * banks * interval_fs / self.refresh_window)

    def by_method(self, geometry: Geometry) -> dict[Method, CommandEnergy]:
        """Command energies by each method there is, the likely one first."""
        found: dict[Method, CommandEnergy] = {}
        if self.per_bit is not None:
            found[Method.PER_BIT] = self.per_bit.commands(geometry, self.io)
        if self.currents is not None:
            found[Method.CURRENTS] = self.currents.commands(geometry, self.io)
        return found

    def band(self, geometry: Geometry) -> EnergyBand:
        """The likely command energies, and per command the least and the most of the methods, widened by `spread`."""
        methods = list(self.by_method(geometry).values())
        names = [field.name for field in fields(CommandEnergy)]
        least = CommandEnergy(*(min(getattr(one, name) for one in methods) for name in names))
        most = CommandEnergy(*(max(getattr(one, name) for one in methods) for name in names))
        return EnergyBand(least.scaled(1 - self.spread), methods[0], most.scaled(1 + self.spread))

"""A DRAM standard and its controller as a user writes them, and as the parameter table that the kernel reads.

A standard is data: organisation, command lengths, timings. A memory of the same kind of standard is YAML alone.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic import model_validator

from archsim.config.errors import Problem, SpecError, UserError
from archsim.config.schema import Spec
from archsim.config.units import BitsPerSecond, ByteCount, PositiveFloat, PositiveInt, Timing, TimingNsOrClocks
from archsim.kernels.timing import (
    DramTiming,
    RefreshMode,
    RefreshOrder,
    SchedulerMode,
)
from archsim.memory.address_map import parse_address_map, row_set_tables
from archsim.memory.controller import ZERO, ControllerSpec, PagePolicy, RefreshPolicy, RefreshTurn, Scheduler
from archsim.memory.energy import EnergyBand, Geometry, MemoryEnergySpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AddressTables",
    "CommandSlots",
    "ControllerSpec",
    "DramStandard",
    "Organisation",
    "PagePolicy",
    "RefreshPolicy",
    "RefreshTurn",
    "Scheduler",
    "Timings",
]

FS_PER_SECOND = 10**15
LONGEST_COMMAND = 1024
LONGEST_TICKS = 1 << 32
"""The longest time that the kernel's tables hold: it counts a transfer's ticks to 32 times as many."""

_REFRESH_MODES = {
    RefreshPolicy.ALL_BANK: RefreshMode.ALL_BANK,
    RefreshPolicy.PER_BANK: RefreshMode.PER_BANK,
    RefreshPolicy.SAME_BANK: RefreshMode.SAME_BANK,
    RefreshPolicy.NONE: RefreshMode.NONE,
}
_REFRESH_ORDERS = {RefreshTurn.IN_TURN: RefreshOrder.IN_TURN, RefreshTurn.UNWANTED_FIRST: RefreshOrder.UNWANTED_FIRST}


class Organisation(Spec):
    """Counts of one level per the level above: pseudo-channels per channel, stack IDs per pseudo-channel, and so on.

    `columns` counts bursts per row, `burst_bytes` is what one RD or WR moves.
    """

    pseudo_channels: PositiveInt
    stack_ids: PositiveInt
    bank_groups: PositiveInt
    banks_per_group: PositiveInt
    rows: PositiveInt
    columns: PositiveInt
    burst_bytes: ByteCount

    @property
    def banks(self) -> int:
        """Banks per pseudo-channel."""
        return self.stack_ids * self.bank_groups * self.banks_per_group

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of one bank in a pseudo-channel: the page."""
        return self.columns * self.burst_bytes

    @property
    def row_set(self) -> int:
        """Bursts of one row of every bank of a pseudo-channel."""
        return self.banks * self.columns

    @property
    def pseudo_channel_bytes(self) -> int:
        """Capacity of a pseudo-channel in bytes."""
        return self.banks * self.rows * self.row_bytes


class CommandSlots(Spec):
    """How long a command holds its bus, in clocks CK. Commands may start on each of `edges_per_clock` edges at most.

    `shared_bus`: row and column commands use one command bus (DDR5, GDDR6, LPDDR5X); HBM has a bus for each.
    """

    edges_per_clock: PositiveInt
    column_clocks: PositiveFloat
    activate_clocks: PositiveFloat
    precharge_clocks: PositiveFloat
    shared_bus: bool = False

    @model_validator(mode="after")
    def _check(self) -> "CommandSlots":
        if self.edges_per_clock & (self.edges_per_clock - 1):
            raise UserError(
                f"edges_per_clock = {self.edges_per_clock} is not a power of two",
                expected="1 if commands start on rising edges only, 2 if on either edge",
            )
        for name in ("column_clocks", "activate_clocks", "precharge_clocks"):
            if (Fraction(str(getattr(self, name))) * self.edges_per_clock).denominator != 1:
                raise UserError(
                    f"{name} = {getattr(self, name)} is not a whole number of command edges",
                    expected=f"a multiple of 1/{self.edges_per_clock} clock",
                )
            if getattr(self, name) > LONGEST_COMMAND:
                raise UserError(f"{name} = {getattr(self, name):g} is too large", expected=f"at most {LONGEST_COMMAND}")
        return self

    def ticks(self, clocks: float) -> int:
        """Command edges of a length in clocks."""
        return int(Fraction(str(clocks)) * self.edges_per_clock)


class Timings(Spec):
    """Minimum distances, by their JEDEC names. A time in ns is rounded up to whole clocks CK.

    tREFI and tREFIpb are longest average intervals, so they are rounded down. tREFIpb defaults to tREFI / banks.
    tREFIsb defaults to tREFI / sets of banks that same-bank refresh comes to. tCCDLW is tCCDL for WR to WR where that
    is longer (DDR5's tCCD_L_WR). tRFCsb, tCKE and tXP are needed only by what uses them.
    tRTP and tWR hold inside one bank; tRTW counts from RD to WR, tWTRS and tWTRL from the end of the write's data.
    """

    tCL: TimingNsOrClocks
    tCWL: TimingNsOrClocks
    tBL: TimingNsOrClocks
    tRCDRD: TimingNsOrClocks
    tRCDWR: TimingNsOrClocks
    tRP: TimingNsOrClocks
    tRAS: TimingNsOrClocks
    tRC: TimingNsOrClocks
    tRTP: TimingNsOrClocks
    tWR: TimingNsOrClocks
    tCCDS: TimingNsOrClocks
    tCCDL: TimingNsOrClocks
    tCCDR: TimingNsOrClocks
    tRRDS: TimingNsOrClocks
    tRRDL: TimingNsOrClocks
    tFAW: TimingNsOrClocks
    tWTRS: TimingNsOrClocks
    tWTRL: TimingNsOrClocks
    tRTW: TimingNsOrClocks
    tPPD: TimingNsOrClocks
    tRFCab: TimingNsOrClocks
    tRFCpb: TimingNsOrClocks
    tRREFD: TimingNsOrClocks
    tREFI: TimingNsOrClocks
    tREFIpb: TimingNsOrClocks | None = None
    tCCDLW: TimingNsOrClocks | None = None
    tRFCsb: TimingNsOrClocks | None = None
    tREFIsb: TimingNsOrClocks | None = None
    tCKE: TimingNsOrClocks | None = None
    tXP: TimingNsOrClocks | None = None


class AddressTables(NamedTuple):
    """Where each burst of a row set lies: local burst address a is at `bank[a % row_set]`, `column[a % row_set]`,
    row `a // row_set`. int16 arrays of length row_set."""

    bank: "NDArray[np.int16]"
    column: "NDArray[np.int16]"


class DramStandard(Spec):
    """One kind of DRAM stack or device. `data_rate` is per pin; `transfers_per_clock` are transfers per clock CK.

    `stack_capacity` is what the data sheet says; it is checked against the organisation. Without `energy`, times are
    simulated and energies are not.
    """

    kind_in_words: ClassVar[str] = "a DRAM"

    kind: Literal["memory"] = "memory"
    name: str
    data_rate: BitsPerSecond
    transfers_per_clock: PositiveInt
    pins_per_pseudo_channel: PositiveInt
    channels_per_stack: PositiveInt
    stack_capacity: ByteCount
    organisation: Organisation
    commands: CommandSlots
    timings: Timings
    energy: MemoryEnergySpec | None = None

    @property
    def energy_band(self) -> EnergyBand | None:
        """What commands cost, or None where nothing is known of it."""
        return None if self.energy is None else self.energy.band(self.energy_geometry(self.energy))

    def energy_geometry(self, energy: MemoryEnergySpec) -> Geometry:
        """What of this memory its command energies depend on."""
        organisation = self.organisation
        interval_fs = self.clocks("tREFI") * self.clock_fs
        return Geometry(
            row_bytes=organisation.row_bytes,
            burst_bytes=organisation.burst_bytes,
            banks=organisation.banks,
            refreshed_rows=energy.refreshed_rows(organisation.rows, organisation.banks, interval_fs),
        )

    @property
    def clock_fs(self) -> Fraction:
        """Period of CK in femtoseconds, exact."""
        return Fraction(FS_PER_SECOND * self.transfers_per_clock, self.data_rate)

    @property
    def tick_fs(self) -> Fraction:
        """Length of a tick of the DRAM kernel in femtoseconds, exact."""
        return self.clock_fs / self.commands.edges_per_clock

    @property
    def peak_bytes_per_second(self) -> Fraction:
        """Data-bus bandwidth of one channel, all of its pseudo-channels."""
        pins = self.pins_per_pseudo_channel * self.organisation.pseudo_channels
        return Fraction(self.data_rate * pins, 8)

    @property
    def channel_bytes(self) -> int:
        """Capacity of one channel in bytes."""
        return self.organisation.pseudo_channel_bytes * self.organisation.pseudo_channels

    def clocks(self, name: str) -> int:
        """A timing of the table in whole clocks CK: rounded up, intervals of refresh down; 0 if it is not given."""
        if name in ("tREFI", "tREFIpb", "tREFIsb"):
            return self._interval_clocks(name)
        timing: Timing | None = getattr(self.timings, name)
        return 0 if timing is None else timing.to_clocks(self.clock_fs)

    def timing(self, controller: ControllerSpec) -> DramTiming:
        """The kernel's parameter table, in ticks. Raises UserError if the controller does not fit the standard."""
        edges = self.commands.edges_per_clock
        ticks = {name: self.clocks(name) * edges for name in Timings.model_fields if name.startswith("t")}
        organisation = self.organisation
        self._check_address_map(controller)
        self._check_timings_for(controller)

        answers_from_queue = controller.write_forwarding or controller.write_coalescing

        def to_ticks(time: Timing) -> int:
            return _counted(time.to_clocks(self.clock_fs) * edges)

        return DramTiming(
            ticks_per_ck=edges,
            pseudo_channels=organisation.pseudo_channels,
            stack_ids=organisation.stack_ids,
            bank_groups=organisation.bank_groups,
            banks_per_group=organisation.banks_per_group,
            columns=organisation.columns,
            burst_bytes=organisation.burst_bytes,
            column_ticks=self.commands.ticks(self.commands.column_clocks),
            activate_ticks=self.commands.ticks(self.commands.activate_clocks),
            precharge_ticks=self.commands.ticks(self.commands.precharge_clocks),
            refresh_mode=int(_REFRESH_MODES[controller.refresh]),
            refresh_stagger=to_ticks(controller.refresh_stagger),
            refresh_order=int(_REFRESH_ORDERS[controller.refresh_order]),
            refresh_postpone=_counted(controller.refresh_postpone * ticks["tREFI"]),
            refresh_pull_in=_counted(controller.refresh_pull_in * ticks["tREFI"]),
            refresh_idle=to_ticks(controller.refresh_idle),
            shared_command_bus=int(self.commands.shared_bus),
            scheduler=int(SchedulerMode.FCFS if controller.scheduler is Scheduler.FCFS else SchedulerMode.FR_FCFS),
            row_hit_cap=controller.row_hit_cap if controller.scheduler is Scheduler.FR_FCFS_CAP else 0,
            starve_after=to_ticks(controller.starve_after),
            page_timeout=self._page_timeout_ticks(controller),
            write_forwarding=int(controller.write_forwarding),
            write_coalescing=int(controller.write_coalescing),
            forward_ticks=to_ticks(controller.forward_latency) if answers_from_queue else 0,
            power_down_after=to_ticks(controller.power_down_after),
            latency_histogram=int(controller.latency_histogram),
            read_queue=controller.read_queue,
            write_queue=controller.write_queue,
            write_high=controller.write_high,
            write_low=controller.write_low,
            **ticks,
        )

    def address_tables(self, controller: ControllerSpec) -> AddressTables:
        """Bank and column of every burst of a row set. Raises UserError if the address map does not fit."""
        bank, column = row_set_tables(controller.address_map, self._field_sizes())
        return AddressTables(bank, column)

    def _field_sizes(self) -> dict[str, int]:
        organisation = self.organisation
        return {name: getattr(organisation, name + "s") for name in ("bank_group", "column", "stack_id", "row")} | {
            "bank": organisation.banks_per_group
        }

    def _check_address_map(self, controller: ControllerSpec) -> None:
        parse_address_map(controller.address_map, self._field_sizes())

    def _page_timeout_ticks(self, controller: ControllerSpec) -> int:
        if controller.page_policy is PagePolicy.OPEN:
            return -1
        timeout = controller.page_timeout or ZERO
        return _counted(timeout.to_clocks(self.clock_fs) * self.commands.edges_per_clock)

    def _check_timings_for(self, controller: ControllerSpec) -> None:
        """Raises UserError if the controller wants what the standard has no timings for."""
        wanted = {
            "refresh: same_bank": ("tRFCsb",) if controller.refresh is RefreshPolicy.SAME_BANK else (),
            "power_down_after": ("tCKE", "tXP") if controller.power_down_after != ZERO else (),
        }
        for what, names in wanted.items():
            missing = [name for name in names if getattr(self.timings, name) is None]
            if missing:
                raise UserError(
                    f"{self.name} has no {' and no '.join(missing)}", expected=f"it in `timings`, for {what}"
                )

    def _interval_clocks(self, name: str) -> int:
        whole = self.timings.tREFI
        own: Timing | None = getattr(self.timings, name)
        if own is not None and own.clocks is not None:
            return own.clocks
        if own is not None and own.ns is not None:
            return math.floor(own.ns * 10**6 / self.clock_fs)
        clocks = Fraction(whole.clocks) if whole.clocks is not None else (whole.ns or 0) * 10**6 / self.clock_fs
        organisation = self.organisation
        commands = organisation.banks if name == "tREFIpb" else organisation.stack_ids * organisation.banks_per_group
        return math.floor(clocks / commands)

    @model_validator(mode="after")
    def _check(self) -> "DramStandard":
        if self.tick_fs < 1:
            most = FS_PER_SECOND * self.transfers_per_clock // self.commands.edges_per_clock
            raise UserError(
                f"at data_rate a command edge takes {float(self.tick_fs):.3g} fs, the least is 1 fs",
                expected=f"a data_rate of at most {most / 10**9:g} Gb/s",
            )
        problems = [*self._geometry_problems(), *self._timing_problems()]
        if problems:
            raise SpecError(problems)
        return self

    def _geometry_problems(self) -> Sequence[Problem]:
        organisation = self.organisation
        problems = []
        transfers = Fraction(organisation.burst_bytes * 8, self.pins_per_pseudo_channel)
        burst_clocks = transfers / self.transfers_per_clock
        if burst_clocks != self.clocks("tBL"):
            takes = f"a burst of {organisation.burst_bytes} B over {self.pins_per_pseudo_channel} pins takes"
            problems.append(_at("timings.tBL", f"{takes} {burst_clocks} clocks, but tBL = {self.clocks('tBL')}"))
        capacity = self.channel_bytes * self.channels_per_stack
        if capacity != self.stack_capacity:
            hold = f"{self.channels_per_stack} channels of {self.channel_bytes} B hold {capacity} B"
            problems.append(_at("stack_capacity", f"stack_capacity is {self.stack_capacity} B, but {hold}"))
        from archsim.kernels.channel import MAX_BANKS, MAX_PCS, MAX_STACK_IDS

        problems += [
            _at("organisation", f"{found} {what}, at most {most} are supported")
            for what, found, most in (
                ("pseudo-channels per channel", organisation.pseudo_channels, MAX_PCS),
                ("stack IDs", organisation.stack_ids, MAX_STACK_IDS),
                ("banks per pseudo-channel", organisation.banks, MAX_BANKS),
            )
            if found > most
        ]
        return problems

    def _timing_problems(self) -> Sequence[Problem]:
        value = {name: self.clocks(name) for name in Timings.model_fields if name.startswith("t")}
        banks = self.organisation.banks
        # tRC is tRAS + tRP before rounding; each of the two may have been rounded up by up to a clock.
        at_least = [
            ("tRC", value["tRC"], "tRAS", value["tRAS"]),
            ("tRC", value["tRC"], "tRAS + tRP less one clock of rounding", value["tRAS"] + value["tRP"] - 1),
            ("tRAS", value["tRAS"], "tRCDRD", value["tRCDRD"]),
            ("tRAS", value["tRAS"], "tRCDWR", value["tRCDWR"]),
            ("tCCDS", value["tCCDS"], "the burst tBL", value["tBL"]),
            ("tCCDL", value["tCCDL"], "tCCDS", value["tCCDS"]),
            ("tRRDL", value["tRRDL"], "tRRDS", value["tRRDS"]),
            ("tWTRL", value["tWTRL"], "tWTRS", value["tWTRS"]),
            ("tRTW", value["tRTW"], "tCL + tBL - tCWL", value["tCL"] + value["tBL"] - value["tCWL"]),
            ("tREFI", value["tREFI"], "tRFCab + 1", value["tRFCab"] + 1),
            ("tREFIpb", value["tREFIpb"], "tRREFD", value["tRREFD"]),
            ("tREFIpb x banks", value["tREFIpb"] * banks, "tRFCpb + 1", value["tRFCpb"] + 1),
            ("tREFIsb", value["tREFIsb"], "tRFCsb + 1", value["tRFCsb"] + 1),
        ]
        problems = [
            _at_timing(name, f"{name} = {found} clocks is less than {bound_name} = {bound} clocks")
            for name, found, bound_name, bound in at_least
            if found < bound
        ]
        may_be_zero = {"tPPD", "tWTRS", "tWTRL", "tCCDR", "tRTP", "tCCDLW", "tRFCsb", "tCKE", "tXP"}
        most = LONGEST_TICKS // self.commands.edges_per_clock
        long = {name: found for name, found in value.items() if found > most}
        problems += [_at_timing(name, f"{name} = {found} clocks is more than {most}") for name, found in long.items()]
        zero = [name for name, found in value.items() if found == 0 and name not in may_be_zero]
        problems += [_at_timing(name, f"{name} is zero") for name in zero]
        return problems


def _at(path: str, message: str) -> Problem:
    return Problem(None, None, path, message)


def _at_timing(name: str, message: str) -> Problem:
    """Of "tREFIpb x banks" at tREFIpb."""
    return _at(f"timings.{name.split()[0]}", message)


def _counted(ticks: int) -> int:
    """The ticks of a controller's timing. Raises UserError if the kernel can't count them."""
    if ticks > LONGEST_TICKS:
        raise UserError(f"a time of the controller is {ticks} command edges", expected=f"at most {LONGEST_TICKS}")
    return ticks

"""Processing in memory as a user writes it: banks, units, commands, and the distances between commands, all as data.

One kernel serves every family; what differs is the table here and how work becomes a program (pim_programs.py).
"""

import re
from enum import StrEnum
from fractions import Fraction
from typing import ClassVar, Literal

from pydantic import model_validator

from archsim.config.errors import Problem, SpecError, UserError, nearest_name
from archsim.config.schema import Spec
from archsim.config.units import ByteCount, FrequencyHz, PicojoulePerBit, Picojoules, PositiveInt, TimingNsOrClocks
from archsim.kernels.pim_rules import Banks, Bus, Distance, PimCommand, PimRules, Role, Scope, Targets
from archsim.memory.pim_mapping import PimMapping

FS_PER_SECOND = 10**15

_BOUNDED = ("tRC", "tRAS", "tRP", "tRFC", "tREFI")
"""Timings that are checked against each other, or that refresh goes by if it is switched on."""


class PimFamily(StrEnum):
    """How work becomes commands."""

    AIM = "aim"
    HBM_PIM = "hbm_pim"
    ATTACC = "attacc"
    NEUPIMS = "neupims"
    LOGIC_PIM = "logic_pim"
    PIM_GPT = "pim_gpt"


ROW_FAMILIES = (PimFamily.AIM, PimFamily.NEUPIMS, PimFamily.PIM_GPT)
"""Banks hold whole rows of a matrix."""


class PimPlacement(StrEnum):
    """Where the multipliers sit."""

    BANK = "bank"
    BANK_GROUP = "bank_group"
    BUFFER_DIE = "buffer_die"
    LOGIC_DIE = "logic_die"


class HeadProgramVersion(StrEnum):
    """Which release of AttAcc's trace generator the attention of heads follows."""

    CURRENT = "current"  # c600051: softmax and the moves of its weights once a head
    FIRST = "first"  # c1540de: again after every group of a head that is alone on its channel


class PimRefresh(StrEnum):
    """How rows are refreshed while PIM runs."""

    ALL_BANK = "all_bank"
    NONE = "none"


class RoleName(StrEnum):
    """What a command does to rows."""

    PLAIN = "plain"
    OPEN = "open"
    USE = "use"
    CLOSE = "close"
    PRECHARGE_ALL = "precharge_all"
    REFRESH = "refresh"


class TargetName(StrEnum):
    """Which banks one command addresses."""

    ALL = "all"
    SAME_BANK = "same_bank"
    UNIT_SLOT = "unit_slot"
    BANK_GROUP = "bank_group"
    BANK = "bank"


class ScopeName(StrEnum):
    """What two commands must share for a rule to bind them."""

    BANK = "bank"
    BANK_GROUP = "bank_group"
    RANK = "rank"
    CHANNEL = "channel"


class BusName(StrEnum):
    """The command bus."""

    ROW = "row"
    COLUMN = "column"


class PimOrganisation(Spec):
    """Counts of one level per level above. Pseudo-channels get every PIM command together and count as one."""

    channels: PositiveInt
    pseudo_channels: PositiveInt = 1
    ranks: PositiveInt = 1
    bank_groups: PositiveInt
    banks_per_group: PositiveInt
    rows: PositiveInt
    row_bytes: ByteCount
    burst_bytes: ByteCount

    @property
    def columns(self) -> int:
        """Bursts of a row."""
        return self.row_bytes // self.burst_bytes

    @property
    def banks(self) -> int:
        """Banks of a channel in one pseudo-channel."""
        return self.ranks * self.bank_groups * self.banks_per_group

    @model_validator(mode="after")
    def _check(self) -> "PimOrganisation":
        if self.row_bytes % self.burst_bytes:
            raise UserError(
                f"a row of {self.row_bytes} B is no whole number of bursts of {self.burst_bytes} B",
                expected="row_bytes to be a multiple of burst_bytes",
            )
        return self


class PimUnits(Spec):
    """The arithmetic. A unit serves `banks_per_unit` banks and has `multipliers` for one burst of operands.

    `accumulators` are results a unit can hold before they are read out; `outputs_per_input_load` how many of them a
    program makes of one filling of the input buffer; `tokens_per_read` how many input vectors one read of the weights
    serves (1: GEMV only; 8: eight operations a byte at two bytes a weight).
    """

    banks_per_unit: PositiveInt = 1
    multipliers: PositiveInt
    accumulators: PositiveInt = 1
    outputs_per_input_load: PositiveInt = 1
    tokens_per_read: PositiveInt = 1
    input_buffer: ByteCount
    element_bytes: PositiveInt = 2

    @model_validator(mode="after")
    def _check(self) -> "PimUnits":
        if self.outputs_per_input_load > self.accumulators:
            raise UserError(
                f"outputs_per_input_load = {self.outputs_per_input_load}, a unit has {self.accumulators} accumulators",
                expected="at most `accumulators`",
            )
        return self


class PimCommandSpec(Spec):
    """A command: its role, the banks it addresses, its bus and what it costs there.

    `rows` is the kind of target whose rows it opens, uses or closes (its own if left out), `buffer` which of a bank's
    row buffers; `latency` is an expression of timings: when what the command does is complete."""

    role: RoleName = RoleName.PLAIN
    targets: TargetName = TargetName.ALL
    rows: TargetName | None = None
    bus: BusName
    buffer: int = 0
    bus_clocks: PositiveInt = 1
    activations: int = 0
    latency: str = "1"


class PimRuleSpec(Spec):
    """Every command of `after` issues at least `distance` (an expression of timings, in clocks) after every one of
    `before` with which it shares `scope`."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    scope: ScopeName
    distance: str


class PowerCap(Spec):
    """Timings that a power limit replaces while `enabled`."""

    enabled: bool
    timings: dict[str, TimingNsOrClocks]


class PimEnergy(Spec):
    """Energy per event: an activate of one bank's row, a bit read from the cells to the unit, a bit over the
    channel's pins, a multiply-accumulate."""

    activate: Picojoules
    read: PicojoulePerBit
    pins: PicojoulePerBit
    mac: Picojoules


class PimSpec(Spec):
    """A memory with processing in it: all that the kernel, the layouts and the programs of its family need.

    Work starts at a channel at rest whose first refresh falls due after `first_refresh`; left out, after tREFI."""

    kind_in_words: ClassVar[str] = "a PIM device"

    kind: Literal["pim"] = "pim"
    name: str
    family: PimFamily
    placement: PimPlacement
    clock: FrequencyHz
    organisation: PimOrganisation
    units: PimUnits
    timings: dict[str, TimingNsOrClocks]
    power_cap: PowerCap | None = None
    program: HeadProgramVersion = HeadProgramVersion.CURRENT
    mapping: PimMapping = PimMapping()
    refresh: PimRefresh
    first_refresh: TimingNsOrClocks | None = None
    shared_command_bus: bool
    dual_row_buffer: bool = False
    commands: dict[str, PimCommandSpec]
    rules: tuple[PimRuleSpec, ...]
    energy: PimEnergy | None = None

    @property
    def clock_fs(self) -> Fraction:
        """Period of the clock in femtoseconds, exact."""
        return Fraction(FS_PER_SECOND, self.clock)

    @property
    def peak_bytes_per_second(self) -> Fraction:
        """What the units of the device read from their banks with MACs back to back."""
        table = self.rules_table()
        mac = table.index(self.mac_command)
        # A MAC on many banks meets itself in every scope; one on a single bank may go to another rank each time.
        wide = table.commands[mac].targets is not Targets.BANK
        gaps = [d for d in table.distances if d.before == mac and d.after == mac]
        gap = max((d.ticks for d in gaps if wide or d.scope is Scope.CHANNEL), default=1)
        return Fraction(self.bytes_per_mac * self.organisation.channels * self.clock, gap)

    @property
    def mac_command(self) -> str:
        """The name of the MAC command: the first `use` command of row buffer 0."""
        for name, command in self.commands.items():
            if command.role is RoleName.USE and command.buffer == 0:
                return name
        raise UserError(f"{self.name} has no command that uses rows", expected="a command with `role: use`")

    @property
    def banks_per_mac(self) -> int:
        """Banks that one MAC command reads, all pseudo-channels."""
        targets = Targets[self.commands[self.mac_command].targets.name]
        banks = self.banks()
        return len(banks.footprint(targets, 0)) * self.organisation.pseudo_channels

    @property
    def bytes_per_mac(self) -> int:
        """Bytes that one MAC command reads in its channel."""
        return self.banks_per_mac * self.organisation.burst_bytes

    def banks(self) -> Banks:
        """The banks under one command bus."""
        organisation = self.organisation
        return Banks(
            organisation.ranks, organisation.bank_groups, organisation.banks_per_group, self.units.banks_per_unit
        )

    def clocks(self, name: str) -> int:
        """A timing in whole clocks, the power cap's where it applies. Raises UserError for an unknown name."""
        table = self.timings
        if self.power_cap is not None and self.power_cap.enabled:
            table = {**table, **self.power_cap.timings}
        if name not in table:
            raise UserError(f"there is no timing '{name}'", nearest=nearest_name(name, table))
        return table[name].to_clocks(self.clock_fs)

    def evaluate(self, expression: str) -> int:
        """An expression of timings and whole clocks with + and -, in clocks; not below zero. Raises UserError."""
        total = 0
        text = expression.replace(" ", "")
        if not re.fullmatch(r"[+-]?\w+([+-]\w+)*", text):
            raise UserError(f"'{expression}' is no sum of timings", expected="a sum such as 'tCWL + tBL + 3'")
        for sign, term in re.findall(r"([+-]?)(\w+)", text):
            value = int(term) if term.isdigit() else self.clocks(term)
            total += -value if sign == "-" else value
        return max(total, 0)

    def rules_table(self) -> PimRules:
        """The rules of one channel in ticks of the clock."""
        names = list(self.commands)
        commands = tuple(self._command(name, command) for name, command in self.commands.items())
        distances = [
            Distance(names.index(before), names.index(after), Scope[rule.scope.name], self.evaluate(rule.distance))
            for rule in self.rules
            for before in rule.before
            for after in rule.after
        ]
        refreshes = self.refresh is PimRefresh.ALL_BANK
        return PimRules(
            banks=self.banks(),
            commands=commands,
            distances=tuple(distances),
            faw_ticks=self.clocks("tFAW") if "tFAW" in self.timings else 0,
            shared_bus=self.shared_command_bus,
            refresh_interval=self.clocks("tREFI") if refreshes else 0,
            first_refresh=self._first_refresh_clocks() if refreshes else 0,
            precharge_all=self._with_role(RoleName.PRECHARGE_ALL),
            refresh=self._with_role(RoleName.REFRESH),
        )

    def _first_refresh_clocks(self) -> int:
        return self.clocks("tREFI") if self.first_refresh is None else self.first_refresh.to_clocks(self.clock_fs)

    def _command(self, name: str, spec: PimCommandSpec) -> PimCommand:
        return PimCommand(
            name=name,
            role=Role[spec.role.name],
            targets=Targets[spec.targets.name],
            rows=Targets[(spec.rows or spec.targets).name],
            bus=Bus[spec.bus.name],
            buffer=spec.buffer,
            slot_ticks=spec.bus_clocks,
            activations=spec.activations,
            latency_ticks=self.evaluate(spec.latency),
        )

    def _with_role(self, role: RoleName) -> int:
        return next((k for k, command in enumerate(self.commands.values()) if command.role is role), -1)

    @model_validator(mode="after")
    def _check(self) -> "PimSpec":
        by_rows = self.family in ROW_FAMILIES
        problems = [*self._timing_problems(), *self._command_problems(), *self._geometry_problems()]
        problems += self.mapping.problems(self.commands, by_rows=by_rows)
        contradictions = [Problem(None, None, "", "; ".join(problems))] if problems else []
        if found := [*self._idle_timings(), *contradictions]:
            raise SpecError(found)
        return self

    def _idle_timings(self) -> list[Problem]:
        """Timings that change nothing: most likely misspelt."""
        at_work = {*_BOUNDED, *(name for text in self._expressions() for name in re.findall(r"[A-Za-z_]\w*", text))}
        if any(command.activations for command in self.commands.values()):
            at_work.add("tFAW")
        tables = {"timings": self.timings, "power_cap.timings": self.power_cap.timings if self.power_cap else {}}
        return [
            Problem(
                None, None, f"{table}.{name}", f"no rule and no latency of {self.name} uses '{name}'",
                f"a rule that does, or `{name}: null` to drop an inherited one", nearest_name(name, at_work),
            )
            for table, timings in tables.items()
            for name in timings
            if name not in at_work
        ]  # fmt: skip

    def _expressions(self) -> list[str]:
        return [rule.distance for rule in self.rules] + [command.latency for command in self.commands.values()]

    def _timing_problems(self) -> list[str]:
        problems = []
        if self.power_cap is not None:
            for name in self.power_cap.timings:
                if name not in self.timings:
                    problems.append(f"power_cap.timings has {name}, which `timings` does not have")
        for expression in self._expressions():
            try:
                self.evaluate(expression)
            except UserError as error:
                problems.append(str(error))
        value = {name: timing.to_clocks(self.clock_fs) for name, timing in self.timings.items()}
        for smaller, larger in (("tRAS", "tRC"), ("tRP", "tRC"), ("tRFC", "tREFI")):
            if smaller in value and larger in value and value[smaller] > value[larger]:
                problems.append(f"{smaller} = {value[smaller]} nCK is longer than {larger} = {value[larger]} nCK")
        if self.refresh is PimRefresh.ALL_BANK and "tREFI" not in self.timings:
            problems.append("refresh: all_bank needs tREFI in `timings`")
        if self.first_refresh is not None and self.refresh is not PimRefresh.ALL_BANK:
            problems.append("first_refresh needs `refresh: all_bank`")
        elif self.first_refresh is not None and "tREFI" in value:
            first = self.first_refresh.to_clocks(self.clock_fs)
            if not 0 < first <= value["tREFI"]:
                problems.append(f"first_refresh = {first} nCK is not within tREFI = {value['tREFI']} nCK")
        return problems

    def _command_problems(self) -> list[str]:
        problems = []
        opened = {(c.rows or c.targets, c.buffer) for c in self.commands.values() if c.role is RoleName.OPEN}
        for name, command in self.commands.items():
            kind = (command.rows or command.targets, command.buffer)
            if command.role in (RoleName.USE, RoleName.CLOSE) and kind not in opened:
                problems.append(f"no command opens the {kind[0]} rows of buffer {kind[1]} that {name} needs")
            if not 0 <= command.activations <= 4:
                problems.append(f"{name}: {command.activations} activations, a window of tFAW has 4")
            if command.buffer not in (0, 1) or (command.buffer == 1 and not self.dual_row_buffer):
                problems.append(f"{name}: buffer {command.buffer}, without `dual_row_buffer` there is buffer 0 only")
        macs = [name for name, c in self.commands.items() if c.role is RoleName.USE and name.startswith("MAC")]
        if len(macs) > 1:
            problems.append(f"{' and '.join(macs)} both multiply: a device has one kind of MAC")
        for rule in self.rules:
            for name in (*rule.before, *rule.after):
                if name not in self.commands:
                    close = nearest_name(name, self.commands)
                    problems.append(f"a rule names {name}, which is no command" + (f" ({close}?)" if close else ""))
        if self.refresh is PimRefresh.ALL_BANK:
            for role in (RoleName.PRECHARGE_ALL, RoleName.REFRESH):
                if self._with_role(role) < 0:
                    problems.append(f"refresh: all_bank needs a command with `role: {role}`")
        return problems

    def _geometry_problems(self) -> list[str]:
        problems = []
        needed = self.units.multipliers * self.units.element_bytes
        if needed != self.organisation.burst_bytes:
            problems.append(
                f"{self.units.multipliers} multipliers of {self.units.element_bytes} B take {needed} B a MAC, "
                f"a burst has {self.organisation.burst_bytes} B"
            )
        if self.organisation.banks % self.units.banks_per_unit:
            problems.append(
                f"{self.organisation.banks} banks can't be shared out to units of {self.units.banks_per_unit} banks"
            )
        if self.units.input_buffer % self.organisation.burst_bytes:
            problems.append(f"input_buffer is no whole number of bursts of {self.organisation.burst_bytes} B")
        return problems

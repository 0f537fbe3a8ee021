"""What a PIM channel obeys, as plain data: banks, commands, distances between commands, refresh.

The kernel reads it compiled to flat tables (pim_tables.py); the oracle and the checker read it as it stands.
Times are ticks of the channel's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

MAX_COMMANDS = 32
MAX_LANES = 4
MAX_LOOP_DEPTH = 4
WINDOW = 4
"""Activations in the tFAW window."""


class Role(IntEnum):
    """What a command does to the rows of its banks."""

    PLAIN = 0  # nothing: buffer writes, moves, mode switches
    OPEN = 1
    USE = 2  # needs its rows open and uses up one of the uses that they were opened for
    CLOSE = 3  # waits until all uses are used up
    PRECHARGE_ALL = 4  # closes whatever is open; only refresh issues it
    REFRESH = 5


class Targets(IntEnum):
    """Which banks one command addresses; each kind has its own instances."""

    ALL = 0  # one instance: every bank of the channel
    SAME_BANK = 1  # instance b: bank b of every bank group of every rank
    UNIT_SLOT = 2  # instance s: the s-th bank of every unit
    BANK_GROUP = 3  # instance g: all banks of a bank group
    BANK = 4  # instance b: one bank


class Scope(IntEnum):
    """What two commands must share for a distance to bind them."""

    BANK = 0
    BANK_GROUP = 1
    RANK = 2
    CHANNEL = 3


class Bus(IntEnum):
    """The command bus that a command goes over."""

    ROW = 0
    COLUMN = 1


@dataclass(frozen=True)
class Banks:
    """The banks that run in lockstep under one command bus; broadcast pseudo-channels count once."""

    ranks: int
    bank_groups: int
    banks_per_group: int
    banks_per_unit: int = 1

    @property
    def groups(self) -> int:
        """Bank groups of all ranks."""
        return self.ranks * self.bank_groups

    @property
    def total(self) -> int:
        return self.groups * self.banks_per_group

    def instances(self, targets: Targets) -> int:
        """How many commands of this kind of target tell banks apart."""
        return {
            Targets.ALL: 1,
            Targets.SAME_BANK: self.banks_per_group,
            Targets.UNIT_SLOT: self.banks_per_unit,
            Targets.BANK_GROUP: self.groups,
            Targets.BANK: self.total,
        }[targets]

    def footprint(self, targets: Targets, instance: int) -> frozenset[int]:
        """The banks that an instance addresses, numbered rank, bank group, bank from the most significant."""
        per_group, per_unit = self.banks_per_group, self.banks_per_unit
        banks = range(self.total)
        if targets is Targets.ALL:
            return frozenset(banks)
        if targets is Targets.SAME_BANK:
            return frozenset(bank for bank in banks if bank % per_group == instance)
        if targets is Targets.UNIT_SLOT:
            return frozenset(bank for bank in banks if bank % per_unit == instance)
        if targets is Targets.BANK_GROUP:
            return frozenset(bank for bank in banks if bank // per_group == instance)
        return frozenset((instance,))

    def units(self, scope: Scope, footprint: frozenset[int]) -> frozenset[int]:
        """The banks, bank groups or ranks that a footprint touches."""
        size = {
            Scope.BANK: 1,
            Scope.BANK_GROUP: self.banks_per_group,
            Scope.RANK: self.bank_groups * self.banks_per_group,
            Scope.CHANNEL: self.total,
        }[scope]
        return frozenset(bank // size for bank in footprint)


@dataclass(frozen=True)
class PimCommand:
    """One kind of command. `rows` is the kind of target whose rows it opens, uses or closes, in row buffer `buffer`.

    It holds its bus for `slot_ticks`, counts as `activations` in the tFAW window of its ranks, and what it does is
    complete `latency_ticks` after its issue."""

    name: str
    role: Role
    targets: Targets
    rows: Targets
    bus: Bus
    buffer: int = 0
    slot_ticks: int = 1
    activations: int = 0
    latency_ticks: int = 1


@dataclass(frozen=True)
class Distance:
    """`after` issues at least `ticks` after `before` if they share `scope` (both are indices of commands)."""

    before: int
    after: int
    scope: Scope
    ticks: int


@dataclass(frozen=True)
class PimRules:
    """All rules of one channel. `refresh_interval` 0: no refresh; `first_refresh` is when the first one falls due."""

    banks: Banks
    commands: tuple[PimCommand, ...]
    distances: tuple[Distance, ...]
    faw_ticks: int
    shared_bus: bool
    refresh_interval: int
    precharge_all: int = -1
    refresh: int = -1
    first_refresh: int = 0

    def index(self, name: str) -> int:
        """Index of a command by name. Raises KeyError."""
        return self.by_name[name]

    @cached_property
    def by_name(self) -> dict[str, int]:
        return {command.name: index for index, command in enumerate(self.commands)}

    @cached_property
    def first_target(self) -> tuple[int, ...]:
        """For each command the number of its first target; a target is a command with its instance."""
        firsts, total = [], 0
        for command in self.commands:
            firsts.append(total)
            total += self.banks.instances(command.targets)
        return (*firsts, total)

    @cached_property
    def row_kinds(self) -> tuple[tuple[Targets, int], ...]:
        """Kinds of row sets that commands open: (targets, buffer)."""
        found = {(c.rows, c.buffer) for c in self.commands if c.role is Role.OPEN}
        return tuple(sorted(found))

    @cached_property
    def first_row_set(self) -> tuple[int, ...]:
        firsts, total = [], 0
        for targets, _ in self.row_kinds:
            firsts.append(total)
            total += self.banks.instances(targets)
        return (*firsts, total)

    def row_sets(self, command: PimCommand, instance: int) -> list[int]:
        """Numbers of the row sets that a command's rows rule is about: those of its kind that share a bank."""
        if command.role in (Role.PLAIN, Role.REFRESH):
            return []
        if command.role is Role.PRECHARGE_ALL:
            return list(range(self.first_row_set[-1]))
        kind = self.row_kinds.index((command.rows, command.buffer))
        banks = self.banks.footprint(command.targets, instance)
        return [
            self.first_row_set[kind] + other
            for other in range(self.banks.instances(command.rows))
            if banks & self.banks.footprint(command.rows, other)
        ]

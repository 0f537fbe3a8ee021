"""Reads a command log and asserts every timing constraint: it knows the rules, and nothing of any scheduler.

`RULES` is the table of docs/dram_policy.md in the same order, one line per entry; `STATE_RULES` are those that are not
a distance. A violation names the rule, both commands, and the distance found against the one needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archsim.kernels.jit import inlined, kernel
from archsim.kernels.timing import Command, DramTiming, LogField, RefreshMode, refresh_interval

Log = NDArray[np.int64]
Integer = Any  # an int or np.int64: to compiled code they are one

ACT, PRE, PREAB, RD, WR, REFAB, REFPB, REFSB, PDE, PDX = Command
ROW_COMMANDS = (ACT, PRE, PREAB, REFAB, REFPB, REFSB, PDE, PDX)
SHORT_ROW_COMMANDS = ROW_COMMANDS[1:]
PRECHARGES = (PRE, PREAB)
ANY_BUT_PDX = (ACT, PRE, PREAB, RD, WR, REFAB, REFPB, REFSB, PDE)
WHOLE_PC = (PREAB, REFAB, PDE, PDX)
MOST_OVERDUE_INTERVALS = 9  # JESD238A lets a controller postpone eight refreshes: nine intervals without one
SHARED = "shared_command_bus"
MOST_EARLY_INTERVALS = 8  # JESD79-4: eight refreshes may be issued in advance


class Scope(IntEnum):
    """Which pairs of commands a rule binds. Commands of WHOLE_PC count as commands to every bank of their
    PC, REFsb as one to its bank of every group of its stack ID."""

    CHANNEL = 0
    PSEUDO_CHANNEL = 1
    OTHER_STACK_ID = 2
    GROUP = 3  # equal stack ID and bank group
    OTHER_GROUP = 4  # the rest of the pseudo-channel
    BANK = 5
    STACK_ID = 6


@dataclass(frozen=True)
class Rule:
    """`after` starts at least `distance` (a sum of timing fields, ticks) after the `nth`-last `before` in `scope`.

    A rule with a `switch` holds where that timing field is 1."""

    name: str
    before: tuple[Command, ...]
    after: tuple[Command, ...]
    scope: Scope
    distance: tuple[str, ...]
    nth: int = 1
    switch: str = ""

    def ticks(self, timing: DramTiming) -> int:
        """The distance in ticks, 0 where the rule does not hold."""
        if self.switch and not getattr(timing, self.switch):
            return 0
        return sum(int(getattr(timing, field)) for field in self.distance)


RULES: tuple[Rule, ...] = (
    Rule("row bus after ACT", (ACT,), ROW_COMMANDS, Scope.CHANNEL, ("activate_ticks",)),
    Rule("row bus", SHORT_ROW_COMMANDS, ROW_COMMANDS, Scope.CHANNEL, ("precharge_ticks",)),
    Rule("column bus", (RD, WR), (RD, WR), Scope.CHANNEL, ("column_ticks",)),
    Rule("shared bus", (RD, WR), ROW_COMMANDS, Scope.CHANNEL, ("column_ticks",), switch=SHARED),
    Rule("shared bus after ACT", (ACT,), (RD, WR), Scope.CHANNEL, ("activate_ticks",), switch=SHARED),
    Rule("shared bus after row", SHORT_ROW_COMMANDS, (RD, WR), Scope.CHANNEL, ("precharge_ticks",), switch=SHARED),
    Rule("tCCDL read", (RD,), (RD,), Scope.GROUP, ("tCCDL",)),
    Rule("tCCDS read", (RD,), (RD,), Scope.PSEUDO_CHANNEL, ("tCCDS",)),
    Rule("tCCDR read", (RD,), (RD,), Scope.OTHER_STACK_ID, ("tCCDR",)),
    Rule("tCCDL write", (WR,), (WR,), Scope.GROUP, ("tCCDL",)),
    Rule("tCCDLW", (WR,), (WR,), Scope.GROUP, ("tCCDLW",)),
    Rule("tCCDS write", (WR,), (WR,), Scope.PSEUDO_CHANNEL, ("tCCDS",)),
    Rule("tCCDR write", (WR,), (WR,), Scope.OTHER_STACK_ID, ("tCCDR",)),
    Rule("tRTW", (RD,), (WR,), Scope.PSEUDO_CHANNEL, ("tRTW",)),
    Rule("tWTRL", (WR,), (RD,), Scope.GROUP, ("tCWL", "tBL", "tWTRL")),
    Rule("tWTRS", (WR,), (RD,), Scope.OTHER_GROUP, ("tCWL", "tBL", "tWTRS")),
    Rule("tRCDRD", (ACT,), (RD,), Scope.BANK, ("tRCDRD",)),
    Rule("tRCDWR", (ACT,), (WR,), Scope.BANK, ("tRCDWR",)),
    Rule("tRC", (ACT,), (ACT,), Scope.BANK, ("tRC",)),
    Rule("tRRDL", (ACT,), (ACT,), Scope.GROUP, ("tRRDL",)),
    Rule("tRRDS", (ACT,), (ACT,), Scope.PSEUDO_CHANNEL, ("tRRDS",)),
    Rule("tFAW", (ACT,), (ACT,), Scope.PSEUDO_CHANNEL, ("tFAW",), nth=4),
    Rule("tRAS", (ACT,), PRECHARGES, Scope.BANK, ("tRAS",)),
    Rule("tRTP", (RD,), PRECHARGES, Scope.BANK, ("tRTP",)),
    Rule("tWR", (WR,), PRECHARGES, Scope.BANK, ("tCWL", "tBL", "tWR")),
    Rule("tRP", PRECHARGES, (ACT, REFAB, REFPB, REFSB), Scope.BANK, ("tRP",)),
    Rule("tPPD", PRECHARGES, PRECHARGES, Scope.PSEUDO_CHANNEL, ("tPPD",)),
    Rule("tRC before refresh", (ACT,), (REFAB, REFPB, REFSB), Scope.BANK, ("tRC",)),
    Rule("tRRDS before refresh", (ACT,), (REFPB, REFSB), Scope.PSEUDO_CHANNEL, ("tRRDS",)),
    Rule("tRFCab", (REFAB,), (ACT, REFAB), Scope.PSEUDO_CHANNEL, ("tRFCab",)),
    Rule("tRFCpb", (REFPB,), (ACT, REFPB), Scope.BANK, ("tRFCpb",)),
    Rule("tRFCsb", (REFSB,), (ACT,), Scope.BANK, ("tRFCsb",)),
    Rule("tRFCsb before refresh", (REFSB,), (REFSB,), Scope.STACK_ID, ("tRFCsb",)),
    Rule("tRREFD", (REFPB, REFSB), (ACT, REFPB, REFSB), Scope.PSEUDO_CHANNEL, ("tRREFD",)),
    Rule("tCKE down", (PDE,), (PDX,), Scope.PSEUDO_CHANNEL, ("tCKE",)),
    Rule("tCKE up", (PDX,), (PDE,), Scope.PSEUDO_CHANNEL, ("tCKE",)),
    Rule("tXP", (PDX,), ANY_BUT_PDX, Scope.PSEUDO_CHANNEL, ("tXP",)),
    Rule("read before PDE", (RD,), (PDE,), Scope.PSEUDO_CHANNEL, ("tCL", "tBL")),
    Rule("write before PDE", (WR,), (PDE,), Scope.PSEUDO_CHANNEL, ("tCWL", "tBL", "tWR")),
)

STATE_RULES: tuple[str, ...] = (
    "order",  # ticks do not decrease
    "rising edge",  # all but PRE and PREab start on a tick divisible by ticks_per_ck
    "open row",  # RD and WR find their own row open
    "closed bank",  # ACT finds its bank closed
    "closed for refresh",  # REFab finds every bank of the PC closed, REFpb and REFsb their own
    "refresh rotation",  # REFpb and REFsb reach every bank of the PC once before any bank again
    "refresh overdue",  # no refresh later than 9 tREFI after it fell due
    "refresh early",  # no refresh more than 8 tREFI before it falls due
    "powered up",  # only PDX comes to a PC in power-down, and only there
)


@dataclass(frozen=True)
class LoggedCommand:
    """One row of a command log, by name. Fields that do not apply are -1."""

    index: int
    tick: int
    command: Command
    pseudo_channel: int
    stack_id: int
    bank_group: int
    bank: int
    row: int
    column: int

    @classmethod
    def of(cls, log: Log, index: int) -> LoggedCommand:
        """Entry `index` of the log."""
        tick, command, *place = (int(value) for value in log[index])
        return cls(index, tick, Command(command), *place)

    def __str__(self) -> str:
        place = [f"PC {self.pseudo_channel}"]
        if self.bank >= 0:
            group = f"BG {self.bank_group} " if self.bank_group >= 0 else ""
            place.append(f"SID {self.stack_id} {group}bank {self.bank}")
        if self.row >= 0:
            place.append(f"row {self.row}")
        return f"{self.command.name} at tick {self.tick} ({', '.join(place)}; entry {self.index})"


@dataclass(frozen=True)
class Violation:
    """A broken rule. `before` is None where no earlier command is involved; `found` and `needed` are ticks.

    For the rules that are not a distance, see STATE_RULES, `found` is what was there and `needed` what should be:
    the phase within a clock, the open row (-1: closed), the bank, the lateness in ticks, or 1 for powered up.
    """

    rule: str
    before: LoggedCommand | None
    after: LoggedCommand
    found: int
    needed: int

    def __str__(self) -> str:
        earlier = f" after {self.before}" if self.before is not None else ""
        return f"{self.rule}: {self.after}{earlier}: found {self.found}, needed {self.needed}"


def bound_rules(timing: DramTiming) -> Iterator[tuple[Rule, int]]:
    """Every rule of the table with its distance in ticks under `timing`."""
    for rule in RULES:
        yield rule, rule.ticks(timing)


def check_commands(timing: DramTiming, log: Log, limit: int = 1000) -> list[Violation]:
    """Every violation in a command log (columns: LogField), in the order of the log; at most `limit` of them.

    Raises ValueError if an entry is not a command of this channel (an unknown code, a bank that does not exist).
    """
    log = np.ascontiguousarray(log, np.int64)
    _assert_well_formed(timing, log)
    rules = np.array([_encode(rule, ticks) for rule, ticks in bound_rules(timing)], np.int64)
    found, n_found = _scan(timing, log, rules, limit)
    found = found[:n_found]
    names = [*(rule.name for rule in RULES), *STATE_RULES]
    violations = [
        Violation(
            rule=names[rule],
            before=LoggedCommand.of(log, before) if before >= 0 else None,
            after=LoggedCommand.of(log, after),
            found=was,
            needed=needed,
        )
        for rule, before, after, was, needed in found.tolist()
    ]
    return (violations + _overdue_at_the_end(timing, log))[:limit]


def _encode(rule: Rule, ticks: int) -> tuple[int, int, int, int, int]:
    """(commands before as bits, commands after as bits, scope, distance, nth)."""
    return (
        sum(1 << command for command in rule.before),
        sum(1 << command for command in rule.after),
        int(rule.scope),
        ticks,
        rule.nth,
    )


def _assert_well_formed(timing: DramTiming, log: Log) -> None:
    if log.ndim != 2 or log.shape[1] != len(LogField):
        raise ValueError(f"a command log has {len(LogField)} columns, got an array of shape {log.shape}")
    command = log[:, LogField.COMMAND]
    whole_pc = np.isin(command, WHOLE_PC)
    bad = (command < 0) | (command >= len(Command)) | (log[:, LogField.TICK] < 0)
    bad |= (log[:, LogField.PSEUDO_CHANNEL] < 0) | (log[:, LogField.PSEUDO_CHANNEL] >= timing.pseudo_channels)
    sizes = {
        LogField.STACK_ID: timing.stack_ids,
        LogField.BANK_GROUP: timing.bank_groups,
        LogField.BANK: timing.banks_per_group,
    }
    for field, size in sizes.items():
        has_field = ~whole_pc & ~((field == LogField.BANK_GROUP) & (command == REFSB))
        bad |= has_field & ((log[:, field] < 0) | (log[:, field] >= size))
    bad |= np.isin(command, (ACT, RD, WR)) & (log[:, LogField.ROW] < 0)
    if bad.any():
        index = int(np.argmax(bad))
        said = _misfits(log[index], {LogField.PSEUDO_CHANNEL: timing.pseudo_channels, **sizes})
        raise ValueError(f"entry {index} of the command log is not a command of this channel: {said}")


def _misfits(entry: Log, sizes: Mapping[LogField, int]) -> str:
    """What of an entry the channel does not have."""
    code = int(entry[LogField.COMMAND])
    if not 0 <= code < len(Command):
        return f"there is no command {code}"
    beyond = [
        f"{field.name.lower().replace('_', ' ')} {entry[field]} of {size}"
        for field, size in sizes.items()
        if not 0 <= entry[field] < size
    ]
    return f"{Command(code).name} at tick {entry[LogField.TICK]}, {', '.join(beyond) or f'row {entry[LogField.ROW]}'}"


# ---- the scan, compiled ----------------------------------------------------------------------------------------------

_N_COMMANDS = len(Command)
_N_RULES = len(RULES)
_ORDER, _EDGE, _OPEN_ROW, _CLOSED, _CLOSED_FOR_REFRESH, _ROTATION, _OVERDUE, _EARLY, _POWERED_UP = (
    _N_RULES + k for k in range(len(STATE_RULES))
)
_ACT, _PRE, _PREAB, _RD, _WR, _REFAB, _REFPB, _REFSB, _PDE, _PDX = (int(command) for command in Command)
_CHANNEL, _PC, _OTHER_SID, _GROUP, _OTHER_GROUP, _BANK, _STACK_ID = (int(scope) for scope in Scope)
_NO_REFRESH, _ALL_BANK, _SAME_BANK = int(RefreshMode.NONE), int(RefreshMode.ALL_BANK), int(RefreshMode.SAME_BANK)
_NINE, _EIGHT = MOST_OVERDUE_INTERVALS, MOST_EARLY_INTERVALS
_DEPTH = max(rule.nth for rule in RULES)


@inlined
def _in_scope(timing: DramTiming, scope: Integer, bank: Integer, width: Integer, other: Integer) -> bool:
    """Whether bank `other` of the same PC stands in relation `scope` to the `width` banks from `bank` on. A bank of -1
    is every bank."""
    if scope <= _PC or bank < 0:
        return True
    groups = timing.bank_groups
    stack = bank // (groups * timing.banks_per_group)
    other_stack = other // (groups * timing.banks_per_group)
    same_group = stack == other_stack and bank % groups == other % groups
    if scope == _OTHER_SID:
        return bool(stack != other_stack)
    if scope == _GROUP:
        return bool(same_group)
    if scope == _OTHER_GROUP:
        return bool(not same_group)
    if scope == _STACK_ID:
        return bool(stack == other_stack)
    return bool(bank <= other < bank + width)


@inlined
def _latest_before(
    timing: DramTiming, last: Log, recent: Log, rule: Log, pc: Integer, bank: Integer, width: Integer
) -> Integer:
    """Log index of the latest (or nth-latest) command that `rule` counts from, -1 if there is none."""
    scope, nth = rule[2], rule[4]
    latest: Integer = np.int64(-1)
    for command in range(_N_COMMANDS):
        if not rule[0] >> command & 1:
            continue
        if nth > 1:
            latest = max(latest, recent[command, pc, nth - 1])
            continue
        first_pc, last_pc = (0, timing.pseudo_channels) if scope == _CHANNEL else (pc, pc + 1)
        for p in range(first_pc, last_pc):
            for other in range(last.shape[2]):
                if last[command, p, other] > latest and _in_scope(timing, scope, bank, width, other):
                    latest = last[command, p, other]
    return latest


@inlined
def _note(found: Log, n_found: int, rule: int, before: Integer, after: Integer, was: Integer, needed: Integer) -> int:
    if n_found < found.shape[0]:
        found[n_found] = (rule, before, after, was, needed)
        return n_found + 1
    return n_found


@kernel
def _scan(timing: DramTiming, log: Log, rules: Log, limit: int) -> tuple[Log, int]:
    pcs = timing.pseudo_channels
    banks = timing.stack_ids * timing.bank_groups * timing.banks_per_group
    last = np.full((_N_COMMANDS, pcs, banks), -1, np.int64)  # log index of the last command of a kind on a bank
    recent = np.full((_N_COMMANDS, pcs, _DEPTH), -1, np.int64)  # the last few of a kind on a PC, latest first
    open_row = np.full((pcs, banks), -1, np.int64)
    rotation = np.zeros((pcs, banks), np.int64)  # how often REFpb came to each bank
    refreshes = np.zeros(pcs, np.int64)
    down = np.full(pcs, -1, np.int64)  # log index of the PDE of a PC in power-down
    interval = timing.tREFIpb
    if timing.refresh_mode == _ALL_BANK:
        interval = timing.tREFI
    elif timing.refresh_mode == _SAME_BANK:
        interval = timing.tREFIsb
    found = np.zeros((limit, 5), np.int64)
    n = 0
    for j in range(log.shape[0]):
        t, command, pc, row = log[j, 0], log[j, 1], log[j, 2], log[j, 6]
        whole_pc = command in (_PREAB, _REFAB, _PDE, _PDX)
        bank: Integer = np.int64(-1)
        width: Integer = np.int64(1)
        if not whole_pc:
            bank = (log[j, 3] * timing.banks_per_group + log[j, 5]) * timing.bank_groups
            if command == _REFSB:
                width = np.int64(timing.bank_groups)
            else:
                bank += log[j, 4]
        first, end = (0, banks) if whole_pc else (bank, bank + width)
        if j > 0 and t < log[j - 1, 0]:
            n = _note(found, n, _ORDER, j - 1, j, t - log[j - 1, 0], 0)
        if command not in (_PRE, _PREAB) and t % timing.ticks_per_ck != 0:
            n = _note(found, n, _EDGE, -1, j, t % timing.ticks_per_ck, 0)
        for k in range(rules.shape[0]):
            if not rules[k, 1] >> command & 1:
                continue
            i = _latest_before(timing, last, recent, rules[k], pc, bank, width)
            if i >= 0 and t - log[i, 0] < rules[k, 3]:
                n = _note(found, n, k, i, j, t - log[i, 0], rules[k, 3])

        if command in (_RD, _WR) and open_row[pc, bank] != row:
            n = _note(found, n, _OPEN_ROW, last[_ACT, pc, bank], j, open_row[pc, bank], row)
        if command == _ACT:
            if open_row[pc, bank] >= 0:
                n = _note(found, n, _CLOSED, last[_ACT, pc, bank], j, open_row[pc, bank], -1)
            open_row[pc, bank] = row
        if command == _PDX and down[pc] < 0:
            n = _note(found, n, _POWERED_UP, -1, j, 1, 0)
        if command != _PDX and down[pc] >= 0:
            n = _note(found, n, _POWERED_UP, down[pc], j, 0, 1)
        if command in (_PDE, _PDX):
            down[pc] = j if command == _PDE else -1
        if command in (_REFAB, _REFPB, _REFSB):
            for b in range(first, end):
                if open_row[pc, b] >= 0:
                    n = _note(found, n, _CLOSED_FOR_REFRESH, last[_ACT, pc, b], j, open_row[pc, b], -1)
            refreshes[pc] += 1
            late = t - (refreshes[pc] * interval + pc * timing.refresh_stagger)
            if timing.refresh_mode != _NO_REFRESH and late > _NINE * timing.tREFI:
                n = _note(found, n, _OVERDUE, -1, j, late, _NINE * timing.tREFI)
            if timing.refresh_mode != _NO_REFRESH and late < -_EIGHT * timing.tREFI:
                n = _note(found, n, _EARLY, -1, j, late, -_EIGHT * timing.tREFI)
        if command in (_REFPB, _REFSB):
            if timing.refresh_mode != _NO_REFRESH and rotation[pc, bank] != rotation[pc].min():
                n = _note(found, n, _ROTATION, last[command, pc, bank], j, bank, np.argmin(rotation[pc]))
            rotation[pc, first:end] += 1
        last[command, pc, first:end] = j
        if command in (_PRE, _PREAB):
            open_row[pc, first:end] = -1
        for depth in range(_DEPTH - 1, 0, -1):
            recent[command, pc, depth] = recent[command, pc, depth - 1]
        recent[command, pc, 0] = j
    return found, n


def _overdue_at_the_end(timing: DramTiming, log: Log) -> list[Violation]:
    """Refreshes that should have come before the log ended, and did not. Blames the last command."""
    if timing.refresh_mode == RefreshMode.NONE or len(log) == 0:
        return []
    refresh = {RefreshMode.ALL_BANK: REFAB, RefreshMode.PER_BANK: REFPB, RefreshMode.SAME_BANK: REFSB}
    command, interval = refresh[RefreshMode(timing.refresh_mode)], refresh_interval(timing)
    allowed = MOST_OVERDUE_INTERVALS * timing.tREFI
    violations = []
    for pc in range(timing.pseudo_channels):
        mine = (log[:, LogField.PSEUDO_CHANNEL] == pc) & (log[:, LogField.COMMAND] == command)
        done = np.flatnonzero(mine)
        late = int(log[-1, LogField.TICK]) - ((len(done) + 1) * interval + pc * timing.refresh_stagger)
        if late > allowed:
            before = LoggedCommand.of(log, int(done[-1])) if len(done) else None
            violations.append(Violation("refresh overdue", before, LoggedCommand.of(log, len(log) - 1), late, allowed))
    return violations

"""Reads a PIM command log and says which rules it breaks: distances, command buses, windows, rows, refresh.

It knows the rules and nothing of how programs issue. Every pair is looked up with sorted arrays, rule by rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archsim.kernels.pim_rules import WINDOW, Distance, PimRules, Role, Scope

Log = NDArray[np.int64]
"""(tick, target, lane) of each command in order."""

MOST_LATE = 1
"""Refresh intervals by which a refresh may come late: what is open is closed first, nothing else is let in."""


@dataclass(frozen=True)
class PimViolation:
    """A rule that the command number `index` of a log breaks."""

    rule: str
    index: int
    tick: int
    message: str

    def __str__(self) -> str:
        return f"command {self.index} at tick {self.tick}: {self.rule}: {self.message}"


def check_pim(rules: PimRules, log: Log, most: int = 100) -> list[PimViolation]:
    """The first `most` violations, in order of the log."""
    commands, instances = _split(rules, log[:, 1])
    found = [
        *_order(log),
        *_distances(rules, log[:, 0], commands, instances),
        *_buses(rules, log[:, 0], commands),
        *_windows(rules, log[:, 0], commands, instances),
        *_rows(rules, log, commands, instances),
        *_refresh(rules, log[:, 0], commands),
    ]
    return sorted(found, key=lambda violation: violation.index)[:most]


def _split(rules: PimRules, targets: Log) -> tuple[Log, Log]:
    """Command and instance of each target."""
    firsts = np.array(rules.first_target, np.int64)
    commands = np.asarray(np.searchsorted(firsts, targets, side="right") - 1, np.int64)
    return commands, targets - firsts[commands]


def _order(log: Log) -> Iterator[PimViolation]:
    for index in np.flatnonzero(np.diff(log[:, 0]) < 0) + 1:
        yield PimViolation("order", int(index), int(log[index, 0]), "comes before the command above it")


def _distances(rules: PimRules, ticks: Log, commands: Log, instances: Log) -> Iterator[PimViolation]:
    for rule in rules.distances:
        touched = {
            command: [
                rules.banks.units(rule.scope, rules.banks.footprint(rules.commands[command].targets, instance))
                for instance in range(rules.banks.instances(rules.commands[command].targets))
            ]
            for command in {rule.before, rule.after}
        }
        for unit in sorted(set().union(*touched[rule.before]) & set().union(*touched[rule.after])):
            before = _events(commands, instances, rule.before, touched[rule.before], unit)
            after = _events(commands, instances, rule.after, touched[rule.after], unit)
            yield from _too_close(rules, rule, ticks, before, after)


def _events(commands: Log, instances: Log, command: int, touched: list[frozenset[int]], unit: int) -> Log:
    """Indices of a command's occurrences that touch a unit."""
    touches = np.array([unit in part for part in touched])
    at = np.flatnonzero(commands == command)
    return np.asarray(at[touches[instances[at]]], np.int64)


def _too_close(rules: PimRules, rule: Distance, ticks: Log, before: Log, after: Log) -> Iterator[PimViolation]:
    previous = np.searchsorted(before, after, side="left") - 1
    has = previous >= 0
    gaps = ticks[after[has]] - ticks[before[previous[has]]]
    for index in after[has][gaps < rule.ticks]:
        names = f"{rules.commands[rule.before].name} to {rules.commands[rule.after].name}"
        yield PimViolation(names, int(index), int(ticks[index]), f"less than {rule.ticks} ticks in a {rule.scope.name}")


def _buses(rules: PimRules, ticks: Log, commands: Log) -> Iterator[PimViolation]:
    slots = np.array([command.slot_ticks for command in rules.commands])
    buses = np.array([0 if rules.shared_bus else int(command.bus) for command in rules.commands])
    for bus in (0, 1):
        at = np.flatnonzero(buses[commands] == bus)
        short = np.diff(ticks[at]) < slots[commands[at[:-1]]]
        for index in at[1:][short]:
            yield PimViolation("bus", int(index), int(ticks[index]), "the command before it still holds the bus")


def _windows(rules: PimRules, ticks: Log, commands: Log, instances: Log) -> Iterator[PimViolation]:
    weights = np.array([command.activations for command in rules.commands])
    for rank in range(rules.banks.ranks):
        activations: list[tuple[int, int]] = []
        for index in np.flatnonzero(weights[commands] > 0).tolist():
            command = rules.commands[commands[index]]
            footprint = rules.banks.footprint(command.targets, int(instances[index]))
            if rank in rules.banks.units(Scope.RANK, footprint):
                activations += [(int(ticks[index]), index)] * command.activations
        for (first, _), (last, at) in zip(activations, activations[WINDOW:], strict=False):
            if last - first < rules.faw_ticks:
                yield PimViolation("tFAW", at, last, f"a fifth activation within {rules.faw_ticks} ticks")


def _rows(rules: PimRules, log: Log, commands: Log, instances: Log) -> Iterator[PimViolation]:
    """Each bank and row buffer by itself: opened once, used while open, closed while open."""
    open_rows: set[tuple[int, int]] = set()
    for index, (tick, _, _) in enumerate(log.tolist()):
        command = rules.commands[commands[index]]
        rows = {
            (bank, command.buffer)
            for row_set in rules.row_sets(command, int(instances[index]))
            if command.role is not Role.PRECHARGE_ALL
            for bank in _banks_of(rules, row_set)
        }
        if command.role is Role.OPEN:
            if rows & open_rows:
                yield PimViolation("rows", index, tick, f"{command.name} opens rows of banks that have rows open")
            open_rows |= rows
        elif command.role in (Role.USE, Role.CLOSE):
            if not rows <= open_rows:
                yield PimViolation("rows", index, tick, f"{command.name} finds its rows closed")
            if command.role is Role.CLOSE:
                open_rows -= rows
        elif command.role is Role.PRECHARGE_ALL:
            open_rows.clear()
        elif command.role is Role.REFRESH and open_rows:
            yield PimViolation("rows", index, tick, "refresh finds rows open")


def _banks_of(rules: PimRules, row_set: int) -> frozenset[int]:
    kind = max(k for k, first in enumerate(rules.first_row_set[:-1]) if first <= row_set)
    return rules.banks.footprint(rules.row_kinds[kind][0], row_set - rules.first_row_set[kind])


def _refresh(rules: PimRules, ticks: Log, commands: Log) -> Iterator[PimViolation]:
    interval = rules.refresh_interval
    if not interval or not len(ticks):
        return
    at = np.flatnonzero(commands == rules.refresh)
    for number, index in enumerate(at):
        tick, due = int(ticks[index]), rules.first_refresh + number * interval
        if not due <= tick <= due + MOST_LATE * interval:
            yield PimViolation("refresh", int(index), tick, f"number {number + 1} is due at {due}")
    end = int(ticks[-1])
    if end > (len(at) + 1 + MOST_LATE) * interval:
        yield PimViolation("refresh", len(ticks) - 1, end, f"{len(at)} refreshes in {end // interval} intervals")

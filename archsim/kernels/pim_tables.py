"""The rules of a PIM channel compiled to one flat int64 table, and the layout of the kernel's state.

Whatever binds two commands (scopes, kinds of targets) is resolved here: for each target, a command with its instance,
the table lists which earliest ticks its issue moves and by how much. So the kernel needs one maximum per entry, and
the legality of a command is two loads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from archsim.kernels.pim_program import PimProgram
from archsim.kernels.pim_rules import MAX_COMMANDS, MAX_LANES, MAX_LOOP_DEPTH, WINDOW, Bus, PimRules, Scope

# Registers of the state.
NOW = 0
BUS_FREE = 1  # row bus, column bus
DUE = 3  # next refresh
PHASE = 4  # of refresh: 0 none, 1 closing, 2 refreshing, 3 opening again
FINISH = 5  # when all that has been issued is complete
REFRESH_STALL = 6  # ticks from due to the end of refresh
LOG_LENGTH = 7
STALLED = 8  # 1 if no lane can ever go on
DONE = 9  # 1 if all lanes have ended
FENCES = 10
SKIPPED = 11  # ticks that fast-forward jumped over, for reports
CHECKPOINT = 12
REGISTERS = 16

COUNTS = REGISTERS  # by command
LANES = COUNTS + MAX_COMMANDS

# A lane.
PC = 0
REPEAT = 1  # repetitions of the current run that have been issued
READY = 2  # not before this tick
DEPTH = 3
LOOPS = 4  # rounds left, by depth
LANE_WORDS = LOOPS + MAX_LOOP_DEPTH

EARLIEST = LANES + MAX_LANES * LANE_WORDS  # by command (channel-wide distances), then by target

# Values of a row set; above zero: uses left.
USED_UP = 0
CLOSED = -1
CLOSED_BY_REFRESH = -2  # with no uses left: its CLOSE has nothing to do
SAVED = 3  # -(uses + SAVED): closed by refresh, to be opened again

NEVER = np.int64(1) << 60


class PimShape(NamedTuple):
    """Sizes, and offsets into the state and the table."""

    lanes: int
    commands: int
    row_sets: int
    ranks: int
    refresh_interval: int
    first_refresh: int
    refresh_busy: int  # ticks from REFRESH to the first OPEN
    faw: int
    buses: int
    precharge_all: int  # target
    refresh: int  # target
    # state
    rows: int
    opener: int
    open_count: int
    window: int
    state_words: int
    # table
    effect_start: int
    row_start: int
    command_of: int
    rank_first: int
    rank_after: int
    role: int
    bus: int
    slot: int
    activations: int
    latency: int
    buffer_of: int
    kind_of: int
    kind_count: int
    effect_index: int
    effect_ticks: int
    row_index: int


@dataclass(frozen=True)
class PimTables:
    """What the kernel runs on."""

    shape: PimShape
    table: NDArray[np.int64]


def compile_rules(rules: PimRules, lanes: int) -> PimTables:
    """The table for programs of `lanes` lanes. Raises ValueError if there are too many commands."""
    if not 1 <= len(rules.commands) <= MAX_COMMANDS:
        raise ValueError(f"{len(rules.commands)} commands; the PIM kernel takes 1 to {MAX_COMMANDS}")
    targets = [
        (index, instance)
        for index, command in enumerate(rules.commands)
        for instance in range(rules.banks.instances(command.targets))
    ]
    effects = [_effects(rules, command, instance) for command, instance in targets]
    rows = [rules.row_sets(rules.commands[command], instance) for command, instance in targets]
    ranks = [_ranks(rules, command, instance) for command, instance in targets]
    kinds = [kind for kind, (of, _) in enumerate(rules.row_kinds) for _ in range(rules.banks.instances(of))]
    parts: list[tuple[str, list[int]]] = [
        ("effect_start", _starts(effects)),
        ("row_start", _starts(rows)),
        ("command_of", [command for command, _ in targets]),
        ("rank_first", [first for first, _ in ranks]),
        ("rank_after", [after for _, after in ranks]),
        ("role", [int(command.role) for command in rules.commands]),
        ("bus", [int(Bus.ROW if rules.shared_bus else command.bus) for command in rules.commands]),
        ("slot", [command.slot_ticks for command in rules.commands]),
        ("activations", [command.activations for command in rules.commands]),
        ("latency", [command.latency_ticks for command in rules.commands]),
        ("buffer_of", [buffer for _, buffer in rules.row_kinds]),
        ("kind_of", kinds),
        ("effect_index", [index for part in effects for index, _ in part]),
        ("effect_ticks", [ticks for part in effects for _, ticks in part]),
        ("row_index", [row for part in rows for row in part]),
    ]
    offsets: dict[str, int] = {}
    words: list[int] = []
    for name, values in parts:
        offsets[name] = len(words)
        words += values
    row_sets = rules.first_row_set[-1]
    row_begin = EARLIEST + len(rules.commands) + len(targets)
    shape = PimShape(
        lanes=lanes,
        commands=len(rules.commands),
        row_sets=row_sets,
        ranks=rules.banks.ranks,
        refresh_interval=rules.refresh_interval,
        first_refresh=rules.first_refresh,
        refresh_busy=_refresh_busy(rules),
        faw=rules.faw_ticks,
        buses=1 if rules.shared_bus else 2,
        precharge_all=rules.first_target[rules.precharge_all] if rules.refresh_interval else -1,
        refresh=rules.first_target[rules.refresh] if rules.refresh_interval else -1,
        rows=row_begin,
        opener=row_begin + row_sets,
        open_count=row_begin + 2 * row_sets,
        window=row_begin + 2 * row_sets + len(rules.row_kinds),
        state_words=row_begin + 2 * row_sets + len(rules.row_kinds) + WINDOW * rules.banks.ranks,
        kind_count=len(rules.row_kinds),
        **offsets,
    )
    return PimTables(shape, np.array(words, np.int64))


def new_state(shape: PimShape, program: PimProgram) -> NDArray[np.int64]:
    """A channel at tick 0 with all rows closed, its lanes at the beginning of a program."""
    state = np.zeros(shape.state_words, np.int64)
    state[EARLIEST : shape.rows] = 0
    state[shape.rows : shape.opener] = CLOSED
    state[shape.window :] = -(np.int64(1) << 40)
    state[DUE] = shape.first_refresh if shape.refresh_interval else NEVER
    for lane, start in enumerate(program.lane_starts):
        state[LANES + lane * LANE_WORDS + PC] = start
    return state


def _effects(rules: PimRules, before: int, instance: int) -> list[tuple[int, int]]:
    """(entry of EARLIEST, ticks) that an issue moves: the largest distance for each entry, in order of entries."""
    banks = rules.banks
    own = banks.footprint(rules.commands[before].targets, instance)
    found: dict[int, int] = {}
    for distance in rules.distances:
        if distance.before != before:
            continue
        after = rules.commands[distance.after]
        if distance.scope is Scope.CHANNEL:
            entries = [distance.after]
        else:
            touched = banks.units(distance.scope, own)
            entries = [
                len(rules.commands) + rules.first_target[distance.after] + other
                for other in range(banks.instances(after.targets))
                if touched & banks.units(distance.scope, banks.footprint(after.targets, other))
            ]
        for entry in entries:
            found[entry] = max(found.get(entry, 0), distance.ticks)
    return sorted(found.items())


def _ranks(rules: PimRules, command: int, instance: int) -> tuple[int, int]:
    touched = rules.banks.units(Scope.RANK, rules.banks.footprint(rules.commands[command].targets, instance))
    return min(touched), max(touched) + 1


def _starts(parts: list[list[tuple[int, int]]] | list[list[int]]) -> list[int]:
    return [0, *np.cumsum([len(part) for part in parts]).tolist()]


def _refresh_busy(rules: PimRules) -> int:
    return max((d.ticks for d in rules.distances if d.before == rules.refresh), default=0)

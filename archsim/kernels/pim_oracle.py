"""The oracle of the PIM kernel: docs/pim_policy.md tick by tick, from the rules as they are written.

It shares nothing with the kernel but the rules: programs are unrolled, the past is kept as the last tick of every
command on every target, distances are looked up by geometry, and every tick is visited.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from archsim.kernels.pim_program import COUNT, FIRST, MODULUS, OP, STRIDE, TARGET, USES, Op, PimProgram
from archsim.kernels.pim_rules import WINDOW, Bus, PimRules, Role, Scope


@dataclass(frozen=True)
class Step:
    """One command, wait or fence of an unrolled lane."""

    op: Op
    command: int = 0
    instance: int = 0
    uses: int = 0
    ticks: int = 0
    lanes: int = 0


@dataclass
class OracleLane:
    """An unrolled lane, where it stands, and from when on it may issue."""

    steps: list[Step]
    at: int = 0
    ready: int = 0

    @property
    def step(self) -> Step | None:
        return self.steps[self.at] if self.at < len(self.steps) else None


@dataclass
class OpenRows:
    """Rows that a command opened: uses left, and whether refresh has closed them meanwhile."""

    uses: int
    opener: tuple[int, int]
    closed: bool = False


@dataclass
class PimOracle:
    """One channel. `log` has (tick, command, instance, lane); `finish` is when everything issued is complete."""

    rules: PimRules
    program: PimProgram
    lanes: list[OracleLane] = field(init=False)
    log: list[tuple[int, int, int, int]] = field(default_factory=list)
    rows: dict[int, OpenRows] = field(default_factory=dict)
    finish: int = 0
    refresh_stall: int = 0
    stalled: bool = False
    _last: dict[tuple[int, int], int] = field(default_factory=dict)
    _activations: dict[int, list[int]] = field(default_factory=dict)
    _bus_free: dict[Bus, int] = field(default_factory=dict)
    _phase: str = "running"
    _due: int = 0

    def __post_init__(self) -> None:
        self.lanes = [OracleLane(list(unroll(self.rules, self.program, lane))) for lane in range(self.program.lanes)]
        self._due = self.rules.first_refresh

    def run(self, most_ticks: int = 1_000_000) -> int:
        """Run to the end of all lanes; the tick of the last command. Raises RuntimeError if it takes longer."""
        tick = 0
        while not self._settled_end():
            if self._phase == "running" and self._stuck():
                self.stalled = True
                return tick
            if not self._something_at(tick):
                tick += 1
            if tick > most_ticks:
                raise RuntimeError(f"the program does not end within {most_ticks} ticks")
        return self.log[-1][0] if self.log else 0

    # ---- one tick ----------------------------------------------------------------------------------------------------

    def _something_at(self, tick: int) -> bool:
        """Do the first thing that can be done at this tick; False if there is none."""
        if self._phase == "reopening" and not self._saved():
            self._phase = "running"
        if self._phase == "running" and self.rules.refresh_interval and tick >= self._due:
            self._phase = "closing" if any(not row.closed for row in self.rows.values()) else "refreshing"
            return True
        if self._phase != "running" and self._refresh_at(tick):
            return True
        if self._phase in ("running", "reopening"):
            return any(self._issue_from(number, lane, tick) for number, lane in enumerate(self.lanes))
        return False

    def _refresh_at(self, tick: int) -> bool:
        rules = self.rules
        if self._phase == "closing":
            if not self._legal(rules.precharge_all, 0, tick):
                return False
            self._issue(rules.precharge_all, 0, tick, -1)
            for row in self.rows.values():
                row.closed = True
            self._phase = "refreshing"
        elif self._phase == "refreshing":
            if not self._legal(rules.refresh, 0, tick):
                return False
            self._issue(rules.refresh, 0, tick, -1)
            busy = max((d.ticks for d in rules.distances if d.before == rules.refresh), default=0)
            self.refresh_stall += tick - self._due + busy
            self._due += rules.refresh_interval
            self._phase = "reopening"
        else:
            command, instance = self.rows[min(self._saved())].opener
            if not self._legal(command, instance, tick):
                return False
            self._issue(command, instance, tick, -1)
            for row_set in rules.row_sets(rules.commands[command], instance):
                self.rows[row_set].closed = False
        return True

    def _saved(self) -> list[int]:
        return [row_set for row_set, row in self.rows.items() if row.closed and row.uses > 0]

    def _issue_from(self, number: int, lane: OracleLane, tick: int) -> bool:
        step = lane.step
        if step is None or step.op is not Op.ISSUE or tick < lane.ready or not self._rows_allow(step):
            return False
        if not self._legal(step.command, step.instance, tick):
            return False
        self._issue(step.command, step.instance, tick, number)
        self._change_rows(step)
        lane.ready = tick
        lane.at += 1
        return True

    # ---- lanes -------------------------------------------------------------------------------------------------------

    def _settled_end(self) -> bool:
        """Do what takes no command; whether all lanes have ended."""
        moved = True
        while moved:
            moved = any([self._settle(lane) for lane in self.lanes]) or self._pass_fence()
        return all(lane.step is None for lane in self.lanes)

    def _settle(self, lane: OracleLane) -> bool:
        step = lane.step
        if step is None:
            return False
        if step.op is Op.WAIT:
            lane.ready += step.ticks
            lane.at += 1
            return True
        if step.op is Op.ISSUE and self.rules.commands[step.command].role is Role.CLOSE:
            sets = self._sets(step)
            if all(
                row_set in self.rows and self.rows[row_set].closed and not self.rows[row_set].uses for row_set in sets
            ):
                for row_set in sets:
                    del self.rows[row_set]
                lane.at += 1
                return True
        return False

    def _pass_fence(self) -> bool:
        for lane in self.lanes:
            if lane.step is None or lane.step.op is not Op.FENCE:
                continue
            members = [other for n, other in enumerate(self.lanes) if lane.step.lanes >> n & 1]
            waiting = [other for other in members if other.step is not None]
            if all(other.step is not None and other.step.op is Op.FENCE for other in waiting):
                after = max(other.ready + other.step.ticks for other in waiting if other.step is not None)
                for other in waiting:
                    other.ready, other.at = after, other.at + 1
                return True
        return False

    def _stuck(self) -> bool:
        return not any(
            lane.step is not None and lane.step.op is Op.ISSUE and self._rows_allow(lane.step) for lane in self.lanes
        )

    # ---- rows --------------------------------------------------------------------------------------------------------

    def _sets(self, step: Step) -> list[int]:
        return self.rules.row_sets(self.rules.commands[step.command], step.instance)

    def _rows_allow(self, step: Step) -> bool:
        command, sets = self.rules.commands[step.command], self._sets(step)
        if command.role is Role.OPEN:
            return not any(self._conflicts(row_set, command.rows, command.buffer) for row_set in self.rows) and not any(
                row_set in self.rows for row_set in sets
            )
        if command.role is Role.USE:
            return all(
                row_set in self.rows and self.rows[row_set].uses > 0 and not self.rows[row_set].closed
                for row_set in sets
            )
        if command.role is Role.CLOSE:
            return all(row_set in self.rows and self.rows[row_set].uses == 0 for row_set in sets)
        return True

    def _conflicts(self, row_set: int, targets: int, buffer: int) -> bool:
        """Whether an open row set is of another kind in the same row buffer."""
        kind = max(k for k, first in enumerate(self.rules.first_row_set[:-1]) if first <= row_set)
        other_targets, other_buffer = self.rules.row_kinds[kind]
        return other_buffer == buffer and other_targets != targets

    def _change_rows(self, step: Step) -> None:
        role = self.rules.commands[step.command].role
        for row_set in self._sets(step):
            if role is Role.OPEN:
                self.rows[row_set] = OpenRows(step.uses, (step.command, step.instance))
            elif role is Role.USE:
                self.rows[row_set].uses -= 1
            elif role is Role.CLOSE:
                del self.rows[row_set]

    # ---- distances ---------------------------------------------------------------------------------------------------

    def _legal(self, command: int, instance: int, tick: int) -> bool:
        rules, banks = self.rules, self.rules.banks
        what = rules.commands[command]
        own = banks.footprint(what.targets, instance)
        if tick < self._bus_free.get(self._bus(command), 0):
            return False
        for distance in rules.distances:
            if distance.after != command:
                continue
            for (before, other), last in self._last.items():
                if before != distance.before or tick >= last + distance.ticks:
                    continue
                theirs = banks.footprint(rules.commands[before].targets, other)
                if banks.units(distance.scope, own) & banks.units(distance.scope, theirs):
                    return False
        if what.activations:
            for rank in banks.units(Scope.RANK, own):
                recent = [at for at in self._activations.get(rank, []) if at > tick - rules.faw_ticks]
                if len(recent) + what.activations > WINDOW:
                    return False
        return True

    def _bus(self, command: int) -> Bus:
        return Bus.ROW if self.rules.shared_bus else self.rules.commands[command].bus

    def _issue(self, command: int, instance: int, tick: int, lane: int) -> None:
        what = self.rules.commands[command]
        self._last[command, instance] = tick
        self._bus_free[self._bus(command)] = tick + what.slot_ticks
        for rank in self.rules.banks.units(Scope.RANK, self.rules.banks.footprint(what.targets, instance)):
            self._activations.setdefault(rank, []).extend([tick] * what.activations)
        self.finish = max(self.finish, tick + what.latency_ticks)
        self.log.append((tick, command, instance, lane))


def unroll(rules: PimRules, program: PimProgram, lane: int) -> Iterator[Step]:
    """All steps of a lane, loops written out."""
    yield from _steps(rules, program, program.lane_starts[lane])[0]


def _steps(rules: PimRules, program: PimProgram, at: int) -> tuple[list[Step], int]:
    """The steps from an instruction to the end of its loop or lane, and the instruction after."""
    steps: list[Step] = []
    while True:
        word = [int(value) for value in program.code[at]]
        op = Op(word[OP])
        if op is Op.LOOP:
            body, at = _steps(rules, program, at + 1)
            steps += body * word[COUNT]
            continue
        if op in (Op.END_LOOP, Op.END):
            return steps, at + 1
        if op is Op.ISSUE:
            command = rules.first_target.index(word[TARGET])
            steps += [
                Step(op, command, (word[FIRST] + k * word[STRIDE]) % word[MODULUS], word[USES])
                for k in range(word[COUNT])
            ]
        else:
            steps.append(Step(op, ticks=word[COUNT], lanes=word[TARGET]))
        at += 1

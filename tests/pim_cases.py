"""Random PIM channels and programs for the exactness tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archsim.kernels.pim import advance_pim
from archsim.kernels.pim_oracle import PimOracle
from archsim.kernels.pim_program import Lane, PimProgram, assemble
from archsim.kernels.pim_repeat import new_history
from archsim.kernels.pim_rules import Banks, Bus, Distance, PimCommand, PimRules, Role, Scope, Targets
from archsim.kernels.pim_tables import (
    COUNTS,
    DONE,
    FINISH,
    LOG_LENGTH,
    NOW,
    REFRESH_STALL,
    SKIPPED,
    STALLED,
    compile_rules,
    new_state,
)

HORIZON = 1 << 40


@dataclass(frozen=True)
class Outcome:
    """What a run gives; `log` is empty where none was asked for."""

    log: list[tuple[int, int, int, int]]
    counts: list[int]
    finish: int
    now: int
    refresh_stall: int
    done: bool
    stalled: bool
    skipped: int


def random_rules(random: np.random.Generator, refresh: bool) -> PimRules:
    """Any geometry, any of the kinds of targets, distances drawn at random."""
    banks = Banks(int(random.integers(1, 3)), int(random.integers(1, 4)), int(random.integers(1, 5)), 1)
    kind = Targets(int(random.choice([Targets.ALL, Targets.SAME_BANK, Targets.BANK_GROUP, Targets.BANK])))
    wide = bool(random.integers(0, 2)) and kind is Targets.BANK_GROUP
    mac = Targets.ALL if wide else kind
    weight = int(random.integers(0, 5))
    commands = (
        PimCommand("ACT", Role.OPEN, kind, kind, Bus.ROW, slot_ticks=int(random.integers(1, 3)), activations=weight),
        PimCommand("MAC", Role.USE, mac, kind, Bus.COLUMN, latency_ticks=int(random.integers(1, 20))),
        PimCommand("PRE", Role.CLOSE, mac, kind, Bus.ROW),
        PimCommand("MOVE", Role.PLAIN, Targets.BANK_GROUP, kind, Bus.COLUMN),
        PimCommand("NACT", Role.OPEN, Targets.BANK, Targets.BANK, Bus.ROW, buffer=1, activations=1),
        PimCommand("NRD", Role.USE, Targets.BANK, Targets.BANK, Bus.COLUMN, buffer=1, latency_ticks=12),
        PimCommand("NPRE", Role.CLOSE, Targets.BANK, Targets.BANK, Bus.ROW, buffer=1),
        PimCommand("PREA", Role.PRECHARGE_ALL, Targets.ALL, kind, Bus.ROW),
        PimCommand("REF", Role.REFRESH, Targets.ALL, kind, Bus.ROW),
    )
    act, mac_, pre, move, nact, nrd, npre, prea, ref = range(len(commands))

    def between(before: int, after: int, scope: Scope, low: int, high: int) -> Distance:
        return Distance(before, after, scope, int(random.integers(low, high)))

    rcd, ras, rp, rtp = (int(random.integers(2, 20)) for _ in range(4))
    distances = [
        Distance(act, mac_, Scope.BANK, rcd),
        Distance(act, pre, Scope.BANK, ras),
        Distance(pre, act, Scope.BANK, rp),
        Distance(mac_, pre, Scope.BANK, rtp),
        Distance(nact, nrd, Scope.BANK, rcd),
        Distance(nact, npre, Scope.BANK, ras),
        Distance(npre, nact, Scope.BANK, rp),
        Distance(nrd, npre, Scope.BANK, rtp),
        between(mac_, mac_, Scope.CHANNEL, 1, 8),
        between(move, move, Scope(int(random.integers(0, 4))), 1, 9),
        between(move, mac_, Scope(int(random.integers(0, 4))), 1, 9),
        between(nact, act, Scope(int(random.integers(0, 4))), 1, 9),
        between(act, nact, Scope(int(random.integers(0, 4))), 1, 9),
        between(nrd, nrd, Scope.RANK, 1, 5),
        between(nrd, mac_, Scope.BANK_GROUP, 1, 5),
        *(Distance(before, prea, Scope.CHANNEL, int(random.integers(1, 20))) for before in (act, mac_, nact, nrd)),
        *(Distance(before, ref, Scope.CHANNEL, rp) for before in (pre, npre, prea)),
        *(Distance(prea, after, Scope.CHANNEL, rp) for after in (act, nact)),
        *(Distance(ref, after, Scope.CHANNEL, 40) for after in (act, nact)),
    ]  # fmt: skip
    # Long enough to close and to open all rows again: else nothing but refresh would go on.
    interval = int(random.integers(120, 400)) + 50 * banks.total if refresh else 0
    return PimRules(
        banks=banks,
        commands=commands,
        distances=tuple(distances),
        faw_ticks=int(random.integers(1, 40)),
        shared_bus=bool(random.integers(0, 2)),
        refresh_interval=interval,
        first_refresh=int(random.integers(1, interval + 1)) if refresh else 0,
        precharge_all=prea,
        refresh=ref,
    )


def random_program(random: np.random.Generator, rules: PimRules, rounds: int) -> PimProgram:
    """A row lane with a MAC lane or both in one, a lane of moves with fences, a lane of normal reads."""
    acts = rules.banks.instances(rules.commands[rules.index("ACT")].targets)
    macs = rules.banks.instances(rules.commands[rules.index("MAC")].targets)
    wide = macs < acts
    together = bool(random.integers(0, 2))
    rows, work, moves, normal = Lane(rules), Lane(rules), Lane(rules), Lane(rules)
    if together:
        rows = work
    uses = int(random.integers(1, 9))
    fenced = bool(random.integers(0, 2))
    mask = 0b11 if together else 0b110
    step = int(random.integers(1, acts + 1))
    first = int(random.integers(0, acts))
    wait = int(random.integers(0, 30))

    def opened_rows() -> None:
        if wide:
            rows.issue("ACT", acts, 0, 1, uses)
        else:
            rows.issue("ACT", 1, first, 0, uses)
            if acts > 1:
                rows.issue("ACT", 1, (first + 1) % acts, 0, uses)

    def used_rows() -> None:
        if wide:
            work.issue("MAC", uses)
        else:
            for k in range(min(acts, 2)):
                work.issue("MAC", uses, (first + k) % acts)
                if k == 0:
                    work.wait(wait)

    def closed_rows() -> None:
        if wide:
            rows.issue("PRE", 1)
        else:
            rows.issue("PRE", min(acts, 2), first, 1)

    if together:
        with work.loop(rounds):
            opened_rows()
            used_rows()
            if fenced:
                work.fence(mask, int(random.integers(0, 9)))
            closed_rows()
    else:
        with rows.loop(rounds):
            opened_rows()
            closed_rows()
        with work.loop(rounds):
            used_rows()
            if fenced:
                work.fence(mask)
    groups = rules.banks.groups
    with moves.loop(rounds):
        with moves.loop(int(random.integers(1, 4))):
            moves.issue("MOVE", int(random.integers(1, 5)), int(random.integers(0, groups)), step % groups)
        if fenced:
            moves.fence(mask, int(random.integers(0, 9)))
    reads = int(random.integers(1, 5))
    bank = int(random.integers(0, rules.banks.total))
    with normal.loop(int(random.integers(1, 2 * rounds + 1))):
        normal.issue("NACT", 1, bank, 0, reads)
        normal.issue("NRD", reads, bank)
        normal.issue("NPRE", 1, bank)
    lanes = [work, moves] if together else [rows, work, moves]
    return assemble([*lanes, normal] if random.integers(0, 2) else lanes)


def run_kernel(
    rules: PimRules, program: PimProgram, *, log: bool = False, repeat: bool = False, cuts: tuple[int, ...] = ()
) -> Outcome:
    """The kernel on a program, in pieces if there are cuts."""
    tables = compile_rules(rules, program.lanes)
    state = new_state(tables.shape, program)
    history = new_history(tables.shape) if repeat else np.zeros(0, np.int64)
    rows = np.zeros((200_000 if log else 0, 3), np.int64)
    for until in (*cuts, HORIZON):
        advance_pim(state, tables.shape, tables.table, program.code, history, rows, until)
    entries = []
    targets = [
        (index, instance)
        for index, command in enumerate(rules.commands)
        for instance in range(rules.banks.instances(command.targets))
    ]
    for tick, target, lane in rows[: state[LOG_LENGTH]].tolist():
        entries.append((tick, *targets[target], lane))
    return Outcome(
        log=entries,
        counts=state[COUNTS : COUNTS + len(rules.commands)].tolist(),
        finish=int(state[FINISH]),
        now=int(state[NOW]),
        refresh_stall=int(state[REFRESH_STALL]),
        done=bool(state[DONE]),
        stalled=bool(state[STALLED]),
        skipped=int(state[SKIPPED]),
    )


def run_oracle(rules: PimRules, program: PimProgram) -> PimOracle:
    """The oracle on a program."""
    oracle = PimOracle(rules, program)
    oracle.run()
    return oracle

"""The PIM kernel does what its oracle does, skipping repeats changes nothing, and the checker sees what is wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pim_cases import Outcome, random_program, random_rules, run_kernel, run_oracle
from plain_python import run_plain_python

from archsim.kernels.pim_program import LONGEST_WAIT, Lane, assemble
from archsim.kernels.pim_rules import Distance, PimRules, Role, Scope
from archsim.memory.pim_checker import check_pim

SEEDS = st.integers(0, 2**32 - 1)


def without_log(outcome: Outcome) -> Outcome:
    return dataclasses.replace(outcome, log=[], skipped=0)


def targets_of(rules: PimRules, outcome: Outcome) -> np.ndarray:
    """A log as the checker reads it."""
    rows = [(tick, rules.first_target[command] + instance, lane) for tick, command, instance, lane in outcome.log]
    return np.array(rows, np.int64).reshape(-1, 3)


@settings(max_examples=240)
@given(SEEDS, st.booleans(), st.integers(1, 25))
def test_kernel_equals_oracle(seed: int, refresh: bool, rounds: int) -> None:
    random = np.random.default_rng(seed)
    rules = random_rules(random, refresh)
    program = random_program(random, rules, rounds)
    kernel, oracle = run_kernel(rules, program, log=True), run_oracle(rules, program)
    assert kernel.log == oracle.log
    assert kernel.finish == oracle.finish
    assert kernel.refresh_stall == oracle.refresh_stall
    assert kernel.stalled == oracle.stalled
    assert kernel.done != kernel.stalled


@settings(max_examples=100)
@given(SEEDS, st.booleans(), st.integers(100, 2000), st.lists(st.integers(1, 50_000), max_size=5))
def test_skipping_repeats_changes_nothing(seed: int, refresh: bool, rounds: int, cuts: list[int]) -> None:
    random = np.random.default_rng(seed)
    rules = random_rules(random, refresh)
    program = random_program(random, rules, rounds)
    plain = without_log(run_kernel(rules, program))
    assert without_log(run_kernel(rules, program, repeat=True)) == plain
    assert without_log(run_kernel(rules, program, repeat=True, cuts=tuple(sorted(cuts)))) == plain


def test_long_loops_are_mostly_skipped() -> None:
    random = np.random.default_rng(5)
    rules = random_rules(random, True)
    outcome = run_kernel(rules, random_program(random, rules, 100_000), repeat=True)
    assert outcome.skipped > 0.95 * outcome.now


@settings(max_examples=60)
@given(SEEDS, st.lists(st.integers(1, 3000), min_size=1, max_size=30))
def test_a_run_in_pieces_is_the_same_run(seed: int, cuts: list[int]) -> None:
    random = np.random.default_rng(seed)
    rules = random_rules(random, seed % 2 == 0)
    program = random_program(random, rules, 20)
    assert run_kernel(rules, program, log=True, cuts=tuple(sorted(cuts))) == run_kernel(rules, program, log=True)


@settings(max_examples=80)
@given(SEEDS, st.booleans())
def test_checker_finds_no_violation(seed: int, refresh: bool) -> None:
    random = np.random.default_rng(seed)
    rules = random_rules(random, refresh)
    program = random_program(random, rules, 15)
    assert check_pim(rules, targets_of(rules, run_kernel(rules, program, log=True))) == []


@settings(max_examples=60)
@given(SEEDS)
def test_every_distance_is_tight_or_never_binds(seed: int) -> None:
    """A planted mutant: a distance made longer by one tick either changes nothing or is seen by the checker."""
    random = np.random.default_rng(seed)
    rules = random_rules(random, False)
    program = random_program(random, rules, 10)
    which = int(random.integers(0, len(rules.distances)))
    longer = dataclasses.replace(rules.distances[which], ticks=rules.distances[which].ticks + 1)
    distances = (*rules.distances[:which], longer, *rules.distances[which + 1 :])
    strict = dataclasses.replace(rules, distances=distances)
    plain = run_kernel(rules, program, log=True)
    if run_kernel(strict, program, log=True).log == plain.log:
        assert check_pim(strict, targets_of(rules, plain)) == []
    else:
        assert check_pim(strict, targets_of(rules, plain)) != []


@settings(max_examples=60)
@given(SEEDS)
def test_checker_sees_a_command_that_comes_too_early(seed: int) -> None:
    """Each command comes at its earliest tick, so in one lane any command that moves up by a tick breaks a rule."""
    random = np.random.default_rng(seed)
    rules = random_rules(random, False)
    lane = Lane(rules)
    with lane.loop(3):
        opener = rules.banks.instances(rules.commands[rules.index("ACT")].targets)
        macs = rules.banks.instances(rules.commands[rules.index("MAC")].targets)
        lane.issue("ACT", opener, 0, 1, uses=3)
        for instance in range(macs):
            lane.issue("MAC", 3, instance)
        lane.issue("PRE", macs, 0, 1)
    log = targets_of(rules, run_kernel(rules, assemble([lane]), log=True))
    assert check_pim(rules, log) == []
    index = int(random.integers(1, len(log)))
    moved = log.copy()
    moved[index, 0] -= 1
    # A command in the same tick as the one before it on another bus may be held by the lane's order alone.
    held_by_order = log[index, 0] == log[index - 1, 0]
    assert check_pim(rules, moved) or held_by_order


def test_checker_sees_closed_rows_and_missing_refresh() -> None:
    random = np.random.default_rng(2)
    rules = random_rules(random, True)
    log = targets_of(rules, run_kernel(rules, random_program(random, rules, 60), log=True))
    commands = np.searchsorted(np.array(rules.first_target), log[:, 1], side="right") - 1
    roles = np.array([command.role for command in rules.commands])[commands]
    assert (roles == Role.REFRESH).any()
    without_opens = log[roles != Role.OPEN]
    assert any(violation.rule == "rows" for violation in check_pim(rules, without_opens))
    without_refresh = log[roles != Role.REFRESH]
    assert any(violation.rule == "refresh" for violation in check_pim(rules, without_refresh))


def test_lanes_that_wait_for_each_other_are_reported() -> None:
    rules = random_rules(np.random.default_rng(1), True)
    first, second = Lane(rules), Lane(rules)
    first.issue("MAC")  # nobody opens its row
    second.issue("MOVE")
    program = assemble([first, second])
    assert run_kernel(rules, program).stalled
    oracle = run_oracle(rules, program)
    assert oracle.stalled


def test_programs_refuse_what_the_kernel_can_not_run() -> None:
    rules = random_rules(np.random.default_rng(1), False)
    lane = Lane(rules)
    with pytest.raises(ValueError, match="no target 99"):
        lane.issue("MAC", 1, 99)
    with pytest.raises(ValueError, match="uses go with commands that open rows"):
        lane.issue("MAC", 1, uses=3)
    with pytest.raises(ValueError, match="a wait follows a command"):
        lane.wait(3)
    with pytest.raises(ValueError, match="4097 ticks"):
        lane.fence(1, LONGEST_WAIT + 1)
    with pytest.raises(ValueError, match="0 rounds"), lane.loop(0):
        pass
    with pytest.raises(ValueError, match="5 lanes"):
        assemble([lane] * 5)


PLAIN_PYTHON = """
import numpy as np
import pim_cases
from plain_python import Guarded

plain_state, plain_history = pim_cases.new_state, pim_cases.new_history
pim_cases.new_state = lambda *arguments: plain_state(*arguments).view(Guarded)
pim_cases.new_history = lambda *arguments: plain_history(*arguments).view(Guarded)
for seed in range(12):
    random = np.random.default_rng(seed)
    rules = pim_cases.random_rules(random, seed % 2 == 0)
    program = pim_cases.random_program(random, rules, 12)
    expected = pim_cases.run_oracle(rules, program)
    assert pim_cases.run_kernel(rules, program, log=True).log == expected.log, seed
    assert pim_cases.run_kernel(rules, program, repeat=True).finish == expected.finish, seed
"""


def test_plain_python_stays_inside_its_arrays() -> None:
    """Without compilation indices are checked; warnings (an overflow, say) are errors."""
    run_plain_python(PLAIN_PYTHON, warnings="error")


def test_the_largest_of_two_distances_binds() -> None:
    random = np.random.default_rng(3)
    rules = random_rules(random, False)
    move = rules.index("MOVE")
    both = (Distance(move, move, Scope.CHANNEL, 5), Distance(move, move, Scope.CHANNEL, 9))
    rules = dataclasses.replace(rules, distances=both)
    lane = Lane(rules)
    lane.issue("MOVE", 4)
    assert [tick for tick, *_ in run_kernel(rules, assemble([lane]), log=True).log] == [0, 9, 18, 27]

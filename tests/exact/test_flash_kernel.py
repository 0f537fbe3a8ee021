"""The flash kernel does what the oracle does, every mistake planted in it shows, and fast-forward changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from flash_cases import differences, random_case, random_streams, random_timing, run_kernel, run_oracle, run_streams
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_python import ROOT, plant, run_plain_python

from archsim.kernels.flash_state import FlashCount, new_state
from archsim.memory.flash_checker import check_flash_commands

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=300)
@given(SEEDS)
def test_kernel_equals_oracle(seed: int) -> None:
    case = random_case(seed)
    kernel, oracle = run_kernel(case), run_oracle(case)
    assert differences(kernel, oracle) == []
    assert check_flash_commands(case.timing, kernel.log) == []


def test_the_cases_meet_what_they_are_for() -> None:
    """Merging, programs, erases, multi-plane operations, all buffers: none is missing from the cases above."""
    total = np.zeros(16, np.int64)
    for seed in range(150):
        total += run_kernel(random_case(seed)).counts
    for count in (FlashCount.SENSES, FlashCount.PROGRAMS, FlashCount.ERASES, FlashCount.JOINED, FlashCount.LINK_BUSY):
        assert total[count] > 100, count
    commands = total[FlashCount.SENSES] + total[FlashCount.PROGRAMS] + total[FlashCount.ERASES]
    assert total[FlashCount.OPERATIONS] < commands - 50, "multi-plane operations"


@settings(max_examples=60)
@given(SEEDS, st.lists(st.integers(1, 5_000), min_size=1, max_size=30))
def test_a_run_in_pieces_is_the_same_run(seed: int, cuts: list[int]) -> None:
    case = random_case(seed)
    whole, pieces = run_kernel(case), run_kernel(case, cuts)
    for name in ("log", "counts", "senses", "done"):
        assert np.array_equal(getattr(whole, name), getattr(pieces, name)), name


@settings(max_examples=200)
@given(SEEDS, st.lists(st.integers(1, 200_000), max_size=4))
def test_fast_forward_equals_plain(seed: int, cuts: list[int]) -> None:
    case = random_streams(seed)
    assert run_streams(case, True, cuts).history == run_streams(case, False, cuts).history


def test_fast_forward_finds_periods() -> None:
    jumped = sum(run_streams(random_streams(seed), True).periods > 0 for seed in range(60))
    assert jumped > 40


BOUNDS_CHECKED = """
from flash_cases import differences, random_case, random_streams, run_kernel, run_oracle, run_streams
for seed in range(40):
    case = random_case(seed)
    assert differences(run_kernel(case), run_oracle(case)) == [], seed
    streams = random_streams(seed)
    assert run_streams(streams, True).history == run_streams(streams, False).history, seed
"""


@pytest.mark.slow
def test_no_index_is_out_of_bounds() -> None:
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    ran = subprocess.run([sys.executable, "-c", BOUNDS_CHECKED], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"planes": 7, "group_planes": 2}, "7 planes don't divide into groups of 2"),
        ({"granules": 6, "codeword": 4}, "a page of 6 granules doesn't divide into codewords of 4"),
        ({"planes": 2048}, "2048 planes"),
        ({"buffers": 3}, "3 page buffers"),
        ({"granules": 64, "codeword": 4, "staging": 8}, "holds no page"),
        ({"t_read": 0}, "at least 1"),
    ],
)
def test_a_channel_that_cannot_be_is_refused(change: dict[str, int], message: str) -> None:
    timing = random_timing(np.random.default_rng(0))._replace(planes=4, group_planes=1)
    with pytest.raises(ValueError, match=message):
        new_state(timing._replace(**change))


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    rule: str = ""  # of the checker, if it breaks one


MUTANTS = (
    Mutant("tR a tick short", "flash_lines.py", "(q.t_read if", "(q.t_read - 1 if"),
    Mutant("sense without its command", "flash_lines.py", "ticks = q.command_ticks + (", "ticks = 0 + ("),
    Mutant("no command bus", "flash_lines.py", "= now + q.command_ticks", "= now", "command bus"),
    Mutant(
        "one operation too many",
        "flash_lines.py",
        "state[ACTIVE] < q.most_active",
        "state[ACTIVE] <= q.most_active",
        "power",
    ),
    Mutant(
        "a buffer taken while it drains",
        "flash_lines.py",
        "drained = state[BUFFER_STATE + b] == HELD and state[BUFFER_PENDING + b] == 0\n",
        "drained = state[BUFFER_STATE + b] == HELD\n",
        "buffer",
    ),
    Mutant(
        "lockstep on other pages", "flash_lines.py", "state[PAGE + e] == page and startable", "startable", "multi-plane"
    ),
    Mutant("programs don't wait for the group's loads", "flash_lines.py", "not (loading and", "not (False and"),
    Mutant(
        "joins past a program",
        "flash_lines.py",
        "if state[KIND + w] != READ:\n            return False",
        "if False:\n            return False",
    ),
    Mutant("joins a page about to go", "flash_lines.py", "> 0 or state[HEAD + p] < 0)", "> 0 or True)"),
    Mutant(
        "programs don't make buffers forget",
        "flash_lines.py",
        "state[BUFFER_PAGE + b] = -1\n        if",
        "pass\n        if",
    ),
    Mutant(
        "oldest transfer not first",
        "flash_lines.py",
        "state[AGE + before] > state[AGE + e]",
        "state[AGE + before] < state[AGE + e]",
    ),
    Mutant("staging not kept", "flash_lines.py", "state[STAGED] + size <= q.staging", "size <= q.staging"),
    Mutant("window of one too many", "flash_lines.py", ">= state[STREAM_WINDOW + s]", "> state[STREAM_WINDOW + s]"),
    Mutant("round robin starts over", "flash_lines.py", "state[TURN] = s", "state[TURN] = -1"),
    Mutant("arrivals ignored", "flash_lines.py", "if arrival[index] > now:", "if arrival[index] > now + 1:"),
    Mutant("striping without offset", "flash_lines.py", "offset_of[page % table] + page // table", "page // table"),
    Mutant(
        "the younger page goes",
        "flash_lines.py",
        "state[BUFFER_AGE + b] < state[BUFFER_AGE",
        "state[BUFFER_AGE + b] > state[BUFFER_AGE",
    ),
    Mutant(
        "half a codeword out",
        "flash.py",
        "// q.codeword - first + 1",
        "// q.codeword - first + 0 if state[SIZE + e] > q.codeword else 1",
    ),
    Mutant("ECC forgotten", "flash.py", "q.codeword_ticks + q.ecc_ticks  #", "q.codeword_ticks  #"),
    Mutant(
        "link does not wait for the last codeword",
        "flash.py",
        "end = max(end, out + (codewords - 1)",
        "end = max(end, 0 * out + (codewords - 1)",
    ),
    Mutant(
        "link does not wait for the second codeword",
        "flash.py",
        "end = max(end, out + q.codeword_ticks + rest",
        "end = max(end, rest",
    ),
    Mutant("link is shared by all at once", "flash.py", "max(state[LINK_FREE], out)", "out"),
    Mutant(
        "bus ends early",
        "flash.py",
        "state[BUS_END] = now + ticks",
        "state[BUS_END] = now + max(1, ticks - 1)",
        "loaded",
    ),
    Mutant(
        "programs before their data are there",
        "flash.py",
        "state[LOADED + p] = 1\n",
        "state[LOADED + p] = 2\n",
        "loaded",
    ),
    Mutant(
        "granules miscounted",
        "flash.py",
        "state[COUNTS + GRANULES] += state[SIZE + e]",
        "state[COUNTS + GRANULES] += 1",
    ),
)

RUN_MUTANTS = """
import sys
from pathlib import Path
import numpy as np

work = Path(sys.argv[1])
with np.load(work / "expected.npz") as saved:
    expected = dict(saved)
for tree in sorted(work.glob("mutant_*")):
    for name in [name for name in sys.modules if name.startswith(("archsim", "flash_cases"))]:
        del sys.modules[name]
    sys.path.insert(0, str(tree))
    import flash_cases
    caught, log = -1, np.zeros((0, 8), np.int64)
    for seed in range(SEEDS):
        case = flash_cases.random_case(seed)
        try:
            result = flash_cases.run_kernel(case, limit=60_000)
        except (AssertionError, IndexError):  # no progress, or out of its arrays
            caught = seed
            break
        if not all(np.array_equal(getattr(result, f), expected[f"{seed} {f}"]) for f in ("log", "counts", "done")):
            caught, log = seed, result.log
            break
    np.savez(tree / "outcome.npz", caught=caught, log=log)
    sys.path.pop(0)
"""
CASES = 300


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, np.ndarray]]:
    """By name of the mutant: the first case that gives it away (-1: none), and its command log there."""
    work = tmp_path_factory.mktemp("flash_mutants")
    expected = {}
    for seed in range(CASES):
        kernel = run_kernel(random_case(seed))  # equal to the oracle, by the test above
        expected |= {f"{seed} {field}": getattr(kernel, field) for field in ("log", "counts", "done")}
    np.savez(work / "expected.npz", **expected)
    for k, mutant in enumerate(MUTANTS):
        plant(mutant, work / f"mutant_{k:02d}")
    program = f"SEEDS = {CASES}\n" + RUN_MUTANTS
    run_plain_python(program, work)
    found = {}
    for k, mutant in enumerate(MUTANTS):
        with np.load(work / f"mutant_{k:02d}" / "outcome.npz") as outcome:
            found[mutant.name] = (int(outcome["caught"]), outcome["log"])
    return found


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_mutant_is_caught(mutant: Mutant, outcomes: dict[str, tuple[int, np.ndarray]]) -> None:
    seed, log = outcomes[mutant.name]
    assert seed >= 0, "nothing shows it"
    if mutant.rule and len(log):
        rules = {violation.rule for violation in check_flash_commands(random_case(seed).timing, log)}
        assert any(rule.startswith(mutant.rule) for rule in rules), rules

"""Tests that see: mistakes planted in a copy of the kernel are caught by the comparison with the oracle, and those that
break a timing constraint by the checker too.

The copies run as plain Python: compiling each would take a minute.
"""

from __future__ import annotations

import numpy as np
import pytest
from dram_cases import differences, run_kernel, run_oracle
from mutants import ALL, Cases, Mutant
from plain_python import plant, run_plain_python

from archsim.memory.checker import check_commands

pytestmark = pytest.mark.interpreted

FIELDS = ("log", "counts", "histogram", "job_done")

RUN_MUTANTS = """
import signal
import sys
from pathlib import Path
import numpy as np

def stuck(signum, frame):
    raise AssertionError("a case that takes a fraction of a second does not end")

signal.signal(signal.SIGVTALRM, stuck)
work = Path(sys.argv[1])
with np.load(work / "expected.npz") as saved:
    expected = dict(saved)
for tree in sorted(work.glob("mutant_*")):
    for name in [name for name in sys.modules if name.startswith(("archsim", "dram_cases", "mutants"))]:
        del sys.modules[name]
    sys.path.insert(0, str(tree))
    import dram_cases
    import mutants
    cases = mutants.Cases((tree / "cases").read_text())
    caught, log = -1, np.zeros((0, 8), np.int64)
    for seed in cases.seeds:
        key = f"{cases.value} {seed}"
        signal.setitimer(signal.ITIMER_VIRTUAL, 10)  # of processor time: a mutant may tie its lists into knots
        try:
            result = dram_cases.run_kernel(cases.case(seed), int(expected[f"{key} ticks"]), limit=20_000)
        except (AssertionError, IndexError):  # no progress, or out of its arrays
            caught = seed
            break
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        if not all(np.array_equal(getattr(result, field), expected[f"{key} {field}"]) for field in FIELDS):
            caught, log = seed, result.log
            break
    np.savez(tree / "outcome.npz", caught=caught, log=log)
    sys.path.pop(0)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, np.ndarray]]:
    """By name of the mutant: the first case that gives it away (-1: none), and its command log there."""
    work = tmp_path_factory.mktemp("mutants")
    expected = {}
    for cases in Cases:
        for seed in cases.seeds:
            case = cases.case(seed)
            oracle = run_oracle(case)
            assert differences(case, run_kernel(case, oracle.ticks), oracle) == []
            for field in ("ticks", *FIELDS):
                expected[f"{cases.value} {seed} {field}"] = np.asarray(getattr(oracle, field))
    np.savez(work / "expected.npz", **expected)
    for k, mutant in enumerate(ALL):
        plant(mutant, work / f"mutant_{k:02d}")
        (work / f"mutant_{k:02d}" / "cases").write_text(mutant.cases.value)
    program = f"FIELDS = {FIELDS}\n" + RUN_MUTANTS
    run_plain_python(program, work)
    found = {}
    for k, mutant in enumerate(ALL):
        with np.load(work / f"mutant_{k:02d}" / "outcome.npz") as outcome:
            found[mutant.name] = (int(outcome["caught"]), outcome["log"])
    return found


@pytest.mark.parametrize("mutant", ALL, ids=[mutant.name for mutant in ALL])
def test_mutant_is_caught(mutant: Mutant, outcomes: dict[str, tuple[int, np.ndarray]]) -> None:
    seed, log = outcomes[mutant.name]
    assert seed >= 0, "the oracle agrees with it"
    if mutant.rule:
        timing = mutant.cases.case(seed).timing
        rules = {violation.rule for violation in check_commands(timing, log)}
        assert any(rule.startswith(mutant.rule) for rule in rules), rules

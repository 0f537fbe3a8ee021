"""Every mistake planted in the router kernel is caught by the oracle, and a broken rule by the checker too.

Mutants are edited copies of the kernel that run as plain Python, which is faster than compiling each of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from noc_cases import random_case, run_oracle

from archsim.fabric.noc_checker import check_moves

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "archsim" / "kernels"
SEEDS = range(30)
CYCLES = 40


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    breaks_rule: bool = False


MUTANTS = (
    Mutant("credits are not spent", "router.py",
           "(went << OUTPUT_BITS) + CREDITS] -= 1", "(went << OUTPUT_BITS)] -= 0"),
    Mutant("credit home a cycle early", "router.py", "now + 1 + net[upstream + CREDIT_CYCLES]",
           "now + net[upstream + CREDIT_CYCLES]"),
    Mutant("a link is a cycle shorter", "router.py", "now + 1 + q.crossbar_cycles", "now + q.crossbar_cycles", True),
    Mutant("no routing stage", "router.py",
           "since + q.routing_cycles + q.vc_alloc_cycles", "since + q.vc_alloc_cycles", True),
    Mutant("no switch stage", "router_alloc.py", "now + q.switch_alloc_cycles", "now + 1", True),
    Mutant("a packet's next flit waits no stage", "router.py", "= now + q.switch_alloc_cycles\n", "= now + 1\n"),
    Mutant("tail credit not waited for", "router.py", "if q.wait_for_tail_credit == 0:", "if True:", True),
    Mutant("channel freed by any last credit", "router.py", " and state[record + TAIL_SENT] != 0", "", True),
    Mutant("granted channels stay free", "router_alloc.py", "&= ~(1 << vc)", "&= -1", True),
    Mutant("source takes the first channel", "router.py", "vc = state[source + LAST_VC]\n", "vc = -1\n"),
    Mutant("crossbar input's turn stays", "router_alloc.py", "turn if turn < q.vcs else turn - q.vcs", "0"),
    Mutant("grant pointer stays", "router_alloc.py", "SWITCH_GRANT] = expanded + 1", "SWITCH_GRANT] = 0"),
    Mutant("accept pointer stays", "router_alloc.py", "SWITCH_ACCEPT] = output + 1", "SWITCH_ACCEPT] = 0"),
    Mutant("channel pointers move in every iteration", "router_alloc.py",
           "            if iteration == 0:", "            if True:"),
    Mutant("switch pointers move in every iteration", "router_alloc.py", "    if move_pointers:", "    if True:"),
    Mutant("contested outputs are not noticed", "router_alloc.py", "contested |= asked & bit", "contested |= 0"),
    Mutant("bids past a matched output", "router_alloc.py",
           "state[q.matched_out + output] = 1", "state[q.matched_out + output] = 0", True),
    Mutant("head behind a tail starts at once", "router.py", "RING + at], now + 1)", "RING + at], now)"),
    Mutant("ring of the buffer is one short", "router.py", "at if at < q.depth else", "at if at < q.depth - 1 else"),
    Mutant("idle cycles skip an arrival", "router.py",
           "range(now + 1, now + q.wheel)", "range(now + 2, now + q.wheel)"),
)  # fmt: skip

RUN_MUTANTS = """
import importlib, sys
from pathlib import Path
import numpy as np
import noc_cases

work = Path(sys.argv[1])
sys.path.insert(0, str(work))
with np.load(work / "expected.npz") as saved:
    expected = dict(saved)
cases = [noc_cases.random_case(seed, until=CYCLES) for seed in SEEDS]
for tree in sorted(work.glob("mutant_*")):
    advance = importlib.import_module(f"{tree.name}.router").advance
    outcome = {"caught": -1}
    for seed, case in zip(SEEDS, cases):
        run = case.network.start(log_rows=20_000)
        run.add(case.packets)
        try:
            run.advance(CYCLES, kernel=advance)
        except (AssertionError, IndexError, OverflowError):
            outcome = {"caught": seed}
            break
        log = np.array(sorted(map(tuple, run.log.tolist())), np.int64).reshape(-1, 6)
        if not np.array_equal(log, expected[f"{seed} log"]):
            outcome = {"caught": seed, f"{seed} log": log}
            break
    np.savez(tree / "outcome.npz", **outcome)
"""


def _plant(mutant: Mutant, tree: Path) -> None:
    """A package with the kernel's two files, in which one place is edited."""
    tree.mkdir()
    (tree / "__init__.py").touch()
    for name in ("router.py", "router_alloc.py"):
        text = (KERNELS / name).read_text().replace("archsim.kernels.router_alloc", f"{tree.name}.router_alloc")
        if name == mutant.file:
            assert mutant.old in text, f"the kernel no longer contains: {mutant.old}"
            text = text.replace(mutant.old, mutant.new)
        (tree / name).write_text(text)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, np.ndarray | None]]:
    """By name of the mutant: the first case that gives it away (-1: none), and its log there if it has one."""
    work = tmp_path_factory.mktemp("mutants")
    np.savez(
        work / "expected.npz",
        **{
            f"{seed} log": np.array(run_oracle(random_case(seed, until=CYCLES)).log, np.int64).reshape(-1, 6)
            for seed in SEEDS
        },
    )
    for k, mutant in enumerate(MUTANTS):
        _plant(mutant, work / f"mutant_{k:02d}")
    program = f"SEEDS = {list(SEEDS)}\nCYCLES = {CYCLES}\n" + RUN_MUTANTS
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, work], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    found = {}
    for k, mutant in enumerate(MUTANTS):
        with np.load(work / f"mutant_{k:02d}" / "outcome.npz") as outcome:
            seed = int(outcome["caught"])
            found[mutant.name] = (seed, outcome.get(f"{seed} log"))
    return found


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_mutant_is_caught(mutant: Mutant, outcomes: dict[str, tuple[int, np.ndarray | None]]) -> None:
    seed, log = outcomes[mutant.name]
    assert seed >= 0, "the oracle agrees with it"
    if mutant.breaks_rule:
        case = random_case(seed, until=CYCLES)
        assert log is None or check_moves(case.network, case.packets, log, finished=False) != []

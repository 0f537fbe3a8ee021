"""Every mistake planted in the router kernel is caught by the oracle, and a broken rule by the checker too.

Mutants are edited copies of the kernel that run as plain Python, which is faster than compiling each of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from noc_cases import NocCase, plain_case, random_case, run_oracle
from plain_python import KERNELS, edited, run_plain_python

from archsim.fabric.noc_checker import check_moves

SEEDS = range(36)
CYCLES = 40


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    breaks_rule: bool = False


MUTANTS = (
    Mutant("credits are not spent", "router.py", "credits = state[owned] - 1", "credits = state[owned]"),
    Mutant("credit home a cycle early", "router.py", "now + (home >> HOME_BITS)", "now - 1 + (home >> HOME_BITS)"),
    Mutant("a link is a cycle shorter", "router.py",
           "FLIT + last, now + state[leads + ARRIVES]", "FLIT + last, now - 1 + state[leads + ARRIVES]", True),
    Mutant("no routing stage", "router.py",
           "since + q.routing_cycles + q.vc_alloc_cycles", "since + q.vc_alloc_cycles", True),
    Mutant("no switch stage", "router_alloc.py",
           "wake_at(q, state, now + q.switch_alloc_cycles, first", "wake_at(q, state, now + 1, first", True),
    Mutant("a packet's next flit waits no stage", "router.py",
           "wake_at(q, state, now + q.switch_alloc_cycles, came", "wake_at(q, state, now + 1, came"),
    Mutant("tail credit not waited for", "router.py", "if q.wait_for_tail_credit != 0:", "if False:", True),
    Mutant("channel freed by any last credit", "router.py",
           "credits == q.depth + TAIL_SENT", "credits & 31 == q.depth", True),
    Mutant("granted channels stay free", "router_alloc.py", "&= ~(1 << (channel &", "&= -1 | (1 << (channel &", True),
    Mutant("source takes the first channel", "router_sources.py", "state[source + LAST_VC] + 1)", "0)"),
    Mutant("crossbar input's turn stays", "router_switch.py", "state[turn] = net[", "state[turn] = 0 * net["),
    Mutant("grant pointer stays", "router_switch.py", "SWITCH_GRANT] = behind", "SWITCH_GRANT] = 0"),
    Mutant("accept pointer stays", "router_switch.py", "SWITCH_ACCEPT] = port + 1", "SWITCH_ACCEPT] = 0"),
    Mutant("channel pointers move in every iteration", "router_alloc.py",
           "waiter, channel, iteration == 0, now", "waiter, channel, True, now"),
    Mutant("switch pointers move in every iteration", "router_switch.py", "    if moving:", "    if True:"),
    Mutant("heads that share an output are not noticed", "router_alloc.py",
           "if heads & (heads - 1) != 0:", "if False:"),
    Mutant("heads that share one of several outputs are not noticed", "router_alloc.py", "contested |= here", "pass"),
    Mutant("inputs granted to twice are not noticed", "router_switch.py", "together = seen & bit != 0 or", "together =",
           True),
    Mutant("bids past a matched output", "router_switch.py",
           "state[q.matched + port] = 1", "state[q.matched + port] = 0", True),
    Mutant("head behind a tail starts at once", "router.py", "came, now + 1, now)", "came, now, now)"),
    Mutant("ring of the buffer is one short", "router.py", "RING + (tail & q.ring_mask)", "RING + (tail & 1)"),
    Mutant("the first credit wakes nobody", "router.py", "elif credits == 1 and", "elif False and"),
    Mutant("an output with bids left is forgotten", "router.py", "q.words) else left + 1", "q.words) else left"),
    Mutant("the farthest offer stands", "router_sets.py", "behind >= state[distances", "behind < state[distances"),
    Mutant("the wrong head accepts", "router_alloc.py",
           "state[q.offers + waiter], inside", "state[q.offers + waiter], 0 * inside"),
    Mutant("a flit stays in the bids without a credit", "router.py",
           "return more if credits != 0 else 0", "return more", True),
    Mutant("a credit lets an empty buffer bid", "router.py",
           "waits = 1 if state[holder + TAIL] > state[holder + HEAD] else 0", "waits = 1"),
    Mutant("an emptied buffer keeps its place", "router.py", "= (head + 1) * more", "= head + 1"),
    Mutant("idle cycles skip an arrival", "router.py",
           "range(now + 1, now + q.wheel)", "range(now + 2, now + q.wheel)"),
)  # fmt: skip

FILES = ("router.py", "router_alloc.py", "router_links.py", "router_sets.py", "router_sources.py", "router_switch.py")
"""The kernel. Its layout, `router_state.py`, is shared."""


def case_of(seed: int) -> NocCase:
    """Thirty networks of any form, and some of the form that is compiled on its own."""
    return random_case(seed, until=CYCLES) if seed < 30 else plain_case(seed, until=CYCLES)


RUN_MUTANTS = """
import importlib, sys
from pathlib import Path
import numpy as np
import noc_cases

work = Path(sys.argv[1])
sys.path.insert(0, str(work))
with np.load(work / "expected.npz") as saved:
    expected = dict(saved)
cases = [
    noc_cases.random_case(seed, until=CYCLES) if seed < 30 else noc_cases.plain_case(seed, until=CYCLES)
    for seed in SEEDS
]
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
    """A package with the kernel's files, in which one place is edited."""
    tree.mkdir()
    (tree / "__init__.py").touch()
    for name in FILES:
        text = edited(mutant, KERNELS / name)
        for part in FILES[1:]:
            module = f".{part.removesuffix('.py')} import"
            text = text.replace(f"archsim.kernels{module}", f"{tree.name}{module}")
        (tree / name).write_text(text)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, np.ndarray | None]]:
    """By name of the mutant: the first case that gives it away (-1: none), and its log there if it has one."""
    work = tmp_path_factory.mktemp("mutants")
    np.savez(
        work / "expected.npz",
        **{f"{seed} log": np.array(run_oracle(case_of(seed)).log, np.int64).reshape(-1, 6) for seed in SEEDS},
    )
    for k, mutant in enumerate(MUTANTS):
        _plant(mutant, work / f"mutant_{k:02d}")
    program = f"SEEDS = {list(SEEDS)}\nCYCLES = {CYCLES}\n" + RUN_MUTANTS
    run_plain_python(program, work, warnings="ignore")
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
        case = case_of(seed)
        assert log is None or check_moves(case.network, case.packets, log, finished=False) != []

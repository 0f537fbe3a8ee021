"""Every mistake planted in the kernel is caught by the oracle, and a broken constraint by the checker too.

Mutants are edited copies of the kernel that run as plain Python, which is faster than compiling each of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from dram_cases import differences, random_case, run_kernel, run_oracle

from archsim.memory.checker import check_commands

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "archsim" / "kernels"
SEEDS = range(24)
FRONT_SEEDS = range(56)  # with front policies: few have a write queue that answers, or a cap that matters
REQUESTS = 60


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    rule: str = ""  # the checker's name of the rule that it breaks
    front: bool = False  # seen under front policies


MUTANTS = (
    Mutant("no tFAW", "commands.py", "= now + q.tFAW", "= now", "tFAW"),
    Mutant("tFAW over five ACTs", "candidates.py", "(pc[FAW_NEXT] & 3)", "((pc[FAW_NEXT] - 1) & 3)"),
    Mutant("no tRRDS", "commands.py", "pc[RRD_OK] = now + q.tRRDS", "pc[RRD_OK] = now", "tRRDS"),
    Mutant("tRRDL not for all of the group", "commands.py", "= now + q.tRRDL", "= now + q.tRRDS", "tRRDL"),
    Mutant(
        "tCCDL for one bank, not the group",
        "commands.py",
        "pc[COLUMN_OK + read] = max(pc[COLUMN_OK + read], now + q.tCCDL)",
        "pc[COLUMN_OK + bank] = max(pc[COLUMN_OK + bank], now + q.tCCDL)",
        "tCCDL",
    ),
    Mutant(
        "group without stack ID",
        "channel.py",
        "state[STACK_ID_OF:GROUP_FIRST] = bank // banks_per_sid",
        "state[STACK_ID_OF:GROUP_FIRST] = 0",
        "tCCDL",
    ),
    Mutant("no tCCDR", "commands.py", "gap = q.tCCDS if other_sid == sid else max(q.tCCDS, q.tCCDR)", "gap = q.tCCDS"),
    Mutant("no tRTW", "commands.py", "pc[BUS_OK + k] = max(pc[BUS_OK + k], now + q.tRTW)", "pass", "tRTW"),
    Mutant("tWTRS from the command", "commands.py", "data_end + q.tWTRS", "now + q.tWTRS", "tWTRS"),
    Mutant("no tWTRL", "commands.py", "data_end + q.tWTRL", "data_end + q.tWTRS", "tWTRL"),
    Mutant("PRE does not wait for tRTP", "commands.py", "now + q.tRTP", "now", "tRTP"),
    Mutant("PRE does not wait for tWR", "commands.py", "data_end + q.tWR)", "data_end)", "tWR"),
    Mutant("PRE does not wait for tRAS", "commands.py", "now + q.tRAS", "now + q.tRCDRD", "tRAS"),
    Mutant("ACT does not wait for tRC", "commands.py", "now + q.tRC\n", "now\n", "tRC"),
    Mutant("ACT does not wait for tRP", "commands.py", "now + q.tRP)", "now + 1)", "tRP"),
    Mutant("no tPPD", "commands.py", "now + q.tPPD", "now", "tPPD"),
    Mutant("writes wait tRCDRD", "commands.py", "now + q.tRCDWR", "now + q.tRCDRD"),
    Mutant(
        "row bus held for one tick", "commands.py", "state[ROW_BUS_FREE] = now + ticks", "state[ROW_BUS_FREE] = now + 1"
    ),
    Mutant(
        "ACT on any edge",
        "candidates.py",
        "return rising_edge(q, max(earliest, max(now, state[ROW_BUS_FREE])))",
        "return max(earliest, max(now, state[ROW_BUS_FREE]))",
        "rising edge",
    ),
    Mutant("high watermark passed, not reached", "admission.py", "writes >= q.write_high", "writes > q.write_high"),
    Mutant("low watermark passed, not reached", "admission.py", "writes <= q.write_low", "writes < q.write_low"),
    Mutant("writes wait for the watermark", "admission.py", " or (reads == 0 and writes > 0)", ""),
    Mutant("round robin starts over", "admission.py", "pc[TURN] = s", "pc[TURN] = -1"),
    Mutant("a hit does not stop PRE", "admission.py", "        pc[ROW_KEY + o] = NO_KEY\n", ""),
    Mutant(
        "a request too many",
        "admission.py",
        "pc[QUEUED + w] >= depth",
        "pc[QUEUED + w] >= depth - 1",
    ),
    Mutant("arrivals ignored", "admission.py", "if arrives > now:", "if arrives > now + 1:"),
    Mutant("held bank served", "candidates.py", "held = pc[HELD_BANK] == bank", "held = False"),
    Mutant("REFab without tRC", "refresh.py", "earliest = max(earliest, pc[ACT_OK + bank])\n", "pass\n"),
    Mutant("no tRFCab", "refresh.py", "pc[ACT_OK + bank] = now + q.tRFCab", "pc[ACT_OK + bank] = now", "tRFCab"),
    Mutant("no tRREFD", "refresh.py", "now + q.tRREFD", "now", "tRREFD"),
    Mutant("same bank refreshed again", "refresh.py", "(bank + 1) % banks", "bank", "refresh rotation"),
    Mutant(
        "refresh interval from the command",
        "refresh.py",
        "pc[DUE] += q.tREFI\n",
        "pc[DUE] = now + q.tREFI\n",
    ),
    Mutant(
        "refresh counted as row",
        "refresh.py",
        "pc[REFRESH_END] = now + q.tRFCab",
        "pc[REFRESH_END] = now",
    ),
    Mutant("idle counted as row", "admission.py", "state[COUNTS + IDLE] += now", "state[COUNTS + 14] += now"),
    Mutant("window a tile too wide", "admission.py", "ended = state[JOB", "ended = 1 + state[JOB"),
    Mutant(
        "gate ignored",
        "tiles.py",
        "max(state[JOB + j + JOB_READY], state[JOB + j + JOB_GATE]) <= now",
        "state[JOB + j + JOB_READY] <= now",
    ),
    Mutant(
        "data of one PC suffice",
        "tiles.py",
        "    for p in range(pcs):\n            pc = pseudo_channel(state, p)\n            if pc[STREAM_ISSUED",
        "    for p in range(1):\n            pc = pseudo_channel(state, p)\n            if pc[STREAM_ISSUED",
    ),
    Mutant(
        "tile starts when data are issued",
        "tiles.py",
        "state[JOB + j + JOB_READY] = arrived",
        "state[JOB + j + JOB_READY] = state[NOW]",
    ),
    *(
        Mutant(name, file, old, new, front=True)
        for name, file, old, new in (
            ("cap passed, not reached", "policies.py", "0 < q.row_hit_cap <= pc", "0 < q.row_hit_cap < pc"),
            (
                "passing nobody counts",
                "policies.py",
                "if pc[HEAD + w * MAX_BANKS + bank] != entry:",
                "if True:",
            ),
            ("ACT does not reset the cap", "policies.py", "pc[PASSED + bank] = 0", "pass"),
            ("a younger request beside the capped row", "admission.py", "and is_capped(pc, q, bank)", "and False"),
            ("a request starves a tick late", "policies.py", "now + q.starve_after", "now + q.starve_after + 1"),
            ("starving is seen at the next event", "order.py", "return starves", "return NEVER"),
            (
                "the served are still first",
                "dram.py",
                "if front_policies(q) and may_serve_in_order(q):",
                "if False:",
            ),
            ("fcfs only while it starves", "order.py", "0 if q.scheduler == FCFS else ", ""),
            ("a held bank is served in order", "order.py", "pc[HELD_BANK] == bank or (pc", "(pc"),
            ("unused since ACT", "policies.py", "+= 1\n    pc[UNUSED_AT + bank] = now + q.page_timeout", "+= 1"),
            ("rows that writes want are closed", "order.py", "for o in (bank, MAX_BANKS + bank):", "for o in (bank,):"),
            ("answers take no time", "policies.py", "complete = now + q.forward_ticks", "complete = now"),
            ("a write of the bank answers", "policies.py", "and pc[ENTRY_ADDRESS + entry] != address", "and False"),
            ("only writes are answered", "policies.py", "answers == 0 or", "answers == 0 or w == 0 or"),
            ("one histogram for both", "policies.py", "HISTOGRAM + w * BUCKETS", "HISTOGRAM"),
        )
    ),
)

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
    for name in [name for name in sys.modules if name.startswith(("archsim", "dram_cases"))]:
        del sys.modules[name]
    sys.path.insert(0, str(tree))
    import dram_cases
    caught, log = -1, np.zeros((0, 8), np.int64)
    front = (tree / "front").exists()
    for seed in FRONT_SEEDS if front else SEEDS:
        case = dram_cases.random_case(seed, requests=REQUESTS, front=front)
        key = f"{front} {seed}"
        signal.setitimer(signal.ITIMER_VIRTUAL, 10)  # of processor time: a mutant may tie its lists into knots
        try:
            result = dram_cases.run_kernel(case, int(expected[f"{key} ticks"]), limit=20_000)
        except (AssertionError, IndexError):  # no progress, or out of its arrays
            caught = seed
            break
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        fields = ("log", "counts", "histogram", "job_done")
        if not all(np.array_equal(getattr(result, field), expected[f"{key} {field}"]) for field in fields):
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
    for front, seed in [*product((False,), SEEDS), *product((True,), FRONT_SEEDS)]:
        case = random_case(seed, requests=REQUESTS, front=front)
        oracle = run_oracle(case)
        assert differences(case, run_kernel(case, oracle.ticks), oracle) == []
        fields = ("ticks", "log", "counts", "histogram", "job_done")
        expected |= {f"{front} {seed} {field}": np.asarray(getattr(oracle, field)) for field in fields}
    np.savez(work / "expected.npz", **expected)
    for k, mutant in enumerate(MUTANTS):
        plant(mutant, work / f"mutant_{k:02d}")
        if mutant.front:
            (work / f"mutant_{k:02d}" / "front").touch()
    program = f"SEEDS = {list(SEEDS)}\nREQUESTS = {REQUESTS}\nFRONT_SEEDS = {list(FRONT_SEEDS)}\n" + RUN_MUTANTS
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT / "tests")}
    ran = subprocess.run([sys.executable, "-c", program, work], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = {}
    for k, mutant in enumerate(MUTANTS):
        with np.load(work / f"mutant_{k:02d}" / "outcome.npz") as outcome:
            found[mutant.name] = (int(outcome["caught"]), outcome["log"])
    return found


def plant(mutant: Mutant, tree: Path) -> None:
    """A package with a copy of the kernel in which one place is edited."""
    package = tree / "archsim" / "kernels"
    package.mkdir(parents=True)
    (tree / "archsim" / "__init__.py").touch()
    for source in KERNELS.glob("*.py"):
        text = source.read_text()
        if source.name == mutant.file:
            assert mutant.old in text, f"the kernel no longer contains: {mutant.old}"
            text = text.replace(mutant.old, mutant.new)
        (package / source.name).write_text(text)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_mutant_is_caught(mutant: Mutant, outcomes: dict[str, tuple[int, np.ndarray]]) -> None:
    seed, log = outcomes[mutant.name]
    assert seed >= 0, "the oracle agrees with it"
    if mutant.rule:
        timing = random_case(seed, requests=REQUESTS).timing
        rules = {violation.rule for violation in check_commands(timing, log)}
        assert any(rule.startswith(mutant.rule) for rule in rules), rules

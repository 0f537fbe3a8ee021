"""Every mistake planted in the kernel is caught by the oracle, and a broken constraint by the checker too.

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
from dram_cases import FEATURE_SETS, Case, differences, feature_case, random_case, run_kernel, run_oracle

from archsim.memory.checker import check_commands

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "archsim" / "kernels"
PLAIN_SEEDS = range(24)
FEATURE_SEEDS = range(24, 64)
REQUESTS = 60


def case_of(seed: int) -> Case:
    """A case of the default policies, or from `FEATURE_SEEDS` on with features."""
    if seed in PLAIN_SEEDS:
        return random_case(seed, requests=REQUESTS)
    return feature_case(seed, FEATURE_SETS[seed % len(FEATURE_SETS)], requests=REQUESTS)


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    rule: str = ""  # the checker's name of the rule that it breaks


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
    Mutant("held bank served", "candidates.py", "held = is_held(pc, q, bank)", "held = False"),
    Mutant("REFab without tRC", "refresh.py", "earliest = max(earliest, pc[ACT_OK + bank])\n", "pass\n"),
    Mutant("no tRFCab", "refresh.py", "pc[ACT_OK + bank] = now + q.tRFCab", "pc[ACT_OK + bank] = now", "tRFCab"),
    Mutant("no tRREFD", "refresh.py", "now + q.tRREFD", "now", "tRREFD"),
    Mutant(
        "same bank refreshed again", "refresh.py", "unit + 1 if unit + 1 < units(q) else 0", "unit", "refresh rotation"
    ),
    Mutant(
        "refresh interval from the command",
        "refresh.py",
        "pc[DUE] += interval",
        "pc[DUE] = state[NOW] + interval",
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
)

FEATURE_MUTANTS = (
    Mutant("no tCCDLW", "special.py", "tCCDLW=max(q.tCCDL, q.tCCDLW)", "tCCDLW=q.tCCDL", "tCCDLW"),
    Mutant(
        "row commands leave the shared bus", "commands.py", "state[COLUMN_BUS_FREE] = now + ticks", "pass", "shared"
    ),
    Mutant("column commands leave the shared bus", "commands.py", "state[ROW_BUS_FREE] = free", "pass", "shared"),
    Mutant(
        "a refresh and a column command at once",
        "commands.py",
        "shared_bus(q) and state[COLUMN_BUS_FREE] > now",
        "False",
    ),
    Mutant("one bank of a set held", "candidates.py", "bank < pc[HELD_BANK] + q.bank_groups", "bank <= pc[HELD_BANK]"),
    Mutant("no tRFCsb", "refresh.py", "REFSB, REFSB_COUNT, q.tRFCsb, q", "REFSB, REFSB_COUNT, 0, q", "tRFCsb"),
    Mutant("no tRFCsb between sets", "refresh.py", "= now + q.tRFCsb", "= now", "tRFCsb before refresh"),
    Mutant("a set is closed in any order", "refresh.py", " and pc[PRE_OK + bank] <= now", "", "t"),
    Mutant("tRREFD of the last set only", "refresh.py", "max(pc[REFPB_OK], pc[RRD_OK])", "pc[RRD_OK]"),
    Mutant("first bank first", "refresh_choice.py", "> pc[LAST_USE + best]", "< pc[LAST_USE + best]"),
    Mutant("in the middle of a row", "refresh_choice.py", "rested_at = pc[LAST_USE + unit] + q.tRC", "rested_at = 0"),
    Mutant("wanted by reads alone", "refresh_choice.py", " or pc[HEAD + MAX_BANKS + bank] < LIST_END", ""),
    Mutant("rotation forgotten", "refresh_choice.py", "pc[REFRESHED + unit] = 1", "pass", "refresh rotation"),
    Mutant("postponed for ever", "refresh_choice.py", "forced_at = pc[DUE] + q.refresh_postpone", "forced_at = NEVER"),
    Mutant("never postponed", "refresh_choice.py", "forced_at = pc[DUE] + q.refresh_postpone", "forced_at = pc[DUE]"),
    Mutant(
        "early while queued",
        "refresh_choice.py",
        "if pc[EMPTY_SINCE] >= NEVER:\n        return pc[DUE]",
        "if False:\n        pass",
    ),
    Mutant(
        "no rest before an early refresh", "refresh_choice.py", "pc[EMPTY_SINCE] + q.refresh_idle", "pc[EMPTY_SINCE]"
    ),
    Mutant("a departure wakes no refresh", "refresh_choice.py", "pc[LOOK_AT] = now", "pass"),
    Mutant("refresh from due on", "refresh.py", "pc[REFRESH_BEGIN] = now", "pc[REFRESH_BEGIN] = pc[DUE]"),
    Mutant("no tXP", "power.py", "max(q.tXP, 1)", "1", "tXP"),
    Mutant(
        "no tCKE after PDE",
        "power.py",
        "pc[POWER_COUNTED] = now\n        pc[POWER_CHANGE_OK] = now + q.tCKE",
        "pc[POWER_COUNTED] = now",
        "tCKE down",
    ),
    Mutant("asleep while data come", "power.py", "max(pc[PDE_OK], pc[AWAKE_AT])", "pc[AWAKE_AT]", "t"),
    Mutant("asleep too soon", "power.py", "pc[EMPTY_SINCE] + q.power_down_after", "pc[EMPTY_SINCE]"),
    Mutant("no waking for a refresh", "power.py", " and pc[REFRESHING] == 0", ""),
    Mutant("any power-down is active", "power.py", "pc[POWER] = DOWN_PRECHARGED", "pc[POWER] = DOWN_ACTIVE"),
    Mutant("power-down counted at its end", "dram.py", "        settle_power(state, q)", "        pass"),
    Mutant("commands to a sleeping PC", "candidates.py", "powers_down(q) and pc[POWER] != 0", "False", "powered up"),
)
"""Mistakes in what is compiled only with a feature: they run on the cases with features alone."""

ALL = (*MUTANTS, *FEATURE_MUTANTS)

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
    for seed in FEATURE_SEEDS if tree.name >= FIRST_WITH_FEATURES else PLAIN_SEEDS:
        if seed in PLAIN_SEEDS:
            case = dram_cases.random_case(seed, requests=REQUESTS)
        else:
            case = dram_cases.feature_case(seed, dram_cases.FEATURE_SETS[seed % len(dram_cases.FEATURE_SETS)], REQUESTS)
        signal.setitimer(signal.ITIMER_VIRTUAL, 10)  # of processor time: a mutant may tie its lists into knots
        try:
            result = dram_cases.run_kernel(case, int(expected[f"{seed} ticks"]), limit=20_000)
        except (AssertionError, IndexError):  # no progress, or out of its arrays
            caught = seed
            break
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        fields = ("log", "counts", "job_done")
        if not all(np.array_equal(getattr(result, field), expected[f"{seed} {field}"]) for field in fields):
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
    for seed in (*PLAIN_SEEDS, *FEATURE_SEEDS):
        case = case_of(seed)
        oracle = run_oracle(case)
        assert differences(case, run_kernel(case, oracle.ticks), oracle) == []
        fields = ("ticks", "log", "counts", "job_done")
        expected |= {f"{seed} {field}": np.asarray(getattr(oracle, field)) for field in fields}
        expected[f"{seed} counts"] = oracle.counts
    np.savez(work / "expected.npz", **expected)
    for k, mutant in enumerate(ALL):
        plant(mutant, work / f"mutant_{k:02d}")
    program = (
        f"PLAIN_SEEDS, FEATURE_SEEDS = {PLAIN_SEEDS}, {FEATURE_SEEDS}\nREQUESTS = {REQUESTS}\n"
        f"FIRST_WITH_FEATURES = 'mutant_{len(MUTANTS):02d}'\n" + RUN_MUTANTS
    )
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT / "tests")}
    ran = subprocess.run([sys.executable, "-c", program, work], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = {}
    for k, mutant in enumerate(ALL):
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


@pytest.mark.parametrize("mutant", ALL, ids=[mutant.name for mutant in ALL])
def test_mutant_is_caught(mutant: Mutant, outcomes: dict[str, tuple[int, np.ndarray]]) -> None:
    seed, log = outcomes[mutant.name]
    assert seed >= 0, "the oracle agrees with it"
    if mutant.rule:
        timing = case_of(seed).timing
        rules = {violation.rule for violation in check_commands(timing, log)}
        assert any(rule.startswith(mutant.rule) for rule in rules), rules

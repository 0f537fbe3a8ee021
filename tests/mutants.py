"""Mistakes planted in the DRAM kernel, and the cases that should give each away."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from dram_cases import FEATURE_SETS, Case, feature_case, random_case, refresh_choice_case

REQUESTS = 60


class Cases(Enum):
    """Which random cases a mutant runs on."""

    PLAIN = "plain"  # the default policies
    FRONT = "front"  # schedulers, page policies, the answering write queue
    REFRESH = "refresh"  # refreshes that wait, come early and go out of turn, all the time
    FEATURES = "features"  # refresh choice, same-bank refresh, shared bus, power-down

    @property
    def seeds(self) -> range:
        return {
            Cases.PLAIN: range(24),
            Cases.FRONT: range(56),
            Cases.REFRESH: range(6),
            Cases.FEATURES: range(24, 64),
        }[self]

    def case(self, seed: int) -> Case:
        if self is Cases.REFRESH:
            return refresh_choice_case(seed)
        if self is Cases.FEATURES:
            return feature_case(seed, FEATURE_SETS[seed % len(FEATURE_SETS)], requests=REQUESTS)
        return random_case(seed, requests=REQUESTS, front=self is Cases.FRONT)


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    rule: str = ""  # the checker's name of the rule that it breaks
    cases: Cases = Cases.PLAIN


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
        "bank // banks_per_sid * banks_per_sid + bank % q.bank_groups",
        "bank % q.bank_groups",
        "tCCDL",
    ),
    Mutant("one stack ID", "channel.py", "= bank // banks_per_sid\n", "= 0\n"),
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
        "return rising_edge(q, max(earliest, max(awake(pc, q, now), state[ROW_BUS_FREE])))",
        "return max(earliest, max(awake(pc, q, now), state[ROW_BUS_FREE]))",
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
        "pc[DUE] = state[0] + interval",
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
        Mutant(name, file, old, new, cases=Cases.FRONT)
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
            ("a held bank is served in order", "order.py", "is_held(pc, q, bank) or is_blocked", "is_blocked"),
            ("unused since ACT", "policies.py", "+= 1\n    pc[UNUSED_AT + bank] = now + q.page_timeout", "+= 1"),
            ("rows that writes want are closed", "order.py", "for o in (bank, MAX_BANKS + bank):", "for o in (bank,):"),
            ("answers take no time", "policies.py", "complete = now + q.forward_ticks", "complete = now"),
            ("a write of the bank answers", "policies.py", "and pc[ENTRY_ADDRESS + entry] != address", "and False"),
            ("only writes are answered", "policies.py", "answers == 0 or", "answers == 0 or w == 0 or"),
            ("one histogram for both", "policies.py", "HISTOGRAM + w * BUCKETS", "HISTOGRAM"),
        )
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
    Mutant("rotation forgotten", "refresh_choice.py", "pc[REFRESHED + unit] = 1", "pass", "refresh rotation"),
    Mutant(
        "no rest before an early refresh", "refresh_choice.py", "pc[EMPTY_SINCE] + q.refresh_idle", "pc[EMPTY_SINCE]"
    ),
    Mutant("no tXP", "power.py", "max(q.tXP, 1)", "1", "tXP"),
    Mutant("asleep while data come", "power.py", "max(pc[PDE_OK], pc[AWAKE_AT])", "pc[AWAKE_AT]", "read before PDE"),
    Mutant("asleep too soon", "power.py", "pc[EMPTY_SINCE] + q.power_down_after", "pc[EMPTY_SINCE]"),
    Mutant("no waking for a refresh", "power.py", " and pc[REFRESHING] == 0", ""),
    Mutant("any power-down is active", "power.py", "pc[POWER] = DOWN_PRECHARGED", "pc[POWER] = DOWN_ACTIVE"),
    Mutant("power-down counted at its end", "dram.py", "        settle_power(state, q)", "        pass"),
    Mutant("commands to a sleeping PC", "candidates.py", "powers_down(q) and pc[POWER] != 0", "False", "powered up"),
)
"""Mistakes in what is compiled only with a feature."""

REFRESH_MUTANTS = (
    Mutant("in the middle of a row", "refresh_choice.py", "rested_at = pc[LAST_USE + unit] + q.tRC", "rested_at = 0"),
    Mutant("wanted by reads alone", "refresh_choice.py", " or pc[HEAD + MAX_BANKS + bank] < LIST_END", ""),
    Mutant("postponed for ever", "refresh_choice.py", "forced_at = pc[DUE] + q.refresh_postpone", "forced_at = NEVER"),
    Mutant("never postponed", "refresh_choice.py", "forced_at = pc[DUE] + q.refresh_postpone", "forced_at = pc[DUE]"),
    Mutant(
        "early while queued",
        "refresh_choice.py",
        "max(pc[DUE] - q.refresh_pull_in, pc[EMPTY_SINCE] + q.refresh_idle)",
        "pc[DUE] - q.refresh_pull_in",
    ),
    Mutant("a departure wakes no refresh", "refresh_choice.py", "pc[LOOK_AT] = now", "pass"),
    Mutant("refresh from due on", "refresh.py", "pc[REFRESH_BEGIN] = now", "pc[REFRESH_BEGIN] = pc[DUE]"),
    Mutant(
        "no tCKE after PDE",
        "power.py",
        "pc[POWER_COUNTED] = now\n        pc[POWER_CHANGE_OK] = now + q.tCKE",
        "pc[POWER_COUNTED] = now",
        "tCKE down",
    ),
)
"""Mistakes that only cases show in which refreshes and power-downs are frequent."""

ALL = (
    *MUTANTS,
    *(mutant._replace(cases=Cases.FEATURES) for mutant in FEATURE_MUTANTS),
    *(mutant._replace(cases=Cases.REFRESH) for mutant in REFRESH_MUTANTS),
)

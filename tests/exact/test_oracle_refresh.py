"""Refresh and power-down of the oracle, where a pencil is enough, and what per-bank refresh costs a stream."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from dram_cases import run_oracle, small_policy_case
from plain_python import plant, run_plain_python

from archsim.config.loading import data_root, load_spec
from archsim.kernels.oracle import OracleResult, OracleStream, run_streams
from archsim.kernels.timing import Command, Count, DramTiming, LogField, RefreshMode, RefreshOrder
from archsim.memory.checker import check_commands
from archsim.memory.standard import ControllerSpec, DramStandard

PRESETS = ("hbm2e_16gb_8hi", "hbm3_16gb_8hi", "hbm3_16gb_8hi_5230", "hbm3e_24gb_8hi")
NOTHING = np.zeros(0, np.int64)
SAME_BANK = {"refresh_mode": int(RefreshMode.SAME_BANK), "tRFCsb": 416, "tREFIsb": 1560}  # 130 ns, tREFI / 8
UNWANTED = int(RefreshOrder.UNWANTED_FIRST)


def standard(preset: str) -> DramStandard:
    return load_spec(data_root() / "hwconfigs" / "memory" / f"{preset}.yaml", DramStandard).spec


HBM3 = standard("hbm3_16gb_8hi")


def timing(refresh: str, **changes: int) -> DramTiming:
    return HBM3.timing(ControllerSpec(refresh=refresh))._replace(**changes)


def run(table: DramTiming, requests: list[tuple[int, int]], until: int = 0) -> OracleResult:
    """Reads (address, arrival) of pseudo-channel 0; pseudo-channel 1 idles. The log must be clean."""
    address, arrival = (np.array([request[k] for request in requests], np.int64) for k in range(2))
    stream = OracleStream([address, NOTHING], arrivals=[arrival, NOTHING])
    tables = HBM3.address_tables(ControllerSpec())
    result = run_streams(table, tables.bank, [stream], log=True, column_table=tables.column, run_until=until)
    assert check_commands(table, result.log) == []
    return result


def ticks_of(result: OracleResult, command: Command, pc: int = 0) -> list[int]:
    log = result.log
    return log[(log[:, LogField.COMMAND] == command) & (log[:, LogField.PSEUDO_CHANNEL] == pc), LogField.TICK].tolist()


def busy_until(end: int) -> list[tuple[int, int]]:
    """Reads of one bank, a row each, so that something is queued in every tick up to about `end`."""
    row_set = HBM3.organisation.row_set
    return [(row_set * k, 0) for k in range(end // timing("none").tRC)]


# ---- postponed and early refreshes -----------------------------------------------------------------------------------


def test_a_refresh_waits_until_the_debt_is_full_and_is_paid_back_when_idle() -> None:
    intervals = 3
    t = timing("all_bank")
    t = t._replace(refresh_postpone=intervals * t.tREFI)
    requests = busy_until(5 * t.tREFI)
    result = run(t, requests, until=8 * t.tREFI)
    refreshes = np.array(ticks_of(result, Command.REFAB))
    forced = (1 + intervals) * t.tREFI
    assert forced <= refreshes[0] < forced + t.tRC + t.tRP
    last = int(result.issued.max())
    paid = refreshes[refreshes > last][: intervals + 1]
    assert paid[0] - last <= t.tRTP + t.tRP + t.tRAS
    assert np.diff(paid)[: intervals - 1].tolist() == [t.tRFCab] * (intervals - 1)
    assert len(refreshes) == 7  # the eighth falls due at the tick after the last


def test_refreshes_come_early_while_nothing_is_queued() -> None:
    """Back to back from the idle time on until eight are in advance, then one per interval."""
    t = timing("all_bank", refresh_idle=100)
    t = t._replace(refresh_pull_in=8 * t.tREFI)
    result = run(t, [(0, 9 * t.tREFI)], until=10)
    refreshes = ticks_of(result, Command.REFAB)
    assert refreshes[:8] == [100 + k * t.tRFCab for k in range(8)]
    assert refreshes[8:10] == [t.tREFI, 2 * t.tREFI]


def test_a_refresh_that_has_begun_early_is_finished() -> None:
    t = timing("all_bank", refresh_idle=100)
    t = t._replace(refresh_pull_in=t.tREFI)
    result = run(t, [(0, 101)])
    assert result.issued[0] == 100 + t.tRFCab + t.tRCDRD


# ---- same-bank refresh -----------------------------------------------------------------------------------------------


def test_same_bank_refresh_takes_one_bank_of_every_group_in_turn() -> None:
    t = timing("none", **SAME_BANK)
    result = run(t, [(0, 20 * t.tREFIsb + 1)])
    log = result.log[(result.log[:, LogField.COMMAND] == Command.REFSB) & (result.log[:, LogField.PSEUDO_CHANNEL] == 0)]
    assert log[:, LogField.TICK].tolist() == [t.tREFIsb * k for k in range(1, 21)]
    units = t.stack_ids * t.banks_per_group
    turn = np.arange(20) % units
    assert log[:, LogField.STACK_ID].tolist() == (turn // t.banks_per_group).tolist()
    assert log[:, LogField.BANK].tolist() == (turn % t.banks_per_group).tolist()
    assert (log[:, LogField.BANK_GROUP] == -1).all()


def test_same_bank_refresh_holds_its_banks_and_no_others() -> None:
    """Bank 0 of all groups is refreshed at the first interval: a read of it waits tRFCsb, one of bank 1 only tRREFD.

    The banks are taken in turn, and bank 0 although it is wanted."""
    t = timing("none", **SAME_BANK, refresh_order=int(RefreshOrder.IN_TURN))
    other_bank = t.bank_groups * t.columns
    due = t.tREFIsb
    assert run(t, [(1, due)]).issued[0] == due + t.tRFCsb + t.tRCDRD
    assert run(t, [(other_bank, due)]).issued[0] == due + t.tRREFD + t.tRCDRD


def test_a_same_bank_refresh_closes_its_rows_first() -> None:
    t = timing("none", **SAME_BANK)
    result = run(t, [(0, 0), (1, 0), (2, 0)], until=t.tREFIsb + 200)
    assert result.counts[Count.PRE] == 3
    assert ticks_of(result, Command.REFSB) == [t.tREFIsb + 2 * t.tPPD + t.tRP]


# ---- out of order ----------------------------------------------------------------------------------------------------


def test_the_last_used_bank_that_nothing_wants_is_refreshed_first() -> None:
    t = timing("per_bank", refresh_order=UNWANTED)
    due = t.tREFIpb
    bank_1, bank_2 = 1, 2
    reads = [(bank_2, 0), (bank_1, 100), (0, due - 5), (3, due - 4)]
    log = run(t, reads, until=2 * due).log
    first = log[(log[:, LogField.COMMAND] == Command.REFPB) & (log[:, LogField.PSEUDO_CHANNEL] == 0)][0]
    assert (first[LogField.BANK_GROUP], first[LogField.BANK], first[LogField.STACK_ID]) == (1, 0, 0)


def test_every_bank_has_its_turn_within_a_rotation() -> None:
    t = timing("per_bank", refresh_order=UNWANTED)
    banks = t.stack_ids * t.bank_groups * t.banks_per_group
    log = run(t, busy_until(3 * banks * t.tREFIpb)).log
    mine = log[(log[:, LogField.COMMAND] == Command.REFPB) & (log[:, LogField.PSEUDO_CHANNEL] == 0)]
    place = mine[:, LogField.STACK_ID : LogField.BANK + 1]
    for rotation in range(2):
        assert len(np.unique(place[rotation * banks : (rotation + 1) * banks], axis=0)) == banks


def stream_end(preset: str, refresh: str, order: str, read_queue: int, data_rate: int = 0) -> int:
    part = standard(preset)
    if data_rate:
        part = part.model_copy(update={"data_rate": data_rate})
    controller = ControllerSpec(refresh=refresh, refresh_order=order, read_queue=read_queue)
    streams = [
        OracleStream([np.arange(5000)] * 2),
        OracleStream([(1 << 21) + np.arange(1250)] * 2, write=True),
    ]
    result = run_streams(part.timing(controller), part.address_tables(controller).bank, streams)
    return int(result.done.max())


@pytest.mark.parametrize("read_queue", [8, 32])
@pytest.mark.parametrize(("preset", "data_rate"), [*((preset, 0) for preset in PRESETS), (PRESETS[-1], 7_812_500_000)])
def test_per_bank_refresh_is_no_slower_than_all_bank_refresh(preset: str, data_rate: int, read_queue: int) -> None:
    """A stream of reads with one of writes beside it. The last case is HBM3E as fast as B200's."""
    all_bank = stream_end(preset, "all_bank", "in_turn", read_queue, data_rate)
    per_bank = stream_end(preset, "per_bank", "unwanted_first", read_queue, data_rate)
    assert per_bank <= all_bank


# ---- power-down ------------------------------------------------------------------------------------------------------

POWER = {"power_down_after": 50, "tCKE": 16, "tXP": 12}


def test_an_idle_pseudo_channel_powers_down_and_wakes_for_a_request() -> None:
    t = timing("none", **POWER)
    arrival = 2000
    result = run(t, [(0, 0), (4, arrival)])
    read = t.tRCDRD
    down = 2 * -(-(read + 1 + t.power_down_after) // 2)
    assert ticks_of(result, Command.PDE) == [down]
    assert ticks_of(result, Command.PDX) == [arrival]
    assert result.issued[1] == arrival + t.tXP
    assert result.counts[Count.POWER_DOWN_ACTIVE] == arrival - down
    assert ticks_of(result, Command.PDE, pc=1) == [50]
    assert result.counts[Count.POWER_DOWN_PRECHARGED] == result.ticks - 50


def test_with_closed_pages_it_is_precharge_power_down() -> None:
    t = timing("none", **POWER | {"power_down_after": 200}, page_timeout=0)
    result = run(t, [(0, 0), (4, 2000)])
    assert result.counts[Count.POWER_DOWN_ACTIVE] == 0
    assert result.counts[Count.POWER_DOWN_PRECHARGED] > 2 * 1500


def test_power_down_waits_for_the_data_and_lasts_tcke() -> None:
    t = timing("none", **POWER | {"power_down_after": 1})
    down = t.tRCDRD + t.tCL + t.tBL
    result = run(t, [(0, 0), (4, down + 1)])
    assert ticks_of(result, Command.PDE)[-1] >= down
    assert down in ticks_of(result, Command.PDE)
    assert down + t.tCKE in ticks_of(result, Command.PDX)
    assert result.issued[1] == down + t.tCKE + t.tXP


@pytest.mark.parametrize("refresh", ["all_bank", "per_bank"])
def test_power_down_is_left_for_each_refresh(refresh: str) -> None:
    t = timing(refresh, **POWER)
    interval = t.tREFI if refresh == "all_bank" else t.tREFIpb
    result = run(t, [(0, 4 * interval)])
    command = Command.REFAB if refresh == "all_bank" else Command.REFPB
    wakes = ticks_of(result, Command.PDX)
    assert wakes[:3] == [interval, 2 * interval, 3 * interval]
    assert ticks_of(result, command)[:3] == [wake + t.tXP for wake in wakes[:3]]


# ---- mistakes planted in the oracle are found by the checker ---------------------------------------------------------


SEEDS = range(4)


class Mutant(NamedTuple):
    file: str
    old: str
    new: str
    rule: str  # the checker's name of the rule that it breaks


MUTANTS = (
    Mutant("oracle_state.py", "max(timing.tXP, 1)", "1", "tXP"),
    Mutant("oracle_refresh.py", "not wanted or t - channel.power_changed[pc] < timing.tCKE", "not wanted", "tCKE down"),
    Mutant("oracle_refresh.py", "< timing.tCL + timing.tBL", "< 1", "read before PDE"),
    Mutant("oracle_refresh.py", "timing.tCWL + timing.tBL + timing.tWR", "1", "write before PDE"),
    Mutant("oracle_state.py", "max(timing.tCCDL, timing.tCCDLW) if write", "timing.tCCDL if write", "tCCDLW"),
    Mutant(
        "oracle_state.py", "timing.shared_command_bus and t - channel.column", "t < 0 and t - channel.column", "shared"
    ),
    Mutant("oracle_state.py", "timing.shared_command_bus and t - channel.row", "t < 0 and t - channel.row", "shared"),
    Mutant("oracle_state.py", "return timing.tRFCsb if timing", "return 1 if timing", "tRFCsb"),
    Mutant("oracle_refresh.py", "channel.refreshed_units[pc, unit] = 1", "pass", "refresh rotation"),
)

RUN_MUTANTS = """
import sys
from pathlib import Path
import numpy as np
for tree in sorted(Path(sys.argv[1]).glob("mutant_*")):
    for name in [name for name in sys.modules if name.startswith(("archsim", "dram_cases"))]:
        del sys.modules[name]
    sys.path.insert(0, str(tree))
    import dram_cases
    logs = {str(seed): dram_cases.run_oracle(dram_cases.small_policy_case(seed), 800).log for seed in SEEDS}
    np.savez(tree / "logs.npz", **logs)
    sys.path.pop(0)
"""


@pytest.fixture(scope="module")
def mutant_logs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[int, np.ndarray]]:
    """By number of the mutant: the command log of each seed."""
    work = tmp_path_factory.mktemp("oracle_mutants")
    trees = [work / f"mutant_{k:02d}" for k in range(len(MUTANTS))]
    for mutant, tree in zip(MUTANTS, trees, strict=True):
        plant(mutant, tree)
    program = f"SEEDS = {list(SEEDS)}\n" + RUN_MUTANTS
    run_plain_python(program, work)
    logs = []
    for tree in trees:
        with np.load(tree / "logs.npz") as saved:
            logs.append({seed: saved[str(seed)] for seed in SEEDS})
    return logs


def rules_broken(seed: int, log: np.ndarray) -> set[str]:
    return {violation.rule for violation in check_commands(small_policy_case(seed).timing, log)}


@pytest.mark.parametrize("number", range(len(MUTANTS)), ids=[f"{mutant.rule}: {mutant.old}" for mutant in MUTANTS])
def test_a_mistake_in_the_oracle_breaks_a_rule(number: int, mutant_logs: list[dict[int, np.ndarray]]) -> None:
    broken = set().union(*(rules_broken(seed, log) for seed, log in mutant_logs[number].items()))
    assert any(rule.startswith(MUTANTS[number].rule) for rule in broken), broken


@pytest.mark.parametrize("seed", SEEDS)
def test_the_oracle_without_a_mistake_breaks_none(seed: int) -> None:
    assert rules_broken(seed, run_oracle(small_policy_case(seed), 800).log) == set()

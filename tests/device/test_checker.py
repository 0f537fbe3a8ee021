"""The checker finds a violation of every rule when one command moves by one tick, and none in a log that is right."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from archsim.config.loading import data_root, load_spec
from archsim.kernels.oracle import Trace, run_oracle
from archsim.kernels.timing import Command, DramTiming, RefreshMode
from archsim.memory.checker import (
    MOST_OVERDUE_INTERVALS,
    RULES,
    STATE_RULES,
    WHOLE_PC,
    Rule,
    Scope,
    bound_rules,
    check_commands,
)
from archsim.memory.standard import ControllerSpec, DramStandard

ACT, PRE, PREAB, RD, WR, REFAB, REFPB, REFSB, PDE, PDX = Command

# Every distance one tick, so that the one under test stands out.
LOOSE = DramTiming(**dict.fromkeys(DramTiming._fields, 1))._replace(
    pseudo_channels=2, stack_ids=2, bank_groups=2, banks_per_group=2, refresh_mode=0, refresh_stagger=0, tCWL=0, tBL=0,
    tCL=0, **DramTiming._field_defaults,
)  # fmt: skip
FAR = 50
SETTLED = 1000  # after the rows are open, long enough for every distance

Place = tuple[int, int, int, int]  # pseudo-channel, stack ID, bank group, bank
HOME: Place = (0, 0, 0, 0)
NEIGHBOUR: dict[Scope, Place] = {
    Scope.BANK: HOME,
    Scope.GROUP: (0, 0, 0, 1),
    Scope.OTHER_GROUP: (0, 0, 1, 0),
    Scope.OTHER_STACK_ID: (0, 1, 0, 0),
    Scope.PSEUDO_CHANNEL: (0, 0, 1, 1),
    Scope.CHANNEL: (1, 0, 0, 0),
    Scope.STACK_ID: (0, 0, 0, 1),
}


@dataclass
class LogBuilder:
    entries: list[tuple[int, ...]] = field(default_factory=list)

    def add(self, tick: int, command: Command, place: Place, row: int = 7) -> None:
        pc, stack, group, bank = (place[0], -1, -1, -1) if command in WHOLE_PC else place
        group = -1 if command == REFSB else group
        column = 3 if command in (RD, WR) else -1
        self.entries.append((tick, command, pc, stack, group, bank, row if command in (ACT, RD, WR) else -1, column))

    def log(self) -> np.ndarray:
        return np.array(sorted(self.entries), np.int64).reshape(-1, 8)


def plant(rule: Rule, before: Command, after: Command, distance: int) -> np.ndarray:
    """`after` comes `distance` ticks after `before`, in places that the rule binds, with rows as both need them."""
    other = NEIGHBOUR[rule.scope]
    builder = LogBuilder()
    start = SETTLED
    if before in (RD, WR, PRE, PREAB):
        builder.add(0, ACT, HOME)
    if other != HOME and after in (RD, WR, PRE, PREAB) and not (after == PREAB and before != PREAB):
        builder.add(5, ACT, other)
    for k in range(rule.nth):
        place = (0, k // 4 % 2, k // 2 % 2, k % 2)
        builder.add(start + k * FAR // 5, before, HOME if rule.nth == 1 else place)
    if other == HOME and before == ACT and after in (ACT, REFAB, REFPB, REFSB):
        builder.add(start + FAR // 2, PRE, HOME)  # the row must be closed again
    if rule.nth > 1:
        other = (0, 1, 1, 1)
    if before == PDX:
        builder.add(start // 2, PDE, HOME)
    if after == PDX and (before, other[0]) != (PDE, HOME[0]):
        builder.add(start // 2 + FAR, PDE, other)
    builder.add(start + distance, after, other)
    return builder.log()


def far(rule: Rule) -> DramTiming:
    """Timings in which `rule` alone is long."""
    return LOOSE._replace(**{rule.distance[-1]: FAR}, **({rule.switch: 1} if rule.switch else {}))


def planted_cases() -> list[tuple[Rule, Command, Command]]:
    return [(rule, before, after) for rule in RULES for before in rule.before for after in rule.after]


@pytest.mark.parametrize(("rule", "before", "after"), planted_cases(), ids=lambda value: getattr(value, "name", None))
def test_one_tick_too_early_is_found_and_on_time_is_not(rule: Rule, before: Command, after: Command) -> None:
    timing = far(rule)
    distance = rule.ticks(timing)
    assert distance == FAR
    assert check_commands(timing, plant(rule, before, after, distance)) == []
    early = check_commands(timing, plant(rule, before, after, distance - 1))
    assert [violation.rule for violation in early] == [rule.name]
    assert (early[0].found, early[0].needed) == (distance - 1, distance)
    assert early[0].before is not None
    assert (early[0].before.command, early[0].after.command) == (before, after)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.scope not in (Scope.PSEUDO_CHANNEL, Scope.CHANNEL)])
def test_a_rule_binds_only_its_scope(rule: Rule) -> None:
    """The same pair, outside the scope, may be close: on the other pseudo-channel."""
    timing = far(rule)
    before, after = rule.before[0], rule.after[0]
    builder = LogBuilder()
    elsewhere = (1, 0, 0, 0)
    if before in (RD, WR, PRE):
        builder.add(0, ACT, HOME)
    if after in (RD, WR, PRE):
        builder.add(5, ACT, elsewhere)
    builder.add(SETTLED, before, HOME)
    builder.add(SETTLED + 1, after, elsewhere)
    assert check_commands(timing, builder.log()) == []


def test_every_rule_has_its_distance() -> None:
    distances = dict(bound_rules(LOOSE._replace(tCWL=20, tBL=4, tWTRL=14)))
    assert len(distances) == len(RULES) == len({rule.name for rule in RULES})
    assert distances[next(rule for rule in RULES if rule.name == "tWTRL")] == 38


def only_rule(timing: DramTiming, builder: LogBuilder) -> str:
    violations = check_commands(timing, builder.log())
    assert len(violations) == 1, [str(violation) for violation in violations]
    assert violations[0].rule in STATE_RULES
    return violations[0].rule


def test_column_command_needs_its_own_row_open() -> None:
    closed, wrong_row = LogBuilder(), LogBuilder()
    closed.add(10, RD, HOME)
    assert only_rule(LOOSE, closed) == "open row"
    wrong_row.add(0, ACT, HOME, row=1)
    wrong_row.add(10, WR, HOME, row=2)
    assert only_rule(LOOSE, wrong_row) == "open row"


def test_activate_needs_a_closed_bank() -> None:
    builder = LogBuilder()
    builder.add(0, ACT, HOME)
    builder.add(100, ACT, HOME)
    assert only_rule(LOOSE, builder) == "closed bank"


@pytest.mark.parametrize("refresh", [REFAB, REFPB])
def test_refresh_needs_closed_banks(refresh: Command) -> None:
    builder = LogBuilder()
    builder.add(0, ACT, HOME)
    builder.add(100, refresh, HOME)
    assert only_rule(LOOSE, builder) == "closed for refresh"


def test_per_bank_refresh_leaves_other_banks_open() -> None:
    builder = LogBuilder()
    builder.add(0, ACT, HOME)
    builder.add(100, REFPB, (0, 0, 1, 0))
    assert check_commands(LOOSE, builder.log()) == []


def test_same_bank_refresh_takes_the_bank_of_every_group() -> None:
    """The bank in the other group must be closed; another bank of the group and another stack ID may be open."""
    builder, open_group = LogBuilder(), LogBuilder()
    for place in ((0, 0, 1, 1), (0, 1, 0, 0)):
        builder.add(place[1] * FAR, ACT, place)
    builder.add(200, REFSB, HOME)
    assert check_commands(LOOSE, builder.log()) == []
    open_group.add(0, ACT, (0, 0, 1, 0))
    open_group.add(200, REFSB, HOME)
    assert only_rule(LOOSE, open_group) == "closed for refresh"


def test_same_bank_refresh_delays_only_its_own_stack_id() -> None:
    timing = LOOSE._replace(tRFCsb=FAR)
    builder = LogBuilder()
    builder.add(100, REFSB, HOME)
    builder.add(110, REFSB, (0, 1, 0, 0))
    builder.add(120, ACT, (0, 0, 1, 1))  # the other bank of the same stack ID
    assert check_commands(timing, builder.log()) == []


def test_a_pseudo_channel_in_power_down_takes_no_command() -> None:
    asleep, awake = LogBuilder(), LogBuilder()
    asleep.add(100, PDE, HOME)
    asleep.add(200, ACT, HOME)
    assert only_rule(LOOSE, asleep) == "powered up"
    awake.add(100, PDX, HOME)
    assert only_rule(LOOSE, awake) == "powered up"
    elsewhere = LogBuilder()
    elsewhere.add(100, PDE, HOME)
    elsewhere.add(200, ACT, NEIGHBOUR[Scope.CHANNEL])
    assert check_commands(LOOSE, elsewhere.log()) == []


@pytest.mark.parametrize("command", [ACT, RD, WR, REFAB, REFPB, REFSB, PDE])
def test_only_precharges_start_on_a_falling_edge(command: Command) -> None:
    builder = LogBuilder()
    place = NEIGHBOUR[Scope.CHANNEL]
    if command in (RD, WR):
        builder.add(0, ACT, place)
    builder.add(101, command, place)
    assert only_rule(LOOSE._replace(ticks_per_ck=2), builder) == "rising edge"


def test_precharges_may_start_on_a_falling_edge() -> None:
    builder = LogBuilder()
    builder.add(0, ACT, HOME)
    builder.add(101, PRE, HOME)
    builder.add(103, PREAB, HOME)
    assert check_commands(LOOSE._replace(ticks_per_ck=2), builder.log()) == []


def test_ticks_may_not_decrease() -> None:
    log = np.array([(100, ACT, 0, 0, 0, 0, 1, -1), (99, ACT, 1, 0, 0, 0, 1, -1)], np.int64)
    assert "order" in [violation.rule for violation in check_commands(LOOSE, log)]


def test_per_bank_refresh_comes_to_each_bank_in_turn() -> None:
    timing = LOOSE._replace(refresh_mode=int(RefreshMode.PER_BANK), tREFI=10_000, tREFIpb=1000)
    builder = LogBuilder()
    builder.add(1000, REFPB, HOME)
    builder.add(2000, REFPB, HOME)
    assert only_rule(timing, builder) == "refresh rotation"


@pytest.mark.parametrize(("late", "is_found"), [(0, False), (1, True)])
def test_a_refresh_may_be_overdue_by_nine_intervals(late: int, is_found: bool) -> None:
    timing = LOOSE._replace(refresh_mode=int(RefreshMode.ALL_BANK), tREFI=100, pseudo_channels=1)
    builder = LogBuilder()
    builder.add(100 + MOST_OVERDUE_INTERVALS * 100 + late, REFAB, HOME)
    assert bool(check_commands(timing, builder.log())) == is_found


@pytest.mark.parametrize(("early", "is_found"), [(0, False), (1, True)])
def test_eight_refreshes_may_come_in_advance(early: int, is_found: bool) -> None:
    timing = LOOSE._replace(refresh_mode=int(RefreshMode.ALL_BANK), tREFI=100, pseudo_channels=1)
    builder = LogBuilder()
    for k in range(9):  # the ninth is due at tick 900
        builder.add(91 + k if k < 8 else 100 - early, REFAB, HOME)
    assert [violation.rule for violation in check_commands(timing, builder.log())] == ["refresh early"] * is_found


def test_a_log_without_any_refresh_is_overdue() -> None:
    timing = LOOSE._replace(refresh_mode=int(RefreshMode.PER_BANK), tREFI=100, tREFIpb=10, pseudo_channels=1)
    builder = LogBuilder()
    builder.add(911, ACT, HOME)
    assert only_rule(timing, builder) == "refresh overdue"


def test_an_entry_that_is_no_command_is_refused() -> None:
    for entry in [(0, len(Command), 0, 0, 0, 0, 1, -1), (0, ACT, 2, 0, 0, 0, 1, -1), (0, ACT, 0, 0, 2, 0, 1, -1)]:
        with pytest.raises(ValueError, match="entry 0"):
            check_commands(LOOSE, np.array([entry], np.int64))


def test_a_violation_reads_as_a_sentence() -> None:
    rule = next(rule for rule in RULES if rule.name == "tRCDRD")
    timing = LOOSE._replace(tRCDRD=FAR)
    (violation,) = check_commands(timing, plant(rule, ACT, RD, FAR - 1))
    assert str(violation) == (
        "tRCDRD: RD at tick 1049 (PC 0, SID 0 BG 0 bank 0, row 7; entry 1) "
        "after ACT at tick 1000 (PC 0, SID 0 BG 0 bank 0, row 7; entry 0): found 49, needed 50"
    )


# ---- logs of the oracle ----------------------------------------------------------------------------------------------

PRESETS = ("hbm3_16gb_8hi", "hbm3e_24gb_8hi")
REQUESTS = 1500  # per pseudo-channel


def preset(name: str, refresh: str) -> tuple[DramStandard, ControllerSpec]:
    standard = load_spec(data_root() / "hwconfigs" / "memory" / f"{name}.yaml", DramStandard).spec
    return standard, ControllerSpec(refresh=refresh)


SAME_BANK = {"refresh_mode": int(RefreshMode.SAME_BANK), "tRFCsb": 416, "tREFIsb": 900}  # DDR5's 130 ns
POWER_DOWN = {"power_down_after": 20, "tCKE": 24, "tXP": 24}
OTHER_BUS = {"shared_command_bus": 1, "tCCDLW": 16}


def oracle_log(name: str, refresh: str, pattern: str, **changes: int) -> tuple[DramTiming, np.ndarray]:
    standard, controller = preset(name, refresh)
    timing, tables = standard.timing(controller)._replace(**changes), standard.address_tables(controller)
    random = np.random.default_rng(7)
    total = REQUESTS * timing.pseudo_channels
    address = np.tile(np.arange(REQUESTS), timing.pseudo_channels)
    write = np.zeros(total, np.int8)
    if pattern != "stream":
        address = random.integers(0, 1 << (11 if pattern == "hot" else 23), total)
    if pattern in ("mixed", "hot", "sparse"):
        write = (random.random(total) < 1 / 3).astype(np.int8)
    span = 200_000 if pattern == "sparse" else 20_000
    arrival = np.sort(random.integers(0, span, (timing.pseudo_channels, REQUESTS)), axis=1).reshape(-1)
    offsets = np.arange(timing.pseudo_channels + 1) * REQUESTS
    trace = Trace(address, write, arrival if pattern in ("hot", "sparse") else np.zeros(total, np.int64), offsets)
    result = run_oracle(timing, tables.bank, trace, log=True, column_table=tables.column)
    assert (result.done >= 0).all()
    return timing, result.log


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("refresh", ["none", "all_bank", "per_bank"])
@pytest.mark.parametrize("pattern", ["stream", "random", "mixed", "hot"])
def test_logs_of_the_policy_are_clean(name: str, refresh: str, pattern: str) -> None:
    timing, log = oracle_log(name, refresh, pattern)
    assert [str(violation) for violation in check_commands(timing, log)] == []


def test_the_policy_uses_every_distance_to_the_tick() -> None:
    """Lengthen one timing by the smallest step: some log of the policy then breaks it. None is kept by luck."""
    logs = [
        oracle_log("hbm3_16gb_8hi", refresh, pattern)
        for refresh in ("none", "all_bank", "per_bank")
        for pattern in ("stream", "random", "mixed")
    ]
    logs += [
        oracle_log("hbm3_16gb_8hi", "none", "random", **SAME_BANK),
        oracle_log("hbm3_16gb_8hi", "none", "sparse", **POWER_DOWN),
        oracle_log("hbm3_16gb_8hi", "none", "mixed", **OTHER_BUS),
    ]
    fields = {name for rule in RULES for name in rule.distance}
    # A precharge may use either edge; what ends in a rising edge can only be a clock too early.
    half_clock = {"tPPD", "tRAS", "tRTP", "tWR", "activate_ticks", "precharge_ticks"}
    slack = []
    for name in sorted(fields):
        step = 1 if name in half_clock else 2
        longer = [timing._replace(**{name: getattr(timing, name) + step}) for timing, _ in logs]
        if not any(check_commands(timing, log, 1) for timing, (_, log) in zip(longer, logs, strict=True)):
            slack.append(name)
    assert slack == []

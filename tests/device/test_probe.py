"""Every distance of every shipped memory, to the tick: earlier the checker objects, later the kernel would waste time.

Where two rules hold for the same pair of commands the longer one hides the other. Which those are follows from the
numbers (`probes.hidden_behind`); `pytest tests/device/test_probe.py -rP -k hides` lists them for each memory.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from probes import PROBES, Issued, Probe, broken, hidden_behind, issue, lower_bounds, plant, rising

from archsim.config.loading import data_root, load_spec
from archsim.kernels.timing import Command, DramTiming, LogField
from archsim.memory.checker import RULES, Rule, Scope, check_commands
from archsim.memory.standard import ControllerSpec, DramStandard, RefreshPolicy, RefreshTurn

pytestmark = pytest.mark.interpreted

PRESETS = sorted((data_root() / "hwconfigs" / "memory").glob("*.yaml"))
BY_PRESET = pytest.mark.parametrize("preset", PRESETS, ids=[preset.stem for preset in PRESETS])
BY_RULE = pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])


@cache
def timing(preset: Path) -> DramTiming:
    """Without refresh: a probe that needs one says when it falls due. Times that a standard has no use for are made up
    of its others, so that every rule is tried on every memory."""
    controller = ControllerSpec(refresh=RefreshPolicy.NONE, refresh_order=RefreshTurn.IN_TURN)
    q = load_spec(preset, DramStandard).spec.timing(controller)
    return q._replace(
        tRFCsb=q.tRFCsb or q.tRFCpb, tCKE=q.tCKE or q.tRP, tXP=q.tXP or max(q.tRP // 4, 1) * q.ticks_per_ck
    )


@cache
def issued(preset: Path, probe: Probe) -> Issued | None:
    return issue(probe, timing(preset))


def probes_of(rule: Rule) -> list[Probe]:
    return [probe for probe in PROBES if probe.rule == rule]


@BY_PRESET
@BY_RULE
def test_the_checker_objects_one_tick_early_and_not_on_time(preset: Path, rule: Rule) -> None:
    for probe in probes_of(rule):
        q = probe.channel(timing(preset))
        log = plant(probe, q)
        if log is None:
            assert has_no_such_banks(rule, q), probe
            continue
        assert [str(violation) for violation in check_commands(q, log)] == []
        bounds = lower_bounds(q, log)
        if rule.name not in bounds:
            assert rule.ticks(q) <= log[-1, LogField.TICK] - nth_last(log, probe), probe  # kept by what came between
            continue
        # Whatever else holds, this rule holds at its own tick and not one earlier.
        log[-1, LogField.TICK] = bounds[rule.name]
        assert rule.name not in broken(q, log), probe
        log[-1, LogField.TICK] -= 1
        assert rule.name in broken(q, log), probe
        others = [tick for name, tick in bounds.items() if name != rule.name]
        if bounds[rule.name] > max(others, default=0):
            assert list(broken(q, log)) == [rule.name], probe


def has_no_such_banks(rule: Rule, q: DramTiming) -> bool:
    """Whether a channel has no two banks that stand as the rule's scope says."""
    return {
        Scope.OTHER_STACK_ID: q.stack_ids == 1,
        Scope.OTHER_GROUP: q.bank_groups == 1,
        Scope.GROUP: q.banks_per_group == 1,
    }.get(rule.scope, False)


def nth_last(log, probe: Probe) -> int:  # type: ignore[no-untyped-def]
    """Tick of the command that the rule counts from."""
    ticks = log[:-1][log[:-1, LogField.COMMAND] == probe.before][:, LogField.TICK]
    return int(ticks[-probe.rule.nth])


@BY_PRESET
@BY_RULE
def test_the_kernel_issues_at_the_first_legal_tick(preset: Path, rule: Rule) -> None:
    for probe in probes_of(rule):
        q = probe.channel(timing(preset))
        result = issued(preset, probe)
        if result is None:
            assert has_no_such_banks(rule, q) or probe.refresh_mode is None, probe
            continue
        assert [str(violation) for violation in check_commands(q, result.log)] == []
        assert result.tick == first_legal(q, probe, result), probe
        if not hidden_behind(probe, q, result):
            early = result.log.copy()
            early[-1, LogField.TICK] = lower_bounds(q, early)[rule.name] - 1
            assert list(broken(q, early)) == [rule.name], probe


def on_no_edge(q: DramTiming, probe: Probe, result: Issued) -> bool:
    """Whether the bound of every rule lies between two edges, so that `after` comes later than all of them ask."""
    return max(lower_bounds(q, result.log).values(), default=0) < result.tick


def first_legal(q: DramTiming, probe: Probe, result: Issued) -> int:
    """The first tick at which `after` is legal and wanted."""
    before = int(result.log[-2, LogField.TICK])
    return rising(q, probe.after, max([before, result.wanted, *lower_bounds(q, result.log).values()]))


@BY_RULE
def test_some_memory_makes_each_rule_the_one_that_counts(rule: Rule) -> None:
    """The kernel waits for this rule and nothing else: on at least one shipped memory none of it is left to luck."""
    assert any(
        (result := issued(preset, probe)) is not None
        and not hidden_behind(probe, probe.channel(timing(preset)), result)
        for preset in PRESETS
        for probe in probes_of(rule)
    )


@BY_PRESET
def test_a_rule_hides_only_behind_others_that_are_as_long(preset: Path) -> None:
    for probe in PROBES:
        q = probe.channel(timing(preset))
        result = issued(preset, probe)
        if result is None:
            print(f"{probe}: no requests make a controller issue this pair")
            continue
        behind = hidden_behind(probe, q, result)
        if not behind:
            continue
        print(f"{probe}: hidden behind {', '.join(behind)}")
        early = result.log.copy()
        early[-1, LogField.TICK] -= 1
        others = broken(q, early).keys() - {probe.rule.name}
        assert others & set(behind) or result.wanted == result.tick or on_no_edge(q, probe, result), probe


@pytest.mark.parametrize("clocks", [-1, 1], ids=["shorter", "longer"])
@BY_RULE
def test_a_kernel_that_is_off_by_a_clock_is_found(rule: Rule, clocks: int) -> None:
    """The probes are sharp: given a table that differs in one distance, the kernel misses the tick in one of them."""
    found, tried = False, False
    for preset in PRESETS:
        q = timing(preset)
        field = rule.distance[-1]
        other = q._replace(**{field: max(0, getattr(q, field) + clocks * q.ticks_per_ck)})
        for probe in probes_of(rule):
            right, wrong = issued(preset, probe), issue(probe, other)
            if right is None or wrong is None or hidden_behind(probe, probe.channel(q), right):
                continue
            tried = True
            found |= wrong.tick != first_legal(probe.channel(q), probe, wrong)
        if found:
            return
    assert tried and found


def test_every_pair_of_every_rule_is_probed() -> None:
    assert len(PROBES) == sum(len(rule.before) * len(rule.after) for rule in RULES)
    assert {probe.before for probe in PROBES} | {probe.after for probe in PROBES} == set(Command)

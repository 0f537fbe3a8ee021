"""What a sweep consists of: axes, zips, conditions, derived values, samples; and what is said about mistakes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsim.config.errors import UserError
from archsim.config.loading import load_mapping
from archsim.sweep.agenda import Agenda
from archsim.sweep.expressions import Expression
from archsim.sweep.space import Space, expand
from archsim.sweep.spec import SweepSpec, as_plain

BATCH, CONTEXT, LIMIT = "workload.batch", "workload.decode.context_tokens", "system.device.power.limit"


def space(folder: Path = Path(), **sweep: Any) -> Space:
    return expand(load_mapping(as_plain(sweep), SweepSpec).spec, folder)


def column(found: Space, name: str) -> list[Any]:
    return [point.values[name] for point in found.points]


def refusal(**sweep: Any) -> str:
    with pytest.raises(UserError) as caught:
        space(**sweep)
    return str(caught.value)


# ---------------------------------------------------------------- axes


def test_every_combination_is_a_point_and_the_last_axis_varies_fastest() -> None:
    found = space(axes={BATCH: [1, 2], CONTEXT: [10, 20, 30]})
    assert [tuple(point.values.values()) for point in found.points] == [
        (1, 10), (1, 20), (1, 30), (2, 10), (2, 20), (2, 30),
    ]  # fmt: skip
    assert found.points[1].overrides == {BATCH: 1, CONTEXT: 20}
    assert found.columns == (BATCH, CONTEXT)


def test_a_range_of_quantities_is_exact_and_keeps_its_unit() -> None:
    found = space(axes={LIMIT: {"from": "0.1 kW", "to": "0.7 kW", "step": "0.1 kW"}})
    assert column(found, LIMIT) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert found.units == {LIMIT: "kW"}
    assert [point.overrides[LIMIT] for point in found.points][2] == "0.3 kW"


def test_a_list_of_quantities_becomes_numbers_in_their_unit() -> None:
    found = space(axes={LIMIT: ["400 W", "550.5 W"]})
    assert column(found, LIMIT) == [400, 550.5]
    assert found.units == {LIMIT: "W"}
    assert space(axes={LIMIT: ["400 W", "0.5 kW"]}).units == {}


def test_a_step_that_does_not_divide_the_range_stops_before_its_end() -> None:
    assert column(space(axes={BATCH: {"from": 1, "to": 10, "step": 4}}), BATCH) == [1, 5, 9]


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        ({"from": 1, "to": 64, "points": 7, "scale": "log"}, [1, 2, 4, 8, 16, 32, 64]),
        ({"from": 1, "to": 4, "points": 10, "scale": "log"}, [1, 2, 3, 4]),  # whole, and equal ones once
        ({"from": 0.5, "to": 1.5, "points": 3}, [0.5, 1, 1.5]),
        ({"from": 1, "to": 10, "points": 4}, [1, 4, 7, 10]),
        ({"from": 500, "to": 1000, "points": 3, "multiple_of": 256}, [512, 768]),
        ({"from": 3, "to": 9, "points": 1}, [3]),
    ],
)
def test_ranges(axis: dict[str, Any], expected: list[float]) -> None:
    assert column(space(axes={"x": axis}), "x") == expected


@given(st.floats(1e-3, 1e6), st.floats(1.0, 1e6), st.integers(2, 40), st.sampled_from(["linear", "log"]))
def test_a_range_has_its_ends_rises_and_is_even(low: float, ratio: float, points: int, scale: str) -> None:
    high = low * max(ratio, 1.5) + 0.5
    values = column(space(axes={"x": {"from": low, "to": high, "points": points, "scale": scale}}), "x")
    assert values[0] == low
    assert values[-1] == high
    assert values == sorted(values)
    if len(values) == points > 2:
        warp = math.log if scale == "log" else float
        steps = np.diff([warp(value) for value in values])
        assert np.allclose(steps, steps.mean(), rtol=1e-2, atol=3e-6 * abs(warp(high)) + 1e-5)


def test_cases_set_several_values_under_one_name() -> None:
    found = space(axes={"hardware": {"cases": {"small": {"system": "h200"}, "limited": {LIMIT: "400 W", BATCH: 2}}}})
    assert column(found, "hardware") == ["small", "limited"]
    assert found.points[1].overrides == {LIMIT: "400 W", BATCH: 2}


def test_values_from_python() -> None:
    found = space(axes={"x": np.array([1.5, 2.5]), "y": range(2), "z": (Path("a"), None)})
    assert len(found.points) == 8
    assert found.points[0].overrides == {"x": 1.5, "y": 0, "z": "a"}


def test_files_beside_the_sweep_are_found(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("{}")
    found = space(tmp_path, axes={"system": ["mine.yaml", "other.yaml"]}, set={"workload.model": "mine.yaml"})
    assert column(found, "system") == ["mine.yaml", "other.yaml"]
    assert [point.overrides["system"] for point in found.points] == [str(tmp_path / "mine.yaml"), "other.yaml"]
    assert found.fixed == {"workload.model": str(tmp_path / "mine.yaml")}


# ---------------------------------------------------------------- zips, conditions, derived values


def test_zipped_axes_go_together() -> None:
    found = space(axes={"a": [1, 2], "b": ["x", "y"], "c": [10, 20]}, zip=[["c", "a"]])
    assert [tuple(point.values.values()) for point in found.points] == [
        (1, "x", 10), (1, "y", 10), (2, "x", 20), (2, "y", 20),
    ]  # fmt: skip


def test_a_conditional_axis_is_varied_only_where_its_condition_holds() -> None:
    found = space(axes={"a": [1, 2, 3], "b": {"values": [7, 8], "when": "a in [2, 3] and not a == 3"}})
    assert [tuple(point.values.values()) for point in found.points] == [(1, None), (2, 7), (2, 8), (3, None)]
    assert found.points[0].overrides == {"a": 1}


def test_derived_values_are_computed_set_and_shown() -> None:
    derived = {
        CONTEXT: "1024 // workload.batch",
        "system.device.power.idle": {"expression": f"0.25 * {LIMIT}", "unit": "W"},
        "half": f"{CONTEXT} / 2",  # of one above it
    }
    found = space(axes={BATCH: [1, 4], LIMIT: ["400 W"]}, derived=derived)
    assert [point.overrides for point in found.points][1] == {
        BATCH: 4,
        LIMIT: "400 W",
        CONTEXT: 256,
        "system.device.power.idle": "100 W",
        "half": 128,
    }
    assert found.units == {LIMIT: "W", "system.device.power.idle": "W"}


def test_where_leaves_points_out() -> None:
    found = space(axes={"a": [1, 2, 3], "b": [1, 2, 3]}, where="1 < a * b <= 3 or a == b == 3")
    assert [tuple(point.values.values()) for point in found.points] == [(1, 2), (1, 3), (2, 1), (3, 1), (3, 3)]


def test_points_that_come_out_equal_are_one() -> None:
    assert len(space(axes={"x": [1, 2, 1, 2]}).points) == 2


# ---------------------------------------------------------------- samples


@pytest.mark.parametrize(("method", "points"), [("sobol", 32), ("latin_hypercube", 30)])
def test_samples_are_spread_evenly_and_repeatable(method: str, points: int) -> None:
    sweep: dict[str, Any] = {
        "axes": {
            "x": {"from": 0.0, "to": 30.0},
            "y": {"from": 1.0, "to": 1e6, "scale": "log"},
            LIMIT: {"from": "100 W", "to": "200 W"},
            "hardware": ["a", "b"],
        },
        "sample": {"method": method, "points": points, "seed": 7},
    }
    found = space(**sweep)
    assert len(found.points) == 2 * points  # crossed with the list
    x, y = np.array(column(found, "x"))[::2], np.log10(column(found, "y"))[::2]
    # A stratum holds one point for each of 30 (Latin hypercube), or 4 in each of 8 (Sobol): exactly, in each axis.
    strata = points if method == "latin_hypercube" else 8
    for shares in (x / 30, y / 6):
        counts = np.bincount(np.minimum(shares * strata, strata - 1).astype(int), minlength=strata)
        assert counts.tolist() == [points // strata] * strata
    assert found.points[0].overrides[LIMIT].endswith(" W")
    assert found == space(**sweep)
    sweep["sample"]["seed"] = 8
    assert found != space(**sweep)


def test_whole_ranges_are_drawn_as_whole_numbers() -> None:
    found = space(axes={BATCH: {"from": 1, "to": 256, "scale": "log"}}, sample={"points": 16})
    assert all(isinstance(value, int) and 1 <= value <= 256 for value in column(found, BATCH))


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"axes": {}}, "there are no axes"),
        ({"axes": {BATCH: []}}, "at least one value"),
        ({"axes": {BATCH: {"from": 1}}}, "a range needs both ends"),
        ({"axes": {BATCH: {"from": 1, "to": 4}}}, "expected points, a step, or a sample"),
        ({"axes": {BATCH: {"from": 4, "to": 1, "points": 3}}}, "ends at 1, before it starts at 4"),
        ({"axes": {BATCH: {"from": 0, "to": 4, "points": 3, "scale": "log"}}}, "can't start at or below zero"),
        ({"axes": {LIMIT: {"from": "1 W", "to": "2 kW", "points": 2}}}, "different units"),
        (
            {"axes": {LIMIT: {"from": "1 W", "to": "2 W", "step": 1}}},
            "the step '1' doesn't fit (expected above zero, in W)",
        ),
        ({"axes": {BATCH: {"from": 1, "to": 2, "points": 2, "scale": "lin"}}}, "expected one of linear, log"),
        ({"axes": {BATCH: {"values": [1], "point": 2}}}, "did you mean 'points'?"),
        ({"axes": {BATCH: {"values": [1], "cases": {"a": {}}}}}, "one of them"),
        ({"axes": {BATCH: [1]}, "zip": [[BATCH, "workload.batc"]]}, "did you mean 'workload.batch'?"),
        ({"axes": {"a": [1], "b": [1, 2]}, "zip": [["a", "b"]]}, "'a' has 1, 'b' has 2"),
        ({"axes": {"a": [1]}, "where": "b > 1"}, "where: 'b > 1' names 'b' (expected a)"),
        ({"axes": {"a": {"values": [1], "when": "b > 1"}, "b": [1]}}, "axes.a.when: 'b > 1' names 'b'"),
        ({"axes": {"a": [1]}, "where": "a > 1"}, "the sweep has no points"),
        ({"axes": {"a": ["x"]}, "where": "a > 1"}, "can't be computed"),
        ({"axes": {"a": [1]}, "where": "a >"}, "'a >' is not an expression"),
        ({"axes": {"a": [1]}, "where": "__import__('os')"}, "can't stand here"),
        ({"axes": {"a": [1]}, "derived": {"a": "1"}}, "is an axis and derived"),
        ({"axes": {"a": [1]}, "sample": {"points": 4}}, "there is nothing to draw"),
        ({"axes": {"a": {"from": 1, "to": 2}}, "sample": {"points": 12}}, "a power of two, such as 8 or 16"),
    ],
)
def test_mistakes_are_named(sweep: dict[str, Any], said: str) -> None:
    assert said in refusal(**sweep)


@given(st.integers(-50, 50), st.integers(-50, 50))
def test_expressions_compute_as_python_does(a: int, b: int) -> None:
    values = {"x.y": a, "b": b}
    text = "(x.y + 2 * b - -3) * (x.y // 7) if x.y < b <= 40 and not x.y == 3 else max(x.y, b, 1) % 5 + abs(b)"
    expected = (a + 2 * b - -3) * (a // 7) if a < b <= 40 and a != 3 else max(a, b, 1) % 5 + abs(b)
    assert Expression(text)(values) == expected


@pytest.mark.parametrize("text", ["().__class__", "x[0]", "lambda: 1", "x.y()", "[i for i in x]", "2 ** 99", "f'{x}'"])
def test_expressions_are_nothing_more(text: str) -> None:
    with pytest.raises(UserError, match="can't stand here"):
        Expression(text)


# ---------------------------------------------------------------- who takes what


def test_workers_keep_to_their_hardware_and_help_when_theirs_is_done() -> None:
    agenda = Agenda(["a"] * 3 + ["b"] * 6)
    assert [agenda.take("first") for _ in range(2)] == [0, 1]
    assert [agenda.take("second") for _ in range(2)] == [3, 4]
    assert agenda.take("first") == 2
    assert agenda.take("first") == 8, "helps from the end"
    assert agenda.take("second") == 5


@given(st.lists(st.sampled_from("abcd"), max_size=40), st.lists(st.sampled_from(["w1", "w2", "w3"]), max_size=60))
def test_every_point_is_taken_once(hardware: list[str], workers: list[str]) -> None:
    agenda = Agenda(hardware)
    taken = [index for worker in [*workers, *["w1"] * len(hardware)] if (index := agenda.take(worker)) is not None]
    assert sorted(taken) == list(range(len(hardware)))
    assert len(agenda) == 0

"""Pareto fronts against brute force, and what may be asked of a sweep's table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from archsim.config.errors import UserError
from archsim.sweep.frame import SweepFrame, as_frame, open_sweep, short_names
from archsim.sweep.pareto import non_dominated
from archsim.sweep.table import as_parquet

# Few distinct values, so that ties abound; NaN for what has no result; infinities, since nothing forbids them.
NUMBER = st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.5, math.inf, -math.inf, math.nan]) | st.floats(-10, 10)
POINTS = st.integers(1, 5).flatmap(lambda width: st.lists(st.tuples(*[NUMBER] * width), min_size=1, max_size=40))


def by_brute_force(rows: Sequence[Sequence[float]]) -> list[bool]:
    """The definition: no other row is nowhere larger and somewhere smaller."""

    def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    whole = [row for row in rows if not any(math.isnan(value) for value in row)]
    return [row in whole and not any(dominates(other, row) for other in whole) for row in rows]


@given(POINTS)
def test_the_front_is_that_of_the_definition(rows: list[tuple[float, ...]]) -> None:
    assert non_dominated(np.array(rows, dtype=np.float64)).tolist() == by_brute_force(rows)


@given(POINTS, st.randoms(use_true_random=False))
def test_the_order_of_points_does_not_matter(rows: list[tuple[float, ...]], random: object) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    values: NDArray[np.float64] = np.array(rows, dtype=np.float64)
    assert non_dominated(values[order]).tolist() == non_dominated(values)[order].tolist()


def test_equal_points_stay_together() -> None:
    assert non_dominated(np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 2.0]])).tolist() == [True, True, False]


@pytest.mark.parametrize("width", [1, 2, 3])
def test_none_of_no_points(width: int) -> None:
    assert non_dominated(np.empty((0, width))).tolist() == []
    assert non_dominated(np.full((3, width), np.nan)).tolist() == [False] * 3


# ---------------------------------------------------------------- of a sweep


def sweep() -> SweepFrame:
    """Six points: time falls and energy rises with the stacks; one failed, one has no energy."""
    columns = {
        "point": ["a", "b", "c", "d", "e", "f"],
        "memory": ["slow", "slow", "fast", "fast", "fast", "slow"],
        "stacks": [1, 2, 3, 4, 5, 6],
        "system.device.memory.capacity": [10, 20, 30, 40, 50, 60],
        "status": ["ok", "ok", "ok", "ok", "failed", "ok"],
        "error": [None, None, None, None, "it does not fit", None],
        "decode.tpot": [4.0, 3.0, 2.0, 2.0, None, 1.0],
        "decode.energy_per_token": [1.0, 2.0, 5.0, 3.0, None, None],
        "decode.power": [100.0, 200.0, 300.0, 400.0, None, 500.0],
        "decode.hbm.utilisation": [0.2, 0.4, 0.6, 0.8, None, 0.9],
        "decode.hbm.bytes": [1, 1, 1, 1, None, 1],
    }
    units = {
        "decode.tpot": "s", "decode.energy_per_token": "J", "decode.power": "W", "decode.hbm.utilisation": "fraction",
        "decode.hbm.bytes": "B", "system.device.memory.capacity": "GB",
    }  # fmt: skip
    arrays = {name: pyarrow.array(values) for name, values in columns.items()}
    fields = [pyarrow.field(n, a.type, metadata={"unit": units[n]} if n in units else None) for n, a in arrays.items()]
    return as_frame(pyarrow.table(list(arrays.values()), schema=pyarrow.schema(fields)))


TIME_ENERGY = ("decode.tpot", "decode.energy_per_token")


def points(objectives: Sequence[str], constraints: Sequence[str] = ()) -> list[str]:
    return list(sweep().pareto(objectives, constraints).front["point"])


def test_directions_are_those_of_the_metrics() -> None:
    assert points(TIME_ENERGY) == ["d", "b", "a"]  # c is beaten by d; e failed; f has no energy
    assert points(["decode.hbm.utilisation"]) == ["f"]
    assert points(["decode.hbm.utilisation", "decode.energy_per_token"]) == ["d", "b", "a"]


def test_an_axis_may_be_an_objective() -> None:
    assert points(["decode.tpot", "stacks:min"]) == ["f", "c", "b", "a"]
    assert points(["stacks:max"]) == ["f"]  # the failed point takes no part, although it has stacks


@pytest.mark.parametrize(
    ("constraint", "left"),
    [
        ("decode.power <= 300 W", ["c", "b", "a"]),  # d, which beats c, takes no part
        ("decode.power<=0.3kW", ["c", "b", "a"]),
        ("decode.power < 300 W", ["b", "a"]),
        ("decode.hbm.utilisation >= 40 %", ["d", "b"]),
        ("decode.hbm.utilisation >= 0.4", ["d", "b"]),
        ("memory == slow", ["b", "a"]),
        ("memory != 'slow'", ["d"]),
        ("stacks > 1", ["d", "b"]),
        ("system.device.memory.capacity <= 20 GB", ["b", "a"]),
        ("system.device.memory.capacity <= 19 GiB", ["b", "a"]),
    ],
)
def test_constraints_are_in_units(constraint: str, left: list[str]) -> None:
    assert points(TIME_ENERGY, [constraint]) == left


def test_several_constraints_all_hold() -> None:
    assert points(TIME_ENERGY, ["decode.power <= 300 W", "memory == fast"]) == ["c"]


@pytest.mark.parametrize(
    ("objectives", "constraints", "said"),
    [
        ([], [], "needs objectives"),
        (["decode.tpto"], [], "decode.tpot"),
        (["decode.tpot", "decode.tpot"], [], "twice"),
        (["decode.tpot:best"], [], "decode.tpot:min or decode.tpot:max"),
        (["decode.hbm.bytes"], [], "decode.hbm.bytes:min"),
        (["stacks"], [], "stacks:min"),
        (["memory:min"], [], "texts"),
        (["decode.tpot"], ["decode.power"], "is no constraint"),
        (["decode.tpot"], ["decode.power <= 300"], "has no unit"),
        (["decode.tpot"], ["decode.power <= 300 J"], "has the unit 'J'"),
        (["decode.tpot"], ["decode.power <= much"], "is no number"),
        (["decode.tpot"], ["power <= 300 W"], "no column 'power'"),
        (["decode.tpot"], ["memory <= slow"], "== or !="),
        (["decode.tpot"], ["decode.power <= 1 W"], "no point fulfils decode.power <= 1 W"),
    ],
)
def test_mistakes_say_what_to_change(objectives: list[str], constraints: list[str], said: str) -> None:
    with pytest.raises(UserError) as error:
        sweep().pareto(objectives, constraints)
    assert said in str(error.value)


def test_it_says_who_took_no_part() -> None:
    front = sweep().pareto(TIME_ENERGY, ["decode.power <= 300 W"])
    assert "3 of 3 points" in front.in_words()
    assert "1 failed" in front.in_words() and "decode.power <= 300 W" in front.in_words()
    assert front.as_dict()["front"][0] == {
        "point": "c", "memory": "fast", "stacks": 3, "system.device.memory.capacity": 30, "decode.tpot": 2.0,
        "decode.energy_per_token": 5.0, "decode.power": 300.0,
    }  # fmt: skip
    assert "2.000 s" in front._repr_html_() and "fast" in front._repr_html_()


def test_trials_of_a_search_that_broke_its_constraints_take_no_part_unless_all_did() -> None:
    trials = sweep()
    trials["feasible"] = [True, True, True, False, None, True]
    front = trials.pareto(TIME_ENERGY)
    assert list(front.front["point"]) == ["c", "b", "a"]  # d, which beats c, broke a constraint
    said = front.in_words()
    assert said.startswith("3 of 3 points are on the front; 1 break the constraints of the search; 1 have no value")
    assert front.as_dict()["infeasible"] == 1
    trials["feasible"] = [False, False, False, False, None, False]
    front = trials.pareto(TIME_ENERGY)
    assert list(front.front["point"]) == ["d", "b", "a"]
    assert "no trial is feasible" in front.in_words()


def test_a_part_of_a_frame_is_a_sweep_too() -> None:
    whole = sweep()
    assert list(whole[whole["memory"] == "slow"].pareto(TIME_ENERGY).front["point"]) == ["b", "a"]


def test_a_sweep_is_opened_from_its_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"results\.parquet"):
        open_sweep(tmp_path)
    (tmp_path / "results.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="can't be read"):
        open_sweep(tmp_path)
    (tmp_path / "results.parquet").write_bytes(as_parquet(pyarrow.table({"x": [1]})))
    with pytest.raises(UserError, match="no table of a sweep"):
        open_sweep(tmp_path)
    (tmp_path / "results.parquet").write_bytes(as_parquet(pyarrow.Table.from_pandas(sweep())))
    assert open_sweep(tmp_path).varied == ["memory", "stacks", "system.device.memory.capacity"]


def test_short_names_tell_axes_apart() -> None:
    names = ["system.device.matrix.units", "system.device.vector.units", "workload.batch", "memory"]
    assert list(short_names(names).values()) == ["matrix.units", "vector.units", "batch", "memory"]

"""What a search consists of: distributions, constraints, objectives; and what is said about mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from small_experiment import write_phases

import archsim
from archsim.config.errors import UserError
from archsim.config.loading import load_mapping
from archsim.metrics import Metric
from archsim.sweep.facts import Constraint, Facts
from archsim.sweep.search_plan import plan_search
from archsim.sweep.search_space import SearchSpace
from archsim.sweep.search_spec import SearchSpec
from archsim.sweep.spec import DerivedSpec
from archsim.sweep.store import Status
from archsim.sweep.study import Verdict, opened

AXES: dict[str, Any] = {
    "a": [1, 2, 4],
    "b": {"from": 1, "to": 64, "scale": "log"},
    "c": {"from": "1 W", "to": "3 W"},
    "d": {"from": 0, "to": 10, "step": 2.5},
    "e": {"from": 128, "to": 4096, "multiple_of": 128, "scale": "log"},
    "f": {"cases": {"small": {"x": 1, "y": 2}, "large": {"x": 3}}},
    "g": {"from": 5, "to": 6, "when": "f == 'small'"},
}


def spec(**said: Any) -> SearchSpec:
    return load_mapping({"axes": AXES, "objectives": ["decode.tpot"], **said}, SearchSpec).spec


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return write_phases(tmp_path)


def test_axes_are_distributions() -> None:
    found = {knob.name: knob.distribution for knob in SearchSpace(spec(), Path()).knobs}
    assert found == {
        "a": CategoricalDistribution((1, 2, 4)),
        "b": IntDistribution(1, 64, log=True),
        "c": FloatDistribution(1.0, 3.0),
        "d": IntDistribution(0, 4),  # of its five points
        "e": IntDistribution(1, 32, log=True),  # of its multiples
        "f": CategoricalDistribution(("small", "large")),
        "g": IntDistribution(5, 6),
    }


def test_a_point_sets_what_was_drawn() -> None:
    space = SearchSpace(spec(derived={"h": "a * 10"}), Path())
    drawn = {"a": 2, "b": 7, "c": 1.23456789, "d": 3, "e": 5, "f": "small", "g": 6}
    point = space.point(lambda knob, place: drawn[knob.name])
    sets = {"a": 2, "b": 7, "c": "1.23457 W", "d": 7.5, "e": 640, "x": 1, "y": 2, "g": 6, "h": 20}
    assert dict(point.overrides) == sets
    other = space.point(lambda knob, place: (drawn | {"f": "large"})[knob.name])
    assert "g" not in other.overrides, "its condition doesn't hold, so nothing is drawn"
    assert other.values["g"] is None


# ---------------------------------------------------------------- constraints


def facts(experiment: Path, **metrics: float) -> Facts:
    loaded = archsim.load(experiment)
    quantities = {"area": DerivedSpec(expression="121 * system.device.memory.stacks", unit="mm2")}
    named = {name.replace("_", ".", 1): Metric(value, "?") for name, value in metrics.items()}
    return Facts(loaded.spec, quantities, named)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("decode.power <= 600 W", 0.1),  # 660 W
        ("decode.power <= 0.66 kW", 0.0),
        ("decode.power >= 880 W", 0.25),
        ("decode.power / 2 <= 400 W", -0.175),
        ("system.device.memory.capacity <= 70.5 GB", 1.0),  # an H200 has 141 GB
        ("system.capacity_bytes >= 141 GB", 0.0),
        ("system.device.launch.kernel <= 1 s", None),
        ("area <= 660", 0.1),  # six stacks
        ("decode.power <= 0", 660.0),  # of a bound of zero there is no share
        ("system.device.memory.stacks * 100 + 60 >= decode.power", 0.0),
    ],
)
def test_a_violation_is_a_share_of_the_bound(experiment: Path, text: str, expected: float | None) -> None:
    found = Constraint(text).violation(facts(experiment, decode_power=660.0))
    if expected is None:
        assert -1 < found < -0.99, "microseconds are seconds here, whatever the spec counts in"
    else:
        assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"axes": {}}, "no axes"),
        ({"objectives": []}, "needs objectives"),
        ({"objectives": ["decode.tpto"]}, "mean 'decode.tpot'?"),
        ({"objectives": ["decode.tpot", "decode.tpot"]}, "stands twice"),
        ({"objectives": ["decode.time.row"]}, "neither is better"),
        ({"objectives": ["area"], "quantities": {"area": "system.device.memory.stacks"}}, "neither is better"),
        ({"objectives": ["decode.tpot", "decode.power"], "sampler": "genetic"}, "takes one objective"),
        ({"sampler": "tpe", "population": 8}, "has no population"),
        ({"sampler": "nsga3"}, "mean 'nsga2'?"),
        ({"constraints": ["decode.power = 600 W"]}, "is no constraint"),
        ({"constraints": ["decode.power < 600 W"]}, "is no constraint"),
        ({"constraints": ["decode.power <= 600 Wat"]}, "has no known unit"),
        ({"constraints": ["decode.pwer <= 600 W"]}, "mean 'decode.power'?"),
        ({"constraints": ["decode.power <= 600 GB"]}, "the same dimension"),
        ({"constraints": ["decode.power <= 600"]}, "the same dimension"),
        ({"constraints": ["system.device.memory.capacty <= 1 GB"]}, "mean 'system.device.memory.capacity'?"),
        ({"constraints": ["system.device.memory <= 1 GB"]}, "there is no 'system.device.memory'"),
        ({"constraints": ["system.device.memory.capacity <= 1 W"]}, "the same dimension"),
        ({"quantities": {"p": "q", "q": "1"}}, "quantities further up"),
        ({"quantities": {"p": "decode.pwr"}}, "quantities.p: there is no 'decode.pwr'"),
        ({"axes": {"workload.batch": [1, 1]}}, "the same name"),
        ({"set": {"workload.batch": 3}}, "but the search varies it"),
        ({"trials": 0}, "trials"),
    ],
)
def test_mistakes_are_named(experiment: Path, said: dict[str, Any], message: str) -> None:
    base = {"axes": {"workload.batch": [1, 2]}, "objectives": ["decode.tpot"]}
    with pytest.raises(UserError) as caught:
        plan_search(experiment, base | said, (), None)
    assert message in str(caught.value)


# ---------------------------------------------------------------- trials


def played(
    folder: Path, search: SearchSpec, *, stops: tuple[int, ...] = (), half: bool = False
) -> list[tuple[Any, ...]]:
    """The points of all trials, worth what a formula says. The process ends, so to speak, in each trial of `stops`."""
    space = SearchSpace(search, Path())
    for stop in (*stops, None):
        with opened(folder / "s.journal", search, space, 1) as log:
            while (asked := log.ask()) is not None:
                number, point = asked
                if number == stop:
                    break
                worth = abs(point.values["b"] - 20) + point.values["c"]  # type: ignore[operator]
                failed = Verdict(error="no") if point.values["a"] == 4 else Verdict((float(worth),))
                log.tell(number, str(number), Status.FAILED if failed.error else Status.OK, failed)
            told = log.told()
        if stop is not None and half:
            with (folder / "s.journal").open("ab") as journal:
                journal.write(b'{"op_code": 5, "wor')  # a line that a crash tore
    return [(one.number, *one.point.values.values(), one.status, one.verdict.values) for one in told]


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "genetic"])
def test_the_same_seed_gives_the_same_trials_interrupted_or_not(tmp_path: Path, sampler: str) -> None:
    population = {"population": 6} if sampler in ("nsga2", "genetic") else {}
    search = spec(sampler=sampler, trials=30, seed=5, **population)
    folders = [tmp_path / name for name in ("whole", "again", "interrupted", "other")]
    whole = played(folders[0], search)
    assert len(whole) == 30
    assert played(folders[1], search) == whole
    assert played(folders[2], search, stops=(3, 14, 21), half=True) == whole
    assert played(folders[3], spec(sampler=sampler, trials=30, seed=6, **population)) != whole


def test_samplers_learn(tmp_path: Path) -> None:
    """The best trials of searches that learn are, over three seeds, nearer to the best there is than random ones."""
    ends = {}
    for sampler in ("random", "tpe", "genetic"):
        best = []
        for seed in range(3):
            trials = played(tmp_path / f"{sampler}{seed}", spec(sampler=sampler, trials=50, seed=seed))
            best += sorted(values[0] for *_, values in trials if values)[:12]
        ends[sampler] = sum(best) / len(best)
    assert ends["tpe"] < ends["random"] and ends["genetic"] < ends["random"], ends


def test_two_searches_cant_be_at_the_same_trials(tmp_path: Path) -> None:
    search = spec()
    space = SearchSpace(search, Path())
    file = tmp_path / "s.journal"
    with (
        opened(file, search, space, 1),
        pytest.raises(UserError, match="another process"),
        opened(file, search, space, 1),
    ):
        pass

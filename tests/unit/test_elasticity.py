"""Elasticities of made-up models, which are known exactly, and which parameters there are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_experiment import write_phases

import archsim
from archsim.config.errors import UserError
from archsim.experiment import LoadedExperiment, load_experiment
from archsim.metrics import Metric
from archsim.sweep import run as sweep_run
from archsim.sweep.elasticity import Elasticities, improves, log_slope
from archsim.sweep.executors import Finished
from archsim.sweep.parameters import find_parameters
from archsim.sweep.store import Outcome, Status
from archsim.sweep.task import Task
from archsim.system import SystemSpec

MEMORY = "system.device.memory"
RATE, STACKS = f"{MEMORY}.technology.data_rate", f"{MEMORY}.stacks"
Model = Callable[[SystemSpec], float]


class Pretended:
    """An executor that answers with a formula over the system instead of a simulation."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def workers(self) -> Sequence[str]:
        return ["formula"]

    def submit(self, worker: str, task: Task, finished: Finished) -> None:
        seconds = self._model(task.loaded.system.spec)
        metrics: Mapping[str, Metric] = {
            "decode.tpot": Metric(seconds, "s"), "decode.throughput": Metric(1 / seconds, "tokens/s"),
            "decode.energy_per_token": Metric(2.0, "J"), "decode.time.link": Metric(0.0, "fraction"),
        }  # fmt: skip
        finished(worker, task, Outcome(task.key, Status.OK, metrics=metrics))

    def close(self, *, at_once: bool) -> None:
        pass


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return write_phases(tmp_path)


@pytest.fixture
def pretend(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Elasticities]:
    """Elasticities of the small experiment as if its time per token were a formula."""

    def measured(model: Model, parameters: Sequence[str], **more: object) -> Elasticities:
        monkeypatch.setattr(sweep_run, "executor_for", lambda *_: Pretended(model))
        out = experiment.parent / "out"
        return archsim.elasticities(experiment, parameters=parameters, out=out, **more)  # type: ignore[arg-type]

    return measured


EXPONENTS = {
    RATE: -0.75, STACKS: -0.4, "system.device.launch.kernel": 0.3, "system.device.buffer.latency": 1.5,
    "system.device.matrix.clock": -2.0, "system.device.power.idle": 0.0, f"{MEMORY}.technology.timings.tRP": 0.6,
}  # fmt: skip


def power_law(system: SystemSpec) -> float:
    memory, device = system.device.memory, system.device
    factors = (
        (memory.technology.data_rate, EXPONENTS[RATE]),
        (memory.stacks, EXPONENTS[STACKS]),
        (device.launch.kernel, EXPONENTS["system.device.launch.kernel"]),
        (device.buffer.latency, EXPONENTS["system.device.buffer.latency"]),
        (device.matrix.clock, EXPONENTS["system.device.matrix.clock"]),
        (memory.technology.clocks("tRP"), EXPONENTS[f"{MEMORY}.technology.timings.tRP"]),
    )
    return math.prod(float(value) ** exponent for value, exponent in factors)


@pytest.mark.parametrize("step", ["5%", 0.001, "50%"])
def test_a_power_law_has_its_exponents_however_large_the_step(
    pretend: Callable[..., Elasticities], step: str | float
) -> None:
    # The clock goes alone: tRP is in nanoseconds there, so its clocks would move along with the data rate.
    names = [name for name in EXPONENTS if name != RATE]
    found = pretend(power_law, names, metrics=["decode.tpot", "decode.throughput"], step=step)
    for name in names:
        assert found.of(name, "decode.tpot") == pytest.approx(EXPONENTS[name], abs=1e-9)
        assert found.of(name, "decode.throughput") == pytest.approx(-EXPONENTS[name], abs=1e-9)
    assert found.of("system.device.power.idle", "decode.tpot") == 0  # exactly


def test_the_data_rate_of_a_power_law(pretend: Callable[..., Elasticities]) -> None:
    found = pretend(lambda system: system.device.memory.technology.data_rate**-0.75, [RATE])
    assert found.of(RATE, "decode.tpot") == pytest.approx(-0.75, abs=1e-9)


def test_rows_are_sorted_by_effect_and_say_what_moved(pretend: Callable[..., Elasticities]) -> None:
    found = pretend(power_law, list(EXPONENTS)[1:])
    effects = [abs(row.by_metric["decode.tpot"]) for row in found.rows]
    assert effects == sorted(effects, reverse=True)
    stacks = next(row for row in found.rows if row.parameter == STACKS)
    assert (stacks.low, stacks.value, stacks.high) == ("5", "6", "7") and stacks.along == (f"{MEMORY}.capacity",)
    idle = next(row for row in found.rows if row.parameter == "system.device.power.idle")
    assert (idle.low, idle.high) == ("123.81 W", "136.5 W")
    assert list(found.frame()["parameter"]) == [row.parameter for row in found.rows]
    assert "memory.stacks" in found._repr_html_()


def test_a_kink_is_told(pretend: Callable[..., Elasticities]) -> None:
    """Faster launches help, slower ones don't hurt: the mean of both sides alone would mislead."""
    kernel = 1_300_000_000
    found = pretend(lambda system: float(min(system.device.launch.kernel, kernel)), ["system.device.launch.kernel"])
    below, above = found.rows[0].kinks["decode.tpot"]
    assert below == pytest.approx(1, abs=1e-9) and above == 0
    assert found.rows[0].shown("decode.tpot") == "+0.500*" and "+1.000 below 1.3 us, +0.000 above" in found.remarks()[0]


def test_one_side_that_is_refused_leaves_the_other(pretend: Callable[..., Elasticities]) -> None:
    name = f"{MEMORY}.technology.timings.tCCDS"  # 2 clocks, as many as the burst has
    found = pretend(lambda system: float(system.device.memory.technology.clocks("tCCDS")) ** 2, [name])
    assert found.of(name, "decode.tpot") == pytest.approx(2, abs=1e-9)
    assert (found.rows[0].low, found.rows[0].high) == ("", "3 nCK") and "tBL" in found.rows[0].one_sided


def test_both_sides_refused_is_said(pretend: Callable[..., Elasticities]) -> None:
    found = pretend(power_law, [f"{MEMORY}.technology.timings.tBL", RATE])
    assert [skipped.path for skipped in found.skipped] == [f"{MEMORY}.technology.timings.tBL"]
    assert "a burst of 32 B" in found.skipped[0].reason and [row.parameter for row in found.rows] == [RATE]


def test_a_metric_of_zero_has_no_elasticity_unless_it_stays(pretend: Callable[..., Elasticities]) -> None:
    found = pretend(power_law, [STACKS], metrics=["decode.time.link", "decode.energy_per_token"])
    assert found.rows[0].by_metric == {"decode.time.link": 0.0, "decode.energy_per_token": 0.0}
    assert log_slope((1, 0.0), (2, 1.0)) is None


@given(st.floats(0.1, 10), st.floats(1.01, 3), st.floats(-3, 3), st.floats(1e-6, 1e6))
def test_log_slope_of_a_power(value: float, ratio: float, exponent: float, factor: float) -> None:
    ends = [(place, factor * place**exponent) for place in (value / ratio, value * ratio)]
    slope = log_slope(ends[0], ends[1])
    assert slope is not None and slope == pytest.approx(exponent, abs=1e-9)


def test_what_is_better() -> None:
    assert improves("decode.tpot", -1) is True and improves("decode.tpot", 1) is False
    assert improves("decode.throughput", 1) is True
    assert improves("decode.tpot", 0) is None and improves("decode.hbm.bytes", 1) is None


# ---------------------------------------------------------------- parameters


@pytest.fixture
def loaded(experiment: Path) -> LoadedExperiment:
    return load_experiment(experiment)


def test_by_default_those_that_the_system_has(loaded: LoadedExperiment) -> None:
    found, skipped = find_parameters(loaded)
    paths = [parameter.path for parameter in found]
    assert {RATE, STACKS, "system.device.matrix.peak", "system.device.launch.kernel"} <= set(paths)
    assert f"{MEMORY}.technology.timings.tRFCab" in paths and len(set(paths)) == len(paths)
    assert {one.path for one in skipped} >= {"system.link.bandwidth"}  # one device needs none
    assert all(one.reason for one in skipped)


def test_what_belongs_together_moves_together(loaded: LoadedExperiment) -> None:
    (peak,), _ = find_parameters(loaded, ["system.device.matrix.peak"])
    assert {leaf.path.rpartition(".")[2] for leaf in peak.leaves} == {"bf16", "fp16", "fp8", "int8"}
    (units,), _ = find_parameters(loaded, ["system.device.matrix.units"])
    then, overrides = units.moved(Fraction(1, 20), up=True)
    assert str(then) == "139" and overrides["system.device.matrix.units"] == 139
    assert overrides["system.device.matrix.peak.bf16"] == "1041.87 TFLOP/s"  # 989.4 x 139 / 132
    (stacks,), _ = find_parameters(loaded, [STACKS])
    assert stacks.moved(Fraction(1, 20), up=False)[1] == {STACKS: 5, f"{MEMORY}.capacity": "117.5 GB"}


@pytest.mark.parametrize("name", ["tREFI", "tRP", "tCL"])
def test_timings_move_in_whole_clocks(loaded: LoadedExperiment, name: str) -> None:
    (timing,), _ = find_parameters(loaded, [f"{MEMORY}.technology.timings.{name}"])
    technology = loaded.system.spec.device.memory.technology
    assert timing.leaves[0].number == technology.clocks(name) and timing.leaves[0].unit == "nCK"
    for up in (False, True):
        then, overrides = timing.moved(Fraction(1, 1000), up=up)
        assert abs(then.number - technology.clocks(name)) >= 1
        moved = load_experiment(loaded.loaded.file, overrides).system.spec.device.memory.technology
        assert moved.clocks(name) == then.number


def test_every_move_is_one_that_the_spec_reads_as_said(loaded: LoadedExperiment) -> None:
    parameters, _ = find_parameters(loaded, ["system.energy.mac", "system.device.power.*", "system.device.buffer.*"])
    for parameter in parameters:
        for up in (False, True):
            then, overrides = parameter.moved(Fraction(1, 20), up=up)
            again, _ = find_parameters(load_experiment(loaded.loaded.file, overrides), [parameter.path])
            assert again[0].leaves[0].number == then.number, parameter.path


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("system.device.memory.stakcs", "system.device.memory.stacks"),
        ("system.device.name", "is no number"),
        ("workload.batch", "below system."),
        ("system.device.nothing.*", "no number"),
        (f"{MEMORY}.technology.timings", "whole steps"),
    ],
)
def test_mistakes_say_what_to_change(loaded: LoadedExperiment, path: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        find_parameters(loaded, [path])
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"step": "0%"}, "at most 50%"),
        ({"step": "80%"}, "at most 50%"),
        ({"step": "much"}, "is no step"),
        ({"step": "5 ns"}, "is no step"),
        ({"metrics": ["decode.tpto"]}, "decode.tpot"),
        ({"metrics": ["serving.makespan"]}, "the run has no serving.makespan"),
    ],
)
def test_what_was_asked_for_is_checked(
    pretend: Callable[..., Elasticities], more: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError) as error:
        pretend(power_law, [STACKS], **more)
    assert said in str(error.value)

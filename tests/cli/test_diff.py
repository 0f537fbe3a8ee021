"""`archsim diff`: the parts of a difference add up to the whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_experiment import write_phases
from typer.testing import CliRunner

import archsim
from archsim.cli import app
from archsim.commands.diff import RunDiff, diff
from archsim.records import CAUSES

runner = CliRunner()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    experiment = write_phases(folder)
    for name, changes in (("a", {}), ("b", {"workload.batch": 7, "workload.decode.context_tokens": 900})):
        archsim.run(experiment, changes, out=folder / name)
    return folder / "a", folder / "b"


@pytest.fixture(scope="module")
def found(runs: tuple[Path, Path]) -> RunDiff:
    return diff(*runs)


def test_operators_and_causes_add_up_to_the_difference_of_each_phase(found: RunDiff, runs: tuple[Path, Path]) -> None:
    a, b = (archsim.open_run(run).operators for run in runs)
    for phase in ("prefill", "decode"):
        time_a, time_b = (int(table.loc[table["phase"] == phase, "duration_fs"].sum()) for table in (a, b))
        assert found.delta_fs(phase) == time_b - time_a
        assert sum(found.cause_fs(phase).values()) == time_b - time_a
    assert found.delta_fs("decode") > 0
    assert found.delta_fs("prefill") == 0  # only decode was changed


def test_energies_of_operators_add_up_to_the_metric(found: RunDiff, runs: tuple[Path, Path]) -> None:
    metrics = archsim.open_run(runs[1]).metrics
    for phase in ("prefill", "decode"):
        joules = sum(change.b_pj for change in found.operators if change.phase == phase) * 1e-12
        assert joules == pytest.approx(metrics[f"{phase}.energy"].value, rel=1e-9)


def test_the_settings_that_differ_are_named(found: RunDiff) -> None:
    assert found.settings == {"workload.batch": (4, 7), "workload.decode.context_tokens": (512, 900)}


def test_an_override_of_a_number_with_a_source_is_one_setting(runs: tuple[Path, Path], tmp_path: Path) -> None:
    archsim.run(runs[0].parent / "experiment.yaml", {"system.device.memory.capacity": "140 GB"}, out=tmp_path / "c")
    assert diff(runs[0], tmp_path / "c").settings == {"system.device.memory.capacity": ("141 GB", "140 GB")}


def test_attention_over_a_longer_context_explains_its_time_by_the_memory(found: RunDiff) -> None:
    (attention,) = [c for c in found.operators if c.phase == "decode" and c.operator == "layers[*].attention"]
    assert attention.delta_fs == sum(attention.cause_fs.values()) > 0
    assert attention.main_cause in CAUSES


def test_a_run_does_not_differ_from_itself(runs: tuple[Path, Path]) -> None:
    same = diff(runs[0], runs[0])
    assert not same.settings
    assert all(change.delta_fs == 0 and change.delta_pj == 0 for change in same.operators)


def test_the_command_prints_tables_and_json(runs: tuple[Path, Path]) -> None:
    said = runner.invoke(app, ["diff", *map(str, runs)])
    assert said.exit_code == 0
    assert "workload.batch" in said.output and "layers[*].attention" in said.output and "% worse" in said.output
    facts = json.loads(runner.invoke(app, ["diff", *map(str, runs), "--json"]).output)
    assert facts["metrics"]["decode.tpot"]["relative"] > 0
    assert {row["phase"] for row in facts["operators"]} == {"prefill", "decode"}


def test_what_is_no_run_is_explained(tmp_path: Path) -> None:
    said = runner.invoke(app, ["diff", str(tmp_path), str(tmp_path / "nothing")])
    assert said.exit_code == 2
    assert "is not a run directory" in said.output

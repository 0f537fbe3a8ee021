"""`archsim check` as a user and a CI job meet it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from small_experiment import write_phases
from typer.testing import CliRunner

from archsim.cli import app
from archsim.commands.check import BASELINE, Row, Verdict, against_baseline, against_expectations
from archsim.commands.check_report import cells
from archsim.config.errors import UserError
from archsim.expectations import Expectation
from archsim.experiment import load_experiment
from archsim.metrics import Metric

runner = CliRunner()
pytest_plugins = ["pytester"]


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    folder.mkdir()
    return write_phases(folder)


def check(*arguments: object) -> tuple[int, str]:
    result = runner.invoke(app, ["check", *map(str, arguments)])
    return result.exit_code, result.output


def test_without_a_baseline_there_is_nothing_to_compare_and_the_line_says_how_to_get_one(experiment: Path) -> None:
    code, said = check(experiment)
    assert code == 0
    assert "nothing to compare with" in said and "--update" in said


def test_a_second_run_equals_its_baseline(experiment: Path) -> None:
    assert check(experiment, "--update")[0] == 0
    code, said = check(experiment.parent)
    assert code == 0
    assert "moved" not in said
    baseline = json.loads((experiment.parent / "baseline.json").read_text())
    assert baseline["metrics"]["decode.tpot"]["unit"] == "s"


def test_one_cycle_more_in_one_timing_fails_and_names_the_metrics(experiment: Path, tmp_path: Path) -> None:
    check(experiment, "--update")
    junit, markdown = tmp_path / "check.xml", tmp_path / "check.md"
    now = load_experiment(experiment).spec.system.device.memory.technology.timings
    clocks = now.tRFCab.to_clocks(load_experiment(experiment).spec.system.device.memory.technology.tick_fs * 2)
    slower = f"system.device.memory.technology.timings.tRFCab={clocks + 1} nCK"
    code, said = check(experiment, "--set", slower, "--junit", junit, "--markdown", markdown)
    assert code == 1
    assert "decode.time.refresh" in said
    assert "the configuration is not the baseline's" in said
    cases = ElementTree.parse(junit).getroot().iter("testcase")
    failed = {case.get("name") for case in cases if case.find("failure") is not None}
    assert "decode.time.refresh" in failed
    assert "| decode.time.refresh |" in markdown.read_text()


def test_update_rewrites_the_baseline_and_shows_what_moved(experiment: Path) -> None:
    check(experiment, "--update")
    code, said = check(experiment, "--set", "workload.batch=5", "--update")
    assert code == 0
    assert "decode.tpot" in said and "written" in said
    assert check(experiment, "--set", "workload.batch=5")[0] == 0


def test_json_holds_every_metric(experiment: Path) -> None:
    check(experiment, "--update")
    code, said = check(experiment, "--json")
    report = json.loads(said)
    assert code == 0 and report["ok"]
    rows = report["experiments"][0]["metrics"]
    assert {row["verdict"] for row in rows} == {"same"}
    assert {row["metric"] for row in rows} >= {"decode.tpot", "prefill.ttft", "decode.energy"}


def test_expected_values_pass_within_their_tolerance_and_fail_outside(experiment: Path) -> None:
    expect = 'expect:\n  - {{metric: decode.hbm.utilisation, value: {}, tolerance: 5%, source: "a paper"}}\n'
    text = experiment.read_text()
    metric = json.loads(check(experiment, "--update", "--json")[1])
    assert metric["ok"]
    value = json.loads((experiment.parent / "baseline.json").read_text())["metrics"]["decode.hbm.utilisation"]["value"]
    experiment.write_text(text + expect.format(f"{100 * value * 1.04:.4f}%"))
    assert check(experiment)[0] == 0
    experiment.write_text(text + expect.format(value * 1.06))
    code, said = check(experiment)
    assert code == 1
    assert "decode.hbm.utilisation (expected)" in said and "unexpected" in said


def test_an_experiment_that_cannot_run_fails_alone(experiment: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "experiment.yaml").write_text(experiment.read_text().replace("h200", "h2000"))
    code, said = check(tmp_path)
    assert code == 1
    assert "FAILED  broken" in said and "ok      small" in said


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{metric: decode.tpott, value: 1 ms, tolerance: 5%, source: x}", "did you mean 'decode.tpot'?"),
        ("{metric: decode.tpot, value: 1 GB, tolerance: 5%, source: x}", "a time"),
        ("{metric: decode.tpot, value: 1.5, tolerance: 5%, source: x}", "'1.5' has no unit"),
        ("{metric: decode.tpot, value: 1 ms, tolerance: 5%}", "without its source"),
        ("{metric: decode.throughput, value: 12 requests, tolerance: 5%, source: x}", "900 tokens/s"),
        ("{metric: decode.tpot, value: 1 ms, tolerance: 500%, source: x}", "out of range"),
    ],
)
def test_a_wrong_expectation_is_explained(experiment: Path, entry: str, message: str) -> None:
    experiment.write_text(experiment.read_text() + f"expect:\n  - {entry}\n")
    code, said = check(experiment)
    assert code == 1
    assert message in said


def test_a_folder_without_experiments_and_a_broken_baseline_are_explained(experiment: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    code, said = check(empty)
    assert code == 2 and "there is no experiment below" in said
    (experiment.parent / "baseline.json").write_text('{"metrics": 3}')
    code, said = check(experiment)
    assert code == 1 and "is not a baseline" in said
    code, said = check(experiment, "--update")
    assert code == 0 and "baseline.json written" in said
    assert check(experiment)[0] == 0


def test_two_numbers_that_differ_are_shown_with_the_digits_that_differ() -> None:
    row = Row("decode.energy", Metric(0.62930, "J"), Metric(0.629325, "J"), Verdict.CHANGED, BASELINE)
    assert cells(row)[1:3] == ("0.6293 J", "0.62933 J")
    assert cells(replace(row, now=row.reference))[1:3] == ("629.3 mJ", "629.3 mJ")


S, B = "s", "B"


@pytest.mark.parametrize(
    ("name", "then", "now", "verdict"),
    [
        ("decode.tpot", Metric(1.0, S), Metric(1.0, S), Verdict.SAME),
        ("decode.tpot", Metric(1.0, S), Metric(1.0 + 1e-15, S), Verdict.SAME),
        ("decode.tpot", Metric(1.0, S), Metric(1.0001, S), Verdict.WORSE),
        ("decode.tpot", Metric(1.0, S), Metric(0.9999, S), Verdict.BETTER),
        ("decode.throughput", Metric(1.0, "tokens/s"), Metric(0.9, "tokens/s"), Verdict.WORSE),
        ("decode.hbm.bytes", Metric(1000, B), Metric(1001, B), Verdict.CHANGED),
        ("decode.hbm.bytes", Metric(0, B), Metric(0, B), Verdict.SAME),
        ("decode.hbm.bytes", Metric(0, B), Metric(1, B), Verdict.CHANGED),
        ("decode.tpot", None, Metric(1.0, S), Verdict.NEW),
        ("decode.tpot", Metric(1.0, S), None, Verdict.GONE),
    ],
)
def test_verdicts(name: str, then: Metric | None, now: Metric | None, verdict: Verdict) -> None:
    (row,) = against_baseline({name: now} if now else {}, {name: then} if then else {})
    assert row.verdict is verdict


def test_an_expected_metric_that_is_not_there_fails() -> None:
    expected = Expectation(metric="decode.tpot", value="1 ms", tolerance=0.1, source="a paper")
    (row,) = against_expectations({}, [expected])
    assert row.failed


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("decode.tpot", "12.5 ms", 0.0125),
        ("decode.hbm.bandwidth", "4.2 TB/s", 4.2e12),
        ("decode.hbm.utilisation", "88%", 0.88),
        ("decode.hbm.utilisation", 0.88, 0.88),
        ("serving.throughput", "900 tokens/s", 900.0),
        ("decode.roofline_ratio", 1.2, 1.2),
    ],
)
def test_expected_values_are_read_in_the_metrics_unit(metric: str, value: str | float, expected: float) -> None:
    entry = Expectation(metric=metric, value=value, tolerance=0.1, source="a paper")
    assert entry.expected == pytest.approx(expected, rel=1e-15)


def test_an_unknown_metric_raises_a_user_error() -> None:
    with pytest.raises((UserError, ValueError), match="there is no metric"):
        Expectation(metric="decode.speed", value=1.0, tolerance=0.1, source="a paper")


def test_the_fixture_passes_and_fails_in_a_users_suite(
    experiment: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # an installed archsim registers its plugin by itself
    check(experiment, "--update")
    pytester.makepyfile(
        f"""
        def test_same(archsim_check):
            assert archsim_check({str(experiment)!r}).ok

        def test_moved(archsim_check):
            archsim_check({str(experiment)!r}, overrides=["workload.batch=5"])
        """
    )
    outcome = pytester.runpytest_subprocess("-p", "archsim.pytest_plugin")
    outcome.assert_outcomes(passed=1, failed=1)
    outcome.stdout.fnmatch_lines(["*decode.tpot*worse*"])


def test_values_that_differ_are_shown_with_the_digits_that_do() -> None:
    rows = {
        (0.62931, 0.62931): ("629.3 mJ", "629.3 mJ"),
        (0.62931, 0.63931): ("629.3 mJ", "639.3 mJ"),
        (0.629312, 0.6293122): ("0.629312 J", "0.6293122 J"),
    }
    for (reference, now), texts in rows.items():
        row = Row("decode.energy", Metric(reference, "J"), Metric(now, "J"), Verdict.CHANGED, "baseline")
        assert cells(row)[1:3] == texts

"""`archsim pareto`, `archsim elasticities` and their pages, as a user meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from browser import needs_chromium, opened_in_chromium
from in_process import command, simulate_here
from small_experiment import write_model, write_phases

import archsim
from archsim.config.errors import UserError
from archsim.sweep.figures import CLOSE_TICKS, LOG_FROM, _ticks
from archsim.sweep.page import usual_objectives

RATE, LINK = "system.device.memory.technology.data_rate", "system.link.bandwidth"

SWEEP = """\
kind: sweep
experiment: experiment.yaml
set: {workload.prefill: null}
axes:
  stacks:
    cases:
      six: {}
      seven: {system.device.memory.stacks: 7}
      "<five>": {system.device.memory.stacks: 5}
  workload.batch: [1, 4]
best: decode.tpot
"""  # five stacks hold less than the capacity says: those points fail


def ran(*arguments: str | Path, cwd: Path, expect: int = 0) -> str:
    """What `archsim ARGUMENTS` prints to stdout, or to stderr if it is expected to fail; it starts no workers."""
    with pytest.MonkeyPatch.context() as patch:
        simulate_here(patch)
        return command(*arguments, cwd=cwd, expect=expect)[1 if expect else 0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment with a sweep that ran in out/."""
    folder = tmp_path_factory.mktemp("analysis")
    write_phases(folder)
    (folder / "sweep.yaml").write_text(SWEEP)
    report = json.loads(ran("sweep", "sweep.yaml", "--out", "out", "--workers", "1", "--json", cwd=folder))
    assert (report["ok"], report["failed"]) == (4, 2)
    assert Path(report["page"]) == folder / "out" / "sweep.html"
    return folder


OBJECTIVES = ("--objective", "decode.tpot", "--objective", "decode.energy_per_token")


def test_the_front_for_people_and_for_scripts(folder: Path) -> None:
    found = json.loads(ran("pareto", "out", *OBJECTIVES, "--json", cwd=folder))
    assert {row["stacks"] for row in found["front"]} == {"seven"} and found["considered"] == 4
    assert found["units"] == {"decode.tpot": "s", "decode.energy_per_token": "J"}
    frame = archsim.open_sweep(folder / "out")
    front = frame.pareto(["decode.tpot", "decode.energy_per_token"])
    assert [row["point"] for row in found["front"]] == list(front.front["point"])
    text = ran("pareto", "out", *OBJECTIVES, cwd=folder)
    assert "seven" in text and "of 4 points are on the front; 2 failed" in text


def test_a_constraint_leaves_points_out(folder: Path) -> None:
    arguments = ("pareto", "out", *OBJECTIVES, "--constraint", "stacks == six", "--out", "page.html", "--json")
    found = json.loads(ran(*arguments, cwd=folder))
    assert {row["stacks"] for row in found["front"]} == {"six"} and found["considered"] == 2
    assert "stacks == six" in (folder / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere", *OBJECTIVES), "results.parquet"),
        (("out", "--objective", "decode.tpto"), "did you mean"),
        (("out", *OBJECTIVES, "--constraint", "decode.power <= 3"), "has no unit"),
        (("out", *OBJECTIVES, "--out", "sweep.yaml/page.html"), "cannot write"),
    ],
)
def test_mistakes_are_messages(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in ran("pareto", *arguments, cwd=folder, expect=2)


def test_the_page_has_front_and_failures_and_needs_no_net(folder: Path) -> None:
    page = (folder / "out" / "sweep.html").read_text()
    body = page[page.index("</script>") :]
    assert "&lt;five&gt;" in body and "<five>" not in body  # names are shown, not interpreted
    assert "capacity is 141 GB" in body and "Points on the front" in body
    assert not re.search(r'(src|href)="(https?:)?//', page[: page.index("<script")] + body)
    again = folder / "again.html"
    archsim.open_sweep(folder / "out").page(again)
    assert again.read_text().count("figure-") == page.count("figure-")


def test_a_page_without_results_says_why(folder: Path) -> None:
    frame = archsim.open_sweep(folder / "out")
    failed = frame[frame["status"] == "failed"].drop(columns=frame.metrics)
    failed.page(folder / "failed.html")
    text = (folder / "failed.html").read_text()
    assert "None of the points has a result" in text and "capacity is 141 GB" in text


@needs_chromium
def test_a_browser_draws_the_sweep(folder: Path, tmp_path: Path) -> None:
    dom, log = opened_in_chromium(folder / "out" / "sweep.html", tmp_path)
    pareto, parallel = dom.index('id="figure-pareto"'), dom.index('id="figure-parallel"')
    points = len(re.findall(r'<path class="point"', dom[pareto:parallel]))
    assert points == 4  # those with a result; the front's line has none
    assert "WebGL is not supported" not in dom[parallel:]
    assert len(re.findall(r'class="y-axis"', dom[parallel:])) >= 4  # an axis for each column
    assert "Uncaught" not in log and "SEVERE" not in log


@pytest.mark.parametrize("values", [np.arange(1.0, 65.0), np.geomspace(512, 32768, 20), np.linspace(27.3, 76.4, 99)])
def test_ticks_are_round_numbers_that_stand_apart(values: np.ndarray) -> None:
    far = bool(values[-1] > LOG_FROM * values[0])
    ticks = _ticks(values, far)
    assert (ticks[0], ticks[-1]) == (values[0], values[-1]) and 4 <= len(ticks) <= 9
    assert all(float(f"{tick:.1g}") == pytest.approx(tick) for tick in ticks[1:-1])
    places = np.log(ticks) if far else ticks
    assert np.diff(places).min() > CLOSE_TICKS * (places[-1] - places[0])


def test_many_values_far_apart_have_a_tick_every_few_decades() -> None:
    assert len(_ticks(np.geomspace(1e-9, 1e9, 50), True)) <= 10


def test_a_rate_is_compared_with_the_time_it_costs_and_a_time_with_energy(folder: Path) -> None:
    frame = archsim.open_sweep(folder / "out")
    assert usual_objectives(frame, "decode.throughput") == ["decode.throughput", "decode.tpot"]
    assert usual_objectives(frame) == ["decode.tpot", "decode.energy_per_token"]


# ---------------------------------------------------------------- elasticities


@pytest.fixture(scope="module")
def large_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers as large as those of a 70B model: a decode step that memory bounds."""
    folder = tmp_path_factory.mktemp("large")
    write_phases(folder)
    write_model(folder, hidden_size=8192, intermediate_size=28672, num_attention_heads=64, num_key_value_heads=8)
    return folder


@pytest.fixture(scope="module")
def measured(large_layers: Path) -> archsim.Elasticities:
    overrides = {"system.link": "nvlink4", "workload.prefill": None, "workload.batch": 1}
    parameters = [RATE, LINK, "system.device.launch.kernel", "system.device.memory.technology.timings.tBL"]
    out = large_layers / "out"
    return archsim.elasticities(large_layers, overrides, parameters=parameters, out=out, workers=1)


def test_a_decode_step_goes_with_the_data_rate_but_for_its_latencies(
    large_layers: Path, measured: archsim.Elasticities
) -> None:
    """Time on the pins, with the refresh and the rows that stretch it, goes with 1 / data rate; the rest doesn't."""
    overrides = {"workload.prefill": None, "workload.batch": 1}
    metrics = archsim.run(large_layers, overrides, out=large_layers / "run").metrics
    moving = sum(float(metrics[f"decode.time.{cause}"].value) for cause in ("transfer", "refresh", "row", "turnaround"))
    assert 0.9 < moving < 1
    assert measured.of(RATE, "decode.tpot") == pytest.approx(-moving, abs=0.02)
    launch = float(metrics["decode.time.launch"].value)
    assert measured.of("system.device.launch.kernel", "decode.tpot") == pytest.approx(launch, abs=0.02)


def test_a_link_that_leads_nowhere_does_not_matter(measured: archsim.Elasticities) -> None:
    assert measured.of(LINK, "decode.tpot") == 0 and measured.of(LINK, "decode.energy_per_token") == 0
    with pytest.raises(UserError, match="no elasticity of"):
        measured.of(LINK, "prefill.ttft")


def test_what_cannot_move_is_said_with_its_reason(measured: archsim.Elasticities) -> None:
    assert [one.path for one in measured.skipped] == ["system.device.memory.technology.timings.tBL"]
    assert any("tBL is left out" in remark and "a burst of 32 B" in remark for remark in measured.remarks())


def test_the_command_gives_the_same_and_a_page(large_layers: Path, measured: archsim.Elasticities) -> None:
    parameters = [word for name in (RATE, LINK) for word in ("--parameter", name)]
    arguments = (
        "elasticities", "experiment.yaml", "system.link=nvlink4", "workload.prefill=null", "workload.batch=1",
        *parameters, "--out", "out", "--workers", "1",
    )  # fmt: skip
    found = json.loads(ran(*arguments, "--json", cwd=large_layers))
    rows = {row["parameter"]: row["elasticity"] for row in found["elasticities"]}
    assert rows[RATE]["decode.tpot"] == measured.of(RATE, "decode.tpot") and list(rows) == [RATE, LINK]
    text = ran(*arguments, cwd=large_layers)
    assert "memory.technology.data_rate" in text and "elasticities.html" in text


@needs_chromium
def test_a_browser_draws_the_elasticities(measured: archsim.Elasticities, tmp_path: Path) -> None:
    measured.page(tmp_path / "page.html")
    dom, log = opened_in_chromium(tmp_path / "page.html", tmp_path / "profile")
    assert len(re.findall(r'<g class="point"', dom)) >= 3  # bars
    assert "memory.technology.data_rate" in dom and "Uncaught" not in log and "SEVERE" not in log


def test_mistakes_are_told_before_anything_runs(large_layers: Path) -> None:
    said = ran("elasticities", "experiment.yaml", "--parameter", "system.device.memory.stakcs", "--out", "no",
               cwd=large_layers, expect=2)  # fmt: skip
    assert "system.device.memory.stacks" in said and not (large_layers / "no").exists()

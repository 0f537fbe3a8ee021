"""`archsim noc` as a user types it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from archsim.cli import app
from archsim.fabric.noc_measure import Saturation
from archsim.fabric.noc_spec import Pattern
from archsim.report.noc_figure import draw_curve

SMALL = """\
kind: noc
name: small mesh
topology: {kind: mesh, size: [3, 3]}
router: {virtual_channels: 2, buffer_flits: 4}
traffic: {pattern: uniform, rates: [0.05, 0.9]}
measurement: {sample_cycles: 1000, saturation_resolution: 0.1}
"""
GRAPH = """\
kind: noc
name: graph
topology: {kind: graph, nodes: 5, links: [[0, 1], [1, 2], [2, 3], [3, 4], [4, 0]]}
router: {virtual_channels: 2, buffer_flits: 4}
traffic: {rates: [0.05]}
measurement: {sample_cycles: 1000}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return file


def _refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["noc", *arguments])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


def test_a_curve_as_json(small: Path) -> None:
    result = CliRunner().invoke(app, ["noc", str(small), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    light, heavy = report["points"]
    assert report["nodes"] == 9
    assert report["zero_load_latency_cycles"] == pytest.approx(4 * (2 * 8 / 9 + 1) + 2)
    assert light["stability"] == "stable"
    assert report["zero_load_latency_cycles"] * 0.97 < light["latency_cycles"] < 20
    assert heavy["stability"] != "stable" and heavy["latency_cycles"] is None
    found = report["saturation"]
    assert 0.05 < found["stable_rate"] < found["unstable_rate"] <= 0.9
    assert found["unstable_rate"] - found["stable_rate"] <= 0.1 * found["unstable_rate"]


def test_the_same_command_twice_says_the_same(small: Path) -> None:
    first, second = (
        json.loads(CliRunner().invoke(app, ["noc", str(small), "--no-saturation", "--json"]).stdout) for _ in range(2)
    )
    first.pop("wall_seconds"), second.pop("wall_seconds")
    assert first == second


def test_a_table_and_a_figure(small: Path, tmp_path: Path) -> None:
    picture = tmp_path / "curve.png"
    result = CliRunner().invoke(app, ["noc", str(small), "--no-saturation", "--figure", str(picture)])
    assert result.exit_code == 0, result.output
    assert "unstable" in result.stdout and "cycles simulated" in result.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_figure_marks_saturation_on_the_axis_of_offered_load() -> None:
    found = Saturation(stable_rate=0.1, unstable_rate=0.11, throughput_flits=0.52)
    (axes,) = draw_curve("four flits a packet", [], found, 20.0, packet_flits=4).axes
    assert axes.get_xlabel() == "offered load [flits per node and cycle]"
    (span,) = axes.patches
    assert span.get_extents().transformed(axes.transData.inverted()).intervalx == pytest.approx([0.4, 0.44])
    assert [text.get_text() for text in axes.texts] == ["saturates between 0.4 and 0.44"]


def test_a_changed_network_is_not_titled_as_if_it_were_the_preset(small: Path) -> None:
    result = CliRunner().invoke(
        app, ["noc", str(small), "topology.size=[2,2]", "traffic.rates=[0.05]", "--no-saturation"]
    )
    assert result.exit_code == 0, result.output
    assert "small mesh, with topology.size=[2,2]" in " ".join(result.stdout.split())


def test_runs_with_seeds_of_their_own_give_mean_and_spread(small: Path) -> None:
    changes = ["traffic.rates=[0.2]", "measurement.procedure=booksim", "measurement.sample_cycles=200"]

    def point(*more: str) -> dict[str, Any]:
        result = CliRunner().invoke(app, ["noc", str(small), *changes, *more, "--no-saturation", "--json"])
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)["points"][0]
        return found

    single = [point(f"measurement.seed={seed}") for seed in (7, 8, 9)]
    latencies = [one["latency_cycles"] for one in single]
    together = point("measurement.seed=7", "measurement.runs=3")
    assert len(set(latencies)) == 3
    assert together["latency_cycles"] == pytest.approx(statistics.mean(latencies))
    assert together["latency_deviation_cycles"] == pytest.approx(statistics.stdev(latencies))
    assert together["packets"] == sum(one["packets"] for one in single)
    for one in single:  # three samples of warm-up, then three to seven that count
        assert one["warm_up_cycles"] == 600
        assert one["measured_cycles"] in range(600, 1401, 200)
    result = CliRunner().invoke(app, ["noc", str(small), *changes, "measurement.runs=3", "--no-saturation"])
    assert "std. dev." in result.stdout and "means of 3 runs" in result.stdout


def test_clock_and_flit_give_bytes(small: Path) -> None:
    result = CliRunner().invoke(app, ["noc", str(small), "clock=2 GHz", "flit=16 B", "--no-saturation"])
    assert result.exit_code == 0, result.output
    assert "GB/s" in result.stdout


@pytest.mark.parametrize("pattern", [pattern for pattern in Pattern if pattern is not Pattern.HOTSPOT])
def test_every_pattern_runs(pattern: Pattern, small: Path) -> None:
    changes = ["topology.size=[4,4]", f"traffic.pattern={pattern}", "traffic.rates=[0.02]", "--no-saturation", "--json"]
    result = CliRunner().invoke(app, ["noc", str(small), *changes])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["points"][0]["stability"] == "stable"


def test_a_hotspot_saturates_first(small: Path) -> None:
    """Half of all packets, and a ninth of the others, go to one of nine nodes, which takes one flit per cycle."""
    changes = ["traffic.rates=[0.05]", "traffic.pattern=hotspot", "traffic.hotspots=[4]", "traffic.hotspot_share=0.5"]
    result = CliRunner().invoke(app, ["noc", str(small), *changes, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["points"][0]["stability"] == "stable"
    assert 0.7 * 0.2 < report["saturation"]["stable_rate"] <= 1 / (9 * (0.5 + 0.5 / 9)) * 1.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["traffic.pattern=uniformm"], "did you mean 'uniform'?"),
        (["topology.kind=torus", "topology.size=[5,5]", "routing.dateline=false"], "these routes may deadlock"),
        (["topology.kind=torus", "router.virtual_channels=1"], "at least 2: one before and one behind the dateline"),
        (["routing.algorithm=minimal_adaptive", "router.virtual_channels=1"], "at least 2"),
        (["traffic.pattern=bit_reverse"], "a power of two"),
        (["topology.size=[3,2]", "traffic.pattern=transpose"], "palindrome"),
        (["traffic.pattern=hotspot"], "hotspots and hotspot_share together"),
        (["traffic.rates=[1.5]"], "a fraction above 0 and up to 1"),
        (["traffic.rates=[]"], "rates is empty"),
        (["router.virtual_channels=99"], "router.virtual_channels"),
        (["router.input_speedup=4"], "at most one crossbar input per virtual channel"),
        (["topology.size=[1]"], "2 to 4096 nodes"),
        (["measurement.warm_up_samples=3"], "expected procedure: booksim, or no warm_up_samples"),
        (["measurement.procedure=booksim", "measurement.warm_up_samples=9"], "most_samples of at least their sum"),
        (["measurement.procedure=booksim", "traffic.pattern=uniform_others"], "pattern: uniform or one with a fixed"),
        (["measurement.procedure=booksimm"], "did you mean 'booksim'?"),
    ],
)
def test_bad_input_says_what_to_change(changes: list[str], message: str, small: Path) -> None:
    assert message in " ".join(_refused(str(small), *changes).split())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[4, 0]]", "[4, 0]]", "these routes may deadlock: packets on the links between routers"),
        ("[1, 2], [2, 3], [3, 4], [4, 0]", "[2, 3]", "can't be reached from node"),
        (
            "[4, 0]]",
            "[4, 0]], routes: [{at: 0, to: 2, via: 1}, {at: 1, to: 2, via: 0}]",
            "packets go round 0 -> 1 -> 0",
        ),
        ("[4, 0]]", "[4, 0]], routes: [{at: 0, to: 2, via: 2}]", "there is no link [0, 2]"),
        ("[4, 0]]", "[4, 5]]", "names a node that isn't there"),
    ],
)
def test_routes_that_do_not_work_are_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "graph.yaml"
    file.write_text(GRAPH.replace(old, new))
    assert message in " ".join(_refused(str(file)).split())


def test_a_tree_is_free_of_deadlock(tmp_path: Path) -> None:
    file = tmp_path / "tree.yaml"
    file.write_text(GRAPH.replace(", [4, 0]", ""))
    result = CliRunner().invoke(app, ["noc", str(file), "--no-saturation", "--json"])
    assert result.exit_code == 0, result.output


def test_a_figure_that_cannot_be_drawn_stops_before_the_simulation(small: Path, tmp_path: Path) -> None:
    assert "expected a name that ends in .png" in _refused(str(small), "--figure", str(tmp_path / "curve.txt"))
    assert "there is no folder" in _refused(str(small), "--figure", str(tmp_path / "missing" / "curve.png"))


def test_every_shipped_network_is_valid() -> None:
    presets = sorted((Path(__file__).parents[2] / "hwconfigs" / "noc").glob("*.yaml"))
    assert presets
    result = CliRunner().invoke(app, ["validate", *map(str, presets)])
    assert result.exit_code == 0, result.output

"""Bandwidth-latency curves: closed forms, limits, Little's law, and the command as a user types it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from archsim import cli
from archsim.commands.replay import load_memory
from archsim.memory.curve import Curve, CurveRequest, Pattern, _arrivals, _words, measure, unloaded
from archsim.memory.replay_channel import ReplayChannel
from archsim.memory.standard import ControllerSpec, DramStandard

HBM3 = load_memory("hbm3_16gb_8hi")
HBM2E = load_memory("hbm2e_16gb_8hi")
CONTROLLER = ControllerSpec()
REQUESTS = 6000


def curves(pattern: Pattern, standard: DramStandard = HBM3) -> list[Curve]:
    return list(measure(standard, CONTROLLER, CurveRequest(pattern=pattern, requests=REQUESTS)))


@pytest.fixture(scope="module", params=list(Pattern))
def family(request: pytest.FixtureRequest) -> list[Curve]:
    return curves(request.param)


@pytest.mark.parametrize("standard", [HBM3, HBM2E], ids=lambda standard: standard.name)
@pytest.mark.parametrize("pattern", Pattern)
def test_unloaded_latency_is_the_closed_form(pattern: Pattern, standard: DramStandard) -> None:
    found = unloaded(standard, CONTROLLER, CurveRequest(pattern=pattern))
    assert found.simulated == pytest.approx(found.closed_form, rel=1e-12)
    t = standard.timing(CONTROLLER)
    ns = float(standard.tick_fs) * 1e-6
    hit, conflict = (t.tCL + t.tBL) * ns, (t.tRP + t.tRCDRD + t.tCL + t.tBL) * ns
    assert hit <= found.simulated <= conflict
    if pattern is Pattern.RANDOM:
        assert found.simulated > 0.9 * conflict  # nearly every bank has another row open
    else:
        assert found.simulated < 0.5 * (hit + conflict)


def test_latency_rises_with_load(family: list[Curve]) -> None:
    for curve in family:
        for earlier, later in zip(curve.points, curve.points[1:], strict=False):
            assert later.read_from_arrival > 0.97 * earlier.read_from_arrival
            assert later.read_from_queue > 0.95 * earlier.read_from_queue
            assert later.read_from_queue <= later.read_from_arrival


def test_no_point_is_beyond_saturation_or_peak(family: list[Curve]) -> None:
    peak = float(HBM3.peak_bytes_per_second)
    for curve in family:
        assert curve.saturation < peak
        for point in curve.points:
            assert point.bandwidth < 1.03 * curve.saturation
            assert point.bandwidth <= 1.001 * point.offered
        assert curve.points[-1].saturated
        assert not any(point.saturated for point in curve.points[:-1])
        assert curve.points[-1].read_from_arrival > 2 * curve.points[-2].read_from_arrival
        assert curve.points[-1].bandwidth > 0.95 * curve.saturation


def test_random_reads_saturate_below_the_bound_of_four_activates() -> None:
    """Each burst needs an ACT: four bursts per pseudo-channel and tFAW; and refresh takes 9 to 10 % of the time."""
    random = curves(Pattern.RANDOM)[0]
    bound = 2 * 4 * 32 / (24 * 0.625e-9)
    assert bound == pytest.approx(17.07e9, rel=0.001)
    assert 0.85 * bound < random.saturation < 0.92 * bound


def test_more_writes_cost_bandwidth(family: list[Curve]) -> None:
    saturations = [curve.saturation for curve in family]
    assert [curve.read_share for curve in family] == [1.0, 0.75, 2 / 3, 0.5]
    assert saturations == sorted(saturations, reverse=True)


@pytest.mark.parametrize("load", [0.3, 0.9])
@pytest.mark.parametrize("pattern", Pattern)
def test_littles_law(pattern: Pattern, load: float) -> None:
    """Requests in the memory, counted at sampled ticks from each one's arrival and completion = rate x mean latency."""
    request = CurveRequest(pattern=pattern, requests=REQUESTS)
    timing = HBM3.timing(CONTROLLER)
    bank_of, column_of = (table.astype(np.int64) for table in HBM3.address_tables(CONTROLLER))
    channel = Recorder(timing, bank_of, column_of, timed=True)
    gap = timing.tBL / (0.25 * load)
    parts = [(_words(HBM3, request, 0.75, REQUESTS, p), _arrivals(request, p, gap)) for p in range(2)]
    channel.feed(parts)
    channel.finish()
    arrivals = np.sort(np.concatenate([part[1] for part in parts]))
    done = np.sort(np.concatenate(channel.completions))
    assert len(done) == len(arrivals) == 2 * REQUESTS
    sampled = np.random.default_rng(5).integers(0, channel.end_tick, 40_000)
    inside = np.searchsorted(arrivals, sampled, "right") - np.searchsorted(done, sampled, "right")
    reads, writes = channel.from_arrival
    rate = 2 * REQUESTS / channel.end_tick
    mean_latency = (reads.total + writes.total) / (reads.count + writes.count)
    assert inside.min() >= 0
    assert inside.mean() == pytest.approx(rate * mean_latency, rel=0.03)


class Recorder(ReplayChannel):
    """Keeps when each request was completed."""

    completions: list[np.ndarray]

    def _count(self, lane: Any, admitted: int) -> None:
        if not hasattr(self, "completions"):
            self.completions = []
        self.completions.append(lane.done[lane.done >= 0].copy())
        super()._count(lane, admitted)


def test_a_saturated_queue_of_reads_is_full() -> None:
    """Little's law for the queue alone: 32 reads wait for their RD, so each waits 32 over the rate of RDs."""
    curve = next(
        measure(
            HBM3, CONTROLLER, CurveRequest(pattern=Pattern.RANDOM, read_shares=(1.0,), loads=(1.5,), requests=REQUESTS)
        )
    )
    point = curve.points[0]
    per_second = point.bandwidth / 2 / 32  # of one pseudo-channel
    waiting = CONTROLLER.read_queue / per_second * 1e9
    data = 22 * 0.625
    assert point.read_from_queue == pytest.approx(waiting + data, rel=0.02)


def test_the_command_prints_and_writes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    points = ["--reads", "1", "--reads", "0.5", "--load", "0.1", "--load", "0.8"]
    words = ["curve", "h200", *points, "--requests", "2000", "--json", "--out"]
    found = json.loads(run(monkeypatch, capsys, *words, str(tmp_path / "c"))[1])
    assert found["channels"] == 96 and found["simulated_channels"] == 1
    assert found["peak_bytes_per_second"] == pytest.approx(4.8e12)
    assert found["unloaded_latency_ns"] == pytest.approx(found["unloaded_closed_form_ns"])
    for curve in found["curves"]:
        assert curve["saturation_bytes_per_second"] < found["peak_bytes_per_second"]
    table = pd.read_csv(tmp_path / "c" / "curve.csv")
    assert len(table) == 4 and set(table["read_share"]) == {1.0, 0.5}
    assert pd.read_parquet(tmp_path / "c" / "curve.parquet").shape == table.shape
    assert (tmp_path / "c" / "curve.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "c" / "curve.html").read_text()
    assert "Plotly.newPlot" in page and 'src="http' not in page
    code, out, _ = run(monkeypatch, capsys, *words[:-2])
    assert code == 0 and "one channel is simulated" in out and "100%" in out and "unloaded read" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("curve hbm3_16gb_8h", "hbm3_16gb_8hi"),
        ("curve hbm3_16gb_8hi --controller hbm34", "as fast as it can"),
        ("curve hbm3_16gb_8hi --controller fr_fcf", "fr_fcfs"),
        ("curve hbm3_16gb_8hi --pattern sequentia", "sequential"),
        ("curve hbm3_16gb_8hi --reads 75", "from 0 to 1"),
        ("curve hbm3_16gb_8hi --load 0", "above 0"),
        ("curve hbm3_16gb_8hi --streams 0", "0 streams"),
    ],
)
def test_bad_options_say_what_was_expected(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    code, _, err = run(monkeypatch, capsys, *words.split())
    assert code == 2 and message in err and "Traceback" not in err


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["archsim", *words])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    captured = capsys.readouterr()
    return int(exit_info.value.code or 0), captured.out, captured.err

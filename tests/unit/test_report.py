"""The report of a run: one offline page, an exact timeline, figures, terminal tables, the progress bar."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from browser import needs_chromium, opened_in_chromium
from fabricated import fabricated_run
from rich.console import Console

from archsim.records import BandwidthSample, Counts, PimCounts, PimUse, Span, TierCounts, TierUse
from archsim.report import ARTEFACTS, style, terminal, timeline
from archsim.report.bandwidth import BandwidthSeries
from archsim.report.channels import channel_bars, channel_panels
from archsim.report.names import job_of
from archsim.report.pim import PimJob, overlap_in_words
from archsim.report.roofline import chart
from archsim.report.series import RunSeries
from archsim.results import ChannelClass, PhaseData, RunResult, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return write_run(tmp_path_factory.mktemp("run") / "run", fabricated_run(layers=6, requests=20), artefacts=ARTEFACTS)


def page(run: RunResult) -> str:
    return (run.directory / "report.html").read_text(encoding="utf-8")


class TestPage:
    def test_equal_runs_give_equal_bytes_but_for_the_manifest(self, run: RunResult, tmp_path: Path) -> None:
        again = write_run(
            tmp_path / "again", fabricated_run(layers=6, requests=20, wall_seconds=9.0), artefacts=ARTEFACTS
        )
        files = {path.name for path in run.directory.iterdir()}
        assert files == {path.name for path in again.directory.iterdir()}
        differing = {f for f in files if (run.directory / f).read_bytes() != (again.directory / f).read_bytes()}
        assert differing == {"manifest.json"}

    def test_it_is_one_file_with_one_plotly_and_no_links_out(self, run: RunResult) -> None:
        text = page(run)
        assert text.count("plotly.js v") == 1
        assert not re.search(r"<(script|link|img)[^>]*(src|href)=", text)

    def test_every_section_and_figure_is_there(self, run: RunResult) -> None:
        text = page(run)
        shown = re.findall(r'<section id="(\w+)">', text)
        assert shown == [
            "headline", "time", "requests", "roofline", "bandwidth", "energy", "channels", "slowest",
            "provenance", "metrics",
        ]  # fmt: skip
        for name in ("jobs", "energy", "channels"):
            assert f'id="figure-{name}-prefill"' in text and f'id="figure-{name}-decode"' in text
        assert 'id="figure-bandwidth-prefill-HBM"' in text and 'id="figure-bandwidth-decode-HBM"' in text
        assert str(run.metrics["decode.hbm.bandwidth"]).partition(" ")[0] in text
        assert "estimate: tile quantisation" in text and "JESD238A" in text
        assert "channels 0-190 (one class of 191)" in text

    def test_names_are_escaped(self, tmp_path: Path) -> None:
        nasty = "</script><script>alert(1)</script>"
        data = fabricated_run(layers=1, name=nasty, facts={"model": nasty}, config={"note": nasty})
        data.phases[0].records[0].name = nasty
        text = page(write_run(tmp_path / "run", data, artefacts=ARTEFACTS))
        assert nasty not in text and "alert(1)" in text

    def test_a_run_without_samples_channels_or_requests(self, tmp_path: Path) -> None:
        full = fabricated_run(layers=1).phases[1]
        bare = PhaseData(
            phase="decode", records=full.records, tokens=32, sequences=32, devices=1, energy_pj={},
            peak_hbm_bytes_per_second=10**12, peak_matrix_flops_per_second=10**14,
        )  # fmt: skip
        data = fabricated_run(phases=(bare,), provenance=(), sources={})
        written = write_run(tmp_path / "run", data, artefacts=ARTEFACTS)
        shown = re.findall(r'<section id="(\w+)">', page(written))
        assert "roofline" in shown and not {"bandwidth", "channels", "tiers", "pim", "requests"} & set(shown)
        assert "one device" in page(written) and "all 1 devices" not in page(written)
        for name in ("roofline", "where_time_goes", "energy", "channels"):
            getattr(written.plot, name)()
        with pytest.raises(ValueError, match="sampled no bandwidth"):
            written.plot.bandwidth()

    @needs_chromium
    def test_a_browser_draws_every_figure_without_errors(self, run: RunResult, tmp_path: Path) -> None:
        dom, log = opened_in_chromium(run.directory / "report.html", tmp_path)
        figures = len(re.findall(r'id="figure-[^"]+"', page(run)))
        assert figures == 11
        assert len(re.findall(r'<svg class="main-svg"[^>]*style="background', dom)) == figures
        assert "Uncaught" not in log and "SEVERE" not in log


@pytest.fixture(scope="module")
def events(run: RunResult) -> list[dict[str, Any]]:
    content = json.loads((run.directory / "timeline.json").read_text(), parse_float=Decimal)
    return list(content["traceEvents"])


class TestTimeline:
    def test_times_are_exact(self, events: list[dict[str, Any]]) -> None:
        records = fabricated_run(layers=6).phases[1].records
        boxes = [event for event in events if event["ph"] == "X" and "kind" in event.get("args", {})]
        found = [(event["name"], Decimal(event["ts"]), Decimal(event["dur"])) for event in boxes[-len(records) :]]
        scale = Decimal(10**9)
        assert found == [(r.name, Decimal(r.start_fs) / scale, Decimal(r.duration_fs) / scale) for r in records]

    def test_every_track_has_a_name(self, events: list[dict[str, Any]]) -> None:
        threads = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
        processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
        assert {event["tid"] for event in events if "tid" in event} == set(threads)
        assert {event["pid"] for event in events} == set(processes)
        assert {"GPU[0].HBM", "GPU[0].Matrix", "GPU[0].Link", "GPU[0].Operators"} <= set(threads.values())

    def test_the_counter_is_bandwidth_and_ends_at_zero(self, events: list[dict[str, Any]]) -> None:
        counters = [event for event in events if event["ph"] == "C"]
        assert counters and all("bandwidth (GB/s)" in event["name"] for event in counters)
        assert counters[-1]["args"] == {"read": 0, "write": 0}
        assert max(sum(event["args"].values()) for event in counters) <= 4800

    def test_phases_on_their_own_clock_follow_each_other(self, tmp_path: Path) -> None:
        def phase(name: str) -> PhaseData:
            spans = [Span("GPU[0].HBM", "read", 0, 5 * 10**9)]
            return PhaseData(
                phase=name, records=[], spans=spans, bandwidth=[BandwidthSample(0, 10**9, 1, 0)], tokens=1, sequences=1,
                devices=1, peak_hbm_bytes_per_second=1, peak_matrix_flops_per_second=1, energy_pj={},
            )  # fmt: skip

        timeline.write_timeline(fabricated_run(phases=(phase("prefill"), phase("decode"))), tmp_path / "timeline.json")
        events = json.loads((tmp_path / "timeline.json").read_text())["traceEvents"]
        assert [(e["ts"], e["dur"]) for e in events if e["ph"] == "X" and e["name"] == "read"] == [(0, 5), (5, 5)]

    def test_a_timeline_too_long_to_open_says_where_it_was_cut(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(timeline, "EVENT_LIMIT", 10)
        timeline.write_timeline(fabricated_run(layers=1), tmp_path / "timeline.json")
        events = json.loads((tmp_path / "timeline.json").read_text())["traceEvents"]
        assert any(event["ph"] == "i" and "10 of 12 shown" in event["name"] for event in events)

    def test_decimals(self) -> None:
        assert timeline.microseconds(1_500_000_001) == "1.500000001"
        assert timeline.microseconds(2_000_000_000) == "2"
        assert timeline.microseconds(0) == "0"


class TestSeries:
    def test_jobs_of_all_layers_are_one_and_sum_to_the_phase(self, run: RunResult) -> None:
        jobs = RunSeries(run).jobs["decode"]
        assert len(jobs) == 12 and all(job.operators == 6 for job in jobs)
        assert sum(job.share for job in jobs) == pytest.approx(1)
        assert sum(job.time_s for job in jobs) == pytest.approx(run.metrics["decode.latency"].value)
        assert all(sum(job.cause_s.values()) == pytest.approx(job.time_s) for job in jobs)

    @pytest.mark.parametrize("name", ["layers[3].qkv_proj", "layers.3.qkv_proj", "layer[12].qkv_proj", "qkv_proj"])
    def test_names_lose_their_layer(self, name: str) -> None:
        assert job_of(name) == "qkv_proj"

    @pytest.mark.parametrize("layers", [2, 120])  # 120 layers are more samples than are drawn: they are binned
    def test_bandwidth_conserves_bytes(self, tmp_path: Path, layers: int) -> None:
        data = fabricated_run(layers=layers)
        steps = RunSeries(write_run(tmp_path / "run", data)).bandwidths["decode"][0]
        assert (steps.bin_ms is not None) == (layers == 120)
        widths = [(b - a) / 1e3 for a, b in zip(steps.edges_ms, steps.edges_ms[1:], strict=False)]
        drawn = sum((r + w) * s for r, w, s in zip(steps.read, steps.write, widths, strict=True))
        assert drawn == pytest.approx(data.phases[1].metrics()["decode.hbm.bytes"].value)
        assert steps.mean == pytest.approx(data.phases[1].metrics()["decode.hbm.bandwidth"].value)

    def test_the_mean_is_the_metric_where_the_last_operator_moves_nothing(self, tmp_path: Path) -> None:
        data = fabricated_run(layers=2)
        for phase in data.phases:
            del phase.bandwidth[-3:], phase.bandwidth[:1]  # type: ignore[attr-defined]
            for record in (phase.records[0], *phase.records[-3:]):
                record.counts.dram_read_bytes = record.counts.dram_write_bytes = 0
        written = write_run(tmp_path / "run", data)
        for phase in data.phases:
            (steps,) = RunSeries(written).bandwidths[phase.phase]
            assert steps.mean == pytest.approx(written.metrics[f"{phase.phase}.hbm.bandwidth"].value, rel=1e-12)
            assert steps.edges_ms[0] == 0
            assert steps.edges_ms[-1] == pytest.approx(1e3 * written.metrics[f"{phase.phase}.latency"].value)

    def test_channel_shares_sum_to_one(self, run: RunResult) -> None:
        for bar in channel_bars(run.summary.phases[0]):
            assert sum(bar.outcomes.values()) == pytest.approx(1) and sum(bar.tiles.values()) == pytest.approx(1)

    def test_a_memory_without_rows_and_refresh_shows_neither(self, tmp_path: Path) -> None:
        counts = Counts(dram_busy_ticks=11, dram_idle_ticks=89)
        channels = (ChannelClass(label="channel 0", weight=1, counts=counts),)
        phase = replace(fabricated_run(layers=1).phases[1], channels=channels, memory="SRAM")
        (panel,) = channel_panels(phase, [phase])
        assert [label for label, _ in panel.legend] == ["moving data", "idle"]
        written = write_run(tmp_path / "run", fabricated_run(phases=(phase,)), artefacts=ARTEFACTS)
        assert "</i>moving data" in page(written)
        assert "</i>row hits" not in page(written) and "</i>turnaround" not in page(written)
        assert len(written.plot.channels().axes) == 1

    def test_causes_that_took_no_time_are_not_shown(self, run: RunResult) -> None:
        assert "pim" not in RunSeries(run).causes and {"transfer", "link", "refresh"} <= set(RunSeries(run).causes)

    @pytest.mark.parametrize(
        ("component", "memory", "label"),
        [
            ("hbm_read", "SRAM", "SRAM read"), ("hbm_io", "HBM", "HBM I/O"), ("static", "SRAM", "static"),
            ("pim_mac", "HBM", "PIM mac"), ("tier_hbf", "HBM", "hbf (tier)"), ("link", "HBM", "link"),
        ],
    )  # fmt: skip
    def test_energies_have_names_that_fit_the_memory(self, component: str, memory: str, label: str) -> None:
        assert style.energy_label(component, memory) == label

    def test_text_on_colours_reads(self) -> None:
        assert style.text_on("#332288") == "#ffffff" and style.text_on("#D5D9DE") == "#000000"


CEILING = 1_000_000_000_000


def run_on_a_tier(directory: Path) -> RunResult:
    """A run whose projections read a tier, at its ceiling; each is issued while the one before it is on its way."""
    data = fabricated_run(layers=2)
    for phase in data.phases:
        free = phase.records[0].start_fs
        for record in phase.records:
            if record.name.endswith("_proj"):
                moved = 8 * 2**20
                record.counts.tiers = {"hbf": TierCounts(read_bytes=moved)}
                arrival = free + moved * 1000
                phase.spans.append(Span("GPU[0].hbf", record.name, free, arrival))  # type: ignore[attr-defined]
                free = arrival - moved * 500
    moved_by = [sum(8 * 2**20 for record in phase.records if record.counts.tiers) for phase in data.phases]
    phases = tuple(
        replace(
            phase,
            tiers=(
                TierUse(
                    name="hbf", memory="8 x flash", capacity_bytes=10**12, placed_bytes=10**9, write_bytes=0,
                    ceiling_bytes_per_second=CEILING, energy_low_pj=1e9, energy_pj=2e9, energy_high_pj=3e9,
                    read_bytes=moved,
                ),
            ),
        )
        for phase, moved in zip(data.phases, moved_by, strict=True)
    )  # fmt: skip
    return write_run(directory / "run", replace(data, phases=phases), artefacts=ARTEFACTS)


class TestTiers:
    def test_a_tier_has_a_card_and_its_bandwidth_over_time(self, tmp_path: Path) -> None:
        text = page(run_on_a_tier(tmp_path))
        assert "hbf bandwidth" in text and "of its ceiling, 1.000 TB/s, each device" in text
        assert 'id="figure-bandwidth-prefill-hbf"' in text and 'id="figure-bandwidth-decode-hbf"' in text

    def test_bytes_are_conserved_below_the_ceiling(self, tmp_path: Path) -> None:
        run = run_on_a_tier(tmp_path)
        for phase in run.summary.phases:
            _, steps = BandwidthSeries(run).of(phase)
            assert steps.memory == "hbf" and steps.limit_name == "ceiling"
            assert steps.mean == pytest.approx(run.metrics[f"{phase.phase}.tier.hbf.bandwidth"].value, rel=1e-9)
            widths = [(b - a) / 1e3 for a, b in zip(steps.edges_ms, steps.edges_ms[1:], strict=False)]
            drawn = sum(rate * width for rate, width in zip(steps.read, widths, strict=True))
            assert drawn == pytest.approx(run.metrics[f"{phase.phase}.tier.hbf.bytes"].value)
            assert max(steps.read) <= CEILING * (1 + 1e-9)

    def test_without_a_timeline_there_is_no_plot_of_a_tier(self, tmp_path: Path) -> None:
        run = run_on_a_tier(tmp_path)
        (run.directory / "timeline.json").unlink()
        assert [steps.memory for steps in BandwidthSeries(run).of(run.summary.phases[0])] == ["HBM"]


class TestPim:
    def run(self, directory: Path) -> RunResult:
        """Attention on PIM, which o_proj waits for."""
        data = fabricated_run(layers=2)
        phase = data.phases[1]
        use = PimCounts(operators=2, commands={"MAC": 5})
        for record in phase.records:
            if record.name.endswith(".attention"):
                counts = PimCounts(operators=1, busy_fs=4 * 10**10, read_bytes=4 * 10**8, macs=2 * 10**8)
                counts.macs_asked = counts.macs
                record.counts.pim = counts
                use.add(counts)
            if record.name.endswith(".o_proj"):
                record.cause_fs |= {"pim": record.cause_fs["transfer"], "transfer": 0}
        pim = PimUse("1 x units", "attention", 0, 0, 20_000_000_000_000, use)
        return write_run(directory / "run", replace(data, phases=(replace(phase, pim=pim),)), artefacts=ARTEFACTS)

    def test_the_page_says_whose_time_it_is(self, tmp_path: Path) -> None:
        run = self.run(tmp_path)
        text = page(run)
        assert "PIM at work" in text and "attention (PIM)" in text
        assert "PIM works on attention while the device goes on" in text
        assert "what the device waits for PIM is time of the operator that reads the results: o_proj." in text
        attention, o_proj = RunSeries(run).pim_jobs["decode"]
        assert attention.busy_s == pytest.approx(8e-5) and attention.waited_s == 0
        assert attention.bandwidth == pytest.approx(8e8 / 8e-5) and attention.rate == pytest.approx(2 * 4e8 / 8e-5)
        assert o_proj.name == "o_proj" and o_proj.waited_s > 0 == o_proj.busy_s

    def test_without_overlap_there_is_nothing_to_say(self) -> None:
        attention = PimJob("attention", busy_s=1.0, waited_s=1.2, read_bytes=1, host_bytes=1, macs=1)
        append = PimJob("kv_append", busy_s=0.0, waited_s=0.1, read_bytes=0, host_bytes=1, macs=0)
        assert overlap_in_words([attention, append]) == "" == overlap_in_words([])
        said = overlap_in_words([replace(attention, waited_s=0.1), append])
        assert said.startswith("PIM works on attention while the device goes on") and "kv_append" not in said


class TestFigures:
    @pytest.mark.parametrize("name", ["roofline", "where_time_goes", "bandwidth", "energy", "channels", "requests"])
    def test_a_figure_draws_with_labelled_axes(self, run: RunResult, name: str) -> None:
        figure = getattr(run.plot, name)()
        assert figure._repr_png_().startswith(b"\x89PNG")
        assert all(axes.get_xlabel() for axes in figure.axes)

    @pytest.mark.parametrize("make", [lambda path: write_run(path / "run", fabricated_run(layers=6)), run_on_a_tier])
    def test_names_on_the_roofline_can_be_read(self, tmp_path: Path, make: Callable[[Path], RunResult]) -> None:
        run = make(tmp_path)
        figure = run.plot.roofline()
        figure.draw_without_rendering()
        (axes,) = figure.axes
        names = [text.get_window_extent() for text in axes.texts]
        assert {"attention", "gate_up_proj"} <= {line for text in axes.texts for line in text.get_text().splitlines()}
        assert not any(one.overlaps(other) for one, other in combinations(names, 2))
        points = [
            axes.transData.transform((point.intensity, point.rate / 1e12)) for point in chart(RunSeries(run)).points
        ]
        assert not [point for point in points for box in names if box.contains(*point)]
        for line in axes.lines:
            corners = axes.transData.transform(line.get_xydata())
            along = [a + (b - a) * step / 200 for a, b in pairwise(corners) for step in range(201)]
            assert not [point for point in along for box in names if box.contains(*point)]

    def test_each_tier_has_dashes_of_its_own(self) -> None:
        assert len({style.roof_dash(beside) for beside in range(1, 5)}) == 4

    def test_requests_without_requests(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="served no requests"):
            write_run(tmp_path / "run", fabricated_run(layers=1)).plot.requests()


class TestTerminal:
    def test_the_tables_tell_the_headline(self, run: RunResult) -> None:
        out = io.StringIO()
        terminal.print_run(run, Console(file=out, width=120))
        for text in ("time to first token", "time per output token", "of 4.800 TB/s", "HBM transfer", "p99"):
            assert text in out.getvalue()
        assert str(run.metrics["decode.tpot"]) in out.getvalue() and "memory (" in out.getvalue()

    def test_short_work_shows_no_bar(self) -> None:
        out = io.StringIO()
        with terminal.progress("quick", console=Console(file=out, force_terminal=True)) as bar:
            bar.advance()
        assert out.getvalue() == ""

    def test_long_work_shows_a_bar(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(terminal, "_PATIENCE_S", 0.01)
        out = io.StringIO()
        with terminal.progress("iterations", total=4, console=Console(file=out, force_terminal=True)) as bar:
            bar.update(completed=1)
            for _ in range(200):
                if "iterations" in out.getvalue():
                    break
                time.sleep(0.01)
        assert "iterations" in out.getvalue() and "1/4" in out.getvalue()

    def test_silent_when_asked_or_not_a_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        for enabled in (True, False):
            with terminal.progress("work", enabled=enabled) as bar:
                bar.advance()
                bar.update(total=3)
        assert capsys.readouterr() == ("", "")

"""report.html: one page that works offline, drawn from a run directory alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from archsim.metrics import Metric, definition_of, format_quantity
from archsim.records import PimUse, TierUse
from archsim.report import style
from archsim.report.look import embed, template
from archsim.report.series import ROW_OUTCOMES, TILES, Job, RunSeries, phase_title
from archsim.results import PhaseSummary, RunResult

_SLOWEST = 10


@dataclass(frozen=True)
class Card:
    """A headline number. `fill` (0..1) draws a bar of how much of a limit is used."""

    label: str
    value: str
    note: str = ""
    fill: float | None = None


@dataclass(frozen=True)
class PhaseSection:
    """What the page shows of one phase."""

    phase: str
    title: str
    cards: list[Card]
    jobs: str
    bandwidth: str
    bandwidth_note: str
    energy: str
    energy_total: str
    channels: str
    tiers: tuple[TierUse, ...]
    tier_bytes: str
    pim: PimUse | None
    slowest: list[Job]


def render(run: RunResult) -> str:
    """The page as text. It holds nothing that differs between two equal runs."""
    from plotly.offline import get_plotlyjs

    from archsim.report import plots

    series = RunSeries(run)
    summary = run.summary
    return template("report.html.j2").render(
        run=summary,
        config=run.config,
        sections=[_phase_section(series, phase) for phase in series.phases],
        serving=_serving_cards(run.metrics),
        overview=embed(plots.cause_overview(series), "overview"),
        roofline=embed(plots.roofline(series), "roofline"),
        off_roofline=_off_roofline(series),
        requests=embed(plots.requests(series), "requests"),
        estimates=_sources(summary.sources, estimated=True),
        sourced=_sources(summary.sources, estimated=False),
        values=run.metrics,
        metrics=[(name, metric, definition_of(name)) for name, metric in run.metrics.items()],
        cause_legend=[(series.cause_label(cause), style.CAUSE_COLOURS[cause]) for cause in series.causes],
        row_legend=[(style.ROW_LABELS[outcome], style.ROW_COLOURS[outcome]) for outcome in ROW_OUTCOMES],
        tile_legend=[(style.TILE_LABELS[tile], style.TILE_COLOURS[tile]) for tile in TILES],
        plotlyjs=get_plotlyjs(),
        quantity=format_quantity,
        cause_label=series.cause_label,
        memory=series.memory,
        causes=series.causes,
        style=style,
    )


def _phase_section(series: RunSeries, phase: PhaseSummary) -> PhaseSection:
    from archsim.report import plots

    steps = series.bandwidth(phase.phase)
    binned = steps is not None and steps.bin_ms is not None
    jobs = series.jobs[phase.phase]
    energy_joules = sum(pj for pj in phase.energy_pj.values()) * 1e-12
    return PhaseSection(
        phase=phase.phase,
        title=phase_title(phase),
        cards=_phase_cards(series.run.metrics, phase),
        jobs=embed(plots.jobs_by_cause(series, phase), f"jobs-{phase.phase}"),
        bandwidth=embed(plots.bandwidth(series, phase), f"bandwidth-{phase.phase}"),
        bandwidth_note=f"averaged over {(steps.bin_ms or 0.0) * 1e3:.3g} µs" if steps is not None and binned else "",
        energy=embed(plots.energy(series, phase), f"energy-{phase.phase}"),
        energy_total=format_quantity(energy_joules, "J"),
        channels=embed(plots.channels(series, phase), f"channels-{phase.phase}"),
        tiers=phase.tiers,
        pim=phase.pim,
        tier_bytes=embed(plots.tiers(series, phase), f"tiers-{phase.phase}"),
        slowest=jobs[:_SLOWEST],
    )


def _phase_cards(metrics: Mapping[str, Metric], phase: PhaseSummary) -> list[Card]:
    def card(label: str, tail: str, note: str = "", filled_by: str = "") -> Card | None:
        metric = metrics.get(f"{phase.phase}.{tail}")
        fill = metrics.get(f"{phase.phase}.{filled_by}") if filled_by else None
        return Card(label, str(metric), note, float(fill.value) if fill else None) if metric else None

    utilisation = metrics.get(f"{phase.phase}.hbm.utilisation")
    peak = format_quantity(phase.peak_hbm_bytes_per_second, "B/s")
    roof = format_quantity(phase.peak_matrix_flops_per_second, "FLOP/s")
    time = {"prefill": ("Time to first token", "ttft"), "decode": ("Time per output token", "tpot")}
    cards = [
        card(*time.get(phase.phase, ("Time", "latency")), note=_note_on_throughput(metrics, phase)),
        card(f"{phase.memory} bandwidth", "hbm.bandwidth", f"{utilisation} of {peak}, each device", "hbm.utilisation"),
        card("Matrix utilisation", "matrix.utilisation", f"of {roof} {phase.matrix_format}", "matrix.utilisation"),
        card("Energy per token", "energy_per_token", f"all {phase.devices} devices" if phase.devices > 1 else ""),
        card("Power", "power", "mean of one device"),
        _bound_card(metrics, phase) if phase.bound else None,
    ]
    return [entry for entry in cards if entry is not None]


def _bound_card(metrics: Mapping[str, Metric], phase: PhaseSummary) -> Card:
    ratio = metrics.get(f"{phase.phase}.roofline_ratio")
    against = f"; {ratio} roofline time" if ratio else ""
    return Card("Bound by", phase.bound, f"{100 * phase.bound_share:.0f} % of the time{against}")


def _note_on_throughput(metrics: Mapping[str, Metric], phase: PhaseSummary) -> str:
    throughput = metrics.get(f"{phase.phase}.throughput")
    return str(throughput) if throughput else ""


def _serving_cards(metrics: Mapping[str, Metric]) -> list[Card]:
    def shown(tail: str) -> str:
        metric = metrics.get(f"serving.{tail}")
        return str(metric) if metric else "none"

    if "serving.requests" not in metrics:
        return []
    return [
        Card("Requests", shown("requests"), f"in {shown('makespan')}"),
        Card("Time to first token", shown("ttft.p50"), f"median; p99 {shown('ttft.p99')}"),
        Card("Time per output token", shown("tpot.p50"), f"median; p99 {shown('tpot.p99')}"),
        Card("Request latency", shown("latency.p50"), f"median; p99 {shown('latency.p99')}"),
        Card("Throughput", shown("throughput"), f"{shown('output_tokens')} generated"),
        Card("Energy per output token", shown("energy_per_output_token"), "all devices"),
    ]


def _off_roofline(series: RunSeries) -> list[str]:
    """Jobs that have no place on the roofline plot, since they compute nothing or leave HBM alone."""
    jobs = [job for phase_jobs in series.jobs.values() for job in phase_jobs]
    return sorted({job.name for job in jobs if job.intensity is None})


def _sources(sources: Mapping[str, str], *, estimated: bool) -> list[tuple[str, str]]:
    return [(path, text) for path, text in sorted(sources.items()) if text.startswith("estimate") == estimated]

"""report.html: one page that works offline, drawn from a run directory alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from archsim.metrics import Metric, definition_of, format_quantity
from archsim.records import TierUse
from archsim.report import style
from archsim.report.bandwidth import Bandwidth
from archsim.report.channels import Panel, channel_panels
from archsim.report.look import embed, template
from archsim.report.pim import PimJob, overlap_in_words
from archsim.report.roofline import Chart, chart
from archsim.report.series import NOTHING_TO_SEE, Job, RunSeries, phase_title
from archsim.results import PhaseSummary, RunResult

_SLOWEST = 10
_PIM_FIELDS = {
    "operators": "operators",
    "at work, of the time": "busy",
    "read": "bytes",
    "of that padding": "padding",
    "bandwidth at work": "bandwidth",
    "inputs and results": "host_bytes",
}
"""What the page shows of PIM, by the metric's name behind "pim."."""


@dataclass(frozen=True)
class Card:
    """A headline number. `fill` (0..1) draws a bar of how much of a limit is used."""

    label: str
    value: str
    note: str = ""
    fill: float | None = None


CardMaker = Callable[[str, str, str, str], Card | None]
"""Of label, metric without its phase, note and the metric that fills the bar."""

Fields = list[tuple[str, list[str]]]
"""A table on its side: a name and its values, one for each column."""


@dataclass(frozen=True)
class PhaseSection:
    """What the page shows of one phase."""

    phase: str
    title: str
    cards: list[Card]
    jobs: str
    bandwidths: list[tuple[str, str, str]]
    "Memory, remark and figure."
    energy: str
    energy_total: str
    channels: str
    channel_panels: list[Panel]
    tiers: tuple[TierUse, ...]
    tier_fields: Fields
    tier_bytes: str
    pim: bool
    pim_fields: Fields
    pim_jobs: list[PimJob]
    pim_overlap: str
    slowest: list[Job]


def render(run: RunResult) -> str:
    """The page as text. It holds nothing that differs between two equal runs."""
    from plotly.offline import get_plotlyjs

    from archsim.report import plots

    series = RunSeries(run)
    drawn = chart(series)
    summary = run.summary
    return template("report.html.j2").render(
        run=summary,
        config=run.config,
        sections=[_phase_section(series, phase) for phase in series.phases],
        serving=_serving_cards(run.metrics),
        overview=embed(plots.cause_overview(series), "overview"),
        roofline=embed(plots.roofline(series, drawn), "roofline"),
        off_roofline=_off_roofline(series, drawn),
        pim_on_roofline=any(point.job is None for point in drawn.points),
        requests=embed(plots.requests(series), "requests"),
        estimates=_sources(summary.sources, estimated=True),
        sourced=_sources(summary.sources, estimated=False),
        values=run.metrics,
        metrics=[(name, metric, definition_of(name)) for name, metric in run.metrics.items()],
        cause_legend=[(series.cause_label(cause), style.CAUSE_COLOURS[cause]) for cause in series.causes],
        plotlyjs=get_plotlyjs(),
        quantity=format_quantity,
        nothing_to_see=format_quantity(NOTHING_TO_SEE, "fraction"),
        cause_label=series.cause_label,
        memory=series.memory,
        causes=series.causes,
        style=style,
    )


def _phase_section(series: RunSeries, phase: PhaseSummary) -> PhaseSection:
    from archsim.report import plots

    jobs = series.jobs[phase.phase]
    energy_joules = sum(pj for pj in phase.energy_pj.values()) * 1e-12
    return PhaseSection(
        phase=phase.phase,
        title=phase_title(phase),
        cards=_phase_cards(series.run.metrics, phase),
        jobs=embed(plots.jobs_by_cause(series, phase), f"jobs-{phase.phase}"),
        bandwidths=[
            (one.memory, _binned(one), embed(plots.bandwidth(one), f"bandwidth-{phase.phase}-{one.memory}"))
            for one in series.bandwidths[phase.phase]
        ],
        energy=embed(plots.energy(series, phase), f"energy-{phase.phase}"),
        energy_total=format_quantity(energy_joules, "J"),
        channels=embed(plots.channels(series, phase), f"channels-{phase.phase}"),
        channel_panels=channel_panels(phase, series.phases),
        tiers=phase.tiers,
        tier_fields=_tier_fields(series.run.metrics, phase),
        pim=phase.pim is not None,
        pim_fields=_pim_fields(series.run.metrics, phase),
        pim_jobs=series.pim_jobs[phase.phase],
        pim_overlap=overlap_in_words(series.pim_jobs[phase.phase]),
        tier_bytes=embed(plots.tiers(series, phase), f"tiers-{phase.phase}"),
        slowest=jobs[:_SLOWEST],
    )


def _binned(steps: Bandwidth) -> str:
    return f"averaged over {steps.bin_ms * 1e3:.3g} µs" if steps.bin_ms is not None else ""


def _phase_cards(metrics: Mapping[str, Metric], phase: PhaseSummary) -> list[Card]:
    def card(label: str, tail: str, note: str, filled_by: str = "") -> Card | None:
        metric = metrics.get(f"{phase.phase}.{tail}")
        fill = metrics.get(f"{phase.phase}.{filled_by}") if filled_by else None
        return Card(label, str(metric), note, float(fill.value) if fill else None) if metric else None

    utilisation = metrics.get(f"{phase.phase}.hbm.utilisation")
    peak = format_quantity(phase.peak_hbm_bytes_per_second, "B/s")
    roof = format_quantity(phase.peak_matrix_flops_per_second, "FLOP/s")
    time = {"prefill": ("Time to first token", "ttft"), "decode": ("Time per output token", "tpot")}
    cards = [
        card(*time.get(phase.phase, ("Time", "latency")), _note_on_throughput(metrics, phase)),
        card(f"{phase.memory} bandwidth", "hbm.bandwidth", f"{utilisation} of {peak}, each device", "hbm.utilisation"),
        *_tier_cards(metrics, card, phase),
        *_pim_cards(metrics, card, phase),
        card("Matrix utilisation", "matrix.utilisation", f"of {roof} {phase.matrix_format}", "matrix.utilisation"),
        card("Energy per token", "energy_per_token", style.of_all_devices(phase.devices)),
        card("Power", "power", "mean of one device"),
        _bound_card(metrics, phase) if phase.bound else None,
    ]
    return [entry for entry in cards if entry is not None]


def _tier_cards(metrics: Mapping[str, Metric], card: CardMaker, phase: PhaseSummary) -> list[Card | None]:
    """A card for each tier that moved something."""
    return [
        card(
            f"{tier.name} bandwidth",
            f"tier.{tier.name}.bandwidth",
            f"{_shown(metrics, phase, f'tier.{tier.name}.utilisation')} of its ceiling, "
            f"{format_quantity(tier.ceiling_bytes_per_second, 'B/s')}, each device",
            f"tier.{tier.name}.utilisation",
        )
        for tier in phase.tiers
        if tier.read_bytes + tier.write_bytes
    ]


def _pim_cards(metrics: Mapping[str, Metric], card: CardMaker, phase: PhaseSummary) -> list[Card | None]:
    if phase.pim is None or not phase.pim.counts.operators:
        return []
    note = f"of the time; {_shown(metrics, phase, 'pim.bandwidth')} at its units then"
    return [card("PIM at work", "pim.busy", note, "pim.busy")]


def _tier_fields(metrics: Mapping[str, Metric], phase: PhaseSummary) -> Fields:
    def of_each(tail: str) -> list[str]:
        return [str(metrics[f"{phase.phase}.tier.{tier.name}.{tail}"]) for tier in phase.tiers]

    ceilings = [format_quantity(tier.ceiling_bytes_per_second, "B/s") for tier in phase.tiers]
    low, high = of_each("energy_low"), of_each("energy_high")
    return [
        ("tier", [tier.name for tier in phase.tiers]),
        ("memory", [tier.memory for tier in phase.tiers]),
        ("holds", [_part(tier.placed_bytes, tier.capacity_bytes) for tier in phase.tiers]),
        ("read", [format_quantity(tier.read_bytes, "B") for tier in phase.tiers]),
        ("written", [format_quantity(tier.write_bytes, "B") for tier in phase.tiers]),
        ("bandwidth", of_each("bandwidth")),
        ("of its ceiling", [f"{u} of {c}" for u, c in zip(of_each("utilisation"), ceilings, strict=True)]),
        ("energy, all devices", of_each("energy")),
        ("sources allow", [f"{least} to {most}" for least, most in zip(low, high, strict=True)]),
    ]


def _part(amount: int, whole: int) -> str:
    return f"{format_quantity(amount, 'B')} of {format_quantity(whole, 'B')}"


def _pim_fields(metrics: Mapping[str, Metric], phase: PhaseSummary) -> Fields:
    if phase.pim is None:
        return []
    ceiling = format_quantity(phase.pim.ceiling_bytes_per_second, "B/s")
    commands = phase.pim.counts.commands.items()
    texts = {
        "memory": phase.pim.memory,
        "offloaded": phase.pim.policy,
        **{name: _shown(metrics, phase, f"pim.{tail}") for name, tail in _PIM_FIELDS.items()},
        "of its ceiling": f"{_shown(metrics, phase, 'pim.utilisation') or 'none'} of {ceiling}",
        "commands": ", ".join(f"{count:,} {name}" for name, count in commands),
    }
    return [(name, [text]) for name, text in texts.items() if text]


def _shown(metrics: Mapping[str, Metric], phase: PhaseSummary, tail: str) -> str:
    metric = metrics.get(f"{phase.phase}.{tail}")
    return "" if metric is None else str(metric)


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


def _off_roofline(series: RunSeries, drawn: Chart) -> list[str]:
    """Jobs that have no place on the roofline plot, since they compute nothing or leave HBM and PIM alone."""
    jobs = [job for phase_jobs in series.jobs.values() for job in phase_jobs]
    return sorted({job.name for job in jobs if job.intensity is None} - {point.operator for point in drawn.points})


def _sources(sources: Mapping[str, str], *, estimated: bool) -> list[tuple[str, str]]:
    return [(path, text) for path, text in sorted(sources.items()) if text.startswith("estimate") == estimated]

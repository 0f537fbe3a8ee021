"""The figures of the HTML page: plotly, one function each, all from `RunSeries`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from archsim.metrics import FS_PER_SECOND, format_quantity, percentile_seconds
from archsim.report import style
from archsim.report.bandwidth import Bandwidth
from archsim.report.channels import channel_bars, channel_panels
from archsim.report.look import look, note
from archsim.report.roofline import Canvas, Chart, Point, labels, legend_lines
from archsim.report.series import RunSeries, memory_words, phase_title
from archsim.results import PhaseSummary

_ROW = 26  # pixels of one horizontal bar
_ROOFLINE_WIDTH = 1176  # pixels between the axes of a page as wide as it gets


def cause_overview(series: RunSeries) -> go.Figure:
    """One bar per phase: the share of its time by cause."""
    names = [phase.phase for phase in series.phases]
    shares = {name: series.cause_shares(name) for name in names}
    figure = go.Figure()
    for cause in series.causes:
        colour = style.CAUSE_COLOURS[cause]
        figure.add_bar(
            y=names,
            x=[100 * shares[name][cause] for name in names],
            orientation="h",
            name=series.cause_label(cause),
            marker_color=colour,
            text=[f"{100 * shares[name][cause]:.0f} %" if shares[name][cause] >= 0.03 else "" for name in names],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont_color=style.text_on(colour),
            hovertemplate="%{y}: %{x:.2f} % " + series.cause_label(cause) + "<extra></extra>",
        )
    _stack(figure, height=70 + 44 * len(names), bottom=56)
    figure.update_xaxes(title_text="share of the phase's time (%)", range=[0, 100])
    figure.update_layout(showlegend=False, margin_t=8)
    return figure


def jobs_by_cause(series: RunSeries, phase: PhaseSummary) -> go.Figure:
    """Time of each operator of a phase, all layers together, stacked by cause."""
    jobs = series.jobs[phase.phase]
    longest = max((job.time_s for job in jobs), default=0.0)
    scale, unit = (1e6, "µs") if longest < 1e-3 else (1e3, "ms") if longest < 1 else (1.0, "s")
    figure = go.Figure()
    labels = [job.name if job.name == job.kind else f"{job.name} <i>({job.kind})</i>" for job in jobs]
    for cause in series.causes:
        figure.add_bar(
            y=labels,
            x=[job.cause_s[cause] * scale for job in jobs],
            orientation="h",
            name=series.cause_label(cause),
            marker_color=style.CAUSE_COLOURS[cause],
            customdata=[100 * job.cause_s[cause] / job.time_s if job.time_s else 0 for job in jobs],
            hovertemplate="%{y}<br>"
            + series.cause_label(cause)
            + f": %{{x:.4g}} {unit} (%{{customdata:.1f}} %)<extra></extra>",
        )
    for job, label in zip(jobs, labels, strict=True):
        total = f"{format_quantity(job.time_s, 's')} · {100 * job.share:.1f} %"
        note(figure, job.time_s * scale, label, total, xanchor="left", xshift=4)
    _stack(figure, height=72 + _ROW * len(jobs), bottom=56)
    figure.update_xaxes(title_text=f"time ({unit}), all layers together", range=[0, longest * scale * 1.16])
    figure.update_layout(showlegend=False, margin_t=8)
    return figure


def roofline(series: RunSeries, drawn: Chart) -> go.Figure:
    """Operators against the roofs of memories and compute of one device."""
    figure = go.Figure()
    for roof in drawn.roofs:
        line = roof.line(drawn.left, drawn.right)
        figure.add_scatter(
            x=[intensity for intensity, _ in line],
            y=[rate / 1e12 for _, rate in line],
            mode="lines",
            name=roof.label,
            line={"color": style.INK, "width": 2}
            if not roof.beside
            else {"color": style.tier_colour(roof.beside), "width": 2.5, "dash": style.roof_dash(roof.beside)[0]},
            hoverinfo="skip",
            showlegend=bool(roof.beside),
        )
    for index, phase in enumerate(series.phases):
        here = [point for point in drawn.points if point.phase == index]
        figure.add_scatter(
            x=[point.intensity for point in here],
            y=[point.rate / 1e12 for point in here],
            mode="markers",
            name=phase_title(phase),
            showlegend=True,
            marker={
                "size": [2 * _marker_radius(point.share) for point in here],
                "symbol": style.PHASE_SYMBOLS[index % len(style.PHASE_SYMBOLS)],
                "color": style.phase_colour(index),
                "opacity": 0.8,
                "line": {"color": style.PAPER, "width": 1},
            },
            text=[_hover(point, series.memory) for point in here],
            hovertemplate="%{text}<extra></extra>",
        )
    texts = legend_lines(drawn, series.phases)
    left, top = _ROOFLINE_WIDTH - 76 - 7 * max(map(len, texts)), 14 + 19 * len(texts)
    canvas = Canvas(_ROOFLINE_WIDTH, 452, 6.8, 16, _marker_radius, (left, 0, _ROOFLINE_WIDTH, top))
    for label in labels(drawn, canvas):
        note(
            figure, math.log10(label.intensity), math.log10(label.rate / 1e12), "<br>".join(label.lines),
            xanchor={1: "left", 0: "center", -1: "right"}[label.side[0]], xshift=label.across,
            yanchor={1: "bottom", 0: "middle", -1: "top"}[label.side[1]], yshift=label.up,
            align={1: "left", 0: "center", -1: "right"}[label.side[0]],
        )  # fmt: skip
    look(figure, height=520, bottom=54)
    memory = memory_words(series.phases)
    across, up = ([math.log10(edge) for edge in edges] for edges in (
        (drawn.left, drawn.right), (drawn.low / 1e12, drawn.high / 1e12)
    ))  # fmt: skip
    log: dict[str, Any] = {"type": "log", "dtick": 1, "exponentformat": "none"}
    figure.update_xaxes(**log, range=across, title_text=f"arithmetic intensity (FLOP per {memory})")
    figure.update_yaxes(**log, range=up, title_text="achieved rate (TFLOP/s, one device)")
    corner = {"x": 0.99, "y": 0.02, "xanchor": "right", "yanchor": "bottom"}
    figure.update_layout(margin_t=14, legend=corner | {"itemsizing": "constant", "itemwidth": 46})
    return figure


def _marker_radius(share: float) -> float:
    """Pixels."""
    return (9 + 30 * math.sqrt(share)) / 2


def bandwidth(steps: Bandwidth) -> go.Figure:
    """Bandwidth of one memory of one device over a phase, with its mean and the most it can be."""
    scale, unit = steps.unit
    figure = go.Figure()
    for name, rates, colour in (("read", steps.read, style.READ_COLOUR), ("write", steps.write, style.WRITE_COLOUR)):
        if any(rates):
            figure.add_scatter(
                x=steps.edges_ms,
                y=[round(rate / scale, 6) for rate in [*rates, rates[-1]]],
                name=name,
                stackgroup="memory",
                showlegend=True,
                line={"shape": "hv", "width": 0},
                fillcolor=colour,
                hovertemplate=f"{name} %{{y:.3f}} {unit}<extra></extra>",
            )
    for value, label, dash, colour, aside in (
        (steps.limit, steps.limit_name, "dash", style.PEAK, 8),
        (steps.mean, "mean", "solid", style.INK, -8),
    ):
        figure.add_hline(y=value / scale, line={"color": colour, "dash": dash, "width": 1.5})
        text = f"{label} {format_quantity(value, 'B/s')}"
        shift = {"xshift": 6, "yshift": aside if steps.near_limit else 0}
        note(figure, 1, value / scale, text, xref="paper", xanchor="left", font_color=colour, **shift)
    look(figure, height=270, bottom=48)
    figure.update_layout(margin_r=134, hovermode="x unified", legend=_legend_above())
    figure.update_xaxes(title_text="time since the phase began (ms)", range=[0, steps.edges_ms[-1]])
    figure.update_yaxes(title_text=f"{unit}, one device", range=[0, steps.limit / scale * 1.12])
    return figure


def tiers(series: RunSeries, phase: PhaseSummary) -> go.Figure | None:
    """Bytes of each operator by the memory that moved them; None for a device with its main memory alone."""
    shares = series.tier_shares(phase)
    if not shares:
        return None
    totals = {job: math.fsum(share.job_bytes[job] for share in shares) for job in shares[0].job_bytes}
    jobs = [job for job, total in totals.items() if total]
    figure = go.Figure()
    for index, share in enumerate(shares):
        figure.add_bar(
            y=jobs,
            x=[share.job_bytes[job] / 1e9 for job in jobs],
            orientation="h",
            name=share.memory,
            marker_color=style.tier_colour(index),
            hovertemplate="%{y}: %{x:.4g} GB of " + share.memory + "<extra></extra>",
        )
    for job in jobs:
        note(figure, totals[job] / 1e9, job, format_quantity(totals[job], "B"), xanchor="left", xshift=4)
    _stack(figure, height=92 + _ROW * len(jobs), bottom=56)
    longest = max((totals[job] for job in jobs), default=0.0)
    figure.update_xaxes(title_text="bytes moved (GB), one device, all layers", range=[0, longest / 1e9 * 1.16])
    figure.update_layout(margin_t=34, legend=_legend_above())
    return figure


def energy(series: RunSeries, phase: PhaseSummary) -> go.Figure:
    """Energy by component, all devices."""
    parts = series.energy_joules(phase)
    total = math.fsum(joules for _, joules in parts)
    largest = max((joules for _, joules in parts), default=1.0)
    scale, unit = (1e3, "mJ") if largest < 1 else (1.0, "J")
    figure = go.Figure()
    figure.add_bar(
        y=[style.energy_label(name, phase.memory) for name, _ in parts],
        x=[joules * scale for _, joules in parts],
        orientation="h",
        marker_color=style.ACCENT,
        customdata=[f"{phase.phase}.energy.{name}" for name, _ in parts],
        hovertemplate=f"%{{y}}: %{{x:.4g}} {unit}<br>%{{customdata}}<extra></extra>",
    )
    for name, joules in parts:
        text = f"{format_quantity(joules, 'J')} · {100 * joules / total:.1f} %"
        note(figure, joules * scale, style.energy_label(name, phase.memory), text, xanchor="left", xshift=4)
    _stack(figure, height=72 + _ROW * len(parts), bottom=56)
    figure.update_xaxes(
        title_text=f"energy ({unit}), {style.of_all_devices(phase.devices)}", range=[0, largest * scale * 1.3]
    )
    figure.update_layout(margin_t=8)
    return figure


def channels(series: RunSeries, phase: PhaseSummary) -> go.Figure | None:
    """Row outcomes, where the memory has rows, and bus time of each class of channels; None if the run kept none."""
    labels = [bar.label for bar in channel_bars(phase)]
    panels = channel_panels(phase, series.phases)
    if not labels or not panels:
        return None
    figure = make_subplots(cols=len(panels), shared_yaxes=True, horizontal_spacing=0.04)
    for column, panel in enumerate(panels, start=1):
        for part in panel.parts:
            figure.add_bar(
                y=labels,
                x=[100 * share for share in part.shares],
                orientation="h",
                name=part.label,
                marker_color=part.colour,
                text=[f"{100 * share:.1f} %" if share >= 0.1 else "" for share in part.shares],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                textfont_color=style.text_on(part.colour),
                hovertemplate="%{y}<br>" + part.label + ": %{x:.2f} %<extra></extra>",
                row=1,
                col=column,
            )
        figure.update_xaxes(title_text=panel.title, col=column)
    _stack(figure, height=72 + 32 * len(labels), bottom=56)
    figure.update_xaxes(range=[0, 100])
    figure.update_layout(showlegend=False, margin_t=8)
    return figure


def requests(series: RunSeries) -> go.Figure | None:
    """The share of requests whose first token, and whose mean token, came within a time; None without requests."""
    table = series.run.requests
    if table is None:
        return None
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.08)
    samples = (
        ("time to first token", table["ttft_fs"]),
        ("time per output token", table[table["generated_tokens"] > 1]["tpot_fs"]),
    )
    for column, (title, times) in enumerate(samples, start=1):
        _add_share_within(figure, column, title, sorted(int(time) for time in times))
    look(figure, height=330, bottom=54)
    figure.update_yaxes(range=[0, 101])
    figure.update_yaxes(title_text="requests (%)", col=1)
    figure.update_layout(showlegend=False, margin_t=30, margin_r=90)
    return figure


def _add_share_within(figure: go.Figure, column: int, title: str, times_fs: Sequence[int]) -> None:
    if not times_fs:
        return
    scale, unit = (1e3, "ms") if times_fs[-1] < FS_PER_SECOND else (1.0, "s")
    figure.add_scatter(
        x=[time * scale / FS_PER_SECOND for time in times_fs],
        y=[100 * rank / len(times_fs) for rank in range(1, len(times_fs) + 1)],
        line={"shape": "hv", "color": style.ACCENT, "width": 2},
        hovertemplate=f"%{{y:.0f}} % within %{{x:.4g}} {unit}<extra></extra>",
        row=1,
        col=column,
    )
    for percent, side in ((50, "right"), (99, "left")):  # named above the plot, away from each other
        seconds = percentile_seconds(times_fs, percent)
        figure.add_vline(
            x=seconds * scale,
            line={"color": style.MUTED, "dash": "dot", "width": 1},
            annotation={
                "text": f"p{percent} {format_quantity(seconds, 's')}", "y": 1.0, "yanchor": "bottom", "xanchor": side,
                "font": {"size": 12, "color": style.INK},
            },
            row=1,
            col=column,
        )  # fmt: skip
    longest = times_fs[-1] * scale / FS_PER_SECOND
    figure.update_xaxes(title_text=f"{title} ({unit})", range=[0, longest * 1.05], col=column)


def _hover(point: Point, memory: str) -> str:
    job = point.job
    achieved = f"{format_quantity(point.rate, 'FLOP/s')} at {point.intensity:.4g} FLOP/B"
    if job is None:
        return f"<b>{point.name}</b><br>{achieved}<br>{100 * point.share:.1f} % of the phase"
    bound = f"<br>bound by {job.bound}, {job.time_s / job.roofline_s:.3f}x its roofline time" if job.roofline_s else ""
    return (
        f"<b>{job.name}</b> · {job.phase} · {job.operators} operators<br>{achieved}<br>"
        f"{memory} {format_quantity(job.bandwidth, 'B/s')} · {100 * job.share:.1f} % of the phase{bound}"
    )


def _stack(figure: go.Figure, *, height: int, bottom: int) -> None:
    look(figure, height=height, bottom=bottom)
    figure.update_layout(barmode="stack", bargap=0.28)
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, ticksuffix="  ")


def _legend_above() -> dict[str, Any]:
    return {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "xanchor": "left", "traceorder": "normal"}

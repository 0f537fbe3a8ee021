"""The family of bandwidth-latency curves as a picture (matplotlib) and as a page that works offline (plotly)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.report import style

if TYPE_CHECKING:
    from archsim.commands.curve import CurveReport

PANELS = (
    ("from arrival", "read_latency_from_arrival_ns"),
    ("from entry into the queue", "read_latency_from_queue_ns"),
)
GB = 1e9


def draw_png(report: CurveReport, file: Path) -> None:
    """Two panels side by side: mean read latency from arrival, and from entry into the queue."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained", dpi=130)
    figure.suptitle(_title(report), x=0.01, ha="left", fontsize=11, fontweight="bold", color=style.INK)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (name, column) in zip(axes, PANELS, strict=True):
        for index, (label, part) in enumerate(_lines(report)):
            colour, marker = style.phase_colour(index), style.PHASE_MARKERS[index % len(style.PHASE_MARKERS)]
            axis.plot(part["bandwidth_GBps"], part[column], color=colour, marker=marker, ms=4, lw=1.6, label=label)
        axis.axhline(report.unloaded.simulated, color=style.MUTED, lw=1, ls=":")
        axis.axvline(report.target.peak / GB, color=style.PEAK, lw=1, ls="--")
        axis.set(
            title=name, xlabel="bandwidth (GB/s)", xlim=(0, 1.04 * report.target.peak / GB), ylim=(0, _top(report))
        )
        axis.title.set_fontsize(10)
        axis.grid(color=style.GRID)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        axis.annotate(
            f"unloaded {report.unloaded.simulated:.1f} ns",
            (0.01, report.unloaded.simulated),
            xycoords=("axes fraction", "data"),
            xytext=(2, -3),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color=style.MUTED,
        )
        axis.annotate(
            "peak",
            (report.target.peak / GB, 0.98),
            xycoords=("data", "axes fraction"),
            xytext=(-3, 0),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
            color=style.PEAK,
        )
    axes[0].set_ylabel("mean read latency (ns)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=2, fontsize=9)
    figure.savefig(file)


def draw_html(report: CurveReport, file: Path) -> None:
    """The same, with values to point at; plotly is inside the file."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure: Any = make_subplots(
        1, 2, shared_yaxes=True, subplot_titles=[name for name, _ in PANELS], horizontal_spacing=0.04
    )
    for panel, (_, column) in enumerate(PANELS, start=1):
        for index, (label, part) in enumerate(_lines(report)):
            trace = go.Scatter(
                x=part["bandwidth_GBps"],
                y=part[column],
                name=label,
                legendgroup=label,
                showlegend=panel == 1,
                mode="lines+markers",
                line_color=style.phase_colour(index),
                marker_symbol=style.PHASE_SYMBOLS[index % len(style.PHASE_SYMBOLS)],
                customdata=part[["offered_GBps", "row_hit_rate"]],
                hovertemplate="%{x:.1f} GB/s, %{y:.1f} ns<br>offered %{customdata[0]:.1f} GB/s, "
                "row hits %{customdata[1]:.1%}",
            )
            figure.add_trace(trace, row=1, col=panel)
        figure.add_hline(report.unloaded.simulated, line_dash="dot", line_color=style.MUTED, row=1, col=panel)
        figure.add_vline(report.target.peak / GB, line_dash="dash", line_color=style.PEAK, row=1, col=panel)
    figure.update_xaxes(title_text="bandwidth (GB/s)", range=[0, 1.04 * report.target.peak / GB], gridcolor=style.GRID)
    figure.update_yaxes(range=[0, _top(report)], gridcolor=style.GRID)
    figure.update_yaxes(title_text="mean read latency (ns)", col=1)
    figure.update_layout(
        title={"text": _title(report), "font": {"size": 16}},
        plot_bgcolor=style.PAPER,
        paper_bgcolor=style.PAPER,
        font={"color": style.INK},
        legend={"orientation": "h", "y": -0.18},
    )
    figure.add_annotation(
        text=f"{report.note}. Dotted: unloaded read, {report.unloaded.simulated:.1f} ns. Dashed: peak.",
        xref="paper",
        yref="paper",
        x=0,
        y=-0.3,
        showarrow=False,
        font={"size": 11, "color": style.MUTED},
    )
    figure.update_layout(margin={"b": 130}, height=600)
    figure.write_html(file, include_plotlyjs=True, config={"displaylogo": False, "displayModeBar": False})


def _title(report: CurveReport) -> str:
    about = f"{report.target.name}, {report.target.controller.scheduler.value}"
    return f"{about}: {report.request.pattern.value} traffic, {report.target.channels} channels (one simulated for all)"


def _lines(report: CurveReport) -> list[tuple[str, Any]]:
    """A label and the points of each share of reads."""
    frame = report.frame()
    lines = []
    for curve in report.curves:
        part = frame[frame["read_share"] == curve.read_share]
        saturation = report.saturation(curve) / GB
        lines.append((f"{curve.read_share:.0%} reads, saturates at {saturation:.0f} GB/s", part))
    return lines


def _top(report: CurveReport) -> float:
    """The latency that the axes end at: above all points that keep up, and above saturation as the queue sees it."""
    frame = report.frame()
    kept_up = frame[~frame["saturated"]]["read_latency_from_arrival_ns"]
    highest = max([*kept_up, *frame["read_latency_from_queue_ns"], 2 * report.unloaded.simulated])
    return 1.1 * float(highest)

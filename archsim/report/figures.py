"""The figures of a run for notebooks and papers: matplotlib, the same content as the HTML page."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, PercentFormatter

from archsim.metrics import FS_PER_SECOND, format_quantity
from archsim.report import style
from archsim.report.bandwidth import Bandwidth
from archsim.report.channels import channel_bars, channel_panels
from archsim.report.roofline import Canvas, chart, labels, legend_lines
from archsim.report.series import Job, RunSeries, memory_words, phase_title
from archsim.results import PhaseSummary, RunResult

_LOOK: Any = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": style.GRID,
    "axes.labelcolor": style.INK,
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlecolor": style.INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": style.GRID,
    "xtick.color": style.INK,
    "ytick.color": style.INK,
    "text.color": style.INK,
    "legend.frameon": False,
    "figure.facecolor": style.PAPER,
    "savefig.facecolor": style.PAPER,
    "figure.dpi": 110,
}


_ROOFLINE_WIDE, _ROOFLINE_HIGH = 545, 330  # points between the axes
_SIDEWAYS: Any = {1: "left", 0: "center", -1: "right"}
_UPWARDS: Any = {1: "bottom", 0: "center", -1: "top"}


class RunFigure(Figure):
    """A figure that notebooks show once, without pyplot keeping it alive."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


class RunPlots:
    """The figures of one run; each method returns a new `matplotlib.figure.Figure`."""

    def __init__(self, run: RunResult) -> None:
        self._series = RunSeries(run)

    def __repr__(self) -> str:
        return "plots: roofline(), where_time_goes(), bandwidth(), energy(), channels(), requests()"

    def roofline(self) -> Figure:
        """Operators against the HBM and compute roofs: FLOP/byte across, TFLOP/s up, both log."""
        with new_figure(8.5, 5.6) as figure:
            _draw_roofline(figure.subplots(), self._series)
        return figure

    def where_time_goes(self) -> Figure:
        """Time of each operator, stacked by cause, one panel per phase."""
        series = self._series
        rows = [max(2, len(series.jobs[phase.phase])) for phase in series.phases]
        with new_figure(9, 1.3 + sum(0.34 * n + 0.9 for n in rows)) as figure:
            panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=[n + 1.5 for n in rows])[:, 0]
            for axes, phase in zip(panels, series.phases, strict=True):
                _draw_jobs(
                    axes,
                    series.jobs[phase.phase],
                    phase_title(phase),
                    {c: series.cause_label(c) for c in series.causes},
                )
            _legend_below(figure, panels[-1], len(series.causes) // 2)
        return figure

    def bandwidth(self) -> Figure:
        """Bandwidth of each memory of one device over time, read and write stacked, with the most it can be. ValueError
        if the run sampled none."""
        series = self._series
        drawn = [(phase, steps) for phase in series.phases for steps in series.bandwidths[phase.phase]]
        if not drawn:
            raise ValueError("this run sampled no bandwidth: there is nothing to plot")
        with new_figure(9, 0.5 + 2.5 * len(drawn)) as figure:
            panels = figure.subplots(len(drawn), 1, squeeze=False)[:, 0]
            for axes, (phase, steps) in zip(panels, drawn, strict=True):
                _draw_bandwidth(axes, steps)
                axes.set_title(f"{phase_title(phase)}: {steps.memory}")
            _legend_below(figure, panels[-1], 4)
        return figure

    def energy(self) -> Figure:
        """Energy by component, all devices."""
        phases = self._series.phases
        tallest = max((len(phase.energy_pj) for phase in phases), default=1)
        with new_figure(9, 0.5 + (0.9 + 0.3 * tallest) * len(phases)) as figure:
            panels = figure.subplots(len(phases), 1, squeeze=False)[:, 0]
            for axes, phase in zip(panels, phases, strict=True):
                _draw_energy(axes, self._series, phase)
        return figure

    def channels(self) -> Figure:
        """Row outcomes, where the memory has rows, and bus time of each class of channels."""
        phases = self._series.phases
        bars = [max(1, len(channel_bars(phase))) for phase in phases]
        across = max([1, *(len(channel_panels(phase, phases)) for phase in phases)])
        with new_figure(11, 1.2 + sum(0.34 * n + 1.1 for n in bars)) as figure:
            grid = figure.subplots(len(bars), across, squeeze=False, height_ratios=[n + 2 for n in bars])
            for row, phase in zip(grid, phases, strict=True):
                _draw_channels(row, phase, phases)
            for axes in grid[-1]:
                _legend_below_axes(axes)
        return figure

    def requests(self) -> Figure:
        """The share of requests whose TTFT and TPOT stay below a time. ValueError if the run served none."""
        table = self._series.run.requests
        if table is None:
            raise ValueError("this run served no requests: there is nothing to plot")
        with new_figure(9, 3.6) as figure:
            ttft, tpot = figure.subplots(1, 2, sharey=True)
            _draw_share_below(ttft, table["ttft_fs"], "time to first token")
            served = table[table["generated_tokens"] > 1]
            _draw_share_below(tpot, served["tpot_fs"], "time per output token")
            ttft.set_ylabel("share of requests")
        return figure


@contextmanager
def new_figure(width: float, height: float) -> Iterator[RunFigure]:
    """A figure of this look, `width` x `height` inches, to draw in."""
    with matplotlib.rc_context(_LOOK):
        figure = RunFigure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.14, w_pad=0.08))
        yield figure
        # Laid out under our settings, so that a later savefig cannot change the text sizes it allowed for.
        figure.draw_without_rendering()


def _draw_roofline(axes: Axes, series: RunSeries) -> None:
    drawn = chart(series)
    for roof in drawn.roofs:
        across, up = zip(*roof.line(drawn.left, drawn.right), strict=True)
        look: dict[str, Any] = {"color": style.INK, "lw": 1.6, "zorder": 2}
        if roof.beside:
            dashes = (0, style.roof_dash(roof.beside)[1])
            look |= {"color": style.tier_colour(roof.beside), "ls": dashes, "lw": 2, "label": roof.label}
        axes.plot(across, [rate / 1e12 for rate in up], **look)
    for index, phase in enumerate(series.phases):
        here = [point for point in drawn.points if point.phase == index]
        axes.scatter(
            [point.intensity for point in here],
            [point.rate / 1e12 for point in here],
            s=[(2 * _marker_radius(point.share)) ** 2 for point in here],
            marker=style.PHASE_MARKERS[index % len(style.PHASE_MARKERS)],
            color=style.phase_colour(index),
            alpha=0.75,
            edgecolor="white",
            linewidth=0.8,
            zorder=3,
            label=phase_title(phase),
        )
    texts = legend_lines(drawn, series.phases)
    below, beside = _ROOFLINE_HIGH - 10 - 15 * len(texts), 38 + 6 * max(map(len, texts))
    canvas = Canvas(_ROOFLINE_WIDE, _ROOFLINE_HIGH, 5.4, 11.5, _marker_radius, (0, below, beside, _ROOFLINE_HIGH))
    for label in labels(drawn, canvas):
        axes.annotate(
            "\n".join(label.lines), (label.intensity, label.rate / 1e12), (label.across, label.up),
            textcoords="offset points", fontsize=8.5, zorder=4, multialignment=_SIDEWAYS[label.side[0]],
            ha=_SIDEWAYS[label.side[0]], va=_UPWARDS[label.side[1]],
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(drawn.left, drawn.right), ylim=(drawn.low / 1e12, drawn.high / 1e12))
    memory = memory_words(series.phases)
    axes.set(xlabel=f"arithmetic intensity (FLOP per {memory})", ylabel="achieved rate (TFLOP/s, one device)")
    axes.set_title("Operators under the roofline (marker area: share of the phase's time)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for handle in axes.legend(loc="upper left").legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([60])


def _marker_radius(share: float) -> float:
    """Points."""
    return float(np.sqrt(30 + 500 * share)) / 2


def _draw_jobs(axes: Axes, jobs: Sequence[Job], title: str, causes: Mapping[str, str]) -> None:
    labels = [job.name for job in jobs]
    left = np.zeros(len(jobs))
    for cause, label in causes.items():
        width = np.array([job.cause_s[cause] * 1e3 for job in jobs])
        axes.barh(labels, width, left=left, color=style.CAUSE_COLOURS[cause], label=label)
        left += width
    for position, job in enumerate(jobs):
        axes.annotate(
            f"{format_quantity(job.time_s, 's')} ({100 * job.share:.1f} %)",
            (job.time_s * 1e3, position),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=style.MUTED,
        )
    axes.set(xlabel="time (ms)", xlim=(0, max([job.time_s * 1e3 for job in jobs], default=1.0) * 1.22))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_title(title)


def _draw_bandwidth(axes: Axes, steps: Bandwidth) -> None:
    scale, unit = steps.unit
    read, write = np.array(steps.read) / scale, np.array(steps.write) / scale
    axes.stairs(read, steps.edges_ms, fill=True, color=style.READ_COLOUR, label="read")
    axes.stairs(read + write, steps.edges_ms, baseline=read, fill=True, color=style.WRITE_COLOUR, label="write")
    axes.set_xlim(steps.edges_ms[0], steps.edges_ms[-1])
    mean, limit = steps.mean / scale, steps.limit / scale
    axes.axhline(mean, color=style.INK, lw=1.1, label="mean of the phase")
    axes.axhline(limit, color=style.PEAK, ls="--", lw=1.3, label="peak bandwidth, or a tier's ceiling")
    beside: Any = {"xycoords": ("axes fraction", "data"), "fontsize": 9, "annotation_clip": False}
    sides = ("top", "bottom") if steps.near_limit else ("center", "center")
    axes.annotate(f"mean {format_quantity(steps.mean, 'B/s')}", (1.005, mean), va=sides[0], **beside)
    text = f"{steps.limit_name} {format_quantity(steps.limit, 'B/s')}"
    axes.annotate(text, (1.005, limit), va=sides[1], color=style.PEAK, **beside)
    axes.set(ylim=(0, limit * 1.18), xlabel="time (ms)", ylabel=f"{unit}, one device")


def _draw_energy(axes: Axes, series: RunSeries, phase: PhaseSummary) -> None:
    parts = series.energy_joules(phase)
    total = sum(joules for _, joules in parts)
    names = [style.energy_label(name, phase.memory) for name, _ in parts]
    axes.barh(names, [joules for _, joules in parts], color=style.ACCENT)
    for position, (_, joules) in enumerate(parts):
        text = f"{format_quantity(joules, 'J')} ({100 * joules / total:.1f} %)"
        axes.annotate(
            text, (joules, position), (4, 0), textcoords="offset points", va="center", fontsize=8.5, color=style.MUTED
        )
    axes.set_title(f"{phase_title(phase)} · {format_quantity(total, 'J')}, {style.of_all_devices(phase.devices)}")
    axes.set(xlabel="energy (J)", xlim=(0, max((joules for _, joules in parts), default=1.0) * 1.25))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)


def _draw_channels(row: Sequence[Axes], phase: PhaseSummary, phases: Sequence[PhaseSummary]) -> None:
    bars = channel_bars(phase)
    for axes, panel in zip(row, channel_panels(phase, phases), strict=False):
        left = np.zeros(len(bars))
        for part in panel.parts:
            width = 100 * np.array(part.shares)
            axes.barh([bar.label for bar in bars], width, left=left, color=part.colour, label=part.label, height=0.7)
            left += width
        axes.set(xlabel=panel.title, xlim=(0, 100))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
    row[0].set_title(phase_title(phase))
    for axes in row[1:]:
        axes.tick_params(axis="y", left=False, labelleft=False)


def _draw_share_below(axes: Axes, times_fs: Any, title: str) -> None:
    seconds = np.sort(times_fs.to_numpy(dtype=float)) / FS_PER_SECOND
    scale, unit = (1e3, "ms") if len(seconds) and seconds[-1] < 1 else (1.0, "s")
    if len(seconds):
        axes.ecdf(seconds * scale, color=style.ACCENT, lw=2)
        for percent, side in ((50, "right"), (99, "left")):  # named above the plot, away from each other
            value = float(np.percentile(seconds, percent))
            axes.axvline(value * scale, color=style.MUTED, lw=1, ls=":")
            axes.annotate(
                f"p{percent} {format_quantity(value, 's')}", (value * scale, 1.0), (0, 3), ha=side, va="bottom",
                xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=9, annotation_clip=False,
            )  # fmt: skip
    axes.set(xlabel=f"{title} ({unit})", ylim=(0, 1.02))
    axes.set_xlim(0, 1.06 * seconds[-1] * scale if len(seconds) else 1.0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def _legend_below_axes(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.45), ncols=3, columnspacing=1)

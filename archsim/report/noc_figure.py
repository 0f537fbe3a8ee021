"""The curve of an on-chip network: latency over accepted throughput."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from archsim.config.errors import UserError
from archsim.fabric.noc_measure import Saturation
from archsim.fabric.noc_point import LoadPoint
from archsim.report.style import ACCENT, GRID, INK, MUTED, PEAK

_LOOK: Any = {
    "font.size": 10, "axes.edgecolor": MUTED, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "archsim",
}  # fmt: skip


def save_curve(
    name: str,
    points: Sequence[LoadPoint],
    saturation: Saturation | None,
    zero_load_cycles: float | None,
    path: Path,
) -> None:
    """Draw latency over load as PNG, SVG or PDF by the path's ending. Raises UserError if it can't be written."""
    with matplotlib.rc_context(_LOOK):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.subplots()
        stable = [point for point in points if point.stable]
        load = [point.offered_flits for point in stable]
        axes.plot(load, [p.latency_cycles for p in stable], "o-", color=ACCENT, markersize=4.5, label="mean")
        axes.plot(load, [p.p99_latency_cycles for p in stable], "o:", color=MUTED, markersize=3, label="99 % below")
        if zero_load_cycles is not None:
            axes.axhline(zero_load_cycles, color=INK, linewidth=0.9, linestyle="--", label="without load")
        top = max((point.latency_cycles for point in stable), default=1.0)
        axes.set_ylim(0, max(4 * (zero_load_cycles or top / 4), 1.15 * top))
        if saturation is not None and saturation.unstable_rate > saturation.stable_rate:
            axes.axvline(saturation.throughput_flits, color=PEAK, linewidth=1.2)
            axes.annotate(
                f"saturates at {saturation.throughput_flits:.3f}", (saturation.throughput_flits, 0.97),
                xycoords=("data", "axes fraction"), xytext=(-6, 0), textcoords="offset points", ha="right", va="top",
                color=PEAK,
            )  # fmt: skip
        axes.set_xlim(0, None)
        axes.set_xlabel("offered load [flits per node and cycle]")
        axes.set_ylabel("latency of a packet [cycles]")
        axes.set_title(name, loc="left", fontsize=11)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(loc="upper left", frameon=False, fontsize=9)
        try:
            figure.savefig(path, dpi=150)
        except OSError as error:
            raise UserError(f"can't write '{path}': {error.strerror or error}") from None

"""The curve of an on-chip network: latency over offered load."""

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
    *,
    packet_flits: int,
) -> None:
    """Write the curve as PNG, SVG or PDF by the path's ending. Raises UserError if it can't be written."""
    with matplotlib.rc_context(_LOOK):
        figure = draw_curve(name, points, saturation, zero_load_cycles, packet_flits=packet_flits)
        try:
            figure.savefig(path, dpi=150)
        except OSError as error:
            raise UserError(f"can't write '{path}': {error.strerror or error}") from None


def draw_curve(
    name: str,
    points: Sequence[LoadPoint],
    saturation: Saturation | None,
    zero_load_cycles: float | None,
    *,
    packet_flits: int,
) -> Figure:
    """Latency over offered load; where it saturates is marked between the highest stable and the lowest unstable rate
    (both are packets per node and cycle, the axis is flits)."""
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
        stable_flits, unstable_flits = (
            rate * packet_flits for rate in (saturation.stable_rate, saturation.unstable_rate)
        )
        axes.axvspan(stable_flits, unstable_flits, facecolor=PEAK, edgecolor=PEAK, linewidth=1.2)
        # Above the axes, where no curve passes.
        axes.annotate(
            f"saturates between {stable_flits:.4g} and {unstable_flits:.4g}", (unstable_flits, 1.0),
            xycoords=("data", "axes fraction"), xytext=(0, 4), textcoords="offset points", ha="right", va="bottom",
            color=PEAK,
        )  # fmt: skip
    axes.set_xlim(0, None)
    axes.set_xlabel("offered load [flits per node and cycle]")
    axes.set_ylabel("latency of a packet [cycles]")
    axes.set_title(name, loc="left", fontsize=11, pad=22)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    return figure

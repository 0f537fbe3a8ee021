"""A command trace as a picture: open rows, commands, and when the data bus moves data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from archsim.config.errors import UserError
from archsim.memory.standard import ControllerSpec, DramStandard
from archsim.report import style
from archsim.report.figures import new_figure

if TYPE_CHECKING:
    import pandas as pd

MOST_COMMANDS = 4000
"""More markers than this are a blot; a smaller window shows them."""
MARKERS = {"ACT": "^", "PRE": "v", "RD": "|", "WR": "|"}
COLOURS = {
    "ACT": style.CAUSE_COLOURS["row"],
    "PRE": style.MUTED,
    "RD": style.READ_COLOUR,
    "WR": style.WRITE_COLOUR,
    "refresh": style.CAUSE_COLOURS["refresh"],
}
ROW_SHADES = ("#DCE9F5", "#BFD6EC")
DATA_BUS = "data bus"


def dram_timeline(
    commands: pd.DataFrame | str | Path,
    standard: DramStandard,
    *,
    start_ns: float = 0.0,
    end_ns: float | None = None,
    channel: int = 0,
    pseudo_channel: int = 0,
) -> Figure:
    """Draw a window of a command trace, as `archsim replay --commands` writes it.

    Args:
        commands: the trace, or the parquet file it is in.
        standard: the memory it was made on.
        start_ns, end_ns: the window in nanoseconds; to the last command without an end.
        channel, pseudo_channel: whose banks to draw.

    Raises:
        UserError: for a window without commands of that pseudo-channel, or with more than can be told apart.
    """
    import pandas

    frame = commands if isinstance(commands, pandas.DataFrame) else pandas.read_parquet(commands)
    tick_ns = float(standard.tick_fs / 10**6)
    ours = frame[(frame["channel"] == channel) & (frame["pseudo_channel"] == pseudo_channel)].sort_values("tick")
    ours = ours.assign(ns=ours["tick"] * tick_ns, bank_name=_bank_names(ours), command=ours["command"].astype(str))
    end = float(ours["ns"].max()) if end_ns is None else end_ns
    seen = ours[(ours["ns"] >= start_ns) & (ours["ns"] <= end)]
    if not 0 < len(seen) <= MOST_COMMANDS:
        raise UserError(
            f"{len(seen)} commands of channel {channel}, pseudo-channel {pseudo_channel}, {start_ns:g} to {end:g} ns",
            expected=f"a window with 1 to {MOST_COMMANDS}",
        )
    names = sorted(set(seen.loc[seen["bank"] >= 0, "bank_name"]))
    with new_figure(11, 1.6 + 0.3 * (len(names) + 1)) as figure:
        axes = figure.add_subplot()
        place = {name: len(names) - 1 - k for k, name in enumerate(names)}
        _draw_open_rows(axes, ours, place, end)
        _draw_refreshes(axes, seen, place, standard)
        _draw_commands(axes, seen, place)
        _draw_data_bus(axes, seen, len(names), standard)
        axes.set_yticks([*place.values(), len(names)], [*place, DATA_BUS])
        axes.set_xlim(start_ns, end)
        axes.set_ylim(-0.6, len(names) + 0.6)
        axes.set_xlabel("time (ns)")
        axes.grid(axis="y", visible=False)
        axes.set_title(f"{standard.name}: channel {channel}, pseudo-channel {pseudo_channel}")
        axes.legend(handles=_legend(seen), loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _bank_names(frame: pd.DataFrame) -> list[str]:
    """ "SID0 BG1 B2", as the standards number them."""
    places = zip(frame["stack_id"], frame["bank_group"], frame["bank"], strict=True)
    return [f"SID{sid} BG{group} B{bank}" for sid, group, bank in places]


def _draw_open_rows(axes: Axes, commands: pd.DataFrame, place: dict[str, int], end_ns: float) -> None:
    """A bar from each ACT to the precharge that closes its row; neighbours differ in shade."""
    for name, y in place.items():
        opened: float | None = None
        shade = 0
        in_bank = commands[(commands["bank_name"] == name) | commands["command"].isin(["PREAB", "REFAB"])]
        for command, ns in zip(in_bank["command"], in_bank["ns"], strict=True):
            if command == "ACT":
                opened = ns
            elif command in ("PRE", "PREAB") and opened is not None:
                axes.broken_barh([(opened, ns - opened)], (y - 0.4, 0.8), color=ROW_SHADES[shade % 2])
                opened, shade = None, shade + 1
        if opened is not None and opened < end_ns:
            axes.broken_barh([(opened, end_ns - opened)], (y - 0.4, 0.8), color=ROW_SHADES[shade % 2])


def _draw_refreshes(axes: Axes, seen: pd.DataFrame, place: dict[str, int], standard: DramStandard) -> None:
    """All banks, or one, while a refresh runs."""
    timing = standard.timing(ControllerSpec())
    tick_ns = float(standard.tick_fs / 10**6)
    for command, ns, name in zip(seen["command"], seen["ns"], seen["bank_name"], strict=True):
        if command == "REFAB":
            axes.broken_barh(
                [(ns, timing.tRFCab * tick_ns)], (-0.4, len(place) - 0.2), color=COLOURS["refresh"], alpha=0.5
            )
        elif command == "REFPB":
            axes.broken_barh(
                [(ns, timing.tRFCpb * tick_ns)], (place[name] - 0.4, 0.8), color=COLOURS["refresh"], alpha=0.5
            )


def _draw_commands(axes: Axes, seen: pd.DataFrame, place: dict[str, int]) -> None:
    for command, marker in MARKERS.items():
        these = seen[seen["command"] == command]
        axes.scatter(
            these["ns"],
            [place[name] for name in these["bank_name"]],
            marker=marker,
            s=34,
            color=COLOURS[command],
            zorder=3,
        )


def _draw_data_bus(axes: Axes, seen: pd.DataFrame, y: int, standard: DramStandard) -> None:
    """Bursts where they are on the bus: tCL or tCWL behind their command, tBL long."""
    timing = standard.timing(ControllerSpec())
    tick_ns = float(standard.tick_fs / 10**6)
    for command, latency in (("RD", timing.tCL), ("WR", timing.tCWL)):
        starts = seen.loc[seen["command"] == command, "ns"] + latency * tick_ns
        axes.broken_barh([(ns, timing.tBL * tick_ns) for ns in starts], (y - 0.3, 0.6), color=COLOURS[command])


def _legend(seen: pd.DataFrame) -> list[Line2D | Patch]:
    there = set(seen["command"])
    lines: list[Line2D | Patch] = [
        Line2D([], [], linestyle="", marker=marker, color=COLOURS[command], label=command)
        for command, marker in MARKERS.items()
        if command in there
    ]
    if there & {"REFAB", "REFPB"}:
        lines.append(Patch(color=COLOURS["refresh"], alpha=0.5, label="refresh"))
    return [*lines, Patch(color=ROW_SHADES[0], label="row open")]

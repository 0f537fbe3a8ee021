"""The figures of a sweep: plotly, one function each. Values are in units that people read, hovers have all axes."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from archsim.metrics import LOWER
from archsim.report import style
from archsim.report.look import look
from archsim.sweep.elasticity import SHOWN_FROM, Elasticities, improves, short_path
from archsim.sweep.frame import short_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archsim.sweep.frame import SweepFrame
    from archsim.sweep.pareto import ParetoFront

LOG_FROM = 20.0
"""An axis whose values are apart by more than this factor is logarithmic."""
MANY_POINTS = 4000
"""More are drawn by the graphics card."""
FEW_LEVELS = 8
CLOSE_TICKS = 0.06
"""Ticks less than this share of an axis apart would be written over each other."""
BETTER, WORSE, NEUTRAL = "#0072B2", "#D55E00", "#8A9099"
BEST, BETWEEN, WORST, OUTSIDE = "#0072B2", "#8E5A9B", "#D55E00", "#B4BBC3"
"""Of points by an objective; every colour but the last reads well on white."""
_OUTSIDE_ROOM = 0.1  # below the worst, as a share of the scale
_BAR = 22  # pixels of one parameter
_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def readable(largest: float, unit: str) -> tuple[float, str]:
    """What to multiply values by, and the unit they then have: (0.0073, "s") -> (1e3, "ms")."""
    if unit == "fraction":
        return 100.0, "%"
    if unit not in ("s", "J", "W", "B/s", "B") or not math.isfinite(largest) or largest <= 0:
        return 1.0, {"count": "", "ratio": "x"}.get(unit, unit)
    scale, prefix = next((pair for pair in _SCALES if largest >= pair[0]), _SCALES[-1])
    return (1.0, unit) if unit == "s" and scale > 1 else (1 / scale, prefix + unit)


# ---------------------------------------------------------------- the front


def pareto_plot(found: ParetoFront) -> go.Figure | None:
    """The first objective against the second, the front as a line; a third is the colour. None if there is one."""
    if len(found.objectives) < 2:
        return None
    figure = go.Figure()
    across, up, *third = found.objectives
    x, y = _scaled(found.frame, across.column), _scaled(found.frame, up.column)
    colours = _scaled(found.frame, third[0].column) if third else None
    groups = [("", found.considered)] if colours is not None else _groups(found)
    scatter = figure.add_scattergl if int(found.considered.sum()) > MANY_POINTS else figure.add_scatter
    if not third:
        _draw_front(figure, found, x, y)
    for place, (name, rows) in enumerate(groups):
        for on_front in (False, True):
            here = np.flatnonzero(rows & (found.on_front == on_front))
            marker: dict[str, Any] = {"size": 11 if on_front else 7, "opacity": 1.0 if on_front else 0.45}
            marker["color"] = style.phase_colour(place + 1)
            if colours is not None:
                marker |= {"color": colours[here], "coloraxis": "coloraxis"}
            marker["line"] = {"color": style.INK if on_front else style.PAPER, "width": 1.2 if on_front else 0.5}
            scatter(
                x=x[here], y=y[here], mode="markers", marker=marker, name=name,
                legendgroup=name, showlegend=bool(name) and (on_front or not (rows & found.on_front).any()),
                text=[_hover(found, int(index)) for index in here], hovertemplate="%{text}<extra></extra>",
            )  # fmt: skip
    outside = np.flatnonzero(~found.considered & ~np.isnan(x) & ~np.isnan(y))
    if len(outside):
        scatter(
            x=x[outside], y=y[outside], mode="markers", name="outside of the constraints",
            marker={"size": 7, "color": style.MUTED, "symbol": "x-thin", "line": {"color": style.MUTED, "width": 1}},
            text=[_hover(found, int(index)) for index in outside], hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    look(figure, height=520, bottom=54)
    seen = found.considered | (~np.isnan(x) & ~np.isnan(y))
    figure.update_xaxes(**_axis(x[seen]), title_text=_title(found.frame, across.column, across.better))
    figure.update_yaxes(**_axis(y[seen]), title_text=_title(found.frame, up.column, up.better))
    figure.update_layout(margin_t=34, legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"})
    if third:
        bar = {"title": {"text": _title(found.frame, third[0].column, third[0].better), "side": "right"}}
        scale = _scale(0.0) if third[0].better != LOWER else [[1 - at, colour] for at, colour in reversed(_scale(0.0))]
        figure.update_layout(coloraxis={"colorscale": scale, "colorbar": bar})
    return figure


def _draw_front(figure: go.Figure, found: ParetoFront, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """Steps along the front: everything on the far side of them is beaten by a point on it."""
    order = np.flatnonzero(found.on_front)[np.argsort(x[found.on_front], kind="stable")]
    # From a point of the front, what it beats begins where `across` is worse: towards larger values, or smaller ones.
    shape = "hv" if found.objectives[0].better == LOWER else "vh"
    figure.add_scatter(
        x=x[order], y=y[order], mode="lines", line={"color": style.INK, "width": 1.5, "shape": shape},
        name="front", hoverinfo="skip",
    )  # fmt: skip


def _groups(found: ParetoFront) -> list[tuple[str, NDArray[np.bool_]]]:
    """Points by the levels of the first axis that has a few; all together if none has."""
    frame = found.frame
    names = short_names(frame.varied)
    for axis in frame.varied:
        levels = list(dict.fromkeys(value for value in frame[axis] if value is not None and value == value))
        if 1 < len(levels) <= FEW_LEVELS - 3:
            label = "" if isinstance(levels[0], str) else f"{names[axis]} "
            masks = [np.asarray(frame[axis] == level, dtype=bool) & found.considered for level in levels]
            rest = found.considered & ~np.logical_or.reduce(masks)
            named = [(label + frame.shown(axis, level), mask) for level, mask in zip(levels, masks, strict=True)]
            return [*named, (f"no {names[axis]}", rest)] if rest.any() else named
    return [("", found.considered)]


def _hover(found: ParetoFront, index: int) -> str:
    frame = found.frame
    row = frame.iloc[index]
    objectives = [objective.column for objective in found.objectives]
    lines = [f"<b>{html.escape(name)}</b> {html.escape(frame.shown(name, row[name]))}" for name in objectives]
    axes = [(name, frame.shown(name, row[name])) for name in frame.varied]
    lines += [f"{html.escape(name)} = {html.escape(text)}" for name, text in axes if text]
    return "<br>".join(lines)


# ---------------------------------------------------------------- all columns side by side


def parallel_coordinates(found: ParetoFront, metrics: Sequence[str]) -> go.Figure:
    """A line per point with a result, through its axes and metrics; coloured by the first objective if it took part."""
    first = found.objectives[0]
    rows = np.flatnonzero(with_result(found))
    rows = rows[np.argsort(found.considered[rows], kind="stable")]  # those outside lie below
    frame = found.frame.iloc[rows]
    frame.attrs = found.frame.attrs
    columns = [name for name in frame.varied if frame[name].nunique() > 1]
    columns += [
        name for name in dict.fromkeys([*(o.column for o in found.objectives), *metrics]) if name not in columns
    ]
    short = short_names(frame.varied)
    inside = found.considered[rows]
    room = 0.0 if inside.all() else _OUTSIDE_ROOM
    goodness = np.full(len(rows), -room)
    goodness[inside] = _goodness(_scaled(frame, first.column)[inside], first.better)
    figure = go.Figure(
        go.Parcoords(
            dimensions=[_dimension(frame, name, short.get(name, name)) for name in columns],
            line={"color": goodness, "colorscale": _scale(room), "cmin": -room, "cmax": 1.0},
            labelside="top",
            labelangle=-16,
            labelfont={"size": 13},
            tickfont={"size": 12},
            unselected={"line": {"opacity": 0.06}},
        )
    )
    look(figure, height=460, bottom=28)
    longest = max((len(text) for text in figure.data[0].dimensions[0].ticktext), default=0)  # they stand left of it
    figure.update_layout(margin={"l": max(70, 24 + 7 * longest), "r": 70, "t": 100})
    return figure


def with_result(found: ParetoFront) -> NDArray[np.bool_]:
    """Which points have a value of the first objective, those outside of the constraints included."""
    return np.asarray(found.considered | found.frame[found.objectives[0].column].notna(), dtype=bool)


def _goodness(values: NDArray[np.float64], better: str) -> NDArray[np.float64]:
    """0 for the worst and 1 for the best, by factors where there are no zeros."""
    along = np.log10(values) if (values > 0).all() else values
    span = float(along.max() - along.min())
    share = (along - along.min()) / span if span else np.ones_like(along)
    return 1.0 - share if better == LOWER and span else share


def _scale(room: float) -> list[list[Any]]:
    """Worst to best; below them, `room` (a share of their scale) for points outside."""
    below = room / (1 + room)
    outside = [[0.0, OUTSIDE], [0.9 * below, OUTSIDE]] if room else []
    return [*outside, [below, WORST], [(1 + below) / 2, BETWEEN], [1.0, BEST]]


def _dimension(frame: SweepFrame, column: str, label: str) -> dict[str, Any]:
    """An axis of the parallel coordinates: levels where there are few, logarithmic where values are far apart."""
    if not frame.is_number(column):
        texts = [frame.shown(column, value) or "none" for value in frame[column]]
        levels = list(dict.fromkeys(texts))
        places = [levels.index(text) for text in texts]
        return {"label": label, "values": places, "tickvals": list(range(len(levels))), "ticktext": levels}
    values = _scaled(frame, column)
    unit = _unit(frame, column)
    label = f"{label} ({unit})" if unit else label
    known = values[~np.isnan(values)]
    far = bool(len(known)) and bool(known.min() > 0 and known.max() > LOG_FROM * known.min())
    place = np.log10 if far else np.asarray
    # A conditional axis has no value in some points: they go through its lower end.
    entry: dict[str, Any] = {
        "label": label,
        "values": place(np.nan_to_num(values, nan=float(known.min(initial=np.inf)))),
    }
    ticks = _ticks(np.unique(known), far)
    written = [f"{tick:.4g}" if tick < 1000 else f"{tick:,.0f}" for tick in ticks]
    return entry | {"tickvals": place(ticks), "ticktext": written}


def _ticks(values: NDArray[np.float64], far: bool) -> NDArray[np.float64]:
    """The values themselves where there are few (distinct, in order), else both ends and round numbers between them."""
    if len(values) <= FEW_LEVELS:
        return values
    low, high = float(values[0]), float(values[-1])
    return np.array([low, *(tick for tick in _round_numbers(low, high, far) if _apart(tick, low, high, far)), high])


def _round_numbers(low: float, high: float, far: bool) -> list[float]:
    """1, 2 and 5 of each decade where values are far apart (of each, or every few, 1 alone if that is too many), else
    multiples of one of them."""
    if far:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        if len(decades) > 4:
            return [10.0**decade for decade in decades[:: -(-len(decades) // 8)]]
        return [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    step = 10.0 ** math.floor(math.log10((high - low) / 5))
    step *= next(times for times in (1, 2, 5, 10) if (high - low) / (times * step) <= 6)
    return [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _apart(tick: float, low: float, high: float, far: bool) -> bool:
    """Whether a tick is far enough from both ends that the numbers beside them don't overlap."""
    share = math.log(tick / low) / math.log(high / low) if far else (tick - low) / (high - low)
    return CLOSE_TICKS <= share <= 1 - CLOSE_TICKS


# ---------------------------------------------------------------- elasticities


def elasticity_bars(found: Elasticities, most: int = 20) -> go.Figure:
    """The `most` largest elasticities, a bar for each metric; its colour says whether more of it is better."""
    rows = [row for row in found.rows if any(abs(value) >= SHOWN_FROM for value in row.by_metric.values())][:most]
    names = [short_path(row.parameter) for row in rows]
    count = len(found.metrics)
    figure = make_subplots(cols=count, shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=found.metrics)
    for column, metric in enumerate(found.metrics, start=1):
        values = [row.by_metric.get(metric) for row in rows]
        verdicts = [improves(metric, value) if value is not None else None for value in values]
        figure.add_bar(
            y=names, x=values, orientation="h", row=1, col=column, showlegend=False,
            marker_color=[NEUTRAL if good is None else BETTER if good else WORSE for good in verdicts],
            text=[row.shown(metric) for row in rows], textposition="outside", cliponaxis=False, textfont_size=12,
            customdata=[[row.value, row.moved_to] for row in rows],
            hovertemplate="%{y} = %{customdata[0]}<br>moved to %{customdata[1]}<br>%{x:+.4f}<extra></extra>",
        )  # fmt: skip
        reach = max((abs(value) for value in values if value is not None), default=1.0)
        low, high = min([0.0, *(v for v in values if v)]), max([0.0, *(v for v in values if v)])
        span = max(high - low, reach)
        margin = 0.10 + 0.10 * count  # room for the numbers at the bars' ends
        figure.update_xaxes(
            range=[low - margin * span if low < 0 else 0, high + margin * span if high > 0 else 0], col=column
        )
    look(figure, height=90 + _BAR * max(len(rows), 2), bottom=52)
    figure.update_layout(bargap=0.3, margin_t=30)
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, ticksuffix="  ")
    figure.update_xaxes(title_text="% per %", zeroline=True, zerolinecolor=style.INK, zerolinewidth=1)
    return figure


# ---------------------------------------------------------------- columns


def _scaled(frame: SweepFrame, column: str) -> NDArray[np.float64]:
    values = frame[column].to_numpy(dtype=np.float64)
    return values * _readable(frame, column)[0]


def _unit(frame: SweepFrame, column: str) -> str:
    return _readable(frame, column)[1]


def _readable(frame: SweepFrame, column: str) -> tuple[float, str]:
    unit = frame.units.get(column, "")
    if column in frame.varied:
        return 1.0, unit  # as the user wrote it
    largest = np.nanmax(np.abs(frame[column].to_numpy(dtype=np.float64)), initial=0.0)
    return readable(float(largest), unit)


def _title(frame: SweepFrame, column: str, better: str) -> str:
    unit = _unit(frame, column)
    return f"{column} ({unit}), {better} is better" if unit else f"{column}, {better} is better"


def _axis(values: NDArray[np.float64]) -> dict[str, Any]:
    """Logarithmic with ticks at 1, 2 and 5 where values are far apart, else linear."""
    known = values[~np.isnan(values)]
    if not len(known) or known.min() <= 0 or known.max() <= LOG_FROM * known.min():
        return {"exponentformat": "none"}
    decades = range(math.floor(math.log10(known.min())), math.ceil(math.log10(known.max())) + 1)
    steps = (1, 2, 5) if len(decades) <= 5 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}

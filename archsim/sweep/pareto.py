"""Pareto fronts: the points of a sweep that no other point beats in all objectives at once."""

from __future__ import annotations

import html
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from archsim.config.dimensions import Dimension, split_quantity, units_of
from archsim.config.errors import UserError
from archsim.metrics import HIGHER, LOWER, NEUTRAL, definition_of
from archsim.sweep.store import Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from archsim.sweep.frame import SweepFrame

_DIRECTIONS = {"min": LOWER, "max": HIGHER}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_CONSTRAINT = re.compile(r"^\s*([^<>=!]+?)\s*(<=|>=|==|!=|<|>)\s*([^<>=!]+?)\s*$")
HTML_ROWS = 30
"""How many points of a front a notebook shows."""


def non_dominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of `values` ([points, objectives], all to be minimised) no other row dominates.

    A row dominates another if it is nowhere larger and somewhere smaller; so of equal rows all stay. A row with a NaN
    is never on the front and dominates nothing. One and two objectives: O(n log n); more: O(n x front), vectorised.
    """
    on_front = np.zeros(len(values), dtype=bool)
    whole = np.flatnonzero(~np.isnan(values).any(axis=1))
    if not len(whole):
        return on_front
    distinct, place = np.unique(values[whole], axis=0, return_inverse=True)  # in lexicographic order
    stays = _front_of_two(distinct) if values.shape[1] <= 2 else _front_of_many(distinct)
    on_front[whole] = stays[place.reshape(-1)]
    return on_front


def _front_of_two(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of distinct rows in lexicographic order: those whose last value is below that of all rows before."""
    last = rows[:, -1]
    before = np.concatenate(([np.inf], np.minimum.accumulate(last)[:-1]))
    stays = last < before
    stays[0] = True  # an infinite value isn't below infinity
    return np.asarray(stays, dtype=bool)


def _front_of_many(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of distinct rows in lexicographic order no row dominates an earlier one: the first that is left stays."""
    stays = np.zeros(len(rows), dtype=bool)
    left = np.arange(len(rows))
    while len(left):
        stays[left[0]] = True
        left = left[(rows[left] < rows[left[0]]).any(axis=1)]
    return stays


@dataclass(frozen=True, slots=True)
class Objective:
    """A column and which of its values are better: "lower" or "higher"."""

    column: str
    better: str

    @classmethod
    def read(cls, text: str, frame: SweepFrame) -> Objective:
        """ "decode.tpot" by the table of metrics; "stacks:min" and "batch:max" for anything with numbers.

        Raises UserError for an unknown column, one without numbers, or a direction that isn't known."""
        name, colon, direction = text.rpartition(":")
        column = frame.require((name if colon else text).strip())
        _require_numbers(frame, column)
        if not colon:
            return cls(column, _known_direction(column))
        if direction.strip() not in _DIRECTIONS:
            raise UserError(f"'{text}' ends in no direction", expected=f"{column}:min or {column}:max")
        return cls(column, _DIRECTIONS[direction.strip()])

    def __str__(self) -> str:
        return f"{self.column} ({self.better} is better)"


def _known_direction(column: str) -> str:
    try:
        better = definition_of(column).better
    except KeyError:
        better = NEUTRAL
    if better == NEUTRAL:
        raise UserError(f"of two values of {column} neither is known to be better", expected=f"{column}:min or :max")
    return better


def _require_numbers(frame: SweepFrame, column: str) -> None:
    if not frame.is_number(column):
        raise UserError(f"'{column}' holds texts, which have no order", expected="a metric, or an axis of numbers")


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a point has to fulfil: a column, a comparison and a limit in the column's own unit."""

    column: str
    comparison: str
    limit: float | str
    text: str

    @classmethod
    def read(cls, text: str, frame: SweepFrame) -> Constraint:
        """ "decode.power <= 500 W". Raises UserError for an unknown column, or a unit that isn't the column's."""
        parts = _CONSTRAINT.match(text)
        if parts is None:
            expected = "a column, a comparison and a limit, such as 'decode.power <= 500 W'"
            raise UserError(f"'{text}' is no constraint", expected=expected)
        column, comparison, limit = parts.groups()
        frame.require(column)
        if frame.is_number(column):
            return cls(column, comparison, _in_unit(limit, column, frame.units.get(column, "")), text)
        if comparison not in ("==", "!="):
            raise UserError(f"'{text}': the values of {column} are texts", expected="== or !=")
        return cls(column, comparison, limit.strip("'\""), text)

    def holds(self, frame: SweepFrame) -> NDArray[np.bool_]:
        """Row by row; false where the column has no value."""
        kept = _COMPARISONS[self.comparison](frame[self.column], self.limit) & frame[self.column].notna()
        return np.asarray(kept, dtype=bool)


_PLAIN_UNITS = ("", "count", "ratio", "fraction")


def _in_unit(limit: str, column: str, unit: str) -> float:
    """A limit as a number in a column's unit. Raises UserError if its unit is missing, or another kind of unit."""
    parts = split_quantity(limit)
    example = f"{column} <= 1{' ' + unit if unit not in _PLAIN_UNITS else ''}"
    if parts is None:
        raise UserError(f"'{limit}' is no number", expected=f"such as '{example}'")
    number, written = parts
    if unit in _PLAIN_UNITS and not written:
        return float(number)
    if unit == "fraction" and written == "%":
        return float(number / 100)
    if written == unit:
        return float(number)
    for dimension in Dimension:
        scales = units_of(dimension)
        if written in scales and unit in scales:
            return float(number * scales[written] / scales[unit])
    said = f"has the unit '{written}'" if written else "has no unit"
    raise UserError(f"'{limit}' {said}", expected=f"a limit for {column} such as '{example}'")


@dataclass(frozen=True)
class ParetoFront:
    """The points that no other beats in all objectives.

    `front` are their rows, the best of the first objective first; `on_front` and `considered` say of every row of
    `frame` whether it is on the front, and whether it took part (it has a result and fulfils the constraints).
    """

    frame: SweepFrame
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    on_front: NDArray[np.bool_]
    considered: NDArray[np.bool_]
    infeasible: NDArray[np.bool_] | None = None
    """Of a search: trials that broke its constraints, which take no part; unless all did."""

    @property
    def front(self) -> SweepFrame:
        first, *others = self.objectives
        columns = [first.column, *(objective.column for objective in others)]
        ascending = [objective.better == LOWER for objective in self.objectives]
        rows = self.frame[self.on_front].sort_values(columns, ascending=ascending, kind="stable")
        rows.attrs = self.frame.attrs
        return rows

    def columns(self) -> list[str]:
        """What a table of the front shows: the axes, the objectives, and the metrics of the constraints."""
        named = [*(o.column for o in self.objectives), *(c.column for c in self.constraints)]
        return list(dict.fromkeys([*self.frame.varied, *named]))

    def rows(self) -> list[list[str]]:
        """The front for people, by `columns()`."""
        columns, front = self.columns(), self.front
        return [
            [self.frame.shown(name, value) for name, value in zip(columns, row, strict=True)]
            for row in front[columns].astype(object).itertuples(index=False, name=None)
        ]

    def in_words(self) -> str:
        """ "7 of 24 points, 3 outside of decode.power <= 500 W, 1 without a result"."""
        finished = np.asarray(self.frame["status"] == Status.OK, dtype=bool)
        parts = [f"{int(self.on_front.sum())} of {int(self.considered.sum())} points are on the front"]
        if self.infeasible is not None:
            count = int((finished & self.infeasible).sum())
            left_out = not (self.infeasible & self.considered).any()
            parts += [f"{count} break the constraints of the search" + ("" if left_out else ": no trial is feasible")]
            finished = finished & ~self.infeasible
        if self.constraints and (outside := int((finished & ~self.considered).sum())):
            parts.append(f"{outside} left out by {', '.join(constraint.text for constraint in self.constraints)}")
        elif outside := int((finished & ~self.considered).sum()):
            parts.append(f"{outside} have no value of an objective")
        if missing := int((self.frame["status"] != Status.OK).sum()):
            parts.append(f"{missing} failed")
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: objectives, constraints, counts, and the points with their values and units."""
        front = self.front
        columns = ["point", *self.columns()]
        return {
            "objectives": [{"column": objective.column, "better": objective.better} for objective in self.objectives],
            "constraints": [constraint.text for constraint in self.constraints],
            "points": len(self.frame),
            "considered": int(self.considered.sum()),
            "infeasible": int(self.infeasible.sum()) if self.infeasible is not None else 0,
            "units": {name: unit for name, unit in self.frame.units.items() if name in columns},
            "front": [_plain_row(row) for row in front[columns].astype(object).to_dict("records")],
        }

    def page(self, path: Any) -> None:
        """Write the page of the sweep with this front (one file, works offline)."""
        from archsim.sweep.page import write_page

        write_page(path, self)

    def plot(self) -> Any:
        """The front, as a plotly figure; None if there is one objective only."""
        from archsim.sweep.figures import pareto_plot

        return pareto_plot(self)

    def _repr_html_(self) -> str:
        from archsim.sweep.frame import short_names

        short = short_names(self.frame.varied)
        head = "".join(f"<th>{html.escape(short.get(name, name))}</th>" for name in self.columns())
        rows = self.rows()
        cells = ("".join(f"<td>{html.escape(text)}</td>" for text in row) for row in rows[:HTML_ROWS])
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        more = f"; the first {HTML_ROWS} are shown" if len(rows) > HTML_ROWS else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<div><strong>Pareto front</strong> · {html.escape(self.in_words())}{more}{table}</div>"

    def __repr__(self) -> str:
        return f"ParetoFront({', '.join(map(str, self.objectives))}: {self.in_words()})"


def _plain_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    plain = {str(name): value.item() if hasattr(value, "item") else value for name, value in row.items()}
    return {name: None if value != value else value for name, value in plain.items()}


def pareto_front(frame: SweepFrame, objectives: Sequence[str], constraints: Sequence[str] = ()) -> ParetoFront:
    """The front of a sweep's table; `SweepFrame.pareto` says what may be asked for.

    Points that failed, that lack a value of an objective, or that break a constraint take no part; neither do trials
    of a search that broke its constraints, unless all did.
    """
    if isinstance(objectives, str) or not objectives:
        raise UserError(
            "a front needs objectives", expected="a list such as ['decode.tpot', 'decode.energy_per_token']"
        )
    aims = tuple(Objective.read(text, frame) for text in objectives)
    if len({aim.column for aim in aims}) < len(aims):
        raise UserError("the same objective stands twice", expected="each once")
    limits = tuple(Constraint.read(text, frame) for text in constraints)
    considered = np.array(frame["status"] == Status.OK, dtype=bool)
    considered &= frame[[aim.column for aim in aims]].notna().to_numpy().all(axis=1)
    if not considered.any():
        raise UserError("no point of the sweep has a value of every objective")
    infeasible = _infeasible(frame)
    if infeasible is not None and (considered & ~infeasible).any():
        considered &= ~infeasible
    for limit in limits:
        considered &= limit.holds(frame)
    if not considered.any():
        raise UserError(f"no point fulfils {' and '.join(limit.text for limit in limits)}")
    signs = np.array([1.0 if aim.better == LOWER else -1.0 for aim in aims])
    values = frame[[aim.column for aim in aims]].to_numpy(dtype=np.float64) * signs
    values[~considered] = np.nan
    return ParetoFront(frame, aims, limits, non_dominated(values), considered, infeasible)


def _infeasible(frame: SweepFrame) -> NDArray[np.bool_] | None:
    """The trials of a search that broke its constraints; None of a sweep, and where none did."""
    if "feasible" not in frame.columns:
        return None
    broken = np.asarray(frame["feasible"].eq(False), dtype=bool)
    return broken if broken.any() else None

"""From axes to points: every combination of lists, ranges and cases, along with zips, samples and conditions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from archsim.config.dimensions import is_quantity, split_quantity
from archsim.config.errors import UserError
from archsim.sweep.expressions import Expression
from archsim.sweep.spec import AxisSpec, SampleMethod, SampleSpec, Scalar, Scale, SpaceSpec, SweepSpec

SIGNIFICANT_DIGITS = 6
"""Of values between the ends of log ranges and samples: a quantity in a spec may not have endless digits."""


@dataclass(frozen=True, slots=True)
class Level:
    """One value of an axis: what its column shows, and what it sets."""

    label: Scalar
    sets: Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """One run of a sweep: its values by column, and what it sets, by path."""

    values: Mapping[str, Scalar]
    overrides: Mapping[str, Any]

    @property
    def hardware(self) -> str:
        """Equal for points that set the same system: a worker keeps what it learnt of one memory."""
        system = {path: value for path, value in self.overrides.items() if path.partition(".")[0] == "system"}
        return json.dumps(system, sort_keys=True, default=str)

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.values.items() if value is not None)


@dataclass(frozen=True)
class Space:
    """The points of a sweep in order, what all of them set, the columns, and the units of those that are quantities."""

    points: tuple[Point, ...]
    fixed: Mapping[str, Any]
    columns: tuple[str, ...]
    units: Mapping[str, str]


def expand(spec: SweepSpec, folder: Path = Path()) -> Space:
    """The points of a sweep, the last axis varying fastest; points that come out equal are one.

    Names of files in `folder` are made absolute. Raises UserError if zipped axes differ in length, an expression can't
    be computed, or no point is left.
    """
    levels, units = _levels(spec, folder)
    blocks = _blocks(spec, levels)
    conditions = {name: Expression(axis.when) for name, axis in spec.axes.items() if axis.when is not None}
    columns = (*spec.axes, *spec.derived)
    units |= {name: derived.unit for name, derived in spec.computed().items() if derived.unit}
    where = Expression(spec.where) if spec.where is not None else None
    points: dict[str, Point] = {}
    for chosen in _combinations(blocks, conditions, {}):
        point = point_of(spec, chosen, columns)
        if where is None or where(point.values):
            points.setdefault(json.dumps(point.overrides, sort_keys=True, default=str), point)
    if not points:
        raise UserError("the sweep has no points", expected=f"some for which '{spec.where}' holds")
    fixed = {path: located(value, folder) for path, value in spec.fixed.items()}
    return Space(tuple(points.values()), fixed, columns, units)


# ---------------------------------------------------------------- combinations

Choice = Mapping[str, Level]
"""Levels by axis: what one step of a block chooses."""


def _blocks(spec: SweepSpec, levels: Mapping[str, Sequence[Level]]) -> list[list[Choice]]:
    """What varies independently: single axes, groups of zipped ones, and the sample; in the order of the axes."""
    groups = [tuple(name for name in spec.axes if name in group) for group in spec.zip]
    drawn = tuple(name for name, axis in spec.axes.items() if axis.is_drawn)
    together = {name: group for group in (*groups, drawn) for name in group}
    blocks: list[list[Choice]] = []
    done: set[str] = set()
    for name in spec.axes:
        if name in done:
            continue
        group = together.get(name, (name,))
        done.update(group)
        lengths = {member: len(levels[member]) for member in group}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"'{member}' has {length}" for member, length in lengths.items())
            raise UserError(f"zipped axes have different numbers of values: {said}")
        blocks.append([{member: levels[member][i] for member in group} for i in range(lengths[name])])
    return blocks


def _combinations(
    blocks: Sequence[Sequence[Choice]], conditions: Mapping[str, Expression], chosen: Choice
) -> Iterator[Choice]:
    """Every combination of one step per block; an axis whose condition doesn't hold is left out."""
    if not blocks:
        yield chosen
        return
    for step in blocks[0]:
        extended = dict(chosen)
        for name, level in step.items():
            if name not in conditions or conditions[name](labels_of(extended, conditions[name].names)):
                extended[name] = level
        yield from _combinations(blocks[1:], conditions, extended)


def labels_of(chosen: Choice, names: frozenset[str]) -> dict[str, Scalar]:
    """The labels of the axes named, None for those without a level: what a condition sees."""
    return {name: chosen[name].label if name in chosen else None for name in names}


def point_of(spec: SpaceSpec, chosen: Choice, columns: Sequence[str]) -> Point:
    """The point of some chosen levels, with its derived values; an axis without one keeps the experiment's value."""
    values: dict[str, Scalar] = {name: chosen[name].label if name in chosen else None for name in columns}
    overrides: dict[str, Any] = {}
    for level in chosen.values():
        overrides |= level.sets
    for name, derived in spec.computed().items():
        value = _whole_if_whole(Expression(derived.expression)(values))
        values[name] = value
        overrides[name] = as_written(value, derived.unit or "")
    return Point(values, overrides)


def _whole_if_whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# ---------------------------------------------------------------- levels of an axis


def _levels(spec: SweepSpec, folder: Path) -> tuple[dict[str, list[Level]], dict[str, str]]:
    """The levels of every axis, and the units of those that are quantities."""
    levels: dict[str, list[Level]] = {}
    units: dict[str, str] = {}
    drawn = _drawn(spec)
    for name, axis in spec.axes.items():
        levels[name], unit = levels_of(name, axis, folder, drawn.get(name))
        units |= {name: unit} if unit else {}
    return levels, units


def levels_of(
    name: str, axis: AxisSpec, folder: Path, numbers: Sequence[int | float] | None = None
) -> tuple[list[Level], str]:
    """The levels of an axis (of a range: `numbers`, or its own points), and their unit ("" for none)."""
    if axis.cases is not None:
        return [
            Level(case, {path: located(value, folder) for path, value in sets.items()})
            for case, sets in axis.cases.items()
        ], ""
    if axis.values is not None:
        return _listed(name, axis.values, folder)
    unit = axis.ends()[2]
    chosen = numbers if numbers is not None else _numbers(axis)
    return [Level(number, {name: as_written(number, unit)}) for number in chosen], unit


def _listed(path: str, values: Sequence[Any], folder: Path) -> tuple[list[Level], str]:
    """Levels of a list; quantities in one unit become numbers, and the unit is given."""
    parts = [split_quantity(value) if isinstance(value, str) and is_quantity(value) else None for value in values]
    units = {part[1] for part in parts if part is not None}
    if len(units) == 1 and None not in parts:
        numbers = [part[0] for part in parts if part is not None]
        labels: list[Scalar] = [_plain(number) for number in numbers]
        return [Level(label, {path: value}) for label, value in zip(labels, values, strict=True)], units.pop()
    return [Level(_label(value), {path: located(value, folder)}) for value in values], ""


def _label(value: Any) -> Scalar:
    """What stands in the column for a value: itself if it is a scalar, its name if it has one."""
    if isinstance(value, Mapping):
        return str(value["name"]) if "name" in value else json.dumps(value, sort_keys=True, default=str)
    return value if isinstance(value, Scalar) else json.dumps(value, default=str)


def located(value: Any, folder: Path) -> Any:
    """The name of a file beside the sweep's own file as an absolute path; anything else as it is."""
    if isinstance(value, str) and Path(value).suffix in (".yaml", ".yml", ".json", ".csv"):
        beside = folder / value
        return str(beside.resolve()) if beside.is_file() else value
    return value


def as_written(value: Any, unit: str) -> Any:
    """A number as a spec takes it: with its unit, if it has one."""
    return f"{value} {unit}" if unit else value


# ---------------------------------------------------------------- ranges and samples


def _numbers(axis: AxisSpec) -> list[int | float]:
    """The values of a range with points or a step, both ends included where they fit; equal ones once."""
    low, high, _ = axis.ends()
    if axis.step is not None:
        step = _exact(axis.step)
        count = int((_exact(high) - _exact(low)) / step)
        exact = [_exact(low) + i * step for i in range(count + 1)]
        return _distinct([fitted(axis, _plain(number)) for number in exact])
    assert axis.points is not None
    shares = [Fraction(i, axis.points - 1) for i in range(axis.points)] if axis.points > 1 else [Fraction(0)]
    return _distinct([_at(axis, share) for share in shares])


def _at(axis: AxisSpec, share: Fraction | float) -> int | float:
    """The value at a share (0 to 1) of a range."""
    low, high, _ = axis.ends()
    if share in (0, 1):
        return fitted(axis, high if share else low)
    if axis.scale is Scale.LOG:
        return fitted(axis, rounded(low * math.pow(high / low, float(share))))
    if isinstance(share, Fraction):
        return fitted(axis, _plain(_exact(low) + share * (_exact(high) - _exact(low))))
    return fitted(axis, rounded(low + share * (high - low)))


def fitted(axis: AxisSpec, value: int | float) -> int | float:
    """A value rounded as the axis asks: whole numbers between whole ends, multiples within the ends."""
    low, high, unit = axis.ends()
    if axis.multiple_of is not None:
        first, last = math.ceil(low / axis.multiple_of), math.floor(high / axis.multiple_of)
        if last < first:
            raise UserError(f"there is no multiple of {axis.multiple_of} between {axis.start} and {axis.to}")
        return axis.multiple_of * min(max(round(value / axis.multiple_of), first), last)
    whole = isinstance(low, int) and isinstance(high, int) and not unit and axis.step is None
    return round(value) if whole else value


def _drawn(spec: SweepSpec) -> dict[str, list[int | float]]:
    """The values of the axes that are drawn together, by axis."""
    names = [name for name, axis in spec.axes.items() if axis.is_drawn]
    if not names or spec.sample is None:
        return {}
    shares = _unit_cube(spec.sample, len(names))
    return {name: [_at(spec.axes[name], row[i]) for row in shares] for i, name in enumerate(names)}


def _unit_cube(sample: SampleSpec, dimensions: int) -> list[list[float]]:
    """Points spread in the unit cube, [points][dimensions]; the same seed gives the same points."""
    from scipy.stats import qmc

    make = {SampleMethod.SOBOL: qmc.Sobol, SampleMethod.LATIN_HYPERCUBE: qmc.LatinHypercube}[sample.method]
    shares: list[list[float]] = make(d=dimensions, rng=sample.seed).random(sample.points).tolist()
    return shares


def _exact(written: int | float | str) -> Fraction:
    parts = split_quantity(str(written))
    assert parts is not None, "checked with the spec"
    return parts[0]


def _plain(exact: Fraction) -> int | float:
    return exact.numerator if exact.denominator == 1 else float(exact)


def rounded(value: float) -> float:
    """A value with as many digits as a spec may hold."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _distinct(numbers: Sequence[int | float]) -> list[int | float]:
    return list(dict.fromkeys(numbers))

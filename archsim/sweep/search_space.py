"""A search's axes as what a sampler draws from: lists and cases by name, ranges as whole or real numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.config.errors import UserError
from archsim.sweep.expressions import Expression
from archsim.sweep.space import Level, Point, as_written, fitted, labels_of, levels_of, located, point_of, rounded
from archsim.sweep.spec import AxisSpec, Scale, SpaceSpec

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Draw = Callable[["Knob", int], Any]
"""A value from a knob's distribution, given the knob and its place among the axes."""


@dataclass(frozen=True)
class Knob:
    """One axis: what is drawn for it, what a drawn value sets, and its unit ("" for none)."""

    name: str
    distribution: BaseDistribution
    level: Callable[[Any], Level]
    unit: str
    when: Expression | None


class SearchSpace:
    """The points that a search may try. Raises UserError if an axis has no values, or two of one name."""

    def __init__(self, spec: SpaceSpec, folder: Path) -> None:
        self._spec = spec
        self.knobs = tuple(_knob(name, axis, folder) for name, axis in spec.axes.items())
        self.fixed: Mapping[str, Any] = {path: located(value, folder) for path, value in spec.fixed.items()}
        self.columns = (*spec.axes, *spec.derived)
        self.units = {knob.name: knob.unit for knob in self.knobs if knob.unit}
        self.units |= {name: derived.unit for name, derived in spec.computed().items() if derived.unit}

    @property
    def paths(self) -> frozenset[str]:
        """Every path that a point may set."""
        cases = [sets for axis in self._spec.axes.values() for sets in (axis.cases or {}).values()]
        direct = [name for name, axis in self._spec.axes.items() if axis.cases is None]
        return frozenset([*direct, *self._spec.derived, *(path for sets in cases for path in sets)])

    def point(self, draw: Draw) -> Point:
        """The point of the values drawn, axis by axis; none is drawn for an axis whose condition doesn't hold."""
        chosen: dict[str, Level] = {}
        for place, knob in enumerate(self.knobs):
            if knob.when is None or knob.when(labels_of(chosen, knob.when.names)):
                chosen[knob.name] = knob.level(draw(knob, place))
        return point_of(self._spec, chosen, self.columns)


def _knob(name: str, axis: AxisSpec, folder: Path) -> Knob:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    when = Expression(axis.when) if axis.when is not None else None
    if not axis.is_range:
        levels, unit = levels_of(name, axis, folder)
        by_label = {level.label: level for level in levels}
        if len(by_label) < len(levels):
            raise UserError(f"axes.{name}: two of its values have the same name", expected="each value once")
        return Knob(name, CategoricalDistribution(tuple(by_label)), by_label.__getitem__, unit, when)
    low, high, unit = axis.ends()
    log = axis.scale is Scale.LOG

    def number(value: Any) -> Level:
        shown = fitted(axis, value if isinstance(value, int) else rounded(value))
        return Level(shown, {name: as_written(shown, unit)})

    if not axis.is_drawn:  # its points, by their number
        levels, _ = levels_of(name, axis, folder)
        return Knob(name, IntDistribution(0, len(levels) - 1), levels.__getitem__, unit, when)
    multiple = axis.multiple_of
    if multiple is not None:
        fitted(axis, low)  # raises UserError if there is no multiple
        ends = math.ceil(low / multiple), math.floor(high / multiple)
        return Knob(name, IntDistribution(*ends, log=log), lambda count: number(count * multiple), unit, when)
    if isinstance(low, int) and isinstance(high, int) and not unit:
        return Knob(name, IntDistribution(low, high, log=log), number, unit, when)
    return Knob(name, FloatDistribution(low, high, log=log), number, unit, when)

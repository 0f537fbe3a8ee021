"""What a user writes to have a space explored: `kind: sweep` in a file of its own, or `sweep:` in an experiment.

kind: sweep
experiment: llama3_70b_h200x8                # a path, or the name of a shipped experiment
set: {workload.prefill: null}                # the same in every point
axes:                                        # every combination of
  hardware:                                  # named cases, each setting several values
    cases: {H200: {}, "4 stacks": {system.device.memory.stacks: 4, system.device.memory.capacity: 94 GB}}
  workload.batch: [1, 8, 64]                 # a list
  workload.decode.context_tokens: {from: 1024, to: 65536, points: 7, scale: log}
  system.device.power.idle: {from: 100 W, to: 160 W, step: 30 W, when: hardware == 'H200'}
where: workload.batch * workload.decode.context_tokens <= 4e6
best: decode.tpot
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from archsim.config.dimensions import split_quantity
from archsim.config.errors import UserError, listed, nearest_name
from archsim.config.schema import Spec
from archsim.config.units import PositiveInt
from archsim.sweep.expressions import Expression

Scalar = str | int | float | bool | None
Bound = Annotated[int | float | str, Field(union_mode="left_to_right")]


class Scale(StrEnum):
    """How the values of a range lie: at equal distances, or at equal ratios."""

    LINEAR = "linear"
    LOG = "log"


class SampleMethod(StrEnum):
    """How the points of a sample are spread."""

    LATIN_HYPERCUBE = "latin_hypercube"
    SOBOL = "sobol"


class AxisSpec(Spec):
    """The values that one path takes: a list, a range, or named cases that each set several paths.

    A range with neither `points` nor `step` is drawn by the sweep's `sample`. Whole ends give whole numbers."""

    values: Annotated[tuple[Any, ...] | None, Field(description="the values, one after the other")] = None
    cases: Annotated[
        dict[str, dict[str, Any]] | None, Field(description="name -> {path: value}; the axis may have any name")
    ] = None
    start: Annotated[Bound | None, Field(alias="from", description="first value of a range, '300 W'")] = None
    to: Annotated[Bound | None, Field(description="last value of a range")] = None
    points: Annotated[PositiveInt | None, Field(description="how many values a range has")] = None
    step: Annotated[Bound | None, Field(description="distance of a linear range's values")] = None
    scale: Annotated[Scale, Field(description="linear: equal distances; log: equal ratios")] = Scale.LINEAR
    multiple_of: Annotated[PositiveInt | None, Field(description="round values to multiples of this")] = None
    when: Annotated[str | None, Field(description="an expression: only where it holds is the axis varied")] = None

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, data: Any) -> Any:
        return {"values": data} if isinstance(data, list | tuple) else data

    @model_validator(mode="after")
    def _is_one_thing(self) -> AxisSpec:
        ways = [self.values is not None, self.cases is not None, self.start is not None or self.to is not None]
        if sum(ways) != 1:
            raise UserError("an axis needs values", expected="a list, {from, to}, or {cases}: one of them")
        if self.values == () or self.cases == {}:
            raise UserError("an axis needs at least one value")
        if self.is_range:
            self._check_range()
        elif self.points is not None or self.step is not None or self.multiple_of is not None:
            raise UserError("points, step and multiple_of belong to a range", expected="{from, to} beside them")
        if self.when is not None:
            Expression(self.when)
        return self

    @property
    def is_range(self) -> bool:
        return self.start is not None or self.to is not None

    @property
    def is_drawn(self) -> bool:
        """Whether the values come from the sweep's sample."""
        return self.is_range and self.points is None and self.step is None

    def ends(self) -> tuple[int | float, int | float, str]:
        """First value, last value and their unit ("" for plain numbers)."""
        (low, low_unit), (high, high_unit) = _number(self.start), _number(self.to)
        if low_unit != high_unit:
            raise UserError(f"'{self.start}' and '{self.to}' have different units", expected="the same unit twice")
        return low, high, low_unit

    def _check_range(self) -> None:
        if self.start is None or self.to is None:
            raise UserError("a range needs both ends", expected="{from: 1, to: 64, points: 7}")
        low, high, unit = self.ends()
        if self.points is not None and self.step is not None:
            raise UserError("a range has points or a step, not both")
        if high < low:
            raise UserError(f"the range ends at {self.to}, before it starts at {self.start}")
        if self.scale is Scale.LOG and low <= 0:
            raise UserError("a log range can't start at or below zero")
        if self.scale is Scale.LOG and self.step is not None:
            raise UserError("a log range has no step", expected="points")
        if self.step is not None:
            step, step_unit = _number(self.step)
            if step <= 0 or step_unit != unit:
                raise UserError(f"the step '{self.step}' doesn't fit", expected=f"above zero, in {unit or 'no unit'}")


class SampleSpec(Spec):
    """Points drawn in the space of all axes that are ranges without `points` or `step`, together."""

    method: SampleMethod = SampleMethod.SOBOL
    points: PositiveInt
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _is_balanced(self) -> SampleSpec:
        if self.method is SampleMethod.SOBOL and self.points & (self.points - 1):
            nearest = 1 << (self.points.bit_length() - 1)
            raise UserError(
                f"{self.points} points of a Sobol sequence aren't balanced",
                expected=f"a power of two, such as {nearest} or {2 * nearest}",
            )
        return self


class DerivedSpec(Spec):
    """A value computed from others: an expression, and the unit of its value if the path takes a quantity."""

    expression: str
    unit: str | None = None

    @model_validator(mode="after")
    def _is_an_expression(self) -> DerivedSpec:
        Expression(self.expression)
        return self


class SpaceSpec(Spec):
    """What a sweep and a search have in common: an experiment and what of it varies."""

    name: str | None = None
    description: str = ""
    experiment: Annotated[
        str | None, Field(description="what is varied: a path, or a shipped experiment; in a section the file itself")
    ] = None
    fixed: Annotated[dict[str, Any], Field(alias="set", default_factory=dict, description="path -> value, for all")]
    axes: Annotated[dict[str, AxisSpec], Field(description="path -> its values")]
    derived: Annotated[dict[str, str | DerivedSpec], Field(default_factory=dict, description="path -> expression")]

    def computed(self) -> dict[str, DerivedSpec]:
        """The derived values, those written as a mere expression included."""
        return {
            name: DerivedSpec(expression=written) if isinstance(written, str) else written
            for name, written in self.derived.items()
        }

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        """Expressions see the axes above them; derived values see all of them."""
        if not self.axes:
            raise UserError("there are no axes", expected="axes: {workload.batch: [1, 8, 64]}")
        if overlap := self.axes.keys() & self.derived.keys():
            raise UserError(f"'{min(overlap)}' is an axis and derived")
        order = list(self.axes)
        for index, (name, axis) in enumerate(self.axes.items()):
            check_known(f"axes.{name}.when", axis.when, order[:index])
        known = list(order)
        for name, written in self.derived.items():
            check_known(f"derived.{name}", written if isinstance(written, str) else written.expression, known)
            known.append(name)
        return self


class SweepSpec(SpaceSpec):
    """A space of points around an experiment: every combination of the axes' values."""

    kind: Literal["sweep"] = "sweep"
    zip: Annotated[tuple[tuple[str, ...], ...], Field(description="groups of axes whose values go together")] = ()
    sample: Annotated[SampleSpec | None, Field(description="draws the ranges that have no points")] = None
    where: Annotated[str | None, Field(description="an expression: only points for which it holds")] = None
    best: Annotated[str | None, Field(description="the metric by which points are compared")] = None

    @model_validator(mode="after")
    def _hangs_together(self) -> SweepSpec:
        self._check_zips()
        drawn = [name for name, axis in self.axes.items() if axis.is_drawn]
        if drawn and self.sample is None:
            raise UserError(f"the range of '{drawn[0]}' has no points", expected="points, a step, or a sample")
        if self.sample is not None and not drawn:
            raise UserError("there is nothing to draw", expected="a range without points and step")
        check_known("where", self.where, [*self.axes, *self.derived])
        return self

    def _check_zips(self) -> None:
        seen: set[str] = set()
        for group in self.zip:
            for name in group:
                if name not in self.axes:
                    raise UserError(f"zip: there is no axis '{name}'", nearest=nearest_name(name, self.axes))
                if name in seen:
                    raise UserError(f"zip: '{name}' stands twice")
                if self.axes[name].is_drawn:
                    raise UserError(f"zip: '{name}' is drawn by the sample already")
                seen.add(name)


def check_known(path: str, text: str | None, known: Sequence[str]) -> None:
    """Raise UserError if an expression names what is not in `known`."""
    for name in sorted(Expression(text).names) if text is not None else ():
        if name not in known:
            expected = listed(known, 8) or "an axis further up"
            raise UserError(f"{path}: '{text}' names '{name}'", expected=expected, nearest=nearest_name(name, known))


def _number(written: int | float | str | None) -> tuple[int | float, str]:
    """A bound as a number and its unit. Raises UserError if it is neither a number nor a quantity."""
    if isinstance(written, int | float) and not isinstance(written, bool):
        return written, ""
    parts = split_quantity(written) if isinstance(written, str) else None
    if parts is None:
        raise UserError(f"'{written}' is no number", expected="a number, or a quantity such as '300 W'")
    return (int(parts[0]) if parts[0].denominator == 1 else float(parts[0])), parts[1]


def as_plain(data: Any) -> Any:
    """What Python code may hand over (numpy arrays, ranges, paths, tuples) as what a YAML file may hold."""
    if isinstance(data, Mapping):
        return {str(key): as_plain(value) for key, value in data.items()}
    if hasattr(data, "tolist"):
        return data.tolist()
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return [as_plain(item) for item in data]
    return data if isinstance(data, Scalar) else str(data)

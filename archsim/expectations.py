"""What a metric is expected to be, by a paper or a measurement: the `expect:` of an experiment.

expect:
  - {metric: decode.tpot, value: 12.5 ms, tolerance: 10%, source: "measured on ..."}
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from archsim.config.dimensions import Dimension, parse_quantity, split_quantity
from archsim.config.errors import UserError, nearest_name, show
from archsim.config.schema import Spec
from archsim.config.units import Fraction01
from archsim.metrics import METRICS, definition_of

_DIMENSIONS = {
    "s": Dimension.TIME,
    "B": Dimension.BYTES,
    "B/s": Dimension.BYTES_PER_SECOND,
    "J": Dimension.ENERGY,
    "W": Dimension.POWER,
}


class Expectation(Spec):
    """A metric's expected value, how far off it may be (relative), and where the value comes from."""

    metric: Annotated[str, Field(description="a metric's name, such as decode.tpot")]
    value: Annotated[str | int | float, Field(description="with the metric's unit: 12.5 ms, 88%, 4.2 TB/s")]
    tolerance: Annotated[Fraction01, Field(description="relative: 5% or 0.05")]

    @model_validator(mode="after")
    def _is_meant_well(self) -> Expectation:
        if self.source is None:
            raise UserError("an expected value without its source", expected="source: a paper or a measurement")
        _ = self.expected
        return self

    @property
    def unit(self) -> str:
        """The metric's unit. Raises UserError if there is no such metric."""
        try:
            return definition_of(self.metric).unit
        except KeyError:
            raise _unknown(self.metric) from None

    @property
    def expected(self) -> float:
        """The value in the metric's unit. Raises UserError if it is written in another one."""
        dimension = _DIMENSIONS.get(self.unit)
        if dimension is not None:
            return float(parse_quantity(str(self.value), dimension))
        if isinstance(self.value, int | float) and not isinstance(self.value, bool):
            return float(self.value)
        parts = split_quantity(self.value) if isinstance(self.value, str) else None
        units = {"%": 100, self.unit: 1} if self.unit == "fraction" else {self.unit: 1}
        if parts is None or parts[1] not in units:
            example = {"fraction": "0.88 or 88%", "tokens/s": "900 tokens/s"}.get(self.unit, "a plain number")
            raise UserError(f"{show(self.value)} is not a value of {self.metric}", expected=example)
        return float(parts[0] / units[parts[1]])

    def met_by(self, value: float) -> bool:
        """Whether a simulated value is within the tolerance."""
        return abs(value - self.expected) <= self.tolerance * abs(self.expected)


def _unknown(metric: str) -> UserError:
    """Names are compared with the table's rows, for which a phase's name is a placeholder."""
    phase = metric.partition(".")[0]
    names = [row.name.replace("{phase}", phase) for row in METRICS]
    return UserError(
        f"there is no metric '{metric}'",
        expected="a name that `archsim describe metrics` lists",
        nearest=nearest_name(metric, names),
    )

"""What objectives and constraints of a search may speak of: metrics, quantities of the user's, and values of the
experiment by their path. All of them count in SI base units: seconds, bytes, bytes per second, joules, watts.

    decode.tpot                                  a metric of the run
    system.device.memory.capacity                a value of the experiment, as it would be written in YAML
    system.device.memory.peak_bytes_per_second   what its spec computes from others
    area                                         a quantity: an expression over all of these
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any

from archsim.config.dimensions import dimension_by_unit, si_value, split_quantity
from archsim.config.errors import UserError, nearest_name
from archsim.config.schema import Spec
from archsim.experiment_spec import ExperimentSpec
from archsim.metrics import METRICS, Metric, definition_of
from archsim.sweep.expressions import Expression
from archsim.sweep.spec import DerivedSpec

PHASES = ("prefill", "decode")
METRIC_NAMES = tuple(
    row.name.replace("{phase}", phase)
    for row in METRICS
    for phase in (PHASES if "{phase}" in row.name else PHASES[:1])
    if "{component}" not in row.name
)
"""The metrics there are, those per energy component aside."""


@dataclass(frozen=True)
class Facts(Mapping[str, Any]):
    """Everything known of one point, by name. Without `metrics` only what the configuration says."""

    spec: ExperimentSpec
    quantities: Mapping[str, DerivedSpec]
    metrics: Mapping[str, Metric]

    def __getitem__(self, name: str) -> Any:
        if name in self.quantities:
            return Expression(self.quantities[name].expression)(self)
        if name in self.metrics:
            return self.metrics[name].value
        found = written(self.spec, name)
        number = si_value(found) if isinstance(found, str) else None
        return found if number is None else number

    def __contains__(self, name: object) -> bool:
        try:
            self[str(name)]
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        yield from (*self.quantities, *self.metrics)

    def __len__(self) -> int:
        return len(self.quantities) + len(self.metrics)

    def number(self, name: str) -> float:
        """A value that has to be a finite number. Raises UserError if there is none, or it isn't one."""
        if name not in self:
            raise UserError(f"this run has no '{name}'", nearest=nearest_name(name, self))
        value = self[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"'{name}' is {value}", expected="a number")
        return value


def written(spec: Spec, path: str) -> Any:
    """The value at a dotted path of a spec as YAML would have it ("141 GB"), or of a property of it.

    KeyError if there is none, or it is a whole part of the spec."""
    *parents, last = path.split(".")
    part: Any = spec
    for name in parents:
        part = _step(part, name)
    if isinstance(part, Spec) and last in type(part).model_fields:
        value = part.model_dump(mode="json", include={last})[last]
    else:
        value = _step(part, last)
    if isinstance(value, Fraction):
        return float(value)
    if value is not None and not isinstance(value, str | int | float):
        raise KeyError(path)
    return value


def _step(part: Any, name: str) -> Any:
    if isinstance(part, Mapping):
        return part[name]
    if not isinstance(part, Spec) or name.startswith("_") or not _holds(type(part), name):
        raise KeyError(name)
    return getattr(part, name)


def _holds(model: type[Spec], name: str) -> bool:
    return name in model.model_fields or isinstance(getattr(model, name, None), property)


def check_names(where: str, names: frozenset[str], facts: Facts) -> None:
    """Raise UserError if a name means nothing: no quantity, no metric, no path of the experiment."""
    for name in sorted(names):
        if name in facts or is_metric(name):
            continue
        known = [*facts.quantities, *METRIC_NAMES, *_paths(facts.spec, "")]
        raise UserError(
            f"{where}: there is no '{name}'",
            expected="a metric, a quantity or a path of the experiment",
            nearest=nearest_name(name, known),
        )


def is_metric(name: str) -> bool:
    """Whether a run may have a metric of this name."""
    try:
        definition_of(name)
    except KeyError:
        return False
    return name.partition(".")[0] in (*PHASES, "serving")


def _paths(spec: Spec, prefix: str) -> Iterator[str]:
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if isinstance(value, Spec):
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield prefix + name


# ---------------------------------------------------------------- constraints


class Bound(StrEnum):
    """Which side of a constraint has to be the larger."""

    AT_MOST = "<="
    AT_LEAST = ">="


_SPLIT = re.compile(r"([<>]=?|[=!]=)")
_LITERAL = re.compile(r"(?<![\w.])(\d+\.?\d*(?:[eE][+-]?\d+)?)\s*([A-Za-zµ]+)(/[A-Za-z]+)?")
_WORDS = ("if", "else", "and", "or", "in", "not")


class Constraint:
    """ "decode.power <= 600 W": two expressions of which one bounds the other. Raises UserError if it isn't that."""

    def __init__(self, text: str) -> None:
        self.text = text
        parts = _SPLIT.split(text)
        if len(parts) != 3 or parts[1] not in tuple(Bound):
            raise UserError(f"'{text}' is no constraint", expected="one <= or >=, such as 'decode.power <= 600 W'")
        self._sides = (parts[0].strip(), parts[2].strip())
        self._bound = Bound(parts[1])
        self._left, self._right = (Expression(_in_si(side)) for side in self._sides)

    @property
    def names(self) -> frozenset[str]:
        """What it speaks of."""
        return self._left.names | self._right.names

    def violation(self, facts: Facts) -> float:
        """By how much it is broken, as a share of the bound (of 1 if that is zero); not above zero where it holds.

        Raises UserError if it can't be computed."""
        for name in sorted(self.names):
            facts.number(name)
        value, bound = self._left(facts), self._right(facts)
        excess = value - bound if self._bound is Bound.AT_MOST else bound - value
        share = excess / (abs(bound) or 1.0)
        if not math.isfinite(share):
            raise UserError(f"'{self.text}' compares {value} with {bound}", expected="finite numbers")
        return float(share)

    def check(self, facts: Facts) -> None:
        """Raise UserError if a name means nothing, or a single value is compared with one of another dimension."""
        check_names(f"constraint '{self.text}'", self.names, facts)
        for name in sorted(self.names - facts.quantities.keys()):
            if not is_metric(name):
                facts.number(name)
        found = [_dimension(side, facts) for side in self._sides]
        if "" not in found and found[0] != found[1]:
            said = " with ".join(f"'{side}' ({what})" for side, what in zip(self._sides, found, strict=True))
            raise UserError(f"constraint '{self.text}' compares {said}", expected="the same dimension on both sides")


def _dimension(side: str, facts: Facts) -> str:
    """What a lone name or number measures ("power", "a plain number"); "" for a longer expression."""
    unit = ""
    if re.fullmatch(r"[A-Za-z_][\w.]*", side):
        if side in facts.quantities:
            return ""
        if is_metric(side):
            unit = definition_of(side).unit
        else:
            value = written(facts.spec, side)
            parts = split_quantity(value) if isinstance(value, str) else None
            unit = parts[1] if parts else ("B/s" if side.endswith("bytes_per_second") else "")
            unit = unit or ("B" if side.endswith("_bytes") else "")
    else:
        parts = split_quantity(side)
        if parts is None or (parts[1] and parts[1] not in dimension_by_unit()):
            return ""
        unit = parts[1]
    dimension = dimension_by_unit().get(unit)
    return "a plain number" if dimension is None else dimension.value


def _in_si(side: str) -> str:
    """An expression whose quantities ("600 W") are numbers in SI base units."""

    def replaced(found: re.Match[str]) -> str:
        number, word, rest = found[1], found[2], found[3] or ""
        if word in _WORDS:
            return found[0]
        for unit, left in ((word + rest, ""), (word, rest)):
            if unit in dimension_by_unit():
                return f"{si_value(f'{number} {unit}')!r}{left}"
        raise UserError(f"'{found[0]}' has no known unit", nearest=nearest_name(word + rest, dimension_by_unit()))

    return _LITERAL.sub(replaced, side)

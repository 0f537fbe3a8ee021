"""The numbers of a system that hardware could have more or less of, found in its spec, and how far to move each.

A parameter is one number, or several that only make sense together: with the stacks goes what they hold, with the
units of an engine goes its peak. `ALONG` says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

from archsim.config.dimensions import Dimension, is_quantity, split_quantity, units_of
from archsim.config.errors import UserError, nearest_name
from archsim.config.schema import SOURCED_KEYS, is_sourced
from archsim.experiment import LoadedExperiment
from archsim.memory.standard import DramStandard

MEMORY = "system.device.memory"
TIMINGS = f"{MEMORY}.technology.timings"
SIGNIFICANT_DIGITS = 6
"""Of a moved quantity, in its own unit; what it is moved to counts as what is written, so nothing is lost."""

DEFAULT = (
    f"{MEMORY}.stacks",
    f"{MEMORY}.technology.channels_per_stack",
    f"{MEMORY}.technology.data_rate",
    f"{TIMINGS}.*",
    "system.device.matrix.peak",
    "system.device.matrix.units",
    "system.device.vector.peak",
    "system.device.vector.units",
    "system.device.vector.clock",
    "system.device.buffer.capacity",
    "system.device.buffer.bandwidth",
    "system.device.buffer.latency",
    "system.device.buffer.miss_latency",
    "system.device.noc",
    "system.device.launch.kernel",
    "system.link.bandwidth",
    "system.link.protocols[*].base_latency",
    "system.link.protocols[*].step_latency",
)
"""What is moved if nothing is named: what silicon, packaging and protocols decide. Energies and power are left out."""

ALONG: Mapping[str, tuple[str, ...]] = {
    # A stack brings its capacity, and a channel the memory behind it.
    f"{MEMORY}.stacks": (f"{MEMORY}.capacity",),
    f"{MEMORY}.technology.channels_per_stack": (f"{MEMORY}.technology.stack_capacity", f"{MEMORY}.capacity"),
    # `peak` is of the whole engine at its clock: more units, or a faster clock, have more of it.
    "system.device.matrix.units": ("system.device.matrix.peak",),
    "system.device.matrix.clock": ("system.device.matrix.peak",),
    "system.device.vector.units": ("system.device.vector.peak",),
    "system.device.vector.clock": ("system.device.vector.peak",),
}
"""Parameter -> what is scaled with it."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A number as it stands in the spec. `counted`: whole numbers (units, clocks) that move by whole steps."""

    path: str
    number: Fraction
    unit: str
    counted: bool

    def __str__(self) -> str:
        number = str(self.number) if self.number.denominator == 1 else f"{float(self.number):g}"
        return f"{number} {self.unit}".strip()

    def moved(self, ratio: Fraction) -> Leaf:
        """The number times about `ratio`, as a spec can hold it."""
        return Leaf(self.path, _fitting(self.number * ratio, self.unit, self.counted), self.unit, self.counted)

    def stepped(self, step: Fraction, *, up: bool) -> Leaf:
        """The number times or by 1 + `step`; a counted one goes at least one further."""
        leaf = self.moved(1 + step if up else 1 / (1 + step))
        if leaf.number == self.number:
            leaf = Leaf(self.path, self.number + (1 if up else -1), self.unit, self.counted)
        return leaf

    def written(self) -> str | int | float:
        """As an override takes it."""
        whole = self.number.denominator == 1
        number = self.number.numerator if whole else float(self.number)
        return f"{number} {self.unit}" if self.unit else number


def _fitting(number: Fraction, unit: str, counted: bool) -> Fraction:
    """A number rounded to what may be written with its unit; bytes to whole ones, down."""
    if counted:
        return Fraction(round(number))
    bytes_per_unit = units_of(Dimension.BYTES).get(unit)
    if bytes_per_unit is not None:
        return Fraction(int(number * bytes_per_unit)) / bytes_per_unit
    return Fraction(f"{float(number):.{SIGNIFICANT_DIGITS}g}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """What is moved as one: the first of `leaves` is what counts as its value."""

    path: str
    leaves: tuple[Leaf, ...]
    along: tuple[str, ...] = ()

    def moved(self, step: Fraction, *, up: bool) -> tuple[Leaf, dict[str, Any]]:
        """One step up or down: the value it then has, and the overrides that make it so."""
        first = self.leaves[0]
        then = first.stepped(step, up=up)
        ratio = then.number / first.number
        return then, {leaf.path: leaf.moved(ratio).written() for leaf in self.leaves[1:]} | {first.path: then.written()}


@dataclass(frozen=True, slots=True)
class Skipped:
    """A parameter without elasticities, and why."""

    path: str
    reason: str


def find_parameters(
    loaded: LoadedExperiment, wanted: Sequence[str] = ()
) -> tuple[tuple[Parameter, ...], tuple[Skipped, ...]]:
    """The parameters that paths or patterns (`*`) name, `DEFAULT` if none, in that order, and those that can't move.

    A path of a group (`system.device.matrix.peak`) scales all its quantities together. Raises UserError for a path
    that is named and isn't there, and for a pattern that fits nothing.
    """
    leaves = {leaf.path: leaf for leaf in _leaves(loaded)}
    found: dict[str, Parameter] = {}
    skipped: dict[str, Skipped] = {}
    for path in wanted or DEFAULT:
        names = _matching(path, leaves)
        if not names and not wanted:
            skipped[path] = Skipped(path, "this system has none")
        elif not names:
            _refuse(path, loaded, leaves)
        for name in names:
            parameter = _parameter(name, leaves)
            if parameter.leaves[0].number <= 0:
                skipped[name] = Skipped(name, "it is 0, of which there is no percentage")
            elif not parameter.leaves[0].counted or parameter.leaves[0].number != 1:
                found[name] = parameter
            else:
                skipped[name] = Skipped(name, "it is 1; one step would double it or take it away")
    return tuple(found.values()), tuple(skipped.values())


def _matching(path: str, leaves: Mapping[str, Leaf]) -> list[str]:
    """The leaves that a pattern fits, or the path of a leaf or a group as it is."""
    if "*" in path:
        pattern = path.replace("[", "[[]")  # brackets are of lists, not of the pattern
        return [name for name in leaves if fnmatchcase(name, pattern)]
    return [path] if _below(path, leaves) else []


def _below(path: str, leaves: Mapping[str, Leaf]) -> list[Leaf]:
    """The leaf at a path, or all leaves below it."""
    if path in leaves:
        return [leaves[path]]
    return [leaf for name, leaf in leaves.items() if name.startswith((f"{path}.", f"{path}["))]


def _parameter(path: str, leaves: Mapping[str, Leaf]) -> Parameter:
    own = _below(path, leaves)
    if len(own) > 1 and (counted := next((leaf for leaf in own if leaf.counted), None)):
        message = f"'{path}' can't be scaled as one: {counted.path} = {counted} moves by whole steps"
        raise UserError(message, expected=f"'{path}.*', each by itself")
    along = tuple(name for name in ALONG.get(path, ()) if _below(name, leaves))
    return Parameter(path, (*own, *(leaf for name in along for leaf in _below(name, leaves))), along)


def _refuse(path: str, loaded: LoadedExperiment, leaves: Mapping[str, Leaf]) -> None:
    if path in {name for name, _ in _scalars(loaded.loaded.resolved["system"], "system")}:
        raise UserError(f"'{path}' is no number, so there is no percentage of it")
    expected = "a path below system., or a pattern such as 'system.device.buffer.*'"
    raise UserError(f"this system has no number '{path}'", expected=expected, nearest=nearest_name(path, leaves))


# ---------------------------------------------------------------- the numbers of a spec


def _leaves(loaded: LoadedExperiment) -> Iterator[Leaf]:
    """All numbers of the system. Timings count in clocks, whatever they are written in: that is how they act."""
    technology = loaded.system.spec.device.memory.technology
    for path, value in _scalars(loaded.loaded.resolved["system"], "system"):
        parent, _, name = path.rpartition(".")
        if parent == TIMINGS and isinstance(technology, DramStandard):
            yield Leaf(path, Fraction(technology.clocks(name)), "nCK", counted=True)
        elif (leaf := _leaf(path, value)) is not None:
            yield leaf


def _leaf(path: str, value: Any) -> Leaf | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return Leaf(path, Fraction(value), "", counted=True)
    if isinstance(value, float):
        return Leaf(path, Fraction(str(value)), "", counted=False)
    parts = split_quantity(value) if isinstance(value, str) and is_quantity(value) else None
    return Leaf(path, *parts, counted=parts[1] == "nCK") if parts is not None else None


def _scalars(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every scalar below a path, without sources; `a.b[0].c`."""
    if is_sourced(value):
        yield path, value["value"]
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in SOURCED_KEYS:
                yield from _scalars(inner, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _scalars(inner, f"{path}[{index}]")
    else:
        yield path, value

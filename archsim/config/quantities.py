"""Pydantic types for quantities: text with a unit in, a plain number in one fixed unit out.

    class Buffer(Spec):
        capacity: ByteCount          # "64 MiB"  -> 67108864 (bytes, int)
        latency: TimeFs = 0          # "12 ns"   -> 12000000 (femtoseconds, int)

Defaults are not parsed: write them in the unit of the result. `model_dump(mode="json")` writes text with units again.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from archsim.config.dimensions import (
    Dimension,
    QuantityError,
    describe,
    exact_quantity,
    example,
    parse_quantity,
    split_quantity,
    units_of,
)
from archsim.config.errors import show

FS_PER_SECOND = 10**15
PJ_PER_JOULE = 10**12
FS_PER_PJ_AND_WATT = FS_PER_SECOND // PJ_PER_JOULE
"""One watt is one picojoule in this many femtoseconds."""

_NUMBER_PATTERN = r"[+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"


@dataclass(frozen=True, eq=False)
class Parsed:
    """Pydantic metadata of a field whose text is parsed by a function; carries its own description.

    `read` turns what was written into the value or raises QuantityError; `write` is its inverse (for JSON).
    """

    expected: str
    read: Callable[[Any], Any]
    write: Callable[[Any], Any]
    json_schema: dict[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        serializer = core_schema.plain_serializer_function_ser_schema(self.write, when_used="json")
        return core_schema.no_info_plain_validator_function(self.read, serialization=serializer)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return dict(self.json_schema)


def _as_float(exact: Fraction, written: Any, expected: str) -> float:
    try:
        number = float(exact)
    except OverflowError:
        raise QuantityError(f"'{written}' is too large", expected=expected) from None
    if number == 0:  # exact is above zero
        raise QuantityError(f"'{written}' is too small", expected=expected)
    return number


def _quantity(dimension: Dimension, per_base: int, *, whole: str | None = None, allow_zero: bool = False) -> Parsed:
    """A field of `dimension`, stored as a multiple of 1/`per_base` of its base unit.

    With `whole` (the name of the stored unit) the value is an int and must be an exact multiple; else a float.
    """
    expected = describe(dimension)

    def read(value: Any) -> int | float:
        exact = parse_quantity(value, dimension, allow_zero=allow_zero) * per_base
        if whole is None:
            return _as_float(exact, value, expected)
        if exact.denominator != 1:
            raise QuantityError(f"'{value}' is not a whole number of {whole}", expected=expected)
        return exact.numerator

    def write(value: int | float) -> str:
        return exact_quantity(Fraction(repr(value)) / per_base, dimension)

    units = "|".join(sorted(units_of(dimension), key=len, reverse=True))
    schema = {"type": "string", "pattern": f"^{_NUMBER_PATTERN} ?({units})$", "examples": [example(dimension)]}
    return Parsed(expected, read, write, schema)


ByteCount = Annotated[int, _quantity(Dimension.BYTES, 1, whole="bytes")]
"""Bytes, above zero: "16 GiB"."""

TimeFs = Annotated[int, _quantity(Dimension.TIME, FS_PER_SECOND, whole="femtoseconds", allow_zero=True)]
"""Femtoseconds, zero allowed; the text must be an exact multiple of 1 fs: "5 us"."""

FrequencyHz = Annotated[int, _quantity(Dimension.FREQUENCY, 1, whole="hertz")]
"""Hertz: "1.6 GHz"."""

BytesPerSecond = Annotated[int, _quantity(Dimension.BYTES_PER_SECOND, 1, whole="bytes per second")]
"""Bytes per second: "3.35 TB/s"."""

BitsPerSecond = Annotated[int, _quantity(Dimension.BITS_PER_SECOND, 1, whole="bits per second")]
"""Bits per second, of one pin where a bus is meant: "6.4 Gb/s"."""

FlopPerSecond = Annotated[int, _quantity(Dimension.FLOP_PER_SECOND, 1, whole="operations per second")]
"""Floating-point or integer operations per second: "989.4 TFLOP/s", "1979 TOP/s"."""

Watts = Annotated[float, _quantity(Dimension.POWER, 1)]
"""Watts: "700 W"."""

Picojoules = Annotated[float, _quantity(Dimension.ENERGY, PJ_PER_JOULE)]
"""Picojoules: "0.909 nJ" -> 909.0."""

PicojoulePerBit = Annotated[float, _quantity(Dimension.ENERGY_PER_BIT, PJ_PER_JOULE)]
"""Picojoules per bit: "3.9 pJ/b"."""

PicojoulePerByte = Annotated[float, _quantity(Dimension.ENERGY_PER_BYTE, PJ_PER_JOULE)]
"""Picojoules per byte: "31.2 pJ/B"."""

Volts = Annotated[float, _quantity(Dimension.VOLTAGE, 1)]
"""Volts: "1.2 V"."""

Milliamperes = Annotated[float, _quantity(Dimension.CURRENT, 1000)]
"""Milliamperes: "65 mA"."""


_COUNT_EXPECTED = "a whole number above zero"
_NUMBER_EXPECTED = "a number above zero, without a unit"
_SHARE_EXPECTED = "a fraction above 0 and up to 1, such as 0.87 or '87%'"
_SHARE_FROM_ZERO_EXPECTED = "a fraction from 0 to 1, such as 0.87 or '87%'"


def _positive_int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise QuantityError(f"got {show(value)}", expected=_COUNT_EXPECTED)
    if value <= 0:
        raise QuantityError(f"{value} is too small", expected=_COUNT_EXPECTED)
    return value


def _positive_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise QuantityError(f"got {show(value)}", expected=_NUMBER_EXPECTED)
    if not math.isfinite(value):
        raise QuantityError(f"{value} is not a finite number", expected=_NUMBER_EXPECTED)
    if value <= 0:
        raise QuantityError(f"{value} is too small", expected=_NUMBER_EXPECTED)
    return float(value)


def _fraction01(value: Any) -> float:
    number = _share(value, _SHARE_EXPECTED)
    if number == 0:
        raise QuantityError(f"{value} is out of range", expected=_SHARE_EXPECTED)
    return number


def _fraction_from_zero(value: Any) -> float:
    return _share(value, _SHARE_FROM_ZERO_EXPECTED)


def _share(value: Any, expected: str) -> float:
    number = _percent(value) if isinstance(value, str) else value
    if number is None or isinstance(number, bool) or not isinstance(number, int | float):
        raise QuantityError(f"got {show(value)}", expected=expected)
    if not 0 <= number <= 1:
        raise QuantityError(f"{value} is out of range", expected=expected)
    return float(number)


def _percent(text: str) -> float | None:
    parts = split_quantity(text)
    return float(parts[0] / 100) if parts is not None and parts[1] == "%" else None


PositiveInt = Annotated[
    int,
    Parsed(_COUNT_EXPECTED, _positive_int, int, {"type": "integer", "exclusiveMinimum": 0}),
]
"""A count: 8."""

PositiveFloat = Annotated[
    float,
    Parsed(_NUMBER_EXPECTED, _positive_float, float, {"type": "number", "exclusiveMinimum": 0}),
]
"""A plain number above zero, for what has no unit: 1.5."""


def _share_schema(lower_bound: str) -> dict[str, Any]:
    """A number or a percentage; `lower_bound` says whether 0 is one of them."""
    percentage = {"type": "string", "pattern": f"^{_NUMBER_PATTERN} ?%$", "examples": ["87%"]}
    return {"anyOf": [{"type": "number", lower_bound: 0, "maximum": 1}, percentage]}


Fraction01 = Annotated[
    float,
    Parsed(
        _SHARE_EXPECTED,
        _fraction01,
        float,
        _share_schema("exclusiveMinimum"),
    ),
]
"""A share: 0 < x <= 1, as 0.87 or "87%"."""

FractionFromZero = Annotated[
    float,
    Parsed(
        _SHARE_FROM_ZERO_EXPECTED,
        _fraction_from_zero,
        float,
        _share_schema("minimum"),
    ),
]
"""A share that may be none: 0 <= x <= 1, as 0.87 or "87%"."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A timing parameter as its standard gives it: an absolute time in nanoseconds, or clocks. Exactly one is set."""

    ns: Fraction | None = None
    clocks: int | None = None

    def __post_init__(self) -> None:
        if (self.ns is None) == (self.clocks is None):
            raise TypeError("a timing is either a time or a number of clocks")

    def to_clocks(self, tCK_fs: Fraction | int) -> int:  # noqa: N803 (the standards' name)
        """Whole clocks of period `tCK_fs` (femtoseconds) that cover the timing: ceil(ns / tCK), exactly."""
        if self.clocks is not None:
            return self.clocks
        assert self.ns is not None
        return math.ceil(self.ns * 10**6 / Fraction(tCK_fs))

    def __str__(self) -> str:
        if self.clocks is not None:
            return f"{self.clocks} nCK"
        assert self.ns is not None
        return exact_quantity(self.ns / 10**9, Dimension.TIME)


_TIMING_EXPECTED = "a time such as '14 ns' or clocks such as '2 nCK'"


def parse_timing(value: Any) -> Timing:
    """ "14 ns" or "2 nCK" as a Timing; zero is allowed. Raises QuantityError."""
    if isinstance(value, Timing):
        return value
    parts = split_quantity(value) if isinstance(value, str) else None
    if parts is not None and parts[1] == "nCK":
        if parts[0] < 0 or parts[0].denominator != 1:
            raise QuantityError(f"'{value}' is not a whole number of clocks", expected=_TIMING_EXPECTED)
        return Timing(clocks=parts[0].numerator)
    try:
        return Timing(ns=parse_quantity(value, Dimension.TIME) * 10**9)
    except QuantityError as error:
        raise QuantityError(error.message, expected=_TIMING_EXPECTED, nearest=error.nearest) from None


_TIMING_UNITS = "|".join([*sorted(units_of(Dimension.TIME), key=len, reverse=True), "nCK"])

TimingNsOrClocks = Annotated[
    Timing,
    Parsed(
        _TIMING_EXPECTED,
        parse_timing,
        str,
        {"type": "string", "pattern": f"^{_NUMBER_PATTERN} ?({_TIMING_UNITS})$", "examples": ["14 ns", "2 nCK"]},
    ),
]
"""A timing parameter: "14 ns" or "2 nCK" -> Timing."""

"""Quantities as text: one exact parser ("3.35 TB/s", "16 GiB", "5 us") and the way back.

A quantity becomes a Fraction in SI base units, so nothing is lost: GB = 10^9 bytes, GiB = 2^30 bytes,
`b` is bits and `B` is bytes, everywhere. This module needs only the standard library.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_HALF_EVEN, Context, Decimal
from enum import StrEnum
from fractions import Fraction
from functools import cache

from archsim.config.errors import UserError, nearest_name, show


class Dimension(StrEnum):
    """What a quantity measures; the comment names the SI base unit a parsed value is in."""

    BYTES = "bytes"  # B
    BITS = "bits"  # b
    TIME = "time"  # s
    FREQUENCY = "frequency"  # Hz
    BYTES_PER_SECOND = "bytes/s"  # B/s
    BITS_PER_SECOND = "bits/s"  # b/s
    FLOP = "flop"  # FLOP
    FLOP_PER_SECOND = "flop/s"  # FLOP/s
    POWER = "power"  # W
    ENERGY = "energy"  # J
    ENERGY_PER_BIT = "energy/bit"  # J/b
    ENERGY_PER_BYTE = "energy/byte"  # J/B
    VOLTAGE = "voltage"  # V
    CURRENT = "current"  # A


class QuantityError(UserError):
    """A text that is not a quantity of the dimension asked for."""


_PREFIXES = {
    "f": Fraction(1, 10**15),
    "p": Fraction(1, 10**12),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    "": Fraction(1),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
}
_BINARY = {f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", start=1)}
_LARGE = ("", "k", "M", "G", "T", "P", "E")

# Per dimension: the base unit, the decimal prefixes it takes, and whether it takes binary ones too.
_GRAMMAR: dict[Dimension, tuple[str, tuple[str, ...], bool]] = {
    Dimension.BYTES: ("B", _LARGE, True),
    Dimension.BITS: ("b", _LARGE, True),
    Dimension.TIME: ("s", ("f", "p", "n", "u", "m", ""), False),
    Dimension.FREQUENCY: ("Hz", ("", "k", "M", "G", "T"), False),
    Dimension.BYTES_PER_SECOND: ("B/s", _LARGE, True),
    Dimension.BITS_PER_SECOND: ("b/s", _LARGE, False),
    Dimension.FLOP: ("FLOP", _LARGE, False),
    Dimension.FLOP_PER_SECOND: ("FLOP/s", _LARGE, False),
    Dimension.POWER: ("W", ("n", "u", "m", "", "k", "M"), False),
    Dimension.ENERGY: ("J", ("f", "p", "n", "u", "m", "", "k", "M"), False),
    Dimension.ENERGY_PER_BIT: ("J/b", ("f", "p", "n", "u"), False),
    Dimension.ENERGY_PER_BYTE: ("J/B", ("f", "p", "n", "u"), False),
    Dimension.VOLTAGE: ("V", ("m", ""), False),
    Dimension.CURRENT: ("A", ("u", "m", ""), False),
}

# Dimension -> (what it is called in a message, an example).
_WORDS: dict[Dimension, tuple[str, str]] = {
    Dimension.BYTES: ("a size in bytes", "16 GiB"),
    Dimension.BITS: ("a size in bits", "16 Gib"),
    Dimension.TIME: ("a time", "5 us"),
    Dimension.FREQUENCY: ("a frequency", "1.6 GHz"),
    Dimension.BYTES_PER_SECOND: ("a bandwidth in bytes per second", "3.35 TB/s"),
    Dimension.BITS_PER_SECOND: ("a data rate in bits per second", "6.4 Gb/s"),
    Dimension.FLOP: ("a number of operations", "140 GFLOP"),
    Dimension.FLOP_PER_SECOND: ("a compute rate", "989.4 TFLOP/s"),
    Dimension.POWER: ("a power", "700 W"),
    Dimension.ENERGY: ("an energy", "0.909 nJ"),
    Dimension.ENERGY_PER_BIT: ("an energy per bit", "3.9 pJ/b"),
    Dimension.ENERGY_PER_BYTE: ("an energy per byte", "31.2 pJ/B"),
    Dimension.VOLTAGE: ("a voltage", "1.2 V"),
    Dimension.CURRENT: ("a current", "65 mA"),
}

# How people write units elsewhere -> how they are written here. Only used to suggest.
_ALIASES = {
    "KB": "kB",
    "Kb/s": "kb/s",
    "KB/s": "kB/s",
    "sec": "s",
    "seconds": "s",
    "usec": "us",
    "msec": "ms",
    "nsec": "ns",
    "min.": "min",
    "hours": "h",
    "byte": "B",
    "bytes": "B",
    "bit": "b",
    "bits": "b",
    "MT/s": "Mb/s",
    "GT/s": "Gb/s",
}

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?(?![\d.])")
_NOT_FINITE = re.compile(r"[+-]?\.?(?:nan|inf|infinity)\b", re.IGNORECASE)


@cache
def units_of(dimension: Dimension) -> dict[str, Fraction]:
    """Every unit of a dimension with its size in the base unit, as written in a spec."""
    base, prefixes, binary = _GRAMMAR[dimension]
    units = {prefix + base: _PREFIXES[prefix] for prefix in prefixes}
    if binary:
        units |= {prefix + base: scale for prefix, scale in _BINARY.items()}
    if dimension is Dimension.TIME:
        units |= {"min": Fraction(60), "h": Fraction(3600), "d": Fraction(86400)}
    if dimension in (Dimension.FLOP, Dimension.FLOP_PER_SECOND):
        units |= {unit.replace("FLOP", "OP"): scale for unit, scale in units.items()}
    return units


@cache
def dimension_by_unit() -> dict[str, Dimension]:
    """Every known unit with what it measures."""
    return {unit: dimension for dimension in Dimension for unit in units_of(dimension)}


def describe(dimension: Dimension | str) -> str:
    """What a value of the dimension looks like: "a time such as '5 us'"."""
    name, example = _WORDS[Dimension(dimension)]
    return f"{name} such as '{example}'"


def example(dimension: Dimension | str) -> str:
    """One well-written quantity of the dimension."""
    return _WORDS[Dimension(dimension)][1]


def split_quantity(text: str) -> tuple[Fraction, str] | None:
    """A text as its exact number and the unit that follows ("" if none); None if it starts with no number."""
    text = text.strip()
    number = _NUMBER.match(text)
    if number is None:
        return None
    return Fraction(number.group()), text[number.end() :].strip().replace("µ", "u").replace("μ", "u")


def is_quantity(text: str) -> bool:
    """Whether a text is a number with a known unit, clocks ("2 nCK") or a percentage."""
    parts = split_quantity(text)
    return parts is not None and (parts[1] in ("nCK", "%") or parts[1] in dimension_by_unit())


def si_value(text: str) -> int | float | None:
    """A quantity of any dimension in its SI base unit, rounded once; None if the text is none."""
    parts = split_quantity(text)
    if parts is None or parts[1] not in dimension_by_unit():
        return None
    exact = parts[0] * units_of(dimension_by_unit()[parts[1]])[parts[1]]
    return exact.numerator if exact.denominator == 1 else float(exact)


def parse_quantity(text: str, dimension: Dimension | str, *, allow_zero: bool = True) -> Fraction:
    """The exact value of "<number> <unit>" in SI base units (bytes, seconds, hertz, bytes/s, watts, joules...).

    Raises QuantityError (a UserError) for a missing, unknown or wrong unit, for anything that isn't a
    finite number, for a negative value, and for zero unless `allow_zero`.
    """
    dimension = Dimension(dimension)
    expected = describe(dimension)
    if not isinstance(text, str):
        is_number = isinstance(text, int | float) and not isinstance(text, bool)
        raise QuantityError(f"{text} has no unit" if is_number else f"got {show(text)}", expected=expected)
    if _NOT_FINITE.match(text.strip()):
        raise QuantityError(f"'{text}' is not a finite number", expected=expected)
    parts = split_quantity(text)
    if parts is None:
        raise QuantityError(f"got '{text}'", expected=expected)
    number, unit = parts
    scale = units_of(dimension).get(unit)
    if scale is None:
        raise _unit_error(text, unit, dimension)
    if number < 0:
        raise QuantityError(f"'{text}' is negative", expected=expected)
    if number == 0 and not allow_zero:
        raise QuantityError(f"'{text}' is zero", expected=f"{expected}, above zero")
    return number * scale


def _unit_error(text: str, unit: str, dimension: Dimension) -> QuantityError:
    expected = describe(dimension)
    if not unit:
        return QuantityError(f"'{text}' has no unit", expected=expected)
    if unit[0] in ",_":
        return QuantityError(f"'{text}' has a separator inside the number", expected=expected)
    meant = unit if unit in dimension_by_unit() else _well_written(unit)
    other = dimension_by_unit().get(meant, dimension)
    if other is not dimension:
        return QuantityError(f"'{text}' is {_WORDS[other][0]}", expected=expected)
    nearest = meant if meant in units_of(dimension) else _nearest_unit(meant, dimension)
    return QuantityError(f"unknown unit '{unit}' in '{text}'", expected=expected, nearest=nearest)


def _well_written(unit: str) -> str:
    """A unit as it is written elsewhere ("GBps", "TFLOPS", "pJ/bit") in this notation; unchanged if it isn't known."""
    if unit in _ALIASES:
        return _ALIASES[unit]
    unit = re.sub(r"(?<=[bB])ps$", "/s", unit)
    unit = re.sub(r"(FL)?OP[sS]?(?:/s)?$", lambda match: f"{match.group(1) or ''}OP/s", unit, flags=re.IGNORECASE)
    return unit.replace("/bit", "/b").replace("/byte", "/B").replace("/sec", "/s")


def _nearest_unit(unit: str, dimension: Dimension) -> str | None:
    """The unit of the dimension that differs in case only, else the most similar one."""
    return nearest_name(unit, units_of(dimension), cutoff=0.5)


def format_quantity(value: Fraction | float | int, dimension: Dimension | str, digits: int = 3) -> str:
    """A value in SI base units as readable text: "4.26 TB/s", "12.3 ms", "3.1 pJ/b"; `digits` are significant.

    Sizes that are whole in binary units and not in decimal ones say so: "16 GiB", not "17.2 GB".
    """
    dimension = Dimension(dimension)
    base = _GRAMMAR[dimension][0]
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} {base}"
    exact = Fraction(value)
    if exact == 0:
        return f"0 {base}"
    if dimension in (Dimension.BYTES, Dimension.BITS):
        binary = _whole_binary(exact, base)
        if binary is not None:
            return binary
    for prefix in _ladder(dimension):
        rounded = _round(exact / _PREFIXES[prefix], digits)
        if abs(rounded) < 1000:
            return f"{_plain(rounded)} {prefix}{base}"
    scaled = exact / _PREFIXES[prefix]  # no larger prefix: all digits of the whole units
    return f"{_plain(_round(scaled, max(digits, len(str(abs(round(scaled)))))))} {prefix}{base}"


def format_bytes(count: Fraction | float | int) -> str:
    """A size in bytes as readable text: "141 GB", "16 GiB"."""
    return format_quantity(count, Dimension.BYTES)


def format_time_fs(time_fs: int | float, digits: int = 3) -> str:
    """Femtoseconds as readable text: "12.3 ms"."""
    return format_quantity(Fraction(time_fs) / 10**15 if math.isfinite(time_fs) else time_fs, Dimension.TIME, digits)


def format_energy_pj(energy_pj: int | float, digits: int = 3) -> str:
    """Picojoules as readable text: "1.25 mJ"."""
    joules = Fraction(energy_pj) / 10**12 if math.isfinite(energy_pj) else energy_pj
    return format_quantity(joules, Dimension.ENERGY, digits)


def exact_quantity(value: Fraction | int, dimension: Dimension | str) -> str:
    """A value in SI base units as the shortest text that parses back to exactly the same value.

    Raises UserError if no decimal number writes it (1/3 s).
    """
    units = units_of(Dimension(dimension))
    base = _GRAMMAR[Dimension(dimension)][0]
    candidates = [base, *(unit for unit in units if unit.endswith(base) and "OP" not in unit.removesuffix(base))]
    written = [(_decimal_text(Fraction(value) / units[unit]), unit) for unit in candidates if unit in units]
    texts = [f"{number} {unit}" for number, unit in written if number is not None]
    if not texts:
        raise UserError(f"{value} has no exact decimal form in {base}")
    return min(texts, key=len)


@cache
def _ladder(dimension: Dimension) -> tuple[str, ...]:
    return _GRAMMAR[dimension][1]


def _whole_binary(value: Fraction, base: str) -> str | None:
    """The value in the largest binary unit that holds it in at most four digits, if the decimal form has more."""
    if value.denominator != 1 or value.numerator % 1024:
        return None
    for prefix, scale in reversed(_BINARY.items()):
        if abs(value) >= scale:
            quotient = value / scale
            text = _decimal_text(quotient)
            short = text is not None and len(text.lstrip("-").replace(".", "")) <= 4
            return f"{text} {prefix}{base}" if short else None
    return None


def _round(value: Fraction, digits: int) -> Decimal:
    context = Context(prec=digits, rounding=ROUND_HALF_EVEN)
    # Dividing integers in a context of that precision rounds once, from the exact value.
    return context.divide(Decimal(value.numerator), Decimal(value.denominator))


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _decimal_text(value: Fraction) -> str | None:
    """The exact decimal digits of a fraction, or None if they never end (or run past 40 places)."""
    for places in range(41):
        scaled = value * 10**places
        if scaled.denominator == 1:
            digits = str(abs(scaled.numerator)).rjust(places + 1, "0")
            whole, part = (digits[:-places], digits[-places:]) if places else (digits, "")
            return ("-" if value < 0 else "") + whole + (f".{part}" if part else "")
    return None

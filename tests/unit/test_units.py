"""The parser is exact, its errors help, and what the formatter writes reads back."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from archsim.config.dimensions import units_of
from archsim.config.errors import UserError
from archsim.config.units import (
    BitsPerSecond,
    ByteCount,
    BytesPerSecond,
    Dimension,
    FlopPerSecond,
    Fraction01,
    FrequencyHz,
    PicojoulePerBit,
    PicojoulePerByte,
    Picojoules,
    PositiveFloat,
    PositiveInt,
    QuantityError,
    TimeFs,
    Timing,
    TimingNsOrClocks,
    Watts,
    exact_quantity,
    format_energy_pj,
    format_quantity,
    format_time_fs,
    parse_quantity,
)

dimensions = st.sampled_from(list(Dimension))
decimals = st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False, places=6)


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("3.35 TB/s", "bytes/s", 3_350_000_000_000),
        ("16 GiB", "bytes", 16 * 2**30),
        ("16 GB", "bytes", 16 * 10**9),
        ("4kB", "bytes", 4000),
        ("5 us", "time", Fraction(5, 10**6)),
        ("5 µs", "time", Fraction(5, 10**6)),
        ("1 h", "time", 3600),
        ("6.4 Gb/s", "bits/s", 6_400_000_000),
        ("989.4 TFLOP/s", "flop/s", 989_400_000_000_000),
        ("1979 TOP/s", "flop/s", 1_979_000_000_000_000),
        ("700 W", "power", 700),
        ("0.909 nJ", "energy", Fraction(909, 10**12)),
        ("3.9 pJ/b", "energy/bit", Fraction(39, 10**13)),
        ("31.2 pJ/B", "energy/byte", Fraction(312, 10**13)),
        ("1.6 GHz", "frequency", 1_600_000_000),
        ("1e3 B", "bytes", 1000),
        (".5 GB", "bytes", 500_000_000),
        ("0 s", "time", 0),
    ],
)
def test_reads_exactly(text: str, dimension: str, value: Fraction | int) -> None:
    assert parse_quantity(text, dimension) == value


@pytest.mark.parametrize(
    ("text", "dimension", "says", "nearest"),
    [
        ("5", "time", "'5' has no unit", None),
        ("16 GBs", "bytes", "unknown unit 'GBs'", "GB"),
        ("3 TBps", "bytes/s", "unknown unit 'TBps'", "TB/s"),
        ("6 gb/s", "bits/s", "unknown unit 'gb/s'", "Gb/s"),
        ("4 KB", "bytes", "unknown unit 'KB'", "kB"),
        ("100 TFLOPS", "flop/s", "unknown unit 'TFLOPS'", "TFLOP/s"),
        ("100 TOPS", "flop/s", "unknown unit 'TOPS'", "TOP/s"),
        ("6400 MT/s", "bits/s", "unknown unit 'MT/s'", "Mb/s"),
        ("3 pJ/bit", "energy/bit", "unknown unit 'pJ/bit'", "pJ/b"),
        ("16 GB", "time", "'16 GB' is a size in bytes", None),
        ("6.4 GB/s", "bits/s", "'6.4 GB/s' is a bandwidth in bytes per second", None),
        ("16 Gb", "bytes", "'16 Gb' is a size in bits", None),
        ("1,000 GB", "bytes", "a separator inside the number", None),
        ("nan us", "time", "not a finite number", None),
        ("-inf GB", "bytes", "not a finite number", None),
        (".nan", "bytes", "not a finite number", None),
        ("-5 us", "time", "is negative", None),
        ("fast", "time", "got 'fast'", None),
        ("", "time", "got ''", None),
        ("1.2.3 GB", "bytes", "got '1.2.3 GB'", None),
    ],
)
def test_says_what_is_wrong(text: str, dimension: str, says: str, nearest: str | None) -> None:
    with pytest.raises(QuantityError) as caught:
        parse_quantity(text, dimension)
    assert says in str(caught.value)
    assert caught.value.nearest == nearest
    assert caught.value.expected is not None and "such as" in caught.value.expected


def test_zero_can_be_refused() -> None:
    with pytest.raises(QuantityError, match="'0 B' is zero"):
        parse_quantity("0 B", "bytes", allow_zero=False)


@given(dimensions, decimals, st.data())
def test_number_times_unit_is_exact(dimension: Dimension, number: object, data: st.DataObject) -> None:
    unit, scale = data.draw(st.sampled_from(list(units_of(dimension).items())))
    assert parse_quantity(f"{number:f} {unit}", dimension) == Fraction(str(number)) * scale


@given(dimensions, decimals)
def test_exact_text_reads_back_to_the_same_value(dimension: Dimension, number: object) -> None:
    value = Fraction(str(number))
    assert parse_quantity(exact_quantity(value, dimension), dimension) == value


@given(dimensions, st.fractions(min_value=Fraction(1, 10**15), max_value=10**18), st.integers(2, 6))
def test_formatted_text_reads_back_within_its_digits(dimension: Dimension, value: Fraction, digits: int) -> None:
    text = format_quantity(value, dimension, digits)
    assert abs(parse_quantity(text, dimension) - value) <= value * Fraction(5, 10**digits)
    assert format_quantity(parse_quantity(text, dimension), dimension, digits) == text


@given(st.text(max_size=20), dimensions)
def test_any_text_is_read_or_refused_in_words(text: str, dimension: Dimension) -> None:
    try:
        assert parse_quantity(text, dimension) >= 0
    except UserError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (4.2567e12, "bytes/s", "4.26 TB/s"),
        (Fraction(123, 10**4), "time", "12.3 ms"),
        (3.1e-12, "energy/bit", "3.1 pJ/b"),
        (16 * 2**30, "bytes", "16 GiB"),
        (80 * 10**9, "bytes", "80 GB"),
        (17_180_000_000, "bytes", "17.2 GB"),
        (999.96e-9, "time", "1 us"),
        (-2e-3, "time", "-2 ms"),
        (1234, "time", "1234 s"),
        (0, "power", "0 W"),
        (math.inf, "time", "inf s"),
    ],
)
def test_formats_for_reading(value: float | Fraction, dimension: str, text: str) -> None:
    assert format_quantity(value, dimension) == text


def test_formats_the_units_of_records() -> None:
    assert format_time_fs(12_345_000_000_000) == "12.3 ms"
    assert format_energy_pj(1_250_000_000) == "1.25 mJ"


@pytest.mark.parametrize(
    ("annotation", "written", "value"),
    [
        (ByteCount, "16 GiB", 2**34),
        (TimeFs, "0.5 ns", 500_000),
        (TimeFs, "0 s", 0),
        (FrequencyHz, "1.6 GHz", 1_600_000_000),
        (BytesPerSecond, "3.35 TB/s", 3_350_000_000_000),
        (BitsPerSecond, "6.4 Gb/s", 6_400_000_000),
        (FlopPerSecond, "989.4 TFLOP/s", 989_400_000_000_000),
        (Watts, "700 W", 700.0),
        (Picojoules, "0.909 nJ", 909.0),
        (PicojoulePerBit, "3.9 pJ/b", 3.9),
        (PicojoulePerByte, "31.2 pJ/B", 31.2),
        (PositiveInt, 8, 8),
        (PositiveFloat, 1.5, 1.5),
        (PositiveFloat, 2, 2.0),
        (Fraction01, 0.87, 0.87),
        (Fraction01, "87%", 0.87),
        (Fraction01, 1, 1.0),
        (TimingNsOrClocks, "14 ns", Timing(ns=Fraction(14))),
        (TimingNsOrClocks, "2 nCK", Timing(clocks=2)),
    ],
)
def test_types_read_and_write(annotation: Any, written: object, value: object) -> None:
    adapter: TypeAdapter[object] = TypeAdapter(annotation)
    read = adapter.validate_python(written)
    assert read == value and type(read) is type(value)
    assert adapter.validate_python(adapter.dump_python(read, mode="json")) == value


@pytest.mark.parametrize(
    ("annotation", "written"),
    [
        (ByteCount, 16),
        (ByteCount, "0 B"),
        (ByteCount, "0.5 B"),
        (ByteCount, True),
        (TimeFs, "0.5 fs"),
        (TimeFs, 0),
        (Watts, 700.0),
        (Picojoules, "0 J"),
        (Picojoules, "1e999 J"),
        (Picojoules, "1e-999 J"),
        (PositiveInt, 0),
        (PositiveInt, True),
        (PositiveInt, "8"),
        (PositiveInt, 8.0),
        (PositiveFloat, math.nan),
        (PositiveFloat, 0),
        (Fraction01, 0),
        (Fraction01, 1.01),
        (Fraction01, "101%"),
        (Fraction01, math.nan),
        (Fraction01, True),
        (TimingNsOrClocks, 14),
        (TimingNsOrClocks, "1.5 nCK"),
        (TimingNsOrClocks, "-1 ns"),
    ],
)
def test_types_refuse(annotation: Any, written: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(annotation).validate_python(written)


@given(st.integers(1, 10**7), st.integers(1, 10**7))
def test_timing_takes_the_fewest_clocks_that_cover_it(ps: int, clock_fs: int) -> None:
    clocks = Timing(ns=Fraction(ps, 1000)).to_clocks(Fraction(clock_fs))
    assert clocks * clock_fs >= ps * 1000 > (clocks - 1) * clock_fs


def test_timing_on_a_rational_clock_is_exact() -> None:
    clock_fs = Fraction(10**6) / Fraction(13, 10)  # 1.3 GHz
    assert Timing(ns=Fraction(10)).to_clocks(clock_fs) == 13
    assert Timing(clocks=4).to_clocks(clock_fs) == 4

"""Knuth's generators against the values that he published, and against the recurrences."""

from __future__ import annotations

from itertools import islice

import pytest

from archsim.fabric.knuth import fractions, integers

KNUTH_S_SEED, FIRST_OF_THE_LAST_BLOCK = 310952, 2009 * 100


def test_the_published_integer() -> None:
    """TAOCP 3.6: after `ran_start(310952)`, the first number of the 2010th block of 1009."""
    assert next(islice(integers(KNUTH_S_SEED), FIRST_OF_THE_LAST_BLOCK, None)) == 995235265


def test_the_published_fraction() -> None:
    """TAOCP 3.6: after `ranf_start(310952)`, likewise."""
    assert f"{next(islice(fractions(KNUTH_S_SEED), FIRST_OF_THE_LAST_BLOCK, None)):.20f}" == "0.36410514377569680455"


@pytest.mark.parametrize("seed", [0, 1, 2**30 - 3, 2**30 - 1])
def test_streams_stay_in_range_and_differ(seed: int) -> None:
    whole, parts = list(islice(integers(seed), 500)), list(islice(fractions(seed), 500))
    assert all(0 <= number < 2**30 for number in whole) and all(0 <= part < 1 for part in parts)
    assert len(set(whole)) > 490 and len(set(parts)) > 490
    assert whole != list(islice(integers(seed + 1), 500))


def test_seeds_wrap_at_30_bits() -> None:
    assert next(integers(5)) == next(integers(5 + 2**30))
    assert next(fractions(5)) == next(fractions(5 + 2**30))

"""Knuth's portable random numbers, which BookSim draws from: the same seed gives the same numbers here as there.

D. E. Knuth, The Art of Computer Programming, volume 2, third edition (printing of 2002 and later), section 3.6 and
exercises 3.6-8 and 3.6-9, where the two generators are called `ran_array` and `ranf_array`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_LONG_LAG, _SHORT_LAG = 100, 37
_BLOCK = 1009
"""Of so many numbers only the first `_LONG_LAG` are used ("quality level")."""
_SQUARINGS = 69
"""Each doubles the distance between the streams of two seeds."""
_WARM_UP = 10 * (2 * _LONG_LAG - 1)
_SEED_BITS = 30


def integers(seed: int) -> Iterator[int]:
    """Uniform on 0 to 2^30 - 1: X(n) = X(n-100) - X(n-37) mod 2^30."""
    return _numbers(seed, (seed + 2) % (1 << 30) & ~1, bits=30, sign=-1)


def fractions(seed: int) -> Iterator[float]:
    """Uniform on [0, 1), in steps of 2^-52: U(n) = U(n-100) + U(n-37) mod 1."""
    for number in _numbers(seed, 2 * (seed % (1 << _SEED_BITS) + 2), bits=52, sign=+1):
        yield number / (1 << 52)


def _numbers(seed: int, first: int, bits: int, sign: int) -> Iterator[int]:
    """Whole numbers mod 2^bits; `first` and its cyclic shifts are what the stream is started from."""
    last = np.array(_start(seed % (1 << _SEED_BITS), first, 1 << bits, sign), np.int64)
    last = _continued(last, _WARM_UP, bits, sign)[-_LONG_LAG:]
    while True:
        yield from last.tolist()
        last = _continued(last, _BLOCK, bits, sign)[-_LONG_LAG:]


def _continued(last: NDArray[np.int64], count: int, bits: int, sign: int) -> NDArray[np.int64]:
    """The numbers `last` and `count` more behind them."""
    numbers = np.concatenate([last, np.empty(count, np.int64)])
    for at in range(_LONG_LAG, len(numbers), _SHORT_LAG):  # none of these depends on another one of them
        after = min(at + _SHORT_LAG, len(numbers))
        width = after - at
        late = numbers[at - _SHORT_LAG : at - _SHORT_LAG + width]
        numbers[at:after] = (numbers[at - _LONG_LAG : after - _LONG_LAG] + sign * late) & ((1 << bits) - 1)
    return numbers


def _start(seed: int, first: int, modulus: int, sign: int) -> list[int]:
    """The first 100 numbers of a stream: the polynomial that they are coefficients of goes through the seed's bits."""
    polynomial = []
    for _ in range(_LONG_LAG):
        polynomial.append(first)
        first *= 2
        if first >= modulus:
            first -= modulus - 2
    polynomial[1] += 1  # the only odd one
    for bit in [*map(int, reversed(f"{seed:b}" if seed else "")), *[0] * _SQUARINGS]:
        polynomial = _squared(polynomial, modulus, sign)
        if bit:
            polynomial = _times_z(polynomial, modulus, sign)
    return polynomial[_SHORT_LAG:] + polynomial[:_SHORT_LAG]


def _squared(polynomial: list[int], modulus: int, sign: int) -> list[int]:
    """z goes to z^2; then powers from z^100 on are replaced by the recurrence."""
    spread = [0] * (2 * _LONG_LAG - 1)
    spread[::2] = polynomial
    for power in range(2 * _LONG_LAG - 2, _LONG_LAG - 1, -1):
        for lower in (power - _LONG_LAG + _SHORT_LAG, power - _LONG_LAG):
            spread[lower] = (spread[lower] + sign * spread[power]) % modulus
    return spread[:_LONG_LAG]


def _times_z(polynomial: list[int], modulus: int, sign: int) -> list[int]:
    *rest, highest = polynomial
    shifted = [highest, *rest]
    shifted[_SHORT_LAG] = (shifted[_SHORT_LAG] + sign * highest) % modulus
    return shifted

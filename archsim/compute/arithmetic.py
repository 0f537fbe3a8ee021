"""Exact integer arithmetic that the compute models share."""

from __future__ import annotations

from collections.abc import Callable

FS_PER_SECOND = 10**15


def ceil_div(numerator: int, denominator: int) -> int:
    """The smallest integer >= numerator / denominator, exactly."""
    return -(-numerator // denominator)


def transfer_fs(moved_bytes: int, bytes_per_second: int) -> int:
    """Femtoseconds, rounded up, to move `moved_bytes` at a rate."""
    return ceil_div(moved_bytes * FS_PER_SECOND, bytes_per_second)


def most_that_fits(fits: Callable[[int], bool]) -> int:
    """The largest whole number that fits, if all below it do; 0 if 1 doesn't."""
    if not fits(1):
        return 0
    least, most = 1, 2
    while fits(most):
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return least

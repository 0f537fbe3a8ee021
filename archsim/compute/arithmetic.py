"""Exact integer arithmetic that the compute models share."""

from __future__ import annotations

FS_PER_SECOND = 10**15


def ceil_div(numerator: int, denominator: int) -> int:
    """The smallest integer >= numerator / denominator, exactly."""
    return -(-numerator // denominator)


def transfer_fs(moved_bytes: int, bytes_per_second: int) -> int:
    """Femtoseconds, rounded up, to move `moved_bytes` at a rate."""
    return ceil_div(moved_bytes * FS_PER_SECOND, bytes_per_second)

"""A histogram of latencies that takes any number of them: exact up to 32768 ticks, within 1/16384 beyond."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EXACT_BITS = 15
_STEPS = 1 << (EXACT_BITS - 1)  # buckets per power of two beyond


class Latencies:
    """Latencies in ticks: their number, exact sum and maximum, and quantiles."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.maximum = 0
        self._buckets = np.zeros(0, np.int64)

    @property
    def mean(self) -> float:
        """Mean in ticks; 0 if there are none."""
        return self.total / self.count if self.count else 0.0

    def add(self, ticks: NDArray[np.int64]) -> None:
        """Count latencies (not negative)."""
        if not len(ticks):
            return
        self.count += len(ticks)
        self.total += int(ticks.sum())
        self.maximum = max(self.maximum, int(ticks.max()))
        # frexp is exact here: latencies stay far below 2^53.
        shift = np.maximum(np.frexp(ticks.astype(np.float64))[1] - EXACT_BITS, 0).astype(np.int64)
        self._add_buckets(np.bincount(shift * _STEPS + (ticks >> shift)))

    def merge(self, other: Latencies) -> None:
        """Count another histogram's latencies too."""
        self.count += other.count
        self.total += other.total
        self.maximum = max(self.maximum, other.maximum)
        self._add_buckets(other._buckets)

    def quantile(self, share: float) -> int:
        """The smallest latency in ticks that at least `share` of all don't exceed; 0 if there are none."""
        if self.count == 0:
            return 0
        needed = max(int(np.ceil(share * self.count - 1e-9)), 1)
        bucket = int(np.searchsorted(np.cumsum(self._buckets), needed))
        if bucket < 2 * _STEPS:
            return bucket
        shift = bucket // _STEPS - 1
        top = ((bucket - shift * _STEPS + 1) << shift) - 1  # the largest latency of the bucket
        return min(top, self.maximum)

    def _add_buckets(self, buckets: NDArray[np.int64]) -> None:
        if len(buckets) > len(self._buckets):
            buckets, self._buckets = self._buckets, buckets.astype(np.int64)
        self._buckets[: len(buckets)] += buckets

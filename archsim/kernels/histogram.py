"""A log-linear histogram of latencies: eight buckets to each power of two, none wider than 1/8 of its value.

Latencies below 16 ticks have a bucket each. The last bucket also takes what is longer than all of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from archsim.kernels.jit import inlined

SUB_BUCKETS = 8
BUCKETS = 256
"""Words of one histogram: exact up to 2^34 ticks, five seconds of HBM3."""


@inlined
def bucket_of(latency):  # type: ignore[no-untyped-def]
    """Index of the bucket of a latency in ticks."""
    shift = 0
    while latency >> shift >= 2 * SUB_BUCKETS:
        shift += 1
    return min(SUB_BUCKETS * shift + (latency >> shift), BUCKETS - 1)


def bucket_floor(index: int) -> int:
    """The smallest latency, in ticks, that falls into a bucket."""
    shift = max(index // SUB_BUCKETS - 1, 0)
    return (index - SUB_BUCKETS * shift) << shift


def quantile_bounds(histogram: NDArray[np.int64], fraction: float) -> tuple[int, int]:
    """The bucket [from, to) in ticks in which the `fraction` quantile lies. Raises ValueError if nothing was counted
    or `fraction` is not in (0, 1]."""
    total = int(histogram.sum())
    if total == 0 or not 0 < fraction <= 1:
        raise ValueError(f"no {fraction} quantile of {total} latencies")
    rank = int(np.ceil(fraction * total))
    index = int(np.searchsorted(np.cumsum(histogram), rank))
    return bucket_floor(index), bucket_floor(index + 1)

"""The tables of the memo: forms, and the period from each to the next (see memo.py)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from archsim.kernels.canonical import FORM_LENGTH
from archsim.kernels.channel import HISTOGRAM, MAX_BANKS, MAX_PCS
from archsim.kernels.histogram import BUCKETS
from archsim.kernels.jit import inlined
from archsim.kernels.special import front_policies
from archsim.kernels.timing import COUNT_WORDS, DramTiming

# Words of a recorded period.
DT = 0
FINISHED = 1
TO = 2
FIRST_PAIR = 3  # where its latencies lie in `Memo.latencies`
PAIRS = 4
FAWS = 5  # [p]
COUNT_DELTAS = FAWS + MAX_PCS  # [count]
OPEN_ROWS = COUNT_DELTAS + COUNT_WORDS  # [p, bank] its open row: UNCHANGED, SHUT, or which one was opened
STREAM_DELTAS = OPEN_ROWS + MAX_PCS * MAX_BANKS  # streams active at the start; for each next[p], issued[p]; jobs
PERIOD_LENGTH = STREAM_DELTAS + 128
HISTOGRAM_BEFORE = PERIOD_LENGTH  # [w, bucket] in the scratch alone, while a period is recorded

UNCHANGED = -2
SHUT = -1
TYPICAL_PAIRS = 64
"""Words of the histogram that a period changes: room for so many per form (at most 512 for one of them)."""
ROW_SPAN = 1 << 20  # an opened row: `stream's position among the active * ROW_SPAN + rows ahead of it at the start`

USED_WORDS = 0
USED_FORMS = 1
USED_PAIRS = 2


class Memo(NamedTuple):
    """Tables of the memo, all bounded; when one is full, everything is forgotten and learnt anew."""

    table: np.ndarray  # int64[2^k], hash slot -> form id or -1
    forms: np.ndarray  # int32[words], forms one after the other
    start: np.ndarray  # int64[n], where a form begins
    length: np.ndarray  # int64[n]
    digest: np.ndarray  # int64[n]
    period: np.ndarray  # int64[n, PERIOD_LENGTH], what happens from this form on; TO = -1 if not known yet
    latencies: np.ndarray  # int32[pairs, 2], for each period: (word of the histogram, what it grows by)
    used: np.ndarray  # int64[3]
    scratch: np.ndarray  # int64[2 * FORM_LENGTH]


def new_memo(budget_bytes: int = 1 << 30, *, latency_histogram: bool = False) -> Memo:
    """An empty memo of at most about `budget_bytes`, with room for histograms of latencies if they are kept."""
    pairs = TYPICAL_PAIRS if latency_histogram else 0
    n = max(64, budget_bytes // (PERIOD_LENGTH * 8 + 4 * 700 + 8 * pairs))
    slots = 1 << (2 * n - 1).bit_length()
    memo = Memo(
        table=np.full(slots, -1, np.int64),
        forms=np.zeros(n * 700 + FORM_LENGTH, np.int32),
        start=np.zeros(n, np.int64),
        length=np.zeros(n, np.int64),
        digest=np.zeros(n, np.int64),
        period=np.zeros((n, PERIOD_LENGTH), np.int64),
        latencies=np.zeros((n * pairs, 2), np.int32),
        used=np.zeros(3, np.int64),
        scratch=np.zeros(2 * FORM_LENGTH, np.int64),
    )
    return memo


@inlined
def forget(memo):  # type: ignore[no-untyped-def]
    """Empty the tables, because one of them is full."""
    memo.table[:] = -1
    memo.used[:] = 0


@inlined
def keeps_histogram(q: DramTiming):  # type: ignore[no-untyped-def]
    return front_policies(q) and q.latency_histogram != 0


@inlined
def note_histogram(st, q: DramTiming, deltas):  # type: ignore[no-untyped-def]
    """Remember the histogram of latencies at the start of a period."""
    if keeps_histogram(q):
        for k in range(2 * BUCKETS):
            deltas[HISTOGRAM_BEFORE + k] = st[HISTOGRAM + k]


@inlined
def record_histogram(st, q: DramTiming, memo, deltas):  # type: ignore[no-untyped-def]
    """Note what the histogram has grown by since `note_histogram`. False if there was no room: all is forgotten."""
    if not keeps_histogram(q):
        return True
    first = memo.used[USED_PAIRS]
    n = first
    for k in range(2 * BUCKETS):
        grown = st[HISTOGRAM + k] - deltas[HISTOGRAM_BEFORE + k]
        if grown != 0:
            if n >= memo.latencies.shape[0]:
                forget(memo)
                return False
            memo.latencies[n, 0] = k
            memo.latencies[n, 1] = grown
            n += 1
    deltas[FIRST_PAIR] = first
    deltas[PAIRS] = n - first
    memo.used[USED_PAIRS] = n
    return True


@inlined
def add_histogram(st, q: DramTiming, memo, period):  # type: ignore[no-untyped-def]
    """Let the histogram grow by what a recorded period adds."""
    if keeps_histogram(q):
        for n in range(period[FIRST_PAIR], period[FIRST_PAIR] + period[PAIRS]):
            st[HISTOGRAM + memo.latencies[n, 0]] += memo.latencies[n, 1]

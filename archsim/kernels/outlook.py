"""The outlook of a channel: what is left to do and which open rows can still be hit, as far as the next checkpoint.

The memo recomputes and compares it at every step, because it depends on the absolute progress of streams and jobs. The
rest of the canonical form is in canonical.py.
"""

from __future__ import annotations

from archsim.kernels.channel import (
    ACTIVE,
    ACTIVE_STREAMS,
    ENTRY_NEXT,
    ENTRY_ROW,
    ENTRY_STREAM,
    HEAD,
    JOB,
    JOB_ACTIVE,
    JOB_FIELDS,
    JOB_STARTED,
    JOB_TILES,
    LIST_END,
    MAX_BANKS,
    MAX_JOBS,
    OPEN_ROW,
    STREAM_BASE,
    STREAM_NEXT,
    STREAM_TOTAL,
    STREAM_TRACE,
    pseudo_channel,
)
from archsim.kernels.jit import inlined
from archsim.kernels.timing import DramTiming

ROWS_BEHIND = 2
"""Rows behind a stream's next request in which its queued requests may lie; a state with older ones has no form."""


@inlined
def reach(q: DramTiming):  # type: ignore[no-untyped-def]
    """More bursts than a pseudo-channel can admit between two checkpoints (a recorded period is checked against it)."""
    interval = 0
    if q.refresh_mode == 1:
        interval = q.tREFI
    elif q.refresh_mode == 2:
        interval = q.tREFIpb * q.stack_ids * q.bank_groups * q.banks_per_group
    elif q.refresh_mode == 3:
        interval = q.tREFIsb * q.stack_ids * q.banks_per_group
    return interval // q.tCCDS + 2 * (q.read_queue + q.write_queue) + 4 * q.columns * q.bank_groups * q.banks_per_group


@inlined
def rows_ahead(q: DramTiming):  # type: ignore[no-untyped-def]
    """Rows that a stream can reach before the next checkpoint."""
    return reach(q) // (q.stack_ids * q.bank_groups * q.banks_per_group * q.columns) + 2


@inlined
def stream_row(state, q: DramTiming, s, p):  # type: ignore[no-untyped-def]
    """Row of a sequential stream's next request."""
    pc = pseudo_channel(state, p)
    row_set = q.stack_ids * q.bank_groups * q.banks_per_group * q.columns
    return (pc[STREAM_BASE + s] + pc[STREAM_NEXT + s]) // row_set


@inlined
def streams_apart(state, q: DramTiming):  # type: ignore[no-untyped-def]
    """Whether no two active streams can come to the same rows before the next checkpoint."""
    for k in range(state[ACTIVE_STREAMS]):
        for other in range(k):
            for p in range(q.pseudo_channels):
                apart = stream_row(state, q, state[ACTIVE + k], p) - stream_row(state, q, state[ACTIVE + other], p)
                if abs(apart) <= 2 * (rows_ahead(q) + ROWS_BEHIND):
                    return False
    return True


@inlined
def has_form(state, q: DramTiming):  # type: ignore[no-untyped-def]
    """Whether the state can be written: only sequential streams, apart, and no request left far behind."""
    for k in range(state[ACTIVE_STREAMS]):
        if state[STREAM_TRACE + state[ACTIVE + k]] != 0:
            return False
    if not streams_apart(state, q):
        return False
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
    for p in range(q.pseudo_channels):
        pc = pseudo_channel(state, p)
        for w in range(2):
            first = w * MAX_BANKS
            for o in range(first, first + banks):
                entry = pc[HEAD + o]
                while entry < LIST_END:
                    if pc[ENTRY_ROW + entry] < stream_row(state, q, pc[ENTRY_STREAM + entry], p) - ROWS_BEHIND:
                        return False
                    entry = pc[ENTRY_NEXT + entry]
    return True


@inlined
def row_code(state, q: DramTiming, p, row):  # type: ignore[no-untyped-def]
    """An open row relative to the active stream that can still hit it; 1 if none can, 0 if the bank is closed."""
    if row < 0:
        return 0
    span = rows_ahead(q) + ROWS_BEHIND + 1
    for k in range(state[ACTIVE_STREAMS]):
        place = row - stream_row(state, q, state[ACTIVE + k], p) + ROWS_BEHIND
        if 0 <= place < span:
            return 2 + k * span + place
    return 1


@inlined
def write_outlook(state, q: DramTiming, form, n):  # type: ignore[no-untyped-def]
    """What is left of each active stream and job, clipped at more than can happen before the next checkpoint, and what
    each bank's open row is to the streams."""
    limit = reach(q)
    for k in range(state[ACTIVE_STREAMS]):
        for p in range(q.pseudo_channels):
            pc = pseudo_channel(state, p)
            s = state[ACTIVE + k]
            form[n] = min(limit, pc[STREAM_TOTAL + s] - pc[STREAM_NEXT + s])
            n += 1
    for job in range(MAX_JOBS):
        j = JOB + job * JOB_FIELDS
        if state[j + JOB_ACTIVE] != 0:
            form[n] = min(limit, state[j + JOB_TILES] - state[j + JOB_STARTED])
            n += 1
    for p in range(q.pseudo_channels):
        pc = pseudo_channel(state, p)
        for bank in range(q.stack_ids * q.bank_groups * q.banks_per_group):
            form[n] = row_code(state, q, p, pc[OPEN_ROW + bank])
            n += 1
    return n

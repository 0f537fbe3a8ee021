"""Changes of a channel's state from outside between events: opening a job's gate, setting the clock back."""

from __future__ import annotations

from archsim.kernels.channel import (
    ACT_OK,
    ADMIT_AT,
    BUS_OK,
    CLOSED,
    COLUMN_BUS_FREE,
    COLUMN_DIRTY,
    COLUMN_OK,
    DUE,
    EMPTY_SINCE,
    FAW,
    FAW_NEXT,
    HIT_KEY,
    JOB,
    JOB_DATA,
    JOB_FIELDS,
    JOB_GATE,
    JOB_LAST_DATA,
    JOB_READY,
    JOB_TILE_END,
    LAST_WRITE,
    MAX_JOBS,
    MAX_PCS,
    NEVER,
    NOW,
    PC_WORDS,
    POWER,
    PRE_ANY_OK,
    REFRESH_BEGIN,
    REFRESH_FOLDED,
    REFRESHING,
    ROW_BUS_FREE,
    ROW_DIRTY,
    RRD_OK,
    SLOT_END,
    TILE_EVENT,
    UNUSED_AT,
    WRITE_MODE,
    pseudo_channel,
)
from archsim.kernels.jit import inlined
from archsim.kernels.timing import DramTiming

assert RRD_OK < PRE_ANY_OK < WRITE_MODE and DUE < REFRESHING and REFRESH_BEGIN < REFRESH_FOLDED  # ranges below


@inlined
def open_gate(state, q: DramTiming, job):  # type: ignore[no-untyped-def]
    """Let a job's tiles start from now on; its streams may have been prefetching."""
    j = JOB + job * JOB_FIELDS
    state[j + JOB_GATE] = state[NOW]
    if state[j + JOB_TILE_END] >= NEVER and state[j + JOB_READY] < NEVER:
        state[TILE_EVENT] = min(state[TILE_EVENT], max(state[j + JOB_READY], state[NOW]))


@inlined
def shift_clock(state, q: DramTiming, shift):  # type: ignore[no-untyped-def]
    """Set the clock back by `shift` ticks (a multiple of ticks_per_ck); nothing else changes."""
    for register in (NOW, COLUMN_BUS_FREE, ROW_BUS_FREE, TILE_EVENT):
        _shift(state, register, register + 1, shift)
    for job in range(MAX_JOBS):
        for field in (JOB_TILE_END, JOB_READY, JOB_GATE, JOB_LAST_DATA, JOB_DATA):
            _shift(state, JOB + job * JOB_FIELDS + field, JOB + job * JOB_FIELDS + field + 1, shift)
    for p in range(MAX_PCS):
        pc = pseudo_channel(state, p)
        _shift(pc, ACT_OK, CLOSED, shift)
        _shift(pc, COLUMN_OK, HIT_KEY, shift)
        _shift(pc, BUS_OK, FAW, shift)
        _shift(pc, FAW, FAW_NEXT, shift)
        _shift(pc, RRD_OK, WRITE_MODE, shift)
        _shift(pc, DUE, REFRESHING, shift)
        _shift(pc, REFRESH_BEGIN, REFRESH_FOLDED, shift)
        _shift(pc, SLOT_END, LAST_WRITE, shift)
        _shift(pc, ADMIT_AT, ADMIT_AT + 1, shift)
        _shift(pc, EMPTY_SINCE, POWER, shift)
        _shift(pc, UNUSED_AT, PC_WORDS, shift)  # and what entries starve and count from
        pc[COLUMN_DIRTY] = 1
        pc[ROW_DIRTY] = 1


@inlined
def _shift(state, first, after, shift):  # type: ignore[no-untyped-def]
    for k in range(first, after):
        if state[k] < NEVER:
            state[k] -= shift

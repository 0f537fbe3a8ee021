"""Exact fast-forward of flash streams: a state met again, up to where clocks and streams stand, is a period.

Brent's method keeps one form and compares each later one with it word for word; the form kept is renewed at doubling
distances, so that any period is found after at most three of its length. What may be shifted, and when, is in
docs/flash_policy.md, "Fast-forward".
"""

from __future__ import annotations

import numpy as np

from archsim.kernels.flash import run_flash
from archsim.kernels.flash_state import (
    ACTIVE,
    ADMIT_DIRTY,
    AGE,
    ARRIVAL,
    BUFFER,
    BUFFER_AGE,
    BUFFER_ENTRY,
    BUFFER_PAGE,
    BUFFER_PENDING,
    BUFFER_SERIAL,
    BUFFER_STATE,
    BUS_BUFFER,
    BUS_END,
    BUS_ENTRY,
    BUS_PLANE,
    CHAIN,
    COMMAND_FREE,
    COUNT_WORDS,
    COUNTS,
    DELIVERY_HEAD,
    DONE,
    FINISHED,
    FIRST,
    GROUP_END,
    HEAD,
    HELD,
    JOB_OPEN,
    JUMPED,
    KEY,
    KIND,
    LINE_NEXT,
    LINK_FREE,
    LOADED,
    LOG_CAPACITY,
    MAX_BUFFERS,
    MAX_PLANES,
    MAX_STREAMS,
    NEVER,
    NEXT,
    NEXT_AGE,
    NO_KEY,
    NOW,
    PAGE,
    PLANE,
    PLANE_SENSES,
    PROGRAMMING,
    READY,
    ROUND,
    SENSING,
    SIZE,
    STAGED,
    STREAM,
    STREAM_BASE,
    STREAM_JOB,
    STREAM_KIND,
    STREAM_LIMIT,
    STREAM_NEXT,
    STREAM_OPEN,
    STREAM_SERIAL,
    STREAM_SIZE,
    STREAM_TOTAL,
    TRACE,
    TRANSFER_HEAD,
    TURN,
    USED,
    WRITE_BUFFER,
    FlashTiming,
)
from archsim.kernels.jit import inlined, kernel, pointer, shifted

ENTRY_WORDS = 9
MOST_FORMS = 1 << 14
"""Rounds after which no period is looked for any more, until a job finishes."""


def new_scratch(q: FlashTiming) -> np.ndarray:
    """int64[...], what `advance_flash_streams` works in, of a device with this timing. It is allocated once: a call is
    short, and fresh pages of memory would cost more than all else."""
    return np.zeros(2 * _form_words(q) + 2 + COUNT_WORDS + MAX_PLANES + MAX_STREAMS, np.int64)


@kernel
def _form_words(q):  # type: ignore[no-untyped-def]
    """How long a form may be."""
    return 32 + 4 * MAX_STREAMS + q.planes * (5 + 8 * MAX_BUFFERS) + (ENTRY_WORDS + 2) * 2 * q.queue


@kernel
def advance_flash_streams(state, q, stripes, scratch, until):  # type: ignore[no-untyped-def]
    """`advance_flash` without traces and logs, skipping whole periods of streams: the same result.

    Args:
        state, q, stripes, until: as in `advance_flash`.
        scratch: of `new_scratch`; what it holds doesn't matter.
    """
    state[LOG_CAPACITY] = 0
    table = stripes.plane_of.shape[0]
    kept = pointer(scratch)
    form = shifted(kept, _form_words(q))
    marks = shifted(form, _form_words(q))
    nothing = np.zeros(1, np.int64)
    kept_length = -1
    forms = 0
    renew_at = 1
    per_round = pointer(stripes.per_round)
    while state[FINISHED] == 0 and state[NOW] < until:
        run_flash(
            pointer(state), q, pointer(stripes.plane_of), pointer(stripes.offset_of), per_round, table,
            pointer(nothing), pointer(nothing), pointer(nothing), 0, pointer(nothing), until, forms < MOST_FORMS,
        )  # fmt: skip
        if state[ROUND] == 0 or state[FINISHED] != 0 or not shiftable(pointer(state), q, per_round):
            continue
        n = write_form(pointer(state), q, per_round, table, form)
        forms += 1
        if n < 0:
            continue
        if n == kept_length and equal(form, kept, n):
            jump(pointer(state), q, per_round, table, marks, until)
            kept_length = -1
            forms = 0
            renew_at = 1
        elif forms >= renew_at:
            for k in range(n):
                kept[k] = form[k]
            kept_length = n
            renew_at = 2 * forms
            mark(pointer(state), q, marks)


@inlined
def equal(one, other, words):  # type: ignore[no-untyped-def]
    """Whether the first words of two forms are the same."""
    k = 0
    while k < words and one[k] == other[k]:
        k += 1
    return k == words


@inlined
def parts(state, q, s):  # type: ignore[no-untyped-def]
    """Requests of a stream in a page."""
    return q.granules // state[STREAM_SIZE + s]


@inlined
def alive(state, s):  # type: ignore[no-untyped-def]
    """Whether a stream has anything to do."""
    return state[STREAM_NEXT + s] < state[STREAM_TOTAL + s] or state[STREAM_OPEN + s] > 0


@inlined
def shiftable(state, q, per_round):  # type: ignore[no-untyped-def]
    """Whether a period of the active streams may be repeated: their pages can't meet, and none is ending."""
    active = 0
    for s in range(state[STREAM_LIMIT]):
        if not alive(state, s):
            continue
        active += 1
        if state[STREAM_KIND + s] == TRACE or state[STREAM_NEXT + s] >= state[STREAM_TOTAL + s]:
            return False
        first = state[STREAM_BASE + s] // parts(state, q, s)
        last = (state[STREAM_BASE + s] + state[STREAM_TOTAL + s] - 1) // parts(state, q, s)
        for r in range(s):
            if alive(state, r):
                other_first = state[STREAM_BASE + r] // parts(state, q, r)
                other_last = (state[STREAM_BASE + r] + state[STREAM_TOTAL + r] - 1) // parts(state, q, r)
                if first <= other_last and other_first <= last:
                    return False
    if q.group_planes > 1:
        if active > 1:
            return False
        for p in range(1, q.planes):
            if per_round[p] != per_round[0]:
                return False
    return active > 0


@inlined
def round_of(state, q, s, table):  # type: ignore[no-untyped-def]
    """Which round of the striping table a stream is in."""
    return (state[STREAM_BASE + s] + state[STREAM_NEXT + s]) // (table * parts(state, q, s))


@inlined
def until_tick(tick, now):  # type: ignore[no-untyped-def]
    """A tick relative to now: 0 once it has passed, -1 for never."""
    return -1 if tick >= NEVER else max(0, tick - now)


@inlined
def write_entry(state, q, e, per_round, table, form, n):  # type: ignore[no-untyped-def]
    """What a request is, relative to now and to its stream's round."""
    s = state[STREAM + e]
    form[n] = state[KIND + e] * MAX_STREAMS + s
    form[n + 1] = state[PAGE + e] - round_of(state, q, s, table) * per_round[state[PLANE + e]]
    form[n + 2] = state[FIRST + e]
    form[n + 3] = state[SIZE + e]
    form[n + 4] = state[NEXT_AGE] - state[AGE + e]
    form[n + 5] = state[NOW] - state[ARRIVAL + e]
    return n + 6


@inlined
def write_form(state, q, per_round, table, form):  # type: ignore[no-untyped-def]
    """The state as words that are equal for states that evolve alike; their number, or -1 if it can't be written."""
    now = state[NOW]
    form[0] = until_tick(state[COMMAND_FREE], now)
    form[1] = until_tick(state[LINK_FREE], now)
    form[2] = until_tick(state[BUS_END], now)
    form[3] = state[BUS_PLANE] * MAX_BUFFERS + state[BUS_BUFFER] if state[BUS_ENTRY] >= 0 else -1
    form[4] = state[ACTIVE]
    form[5] = state[STAGED]
    form[6] = state[USED]
    form[7] = state[TURN]
    form[8] = state[ADMIT_DIRTY]
    n = 9
    for s in range(state[STREAM_LIMIT]):
        if alive(state, s):
            form[n] = state[STREAM_SERIAL + s]
            form[n + 1] = (state[STREAM_BASE + s] + state[STREAM_NEXT + s]) % (table * parts(state, q, s))
            form[n + 2] = state[STREAM_OPEN + s]
            n += 3
    for g in range(q.planes // q.group_planes):
        form[n] = until_tick(state[GROUP_END + g], now)
        n += 1
    for p in range(q.planes):
        form[n] = state[LOADED + p] * MAX_BUFFERS + (state[WRITE_BUFFER + p] if state[LOADED + p] > 0 else 0)
        n += 1
        e = state[HEAD + p]
        while e >= 0:
            n = write_chain(state, q, e, per_round, table, form, n)
            e = state[LINE_NEXT + e]
        form[n] = -1
        n += 1
        for k in range(q.buffers):
            n = write_buffer(state, q, p, k, per_round, table, form, n)
            if n < 0:
                return -1
    e = state[TRANSFER_HEAD]
    while e >= 0:
        n = write_entry(state, q, e, per_round, table, form, n)
        form[n] = now - state[READY + e]
        form[n + 1] = state[PLANE + e] * MAX_BUFFERS + state[BUFFER + e]
        n += 2
        e = state[NEXT + e]
    form[n] = -1
    n += 1
    e = state[DELIVERY_HEAD]
    while e >= 0:
        n = write_entry(state, q, e, per_round, table, form, n)
        form[n] = state[DONE + e] - now
        n += 1
        e = state[NEXT + e]
    return n


@inlined
def write_chain(state, q, e, per_round, table, form, n):  # type: ignore[no-untyped-def]
    """All requests of one operation."""
    while e >= 0:
        n = write_entry(state, q, e, per_round, table, form, n)
        e = state[CHAIN + e]
    form[n] = -2
    return n + 1


@inlined
def write_buffer(state, q, p, k, per_round, table, form, n):  # type: ignore[no-untyped-def]
    """A page buffer; -1 if it holds a page of a stream that has ended, which an active one might still meet."""
    b = p * MAX_BUFFERS + k
    kind = state[BUFFER_STATE + b]
    form[n] = kind
    form[n + 1] = -1
    form[n + 2] = state[BUFFER_PENDING + b]
    sensed = per_round[p] > 0 and kind in (SENSING, HELD)
    form[n + 3] = state[NEXT_AGE] - state[BUFFER_AGE + b] if sensed else 0
    n += 4
    if state[BUFFER_PAGE + b] >= 0 and per_round[p] > 0:
        owner = -1
        for s in range(state[STREAM_LIMIT]):
            if state[STREAM_SERIAL + s] == state[BUFFER_SERIAL + b] and alive(state, s):
                owner = s
        if owner < 0:
            return -1
        form[n - 3] = owner
        form[n] = state[BUFFER_PAGE + b] - round_of(state, q, owner, table) * per_round[p]
        n += 1
    if kind == SENSING:
        n = write_chain(state, q, state[BUFFER_ENTRY + b], per_round, table, form, n)
    elif kind == PROGRAMMING:
        n = write_entry(state, q, state[BUFFER_ENTRY + b], per_round, table, form, n)
    return n


@inlined
def mark(state, q, marks):  # type: ignore[no-untyped-def]
    """Remember where everything stands at the form that is kept."""
    marks[0] = state[NOW]
    marks[1] = state[NEXT_AGE]
    for k in range(COUNT_WORDS):
        marks[2 + k] = state[COUNTS + k]
    for p in range(q.planes):
        marks[2 + COUNT_WORDS + p] = state[PLANE_SENSES + p]
    for s in range(MAX_STREAMS):
        marks[2 + COUNT_WORDS + MAX_PLANES + s] = state[STREAM_NEXT + s]


@inlined
def jump(state, q, per_round, table, marks, until):  # type: ignore[no-untyped-def]
    """Go on by as many periods as leave each stream a request and the clock below the horizon."""
    period = state[NOW] - marks[0]
    progress = 2 + COUNT_WORDS + MAX_PLANES  # of the streams, in `marks`
    times = (until - 1 - state[NOW]) // period
    for s in range(state[STREAM_LIMIT]):
        admitted = state[STREAM_NEXT + s] - marks[progress + s]
        if admitted > 0:
            times = min(times, (state[STREAM_TOTAL + s] - 1 - state[STREAM_NEXT + s]) // admitted)
    if times <= 0:
        return
    state[JUMPED] += times
    for e in range(q.queue):  # entries that are not in use have nothing to lose
        s = state[STREAM + e]
        if not alive(state, s):
            continue
        rounds = times * (state[STREAM_NEXT + s] - marks[progress + s]) // (table * parts(state, q, s))
        state[PAGE + e] += rounds * per_round[state[PLANE + e]]
    for b in range(q.planes * MAX_BUFFERS):
        if state[BUFFER_PAGE + b] >= 0:
            for s in range(state[STREAM_LIMIT]):
                if state[STREAM_SERIAL + s] == state[BUFFER_SERIAL + b] and alive(state, s):
                    rounds = times * (state[STREAM_NEXT + s] - marks[progress + s]) // (table * parts(state, q, s))
                    state[BUFFER_PAGE + b] += rounds * per_round[b // MAX_BUFFERS]
    shift_times(state, q, times * period, times * (state[NEXT_AGE] - marks[1]))
    for s in range(state[STREAM_LIMIT]):
        admitted = times * (state[STREAM_NEXT + s] - marks[progress + s])
        state[STREAM_NEXT + s] += admitted
        state[JOB_OPEN + state[STREAM_JOB + s]] -= admitted  # as many complete in a period as are admitted
    for k in range(COUNT_WORDS):
        state[COUNTS + k] += times * (state[COUNTS + k] - marks[2 + k])
    for p in range(q.planes):
        state[PLANE_SENSES + p] += times * (state[PLANE_SENSES + p] - marks[2 + COUNT_WORDS + p])


@inlined
def shift_times(state, q, ticks, ages):  # type: ignore[no-untyped-def]
    """Set clock and ages on; nothing else changes."""
    state[NOW] += ticks
    state[COMMAND_FREE] += ticks
    state[LINK_FREE] += ticks
    if state[BUS_END] < NEVER:
        state[BUS_END] += ticks
    for g in range(q.planes // q.group_planes):
        if state[GROUP_END + g] < NEVER:
            state[GROUP_END + g] += ticks
        if state[KEY + g] < NO_KEY:
            state[KEY + g] += ages
    for e in range(q.queue):
        state[AGE + e] += ages
        state[ARRIVAL + e] += ticks
        state[READY + e] += ticks
        state[DONE + e] += ticks
    state[NEXT_AGE] += ages
    for b in range(q.planes * MAX_BUFFERS):
        state[BUFFER_AGE + b] += ages

"""The canonical form of a channel's state: two states with the same form evolve alike.

Times are relative to now (a constraint that has expired is 0, however long ago), open rows relative to the stream that
may still hit them, ages are ranks, and what lies farther ahead than anything that can happen before the next checkpoint
is clipped. A form is the outlook (see outlook.py), what its streams and jobs are, and the rest of the channel; the last
is written and read back by the same pass, so that the two cannot disagree.
"""

from __future__ import annotations

from archsim.kernels.admission import append, renumber_ages
from archsim.kernels.candidates import refresh_keys
from archsim.kernels.canonical_refresh import exchange_refresh_and_power
from archsim.kernels.channel import (
    ACT_OK,
    ACTIVE,
    ACTIVE_STREAMS,
    ADMIT_AT,
    BUS_OK,
    CLOSED,
    COLUMN_BUS_FREE,
    COLUMN_DIRTY,
    COLUMN_OK,
    COUNTS,
    DUE,
    ENTRY_ADDRESS,
    ENTRY_AGE,
    ENTRY_INDEX,
    ENTRY_NEXT,
    ENTRY_ROW,
    ENTRY_SINCE,
    ENTRY_STARVES,
    ENTRY_STREAM,
    ENTRY_TOUCHED,
    FAW,
    FAW_NEXT,
    FREE_ENTRY,
    GROUP_ACT_OK,
    HEAD,
    HELD_BANK,
    JOB,
    JOB_ACTIVE,
    JOB_DATA,
    JOB_ENDED,
    JOB_FIELDS,
    JOB_GATE,
    JOB_LAST_DATA,
    JOB_READY,
    JOB_STARTED,
    JOB_TILE_END,
    JOB_TILE_TICKS,
    JOB_TILES,
    LAST_WRITE,
    LIST_END,
    MAX_BANKS,
    MAX_JOBS,
    MAX_QUEUE,
    MAX_STACK_IDS,
    NEVER,
    NEXT_AGE,
    NOW,
    OPEN_ROW,
    PASSED,
    POINTER,
    PRE_ANY_OK,
    PRE_OK,
    QUEUED,
    READY,
    REFPB_OK,
    REFRESH_BEGIN,
    REFRESH_END,
    REFRESH_FOLDED,
    REFRESHING,
    ROW_BUS_FREE,
    ROW_DIRTY,
    RRD_OK,
    SLOT_END,
    STREAM_BASE,
    STREAM_ISSUED,
    STREAM_JOB,
    STREAM_NEXT,
    STREAM_SHARE,
    STREAM_THRESHOLD,
    STREAM_WINDOW,
    STREAM_WRITE,
    TAIL,
    TILE_EVENT,
    TURN,
    UNUSED_AT,
    WRITE_MODE,
    pseudo_channel,
)
from archsim.kernels.form_words import constraint, moment, value
from archsim.kernels.jit import inlined
from archsim.kernels.outlook import write_outlook
from archsim.kernels.timing import DramTiming

IDLE = 15  # timing.Count.IDLE
STREAM_WORDS = 4
STREAM_PC_WORDS = 5
FORM_LENGTH = 1 << 13
"""Room for the longest form."""


@inlined
def settle_idle(state, q: DramTiming):  # type: ignore[no-untyped-def]
    """Count the idle time of empty pseudo-channels up to now (it would be counted when the next request comes)."""
    for p in range(q.pseudo_channels):
        pc = pseudo_channel(state, p)
        if pc[QUEUED] + pc[QUEUED + 1] == 0 and pc[SLOT_END] < state[NOW]:
            state[COUNTS + IDLE] += state[NOW] - pc[SLOT_END]
            pc[SLOT_END] = state[NOW]
            pc[REFRESH_FOLDED] = 0


@inlined
def write_streams(state, q: DramTiming, form, n):  # type: ignore[no-untyped-def]
    """Phase and progress of the active streams relative to rows and tiles, and of the jobs relative to now."""
    row_set = q.stack_ids * q.bank_groups * q.banks_per_group * q.columns
    for k in range(state[ACTIVE_STREAMS]):
        s = state[ACTIVE + k]
        tiled = state[JOB + state[STREAM_JOB + s] * JOB_FIELDS + JOB_TILES] > 0
        form[n] = s
        form[n + 1] = state[STREAM_JOB + s]
        form[n + 2] = state[STREAM_WRITE + s]
        form[n + 3] = state[STREAM_WINDOW + s] if tiled else 0
        n += STREAM_WORDS
        for p in range(q.pseudo_channels):
            pc = pseudo_channel(state, p)
            share = pc[STREAM_SHARE + s]
            ended = share * state[JOB + state[STREAM_JOB + s] * JOB_FIELDS + JOB_ENDED]
            form[n] = (pc[STREAM_BASE + s] + pc[STREAM_NEXT + s]) % row_set
            form[n + 1] = pc[STREAM_NEXT + s] - pc[STREAM_ISSUED + s]
            form[n + 2] = share
            form[n + 3] = pc[STREAM_NEXT + s] - ended if tiled else 0
            form[n + 4] = pc[STREAM_THRESHOLD + s] - ended if tiled else 0
            n += STREAM_PC_WORDS
    for job in range(MAX_JOBS):
        j = JOB + job * JOB_FIELDS
        if state[j + JOB_ACTIVE] != 0:
            form[n] = job
            form[n + 1] = state[j + JOB_TILE_TICKS] if state[j + JOB_TILES] > 0 else -1
            form[n + 2] = state[j + JOB_STARTED] - state[j + JOB_ENDED]
            n += 3
    return n


@inlined
def write_form(state, q: DramTiming, form):  # type: ignore[no-untyped-def]
    """Write the canonical form of a state; its length.

    Words 0 to 2: where the streams' and the channel's parts begin, active streams. The outlook starts at word 3.
    """
    settle_idle(state, q)
    renumber_ages(state, q)
    form[2] = state[ACTIVE_STREAMS]
    form[0] = write_outlook(state, q, form, 3)
    form[1] = write_streams(state, q, form, form[0])
    return exchange(state, q, form, form[1], True)


@inlined
def read_form(state, q: DramTiming, form):  # type: ignore[no-untyped-def]
    """Put a channel into the state of a form. Clock, progress of streams and jobs, and open rows are there already."""
    state[ACTIVE_STREAMS] = form[2]
    n = form[0]
    for k in range(form[2]):
        state[ACTIVE + k] = form[n]
        n += STREAM_WORDS + STREAM_PC_WORDS * q.pseudo_channels
    exchange(state, q, form, form[1], False)


@inlined
def exchange(state, q: DramTiming, form, n, writing):  # type: ignore[no-untyped-def]
    """Everything of the channel that is neither progress of a stream, nor an open row, nor derived."""
    now = state[NOW]
    if writing:
        form[n] = now & (q.ticks_per_ck - 1)
    n += 1
    n = constraint(state, COLUMN_BUS_FREE, form, n, writing, now)
    n = constraint(state, ROW_BUS_FREE, form, n, writing, now)
    n = constraint(state, TILE_EVENT, form, n, writing, now)
    for job in range(MAX_JOBS):
        j = JOB + job * JOB_FIELDS
        n = value(state, j + JOB_ACTIVE, form, n, writing)
        if writing:
            form[n] = max(0, state[j + JOB_LAST_DATA] - now)
        elif form[n] > 0:  # else it has passed, and stays
            state[j + JOB_LAST_DATA] = now + form[n]
        n += 1
        n = constraint(state, j + JOB_TILE_END, form, n, writing, now)
        n = constraint(state, j + JOB_READY, form, n, writing, now)
        n = constraint(state, j + JOB_GATE, form, n, writing, now)
        if q.write_forwarding != 0:
            n = constraint(state, j + JOB_DATA, form, n, writing, now)
    if not writing:
        empty_queues(state, q)
    for p in range(q.pseudo_channels):
        pc = pseudo_channel(state, p)
        n = exchange_pseudo_channel(pc, q, form, n, writing, now)
        n = exchange_refresh_and_power(pc, q, form, n, writing, now)
        n = exchange_banks(pc, q, form, n, writing, now)
        n = exchange_queues(state, q, p, form, n, writing)
    if not writing:
        derive(state, q)
    return n


@inlined
def exchange_pseudo_channel(pc, q: DramTiming, form, n, writing, now):  # type: ignore[no-untyped-def]
    for k in range(4):
        if writing:
            form[n] = max(0, pc[FAW + ((pc[FAW_NEXT] + k) & 3)] - now)
        else:
            pc[FAW + ((pc[FAW_NEXT] + k) & 3)] = now + form[n]
        n += 1
    for w in range(2):
        for sid in range(q.stack_ids):
            n = constraint(pc, BUS_OK + w * MAX_STACK_IDS + sid, form, n, writing, now)
    n = constraint(pc, RRD_OK, form, n, writing, now)
    n = constraint(pc, REFPB_OK, form, n, writing, now)
    n = constraint(pc, PRE_ANY_OK, form, n, writing, now)
    if q.refresh_mode != 0:
        n = moment(pc, DUE, form, n, writing, now)
    n = constraint(pc, ADMIT_AT, form, n, writing, now)
    n = value(pc, WRITE_MODE, form, n, writing)
    n = value(pc, LAST_WRITE, form, n, writing)
    n = value(pc, REFRESHING, form, n, writing)
    n = value(pc, HELD_BANK, form, n, writing)
    n = value(pc, POINTER, form, n, writing)
    n = value(pc, TURN, form, n, writing)
    n = value(pc, REFRESH_FOLDED, form, n, writing)
    n = moment(pc, SLOT_END, form, n, writing, now)
    if writing and pc[REFRESH_END] <= pc[SLOT_END]:  # it can no longer overlap a gap
        pc[REFRESH_BEGIN] = pc[SLOT_END]
        pc[REFRESH_END] = pc[SLOT_END]
    n = moment(pc, REFRESH_BEGIN, form, n, writing, now)
    pending = pc[REFRESH_END] >= NEVER if writing else form[n] < 0
    if writing:
        form[n] = -1 if pending else pc[REFRESH_END] - pc[REFRESH_BEGIN]
    else:
        pc[REFRESH_END] = NEVER if pending else pc[REFRESH_BEGIN] + form[n]
    return n + 1


@inlined
def exchange_banks(pc, q: DramTiming, form, n, writing, now):  # type: ignore[no-untyped-def]
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
    for i in range(banks):
        shut = pc[OPEN_ROW + i] < 0
        pc[CLOSED + i] = -1 if shut else 0
        n = constraint(pc, ACT_OK + i, form, n, writing, now)
        n = constraint(pc, GROUP_ACT_OK + i, form, n, writing, now)
        if not shut:  # an ACT sets it anew
            n = constraint(pc, PRE_OK + i, form, n, writing, now)
            n = exchange_open_row(pc, q, i, form, n, writing, now)
        if not writing:
            pc[READY + i] = max(pc[ACT_OK + i], pc[GROUP_ACT_OK + i]) if shut else pc[PRE_OK + i]
    for w in range(2):
        first = w * MAX_BANKS
        for o in range(first, first + banks):
            n = constraint(pc, COLUMN_OK + o, form, n, writing, now)
    return n


@inlined
def exchange_open_row(pc, q: DramTiming, bank, form, n, writing, now):  # type: ignore[no-untyped-def]
    """What front policies know about an open row. An ACT sets it anew."""
    if q.page_timeout >= 0:
        n = constraint(pc, UNUSED_AT + bank, form, n, writing, now)
    if q.row_hit_cap > 0:
        n = value(pc, PASSED + bank, form, n, writing)
    return n


@inlined
def entry_words(q: DramTiming):  # type: ignore[no-untyped-def]
    """Words of a queued request in a form."""
    return 6 if q.starve_after > 0 or q.latency_histogram != 0 else 4


@inlined
def exchange_queues(state, q: DramTiming, p, form, n, writing):  # type: ignore[no-untyped-def]
    """The queued requests, bank by bank in the order of their lists."""
    pc = pseudo_channel(state, p)
    if not writing:
        state[NEXT_AGE] = 0 if p == 0 else state[NEXT_AGE]
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
    for w in range(2):
        for bank in range(banks):
            o = w * MAX_BANKS + bank
            if writing:
                at = n
                n += 1
                entry = pc[HEAD + o]
                while entry < LIST_END:
                    s = pc[ENTRY_STREAM + entry]
                    form[n] = s
                    form[n + 1] = pc[STREAM_NEXT + s] - pc[ENTRY_INDEX + entry]
                    form[n + 2] = pc[ENTRY_AGE + entry]
                    form[n + 3] = pc[ENTRY_TOUCHED + entry]
                    n += 4
                    if entry_words(q) > 4:
                        form[n] = max(0, pc[ENTRY_STARVES + entry] - state[NOW]) if q.starve_after > 0 else 0
                        form[n + 1] = state[NOW] - pc[ENTRY_SINCE + entry] if q.latency_histogram != 0 else 0
                        n += 2
                    entry = pc[ENTRY_NEXT + entry]
                form[at] = (n - at - 1) // entry_words(q)
            else:
                entries = form[n]
                n += 1
                for _ in range(entries):
                    append_entry(state, q, p, w, o, form, n)
                    n += entry_words(q)
    return n


@inlined
def empty_queues(state, q: DramTiming):  # type: ignore[no-untyped-def]
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
    for p in range(q.pseudo_channels):
        pc = pseudo_channel(state, p)
        for k in range(2 * MAX_QUEUE):
            pc[FREE_ENTRY + k] = k
        for w in range(2):
            pc[QUEUED + w] = 0
            for o in range(w * MAX_BANKS, w * MAX_BANKS + banks):
                pc[HEAD + o] = LIST_END + o
                pc[TAIL + o] = LIST_END + o


@inlined
def append_entry(state, q: DramTiming, p, w, o, form, n):  # type: ignore[no-untyped-def]
    pc = pseudo_channel(state, p)
    s = form[n]
    depth = q.write_queue if w != 0 else q.read_queue
    entry = pc[FREE_ENTRY + w * MAX_QUEUE + depth - 1 - pc[QUEUED + w]]
    pc[QUEUED + w] += 1
    index = pc[STREAM_NEXT + s] - form[n + 1]
    address = pc[STREAM_BASE + s] + index
    pc[ENTRY_STREAM + entry] = s
    pc[ENTRY_INDEX + entry] = index
    pc[ENTRY_ADDRESS + entry] = address
    pc[ENTRY_ROW + entry] = address // (q.stack_ids * q.bank_groups * q.banks_per_group * q.columns)
    pc[ENTRY_AGE + entry] = form[n + 2]
    state[NEXT_AGE] = max(state[NEXT_AGE], form[n + 2] + 1)
    pc[ENTRY_TOUCHED + entry] = form[n + 3]
    if entry_words(q) > 4:
        pc[ENTRY_STARVES + entry] = state[NOW] + form[n + 4]
        pc[ENTRY_SINCE + entry] = state[NOW] - form[n + 5]
    append(pc, o, entry)


@inlined
def derive(state, q: DramTiming):  # type: ignore[no-untyped-def]
    """Recompute what the searches read from what was read back."""
    for p in range(q.pseudo_channels):
        for bank in range(q.stack_ids * q.bank_groups * q.banks_per_group):
            refresh_keys(state, q, p, bank)
        pc = pseudo_channel(state, p)
        pc[COLUMN_DIRTY] = 1
        pc[ROW_DIRTY] = 1

"""Requests enter the queues of a pseudo-channel, and its mode follows from the queues (policy: steps 1 and 2)."""

from __future__ import annotations

from archsim.kernels.candidates import offer_column, offer_row, refresh_keys
from archsim.kernels.channel import (
    ACTIVE,
    ACTIVE_STREAMS,
    ADMIT_AT,
    BANK_BITS,
    BEST_ROW,
    COLUMN_DIRTY,
    COUNTS,
    ENTRY_ADDRESS,
    ENTRY_AGE,
    ENTRY_INDEX,
    ENTRY_NEXT,
    ENTRY_PREVIOUS,
    ENTRY_ROW,
    ENTRY_STREAM,
    ENTRY_TOUCHED,
    FREE_ENTRY,
    HEAD,
    HELD_BANK,
    HIT_KEY,
    HIT_SLOT,
    JOB,
    JOB_ENDED,
    JOB_FIELDS,
    MAX_BANKS,
    MAX_PCS,
    MAX_QUEUE,
    NEVER,
    NEXT_AGE,
    NO_KEY,
    OPEN_ROW,
    QUEUED,
    REFRESH_FOLDED,
    REFRESHING,
    ROW_DIRTY,
    ROW_KEY,
    ROW_SHIFT,
    SLOT_END,
    STREAM_BASE,
    STREAM_JOB,
    STREAM_NEXT,
    STREAM_SHARE,
    STREAM_TOTAL,
    STREAM_TRACE,
    STREAM_WINDOW,
    STREAM_WRITE,
    TAIL,
    TURN,
    WRITE_MODE,
)
from archsim.kernels.jit import inlined
from archsim.kernels.timing import DramTiming

# timing.RefreshMode and timing.Count, as plain ints for the compiler.
ALL_BANK = 1
IDLE, LATENCY = 15, 10
BANK_MASK = (1 << BANK_BITS) - 1


@inlined
def admit(state, q: DramTiming, p, now, bank_of, trace, arrival):  # type: ignore[no-untyped-def]
    """Queue every request that may enter pseudo-channel p now; note when the next one arrives."""
    wake = NEVER
    streams = state[ACTIVE_STREAMS]
    first = 0
    if streams > 1:
        while first < streams and state[ACTIVE + first] <= state[TURN + p]:
            first += 1
    k = 0
    while k < streams:
        position = first + k
        if position >= streams:
            position -= streams
        s = state[ACTIVE + position]
        sp = s * MAX_PCS + p
        index = state[STREAM_NEXT + sp]
        k += 1
        if index >= admissible(state, s, sp):
            continue
        if state[STREAM_TRACE + s] != 0:
            word = trace[state[STREAM_BASE + sp] + index]
            arrives = arrival[state[STREAM_BASE + sp] + index]
            if arrives > now:
                wake = min(wake, arrives)
                continue
            w = word & 1
            address = word >> 1
        else:
            w = state[STREAM_WRITE + s]
            address = state[STREAM_BASE + sp] + index
            arrives = now
        depth = q.write_queue if w != 0 else q.read_queue
        if state[QUEUED + 2 * p + w] >= depth:
            continue
        state[STREAM_NEXT + sp] = index + 1
        enqueue(state, q, p, w, s, index, address, arrives, now, bank_of)
        state[TURN + p] = s
        if streams > 1:
            first = position + 1
            if first >= streams:
                first = 0
        k = 0
    state[ADMIT_AT + p] = wake


@inlined
def admissible(state, s, sp):  # type: ignore[no-untyped-def]
    """How many requests of stream s this pseudo-channel may have admitted in all by now (window and production)."""
    total = state[STREAM_TOTAL + sp]
    share = state[STREAM_SHARE + sp]
    if share == 0:
        return total
    ended = state[JOB + state[STREAM_JOB + s] * JOB_FIELDS + JOB_ENDED]
    if state[STREAM_WRITE + s] != 0:
        return min(total, share * ended)
    return min(total, share * ended + state[STREAM_WINDOW + s])


@inlined
def enqueue(state, q: DramTiming, p, w, s, index, address, arrives, now, bank_of):  # type: ignore[no-untyped-def]
    """Append a request to the list of its bank and keep the cached candidates true."""
    row_set = q.stack_ids * q.bank_groups * q.banks_per_group * q.columns
    shift = state[ROW_SHIFT]
    row = address >> shift if shift >= 0 else address // row_set
    bank = bank_of[address - row * row_set]
    queued = state[QUEUED + 2 * p] + state[QUEUED + 2 * p + 1]
    if queued == 0 and now > state[SLOT_END + p]:
        state[COUNTS + IDLE] += now - state[SLOT_END + p]
        state[SLOT_END + p] = now
        state[REFRESH_FOLDED + p] = 0
    depth = q.write_queue if w != 0 else q.read_queue
    pool = (2 * p + w) * MAX_QUEUE
    entry = state[FREE_ENTRY + pool + depth - 1 - state[QUEUED + 2 * p + w]]
    state[QUEUED + 2 * p + w] += 1
    age = state[NEXT_AGE]
    state[NEXT_AGE] = age + 1
    state[ENTRY_ROW + entry] = row
    state[ENTRY_ADDRESS + entry] = address
    state[ENTRY_AGE + entry] = age
    state[ENTRY_STREAM + entry] = s
    state[ENTRY_INDEX + entry] = index
    state[COUNTS + LATENCY] -= arrives
    state[ENTRY_TOUCHED + entry] = 0
    state[ENTRY_NEXT + entry] = -1
    i = p * MAX_BANKS + bank
    o = (2 * p + w) * MAX_BANKS + bank
    last = state[TAIL + o]
    state[ENTRY_PREVIOUS + entry] = last
    if last >= 0:
        state[ENTRY_NEXT + last] = entry
    else:
        state[HEAD + o] = entry
    state[TAIL + o] = entry
    if state[HIT_SLOT + o] >= 0:
        return
    held = state[HELD_BANK + p] == bank
    blocked = state[REFRESHING + p] != 0 and q.refresh_mode == ALL_BANK
    key = (age << BANK_BITS) | bank
    if state[OPEN_ROW + i] == row:
        state[HIT_SLOT + o] = entry
        state[ROW_KEY + o] = NO_KEY
        if held:
            return
        state[HIT_KEY + o] = key
        if w == state[WRITE_MODE + p] and not blocked:
            offer_column(state, q, p, w, bank, now)
            if (state[BEST_ROW + p] & BANK_MASK) == bank:
                state[ROW_DIRTY + p] = 1
    elif last < 0 and not held:
        state[ROW_KEY + o] = key
        if w == state[WRITE_MODE + p] and not blocked:
            offer_row(state, q, p, w, bank, now)


@inlined
def queued_requests(state, q: DramTiming):  # type: ignore[no-untyped-def]
    """Requests in all queues of the channel."""
    queued = 0
    for pw in range(2 * q.pseudo_channels):
        queued += state[QUEUED + pw]
    return queued


@inlined
def renumber_ages(state, q: DramTiming):  # type: ignore[no-untyped-def]
    """Number the queued requests anew from 0 on, in the order of their ages, so that ages fit into keys."""
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
    entries = queued_requests(state, q)
    done_below = 0  # ages from here on are still the old ones; a new one is never above the old one
    for rank in range(entries):
        oldest = -1
        for pw in range(2 * q.pseudo_channels):
            for o in range(pw * MAX_BANKS, pw * MAX_BANKS + banks):
                entry = state[HEAD + o]
                while entry >= 0 and state[ENTRY_AGE + entry] < done_below:
                    entry = state[ENTRY_NEXT + entry]
                if entry >= 0 and (oldest < 0 or state[ENTRY_AGE + entry] < state[ENTRY_AGE + oldest]):
                    oldest = entry
        done_below = state[ENTRY_AGE + oldest] + 1
        state[ENTRY_AGE + oldest] = rank
    state[NEXT_AGE] = entries
    for p in range(q.pseudo_channels):
        for bank in range(banks):
            refresh_keys(state, q, p, bank)
        state[COLUMN_DIRTY + p] = 1
        state[ROW_DIRTY + p] = 1


@inlined
def switch_mode(state, q: DramTiming, p):  # type: ignore[no-untyped-def]
    """Write drain with two watermarks."""
    reads = state[QUEUED + 2 * p]
    writes = state[QUEUED + 2 * p + 1]
    if state[WRITE_MODE + p] == 0:
        change = writes >= q.write_high or (reads == 0 and writes > 0)
    else:
        change = writes == 0 or (writes <= q.write_low and reads > 0)
    if change:
        state[WRITE_MODE + p] = 1 - state[WRITE_MODE + p]
        state[COLUMN_DIRTY + p] = 1
        state[ROW_DIRTY + p] = 1

"""Requests enter the queues of a pseudo-channel, and its mode follows from the queues (policy: steps 1 and 2)."""

from __future__ import annotations

from archsim.kernels.candidates import is_blocked, is_held, offer_column, offer_row, refresh_keys
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
    FINISHED_JOB,
    FREE_ENTRY,
    HEAD,
    HIT_KEY,
    HIT_SLOT,
    JOB,
    JOB_ENDED,
    JOB_FIELDS,
    LIST_END,
    MAX_BANKS,
    MAX_QUEUE,
    NEVER,
    NEXT_AGE,
    NO_KEY,
    OPEN_ROW,
    QUEUED,
    REFRESH_FOLDED,
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
    pseudo_channel,
)
from archsim.kernels.jit import inlined
from archsim.kernels.policies import answered_by_queue, is_capped, note_admission
from archsim.kernels.special import front_policies
from archsim.kernels.timing import DramTiming

# timing.Count, as plain ints for the compiler.
IDLE, LATENCY = 15, 10
BANK_MASK = (1 << BANK_BITS) - 1


@inlined
def admit(state, q: DramTiming, p, now, bank_of, trace, arrival, done):  # type: ignore[no-untyped-def]
    """Queue every request that may enter pseudo-channel p now; note when the next one arrives."""
    pc = pseudo_channel(state, p)
    wake = NEVER
    streams = state[ACTIVE_STREAMS]
    first = after_turn(state, pc, streams)
    k = 0
    while k < streams:
        position = first + k
        if position >= streams:
            position -= streams
        s = state[ACTIVE + position]
        index = pc[STREAM_NEXT + s]
        k += 1
        if index >= admissible(state, pc, s):
            continue
        if state[STREAM_TRACE + s] != 0:
            word = trace[pc[STREAM_BASE + s] + index]
            arrives = arrival[pc[STREAM_BASE + s] + index]
            if arrives > now:
                wake = min(wake, arrives)
                continue
            w = word & 1
            address = word >> 1
        else:
            w = state[STREAM_WRITE + s]
            address = pc[STREAM_BASE + s] + index
            arrives = now
        depth = q.write_queue if w != 0 else q.read_queue
        if pc[QUEUED + w] >= depth:
            continue
        pc[STREAM_NEXT + s] = index + 1
        if front_policies(q) and answered_by_queue(state, q, p, w, s, index, address, arrives, now, bank_of, done):
            pc[TURN] = s
            if state[FINISHED_JOB] >= 0:
                pc[ADMIT_AT] = now  # it goes on when the caller comes back
                return
            streams = state[ACTIVE_STREAMS]
            first = after_turn(state, pc, streams)
            k = 0
            continue
        enqueue(state, q, p, w, s, index, address, arrives, now, bank_of)
        pc[TURN] = s
        if streams > 1:
            first = position + 1
            if first >= streams:
                first = 0
        k = 0
    pc[ADMIT_AT] = wake


@inlined
def after_turn(state, pc, streams):  # type: ignore[no-untyped-def]
    """Where among the active streams the round robin goes on."""
    first = 0
    if streams > 1:
        while first < streams and state[ACTIVE + first] <= pc[TURN]:
            first += 1
    return first


@inlined
def admissible(state, pc, s):  # type: ignore[no-untyped-def]
    """How many requests of stream s this pseudo-channel may have admitted in all by now (window and production)."""
    total = pc[STREAM_TOTAL + s]
    share = pc[STREAM_SHARE + s]
    if share == 0:
        return total
    ended = state[JOB + state[STREAM_JOB + s] * JOB_FIELDS + JOB_ENDED]
    if state[STREAM_WRITE + s] != 0:
        return min(total, share * ended)
    return min(total, share * ended + state[STREAM_WINDOW + s])


@inlined
def enqueue(state, q: DramTiming, p, w, s, index, address, arrives, now, bank_of):  # type: ignore[no-untyped-def]
    """Append a request to the list of its bank and keep the cached candidates true."""
    pc = pseudo_channel(state, p)
    row_set = q.stack_ids * q.bank_groups * q.banks_per_group * q.columns
    shift = state[ROW_SHIFT]
    row = address >> shift if shift >= 0 else address // row_set
    bank = bank_of[address - row * row_set]
    queued = pc[QUEUED] + pc[QUEUED + 1]
    if queued == 0 and now > pc[SLOT_END]:
        state[COUNTS + IDLE] += now - pc[SLOT_END]
        pc[SLOT_END] = now
        pc[REFRESH_FOLDED] = 0
    depth = q.write_queue if w != 0 else q.read_queue
    pool = w * MAX_QUEUE
    entry = pc[FREE_ENTRY + pool + depth - 1 - pc[QUEUED + w]]
    pc[QUEUED + w] += 1
    age = state[NEXT_AGE]
    state[NEXT_AGE] = age + 1
    pc[ENTRY_ROW + entry] = row
    pc[ENTRY_ADDRESS + entry] = address
    pc[ENTRY_AGE + entry] = age
    pc[ENTRY_STREAM + entry] = s
    pc[ENTRY_INDEX + entry] = index
    state[COUNTS + LATENCY] -= arrives
    pc[ENTRY_TOUCHED + entry] = 0
    if front_policies(q):
        note_admission(pc, q, entry, arrives, now)
    o = w * MAX_BANKS + bank
    last = pc[TAIL + o]
    append(pc, o, entry)
    if pc[HIT_SLOT + o] < LIST_END:
        return
    held = is_held(pc, q, bank)
    blocked = is_blocked(pc, q)
    key = (age << BANK_BITS) | bank
    if front_policies(q) and last < LIST_END and is_capped(pc, q, bank):
        return  # it waits for the oldest, whose keys these are
    if pc[OPEN_ROW + bank] == row:
        pc[HIT_SLOT + o] = entry
        pc[ROW_KEY + o] = NO_KEY
        if held:
            return
        pc[HIT_KEY + o] = key
        if w == pc[WRITE_MODE] and not blocked:
            offer_column(state, q, p, w, bank, now)
            if (pc[BEST_ROW] & BANK_MASK) == bank:
                pc[ROW_DIRTY] = 1
    elif last >= LIST_END and not held:
        pc[ROW_KEY + o] = key
        if w == pc[WRITE_MODE] and not blocked:
            offer_row(state, q, p, w, bank, now)


@inlined
def append(pc, o, entry):  # type: ignore[no-untyped-def]
    """Put a queue entry at the end of the list of a bank and direction."""
    last = pc[TAIL + o]
    pc[ENTRY_PREVIOUS + entry] = last
    pc[ENTRY_NEXT + entry] = LIST_END + o
    pc[ENTRY_NEXT + last] = entry
    pc[TAIL + o] = entry


@inlined
def queued_requests(state, q: DramTiming):  # type: ignore[no-untyped-def]
    """Requests in all queues of the channel."""
    queued = 0
    for p in range(q.pseudo_channels):
        pc = pseudo_channel(state, p)
        queued += pc[QUEUED] + pc[QUEUED + 1]
    return queued


@inlined
def renumber_ages(state, q: DramTiming):  # type: ignore[no-untyped-def]
    """Number the queued requests anew from 0 on, in the order of their ages, so that ages fit into keys."""
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
    entries = queued_requests(state, q)
    done_below = 0  # ages from here on are still the old ones; a new one is never above the old one
    for rank in range(entries):
        oldest_age, oldest_p, oldest = NEVER, 0, 0
        for p in range(q.pseudo_channels):
            pc = pseudo_channel(state, p)
            for k in range(2 * banks):
                entry = pc[HEAD + k // banks * MAX_BANKS + k % banks]
                while pc[ENTRY_AGE + entry] < done_below:
                    entry = pc[ENTRY_NEXT + entry]
                if pc[ENTRY_AGE + entry] < oldest_age:
                    oldest_age, oldest_p, oldest = pc[ENTRY_AGE + entry], p, entry
        done_below = oldest_age + 1
        pseudo_channel(state, oldest_p)[ENTRY_AGE + oldest] = rank
    state[NEXT_AGE] = entries
    for p in range(q.pseudo_channels):
        for bank in range(banks):
            refresh_keys(state, q, p, bank)
        pc = pseudo_channel(state, p)
        pc[COLUMN_DIRTY] = 1
        pc[ROW_DIRTY] = 1


@inlined
def switch_mode(state, q: DramTiming, p):  # type: ignore[no-untyped-def]
    """Write drain with two watermarks."""
    pc = pseudo_channel(state, p)
    reads = pc[QUEUED]
    writes = pc[QUEUED + 1]
    if pc[WRITE_MODE] == 0:
        change = writes >= q.write_high or (reads == 0 and writes > 0)
    else:
        change = writes == 0 or (writes <= q.write_low and reads > 0)
    if change:
        pc[WRITE_MODE] = 1 - pc[WRITE_MODE]
        pc[COLUMN_DIRTY] = 1
        pc[ROW_DIRTY] = 1

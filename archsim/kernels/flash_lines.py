"""Lines of the flash planes: admission, joining a sense, what is startable, starting array operations."""

from __future__ import annotations

from archsim.kernels.flash_state import (
    ACTIVE,
    ADMIT_AT,
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
    CHAIN,
    CHAIN_TAIL,
    COMMAND_FREE,
    COUNTS,
    EMPTY,
    ERASING,
    FIRST,
    FREE,
    GROUP_END,
    HEAD,
    HELD,
    INDEX,
    KEY,
    KIND,
    LINE_NEXT,
    LINE_PREVIOUS,
    LOAD_LIST,
    LOAD_LISTED,
    LOADED,
    LOADS,
    LOG_CAPACITY,
    LOG_LENGTH,
    MAX_BUFFERS,
    MAX_PLANES,
    NEVER,
    NEXT,
    NEXT_AGE,
    NO_KEY,
    PAGE,
    PLANE,
    PLANE_SENSES,
    PREVIOUS,
    PROGRAMMING,
    READY,
    RING,
    RING_COUNT,
    RING_HEAD,
    ROUND,
    SENSING,
    SIZE,
    STAGED,
    STARTABLE,
    STREAM,
    STREAM_BASE,
    STREAM_KIND,
    STREAM_LIMIT,
    STREAM_NEXT,
    STREAM_OPEN,
    STREAM_SERIAL,
    STREAM_SIZE,
    STREAM_TOTAL,
    STREAM_WINDOW,
    TAIL,
    TRACE,
    TRACE_WORDS,
    TRANSFER_HEAD,
    TRANSFER_TAIL,
    TURN,
    USED,
    WRITE_BUFFER,
)
from archsim.kernels.jit import inlined

# Kinds and counts as plain ints for the compiler.
READ, PROGRAM, ERASE = 0, 1, 2
SENSES, PROGRAMS, ERASES, JOINED, ARRAY_BUSY, OPERATIONS = 0, 1, 2, 5, 11, 12


@inlined
def note(state, log, now, command, plane, buffer, entry):  # type: ignore[no-untyped-def]
    """Append to the command log; a full log drops what follows."""
    row = state[LOG_LENGTH]
    if row < state[LOG_CAPACITY]:
        at = 8 * row
        log[at] = now
        log[at + 1] = command
        log[at + 2] = plane
        log[at + 3] = buffer
        log[at + 4] = state[PAGE + entry]
        log[at + 5] = state[FIRST + entry]
        log[at + 6] = state[SIZE + entry]
        log[at + 7] = state[AGE + entry]
        state[LOG_LENGTH] = row + 1


# ---------------------------------------------------------------- what is startable


@inlined
def free_buffer(state, q, p):  # type: ignore[no-untyped-def]
    """The buffer that a plane fills next: the lowest empty one, else the drained one sensed first; -1: none."""
    best = -1
    for k in range(q.buffers):
        b = p * MAX_BUFFERS + k
        if state[BUFFER_STATE + b] == EMPTY:
            return k
        drained = state[BUFFER_STATE + b] == HELD and state[BUFFER_PENDING + b] == 0
        if drained and (best < 0 or state[BUFFER_AGE + b] < state[BUFFER_AGE + p * MAX_BUFFERS + best]):
            best = k
    return best


@inlined
def startable(state, q, p):  # type: ignore[no-untyped-def]
    """Whether the first in a plane's line could start if its group is idle and no plane of it is being loaded."""
    first = state[HEAD + p]
    if first < 0:
        return False
    kind = state[KIND + first]
    if kind == READ:
        return free_buffer(state, q, p) >= 0
    return kind == ERASE or state[LOADED + p] == 2


@inlined
def refresh_key(state, q, g):  # type: ignore[no-untyped-def]
    """Find a group's oldest startable operation anew."""
    key = NO_KEY
    if state[GROUP_END + g] >= NEVER:
        loading = False
        for p in range(g * q.group_planes, (g + 1) * q.group_planes):
            loading = loading or state[LOADED + p] == 1
        for p in range(g * q.group_planes, (g + 1) * q.group_planes):
            if startable(state, q, p):
                first = state[HEAD + p]
                if not (loading and state[KIND + first] == PROGRAM):
                    key = min(key, state[AGE + first])
    if (state[KEY + g] < NO_KEY) != (key < NO_KEY):
        state[STARTABLE] += 1 if key < NO_KEY else -1
    state[KEY + g] = key


@inlined
def touch(state, q, p):  # type: ignore[no-untyped-def]
    """A plane's line or buffers have changed."""
    refresh_key(state, q, p // q.group_planes)
    list_load(state, p)


@inlined
def list_load(state, p):  # type: ignore[no-untyped-def]
    """Let step 6 look at a plane whose first in line is a program without a buffer."""
    first = state[HEAD + p]
    if first >= 0 and state[KIND + first] == PROGRAM and state[LOADED + p] == 0 and state[LOAD_LISTED + p] == 0:
        state[LOAD_LISTED + p] = 1
        state[LOAD_LIST + state[LOADS]] = p
        state[LOADS] += 1


# ---------------------------------------------------------------- admission


@inlined
def admit(state, q, now, plane_of, offset_of, per_round, table, trace, arrival):  # type: ignore[no-untyped-def]
    """Step 4 of the policy. `table` is the length of the striping table."""
    state[ADMIT_DIRTY] = 0
    while True:
        s = next_stream(state, q, now, trace, arrival)
        if s < 0:
            return
        state[TURN] = s
        index = state[STREAM_BASE + s] + state[STREAM_NEXT + s]
        e = state[FREE + state[USED]]
        state[USED] += 1
        if state[STREAM_KIND + s] == TRACE:
            at = index * TRACE_WORDS
            kind = trace[at]
            page = trace[at + 1]
            first = trace[at + 2]
            size = trace[at + 3]
            state[ARRIVAL + e] = arrival[index]
            state[INDEX + e] = index
        else:
            kind = state[STREAM_KIND + s]
            size = state[STREAM_SIZE + s]
            parts = q.granules // size
            page = index // parts
            first = index % parts * size
            state[ARRIVAL + e] = now
            state[INDEX + e] = -1
            if index % (table * parts) == 0:
                state[ROUND] = 1
        p = plane_of[page % table]
        state[KIND + e] = kind
        state[PLANE + e] = p
        state[PAGE + e] = offset_of[page % table] + page // table * per_round[p]
        state[FIRST + e] = first
        state[SIZE + e] = size
        state[AGE + e] = state[NEXT_AGE]
        state[STREAM + e] = s
        state[CHAIN + e] = -1
        state[CHAIN_TAIL + e] = e
        state[NEXT_AGE] += 1
        state[STREAM_NEXT + s] += 1
        state[STREAM_OPEN + s] += 1
        state[STAGED] += size
        if kind != READ or not join(state, q, e, p, now):
            append(state, e, p)
            if state[HEAD + p] == e:
                touch(state, q, p)


@inlined
def next_stream(state, q, now, trace, arrival):  # type: ignore[no-untyped-def]
    """The stream whose turn it is, or -1; notes the next arrival that is waited for."""
    state[ADMIT_AT] = NEVER
    limit = state[STREAM_LIMIT]
    if state[USED] >= q.queue:
        return -1
    s = state[TURN]
    for _ in range(limit):
        s = s + 1 if s + 1 < limit else 0
        done = state[STREAM_NEXT + s]
        if done >= state[STREAM_TOTAL + s] or state[STREAM_OPEN + s] >= state[STREAM_WINDOW + s]:
            continue
        size = state[STREAM_SIZE + s]
        if state[STREAM_KIND + s] == TRACE:
            index = state[STREAM_BASE + s] + done
            if arrival[index] > now:
                state[ADMIT_AT] = min(state[ADMIT_AT], arrival[index])
                continue
            size = trace[index * TRACE_WORDS + 3]
        if state[STAGED] + size <= q.staging:
            return s
    return -1


@inlined
def append(state, e, p):  # type: ignore[no-untyped-def]
    """To the end of a plane's line."""
    last = state[TAIL + p]
    state[LINE_NEXT + e] = -1
    state[LINE_PREVIOUS + e] = last
    state[TAIL + p] = e
    if last >= 0:
        state[LINE_NEXT + last] = e
    else:
        state[HEAD + p] = e


@inlined
def pop(state, p):  # type: ignore[no-untyped-def]
    """Take the first out of a plane's line."""
    e = state[HEAD + p]
    following = state[LINE_NEXT + e]
    state[HEAD + p] = following
    if following >= 0:
        state[LINE_PREVIOUS + following] = -1
    else:
        state[TAIL + p] = -1


@inlined
def join(state, q, e, p, now):  # type: ignore[no-untyped-def]
    """Let a read share a sense of its page, if there is one that it can join."""
    page = state[PAGE + e]
    w = state[TAIL + p]
    while w >= 0:
        if state[KIND + w] != READ:
            return False
        if state[PAGE + w] == page:
            link_chain(state, w, e)
            return True
        w = state[LINE_PREVIOUS + w]
    for k in range(q.buffers):
        b = p * MAX_BUFFERS + k
        if state[BUFFER_PAGE + b] != page:
            continue
        if state[BUFFER_STATE + b] == SENSING:
            link_chain(state, state[BUFFER_ENTRY + b], e)
            return True
        if state[BUFFER_STATE + b] == HELD and (state[BUFFER_PENDING + b] > 0 or state[HEAD + p] < 0):
            state[COUNTS + JOINED] += 1
            state[BUFFER_PENDING + b] += 1
            state[BUFFER + e] = k
            transferable(state, e, now)
            return True
    return False


@inlined
def link_chain(state, first, e):  # type: ignore[no-untyped-def]
    """Add a read to the requests of a sense."""
    state[COUNTS + JOINED] += 1
    state[CHAIN + state[CHAIN_TAIL + first]] = e
    state[CHAIN_TAIL + first] = e


@inlined
def transferable(state, e, now):  # type: ignore[no-untyped-def]
    """Put a request among those that may have the data bus, which are sorted by (READY, AGE)."""
    state[READY + e] = now
    after = -1
    before = state[TRANSFER_TAIL]
    while before >= 0 and state[READY + before] == now and state[AGE + before] > state[AGE + e]:
        after = before
        before = state[PREVIOUS + before]
    state[PREVIOUS + e] = before
    state[NEXT + e] = after
    if before >= 0:
        state[NEXT + before] = e
    else:
        state[TRANSFER_HEAD] = e
    if after >= 0:
        state[PREVIOUS + after] = e
    else:
        state[TRANSFER_TAIL] = e


# ---------------------------------------------------------------- start


@inlined
def start_operations(state, q, now, log):  # type: ignore[no-untyped-def]
    """Step 5 of the policy."""
    groups = q.planes // q.group_planes
    while state[STARTABLE] > 0 and state[COMMAND_FREE] <= now and state[ACTIVE] < q.most_active:
        best = NO_KEY
        g = 0
        for k in range(groups):
            if state[KEY + k] < best:
                best = state[KEY + k]
                g = k
        start_group(state, q, g, best, now, log)


@inlined
def start_group(state, q, g, age, now, log):  # type: ignore[no-untyped-def]
    """Start a group's oldest operation, and with it all that its other planes can do in lockstep."""
    begin = g * q.group_planes
    lead = -1
    loading = False
    for p in range(begin, begin + q.group_planes):
        loading = loading or state[LOADED + p] == 1
        if state[HEAD + p] >= 0 and state[AGE + state[HEAD + p]] == age:
            lead = state[HEAD + p]
    kind = state[KIND + lead]
    page = state[PAGE + lead]
    ticks = q.command_ticks + (q.t_read if kind == READ else q.t_program if kind == PROGRAM else q.t_erase)
    for p in range(begin, begin + q.group_planes):
        e = state[HEAD + p]
        if e >= 0 and state[KIND + e] == kind and state[PAGE + e] == page and startable(state, q, p):
            start_plane(state, q, p, e, kind, now, log)
            state[COUNTS + ARRAY_BUSY] += ticks
    state[COUNTS + OPERATIONS] += 1
    state[GROUP_END + g] = now + ticks
    state[COMMAND_FREE] = now + q.command_ticks
    state[ACTIVE] += 1
    slot = state[RING_HEAD + kind] + state[RING_COUNT + kind]
    if slot >= MAX_PLANES:
        slot -= MAX_PLANES
    state[RING + kind * MAX_PLANES + slot] = g
    state[RING_COUNT + kind] += 1
    refresh_key(state, q, g)
    for p in range(begin, begin + q.group_planes):
        list_load(state, p)


@inlined
def start_plane(state, q, p, e, kind, now, log):  # type: ignore[no-untyped-def]
    """One plane's part of an array operation."""
    pop(state, p)
    if kind == READ:
        k = free_buffer(state, q, p)
        b = p * MAX_BUFFERS + k
        state[BUFFER_STATE + b] = SENSING
        state[BUFFER_PAGE + b] = state[PAGE + e]
        state[BUFFER_ENTRY + b] = e
        state[BUFFER_AGE + b] = state[AGE + e]
        state[BUFFER_SERIAL + b] = state[STREAM_SERIAL + state[STREAM + e]]
        state[PLANE_SENSES + p] += 1
        state[COUNTS + SENSES] += 1
        note(state, log, now, 0, p, k, e)
        return
    for k in range(q.buffers):
        b = p * MAX_BUFFERS + k
        state[BUFFER_PAGE + b] = -1
        if state[BUFFER_STATE + b] == HELD and state[BUFFER_PENDING + b] == 0:
            state[BUFFER_STATE + b] = EMPTY
    if kind == PROGRAM:
        k = state[WRITE_BUFFER + p]
        state[BUFFER_STATE + p * MAX_BUFFERS + k] = PROGRAMMING
        state[LOADED + p] = 0
        state[COUNTS + PROGRAMS] += 1
        note(state, log, now, 1, p, k, e)
    else:
        state[ERASING + p] = e + 1
        state[COUNTS + ERASES] += 1
        note(state, log, now, 2, p, -1, e)

"""The event-driven kernel of a flash channel: docs/flash_policy.md, jumping from event to event.

Between the end of an array operation, of a bus transfer, of a delivery, an arrival and a free command bus nothing
happens. Lines and array operations are in flash_lines.py, the state in flash_state.py.
"""

from __future__ import annotations

from archsim.kernels.flash_lines import (
    admit,
    free_buffer,
    list_load,
    note,
    refresh_key,
    start_operations,
    touch,
    transferable,
)
from archsim.kernels.flash_state import (
    ACTIVE,
    ADMIT_AT,
    ADMIT_DIRTY,
    ARRIVAL,
    BUFFER,
    BUFFER_ENTRY,
    BUFFER_PAGE,
    BUFFER_PENDING,
    BUFFER_STATE,
    BUS_BUFFER,
    BUS_END,
    BUS_ENTRY,
    BUS_PLANE,
    CHAIN,
    COMMAND_FREE,
    COUNTS,
    DELIVERY_HEAD,
    DELIVERY_TAIL,
    DONE,
    EMPTY,
    ERASING,
    FINISHED,
    FIRST,
    FREE,
    GROUP_END,
    HEAD,
    HELD,
    INDEX,
    JOB_DONE,
    JOB_OPEN,
    KIND,
    LINK_FREE,
    LOAD_LIST,
    LOAD_LISTED,
    LOADED,
    LOADING,
    LOADS,
    LOG_CAPACITY,
    MAX_BUFFERS,
    MAX_PLANES,
    NEVER,
    NEXT,
    NOW,
    PLANE,
    PREVIOUS,
    PROGRAMMING,
    RING,
    RING_COUNT,
    RING_HEAD,
    ROUND,
    SENSING,
    SIZE,
    STAGED,
    STARTABLE,
    STREAM,
    STREAM_JOB,
    STREAM_OPEN,
    TRANSFER_HEAD,
    TRANSFER_TAIL,
    USED,
    WRITE_BUFFER,
)
from archsim.kernels.jit import inlined, kernel, pointer

# Kinds and counts as plain ints for the compiler.
READ, PROGRAM, ERASE = 0, 1, 2
READS, WRITES, GRANULES, CODEWORDS, LATENCY, BUS_BUSY, LINK_BUSY = 3, 4, 6, 7, 8, 9, 10


@kernel
def advance_flash(state, q, stripes, trace, arrival, done, log, until):  # type: ignore[no-untyped-def]
    """Run a channel until a job finishes or the clock reaches `until`, whichever is first.

    Args:
        state: int64[STATE_LENGTH] (see `flash_state.new_state`), changed in place. All ticks before `state[NOW]` are
            simulated; `state[FINISHED]` jobs wait to be collected, and until they are nothing is simulated.
        q: a FlashTiming.
        stripes: a Striping.
        trace: int64[n * TRACE_WORDS], requests of trace streams; arrival: int64[n], their ticks.
        done: int64[n], completion tick of each trace request (empty: not recorded).
        log: int64[m, 8], the command log (empty: not recorded; a full log drops what follows).
        until: horizon; events at this tick or later are left for the next call.
    """
    state[LOG_CAPACITY] = log.shape[0]
    run_flash(
        pointer(state), q, pointer(stripes.plane_of), pointer(stripes.offset_of), pointer(stripes.per_round),
        stripes.plane_of.shape[0], pointer(trace), pointer(arrival), pointer(done), done.shape[0],
        pointer(log.reshape(log.size)), until, False,
    )  # fmt: skip


@inlined
def run_flash(  # type: ignore[no-untyped-def]
    state, q, plane_of, offset_of, per_round, table, trace, arrival, done, done_length, log, until, to_round
):
    """`advance_flash` on pointers; with `to_round` also until a stream enters a new round of the striping table."""
    state[ROUND] = 0
    while state[FINISHED] == 0:
        now = next_event(state, q)
        if now >= until:
            state[NOW] = max(state[NOW], until)
            return
        for kind in range(3):
            while state[RING_COUNT + kind] > 0:
                g = state[RING + kind * MAX_PLANES + state[RING_HEAD + kind]]
                if state[GROUP_END + g] > now:
                    break
                end_operation(state, q, g, kind, now, done, done_length)
        if state[BUS_END] <= now:
            end_transfer(state, q)
        while state[DELIVERY_HEAD] >= 0 and state[DONE + state[DELIVERY_HEAD]] <= now:
            e = state[DELIVERY_HEAD]
            state[DELIVERY_HEAD] = state[NEXT + e]
            if state[DELIVERY_HEAD] < 0:
                state[DELIVERY_TAIL] = -1
            complete(state, e, now, done, done_length)
        if state[ADMIT_DIRTY] != 0 or state[ADMIT_AT] <= now:
            admit(state, q, now, plane_of, offset_of, per_round, table, trace, arrival)
        start_operations(state, q, now, log)
        load_programs(state, q, now)
        if state[BUS_ENTRY] < 0 and state[TRANSFER_HEAD] >= 0:
            start_transfer(state, q, now, log)
        state[NOW] = now + 1
        if to_round and state[ROUND] != 0:
            return


@inlined
def next_event(state, q):  # type: ignore[no-untyped-def]
    """The next tick at which anything happens."""
    now = state[NOW]
    if state[ADMIT_DIRTY] != 0:
        return now
    tick = min(state[BUS_END], state[ADMIT_AT])
    for kind in range(3):
        if state[RING_COUNT + kind] > 0:
            tick = min(tick, state[GROUP_END + state[RING + kind * MAX_PLANES + state[RING_HEAD + kind]]])
    if state[DELIVERY_HEAD] >= 0:
        tick = min(tick, state[DONE + state[DELIVERY_HEAD]])
    if state[STARTABLE] > 0 and state[ACTIVE] < q.most_active:
        tick = min(tick, state[COMMAND_FREE])
    return max(tick, now)


@inlined
def end_operation(state, q, g, kind, now, done, done_length):  # type: ignore[no-untyped-def]
    """Step 1 of the policy, for one group."""
    head = state[RING_HEAD + kind] + 1
    state[RING_HEAD + kind] = 0 if head == MAX_PLANES else head
    state[RING_COUNT + kind] -= 1
    state[GROUP_END + g] = NEVER
    state[ACTIVE] -= 1
    for p in range(g * q.group_planes, (g + 1) * q.group_planes):
        if kind == ERASE:
            if state[ERASING + p] > 0:
                complete(state, state[ERASING + p] - 1, now, done, done_length)
                state[ERASING + p] = 0
        else:
            for k in range(q.buffers):
                b = p * MAX_BUFFERS + k
                if kind == READ and state[BUFFER_STATE + b] == SENSING:
                    release_reads(state, b, k, now)
                elif kind == PROGRAM and state[BUFFER_STATE + b] == PROGRAMMING:
                    state[BUFFER_STATE + b] = EMPTY
                    complete(state, state[BUFFER_ENTRY + b], now, done, done_length)
        list_load(state, p)
    refresh_key(state, q, g)


@inlined
def release_reads(state, b, k, now):  # type: ignore[no-untyped-def]
    """The page is in its buffer: its requests become transferable."""
    state[BUFFER_STATE + b] = HELD
    pending = 0
    e = state[BUFFER_ENTRY + b]
    while e >= 0:
        state[BUFFER + e] = k
        transferable(state, e, now)
        pending += 1
        e = state[CHAIN + e]
    state[BUFFER_PENDING + b] = pending


@inlined
def complete(state, e, now, done, done_length):  # type: ignore[no-untyped-def]
    """A request is complete: count it and give back what it held."""
    if state[KIND + e] == READ:
        state[COUNTS + READS] += 1
        state[COUNTS + GRANULES] += state[SIZE + e]
    elif state[KIND + e] == PROGRAM:
        state[COUNTS + WRITES] += 1
    state[COUNTS + LATENCY] += now - state[ARRIVAL + e]
    s = state[STREAM + e]
    state[STREAM_OPEN + s] -= 1
    state[STAGED] -= state[SIZE + e]
    job = state[STREAM_JOB + s]
    state[JOB_OPEN + job] -= 1
    if state[JOB_OPEN + job] == 0:
        state[JOB_DONE + job] = now
        state[FINISHED] += 1
    if state[INDEX + e] >= 0 and done_length > 0:
        done[state[INDEX + e]] = now
    state[USED] -= 1
    state[FREE + state[USED]] = e
    state[ADMIT_DIRTY] = 1


@inlined
def end_transfer(state, q):  # type: ignore[no-untyped-def]
    """Step 2 of the policy."""
    p = state[BUS_PLANE]
    b = p * MAX_BUFFERS + state[BUS_BUFFER]
    state[BUS_END] = NEVER
    state[BUS_ENTRY] = -1
    if state[BUFFER_STATE + b] == LOADING:
        state[LOADED + p] = 2
        touch(state, q, p)
        return
    state[BUFFER_PENDING + b] -= 1
    if state[BUFFER_PENDING + b] == 0:
        if state[BUFFER_PAGE + b] < 0:
            state[BUFFER_STATE + b] = EMPTY
        touch(state, q, p)


@inlined
def load_programs(state, q, now):  # type: ignore[no-untyped-def]
    """Step 6 of the policy."""
    for k in range(state[LOADS]):
        p = state[LOAD_LIST + k]
        state[LOAD_LISTED + p] = 0
        e = state[HEAD + p]
        if e < 0 or state[KIND + e] != PROGRAM or state[LOADED + p] != 0:
            continue
        free = free_buffer(state, q, p)
        if free < 0:
            continue
        b = p * MAX_BUFFERS + free
        state[LOADED + p] = 1
        state[WRITE_BUFFER + p] = free
        state[BUFFER_STATE + b] = LOADING
        state[BUFFER_PAGE + b] = -1
        state[BUFFER_ENTRY + b] = e
        state[BUFFER + e] = free
        transferable(state, e, now)
        refresh_key(state, q, p // q.group_planes)
    state[LOADS] = 0


@inlined
def start_transfer(state, q, now, log):  # type: ignore[no-untyped-def]
    """Step 7 of the policy."""
    e = state[TRANSFER_HEAD]
    state[TRANSFER_HEAD] = state[NEXT + e]
    if state[TRANSFER_HEAD] >= 0:
        state[PREVIOUS + state[TRANSFER_HEAD]] = -1
    else:
        state[TRANSFER_TAIL] = -1
    p = state[PLANE + e]
    first = state[FIRST + e] // q.codeword
    codewords = (state[FIRST + e] + state[SIZE + e] - 1) // q.codeword - first + 1
    ticks = codewords * q.codeword_ticks
    state[BUS_ENTRY] = e
    state[BUS_END] = now + ticks
    state[BUS_PLANE] = p
    state[BUS_BUFFER] = state[BUFFER + e]
    state[COUNTS + CODEWORDS] += codewords
    state[COUNTS + BUS_BUSY] += ticks
    if state[KIND + e] == PROGRAM:
        note(state, log, now, 4, p, state[BUFFER + e], e)
        return
    note(state, log, now, 3, p, state[BUFFER + e], e)
    state[DONE + e] = delivery(state, q, e, codewords, now)
    state[LINK_FREE] = state[DONE + e]
    state[COUNTS + LINK_BUSY] += state[SIZE + e] * q.link_ticks
    state[NEXT + e] = -1
    if state[DELIVERY_TAIL] >= 0:
        state[NEXT + state[DELIVERY_TAIL]] = e
    else:
        state[DELIVERY_HEAD] = e
    state[DELIVERY_TAIL] = e


@inlined
def delivery(state, q, e, codewords, now):  # type: ignore[no-untyped-def]
    """When the last granule of a read is over the link.

    The link waits for a codeword or the codewords wait for the link: the last to hold the others up decides. From the
    second to the last, waiting grows or shrinks by the same step with each codeword, so the ends are enough."""
    size = state[SIZE + e]
    in_first = min(size, q.codeword - state[FIRST + e] % q.codeword)
    out = now + q.codeword_ticks + q.ecc_ticks  # of the first codeword
    end = max(state[LINK_FREE], out) + size * q.link_ticks
    if codewords > 1:
        rest = size - in_first
        in_last = rest - (codewords - 2) * q.codeword
        end = max(end, out + q.codeword_ticks + rest * q.link_ticks)
        end = max(end, out + (codewords - 1) * q.codeword_ticks + in_last * q.link_ticks)
    return end

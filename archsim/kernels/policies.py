"""What front policies add to the steps of a request: admission, column command, ACT (policy: "Scheduler", "The write
queue answers").

Kernels of channels without them don't contain this code (see `special.Shape`). How the next command is chosen under
them is in order.py.
"""

from __future__ import annotations

from archsim.kernels.channel import (
    ANSWERED,
    COUNTS,
    ENTRY_ADDRESS,
    ENTRY_NEXT,
    ENTRY_SINCE,
    ENTRY_STARVES,
    HEAD,
    HISTOGRAM,
    LIST_END,
    MAX_BANKS,
    PASSED,
    RECORD_DONE,
    ROW_SHIFT,
    STREAM_BASE,
    STREAM_TRACE,
    UNUSED_AT,
    pseudo_channel,
)
from archsim.kernels.histogram import BUCKETS, bucket_of
from archsim.kernels.jit import inlined
from archsim.kernels.tiles import burst_issued, leave_stream
from archsim.kernels.timing import DramTiming

# timing.Count, as plain ints for the compiler. COALESCED comes after FORWARDED.
LATENCY, FORWARDED = 10, 16


@inlined
def is_capped(pc, q: DramTiming, bank):  # type: ignore[no-untyped-def]
    """Whether only the oldest request is eligible in a bank with an open row."""
    return 0 < q.row_hit_cap <= pc[PASSED + bank]


@inlined
def note_admission(pc, q: DramTiming, entry, arrives, now):  # type: ignore[no-untyped-def]
    """A request enters its queue."""
    pc[ENTRY_STARVES + entry] = now + q.starve_after
    pc[ENTRY_SINCE + entry] = arrives


@inlined
def note_activate(pc, q: DramTiming, bank, now):  # type: ignore[no-untyped-def]
    """A row opens."""
    pc[PASSED + bank] = 0
    pc[UNUSED_AT + bank] = now + q.page_timeout


@inlined
def note_column(state, pc, q: DramTiming, w, bank, entry, now, complete):  # type: ignore[no-untyped-def]
    """A request that is still in its bank's list gets its column command."""
    if pc[HEAD + w * MAX_BANKS + bank] != entry:
        pc[PASSED + bank] += 1
    pc[UNUSED_AT + bank] = now + q.page_timeout
    count_latency(state, q, w, complete - pc[ENTRY_SINCE + entry])


@inlined
def count_latency(state, q: DramTiming, w, latency):  # type: ignore[no-untyped-def]
    """Add a request to the histogram, if one is kept."""
    if q.latency_histogram != 0:
        state[HISTOGRAM + w * BUCKETS + bucket_of(latency)] += 1


@inlined
def queued_write(state, q: DramTiming, p, address, bank_of):  # type: ignore[no-untyped-def]
    """The queue entry of a write to an address; at least LIST_END if there is none."""
    pc = pseudo_channel(state, p)
    row_set = q.stack_ids * q.bank_groups * q.banks_per_group * q.columns
    shift = state[ROW_SHIFT]
    row = address >> shift if shift >= 0 else address // row_set
    entry = pc[HEAD + MAX_BANKS + bank_of[address - row * row_set]]
    while entry < LIST_END and pc[ENTRY_ADDRESS + entry] != address:
        entry = pc[ENTRY_NEXT + entry]
    return entry


@inlined
def answered_by_queue(state, q: DramTiming, p, w, s, index, address, arrives, now, bank_of, done):  # type: ignore[no-untyped-def]
    """Whether a queued write has the data of this read, or takes those of this write; then the request is served.

    It takes no age: nothing ever compares it with another one."""
    answers = q.write_coalescing if w != 0 else q.write_forwarding
    if answers == 0 or queued_write(state, q, p, address, bank_of) >= LIST_END:
        return False
    complete = now + q.forward_ticks
    state[COUNTS + FORWARDED + w] += 1
    state[COUNTS + LATENCY] += complete - arrives
    count_latency(state, q, w, complete - arrives)
    if state[RECORD_DONE] > 0 and state[STREAM_TRACE + s] != 0:
        done[pseudo_channel(state, p)[STREAM_BASE + s] + index] = complete + ANSWERED
    if burst_issued(state, q, p, s, w, complete):
        leave_stream(state, q, s)
    return True

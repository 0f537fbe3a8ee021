"""The choice of the next command under front policies: first come, first served, and rows that nobody wants any more
(policy: "Scheduler", "Page policy").

Kernels of channels without them don't contain this code (see `special.Shape`). Under these policies candidates are
searched anew at each event instead of being kept.
"""

from __future__ import annotations

from archsim.kernels.candidates import (
    activate_floor,
    age_key,
    column_floor,
    find_candidates,
    is_blocked,
    is_held,
    next_hit,
    precharge_floor,
)
from archsim.kernels.channel import (
    BEST_COLUMN,
    BEST_ROW,
    BUS_OK,
    CLOSED,
    COLUMN_DIRTY,
    COLUMN_OK,
    ENTRY_AGE,
    ENTRY_ROW,
    ENTRY_STARVES,
    HEAD,
    HIT_SLOT,
    KEY_BITS,
    LIST_END,
    MAX_BANKS,
    MAX_STACK_IDS,
    NEVER,
    NO_KEY,
    OPEN_ROW,
    PRE_OK,
    READY,
    ROW_DIRTY,
    STACK_ID_OF,
    UNUSED_AT,
    WRITE_MODE,
    pseudo_channel,
)
from archsim.kernels.commands import precharge
from archsim.kernels.jit import inlined
from archsim.kernels.special import pseudo_channels
from archsim.kernels.timing import DramTiming

FCFS = 1  # timing.SchedulerMode, as a plain int for the compiler


@inlined
def may_serve_in_order(q: DramTiming):  # type: ignore[no-untyped-def]
    """Whether a pseudo-channel ever considers its oldest request alone."""
    return q.scheduler == FCFS or q.starve_after > 0


@inlined
def find_by_policy(state, q: DramTiming, p, now):  # type: ignore[no-untyped-def]
    """Bring the candidates of pseudo-channel p up to date. Returns the tick at which its oldest request will starve."""
    pc = pseudo_channel(state, p)
    bank, starves = 0, NEVER
    if may_serve_in_order(q):
        pc[COLUMN_DIRTY] = 1
        pc[ROW_DIRTY] = 1
        bank = oldest_bank(state, q, p)
        starves = starving_tick(pc, q, pc[HEAD + pc[WRITE_MODE] * MAX_BANKS + bank])
    if starves > now:
        find_candidates(state, q, p, now)
        return starves
    find_for_oldest(state, q, p, bank, now)
    return NEVER


@inlined
def starving_tick(pc, q: DramTiming, oldest):  # type: ignore[no-untyped-def]
    """From when on this request is considered alone; NEVER if it is none."""
    if oldest >= LIST_END:
        return NEVER
    return 0 if q.scheduler == FCFS else pc[ENTRY_STARVES + oldest]


@inlined
def oldest_bank(state, q: DramTiming, p):  # type: ignore[no-untyped-def]
    """The bank of the oldest queued request of the current mode (bank 0 if nothing is queued)."""
    pc = pseudo_channel(state, p)
    o = pc[WRITE_MODE] * MAX_BANKS
    found = 0
    for bank in range(q.stack_ids * q.bank_groups * q.banks_per_group):
        if pc[ENTRY_AGE + pc[HEAD + o + bank]] < pc[ENTRY_AGE + pc[HEAD + o + found]]:
            found = bank
    return found


@inlined
def find_for_oldest(state, q: DramTiming, p, bank, now):  # type: ignore[no-untyped-def]
    """The oldest request, which is in this bank, is the only one considered."""
    pc = pseudo_channel(state, p)
    pc[BEST_COLUMN] = NO_KEY
    pc[BEST_ROW] = NO_KEY
    if is_held(pc, q, bank) or is_blocked(pc, q):
        return
    w = pc[WRITE_MODE]
    o = w * MAX_BANKS + bank
    oldest = pc[HEAD + o]
    key = age_key(pc, oldest, bank)
    if pc[OPEN_ROW + bank] == pc[ENTRY_ROW + oldest]:
        bus_ok = pc[BUS_OK + w * MAX_STACK_IDS + state[STACK_ID_OF + bank]]
        earliest = max(pc[COLUMN_OK + o], max(bus_ok, column_floor(state, q, pc, now)))
        pc[BEST_COLUMN] = (earliest << KEY_BITS) + key
        return
    closed = pc[CLOSED + bank] != 0
    floor = activate_floor(state, q, pc, now) if closed else precharge_floor(state, q, pc, now)
    pc[BEST_ROW] = (max(floor, pc[READY + bank]) << KEY_BITS) + key


@inlined
def is_wanted(pc, q: DramTiming, bank):  # type: ignore[no-untyped-def]
    """Whether a queued request of either direction, eligible or not, hits a bank's open row."""
    for o in (bank, MAX_BANKS + bank):
        hit = pc[HIT_SLOT + o]
        if hit >= LIST_END and q.row_hit_cap > 0:
            hit = next_hit(pc, o, pc[HEAD + o], pc[OPEN_ROW + bank])
        if hit < LIST_END:
            return True
    return False


@inlined
def unwanted_ok(pc, q: DramTiming, bank):  # type: ignore[no-untyped-def]
    """When the page policy may close a bank as far as the bank is concerned; NEVER if it may not."""
    if pc[CLOSED + bank] != 0 or is_held(pc, q, bank) or is_wanted(pc, q, bank):
        return NEVER
    return max(pc[PRE_OK + bank], pc[UNUSED_AT + bank])


@inlined
def unwanted_tick(state, q: DramTiming, p, now):  # type: ignore[no-untyped-def]
    """When pseudo-channel p may next close a row that nobody wants."""
    pc = pseudo_channel(state, p)
    if is_blocked(pc, q):
        return NEVER
    earliest = NEVER
    for bank in range(q.stack_ids * q.bank_groups * q.banks_per_group):
        earliest = min(earliest, unwanted_ok(pc, q, bank))
    return max(earliest, precharge_floor(state, q, pc, now))


@inlined
def close_unwanted_row(state, q: DramTiming, now, log):  # type: ignore[no-untyped-def]
    """After all demand candidates: if the row bus is still free, close the first row whose time is over."""
    for p in range(pseudo_channels(q)):
        pc = pseudo_channel(state, p)
        if precharge_floor(state, q, pc, now) > now or is_blocked(pc, q):
            continue
        for bank in range(q.stack_ids * q.bank_groups * q.banks_per_group):
            if unwanted_ok(pc, q, bank) <= now:
                precharge(state, q, p, bank, now, log)
                return

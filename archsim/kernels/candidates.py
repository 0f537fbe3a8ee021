"""What each pseudo-channel could do next: one minimum over banks.

A candidate is `tick << KEY_BITS | age << BANK_BITS | bank`, so that the smallest is the earliest legal command and,
among equals, the oldest request (FR-FCFS). The keys of banks and the best candidates are kept until something they
depend on changes: whoever changes it sets COLUMN_DIRTY or ROW_DIRTY, or offers the bank that became a candidate,
and calls `refresh_keys` for a bank that opens or closes.
"""

from __future__ import annotations

from archsim.kernels.channel import (
    AWAKE_AT,
    BANK_BITS,
    BEST_COLUMN,
    BEST_ROW,
    BUS_OK,
    CLOSED,
    COLUMN_BUS_FREE,
    COLUMN_DIRTY,
    COLUMN_OK,
    ENTRY_AGE,
    ENTRY_NEXT,
    ENTRY_ROW,
    FAW,
    FAW_NEXT,
    HEAD,
    HELD_BANK,
    HIT_KEY,
    HIT_SLOT,
    KEY_BITS,
    LIST_END,
    MAX_BANKS,
    MAX_STACK_IDS,
    NO_KEY,
    OPEN_ROW,
    POWER,
    PRE_ANY_OK,
    READY,
    REFPB_OK,
    REFRESHING,
    ROW_BUS_FREE,
    ROW_DIRTY,
    ROW_KEY,
    RRD_OK,
    STACK_ID_OF,
    WRITE_MODE,
    pseudo_channel,
)
from archsim.kernels.jit import inlined
from archsim.kernels.policies import is_capped
from archsim.kernels.special import front_policies, powers_down, same_bank
from archsim.kernels.timing import DramTiming

ALL_BANK = 1  # timing.RefreshMode, as a plain int for the compiler


@inlined
def refresh_keys(state, q: DramTiming, p, bank):  # type: ignore[no-untyped-def]
    """Recompute from the queues what the searches read about one bank."""
    pc = pseudo_channel(state, p)
    row = pc[OPEN_ROW + bank]
    held = is_held(pc, q, bank)
    for w in range(2):
        o = w * MAX_BANKS + bank
        hit = next_hit(pc, o, pc[HEAD + o], row) if row >= 0 else LIST_END + o
        if front_policies(q) and hit != pc[HEAD + o] and is_capped(pc, q, bank):
            hit = LIST_END + o  # only the oldest request is eligible
        pc[HIT_SLOT + o] = hit
        pc[HIT_KEY + o] = NO_KEY if held else age_key(pc, hit, bank)
        pc[ROW_KEY + o] = NO_KEY if held or hit < LIST_END else age_key(pc, pc[HEAD + o], bank)


@inlined
def is_held(pc, q: DramTiming, bank):  # type: ignore[no-untyped-def]
    """Whether the bank waits for its refresh, and nothing else may go there."""
    if same_bank(q):
        return pc[HELD_BANK] >= 0 and pc[HELD_BANK] <= bank < pc[HELD_BANK] + q.bank_groups
    return pc[HELD_BANK] == bank


@inlined
def next_hit(pc, o, entry, row):  # type: ignore[no-untyped-def]
    """The first request for a row in the list of a bank and direction from an entry on, or the end of the list."""
    pc[ENTRY_ROW + LIST_END + o] = row
    while pc[ENTRY_ROW + entry] != row:
        entry = pc[ENTRY_NEXT + entry]
    return entry


@inlined
def age_key(pc, entry, bank):  # type: ignore[no-untyped-def]
    """Low bits of a candidate; at least NO_KEY for the end of a list."""
    return (pc[ENTRY_AGE + entry] << BANK_BITS) | bank


@inlined
def rising_edge(q: DramTiming, tick):  # type: ignore[no-untyped-def]
    """The first rising clock edge at or after a tick."""
    edge = q.ticks_per_ck - 1  # ticks_per_ck is a power of two
    return (tick + edge) & ~edge


@inlined
def awake(pc, q: DramTiming, now):  # type: ignore[no-untyped-def]
    """Now, or when the pseudo-channel takes commands again after power-down."""
    return max(now, pc[AWAKE_AT]) if powers_down(q) else now


@inlined
def column_floor(state, q: DramTiming, pc, now):  # type: ignore[no-untyped-def]
    return rising_edge(q, max(awake(pc, q, now), state[COLUMN_BUS_FREE]))


@inlined
def activate_floor(state, q: DramTiming, pc, now):  # type: ignore[no-untyped-def]
    """Earliest ACT of a pseudo-channel, whatever the bank."""
    four_ago = pc[FAW + (pc[FAW_NEXT] & 3)]
    earliest = max(max(pc[RRD_OK], pc[REFPB_OK]), four_ago)
    return rising_edge(q, max(earliest, max(awake(pc, q, now), state[ROW_BUS_FREE])))


@inlined
def precharge_floor(state, q: DramTiming, pc, now):  # type: ignore[no-untyped-def]
    """Earliest PRE of a pseudo-channel, whatever the bank."""
    return max(pc[PRE_ANY_OK], max(awake(pc, q, now), state[ROW_BUS_FREE]))


@inlined
def is_blocked(pc, q: DramTiming):  # type: ignore[no-untyped-def]
    """Whether no request of the pseudo-channel may have a command: all-bank refresh, or power-down."""
    if powers_down(q) and pc[POWER] != 0:
        return True
    return pc[REFRESHING] != 0 and q.refresh_mode == ALL_BANK


@inlined
def find_candidates(state, q: DramTiming, p, now):  # type: ignore[no-untyped-def]
    """Bring the best column and the best row candidate of pseudo-channel p up to date."""
    pc = pseudo_channel(state, p)
    if is_blocked(pc, q):
        pc[BEST_COLUMN] = NO_KEY
        pc[BEST_ROW] = NO_KEY
        return
    banks_per_sid = q.bank_groups * q.banks_per_group
    banks = q.stack_ids * banks_per_sid
    w = pc[WRITE_MODE]
    o = w * MAX_BANKS
    if pc[COLUMN_DIRTY] != 0:
        pc[COLUMN_DIRTY] = 0
        floor = column_floor(state, q, pc, now)
        best = NO_KEY
        for sid in range(q.stack_ids):
            earliest = max(floor, pc[BUS_OK + w * MAX_STACK_IDS + sid])
            lo = o + sid * banks_per_sid
            for b in range(banks_per_sid):
                best = min(best, (max(pc[COLUMN_OK + lo + b], earliest) << KEY_BITS) + pc[HIT_KEY + lo + b])
        pc[BEST_COLUMN] = best
    if pc[ROW_DIRTY] != 0:
        pc[ROW_DIRTY] = 0
        pre_floor = precharge_floor(state, q, pc, now)
        differs = activate_floor(state, q, pc, now) ^ pre_floor
        best = NO_KEY
        for b in range(banks):
            earliest = max(pc[READY + b], pre_floor ^ (differs & pc[CLOSED + b]))
            best = min(best, (earliest << KEY_BITS) + pc[ROW_KEY + o + b])
        pc[BEST_ROW] = best


@inlined
def offer_column(state, q: DramTiming, p, w, bank, now):  # type: ignore[no-untyped-def]
    """Let a bank that has got its oldest hit of the current mode compete with the best column candidate."""
    pc = pseudo_channel(state, p)
    o = w * MAX_BANKS + bank
    sid = state[STACK_ID_OF + bank]
    earliest = max(pc[BUS_OK + w * MAX_STACK_IDS + sid], column_floor(state, q, pc, now))
    key = (max(pc[COLUMN_OK + o], earliest) << KEY_BITS) + pc[HIT_KEY + o]
    pc[BEST_COLUMN] = min(pc[BEST_COLUMN], key)


@inlined
def offer_row(state, q: DramTiming, p, w, bank, now):  # type: ignore[no-untyped-def]
    """Let a bank that has got requests of the current mode but no hit compete with the best row candidate."""
    pc = pseudo_channel(state, p)
    closed = pc[CLOSED + bank] != 0
    floor = activate_floor(state, q, pc, now) if closed else precharge_floor(state, q, pc, now)
    key = (max(floor, pc[READY + bank]) << KEY_BITS) + pc[ROW_KEY + w * MAX_BANKS + bank]
    pc[BEST_ROW] = min(pc[BEST_ROW], key)

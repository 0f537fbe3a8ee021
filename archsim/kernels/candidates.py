"""What each pseudo-channel could do next: one minimum over banks.

A candidate is `tick << KEY_BITS | age << BANK_BITS | bank`, so that the smallest is the earliest legal command and,
among equals, the oldest request (FR-FCFS). The keys of banks and the best candidates are kept until something they
depend on changes: whoever changes it sets COLUMN_DIRTY or ROW_DIRTY, or offers the bank that became a candidate,
and calls `refresh_keys` for a bank that opens or closes.
"""

from __future__ import annotations

from archsim.kernels.channel import (
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
    GROUP_ACT_OK,
    HEAD,
    HELD_BANK,
    HIT_KEY,
    HIT_SLOT,
    KEY_BITS,
    MAX_BANKS,
    MAX_PCS,
    MAX_STACK_IDS,
    NO_KEY,
    OPEN_ROW,
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
)
from archsim.kernels.jit import inlined
from archsim.kernels.timing import DramTiming

ALL_BANK = 1  # timing.RefreshMode, as a plain int for the compiler


@inlined
def refresh_keys(state, q: DramTiming, p, bank):  # type: ignore[no-untyped-def]
    """Recompute from the queues what the searches read about one bank."""
    row = state[OPEN_ROW + p * MAX_BANKS + bank]
    held = state[HELD_BANK + p] == bank
    for w in range(2):
        o = (2 * p + w) * MAX_BANKS + bank
        entry = state[HEAD + o]
        state[HIT_SLOT + o] = -1
        state[HIT_KEY + o] = NO_KEY
        state[ROW_KEY + o] = NO_KEY
        if entry < 0:
            continue
        oldest = entry
        if row >= 0:
            while entry >= 0 and state[ENTRY_ROW + entry] != row:
                entry = state[ENTRY_NEXT + entry]
            if entry >= 0:
                state[HIT_SLOT + o] = entry
                if not held:
                    state[HIT_KEY + o] = (state[ENTRY_AGE + entry] << BANK_BITS) | bank
                continue
        if not held:
            state[ROW_KEY + o] = (state[ENTRY_AGE + oldest] << BANK_BITS) | bank


@inlined
def pseudo_channels(q: DramTiming):  # type: ignore[no-untyped-def]
    """How many there are, in a form that tells the compiler "1 or 2": it unrolls short loops over them."""
    return 2 if q.pseudo_channels == MAX_PCS else 1


@inlined
def rising_edge(q: DramTiming, tick):  # type: ignore[no-untyped-def]
    """The first rising clock edge at or after a tick."""
    edge = q.ticks_per_ck - 1  # ticks_per_ck is a power of two
    return (tick + edge) & ~edge


@inlined
def column_floor(state, q: DramTiming, now):  # type: ignore[no-untyped-def]
    return rising_edge(q, max(now, state[COLUMN_BUS_FREE]))


@inlined
def activate_floor(state, p):  # type: ignore[no-untyped-def]
    """Earliest ACT of a pseudo-channel, whatever the bank."""
    four_ago = state[FAW + 4 * p + (state[FAW_NEXT + p] & 3)]
    return max(max(state[RRD_OK + p], state[REFPB_OK + p]), four_ago)


@inlined
def find_candidates(state, q: DramTiming, p, now):  # type: ignore[no-untyped-def]
    """Bring the best column and the best row candidate of pseudo-channel p up to date."""
    if state[REFRESHING + p] != 0 and q.refresh_mode == ALL_BANK:
        state[BEST_COLUMN + p] = NO_KEY
        state[BEST_ROW + p] = NO_KEY
        return
    banks_per_sid = q.bank_groups * q.banks_per_group
    banks = q.stack_ids * banks_per_sid
    o = (2 * p + state[WRITE_MODE + p]) * MAX_BANKS
    if state[COLUMN_DIRTY + p] != 0:
        state[COLUMN_DIRTY + p] = 0
        floor = column_floor(state, q, now)
        best = NO_KEY
        for sid in range(q.stack_ids):
            earliest = max(floor, state[BUS_OK + (2 * p + state[WRITE_MODE + p]) * MAX_STACK_IDS + sid])
            lo = o + sid * banks_per_sid
            for b in range(banks_per_sid):
                best = min(best, (max(state[COLUMN_OK + lo + b], earliest) << KEY_BITS) + state[HIT_KEY + lo + b])
        state[BEST_COLUMN + p] = best
    if state[ROW_DIRTY + p] != 0:
        state[ROW_DIRTY + p] = 0
        floor = max(now, state[ROW_BUS_FREE])
        act_floor = activate_floor(state, p)
        pre_floor = state[PRE_ANY_OK + p]
        edge = q.ticks_per_ck - 1
        i = p * MAX_BANKS
        best = NO_KEY
        for b in range(banks):
            shut = state[CLOSED + i + b]
            floors = max(shut & max(state[GROUP_ACT_OK + i + b], act_floor), ~shut & pre_floor)
            earliest = max(max(state[READY + i + b], floor), floors)
            earliest = (earliest + (shut & edge)) & ~(shut & edge)
            best = min(best, (earliest << KEY_BITS) + state[ROW_KEY + o + b])
        state[BEST_ROW + p] = best


@inlined
def offer_column(state, q: DramTiming, p, w, bank, now):  # type: ignore[no-untyped-def]
    """Let a bank that has got its oldest hit of the current mode compete with the best column candidate."""
    o = (2 * p + w) * MAX_BANKS + bank
    sid = state[STACK_ID_OF + bank]
    earliest = max(state[BUS_OK + (2 * p + w) * MAX_STACK_IDS + sid], column_floor(state, q, now))
    key = (max(state[COLUMN_OK + o], earliest) << KEY_BITS) + state[HIT_KEY + o]
    state[BEST_COLUMN + p] = min(state[BEST_COLUMN + p], key)


@inlined
def offer_row(state, q: DramTiming, p, w, bank, now):  # type: ignore[no-untyped-def]
    """Let a bank that has got requests of the current mode but no hit compete with the best row candidate."""
    i = p * MAX_BANKS + bank
    earliest = max(max(now, state[ROW_BUS_FREE]), state[READY + i])
    if state[CLOSED + i] == 0:
        earliest = max(earliest, state[PRE_ANY_OK + p])
    else:
        earliest = max(earliest, max(state[GROUP_ACT_OK + i], activate_floor(state, p)))
        earliest = rising_edge(q, earliest)
    key = (earliest << KEY_BITS) + state[ROW_KEY + (2 * p + w) * MAX_BANKS + bank]
    state[BEST_ROW + p] = min(state[BEST_ROW + p], key)

"""Refresh of a pseudo-channel, all banks at once or bank by bank (policy: step 3)."""

from __future__ import annotations

from archsim.kernels.candidates import refresh_keys, rising_edge
from archsim.kernels.channel import (
    ACT_OK,
    CHECKPOINT,
    CLOSED,
    COLUMN_DIRTY,
    COUNTS,
    DUE,
    HELD_BANK,
    MAX_BANKS,
    NEVER,
    OPEN_ROW,
    POINTER,
    PRE_ANY_OK,
    PRE_OK,
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
)
from archsim.kernels.commands import hold_row_bus, precharge, write_log
from archsim.kernels.jit import inlined
from archsim.kernels.timing import DramTiming

# timing.RefreshMode and timing.Command (and the counts of commands), as plain ints for the compiler.
ALL_BANK, PER_BANK = 1, 2
PREAB, REFAB, REFPB = 2, 5, 6


@inlined
def begin_refresh(state, q: DramTiming, p):  # type: ignore[no-untyped-def]
    """A refresh has become due: block the pseudo-channel (all-bank) or hold one bank (per-bank)."""
    state[REFRESHING + p] = 1
    if q.refresh_mode == ALL_BANK:
        earlier_end = min(state[REFRESH_END + p], state[DUE + p])  # an overdue refresh begins while the last one runs
        state[REFRESH_FOLDED + p] += max(0, earlier_end - max(state[REFRESH_BEGIN + p], state[SLOT_END + p]))
        state[REFRESH_BEGIN + p] = state[DUE + p]
        state[REFRESH_END + p] = NEVER
        return
    state[HELD_BANK + p] = state[POINTER + p]
    refresh_keys(state, q, p, state[HELD_BANK + p])
    state[COLUMN_DIRTY + p] = 1
    state[ROW_DIRTY + p] = 1


@inlined
def refresh_tick(state, q: DramTiming, p, now):  # type: ignore[no-untyped-def]
    """When the next command that the pending refresh needs can issue."""
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
    earliest = max(now, state[ROW_BUS_FREE])
    if q.refresh_mode == PER_BANK:
        i = p * MAX_BANKS + state[HELD_BANK + p]
        if state[CLOSED + i] == 0:
            return max(earliest, max(state[PRE_OK + i], state[PRE_ANY_OK + p]))
        earliest = max(earliest, max(state[ACT_OK + i], max(state[REFPB_OK + p], state[RRD_OK + p])))
        return rising_edge(q, earliest)
    any_open = False
    for i in range(p * MAX_BANKS, p * MAX_BANKS + banks):
        if state[CLOSED + i] == 0:
            any_open = True
            earliest = max(earliest, state[PRE_OK + i])
    if any_open:
        return max(earliest, state[PRE_ANY_OK + p])
    for i in range(p * MAX_BANKS, p * MAX_BANKS + banks):
        earliest = max(earliest, state[ACT_OK + i])
    return rising_edge(q, earliest)


@inlined
def refresh(state, q: DramTiming, p, now, log):  # type: ignore[no-untyped-def]
    """Issue the command that the pending refresh of pseudo-channel p needs next."""
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
    state[ROW_DIRTY + p] = 1
    if q.refresh_mode == PER_BANK:
        bank = state[HELD_BANK + p]
        i = p * MAX_BANKS + bank
        if state[CLOSED + i] == 0:
            precharge(state, q, p, bank, now, log)
            return
        hold_row_bus(state, q, now, q.precharge_ticks)
        write_log(state, q, log, now, REFPB, p, bank, -1, -1)
        state[COUNTS + REFPB] += 1
        state[ACT_OK + i] = now + q.tRFCpb
        state[READY + i] = state[ACT_OK + i]
        state[REFPB_OK + p] = now + q.tRREFD
        state[DUE + p] += q.tREFIpb
        state[POINTER + p] = (bank + 1) % banks
        state[HELD_BANK + p] = -1
        state[REFRESHING + p] = 0
        refresh_keys(state, q, p, bank)
        state[COLUMN_DIRTY + p] = 1
        if state[POINTER + p] == 0 and p == q.pseudo_channels - 1:
            state[CHECKPOINT] = 1
        return
    any_open = False
    for bank in range(banks):
        i = p * MAX_BANKS + bank
        if state[CLOSED + i] == 0:
            any_open = True
            state[ACT_OK + i] = max(state[ACT_OK + i], now + q.tRP)
            state[READY + i] = state[ACT_OK + i]
            state[CLOSED + i] = -1
            state[OPEN_ROW + i] = -1
            refresh_keys(state, q, p, bank)
    hold_row_bus(state, q, now, q.precharge_ticks)
    if any_open:
        write_log(state, q, log, now, PREAB, p, -1, -1, -1)
        state[COUNTS + PREAB] += 1
        state[PRE_ANY_OK + p] = now + q.tPPD
        return
    write_log(state, q, log, now, REFAB, p, -1, -1, -1)
    state[COUNTS + REFAB] += 1
    for i in range(p * MAX_BANKS, p * MAX_BANKS + banks):
        state[ACT_OK + i] = now + q.tRFCab
        state[READY + i] = now + q.tRFCab
    state[DUE + p] += q.tREFI
    state[REFRESHING + p] = 0
    state[REFRESH_END + p] = now + q.tRFCab
    state[COLUMN_DIRTY + p] = 1
    if p == q.pseudo_channels - 1:
        state[CHECKPOINT] = 1

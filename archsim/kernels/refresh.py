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
    GROUP_ACT_OK,
    HELD_BANK,
    NEVER,
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
    pseudo_channel,
)
from archsim.kernels.commands import close_row, hold_row_bus, precharge, write_log
from archsim.kernels.jit import inlined
from archsim.kernels.timing import DramTiming

# timing.RefreshMode and timing.Command (and the counts of commands), as plain ints for the compiler.
ALL_BANK, PER_BANK = 1, 2
PREAB, REFAB, REFPB = 2, 5, 6


@inlined
def begin_refresh(state, q: DramTiming, p):  # type: ignore[no-untyped-def]
    """A refresh has become due: block the pseudo-channel (all-bank) or hold one bank (per-bank)."""
    pc = pseudo_channel(state, p)
    pc[REFRESHING] = 1
    if q.refresh_mode == ALL_BANK:
        earlier_end = min(pc[REFRESH_END], pc[DUE])  # an overdue refresh begins while the last one runs
        pc[REFRESH_FOLDED] += max(0, earlier_end - max(pc[REFRESH_BEGIN], pc[SLOT_END]))
        pc[REFRESH_BEGIN] = pc[DUE]
        pc[REFRESH_END] = NEVER
        return
    pc[HELD_BANK] = pc[POINTER]
    refresh_keys(state, q, p, pc[HELD_BANK])
    pc[COLUMN_DIRTY] = 1
    pc[ROW_DIRTY] = 1


@inlined
def refresh_tick(state, q: DramTiming, p, now):  # type: ignore[no-untyped-def]
    """When the next command that the pending refresh needs can issue."""
    pc = pseudo_channel(state, p)
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
    earliest = max(now, state[ROW_BUS_FREE])
    if q.refresh_mode == PER_BANK:
        bank = pc[HELD_BANK]
        if pc[CLOSED + bank] == 0:
            return max(earliest, max(pc[PRE_OK + bank], pc[PRE_ANY_OK]))
        earliest = max(earliest, max(pc[ACT_OK + bank], max(pc[REFPB_OK], pc[RRD_OK])))
        return rising_edge(q, earliest)
    any_open = False
    for bank in range(banks):
        if pc[CLOSED + bank] == 0:
            any_open = True
            earliest = max(earliest, pc[PRE_OK + bank])
    if any_open:
        return max(earliest, pc[PRE_ANY_OK])
    for bank in range(banks):
        earliest = max(earliest, pc[ACT_OK + bank])
    return rising_edge(q, earliest)


@inlined
def refresh(state, q: DramTiming, p, now, log):  # type: ignore[no-untyped-def]
    """Issue the command that the pending refresh of pseudo-channel p needs next."""
    pc = pseudo_channel(state, p)
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
    pc[ROW_DIRTY] = 1
    if q.refresh_mode == PER_BANK:
        bank = pc[HELD_BANK]
        if pc[CLOSED + bank] == 0:
            precharge(state, q, p, bank, now, log)
            return
        hold_row_bus(state, q, now, q.precharge_ticks)
        write_log(state, q, log, now, REFPB, p, bank, -1, -1)
        state[COUNTS + REFPB] += 1
        pc[ACT_OK + bank] = now + q.tRFCpb
        pc[READY + bank] = max(pc[ACT_OK + bank], pc[GROUP_ACT_OK + bank])
        pc[REFPB_OK] = now + q.tRREFD
        pc[DUE] += q.tREFIpb
        pc[POINTER] = (bank + 1) % banks
        pc[HELD_BANK] = -1
        pc[REFRESHING] = 0
        refresh_keys(state, q, p, bank)
        pc[COLUMN_DIRTY] = 1
        if pc[POINTER] == 0 and p == q.pseudo_channels - 1:
            state[CHECKPOINT] = 1
        return
    any_open = False
    for bank in range(banks):
        if pc[CLOSED + bank] == 0:
            any_open = True
            close_row(pc, q, bank, now)
            refresh_keys(state, q, p, bank)
    hold_row_bus(state, q, now, q.precharge_ticks)
    if any_open:
        write_log(state, q, log, now, PREAB, p, -1, -1, -1)
        state[COUNTS + PREAB] += 1
        pc[PRE_ANY_OK] = now + q.tPPD
        return
    write_log(state, q, log, now, REFAB, p, -1, -1, -1)
    state[COUNTS + REFAB] += 1
    for bank in range(banks):
        pc[ACT_OK + bank] = now + q.tRFCab
        pc[READY + bank] = max(pc[ACT_OK + bank], pc[GROUP_ACT_OK + bank])
    pc[DUE] += q.tREFI
    pc[REFRESHING] = 0
    pc[REFRESH_END] = now + q.tRFCab
    pc[COLUMN_DIRTY] = 1
    if p == q.pseudo_channels - 1:
        state[CHECKPOINT] = 1

"""Refresh of a pseudo-channel: all banks at once, bank by bank, or a bank of every group at once (policy: step 3)."""

from __future__ import annotations

from archsim.kernels.candidates import awake, refresh_keys, rising_edge
from archsim.kernels.channel import (
    ACT_OK,
    CHECKPOINT,
    CLOSED,
    COLUMN_DIRTY,
    COUNTS,
    DUE,
    GROUP_ACT_OK,
    HELD_BANK,
    LOOK_AT,
    NEVER,
    POINTER,
    POWER,
    PRE_ANY_OK,
    PRE_OK,
    READY,
    REFPB_OK,
    REFRESH_BEGIN,
    REFRESH_END,
    REFRESH_FOLDED,
    REFRESHING,
    REFSB_OK,
    ROW_BUS_FREE,
    ROW_DIRTY,
    RRD_OK,
    SLOT_END,
    STACK_ID_OF,
    pseudo_channel,
)
from archsim.kernels.commands import close_row, hold_row_bus, precharge, write_log
from archsim.kernels.jit import inlined
from archsim.kernels.refresh_choice import NOBODY, begins_at, choose_unit, end_unit, units
from archsim.kernels.special import powers_down, refresh_choice, same_bank
from archsim.kernels.timing import DramTiming

# timing.RefreshMode, timing.Command and timing.Count (the same up to REFPB), as plain ints for the compiler.
ALL_BANK = 1
PREAB, REFAB, REFPB, REFSB = 2, 5, 6, 7
REFSB_COUNT = 18


@inlined
def consider_refresh(state, q: DramTiming, p, now):  # type: ignore[no-untyped-def]
    """Begin a refresh if it is time for one. When to consider it again."""
    pc = pseudo_channel(state, p)
    if pc[REFRESHING] != 0:
        return NEVER
    at = pc[DUE]
    unit = pc[POINTER]
    if refresh_choice(q):
        at = begins_at(pc, q)
        if now >= at:
            if now < pc[LOOK_AT]:
                return pc[LOOK_AT]
            unit, again = choose_unit(pc, q, now)
            if unit == NOBODY:
                pc[LOOK_AT] = again
                return again
    if now < at:
        return at
    begin_refresh(state, q, p, unit, now)
    return NEVER


@inlined
def begin_refresh(state, q: DramTiming, p, unit, now):  # type: ignore[no-untyped-def]
    """A refresh gets under way: block the pseudo-channel (all-bank) or hold the unit's banks."""
    pc = pseudo_channel(state, p)
    pc[REFRESHING] = 1
    if q.refresh_mode == ALL_BANK:
        earlier_end = min(pc[REFRESH_END], now)  # an overdue refresh begins while the last one runs
        pc[REFRESH_FOLDED] += max(0, earlier_end - max(pc[REFRESH_BEGIN], pc[SLOT_END]))
        pc[REFRESH_BEGIN] = now
        pc[REFRESH_END] = NEVER
        return
    pc[HELD_BANK] = unit * unit_banks(q)
    for bank in range(pc[HELD_BANK], pc[HELD_BANK] + unit_banks(q)):
        refresh_keys(state, q, p, bank)
    pc[COLUMN_DIRTY] = 1
    pc[ROW_DIRTY] = 1


@inlined
def unit_banks(q: DramTiming):  # type: ignore[no-untyped-def]
    """Banks that a REFpb or REFsb covers."""
    return q.bank_groups if same_bank(q) else 1


@inlined
def refresh_tick(state, q: DramTiming, p, now):  # type: ignore[no-untyped-def]
    """When the next command that the refresh under way needs can issue."""
    pc = pseudo_channel(state, p)
    if powers_down(q) and pc[POWER] != 0:
        return NEVER
    earliest = max(awake(pc, q, now), state[ROW_BUS_FREE])
    if q.refresh_mode != ALL_BANK:
        return unit_refresh_tick(state, q, p, earliest)
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
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
def unit_refresh_tick(state, q: DramTiming, p, earliest):  # type: ignore[no-untyped-def]
    """When the first of the unit's open banks may be closed; if all are, when they may be refreshed."""
    pc = pseudo_channel(state, p)
    first = pc[HELD_BANK]
    closes = NEVER
    refreshes = max(pc[REFPB_OK], pc[RRD_OK])
    for bank in range(first, first + unit_banks(q)):
        if pc[CLOSED + bank] == 0:
            closes = min(closes, pc[PRE_OK + bank])
        refreshes = max(refreshes, pc[ACT_OK + bank])
    if closes < NEVER:
        return max(earliest, max(closes, pc[PRE_ANY_OK]))
    if same_bank(q):
        refreshes = max(refreshes, pc[REFSB_OK + state[STACK_ID_OF + first]])
    return rising_edge(q, max(earliest, refreshes))


@inlined
def refresh(state, q: DramTiming, p, now, log):  # type: ignore[no-untyped-def]
    """Issue the command that the refresh under way in pseudo-channel p needs next."""
    pc = pseudo_channel(state, p)
    pc[ROW_DIRTY] = 1
    if q.refresh_mode == ALL_BANK:
        refresh_all_banks(state, q, p, now, log)
        return
    first = pc[HELD_BANK]
    after = first + unit_banks(q)
    for bank in range(first, after):
        if pc[CLOSED + bank] == 0 and pc[PRE_OK + bank] <= now:
            precharge(state, q, p, bank, now, log)
            return
    refresh_unit(state, q, p, first, after, now, log)


@inlined
def refresh_unit(state, q: DramTiming, p, first, after, now, log):  # type: ignore[no-untyped-def]
    """REFpb or REFsb to the held banks."""
    pc = pseudo_channel(state, p)
    command, count, recovery, interval = REFPB, REFPB, q.tRFCpb, q.tREFIpb
    if same_bank(q):
        command, count, recovery, interval = REFSB, REFSB_COUNT, q.tRFCsb, q.tREFIsb
        pc[REFSB_OK + state[STACK_ID_OF + first]] = now + q.tRFCsb
    hold_row_bus(state, q, now, q.precharge_ticks)
    write_log(state, q, log, now, command, p, first, -1, -1)
    state[COUNTS + count] += 1
    pc[REFPB_OK] = now + q.tRREFD
    pc[HELD_BANK] = -1
    for bank in range(first, after):
        pc[ACT_OK + bank] = now + recovery
        pc[READY + bank] = max(pc[ACT_OK + bank], pc[GROUP_ACT_OK + bank])
        refresh_keys(state, q, p, bank)
    pc[COLUMN_DIRTY] = 1
    end_refresh(state, q, p, first // unit_banks(q), interval)


@inlined
def refresh_all_banks(state, q: DramTiming, p, now, log):  # type: ignore[no-untyped-def]
    """PREab if a row is open, else REFab."""
    pc = pseudo_channel(state, p)
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
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
    pc[REFRESH_END] = now + q.tRFCab
    pc[COLUMN_DIRTY] = 1
    end_refresh(state, q, p, 0, q.tREFI)


@inlined
def end_refresh(state, q: DramTiming, p, unit, interval):  # type: ignore[no-untyped-def]
    """The REF of a unit has issued. The end of a rotation in the last pseudo-channel is a checkpoint."""
    pc = pseudo_channel(state, p)
    pc[REFRESHING] = 0
    pc[DUE] += interval
    pc[POINTER] = unit + 1 if unit + 1 < units(q) else 0
    round_over = end_unit(pc, q, unit) if refresh_choice(q) else pc[POINTER] == 0
    if round_over and p == q.pseudo_channels - 1:
        state[CHECKPOINT] = 1

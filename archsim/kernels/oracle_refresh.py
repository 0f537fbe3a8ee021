"""Refresh and power-down of the oracle (docs/dram_policy.md, steps 3 and 6)."""

from __future__ import annotations

from archsim.kernels.jit import inlined
from archsim.kernels.oracle_state import (
    NOBODY,
    READ,
    WRITE,
    bank_count,
    bank_may_close,
    close_bank,
    hold_row_bus,
    is_awake,
    precharge_spaced,
    refresh_recovery,
    refresh_unit_banks,
    rising_edge,
    row_bus_free,
    write_log,
)
from archsim.kernels.timing import Command, Count, RefreshMode, RefreshOrder

_PREAB, _REFAB, _REFPB, _REFSB, _PDE, _PDX = (
    int(Command.PREAB),
    int(Command.REFAB),
    int(Command.REFPB),
    int(Command.REFSB),
    int(Command.PDE),
    int(Command.PDX),
)
_PREAB_COUNT, _REFAB_COUNT, _REFPB_COUNT, _REFSB_COUNT, _PDE_COUNT, _PDX_COUNT = (
    int(Count.PREAB),
    int(Count.REFAB),
    int(Count.REFPB),
    int(Count.REFSB),
    int(Count.PDE),
    int(Count.PDX),
)
_NONE, _ALL_BANK, _SAME_BANK = int(RefreshMode.NONE), int(RefreshMode.ALL_BANK), int(RefreshMode.SAME_BANK)
_IN_TURN = int(RefreshOrder.IN_TURN)
UP, DOWN_ACTIVE, DOWN_PRECHARGED = 0, 1, 2


@inlined
def _is_wanted(timing, requests, channel, pc, unit):  # type: ignore[no-untyped-def]
    """Whether a queued request of either direction goes to a bank of the unit."""
    size = refresh_unit_banks(timing)
    for direction in range(2):
        for k in range(channel.length[pc, direction]):
            if requests.bank[channel.queue[pc, direction, k]] // size == unit:
                return True
    return False


@inlined
def _last_use(timing, banks, pc, unit):  # type: ignore[no-untyped-def]
    """Tick of the last column command to a bank of the unit."""
    size = refresh_unit_banks(timing)
    latest = banks.read[pc, unit * size]
    for bank in range(unit * size, (unit + 1) * size):
        latest = max(latest, max(banks.read[pc, bank], banks.written[pc, bank]))
    return latest


@inlined
def _choose_unit(timing, requests, banks, channel, pc, must, t):  # type: ignore[no-untyped-def]
    """The unit to refresh next, NOBODY if it is better to wait. With `must` there is always one.

    A bank used within tRC may still be in the middle of a row although nothing is queued for it at the moment."""
    if timing.refresh_order == _IN_TURN:
        unit = channel.refresh_turn[pc]
        return unit if must or not _is_wanted(timing, requests, channel, pc, unit) else NOBODY
    best = NOBODY
    first_left = NOBODY
    for unit in range(bank_count(timing) // refresh_unit_banks(timing)):
        if channel.refreshed_units[pc, unit]:
            continue
        if first_left == NOBODY:
            first_left = unit
        if _is_wanted(timing, requests, channel, pc, unit):
            continue
        if channel.empty_since[pc] == NOBODY and t - _last_use(timing, banks, pc, unit) < timing.tRC:
            continue
        if best == NOBODY or _last_use(timing, banks, pc, unit) > _last_use(timing, banks, pc, best):
            best = unit
    return first_left if must and best == NOBODY else best


@inlined
def _begin_refresh(timing, requests, banks, channel, pc, t):  # type: ignore[no-untyped-def]
    late = t - channel.refresh_due[pc]
    empty_since = channel.empty_since[pc]
    rested = empty_since != NOBODY and t - empty_since >= timing.refresh_idle
    if late >= 0 or (rested and late + timing.refresh_pull_in >= 0):
        must = late >= timing.refresh_postpone
        channel.refresh_unit[pc] = _choose_unit(timing, requests, banks, channel, pc, must, t)


@inlined
def _end_refresh(timing, channel, pc, unit, interval):  # type: ignore[no-untyped-def]
    units = bank_count(timing) // refresh_unit_banks(timing)
    channel.refresh_due[pc] += interval
    channel.refresh_turn[pc] = (unit + 1) % units
    channel.refresh_unit[pc] = NOBODY
    channel.refreshed_units[pc, unit] = 1
    for other in range(units):
        if not channel.refreshed_units[pc, other]:
            return
    for other in range(units):
        channel.refreshed_units[pc, other] = 0


@inlined
def _refresh_all_banks(timing, banks, channel, log, pc, t):  # type: ignore[no-untyped-def]
    any_open = False
    may_close = True
    may_refresh = rising_edge(timing, t) and t - channel.refresh_all[pc] >= timing.tRFCab
    for bank in range(bank_count(timing)):
        if banks.open_row[pc, bank] >= 0:
            any_open = True
            may_close = may_close and bank_may_close(timing, banks, pc, bank, t)
        if t - banks.activated[pc, bank] < timing.tRC or t - banks.precharged[pc, bank] < timing.tRP:
            may_refresh = False
    if any_open:
        if may_close and precharge_spaced(timing, banks, channel, pc, t):
            for bank in range(bank_count(timing)):
                if banks.open_row[pc, bank] >= 0:
                    banks.open_row[pc, bank] = -1
                    banks.precharged[pc, bank] = t
            channel.counts[_PREAB_COUNT] += 1
            hold_row_bus(channel, t, timing.precharge_ticks)
            write_log(timing, log, t, _PREAB, pc, -1, -1, -1)
    elif may_refresh and row_bus_free(timing, channel, t):
        channel.refresh_all[pc] = t
        channel.counts[_REFAB_COUNT] += 1
        hold_row_bus(channel, t, timing.precharge_ticks)
        write_log(timing, log, t, _REFAB, pc, -1, -1, -1)
        _end_refresh(timing, channel, pc, channel.refresh_unit[pc], timing.tREFI)


@inlined
def _unit_may_refresh(timing, banks, channel, pc, first, last, t):  # type: ignore[no-untyped-def]
    """REFpb or REFsb to the closed banks from `first` to before `last`."""
    if not rising_edge(timing, t) or not row_bus_free(timing, channel, t):
        return False
    for bank in range(first, last):
        if t - banks.activated[pc, bank] < timing.tRC or t - banks.precharged[pc, bank] < timing.tRP:
            return False
        if t - banks.refreshed[pc, bank] < refresh_recovery(timing):
            return False
    for other in range(bank_count(timing)):
        if t - banks.refreshed[pc, other] < timing.tRREFD or t - banks.activated[pc, other] < timing.tRRDS:
            return False
        same_stack = banks.stack_id[other] == banks.stack_id[first]
        if timing.refresh_mode == _SAME_BANK and same_stack and t - banks.refreshed[pc, other] < timing.tRFCsb:
            return False
    return True


@inlined
def _refresh_unit(timing, banks, channel, log, pc, t):  # type: ignore[no-untyped-def]
    unit = channel.refresh_unit[pc]
    first = channel.held[pc, 0]
    last = channel.held[pc, 1]
    any_open = False
    for bank in range(first, last):
        if banks.open_row[pc, bank] < 0:
            continue
        any_open = True
        if bank_may_close(timing, banks, pc, bank, t) and precharge_spaced(timing, banks, channel, pc, t):
            close_bank(timing, banks, channel, log, pc, bank, t)
            channel.row_command[pc] = 1
            return
    if any_open or not _unit_may_refresh(timing, banks, channel, pc, first, last, t):
        return
    for bank in range(first, last):
        banks.refreshed[pc, bank] = t
    same_bank = timing.refresh_mode == _SAME_BANK
    channel.counts[_REFSB_COUNT if same_bank else _REFPB_COUNT] += 1
    channel.row_command[pc] = 1
    hold_row_bus(channel, t, timing.precharge_ticks)
    write_log(timing, log, t, _REFSB if same_bank else _REFPB, pc, first, -1, -1)
    _end_refresh(timing, channel, pc, unit, timing.tREFIsb if same_bank else timing.tREFIpb)


@inlined
def step_refresh(timing, requests, banks, channel, log, pc, t):  # type: ignore[no-untyped-def]
    channel.held[pc, 0] = 0
    channel.held[pc, 1] = 0
    channel.blocked[pc] = 0
    channel.row_command[pc] = 0
    if timing.refresh_mode != _NONE and channel.refresh_unit[pc] == NOBODY:
        _begin_refresh(timing, requests, banks, channel, pc, t)
    if channel.power[pc] != UP:
        _wake(timing, channel, log, pc, t)
    unit = channel.refresh_unit[pc]
    if unit == NOBODY:
        return
    awake = is_awake(timing, channel, pc, t)
    if timing.refresh_mode == _ALL_BANK:
        channel.blocked[pc] = 1
        if awake:
            _refresh_all_banks(timing, banks, channel, log, pc, t)
        return
    size = refresh_unit_banks(timing)
    channel.held[pc, 0] = unit * size
    channel.held[pc, 1] = (unit + 1) * size
    if awake:
        _refresh_unit(timing, banks, channel, log, pc, t)


@inlined
def _wake(timing, channel, log, pc, t):  # type: ignore[no-untyped-def]
    """PDX, once there is something to do."""
    wanted = channel.empty_since[pc] == NOBODY or channel.refresh_unit[pc] != NOBODY
    if not wanted or t - channel.power_changed[pc] < timing.tCKE:
        return
    if rising_edge(timing, t) and row_bus_free(timing, channel, t):
        channel.power[pc] = UP
        channel.power_changed[pc] = t
        channel.row_command[pc] = 1
        channel.counts[_PDX_COUNT] += 1
        hold_row_bus(channel, t, timing.precharge_ticks)
        write_log(timing, log, t, _PDX, pc, -1, -1, -1)


@inlined
def _may_sleep(timing, banks, channel, pc, t):  # type: ignore[no-untyped-def]
    if channel.empty_since[pc] == NOBODY or t - channel.empty_since[pc] < timing.power_down_after:
        return False
    if channel.length[pc, READ] + channel.length[pc, WRITE] > 0 or channel.refresh_unit[pc] != NOBODY:
        return False
    if not is_awake(timing, channel, pc, t) or t - channel.power_changed[pc] < timing.tCKE:
        return False
    for bank in range(bank_count(timing)):
        if t - banks.read[pc, bank] < timing.tCL + timing.tBL:
            return False
        if t - banks.written[pc, bank] < timing.tCWL + timing.tBL + timing.tWR:
            return False
    return rising_edge(timing, t) and row_bus_free(timing, channel, t)


@inlined
def step_power_down(timing, banks, channel, log, t):  # type: ignore[no-untyped-def]
    """PDE of pseudo-channels that have had nothing to do for long enough; one per tick, as the row bus has it."""
    if timing.power_down_after == 0:
        return
    for pc in range(timing.pseudo_channels):
        if channel.power[pc] != UP or channel.row_command[pc] or not _may_sleep(timing, banks, channel, pc, t):
            continue
        any_open = False
        for bank in range(bank_count(timing)):
            any_open = any_open or banks.open_row[pc, bank] >= 0
        channel.power[pc] = DOWN_ACTIVE if any_open else DOWN_PRECHARGED
        channel.power_changed[pc] = t
        channel.counts[_PDE_COUNT] += 1
        hold_row_bus(channel, t, timing.precharge_ticks)
        write_log(timing, log, t, _PDE, pc, -1, -1, -1)

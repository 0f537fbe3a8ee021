"""Column and row commands of the oracle: scheduler and page policy (docs/dram_policy.md, steps 4 and 5)."""

from __future__ import annotations

import numpy as np

from archsim.kernels.jit import inlined
from archsim.kernels.oracle_state import (
    NOBODY,
    activates_allowed,
    bank_count,
    bank_may_activate,
    bank_may_close,
    close_bank,
    column_legal,
    complete,
    hold_row_bus,
    is_awake,
    is_held,
    precharge_spaced,
    write_log,
)
from archsim.kernels.timing import Command, Count, SchedulerMode

_ACT, _RD, _WR = int(Command.ACT), int(Command.RD), int(Command.WR)
_HITS, _BUSY, _REFRESH, _TURNAROUND, _ROW, _IDLE = (
    int(Count.HITS),
    int(Count.BUSY),
    int(Count.REFRESH),
    int(Count.TURNAROUND),
    int(Count.ROW),
    int(Count.IDLE),
)
_FCFS = int(SchedulerMode.FCFS)
_HIT, _MISS, _CONFLICT = 0, 1, 2


@inlined
def _note_first(requests, channel, r, outcome):  # type: ignore[no-untyped-def]
    if requests.first[r] == NOBODY:
        requests.first[r] = outcome
        channel.counts[_HITS + outcome] += 1


@inlined
def _tile_gap(timing, channel, pc, write, t):  # type: ignore[no-untyped-def]
    """Book the gap before the column command of tick t, and its slot."""
    turnaround = 0
    if channel.last_direction[pc] != NOBODY and channel.last_direction[pc] != write:
        minimum = timing.tRTW if write else timing.tCWL + timing.tBL + timing.tWTRS
        turnaround = min(channel.waited[pc, 2], max(minimum - timing.tCCDS, 0))
    channel.counts[_IDLE] += channel.waited[pc, 0]
    channel.counts[_REFRESH] += channel.waited[pc, 1]
    channel.counts[_TURNAROUND] += turnaround
    channel.counts[_ROW] += channel.waited[pc, 2] - turnaround
    channel.counts[_BUSY] += timing.tCCDS
    for cause in range(3):
        channel.waited[pc, cause] = 0
    channel.slot_end[pc] = t + timing.tCCDS
    channel.last_direction[pc] = write


@inlined
def _is_oldest_of_bank(queue, bank_of, position):  # type: ignore[no-untyped-def]
    for k in range(position):  # noqa: SIM110
        if bank_of[queue[k]] == bank_of[queue[position]]:
            return False
    return True


@inlined
def _row_wanted(requests, queue, length, bank, row):  # type: ignore[no-untyped-def]
    for k in range(length):  # noqa: SIM110
        if requests.bank[queue[k]] == bank and requests.row[queue[k]] == row:
            return True
    return False


@inlined
def _requests_to_consider(timing, requests, channel, pc, t):  # type: ignore[no-untyped-def]
    """How many of the oldest requests of the current mode may be chosen from: all, or the oldest alone."""
    length = channel.length[pc, channel.mode[pc]]
    if length == 0:
        return length
    oldest = channel.queue[pc, channel.mode[pc], 0]
    starved = timing.starve_after > 0 and t - requests.admitted[oldest] >= timing.starve_after
    return 1 if starved or timing.scheduler == _FCFS else length


@inlined
def _is_capped(timing, banks, pc, bank):  # type: ignore[no-untyped-def]
    return 0 < timing.row_hit_cap <= banks.passed[pc, bank]


@inlined
def _issue_column(timing, requests, streams, banks, channel, log, pc, position, t):  # type: ignore[no-untyped-def]
    write = channel.mode[pc]
    oldest_of_bank = _is_oldest_of_bank(channel.queue[pc, write], requests.bank, position)
    r = channel.queue[pc, write, position]
    for k in range(position, channel.length[pc, write] - 1):
        channel.queue[pc, write, k] = channel.queue[pc, write, k + 1]
    channel.length[pc, write] -= 1
    _note_first(requests, channel, r, _HIT)
    bank = requests.bank[r]
    if not oldest_of_bank:
        banks.passed[pc, bank] += 1
    if write:
        banks.written[pc, bank] = t
        done = t + timing.tCWL + timing.tBL
        command = _WR
    else:
        banks.read[pc, bank] = t
        done = t + timing.tCL + timing.tBL
        command = _RD
    channel.counts[command] += 1
    complete(timing, requests, streams, channel, pc, r, t, done)
    channel.column_bus[0] = t
    _tile_gap(timing, channel, pc, write, t)
    write_log(timing, log, t, command, pc, bank, requests.row[r], requests.column[r])


@inlined
def step_column(timing, requests, streams, banks, channel, log, t):  # type: ignore[no-untyped-def]
    """Returns the number of column commands issued: 0 or 1."""
    bank_of, row_of, age_of = requests.bank, requests.row, requests.age
    best_pc = NOBODY
    best_position = NOBODY
    best_age = np.int64(0)
    for pc in range(timing.pseudo_channels):
        if channel.blocked[pc] or not is_awake(timing, channel, pc, t):
            continue
        write = channel.mode[pc]
        queue, open_rows = channel.queue[pc, write], banks.open_row[pc]
        for position in range(_requests_to_consider(timing, requests, channel, pc, t)):
            r = queue[position]
            bank = bank_of[r]
            if (
                is_held(channel, pc, bank)
                or open_rows[bank] != row_of[r]
                or (best_pc != NOBODY and age_of[r] > best_age)
            ):
                continue
            if _is_capped(timing, banks, pc, bank) and not _is_oldest_of_bank(queue, bank_of, position):
                continue
            if column_legal(timing, banks, channel, pc, bank, write, t):
                best_pc = pc
                best_position = position
                best_age = age_of[r]
    if best_pc == NOBODY:
        return 0
    _issue_column(timing, requests, streams, banks, channel, log, best_pc, best_position, t)
    return 1


@inlined
def _issue_row(timing, requests, banks, channel, log, pc, r, t):  # type: ignore[no-untyped-def]
    bank = requests.bank[r]
    if banks.open_row[pc, bank] >= 0:
        _note_first(requests, channel, r, _CONFLICT)
        close_bank(timing, banks, channel, log, pc, bank, t)
        return
    _note_first(requests, channel, r, _MISS)
    banks.open_row[pc, bank] = requests.row[r]
    banks.activated[pc, bank] = t
    banks.passed[pc, bank] = 0
    for k in range(3):
        channel.four_activates[pc, k] = channel.four_activates[pc, k + 1]
    channel.four_activates[pc, 3] = t
    channel.counts[_ACT] += 1
    hold_row_bus(channel, t, timing.activate_ticks)
    write_log(timing, log, t, _ACT, pc, bank, requests.row[r], -1)


@inlined
def _close_unwanted_row(timing, requests, banks, channel, log, t):  # type: ignore[no-untyped-def]
    """The page policy: PRE of the first bank whose open row nothing queued hits, `page_timeout` after its last use."""
    for pc in range(timing.pseudo_channels):
        if channel.blocked[pc] or channel.row_command[pc] or not is_awake(timing, channel, pc, t):
            continue
        if not precharge_spaced(timing, banks, channel, pc, t):
            continue
        for bank in range(bank_count(timing)):
            row = banks.open_row[pc, bank]
            if row < 0 or is_held(channel, pc, bank) or not bank_may_close(timing, banks, pc, bank, t):
                continue
            used = max(banks.activated[pc, bank], max(banks.read[pc, bank], banks.written[pc, bank]))
            if t - used < timing.page_timeout:
                continue
            wanted = False
            for direction in range(2):
                queue, length = channel.queue[pc, direction], channel.length[pc, direction]
                wanted = wanted or _row_wanted(requests, queue, length, bank, row)
            if not wanted:
                close_bank(timing, banks, channel, log, pc, bank, t)
                return


@inlined
def step_row(timing, requests, banks, channel, log, t):  # type: ignore[no-untyped-def]
    bank_of, row_of, age_of = requests.bank, requests.row, requests.age
    best_pc = NOBODY
    best = np.int64(NOBODY)
    for pc in range(timing.pseudo_channels):
        if channel.blocked[pc] or channel.row_command[pc] or not is_awake(timing, channel, pc, t):
            continue
        write = channel.mode[pc]
        queue, length = channel.queue[pc, write], _requests_to_consider(timing, requests, channel, pc, t)
        open_rows = banks.open_row[pc]
        activates = activates_allowed(timing, channel, pc, t)
        precharges = precharge_spaced(timing, banks, channel, pc, t)
        for position in range(length):
            r = queue[position]
            bank = bank_of[r]
            if is_held(channel, pc, bank) or not _is_oldest_of_bank(queue, bank_of, position):
                continue
            if best_pc != NOBODY and age_of[r] > age_of[best]:
                continue
            if open_rows[bank] < 0:
                legal = activates and bank_may_activate(timing, banks, pc, bank, t)
            elif open_rows[bank] == row_of[r]:
                legal = False  # its own row is open: step 4
            elif not _is_capped(timing, banks, pc, bank) and _row_wanted(
                requests, queue, length, bank, open_rows[bank]
            ):
                legal = False
            else:
                legal = precharges and bank_may_close(timing, banks, pc, bank, t)
            if legal:
                best_pc = pc
                best = r
    if best_pc != NOBODY:
        _issue_row(timing, requests, banks, channel, log, best_pc, best, t)
    elif timing.page_timeout >= 0:
        _close_unwanted_row(timing, requests, banks, channel, log, t)

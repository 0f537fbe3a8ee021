"""The steps of one tick of docs/dram_policy.md as the oracle takes them; see oracle.py for what it is for.

Queues are lists in order of age, and a served request is taken out by shifting the rest. Nothing is predicted, skipped
or remembered between ticks.
"""

from __future__ import annotations

import numpy as np

from archsim.kernels.jit import inlined, kernel
from archsim.kernels.oracle_state import (
    NOBODY,
    READ,
    WRITE,
    activates_allowed,
    bank_count,
    bank_may_activate,
    bank_may_close,
    column_legal,
    hold_row_bus,
    precharge_spaced,
    rising_edge,
    row_bus_free,
)
from archsim.kernels.timing import Command, Count, RefreshMode

# numba reads an IntEnum of a global only through its members; plain ints keep the code below readable.
_ACT, _PRE, _PREAB, _RD, _WR, _REFAB, _REFPB = (int(command) for command in Command)
_HITS, _LATENCY, _BUSY, _REFRESH, _TURNAROUND, _ROW, _IDLE = (
    int(Count.HITS),
    int(Count.LATENCY),
    int(Count.BUSY),
    int(Count.REFRESH),
    int(Count.TURNAROUND),
    int(Count.ROW),
    int(Count.IDLE),
)
_ALL_BANK, _PER_BANK = int(RefreshMode.ALL_BANK), int(RefreshMode.PER_BANK)
_HIT, _MISS, _CONFLICT = 0, 1, 2


@inlined
def _write_log(timing, log, t, command, pc, bank, row, column):  # type: ignore[no-untyped-def]
    """Note a command if a log is kept; without one `entries` has no rows. It is sized by the caller."""
    if log.entries.shape[0] == 0:
        return
    k = log.used[0]
    log.used[0] = k + 1
    if k >= log.entries.shape[0]:
        return  # the caller sees used > rows and says so
    groups = timing.bank_groups
    log.entries[k, 0] = t
    log.entries[k, 1] = command
    log.entries[k, 2] = pc
    log.entries[k, 3] = -1 if bank < 0 else bank // (groups * timing.banks_per_group)
    log.entries[k, 4] = -1 if bank < 0 else bank % groups
    log.entries[k, 5] = -1 if bank < 0 else bank // groups % timing.banks_per_group
    log.entries[k, 6] = row
    log.entries[k, 7] = column


@inlined
def _tile_may_start(timing, streams, jobs, job, t):  # type: ignore[no-untyped-def]
    if t < jobs.gate[job]:
        return False
    tiles = jobs.tiles[job]
    for s in range(streams.write.shape[0]):
        if streams.job[s] != job or streams.write[s] == WRITE:
            continue
        for pc in range(timing.pseudo_channels):
            total = streams.end[s, pc] - streams.begin[s, pc]
            share = (total + tiles - 1) // tiles
            needed = min((jobs.ended[job] + 1) * share, total)
            if needed == 0:
                continue
            if streams.served[s, pc] < needed:
                return False
            if t < streams.service_tick[streams.begin[s, pc] + needed - 1] + timing.tCL + timing.tBL:
                return False
    return True


@inlined
def _step_tiles(timing, streams, jobs, t):  # type: ignore[no-untyped-def]
    for job in range(jobs.tiles.shape[0]):
        if jobs.running_until[job] != NOBODY and t >= jobs.running_until[job]:
            jobs.last_end[job] = jobs.running_until[job]
            jobs.running_until[job] = NOBODY
            jobs.ended[job] += 1
        under_way = jobs.running_until[job] != NOBODY
        if not under_way and jobs.ended[job] < jobs.tiles[job] and _tile_may_start(timing, streams, jobs, job, t):
            jobs.running_until[job] = t + jobs.tile_ticks[job]


@inlined
def _window_allows(streams, jobs, s, pc):  # type: ignore[no-untyped-def]
    job = streams.job[s]
    tiles = jobs.tiles[job]
    if tiles == 0:
        return True
    total = streams.end[s, pc] - streams.begin[s, pc]
    consumed = min(jobs.ended[job] * ((total + tiles - 1) // tiles), total)
    admitted = streams.next[s, pc] - streams.begin[s, pc]
    if streams.write[s] == WRITE:
        return admitted < consumed
    return admitted < consumed + streams.window[s]


@inlined
def _step_admit(timing, requests, streams, jobs, channel, pc, t):  # type: ignore[no-untyped-def]
    n_streams = streams.write.shape[0]
    while True:
        found = False
        for turn in range(n_streams):
            s = (channel.last_stream[pc] + 1 + turn) % n_streams
            r = streams.next[s, pc]
            if r >= streams.end[s, pc] or requests.arrival[r] > t or not _window_allows(streams, jobs, s, pc):
                continue
            direction = requests.write[r]
            room = timing.write_queue if direction == WRITE else timing.read_queue
            if channel.length[pc, direction] >= room:
                continue
            channel.queue[pc, direction, channel.length[pc, direction]] = r
            channel.length[pc, direction] += 1
            requests.age[r] = channel.next_age[0]
            channel.next_age[0] += 1
            requests.admitted[r] = t
            streams.next[s, pc] = r + 1
            channel.last_stream[pc] = s
            found = True
            break
        if not found:
            return


@inlined
def _step_mode(timing, channel, pc):  # type: ignore[no-untyped-def]
    reads = channel.length[pc, READ]
    writes = channel.length[pc, WRITE]
    if channel.mode[pc] == READ:
        if writes >= timing.write_high or (reads == 0 and writes > 0):
            channel.mode[pc] = WRITE
    elif writes == 0 or (writes <= timing.write_low and reads > 0):
        channel.mode[pc] = READ


@inlined
def _refresh_all_banks(timing, banks, channel, log, pc, t):  # type: ignore[no-untyped-def]
    channel.blocked[pc] = 1
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
            channel.counts[_PREAB] += 1
            hold_row_bus(channel, t, timing.precharge_ticks)
            _write_log(timing, log, t, _PREAB, pc, -1, -1, -1)
    elif may_refresh and row_bus_free(channel, t):
        channel.refresh_all[pc] = t
        channel.refresh_due[pc] += timing.tREFI
        channel.counts[_REFAB] += 1
        hold_row_bus(channel, t, timing.precharge_ticks)
        _write_log(timing, log, t, _REFAB, pc, -1, -1, -1)


@inlined
def _refresh_one_bank(timing, banks, channel, log, pc, t):  # type: ignore[no-untyped-def]
    bank = channel.refresh_pointer[pc]
    channel.held_bank[pc] = bank
    if banks.open_row[pc, bank] >= 0:
        if bank_may_close(timing, banks, pc, bank, t) and precharge_spaced(timing, banks, channel, pc, t):
            banks.open_row[pc, bank] = -1
            banks.precharged[pc, bank] = t
            channel.counts[_PRE] += 1
            channel.row_command[pc] = 1
            hold_row_bus(channel, t, timing.precharge_ticks)
            _write_log(timing, log, t, _PRE, pc, bank, -1, -1)
        return
    if not rising_edge(timing, t) or not row_bus_free(channel, t):
        return
    if t - banks.activated[pc, bank] < timing.tRC or t - banks.precharged[pc, bank] < timing.tRP:
        return
    if t - banks.refreshed[pc, bank] < timing.tRFCpb:
        return
    for other in range(bank_count(timing)):
        if t - banks.refreshed[pc, other] < timing.tRREFD or t - banks.activated[pc, other] < timing.tRRDS:
            return
    banks.refreshed[pc, bank] = t
    channel.refresh_due[pc] += timing.tREFIpb
    channel.refresh_pointer[pc] = (bank + 1) % bank_count(timing)
    channel.counts[_REFPB] += 1
    channel.row_command[pc] = 1
    hold_row_bus(channel, t, timing.precharge_ticks)
    _write_log(timing, log, t, _REFPB, pc, bank, -1, -1)


@inlined
def _step_refresh(timing, banks, channel, log, pc, t):  # type: ignore[no-untyped-def]
    channel.held_bank[pc] = NOBODY
    channel.blocked[pc] = 0
    channel.row_command[pc] = 0
    if timing.refresh_mode == _ALL_BANK and t >= channel.refresh_due[pc]:
        _refresh_all_banks(timing, banks, channel, log, pc, t)
    elif timing.refresh_mode == _PER_BANK and t >= channel.refresh_due[pc]:
        _refresh_one_bank(timing, banks, channel, log, pc, t)


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
def _issue_column(timing, requests, streams, banks, channel, log, pc, position, t):  # type: ignore[no-untyped-def]
    write = channel.mode[pc]
    r = channel.queue[pc, write, position]
    for k in range(position, channel.length[pc, write] - 1):
        channel.queue[pc, write, k] = channel.queue[pc, write, k + 1]
    channel.length[pc, write] -= 1
    _note_first(requests, channel, r, _HIT)
    bank = requests.bank[r]
    if write:
        banks.written[pc, bank] = t
        requests.done[r] = t + timing.tCWL + timing.tBL
        command = _WR
    else:
        banks.read[pc, bank] = t
        requests.done[r] = t + timing.tCL + timing.tBL
        command = _RD
    channel.counts[command] += 1
    requests.issued[r] = t
    s = requests.stream[r]
    streams.service_tick[streams.begin[s, pc] + streams.served[s, pc]] = t
    streams.served[s, pc] += 1
    start = requests.arrival[r] if streams.timed[s] else requests.admitted[r]
    channel.counts[_LATENCY] += requests.done[r] - start
    channel.column_bus[0] = t
    _tile_gap(timing, channel, pc, write, t)
    _write_log(timing, log, t, command, pc, bank, requests.row[r], requests.column[r])


@inlined
def _step_column(timing, requests, streams, banks, channel, log, t):  # type: ignore[no-untyped-def]
    """Returns the number of column commands issued: 0 or 1."""
    bank_of, row_of, age_of = requests.bank, requests.row, requests.age
    best_pc = NOBODY
    best_position = NOBODY
    best_age = np.int64(0)
    for pc in range(timing.pseudo_channels):
        if channel.blocked[pc]:
            continue
        write = channel.mode[pc]
        queue, held, open_rows = channel.queue[pc, write], channel.held_bank[pc], banks.open_row[pc]
        for position in range(channel.length[pc, write]):
            r = queue[position]
            bank = bank_of[r]
            if bank == held or open_rows[bank] != row_of[r] or (best_pc != NOBODY and age_of[r] > best_age):
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
def _is_oldest_of_bank(queue, bank_of, position):  # type: ignore[no-untyped-def]
    for k in range(position):  # noqa: SIM110
        if bank_of[queue[k]] == bank_of[queue[position]]:
            return False
    return True


@inlined
def _row_still_wanted(queue, length, bank_of, row_of, bank, open_row):  # type: ignore[no-untyped-def]
    for k in range(length):  # noqa: SIM110
        if bank_of[queue[k]] == bank and row_of[queue[k]] == open_row:
            return True
    return False


@inlined
def _issue_row(timing, requests, banks, channel, log, pc, r, t):  # type: ignore[no-untyped-def]
    bank = requests.bank[r]
    if banks.open_row[pc, bank] >= 0:
        _note_first(requests, channel, r, _CONFLICT)
        banks.open_row[pc, bank] = -1
        banks.precharged[pc, bank] = t
        channel.counts[_PRE] += 1
        hold_row_bus(channel, t, timing.precharge_ticks)
        _write_log(timing, log, t, _PRE, pc, bank, -1, -1)
        return
    _note_first(requests, channel, r, _MISS)
    banks.open_row[pc, bank] = requests.row[r]
    banks.activated[pc, bank] = t
    for k in range(3):
        channel.four_activates[pc, k] = channel.four_activates[pc, k + 1]
    channel.four_activates[pc, 3] = t
    channel.counts[_ACT] += 1
    hold_row_bus(channel, t, timing.activate_ticks)
    _write_log(timing, log, t, _ACT, pc, bank, requests.row[r], -1)


@inlined
def _step_row(timing, requests, banks, channel, log, t):  # type: ignore[no-untyped-def]
    bank_of, row_of, age_of = requests.bank, requests.row, requests.age
    best_pc = NOBODY
    best = np.int64(NOBODY)
    for pc in range(timing.pseudo_channels):
        if channel.blocked[pc] or channel.row_command[pc]:
            continue
        write = channel.mode[pc]
        queue, length, held = channel.queue[pc, write], channel.length[pc, write], channel.held_bank[pc]
        open_rows = banks.open_row[pc]
        activates = activates_allowed(timing, channel, pc, t)
        precharges = precharge_spaced(timing, banks, channel, pc, t)
        for position in range(length):
            r = queue[position]
            bank = bank_of[r]
            if bank == held or not _is_oldest_of_bank(queue, bank_of, position):
                continue
            if best_pc != NOBODY and age_of[r] > age_of[best]:
                continue
            if open_rows[bank] < 0:
                legal = activates and bank_may_activate(timing, banks, pc, bank, t)
            elif _row_still_wanted(queue, length, bank_of, row_of, bank, open_rows[bank]):
                legal = False
            else:
                legal = precharges and bank_may_close(timing, banks, pc, bank, t)
            if legal:
                best_pc = pc
                best = r
    if best_pc != NOBODY:
        _issue_row(timing, requests, banks, channel, log, best_pc, best, t)


@inlined
def _book_waiting(timing, channel, pc, was_idle, t):  # type: ignore[no-untyped-def]
    """Name the cause of this tick of the PC's data bus, if it lies between two burst slots."""
    if t < channel.slot_end[pc]:
        return
    if was_idle:
        channel.waited[pc, 0] += 1
    elif channel.blocked[pc] or t - channel.refresh_all[pc] < timing.tRFCab:
        channel.waited[pc, 1] += 1
    else:
        channel.waited[pc, 2] += 1


@kernel
def simulate(timing, requests, streams, jobs, banks, channel, log, max_ticks, run_until):  # type: ignore[no-untyped-def]
    left = requests.bank.shape[0]
    t = np.int64(0)
    was_idle = np.zeros(timing.pseudo_channels, np.int64)
    while t < max_ticks:
        tiles_left = False
        for job in range(jobs.tiles.shape[0]):
            if jobs.ended[job] < jobs.tiles[job]:
                tiles_left = True
        if left == 0 and not tiles_left and t >= run_until:
            break
        _step_tiles(timing, streams, jobs, t)
        for pc in range(timing.pseudo_channels):
            _step_admit(timing, requests, streams, jobs, channel, pc, t)
        for pc in range(timing.pseudo_channels):
            was_idle[pc] = channel.length[pc, READ] == 0 and channel.length[pc, WRITE] == 0
            _step_mode(timing, channel, pc)
        for pc in range(timing.pseudo_channels):
            _step_refresh(timing, banks, channel, log, pc, t)
        left -= _step_column(timing, requests, streams, banks, channel, log, t)
        _step_row(timing, requests, banks, channel, log, t)
        for pc in range(timing.pseudo_channels):
            _book_waiting(timing, channel, pc, was_idle[pc], t)
        t += 1
    return t

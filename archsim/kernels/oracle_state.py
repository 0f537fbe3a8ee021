"""What the oracle keeps, and when a command is legal ("Legality" in docs/dram_policy.md): by ticks of last issue."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from archsim.kernels.histogram import bucket_of
from archsim.kernels.jit import inlined
from archsim.kernels.timing import Command, Count, RefreshMode

Int64 = NDArray[np.int64]

LONG_AGO = -(1 << 40)
NOBODY = -1
READ, WRITE = 0, 1
# numba reads an IntEnum of a global only through its members; plain ints keep the code below readable.
_ALL_BANK, _SAME_BANK = int(RefreshMode.ALL_BANK), int(RefreshMode.SAME_BANK)
_PRE, _REFSB = int(Command.PRE), int(Command.REFSB)
_LATENCY, _PRE_COUNT = int(Count.LATENCY), int(Count.PRE)


class Requests(NamedTuple):
    address: Int64
    bank: Int64
    row: Int64
    column: Int64
    write: Int64
    arrival: Int64
    stream: Int64
    age: Int64
    admitted: Int64
    issued: Int64
    done: Int64
    first: Int64  # _HIT, _MISS, _CONFLICT or NOBODY: the first command issued for it


class Streams(NamedTuple):
    begin: Int64  # [stream, pc] first request
    end: Int64  # [stream, pc] one past the last
    next: Int64  # [stream, pc] next to admit
    served: Int64  # [stream, pc] column commands issued, and requests answered from the write queue
    arrived: Int64  # [request slot] tick at which the first n + 1 served of its sequence are complete, at begin + n
    write: Int64
    job: Int64
    window: Int64
    timed: Int64  # 1: latency counts from arrival, 0: from admission


class Jobs(NamedTuple):
    tiles: Int64
    tile_ticks: Int64
    gate: Int64
    ended: Int64  # tiles that have ended
    running_until: Int64  # end of the tile under way, or NOBODY
    last_end: Int64


class Banks(NamedTuple):
    """Ticks of the last command of each kind on each bank, [pc, bank], and where a bank sits, [bank]."""

    stack_id: Int64
    group: Int64  # equal iff the stack ID and the bank group are
    activated: Int64
    precharged: Int64
    read: Int64
    written: Int64
    refreshed: Int64  # by REFpb or REFsb
    open_row: Int64
    passed: Int64  # column commands since ACT that passed an older request to the bank


class Channel(NamedTuple):
    queue: Int64  # [pc, direction, position] request numbers, oldest first
    length: Int64  # [pc, direction]
    mode: Int64  # [pc]
    last_stream: Int64  # [pc] admitted last
    four_activates: Int64  # [pc, 4] ticks of the last four ACT, oldest first
    refresh_due: Int64  # [pc]
    refresh_all: Int64  # [pc] tick of the last REFab
    refresh_unit: Int64  # [pc] the banks that the refresh under way is for (number of the unit), or NOBODY
    refresh_turn: Int64  # [pc] the next unit in turn
    refreshed_units: Int64  # [pc, unit] 1 if it has had its refresh of this rotation
    held: Int64  # [pc, 2] first bank held for refresh in this tick and one past the last
    blocked: Int64  # [pc] 1 while all-bank refresh is under way in this tick
    row_command: Int64  # [pc] 1 if a refresh or power row command was issued in this tick
    power: Int64  # [pc] 0 up, 1 power-down with a row open, 2 with all banks closed
    power_changed: Int64  # [pc] tick of the last PDE or PDX
    empty_since: Int64  # [pc] tick since which nothing is queued, or NOBODY
    column_bus: Int64  # [1] tick of the last column command
    row_bus: Int64  # [2] tick of the last row command, its length
    next_age: Int64  # [1]
    slot_end: Int64  # [pc] end of the last burst slot
    waited: Int64  # [pc, 3] ticks since then: idle, refresh, other
    last_direction: Int64  # [pc]
    counts: Int64
    histogram: Int64  # [direction, bucket] requests by latency


class Log(NamedTuple):
    entries: Int64
    used: Int64  # [1]


@inlined
def bank_count(timing):  # type: ignore[no-untyped-def]
    return timing.stack_ids * timing.bank_groups * timing.banks_per_group


@inlined
def refresh_unit_banks(timing):  # type: ignore[no-untyped-def]
    """Banks that one refresh command covers. A unit's banks have consecutive indices."""
    if timing.refresh_mode == _ALL_BANK:
        return bank_count(timing)
    return timing.bank_groups if timing.refresh_mode == _SAME_BANK else 1


@inlined
def refresh_recovery(timing):  # type: ignore[no-untyped-def]
    """From a REFpb or REFsb to the next ACT or refresh of its banks."""
    return timing.tRFCsb if timing.refresh_mode == _SAME_BANK else timing.tRFCpb


@inlined
def is_held(channel, pc, bank):  # type: ignore[no-untyped-def]
    return channel.held[pc, 0] <= bank < channel.held[pc, 1]


@inlined
def is_awake(timing, channel, pc, t):  # type: ignore[no-untyped-def]
    """Commands may go to the pseudo-channel: it is powered up, and tXP (and the tick of the PDX) is over."""
    return channel.power[pc] == 0 and t - channel.power_changed[pc] >= max(timing.tXP, 1)


@inlined
def rising_edge(timing, t):  # type: ignore[no-untyped-def]
    return t % timing.ticks_per_ck == 0


@inlined
def row_bus_free(timing, channel, t):  # type: ignore[no-untyped-def]
    if timing.shared_command_bus and t - channel.column_bus[0] < timing.column_ticks:
        return False
    return t - channel.row_bus[0] >= channel.row_bus[1]


@inlined
def column_bus_free(timing, channel, t):  # type: ignore[no-untyped-def]
    if timing.shared_command_bus and t - channel.row_bus[0] < channel.row_bus[1]:
        return False
    return t - channel.column_bus[0] >= timing.column_ticks


@inlined
def hold_row_bus(channel, t, length):  # type: ignore[no-untyped-def]
    channel.row_bus[0] = t
    channel.row_bus[1] = length


@inlined
def column_legal(timing, banks, channel, pc, bank, write, t):  # type: ignore[no-untyped-def]
    if not rising_edge(timing, t) or not column_bus_free(timing, channel, t):
        return False
    if t - banks.activated[pc, bank] < (timing.tRCDWR if write else timing.tRCDRD):
        return False
    read, written, stack_id, group_of = banks.read[pc], banks.written[pc], banks.stack_id, banks.group
    for other in range(bank_count(timing)):
        group = group_of[other] == group_of[bank]
        if group:
            same_direction = max(timing.tCCDL, timing.tCCDLW) if write else timing.tCCDL
        elif stack_id[other] == stack_id[bank]:
            same_direction = timing.tCCDS
        else:
            same_direction = max(timing.tCCDS, timing.tCCDR)
        if write:
            if t - written[other] < same_direction or t - read[other] < timing.tRTW:
                return False
        else:
            after_write = timing.tCWL + timing.tBL + (timing.tWTRL if group else timing.tWTRS)
            if t - read[other] < same_direction or t - written[other] < after_write:
                return False
    return True


@inlined
def activates_allowed(timing, channel, pc, t):  # type: ignore[no-untyped-def]
    """What holds for an ACT to any bank of the PC."""
    return (
        rising_edge(timing, t)
        and row_bus_free(timing, channel, t)
        and t - channel.four_activates[pc, 0] >= timing.tFAW
        and t - channel.refresh_all[pc] >= timing.tRFCab
    )


@inlined
def bank_may_activate(timing, banks, pc, bank, t):  # type: ignore[no-untyped-def]
    activated, refreshed, group = banks.activated[pc], banks.refreshed[pc], banks.group
    if t - activated[bank] < timing.tRC or t - banks.precharged[pc, bank] < timing.tRP:
        return False
    if t - refreshed[bank] < refresh_recovery(timing):
        return False
    for other in range(bank_count(timing)):
        distance = timing.tRRDL if group[other] == group[bank] else timing.tRRDS
        if t - activated[other] < distance or t - refreshed[other] < timing.tRREFD:
            return False
    return True


@inlined
def bank_may_close(timing, banks, pc, bank, t):  # type: ignore[no-untyped-def]
    """The bank itself may be precharged; bus and tPPD are the caller's."""
    return (
        t - banks.activated[pc, bank] >= timing.tRAS
        and t - banks.read[pc, bank] >= timing.tRTP
        and t - banks.written[pc, bank] >= timing.tCWL + timing.tBL + timing.tWR
    )


@inlined
def precharge_spaced(timing, banks, channel, pc, t):  # type: ignore[no-untyped-def]
    if not row_bus_free(timing, channel, t):
        return False
    precharged = banks.precharged[pc]
    for other in range(bank_count(timing)):  # noqa: SIM110 (numba has no any() over a generator)
        if t - precharged[other] < timing.tPPD:
            return False
    return True


@inlined
def write_log(timing, log, t, command, pc, bank, row, column):  # type: ignore[no-untyped-def]
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
    log.entries[k, 4] = -1 if bank < 0 or command == _REFSB else bank % groups
    log.entries[k, 5] = -1 if bank < 0 else bank // groups % timing.banks_per_group
    log.entries[k, 6] = row
    log.entries[k, 7] = column


@inlined
def complete(timing, requests, streams, channel, pc, r, issued, done):  # type: ignore[no-untyped-def]
    """Request r has its column command or its answer at `issued` and is complete at `done`."""
    requests.issued[r] = issued
    requests.done[r] = done
    s = requests.stream[r]
    n = streams.begin[s, pc] + streams.served[s, pc]
    before = streams.arrived[n - 1] if streams.served[s, pc] > 0 else 0
    streams.arrived[n] = max(before, done)
    streams.served[s, pc] += 1
    latency = done - (requests.arrival[r] if streams.timed[s] else requests.admitted[r])
    channel.counts[_LATENCY] += latency
    if timing.latency_histogram:
        channel.histogram[requests.write[r], bucket_of(latency)] += 1


@inlined
def close_bank(timing, banks, channel, log, pc, bank, t):  # type: ignore[no-untyped-def]
    """PRE of one bank."""
    banks.open_row[pc, bank] = -1
    banks.precharged[pc, bank] = t
    channel.counts[_PRE_COUNT] += 1
    hold_row_bus(channel, t, timing.precharge_ticks)
    write_log(timing, log, t, _PRE, pc, bank, -1, -1)

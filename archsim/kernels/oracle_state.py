"""What the oracle keeps, and when a command is legal ("Legality" in docs/dram_policy.md): by ticks of last issue."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from archsim.kernels.jit import inlined

Int64 = NDArray[np.int64]

LONG_AGO = -(1 << 40)
NOBODY = -1
READ, WRITE = 0, 1


class Requests(NamedTuple):
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
    served: Int64  # [stream, pc] column commands issued
    service_tick: Int64  # [request slot] tick of the n-th column command of its sequence, at begin + n
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
    refreshed: Int64  # by REFpb
    open_row: Int64


class Channel(NamedTuple):
    queue: Int64  # [pc, direction, position] request numbers, oldest first
    length: Int64  # [pc, direction]
    mode: Int64  # [pc]
    last_stream: Int64  # [pc] admitted last
    four_activates: Int64  # [pc, 4] ticks of the last four ACT, oldest first
    refresh_due: Int64  # [pc]
    refresh_all: Int64  # [pc] tick of the last REFab
    refresh_pointer: Int64  # [pc]
    held_bank: Int64  # [pc] bank held for REFpb in this tick, or NOBODY
    blocked: Int64  # [pc] 1 while all-bank refresh is due in this tick
    row_command: Int64  # [pc] 1 if a refresh row command was issued in this tick
    column_bus: Int64  # [1] tick of the last column command
    row_bus: Int64  # [2] tick of the last row command, its length
    next_age: Int64  # [1]
    slot_end: Int64  # [pc] end of the last burst slot
    waited: Int64  # [pc, 3] ticks since then: idle, refresh, other
    last_direction: Int64  # [pc]
    counts: Int64


class Log(NamedTuple):
    entries: Int64
    used: Int64  # [1]


@inlined
def bank_count(timing):  # type: ignore[no-untyped-def]
    return timing.stack_ids * timing.bank_groups * timing.banks_per_group


@inlined
def rising_edge(timing, t):  # type: ignore[no-untyped-def]
    return t % timing.ticks_per_ck == 0


@inlined
def row_bus_free(channel, t):  # type: ignore[no-untyped-def]
    return t - channel.row_bus[0] >= channel.row_bus[1]


@inlined
def hold_row_bus(channel, t, length):  # type: ignore[no-untyped-def]
    channel.row_bus[0] = t
    channel.row_bus[1] = length


@inlined
def column_legal(timing, banks, channel, pc, bank, write, t):  # type: ignore[no-untyped-def]
    if not rising_edge(timing, t) or t - channel.column_bus[0] < timing.column_ticks:
        return False
    if t - banks.activated[pc, bank] < (timing.tRCDWR if write else timing.tRCDRD):
        return False
    read, written, stack_id, group_of = banks.read[pc], banks.written[pc], banks.stack_id, banks.group
    for other in range(bank_count(timing)):
        group = group_of[other] == group_of[bank]
        if group:
            same_direction = timing.tCCDL
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
        and row_bus_free(channel, t)
        and t - channel.four_activates[pc, 0] >= timing.tFAW
        and t - channel.refresh_all[pc] >= timing.tRFCab
    )


@inlined
def bank_may_activate(timing, banks, pc, bank, t):  # type: ignore[no-untyped-def]
    activated, refreshed, group = banks.activated[pc], banks.refreshed[pc], banks.group
    if t - activated[bank] < timing.tRC or t - banks.precharged[pc, bank] < timing.tRP:
        return False
    if t - refreshed[bank] < timing.tRFCpb:
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
    if not row_bus_free(channel, t):
        return False
    precharged = banks.precharged[pc]
    for other in range(bank_count(timing)):  # noqa: SIM110 (numba has no any() over a generator)
        if t - precharged[other] < timing.tPPD:
            return False
    return True

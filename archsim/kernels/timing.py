"""What the DRAM kernel, its oracle and the checker share: the parameter table, the names of counts and of commands.

Nothing here has behaviour. A standard (see `archsim/memory/standard.py`) turns into a `DramTiming` once, and everything
below reads that table.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class RefreshMode(IntEnum):
    """How a pseudo-channel keeps its rows alive: what one refresh command covers."""

    NONE = 0
    ALL_BANK = 1
    PER_BANK = 2
    SAME_BANK = 3  # one bank index in all bank groups of a stack ID


class RefreshOrder(IntEnum):
    """Which bank (or set of banks) is refreshed next."""

    IN_TURN = 0
    UNWANTED_FIRST = 1  # the last used of those that nothing queued wants


class SchedulerMode(IntEnum):
    """How a queued request is chosen. A cap on row hits is a number of its own: `DramTiming.row_hit_cap`."""

    FR_FCFS = 0
    FCFS = 1


class DramTiming(NamedTuple):
    """Parameters of one DRAM channel. Every time is a count of ticks (`ticks_per_ck` ticks make one clock CK).

    A NamedTuple of ints, because numba passes it as a struct and plain Python can still read it by name.
    """

    ticks_per_ck: int
    # Organisation: counts per channel (pseudo_channels) or per the level above.
    pseudo_channels: int
    stack_ids: int
    bank_groups: int
    banks_per_group: int
    columns: int  # bursts per row
    burst_bytes: int
    # How long a command holds its command bus.
    column_ticks: int
    activate_ticks: int
    precharge_ticks: int
    # Data.
    tCL: int
    tCWL: int
    tBL: int
    # Rows.
    tRCDRD: int
    tRCDWR: int
    tRP: int
    tRAS: int
    tRC: int
    tRTP: int
    tWR: int
    # Columns and activates against each other.
    tCCDS: int
    tCCDL: int
    tCCDR: int
    tRRDS: int
    tRRDL: int
    tFAW: int
    tWTRS: int
    tWTRL: int
    tRTW: int
    tPPD: int
    # Refresh.
    tRFCab: int
    tRFCpb: int
    tRREFD: int
    tREFI: int
    tREFIpb: int
    refresh_mode: int  # a RefreshMode
    refresh_stagger: int  # pseudo-channel p's first refresh is due p * refresh_stagger after the interval
    # Queues, requests per pseudo-channel.
    read_queue: int
    write_queue: int
    write_high: int
    write_low: int
    # What follows is off by default. Buses and columns:
    shared_command_bus: int = 0  # 1: row and column commands share one bus
    tCCDLW: int = 0  # WR to WR in a group, where it is longer than tCCDL
    # Choice of the next command.
    scheduler: int = 0  # a SchedulerMode
    row_hit_cap: int = 0  # column commands that may pass an older request to the same bank, per opening; 0: any number
    starve_after: int = 0  # the oldest request goes first once it has been queued so long; 0: never
    page_timeout: int = -1  # an unwanted row is closed so long after its last use; -1: it stays open
    # Write queue.
    write_forwarding: int = 0  # 1: a read of a queued write's address is answered from the queue
    write_coalescing: int = 0  # 1: a write to a queued write's address merges with it
    forward_ticks: int = 0  # from admission to completion of either
    # Refresh.
    tRFCsb: int = 0
    tREFIsb: int = 0
    refresh_order: int = 0  # a RefreshOrder
    refresh_postpone: int = 0  # ticks that a refresh may wait for its banks to be unwanted
    refresh_pull_in: int = 0  # ticks that a refresh may come early while nothing is queued
    refresh_idle: int = 0  # ticks that nothing must have been queued for before one comes early
    # Power-down.
    power_down_after: int = 0  # ticks without a queued request; 0: never
    tCKE: int = 0
    tXP: int = 0
    # Reports.
    latency_histogram: int = 0  # 1: a histogram of latencies is kept (histogram.py)


def refresh_interval(timing: DramTiming) -> int:
    """Ticks from one refresh of a pseudo-channel falling due to the next."""
    if timing.refresh_mode == RefreshMode.ALL_BANK:
        return timing.tREFI
    return timing.tREFIsb if timing.refresh_mode == RefreshMode.SAME_BANK else timing.tREFIpb


def least_tile_ticks(timing: DramTiming) -> int:
    """The shortest tile of a consumer: no shorter than the time from any read being issued to its data."""
    return max(timing.tCL + timing.tBL, timing.forward_ticks)


def answers_from_write_queue(timing: DramTiming) -> bool:
    """Whether requests may be served without a command."""
    return bool(timing.write_forwarding or timing.write_coalescing)


class Count(IntEnum):
    """Index of each count in a kernel's count vector. Commands and requests are numbers, the rest are ticks."""

    ACT = 0
    PRE = 1  # single-bank precharges: for a demand, or to make a bank ready for REFpb
    PREAB = 2
    RD = 3
    WR = 4
    REFAB = 5
    REFPB = 6
    HITS = 7
    MISSES = 8
    CONFLICTS = 9
    LATENCY = 10  # sum over requests of completion - arrival
    # Data-bus time, summed over pseudo-channels, up to the end of each one's last burst slot: these five tile it.
    BUSY = 11
    REFRESH = 12
    TURNAROUND = 13
    ROW = 14
    IDLE = 15
    FORWARDED = 16  # reads answered from the write queue
    COALESCED = 17  # writes merged with a queued one
    REFSB = 18
    PDE = 19
    PDX = 20
    POWER_DOWN_ACTIVE = 21  # ticks in power-down with a row open, summed over pseudo-channels
    POWER_DOWN_PRECHARGED = 22  # ticks in power-down with every bank closed


COUNT_WORDS = len(Count)
"""Words of a count vector."""


class Command(IntEnum):
    """Command codes of a command log."""

    ACT = 0
    PRE = 1
    PREAB = 2
    RD = 3
    WR = 4
    REFAB = 5
    REFPB = 6
    REFSB = 7  # its BANK_GROUP is -1: all groups of the stack ID
    PDE = 8  # power-down entry of a pseudo-channel
    PDX = 9  # power-down exit


class LogField(IntEnum):
    """Columns of a command log, an (n, 8) int64 array. -1 where a field does not apply to the command."""

    TICK = 0
    COMMAND = 1
    PSEUDO_CHANNEL = 2
    STACK_ID = 3
    BANK_GROUP = 4
    BANK = 5
    ROW = 6
    COLUMN = 7

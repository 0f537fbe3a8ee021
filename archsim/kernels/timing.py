"""What the DRAM kernel, its oracle and the checker share: the parameter table, the names of counts and of commands.

Nothing here has behaviour. A standard (see `archsim/memory/standard.py`) turns into a `DramTiming` once, and everything
below reads that table.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class RefreshMode(IntEnum):
    """How a pseudo-channel keeps its rows alive."""

    NONE = 0
    ALL_BANK = 1
    PER_BANK = 2


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


class Command(IntEnum):
    """Command codes of a command log."""

    ACT = 0
    PRE = 1
    PREAB = 2
    RD = 3
    WR = 4
    REFAB = 5
    REFPB = 6


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

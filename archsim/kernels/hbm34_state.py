"""The parameters, counts, commands and the layout of the state of the `hbm34` kernel (hbm34.py). No behaviour."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Hbm34Timing(NamedTuple):
    """Gaps in ticks from the issue of one command to the issue of the next; `_g` inside a bank group, `_b` a bank."""

    act_act: int
    act_act_g: int
    act_act_b: int
    act_window: int  # from the fourth-last ACT
    act_rd_b: int
    act_wr_b: int
    act_pre: int
    act_refab: int
    act_row: int  # the row bus, both pseudo-channels
    pre_act: int
    pre_pre: int
    pre_refab: int
    rd_rd: int
    rd_rd_g: int
    rd_rd_sid: int  # to the other stack IDs
    rd_wr: int
    rd_pre: int
    wr_wr: int
    wr_wr_g: int
    wr_rd: int
    wr_rd_g: int
    wr_pre: int
    column_column: int  # the column bus, both pseudo-channels
    refab_act: int
    refab_preab: int
    refresh_interval: int  # 0: no refresh
    read_latency: int
    write_on: int  # queued writes from which the write mode begins
    write_off: int  # queued writes down to which it ends


class Hbm34Command(IntEnum):
    """Command codes of a log."""

    ACT = 0
    PREPB = 1
    PREAB = 2
    RD = 3
    WR = 4
    REFAB = 5


class Hbm34Count(IntEnum):
    """Index of each count."""

    TICKS = 0
    HITS = 1
    MISSES = 2
    CONFLICTS = 3
    FORWARDED = 4
    COALESCED = 5
    READ_LATENCY = 6  # sum in ticks; a forwarded read counts 1
    READ_QUEUE = 7  # queued requests, summed over ticks
    WRITE_QUEUE = 8
    REFRESH_QUEUE = 9
    COMMANDS = 10  # all that were issued
    LOG_ROOM = 11  # how many the log can hold; 0: no log is wanted
    LOG_LENGTH = 12  # how many it holds
    FIRST_COMMAND = 13  # how many were issued of the first command, Hbm34Command.ACT; the others follow


ACT, PREPB, PREAB, RD, REFAB = (
    int(c) for c in (Hbm34Command.ACT, Hbm34Command.PREPB, Hbm34Command.PREAB, Hbm34Command.RD, Hbm34Command.REFAB)
)
TICKS, HITS, MISSES, CONFLICTS, FORWARDED, COALESCED = (int(c) for c in list(Hbm34Count)[:6])
READ_LATENCY, READ_QUEUE, WRITE_QUEUE, REFRESH_QUEUE, COMMANDS = (int(c) for c in list(Hbm34Count)[6:11])
LOG_ROOM, LOG_LENGTH, FIRST_COMMAND = (int(c) for c in list(Hbm34Count)[11:])
COUNT_WORDS = FIRST_COMMAND + len(Hbm34Command)
LOG_PER_TICK = 2  # commands at most: one per slot

LOG_FIELDS = 3  # clock, command, request; the pseudo-channel - 2 in place of the request for PREab and REFab
NEVER = 1 << 60
DEPTH = 32  # of the read and of the write queue, shared by both pseudo-channels
INJECTED = 4  # requests per tick at most

# A bank's number is its place in the channel: pseudo-channel (1 bit), stack ID (1), bank group (2), bank (2). A key is
# row << 6 | bank. Directions and modes: 0 read, 1 write. A lane is direction * 2 + pseudo-channel.
BANKS, GROUPS, PCS, BANKS_OF_PC = 64, 16, 2, 32
OPEN = 0  # per bank: the key of its open row, or -1
ACT_OK = OPEN + BANKS
PRE_OK = ACT_OK + BANKS
COLUMN_OK = PRE_OK + BANKS  # per direction and bank
GROUP_OK = COLUMN_OK + 2 * BANKS  # per direction and group: columns
LANE_OK = GROUP_OK + 2 * GROUPS  # per lane: columns
PC_ACT_OK = LANE_OK + 2 * PCS  # per pseudo-channel from here
PC_PRE_OK = PC_ACT_OK + PCS
PREAB_OK = PC_PRE_OK + PCS
REFAB_OK = PREAB_OK + PCS
OPEN_BANKS = REFAB_OK + PCS
WINDOW = OPEN_BANKS + PCS  # the last four ACTs
WINDOW_NEXT = WINDOW + 4 * PCS
ACT_FROM = WINDOW_NEXT + PCS  # lower bounds: no queued request of this mode can ACT, PRE, hit before
PRE_FROM = ACT_FROM + PCS
HIT_FROM = PRE_FROM + PCS
ACTIVE_FROM = HIT_FROM + PCS  # nor an active one use the column slot
ACTIVE = ACTIVE_FROM + PCS  # per bank: whether it has an active request
ACTIVE_LENGTH = ACTIVE + BANKS
ACTIVE_ID = ACTIVE_LENGTH + PCS  # requests in the order of their ACTs
ACTIVE_LANE = ACTIVE_ID + BANKS  # direction * 64 + bank
ACTIVE_RANK = ACTIVE_LANE + BANKS  # number of the ACT
ACT_NUMBER = ACTIVE_RANK + BANKS
ROW_BUS = ACT_NUMBER + 1
COLUMN_BUS = ROW_BUS + 1
MODE = COLUMN_BUS + 1
REFRESH_ASKED = MODE + 1
REFRESH_DONE = REFRESH_ASKED + 1
LAST_RETURN = REFRESH_DONE + 1
LENGTH = LAST_RETURN + 1  # per lane
KEY = LENGTH + 4  # per lane and place, oldest first
ID = KEY + 4 * DEPTH
FILTER = ID + 4 * DEPTH  # queued writes by a hash of their address: zero proves there is none
FILTERS = 1024
CLOCK = FILTER + FILTERS  # where to go on
FOLLOWING = CLOCK + 1  # the next request to inject
STARTED = FOLLOWING + 1
DRAINED = STARTED + 1  # every request is served, and nothing more will come
STATE_WORDS = DRAINED + 1

"""State of one DRAM channel: one flat int64 array with a named offset for each of its parts.

A flat array can be copied, hashed and compared in one call, and constant offsets cost a kernel nothing (a NamedTuple of
arrays costs it a reference count at every access). What belongs to a pseudo-channel lies in its own block: a kernel
takes the address of the block once (`pc = pseudo_channel(state, p)`), and `pc[OPEN_ROW + bank]` is the open row of a
bank; from Python, `ChannelView(state).open_row[p, bank]` is the same word. Times are ticks.
"""

from __future__ import annotations

import numpy as np

from archsim.kernels.histogram import BUCKETS
from archsim.kernels.jit import inlined, shifted
from archsim.kernels.timing import COUNT_WORDS, DramTiming

NEVER = np.int64(1) << 40
"""A tick that does not come (11 days of HBM3 time)."""

ANSWERED = NEVER
"""Added to the completion tick of a trace request that a queued write has answered."""

NO_KEY = np.int64(1) << 62
"""Key of a bank without a candidate: larger than any real one, small enough to add a tick to."""

BANK_BITS = 6
"""Low bits of a key: the bank (at most 64 per pseudo-channel)."""
KEY_BITS = 24
"""Low bits of `tick << KEY_BITS | age << BANK_BITS | bank`: one min over banks finds "earliest legal, then oldest"."""
AGE_SPAN = 1 << (KEY_BITS - BANK_BITS)

MAX_PCS = 2
MAX_STACK_IDS = 4
MAX_BANKS = 1 << BANK_BITS
MAX_QUEUE = 128
MAX_STREAMS = 24
MAX_JOBS = 8

# Channel registers.
NOW = 0
COLUMN_BUS_FREE = 1
ROW_BUS_FREE = 2
NEXT_AGE = 3
ACTIVE_STREAMS = 4
TILE_EVENT = 5  # next tick at which a tile may start or end
FINISHED_JOB = 6  # slot of a job that has just finished, or -1
LOG_LENGTH = 7
CHECKPOINT = 8  # 1 when the last event was one at which states tend to repeat
CHAINED = 9  # periods taken from the memo since the state was made, for reports
LOG_CAPACITY = 10  # rows of the command log
RECORD_DONE = 11  # 1 if completion ticks of trace requests are wanted
ROW_SHIFT = 12  # log2 of the bursts of a row set, or -1 if that is no power of two
REGISTERS = 16

# Jobs.
JOB_ACTIVE = 0
JOB_TILES = 1
JOB_TILE_TICKS = 2
JOB_STARTED = 3  # tiles started
JOB_ENDED = 4  # tiles ended
JOB_TILE_END = 5  # NEVER unless a tile runs
JOB_READY = 6  # when the next tile's data are (or were) there; NEVER until then
JOB_GATE = 7
JOB_OPEN_READS = 8  # bursts not yet issued, all pseudo-channels
JOB_OPEN_WRITES = 9
JOB_LAST_DATA = 10  # when the last issued burst is complete
JOB_DATA = 11  # when the reads that count towards its next tile, so far, are there (front policies only)
JOB_FIELDS = 12

# Count vector (timing.Count)
COUNTS = REGISTERS

# Streams [s]
ACTIVE = COUNTS + COUNT_WORDS  # slots of active streams, ascending
STREAM_JOB = ACTIVE + MAX_STREAMS
STREAM_WRITE = STREAM_JOB + MAX_STREAMS
STREAM_WINDOW = STREAM_WRITE + MAX_STREAMS  # bursts admitted beyond the ended tiles
STREAM_TRACE = STREAM_WINDOW + MAX_STREAMS  # 1 if requests come from the trace arrays

# Jobs [job, field]
JOB = STREAM_TRACE + MAX_STREAMS

# Constants of the organisation [bank]: each would be a division
STACK_ID_OF = JOB + MAX_JOBS * JOB_FIELDS
GROUP_FIRST = STACK_ID_OF + MAX_BANKS  # the first bank of the same group

# Then the pseudo-channels, one block each, in which everything below lies (see `pseudo_channel`).
FIRST_PC = GROUP_FIRST + MAX_BANKS

# Banks [bank]
ACT_OK = 0  # earliest ACT or refresh as far as the bank itself is concerned
PRE_OK = ACT_OK + MAX_BANKS  # earliest PRE
READY = PRE_OK + MAX_BANKS  # earliest ACT (bank and group) if closed, PRE_OK if open: what the row search reads
GROUP_ACT_OK = READY + MAX_BANKS  # earliest ACT as far as the bank's group is concerned
CLOSED = GROUP_ACT_OK + MAX_BANKS  # -1 closed, 0 open (a mask)
OPEN_ROW = CLOSED + MAX_BANKS  # -1 if closed

# Directions of banks [write, bank]
COLUMN_OK = OPEN_ROW + MAX_BANKS  # earliest column command, bank and group
HIT_KEY = COLUMN_OK + 2 * MAX_BANKS  # key of the oldest queued hit, NO_KEY if none
ROW_KEY = HIT_KEY + 2 * MAX_BANKS  # key of the oldest queued request if the bank has no hit, else NO_KEY
HIT_SLOT = ROW_KEY + 2 * MAX_BANKS  # queue entry of the oldest hit, or the end of the list

# Directions of stack IDs [write, sid]
BUS_OK = HIT_SLOT + 2 * MAX_BANKS  # earliest column command, data bus

# Activation window [4]
FAW = BUS_OK + 2 * MAX_STACK_IDS  # ticks of the last four ACTs plus tFAW

# Registers of a pseudo-channel
FAW_NEXT = FAW + 4  # ACTs so far
RRD_OK = FAW_NEXT + 1  # earliest ACT after the last ACT
REFPB_OK = RRD_OK + 1  # earliest ACT or REFpb after the last REFpb
PRE_ANY_OK = REFPB_OK + 1  # earliest PRE after the last PRE
WRITE_MODE = PRE_ANY_OK + 1  # 1 while writes drain
DUE = WRITE_MODE + 1  # next refresh
REFRESHING = DUE + 1  # 1 while a refresh is under way, up to its REF
HELD_BANK = REFRESHING + 1  # the first one held, -1 if none
POINTER = HELD_BANK + 1  # next bank (or set of banks) to be refreshed in turn
REFRESH_BEGIN = POINTER + 1  # when the last all-bank refresh got under way
REFRESH_END = REFRESH_BEGIN + 1  # when it ended (NEVER while pending)
REFRESH_FOLDED = REFRESH_END + 1  # ticks of earlier refreshes since the last burst slot
SLOT_END = REFRESH_FOLDED + 1  # end of the last accounted data-bus slot
LAST_WRITE = SLOT_END + 1  # direction of the last column command, -1 before the first
TURN = LAST_WRITE + 1  # stream admitted last
ADMIT_AT = TURN + 1  # when a request may next enter
BEST_COLUMN = ADMIT_AT + 1  # candidate key
BEST_ROW = BEST_COLUMN + 1  # candidate key
COLUMN_DIRTY = BEST_ROW + 1  # candidate to be searched anew
ROW_DIRTY = COLUMN_DIRTY + 1  # candidate to be searched anew

# Queues [write]
QUEUED = ROW_DIRTY + 1  # entries in use

# Queue entries [write, depth]. Those of a bank form a ring, oldest first, closed by entry LIST_END + (write, bank): an
# empty list needs no case of its own. This end has the age of a request that never comes, and the row looked for.
LIST_END = 2 * MAX_QUEUE
LINKS = LIST_END + 2 * MAX_BANKS
ENTRY_ROW = QUEUED + 2
ENTRY_AGE = ENTRY_ROW + LINKS
ENTRY_NEXT = ENTRY_AGE + LINKS
ENTRY_PREVIOUS = ENTRY_NEXT + LINKS
HEAD = ENTRY_NEXT + LIST_END  # [write, bank] oldest entry, or the end
TAIL = ENTRY_PREVIOUS + LIST_END  # [write, bank] youngest entry, or the end
ENTRY_ADDRESS = ENTRY_PREVIOUS + LINKS
ENTRY_STREAM = ENTRY_ADDRESS + 2 * MAX_QUEUE
ENTRY_INDEX = ENTRY_STREAM + 2 * MAX_QUEUE
ENTRY_TOUCHED = ENTRY_INDEX + 2 * MAX_QUEUE  # first command: 0 none yet, 1 ACT, 2 PRE
FREE_ENTRY = ENTRY_TOUCHED + 2 * MAX_QUEUE  # stack of free entries

# Streams [s]
STREAM_BASE = FREE_ENTRY + 2 * MAX_QUEUE  # first burst, or offset in the trace arrays
STREAM_TOTAL = STREAM_BASE + MAX_STREAMS  # requests
STREAM_NEXT = STREAM_TOTAL + MAX_STREAMS  # requests admitted
STREAM_ISSUED = STREAM_NEXT + MAX_STREAMS  # column commands issued
STREAM_SHARE = STREAM_ISSUED + MAX_STREAMS  # bursts per tile
STREAM_THRESHOLD = STREAM_SHARE + MAX_STREAMS  # bursts the next tile waits for

# Refreshes that wait, come early or go out of turn, same-bank refresh, power-down (kept only with these)
EMPTY_SINCE = STREAM_THRESHOLD + MAX_STREAMS  # since when nothing is queued, NEVER while something is
LOOK_AT = EMPTY_SINCE + 1  # when a refresh that waits may find a unit
AWAKE_AT = LOOK_AT + 1  # earliest command after the last PDX
POWER_CHANGE_OK = AWAKE_AT + 1  # earliest PDE or PDX after the last PDX or PDE
PDE_OK = POWER_CHANGE_OK + 1  # earliest PDE after the last data
POWER_COUNTED = PDE_OK + 1  # up to when a power-down has been counted
REFSB_OK = POWER_COUNTED + 1  # [sid] earliest REFsb after the last one
LAST_USE = REFSB_OK + MAX_STACK_IDS  # [unit] last column command to one of its banks
POWER = LAST_USE + MAX_BANKS  # 0 up, 1 power-down with a row open, 2 with all banks closed
REFRESHED = POWER + 1  # [unit] 1 if it has had its refresh of this rotation

# Front policies (special.Shape): banks [bank], queue entries [write, depth]
PASSED = REFRESHED + MAX_BANKS  # column commands since the ACT that passed an older request to the bank
UNUSED_AT = PASSED + MAX_BANKS  # when the page policy may close the row, if nothing queued wants it
ENTRY_STARVES = UNUSED_AT + MAX_BANKS  # from when on the request goes before all others
ENTRY_SINCE = ENTRY_STARVES + 2 * MAX_QUEUE  # what its latency counts from

PC_WORDS = ENTRY_SINCE + 2 * MAX_QUEUE

# Histogram of latencies [write, bucket] (histogram.py)
HISTOGRAM = FIRST_PC + MAX_PCS * PC_WORDS
STATE_LENGTH = HISTOGRAM + 2 * BUCKETS


@inlined
def pseudo_channel(state, p):  # type: ignore[no-untyped-def]
    """The block of pseudo-channel p: `pc[OPEN_ROW + bank]`."""
    return shifted(state, FIRST_PC + p * PC_WORDS)


class ChannelView:
    """The parts of a state as shaped arrays (no copy), for Python: `ChannelView(state).open_row[p, bank]`."""

    def __init__(self, state: np.ndarray) -> None:
        self.state = state
        self.counts = state[COUNTS : COUNTS + COUNT_WORDS]
        self.histogram = state[HISTOGRAM:STATE_LENGTH].reshape(2, BUCKETS)
        self.open_row = self._part(OPEN_ROW, MAX_BANKS)
        self.stream_base = self._part(STREAM_BASE, MAX_STREAMS).T
        self.stream_total = self._part(STREAM_TOTAL, MAX_STREAMS).T
        self.stream_next = self._part(STREAM_NEXT, MAX_STREAMS).T
        self.stream_issued = self._part(STREAM_ISSUED, MAX_STREAMS).T
        self.queued = self._part(QUEUED, 2)
        self.slot_end = self._part(SLOT_END, 1)[:, 0]
        self.due = self._part(DUE, 1)[:, 0]
        self.admit_at = self._part(ADMIT_AT, 1)[:, 0]
        self.job = state[JOB : JOB + MAX_JOBS * JOB_FIELDS].reshape(MAX_JOBS, JOB_FIELDS)

    def _part(self, offset: int, words: int) -> np.ndarray:
        """int64[p, words]"""
        blocks = self.state[FIRST_PC:HISTOGRAM].reshape(MAX_PCS, PC_WORDS)
        return blocks[:, offset : offset + words]


def new_state(q: DramTiming) -> np.ndarray:
    """A drained channel at tick 0: all banks closed, nothing queued, refresh due after one interval.

    Raises:
        ValueError: if the organisation or the queues are larger than the state has room for, or a clock has a number
            of ticks that is not a power of two.
    """
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
    limits = (
        ("pseudo-channels", q.pseudo_channels, MAX_PCS),
        ("stack IDs", q.stack_ids, MAX_STACK_IDS),
        ("banks per pseudo-channel", banks, MAX_BANKS),
        ("read queue entries", q.read_queue, MAX_QUEUE),
        ("write queue entries", q.write_queue, MAX_QUEUE),
    )
    for what, value, limit in limits:
        if not 1 <= value <= limit:
            raise ValueError(f"{value} {what}; the DRAM kernel takes 1 to {limit}")
    if q.ticks_per_ck & (q.ticks_per_ck - 1) or q.ticks_per_ck < 1:
        raise ValueError(f"{q.ticks_per_ck} ticks per clock; the DRAM kernel takes a power of two")
    state = np.zeros(STATE_LENGTH, np.int64)
    state[TILE_EVENT] = NEVER
    state[FINISHED_JOB] = -1
    blocks = state[FIRST_PC:HISTOGRAM].reshape(MAX_PCS, PC_WORDS)
    for first, after, value in (
        (CLOSED, COLUMN_OK, -1),
        (HIT_KEY, HIT_SLOT, NO_KEY),
        (HELD_BANK, POINTER, -1),
        (LAST_WRITE, ADMIT_AT, -1),
        (ADMIT_AT, BEST_COLUMN, NEVER),
        (BEST_COLUMN, COLUMN_DIRTY, NO_KEY),
        (COLUMN_DIRTY, QUEUED, 1),
        (ENTRY_AGE + LIST_END, ENTRY_NEXT, NO_KEY >> BANK_BITS),
        (EMPTY_SINCE, LOOK_AT, NEVER),
        (LAST_USE, POWER, -NEVER),
    ):
        blocks[:, first:after] = value
    row_set = banks * q.columns
    state[ROW_SHIFT] = row_set.bit_length() - 1 if row_set & (row_set - 1) == 0 else -1
    bank, banks_per_sid = np.arange(MAX_BANKS), q.bank_groups * q.banks_per_group
    state[STACK_ID_OF:GROUP_FIRST] = bank // banks_per_sid
    state[GROUP_FIRST:FIRST_PC] = bank // banks_per_sid * banks_per_sid + bank % q.bank_groups
    interval = (NEVER, q.tREFI, q.tREFIpb, q.tREFIsb)[q.refresh_mode]
    blocks[:, DUE] = interval + np.arange(MAX_PCS) * q.refresh_stagger
    for ends in (HIT_SLOT, HEAD, TAIL):
        blocks[:, ends : ends + 2 * MAX_BANKS] = LIST_END + np.arange(2 * MAX_BANKS)
    blocks[:, FREE_ENTRY:STREAM_BASE] = np.arange(2 * MAX_QUEUE)
    jobs = ChannelView(state).job
    jobs[:, JOB_TILE_END] = NEVER
    jobs[:, JOB_READY] = NEVER
    return state

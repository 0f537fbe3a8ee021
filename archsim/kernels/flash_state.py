"""State of one flash channel: a flat int64 array with a named offset for each of its parts, and its parameters.

As in channel.py: `state[HEAD + plane]` is the first request in a plane's line; from Python,
`FlashView(state).senses[plane]` is a view. Times are ticks. The policy is docs/flash_policy.md.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

NEVER = np.int64(1) << 60
"""A tick that does not come."""
NO_KEY = np.int64(1) << 62
"""Age of a group that has nothing to start."""

MAX_PLANES = 1024
MAX_BUFFERS = 2
MAX_REQUESTS = 4096
MAX_STREAMS = 24
MAX_JOBS = 16


class FlashTiming(NamedTuple):
    """Parameters of one flash channel. Times are ticks (a byte on the channel's bus), sizes are granules."""

    planes: int
    group_planes: int  # planes that share one array control
    buffers: int  # page buffers per plane
    granules: int  # per page
    codeword: int  # granules per ECC codeword
    codeword_ticks: int  # of a codeword with its parity on the data bus
    ecc_ticks: int
    link_ticks: int  # per granule; 0: no link
    command_ticks: int  # 0: no command bus
    t_read: int
    t_program: int
    t_erase: int
    most_active: int  # array operations under way at a time
    queue: int  # requests in the channel
    staging: int  # granules


class Kind(IntEnum):
    """What a request asks for; also the kind of an array operation."""

    READ = 0
    PROGRAM = 1
    ERASE = 2


class FlashCommand(IntEnum):
    """Command codes of a command log."""

    SENSE = 0
    PROGRAM = 1
    ERASE = 2
    READ_OUT = 3
    LOAD = 4


class FlashLogField(IntEnum):
    """Columns of a command log, an int64[n, 8] array. -1 where a field does not apply."""

    TICK = 0
    COMMAND = 1
    PLANE = 2
    BUFFER = 3
    PAGE = 4
    FIRST = 5  # granule
    SIZE = 6  # granules
    AGE = 7


class FlashCount(IntEnum):
    """Index of each count in a kernel's count vector."""

    SENSES = 0  # pages read into a buffer
    PROGRAMS = 1  # pages
    ERASES = 2
    READS = 3  # requests completed
    WRITES = 4
    JOINED = 5  # reads that needed no sense of their own
    GRANULES = 6  # asked for by completed reads
    CODEWORDS = 7  # moved on the data bus, both directions
    LATENCY = 8  # ticks, sum over requests of completion - arrival
    BUS_BUSY = 9  # ticks
    LINK_BUSY = 10  # ticks
    ARRAY_BUSY = 11  # plane-ticks of senses, programs and erases
    OPERATIONS = 12  # array operations; a multi-plane one counts once


COUNT_WORDS = 16

# Registers.
NOW = 0
NEXT_AGE = 1
COMMAND_FREE = 2
LINK_FREE = 3
BUS_END = 4  # NEVER while the bus is free
BUS_ENTRY = 5
BUS_PLANE = 6
BUS_BUFFER = 7
ACTIVE = 8  # array operations under way
STAGED = 9  # granules reserved
USED = 10  # entries in use
TURN = 11  # stream admitted last
STREAM_LIMIT = 12  # no stream slot in use at or above
ADMIT_AT = 13  # next arrival of a trace that is waited for
ADMIT_DIRTY = 14  # something has happened since that may let a request in
STARTABLE = 15  # groups with a key
FINISHED = 16  # jobs finished and not yet collected
TRANSFER_HEAD = 17  # transferable requests by (READY, AGE)
TRANSFER_TAIL = 18
DELIVERY_HEAD = 19  # reads on the bus, in ECC or on the link, by completion
DELIVERY_TAIL = 20
ROUND = 21  # 1: a stream has entered a new round of the striping table
LOG_LENGTH = 22
LOG_CAPACITY = 23
LOADS = 24  # planes in LOAD_LIST
JUMPED = 25  # periods taken by fast-forward, for reports
NEXT_SERIAL = 26
RING_HEAD = 27  # [kind] of array operations under way: constant durations end in the order of their starts
RING_COUNT = 30  # [kind]
COUNTS = 40

# Planes.
HEAD = COUNTS + COUNT_WORDS
TAIL = HEAD + MAX_PLANES
LOADED = TAIL + MAX_PLANES  # of the program first in line: 0 no buffer, 1 being loaded, 2 loaded
WRITE_BUFFER = LOADED + MAX_PLANES
ERASING = WRITE_BUFFER + MAX_PLANES  # entry + 1, 0: none
PLANE_SENSES = ERASING + MAX_PLANES
LOAD_LIST = PLANE_SENSES + MAX_PLANES  # planes to be looked at in step 6
LOAD_LISTED = LOAD_LIST + MAX_PLANES

# Buffers [plane, buffer].
EMPTY, SENSING, HELD, LOADING, PROGRAMMING = 0, 1, 2, 3, 4
BUFFER_STATE = LOAD_LISTED + MAX_PLANES
BUFFER_PAGE = BUFFER_STATE + MAX_BUFFERS * MAX_PLANES  # -1: none that can be joined
BUFFER_PENDING = BUFFER_PAGE + MAX_BUFFERS * MAX_PLANES  # reads yet to leave
BUFFER_ENTRY = BUFFER_PENDING + MAX_BUFFERS * MAX_PLANES  # first of the sense's requests, or the program
BUFFER_AGE = BUFFER_ENTRY + MAX_BUFFERS * MAX_PLANES
BUFFER_SERIAL = BUFFER_AGE + MAX_BUFFERS * MAX_PLANES  # of the stream that asked for the sense

# Groups.
GROUP_END = BUFFER_SERIAL + MAX_BUFFERS * MAX_PLANES  # NEVER: idle
KEY = GROUP_END + MAX_PLANES  # age of the oldest startable, or NO_KEY
RING = KEY + MAX_PLANES  # [kind, slot] groups

# Requests.
KIND = RING + 3 * MAX_PLANES
PLANE = KIND + MAX_REQUESTS
PAGE = PLANE + MAX_REQUESTS
FIRST = PAGE + MAX_REQUESTS
SIZE = FIRST + MAX_REQUESTS
AGE = SIZE + MAX_REQUESTS
ARRIVAL = AGE + MAX_REQUESTS
STREAM = ARRIVAL + MAX_REQUESTS
INDEX = STREAM + MAX_REQUESTS  # in the trace, or -1
READY = INDEX + MAX_REQUESTS  # since when transferable
DONE = READY + MAX_REQUESTS  # completion of a read, once it has the bus
BUFFER = DONE + MAX_REQUESTS
LINE_NEXT = BUFFER + MAX_REQUESTS  # in the plane's line
LINE_PREVIOUS = LINE_NEXT + MAX_REQUESTS
NEXT = LINE_PREVIOUS + MAX_REQUESTS  # among the transferable ones or the deliveries
PREVIOUS = NEXT + MAX_REQUESTS
CHAIN = PREVIOUS + MAX_REQUESTS  # next request of the same sense
CHAIN_TAIL = CHAIN + MAX_REQUESTS  # of the first of a sense
FREE = CHAIN_TAIL + MAX_REQUESTS  # stack of free entries

# Streams.
TRACE = -1
STREAM_KIND = FREE + MAX_REQUESTS  # a Kind, or TRACE
STREAM_BASE = STREAM_KIND + MAX_STREAMS  # first request as a multiple of its size, or first of the trace
STREAM_TOTAL = STREAM_BASE + MAX_STREAMS
STREAM_NEXT = STREAM_TOTAL + MAX_STREAMS
STREAM_OPEN = STREAM_NEXT + MAX_STREAMS  # admitted, not complete
STREAM_WINDOW = STREAM_OPEN + MAX_STREAMS
STREAM_SIZE = STREAM_WINDOW + MAX_STREAMS  # granules per request
STREAM_JOB = STREAM_SIZE + MAX_STREAMS
STREAM_SERIAL = STREAM_JOB + MAX_STREAMS
JOB_OPEN = STREAM_SERIAL + MAX_STREAMS  # requests not complete
JOB_DONE = JOB_OPEN + MAX_JOBS  # completion tick, -1 before
STATE_LENGTH = JOB_DONE + MAX_JOBS

TRACE_WORDS = 4
"""Of a request of a trace: kind, page, first granule, granules."""


class Striping(NamedTuple):
    """Where pages lie: int64[S] and int64[S], and int64[planes] (docs/flash_policy.md, "Requests")."""

    plane_of: np.ndarray
    offset_of: np.ndarray
    per_round: np.ndarray


def striping(order: np.ndarray, planes: int) -> Striping:
    """Pages dealt to planes in this order, over and over; a plane may come more than once, or never."""
    plane_of = np.ascontiguousarray(order, np.int64)
    per_round = np.bincount(plane_of, minlength=planes).astype(np.int64)
    offset_of = np.zeros(len(plane_of), np.int64)
    seen = np.zeros(planes, np.int64)
    for position, plane in enumerate(plane_of):
        offset_of[position] = seen[plane]
        seen[plane] += 1
    return Striping(plane_of, offset_of, per_round)


class FlashView:
    """Parts of a state as arrays (no copy), for Python."""

    def __init__(self, state: np.ndarray) -> None:
        self.state = state
        self.counts = state[COUNTS : COUNTS + COUNT_WORDS]
        self.senses = state[PLANE_SENSES : PLANE_SENSES + MAX_PLANES]
        self.stream_next = state[STREAM_NEXT : STREAM_NEXT + MAX_STREAMS]
        self.stream_open = state[STREAM_OPEN : STREAM_OPEN + MAX_STREAMS]
        self.stream_total = state[STREAM_TOTAL : STREAM_TOTAL + MAX_STREAMS]
        self.job_open = state[JOB_OPEN : JOB_OPEN + MAX_JOBS]
        self.job_done = state[JOB_DONE : JOB_DONE + MAX_JOBS]


def check_timing(q: FlashTiming) -> None:
    """Raises ValueError if the kernel has no room for the channel or the channel can't work."""
    for what, value, limit in (
        ("planes", q.planes, MAX_PLANES),
        ("page buffers per plane", q.buffers, MAX_BUFFERS),
        ("requests in a channel", q.queue, MAX_REQUESTS),
    ):
        if not 1 <= value <= limit:
            raise ValueError(f"{value} {what}; the flash kernel takes 1 to {limit}")
    for whole, part, what in (
        (q.planes, q.group_planes, f"{q.planes} planes don't divide into groups of {q.group_planes}"),
        (q.granules, q.codeword, f"a page of {q.granules} granules doesn't divide into codewords of {q.codeword}"),
    ):
        if part < 1 or whole % part:
            raise ValueError(what)
    if min(q.codeword_ticks, q.t_read, q.t_program, q.t_erase, q.most_active) < 1:
        raise ValueError("a codeword on the bus, tR, tPROG, tERASE and the operations under way are at least 1")
    if q.staging < q.granules:
        raise ValueError(f"a staging SRAM of {q.staging} granules holds no page of {q.granules}")


def new_state(q: FlashTiming) -> np.ndarray:
    """A drained channel at tick 0. Raises ValueError (see `check_timing`)."""
    check_timing(q)
    state = np.zeros(STATE_LENGTH, np.int64)
    for register in (BUS_ENTRY, TRANSFER_HEAD, TRANSFER_TAIL, DELIVERY_HEAD, DELIVERY_TAIL, TURN):
        state[register] = -1
    state[BUS_END] = state[ADMIT_AT] = NEVER
    state[HEAD:LOADED] = -1
    state[BUFFER_PAGE:BUFFER_PENDING] = -1
    state[GROUP_END:KEY] = NEVER
    state[KEY:RING] = NO_KEY
    state[FREE : FREE + MAX_REQUESTS] = np.arange(MAX_REQUESTS)
    state[STREAM_SERIAL : STREAM_SERIAL + MAX_STREAMS] = -1
    state[JOB_DONE : JOB_DONE + MAX_JOBS] = -1
    return state


def open_stream(
    state: np.ndarray, slot: int, job: int, kind: int, base: int, total: int, window: int, size: int
) -> None:
    """Add a stream (or a trace: kind TRACE) to a job; it may admit from the tick that `state[NOW]` says.

    `base` counts requests of `size` granules from page 0 on; of a trace it is its first row."""
    for part, value in (
        (STREAM_KIND, kind),
        (STREAM_BASE, base),
        (STREAM_TOTAL, total),
        (STREAM_NEXT, 0),
        (STREAM_OPEN, 0),
        (STREAM_WINDOW, window),
        (STREAM_SIZE, size),
        (STREAM_JOB, job),
        (STREAM_SERIAL, int(state[NEXT_SERIAL])),
    ):
        state[part + slot] = value
    state[NEXT_SERIAL] += 1
    state[JOB_OPEN + job] += total
    state[JOB_DONE + job] = -1
    state[STREAM_LIMIT] = max(int(state[STREAM_LIMIT]), slot + 1)
    state[ADMIT_DIRTY] = 1

"""What classes of equal channels need of a channel's state: comparing two states, and holding tiles back.

The tiles of a job start in all channels at once, when the slowest one has its data. Channels are simulated one after
the other, so each is kept from starting a tile on its own by the job's gate, and run to where it knows that its data
are there.
"""

from __future__ import annotations

import numpy as np

from archsim.kernels.canonical import write_form
from archsim.kernels.channel import (
    ACTIVE,
    ACTIVE_STREAMS,
    FINISHED_JOB,
    JOB,
    JOB_ACTIVE,
    JOB_ENDED,
    JOB_FIELDS,
    JOB_GATE,
    JOB_OPEN_READS,
    JOB_OPEN_WRITES,
    JOB_READY,
    JOB_STARTED,
    JOB_TILE_END,
    JOB_TILE_TICKS,
    JOB_TILES,
    MAX_JOBS,
    NEVER,
    NOW,
    OPEN_ROW,
    STREAM_BASE,
    STREAM_ISSUED,
    STREAM_JOB,
    STREAM_NEXT,
    STREAM_SHARE,
    STREAM_THRESHOLD,
    STREAM_TOTAL,
    STREAM_TRACE,
    STREAM_WINDOW,
    STREAM_WRITE,
    TILE_EVENT,
    pseudo_channel,
)
from archsim.kernels.dram import advance_special
from archsim.kernels.jit import inlined, kernel, pointer
from archsim.kernels.special import specialised
from archsim.kernels.timing import DramTiming

IDENTITY_LENGTH = 1 << 14
"""Room for the longest identity."""


def write_identity(state, q, out):  # type: ignore[no-untyped-def]
    """Write all of a state that its future depends on; its length. Two channels at the same tick with the same identity
    (and, for streams with lists of requests, the same lists) do the same for ever.

    The canonical form alone promises that up to the next checkpoint; absolute rows and progress are added to it."""
    return _write_identity(state, specialised(q), out)


@kernel
def _write_identity(state, q, out):  # type: ignore[no-untyped-def]
    st = pointer(state)
    o = pointer(out)
    n = write_form(st, q, o)
    n = _write_rows(st, q, o, n)
    n = _write_streams(st, q, o, n)
    return _write_jobs(st, o, n)


@inlined
def _write_rows(state, q: DramTiming, out, n):  # type: ignore[no-untyped-def]
    for p in range(q.pseudo_channels):
        pc = pseudo_channel(state, p)
        for bank in range(q.stack_ids * q.bank_groups * q.banks_per_group):
            out[n] = pc[OPEN_ROW + bank]
            n += 1
    return n


@inlined
def _write_streams(state, q: DramTiming, out, n):  # type: ignore[no-untyped-def]
    for k in range(state[ACTIVE_STREAMS]):
        s = state[ACTIVE + k]
        for field in (STREAM_JOB, STREAM_WRITE, STREAM_WINDOW, STREAM_TRACE):
            out[n] = state[field + s]
            n += 1
        for p in range(q.pseudo_channels):
            pc = pseudo_channel(state, p)
            for field in (
                STREAM_BASE, STREAM_TOTAL, STREAM_NEXT, STREAM_ISSUED, STREAM_SHARE, STREAM_THRESHOLD,
            ):  # fmt: skip
                out[n] = pc[field + s]
                n += 1
    return n


@inlined
def _write_jobs(state, out, n):  # type: ignore[no-untyped-def]
    for job in range(MAX_JOBS):
        j = JOB + job * JOB_FIELDS
        if state[j + JOB_ACTIVE] != 0:
            for field in (
                JOB_TILES, JOB_TILE_TICKS, JOB_STARTED, JOB_ENDED, JOB_TILE_END, JOB_READY, JOB_GATE, JOB_OPEN_READS,
                JOB_OPEN_WRITES,
            ):  # fmt: skip
                out[n] = state[j + field]
                n += 1
    return n


@kernel
def set_gate(state, q, job, tick):  # type: ignore[no-untyped-def]
    """Let the job's next tile start at `tick` at the earliest (NEVER: not until told), and put the tile event right."""
    state[JOB + job * JOB_FIELDS + JOB_GATE] = tick
    event = NEVER
    for each in range(MAX_JOBS):
        j = JOB + each * JOB_FIELDS
        if state[j + JOB_ACTIVE] == 0 or state[j + JOB_TILES] == 0:
            continue
        if state[j + JOB_TILE_END] < NEVER:
            event = min(event, state[j + JOB_TILE_END])
        elif state[j + JOB_READY] < NEVER and state[j + JOB_GATE] < NEVER:
            event = min(event, max(state[j + JOB_READY], state[j + JOB_GATE]))
    state[TILE_EVENT] = max(event, state[NOW])


@kernel
def earliest_ready(state, q, job):  # type: ignore[no-untyped-def]
    """The tick at which the job's next tile has its data in this channel, or, while that isn't known, a bound below.

    A pseudo-channel's reads are at least tCCDS apart, and the last one's data come tCL + tBL after it."""
    j = JOB + job * JOB_FIELDS
    if state[j + JOB_READY] < NEVER:
        return state[j + JOB_READY]
    most = 1
    st = pointer(state)
    for p in range(q.pseudo_channels):
        pc = pseudo_channel(st, p)
        missing = 0
        for k in range(state[ACTIVE_STREAMS]):
            s = state[ACTIVE + k]
            if state[STREAM_JOB + s] == job and state[STREAM_WRITE + s] == 0:
                wanted = min(pc[STREAM_THRESHOLD + s], pc[STREAM_TOTAL + s])
                missing += max(0, wanted - pc[STREAM_ISSUED + s])
        most = max(most, missing)
    return state[NOW] + (most - 1) * q.tCCDS + q.tCL + q.tBL


def run_to_ready(state, q, bank_of, column_of, trace, arrival, job, until):  # type: ignore[no-untyped-def]
    """Run a channel until it is known when the job's next tile has its data, but not beyond that tick, nor beyond
    `until`, nor past the end of a job. Other arguments as in `dram.advance`."""
    _run_to_ready(state, specialised(q), bank_of, column_of, trace, arrival, job, until)


@kernel
def _run_to_ready(state, q, bank_of, column_of, trace, arrival, job, until):  # type: ignore[no-untyped-def]
    nothing = np.zeros(0, np.int64)
    no_log = np.zeros((0, 8), np.int64)
    state[FINISHED_JOB] = -1
    while state[NOW] < until and state[FINISHED_JOB] < 0 and state[JOB + job * JOB_FIELDS + JOB_READY] >= NEVER:
        stop = min(until, earliest_ready(state, q, job))
        advance_special(state, q, bank_of, column_of, trace, arrival, nothing, no_log, stop, False)

"""Jobs of a channel: streams whose data a compute unit consumes tile by tile (policy: "Jobs and tiles")."""

from __future__ import annotations

from archsim.kernels.channel import (
    ACTIVE,
    ACTIVE_STREAMS,
    ADMIT_AT,
    FINISHED_JOB,
    JOB,
    JOB_ACTIVE,
    JOB_DATA,
    JOB_ENDED,
    JOB_FIELDS,
    JOB_GATE,
    JOB_LAST_DATA,
    JOB_OPEN_READS,
    JOB_OPEN_WRITES,
    JOB_READY,
    JOB_STARTED,
    JOB_TILE_END,
    JOB_TILE_TICKS,
    JOB_TILES,
    MAX_JOBS,
    MAX_PCS,
    MAX_STREAMS,
    NEVER,
    NOW,
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
from archsim.kernels.jit import inlined
from archsim.kernels.special import front_policies, pseudo_channels
from archsim.kernels.timing import DramTiming


@inlined
def burst_issued(state, q: DramTiming, p, s, w, complete):  # type: ignore[no-untyped-def]
    """Count one issued burst of stream s. True if it was the stream's last one."""
    pc = pseudo_channel(state, p)
    pc[STREAM_ISSUED + s] += 1
    j = state[STREAM_JOB + s] * JOB_FIELDS
    state[JOB + j + JOB_LAST_DATA] = max(state[JOB + j + JOB_LAST_DATA], complete)
    if state[STREAM_WRITE + s] != 0:
        state[JOB + j + JOB_OPEN_WRITES] -= 1
        open_bursts = state[JOB + j + JOB_OPEN_WRITES]
    else:
        state[JOB + j + JOB_OPEN_READS] -= 1
        open_bursts = state[JOB + j + JOB_OPEN_READS]
        arrived = complete
        if front_policies(q):  # an answer from the write queue may come before what was issued earlier
            if pc[STREAM_ISSUED + s] <= pc[STREAM_THRESHOLD + s]:
                state[JOB + j + JOB_DATA] = max(state[JOB + j + JOB_DATA], complete)
            arrived = max(state[JOB + j + JOB_DATA], state[NOW] + 1)
        if (
            pc[STREAM_ISSUED + s] == min(pc[STREAM_THRESHOLD + s], pc[STREAM_TOTAL + s])
            and state[JOB + j + JOB_TILES] > 0
        ):
            wait_for_data(state, q, state[STREAM_JOB + s], arrived)
    if open_bursts == 0:
        finish_if_done(state, state[STREAM_JOB + s])
    if pc[STREAM_ISSUED + s] < pc[STREAM_TOTAL + s]:
        return False
    for other in range(pseudo_channels(q)):
        pc = pseudo_channel(state, other)
        if pc[STREAM_ISSUED + s] < pc[STREAM_TOTAL + s]:
            return False
    return True


@inlined
def leave_stream(state, q: DramTiming, s):  # type: ignore[no-untyped-def]
    """Take a fully issued stream out of the round robin."""
    n = state[ACTIVE_STREAMS]
    k = 0
    while state[ACTIVE + k] != s:
        k += 1
    for i in range(k, n - 1):
        state[ACTIVE + i] = state[ACTIVE + i + 1]
    state[ACTIVE_STREAMS] = n - 1


@inlined
def wait_for_data(state, q: DramTiming, job, arrived):  # type: ignore[no-untyped-def]
    """If every burst of the job's next tile has been issued, note when the last one is there."""
    pcs = q.pseudo_channels
    j = job * JOB_FIELDS
    if state[JOB + j + JOB_STARTED] >= state[JOB + j + JOB_TILES] or state[JOB + j + JOB_READY] < NEVER:
        return
    for k in range(state[ACTIVE_STREAMS]):
        s = state[ACTIVE + k]
        if state[STREAM_JOB + s] != job or state[STREAM_WRITE + s] != 0:
            continue
        for p in range(pcs):
            pc = pseudo_channel(state, p)
            if pc[STREAM_ISSUED + s] < min(pc[STREAM_THRESHOLD + s], pc[STREAM_TOTAL + s]):
                return
    state[JOB + j + JOB_READY] = arrived
    schedule_tile(state, job)


@inlined
def schedule_tile(state, job):  # type: ignore[no-untyped-def]
    """Make the tile event at which the job's next tile may start (or its running one ends) known."""
    j = job * JOB_FIELDS
    tick = state[JOB + j + JOB_TILE_END]
    if tick >= NEVER and state[JOB + j + JOB_READY] < NEVER:
        tick = max(state[JOB + j + JOB_READY], state[JOB + j + JOB_GATE])
    state[TILE_EVENT] = min(state[TILE_EVENT], tick)


@inlined
def run_tiles(state, q: DramTiming, now):  # type: ignore[no-untyped-def]
    """End and start the tiles that are due, and note the next tile event."""
    state[TILE_EVENT] = NEVER
    for job in range(MAX_JOBS):
        j = job * JOB_FIELDS
        if state[JOB + j + JOB_ACTIVE] == 0 or state[JOB + j + JOB_TILES] == 0:
            continue
        if state[JOB + j + JOB_TILE_END] <= now:
            state[JOB + j + JOB_TILE_END] = NEVER
            state[JOB + j + JOB_ENDED] += 1
            for p in range(q.pseudo_channels):
                pc = pseudo_channel(state, p)
                pc[ADMIT_AT] = min(pc[ADMIT_AT], now)
            if state[JOB + j + JOB_ENDED] == state[JOB + j + JOB_TILES]:
                state[JOB + j + JOB_LAST_DATA] = max(state[JOB + j + JOB_LAST_DATA], now)
                finish_if_done(state, job)
                if state[FINISHED_JOB] >= 0:
                    state[TILE_EVENT] = now  # other jobs' tiles are looked at when the caller comes back
                    return
        startable = state[JOB + j + JOB_TILE_END] >= NEVER and state[JOB + j + JOB_STARTED] < state[JOB + j + JOB_TILES]
        if startable and max(state[JOB + j + JOB_READY], state[JOB + j + JOB_GATE]) <= now:
            start_tile(state, q, job, now)
        schedule_tile(state, job)


@inlined
def start_tile(state, q: DramTiming, job, now):  # type: ignore[no-untyped-def]
    """Start the next tile; from now on the job waits for the data of the one after it."""
    j = job * JOB_FIELDS
    state[JOB + j + JOB_STARTED] += 1
    state[JOB + j + JOB_TILE_END] = now + state[JOB + j + JOB_TILE_TICKS]
    state[JOB + j + JOB_READY] = NEVER
    for s in range(MAX_STREAMS):
        if state[STREAM_JOB + s] == job:
            for p in range(MAX_PCS):
                pc = pseudo_channel(state, p)
                pc[STREAM_THRESHOLD + s] += pc[STREAM_SHARE + s]
    # Bursts issued before this tile started arrive before it ends (tile_ticks is at least tCL + tBL and forward_ticks),
    # so "now" is late enough.
    wait_for_data(state, q, job, now)


@inlined
def finish_if_done(state, job):  # type: ignore[no-untyped-def]
    """Report the job as finished once its data have moved and its tiles have ended."""
    j = job * JOB_FIELDS
    if (
        state[JOB + j + JOB_OPEN_READS] > 0
        or state[JOB + j + JOB_OPEN_WRITES] > 0
        or state[JOB + j + JOB_ENDED] < state[JOB + j + JOB_TILES]
    ):
        return
    state[JOB + j + JOB_ACTIVE] = 0
    state[FINISHED_JOB] = job


@inlined
def submit_job(state, q: DramTiming, job, tiles, tile_ticks, gate):  # type: ignore[no-untyped-def]
    """Open a job in a free slot at the current tick; its streams follow with `submit_stream`."""
    j = job * JOB_FIELDS
    for field in range(JOB_FIELDS):
        state[JOB + j + field] = 0
    state[JOB + j + JOB_ACTIVE] = 1
    state[JOB + j + JOB_TILES] = tiles
    state[JOB + j + JOB_TILE_TICKS] = tile_ticks
    state[JOB + j + JOB_TILE_END] = NEVER
    state[JOB + j + JOB_READY] = NEVER
    state[JOB + j + JOB_GATE] = gate


@inlined
def submit_stream(state, q: DramTiming, slot, job, write, window, trace):  # type: ignore[no-untyped-def]
    """Activate a stream whose `stream_base` and `stream_total` are set, as part of a job."""
    pcs = q.pseudo_channels
    j = job * JOB_FIELDS
    state[STREAM_JOB + slot] = job
    state[STREAM_WRITE + slot] = write
    state[STREAM_WINDOW + slot] = window
    state[STREAM_TRACE + slot] = trace
    tiles = state[JOB + j + JOB_TILES]
    bursts = 0
    for p in range(pcs):
        pc = pseudo_channel(state, p)
        pc[STREAM_NEXT + slot] = 0
        pc[STREAM_ISSUED + slot] = 0
        share = (pc[STREAM_TOTAL + slot] + tiles - 1) // tiles if tiles > 0 else 0
        pc[STREAM_SHARE + slot] = share
        pc[STREAM_THRESHOLD + slot] = share
        bursts += pc[STREAM_TOTAL + slot]
    state[JOB + j + (JOB_OPEN_WRITES if write != 0 else JOB_OPEN_READS)] += bursts
    if bursts == 0:
        return
    n = state[ACTIVE_STREAMS]
    k = n
    while k > 0 and state[ACTIVE + k - 1] > slot:
        state[ACTIVE + k] = state[ACTIVE + k - 1]
        k -= 1
    state[ACTIVE + k] = slot
    state[ACTIVE_STREAMS] = n + 1
    for p in range(pcs):
        pc = pseudo_channel(state, p)
        pc[ADMIT_AT] = min(pc[ADMIT_AT], state[NOW])

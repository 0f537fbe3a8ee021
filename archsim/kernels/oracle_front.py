"""The front end of the oracle: tiles, admission and mode (docs/dram_policy.md, steps 0 to 2)."""

from __future__ import annotations

from archsim.kernels.jit import inlined
from archsim.kernels.oracle_state import NOBODY, READ, WRITE, complete
from archsim.kernels.timing import Count

_FORWARDED, _COALESCED = int(Count.FORWARDED), int(Count.COALESCED)


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
            if t < streams.arrived[streams.begin[s, pc] + needed - 1]:
                return False
    return True


@inlined
def step_tiles(timing, streams, jobs, t):  # type: ignore[no-untyped-def]
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
def _answered_by_queue(timing, requests, streams, channel, pc, r, t):  # type: ignore[no-untyped-def]
    """Whether a queued write has the data of read r, or takes the data of write r; then r is served."""
    write = requests.write[r]
    if not (timing.write_coalescing if write else timing.write_forwarding):
        return False
    for k in range(channel.length[pc, WRITE]):
        if requests.address[channel.queue[pc, WRITE, k]] == requests.address[r]:
            channel.counts[_COALESCED if write else _FORWARDED] += 1
            complete(timing, requests, streams, channel, pc, r, t, t + timing.forward_ticks)
            return True
    return False


@inlined
def step_admit(timing, requests, streams, jobs, channel, pc, t):  # type: ignore[no-untyped-def]
    """Returns the number of requests that were answered from the write queue."""
    answered = 0
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
            requests.age[r] = channel.next_age[0]
            channel.next_age[0] += 1
            requests.admitted[r] = t
            streams.next[s, pc] = r + 1
            channel.last_stream[pc] = s
            if _answered_by_queue(timing, requests, streams, channel, pc, r, t):
                answered += 1
            else:
                channel.queue[pc, direction, channel.length[pc, direction]] = r
                channel.length[pc, direction] += 1
            found = True
            break
        if not found:
            break
    if channel.length[pc, READ] > 0 or channel.length[pc, WRITE] > 0:
        channel.empty_since[pc] = NOBODY
    elif channel.empty_since[pc] == NOBODY:
        channel.empty_since[pc] = t
    return answered


@inlined
def step_mode(timing, channel, pc):  # type: ignore[no-untyped-def]
    reads = channel.length[pc, READ]
    writes = channel.length[pc, WRITE]
    if channel.mode[pc] == READ:
        if writes >= timing.write_high or (reads == 0 and writes > 0):
            channel.mode[pc] = WRITE
    elif writes == 0 or (writes <= timing.write_low and reads > 0):
        channel.mode[pc] = READ

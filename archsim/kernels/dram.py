"""The event-driven kernel of a DRAM channel: docs/dram_policy.md, jumping from event to event.

Nothing happens between events, so the kernel computes when the next command of each pseudo-channel becomes legal and
goes there. The steps of an event are in admission.py, refresh.py and commands.py, the search for the next command in
candidates.py, the consumers of the data in tiles.py, and the state in channel.py.
"""

from __future__ import annotations

from archsim.kernels.admission import admit, queued_requests, renumber_ages, switch_mode
from archsim.kernels.candidates import find_candidates
from archsim.kernels.channel import (
    ADMIT_AT,
    AGE_SPAN,
    BEST_COLUMN,
    BEST_ROW,
    CHECKPOINT,
    COUNTS,
    FINISHED_JOB,
    KEY_BITS,
    LOG_CAPACITY,
    MAX_PCS,
    MAX_QUEUE,
    NEVER,
    NEXT_AGE,
    NOW,
    RECORD_DONE,
    REFRESHING,
    TILE_EVENT,
    pseudo_channel,
)
from archsim.kernels.commands import issue_column, issue_row
from archsim.kernels.jit import inlined, kernel, pointer
from archsim.kernels.order import close_unwanted_row, find_by_policy, may_serve_in_order, unwanted_tick
from archsim.kernels.power import power_down, power_tick, power_up, settle_power
from archsim.kernels.refresh import consider_refresh, refresh, refresh_tick
from archsim.kernels.refresh_choice import note_emptiness
from archsim.kernels.special import front_policies, powers_down, pseudo_channels, refresh_choice, specialised
from archsim.kernels.tiles import run_tiles

LATENCY = 10  # timing.Count, as a plain int for the compiler


def advance(state, q, bank_of, column_of, trace, arrival, done, log, until, to_checkpoint):  # type: ignore[no-untyped-def]
    """Run a channel until a job finishes or the clock reaches `until`, whichever is first.

    Args:
        state: int64[STATE_LENGTH] (see `channel.new_state`), changed in place. `state[NOW]` is the tick reached,
            `state[FINISHED_JOB]` the slot of the job that finished, or -1.
        q: timing, in ticks.
        bank_of, column_of: int64[row_set], the address map inside a row set.
        trace: int64[n], requests of trace streams, `address << 1 | write`; arrival: int64[n], their ticks.
        done: int64[n], completion tick of each trace request, plus `channel.ANSWERED` if a queued write answered it
            (empty: not recorded).
        log: int64[m, 8], the command log (empty: not recorded; a full log drops what follows).
        until: horizon (at most 2^37); events at this tick or later are left for the next call.
        to_checkpoint: return also at checkpoints, with `state[CHECKPOINT]` set.
    """
    advance_special(state, specialised(q), bank_of, column_of, trace, arrival, done, log, until, to_checkpoint)


@kernel
def advance_special(state, q, bank_of, column_of, trace, arrival, done, log, until, to_checkpoint):  # type: ignore[no-untyped-def]
    """`advance` for kernels, with `special.specialised` timing."""
    state[LOG_CAPACITY] = log.shape[0]
    state[RECORD_DONE] = done.shape[0]
    run(
        pointer(state), q, pointer(bank_of), pointer(column_of), pointer(trace), pointer(arrival), pointer(done),
        pointer(log.reshape(log.size)), until, to_checkpoint,
    )  # fmt: skip


@inlined
def run(state, q, bank_of, column_of, trace, arrival, done, log, until, to_checkpoint):  # type: ignore[no-untyped-def]
    """`advance` on pointers. The sum of latencies includes what queued requests have waited so far.

    While events run, it is kept as completions minus arrivals of all admitted requests: then a queue entry need not
    know its arrival.
    """
    state[COUNTS + LATENCY] -= queued_requests(state, q) * state[NOW]
    run_events(state, q, bank_of, column_of, trace, arrival, done, log, until, to_checkpoint)
    state[COUNTS + LATENCY] += queued_requests(state, q) * state[NOW]
    if powers_down(q):
        settle_power(state, q)


@inlined
def run_events(state, q, bank_of, column_of, trace, arrival, done, log, until, to_checkpoint):  # type: ignore[no-untyped-def]
    """The event loop."""
    state[FINISHED_JOB] = -1
    state[CHECKPOINT] = 0
    while True:
        now = state[NOW]
        if now >= until:
            return
        if state[TILE_EVENT] <= now:
            run_tiles(state, q, now)
            if state[FINISHED_JOB] >= 0:
                return
        if state[NEXT_AGE] >= AGE_SPAN - 2 * MAX_PCS * MAX_QUEUE:  # no more than that can enter at once
            renumber_ages(state, q)
        wake, target = state[TILE_EVENT], NEVER
        for p in range(pseudo_channels(q)):
            again, due = prepare(state, q, p, now, bank_of, trace, arrival, done)
            wake, target = min(wake, again), min(target, due)
            if front_policies(q):
                if state[FINISHED_JOB] >= 0:  # by an answer of the write queue; the tick is not over
                    return
                wake = min(wake, state[TILE_EVENT])
        if wake <= target and wake > now:
            state[NOW] = min(wake, until)
            continue
        if target >= until:
            state[NOW] = until
            return
        now = target
        state[NOW] = target
        for p in range(pseudo_channels(q)):
            if powers_down(q):
                power_up(state, q, p, now, log)
            if pseudo_channel(state, p)[REFRESHING] != 0 and refresh_tick(state, q, p, now) <= now:
                refresh(state, q, p, now, log)
        issue_column(state, q, now, column_of, done, log)
        if front_policies(q) and may_serve_in_order(q):  # the oldest request may be another one now
            for p in range(pseudo_channels(q)):
                find_by_policy(state, q, p, now)
        issue_row(state, q, now, log)
        if front_policies(q) and q.page_timeout >= 0:
            close_unwanted_row(state, q, now, log)
        if powers_down(q):
            power_down(state, q, now, log)
        state[NOW] = now + 1
        if state[FINISHED_JOB] >= 0 or (to_checkpoint and state[CHECKPOINT] != 0):
            return


@inlined
def prepare(state, q, p, now, bank_of, trace, arrival, done):  # type: ignore[no-untyped-def]
    """Steps 1 to 3 of a tick for one pseudo-channel. When it must be looked at again; when its next command is due."""
    pc = pseudo_channel(state, p)
    if pc[ADMIT_AT] <= now:
        admit(state, q, p, now, bank_of, trace, arrival, done)
    wake = pc[ADMIT_AT]
    switch_mode(state, q, p)
    if refresh_choice(q) or powers_down(q):
        note_emptiness(pc, now)
    wake = min(wake, consider_refresh(state, q, p, now))
    if front_policies(q):
        wake = min(wake, find_by_policy(state, q, p, now))
    else:
        find_candidates(state, q, p, now)
    target = min(pc[BEST_COLUMN], pc[BEST_ROW]) >> KEY_BITS
    if pc[REFRESHING] != 0:
        target = min(target, refresh_tick(state, q, p, now))
    if front_policies(q) and q.page_timeout >= 0:
        target = min(target, unwanted_tick(state, q, p, now))
    if powers_down(q):
        target = min(target, power_tick(state, q, p, now))
    return wake, target

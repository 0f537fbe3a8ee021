"""The event-driven kernel of a PIM channel: docs/pim_policy.md, jumping from command to command.

Lanes of a program (pim_program.py) issue under the compiled rules (pim_tables.py). Fast-forward (pim_repeat.py) skips
whole periods where the state repeats, and gives the numbers of the plain run.
"""

from __future__ import annotations

from archsim.kernels.jit import inlined, kernel, pointer
from archsim.kernels.pim_program import OP
from archsim.kernels.pim_repeat import skip_repeats
from archsim.kernels.pim_steps import (
    END,
    change_rows,
    close_all,
    instruction,
    issue,
    issue_from_lane,
    lane_tick,
    legal_tick,
    pass_fences,
    saved_row_set,
    settle_lane,
)
from archsim.kernels.pim_tables import (
    CHECKPOINT,
    DONE,
    DUE,
    NEVER,
    NOW,
    PHASE,
    REFRESH_STALL,
    SAVED,
    STALLED,
)

RUNNING, CLOSING, REFRESHING, REOPENING = range(4)
REFRESH_LANE = -1


@kernel
def advance_pim(state, shape, table, code, history, log, until):  # type: ignore[no-untyped-def]
    """Run a channel's program until all lanes end, none can go on, or the clock reaches `until`.

    Args:
        state: int64[shape.state_words] (pim_tables.new_state), changed in place.
        shape: PimShape.
        table: int64[], compiled rules.
        code: int64[n, FIELDS], the program.
        history: int64[m], memory of earlier states for fast-forward (pim_repeat.new_history); empty: plain run.
        log: int64[k, 3], (tick, target, lane), empty if not wanted. A log excludes fast-forward.
        until: commands at this tick or later are left for the next call.
    """
    run(
        pointer(state), shape, pointer(table), pointer(code.reshape(code.size)), pointer(history), history.shape[0],
        pointer(log.reshape(log.size)), log.shape[0], until,
    )  # fmt: skip


@inlined
def run(state, shape, table, code, history, history_words, log, log_rows, until):  # type: ignore[no-untyped-def]
    """`advance_pim` on pointers."""
    while True:
        settle(state, shape, table, code)
        if all_ended(state, shape, code):
            state[DONE] = 1
            return
        if state[CHECKPOINT] == 1:
            state[CHECKPOINT] = 0
            if history_words > 0:
                skip_repeats(state, shape, code, history, until)
        if state[PHASE] == REOPENING and saved_row_set(state, shape) < 0:
            state[PHASE] = RUNNING
        lane, tick = first_lane(state, shape, table, code)
        if state[PHASE] == RUNNING and tick == NEVER:
            state[STALLED] = 1
            return
        if state[PHASE] == RUNNING and state[DUE] <= tick:
            if max(state[DUE], state[NOW]) >= until:
                return
            state[NOW] = max(state[DUE], state[NOW])
            state[PHASE] = CLOSING if any_open(state, shape) else REFRESHING
        if state[PHASE] != RUNNING:
            refresh_tick = max(legal_tick(state, shape, table, refresh_target(state, shape)), state[NOW])
            if state[PHASE] != REOPENING or refresh_tick <= tick:
                if refresh_tick >= until:
                    return
                refresh_step(state, shape, table, refresh_tick, log, log_rows)
                continue
        if tick >= until:
            return
        state[NOW] = tick
        issue_from_lane(state, shape, table, code, lane, tick, log, log_rows)


@inlined
def settle(state, shape, table, code):  # type: ignore[no-untyped-def]
    """Bring all lanes to a command, a fence that holds, or the end."""
    while True:
        for lane in range(shape.lanes):
            settle_lane(state, shape, table, code, lane)
        if not pass_fences(state, shape, code):
            return


@inlined
def all_ended(state, shape, code):  # type: ignore[no-untyped-def]
    """Whether no lane has anything left. A refresh under way is finished by the next program."""
    ended = 0
    for lane in range(shape.lanes):
        if instruction(state, code, lane, OP) == END:
            ended += 1
    return ended == shape.lanes


@inlined
def first_lane(state, shape, table, code):  # type: ignore[no-untyped-def]
    """The lane that can issue first, the lower one of two, and the tick."""
    best, best_tick = 0, NEVER
    for lane in range(shape.lanes):
        tick = lane_tick(state, shape, table, code, lane)
        if tick < NEVER:
            tick = max(tick, state[NOW])
        if tick < best_tick:
            best, best_tick = lane, tick
    return best, best_tick


@inlined
def any_open(state, shape):  # type: ignore[no-untyped-def]
    """Whether any row is open."""
    found = 0
    for row_set in range(shape.row_sets):
        if state[shape.rows + row_set] >= 0:
            found += 1
    return found > 0


@inlined
def refresh_target(state, shape):  # type: ignore[no-untyped-def]
    """The next command of a refresh under way."""
    if state[PHASE] == CLOSING:
        return shape.precharge_all
    if state[PHASE] == REFRESHING:
        return shape.refresh
    return state[shape.opener + saved_row_set(state, shape)]


@inlined
def refresh_step(state, shape, table, tick, log, log_rows):  # type: ignore[no-untyped-def]
    """Issue the next command of a refresh under way."""
    state[NOW] = tick
    if state[PHASE] == CLOSING:
        issue(state, shape, table, shape.precharge_all, tick, REFRESH_LANE, log, log_rows)
        close_all(state, shape)
        state[PHASE] = REFRESHING
    elif state[PHASE] == REFRESHING:
        issue(state, shape, table, shape.refresh, tick, REFRESH_LANE, log, log_rows)
        state[REFRESH_STALL] += tick - state[DUE] + shape.refresh_busy
        state[DUE] += shape.refresh_interval
        state[PHASE] = REOPENING
        state[CHECKPOINT] = 1
    else:
        row_set = saved_row_set(state, shape)
        target = state[shape.opener + row_set]
        uses = -state[shape.rows + row_set] - SAVED
        issue(state, shape, table, target, tick, REFRESH_LANE, log, log_rows)
        for k in range(table[shape.row_start + target], table[shape.row_start + target + 1]):
            state[shape.open_count + table[shape.kind_of + table[shape.row_index + k]]] -= 1
        change_rows(state, shape, table, target, uses)

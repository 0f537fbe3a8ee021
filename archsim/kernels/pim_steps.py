"""Steps of the PIM kernel: where a lane stands, when its next command is legal, and what issuing one does.

docs/pim_policy.md has the policy; pim_tables.py the layout of state and table.
"""

from __future__ import annotations

from archsim.kernels.jit import inlined
from archsim.kernels.pim_program import COUNT, FIELDS, FIRST, MODULUS, OP, STRIDE, TARGET, USES
from archsim.kernels.pim_program import Op as _Op
from archsim.kernels.pim_rules import WINDOW
from archsim.kernels.pim_rules import Role as _Role
from archsim.kernels.pim_tables import (
    BUS_FREE,
    CHECKPOINT,
    CLOSED,
    CLOSED_BY_REFRESH,
    COUNTS,
    DEPTH,
    EARLIEST,
    FENCES,
    FINISH,
    LANE_WORDS,
    LANES,
    LOG_LENGTH,
    LOOPS,
    NEVER,
    PC,
    READY,
    REPEAT,
    SAVED,
    USED_UP,
)

ISSUE, LOOP, END_LOOP, FENCE, WAIT = (int(op) for op in (_Op.ISSUE, _Op.LOOP, _Op.END_LOOP, _Op.FENCE, _Op.WAIT))
OPEN, USE, CLOSE, PRECHARGE_ALL = (int(role) for role in (_Role.OPEN, _Role.USE, _Role.CLOSE, _Role.PRECHARGE_ALL))
END = int(_Op.END)
LOG_FIELDS = 3  # tick, target, lane (-1: refresh)


@inlined
def instruction(state, code, lane, field):  # type: ignore[no-untyped-def]
    """A field of the instruction that a lane stands at."""
    return code[state[LANES + lane * LANE_WORDS + PC] * FIELDS + field]


@inlined
def next_target(state, code, lane):  # type: ignore[no-untyped-def]
    """Target of the command that a lane stands at."""
    repeat = state[LANES + lane * LANE_WORDS + REPEAT]
    instance = instruction(state, code, lane, FIRST) + repeat * instruction(state, code, lane, STRIDE)
    return instruction(state, code, lane, TARGET) + instance % instruction(state, code, lane, MODULUS)


@inlined
def retire(state, code, lane):  # type: ignore[no-untyped-def]
    """Go on to the next repetition, or to the next instruction."""
    base = LANES + lane * LANE_WORDS
    state[base + REPEAT] += 1
    if state[base + REPEAT] == instruction(state, code, lane, COUNT):
        state[base + REPEAT] = 0
        state[base + PC] += 1


@inlined
def closed_already(state, shape, table, target):  # type: ignore[no-untyped-def]
    """Whether refresh has closed all rows that a CLOSE is about, so that there is nothing to issue."""
    for k in range(table[shape.row_start + target], table[shape.row_start + target + 1]):
        if state[shape.rows + table[shape.row_index + k]] != CLOSED_BY_REFRESH:
            return False
    return True


@inlined
def settle_lane(state, shape, table, code, lane):  # type: ignore[no-untyped-def]
    """Do what takes no command: loops, waits, closing what refresh has closed. Stops at commands, fences, the end."""
    base = LANES + lane * LANE_WORDS
    while True:
        op = instruction(state, code, lane, OP)
        if op == LOOP:
            state[base + LOOPS + state[base + DEPTH]] = instruction(state, code, lane, COUNT)
            state[base + DEPTH] += 1
            state[base + PC] += 1
        elif op == END_LOOP:
            innermost = base + LOOPS + state[base + DEPTH] - 1
            state[innermost] -= 1
            if state[innermost] > 0:
                state[base + PC] = instruction(state, code, lane, TARGET)
                if shape.refresh_interval == 0:
                    state[CHECKPOINT] = 1
            else:
                state[base + DEPTH] -= 1
                state[base + PC] += 1
        elif op == WAIT:
            state[base + READY] += instruction(state, code, lane, COUNT)
            state[base + PC] += 1
        elif op == ISSUE:
            target = next_target(state, code, lane)
            role = table[shape.role + table[shape.command_of + target]]
            if role != CLOSE or not closed_already(state, shape, table, target):
                break
            for k in range(table[shape.row_start + target], table[shape.row_start + target + 1]):
                close_row_set(state, shape, table, table[shape.row_index + k])
            retire(state, code, lane)
        else:
            break


@inlined
def pass_fences(state, shape, code):  # type: ignore[no-untyped-def]
    """Let lanes through a fence for which all its lanes have come to one. Returns whether any went through."""
    for lane in range(shape.lanes):
        if instruction(state, code, lane, OP) != FENCE:
            continue
        mask = instruction(state, code, lane, TARGET)
        complete = True
        after = 0
        for other in range(shape.lanes):
            if mask >> other & 1:
                op = instruction(state, code, other, OP)
                if op != FENCE and op != END:
                    complete = False
                elif op == FENCE:
                    ready = state[LANES + other * LANE_WORDS + READY] + instruction(state, code, other, COUNT)
                    after = max(after, ready)
        if complete:
            for other in range(shape.lanes):
                if mask >> other & 1 and instruction(state, code, other, OP) == FENCE:
                    state[LANES + other * LANE_WORDS + READY] = after
                    state[LANES + other * LANE_WORDS + PC] += 1
            state[FENCES] += 1
            return True
    return False


@inlined
def close_row_set(state, shape, table, row_set):  # type: ignore[no-untyped-def]
    """The row set is closed for its program."""
    state[shape.rows + row_set] = CLOSED
    state[shape.open_count + table[shape.kind_of + row_set]] -= 1


@inlined
def rows_allow(state, shape, table, target, role):  # type: ignore[no-untyped-def]
    """Whether a command's rows are as it needs them."""
    begin, end = table[shape.row_start + target], table[shape.row_start + target + 1]
    if role == OPEN:
        kind = table[shape.kind_of + table[shape.row_index + begin]]
        buffer = table[shape.buffer_of + kind]
        for other in range(shape.kind_count):
            if other != kind and table[shape.buffer_of + other] == buffer and state[shape.open_count + other] > 0:
                return False
        for k in range(begin, end):
            if state[shape.rows + table[shape.row_index + k]] != CLOSED:
                return False
    elif role == USE:
        for k in range(begin, end):
            if state[shape.rows + table[shape.row_index + k]] <= 0:
                return False
    elif role == CLOSE:
        for k in range(begin, end):
            uses = state[shape.rows + table[shape.row_index + k]]
            if uses != USED_UP and uses != CLOSED_BY_REFRESH:
                return False
    return True


@inlined
def legal_tick(state, shape, table, target):  # type: ignore[no-untyped-def]
    """Earliest tick at which distances, command bus and activation window allow a target's command."""
    command = table[shape.command_of + target]
    tick = max(state[EARLIEST + command], state[EARLIEST + shape.commands + target])
    tick = max(tick, state[BUS_FREE + table[shape.bus + command]])
    activations = table[shape.activations + command]
    if activations > 0:
        for rank in range(table[shape.rank_first + target], table[shape.rank_after + target]):
            tick = max(tick, state[shape.window + rank * WINDOW + activations - 1] + shape.faw)
    return tick


@inlined
def lane_tick(state, shape, table, code, lane):  # type: ignore[no-untyped-def]
    """When a settled lane can issue its next command; NEVER as long as something else has to happen first."""
    if instruction(state, code, lane, OP) != ISSUE:
        return NEVER
    target = next_target(state, code, lane)
    if not rows_allow(state, shape, table, target, table[shape.role + table[shape.command_of + target]]):
        return NEVER
    return max(legal_tick(state, shape, table, target), state[LANES + lane * LANE_WORDS + READY])


@inlined
def issue(state, shape, table, target, tick, lane, log, log_rows):  # type: ignore[no-untyped-def]
    """Issue a command: distances, bus, window, counts, log. Rows are the caller's."""
    command = table[shape.command_of + target]
    for k in range(table[shape.effect_start + target], table[shape.effect_start + target + 1]):
        entry = EARLIEST + table[shape.effect_index + k]
        state[entry] = max(state[entry], tick + table[shape.effect_ticks + k])
    state[BUS_FREE + table[shape.bus + command]] = tick + table[shape.slot + command]
    for _ in range(table[shape.activations + command]):
        for rank in range(table[shape.rank_first + target], table[shape.rank_after + target]):
            window = shape.window + rank * WINDOW
            for k in range(WINDOW - 1):
                state[window + k] = state[window + k + 1]
            state[window + WINDOW - 1] = tick
    state[COUNTS + command] += 1
    state[FINISH] = max(state[FINISH], tick + table[shape.latency + command])
    if state[LOG_LENGTH] < log_rows:
        row = state[LOG_LENGTH] * LOG_FIELDS
        log[row], log[row + 1], log[row + 2] = tick, target, lane
        state[LOG_LENGTH] += 1


@inlined
def change_rows(state, shape, table, target, uses):  # type: ignore[no-untyped-def]
    """What a lane's command does to its rows."""
    role = table[shape.role + table[shape.command_of + target]]
    for k in range(table[shape.row_start + target], table[shape.row_start + target + 1]):
        row_set = table[shape.row_index + k]
        if role == OPEN:
            state[shape.rows + row_set] = uses
            state[shape.opener + row_set] = target
            state[shape.open_count + table[shape.kind_of + row_set]] += 1
        elif role == USE:
            state[shape.rows + row_set] -= 1
        elif role == CLOSE:
            close_row_set(state, shape, table, row_set)


@inlined
def issue_from_lane(state, shape, table, code, lane, tick, log, log_rows):  # type: ignore[no-untyped-def]
    """Issue a lane's next command and go on."""
    target = next_target(state, code, lane)
    issue(state, shape, table, target, tick, lane, log, log_rows)
    change_rows(state, shape, table, target, instruction(state, code, lane, USES))
    state[LANES + lane * LANE_WORDS + READY] = tick
    retire(state, code, lane)


@inlined
def close_all(state, shape):  # type: ignore[no-untyped-def]
    """Refresh closes all rows; those that are still wanted will be opened again."""
    for row_set in range(shape.row_sets):
        uses = state[shape.rows + row_set]
        if uses > 0:
            state[shape.rows + row_set] = -(uses + SAVED)
        elif uses == USED_UP:
            state[shape.rows + row_set] = CLOSED_BY_REFRESH


@inlined
def saved_row_set(state, shape):  # type: ignore[no-untyped-def]
    """The first row set to be opened again after refresh, or -1."""
    for row_set in range(shape.row_sets):
        if state[shape.rows + row_set] < -SAVED:
            return row_set
    return -1

"""Fast-forward of a PIM channel: where the state repeats, whole periods are added instead of simulated.

At a checkpoint (after a refresh; without refresh, where a loop goes around) everything that the future depends on is
brought relative to now and compared, word for word, with earlier checkpoints. Where all words agree except the rounds
left of one loop of each lane, the same commands follow again until one of these loops runs out. Checkpoints stay valid
over a skip: what was skipped has happened. So an inner loop is skipped first, and then the loop around it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from archsim.kernels.jit import inlined
from archsim.kernels.pim_program import LONGEST_WAIT
from archsim.kernels.pim_rules import MAX_COMMANDS, MAX_LANES, MAX_LOOP_DEPTH, WINDOW
from archsim.kernels.pim_tables import (
    BUS_FREE,
    COUNTS,
    DEPTH,
    DUE,
    EARLIEST,
    FENCES,
    FINISH,
    LANE_WORDS,
    LANES,
    LOOPS,
    NOW,
    PC,
    PHASE,
    READY,
    REFRESH_STALL,
    REPEAT,
    SKIPPED,
    PimShape,
)

REMEMBERED = 256
"""Checkpoints kept, the latest ones: more than the phases of refresh against the loops of any shipped preset."""
USED = 0  # words of the history: checkpoints seen so far, then one entry after the other
_TOTALS = MAX_COMMANDS + 4  # counts, refresh stall, fences, tick, hash
_LOOP_WORDS = MAX_LANES * MAX_LOOP_DEPTH
_HASH = MAX_COMMANDS + 3
_MASK = (1 << 40) - 1  # the hash times its factor stays inside of 63 bits


def new_history(shape: PimShape) -> NDArray[np.int64]:
    """Room for the checkpoints of one program."""
    return np.zeros(1 + REMEMBERED * entry_words(shape), np.int64)


def entry_words(shape: PimShape) -> int:
    """Words of a remembered checkpoint: totals, rounds left, normalised state."""
    return _TOTALS + _LOOP_WORDS + (shape.state_words - EARLIEST) + 6 + 4 * MAX_LANES


@inlined
def skip_repeats(state, shape, code, history, until):  # type: ignore[no-untyped-def]
    """Remember this checkpoint; if it repeats an earlier one, go on by as many periods as are sure."""
    words = _TOTALS + _LOOP_WORDS + (shape.state_words - EARLIEST) + 6 + 4 * MAX_LANES
    at = 1 + (history[USED] % REMEMBERED) * words
    write_entry(state, shape, history, at)
    known = min(history[USED], REMEMBERED)
    history[USED] += 1
    for back in range(1, known + 1):
        slot = (history[USED] - 1 - back) % REMEMBERED
        earlier = 1 + slot * words
        if earlier == at or history[earlier + _HASH] != history[at + _HASH]:
            continue
        same = True
        for k in range(_TOTALS + _LOOP_WORDS, words):
            if history[earlier + k] != history[at + k]:
                same = False
                break
        if not same:
            continue
        periods = sure_periods(state, shape, history, earlier, at, until)
        if periods > 0:
            go_on(state, shape, history, earlier, at, periods)
            return


@inlined
def write_entry(state, shape, history, at):  # type: ignore[no-untyped-def]
    """The checkpoint as it is compared, at `history[at:]`."""
    now = state[NOW]
    for command in range(MAX_COMMANDS):
        history[at + command] = state[COUNTS + command]
    history[at + MAX_COMMANDS] = state[REFRESH_STALL]
    history[at + MAX_COMMANDS + 1] = state[FENCES]
    history[at + MAX_COMMANDS + 2] = now
    k = at + _TOTALS
    for lane in range(MAX_LANES):
        for depth in range(MAX_LOOP_DEPTH):
            left = 0
            if lane < shape.lanes and depth < state[LANES + lane * LANE_WORDS + DEPTH]:
                left = state[LANES + lane * LANE_WORDS + LOOPS + depth]
            history[k] = left
            k += 1
    begin = k
    for bus in range(2):
        history[k] = max(state[BUS_FREE + bus] - now, 0)
        k += 1
    history[k] = state[DUE] - now if shape.refresh_interval > 0 else 0
    history[k + 1] = state[PHASE]
    history[k + 2] = state[FINISH] - now
    history[k + 3] = 0
    k += 4
    for lane in range(MAX_LANES):
        base = LANES + lane * LANE_WORDS
        history[k] = state[base + PC]
        history[k + 1] = state[base + REPEAT]
        history[k + 2] = max(state[base + READY] - now, -LONGEST_WAIT)
        history[k + 3] = state[base + DEPTH]
        k += 4
    for word in range(EARLIEST, shape.rows):
        history[k] = max(state[word] - now, 0)
        k += 1
    for word in range(shape.rows, shape.window):
        history[k] = state[word]
        k += 1
    for word in range(shape.window, shape.window + shape.ranks * WINDOW):
        history[k] = max(state[word] + shape.faw - now, 0)
        k += 1
    mixed = 0
    for word in range(begin, k):
        mixed = (mixed ^ (history[word] & _MASK)) * 1000003 & _MASK
    history[at + _HASH] = mixed


@inlined
def sure_periods(state, shape, history, earlier, at, until):  # type: ignore[no-untyped-def]
    """How many more times what happened between two checkpoints is sure to happen; 0 if it is not.

    In each lane one loop may have gone on, those inside of it must be where they were. A loop that goes on by d rounds
    a period repeats it as long as it has more than d rounds left. The clock must stay below `until`."""
    period = history[at + MAX_COMMANDS + 2] - history[earlier + MAX_COMMANDS + 2]
    if period <= 0:
        return 0
    periods = (until - 1 - state[NOW]) // period
    moved = False
    for lane in range(shape.lanes):
        outer_moved = False
        for depth in range(MAX_LOOP_DEPTH):
            k = _TOTALS + lane * MAX_LOOP_DEPTH + depth
            rounds = history[earlier + k] - history[at + k]
            if rounds == 0:
                continue
            if outer_moved or rounds < 0:
                return 0
            outer_moved = True
            moved = True
            periods = min(periods, (history[at + k] - 1) // rounds)
    return max(periods, 0) if moved else 0


@inlined
def go_on(state, shape, history, earlier, at, periods):  # type: ignore[no-untyped-def]
    """Add periods to everything that goes on with time."""
    ticks = periods * (history[at + MAX_COMMANDS + 2] - history[earlier + MAX_COMMANDS + 2])
    for command in range(MAX_COMMANDS):
        state[COUNTS + command] += periods * (history[at + command] - history[earlier + command])
    state[REFRESH_STALL] += periods * (history[at + MAX_COMMANDS] - history[earlier + MAX_COMMANDS])
    state[FENCES] += periods * (history[at + MAX_COMMANDS + 1] - history[earlier + MAX_COMMANDS + 1])
    for lane in range(shape.lanes):
        base = LANES + lane * LANE_WORDS
        state[base + READY] += ticks
        for depth in range(state[base + DEPTH]):
            k = _TOTALS + lane * MAX_LOOP_DEPTH + depth
            state[base + LOOPS + depth] -= periods * (history[earlier + k] - history[at + k])
    state[NOW] += ticks
    state[FINISH] += ticks
    state[SKIPPED] += ticks
    if shape.refresh_interval > 0:
        state[DUE] += ticks
    for bus in range(2):
        state[BUS_FREE + bus] += ticks
    for word in range(EARLIEST, shape.rows):
        state[word] += ticks
    for word in range(shape.window, shape.window + shape.ranks * WINDOW):
        state[word] += ticks

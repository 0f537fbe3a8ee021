"""A chain of operators on one device, run without leaving the kernel: what the engine does step by step, in one call.

Every operator waits for its launch and its lead latencies, then moves its data through memory (consumed tile by tile)
or keeps the engines busy for a fixed time, then for its tail. Times between operators are femtoseconds, inside the
memory ticks.
"""

from __future__ import annotations

import numpy as np

from archsim.kernels.canonical import settle_idle
from archsim.kernels.channel import (
    COUNTS,
    FINISHED_JOB,
    JOB,
    JOB_LAST_DATA,
    MAX_PCS,
    NOW,
    STREAM_BASE,
    STREAM_TOTAL,
    pseudo_channel,
)
from archsim.kernels.dram import advance_special
from archsim.kernels.jit import kernel, pointer
from archsim.kernels.memo import advance_special_with_memo
from archsim.kernels.special import specialised
from archsim.kernels.tiles import submit_job, submit_stream, wait_for_data
from archsim.kernels.timing import COUNT_WORDS

# Words of an operator.
LEAD_FS = 0  # launch and latencies before data flow
FIXED_FS = 1  # time on the engines if nothing goes through memory
TAIL_FS = 2
FIRST_RANGE = 3  # its ranges in the table of ranges
RANGES = 4
TILES = 5
TILE_TICKS = 6
WINDOW = 7
OPERATOR_WORDS = 8

# Words of an outcome.
START_FS = 0
STREAM_START_FS = 1
STREAM_END_FS = 2
END_FS = 3
FIRST_COUNT = 4
OUTCOME_WORDS = FIRST_COUNT + COUNT_WORDS


@kernel
def ticks_from_fs(fs, numerator, denominator):  # type: ignore[no-untyped-def]
    """The first tick at or after a time, in steps that can't overflow; a tick is numerator / denominator fs."""
    whole = fs // numerator
    rest = (fs - whole * numerator) * denominator
    return whole * denominator + (rest + numerator - 1) // numerator


@kernel
def fs_from_ticks(ticks, numerator, denominator):  # type: ignore[no-untyped-def]
    """The time of a tick in whole femtoseconds, rounded up."""
    whole = ticks // denominator
    rest = (ticks - whole * denominator) * numerator
    return whole * numerator + (rest + denominator - 1) // denominator


@kernel
def idle_until(state, q, bank_of, column_of, until):  # type: ignore[no-untyped-def]
    """Let a memory without work reach a tick, and count its idle time up to there."""
    nothing = np.zeros(0, np.int64)
    if state[NOW] < until:
        advance_special(
            state, q, bank_of, column_of, nothing, nothing, nothing, np.zeros((0, 8), np.int64), until, False
        )
    settle_idle(pointer(state), q)


def run_program(  # type: ignore[no-untyped-def]
    state, q, bank_of, column_of, memo, use_memo, operators, ranges, tick, origin, start_fs, horizon, outcomes
):
    """Run a chain of operators from `start_fs` on an otherwise idle memory.

    Args:
        state, q, bank_of, column_of, memo: the memory, as in `memo.advance_with_memo`.
        use_memo: False simulates every command.
        operators: int64[n, OPERATOR_WORDS]; ranges: int64[m, 3] of (first burst, bursts, write).
        tick: int64[2], numerator and denominator of a tick in femtoseconds.
        origin: the tick that the state's clock counts from.
        horizon: tick (of the state's clock) that nothing may reach.
        outcomes: int64[n, OUTCOME_WORDS], filled: start, stream start, stream end, end, then what each count grew by.

    Returns:
        The number of operators that finished: n, or less if the memory made no progress.
    """
    return run_special_program(
        state, specialised(q), bank_of, column_of, memo, use_memo, operators, ranges, tick, origin, start_fs, horizon,
        outcomes,
    )  # fmt: skip


@kernel
def run_special_program(  # type: ignore[no-untyped-def]
    state, q, bank_of, column_of, memo, use_memo, operators, ranges, tick, origin, start_fs, horizon, outcomes
):
    """`run_program` with `special.specialised` timing."""
    nothing = np.zeros(0, np.int64)
    no_log = np.zeros((0, 8), np.int64)
    before = np.zeros(COUNT_WORDS, np.int64)
    st = pointer(state)
    now_fs = start_fs
    idle_until(state, q, bank_of, column_of, ticks_from_fs(now_fs, tick[0], tick[1]) - origin)
    for k in range(COUNT_WORDS):
        before[k] = state[COUNTS + k]
    for i in range(operators.shape[0]):
        outcomes[i, START_FS] = now_fs
        now_fs += operators[i, LEAD_FS]
        outcomes[i, STREAM_START_FS] = now_fs
        begin = ticks_from_fs(now_fs, tick[0], tick[1]) - origin
        if state[NOW] < begin:
            advance_special(state, q, bank_of, column_of, nothing, nothing, nothing, no_log, begin, False)
        if operators[i, RANGES] > 0:
            submit_job(st, q, 0, operators[i, TILES], operators[i, TILE_TICKS], 0)
            for slot in range(operators[i, RANGES]):
                data = operators[i, FIRST_RANGE] + slot
                for p in range(MAX_PCS):
                    pc = pseudo_channel(st, p)
                    pc[STREAM_BASE + slot] = ranges[data, 0]
                    pc[STREAM_TOTAL + slot] = ranges[data, 1]
                submit_stream(st, q, slot, 0, ranges[data, 2], operators[i, WINDOW], 0)
            wait_for_data(st, q, 0, state[NOW])
            if use_memo:
                advance_special_with_memo(state, q, bank_of, column_of, memo, horizon)
            else:
                advance_special(state, q, bank_of, column_of, nothing, nothing, nothing, no_log, horizon, False)
            if state[FINISHED_JOB] < 0:
                return i
            state[FINISHED_JOB] = -1
            now_fs = max(now_fs, fs_from_ticks(origin + state[JOB + JOB_LAST_DATA], tick[0], tick[1]))
        else:
            now_fs += operators[i, FIXED_FS]
        outcomes[i, STREAM_END_FS] = now_fs
        now_fs += operators[i, TAIL_FS]
        outcomes[i, END_FS] = now_fs
        # Time without traffic belongs to the operator that it passes in, so that bus times tile each one's duration.
        idle_until(state, q, bank_of, column_of, ticks_from_fs(now_fs, tick[0], tick[1]) - origin)
        for k in range(COUNT_WORDS):
            outcomes[i, FIRST_COUNT + k] = state[COUNTS + k] - before[k]
            before[k] = state[COUNTS + k]
    return operators.shape[0]

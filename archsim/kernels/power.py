"""Power-down of a pseudo-channel that has nothing to do (policy: step 6, and "Power" of step 3)."""

from __future__ import annotations

from archsim.kernels.candidates import rising_edge
from archsim.kernels.channel import (
    AWAKE_AT,
    CLOSED,
    COLUMN_DIRTY,
    COUNTS,
    EMPTY_SINCE,
    NEVER,
    NOW,
    PDE_OK,
    POWER,
    POWER_CHANGE_OK,
    POWER_COUNTED,
    REFRESHING,
    ROW_BUS_FREE,
    ROW_DIRTY,
    pseudo_channel,
)
from archsim.kernels.commands import hold_row_bus, write_log
from archsim.kernels.jit import inlined
from archsim.kernels.special import pseudo_channels
from archsim.kernels.timing import DramTiming

UP, DOWN_ACTIVE, DOWN_PRECHARGED = 0, 1, 2  # values of POWER
# timing.Command and timing.Count, as plain ints for the compiler.
PDE, PDX = 8, 9
PDE_COUNT, PDX_COUNT = 19, 20
DOWN_TICKS = 20  # Count.POWER_DOWN_ACTIVE less DOWN_ACTIVE: the counts follow in the order of the states


@inlined
def power_tick(state, q: DramTiming, p, now):  # type: ignore[no-untyped-def]
    """When a PDE or PDX can issue, NEVER if there is no reason for one."""
    pc = pseudo_channel(state, p)
    idle = pc[EMPTY_SINCE] < NEVER and pc[REFRESHING] == 0
    if idle != (pc[POWER] == UP):
        return NEVER
    earliest = pc[POWER_CHANGE_OK]
    if idle:
        earliest = max(max(earliest, pc[EMPTY_SINCE] + q.power_down_after), max(pc[PDE_OK], pc[AWAKE_AT]))
    return rising_edge(q, max(earliest, max(now, state[ROW_BUS_FREE])))


@inlined
def power_up(state, q: DramTiming, p, now, log):  # type: ignore[no-untyped-def]
    """PDX, if it is time for one."""
    pc = pseudo_channel(state, p)
    if pc[POWER] == UP or power_tick(state, q, p, now) > now:
        return
    count_down_time(state, p, now)
    pc[POWER] = UP
    pc[POWER_CHANGE_OK] = now + q.tCKE
    pc[AWAKE_AT] = now + max(q.tXP, 1)
    pc[COLUMN_DIRTY] = 1
    pc[ROW_DIRTY] = 1
    state[COUNTS + PDX_COUNT] += 1
    hold_row_bus(state, q, now, q.precharge_ticks)
    write_log(state, q, log, now, PDX, p, -1, -1, -1)


@inlined
def power_down(state, q: DramTiming, now, log):  # type: ignore[no-untyped-def]
    """PDE of the first pseudo-channel that has had nothing to do for long enough; the row bus has room for one."""
    for p in range(pseudo_channels(q)):
        pc = pseudo_channel(state, p)
        if pc[POWER] != UP or power_tick(state, q, p, now) > now:
            continue
        pc[POWER] = DOWN_PRECHARGED
        for bank in range(q.stack_ids * q.bank_groups * q.banks_per_group):
            if pc[CLOSED + bank] == 0:
                pc[POWER] = DOWN_ACTIVE
        pc[POWER_COUNTED] = now
        pc[POWER_CHANGE_OK] = now + q.tCKE
        state[COUNTS + PDE_COUNT] += 1
        hold_row_bus(state, q, now, q.precharge_ticks)
        write_log(state, q, log, now, PDE, p, -1, -1, -1)


@inlined
def count_down_time(state, p, until):  # type: ignore[no-untyped-def]
    """Count the ticks in power-down up to a tick."""
    pc = pseudo_channel(state, p)
    if pc[POWER] != UP:
        state[COUNTS + DOWN_TICKS + pc[POWER]] += until - pc[POWER_COUNTED]
        pc[POWER_COUNTED] = until


@inlined
def settle_power(state, q: DramTiming):  # type: ignore[no-untyped-def]
    """Count the ticks of a power-down that goes on."""
    for p in range(pseudo_channels(q)):
        count_down_time(state, p, state[NOW])

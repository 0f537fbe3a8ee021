"""One tick of docs/dram_policy.md after the other, as the oracle takes them; see oracle.py for what it is for.

Queues are lists in order of age, and a served request is taken out by shifting the rest. Nothing is predicted, skipped
or remembered between ticks.
"""

from __future__ import annotations

import numpy as np

from archsim.kernels.jit import inlined, kernel
from archsim.kernels.oracle_commands import step_column, step_row
from archsim.kernels.oracle_front import step_admit, step_mode, step_tiles
from archsim.kernels.oracle_refresh import DOWN_ACTIVE, UP, step_power_down, step_refresh
from archsim.kernels.oracle_state import READ, WRITE
from archsim.kernels.timing import Count

_DOWN_ACTIVE, _DOWN_PRECHARGED = int(Count.POWER_DOWN_ACTIVE), int(Count.POWER_DOWN_PRECHARGED)


@inlined
def _book_waiting(timing, channel, pc, was_idle, t):  # type: ignore[no-untyped-def]
    """Name the cause of this tick of the PC's data bus, if it lies between two burst slots."""
    if t < channel.slot_end[pc]:
        return
    if was_idle:
        channel.waited[pc, 0] += 1
    elif channel.blocked[pc] or t - channel.refresh_all[pc] < timing.tRFCab:
        channel.waited[pc, 1] += 1
    else:
        channel.waited[pc, 2] += 1


@kernel
def simulate(timing, requests, streams, jobs, banks, channel, log, max_ticks, run_until):  # type: ignore[no-untyped-def]
    left = requests.bank.shape[0]
    t = np.int64(0)
    was_idle = np.zeros(timing.pseudo_channels, np.int64)
    while t < max_ticks:
        tiles_left = False
        for job in range(jobs.tiles.shape[0]):
            if jobs.ended[job] < jobs.tiles[job]:
                tiles_left = True
        if left == 0 and not tiles_left and t >= run_until:
            break
        step_tiles(timing, streams, jobs, t)
        for pc in range(timing.pseudo_channels):
            left -= step_admit(timing, requests, streams, jobs, channel, pc, t)
        for pc in range(timing.pseudo_channels):
            was_idle[pc] = channel.length[pc, READ] == 0 and channel.length[pc, WRITE] == 0
            step_mode(timing, channel, pc)
        for pc in range(timing.pseudo_channels):
            step_refresh(timing, requests, banks, channel, log, pc, t)
        left -= step_column(timing, requests, streams, banks, channel, log, t)
        step_row(timing, requests, banks, channel, log, t)
        step_power_down(timing, banks, channel, log, t)
        for pc in range(timing.pseudo_channels):
            _book_waiting(timing, channel, pc, was_idle[pc], t)
            if channel.power[pc] != UP:
                channel.counts[_DOWN_ACTIVE if channel.power[pc] == DOWN_ACTIVE else _DOWN_PRECHARGED] += 1
        t += 1
    return t

"""Which command each slot of the `hbm34` controller issues: FR-FCFS over one channel's buffers (hbm34.py).

Each choice filters first (bank, row, class of command), then takes the oldest candidate that is ready. A search that
finds nothing leaves the first tick at which it could: the bounds `*_FROM`, per pseudo-channel.
"""

from __future__ import annotations

from archsim.kernels.hbm34_state import (
    ACT_FROM,
    ACT_OK,
    ACTIVE,
    ACTIVE_FROM,
    ACTIVE_ID,
    ACTIVE_LANE,
    ACTIVE_LENGTH,
    ACTIVE_RANK,
    BANKS,
    BANKS_OF_PC,
    COLUMN_OK,
    DEPTH,
    GROUP_OK,
    HIT_FROM,
    ID,
    KEY,
    LANE_OK,
    LENGTH,
    MODE,
    NEVER,
    OPEN,
    PC_ACT_OK,
    PC_PRE_OK,
    PCS,
    PRE_FROM,
    PRE_OK,
)
from archsim.kernels.jit import inlined


@inlined
def pick_active(s, clock, arrivals):  # type: ignore[no-untyped-def]
    """The active request to issue now (pseudo-channel, place), or (-1, -1): oldest arrival, then first activated."""
    best_pc = best = -1
    oldest = rank = NEVER
    for pc in range(PCS):
        if clock < s[ACTIVE_FROM + pc]:
            continue
        earliest = NEVER
        for k in range(pc * BANKS_OF_PC, pc * BANKS_OF_PC + s[ACTIVE_LENGTH + pc]):
            lane = s[ACTIVE_LANE + k]
            ready = max(s[COLUMN_OK + lane], s[GROUP_OK + (lane >> 2)], s[LANE_OK + 2 * (lane >> 6) + pc])
            earliest = min(earliest, ready)
            if ready <= clock:
                arrival = arrivals[s[ACTIVE_ID + k]]
                if arrival < oldest or (arrival == oldest and s[ACTIVE_RANK + k] < rank):
                    best_pc, best, oldest, rank = pc, k, arrival, s[ACTIVE_RANK + k]
        s[ACTIVE_FROM + pc] = earliest
    return best_pc, best


@inlined
def pick_hit(s, clock):  # type: ignore[no-untyped-def]
    """The queued row hit to issue now (lane, place), or (-1, -1): the oldest that is ready."""
    mode = s[MODE]
    best_lane = best = -1
    oldest = NEVER
    for pc in range(PCS):
        lane = 2 * mode + pc
        if clock < s[HIT_FROM + pc] or clock < s[LANE_OK + lane]:
            continue
        earliest = NEVER
        found = False
        for k in range(s[LENGTH + lane]):
            key = s[KEY + lane * DEPTH + k]
            bank = key & 63
            if s[OPEN + bank] != key:
                continue
            column = mode * BANKS + bank
            ready = max(s[COLUMN_OK + column], s[GROUP_OK + (column >> 2)])
            if ready <= clock:
                found = True
                if s[ID + lane * DEPTH + k] < oldest:
                    best_lane, best, oldest = lane, k, s[ID + lane * DEPTH + k]
                break
            earliest = min(earliest, ready)
        if not found:
            s[HIT_FROM + pc] = earliest
    return best_lane, best


@inlined
def pick_row(s, clock):  # type: ignore[no-untyped-def]
    """The queued request to issue an ACT or a PRE for now (lane, place), or (-1, -1): the oldest that is ready."""
    mode = s[MODE]
    best_lane = best = best_bound = -1
    best_rest = 0
    oldest = NEVER
    for pc in range(PCS):
        lane = 2 * mode + pc
        may_act = (clock & 1) == 1 and clock >= s[ACT_FROM + pc] and clock >= s[PC_ACT_OK + pc]
        may_pre = clock >= s[PRE_FROM + pc] and clock >= s[PC_PRE_OK + pc]
        if not may_act and not may_pre:
            continue
        act_earliest = pre_earliest = NEVER
        found = found_bank = -1
        found_act = False
        for k in range(lane * DEPTH, lane * DEPTH + s[LENGTH + lane]):
            key = s[KEY + k]
            bank = key & 63
            row = s[OPEN + bank]
            act = row < 0
            if act:
                if not may_act:
                    continue
                ready = s[ACT_OK + bank]
            else:
                if not may_pre or row == key or s[ACTIVE + bank]:
                    continue
                ready = s[PRE_OK + bank]
            if ready <= clock and found < 0:
                found, found_bank, found_act = k, bank, act
            elif bank != found_bank:
                if act:
                    act_earliest = min(act_earliest, ready)
                else:
                    pre_earliest = min(pre_earliest, ready)
                if ready <= clock:  # a second one: nothing more to learn
                    act_earliest = min(act_earliest, s[ACT_FROM + pc])
                    pre_earliest = min(pre_earliest, s[PRE_FROM + pc])
                    break
        act_bound = -1 if found < 0 or not found_act else ACT_FROM + pc
        pre_bound = -1 if found < 0 or found_act else PRE_FROM + pc
        if may_act and act_bound < 0:
            s[ACT_FROM + pc] = act_earliest
        if may_pre and pre_bound < 0:
            s[PRE_FROM + pc] = pre_earliest
        if found >= 0 and s[ID + found] < oldest:
            best_lane, best, oldest = lane, found - lane * DEPTH, s[ID + found]
            best_bound = act_bound if found_act else pre_bound
            best_rest = act_earliest if found_act else pre_earliest
    if best >= 0:  # the chosen one no longer counts
        s[best_bound] = best_rest
    return best_lane, best

"""Which refresh comes next and when it begins, if refreshes may wait, come early or go out of turn (policy: step 3).

One refresh command covers a unit: all banks, one, or one of every group of a stack ID. The search runs when a refresh
falls due; a refresh that finds nothing to do waits until LOOK_AT, which a bank without requests left brings forward.
"""

from __future__ import annotations

from archsim.kernels.channel import (
    DUE,
    EMPTY_SINCE,
    HEAD,
    LAST_USE,
    LIST_END,
    LOOK_AT,
    MAX_BANKS,
    NEVER,
    POINTER,
    QUEUED,
    REFRESHED,
)
from archsim.kernels.jit import inlined
from archsim.kernels.special import same_bank
from archsim.kernels.timing import DramTiming

ALL_BANK = 1  # timing.RefreshMode, as a plain int for the compiler
IN_TURN = 0  # timing.RefreshOrder
NOBODY = -1


@inlined
def units(q: DramTiming):  # type: ignore[no-untyped-def]
    """Refresh commands of a rotation over all banks of a pseudo-channel."""
    if q.refresh_mode == ALL_BANK:
        return 1
    return q.stack_ids * q.banks_per_group * (1 if same_bank(q) else q.bank_groups)


@inlined
def unit_of(q: DramTiming, bank):  # type: ignore[no-untyped-def]
    if same_bank(q):
        return bank // q.bank_groups
    return 0 if q.refresh_mode == ALL_BANK else bank


@inlined
def note_emptiness(pc, now):  # type: ignore[no-untyped-def]
    """Remember since when nothing is queued. After the admissions of a tick."""
    if pc[QUEUED] + pc[QUEUED + 1] > 0:
        pc[EMPTY_SINCE] = NEVER
    elif pc[EMPTY_SINCE] >= NEVER:
        pc[EMPTY_SINCE] = now


@inlined
def note_use(pc, q: DramTiming, bank, now):  # type: ignore[no-untyped-def]
    """A column command has gone to a bank; if it was the last request for it, a refresh may have waited for that."""
    pc[LAST_USE + unit_of(q, bank)] = now
    if pc[HEAD + bank] >= LIST_END and pc[HEAD + MAX_BANKS + bank] >= LIST_END:
        pc[LOOK_AT] = now


@inlined
def begins_at(pc, q: DramTiming):  # type: ignore[no-untyped-def]
    """When the next refresh may begin as things stand: when it is due, earlier if the queues are empty by then."""
    return min(pc[DUE], max(pc[DUE] - q.refresh_pull_in, pc[EMPTY_SINCE] + q.refresh_idle))


@inlined
def is_wanted(pc, q: DramTiming, unit):  # type: ignore[no-untyped-def]
    """Whether a queued request of either direction goes to a bank of the unit."""
    if q.refresh_mode == ALL_BANK:
        return pc[QUEUED] + pc[QUEUED + 1] > 0
    size = q.bank_groups if same_bank(q) else 1
    for bank in range(unit * size, (unit + 1) * size):
        if pc[HEAD + bank] < LIST_END or pc[HEAD + MAX_BANKS + bank] < LIST_END:
            return True
    return False


@inlined
def choose_unit(pc, q: DramTiming, now):  # type: ignore[no-untyped-def]
    """The unit to refresh now, or NOBODY and the tick at which waiting may have an end."""
    forced_at = pc[DUE] + q.refresh_postpone
    if q.refresh_order == IN_TURN:
        unit = pc[POINTER]
        if now >= forced_at or not is_wanted(pc, q, unit):
            return unit, NEVER
        return NOBODY, forced_at
    again = forced_at
    best, first_left = NOBODY, NOBODY
    for unit in range(units(q)):
        if pc[REFRESHED + unit] != 0:
            continue
        if first_left == NOBODY:
            first_left = unit
        if is_wanted(pc, q, unit):
            continue
        rested_at = pc[LAST_USE + unit] + q.tRC
        if now < rested_at and pc[EMPTY_SINCE] >= NEVER:  # it may be in the middle of a row
            again = min(again, rested_at)
        elif best == NOBODY or pc[LAST_USE + unit] > pc[LAST_USE + best]:
            best = unit
    if best == NOBODY and now >= forced_at:
        best = first_left
    return best, again


@inlined
def end_unit(pc, q: DramTiming, unit):  # type: ignore[no-untyped-def]
    """Note that a unit has had its refresh. True if all have: the rotation starts anew."""
    pc[REFRESHED + unit] = 1
    for other in range(units(q)):
        if pc[REFRESHED + other] == 0:
            return False
    for other in range(units(q)):
        pc[REFRESHED + other] = 0
    return True

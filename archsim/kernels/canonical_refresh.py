"""The part of the canonical form that only same-bank refresh, refreshes out of turn, and power-down have."""

from __future__ import annotations

from archsim.kernels.channel import (
    AWAKE_AT,
    EMPTY_SINCE,
    LAST_USE,
    LOOK_AT,
    PDE_OK,
    POWER,
    POWER_CHANGE_OK,
    POWER_COUNTED,
    REFRESHED,
    REFSB_OK,
)
from archsim.kernels.form_words import constraint, elapsed, value
from archsim.kernels.jit import inlined
from archsim.kernels.refresh_choice import units
from archsim.kernels.special import powers_down, refresh_choice, same_bank
from archsim.kernels.timing import DramTiming


@inlined
def exchange_refresh_and_power(pc, q: DramTiming, form, n, writing, now):  # type: ignore[no-untyped-def]
    if refresh_choice(q) or powers_down(q):
        n = elapsed(pc, EMPTY_SINCE, form, n, writing, now, max(q.refresh_idle, q.power_down_after))
    if same_bank(q):
        for sid in range(q.stack_ids):
            n = constraint(pc, REFSB_OK + sid, form, n, writing, now)
    if refresh_choice(q):
        for unit in range(units(q)):
            n = value(pc, REFRESHED + unit, form, n, writing)
        n = exchange_last_uses(pc, q, form, n, writing, now)
        if not writing:
            pc[LOOK_AT] = 0  # looking too often does no harm
    if powers_down(q):
        n = value(pc, POWER, form, n, writing)
        n = constraint(pc, POWER_CHANGE_OK, form, n, writing, now)
        n = constraint(pc, AWAKE_AT, form, n, writing, now)
        n = constraint(pc, PDE_OK, form, n, writing, now)
        if not writing:
            pc[POWER_COUNTED] = now
    return n


@inlined
def exchange_last_uses(pc, q: DramTiming, form, n, writing, now):  # type: ignore[no-untyped-def]
    """How long ago units were used: to the tick up to tRC, beyond it only which was used later than which."""
    for unit in range(units(q)):
        if not writing:
            pc[LAST_USE + unit] = now - form[n + unit]
            continue
        ago = now - pc[LAST_USE + unit]
        if ago > q.tRC:
            ago = q.tRC + 1
            for other in range(units(q)):
                ago += later_use(pc, q, unit, other, now)
        form[n + unit] = ago
    return n + units(q)


@inlined
def later_use(pc, q: DramTiming, unit, other, now):  # type: ignore[no-untyped-def]
    """1 if the other unit's last use was later, but more than tRC ago, and no lower unit was used at that tick."""
    use = pc[LAST_USE + other]
    if use <= pc[LAST_USE + unit] or now - use <= q.tRC:
        return 0
    for lower in range(other):
        if pc[LAST_USE + lower] == use:
            return 0
    return 1

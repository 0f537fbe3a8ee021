"""Words of a canonical form, written and read back by the same call; each returns the place of the next one."""

from __future__ import annotations

from archsim.kernels.channel import NEVER
from archsim.kernels.jit import inlined


@inlined
def constraint(state, at, form, n, writing, now):  # type: ignore[no-untyped-def]
    """An earliest tick: relative, 0 once it has passed, -1 for never."""
    if writing:
        form[n] = -1 if state[at] >= NEVER else max(0, state[at] - now)
    else:
        state[at] = NEVER if form[n] < 0 else now + form[n]
    return n + 1


@inlined
def moment(state, at, form, n, writing, now):  # type: ignore[no-untyped-def]
    """A tick whose distance matters also when it has passed."""
    if writing:
        form[n] = state[at] - now
    else:
        state[at] = now + form[n]
    return n + 1


@inlined
def elapsed(state, at, form, n, writing, now, limit):  # type: ignore[no-untyped-def]
    """A past tick that matters only until `limit` ticks have gone by; -1 for never."""
    if writing:
        form[n] = -1 if state[at] >= NEVER else min(limit, now - state[at])
    else:
        state[at] = NEVER if form[n] < 0 else now - form[n]
    return n + 1


@inlined
def value(state, at, form, n, writing):  # type: ignore[no-untyped-def]
    """A plain value."""
    if writing:
        form[n] = state[at]
    else:
        state[at] = form[n]
    return n + 1

"""What the DRAM kernel is compiled for: properties of a channel that are types to the compiler, not values.

The length of a tuple is part of its type, so `len(q.shape.pseudo_channels)` is a constant in machine code: loops over
one pseudo-channel disappear, and so does a feature that is off (a tuple of length 0). Every combination in use is
compiled once and cached on disk like any other signature; combinations that nobody uses cost nothing.
"""

from __future__ import annotations

from collections import namedtuple
from functools import lru_cache
from typing import Any, NamedTuple

from archsim.kernels.jit import inlined
from archsim.kernels.timing import DramTiming, RefreshMode, RefreshOrder

# timing.RefreshMode and timing.RefreshOrder, as plain ints for the compiler.
NO_REFRESH, ALL_BANK, SAME_BANK = 0, 1, 3
IN_TURN = 0

Size = tuple[None, ...]
"""A number as a type: a tuple of that many Nones."""


class Shape(NamedTuple):
    """Each field is a `Size`. A feature flag is a size of 0 or 1."""

    pseudo_channels: Size
    front_policies: Size  # 1: any scheduler, page policy or answering write queue but the default; a histogram
    back_policies: Size  # 1: a shared bus, same-bank refresh, refreshes out of turn, postponed or early, power-down


_FRONT_POLICIES = {
    name: DramTiming._field_defaults[name]
    for name in (
        "scheduler", "row_hit_cap", "starve_after", "page_timeout", "write_forwarding", "write_coalescing",
        "latency_histogram",
    )
}  # fmt: skip
"""What makes a channel one with front policies, and the values that switch it off."""

_FIELDS = (*DramTiming._fields, "shape")
SpecialTiming: type[Any] = namedtuple("SpecialTiming", _FIELDS)  # type: ignore[misc]
"""A `DramTiming` with its shape: what the kernels' entry points hand to their parts as `q`."""


@lru_cache(maxsize=256)
def specialised(q: DramTiming) -> Any:
    """The timing that makes numba choose (or compile) the kernel of the right shape."""
    shape = Shape(
        pseudo_channels=(None,) * q.pseudo_channels,
        front_policies=(None,) * int(any(getattr(q, name) != off for name, off in _FRONT_POLICIES.items())),
        back_policies=(None,) * int(_has_back_policies(q)),
    )
    return SpecialTiming(*q._replace(tCCDLW=max(q.tCCDL, q.tCCDLW)), shape)  # type: ignore[call-arg]


def _has_back_policies(q: DramTiming) -> bool:
    special = q.shared_command_bus or q.refresh_mode == RefreshMode.SAME_BANK or q.power_down_after > 0
    return bool(special) or _has_refresh_choice(q)


def _has_refresh_choice(q: DramTiming) -> bool:
    """Whether a refresh may be anything but the next one in turn, begun when it falls due."""
    if q.refresh_mode == RefreshMode.NONE:
        return False
    out_of_turn = q.refresh_order != RefreshOrder.IN_TURN and q.refresh_mode != RefreshMode.ALL_BANK
    return out_of_turn or q.refresh_postpone > 0 or q.refresh_pull_in > 0


@inlined
def pseudo_channels(q):  # type: ignore[no-untyped-def]
    """How many there are, as a constant of the compiled code."""
    return len(q.shape.pseudo_channels)


@inlined
def front_policies(q):  # type: ignore[no-untyped-def]
    """Whether code for them (policies.py) is compiled in at all."""
    return len(q.shape.front_policies) > 0


@inlined
def back_policies(q):  # type: ignore[no-untyped-def]
    """Whether code for any of the following is compiled in at all; which of them is on is looked up at run time."""
    return len(q.shape.back_policies) > 0


@inlined
def shared_bus(q):  # type: ignore[no-untyped-def]
    """Whether row and column commands share one bus."""
    return back_policies(q) and q.shared_command_bus != 0


@inlined
def same_bank(q):  # type: ignore[no-untyped-def]
    """Whether a refresh takes one bank of every group of a stack ID."""
    return back_policies(q) and q.refresh_mode == SAME_BANK


@inlined
def refresh_choice(q):  # type: ignore[no-untyped-def]
    """Whether refreshes may go out of turn, wait, or come early."""
    return (
        back_policies(q)
        and q.refresh_mode != NO_REFRESH
        and (
            (q.refresh_order != IN_TURN and q.refresh_mode != ALL_BANK)
            or q.refresh_postpone > 0
            or q.refresh_pull_in > 0
        )
    )


@inlined
def powers_down(q):  # type: ignore[no-untyped-def]
    """Whether a pseudo-channel with nothing to do powers down."""
    return back_policies(q) and q.power_down_after > 0

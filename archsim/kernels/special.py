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
from archsim.kernels.timing import DramTiming

Size = tuple[None, ...]
"""A number as a type: a tuple of that many Nones."""


class Shape(NamedTuple):
    """Each field is a `Size`. A feature flag is a size of 0 or 1."""

    pseudo_channels: Size
    shared_bus: Size


_FIELDS = (*DramTiming._fields, "shape")
SpecialTiming: type[Any] = namedtuple("SpecialTiming", _FIELDS)  # type: ignore[misc]
"""A `DramTiming` with its shape: what the kernels' entry points hand to their parts as `q`."""


@lru_cache(maxsize=256)
def specialised(q: DramTiming) -> Any:
    """The timing that makes numba choose (or compile) the kernel of the right shape."""
    shape = Shape(
        pseudo_channels=(None,) * q.pseudo_channels,
        shared_bus=(None,) * q.shared_command_bus,
    )
    return SpecialTiming(*q._replace(tCCDLW=max(q.tCCDL, q.tCCDLW)), shape)  # type: ignore[call-arg]


@inlined
def pseudo_channels(q):  # type: ignore[no-untyped-def]
    """How many there are, as a constant of the compiled code."""
    return len(q.shape.pseudo_channels)


@inlined
def shared_bus(q):  # type: ignore[no-untyped-def]
    """Whether row and column commands share one bus."""
    return len(q.shape.shared_bus) > 0

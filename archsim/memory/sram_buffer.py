"""The on-chip buffer as a technology: what a GPU's L2 would be out of another SRAM, or out of gain cells.

buffer: {kind: sram, technology: gain_cell_hybrid, miss_latency: 119 ns}
"""

from __future__ import annotations

from typing import Literal

from archsim.compute.onchip import BufferTimes
from archsim.config.schema import Spec
from archsim.config.units import TimeFs
from archsim.memory.sram import SramSpec


class SramBufferSpec(BufferTimes, Spec):
    """A buffer out of a `technology`: capacity, rate of reads (less what refresh takes of it) and latency follow.

    What keeping its data takes is added to the idle power. Energy per bit stays that of the system's table, which has
    the engines' own scratchpads in it."""

    kind: Literal["sram"]
    technology: SramSpec
    miss_latency: TimeFs

    @property
    def capacity(self) -> int:
        """Bytes."""
        return self.technology.capacity

    @property
    def bandwidth(self) -> int:
        """Bytes per second, rounded down."""
        return int(self.technology.peak_bytes_per_second() * self.technology.port_time.share)

    @property
    def latency(self) -> int:
        """Femtoseconds of a hit: whole cycles of array and wires."""
        return int(-(-self.technology.latency_cycles * self.technology.tick_fs // 1))

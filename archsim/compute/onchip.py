"""The on-chip buffer between memory and the engines (a GPU's L2): capacity, bandwidth, latency."""

from __future__ import annotations

from typing import Protocol

from archsim.compute.arithmetic import transfer_fs
from archsim.config.quantities import ByteCount, BytesPerSecond, TimeFs
from archsim.config.schema import Spec


class OnChipBuffer(Protocol):
    """A buffer shared by all units. `bandwidth` is what the units read from it together; `latency` is of a hit.

    `miss_latency` is what the way from the buffer to the memory's pins and back adds to a miss, the memory's own
    latency (which is simulated) not included. Bytes, bytes per second and femtoseconds."""

    @property
    def capacity(self) -> int: ...

    @property
    def bandwidth(self) -> int: ...

    @property
    def latency(self) -> int: ...

    @property
    def miss_latency(self) -> int: ...

    def serve_fs(self, served_bytes: int) -> int: ...

    def holds(self, working_set_bytes: int) -> bool: ...


class BufferTimes:
    """What follows from a buffer's numbers, wherever they come from."""

    def serve_fs(self: OnChipBuffer, served_bytes: int) -> int:
        """Femtoseconds until the last of `served_bytes` has come out of the buffer; 0 bytes take no time."""
        if served_bytes <= 0:
            return 0
        return self.latency + transfer_fs(served_bytes, self.bandwidth)

    def holds(self: OnChipBuffer, working_set_bytes: int) -> bool:
        """Whether data that is used again and again stays resident.

        A cyclic sweep over more than the capacity evicts each line just before its next use (LRU), so
        residency is all or nothing."""
        return working_set_bytes <= self.capacity


class OnChipBufferSpec(BufferTimes, Spec):
    """A buffer by its numbers (see `OnChipBuffer`)."""

    capacity: ByteCount
    bandwidth: BytesPerSecond
    latency: TimeFs
    miss_latency: TimeFs

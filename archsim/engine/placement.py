"""Where tensors lie in a device's memory, and whether they fit."""

from __future__ import annotations

from collections.abc import Iterable

from archsim.config.errors import UserError
from archsim.config.units import format_quantity
from archsim.memory.device import HbmDevice, Range
from archsim.records import Access, TensorClass

ROW_SETS_APART = 32
"""Activation buffers lie so many row sets apart: streams that run together stay out of each other's rows."""


class Placement:
    """Assigns every tensor of one device consecutive bursts in all pseudo-channels, in order of first mention.

    Storage is by name: a tensor mentioned again is the same memory. Weights and KV storage fill the memory from the
    bottom, each from the beginning of a row set (all banks' next row) while there is room for that; activations from
    the top. KV storage grows with the context, so its size is reserved up front (`reserve`).

    Args:
        device: the memory.
        capacity_bytes: what programs can use; the size of all tensors is held against it.
        physical_bytes: what the stacks hold; addresses stay below it.
    """

    def __init__(self, device: HbmDevice, capacity_bytes: int, physical_bytes: int) -> None:
        self._device = device
        self._capacity_bytes = capacity_bytes
        self._first_burst: dict[str, int] = {}
        self._size_bytes: dict[str, int] = {}
        self._next_burst = 0
        self._top_burst = physical_bytes // device.round_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of all tensors placed so far."""
        return sum(self._size_bytes.values())

    @property
    def free_bytes(self) -> int:
        """What is left of the capacity."""
        return self._capacity_bytes - self.used_bytes

    def reserve(self, accesses: Iterable[Access]) -> None:
        """Give each tensor its place. Raises UserError if they don't fit, saying by how much and what would."""
        for access in accesses:
            self._place(access.tensor, access.bytes, access.tensor_class)
        if self.used_bytes > self._capacity_bytes:
            raise UserError(
                f"the model and its KV cache need {_bytes(self.used_bytes)} on each device, which has "
                f"{_bytes(self._capacity_bytes)}: {_bytes(self.used_bytes - self._capacity_bytes)} too much",
                expected=f"a higher tensor_parallel (at least {-(-self.used_bytes // self._capacity_bytes)} times this "
                "one), fewer or shorter sequences, or narrower formats",
            )

    def range_of(self, access: Access, *, write: bool) -> Range:
        """The bursts an access moves: from the start of its tensor, or, for KV that is appended, at its end."""
        if access.tensor not in self._first_burst:
            self._place(access.tensor, access.bytes, access.tensor_class)
        first = self._first_burst[access.tensor]
        bursts = self._device.bursts(access.bytes)
        if write and access.tensor_class is TensorClass.KV:
            first += max(0, self._device.bursts(self._size_bytes[access.tensor]) - bursts)
        return Range(first, bursts, write)

    def _place(self, tensor: str, size_bytes: int, tensor_class: TensorClass) -> None:
        if tensor in self._first_burst:
            return
        bursts, row_set = self._device.bursts(size_bytes), self._device.row_set_bursts
        if tensor_class is TensorClass.ACTIVATION:
            self._top_burst -= -(-bursts // row_set) * row_set + ROW_SETS_APART * row_set
            first = self._top_burst = max(0, self._top_burst // row_set * row_set)
        else:
            first = -(-self._next_burst // row_set) * row_set
            if first + bursts > self._top_burst:
                first = self._next_burst
            self._next_burst = first + bursts
        self._first_burst[tensor] = first
        self._size_bytes[tensor] = size_bytes


def _bytes(count: int) -> str:
    return format_quantity(count, "bytes")

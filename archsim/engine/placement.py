"""Where tensors lie in a device's memory, and whether they fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from archsim.config.errors import UserError
from archsim.config.units import format_quantity
from archsim.memory.device import Range
from archsim.memory.layout import Shares
from archsim.memory.main import MainMemory
from archsim.records import Access, TensorClass

ROW_SETS_APART = 32
"""Activation buffers lie so many row sets apart: streams that run together stay out of each other's rows."""


@dataclass(frozen=True)
class PagedKv:
    """A paged KV cache of `sequences` sequences of `tokens` tokens: blocks of `block_tokens` tokens each, handed out in
    a random order, as by a server that has been running for a while. All layers use the same block numbers."""

    block_tokens: int
    token_bytes: int  # of one layer on one device
    sequences: int
    tokens: int
    seed: int = 0

    @property
    def pool_tokens(self) -> int:
        """Tokens that the blocks hold."""
        return self.sequences * -(-self.tokens // self.block_tokens) * self.block_tokens

    def pieces(self, size_bytes: int) -> tuple[np.ndarray, np.ndarray]:
        """(first byte, bytes) of the parts of blocks that hold each sequence's last tokens, sequence by sequence;
        `size_bytes` is what all of them have together."""
        newest = -(-size_bytes // (self.token_bytes * self.sequences))
        blocks = -(-self.tokens // self.block_tokens)
        numbers = np.random.default_rng(self.seed).permutation(self.sequences * blocks).reshape(self.sequences, blocks)
        place = np.arange(blocks)
        begin = np.clip(self.tokens - newest - place * self.block_tokens, 0, self.block_tokens)
        end = np.clip(self.tokens - place * self.block_tokens, 0, self.block_tokens)
        first_token = numbers * self.block_tokens + begin
        lengths = np.broadcast_to(end - begin, first_token.shape)
        return first_token.ravel() * self.token_bytes, lengths.ravel() * self.token_bytes


class Placement:
    """Assigns every tensor of one device consecutive bursts in all pseudo-channels, in order of first mention.

    Storage is by name: a tensor mentioned again is the same memory. Weights and KV storage fill the memory from the
    bottom, each from the beginning of a row set (all banks' next row) while there is room for that; activations from
    the top. KV storage grows with the context, so its size is reserved up front (`reserve`).

    Args:
        device: the memory.
        capacity_bytes: what programs can use; the size of all tensors is held against it.
        physical_bytes: what the stacks hold; addresses stay below it.
        expert_channels: channels that hold each expert of a mixture; None: all of them.
        paged_kv: the blocks of the KV cache; None: one range per layer.
    """

    def __init__(
        self,
        device: MainMemory,
        capacity_bytes: int,
        physical_bytes: int,
        *,
        expert_channels: int | None = None,
        paged_kv: PagedKv | None = None,
    ) -> None:
        self._device = device
        self._capacity_bytes = capacity_bytes
        self._first_burst: dict[str, int] = {}
        self._size_bytes: dict[str, int] = {}
        self._next_burst = 0
        self._top_burst = physical_bytes // device.round_bytes
        self._expert_channels = expert_channels
        self._paged_kv = paged_kv
        self._experts_of: Mapping[str, int] = {}
        self._local: dict[tuple[object, ...], Shares] = {}  # shares of tensors that would begin at local burst 0

    @property
    def used_bytes(self) -> int:
        """Bytes of all tensors placed so far."""
        return sum(self._size_bytes.values())

    @property
    def free_bytes(self) -> int:
        """What is left of the capacity."""
        return self._capacity_bytes - self.used_bytes

    def name_experts(self, experts_of: Mapping[str, int]) -> None:
        """Tell which weights are stacks of experts, and of how many. Before they are placed."""
        self._experts_of = experts_of

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

    def range_of(self, access: Access, *, write: bool) -> Range | Shares:
        """The bursts an access moves: from the start of its tensor, or, for KV that is appended, at its end. Of several
        passes, those behind the first are as many bursts more: rows behind the tensor stand for its own.

        `Shares` where channels differ: ragged ends, experts on channels of their own, a paged cache."""
        if access.tensor not in self._first_burst:
            self._place(access.tensor, access.bytes // access.passes, access.tensor_class)
        first = self._first_burst[access.tensor]
        layout = self._device.layout
        if layout is not None:
            if self._paged_kv is not None and access.tensor_class is TensorClass.KV:
                return self._pages(access.bytes, write).moved_by(first)
            if self._expert_channels is not None and access.tensor in self._experts_of:
                return self._experts(access, self._expert_channels).moved_by(first)
            if layout.spec.ragged:
                behind = write and access.tensor_class is TensorClass.KV
                offset_bytes = max(0, self._size_bytes[access.tensor] - access.bytes) if behind else 0
                return layout.contiguous(first * self._device.round_bytes + offset_bytes, access.bytes, write=write)
        bursts = self._device.bursts(access.bytes // access.passes) * access.passes
        if write and access.tensor_class is TensorClass.KV:
            first += max(0, self._device.bursts(self._size_bytes[access.tensor]) - bursts)
        return Range(first, bursts, write)

    def _pages(self, size_bytes: int, write: bool) -> Shares:
        key = ("pages", size_bytes, write)
        if key not in self._local:
            assert self._paged_kv is not None and self._device.layout is not None
            self._local[key] = self._device.layout.pieces(*self._paged_kv.pieces(size_bytes), write=write)
        return self._local[key]

    def _experts(self, access: Access, channels: int) -> Shares:
        """The experts that an access hits, each on its group of channels. Which ones it hits is drawn at random, from
        the tensor's name, without repetition."""
        experts = self._experts_of[access.tensor]
        size_bytes = -(-self._size_bytes[access.tensor] // experts)
        hit = min(experts, max(1, round(access.bytes / size_bytes)))
        layer = int(found[1]) if (found := re.search(r"\[(\d+)\]", access.tensor)) else 0
        chosen = np.sort(np.random.default_rng([layer, hit]).permutation(experts)[:hit])
        assert self._device.layout is not None
        return self._device.layout.on_groups(channels, chosen, size_bytes)

    def _span(self, tensor: str, size_bytes: int) -> int:
        """Local bursts that a tensor takes in every pseudo-channel."""
        layout = self._device.layout
        if layout is None:
            return self._device.bursts(size_bytes)
        if self._expert_channels is not None and tensor in self._experts_of:
            experts, groups = self._experts_of[tensor], self._device.channels // self._expert_channels
            return -(-experts // groups) * layout.span(-(-size_bytes // experts), range(self._expert_channels))
        return layout.span(size_bytes)

    def _place(self, tensor: str, size_bytes: int, tensor_class: TensorClass) -> None:
        if tensor in self._first_burst:
            return
        bursts, row_set = self._span(tensor, size_bytes), self._device.row_set_bursts
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

"""Which tier each tensor of a device lies on, where there, and whether everything fits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil

from archsim.config.errors import UserError
from archsim.config.units import format_bytes
from archsim.engine.placement import Placement
from archsim.engine.tier_pipeline import TierPart
from archsim.memory.device import HbmDevice
from archsim.memory.flash_device import FlashDevice
from archsim.memory.tiers import MAIN_TIER, Placeable, PlacementRule, PlacementSpec, TierSpec
from archsim.records import Access, TensorClass

LAYER = re.compile(r"layers\[(\d+)\]")

LM_HEAD = "lm_head.weight"
"""Stored in the embedding's format, but read whole at every step: for placement it is a weight."""

CLASSES = {
    TensorClass.WEIGHT: Placeable.WEIGHTS,
    TensorClass.KV: Placeable.KV,
    TensorClass.KV_SHARED: Placeable.KV_SHARED,
    TensorClass.ACTIVATION: Placeable.ACTIVATIONS,
    TensorClass.EMBEDDING: Placeable.EMBEDDINGS,
}

KV_CLASSES = (TensorClass.KV, TensorClass.KV_SHARED)


@dataclass(frozen=True, slots=True)
class KvAges:
    """What a placement rule by age has to know of a layer's cache on one device: bytes of a token of one sequence, less
    than all of them where devices deal the cache out; how many sequences; tokens of each that no other has. A prefix
    that they share is older than those."""

    token_bytes: Fraction
    sequences: int
    own_tokens: int

    def newest_bytes(self, tokens: int, tensor_class: TensorClass) -> int:
        """Bytes of the newest tokens of every sequence in a tensor of a class, rounded up."""
        if tensor_class is TensorClass.KV_SHARED:
            return ceil(max(0, tokens - self.own_tokens) * self.token_bytes)
        return ceil(tokens * self.sequences * self.token_bytes)


@dataclass(frozen=True, slots=True)
class Sorted:
    """An operator's accesses by tier: what the main memory serves, and a part for each other tier it touches."""

    reads: tuple[Access, ...]
    writes: tuple[Access, ...]
    parts: tuple[TierPart, ...]


class TierStore:
    """The tensors of one tier, one after the other in whole rounds (a page or a burst of every channel)."""

    def __init__(self, name: str, spec: TierSpec, device: HbmDevice | FlashDevice) -> None:
        self.name = name
        self.device = device
        self.capacity_bytes = spec.capacity
        self._first_round: dict[str, int] = {}
        self.used_bytes = 0
        self.next_round = 0

    def place(self, tensor: str, size_bytes: int) -> None:
        """Give a tensor its place, if it has none."""
        if tensor in self._first_round:
            return
        self._first_round[tensor] = self.next_round
        self.next_round += self.device.bursts(size_bytes)
        self.used_bytes += size_bytes

    def ranges_of(self, access: Access) -> tuple[tuple[int, int], ...]:
        """(first round, rounds) of the beginning of a tensor, for each pass over it."""
        size_bytes = access.bytes // access.passes
        self.place(access.tensor, size_bytes)
        return ((self._first_round[access.tensor], self.device.bursts(size_bytes)),) * access.passes


class TieredPlacement:
    """Deals tensors to tiers by the device's rules: parts for the main memory go to `main`, the others to stores.

    Args:
        main: the main memory's placement.
        spec: the rules.
        stores: the other tiers by name.
        kv_ages: of a layer's cache on this device, None if sequences differ.
    """

    def __init__(
        self, main: Placement, spec: PlacementSpec, stores: Mapping[str, TierStore], kv_ages: KvAges | None
    ) -> None:
        self.main = main
        self.stores = stores
        self._spec = spec
        self._kv_ages = kv_ages
        self._experts: Mapping[str, int] = {}
        self._sizes: dict[str, int] = {}  # of whole KV tensors

    def name_experts(self, experts_of: Mapping[str, int]) -> None:
        """Tell which weights are stacks of experts, and of how many. Before they are placed."""
        self._experts = experts_of
        self.main.name_experts(experts_of)

    def reserve(self, accesses: Iterable[Access]) -> None:
        """Give each tensor its place. Raises UserError if some tier can't hold its part, or a tensor has no tier."""
        kept = []
        for access in accesses:
            self._sizes.setdefault(access.tensor, access.bytes)
            for tier, size_bytes in self._shares(access):
                if tier == MAIN_TIER:
                    kept.append(access if size_bytes == access.bytes else replace(access, bytes=size_bytes))
                else:
                    self.stores[tier].place(access.tensor, size_bytes)
        for store in self.stores.values():
            _check_capacity(store)
        self.main.reserve(kept)

    def fits(self, accesses: Iterable[Access]) -> bool:
        """Whether new tensors would fit beside what is placed."""
        needed: dict[str, int] = {}
        for access in accesses:
            for tier, size_bytes in self._shares(access):
                needed[tier] = needed.get(tier, 0) + size_bytes
        free = {name: store.capacity_bytes - store.used_bytes for name, store in self.stores.items()}
        free[MAIN_TIER] = self.main.free_bytes
        return all(size_bytes <= free[tier] for tier, size_bytes in needed.items())

    def sort(self, reads: Sequence[Access], writes: Sequence[Access]) -> Sorted:
        """An operator's accesses by tier."""
        if not self.stores:
            return Sorted(tuple(reads), tuple(writes), ())
        by_tier: dict[str, tuple[list[Access], list[Access]]] = {}
        for write, accesses in ((False, reads), (True, writes)):
            for access in accesses:
                for tier, size_bytes in self._shares(access):
                    by_tier.setdefault(tier, ([], []))[write].append(replace(access, bytes=size_bytes))
        for access in writes:
            self._age(access, by_tier)
        main_reads, main_writes = by_tier.pop(MAIN_TIER, ([], []))
        parts = tuple(self._part(tier, *by_tier[tier]) for tier in self.stores if tier in by_tier)
        return Sorted(tuple(main_reads), tuple(main_writes), parts)

    def _part(self, tier: str, reads: list[Access], writes: list[Access]) -> TierPart:
        store = self.stores[tier]
        return TierPart(
            tier=tier,
            ranges=tuple(data for access in reads for data in store.ranges_of(access)),
            read_bytes=sum(access.bytes for access in reads),
            write_bytes=sum(access.bytes for access in writes),
            reads=_activations(reads),
            writes=_activations(writes),
        )

    def _shares(self, access: Access) -> Iterator[tuple[str, int]]:
        """(tier, bytes) of an access; bytes above zero, together those of the access, in whole passes."""
        left = access.bytes // access.passes
        for rule in self._spec.rules:
            if self._applies(rule, access):
                taken = self._taken(rule, access.tensor_class, left)
                if taken:
                    yield rule.tier, taken * access.passes
                left -= taken
            if not left:
                return
        if self._spec.rest is None:
            raise UserError(
                f"{access.tensor} ({access.tensor_class}) has no tier: no placement rule takes all of it, and "
                "placement.rest is null",
                expected="a rule for it, or placement.rest: hbm",
            )
        yield self._spec.rest, left * access.passes

    def _taken(self, rule: PlacementRule, tensor_class: TensorClass, left: int) -> int:
        if rule.share is not None:
            return int(left * Fraction(str(rule.share)))
        if rule.older_than_tokens is not None:
            return max(0, left - self._newest_bytes(rule.older_than_tokens, tensor_class))
        return left

    def _newest_bytes(self, tokens: int, tensor_class: TensorClass) -> int:
        if self._kv_ages is None:
            raise UserError(
                "a placement rule by age (older_than_tokens) needs sequences of equal length, which served requests "
                "are not",
                expected="a rule with a share instead",
            )
        return self._kv_ages.newest_bytes(tokens, tensor_class)

    def _age(self, access: Access, by_tier: dict[str, tuple[list[Access], list[Access]]]) -> None:
        """As new tokens are written, so many older ones leave the newest part of a cache that is split by age: they
        are read where they were and written to the tier of the older part. `_shares` has written the new ones."""
        rule = next((rule for rule in self._spec.rules if self._by_age(rule, access)), None)
        if rule is None or access.tensor not in self._sizes:
            return
        newest = self._newest_bytes(rule.older_than_tokens or 0, access.tensor_class)
        whole = self._sizes[access.tensor]
        old_bytes = max(0, whole - newest) - max(0, whole - access.bytes - newest)
        leaving = replace(access, bytes=old_bytes - max(0, access.bytes - newest))
        if leaving.bytes > 0:
            rest = self._spec.rest if self._spec.rest is not None else MAIN_TIER
            by_tier.setdefault(rest, ([], []))[0].append(leaving)
            by_tier.setdefault(rule.tier, ([], []))[1].append(leaving)

    def _by_age(self, rule: PlacementRule, access: Access) -> bool:
        return rule.older_than_tokens is not None and self._applies(rule, access)

    def _applies(self, rule: PlacementRule, access: Access) -> bool:
        if rule.layers is not None:
            found = LAYER.search(access.tensor)
            if found is None or not rule.layers[0] <= int(found[1]) <= rule.layers[1]:
                return False
        if rule.tensors is Placeable.EXPERTS:
            return access.tensor in self._experts
        if rule.tensors is Placeable.KV:
            return access.tensor_class in KV_CLASSES
        what = Placeable.WEIGHTS if access.tensor == LM_HEAD else CLASSES[access.tensor_class]
        return rule.tensors in (Placeable.ALL, what)


def _activations(accesses: Sequence[Access]) -> frozenset[str]:
    return frozenset(a.tensor for a in accesses if a.tensor_class is TensorClass.ACTIVATION)


def _check_capacity(store: TierStore) -> None:
    excess = store.used_bytes - store.capacity_bytes
    if excess > 0:
        raise UserError(
            f"what placement puts on the tier {store.name} needs {format_bytes(store.used_bytes)} on each "
            f"device, which has {format_bytes(store.capacity_bytes)} there: "
            f"{format_bytes(excess)} too much",
            expected="rules that put less there, more stacks, a higher tensor_parallel, or narrower formats",
        )

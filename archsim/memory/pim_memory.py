"""The processing-in-memory side of a device: how much of it there is, what is offloaded to it, and how it is reached.

    pim:
      technology: attacc_bank
      stacks: 5
      capacity: 80 GiB
      offload: {policy: attention}
      overlap: {heads: true, feed_forward: true}

PIM has no bandwidth of its own here: the time of an operator is that of its simulated commands.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import Annotated

from pydantic import Field, model_validator

from archsim.config.errors import UserError
from archsim.config.schema import Spec
from archsim.config.units import ByteCount, Dimension, PositiveInt, format_quantity
from archsim.memory.pim import PimSpec
from archsim.memory.pim_offload import STORED, OffloadPolicy, OffloadSpec
from archsim.memory.tiers import TierLinkSpec
from archsim.records import PimCounts, TensorClass

WEIGHT_POLICIES = (OffloadPolicy.GEMV, OffloadPolicy.ALL_GEMV, OffloadPolicy.INTENSITY)


class PimOverlapSpec(Spec):
    """What goes on beside PIM, as some papers' systems have it; all off: PIM and engines take turns.

    `heads`: attention head by head, beside the projections before and after it (AttAcc, head-level pipelining).
    `feed_forward`: products of the feed-forward network are cut between device and PIM, so that both take equally long
    (AttAcc, feed-forward co-processing). `sub_batches`: a decode batch is cut in two; while PIM does one's attention,
    the device does the other's products (NeuPIMs, sub-batch interleaving)."""

    heads: bool = False
    feed_forward: bool = False
    sub_batches: bool = False

    @property
    def any(self) -> bool:
        """Whether PIM works while the device does."""
        return self.heads or self.feed_forward or self.sub_batches


class PimMemorySpec(Spec):
    """Memory with processing in it, of one device: `stacks` of a technology, all of whose channels share the work.

    With a `capacity`, it is a memory of its own beside the main one: the KV cache lies there, and a copy of the weights
    that may be offloaded or shared out. Without, the main memory itself computes. Inputs and results pass the `link`;
    without one, the pins, in the program's own commands."""

    technology: PimSpec
    stacks: PositiveInt
    capacity: Annotated[
        ByteCount | None, Field(description="what programs can use; left out: PIM is the main memory itself")
    ] = None
    offload: OffloadSpec
    link: TierLinkSpec | None = None
    overlap: PimOverlapSpec = PimOverlapSpec()

    @property
    def separate(self) -> bool:
        """Whether it is a memory of its own."""
        return self.capacity is not None

    @property
    def held_bytes(self) -> int:
        """Bytes of all banks."""
        organisation = self.technology.organisation
        banks = organisation.channels * organisation.pseudo_channels * organisation.banks
        return self.stacks * banks * organisation.rows * organisation.row_bytes

    @cached_property
    def whole(self) -> PimSpec:
        """The technology with the channels of all stacks: one PIM device."""
        organisation = self.technology.organisation
        channels = self.stacks * organisation.channels
        changed = organisation.model_copy(update={"channels": channels})
        return self.technology.model_copy(update={"organisation": changed})

    @cached_property
    def peak_bytes_per_second(self) -> Fraction:
        """What all units read with MACs back to back; nothing is faster."""
        return self.whole.peak_bytes_per_second

    def holds(self, tensor_class: TensorClass, *, expert: bool) -> bool:
        """Whether a separate PIM memory has a tensor of a class, or a copy of it."""
        if tensor_class is TensorClass.KV:
            return self.offload.policy is not OffloadPolicy.GEMV
        if tensor_class not in STORED:
            return False
        return self.offload.policy in WEIGHT_POLICIES or (expert and self.offload.policy is OffloadPolicy.EXPERTS)

    def energy_pj(self, counts: PimCounts) -> dict[str, float]:
        """Picojoules of counted events, by component."""
        cost = self.technology.energy
        assert cost is not None, "checked when the spec was read"
        return {
            "pim_activate": counts.activates * cost.activate,
            "pim_read": 8 * counts.read_bytes * cost.read,
            "pim_pins": 8 * counts.pin_bytes * cost.pins,
            "pim_mac": counts.macs * cost.mac,
            "pim_link": 0.0 if self.link is None else 8 * counts.link_bytes * self.link.energy,
        }

    @model_validator(mode="after")
    def _check(self) -> PimMemorySpec:
        if self.technology.energy is None:
            raise UserError(f"{self.technology.name} has no energy data", expected="a technology with `energy`")
        if self.capacity is not None and self.capacity > self.held_bytes:
            raise UserError(
                f"pim.capacity is {_bytes(self.capacity)}, {_bytes(self.capacity - self.held_bytes)} more than "
                f"{self.stacks} stacks of {_bytes(self.held_bytes // self.stacks)} hold",
                expected=f"at most {_bytes(self.held_bytes)}, or technology.organisation with more rows",
            )
        if self.overlap.heads and self.overlap.sub_batches:
            raise UserError(
                "overlap.heads and overlap.sub_batches both fill the time of attention", expected="one of the two"
            )
        return self


def _bytes(count: int) -> str:
    return format_quantity(count, Dimension.BYTES)

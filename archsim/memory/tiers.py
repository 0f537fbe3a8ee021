"""Further memories of a device beside its main one, and the rules that say which tensors lie where.

    tiers:
      hbf: {kind: flash, technology: hbf_1536, stacks: 2, capacity: 1024 GiB, staging: 40 MiB}
    placement:
      rules:
        - {tensors: weights, layers: [0, 39], tier: hbf}
        - {tensors: kv, older_than_tokens: 4096, tier: hbf}

A tier has no bandwidth of its own: it follows from commands, pages and, behind a link, from flits.
"""

from __future__ import annotations

from enum import StrEnum
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, model_validator

from archsim.config.errors import UserError
from archsim.config.schema import Spec
from archsim.config.units import (
    BitsPerSecond,
    ByteCount,
    FractionFromZero,
    PicojoulePerBit,
    PositiveInt,
    TimeFs,
    format_bytes,
)
from archsim.memory.energy import CommandEnergy
from archsim.memory.flash import FS_PER_SECOND, FlashStandard
from archsim.memory.standard import ControllerSpec, DramStandard
from archsim.records import TierCounts

MAIN_TIER = "hbm"
"""What placement rules call a device's `memory`."""


class TierLinkSpec(Spec):
    """A link between a tier and the device: `lanes` of `lane_rate` each way; a flit of `flit` bytes on the wire has
    `payload` bytes of data. `latency` is from a request to the arrival of its first data, the memory's own left out;
    `energy` per bit on the wire."""

    lanes: PositiveInt
    lane_rate: BitsPerSecond
    flit: ByteCount
    payload: ByteCount
    latency: TimeFs
    energy: PicojoulePerBit

    @model_validator(mode="after")
    def _check(self) -> TierLinkSpec:
        if self.payload > self.flit:
            raise UserError(
                f"a flit of {self.flit} B can't have {self.payload} B of data", expected=f"at most {self.flit} B"
            )
        return self

    def wire_bytes(self, size_bytes: int) -> int:
        """Bytes of the flits that carry `size_bytes`."""
        return -(-size_bytes // self.payload) * self.flit

    def wire_fs(self, size_bytes: int) -> int:
        """Time that the flits of `size_bytes` hold the lanes of one direction, rounded up."""
        return -(-8 * self.wire_bytes(size_bytes) * FS_PER_SECOND // (self.lanes * self.lane_rate))

    @property
    def payload_bytes_per_second(self) -> Fraction:
        """Data in each direction."""
        return Fraction(self.lanes * self.lane_rate * self.payload, 8 * self.flit)


class _Tier(Spec):
    stacks: PositiveInt
    capacity: Annotated[ByteCount, Field(description="what programs can use, all stacks together")]
    staging: Annotated[
        ByteCount | None,
        Field(description="buffer that loads of coming operators are staged in; without it, they start with theirs"),
    ] = None
    link: TierLinkSpec | None = None

    def _behind_link(self, rate: Fraction) -> Fraction:
        return rate if self.link is None else min(rate, self.link.payload_bytes_per_second)

    def _link_pj(self, counts: TierCounts) -> float:
        return 0.0 if self.link is None else 8 * counts.link_bytes * self.link.energy

    def _check_capacity(self, held: int) -> None:
        if self.capacity > held:
            raise UserError(
                f"capacity is {format_bytes(self.capacity)}, {format_bytes(self.capacity - held)} more than "
                f"{self.stacks} stacks of {format_bytes(held // self.stacks)} hold",
                expected=f"at most {format_bytes(held)}",
            )

    def check_buffer(self, name: str, window_bytes: int, round_bytes: int) -> None:
        """Raise UserError if what data pass through, `staging` or else the device's window, is too small."""
        least = PARTS * round_bytes
        if (self.staging or window_bytes) < least:
            what = "a window" if self.staging is None else "a staging buffer"
            raise UserError(
                f"{what} of {format_bytes(self.staging or window_bytes)} is too small for the tier {name}: "
                f"{PARTS} accesses to each channel are {format_bytes(least)}",
                expected=f"staging of at least {format_bytes(least)}",
            )


class DramTier(_Tier):
    """Stacks or packages of any DRAM technology, each channel with its own controller."""

    kind: Literal["dram"]
    technology: DramStandard
    controller: ControllerSpec = ControllerSpec()

    @property
    def channels(self) -> int:
        """Channels of all stacks."""
        return self.stacks * self.technology.channels_per_stack

    @property
    def round_bytes(self) -> int:
        """A burst of every pseudo-channel: the least that is moved."""
        organisation = self.technology.organisation
        return self.channels * organisation.pseudo_channels * organisation.burst_bytes

    @property
    def ceiling_bytes_per_second(self) -> Fraction:
        """No read is faster: data buses or link."""
        return self._behind_link(self.channels * self.technology.peak_bytes_per_second)

    def energy_pj(self, counts: TierCounts) -> tuple[float, float, float]:
        """Picojoules of counted events: least, likely, most."""
        band = self.technology.energy_band
        assert band is not None, "checked when the tier was read"
        burst_bits = 8 * self.technology.organisation.burst_bytes
        low, likely, high = (_dram_pj(counts, cost, burst_bits) for _, cost in band.items())
        link = self._link_pj(counts)
        return low + link, likely + link, high + link

    @model_validator(mode="after")
    def _check(self) -> DramTier:
        if self.technology.energy is None:
            raise UserError(f"{self.technology.name} has no energy data", expected="a technology with `energy`")
        self._check_capacity(self.stacks * self.technology.stack_capacity)
        self.technology.timing(self.controller)  # raises UserError where the controller doesn't fit
        return self


class FlashTier(_Tier):
    """Stacks of a flash technology."""

    kind: Literal["flash"]
    technology: FlashStandard

    @property
    def round_bytes(self) -> int:
        """A page of every channel: the least that is moved."""
        return self.stacks * self.technology.organisation.channels * self.technology.organisation.page

    @property
    def ceiling_bytes_per_second(self) -> Fraction:
        """No read is faster: planes, channel buses, the stacks' links, or the link to the device."""
        return self._behind_link(self.stacks * min(self.technology.ceilings.values()))

    def energy_pj(self, counts: TierCounts) -> tuple[float, float, float]:
        """Picojoules of counted events: least, likely, most."""
        cost = self.technology.energy
        fixed = 8 * counts.write_bytes * cost.program + self._link_pj(counts)
        low, high = cost.read_band
        bits = 8 * counts.read_bytes
        return fixed + bits * low, fixed + bits * cost.read, fixed + bits * high

    @model_validator(mode="after")
    def _check(self) -> FlashTier:
        self._check_capacity(self.stacks * self.technology.capacity)
        return self


TierSpec = Annotated[DramTier | FlashTier, Field(discriminator="kind")]

PARTS = 8
"""A staging buffer is used in so many parts, of which `WRITE_PARTS` gather what is written."""
WRITE_PARTS = 2


class Placeable(StrEnum):
    """What a placement rule may name."""

    ALL = "all"
    WEIGHTS = "weights"  # experts and an LM head of its own included
    EXPERTS = "experts"
    KV = "kv"  # of a shared prefix included
    KV_SHARED = "kv_shared"
    ACTIVATIONS = "activations"
    EMBEDDINGS = "embeddings"


class PlacementRule(Spec):
    """`tensors`, of all layers or of `layers` (first and last), lie on `tier`.

    With a `share`, that share of each tensor does; with `older_than_tokens`, of a KV cache all but the newest so many
    tokens of each sequence, of which a shared prefix has the oldest. What is left goes on to the rules below."""

    tensors: Placeable
    tier: str
    layers: Annotated[tuple[int, int] | None, Field(description="the first and the last layer")] = None
    share: FractionFromZero | None = None
    older_than_tokens: PositiveInt | None = None

    @model_validator(mode="after")
    def _check(self) -> PlacementRule:
        if self.layers is not None and not 0 <= self.layers[0] <= self.layers[1]:
            raise UserError(f"layers {list(self.layers)} are none", expected="[first, last], first at most last")
        if self.older_than_tokens is not None and self.tensors is not Placeable.KV:
            raise UserError(f"{self.tensors} have no age", expected="older_than_tokens with tensors: kv only")
        if self.older_than_tokens is not None and self.share is not None:
            raise UserError("a rule by age and by share", expected="older_than_tokens or share, in rules of their own")
        return self


class PlacementSpec(Spec):
    """Rules by which tensors get their tier: the first that fits. `rest` takes what none does; null: that is an
    error."""

    rules: tuple[PlacementRule, ...] = ()
    rest: str | None = MAIN_TIER


def _dram_pj(counts: TierCounts, cost: CommandEnergy, burst_bits: int) -> float:
    return (
        counts.activates * cost.activate
        + counts.reads * cost.read
        + counts.writes * cost.write
        + counts.refreshes_all_bank * cost.refresh_all_bank
        + counts.refreshes_per_bank * cost.refresh_per_bank
        + (counts.reads + counts.writes) * burst_bits * cost.io
    )

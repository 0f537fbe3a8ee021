"""How a PIM design maps products, attention and elementwise operations to its banks.

    mapping:
      products: input_stationary
      keys: token_in_bank
      results: each
      scores: banks
      vectors: banks
      port_clocks: 1

Left out, accumulators hold outputs until all inputs are through, a KV head lies on one channel, and softmax, norms and
rotary embedding are the host's. docs/pim_policy.md has the commands of each choice.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from archsim.config.schema import Spec
from archsim.config.units import PositiveInt

SINGLE_BANK = ("ACT", "PRE", "WRSBK", "RDSBK")
"""Commands that reach one bank over the channel's pins."""
PRODUCTS = (*SINGLE_BANK, "ACTAB", "PREAB", "EWMUL")
VECTORS = (*PRODUCTS, "MACAB", "WRBIAS", "RDRES", "RDCP", "WRCP", "AF", "RDAF")


class ProductOrder(StrEnum):
    """What of a product stays while the rest goes by."""

    OUTPUT_STATIONARY = "output_stationary"
    INPUT_STATIONARY = "input_stationary"


class KeyLayout(StrEnum):
    """Where the keys of a KV cache lie."""

    HEAD_IN_CHANNEL = "head_in_channel"
    TOKEN_IN_BANK = "token_in_bank"


class ResultReads(StrEnum):
    """When attention reads its results out of the accumulators."""

    HELD = "held"
    EACH = "each"


class OperandPlace(StrEnum):
    """Where operands that are multiplied element by element lie."""

    HOST = "host"
    BANKS = "banks"


class PimMapping(Spec):
    """The mapping of one PIM design. Values always lie as rows of a matrix, a KV head on one channel."""

    products: Annotated[
        ProductOrder,
        Field(
            description="output_stationary: accumulators hold outputs while the buffer is filled with all inputs in "
            "turn; input_stationary: a filling of the buffer serves all outputs, accumulators are read after it"
        ),
    ] = ProductOrder.OUTPUT_STATIONARY
    keys: Annotated[
        KeyLayout,
        Field(description="head_in_channel: a KV head on one channel; token_in_bank: a bank has all heads of a token"),
    ] = KeyLayout.HEAD_IN_CHANNEL
    results: Annotated[
        ResultReads,
        Field(description="held: as many results as accumulators, then read; each: every result read before the next"),
    ] = ResultReads.HELD
    scores: Annotated[
        OperandPlace,
        Field(description="host: softmax is the host's; banks: scores are written to banks, scaled there, read back"),
    ] = OperandPlace.HOST
    vectors: Annotated[
        OperandPlace,
        Field(description="who multiplies in norms, rotary embedding, gated activations: the host, or banks"),
    ] = OperandPlace.HOST
    port_clocks: Annotated[
        PositiveInt | None,
        Field(description="clocks between two accesses to single banks, of all channels: one port issues them"),
    ] = None

    @property
    def whole_heads(self) -> bool:
        """Whether attention is nothing but products of a KV head's rows on its channel."""
        return self == PimMapping(products=self.products, vectors=self.vectors, port_clocks=self.port_clocks)

    def problems(self, commands: Collection[str], *, by_rows: bool) -> list[str]:
        """What of this mapping a device with these commands can't do; `by_rows`: its banks hold rows of a matrix."""
        if self == PimMapping():
            return []
        if not by_rows:
            return ["mapping is for families whose banks hold rows of a matrix: aim, pim_gpt, neupims"]
        found = []
        places = {"scores": (self.scores, PRODUCTS), "vectors": (self.vectors, VECTORS)}
        for name, (place, needed) in places.items():
            missing = [command for command in needed if command not in commands]
            if place is OperandPlace.BANKS and missing:
                found.append(f"mapping.{name}: banks needs the commands {', '.join(missing)}")
            if place is OperandPlace.BANKS and self.port_clocks is None:
                found.append(f"mapping.{name}: banks needs mapping.port_clocks")
        return found

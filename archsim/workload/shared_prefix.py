"""A prefix that all sequences of a batch share: a system prompt, retrieved documents, a cache computed beforehand.

Its keys and values are stored once. Cascade attention (FlashInfer's name; Hydragen, arXiv 2402.05099, has the same)
attends to it in one launch for the queries of the whole batch, so that it is read once and each product has a row for
every query; attention to the sequences' own tokens is another launch, and a third merges the two by their
log-sum-exp:

    prefix_attention -> attention -> attention_merge
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from archsim.config.schema import Spec
from archsim.config.units import PositiveInt
from archsim.records import Access, AttentionShape, Operator, OperatorKind, TensorClass
from archsim.workload.costs import MERGE_FLOPS, MERGE_HEAD_FLOPS, SOFTMAX_FLOPS
from archsim.workload.layers import LayerBuilder

LSE_BYTES = 4
"""The log-sum-exp of a query and head is kept in fp32."""


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """`tokens` in front of every sequence's own, cached once. With `cascade` attention reads them once for all
    sequences, else once for each."""

    tokens: int
    cascade: bool = True


NO_PREFIX = SharedPrefix(0, cascade=False)


class PrefixAttention(StrEnum):
    """How often attention reads the keys and values of a shared prefix."""

    CASCADE = "cascade"  # once for the batch, by a launch of its own (FlashInfer's cascade attention, Hydragen)
    PER_SEQUENCE = "per_sequence"  # once for each sequence, as kernels do that don't know what is shared


class SharedPrefixSpec(Spec):
    """Tokens in front of every sequence that all share, cached once and before anything runs: a system prompt,
    documents (automatic prefix caching, cache-augmented generation)."""

    tokens: Annotated[PositiveInt, Field(description="on top of a sequence's own prompt or context")]
    attention: PrefixAttention = PrefixAttention.CASCADE

    @property
    def lowered(self) -> SharedPrefix:
        """As lowering takes it."""
        return SharedPrefix(self.tokens, self.attention is PrefixAttention.CASCADE)


@dataclass(frozen=True, slots=True)
class Heads:
    """Query heads and key heads of an attention launch, and the sizes of a key and of a value."""

    queries: int
    keys: int
    dim: int
    value_dim: int


def partial_output(builder: LayerBuilder, part: str, tokens: int, heads: Heads) -> tuple[Access, Access]:
    """What attention of `tokens` queries to a part of a context gives: unquantised outputs and their log-sum-exp."""
    fmt = builder.precision.unquantised_format
    return (
        Access(f"{part}_output", TensorClass.ACTIVATION, fmt.tensor_bytes(tokens, heads.queries * heads.value_dim)),
        Access(f"{part}_lse", TensorClass.ACTIVATION, tokens * heads.queries * LSE_BYTES),
    )


class Cascade:
    """Attention to a prefix of one batch on one device, and the merge with attention to the rest.

    Args:
        builder: the model on a device. prefix: NO_PREFIX for none. tokens: queries of the batch. heads: of a launch.
        query, outputs: what attention without a prefix reads and writes.
        expanded: keys and values of the prefix where they are computed from latents, None if they come from the cache.
    """

    def __init__(
        self,
        builder: LayerBuilder,
        prefix: SharedPrefix,
        tokens: int,
        heads: Heads,
        query: Access,
        outputs: tuple[Access, ...],
        expanded: Access | None = None,
    ) -> None:
        self._builder, self._prefix, self._tokens, self._heads = builder, prefix, tokens, heads
        self._query, self._outputs, self._expanded = query, outputs, expanded
        if prefix.tokens:
            self._prefix_output = partial_output(builder, "prefix", tokens, heads)
            self._own_output = partial_output(builder, "own", tokens, heads)

    def around(self, own: Operator) -> tuple[Operator, ...]:
        """Attention to the prefix, `own` attention to what follows, and their merge; `own` alone without a prefix."""
        if not self._prefix.tokens:
            return (own,)
        return (self._attention(own), replace(own, writes=self._own_output), self._merge(own))

    def _attention(self, own: Operator) -> Operator:
        """All queries against the prefix, every one against all of it: the batch is one sequence of many queries."""
        heads, prefix_tokens = self._heads, self._prefix.tokens
        scores = self._tokens * prefix_tokens * heads.queries
        shape = (heads.queries, heads.keys, heads.dim, heads.value_dim, (self._tokens,), (prefix_tokens,))
        cached = self._expanded or self._builder.kv_shared(own.layer, prefix_tokens, 1)
        return Operator(
            beside(own, "prefix_attention"),
            OperatorKind.PREFIX_ATTENTION,
            own.layer,
            matrix_flops=2 * scores * (heads.dim + heads.value_dim),
            vector_flops=SOFTMAX_FLOPS * scores,
            compute_format=own.compute_format,
            attention=AttentionShape(*shape),
            reads=(self._query, cached),
            writes=self._prefix_output,
        )

    def _merge(self, own: Operator) -> Operator:
        flops = self._tokens * self._heads.queries * (MERGE_FLOPS * self._heads.value_dim + MERGE_HEAD_FLOPS)
        parts = (*self._prefix_output, *self._own_output)
        name, kind = beside(own, "attention_merge"), OperatorKind.ATTENTION_MERGE
        return self._builder.vector(name, kind, own.layer, flops, parts, self._outputs)


def beside(own: Operator, name: str) -> str:
    """ "layers[3].prefix_attention" for "layers[3].attention", "layers[3].decode_prefix_attention" in a mixed batch."""
    return own.name.removesuffix("attention") + name

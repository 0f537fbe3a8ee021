"""Decode context parallel: devices that hold copies of the same KV heads deal the cache out by tokens instead.

With more devices than KV heads, tensor parallelism keeps a copy of each head's cache on several. A group of such
devices can keep each token once (vLLM's `decode_context_parallel_size`; Helix, arXiv 2507.07120): the queries of the
group are gathered, every device attends with all of them to its share of the tokens, and the parts are summed, scaled
by their log-sum-exp, so that each device has the outputs of its own heads:

    query_all_gather -> attention to a share -> lse_all_gather -> attention_scale -> attention_reduce_scatter
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from archsim.config.errors import UserError
from archsim.records import Access, Operator, OperatorKind
from archsim.workload.costs import MERGE_HEAD_FLOPS
from archsim.workload.layers import LayerBuilder
from archsim.workload.model import ModelShape
from archsim.workload.shared_prefix import Heads, partial_output


def share_of(tokens: int, devices: int) -> int:
    """Tokens of the device that has most."""
    return -(-tokens // devices)


def check_context_parallel(model: ModelShape, tp: int, devices: int) -> None:
    """Raise UserError, saying what would do, if `devices` of a tensor-parallel group can't deal out a cache."""
    if devices == 1:
        return
    if model.mla or any(window is not None for window in model.windows):
        raise UserError(
            f"{model.name}: context parallelism with latent attention or windows is not there yet",
            expected="context_parallel: 1",
        )
    copies = max(1, tp // model.kv_heads)
    if copies % devices:
        raise UserError(
            f"{model.name}: context parallelism of {devices} does not work: {tp} devices hold each KV head "
            f"{'once' if copies == 1 else f'{copies} times'}",
            expected=f"a divisor of {copies}"
            if copies > 1
            else f"more devices than its {model.kv_heads} KV heads, or 1",
        )


def shares_of(chunks: Sequence[tuple[int, int]], devices: int) -> list[tuple[int, int]]:
    """(1, tokens cached) of sequences in decode as a device sees its share, the newest token's among it."""
    return [(new, share_of(before + new, devices) - new) for new, before in chunks]


class ContextGroup:
    """The `devices` that deal a cache out: what passes between them for a batch of `tokens` queries.

    `heads` are those of a launch, the query heads of all devices; `outputs` is what attention to a share gives."""

    def __init__(self, builder: LayerBuilder, devices: int, tokens: int, heads: Heads) -> None:
        self._builder, self._devices = builder, devices
        width = heads.queries * heads.dim
        self.query = builder.activation("group_query", tokens, width)
        self._own_query = builder.activation("qkv", tokens, width // devices)
        self.outputs = partial_output(builder, "share", tokens, heads)
        self._flops = tokens * heads.queries * (heads.value_dim + MERGE_HEAD_FLOPS * devices)

    def around(self, operators: tuple[Operator, ...], output: Access) -> tuple[Operator, ...]:
        """Attention to a share, the last of which writes `outputs`, with what makes `output` of it."""
        last = operators[-1]
        sums, lse = self.outputs
        everyones = replace(lse, tensor="group_lse", bytes=lse.bytes * self._devices)
        scale = self._builder.vector(
            _named(last, "attention_scale"),
            OperatorKind.ATTENTION_MERGE,
            last.layer,
            self._flops,
            (sums, everyones),
            (sums,),
        )
        return (
            self._collective(last, "query_all_gather", OperatorKind.ALL_GATHER, self._own_query, self.query),
            *operators,
            self._collective(last, "lse_all_gather", OperatorKind.ALL_GATHER, lse, everyones),
            scale,
            self._collective(last, "attention_reduce_scatter", OperatorKind.REDUCE_SCATTER, sums, output),
        )

    def _collective(self, after: Operator, name: str, kind: OperatorKind, source: Access, target: Access) -> Operator:
        return Operator(
            _named(after, name),
            kind,
            after.layer,
            compute_format=self._builder.precision.unquantised_format.element,
            reads=(source,),
            writes=(target,),
            collective_bytes=max(source.bytes, target.bytes),
            collective_devices=self._devices,
        )


def _named(operator: Operator, name: str) -> str:
    return f"layers[{operator.layer}].{name}"

"""A forward pass as the operators one device of a tensor-parallel group runs.

A batch is a list of chunks, one per sequence: how many new tokens it brings and how many it has cached. A
prompt is (n, 0), a sequence in decode (1, n), a later part of a prompt (m, n): one pass may hold all three.
What depends on no more than the number of tokens is built once and kept; only attention is built per pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from operator import index

from archsim.config.errors import UserError
from archsim.records import Access, Operator, OperatorTrace
from archsim.workload.attention import Chunk, attention_operators, attention_work
from archsim.workload.context_parallel import check_context_parallel, share_of, shares_of
from archsim.workload.layers import LayerBuilder
from archsim.workload.model import ModelShape
from archsim.workload.precision import Precision
from archsim.workload.shared_prefix import NO_PREFIX, SharedPrefix

_KEPT_MODELS = 16
_KEPT_TOKEN_COUNTS = 64
"""Token counts whose operators are kept per model: about 0.25 MB each for 32 layers."""


def lower_prefill(
    model: ModelShape,
    precision: Precision,
    tp: int,
    prompt_tokens: Sequence[int],
    prefix: SharedPrefix = NO_PREFIX,
) -> OperatorTrace:
    """One pass over whole prompts with nothing cached but the prefix in front of each, which isn't computed again.

    Raises UserError as `lower_iteration` does."""
    chunks = [(tokens, 0) for tokens in prompt_tokens]
    return _lowering(model, precision, tp).trace(chunks, "prefill", prefix)


def lower_decode(
    model: ModelShape,
    precision: Precision,
    tp: int,
    context_tokens: Sequence[int],
    prefix: SharedPrefix = NO_PREFIX,
    context_parallel: int = 1,
) -> OperatorTrace:
    """One pass that adds a token to each sequence; `context_tokens` are cached already behind the prefix, so that the
    new token attends to one more. `context_parallel` devices with copies of the same KV heads deal all of it out.

    Raises UserError as `lower_iteration` does, and if no such devices are there."""
    chunks = [(1, tokens) for tokens in context_tokens]
    return _lowering(model, precision, tp).trace(chunks, "decode", prefix, context_parallel)


def lower_iteration(
    model: ModelShape, precision: Precision, tp: int, chunks: Sequence[Chunk], prefix: SharedPrefix = NO_PREFIX
) -> OperatorTrace:
    """One pass over a mixed batch of (new tokens, tokens cached before) per sequence, with a prefix that all share
    cached in front of each.

    A sequence with one new token is in decode; the phase is "prefill", "decode" or "mixed".
    Raises UserError if the model can't be cut over `tp` devices, the batch is empty, a count is negative or
    no new token is there, or a sequence outgrows a learned position table."""
    return _lowering(model, precision, tp).trace(chunks, None, prefix)


def tensors(model: ModelShape, precision: Precision, tp: int) -> tuple[Access, ...]:
    """Every weight tensor on one device, by the name the operators use; `bytes` is its whole size there.

    The KV cache of layer i is "layers[i].kv", of `model.kv_bytes_per_token_per_layer(precision, tp)` a token.
    Raises UserError if the model can't be cut over `tp` devices."""
    return tuple(_lowering(model, precision, tp).builder.weights.values())


def experts_of(model: ModelShape, precision: Precision, tp: int) -> dict[str, int]:
    """The weight tensors that are stacks of routed experts, and how many experts each holds."""
    tensors_by_name = _lowering(model, precision, tp).builder.tensors
    return {name: tensor.copies for name, tensor in tensors_by_name.items() if tensor.routed}


@lru_cache(maxsize=_KEPT_MODELS)
def _lowering(model: ModelShape, precision: Precision, tp: int) -> _Lowering:
    return _Lowering(model, precision, tp)


class _Lowering:
    """The operators of one (model, precision, tensor parallelism), as far as they have been asked for."""

    def __init__(self, model: ModelShape, precision: Precision, tp: int) -> None:
        self.model, self.tp = model, tp
        self.builder = LayerBuilder(model, precision, tp)
        self.windows = tuple(dict.fromkeys(model.windows))
        self.embedding = lru_cache(maxsize=_KEPT_TOKEN_COUNTS)(self._embedding)
        self.layers = lru_cache(maxsize=_KEPT_TOKEN_COUNTS)(self._layers)
        self.head = lru_cache(maxsize=4 * _KEPT_TOKEN_COUNTS)(self._head)

    def trace(
        self, chunks: Sequence[Chunk], phase: str | None, prefix: SharedPrefix, devices: int = 1
    ) -> OperatorTrace:
        own = [(index(new), index(before)) for new, before in chunks]
        self._check(own, prefix)
        check_context_parallel(self.model, self.tp, devices)
        tokens = sum([new for new, _ in own])
        if devices > 1:
            own, prefix = shares_of(own, devices), replace(prefix, tokens=share_of(prefix.tokens, devices))
        batch = [(new, prefix.tokens + before) for new, before in own] if prefix.tokens else own
        works = {window: attention_work(batch, window, prefix) for window in self.windows}
        operators = list(self.embedding(tokens))
        attention = attention_operators(self.builder, works, devices)
        for (before, after), middle in zip(self.layers(tokens, share_of(tokens, devices)), attention, strict=True):
            operators += before
            operators += middle
            operators += after
        operators += self.head(tokens, len(batch))
        return OperatorTrace(phase or _phase(batch), tuple(operators), self.tp, tokens, len(batch))

    def _embedding(self, tokens: int) -> tuple[Operator, ...]:
        return tuple(self.builder.embedding(tokens))

    def _layers(self, tokens: int, kept: int) -> tuple[tuple[tuple[Operator, ...], tuple[Operator, ...]], ...]:
        return tuple(
            (
                tuple(self.builder.before_attention(layer, tokens, kept)),
                tuple(self.builder.after_attention(layer, tokens)),
            )
            for layer in range(self.model.layers)
        )

    def _head(self, tokens: int, sequences: int) -> tuple[Operator, ...]:
        return tuple(self.builder.head(tokens, sequences))

    def _check(self, batch: Sequence[Chunk], prefix: SharedPrefix) -> None:
        if not batch:
            raise UserError(f"{self.model.name}: an empty batch has nothing to lower")
        for sequence, (new, before) in enumerate(batch):
            if new < 1 or before < 0:
                raise UserError(
                    f"{self.model.name}: sequence {sequence} of the batch has {new} new tokens after {before} cached",
                    expected="at least 1 new token and at least 0 cached",
                )
        longest = prefix.tokens + max([new + before for new, before in batch])
        limit = self.model.position_rows - self.model.position_offset
        if not self.model.rotary and longest > limit:
            raise UserError(
                f"{self.model.name}: a sequence of {longest} tokens is beyond its {limit} learned positions"
            )


def _phase(batch: Sequence[Chunk]) -> str:
    decoding = sum([new == 1 for new, _ in batch])
    if decoding == len(batch):
        return "decode"
    return "mixed" if decoding else "prefill"

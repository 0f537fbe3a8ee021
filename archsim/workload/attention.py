"""Attention of a mixed batch: prompts (whole or in chunks) and sequences in decode, one launch for each kind.

A key-value pair is read from the cache once per launch, on the device that holds its head: a prompt's blocks of
queries share it on chip (FlashAttention), as do the query heads of a group. A prompt's own keys and values
go through the cache, too. Scores are counted exactly under the causal mask and the layer's window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from archsim.records import Access, AttentionShape, GemmShape, Operator, OperatorKind
from archsim.workload.costs import SOFTMAX_FLOPS
from archsim.workload.layers import LayerBuilder
from archsim.workload.model import MlaShape
from archsim.workload.weights import WeightKind

Chunk = tuple[int, int]
"""(new tokens, tokens cached before them) of one sequence."""


@dataclass(frozen=True, slots=True)
class AttentionWork:
    """What one launch has to do under one window: `scores` query-key pairs per head, over `keys` cached tokens."""

    kind: OperatorKind
    query_tokens: tuple[int, ...]
    context_tokens: tuple[int, ...]
    queries: int
    keys: int
    scores: int


def keys_seen(new: int, before: int, window: int | None) -> int:
    """Cached tokens that at least one of a chunk's queries sees, the new ones included."""
    return new + before if window is None else min(new + before, window + new - 1)


def causal_scores(new: int, before: int, window: int | None) -> int:
    """Query-key pairs of a chunk: query i (from 1) sees before + i keys, at most `window`."""
    if window is None or before + new <= window:
        return new * before + new * (new + 1) // 2
    growing = max(0, window - before)  # queries whose context still fits the window
    return growing * before + growing * (growing + 1) // 2 + (new - growing) * window


def attention_work(chunks: Sequence[Chunk], window: int | None) -> tuple[AttentionWork, ...]:
    """The launches of a batch: prompts first, then sequences with one query each; either may be absent."""
    prompts = [chunk for chunk in chunks if chunk[0] > 1]
    decodes = [chunk for chunk in chunks if chunk[0] == 1] if len(prompts) < len(chunks) else []
    parts = ((OperatorKind.PREFILL_ATTENTION, prompts), (OperatorKind.DECODE_ATTENTION, decodes))
    return tuple(_work(kind, part, window) for kind, part in parts if part)


def _work(kind: OperatorKind, chunks: Sequence[Chunk], window: int | None) -> AttentionWork:
    queries = tuple([new for new, _ in chunks])
    contexts = tuple([keys_seen(new, before, window) for new, before in chunks])
    if kind is OperatorKind.DECODE_ATTENTION:
        scores = sum(contexts)
    else:
        scores = sum([causal_scores(new, before, window) for new, before in chunks])
    return AttentionWork(kind, queries, contexts, sum(queries), sum(contexts), scores)


def attention_operators(
    builder: LayerBuilder, works: dict[int | None, tuple[AttentionWork, ...]]
) -> Iterator[tuple[Operator, ...]]:
    """One tuple of operators per layer; `works` has the work for each window that occurs in the model."""
    mla = builder.model.mla
    templates = {window: tuple(_Template(builder, work) for work in part) for window, part in works.items()}
    mixed = any(len(part) > 1 for part in works.values())
    for layer, window in enumerate(builder.model.windows):
        if mla:
            yield tuple(op for work in works[window] for op in _latent(builder, mla, work, layer, mixed))
        else:
            yield tuple([template.at(layer, mixed) for template in templates[window]])


def _name(layer: int, kind: OperatorKind, mixed: bool) -> str:
    """`layers[3].attention`, or, where a batch has both kinds, each by its own name."""
    return f"layers[{layer}].{kind.value if mixed else 'attention'}"


class _Template:
    """An attention launch whose layers differ in nothing but the name of their cache."""

    def __init__(self, builder: LayerBuilder, work: AttentionWork) -> None:
        model, heads = builder.model, builder.heads
        self.kind = work.kind
        self.flops = 2 * work.scores * heads * (model.head_dim + model.value_dim)
        self.vector_flops = SOFTMAX_FLOPS * work.scores * heads
        self.format = builder.precision.attention_compute_format
        self.shape = AttentionShape(
            heads, builder.kv_heads, model.head_dim, model.value_dim, work.query_tokens, work.context_tokens
        )
        self.query = builder.activation("qkv", work.queries, heads * model.head_dim)
        self.output = (builder.activation("attention_output", work.queries, heads * model.value_dim),)
        self.builder, self.keys = builder, work.keys

    def at(self, layer: int, mixed: bool) -> Operator:
        return Operator(
            _name(layer, self.kind, mixed),
            self.kind,
            layer,
            self.flops,
            self.vector_flops,
            self.format,
            None,
            self.shape,
            (self.query, self.builder.kv(layer, self.keys)),
            self.output,
        )


def _latent(builder: LayerBuilder, mla: MlaShape, work: AttentionWork, layer: int, mixed: bool) -> Iterator[Operator]:
    if work.kind is OperatorKind.DECODE_ATTENTION:
        yield from _absorbed(builder, mla, work, layer, mixed)
    else:
        yield from _expanded(builder, mla, work, layer, mixed)


def _absorbed(builder: LayerBuilder, mla: MlaShape, work: AttentionWork, layer: int, mixed: bool) -> Iterator[Operator]:
    """Queries go into the latent space, so that each latent is read once for all heads; values come out of it."""
    prefix, heads, tokens = f"layers[{layer}].", builder.heads, work.queries
    latent_query = builder.activation("latent_query", tokens, heads * mla.cached_dim)
    latent_output = builder.activation("latent_output", tokens, heads * mla.kv_rank)
    yield _per_head(
        builder,
        prefix + "query_absorb",
        layer,
        GemmShape(tokens, mla.kv_rank, mla.nope_dim, heads),
        (builder.activation("query", tokens, heads * mla.query_dim), builder.weights[prefix + "kv_b_proj.key.weight"]),
        latent_query,
    )
    yield Operator(
        _name(layer, work.kind, mixed),
        work.kind,
        layer,
        matrix_flops=2 * work.scores * heads * (mla.cached_dim + mla.kv_rank),
        vector_flops=SOFTMAX_FLOPS * work.scores * heads,
        compute_format=builder.precision.attention_compute_format,
        attention=AttentionShape(heads, 1, mla.cached_dim, mla.kv_rank, work.query_tokens, work.context_tokens),
        reads=(latent_query, builder.kv(layer, work.keys)),
        writes=(latent_output,),
    )
    yield _per_head(
        builder,
        prefix + "value_expand",
        layer,
        GemmShape(tokens, mla.value_dim, mla.kv_rank, heads),
        (latent_output, builder.weights[prefix + "kv_b_proj.value.weight"]),
        builder.activation("attention_output", tokens, heads * mla.value_dim),
    )


def _expanded(builder: LayerBuilder, mla: MlaShape, work: AttentionWork, layer: int, mixed: bool) -> Iterator[Operator]:
    """Keys and values of all heads are computed from the latents, then attention is as with ordinary heads."""
    prefix, heads = f"layers[{layer}].", builder.heads
    shape = GemmShape(work.keys, heads * (mla.nope_dim + mla.value_dim), mla.kv_rank)
    expanded = builder.activation("expanded_kv", work.keys, heads * (mla.query_dim + mla.value_dim))
    names = (prefix + "kv_b_proj.key.weight", prefix + "kv_b_proj.value.weight")
    reads = (builder.kv(layer, work.keys), *(builder.weights[name] for name in names))
    yield _per_head(builder, prefix + "kv_b_proj", layer, shape, reads, expanded)
    yield Operator(
        _name(layer, work.kind, mixed),
        work.kind,
        layer,
        matrix_flops=2 * work.scores * heads * (mla.query_dim + mla.value_dim),
        vector_flops=SOFTMAX_FLOPS * work.scores * heads,
        compute_format=builder.precision.activation_format.element,
        attention=AttentionShape(heads, heads, mla.query_dim, mla.value_dim, work.query_tokens, work.context_tokens),
        reads=(builder.activation("query", work.queries, heads * mla.query_dim), expanded),
        writes=(builder.activation("attention_output", work.queries, heads * mla.value_dim),),
    )


def _per_head(
    builder: LayerBuilder, name: str, layer: int, shape: GemmShape, reads: tuple[Access, ...], output: Access
) -> Operator:
    return Operator(
        name,
        OperatorKind.GEMM,
        layer,
        matrix_flops=shape.flops,
        compute_format=builder.precision.compute_format(WeightKind.MATRIX),
        gemm=shape,
        reads=reads,
        writes=(output,),
    )

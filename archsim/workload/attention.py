"""Attention of a mixed batch: prompts (whole or in chunks) and sequences in decode, one launch for each kind.

A key-value pair is read from the cache once per launch, on the device that holds its head: a prompt's blocks of
queries share it on chip (FlashAttention), as do the query heads of a group. A prompt's own keys and values
go through the cache, too. Scores are counted exactly under the causal mask and the layer's window.

A prefix that all sequences share is cached once. A kernel that knows no better reads it once for each sequence; cascade
attention (shared_prefix.py) has a launch of its own for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from archsim.records import Access, AttentionShape, GemmShape, Operator, OperatorKind
from archsim.workload.context_parallel import ContextGroup
from archsim.workload.costs import SOFTMAX_FLOPS
from archsim.workload.layers import LayerBuilder
from archsim.workload.model import MlaShape
from archsim.workload.shared_prefix import NO_PREFIX, Cascade, Heads, SharedPrefix
from archsim.workload.weights import WeightKind

Chunk = tuple[int, int]
"""(new tokens, tokens cached before them) of one sequence."""


@dataclass(frozen=True, slots=True)
class AttentionWork:
    """What one launch has to do under one window: `scores` query-key pairs per head, over `keys` cached tokens.

    `shared` are (tokens, times) of a shared prefix among the keys, read so many times. `cascade` is the prefix that
    another launch attends to, NO_PREFIX for none; nothing of it is counted here."""

    kind: OperatorKind
    query_tokens: tuple[int, ...]
    context_tokens: tuple[int, ...]
    queries: int
    keys: int
    scores: int
    shared: tuple[tuple[int, int], ...] = ()
    cascade: SharedPrefix = NO_PREFIX

    @property
    def own_keys(self) -> int:
        """Keys in the sequences' own caches."""
        return self.keys - sum(tokens * times for tokens, times in self.shared)


def keys_seen(new: int, before: int, window: int | None) -> int:
    """Cached tokens that at least one of a chunk's queries sees, the new ones included."""
    return new + before if window is None else min(new + before, window + new - 1)


def causal_scores(new: int, before: int, window: int | None) -> int:
    """Query-key pairs of a chunk: query i (from 1) sees before + i keys, at most `window`."""
    if window is None or before + new <= window:
        return new * before + new * (new + 1) // 2
    growing = max(0, window - before)  # queries whose context still fits the window
    return growing * before + growing * (growing + 1) // 2 + (new - growing) * window


def attention_work(
    chunks: Sequence[Chunk], window: int | None, prefix: SharedPrefix = NO_PREFIX
) -> tuple[AttentionWork, ...]:
    """The launches of a batch: prompts first, then sequences with one query each; either may be absent.

    The first cached tokens of every chunk are those of `prefix`. Under a window there is no cascade, as in vLLM."""
    prompts = [chunk for chunk in chunks if chunk[0] > 1]
    decodes = [chunk for chunk in chunks if chunk[0] == 1] if len(prompts) < len(chunks) else []
    parts = ((OperatorKind.PREFILL_ATTENTION, prompts), (OperatorKind.DECODE_ATTENTION, decodes))
    if prefix.cascade and window is None:
        own = [(kind, [(new, before - prefix.tokens) for new, before in part]) for kind, part in parts]
        return tuple(replace(_work(kind, part, None), cascade=prefix) for kind, part in own if part)
    works = [(_work(kind, part, window), part) for kind, part in parts if part]
    if not prefix.tokens:
        return tuple([work for work, _ in works])
    return tuple(replace(work, shared=_shared_keys(part, window, prefix.tokens)) for work, part in works)


def _work(kind: OperatorKind, chunks: Sequence[Chunk], window: int | None) -> AttentionWork:
    queries = tuple([new for new, _ in chunks])
    contexts = tuple([keys_seen(new, before, window) for new, before in chunks])
    if kind is OperatorKind.DECODE_ATTENTION:
        scores = sum(contexts)
    else:
        scores = sum([causal_scores(new, before, window) for new, before in chunks])
    return AttentionWork(kind, queries, contexts, sum(queries), sum(contexts), scores)


def _shared_keys(chunks: Sequence[Chunk], window: int | None, prefix_tokens: int) -> tuple[tuple[int, int], ...]:
    """(tokens of the prefix that a sequence's queries see, how many sequences see so many)."""
    own = [new + before - prefix_tokens for new, before in chunks]
    seen = [max(0, keys_seen(*chunk, window) - mine) for chunk, mine in zip(chunks, own, strict=True)]
    return tuple((tokens, times) for tokens, times in sorted(Counter(seen).items()) if tokens)


def attention_operators(
    builder: LayerBuilder, works: dict[int | None, tuple[AttentionWork, ...]], devices: int = 1
) -> Iterator[tuple[Operator, ...]]:
    """One tuple of operators per layer; `works` has the work for each window that occurs in the model. It is that of a
    share of the tokens where `devices` deal a cache out."""
    mla = builder.model.mla
    templates = {window: tuple(_Template(builder, work, devices) for work in part) for window, part in works.items()}
    mixed = any(len(part) > 1 for part in works.values())
    for layer, window in enumerate(builder.model.windows):
        if mla:
            yield tuple(op for work in works[window] for op in _latent(builder, mla, work, layer, mixed))
        else:
            yield tuple([op for template in templates[window] for op in template.at(layer, mixed)])


def _name(layer: int, kind: OperatorKind, mixed: bool) -> str:
    """`layers[3].attention`, or, where a batch has both kinds, each by its own name."""
    return f"layers[{layer}].{kind.value if mixed else 'attention'}"


def _cached(builder: LayerBuilder, layer: int, work: AttentionWork) -> tuple[Access, ...]:
    """What a launch reads of the caches: the sequences' own, then the shared one."""
    if not work.shared:
        return (builder.kv(layer, work.keys),)
    shared = (builder.kv_shared(layer, tokens, times) for tokens, times in work.shared)
    return (builder.kv(layer, work.own_keys), *shared)


class _Template:
    """An attention launch whose layers differ in nothing but the name of their cache."""

    def __init__(self, builder: LayerBuilder, work: AttentionWork, devices: int) -> None:
        model, heads = builder.model, builder.heads * devices
        self.kind = work.kind
        self.flops = 2 * work.scores * heads * (model.head_dim + model.value_dim)
        self.vector_flops = SOFTMAX_FLOPS * work.scores * heads
        self.format = builder.precision.attention_compute_format
        self.shape = AttentionShape(
            heads, builder.kv_heads, model.head_dim, model.value_dim, work.query_tokens, work.context_tokens
        )
        sizes = Heads(heads, builder.kv_heads, model.head_dim, model.value_dim)
        self.query = builder.activation("qkv", work.queries, heads * model.head_dim)
        self.output = builder.activation("attention_output", work.queries, builder.heads * model.value_dim)
        self.outputs: tuple[Access, ...] = (self.output,)
        self.group = ContextGroup(builder, devices, work.queries, sizes) if devices > 1 else None
        if self.group is not None:
            self.query, self.outputs = self.group.query, self.group.outputs
        self.cascade = Cascade(builder, work.cascade, work.queries, sizes, self.query, self.outputs)
        self.builder, self.work = builder, work

    def at(self, layer: int, mixed: bool) -> tuple[Operator, ...]:
        own = Operator(
            _name(layer, self.kind, mixed),
            self.kind,
            layer,
            self.flops,
            self.vector_flops,
            self.format,
            None,
            self.shape,
            (self.query, *_cached(self.builder, layer, self.work)),
            self.outputs,
        )
        operators = self.cascade.around(own)
        return operators if self.group is None else self.group.around(operators, self.output)


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
    own = Operator(
        _name(layer, work.kind, mixed),
        work.kind,
        layer,
        matrix_flops=2 * work.scores * heads * (mla.cached_dim + mla.kv_rank),
        vector_flops=SOFTMAX_FLOPS * work.scores * heads,
        compute_format=builder.precision.attention_compute_format,
        attention=AttentionShape(heads, 1, mla.cached_dim, mla.kv_rank, work.query_tokens, work.context_tokens),
        reads=(latent_query, *_cached(builder, layer, work)),
        writes=(latent_output,),
    )
    sizes = Heads(heads, 1, mla.cached_dim, mla.kv_rank)
    yield from Cascade(builder, work.cascade, tokens, sizes, latent_query, (latent_output,)).around(own)
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
    heads = builder.heads
    query = builder.activation("query", work.queries, heads * mla.query_dim)
    output = builder.activation("attention_output", work.queries, heads * mla.value_dim)
    expand, expanded = _expand(builder, mla, layer, work.keys, _cached(builder, layer, work), "kv_b_proj")
    yield expand
    own = Operator(
        _name(layer, work.kind, mixed),
        work.kind,
        layer,
        matrix_flops=2 * work.scores * heads * (mla.query_dim + mla.value_dim),
        vector_flops=SOFTMAX_FLOPS * work.scores * heads,
        compute_format=builder.precision.activation_format.element,
        attention=AttentionShape(heads, heads, mla.query_dim, mla.value_dim, work.query_tokens, work.context_tokens),
        reads=(query, expanded),
        writes=(output,),
    )
    if not work.cascade.tokens:
        yield own
        return
    cached = (builder.kv_shared(layer, work.cascade.tokens, 1),)
    expand, expanded = _expand(builder, mla, layer, work.cascade.tokens, cached, "prefix_kv_b_proj")
    yield expand
    sizes = Heads(heads, heads, mla.query_dim, mla.value_dim)
    yield from Cascade(builder, work.cascade, work.queries, sizes, query, (output,), expanded).around(own)


def _expand(
    builder: LayerBuilder, mla: MlaShape, layer: int, keys: int, cached: tuple[Access, ...], name: str
) -> tuple[Operator, Access]:
    """Keys and values of all heads out of cached latents, and what that writes."""
    prefix, heads = f"layers[{layer}].", builder.heads
    shape = GemmShape(keys, heads * (mla.nope_dim + mla.value_dim), mla.kv_rank)
    target = "expanded_kv" if name == "kv_b_proj" else "expanded_prefix_kv"
    expanded = builder.activation(target, keys, heads * (mla.query_dim + mla.value_dim))
    weights = (builder.weights[prefix + f"kv_b_proj.{part}.weight"] for part in ("key", "value"))
    return _per_head(builder, prefix + name, layer, shape, (*cached, *weights), expanded), expanded


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

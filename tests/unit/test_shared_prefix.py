"""A shared prefix lowered: arithmetic and bytes in closed form, in one launch or per sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.config.errors import UserError
from archsim.records import Operator, OperatorKind, OperatorTrace, TensorClass
from archsim.workload.model import MlaShape, ModelShape
from archsim.workload.operators import lower_decode, lower_iteration, lower_prefill
from archsim.workload.precision import Precision
from archsim.workload.shapes import load_model
from archsim.workload.shared_prefix import NO_PREFIX, SharedPrefix

BF16 = Precision()
TINY = ModelShape("tiny", "llama", 2, 64, 8, 4, 8, 96, 128, windows=(None, None), moe_layers=(False, False))
TINY_MLA = dataclasses.replace(TINY, name="tiny-mla", kv_heads=8, head_dim=12, mla=MlaShape(16, 24, 8, 4, 8))
TINY_WINDOW = dataclasses.replace(TINY, name="tiny-window", windows=(5, None))
MODELS = (TINY, TINY_MLA, TINY_WINDOW)

ATTENTION = (OperatorKind.PREFILL_ATTENTION, OperatorKind.DECODE_ATTENTION, OperatorKind.PREFIX_ATTENTION)
KV = (TensorClass.KV, TensorClass.KV_SHARED)

batches = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 30)), min_size=1, max_size=6)
models = st.sampled_from(MODELS)
tokens = st.integers(1, 40)


def attention(trace: OperatorTrace) -> list[Operator]:
    return [operator for operator in trace.operators if operator.kind in ATTENTION]


def flops(trace: OperatorTrace) -> tuple[int, int]:
    return (
        sum(operator.matrix_flops for operator in attention(trace)),
        sum(operator.vector_flops for operator in attention(trace)),
    )


def read_bytes(trace: OperatorTrace, *classes: TensorClass) -> int:
    return sum(a.bytes for operator in trace.operators for a in operator.reads if a.tensor_class in classes)


def behind(chunks: Sequence[tuple[int, int]], prefix: int) -> list[tuple[int, int]]:
    """The same sequences with a copy of the prefix in each one's own cache."""
    return [(new, prefix + before) for new, before in chunks]


@given(models, batches, tokens)
def test_sharing_changes_no_arithmetic_of_attention(
    model: ModelShape, chunks: list[tuple[int, int]], prefix: int
) -> None:
    own = flops(lower_iteration(model, BF16, 1, behind(chunks, prefix)))
    for cascade in (True, False):
        assert flops(lower_iteration(model, BF16, 1, chunks, SharedPrefix(prefix, cascade))) == own


@given(models, batches, tokens)
def test_per_sequence_reads_what_copies_would(model: ModelShape, chunks: list[tuple[int, int]], prefix: int) -> None:
    shared = lower_iteration(model, BF16, 1, chunks, SharedPrefix(prefix, cascade=False))
    copies = lower_iteration(model, BF16, 1, behind(chunks, prefix))
    assert read_bytes(shared, *KV) == read_bytes(copies, TensorClass.KV)
    assert [operator.name for operator in shared.operators] == [operator.name for operator in copies.operators]
    assert [operator.attention for operator in shared.operators] == [op.attention for op in copies.operators]


@given(st.sampled_from((TINY, TINY_MLA)), batches, tokens, st.sampled_from([1, 2]))
def test_cascade_reads_the_prefix_once_in_a_launch(
    model: ModelShape, chunks: list[tuple[int, int]], prefix: int, tp: int
) -> None:
    trace = lower_iteration(model, BF16, tp, chunks, SharedPrefix(prefix))
    token = model.kv_bytes_per_token_per_layer(BF16, tp)
    launches = len({new > 1 for new, _ in chunks})  # prompts and sequences in decode apart
    assert read_bytes(trace, TensorClass.KV_SHARED) == launches * model.layers * prefix * token
    assert read_bytes(trace, TensorClass.KV) == model.layers * token * sum(new + before for new, before in chunks)
    assert len({operator.name for operator in trace.operators}) == len(trace.operators)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), tokens)
def test_under_a_window_sequences_see_the_end_of_the_prefix(contexts: list[int], prefix: int) -> None:
    trace = lower_decode(TINY_WINDOW, BF16, 1, contexts, SharedPrefix(prefix))
    windowed, whole = [[op for op in trace.operators if op.layer == layer and op.attention] for layer in (0, 1)]
    (own,) = windowed
    token = TINY.kv_bytes_per_token_per_layer(BF16, 1)
    seen = sum(max(0, min(5, prefix + context + 1) - (context + 1)) for context in contexts)
    assert sum(a.bytes for a in own.reads if a.tensor_class is TensorClass.KV_SHARED) == seen * token
    assert [op.kind for op in whole] == [OperatorKind.PREFIX_ATTENTION, OperatorKind.DECODE_ATTENTION]


@settings(deadline=None)
@given(models, batches)
def test_no_prefix_is_as_before(model: ModelShape, chunks: list[tuple[int, int]]) -> None:
    assert lower_iteration(model, BF16, 1, chunks, NO_PREFIX) == lower_iteration(model, BF16, 1, chunks)
    assert not any(a.passes > 1 for op in lower_iteration(model, BF16, 1, chunks).operators for a in op.reads)


def test_the_launches_of_a_cascade_and_what_passes_between_them() -> None:
    model, batch, prefix = load_model("llama-3-70b"), 32, 4096
    trace = lower_decode(model, Precision(kv="fp8", activations="fp8"), 8, [100] * batch, SharedPrefix(prefix))
    wanted = ("attention", "attention_merge")
    shared, own, merge = (op for op in trace.operators if op.layer == 7 and op.name.endswith(wanted))
    assert [op.name.split(".")[1] for op in (shared, own, merge)] == [
        "prefix_attention",
        "attention",
        "attention_merge",
    ]
    assert shared.attention is not None and own.attention is not None
    assert shared.attention.query_tokens == (batch,)
    assert shared.attention.context_tokens == (prefix,)
    assert own.attention.context_tokens == (101,) * batch
    heads = model.query_heads // 8
    partial, lse = 2 * batch * heads * model.head_dim, 4 * batch * heads
    assert [a.bytes for a in shared.writes] == [a.bytes for a in own.writes] == [partial, lse]
    assert [a.bytes for a in merge.reads] == [partial, lse, partial, lse]
    assert [a.tensor for a in merge.writes] == ["attention_output"]
    assert merge.vector_flops == batch * heads * (3 * model.head_dim + 8)


def test_a_prompt_behind_a_prefix_computes_its_own_tokens_alone() -> None:
    trace = lower_prefill(TINY, BF16, 1, [20, 20], SharedPrefix(500))
    assert trace.tokens == 40
    (append, *_) = [op for op in trace.operators if op.kind is OperatorKind.KV_APPEND]
    assert append.write_bytes == 40 * TINY.kv_bytes_per_token_per_layer(BF16, 1)
    prefix, own = attention(trace)[:2]
    per_score = 2 * TINY.query_heads * (TINY.head_dim + TINY.value_dim)
    assert prefix.matrix_flops == per_score * 40 * 500
    assert own.matrix_flops == per_score * 2 * (20 * 21 // 2)


def test_learned_positions_count_the_prefix() -> None:
    model = dataclasses.replace(TINY, position_rows=100)
    lower_decode(model, BF16, 1, [49], SharedPrefix(50))
    with pytest.raises(UserError, match="a sequence of 101 tokens is beyond its 100"):
        lower_decode(model, BF16, 1, [50], SharedPrefix(50))

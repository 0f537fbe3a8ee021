"""A cache that devices deal out by tokens: shares, messages and arithmetic in closed form."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsim.config.errors import UserError
from archsim.records import Operator, OperatorKind, OperatorTrace, TensorClass
from archsim.workload.model import MlaShape, ModelShape
from archsim.workload.operators import lower_decode
from archsim.workload.precision import Precision
from archsim.workload.shared_prefix import NO_PREFIX, SharedPrefix

BF16 = Precision()
TP = 16
TINY = ModelShape("tiny", "llama", 2, 64, 16, 4, 8, 96, 128, windows=(None, None), moe_layers=(False, False))
"""Sixteen devices have four copies of each of its four KV heads."""
TOKEN = TINY.kv_bytes_per_token_per_layer(BF16, TP)

contexts = st.lists(st.integers(0, 30), min_size=1, max_size=6)
devices = st.sampled_from([2, 4])
prefixes = st.builds(SharedPrefix, st.integers(1, 1000), st.booleans()) | st.just(NO_PREFIX)


def of_kinds(trace: OperatorTrace, *kinds: OperatorKind) -> list[Operator]:
    return [operator for operator in trace.operators if operator.kind in kinds]


def cache_bytes(trace: OperatorTrace, tensor_class: TensorClass) -> int:
    return sum(a.bytes for op in trace.operators for a in op.reads if a.tensor_class is tensor_class)


@given(contexts, prefixes, devices)
def test_a_device_reads_its_share_of_the_tokens(contexts: list[int], prefix: SharedPrefix, devices: int) -> None:
    trace = lower_decode(TINY, BF16, TP, contexts, prefix, devices)
    own = sum(-(-(context + 1) // devices) for context in contexts)
    shared = -(-prefix.tokens // devices) * (1 if prefix.cascade else len(contexts))
    assert cache_bytes(trace, TensorClass.KV) == TINY.layers * own * TOKEN
    assert cache_bytes(trace, TensorClass.KV_SHARED) == TINY.layers * shared * TOKEN
    appended = sum(op.write_bytes for op in of_kinds(trace, OperatorKind.KV_APPEND))
    assert appended == TINY.layers * -(-len(contexts) // devices) * TOKEN


@given(st.lists(st.integers(0, 8), min_size=1, max_size=6), st.integers(1, 50), devices)
def test_even_shares_change_no_arithmetic(quarters: list[int], prefix: int, devices: int) -> None:
    """Each device has more queries and fewer keys: together the scores of the whole."""
    contexts = [4 * quarter + 3 for quarter in quarters]
    attention = (OperatorKind.PREFIX_ATTENTION, OperatorKind.DECODE_ATTENTION)
    for cascade in (True, False):
        shared = SharedPrefix(4 * prefix, cascade)
        mine, alone = (
            sum(op.matrix_flops for op in of_kinds(lower_decode(TINY, BF16, TP, contexts, shared, each), *attention))
            for each in (devices, 1)
        )
        assert mine == alone


@given(contexts, prefixes, devices)
def test_what_passes_between_the_devices(contexts: list[int], prefix: SharedPrefix, devices: int) -> None:
    trace = lower_decode(TINY, BF16, TP, contexts, prefix, devices)
    layer = [op for op in trace.operators if op.layer == 0]
    group = [op for op in layer if op.collective_devices]
    heads, queries = devices * TINY.query_heads // TP, len(contexts)
    assert [(op.kind, op.collective_bytes, op.collective_devices) for op in group] == [
        (OperatorKind.ALL_GATHER, queries * heads * TINY.head_dim * 2, devices),
        (OperatorKind.ALL_GATHER, queries * heads * devices * 4, devices),
        (OperatorKind.REDUCE_SCATTER, queries * heads * TINY.head_dim * 2, devices),
    ]
    first, *_, last = (layer.index(op) for op in group)
    between = [op.name.removeprefix("layers[0].") for op in layer[first : last + 1]]
    parts = ["prefix_attention", "attention", "attention_merge"] if prefix.cascade else ["attention"]
    ends = ["lse_all_gather", "attention_scale", "attention_reduce_scatter"]
    assert between == ["query_all_gather", *parts, *ends]
    (output,) = group[-1].writes
    assert (output.tensor, output.bytes) == ("attention_output", queries * heads // devices * TINY.head_dim * 2)
    assert len({op.name for op in trace.operators}) == len(trace.operators)


def test_one_device_is_as_before() -> None:
    assert lower_decode(TINY, BF16, TP, [5, 9], NO_PREFIX, 1) == lower_decode(TINY, BF16, TP, [5, 9])


@pytest.mark.parametrize(
    ("model", "tp", "devices", "told"),
    [
        (TINY, 4, 2, "hold each KV head once"),
        (TINY, 8, 4, "8 devices hold each KV head 2 times.*a divisor of 2"),
        (dataclasses.replace(TINY, windows=(5, None)), 16, 2, "latent attention or windows"),
        (dataclasses.replace(TINY, kv_heads=16, head_dim=12, mla=MlaShape(16, 24, 8, 4, 8)), 16, 2, "latent attention"),
    ],
)
def test_what_devices_cannot_deal_out_is_refused(model: ModelShape, tp: int, devices: int, told: str) -> None:
    with pytest.raises(UserError) as caught:
        lower_decode(model, BF16, tp, [5], NO_PREFIX, devices)
    assert re.search(told, f"{caught.value.message} {caught.value.expected}")

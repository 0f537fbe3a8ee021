"""Where each policy puts operators: the GPU or PIM."""

from __future__ import annotations

import pytest

from archsim.config.errors import UserError
from archsim.memory.pim_offload import OffloadPolicy, OffloadSpec, Unit, intensity, place, require_sizes
from archsim.records import Access, AttentionShape, GemmShape, Operator, OperatorKind, TensorClass


def product(m: int, n: int = 4096, k: int = 4096, count: int = 1) -> Operator:
    weights = Access("w", TensorClass.WEIGHT, 2 * n * k * count)
    shape = GemmShape(m, n, k, count)
    return Operator("product", OperatorKind.GEMM, 0, matrix_flops=shape.flops, gemm=shape, reads=(weights,))


def attention(kind: OperatorKind = OperatorKind.DECODE_ATTENTION) -> Operator:
    cache = Access("kv", TensorClass.KV, 2 * 2 * 2048 * 8 * 128)
    shape = AttentionShape(32, 8, 128, 128, (1,), (2048,))
    return Operator("attention", kind, 0, matrix_flops=4 * 32 * 2048 * 128, attention=shape, reads=(cache,))


NORM = Operator("norm", OperatorKind.NORM, 0, vector_flops=10)


def test_intensity_counts_two_operations_a_multiply_accumulate() -> None:
    assert intensity(product(1)) == 1.0
    assert intensity(product(8)) == 8.0
    assert intensity(attention()) == 4.0
    assert intensity(NORM) == 0.0


@pytest.mark.parametrize(
    ("policy", "operator", "unit"),
    [
        (OffloadPolicy.ATTENTION, attention(), Unit.PIM),
        (OffloadPolicy.ATTENTION, product(1), Unit.GPU),
        (OffloadPolicy.ATTENTION, attention(OperatorKind.PREFILL_ATTENTION), Unit.GPU),
        (OffloadPolicy.ALL_GEMV, product(1), Unit.PIM),
        (OffloadPolicy.ALL_GEMV, product(2), Unit.GPU),
        (OffloadPolicy.ALL_GEMV, attention(), Unit.PIM),
        (OffloadPolicy.INTENSITY, product(8), Unit.PIM),
        (OffloadPolicy.INTENSITY, product(9), Unit.GPU),
        (OffloadPolicy.INTENSITY, NORM, Unit.GPU),
        (OffloadPolicy.EXPERTS, product(8, count=16), Unit.PIM),
        (OffloadPolicy.EXPERTS, product(9, count=16), Unit.GPU),
        (OffloadPolicy.EXPERTS, product(1), Unit.GPU),
        (OffloadPolicy.EXPERTS, attention(), Unit.PIM),
    ],
)
def test_policies(policy: OffloadPolicy, operator: Operator, unit: Unit) -> None:
    assert place(operator, OffloadSpec(policy=policy)) is unit


def test_thresholds_are_settings() -> None:
    assert place(product(9), OffloadSpec(policy=OffloadPolicy.INTENSITY, most_op_per_byte=9.0)) is Unit.PIM
    spec = OffloadSpec(policy=OffloadPolicy.EXPERTS, most_tokens_per_expert=2)
    assert place(product(3, count=4), spec) is Unit.GPU


def test_sizes_for_the_device() -> None:
    assert require_sizes(product(3, 512, 1024, 4)) == (2048, 1024, 3)
    with pytest.raises(UserError, match="norm is no product"):
        require_sizes(NORM)

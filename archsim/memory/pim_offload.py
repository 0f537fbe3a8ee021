"""Which operators go to a PIM device and which stay on the GPU: pure functions of an operator.

The intensity of an operator is its arithmetic per byte that memory has to deliver. A GEMV at two bytes a weight has one
operation a byte and is PIM's; a product with many rows reuses its weights and is the GPU's.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from archsim.config.errors import UserError
from archsim.config.schema import Spec
from archsim.config.units import PositiveFloat, PositiveInt
from archsim.records import Operator, OperatorKind, TensorClass

STORED = (TensorClass.WEIGHT, TensorClass.EMBEDDING)
"""Matrices that lie in memory before anything runs."""


class Unit(StrEnum):
    """Where an operator runs."""

    GPU = "gpu"
    PIM = "pim"


class OffloadPolicy(StrEnum):
    """The rule by which operators are offloaded."""

    ATTENTION = "attention"
    GEMV = "gemv"
    ALL_GEMV = "all_gemv"
    INTENSITY = "intensity"
    EXPERTS = "experts"


class OffloadSpec(Spec):
    """A policy and its thresholds: at most so many operations a byte, at most so many tokens an expert."""

    policy: OffloadPolicy
    most_op_per_byte: PositiveFloat = 8.0
    most_tokens_per_expert: PositiveInt = 8


def intensity(operator: Operator) -> float:
    """Operations (two a multiply-accumulate) per byte read or written; 0 for an operator without bytes."""
    moved = operator.read_bytes + operator.write_bytes
    return (operator.matrix_flops + operator.vector_flops) / moved if moved else 0.0


def is_decode_attention(operator: Operator) -> bool:
    """Attention of new tokens over a KV cache."""
    return operator.kind is OperatorKind.DECODE_ATTENTION


def is_gemv(operator: Operator) -> bool:
    """A product of stored weights, the vocabulary's too, with one row."""
    return operator.gemm is not None and operator.gemm.m == 1 and _reads_weights(operator)


def is_expert(operator: Operator) -> bool:
    """A product with the weights of several experts."""
    return operator.gemm is not None and operator.gemm.count > 1 and _reads_weights(operator)


def place(operator: Operator, spec: OffloadSpec) -> Unit:
    """Where an operator runs. Only what PIM can do is offloaded: products with weights, attention in decode."""
    if not (is_decode_attention(operator) or (operator.gemm is not None and _reads_weights(operator))):
        return Unit.GPU
    return Unit.PIM if _POLICIES[spec.policy](operator, spec) else Unit.GPU


def require_sizes(operator: Operator) -> tuple[int, int, int]:
    """(outputs, inputs, vectors) of a product as `PimDevice.gemv` takes them. Raises UserError without a product."""
    if operator.gemm is None:
        raise UserError(f"{operator.name} is no product of matrices", expected="an operator with `gemm`")
    return operator.gemm.n * operator.gemm.count, operator.gemm.k, operator.gemm.m


def _reads_weights(operator: Operator) -> bool:
    return any(access.tensor_class in STORED for access in operator.reads)


def _by_experts(operator: Operator, spec: OffloadSpec) -> bool:
    """Experts with few tokens, and attention."""
    if is_expert(operator):
        assert operator.gemm is not None
        return operator.gemm.m <= spec.most_tokens_per_expert
    return is_decode_attention(operator)


_POLICIES: dict[OffloadPolicy, Callable[[Operator, OffloadSpec], bool]] = {
    OffloadPolicy.ATTENTION: lambda operator, _: is_decode_attention(operator),
    OffloadPolicy.GEMV: lambda operator, _: is_gemv(operator),
    OffloadPolicy.ALL_GEMV: lambda operator, _: is_gemv(operator) or is_decode_attention(operator),
    OffloadPolicy.INTENSITY: lambda operator, spec: intensity(operator) <= spec.most_op_per_byte,
    OffloadPolicy.EXPERTS: _by_experts,
}

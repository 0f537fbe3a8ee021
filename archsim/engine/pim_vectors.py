"""Which elementwise operators banks do, and what of them is left to the host."""

from __future__ import annotations

from dataclasses import dataclass

from archsim.memory.pim import PimSpec
from archsim.memory.pim_mapping import OperandPlace
from archsim.memory.pim_vectors import PAIR, BankVector, fits_row
from archsim.records import Operator, OperatorKind, TensorClass
from archsim.workload.costs import NORM_FLOPS, RESIDUAL_FLOPS
from archsim.workload.model import NormKind
from archsim.workload.precision import FORMATS


@dataclass(frozen=True)
class VectorWork:
    """An operator as banks do it. The host adds residuals, partial sums of squares, and a rotation's two products."""

    kind: BankVector
    elements: int
    host_flops: int


def vector_work(operator: Operator, spec: PimSpec) -> VectorWork | None:
    """What banks do of an operator; None if all of it is the host's.

    Banks do RMS norms, rotary embeddings and gated activations whose elements are as wide as the units' and fit a row
    of each bank."""
    if spec.mapping.vectors is not OperandPlace.BANKS or not _has_width(operator, spec):
        return None
    work = _work(operator, spec)
    return work if work is not None and fits_row(spec, work.kind, work.elements) else None


def _work(operator: Operator, spec: PimSpec) -> VectorWork | None:
    elements = operator.writes[-1].bytes // spec.units.element_bytes if operator.writes else 0
    if operator.kind is OperatorKind.ROPE:
        return VectorWork(BankVector.ROTARY, elements, elements)
    if operator.kind is OperatorKind.NORM:
        squares = NORM_FLOPS[NormKind.RMS] * elements
        residual = RESIDUAL_FLOPS * elements
        partial_sums = spec.organisation.channels * spec.organisation.banks // PAIR
        if operator.vector_flops == squares:
            return VectorWork(BankVector.NORM, elements, partial_sums)
        if operator.vector_flops == squares + residual:
            return VectorWork(BankVector.NORM, elements, partial_sums + residual)
    if operator.kind is OperatorKind.ACTIVATION and _is_gated(operator):
        return VectorWork(BankVector.GATED, elements, 0)
    return None


def _is_gated(operator: Operator) -> bool:
    """Whether half of what an activation reads is the gate of the other half."""
    return len(operator.reads) == 1 and operator.reads[0].bytes == 2 * operator.writes[0].bytes


def _has_width(operator: Operator, spec: PimSpec) -> bool:
    """Whether activations have the elements that the units multiply, and nothing else is written."""
    fmt = FORMATS.get(operator.compute_format)
    activations = all(access.tensor_class is TensorClass.ACTIVATION for access in operator.writes)
    return activations and fmt is not None and fmt.bits == 8 * spec.units.element_bytes

"""Two halves of a decode batch, one behind the other, as NeuPIMs (ASPLOS 2024) interleaves them.

Each half is cut behind its attentions. The halves' pieces take turns, so that while one half's attention runs in
memory, the device has the other half's products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from archsim.records import Access, Operator, OperatorKind, OperatorTrace, TensorClass

SECOND = " (2)"
"""What operators and activations of the second half are called beside those of the first."""


def halves(tokens: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A batch of at least two sequences in two: every other one, so that both have long and short contexts."""
    return tuple(tokens[::2]), tuple(tokens[1::2])


def interleaved(first: OperatorTrace, second: OperatorTrace) -> OperatorTrace:
    """One trace of two passes over the same layers. Weights are read once for each."""
    mine, theirs = _pieces(first.operators), _pieces([_renamed(operator) for operator in second.operators])
    operators = [operator for pair in zip(mine, theirs, strict=True) for piece in pair for operator in piece]
    return OperatorTrace(
        first.phase,
        tuple(operators),
        first.devices,
        first.tokens + second.tokens,
        first.sequences + second.sequences,
    )


def _pieces(operators: Sequence[Operator]) -> list[list[Operator]]:
    """A trace cut behind each attention."""
    pieces: list[list[Operator]] = [[]]
    for operator in operators:
        pieces[-1].append(operator)
        if operator.kind is OperatorKind.DECODE_ATTENTION:
            pieces.append([])
    return pieces


def _renamed(operator: Operator) -> Operator:
    return replace(
        operator,
        name=operator.name + SECOND,
        reads=tuple(_own(access) for access in operator.reads),
        writes=tuple(_own(access) for access in operator.writes),
    )


def _own(access: Access) -> Access:
    if access.tensor_class is not TensorClass.ACTIVATION:
        return access
    return replace(access, tensor=access.tensor + SECOND)

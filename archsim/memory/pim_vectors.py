"""Elementwise operators in banks (`mapping.vectors: banks`), as CENT's traces have them: operands go to neighbouring
banks over the device's port, are multiplied there, and come back.

A vector's part of every bank fits a row; longer ones (prompts, large batches) are the host's.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from archsim.kernels.pim_program import Lane
from archsim.kernels.pim_rules import PimRules
from archsim.memory.pim import PimSpec
from archsim.memory.pim_bank_layout import OperandLayout
from archsim.memory.pim_banks import BankLane
from archsim.memory.pim_layout import ceil_div
from archsim.memory.pim_programs import PimWork

PAIR = 2
"""Banks whose multipliers take both operands from banks: of a sum of squares."""


class BankVector(StrEnum):
    """What banks do with the elements of a vector."""

    NORM = "norm"
    ROTARY = "rotary"
    GATED = "gated"


def vector_works(spec: PimSpec, rules: PimRules, kind: BankVector, elements: int) -> list[PimWork]:
    """The programs of an elementwise operator, one after the other."""
    return _PROGRAMS[kind](spec, rules, elements)


def fits_row(spec: PimSpec, kind: BankVector, elements: int) -> bool:
    """Whether a vector's part of every bank group lies in one row."""
    elements *= 2 if kind is BankVector.ROTARY else 1
    organisation = spec.organisation
    groups = organisation.channels * organisation.ranks * organisation.bank_groups
    return elements <= groups * organisation.columns * spec.units.multipliers


def _norm(spec: PimSpec, rules: PimRules, elements: int) -> list[PimWork]:
    """The sum of squares; then times 1/rms, then times the weights, which lie in banks.

    The host adds the partial sums up between the two."""
    pairs = OperandLayout.cut(spec, elements, PAIR)
    squares = BankLane(spec, rules, Lane(rules))
    for bank in pairs.OPERANDS:
        squares.move("WRSBK", pairs, bank)
    squares.add_up(pairs)
    read = pairs.sets * pairs.row_bursts[0] * PAIR * spec.organisation.burst_bytes
    padding = read - 2 * elements * spec.units.element_bytes
    groups = _groups(spec, elements)
    scaled = BankLane(spec, rules, Lane(rules))
    for bank in groups.OPERANDS:
        scaled.move("WRSBK", groups, bank)
    scaled.multiply(groups)
    scaled.copy(groups, groups.RESULT, 1)
    scaled.multiply(groups)
    scaled.move("RDSBK", groups, groups.RESULT)
    return [squares.work(pairs, macs=elements, padding_bytes=padding), scaled.work(groups)]


def _rotary(spec: PimSpec, rules: PimRules, elements: int) -> list[PimWork]:
    """Every element times its cosine and its neighbour's sine, which lie in banks; the host adds the two."""
    groups = _groups(spec, 2 * elements)
    lane = BankLane(spec, rules, Lane(rules))
    lane.move("WRSBK", groups, 1)
    lane.multiply(groups)
    lane.move("RDSBK", groups, groups.RESULT)
    return [lane.work(groups)]


def _gated(spec: PimSpec, rules: PimRules, elements: int) -> list[PimWork]:
    """x sigmoid(x) gate: the function of results in every bank, looked up; times x; times the gate."""
    groups = _groups(spec, elements)
    lane = BankLane(spec, rules, Lane(rules))
    lane.look_up(ceil_div(elements, spec.organisation.channels * spec.organisation.banks))
    for bank in groups.OPERANDS:
        lane.move("WRSBK", groups, bank)
    lane.multiply(groups)
    lane.copy(groups, groups.RESULT, 1)
    lane.move("WRSBK", groups, 0)
    lane.multiply(groups)
    lane.move("RDSBK", groups, groups.RESULT)
    return [lane.work(groups)]


def _groups(spec: PimSpec, elements: int) -> OperandLayout:
    return OperandLayout.cut(spec, elements, spec.organisation.banks_per_group)


_PROGRAMS: dict[BankVector, Callable[[PimSpec, PimRules, int], list[PimWork]]] = {
    BankVector.NORM: _norm,
    BankVector.ROTARY: _rotary,
    BankVector.GATED: _gated,
}

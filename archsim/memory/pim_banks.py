"""Programs of mappings (pim_mapping.py): attention over keys that lie by tokens, and products in banks.

Each part of an operator is a program of its own with its own busiest channel; one starts when the one before it is
through and its rows are closed.
"""

from __future__ import annotations

from fractions import Fraction

from archsim.kernels.pim_program import Lane, assemble
from archsim.kernels.pim_rules import PimRules
from archsim.memory.pim import PimSpec
from archsim.memory.pim_bank_layout import OperandLayout, TokenLayout
from archsim.memory.pim_lane import RowLane
from archsim.memory.pim_layout import RowLayout, ceil_div
from archsim.memory.pim_mapping import KeyLayout, OperandPlace, ResultReads
from archsim.memory.pim_programs import PimWork, RowGemv, head_load

ROW_CYCLE = {"WRSBK": "tRCDWR + tCWL + tBL + tWR + tRP", "RDSBK": "tRCDRD + tRTP + tRP"}
"""From a row's activate over its last access to the next activate, the other accesses left out."""


def mapped_attention(
    spec: PimSpec, rules: PimRules, heads: int, queries: int, context: int, head_dim: int
) -> list[PimWork]:
    """Scores, softmax's products where banks do them, and context of `heads` KV heads of `queries` query heads each."""
    works = [_scores(spec, rules, heads, queries, context, head_dim)]
    if spec.mapping.scores is OperandPlace.BANKS:
        products = OperandLayout(spec, heads * queries, context)
        works += [bank_products(spec, rules, products)] * 2  # by 1 / sqrt(head_dim); by the reciprocal of the sum
    return [*works, _context(spec, rules, heads, queries, context, head_dim)]


def _scores(spec: PimSpec, rules: PimRules, heads: int, queries: int, context: int, head_dim: int) -> PimWork:
    macs = heads * queries * context * head_dim
    if spec.mapping.keys is KeyLayout.HEAD_IN_CHANNEL:
        return _head_gemv(spec, rules, heads, queries, RowLayout(spec, context, head_dim, 1), macs)
    layout = TokenLayout(spec, context, heads, head_dim)
    lane = Lane(rules)
    TokenScores(spec, rules, lane).add(layout, queries)
    return PimWork(assemble([lane]), spec.organisation.channels, queries * layout.padding_bytes, macs)


def _context(spec: PimSpec, rules: PimRules, heads: int, queries: int, context: int, head_dim: int) -> PimWork:
    macs = heads * queries * context * head_dim
    return _head_gemv(spec, rules, heads, queries, RowLayout(spec, head_dim, context, 1), macs)


def _head_gemv(spec: PimSpec, rules: PimRules, heads: int, queries: int, layout: RowLayout, macs: int) -> PimWork:
    """The product of every head's matrix, a KV head on one channel; each query reads it anew."""
    channels = spec.organisation.channels
    lane = Lane(rules)
    gemv = RowGemv(spec, rules, lane, each=spec.mapping.results is ResultReads.EACH)
    gemv.repeat(ceil_div(heads, channels) * queries, lambda: gemv.add(layout))
    gemv.close()
    padding = heads * queries * layout.padding_bytes
    return PimWork(assemble([lane]), min(heads, channels), padding, macs, head_load(heads, channels))


class TokenScores(RowLane):
    """Adds the products of queries with keys that lie by tokens to a lane."""

    def add(self, layout: TokenLayout, queries: int) -> None:
        """Row by row of a token, and tokens in turn: the queries of a row's heads, then the row against each head."""
        for heads in layout.heads_of_rows:
            self.repeat(layout.rounds, lambda heads=heads: self._row(heads, layout.bursts, queries))  # type: ignore[misc]
        self.close()

    def _row(self, heads: int, bursts: int, queries: int) -> None:
        self._write_buffer(heads * bursts)
        self._open(queries * heads * bursts)
        self._heads(heads, bursts)
        if queries > 1:
            self.repeat(queries - 1, lambda: self._query(heads, bursts))

    def _query(self, heads: int, bursts: int) -> None:
        self._write_buffer(heads * bursts)
        self._heads(heads, bursts)

    def _heads(self, heads: int, bursts: int) -> None:
        """One score of each head in every bank."""
        held = 1 if self._spec.mapping.results is ResultReads.EACH else self._spec.units.accumulators
        full, rest = divmod(heads, held)
        if full:
            self.repeat(full, lambda: self._outputs(min(held, heads), bursts))
        if rest:
            self._outputs(rest, bursts)

    def _outputs(self, outputs: int, bursts: int) -> None:
        if "WRBIAS" in self._spec.commands:
            self._write_bias(outputs)
        self._multiply(outputs * bursts)
        self._read_results(outputs)


def bank_products(spec: PimSpec, rules: PimRules, layout: OperandLayout) -> PimWork:
    """Both operands to their banks, their products, and these back."""
    lane = Lane(rules)
    banks = BankLane(spec, rules, lane)
    for bank in layout.OPERANDS:
        banks.move("WRSBK", layout, bank)
    banks.multiply(layout)
    banks.move("RDSBK", layout, layout.RESULT)
    banks.close()
    return PimWork(assemble([lane]), layout.channels, 0, 0, operand_load(layout))


def operand_load(layout: OperandLayout) -> Fraction:
    """`PimWork.load` of operands: groups in use by those of as many channels as full as the first."""
    return Fraction(layout.groups, layout.channels * layout.busiest_groups)


class BankLane(RowLane):
    """Adds accesses to single banks, and products in banks, to a lane."""

    def move(self, command: str, layout: OperandLayout, bank: int) -> None:
        """All of an operand or a result, at the rate of the device's port.

        The port issues one access a clock for all channels, burst by burst over the groups. Accesses queue at the
        channel while a row is being opened and catch up after it, so that opening costs the port nothing."""
        self.close()
        self.repeat(
            layout.per_group,
            lambda: self._in_runs(layout.row_bursts, lambda bursts: self._move_row(command, layout, bank, bursts)),
        )

    def _move_row(self, command: str, layout: OperandLayout, bank: int, bursts: int) -> None:
        groups, per_group = layout.busiest_groups, self._spec.organisation.banks_per_group
        self._lane.issue("ACT", groups, bank, per_group, uses=bursts)
        wait = self._wait(command, layout, bursts)
        with self._lane.loop(bursts):
            self._lane.issue(command, groups, bank, per_group)
            self._lane.wait(wait)
        self._lane.issue("PRE", groups, bank, per_group)

    def _wait(self, command: str, layout: OperandLayout, bursts: int) -> int:
        """Clocks after the last group's access until the first group's next: what the port needs for all groups, less
        this burst's part of the row's opening, less the accesses of the other groups."""
        spec = self._spec
        port = spec.mapping.port_clocks or 1
        opening = spec.evaluate(ROW_CYCLE[command]) + (layout.busiest_groups - 1) * spec.clocks("tRRDL")
        step = layout.groups * port - opening // bursts
        return max(step - (layout.busiest_groups - 1) * spec.clocks("tBL"), 0)

    def multiply(self, layout: OperandLayout) -> None:
        """Banks 0 and 1 of every group into bank 2, row by row."""
        self.repeat(layout.per_group, lambda: self._in_runs(layout.row_bursts, self._multiply_row))
        self.close()

    def _multiply_row(self, bursts: int) -> None:
        self._open(bursts)
        self._lane.issue("EWMUL", bursts)

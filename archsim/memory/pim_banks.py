"""Programs of mappings (pim_mapping.py): attention over keys that lie by tokens, and products in banks.

Each part of an operator is a program of its own with its own busiest channel; one starts when the one before it is
through and its rows are closed.
"""

from __future__ import annotations

from collections.abc import Callable

from archsim.config.errors import UserError
from archsim.kernels.pim_program import LONGEST_WAIT, Lane, assemble
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
        products = OperandLayout.of_scores(spec, heads * queries, context)
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
        self._write_bias(outputs)
        self._multiply(outputs * bursts)
        self._read_results(outputs)


def bank_products(spec: PimSpec, rules: PimRules, layout: OperandLayout) -> PimWork:
    """Both operands to their banks, their products, and these back."""
    banks = BankLane(spec, rules, Lane(rules))
    for bank in layout.OPERANDS:
        banks.move("WRSBK", layout, bank)
    banks.multiply(layout)
    banks.move("RDSBK", layout, layout.RESULT)
    return banks.work(layout)


class BankLane(RowLane):
    """Adds accesses to single banks, and products in banks, to a lane."""

    def work(self, layout: OperandLayout, *, macs: int = 0, padding_bytes: int = 0) -> PimWork:
        """All that has been added, as a program that leaves rows closed."""
        self.close()
        return PimWork(assemble([self._lane]), layout.channels, padding_bytes, macs, layout.load)

    def move(self, command: str, layout: OperandLayout, bank: int) -> None:
        """All of an operand or a result, at the rate of the device's port.

        The port issues one access a clock for all channels, burst by burst over the sets. Accesses queue at the
        channel while a row is being opened and catch up after it, so that opening costs the port nothing."""
        self.close()
        self._in_rows(layout, lambda bursts: self._move_row(command, layout, bank, bursts))

    def multiply(self, layout: OperandLayout) -> None:
        """The first two banks of every set into the third, row by row."""
        self._in_rows(layout, self._multiply_row)
        self.close()

    def add_up(self, layout: OperandLayout) -> None:
        """The sum of the products of the first two banks of every set, which has a multiplier of its own."""
        self._write_bias(layout.per_set)
        self._in_rows(layout, self._add_up_row)
        self._read_results(layout.per_set)
        self.close()

    def copy(self, layout: OperandLayout, source: int, target: int) -> None:
        """A vector of every set through the input buffer to another bank, set by set."""
        self._in_rows(layout, lambda bursts: self._copy_row(layout, source, target, bursts))

    def look_up(self, outputs: int) -> None:
        """A function of so many results of every bank, whose table is a row; each is read by itself."""
        self._open(outputs)
        self.repeat(outputs, self._look_up_one)
        self.close()

    def _in_rows(self, layout: OperandLayout, row: Callable[[int], None]) -> None:
        self.repeat(layout.per_set, lambda: self._in_runs(layout.row_bursts, row))

    def _move_row(self, command: str, layout: OperandLayout, bank: int, bursts: int) -> None:
        sets, stride = layout.busiest_sets, layout.set_banks
        self._lane.issue("ACT", sets, bank, stride, uses=bursts)
        with self._lane.loop(bursts):
            self._lane.issue(command, sets, bank, stride)
            self._lane.wait(self._wait(command, layout, bursts))
        self._lane.issue("PRE", sets, bank, stride)

    def _wait(self, command: str, layout: OperandLayout, bursts: int) -> int:
        """Clocks from the last set's access to the first set's next: what the port needs for all sets, less this
        burst's part of the row's opening, less the accesses of the other sets."""
        others = layout.busiest_sets - 1
        opening = self._spec.evaluate(ROW_CYCLE[command]) + others * self._spec.clocks("tRRDL")
        step = layout.sets * (self._spec.mapping.port_clocks or 1) - opening // bursts
        if step > LONGEST_WAIT:
            raise UserError(
                f"{self._spec.name}: its port takes {step} clocks for an access to each of {layout.sets} sets of "
                f"banks, the PIM kernel waits for at most {LONGEST_WAIT}",
                expected="fewer stacks, or a smaller mapping.port_clocks",
            )
        return max(step - others * self._spec.clocks("tBL"), 0)

    def _multiply_row(self, bursts: int) -> None:
        self._open(bursts)
        self._lane.issue("EWMUL", bursts)

    def _add_up_row(self, bursts: int) -> None:
        self._open(bursts)
        self._multiply(bursts)

    def _copy_row(self, layout: OperandLayout, source: int, target: int, bursts: int) -> None:
        for at in range(layout.busiest_sets):
            for command, bank in (("RDCP", source), ("WRCP", target)):
                self._lane.issue("ACT", 1, at * layout.set_banks + bank, uses=bursts)
                self._lane.issue(command, bursts, at * layout.set_banks + bank)
                self._lane.issue("PRE", 1, at * layout.set_banks + bank)

    def _look_up_one(self) -> None:
        self._set_mode(registers=False)
        self._lane.issue("AF")
        self._set_mode(registers=True)
        self._lane.issue("RDAF")

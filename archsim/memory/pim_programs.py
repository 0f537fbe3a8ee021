"""Programs for banks that hold whole rows of a matrix (AiM, PIM-GPT, NeuPIMs): GEMV, and attention as GEMVs.

The order is the device controller's: one lane, in order. The input buffer is filled, then rows are opened, multiplied
and read out; a row is closed when the next one is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from archsim.kernels.pim_program import Lane, PimProgram, assemble
from archsim.kernels.pim_rules import PimRules
from archsim.memory.pim import PimSpec
from archsim.memory.pim_lane import RowLane
from archsim.memory.pim_layout import RowLayout, ceil_div
from archsim.memory.pim_mapping import ProductOrder


@dataclass(frozen=True)
class PimWork:
    """A program for the busiest channel; the others do the same or less."""

    program: PimProgram
    channels: int
    """Channels that do any of it."""
    padding_bytes: int
    """Bytes that all channels read and that are no element."""
    macs: int
    """Multiply-accumulates asked for, of all channels."""
    load: Fraction = Fraction(1)
    """What the mean of these channels does of the busiest one's work."""


def head_load(heads: int, channels: int) -> Fraction:
    """`PimWork.load` of heads that go to channels in turn."""
    used = min(heads, channels)
    return Fraction(heads, used * ceil_div(heads, channels))


def passes_of(spec: PimSpec, vectors: int) -> tuple[int, int]:
    """(times that weights are read, vectors that one reading serves) for so many input vectors."""
    together = min(spec.units.tokens_per_read, vectors)
    return ceil_div(vectors, together), together


class RowGemv(RowLane):
    """Adds the commands of GEMVs on a `RowLayout` to a lane.

    `each`: every output's bias is written and its result read by themselves, whatever the accumulators hold."""

    def __init__(self, spec: PimSpec, rules: PimRules, lane: Lane, *, each: bool = False) -> None:
        super().__init__(spec, rules, lane)
        self._each = each

    def add(self, layout: RowLayout) -> None:
        """All outputs of one matrix, as many together as one filling of the input buffer is to serve."""
        rows_together = max(self._spec.units.outputs_per_input_load // layout.outputs_per_row, 1)
        full, rest = divmod(layout.tiles, layout.outputs_per_row)
        rows = [layout.outputs_per_row] * full + ([rest] if rest else [])
        blocks = [tuple(rows[k : k + rows_together]) for k in range(0, len(rows), rows_together)]
        if self._spec.mapping.products is ProductOrder.INPUT_STATIONARY:
            self._in_runs(layout.chunks, lambda columns: self._filling(columns, blocks))
        else:
            self._in_runs(blocks, lambda block: self._block(layout, block))

    def _filling(self, columns: int, blocks: list[tuple[int, ...]]) -> None:
        """All outputs by what fills the input buffer; the host adds up the results of one filling after the other."""
        self._write_buffer(columns)
        self._in_runs(blocks, lambda rows: self._partial(columns, rows))

    def _partial(self, columns: int, rows: tuple[int, ...]) -> None:
        """As many outputs as accumulators, from the sums before to the sums after."""
        held = self._holds(rows)
        if held:
            self._write_bias(sum(rows))
        self._rows(columns, rows, held)
        if held:
            self._read_results(sum(rows))

    def _holds(self, rows: tuple[int, ...]) -> bool:
        """Whether the accumulators hold the results of so many rows of each bank."""
        return sum(rows) <= self._spec.units.accumulators and not self._each

    def _block(self, layout: RowLayout, rows: tuple[int, ...]) -> None:
        """Rows of each bank that share fillings of the input buffer. If the accumulators hold their results, these
        are read once all inputs are through; else after each part of the inputs, and the host adds up."""
        held = self._holds(rows)
        if held:
            self._write_bias(sum(rows))
        self._in_runs(layout.chunks, lambda columns: self._chunk(columns, rows, held))
        if held:
            self._read_results(sum(rows))

    def _chunk(self, columns: int, rows: tuple[int, ...], held: bool) -> None:
        """Fill the input buffer and multiply it with a row of each bank per entry of `rows`."""
        self._write_buffer(columns)
        self._rows(columns, rows, held)

    def _rows(self, columns: int, rows: tuple[int, ...], held: bool) -> None:
        for tiles in rows:
            self._open(tiles * columns)
            if held:
                self._multiply(tiles * columns)
            else:
                self.repeat(tiles, lambda: self._output(columns))

    def _output(self, columns: int) -> None:
        """One output of each bank, read out at once."""
        if self._each:
            self._write_bias(1)
        self._multiply(columns)
        self._read_results(1)


def row_gemv(spec: PimSpec, rules: PimRules, outputs: int, inputs: int, vectors: int, reads: int = 0) -> PimWork:
    """(outputs x inputs) by `vectors`, the outputs shared out to all channels. Beside it, where the preset has the
    commands, `reads` normal accesses of a row of one bank after the other, in a lane of their own."""
    layout = RowLayout(spec, outputs, inputs, spec.organisation.channels)
    lane = Lane(rules)
    gemv = RowGemv(spec, rules, lane)
    gemv.repeat(vectors, lambda: gemv.add(layout))
    lanes = [lane]
    if reads:
        gemv.close()
        lanes.append(_normal_reads(spec, rules, reads))
    macs = vectors * outputs * inputs
    return PimWork(assemble(lanes), spec.organisation.channels, vectors * layout.padding_bytes, macs)


def _normal_reads(spec: PimSpec, rules: PimRules, rows: int) -> Lane:
    """Rows read in full, one bank after the other, bank groups first; the next row opens before the last is read."""
    lane = Lane(rules)
    columns, banks, groups = spec.organisation.columns, spec.organisation.banks, rules.banks.groups
    order = [k % groups * spec.organisation.banks_per_group + k // groups for k in range(banks)]
    for row in range(rows + 1):
        if row < rows:
            lane.issue("ACT", 1, order[row % banks], uses=columns)
        if row:
            lane.issue("RD", columns, order[(row - 1) % banks])
            lane.issue("PRE", 1, order[(row - 1) % banks])
    return lane


def host_gemv(spec: PimSpec, rules: PimRules, outputs: int, inputs: int) -> PimWork:
    """What memory does for (outputs x inputs) by a vector without PIM, as PIMSimulator's benchmark has it: weights and
    input are read, partial results written, the input read again, the result written; each once the last is done."""
    organisation = spec.organisation
    channels = organisation.channels * organisation.pseudo_channels
    host = _Host(spec, rules)
    for name, elements in (("RD", outputs * inputs + inputs), ("WR", outputs), ("RD", inputs), ("WR", outputs)):
        bursts = ceil_div(elements * spec.units.element_bytes, organisation.burst_bytes)
        host.access(name, ceil_div(bursts, channels))
    return PimWork(assemble(host.lanes), channels, 0, outputs * inputs)


class _Host:
    """Normal accesses: a row of a bank of every bank group at a time, bursts going around the groups."""

    def __init__(self, spec: PimSpec, rules: PimRules) -> None:
        self.lanes = [Lane(rules), Lane(rules), Lane(rules)]
        self._rules = rules
        self._organisation = spec.organisation
        self._first = 0

    def access(self, name: str, bursts: int) -> None:
        """So many bursts, and then nothing until they are complete."""
        opens, closes, accesses = self.lanes
        groups, per_group = self._rules.banks.groups, self._organisation.banks_per_group
        for begin in range(0, bursts, self._organisation.columns * groups):
            take = min(bursts - begin, self._organisation.columns * groups)
            for group in range(min(take, groups)):
                bank = group * per_group + self._first
                opens.issue("ACT", 1, bank, uses=ceil_div(take - group, groups))
                closes.issue("PRE", 1, bank)
            accesses.issue(name, take, self._first, per_group)
            self._first = (self._first + 1) % per_group
        for lane in self.lanes:
            lane.fence(0b111, self._rules.commands[self._rules.index(name)].latency_ticks)


def row_attention(spec: PimSpec, rules: PimRules, heads: int, queries: int, context: int, head_dim: int) -> PimWork:
    """Scores and context of `heads` KV heads of `queries` query heads each, a KV head on one channel. The host does
    softmax, and each query reads its KV head anew."""
    channels = spec.organisation.channels
    keys = RowLayout(spec, context, head_dim, 1)
    values = RowLayout(spec, head_dim, context, 1)
    lane = Lane(rules)
    gemv = RowGemv(spec, rules, lane)

    def head() -> None:
        gemv.add(keys)
        gemv.add(values)

    gemv.repeat(ceil_div(heads, channels) * queries, head)
    padding = heads * queries * (keys.padding_bytes + values.padding_bytes)
    macs = 2 * heads * queries * context * head_dim
    return PimWork(assemble([lane]), min(heads, channels), padding, macs, head_load(heads, channels))

"""Attention on AttAcc and on logic-die PIM: scores, softmax on the buffer die, context; two heads in a pipeline.

Four lanes: rows open as soon as their banks allow and close as soon as they are used up; MACs; and moves (input to the
units' buffers, results to the softmax unit and back), which overlap the MACs. A fence after every sixteen keys holds
MACs and moves together. While one head's scores are multiplied the other's query is written; while one does softmax
the other multiplies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from archsim.config.errors import UserError
from archsim.kernels.pim_program import Lane, assemble
from archsim.kernels.pim_rules import PimRules, Targets
from archsim.memory.pim import HeadProgramVersion, PimPlacement, PimSpec
from archsim.memory.pim_layout import HeadLayout, ceil_div
from archsim.memory.pim_programs import PimWork, head_load, passes_of

MACS_AND_MOVES = 0b1100
KEYS_PER_GROUP = 16
"""Keys whose scores fill one burst: one result of each part per key, sixteen to a move."""

Moves = list[tuple[str, int]]
"""(command, how many), in order."""


@dataclass(frozen=True)
class HeadWork:
    """What one head asks for, by fence group."""

    query: int
    """Moves that write the query."""
    score_macs: tuple[int, ...]
    score_moves: int
    """Moves of one group's scores to the softmax unit."""
    softmax: int
    weights: int
    """Moves of all attention weights back to the units."""
    context_macs: tuple[int, ...]
    context_moves: int


def head_work(layout: HeadLayout, tokens: int) -> HeadWork:
    """The commands of one KV head that `tokens` queries share."""
    organisation, lanes = layout.spec.organisation, layout.spec.units.multipliers
    near_banks = layout.spec.placement is not PimPlacement.BUFFER_DIE
    groups = organisation.ranks * organisation.bank_groups if near_banks else 1
    full, rest = divmod(layout.keys, KEYS_PER_GROUP)
    keys = [KEYS_PER_GROUP] * full + ([rest] if rest else [])
    return HeadWork(
        query=tokens * layout.splits * layout.bursts,
        score_macs=tuple(count * layout.bursts for count in keys),
        score_moves=tokens * groups,
        softmax=tokens,
        weights=tokens * groups * ceil_div(layout.keys, lanes),
        context_macs=(layout.keys,) * layout.bursts,
        context_moves=tokens * layout.splits * (organisation.ranks if near_banks else 1),
    )


class HeadProgram:
    """Lanes that open rows, close them, multiply, and move."""

    def __init__(self, spec: PimSpec, rules: PimRules) -> None:
        suffix = spec.mac_command.removeprefix("MAC")
        self._open, self._mac, self._close = f"ACT{suffix}", f"MAC{suffix}", f"PRE{suffix}"
        targets = rules.commands[rules.index(self._mac)].targets
        self._banks = rules.banks.instances(targets)
        self._one_bank = targets is Targets.BANK
        self._columns = spec.organisation.columns
        self._spread = 0 if spec.placement is PimPlacement.BUFFER_DIE else 1
        self._group = spec.organisation.banks_per_group
        self.opens, self.closes, self.macs, self.moves = Lane(rules), Lane(rules), Lane(rules), Lane(rules)

    @property
    def lanes(self) -> list[Lane]:
        """In order of priority."""
        return [self.opens, self.closes, self.macs, self.moves]

    def pairs(self, work: HeadWork, pairs: int) -> None:
        """`pairs` times two heads, one behind the other."""
        if pairs:
            with ExitStack() as loops:
                for lane in self.lanes:
                    loops.enter_context(lane.loop(pairs))
                self._pair(work)

    def _pair(self, work: HeadWork) -> None:
        scores, context = len(work.score_macs), len(work.context_macs)
        queries = _shares(work.query, scores)
        early = _late_shares(work.weights, scores)
        late = _late_shares(work.weights, context)
        self._start(work)
        self._groups(work.score_macs, "MVSB", work.score_moves, [[("WRGB", n)] for n in queries])
        softmax: Moves = [("MVSB", work.score_moves), ("SFM", work.softmax)]
        extra = [[("MVGB", n)] for n in early]
        self._groups(work.score_macs, "MVSB", work.score_moves, [softmax + extra[0], *extra[1:]])
        extra = [[("MVGB", n)] for n in late]
        self._groups(work.context_macs, "MVSB", work.context_moves, [softmax + extra[0], *extra[1:]])
        before: Moves = [("MVSB", work.context_moves)]
        self._groups(work.context_macs, "MVSB", work.context_moves, [before])
        self._move([("MVSB", work.context_moves)])

    def single(self, work: HeadWork) -> None:
        """One head alone: nothing overlaps its softmax."""
        self._start(work)
        self._groups(work.score_macs, "MVSB", work.score_moves, [])
        self._move([("MVSB", work.score_moves), ("SFM", work.softmax), ("MVGB", work.weights)])
        self._fence()
        self._groups(work.context_macs, "MVSB", work.context_moves, [])
        self._move([("MVSB", work.context_moves)])
        self._fence()

    def first_single(self, work: HeadWork) -> None:
        """One head alone as the first release of the reference has it: softmax and the moves of the weights again after
        every group. The table of 130 heads was published with it."""
        self._start(work)
        self._open_and_close(sum(work.score_macs))
        again: Moves = [("SFM", work.softmax), ("MVGB", work.weights)]
        first = 0
        for number, count in enumerate(work.score_macs):
            first = self._multiply(first, count)
            self._move([("MVSB", work.score_moves)] if number else [])
            self._fence()
            self._move(again)
        self._move([("MVSB", work.score_moves), *again])
        self._fence()
        self._groups(work.context_macs, "MVSB", work.context_moves, [])
        self._move([("MVSB", work.context_moves)])
        self._fence()

    def product(self, inputs: int, macs: tuple[int, ...], results: int) -> None:
        """A matrix by a vector: inputs written, groups multiplied, their results moved to the buffer die."""
        self._move([("WRGB", inputs)])
        self._fence()
        self._groups(macs, "MVSB", results, [])
        self._move([("MVSB", results)])
        self._fence()

    def _start(self, work: HeadWork) -> None:
        self._move([("WRGB", work.query)])
        self._fence()

    def _groups(self, macs: tuple[int, ...], move: str, moves: int, beside: list[Moves]) -> None:
        """Groups of MACs; beside each the results of the group before and other moves; a fence after each."""
        self._open_and_close(sum(macs))
        first = 0
        for number, count in enumerate(macs):
            first = self._multiply(first, count)
            others = beside[number] if number < len(beside) else []
            self._move(([(move, moves)] if number else []) + others)
            self._fence()

    def _multiply(self, first: int, count: int) -> int:
        """MACs number `first` and on of a matrix, on the banks that hold them; the number after the last."""
        if self._banks == 1:
            self.macs.issue(self._mac, count)
        elif self._one_bank:
            for k in range(count):
                self.macs.issue(self._mac, 1, self._bank_of(first + k))
        else:
            at = first
            while at < first + count:
                run = min(self._columns - at % self._columns, first + count - at)
                self.macs.issue(self._mac, run, at // self._columns % self._banks)
                at += run
        return first + count

    def _bank_of(self, mac: int) -> int:
        """Units on the buffer die go around bank groups first, then around the banks in them."""
        groups = self._banks // self._group
        return mac % groups * self._group + mac // groups % self._group

    def _open_and_close(self, macs: int) -> None:
        """Rows for so many MACs: opened as early as their banks allow, closed as soon as they are used up."""
        for bank, uses in self._rows_of(macs):
            self.opens.issue(self._open, 1, bank, uses=uses)
            self.closes.issue(self._close, 1, bank)

    def _rows_of(self, macs: int) -> Iterator[tuple[int, int]]:
        """(bank, uses) of each row of a matrix of so many MACs, in the order in which they are needed first."""
        per_round = self._columns * (self._banks if self._one_bank else 1)
        for number in range(ceil_div(macs, per_round)):
            left = min(macs - number * per_round, per_round)
            if not self._one_bank:
                yield number % self._banks, left
                continue
            for k in range(min(self._banks, left)):
                yield self._bank_of(k), ceil_div(left - k, self._banks)

    def _move(self, moves: Moves) -> None:
        for name, count in moves:
            self.moves.issue(name, count, 0, self._spread if name in ("MVSB", "MVGB") else 0)

    def _fence(self) -> None:
        self.macs.fence(MACS_AND_MOVES)
        self.moves.fence(MACS_AND_MOVES)


def head_attention(spec: PimSpec, rules: PimRules, heads: int, queries: int, context: int, head_dim: int) -> PimWork:
    """`heads` KV heads of `queries` query heads each, a KV head on one channel."""
    layout = HeadLayout(spec, context, head_dim)
    passes, tokens = passes_of(spec, queries)
    work = head_work(layout, tokens)
    program = HeadProgram(spec, rules)
    per_channel = ceil_div(heads, spec.organisation.channels) * passes
    program.pairs(work, per_channel // 2)
    if per_channel % 2:
        (program.first_single if spec.program is HeadProgramVersion.FIRST else program.single)(work)
    padding = heads * passes * layout.padding_bytes
    macs = 2 * heads * queries * context * head_dim
    channels = spec.organisation.channels
    return PimWork(assemble(program.lanes), min(heads, channels), padding, macs, head_load(heads, channels))


def head_gemv(
    spec: PimSpec, rules: PimRules, outputs: int, inputs: int, vectors: int, input_splits: int = 1
) -> PimWork:
    """(outputs x inputs) by `vectors`: outputs over channels and parts, inputs over the banks of a part and, if they
    don't fit the units' input buffers together, one filling after the other.

    With `input_splits`, so many channels share the inputs and each has its part of them for all their outputs: fewer
    inputs are written to each, and more partial results read, which the host adds up. Raises UserError if the channels
    don't divide."""
    channels = spec.organisation.channels
    if channels % input_splits:
        raise UserError(
            f"{channels} channels can't share inputs by {input_splits}", expected="a divisor of the channels"
        )
    passes, tokens = passes_of(spec, vectors)
    lanes = HeadLayout(spec, 1, spec.units.multipliers * spec.organisation.banks_per_group).splits
    granule = lanes * spec.units.multipliers
    filling = spec.units.input_buffer // spec.organisation.burst_bytes * granule
    padded = ceil_div(ceil_div(inputs, input_splits), granule) * granule
    program = HeadProgram(spec, rules)
    per_channel = ceil_div(outputs * input_splits, channels)
    read = 0
    for _ in range(passes):
        for begin in range(0, padded, filling):
            layout = HeadLayout(spec, per_channel, min(filling, padded - begin))
            work = head_work(layout, tokens)
            program.product(work.query, work.score_macs, work.score_moves)
            read += layout.keys * layout.parts * layout.head_dim * channels
    padding = (read - passes * outputs * inputs) * spec.units.element_bytes
    return PimWork(assemble(program.lanes), channels, padding, vectors * outputs * inputs)


def _shares(total: int, groups: int) -> list[int]:
    """`total` over `groups`, as evenly as it goes, earlier groups first."""
    return [total * (k + 1) // groups - total * k // groups for k in range(groups)]


def _late_shares(total: int, groups: int) -> list[int]:
    """`total` over the second half of `groups`: the first half is left to softmax."""
    idle = groups // 2
    return [0] * idle + _shares(total, groups - idle)

"""Programs for banks that hold whole rows of a matrix (AiM, PIM-GPT, NeuPIMs): GEMV, and attention as GEMVs.

The order is the device controller's: one lane, in order. The input buffer is filled, then rows are opened, multiplied
and read out; a row is closed when the next one is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from archsim.kernels.pim_program import Lane, PimProgram, assemble
from archsim.kernels.pim_rules import PimRules
from archsim.memory.pim import PimSpec
from archsim.memory.pim_layout import RowLayout, ceil_div


@dataclass(frozen=True)
class PimWork:
    """A program for the busiest channel; the others do the same or less."""

    program: PimProgram
    channels: int
    """Channels that run it."""
    padding_bytes: int
    """Bytes that all channels read and that are no element."""
    macs: int
    """Multiply-accumulates asked for, of all channels."""


class RowGemv:
    """Adds the commands of GEMVs on a `RowLayout` to a lane, and knows what the last one left behind."""

    def __init__(self, spec: PimSpec, rules: PimRules, lane: Lane) -> None:
        self._lane = lane
        self._spec = spec
        self._has_modes = "TMOD" in spec.commands
        self._activates = rules.banks.instances(rules.commands[rules.index("ACTAB")].targets)
        self._row_open = False
        self._register_mode = False

    def add(self, layout: RowLayout) -> None:
        """All outputs of one matrix, as many together as one filling of the input buffer is to serve."""
        rows_together = max(self._spec.units.outputs_per_input_load // layout.outputs_per_row, 1)
        full, rest = divmod(layout.tiles, layout.outputs_per_row)
        rows = [layout.outputs_per_row] * full + ([rest] if rest else [])
        blocks = [tuple(rows[k : k + rows_together]) for k in range(0, len(rows), rows_together)]
        self._in_runs(blocks, lambda block: self._block(layout, block))

    def repeat(self, times: int, part: Callable[[], None]) -> None:
        """`part` so many times: once as things are, then, as it has left them, in a loop."""
        part()
        if times > 1:
            before = (self._row_open, self._register_mode)
            with self._lane.loop(times - 1):
                part()
            assert before == (self._row_open, self._register_mode)

    def finish(self) -> None:
        """Close the last row and leave the register mode."""
        self._set_mode(registers=False)
        self._close()

    def _in_runs(self, keys: list, add: Callable) -> None:  # type: ignore[type-arg]
        """`add` of each key, equal neighbours as a loop."""
        at = 0
        while at < len(keys):
            same = 1
            while at + same < len(keys) and keys[at + same] == keys[at]:
                same += 1
            self.repeat(same, lambda key=keys[at]: add(key))  # type: ignore[misc]
            at += same

    def _block(self, layout: RowLayout, rows: tuple[int, ...]) -> None:
        """Rows of each bank that share fillings of the input buffer. If the accumulators hold their results, these
        are read once all inputs are through; else after each part of the inputs, and the host adds up."""
        held = sum(rows) <= self._spec.units.accumulators
        if held and "WRBIAS" in self._spec.commands:
            self._set_mode(registers=True)
            self._lane.issue("WRBIAS", sum(rows))
        self._in_runs(layout.chunks, lambda columns: self._chunk(columns, rows, held))
        if held:
            self._read_results(sum(rows))

    def _chunk(self, columns: int, rows: tuple[int, ...], held: bool) -> None:
        """Fill the input buffer and multiply it with a row of each bank per entry of `rows`."""
        self._set_mode(registers=True)
        self._lane.issue("WRGB", columns)
        for tiles in rows:
            self._set_mode(registers=False)
            self._close()
            self._lane.issue("ACTAB", self._activates, 0, 1, uses=tiles * columns)
            self._row_open = True
            if held:
                self._lane.issue("MACAB", tiles * columns)
            else:
                self.repeat(tiles, lambda: self._output(columns))

    def _output(self, columns: int) -> None:
        """One output of each bank, read out at once."""
        self._set_mode(registers=False)
        self._lane.issue("MACAB", columns)
        self._read_results(1)

    def _read_results(self, outputs: int) -> None:
        organisation = self._spec.organisation
        bursts = ceil_div(organisation.banks * self._spec.units.element_bytes, organisation.burst_bytes)
        self._set_mode(registers=True)
        self._lane.issue("RDRES", outputs * bursts)

    def _set_mode(self, registers: bool) -> None:
        """Devices with TMOD reach buffer and registers in one mode and banks in another."""
        if self._has_modes and registers != self._register_mode:
            self._lane.issue("TMOD")
        self._register_mode = registers and self._has_modes

    def _close(self) -> None:
        if self._row_open:
            self._lane.issue("PREAB")
            self._row_open = False


def row_gemv(spec: PimSpec, rules: PimRules, outputs: int, inputs: int, passes: int) -> PimWork:
    """(outputs x inputs) by a vector, `passes` times, the outputs shared out to all channels."""
    layout = RowLayout(spec, outputs, inputs, spec.organisation.channels)
    lane = Lane(rules)
    gemv = RowGemv(spec, rules, lane)
    gemv.repeat(passes, lambda: gemv.add(layout))

    macs = passes * outputs * inputs
    return PimWork(assemble([lane]), spec.organisation.channels, passes * layout.padding_bytes, macs)


def row_attention(spec: PimSpec, rules: PimRules, heads: int, passes: int, context: int, head_dim: int) -> PimWork:
    """Scores and context of `heads` KV heads, each read `passes` times, a head on one channel. The host does softmax."""
    channels = spec.organisation.channels
    keys = RowLayout(spec, context, head_dim, 1)
    values = RowLayout(spec, head_dim, context, 1)
    lane = Lane(rules)
    gemv = RowGemv(spec, rules, lane)

    def head() -> None:
        gemv.add(keys)
        gemv.add(values)

    gemv.repeat(ceil_div(heads, channels) * passes, head)

    padding = heads * passes * (keys.padding_bytes + values.padding_bytes)
    return PimWork(assemble([lane]), min(heads, channels), padding, 2 * heads * passes * context * head_dim)

"""HBM-PIM: GEMV with eight registers of inputs and eight of results per unit, a unit for every two banks.

Even banks first, then odd ones, as the host's kernel goes. Everything is issued as ordinary reads and writes, in order.
Registers and modes are reached by writing to reserved rows, the registers' in the odd banks: so that row and the data
rows of the odd banks take turns. Rows are opened as soon as the ones before them are closed, and closed once nothing
uses them any more, as the reference's controller does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from archsim.kernels.pim_program import Lane, PimProgram, assemble
from archsim.kernels.pim_rules import PimRules
from archsim.memory.pim import PimSpec
from archsim.memory.pim_layout import RegisterLayout
from archsim.memory.pim_programs import PimWork

EVEN, ODD = 0, 1
PROGRAM_WRITES = 1
"""Bursts of the micro-program: eight instructions of 4 B each."""


def register_gemv(spec: PimSpec, rules: PimRules, outputs: int, inputs: int, passes: int) -> PimWork:
    """(outputs x inputs) by a vector, `passes` times. What the host writes is PIMSimulator b464dde's `executeGemv`."""
    layout = RegisterLayout(spec, outputs, inputs)
    host = _Host(spec, rules)
    host.read_all_banks()
    host.enter_all_bank_mode()
    host.use(ODD, "WRCRF", PROGRAM_WRITES)
    host.use(EVEN, "SETM", 1)  # on
    tiles = passes * layout.output_tiles
    if tiles > 1:
        with host.loop(tiles - 1):
            host.compute(layout)
            host.use(EVEN, "SETM", 2)  # off and on again, in one row
    host.compute(layout)
    host.use(EVEN, "SETM", 1)  # off
    host.use(EVEN, "SETM", 1)  # both: back to single banks
    host.use(ODD, "SETM", 1)
    host.read_bank(0)
    host.read_bank(1)
    channels = spec.organisation.channels
    return PimWork(host.program(), channels, passes * layout.padding_bytes, passes * outputs * inputs)


class _Host:
    """What the host issues: reads and writes in one lane; the rows of even and of odd banks in lanes of their own."""

    def __init__(self, spec: PimSpec, rules: PimRules) -> None:
        self._banks = spec.organisation
        self._columns = spec.organisation.columns
        self._uses, *self._rows = (Lane(rules) for _ in range(3))

    def program(self) -> PimProgram:
        return assemble([self._uses, *self._rows])

    @contextmanager
    def loop(self, rounds: int) -> Iterator[None]:
        with ExitStack() as loops:
            for lane in (self._uses, *self._rows):
                loops.enter_context(lane.loop(rounds))
            yield

    def use(self, slot: int, name: str, count: int) -> None:
        """Open a row in the even or odd bank of every unit, for `count` commands."""
        self._rows[slot].issue("ACTU", 1, slot, uses=count)
        self._uses.issue(name, count, slot)
        self._rows[slot].issue("PREU", 1, slot)

    def compute(self, layout: RegisterLayout) -> None:
        """One output tile: for every input tile eight registers and its multiply-accumulates; then the results."""
        for slot in (EVEN, ODD):
            turns = (layout.input_tiles - slot + 1) // 2
            if turns:
                with self.loop(turns):
                    self.use(ODD, "WRGRF", layout.REGISTERS)
                    for begin in range(0, layout.tile_bursts, self._columns):
                        self.use(slot, "MACU", min(self._columns, layout.tile_bursts - begin))
        self.use(ODD, "WRBANK", layout.REGISTERS)

    def read_all_banks(self) -> None:
        """A read of the reserved row of every bank, the bank groups in turn: all banks end in a known state."""
        firsts = range(self._banks.banks_per_group)
        halves = (firsts[: len(firsts) // 2], firsts[len(firsts) // 2 :])
        for name in ("ACT", "PRE"):
            for lane, half in zip(self._rows, halves, strict=True):
                for first in half:
                    self._in_every_group(lane, name, first)
        for first in firsts:
            self._in_every_group(self._uses, "RD", first)

    def _in_every_group(self, lane: Lane, name: str, first: int) -> None:
        uses = 1 if name == "ACT" else 0
        lane.issue(name, self._banks.bank_groups, first, self._banks.banks_per_group, uses)

    def enter_all_bank_mode(self) -> None:
        """Writes to four banks that are still single: an even and an odd one, in the first bank group and half-way."""
        for slot in (EVEN, ODD):
            self._access("WR", slot, slot, count=2)

    def read_bank(self, bank: int) -> None:
        """A read of the reserved row of one bank."""
        self._access("RD", bank % 2, bank, count=1)

    def _access(self, name: str, slot: int, first: int, count: int) -> None:
        half_way = self._banks.banks // 2
        self._rows[slot].issue("ACT", count, first, half_way, uses=1)
        self._uses.issue(name, count, first, half_way)
        self._rows[slot].issue("PRE", count, first, half_way)

"""HBM-PIM: GEMV with eight registers of inputs and eight of results per unit, a unit for every two banks.

Even banks first, then odd ones, as the host's kernel goes. Everything is issued as ordinary reads and writes, in order,
with a fence after every eight; registers are reached by writing to a reserved row of the odd banks, so that row and the
data rows of the odd banks take turns.
"""

from __future__ import annotations

from archsim.kernels.pim_program import Lane, assemble
from archsim.kernels.pim_rules import PimRules
from archsim.memory.pim import PimSpec
from archsim.memory.pim_layout import RegisterLayout, ceil_div
from archsim.memory.pim_programs import PimWork

EVEN, ODD = 0, 1
FENCE_ALONE = 0b1
MODE_WRITES = {"enter": 4, "leave": 2, "start": 1, "stop": 1}
"""Writes to the mode rows: single-bank to all-bank and back, all-bank to PIM and back (PIMSimulator b464dde)."""
PROGRAM_WRITES = 1
"""Bursts of the micro-program: eight instructions of 4 B each."""


def register_gemv(spec: PimSpec, rules: PimRules, outputs: int, inputs: int, passes: int) -> PimWork:
    """(outputs x inputs) by a vector, `passes` times."""
    layout = RegisterLayout(spec, outputs, inputs)
    lane = Lane(rules)
    _park(lane, spec)
    _switch(lane, "enter")
    _write(lane, "WRCRF", PROGRAM_WRITES)
    tiles = layout.input_tiles
    per_row = spec.organisation.columns
    with lane.loop(passes), lane.loop(layout.output_tiles):
        _switch(lane, "start")
        for slot in (EVEN, ODD):
            turns = (tiles - slot + 1) // 2
            if turns:
                with lane.loop(turns):
                    _write(lane, "WRGRF", layout.REGISTERS)
                    _read_tile(lane, slot, layout.tile_bursts, per_row)
        lane.issue("ACTU", 1, ODD, uses=layout.REGISTERS)
        lane.issue("WRBANK", layout.REGISTERS, ODD)
        lane.fence(FENCE_ALONE)
        lane.issue("PREU", 1, ODD)
        _switch(lane, "stop")
    _switch(lane, "leave")
    _park(lane, spec, banks=2)
    channels = spec.organisation.channels
    return PimWork(assemble([lane]), channels, passes * layout.padding_bytes, passes * outputs * inputs)


def _park(lane: Lane, spec: PimSpec, banks: int = 0) -> None:
    """A read of the reserved row of every bank (or of `banks`): all banks end in a known state."""
    count = banks or spec.organisation.banks
    stride = spec.organisation.banks_per_group
    # Bank groups in turn, as the host's loop goes.
    for first in range(ceil_div(count, spec.organisation.bank_groups)):
        groups = min(count, spec.organisation.bank_groups)
        lane.issue("ACT", groups, first, stride, uses=1)
        lane.issue("RD", groups, first, stride)
        lane.issue("PRE", groups, first, stride)
    lane.fence(FENCE_ALONE)


def _switch(lane: Lane, mode: str) -> None:
    _write(lane, "SETM", MODE_WRITES[mode])


def _write(lane: Lane, name: str, bursts: int) -> None:
    """Write to registers through the reserved row of the odd banks, then fence."""
    lane.issue("ACTU", 1, ODD, uses=bursts)
    lane.issue(name, bursts, ODD)
    lane.fence(FENCE_ALONE)
    lane.issue("PREU", 1, ODD)


def _read_tile(lane: Lane, slot: int, bursts: int, per_row: int) -> None:
    """The MACs of one tile: reads of one of each unit's banks, a fence after every eight."""
    for begin in range(0, bursts, per_row):
        in_row = min(per_row, bursts - begin)
        lane.issue("ACTU", 1, slot, uses=in_row)
        with lane.loop(in_row // RegisterLayout.REGISTERS):
            lane.issue("MACU", RegisterLayout.REGISTERS, slot)
            lane.fence(FENCE_ALONE)
        lane.issue("PREU", 1, slot)

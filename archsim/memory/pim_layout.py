"""Where the elements of a matrix or of a KV cache lie in the banks of a PIM device: a mapping that can be looked at.

Padding is what a layout reads that is no element: every unit runs in lockstep, so a tensor is rounded up to whole
granules of outputs and whole bursts of inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from archsim.config.errors import UserError
from archsim.memory.pim import PimSpec


class Place(NamedTuple):
    """One element: channel, pseudo-channel, bank in it, row, burst of the row, element of the burst."""

    channel: int
    pseudo_channel: int
    bank: int
    row: int
    column: int
    lane: int


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


@dataclass(frozen=True)
class RowLayout:
    """Outputs over banks, inputs along a bank's rows (AiM, PIM-GPT, NeuPIMs): a bank holds whole rows of the matrix.

    `channels` of the device share the outputs. A matrix with short rows keeps `outputs_per_row` of them in one row.
    """

    spec: PimSpec
    outputs: int
    inputs: int
    channels: int

    def __post_init__(self) -> None:
        check_sizes(outputs=self.outputs, inputs=self.inputs)
        if self.rows > self.spec.organisation.rows:
            raise UserError(
                f"a matrix of {self.outputs} x {self.inputs} takes {self.rows} rows of each bank, a bank has "
                f"{self.spec.organisation.rows}",
                expected="a smaller matrix, or more channels",
            )

    @property
    def granule(self) -> int:
        """Outputs that all units make at once."""
        return self.channels * self.spec.organisation.banks * self.spec.organisation.pseudo_channels

    @property
    def tiles(self) -> int:
        """Rounds over all units."""
        return ceil_div(self.outputs, self.granule)

    @property
    def columns(self) -> int:
        """Bursts of one output's inputs."""
        return ceil_div(self.inputs, self.spec.units.multipliers)

    @property
    def chunk_columns(self) -> int:
        """Bursts that one filling of the input buffer and one row can serve."""
        buffer = self.spec.units.input_buffer // self.spec.organisation.burst_bytes
        return min(buffer, self.spec.organisation.columns)

    @property
    def chunks(self) -> list[int]:
        """Bursts of each part of the inputs: full rows, then what is left."""
        full, rest = divmod(self.columns, self.chunk_columns)
        return [self.chunk_columns] * full + ([rest] if rest else [])

    @property
    def outputs_per_row(self) -> int:
        """Outputs of one bank that share a row."""
        return max(self.spec.organisation.columns // self.columns, 1)

    @property
    def rows(self) -> int:
        """Rows that each bank needs."""
        return ceil_div(self.tiles, self.outputs_per_row) * len(self.chunks)

    @property
    def padding_bytes(self) -> int:
        """Bytes that are read and are no element of the matrix."""
        units = self.spec.units
        padded = self.tiles * self.granule * self.columns * units.multipliers
        return (padded - self.outputs * self.inputs) * units.element_bytes

    def place(self, output: int, element: int) -> Place:
        """Where the weight of an output and an input lies."""
        organisation, units = self.spec.organisation, self.spec.units
        tile, at = divmod(output, self.granule)
        per_channel = organisation.banks * organisation.pseudo_channels
        channel, unit = divmod(at, per_channel)
        pseudo_channel, bank = divmod(unit, organisation.banks)
        burst, lane = divmod(element, units.multipliers)
        chunk, column = divmod(burst, self.chunk_columns)
        group, part = divmod(tile, self.outputs_per_row)
        row = group * len(self.chunks) + chunk
        return Place(channel, pseudo_channel, bank, row, part * self.columns + column, lane)


@dataclass(frozen=True)
class RegisterLayout:
    """HBM-PIM: a unit has two banks and eight registers of results; tiles of 8 outputs x 8 bursts of inputs go to the
    unit's banks in turn. The sixteen lanes of a result are added up by the host."""

    spec: PimSpec
    outputs: int
    inputs: int

    REGISTERS = 8

    def __post_init__(self) -> None:
        check_sizes(outputs=self.outputs, inputs=self.inputs)
        if self.spec.units.banks_per_unit != 2 or self.spec.organisation.columns % self.REGISTERS:
            raise UserError(
                f"{self.spec.name}: units of {self.spec.units.banks_per_unit} banks with rows of "
                f"{self.spec.organisation.columns} bursts",
                expected=f"two banks a unit, and rows of a multiple of {self.REGISTERS} bursts",
            )
        if self.rows > self.spec.organisation.rows // 2:
            raise UserError(
                f"a matrix of {self.outputs} x {self.inputs} takes {self.rows} rows of each bank, a bank has "
                f"{self.spec.organisation.rows // 2} for data",
                expected="a smaller matrix",
            )

    @property
    def units(self) -> int:
        """Units of the device."""
        organisation = self.spec.organisation
        per_channel = organisation.banks // self.spec.units.banks_per_unit
        return organisation.channels * organisation.pseudo_channels * per_channel

    @property
    def granule(self) -> int:
        """Outputs that all units make at once."""
        return self.units * self.REGISTERS

    @property
    def output_tiles(self) -> int:
        return ceil_div(self.outputs, self.granule)

    @property
    def input_tiles(self) -> int:
        """Tiles of 8 bursts of inputs."""
        return ceil_div(self.inputs, self.REGISTERS * self.spec.units.multipliers)

    @property
    def tile_bursts(self) -> int:
        """Bursts of one tile in one bank."""
        return self.REGISTERS * self.REGISTERS

    @property
    def rows(self) -> int:
        """Rows that each bank needs."""
        turns = ceil_div(self.input_tiles, self.spec.units.banks_per_unit)
        return ceil_div(self.output_tiles * turns * self.tile_bursts, self.spec.organisation.columns)

    @property
    def padding_bytes(self) -> int:
        """Bytes that are read and are no element of the matrix."""
        units = self.spec.units
        padded = self.output_tiles * self.granule * self.input_tiles * self.REGISTERS * units.multipliers
        return (padded - self.outputs * self.inputs) * units.element_bytes

    def place(self, output: int, element: int) -> Place:
        """Where the weight of an output and an input lies."""
        organisation, units = self.spec.organisation, self.spec.units
        tile, at = divmod(output, self.granule)
        unit, register = divmod(at, self.REGISTERS)
        per_channel = organisation.banks // units.banks_per_unit * organisation.pseudo_channels
        channel, in_channel = divmod(unit, per_channel)
        pseudo_channel, block = divmod(in_channel, organisation.banks // units.banks_per_unit)
        input_tile, inside = divmod(element, self.REGISTERS * units.multipliers)
        burst, lane = divmod(inside, units.multipliers)
        turn, slot = divmod(input_tile, units.banks_per_unit)
        turns = ceil_div(self.input_tiles, units.banks_per_unit)
        address = (tile * turns + turn) * self.tile_bursts + burst * self.REGISTERS + register
        row, column = divmod(address, organisation.columns)
        return Place(channel, pseudo_channel, block * units.banks_per_unit + slot, row, column, lane)


@dataclass(frozen=True)
class HeadLayout:
    """AttAcc: one head per channel. `parts` units split the long dimension, `splits` banks the head's.

    Scores: key k of the context goes to part k mod parts, its elements over the banks of a bank group. Context: the
    same parts hold the values of their keys, sixteen elements of the head in a burst.
    """

    spec: PimSpec
    context: int
    head_dim: int

    def __post_init__(self) -> None:
        check_sizes(context=self.context, head_dim=self.head_dim)
        lanes = self.spec.units.multipliers * self.splits
        if self.head_dim % lanes:
            raise UserError(
                f"a head of {self.head_dim} elements does not divide into granules of {lanes} "
                f"({self.splits} banks of {self.spec.units.multipliers} elements)",
                expected=f"a multiple of {lanes}",
            )
        if self.rows > self.spec.organisation.rows // 2:
            raise UserError(
                f"keys of {self.context} tokens take {self.rows} rows of each bank, half a bank has "
                f"{self.spec.organisation.rows // 2}",
                expected="a shorter context",
            )

    @property
    def splits(self) -> int:
        """Units that split a head's elements: the banks of a group if each has a unit."""
        return self.spec.organisation.banks_per_group if self.spec.placement == "bank" else 1

    @property
    def parts(self) -> int:
        """Units that split the context: every bank group, or every pseudo-channel for units on the buffer die."""
        organisation = self.spec.organisation
        groups = organisation.ranks * organisation.bank_groups if self.spec.placement != "buffer_die" else 1
        return organisation.pseudo_channels * groups

    @property
    def keys(self) -> int:
        """Keys of one part, rounded up."""
        return ceil_div(self.context, self.parts)

    @property
    def bursts(self) -> int:
        """Bursts of one key in one unit."""
        return self.head_dim // self.splits // self.spec.units.multipliers

    @property
    def macs(self) -> int:
        """MAC commands of the scores of one head, and again of its context."""
        return self.keys * self.bursts

    @property
    def rows(self) -> int:
        """Rows of each bank that the keys of one head take."""
        return ceil_div(self.macs * self.parts * self.splits, self.spec.organisation.columns * self._banks)

    @property
    def _banks(self) -> int:
        return self.spec.organisation.banks * self.spec.organisation.pseudo_channels

    @property
    def padding_bytes(self) -> int:
        """Bytes of keys and values of one head that are read and are none."""
        return 2 * (self.keys * self.parts - self.context) * self.head_dim * self.spec.units.element_bytes

    def place_key(self, key: int, element: int) -> tuple[int, int, int, int]:
        """(part, split, MAC command, lane) of an element of a key."""
        lanes = self.spec.units.multipliers
        index, part = divmod(key, self.parts)
        split, rest = divmod(element, self.head_dim // self.splits)
        burst, lane = divmod(rest, lanes)
        return part, split, index * self.bursts + burst, lane

    def place_value(self, key: int, element: int) -> tuple[int, int, int, int]:
        """(part, split, MAC command, lane) of an element of a value."""
        lanes = self.spec.units.multipliers
        index, part = divmod(key, self.parts)
        split, rest = divmod(element, self.head_dim // self.splits)
        burst, lane = divmod(rest, lanes)
        return part, split, burst * self.keys + index, lane


def check_sizes(**sizes: int) -> None:
    """Raises UserError for a size that is not above zero."""
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"{name.replace('_', ' ')} = {size}", expected="a whole number above zero")

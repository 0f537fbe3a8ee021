"""Where keys, scores and vectors lie in banks, in the mappings of pim_mapping.py that put them there."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from archsim.config.errors import UserError
from archsim.memory.pim import PimSpec
from archsim.memory.pim_layout import Place, ceil_div, check_sizes


@dataclass(frozen=True)
class TokenLayout:
    """Keys by tokens: the tokens of a context go to the banks of all channels in turn, each with all its KV heads."""

    spec: PimSpec
    context: int
    kv_heads: int
    head_dim: int

    def __post_init__(self) -> None:
        check_sizes(context=self.context, kv_heads=self.kv_heads, head_dim=self.head_dim)
        if self.head_dim % self.spec.units.multipliers or self.bursts > self.chunk_columns:
            row_elements = self.chunk_columns * self.spec.units.multipliers
            raise UserError(
                f"{self.spec.name}: heads of {self.head_dim} elements can't share the rows of a token",
                expected=f"a multiple of {self.spec.units.multipliers}, at most {row_elements}",
            )
        if self.rows > self.spec.organisation.rows:
            raise UserError(
                f"keys of {self.context} tokens of {self.kv_heads} KV heads take {self.rows} rows of each bank, a bank "
                f"has {self.spec.organisation.rows}",
                expected="a shorter context, or more channels",
            )

    @property
    def granule(self) -> int:
        """Tokens that lie in all banks at the same place."""
        organisation = self.spec.organisation
        return organisation.channels * organisation.banks * organisation.pseudo_channels

    @property
    def rounds(self) -> int:
        """Tokens of each bank, rounded up."""
        return ceil_div(self.context, self.granule)

    @property
    def bursts(self) -> int:
        """Bursts of one key of one head."""
        return self.head_dim // self.spec.units.multipliers

    @property
    def chunk_columns(self) -> int:
        """Bursts that one filling of the input buffer and one row can serve."""
        organisation = self.spec.organisation
        return min(self.spec.units.input_buffer // organisation.burst_bytes, organisation.columns)

    @property
    def heads_of_rows(self) -> list[int]:
        """Heads in each row of a token."""
        full, rest = divmod(self.kv_heads, self.chunk_columns // self.bursts)
        return [self.chunk_columns // self.bursts] * full + ([rest] if rest else [])

    @property
    def rows(self) -> int:
        """Rows that each bank needs."""
        return self.rounds * len(self.heads_of_rows)

    @property
    def padding_bytes(self) -> int:
        """Bytes that one query of every head reads and that are no key."""
        tokens = self.rounds * self.granule - self.context
        return tokens * self.kv_heads * self.head_dim * self.spec.units.element_bytes

    def place(self, token: int, head: int, element: int) -> Place:
        """Where an element of a key lies."""
        organisation = self.spec.organisation
        turn, at = divmod(token, self.granule)
        channel, unit = divmod(at, organisation.banks * organisation.pseudo_channels)
        pseudo_channel, bank = divmod(unit, organisation.banks)
        row, place_in_row = divmod(head, self.chunk_columns // self.bursts)
        burst, lane = divmod(element, self.spec.units.multipliers)
        row += turn * len(self.heads_of_rows)
        return Place(channel, pseudo_channel, bank, row, place_in_row * self.bursts + burst, lane)


@dataclass(frozen=True)
class OperandLayout:
    """Vectors that are multiplied element by element. `set_banks` neighbours share them: one operand of a vector lies
    in the first bank of a set, the other at the same place of the second, products go to the third. Vectors fill the
    sets of a channel, then the next channel.

    Scores are a vector for each query head, a set a bank group. A hidden vector is cut into one for each set."""

    spec: PimSpec
    vectors: int
    elements: int
    set_banks: int

    OPERANDS = (0, 1)
    RESULT = 2

    def __post_init__(self) -> None:
        check_sizes(vectors=self.vectors, elements=self.elements)
        if self.spec.organisation.banks_per_group % self.set_banks or self.set_banks < len(self.OPERANDS):
            raise UserError(
                f"{self.spec.name}: a bank group of {self.spec.organisation.banks_per_group} banks can't be cut into "
                f"sets of {self.set_banks} for operands",
                expected="bank groups of whole sets, of two banks or more",
            )
        if self.rows > self.spec.organisation.rows:
            raise UserError(
                f"{self.vectors} vectors of {self.elements} elements take {self.rows} rows of a bank, a bank has "
                f"{self.spec.organisation.rows}",
                expected="shorter vectors, or more channels",
            )

    @classmethod
    def of_scores(cls, spec: PimSpec, heads: int, context: int) -> OperandLayout:
        """A query head's scores in each bank group."""
        return cls(spec, heads, context, spec.organisation.banks_per_group)

    @classmethod
    def cut(cls, spec: PimSpec, elements: int, set_banks: int) -> OperandLayout:
        """One vector over as many sets as it has parts of whole bursts."""
        organisation = spec.organisation
        sets = organisation.channels * organisation.banks // set_banks
        part = ceil_div(ceil_div(elements, sets), spec.units.multipliers) * spec.units.multipliers
        return cls(spec, ceil_div(elements, part), part, set_banks)

    @property
    def channel_sets(self) -> int:
        """Sets of a channel."""
        return self.spec.organisation.banks // self.set_banks

    @property
    def per_set(self) -> int:
        """Vectors of a set."""
        return ceil_div(self.vectors, self.spec.organisation.channels * self.channel_sets)

    @property
    def sets(self) -> int:
        """Sets in use, of all channels."""
        return ceil_div(self.vectors, self.per_set)

    @property
    def busiest_sets(self) -> int:
        """Sets in use on the first channel."""
        return min(self.sets, self.channel_sets)

    @property
    def channels(self) -> int:
        """Channels in use."""
        return ceil_div(self.sets, self.channel_sets)

    @property
    def load(self) -> Fraction:
        """What the mean of these channels does of the first one's work."""
        return Fraction(self.sets, self.channels * self.busiest_sets)

    @property
    def row_bursts(self) -> list[int]:
        """Bursts in each row of one vector."""
        columns = self.spec.organisation.columns
        full, rest = divmod(ceil_div(self.elements, self.spec.units.multipliers), columns)
        return [columns] * full + ([rest] if rest else [])

    @property
    def rows(self) -> int:
        """Rows of each bank."""
        return self.per_set * len(self.row_bursts)

    def place(self, vector: int, element: int, bank: int = 0) -> Place:
        """Where an element lies: of an operand (bank 0, 1), of the product (bank 2)."""
        at, turn = divmod(vector, self.per_set)
        channel, in_channel = divmod(at, self.channel_sets)
        burst, lane = divmod(element, self.spec.units.multipliers)
        row, column = divmod(burst, self.spec.organisation.columns)
        row += turn * len(self.row_bursts)
        return Place(channel, 0, in_channel * self.set_banks + bank, row, column, lane)

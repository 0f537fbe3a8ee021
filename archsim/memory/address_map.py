"""How the bits of a local burst address name bank group, bank, stack ID, column and row.

The map is a line of fields from the least significant on: "bank_group column bank stack_id row". A field may be cut
in pieces with their number of bits: "column:2 bank_group bank stack_id column:3 row". The row comes last, whole, so
that one row of every bank (a row set) fills before the next begins. Sizes need not be powers of two: whole fields work
in mixed radix.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from archsim.config.errors import UserError, nearest_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIELDS = ("bank_group", "column", "bank", "stack_id", "row")
_EXPECTED = "fields from the least significant on, such as 'bank_group column bank stack_id row'"


class Piece(NamedTuple):
    """A field, or `bits` bits of it (its lower bits come first); None: all of it."""

    field: str
    bits: int | None


def parse_address_map(text: str, sizes: Mapping[str, int] | None = None) -> list[Piece]:
    """The pieces of an address map, least significant first.

    With `sizes` (of bank_group, column, bank, stack_id) also checks that they are covered. Raises UserError.
    """
    pieces = [_parse_piece(token, text) for token in text.split()]
    for field in FIELDS:
        mine = [piece for piece in pieces if piece.field == field]
        if not mine:
            raise UserError(f"the address map '{text}' lacks the field {field}", expected=_EXPECTED)
        if len(mine) > 1 and any(piece.bits is None for piece in mine):
            raise UserError(f"the pieces of {field} in the address map '{text}' need bits", expected=f"{field}:2")
        if sizes is not None and field != "row" and mine[0].bits is not None:
            covered = 1 << sum(piece.bits or 0 for piece in mine)
            if covered != sizes[field]:
                raise UserError(
                    f"the address map '{text}' gives {field} {covered} values, but there are {sizes[field]}",
                    expected=f"{math.log2(sizes[field]):g} bits of {field}",
                )
    if pieces[-1] != Piece("row", None) or sum(piece.field == "row" for piece in pieces) > 1:
        raise UserError(f"the address map '{text}' does not end with one whole row field", expected=_EXPECTED)
    return pieces


def row_set_tables(text: str, sizes: Mapping[str, int]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """(bank, column) of every burst of a row set; banks are numbered (stack_id * banks + bank) * bank_groups + group.

    Raises UserError if the map does not fit the sizes.
    """
    import numpy as np

    pieces = parse_address_map(text, sizes)[:-1]
    rest = np.arange(sizes["bank_group"] * sizes["column"] * sizes["bank"] * sizes["stack_id"])
    value = {field: np.zeros_like(rest) for field in FIELDS}
    weight = dict.fromkeys(FIELDS, 1)
    for field, bits in pieces:
        radix = sizes[field] if bits is None else 1 << bits
        value[field] += rest % radix * weight[field]
        weight[field] *= radix
        rest = rest // radix
    bank = (value["stack_id"] * sizes["bank"] + value["bank"]) * sizes["bank_group"] + value["bank_group"]
    return bank.astype(np.int16), value["column"].astype(np.int16)


def _parse_piece(token: str, text: str) -> Piece:
    field, colon, bits = token.partition(":")
    if field not in FIELDS:
        raise UserError(
            f"the address map '{text}' names an unknown field '{field}'",
            expected="one of " + ", ".join(FIELDS),
            nearest=nearest_name(field, FIELDS),
        )
    if not colon:
        return Piece(field, None)
    if not bits.isdecimal() or int(bits) == 0:
        raise UserError(f"'{token}' in the address map has no number of bits", expected=f"{field}:2")
    return Piece(field, int(bits))

"""How byte addresses of a trace spread over channels and pseudo-channels.

A mapper is an address map (address_map.py) that may also name `pseudo_channel` and `channel`, each whole, from the
least significant field on. Left out, they come first: neighbouring bursts lie in neighbouring pseudo-channels, then in
neighbouring channels. What is left of an address is the pseudo-channel's local burst address.

Behind the row, fields may be hashed with bits of the column (most significant first): `pseudo_channel^=column[0]`,
`bank_group^=column[3:2]`. A hashed field stands whole in the map, and the number of its values is a power of two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from archsim.config.errors import UserError, nearest_name
from archsim.memory.address_map import parse_address_map
from archsim.memory.standard import DramStandard

MAPPERS = {
    # Ramulator's name: row, bank, rank, column, channel from the most significant field on.
    "RoBaRaCoCh": "channel column pseudo_channel stack_id bank_group bank row",
    # Ramulator's too: four bursts of a row at a time, fields hashed with the column.
    "MOP4CLXOR": (
        "column:2 channel pseudo_channel stack_id bank_group bank column:3 row "
        "pseudo_channel^=column[0] stack_id^=column[1] bank_group^=column[3:2] bank^=column[4]"
    ),
}
"""Mappers that have a name."""

_SPREAD = ("pseudo_channel", "channel")

Ints = NDArray[np.int64]


_HASH = re.compile(r"(\w+)\^=column\[(\d+)(?::(\d+))?\]")


class _Digit(NamedTuple):
    field: str
    radix: int
    weight: int  # of the digit within its field


class _Hash(NamedTuple):
    """`field` is combined by exclusive or with (column >> shift) & mask."""

    field: str
    shift: int
    mask: int


class Placed(NamedTuple):
    """Where requests go: number of the pseudo-channel (channel x pseudo-channels + own), and local burst address."""

    unit: Ints
    local: Ints


class Interleave:
    """The mapper of a memory of `channels` channels. `local_map` is its part inside a pseudo-channel.

    Raises UserError if the mapper isn't one, or doesn't fit the standard."""

    def __init__(self, standard: DramStandard, channels: int, mapper: str) -> None:
        text = MAPPERS.get(mapper, mapper)
        hashes = [token for token in text.split() if "^" in token]
        tokens = [token for token in text.split() if "^" not in token]
        if len(tokens) <= 1:
            raise UserError(
                f"there is no mapper '{mapper}'",
                expected=f"{', '.join(MAPPERS)}, or fields such as 'pseudo_channel channel bank_group column bank row'",
                nearest=nearest_name(mapper, MAPPERS),
            )
        for name in _SPREAD:
            if tokens.count(name) > 1:
                raise UserError(f"the mapper '{text}' names {name} twice")
        tokens = [name for name in _SPREAD if name not in tokens] + tokens
        if tokens[-1] != "row":
            raise UserError(f"the mapper '{text}' does not end with row", expected="the row as the last field")
        self.text = " ".join([*tokens, *hashes])
        self.local_map = " ".join(token for token in tokens if token not in _SPREAD)
        organisation = standard.organisation
        self.burst_bytes = organisation.burst_bytes
        self.pseudo_channels = organisation.pseudo_channels
        self.channels = channels
        self.capacity_bytes = standard.channel_bytes * channels
        sizes = {
            "pseudo_channel": self.pseudo_channels,
            "channel": channels,
            "bank_group": organisation.bank_groups,
            "column": organisation.columns,
            "bank": organisation.banks_per_group,
            "stack_id": organisation.stack_ids,
        }
        self._digits = self._digits_of(tokens, sizes)
        self._hashes = [self._hash_of(token, sizes) for token in hashes]

    def place(self, address: Ints) -> Placed:
        """Pseudo-channel and local burst address of byte addresses. Raises UserError for one beyond the capacity."""
        if len(address) and int(address.max()) >= self.capacity_bytes:
            beyond = int(address[np.argmax(address >= self.capacity_bytes)])
            raise UserError(
                f"address {beyond:#x} lies beyond the memory's {self.capacity_bytes:#x} bytes",
                expected="more channels, or a trace that fits",
            )
        rest = address // self.burst_bytes
        digits = []
        for digit in self._digits:
            rest, value = np.divmod(rest, digit.radix)
            digits.append(value)
        self._apply_hashes(digits)
        local = np.zeros_like(rest)
        spread = {name: np.zeros_like(rest) for name in _SPREAD}
        weight = 1
        for digit, value in zip(self._digits, digits, strict=True):
            if digit.field in _SPREAD:
                spread[digit.field] = value
            else:
                local += value * weight
                weight *= digit.radix
        local += rest * weight
        return Placed(spread["channel"] * self.pseudo_channels + spread["pseudo_channel"], local)

    def _apply_hashes(self, digits: list[Ints]) -> None:
        """Hash the digits in place."""
        if not self._hashes:
            return
        column = np.zeros_like(digits[0])
        for digit, value in zip(self._digits, digits, strict=True):
            if digit.field == "column":
                column += value * digit.weight
        for one in self._hashes:
            for position, digit in enumerate(self._digits):
                if digit.field == one.field:
                    digits[position] = digits[position] ^ ((column >> one.shift) & one.mask)

    def _digits_of(self, tokens: list[str], sizes: Mapping[str, int]) -> list[_Digit]:
        """Digits of a burst address from the least significant on, all but the row."""
        pieces = iter(parse_address_map(self.local_map, sizes))
        weights = dict.fromkeys(sizes, 1)
        digits: list[_Digit] = []
        for token in tokens[:-1]:
            field, bits = (token, None) if token in _SPREAD else next(pieces)
            radix = sizes[field] if bits is None else 1 << bits
            digits.append(_Digit(field, radix, weights[field]))
            weights[field] *= radix
        return digits

    def _hash_of(self, token: str, sizes: Mapping[str, int]) -> _Hash:
        match = _HASH.fullmatch(token)
        if match is None:
            raise UserError(f"'{token}' in the mapper is no hash", expected="such as bank_group^=column[3:2]")
        field, high, low = match[1], int(match[2]), int(match[3] or match[2])
        whole = [digit for digit in self._digits if digit.field == field and digit.radix == sizes.get(field)]
        if field == "column" or not whole:
            raise UserError(f"'{token}' hashes no whole field of the mapper", expected="a field but column and row")
        values = 1 << max(high - low + 1, 0)
        fits = sizes[field] & (sizes[field] - 1) == 0 and values <= sizes[field] and 1 << (high + 1) <= sizes["column"]
        if high < low or not fits:
            raise UserError(
                f"'{token}' does not fit",
                expected=f"bits of {sizes['column']} columns, for a field of a power of two, at least {values} values",
            )
        return _Hash(field, low, values - 1)

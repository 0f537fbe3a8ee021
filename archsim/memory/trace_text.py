"""The compiled scanner of text traces: lines of fields in, columns of numbers out.

Fields are separated by blanks, tabs or commas; blank lines and lines that begin with '#' are skipped. Which field is
what comes from the caller, so one scanner reads every text format of traces.py.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from archsim.kernels.jit import kernel

LARGEST = 1 << 62
"""Addresses and times stay below this, so that they fit an int64 with a flag."""


class LineFault(IntEnum):
    """What is wrong with a line."""

    NONE = 0
    FIELDS = 1
    ADDRESS = 2
    OPERATION = 3
    TIME = 4
    ORDER = 5  # the time is before that of the line above


FAULT_TEXT = {
    LineFault.ADDRESS: "the address is no number below 2^62 (decimal, or hexadecimal after 0x)",
    LineFault.OPERATION: "the operation is none of R, RD, READ, LD, LOAD, W, WR, WRITE, ST, STORE",
    LineFault.TIME: "the time is no number",
    LineFault.ORDER: "the request is earlier than the one before it",
}

_FIELDS, _ADDRESS, _OPERATION, _TIME, _ORDER = (int(fault) for fault in LineFault if fault)
_NEWLINE, _RETURN, _SPACE, _TAB, _COMMA, _HASH, _DOT = 10, 13, 32, 9, 44, 35, 46


@kernel
def _operation(text: NDArray[np.uint8], first: int, after: int) -> int:
    """0 for a read, 1 for a write, -1 for anything else. ASCII case does not matter."""
    code = 0
    if after - first > 5:
        return -1
    for k in range(first, after):
        code = code << 8 | (text[k] & 0xDF)
    # R, RD, READ, LD, LOAD
    if code == 0x52 or code == 0x5244 or code == 0x52454144 or code == 0x4C44 or code == 0x4C4F4144:
        return 0
    # W, WR, WRITE, ST, STORE
    if code == 0x57 or code == 0x5752 or code == 0x5752495445 or code == 0x5354 or code == 0x53544F5245:
        return 1
    return -1


@kernel
def _number(text: NDArray[np.uint8], first: int, after: int) -> int:
    """A non-negative integer, decimal or after 0x, or -1."""
    value = 0
    if after - first > 2 and text[first] == 48 and text[first + 1] & 0xDF == 88:
        for k in range(first + 2, after):
            c = int(text[k])
            if 48 <= c <= 57:
                digit = c - 48
            elif 97 <= c | 32 <= 102:
                digit = (c | 32) - 87
            else:
                return -1
            if value >= 1 << 58:
                return -1
            value = value * 16 + digit
        return value
    if after <= first:
        return -1
    for k in range(first, after):
        digit = int(text[k]) - 48
        if digit < 0 or digit > 9 or value > 461168601842738789:  # (2^62 - 10) / 10
            return -1
        value = value * 10 + digit
    return value


@kernel
def _fixed_point(text: NDArray[np.uint8], first: int, after: int, decimals: int) -> int:
    """A decimal number times 10^decimals, rounded down, or -1."""
    dot = first
    while dot < after and text[dot] != _DOT:
        dot += 1
    value = _number(text, first, dot)
    if value < 0 or (dot + 1 == after):
        return -1
    for k in range(decimals):
        digit = 0
        if dot + 1 + k < after:
            digit = int(text[dot + 1 + k]) - 48
            if digit < 0 or digit > 9:
                return -1
        if value > 461168601842738789:
            return -1
        value = value * 10 + digit
    for k in range(dot + 1 + decimals, after):
        if text[k] < 48 or text[k] > 57:
            return -1
    return value


@kernel
def scan_lines(
    text: NDArray[np.uint8],
    fields: int,
    address_at: int,
    operation_at: int,
    time_at: int,
    decimals: int,
    earliest: int,
    address: NDArray[np.int64],
    write: NDArray[np.int64],
    time: NDArray[np.int64],
) -> tuple[int, int, int, int]:
    """Read whole lines; (requests, lines, fault, offset of the faulty line).

    Args:
        text: bytes of whole lines, the last one ends with a newline.
        fields: how many fields a line has.
        address_at, operation_at, time_at: which field is what; -1 for a time that is not there.
        decimals: times come out multiplied by 10^decimals.
        earliest: no time may be below this, nor below that of the line above.
        address, write, time: output, one entry per request; at least as long as there are lines.
    """
    n, lines, at, size = 0, 0, 0, text.shape[0]
    first = np.zeros(fields, np.int64)
    after = np.zeros(fields, np.int64)
    while at < size:
        begin = at
        lines += 1
        found = 0
        while text[at] != _NEWLINE:
            c = text[at]
            if c in (_SPACE, _TAB, _COMMA, _RETURN):
                at += 1
                continue
            if c == _HASH and found == 0:
                while text[at] != _NEWLINE:
                    at += 1
                break
            start = at
            while text[at] > _SPACE and text[at] != _COMMA:
                at += 1
            if at == start:  # a control character
                return n, lines, _FIELDS, begin
            if found < fields:
                first[found] = start
                after[found] = at
            found += 1
        at += 1
        if found == 0:
            continue
        if found != fields:
            return n, lines, _FIELDS, begin
        operation = _operation(text, first[operation_at], after[operation_at])
        if operation < 0:
            return n, lines, _OPERATION, begin
        where = _number(text, first[address_at], after[address_at])
        if where < 0:
            return n, lines, _ADDRESS, begin
        when = 0
        if time_at >= 0:
            when = _fixed_point(text, first[time_at], after[time_at], decimals)
            if when < 0:
                return n, lines, _TIME, begin
            if when < earliest:
                return n, lines, _ORDER, begin
            earliest = when
        address[n] = where
        write[n] = operation
        time[n] = when
        n += 1
    return n, lines, 0, 0

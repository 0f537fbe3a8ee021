"""Request traces: when each request arrives, how long its prompt is and how many tokens it is answered with.

The file is CSV in the form of Azure's public LLM inference traces (AzurePublicDataset, 2023 and 2024): a header
with TIMESTAMP, ContextTokens and GeneratedTokens in any order, further columns ignored, one request a row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NoReturn

from archsim.config.errors import UserError, nearest_name

FS_PER_SECOND = 10**15
COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")

_TIMESTAMP = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[ T](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,15}))?(?:Z|([+-])(\d{2}):?(\d{2}))?", re.ASCII
)
_COUNT = re.compile(r"[+-]?\d{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `arrival_fs` counts from the first request of its trace."""

    request_id: int
    arrival_fs: int
    context_tokens: int
    generated_tokens: int


def read_requests(path: str | Path, limit: int | None = None) -> list[Request]:
    """The requests of a CSV trace in order of arrival, all or the first `limit`; ids count from 0.

    Rows must stand in order of time (equal times keep the file's order), which is what lets `limit` stop
    reading early. Raises UserError with file and line for a missing column, a row of the wrong length, a
    timestamp or count that can't be read, a count below 1, or a timestamp before its predecessor's."""
    file = Path(path)
    if limit is not None and limit < 1:
        raise UserError(f"{file}: a limit of {limit} requests leaves nothing to run", expected="at least 1")
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            requests = _parse(file, csv.reader(stream), limit)
    except FileNotFoundError as error:
        raise UserError(f"{file}: no such request trace") from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text") from error
    if not requests:
        raise UserError(f"{file}: no requests below the header")
    return requests


def timestamp_fs(text: str) -> int:
    """Femtoseconds from 0001-01-01 00:00 UTC to "2023-11-16 18:15:46.6805900", exact; no offset means UTC.

    Raises ValueError if the text is no such date and time."""
    match = _TIMESTAMP.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is no timestamp")
    year, month, day, hours, minutes, seconds = (int(part) for part in match.groups()[:6])
    if hours > 23 or minutes > 59 or seconds > 59:
        raise ValueError(f"{text!r} is no time of day")
    whole = ((date(year, month, day).toordinal() * 24 + hours) * 60 + minutes) * 60 + seconds
    if match[8]:
        offset = (int(match[9]) * 60 + int(match[10])) * 60
        whole -= offset if match[8] == "+" else -offset
    return whole * FS_PER_SECOND + int((match[7] or "0").ljust(15, "0"))


def _parse(file: Path, rows: Iterator[list[str]], limit: int | None) -> list[Request]:
    try:
        return _requests(file, rows, limit)
    except csv.Error as error:
        raise UserError(f"{file}: not valid CSV: {error}") from error


def _requests(file: Path, rows: Iterator[list[str]], limit: int | None) -> list[Request]:
    header = [name.strip() for name in next(rows, [])]
    places = [_column(file, header, name) for name in COLUMNS]
    requests: list[Request] = []
    first = last = 0
    for row in rows:
        line = rows.line_num  # type: ignore[attr-defined]
        if not any(field.strip() for field in row):
            continue
        if len(row) != len(header):
            _fail(file, line, f"{len(row)} fields", f"{len(header)}, as in the header")
        now = _time(file, line, row[places[0]])
        if not requests:
            first = last = now
        if now < last:
            _fail(file, line, f"TIMESTAMP {row[places[0]]!r} is before the one above it", "rows in order of time")
        last = now
        context, generated = (
            _tokens(file, line, name, row[place]) for name, place in zip(COLUMNS[1:], places[1:], strict=True)
        )
        requests.append(Request(len(requests), now - first, context, generated))
        if len(requests) == limit:
            break
    return requests


def _column(file: Path, header: Sequence[str], name: str) -> int:
    if header.count(name) == 1:
        return header.index(name)
    if name in header:
        _fail(file, 1, f"column {name!r} appears more than once", "it once")
    found = ", ".join(header) or "an empty file"
    raise UserError(f"{file}:1: column {name!r} is missing (found {found})", nearest=nearest_name(name, header))


def _time(file: Path, line: int, text: str) -> int:
    try:
        return timestamp_fs(text)
    except ValueError:
        _fail(file, line, f"TIMESTAMP cannot be {text!r}", "a time like 2023-11-16 18:15:46.6805900")


def _tokens(file: Path, line: int, name: str, text: str) -> int:
    if not _COUNT.fullmatch(text.strip()):
        _fail(file, line, f"{name} cannot be {text!r}", "a whole number of at least 1")
    count = int(text)
    if count < 1:
        _fail(file, line, f"{name} cannot be {count}", "a whole number of at least 1")
    return count


def _fail(file: Path, line: int, message: str, expected: str) -> NoReturn:
    raise UserError(f"{file}:{line}: {message}", expected=expected)

"""Errors that a user can act on: what is wrong, where, what was expected, and the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class UserError(ValueError):
    """Something the user wrote or asked for can't be done; the message says why in plain words.

    It is a ValueError so that a validator of a spec may raise it: the loader then adds file and line.
    `expected` says what would have been right, `nearest` is the closest valid name, if there is one.
    """

    def __init__(self, message: str, *, expected: str | None = None, nearest: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.nearest = nearest

    def __str__(self) -> str:
        return self.message + _hint(self.expected, self.nearest)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a spec. `path` is dotted ("memory.timings.tRCD", "devices[0].count").

    `file` is the YAML file (or "override 'a.b=c'"), `line` counts from 1; both are None where unknown.
    """

    file: str | None
    line: int | None
    path: str
    message: str
    expected: str | None = None
    nearest: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line) if part is not None)
        parts = [part for part in (place, self.path) if part]
        return ": ".join([*parts, self.message]) + _hint(self.expected, self.nearest)

    def as_dict(self) -> dict[str, str | int | None]:
        """The same facts for `--json`."""
        return {
            "file": self.file,
            "line": self.line,
            "path": self.path,
            "message": self.message,
            "expected": self.expected,
            "nearest": self.nearest,
        }


class SpecError(UserError):
    """All problems of a spec at once; printed as one line per problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        if not problems:
            raise TypeError("a SpecError needs at least one problem")
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[SpecError], tuple[list[Problem]]]:
        # Exceptions cross process boundaries in sweeps; the default would rebuild from the message.
        return type(self), (self.problems,)


def nearest_name(name: str, valid: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The valid name closest to what was written, or None if nothing is close; case is ignored."""
    by_folded = {candidate.casefold(): candidate for candidate in valid}
    close = difflib.get_close_matches(name.casefold(), list(by_folded), n=1, cutoff=cutoff)
    return by_folded[close[0]] if close else None


def listed(names: Iterable[str], limit: int = 12) -> str | None:
    """'one of a, b, c', or None when there are too many names to be of help."""
    names = list(names)
    if not names or len(names) > limit:
        return None
    return names[0] if len(names) == 1 else "one of " + ", ".join(names)


def show(value: Any) -> str:
    """A value as a message names it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return f"'{value}'" if isinstance(value, str) else str(value)


def _hint(expected: str | None, nearest: str | None) -> str:
    hints = []
    if expected:
        hints.append(f"expected {expected}")
    if nearest:
        hints.append(f"did you mean '{nearest}'?")
    return f" ({'; '.join(hints)})" if hints else ""

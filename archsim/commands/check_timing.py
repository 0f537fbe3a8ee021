"""`archsim check-timing`: read a command trace and say which timing constraints it breaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archsim.commands.command_log import CommandLog
from archsim.commands.replay import load_memory, refresh_policy
from archsim.config.errors import UserError
from archsim.memory.checker import check_commands
from archsim.memory.standard import ControllerSpec

MOST_COUNTED = 10_000
"""Violations that are looked for in each channel."""
MOST_LISTED = 1000
MOST_SHOWN = 20


@dataclass(frozen=True)
class TimingReport:
    """What was checked and what was found; `violations` holds at most 1000 of them, `by_rule` counts all that were
    looked for. With `more`, a channel has further ones."""

    file: Path
    memory: str
    refresh: str
    channels: int
    commands: int
    violations: tuple[str, ...]
    by_rule: Mapping[str, int]
    more: bool

    @property
    def ok(self) -> bool:
        return not self.violations

    @property
    def exit_code(self) -> int:
        """0 without violations, else 1."""
        return 0 if self.ok else 1

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": str(self.file),
            "memory": self.memory,
            "refresh": self.refresh,
            "channels": self.channels,
            "commands": self.commands,
            "ok": self.ok,
            "violations": list(self.violations),
            "by_rule": dict(self.by_rule),
            "more": self.more,
        }

    def __str__(self) -> str:
        checked = f"{self.commands} commands in {self.channels} channels of {self.memory}, refresh {self.refresh}"
        if self.ok:
            return f"{self.file}: ok ({checked})"
        total = sum(self.by_rule.values())
        lines = list(self.violations[:MOST_SHOWN])
        if total > len(lines):
            lines.append(f"... the first {len(lines)}; --json lists up to {MOST_LISTED}")
        width = len(f"{max(self.by_rule.values()):,}")
        lines += [f"{count:>{width},}  {rule}" for rule, count in self.by_rule.items()]
        number = f"{total:,} violations" + (" or more" if self.more else "") if total != 1 else "1 violation"
        return "\n".join([*lines, f"{self.file}: {number} ({checked})"])


def check_timing(
    file: Path, memory: str | None = None, channels: int | None = None, refresh: str | None = None
) -> TimingReport:
    """Check every command of a trace against `memory`'s timings, channel by channel.

    `memory` and `refresh` default to what the file says it was written with. Raises UserError for a file that is no
    command trace, a command that can't be of this memory, or a channel that doesn't exist."""
    commands = CommandLog(file)
    memory = memory or commands.facts.get("memory")
    if memory is None:
        raise UserError(f"{file} doesn't say what memory it is of", expected="--memory NAME")
    standard = load_memory(memory)
    policy = refresh_policy(refresh or commands.facts.get("refresh", "all_bank"))
    timing = standard.timing(ControllerSpec(refresh=policy))
    most = channels if channels is not None else int(commands.facts.get("channels", standard.channels_per_stack))
    found: list[str] = []
    rules: Counter[str] = Counter()
    number, more = 0, False
    for part in commands.channels():
        number += 1
        if not 0 <= part.channel < most:
            raise UserError(f"{file} has commands of channel {part.channel}", expected=f"a channel below {most}")
        try:
            violations = check_commands(timing, part.log, MOST_COUNTED)
        except ValueError as error:
            raise UserError(
                f"{file}: channel {part.channel}: {error}", expected=f"a trace of {memory}, or --memory NAME of its own"
            ) from None
        rules.update(violation.rule for violation in violations)
        more |= len(violations) == MOST_COUNTED
        found += [
            f"{file}: row {part.rows[violation.after.index]}: channel {part.channel}: {violation}"
            for violation in violations[: max(0, MOST_LISTED - len(found))]
        ]
    by_rule = dict(rules.most_common())
    return TimingReport(file, memory, policy.value, number, len(commands), tuple(found), by_rule, more)

"""`archsim check-timing`: read a command trace and say which timing constraints it breaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archsim.commands.command_log import CommandLog
from archsim.commands.replay import load_memory, refresh_policy
from archsim.config.errors import UserError
from archsim.memory.checker import check_commands
from archsim.memory.standard import ControllerSpec

MOST_SHOWN = 1000


@dataclass(frozen=True)
class TimingReport:
    """What was checked and what was found; `violations` holds at most 1000 of them."""

    file: Path
    memory: str
    refresh: str
    channels: int
    commands: int
    violations: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.violations

    @property
    def exit_code(self) -> int:
        """0 without violations, else 2."""
        return 0 if self.ok else 2

    def as_dict(self) -> dict[str, Any]:
        return {
            "file": str(self.file),
            "memory": self.memory,
            "refresh": self.refresh,
            "channels": self.channels,
            "commands": self.commands,
            "ok": self.ok,
            "violations": list(self.violations),
        }

    def __str__(self) -> str:
        checked = f"{self.commands} commands in {self.channels} channels of {self.memory}, refresh {self.refresh}"
        if self.ok:
            return f"{self.file}: ok ({checked})"
        number = f"{len(self.violations)} violations" if len(self.violations) < MOST_SHOWN else f"{MOST_SHOWN} or more"
        return "\n".join([*self.violations, f"{self.file}: {number} ({checked})"])


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
    number = 0
    for part in commands.channels():
        number += 1
        if not 0 <= part.channel < most:
            raise UserError(f"{file} has commands of channel {part.channel}", expected=f"a channel below {most}")
        try:
            violations = check_commands(timing, part.log, MOST_SHOWN)
        except ValueError as error:
            raise UserError(f"{file}: channel {part.channel}: {error}") from None
        found += [
            f"{file}: row {part.rows[violation.after.index]}: channel {part.channel}: {violation}"
            for violation in violations
        ]
    return TimingReport(file, memory, policy.value, number, len(commands), tuple(found[:MOST_SHOWN]))

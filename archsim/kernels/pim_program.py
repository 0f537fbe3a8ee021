"""PIM programs: lanes of commands with runs and loops, so that a matrix of any size is a few lines.

Lanes issue in order, each at its own pace; a fence holds the lanes it names until all of them have come to one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from archsim.kernels.pim_rules import MAX_LANES, MAX_LOOP_DEPTH, PimRules, Role


class Op(IntEnum):
    """Operations of a program."""

    ISSUE = 0
    LOOP = 1
    END_LOOP = 2
    FENCE = 3
    WAIT = 4
    END = 5


# Fields of an instruction.
OP = 0
COUNT = 1  # ISSUE: repetitions; LOOP: rounds; FENCE: ticks after it; WAIT: ticks
TARGET = 2  # ISSUE: first target of the command; END_LOOP: instruction after its LOOP; FENCE: mask of lanes
FIRST = 3  # ISSUE: instance of the first repetition
STRIDE = 4  # ISSUE: instances to go on by
MODULUS = 5  # ISSUE: instances to go around in
USES = 6  # ISSUE of an OPEN: commands that will use the rows
FIELDS = 8

LONGEST_WAIT = 4096
"""Ticks of a wait or after a fence: how far back the repeats of a program need to look."""


@dataclass(frozen=True)
class PimProgram:
    """Instructions of all lanes, int64[n, FIELDS], and where each lane begins."""

    code: NDArray[np.int64]
    lane_starts: tuple[int, ...]

    @property
    def lanes(self) -> int:
        return len(self.lane_starts)


@dataclass
class Lane:
    """One lane under construction."""

    rules: PimRules
    _code: list[list[int]] = field(default_factory=list)
    _depth: int = 0

    def issue(self, name: str, count: int = 1, first: int = 0, stride: int = 0, uses: int = 0) -> None:
        """`count` commands; the k-th goes to instance (first + k * stride) modulo the number of instances.

        Raises ValueError for an instance that does not exist or uses that don't suit the command."""
        index = self.rules.index(name)
        command = self.rules.commands[index]
        instances = self.rules.banks.instances(command.targets)
        if not 0 <= first < instances:
            raise ValueError(f"{name} has {instances} targets, there is no target {first}")
        if (uses > 0) != (command.role is Role.OPEN):
            raise ValueError(f"{name} with {uses} uses; uses go with commands that open rows, and only with them")
        if count > 0:
            target = self.rules.first_target[index]
            self._code.append([Op.ISSUE, count, target, first, stride % instances, instances, uses, 0])

    @contextmanager
    def loop(self, rounds: int) -> Iterator[None]:
        """What is added inside runs `rounds` times (at least once: leave a loop of none away)."""
        if rounds < 1 or self._depth == MAX_LOOP_DEPTH:
            raise ValueError(f"a loop of {rounds} rounds at depth {self._depth}; 1 or more, depth {MAX_LOOP_DEPTH}")
        self._code.append([Op.LOOP, rounds, 0, 0, 0, 0, 0, 0])
        begin = len(self._code)
        self._depth += 1
        yield
        self._depth -= 1
        if len(self._code) == begin:
            self._code.pop()
        else:
            self._code.append([Op.END_LOOP, 0, begin, 0, 0, 0, 0, 0])

    def fence(self, lanes: int, ticks: int = 0) -> None:
        """Wait for all lanes of the mask `lanes`, then `ticks` more (counted from the last command before it)."""
        _check_wait(ticks)
        self._code.append([Op.FENCE, ticks, lanes, 0, 0, 0, 0, 0])

    def wait(self, ticks: int) -> None:
        """The next command comes at least `ticks` after the one added last. Raises ValueError without one."""
        _check_wait(ticks)
        if ticks > 0:
            if not self._code or self._code[-1][OP] != Op.ISSUE:
                raise ValueError("a wait follows a command")
            self._code.append([Op.WAIT, ticks, 0, 0, 0, 0, 0, 0])

    def code(self, start: int) -> NDArray[np.int64]:
        """The lane's instructions, to stand at `start` of a program."""
        code = np.array([*self._code, [Op.END, 0, 0, 0, 0, 0, 0, 0]], np.int64)
        code[code[:, OP] == Op.END_LOOP, TARGET] += start
        return code


def _check_wait(ticks: int) -> None:
    if not 0 <= ticks <= LONGEST_WAIT:
        raise ValueError(f"a wait of {ticks} ticks; the PIM kernel takes 0 to {LONGEST_WAIT}")


def assemble(lanes: list[Lane]) -> PimProgram:
    """A program of these lanes; the first goes first where two could issue at once. Raises ValueError if too many."""
    if not 1 <= len(lanes) <= MAX_LANES:
        raise ValueError(f"{len(lanes)} lanes; the PIM kernel takes 1 to {MAX_LANES}")
    starts, parts, start = [], [], 0
    for lane in lanes:
        starts.append(start)
        parts.append(lane.code(start))
        start += len(parts[-1])
    return PimProgram(np.concatenate(parts), tuple(starts))

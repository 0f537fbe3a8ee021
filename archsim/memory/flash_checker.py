"""Reads a flash command log and asserts the rules of docs/flash_policy.md: it knows hardware, and nothing of queues.

A violation names the rule, the log entry, and the tick found against the tick needed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archsim.kernels.flash_state import FlashCommand, FlashLogField, FlashTiming

Log = NDArray[np.int64]

RULES = (
    "order",
    "command bus",
    "array",
    "multi-plane",
    "power",
    "buffer filled",
    "buffer kept",
    "loaded",
    "bus",
)
_ARRAY_COMMANDS = (FlashCommand.SENSE, FlashCommand.PROGRAM, FlashCommand.ERASE)


@dataclass(frozen=True)
class FlashViolation:
    """Entry `index` of the log came at tick `found`, before tick `needed` (or in a state that forbids it: -1)."""

    rule: str
    index: int
    found: int
    needed: int

    def __str__(self) -> str:
        needed = f"not before tick {self.needed}" if self.needed >= 0 else "not at all in this state"
        return f"entry {self.index} at tick {self.found} breaks '{self.rule}': {needed}"


@dataclass
class _Buffer:
    page: int = -1
    loaded: bool = False  # by the data bus, not by a sense
    filled: int = -1  # tick from which the page is there
    kept_until: int = 0  # tick up to which nothing may fill it


@dataclass
class _Group:
    free: int = 0
    started: int = -1
    command: int = -1
    page: int = -1
    planes: frozenset[int] = frozenset()


def check_flash_commands(timing: FlashTiming, log: Log) -> list[FlashViolation]:
    """All violations in a log, int64[n, 8] with the columns of `FlashLogField`, complete from an idle channel on.

    Raises ValueError if the array is no log of such a channel."""
    _assert_well_formed(timing, log)
    return list(_Checker(timing).run(log))


class _Checker:
    def __init__(self, q: FlashTiming) -> None:
        self.q = q
        self.buffers = [[_Buffer() for _ in range(q.buffers)] for _ in range(q.planes)]
        self.groups = [_Group() for _ in range(q.planes // q.group_planes)]
        self.ends: list[int] = []  # of operations under way
        self.bus_free = 0
        self.command_free = 0
        self.last = 0

    def run(self, log: Log) -> Iterator[FlashViolation]:
        for index, row in enumerate(log.tolist()):
            tick, command, plane, buffer, page, first, size, _ = row
            for rule, needed in self._broken(tick, FlashCommand(command), plane, buffer, page, first, size):
                yield FlashViolation(rule, index, tick, needed)
            self.last = tick

    def _broken(
        self, tick: int, command: FlashCommand, plane: int, buffer: int, page: int, first: int, size: int
    ) -> Iterator[tuple[str, int]]:
        if tick < self.last:
            yield "order", self.last
        if command in _ARRAY_COMMANDS:
            yield from self._array(tick, command, plane, page)
        if command is not FlashCommand.ERASE:
            yield from self._buffer(tick, command, self.buffers[plane][buffer], page, self._bus_ticks(first, size))
        if command in (FlashCommand.READ_OUT, FlashCommand.LOAD):
            if tick < self.bus_free:
                yield "bus", self.bus_free
            self.bus_free = tick + self._bus_ticks(first, size)

    def _bus_ticks(self, first: int, size: int) -> int:
        last = max(first, first + size - 1)
        return (last // self.q.codeword - first // self.q.codeword + 1) * self.q.codeword_ticks

    def _duration(self, command: FlashCommand) -> int:
        times = {
            FlashCommand.SENSE: self.q.t_read,
            FlashCommand.PROGRAM: self.q.t_program,
            FlashCommand.ERASE: self.q.t_erase,
        }
        return self.q.command_ticks + times[command]

    def _array(self, tick: int, command: FlashCommand, plane: int, page: int) -> Iterator[tuple[str, int]]:
        group = self.groups[plane // self.q.group_planes]
        if group.started == tick:  # one more plane of a multi-plane operation
            if plane in group.planes or (command, page) != (group.command, group.page):
                yield "multi-plane", -1
            group.planes |= {plane}
            return
        if tick < self.command_free:
            yield "command bus", self.command_free
        if tick < group.free:
            yield "array", group.free
        while self.ends and self.ends[0] <= tick:
            heapq.heappop(self.ends)
        if len(self.ends) >= self.q.most_active:
            yield "power", self.ends[0]
        end = tick + self._duration(command)
        heapq.heappush(self.ends, end)
        self.command_free = tick + self.q.command_ticks
        group.free, group.started, group.command, group.page = end, tick, command, page
        group.planes = frozenset({plane})

    def _buffer(
        self, tick: int, command: FlashCommand, held: _Buffer, page: int, bus_ticks: int
    ) -> Iterator[tuple[str, int]]:
        if command in (FlashCommand.SENSE, FlashCommand.LOAD) and tick < held.kept_until:
            yield "buffer kept", held.kept_until
        if command is FlashCommand.SENSE:
            held.page, held.loaded = page, False
            held.filled = held.kept_until = tick + self._duration(command)
        elif command is FlashCommand.LOAD:
            held.page, held.loaded = page, True
            held.filled = held.kept_until = tick + bus_ticks
        elif command is FlashCommand.READ_OUT:
            if held.page != page or held.loaded:
                yield "buffer filled", -1
            elif tick < held.filled:
                yield "buffer filled", held.filled
            held.kept_until = max(held.kept_until, tick + bus_ticks)
        else:
            if held.page != page or not held.loaded:
                yield "loaded", -1
            elif tick < held.filled:
                yield "loaded", held.filled
            held.loaded = False
            held.page = -1
            held.kept_until = tick + self._duration(command)


def _assert_well_formed(q: FlashTiming, log: Log) -> None:
    if log.ndim != 2 or log.shape[1] != len(FlashLogField):
        raise ValueError(f"a flash command log has {len(FlashLogField)} columns, got an array of shape {log.shape}")
    command, plane, buffer = (log[:, k] for k in (FlashLogField.COMMAND, FlashLogField.PLANE, FlashLogField.BUFFER))
    first, size = log[:, FlashLogField.FIRST], log[:, FlashLogField.SIZE]
    bad = (command < 0) | (command >= len(FlashCommand)) | (plane < 0) | (plane >= q.planes)
    bad |= (buffer >= q.buffers) | ((buffer < 0) & (command != FlashCommand.ERASE))
    bad |= (log[:, FlashLogField.TICK] < 0) | (first < 0) | (size < 0) | (first + size > q.granules)
    if bad.any():
        index = int(np.argmax(bad))
        raise ValueError(f"entry {index} of the command log is not a command of this channel: {log[index].tolist()}")

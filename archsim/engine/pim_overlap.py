"""PIM at work while the device goes on: who waits for whom.

PIM does one operator after the other. One that is offloaded starts when its inputs are there and PIM is free, and the
device goes on with the next operator, until one reads what PIM is still writing. Of attention in a pipeline of heads,
the first head starts when its part of the projection before is there; the projection behind starts with the first head
that is done, and ends its own time for a head after the last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from archsim.engine.pim import PimPart
from archsim.engine.prepare import Prepared
from archsim.records import Operator


@dataclass(frozen=True, slots=True)
class _Running:
    """When the first step's results and all results of an operator on PIM are there."""

    first_fs: int
    end_fs: int
    steps: int


@dataclass(slots=True)
class PimOverlap:
    """The operators of one trace on PIM. Times are femtoseconds; `busy` are (index, begin, end) of what it did."""

    heads: bool
    busy: list[tuple[int, int, int]] = field(default_factory=list)
    _free_fs: int = 0
    _writing: dict[str, _Running] = field(default_factory=dict)
    _product_starts: dict[str, int] = field(default_factory=dict)

    def ready_fs(self, operator: Operator) -> int:
        """When what an operator reads of PIM's results is there, or enough of it to begin."""
        times = [self._needed_fs(operator, running) for running in self._read_by(operator)]
        return max(times, default=0)

    def _needed_fs(self, operator: Operator, running: _Running) -> int:
        return running.first_fs if operator.gemm is not None else running.end_fs

    def _read_by(self, operator: Operator) -> Iterator[_Running]:
        for access in operator.reads:
            if access.tensor in self._writing:
                yield self._writing[access.tensor]

    def begin(self, operator: Operator, start_fs: int) -> None:
        """The device begins an operator: what it writes comes from now on, step by step."""
        if operator.gemm is not None:
            self._product_starts |= {access.tensor: start_fs for access in operator.writes}

    def end_fs(self, operator: Operator, start_fs: int, end_fs: int) -> int:
        """When an operator of the device that began at `start_fs` and was through at `end_fs` has really ended."""
        ends = [running.end_fs + (end_fs - start_fs) // running.steps for running in self._read_by(operator)]
        for access in (*operator.reads, *operator.writes):
            self._writing.pop(access.tensor, None)
        return max([end_fs, *ends])

    def submit(self, index: int, operator: Operator, part: PimPart, now_fs: int) -> None:
        """Hand an operator to PIM. All of its inputs are there now, the first of them since their product began."""
        steps = part.steps if self.heads else 1
        begun = [self._product_starts.get(access.tensor, now_fs) for access in operator.reads]
        since_fs = max(begun, default=now_fs) if steps > 1 else now_fs
        first_fs = since_fs + (now_fs - since_fs + part.send_fs) // steps
        last_fs = now_fs + part.send_fs // steps
        step_fs = part.busy_fs // steps
        begin_fs = max(self._free_fs, first_fs)
        self._free_fs = max(begin_fs + part.busy_fs, last_fs + step_fs)
        behind_fs = part.receive_fs + part.host_fs
        running = _Running(begin_fs + step_fs + behind_fs // steps, self._free_fs + behind_fs // steps, steps)
        self._writing |= {access.tensor: running for access in operator.writes}
        self.busy.append((index, begin_fs, self._free_fs))

    def beside(self, index: int, part: PimPart, start_fs: int) -> int:
        """PIM's part of an operator that the device began at `start_fs`: when its results are there."""
        begin_fs = max(self._free_fs, start_fs + part.send_fs)
        self._free_fs = begin_fs + part.busy_fs
        self.busy.append((index, begin_fs, self._free_fs))
        return self._free_fs + part.receive_fs

    def left_fs(self) -> int:
        """When the last results that nobody has read are there; 0 if there are none."""
        return max((running.end_fs for running in self._writing.values()), default=0)


def is_asynchronous(item: Prepared) -> bool:
    """Whether all of an operator is PIM's."""
    return item.pim is not None and item.pim_alone

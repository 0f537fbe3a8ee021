"""Which worker takes which point: one keeps to the hardware it is at, since its memo knows that memory already."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a worker is: the first one at some hardware takes points from the start, those who help from the end."""

    hardware: str
    helps: bool


class Agenda:
    """Points (by index) that nobody has taken yet, given the hardware of each."""

    def __init__(self, hardware: Sequence[str]) -> None:
        self._groups: dict[str, deque[int]] = {}
        self._places: dict[str, _Place] = {}
        for index, name in enumerate(hardware):
            self._groups.setdefault(name, deque()).append(index)

    def __len__(self) -> int:
        return sum(len(group) for group in self._groups.values())

    def take(self, worker: str) -> int | None:
        """The next point for a worker: of its own hardware, else of the next that nobody is at, else of that with the
        most points left; None if there are none."""
        if not self._groups:
            return None
        place = self._places.get(worker)
        if place is None or place.hardware not in self._groups:
            place = self._places[worker] = self._free_place(worker)
        group = self._groups[place.hardware]
        index = group.pop() if place.helps else group.popleft()
        if not group:
            del self._groups[place.hardware]
        return index

    def _free_place(self, worker: str) -> _Place:
        occupied = {place.hardware for other, place in self._places.items() if other != worker}
        for hardware in self._groups:
            if hardware not in occupied:
                return _Place(hardware, helps=False)
        return _Place(max(self._groups, key=lambda name: len(self._groups[name])), helps=True)

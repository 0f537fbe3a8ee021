"""A schedule sent over a network, event by event, in whole femtoseconds.

A chunk goes through the wires of its route like a train (virtual cut-through): its head is handed on as soon as the
next wire is free, each wire is busy with it for bytes / rate, and it has arrived when its tail has. A wire serves in
order of arrival (ties: in the schedule's order). Buffers between wires are unbounded. Each send starts `step_fs`
(software) after the last arrival that it waits for.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from archsim.fabric.schedule import Schedule
from archsim.fabric.wires import FS_PER_SECOND, Network


@dataclass(frozen=True, slots=True)
class Sent:
    """When each send arrived (fs, in the schedule's order) and how long each wire was busy."""

    arrived_fs: tuple[int, ...]
    busy_fs: tuple[int, ...]

    @property
    def total_fs(self) -> int:
        """When the last send arrived."""
        return max(self.arrived_fs, default=0)


def serialisation_fs(size_bytes: int, rate: Fraction) -> int:
    """How long a wire of `rate` bytes per second is busy with so many bytes, rounded up."""
    return ceil(size_bytes * FS_PER_SECOND / rate)


def simulate(
    schedule: Schedule,
    network: Network,
    chunk_bytes: int,
    *,
    step_fs: int = 0,
    share: Fraction = Fraction(1),
    limit: Fraction | None = None,
) -> Sent:
    """Send every chunk of a schedule, each of `chunk_bytes`.

    `share` of a wire's rate is data (flags take the rest), and no wire carries more than `limit` bytes per second of
    it. Raises UserError if a target can't be reached."""
    busy_each = [
        serialisation_fs(chunk_bytes, wire.rate * share if limit is None else min(wire.rate * share, limit))
        for wire in network.wires
    ]
    waiting = [len(send.after) for send in schedule.sends]
    released: list[list[int]] = [[] for _ in schedule.sends]
    for index, send in enumerate(schedule.sends):
        for earlier in send.after:
            released[earlier].append(index)
    arrived = [0] * len(schedule.sends)
    free = [0] * len(network.wires)
    busy = [0] * len(network.wires)
    # (head's arrival at a wire, send, position on its route, when the tail comes there at the earliest)
    heads = [(step_fs, index, 0, 0) for index, count in enumerate(waiting) if count == 0]
    heapq.heapify(heads)
    while heads:
        head_fs, index, position, tail_fs = heapq.heappop(heads)
        route = network.route(schedule.sends[index].source, schedule.sends[index].target)
        number = route[position]
        start_fs = max(head_fs, free[number])
        end_fs = max(start_fs + busy_each[number], tail_fs)
        free[number] = end_fs
        busy[number] += busy_each[number]
        latency_fs = network.wires[number].latency_fs
        if position + 1 < len(route):
            heapq.heappush(heads, (start_fs + latency_fs, index, position + 1, end_fs + latency_fs))
            continue
        arrived[index] = end_fs + latency_fs
        for later in released[index]:
            waiting[later] -= 1
            if waiting[later] == 0:
                ready_fs = max(arrived[earlier] for earlier in schedule.sends[later].after)
                heapq.heappush(heads, (ready_fs + step_fs, later, 0, 0))
    return Sent(tuple(arrived), tuple(busy))

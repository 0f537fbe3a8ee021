"""An SRAM slice cycle by cycle: the policy of sram.py in other words, without a formula. Slow; tests compare both."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from archsim.memory.sram import SramSpec, Stream


def walk(spec: SramSpec, streams: Sequence[Stream]) -> tuple[list[int], list[int]]:
    """Serve streams one after the other from cycle 0.

    (cycle in which each stream's last word arrives; by bank, the busy cycles of all its ports)."""
    queues: list[deque[int]] = [deque() for _ in range(spec.banks)]
    left = [[0] * spec.ports for _ in range(spec.banks)]  # cycles that each port's access still takes
    busy = [0] * spec.banks
    interval, stopped = _refresh(spec)
    arrivals = []
    cycle = 0
    for stream in streams:
        issued = 0
        last = 0
        lanes = spec.write_lanes if stream.write else spec.read_lanes
        while issued < stream.accesses:
            for _ in range(min(lanes, stream.accesses - issued)):
                word = stream.word(issued)
                queues[word % spec.banks].append(word)
                issued += 1
            # One group: until every queue is empty and every port has let go of its access.
            while any(queues) or any(cycles for bank in left for cycles in bank):
                standing_still = interval > 0 and cycle % interval >= interval - stopped
                cycle += 1
                if standing_still:
                    continue
                for bank, queue in enumerate(queues):
                    for port in range(spec.ports):
                        if queue and not left[bank][port]:
                            queue.popleft()
                            left[bank][port] = spec.bank_cycles
                            busy[bank] += spec.bank_cycles
                        if left[bank][port]:
                            left[bank][port] -= 1
                            if not left[bank][port]:
                                last = max(last, cycle + spec.latency_cycles)
        arrivals.append(last)
    return arrivals, busy


def _refresh(spec: SramSpec) -> tuple[int, int]:
    """Cycles from one refresh to the next, and of each; (0, 0) for cells that need none."""
    if spec.refresh is None:
        return 0, 0
    return spec.refresh.retention * spec.clock // (spec.refresh.rows * 10**15), spec.refresh.cycles

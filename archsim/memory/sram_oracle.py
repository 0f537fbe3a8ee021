"""An SRAM slice cycle by cycle: the policy of sram.py in other words, without a formula. Slow; tests compare both."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from archsim.memory.sram import SramSpec, Stream


def walk(spec: SramSpec, streams: Sequence[Stream]) -> tuple[list[int], list[int]]:
    """Serve streams one after the other from cycle 0.

    (cycle in which each stream's last word arrives; by bank, the busy cycles of all its ports)."""
    queues: list[deque[int]] = [deque() for _ in range(spec.banks)]
    ports = [[0] * spec.ports for _ in range(spec.banks)]  # the cycle from which each port is free
    busy = [0] * spec.banks
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
            while any(queues) or any(free > cycle for bank in ports for free in bank):
                for bank, queue in enumerate(queues):
                    for port in range(spec.ports):
                        if queue and ports[bank][port] <= cycle:
                            queue.popleft()
                            ports[bank][port] = cycle + spec.bank_cycles
                            busy[bank] += spec.bank_cycles
                            last = max(last, ports[bank][port] + spec.latency_cycles)
                cycle += 1
        arrivals.append(last)
    return arrivals, busy

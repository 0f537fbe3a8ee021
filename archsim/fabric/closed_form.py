"""What a schedule comes to if all devices go in step: no schedule need be built, however many devices there are.

tests/exact/test_schedule.py holds every outline against the schedule and its simulation, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from archsim.fabric.operations import Algorithm, Operation


@dataclass(frozen=True, slots=True)
class Outline:
    """A message is `parts` chunks. `steps` follow each other; `slots` chunks follow each other on the busiest wire from
    the first start to the last arrival; `sent_chunks` leave the device that sends most."""

    parts: int
    steps: int
    slots: int
    sent_chunks: int


def outline(operation: Operation, algorithm: Algorithm, devices: int) -> Outline | None:
    """The outline behind a switch (of a ring: also among neighbours); None where devices don't go in step."""
    n, others, levels = devices, devices - 1, (devices - 1).bit_length()
    match algorithm, operation:
        case Algorithm.RING, Operation.BROADCAST:
            return Outline(n, others, 2 * others, n)
        case Algorithm.RING, _:
            steps = (2 if operation is Operation.ALL_REDUCE else 1) * others
            return Outline(n, steps, steps, steps)
        case Algorithm.DIRECT, Operation.BROADCAST:
            return Outline(1, 1, others, others)
        case Algorithm.DIRECT, _:
            phases = 2 if operation is Operation.ALL_REDUCE else 1
            return Outline(n, phases, phases * others, phases * others)
        case Algorithm.ONE_SHOT, _:
            return Outline(1, 1, others, others)
    if devices & others:
        return None  # part of a tree is empty, and the rest runs ahead
    match algorithm, operation:
        case Algorithm.TREE, _:
            phases = 2 if operation is Operation.ALL_REDUCE else 1
            return Outline(1, phases * levels, phases * levels, levels)
        case Algorithm.RECURSIVE_DOUBLING, Operation.ALL_REDUCE:
            return Outline(1, levels, levels, levels)
        case Algorithm.RECURSIVE_DOUBLING, _:
            return Outline(n, levels, others, others)
    return None

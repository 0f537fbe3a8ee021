"""Every mistake planted in schedules, their simulation and the SRAM is caught by the tests' own yardsticks.

A mutant is an edited copy of a module: schedules are followed by the real `mistakes`, simulations are held against the
tick-by-tick walk of test_schedule.py, SRAM against the walk cycle by cycle.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from test_schedule import CHOICES, GROUP, possible, ticked
from test_sram import spec

from archsim.config.errors import UserError
from archsim.fabric.schedule import mistakes
from archsim.fabric.simulate import serialisation_fs
from archsim.fabric.wires import Network, Wire
from archsim.memory.sram import Gathered, Strided
from archsim.memory.sram_oracle import walk

ROOT = Path(__file__).resolve().parents[2] / "archsim"


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str


SCHEDULES = "fabric/schedule.py"
SIMULATION = "fabric/simulate.py"
SRAM = "memory/sram.py"
MUTANTS = (
    Mutant(
        "a ring one step short",
        SCHEDULES,
        "for step in range(devices - 1):\n        builder.step((d, (d + 1) % devices, (d - step)",
        "for step in range(devices - 2):\n        builder.step((d, (d + 1) % devices, (d - step)",
    ),
    Mutant(
        "a ring that reduces the wrong chunk", SCHEDULES, "(d - step) % devices, True)", "(d + step) % devices, True)"
    ),
    Mutant(
        "a gather that starts a chunk off",
        SCHEDULES,
        "_ring_gather(builder, devices, first=1)",
        "_ring_gather(builder, devices, first=0)",
    ),
    Mutant(
        "a reduce that replaces", SCHEDULES, "builder.step((d, peer, peer, True)", "builder.step((d, peer, peer, False)"
    ),
    Mutant(
        "a tree without its last leaf",
        SCHEDULES,
        "for d in range(distance, devices, 2 * distance))",
        "for d in range(distance, devices - 1, 2 * distance))",
    ),
    Mutant(
        "a tree that broadcasts half",
        SCHEDULES,
        "for d in range(0, devices - distance, 2 * distance))",
        "for d in range(0, devices - distance, 4 * distance))",
    ),
    Mutant("doubling that never doubles", SCHEDULES, "tuple(1 << bit for bit", "tuple(1 for bit"),
    Mutant(
        "a block of the own half", SCHEDULES, "for c in _block(d ^ distance, distance)", "for c in _block(d, distance)"
    ),
    Mutant(
        "a chain that skips the last piece", SCHEDULES, "if 0 <= wave - d < devices", "if 0 <= wave - d < devices - 1"
    ),
    Mutant("no switch multicast", SCHEDULES, "if d != c), gated=False)", "if d > c), gated=False)"),
    Mutant("groups that don't talk", SCHEDULES, "(g + 1) % groups * size + m", "g * size + (m + 1) % size"),
    Mutant("sends that wait for nothing", SCHEDULES, "tuple(sorted(awaited))", "()"),
    Mutant(
        "wires that carry any number of trains",
        SIMULATION,
        "start_fs = max(head_fs, free[number])",
        "start_fs = head_fs",
    ),
    Mutant(
        "a fast wire that outruns its train",
        SIMULATION,
        "max(start_fs + busy_each[number], tail_fs)",
        "start_fs + busy_each[number]",
    ),
    Mutant(
        "store and forward",
        SIMULATION,
        "(start_fs + latency_fs, index, position + 1,",
        "(end_fs + latency_fs, index, position + 1,",
    ),
    Mutant(
        "no latency of the last wire", SIMULATION, "arrived[index] = end_fs + latency_fs", "arrived[index] = end_fs"
    ),
    Mutant(
        "no software after the first step", SIMULATION, "(ready_fs + step_fs, later, 0, 0)", "(ready_fs, later, 0, 0)"
    ),
    Mutant("a start with the first arrival", SIMULATION, "ready_fs = max(", "ready_fs = min("),
    Mutant("rounding down", SIMULATION, "return ceil(", "return int("),
    Mutant(
        "strides without a common divisor",
        SRAM,
        "accesses * gcd(stride, spec.banks) // spec.banks",
        "accesses // spec.banks",
    ),
    Mutant(
        "ports for nothing",
        SRAM,
        "return -(-min(busiest, accesses) // spec.ports) * spec.bank_cycles",
        "return busiest * spec.bank_cycles",
    ),
    Mutant(
        "banks that are never busy",
        SRAM,
        "(-(-busiest // spec.ports) * spec.bank_cycles)",
        "(-(-busiest // spec.ports))",
    ),
    Mutant("a last group for free", SRAM, "group_cycles(spec, rest, self.stride) if rest else 0", "0"),
    Mutant(
        "groups counted as one",
        SRAM,
        "np.maximum.at(busiest, owner // spec.banks, counts)",
        "np.maximum.at(busiest, owner * 0, counts)",
    ),
    Mutant("reads as wide as writes", SRAM, "self.write_lanes if write else self.read_lanes", "self.write_lanes"),
    Mutant(
        "a refresh one cycle short",
        SRAM,
        "(self.interval - self.stopped)) * self.stopped",
        "(self.interval - self.stopped)) * (self.stopped - 1)",
    ),
    Mutant("a stream that waits for a refresh behind it", SRAM, "((worked - 1) // (self", "(worked // (self"),
    Mutant("work that goes on in a refresh", SRAM, "(into > working) * (into - working)", "(into > working) * 0"),
    Mutant(
        "refreshes counted from the start of an interval",
        SRAM,
        "return cycle // self.interval if",
        "return cycle // self.interval + 1 if",
    ),
    Mutant(
        "an interval that is rounded up",
        SRAM,
        "self.refresh.rows) // self.tick_fs",
        "self.refresh.rows) // self.tick_fs + 1",
    ),
)


@contextmanager
def edited(mutant: Mutant | None, file: str) -> Iterator[ModuleType]:
    """The module, with the mutant's edit in it."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if mutant is not None:
        assert text.count(mutant.old) == 1, f"{mutant.name}: the text to edit stands {text.count(mutant.old)} times"
        text = text.replace(mutant.old, mutant.new)
    module = ModuleType(f"mutant_of_{Path(file).stem}")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(text, file, "exec"), module.__dict__)
        yield module
    finally:
        del sys.modules[module.__name__]


def schedules_are_right(module: ModuleType) -> bool:
    for operation, algorithm in CHOICES:
        for devices in (2, 3, 4, 5, 8):
            try:
                schedule = module.build(operation, algorithm, devices, GROUP)
            except UserError:
                continue
            if mistakes(schedule):
                return False
    return True


def simulations_are_right(module: ModuleType) -> bool:
    chance = random.Random(1)
    for operation, algorithm in CHOICES:
        for devices in (3, 4):
            schedule = possible(operation, algorithm, devices)
            if schedule is None:
                continue
            ends = {pair for d in range(devices) for pair in ((d, devices), (devices, d))}
            ends |= {(d, (d + 1) % devices) for d in range(devices) if chance.random() < 0.3}
            rates = (Fraction(10**15), Fraction(10**15, 2), Fraction(2 * 10**15, 5))
            wires = tuple(Wire(a, b, chance.choice(rates), chance.randrange(4)) for a, b in sorted(ends))
            network = Network(devices, tuple(map(str, range(devices + 1))), wires, devices)
            busy = [serialisation_fs(3, wire.rate) for wire in wires]
            found = module.simulate(schedule, network, 3, step_fs=2)
            if found.total_fs != ticked(schedule, network, busy, 2):
                return False
    return True


def memories_are_right(module: ModuleType) -> bool:
    for banks, ports, bank_cycles in ((8, 1, 1), (6, 2, 1), (4, 1, 3), (3, 2, 2)):
        numbers = spec(capacity="192 KiB", banks=banks, ports=ports, bank_cycles=bank_cycles, read_lanes=5)
        mine = module.SramSpec.model_validate(numbers.model_dump(mode="json"))
        for stride in range(9):
            for accesses in (1, 9, 10):
                real = Strided(0, accesses, stride)
                ((end,), _) = walk(numbers, [real])
                if module.Strided(0, accesses, stride).groups(mine).cycles + numbers.latency_cycles != end:
                    return False
        words = tuple(random.Random(banks).randrange(100) for _ in range(23))
        ((end,), _) = walk(numbers, [Gathered(words)])
        if module.Gathered(words).groups(mine).cycles + numbers.latency_cycles != end:
            return False
    return refreshes_are_right(module)


def refreshes_are_right(module: ModuleType) -> bool:
    """Streams behind each other on cells that leak, by the walk; refreshes by counting."""
    for interval, cycles in ((5, 2), (9, 4), (12, 1)):
        numbers = spec(refresh={"retention": f"{7 * interval + 3} ns", "rows": 7, "cycles": cycles})
        ports = module.SramSpec.model_validate(numbers.model_dump(mode="json")).port_time
        if any(ports.worked(at) != sum(c % interval < interval - cycles for c in range(at)) for at in range(40)):
            return False
        for accesses in range(1, 60):
            first, second = Strided(0, accesses), Strided(7, 13, 8)
            ends, _ = walk(numbers, [first, second])
            worked = 0
            for stream, end in zip((first, second), ends, strict=True):
                worked += stream.groups(numbers).cycles
                left = end - numbers.latency_cycles
                if ports.cycle(worked) != left or ports.worked(left) != worked or ports.worked(left - 1) != worked - 1:
                    return False
                if ports.refreshes(left) != sum(1 for cycle in range(1, left + 1) if cycle % interval == 0):
                    return False
    return True


YARDSTICKS = {SCHEDULES: schedules_are_right, SIMULATION: simulations_are_right, SRAM: memories_are_right}


@pytest.mark.parametrize("file", YARDSTICKS)
def test_the_yardsticks_find_nothing_in_the_code_as_it_is(file: str) -> None:
    with edited(None, file) as module:
        assert YARDSTICKS[file](module)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mistakes_are_caught(mutant: Mutant) -> None:
    with edited(mutant, mutant.file) as module:
        try:
            right = YARDSTICKS[mutant.file](module)
        except (IndexError, KeyError):
            right = False  # it fell over, which is noticed too
        assert not right

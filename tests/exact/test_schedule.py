"""Schedules deliver what their operation promises; the simulation equals a walk tick by tick and its closed form."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.config.errors import UserError
from archsim.fabric.closed_form import outline
from archsim.fabric.operations import Algorithm, Operation
from archsim.fabric.schedule import ALGORITHMS, Schedule, Send, build, delivered, mistakes
from archsim.fabric.simulate import serialisation_fs, simulate
from archsim.fabric.wires import Network, Shape, Wire, shaped_network

CHOICES = [(operation, algorithm) for operation, algorithms in ALGORITHMS.items() for algorithm in algorithms]
GROUP = 2


def possible(operation: Operation, algorithm: Algorithm, devices: int) -> Schedule | None:
    """The schedule, or None where the algorithm wants another number of devices."""
    try:
        return build(operation, algorithm, devices, GROUP)
    except UserError:
        return None


schedules = (
    st.tuples(st.sampled_from(CHOICES), st.integers(2, 12))
    .map(lambda drawn: possible(*drawn[0], drawn[1]))
    .filter(lambda schedule: schedule is not None)
)


@pytest.mark.parametrize(("operation", "algorithm"), CHOICES)
@pytest.mark.parametrize("devices", [2, 3, 4, 6, 8, 9, 16])
def test_every_contribution_arrives_exactly_once(operation: Operation, algorithm: Algorithm, devices: int) -> None:
    schedule = possible(operation, algorithm, devices)
    if schedule is None:
        wants = {
            Algorithm.RECURSIVE_DOUBLING: devices & (devices - 1),
            Algorithm.HIERARCHICAL: devices % 2 or devices == 2,
        }
        assert wants[algorithm], "only these may refuse, and only such numbers"
        return
    assert mistakes(schedule) == []
    assert all(earlier < index for index, send in enumerate(schedule.sends) for earlier in send.after)


def test_an_all_reduce_adds_every_device_once() -> None:
    held = delivered(build(Operation.ALL_REDUCE, Algorithm.RING, 5))
    assert len(held) == 5 * 5
    assert all(contributions == {0: 1, 1: 1, 2: 1, 3: 1, 4: 1} for contributions in held.values())


def _replaced(schedule: Schedule, index: int, send: Send) -> Schedule:
    return replace(schedule, sends=(*schedule.sends[:index], send, *schedule.sends[index + 1 :]))


@settings(deadline=None)
@given(schedules, st.data())
def test_a_forgotten_dependency_is_found(schedule: Schedule, data: st.DataObject) -> None:
    """Without the last arrival of its own chunk, a send carries too little.

    One is not missed: the switch still has the sum when its owner stores it back."""
    needing = [
        (index, max(needed))
        for index, send in enumerate(schedule.sends)
        if (schedule.algorithm, send.step) != (Algorithm.IN_NETWORK, 3)
        and (
            needed := [
                e
                for e in send.after
                if (schedule.sends[e].target, schedule.sends[e].chunk) == (send.source, send.chunk)
            ]
        )
    ]
    if not needing:
        return
    index, needed = data.draw(st.sampled_from(needing))
    send = schedule.sends[index]
    assert mistakes(_replaced(schedule, index, replace(send, after=tuple(e for e in send.after if e != needed))))


@settings(deadline=None)
@given(schedules, st.data())
def test_a_send_that_does_another_thing_is_found(schedule: Schedule, data: st.DataObject) -> None:
    """Adding twice shows wherever the operation cares, and sending the wrong chunk around a ring always."""
    index = data.draw(st.integers(0, len(schedule.sends) - 1))
    send = schedule.sends[index]
    if send.reduces:
        twice = replace(schedule, sends=(*schedule.sends, replace(send, after=(*send.after, index))))
        reaches_device = send.target < schedule.devices and mistakes_matter(schedule, send)
        assert bool(mistakes(twice)) or not reaches_device
    if schedule.chunks > 1 and send.source < schedule.devices and schedule.algorithm is Algorithm.RING:
        wrong = replace(send, chunk=(send.chunk + 1) % schedule.chunks)
        assert mistakes(_replaced(schedule, index, wrong))


def mistakes_matter(schedule: Schedule, send: Send) -> bool:
    """Whether the operation says what the target of a send must end with in its chunk."""
    return schedule.operation is Operation.ALL_REDUCE or schedule.owners[send.chunk] == send.target


# ---------------------------------------------------------------- time


@settings(deadline=None, max_examples=200)
@given(schedules, st.integers(1, 10**6), st.integers(1, 10**12), st.integers(0, 10**7), st.integers(0, 10**7))
def test_the_closed_form_is_the_simulation(
    schedule: Schedule, chunk_bytes: int, rate: int, latency_fs: int, step_fs: int
) -> None:
    plan = outline(schedule.operation, schedule.algorithm, schedule.devices)
    if plan is None:
        return
    built = schedule.outline
    assert (plan.parts, plan.steps, plan.sent_chunks) == (built.parts, built.steps, built.sent_chunks)
    network = shaped_network(Shape.SWITCH, schedule.devices, Fraction(rate, 7), latency_fs)
    each_fs = serialisation_fs(chunk_bytes, Fraction(rate, 7))
    simulated = simulate(schedule, network, chunk_bytes, step_fs=step_fs)
    assert simulated.total_fs == plan.steps * (step_fs + latency_fs) + plan.slots * each_fs


@pytest.mark.parametrize("shape", [Shape.RING, Shape.SWITCH])
@pytest.mark.parametrize("devices", [2, 3, 8, 13])
def test_a_symmetric_ring_needs_its_steps_and_nothing_else(shape: Shape, devices: int) -> None:
    schedule = build(Operation.ALL_REDUCE, Algorithm.RING, devices)
    rate = Fraction(10**9)
    share = rate / 2 if shape is Shape.RING and devices > 2 else rate
    done = simulate(schedule, shaped_network(shape, devices, rate, 12345), 1001, step_fs=77)
    assert done.total_fs == 2 * (devices - 1) * (77 + 12345 + serialisation_fs(1001, share))


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_the_switch_carries_what_the_closed_form_says(devices: int) -> None:
    """Each device sends its message and its part of the sum: message x (1 + 1 / devices), in chunks of one part."""
    schedule = build(Operation.ALL_REDUCE, Algorithm.IN_NETWORK, devices)
    done = simulate(schedule, shaped_network(Shape.SWITCH, devices, Fraction(10**15), 0, adds=True), 1000)
    assert max(done.busy_fs) == (devices + 1) * 1000
    assert done.total_fs >= max(done.busy_fs)


def ticked(schedule: Schedule, network: Network, busy_fs: list[int], step_fs: int) -> int:
    """The same rules, femtosecond by femtosecond, in other words: who stands where, and what each wire is doing."""
    arrived: dict[int, int] = {}
    started: set[int] = set()
    queues: dict[int, list[tuple[int, int, int, int]]] = {w: [] for w in range(len(network.wires))}
    free = [0] * len(network.wires)
    coming: list[tuple[int, int, int, int]] = []  # (time of the head, send, place on its route, time of the tail)
    now = 0
    while len(arrived) < len(schedule.sends):
        for index, send in enumerate(schedule.sends):
            known = all(e in arrived and arrived[e] + step_fs <= now for e in send.after)
            if index not in started and known and now >= step_fs:
                started.add(index)
                coming.append((now, index, 0, 0))
        moved = True
        while moved:
            moved = False
            for head in sorted(h for h in coming if h[0] <= now):
                coming.remove(head)
                send = schedule.sends[head[1]]
                queues[network.route(send.source, send.target)[head[2]]].append(head)
            for wire, queue in queues.items():
                while queue and free[wire] <= now:
                    queue.sort()
                    _, index, place, tail = queue.pop(0)
                    free[wire] = max(now + busy_fs[wire], tail)
                    send = schedule.sends[index]
                    latency = network.wires[wire].latency_fs
                    if place + 1 == len(network.route(send.source, send.target)):
                        arrived[index] = free[wire] + latency
                    else:
                        coming.append((now + latency, index, place + 1, free[wire] + latency))
                        moved = True
        now += 1
    return max(arrived.values())


@st.composite
def random_networks(draw: st.DrawFn, devices: int) -> Network:
    """A ring both ways, so that all can be reached, and some more wires; a switch that adds behind every device."""
    rates = st.sampled_from([Fraction(10**15), Fraction(10**15, 2), Fraction(10**15, 3)])
    ends = {(d, (d + turn) % devices) for d in range(devices) for turn in (1, devices - 1)}
    ends |= draw(st.sets(st.tuples(st.integers(0, devices - 1), st.integers(0, devices - 1)), max_size=4))
    ends |= {pair for d in range(devices) for pair in ((d, devices), (devices, d))}
    wires = tuple(Wire(a, b, draw(rates), draw(st.integers(0, 3))) for a, b in sorted(ends) if a != b)
    return Network(devices, (*(f"device{d}" for d in range(devices)), "switch"), wires, devices)


@settings(deadline=None, max_examples=150)
@given(st.data(), st.sampled_from(CHOICES), st.integers(2, 5), st.integers(1, 4), st.integers(1, 3))
def test_the_simulation_equals_a_walk_tick_by_tick(
    data: st.DataObject, choice: tuple[Operation, Algorithm], devices: int, chunk_bytes: int, step_fs: int
) -> None:
    schedule = possible(*choice, devices)
    if schedule is None:
        return
    network = data.draw(random_networks(devices))
    busy = [serialisation_fs(chunk_bytes, wire.rate) for wire in network.wires]
    simulated = simulate(schedule, network, chunk_bytes, step_fs=step_fs)
    assert simulated.total_fs == ticked(schedule, network, busy, step_fs)
    hops = [number for send in schedule.sends for number in network.route(send.source, send.target)]
    assert list(simulated.busy_fs) == [hops.count(number) * busy[number] for number in range(len(network.wires))]


def test_two_trains_on_one_wire_wait_for_each_other() -> None:
    """Devices 0 and 1 send to 2 through a switch whose last wire is slow: the second follows the first."""
    wires = (Wire(0, 3, Fraction(10**15), 5), Wire(1, 3, Fraction(10**15), 5), Wire(3, 2, Fraction(10**14), 5))
    network = Network(3, ("a", "b", "c", "switch"), wires)
    sends = (Send(0, 0, 2, 0, True), Send(0, 1, 2, 0, True))
    schedule = Schedule(Operation.REDUCE_SCATTER, Algorithm.DIRECT, 3, 1, sends, (2,))
    assert simulate(schedule, network, 10).arrived_fs == (5 + 100 + 5, 5 + 200 + 5)
    assert mistakes(schedule) == []

"""Networks: routes, shapes, YAML wire by wire, and what is refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from archsim.config.errors import SpecError, UserError
from archsim.config.loading import data_root, load_spec, unsourced_numbers
from archsim.fabric.collectives import collective, collective_over
from archsim.fabric.links import LinkSpec
from archsim.fabric.operations import SCHEDULED, Algorithm, Operation
from archsim.fabric.schedule import algorithms_for
from archsim.fabric.wires import Network, Shape, TopologySpec, Wire, shaped_network

FAST, SLOW = Fraction(10**11), Fraction(10**9)
HWCONFIGS = data_root() / "hwconfigs"
LINKS = sorted((HWCONFIGS / "links").glob("*.yaml"))
TOPOLOGIES = sorted((HWCONFIGS / "topologies").glob("*.yaml"))

TWO_BOXES = """
kind: topology
name: two boxes of two
devices: 4
group: 2
switches: [left, right]
step_latency: 1 us
wires:
  - {between: ["device[01]", left], bandwidth: 100 GB/s, latency: 1 us}
  - {between: ["device[23]", right], bandwidth: 100 GB/s, latency: 1 us}
  - {between: [left, right], bandwidth: 10 GB/s, latency: 2 us}
"""


def load(tmp_path: Path, text: str) -> TopologySpec:
    file = tmp_path / "topology.yaml"
    file.write_text(text)
    return load_spec(file, TopologySpec).spec


@pytest.mark.parametrize("file", [*LINKS, *TOPOLOGIES], ids=lambda file: file.stem)
def test_every_number_of_a_preset_has_its_source(file: Path) -> None:
    loaded = load_spec(file, LinkSpec if file in LINKS else TopologySpec)  # type: ignore[type-var]
    assert unsourced_numbers(loaded) == []


@pytest.mark.parametrize("file", LINKS, ids=lambda file: file.stem)
@pytest.mark.parametrize("operation", list(Operation))
def test_every_link_does_every_operation(file: Path, operation: Operation) -> None:
    link = load_spec(file, LinkSpec).spec
    for devices in (2, 4, 8):
        time = collective(operation, devices, 2**20, link)
        assert time.total_fs == time.latency_fs + time.transfer_fs
        assert time.transfer_fs * link.payload_rate >= time.link_bytes * 10**15 / (devices - 1)


def test_routes_are_short_then_wide() -> None:
    """From 0 to 3: two ways of two wires, one of them wide; three wide wires would be longer."""
    wires = (
        Wire(0, 1, SLOW, 0), Wire(1, 3, FAST, 0),
        Wire(0, 2, FAST, 0), Wire(2, 3, FAST, 0),
    )  # fmt: skip
    assert Network(4, ("a", "b", "c", "d"), wires).route(0, 3) == (2, 3)


@pytest.mark.parametrize(
    ("shape", "devices", "wires", "longest"),
    [(Shape.SWITCH, 8, 16, 2), (Shape.RING, 8, 16, 4), (Shape.TORUS, 16, 64, 4), (Shape.MESH, 8, 56, 1)],
)
def test_shapes(shape: Shape, devices: int, wires: int, longest: int) -> None:
    network = shaped_network(shape, devices, FAST, 0)
    assert len(network.wires) == wires
    assert max(len(network.route(0, peer)) for peer in range(1, devices)) == longest
    leaving = [sum(wire.rate for wire in network.wires if wire.source == device) for device in range(devices)]
    assert leaving == [FAST] * devices


def test_neighbours_in_number_are_neighbours_on_a_torus() -> None:
    network = shaped_network(Shape.TORUS, 16, FAST, 0)
    assert all(len(network.route(device, device + 1)) == 1 for device in range(15))


def test_a_narrow_wire_between_boxes_is_the_bottleneck(tmp_path: Path) -> None:
    spec = load(tmp_path, TWO_BOXES)
    assert [spec.node_names()[w.target] for w in (spec.network().wires[i] for i in spec.network().route(0, 3))] == [
        "left", "right", "device3",
    ]  # fmt: skip
    ring = collective_over(spec, "all_reduce", 4 * 10**6, algorithm=Algorithm.RING)
    # What comes to the narrow wire overtakes it, so it is never idle between its six chunks of 10^6 bytes at 10 GB/s:
    # 1 us of software and 4 us of wires come before the first and after the last.
    assert (ring.latency_fs, ring.transfer_fs) == (5 * 10**9, 6 * 10**11)


def test_the_fastest_of_all_algorithms_is_taken(tmp_path: Path) -> None:
    spec = load(tmp_path, TWO_BOXES)
    best = collective_over(spec, "all_reduce", 4 * 10**6)
    times = []
    for algorithm in algorithms_for(Operation.ALL_REDUCE):
        if algorithm is not Algorithm.IN_NETWORK:
            times.append(collective_over(spec, "all_reduce", 4 * 10**6, algorithm=algorithm).total_fs)
    assert len(times) == len(SCHEDULED) - 1
    assert best.total_fs == min(times)


def test_boxes_are_made_use_of() -> None:
    """Two nodes: hierarchical sends an eighth of the message over each slow wire, a ring all of it over two of them."""
    spec = load_spec(HWCONFIGS / "topologies" / "h100_2x8.yaml", TopologySpec).spec
    size = 64 * 2**20
    ring, levels = (
        collective_over(spec, "all_reduce", size, algorithm=algorithm)
        for algorithm in (Algorithm.RING, Algorithm.HIERARCHICAL)
    )
    inner, outer = Fraction(450 * 10**9 * 8167, 10**4), Fraction(50 * 10**9 * 97, 100)
    least_fs = (2 * Fraction(7, 8) * size / inner + 2 * Fraction(1, 2) * (size // 8) / outer) * 10**15
    assert levels.transfer_fs == pytest.approx(float(least_fs), rel=1e-6)
    assert levels.total_fs < ring.total_fs / 4


def test_a_switch_that_adds(tmp_path: Path) -> None:
    star = TWO_BOXES.split("devices")[0] + "devices: 4\nswitches: [hub]\nadds: hub\nwires:\n"
    spec = load(tmp_path, star + '  - {between: ["device*", hub], bandwidth: 100 GB/s}\n')
    time = collective_over(spec, "all_reduce", 4 * 10**6, algorithm=Algorithm.IN_NETWORK)
    assert time.link_bytes == 5 * 10**6
    with pytest.raises(UserError, match="no switch of two boxes of two adds"):
        collective_over(load(tmp_path, TWO_BOXES), "all_reduce", 10**6, algorithm=Algorithm.IN_NETWORK)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  - {between: [left, right], bandwidth: 10 GB/s, latency: 2 us}\n",
            "",
            "device2 can't be reached from device0",
        ),
        ("[left, right], bandwidth: 10 GB/s", "[left, rigt], bandwidth: 10 GB/s", "no node is called 'rigt'.*'right'"),
        ("bandwidth: 10 GB/s", "bandwidth: 0 GB/s", "'0 GB/s' is zero"),
        ("switches: [left, right]", "switches: [left, left, right]", "'left' stands twice"),
        ("group: 2", "group: 3", "don't fall into groups of 3"),
        ("group: 2", "adds: lefty", "no switch 'lefty'"),
        (
            "latency: 2 us}",
            "latency: 2 us}\n  - {between: [device0, left], bandwidth: 1 GB/s}",
            "two wires from device0",
        ),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TWO_BOXES
    with pytest.raises(SpecError, match=message):
        load(tmp_path, TWO_BOXES.replace(old, new))


def test_what_a_network_refuses() -> None:
    with pytest.raises(UserError, match="from a to b has no bandwidth"):
        Network(2, ("a", "b"), (Wire(0, 1, Fraction(0), 0),))
    with pytest.raises(UserError, match=r"a network of 1 device .*at least 2 devices"):
        shaped_network(Shape.RING, 1, FAST, 0)
    with pytest.raises(UserError, match="b can't be reached from a"):
        Network(2, ("a", "b"), (Wire(1, 0, FAST, 0),)).route(0, 1)

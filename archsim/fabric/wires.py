"""Which nodes are joined by which wires: a network to send over, and the YAML that describes one wire by wire.

Nodes are numbered: devices first, then switches. A wire goes one way and has a bandwidth, an efficiency (what packet
headers and flow control leave of it) and a latency; two nodes that talk both ways have two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from fractions import Fraction
from math import isqrt
from typing import ClassVar, Literal

from pydantic import model_validator

from archsim.config.errors import UserError, nearest_name
from archsim.config.schema import Spec
from archsim.config.units import BytesPerSecond, Fraction01, PositiveInt, TimeFs

FS_PER_SECOND = 10**15


class Shape(StrEnum):
    """How equal devices are joined: through a switch, each to its two neighbours, each to its four neighbours on a grid
    that is closed in both directions, or each to every other.

    A device's bandwidth is all on the wire to the switch, or shared equally by the wires to its neighbours."""

    SWITCH = "switch"
    RING = "ring"
    TORUS = "torus"
    MESH = "mesh"


@dataclass(frozen=True, slots=True)
class Wire:
    """From `source` to `target`: payload bytes per second, and how long a bit is under way."""

    source: int
    target: int
    rate: Fraction
    latency_fs: int


@dataclass(frozen=True)
class Network:
    """Wires between `devices` devices and the switches that follow them; `names` of all nodes, for messages.

    Raises UserError for a wire without bandwidth, or with an end that doesn't exist."""

    devices: int
    names: tuple[str, ...]
    wires: tuple[Wire, ...]
    adder: int | None = None  # the switch that can add, if there is one that all devices hang on
    _routes: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for wire in self.wires:
            if wire.rate <= 0:
                raise UserError(
                    f"the wire from {self.names[wire.source]} to {self.names[wire.target]} has no bandwidth",
                    expected="a bandwidth above zero",
                )

    def without_latency(self) -> Network:
        """The same wires, on which nothing but bytes takes time."""
        return replace(self, wires=tuple(replace(wire, latency_fs=0) for wire in self.wires), _routes=self._routes)

    def route(self, source: int, target: int) -> tuple[int, ...]:
        """Indices of the wires from `source` to `target`: the fewest, of those the widest, then the first listed.

        Raises UserError if no way leads there."""
        known = self._routes.get((source, target))
        if known is None:
            known = self._routes[source, target] = self._shortest(source, target)
        return known

    def _shortest(self, source: int, target: int) -> tuple[int, ...]:
        ways: dict[int, tuple[int, ...]] = {source: ()}
        while target not in ways:
            longer: dict[int, tuple[int, ...]] = {}
            for index, wire in enumerate(self.wires):
                if wire.source in ways and wire.target not in ways:
                    way = (*ways[wire.source], index)
                    if wire.target not in longer or self._narrowest(way) > self._narrowest(longer[wire.target]):
                        longer[wire.target] = way
            if not longer:
                raise UserError(
                    f"{self.names[target]} can't be reached from {self.names[source]}",
                    expected="wires that lead from every device to every other",
                )
            ways = {**ways, **longer}
        return ways[target]

    def _narrowest(self, way: tuple[int, ...]) -> Fraction:
        return min(self.wires[index].rate for index in way)


def shaped_network(shape: Shape, devices: int, rate: Fraction, latency_fs: int, *, adds: bool = False) -> Network:
    """The network of `devices` equal devices with `rate` payload bytes per second and direction each.

    `latency_fs` is the way from a device to a peer, a switch between them included. Raises UserError for less than
    two devices."""
    if devices < 2:
        raise UserError(f"a network of {devices} device{'' if devices == 1 else 's'}", expected="at least 2 devices")
    names = tuple(f"device{d}" for d in range(devices))
    match shape:
        case Shape.SWITCH:
            up = (Wire(d, devices, rate, latency_fs) for d in range(devices))
            down = (Wire(devices, d, rate, 0) for d in range(devices))
            return Network(devices, (*names, "switch"), (*up, *down), devices if adds else None)
        case Shape.RING:
            return Network(devices, names, _direct_wires(devices, 1, rate, latency_fs))
        case Shape.TORUS:
            rows = max(rows for rows in range(1, isqrt(devices) + 1) if devices % rows == 0)
            return Network(devices, names, _direct_wires(devices, rows, rate, latency_fs))
        case Shape.MESH:
            pairs = ((a, b) for a in range(devices) for b in range(devices) if a != b)
            return Network(devices, names, tuple(Wire(a, b, rate / (devices - 1), latency_fs) for a, b in pairs))


def _direct_wires(devices: int, rows: int, rate: Fraction, latency_fs: int) -> tuple[Wire, ...]:
    """A torus of `rows` rows, devices numbered to and fro (a snake), so that neighbours in number are neighbours."""
    columns = devices // rows
    number = {
        (row, column): row * columns + (column if row % 2 == 0 else columns - 1 - column)
        for row in range(rows)
        for column in range(columns)
    }
    wires = []
    for (row, column), device in number.items():
        steps = ((0, 1), (0, -1), (1, 0), (-1, 0))
        peers = {number[(row + down) % rows, (column + right) % columns] for down, right in steps} - {device}
        wires += [Wire(device, peer, rate / len(peers), latency_fs) for peer in sorted(peers)]
    return tuple(wires)


# ---------------------------------------------------------------- wire by wire, in YAML


class WireSpec(Spec):
    """Wires between the nodes that two patterns match ("device*", "device[0-3]", "leaf"), one each way."""

    between: tuple[str, str]
    bandwidth: BytesPerSecond
    efficiency: Fraction01 = 1.0
    latency: TimeFs = 0
    one_way: bool = False

    @property
    def rate(self) -> Fraction:
        """Payload bytes per second and direction."""
        return self.bandwidth * Fraction(str(self.efficiency))


class TopologySpec(Spec):
    """A machine of several boxes: `devices` devices (device0, device1, ...), switches, wires.

    `group` neighbours share a box, which hierarchical collectives make use of. `step_latency` is what software adds
    to each step of a collective, `base_latency` to each collective. `adds` names a switch that all devices hang on
    and that reduces in the network."""

    kind_in_words: ClassVar[str] = "a topology"

    kind: Literal["topology"]
    name: str
    devices: PositiveInt
    switches: tuple[str, ...] = ()
    wires: tuple[WireSpec, ...]
    group: PositiveInt | None = None
    base_latency: TimeFs = 0
    step_latency: TimeFs = 0
    adds: str | None = None

    @model_validator(mode="after")
    def _check(self) -> TopologySpec:
        network = self.network()
        for device in range(1, self.devices):
            network.route(0, device)
            network.route(device, 0)
        if self.group is not None and self.devices % self.group:
            raise UserError(
                f"{self.devices} devices don't fall into groups of {self.group}", expected="equal groups of devices"
            )
        return self

    def node_names(self) -> tuple[str, ...]:
        """All nodes in the order of their numbers."""
        return (*(f"device{d}" for d in range(self.devices)), *self.switches)

    def network(self) -> Network:
        """The network that the wires make. Raises UserError for a pattern that matches nothing and for a wire twice."""
        names = self.node_names()
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"node '{twice[0]}' stands twice")
        if self.adds is not None and self.adds not in self.switches:
            raise UserError(f"there is no switch '{self.adds}'", nearest=nearest_name(self.adds, self.switches))
        wires = tuple(wire for spec in self.wires for wire in self._expanded(spec, names))
        ends = [(wire.source, wire.target) for wire in wires]
        for source, target in ends:
            if ends.count((source, target)) > 1:
                raise UserError(f"two wires from {names[source]} to {names[target]}", expected="one, with their sum")
        return Network(self.devices, names, wires, None if self.adds is None else names.index(self.adds))

    def _expanded(self, spec: WireSpec, names: tuple[str, ...]) -> Iterator[Wire]:
        sources, targets = (self._matching(pattern, names) for pattern in spec.between)
        done = set()
        for a in sources:
            for b in targets:
                if a == b or (b, a) in done:
                    continue
                done.add((a, b))
                yield Wire(a, b, spec.rate, spec.latency)
                if not spec.one_way:
                    yield Wire(b, a, spec.rate, spec.latency)

    @staticmethod
    def _matching(pattern: str, names: Iterable[str]) -> list[int]:
        names = tuple(names)
        found = [index for index, name in enumerate(names) if fnmatchcase(name, pattern)]
        if not found:
            raise UserError(f"no node is called '{pattern}'", nearest=nearest_name(pattern, names))
        return found

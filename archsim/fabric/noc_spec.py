"""What a user writes about an on-chip network: topology, router, routing, traffic, how to measure."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from archsim.config.errors import UserError
from archsim.config.schema import Spec
from archsim.config.units import ByteCount, Fraction01, FrequencyHz, PicojoulePerBit, PositiveFloat
from archsim.kernels.router_state import MAX_FLITS, MAX_VCS

MOST_NODES = 4096
MOST_CYCLES = 256
"""Longest stage or link, in cycles."""

Cycles = Annotated[int, Field(ge=0, le=MOST_CYCLES)]
Stage = Annotated[int, Field(ge=1, le=MOST_CYCLES)]
Extent = Annotated[int, Field(ge=1, le=MOST_NODES)]
NodeNumber = Annotated[int, Field(ge=0, lt=MOST_NODES)]


class Mesh(Spec):
    """Routers on a grid, a node at each; `size` by dimension. Links take `link_cycles`, a node's own link one."""

    kind: Literal["mesh"]
    size: tuple[Extent, ...]
    link_cycles: Stage = 1


class Torus(Spec):
    """A mesh whose rows and columns are closed to rings."""

    kind: Literal["torus"]
    size: tuple[Extent, ...]
    link_cycles: Stage = 1


class Ring(Spec):
    """A torus of one dimension."""

    kind: Literal["ring"]
    nodes: Annotated[int, Field(ge=2, le=MOST_NODES)]
    link_cycles: Stage = 1


class Crossbar(Spec):
    """One router with a port for each node; `link_cycles` from a node to it."""

    kind: Literal["crossbar"]
    nodes: Annotated[int, Field(ge=1, le=256)]
    link_cycles: Stage = 1


class NextHop(Spec):
    """At router `at`, packets for node `to` go to router `via`."""

    at: NodeNumber
    to: NodeNumber
    via: NodeNumber


class Graph(Spec):
    """Any network: one node per router, `links` between pairs (both directions).

    Packets go the shortest way (of several, over the link that is written first), or where `routes` sends them.
    """

    kind: Literal["graph"]
    nodes: Annotated[int, Field(ge=2, le=1024)]
    links: tuple[tuple[NodeNumber, NodeNumber], ...]
    routes: tuple[NextHop, ...] = ()
    link_cycles: Stage = 1

    @model_validator(mode="after")
    def _check(self) -> Graph:
        pairs = set()
        for a, b in self.links:
            if max(a, b) >= self.nodes:
                raise UserError(f"link [{a}, {b}] names a node that isn't there", expected=f"0 to {self.nodes - 1}")
            if a == b:
                raise UserError(f"link [{a}, {b}] joins a node to itself")
            if frozenset((a, b)) in pairs:
                raise UserError(f"link [{a}, {b}] stands twice")
            pairs.add(frozenset((a, b)))
        for hop in self.routes:
            if max(hop.at, hop.to) >= self.nodes:
                raise UserError(f"a route names node {max(hop.at, hop.to)}", expected=f"0 to {self.nodes - 1}")
            if frozenset((hop.at, hop.via)) not in pairs:
                raise UserError(f"a route at {hop.at} goes via {hop.via}, but there is no link [{hop.at}, {hop.via}]")
        return self


Topology = Annotated[Mesh | Torus | Ring | Crossbar | Graph, Field(discriminator="kind")]


class AllocatorKind(StrEnum):
    ISLIP = "islip"
    SEPARABLE = "separable"


class Allocator(Spec):
    """`islip`: outputs grant, inputs accept. `separable`: inputs choose, outputs grant."""

    kind: AllocatorKind = AllocatorKind.ISLIP
    iterations: Annotated[int, Field(ge=1, le=16)] = 1


class RouterSpec(Spec):
    """One input-queued router: buffers, stages in cycles, allocators. docs/noc_policy.md says what each does."""

    virtual_channels: Annotated[int, Field(ge=1, le=MAX_VCS)]
    buffer_flits: Annotated[int, Field(ge=1, le=1024)]
    input_speedup: Annotated[int, Field(ge=1, le=8)] = 1
    routing_cycles: Cycles = 0
    vc_alloc_cycles: Stage = 1
    switch_alloc_cycles: Stage = 1
    crossbar_cycles: Stage = 1
    credit_cycles: Cycles = 0
    wait_for_tail_credit: bool = False
    vc_allocator: Allocator = Allocator()
    switch_allocator: Allocator = Allocator()

    @model_validator(mode="after")
    def _check(self) -> RouterSpec:
        if self.input_speedup > self.virtual_channels:
            raise UserError(
                f"an input speedup of {self.input_speedup} with {self.virtual_channels} virtual channels",
                expected="at most one crossbar input per virtual channel",
            )
        return self


class Algorithm(StrEnum):
    DIMENSION_ORDER = "dimension_order"
    MINIMAL_ADAPTIVE = "minimal_adaptive"


class RoutingSpec(Spec):
    """`dateline` (torus, ring): two classes of virtual channels, so that a ring of links is no ring of waiting."""

    algorithm: Algorithm = Algorithm.DIMENSION_ORDER
    dateline: bool = True


class Pattern(StrEnum):
    """Who sends to whom. b is the number of address bits, x a coordinate, k the extent of its dimension."""

    UNIFORM = "uniform"  # any node, itself included
    UNIFORM_OTHERS = "uniform_others"
    TRANSPOSE = "transpose"  # coordinates reversed
    BIT_COMPLEMENT = "bit_complement"
    BIT_REVERSE = "bit_reverse"
    SHUFFLE = "shuffle"  # address bits rotated left
    TORNADO = "tornado"  # x + ceil(k/2) - 1 in each dimension
    NEIGHBOUR = "neighbour"  # x + 1 in each dimension
    PERMUTATION = "permutation"  # a random one
    HOTSPOT = "hotspot"  # some of the packets to `hotspots`, the others uniform


class TrafficSpec(Spec):
    """Each node creates a packet in a cycle with the probability `rates` (packets per node and cycle)."""

    pattern: Pattern = Pattern.UNIFORM
    packet_flits: Annotated[int, Field(ge=1, le=MAX_FLITS)] = 1
    rates: tuple[Fraction01, ...]
    hotspots: tuple[NodeNumber, ...] = ()
    hotspot_share: Fraction01 | None = None

    @model_validator(mode="after")
    def _check(self) -> TrafficSpec:
        if not self.rates:
            raise UserError("rates is empty", expected="at least one, in packets per node and cycle")
        if (self.pattern is Pattern.HOTSPOT) != bool(self.hotspots) or bool(self.hotspots) != bool(self.hotspot_share):
            raise UserError(
                f"pattern {self.pattern} with hotspots {list(self.hotspots)} and share {self.hotspot_share}",
                expected="hotspots and hotspot_share together with the pattern hotspot, and only with it",
            )
        return self


class Procedure(StrEnum):
    """How a load is measured: until it is steady, or as BookSim 2 does it (docs/noc_policy.md, "Measuring")."""

    STEADY = "steady"
    BOOKSIM = "booksim"


class MeasurementSpec(Spec):
    """When a point is steady, and when it is unstable.

    Samples of `sample_cycles` are taken until two in a row differ by no more than `tolerance` (warm-up), then until
    `stable_samples` in a row change what has been measured by no more than that. A point is unstable if the mean
    latency, packets under way at their age included, exceeds `latency_limit_cycles`, or if `most_samples` in all are
    not enough. `runs` measures a point so many times, with the seeds that follow each other, for mean and spread.

    The procedure `booksim` draws its packets, takes its samples and drains as BookSim 2 does, so that the same seed
    gives the same numbers. It has a fixed warm-up of `warm_up_samples`, 3 unless given. Its default there of
    `sample_cycles: 1000` makes a short measurement, which scatters; the other defaults are the same here and there.
    """

    procedure: Procedure = Procedure.STEADY
    runs: Annotated[int, Field(ge=1, le=1000)] = 1
    warm_up_samples: Annotated[int, Field(ge=1, le=100)] | None = None
    sample_cycles: Annotated[int, Field(ge=100, le=10_000_000)] = 10_000
    stable_samples: Annotated[int, Field(ge=1, le=100)] = 3
    most_samples: Annotated[int, Field(ge=2, le=1000)] = 10
    tolerance: Fraction01 = 0.05
    latency_limit_cycles: PositiveFloat = 500.0
    saturation_resolution: Fraction01 = 0.005
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 0

    @model_validator(mode="after")
    def _check(self) -> MeasurementSpec:
        if self.warm_up_samples is not None:
            if self.procedure is Procedure.STEADY:
                raise UserError(
                    "warm_up_samples with the procedure steady, whose warm-up ends by itself",
                    expected="procedure: booksim, or no warm_up_samples",
                )
            if self.warm_up_samples + self.stable_samples > self.most_samples:
                raise UserError(
                    f"{self.warm_up_samples} samples of warm-up and {self.stable_samples} stable ones "
                    f"in at most {self.most_samples}",
                    expected="most_samples of at least their sum",
                )
        return self


class NocSpec(Spec):
    """A network on a chip with its traffic. `clock` and `flit` only turn flits per cycle into bytes per second.

    `hop_energy` is of a bit through a router and over the link behind it; a device whose network this is counts it."""

    kind_in_words: ClassVar[str] = "an on-chip network"

    kind: Literal["noc"]
    name: str
    topology: Topology
    router: RouterSpec
    routing: RoutingSpec = RoutingSpec()
    traffic: TrafficSpec
    measurement: MeasurementSpec = MeasurementSpec()
    clock: FrequencyHz | None = None
    flit: ByteCount | None = None
    hop_energy: PicojoulePerBit | None = None

    @property
    def nodes(self) -> int:
        """Nodes of the network."""
        if isinstance(self.topology, Mesh | Torus):
            return math.prod(self.topology.size)
        return self.topology.nodes

    @model_validator(mode="after")
    def _check(self) -> NocSpec:
        if isinstance(self.topology, Mesh | Torus) and not (
            1 <= len(self.topology.size) <= 4 and 2 <= self.nodes <= MOST_NODES
        ):
            raise UserError(
                f"a size of {list(self.topology.size)}", expected=f"1 to 4 dimensions, 2 to {MOST_NODES} nodes"
            )
        self._check_routing()
        self._check_pattern()
        return self

    def _check_routing(self) -> None:
        adaptive = self.routing.algorithm is Algorithm.MINIMAL_ADAPTIVE
        wraps = isinstance(self.topology, Torus | Ring)
        if adaptive and isinstance(self.topology, Crossbar | Graph):
            raise UserError(
                f"{self.routing.algorithm} routing on a {self.topology.kind}", expected="a mesh, a torus or a ring"
            )
        needed = (2 if wraps and self.routing.dateline else 1) + (1 if adaptive else 0)
        if self.router.virtual_channels < needed:
            raise UserError(
                f"{self.router.virtual_channels} virtual channels for {self.routing.algorithm} routing "
                f"on a {self.topology.kind}",
                expected=f"at least {needed}: " + _why_so_many(wraps and self.routing.dateline, adaptive),
            )

    def _check_pattern(self) -> None:
        pattern, nodes = self.traffic.pattern, self.nodes
        if pattern in (Pattern.BIT_COMPLEMENT, Pattern.BIT_REVERSE, Pattern.SHUFFLE) and nodes & (nodes - 1):
            raise UserError(f"pattern {pattern} on {nodes} nodes", expected="a power of two, for it moves address bits")
        if pattern is Pattern.TRANSPOSE and not (
            isinstance(self.topology, Mesh | Torus) and self.topology.size == self.topology.size[::-1]
        ):
            raise UserError(
                f"pattern {pattern} on this topology", expected="a mesh or torus whose size is a palindrome"
            )
        if pattern in (Pattern.TORNADO, Pattern.NEIGHBOUR) and isinstance(self.topology, Crossbar | Graph):
            raise UserError(f"pattern {pattern} on a {self.topology.kind}", expected="a mesh, a torus or a ring")
        if pattern is Pattern.UNIFORM_OTHERS and nodes == 1:
            raise UserError("pattern uniform_others with one node", expected="at least two nodes")
        drawn_otherwise = (Pattern.UNIFORM_OTHERS, Pattern.HOTSPOT)
        if self.measurement.procedure is Procedure.BOOKSIM and pattern in drawn_otherwise:
            raise UserError(
                f"pattern {pattern} with the procedure booksim, which draws packets as BookSim 2 does",
                expected="pattern: uniform or one with a fixed destination for each node, or procedure: steady",
            )
        if any(node >= nodes for node in self.traffic.hotspots):
            raise UserError(f"hotspot {max(self.traffic.hotspots)} isn't there", expected=f"nodes 0 to {nodes - 1}")


def _why_so_many(dateline: bool, adaptive: bool) -> str:
    parts = ["one before and one behind the dateline"] if dateline else ["one for the way in order"]
    return " and ".join([*parts, *(["one that adapts"] if adaptive else [])])

"""Which router is wired to which, and what a router's routing function says: tables that the kernel reads."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archsim.config.errors import UserError
from archsim.fabric.noc_spec import Algorithm, Crossbar, Graph, NocSpec, Ring, Torus
from archsim.kernels.router_state import FIRST_NODE, MASK_BITS, NOWHERE

Candidate = tuple[int, int]
"""An output port and the mask of virtual channels that may be asked for there."""


@dataclass(frozen=True, eq=False)
class Wiring:
    """Routers, their links and routes.

    `link_to` (int64[routers, ports]) is the input port (`router * ports + port`) that an output feeds, FIRST_NODE - n
    for node n, or NOWHERE. `routes[router][destination]` are the candidates there; they depend on nothing else.
    `escape` is the mask of virtual channels whose routes alone must be free of deadlock (all, unless routing adapts).
    """

    nodes: int
    routers: int
    ports: int
    link_to: NDArray[np.int64]
    link_cycles: NDArray[np.int64]
    routes: tuple[tuple[tuple[Candidate, ...], ...], ...]
    escape: int

    def router_of(self, node: int) -> int:
        """The router that a node hangs on."""
        return int(np.flatnonzero((self.link_to == FIRST_NODE - node).any(axis=1))[0])

    def route_table(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The routes as the kernel reads them: int64[routers, nodes, candidates], and their classes of channels."""
        classes = sorted({mask for row in self.routes for found in row for _, mask in found})
        most = max(len(found) for row in self.routes for found in row)
        table = np.full((self.routers, self.nodes, most), -1, np.int64)
        for router, row in enumerate(self.routes):
            for destination, found in enumerate(row):
                for k, (port, mask) in enumerate(found):
                    table[router, destination, k] = port << MASK_BITS | classes.index(mask)
        return table, np.array(classes, np.int64)


def wire(spec: NocSpec) -> Wiring:
    """The wiring of a spec, not yet checked for routes that end nowhere or may deadlock (routing_check.py)."""
    topology, vcs = spec.topology, spec.router.virtual_channels
    if isinstance(topology, Crossbar):
        return _crossbar(topology, vcs)
    if isinstance(topology, Graph):
        return _graph(topology, vcs)
    size = (topology.nodes,) if isinstance(topology, Ring) else topology.size
    wraps = isinstance(topology, Torus | Ring)
    return _grid(size, wraps, topology.link_cycles, spec.routing.algorithm, spec.routing.dateline, vcs)


def _crossbar(topology: Crossbar, vcs: int) -> Wiring:
    nodes = topology.nodes
    mask = (1 << vcs) - 1
    routes = tuple(((destination, mask),) for destination in range(nodes))
    link_to = np.array([[FIRST_NODE - node for node in range(nodes)]], np.int64)
    cycles = np.full((1, nodes), topology.link_cycles, np.int64)
    return Wiring(nodes, 1, nodes, link_to, cycles, (routes,), mask)


class _Grid:
    """Coordinates of a mesh or torus: router r is at (r % size[0], r // size[0] % size[1], ...).

    Port 2d goes up in dimension d, port 2d+1 down, the last one to the node.
    """

    def __init__(self, size: Sequence[int], wraps: bool) -> None:
        self.size = tuple(size)
        self.wraps = wraps
        self.strides = [math.prod(self.size[:d]) for d in range(len(self.size))]
        self.routers = math.prod(self.size)
        self.local = 2 * len(self.size)

    def at(self, router: int) -> list[int]:
        return [router // stride % extent for stride, extent in zip(self.strides, self.size, strict=True)]

    def neighbour(self, router: int, port: int) -> int | None:
        dimension, step = port // 2, 1 - 2 * (port % 2)
        here, extent = self.at(router)[dimension], self.size[dimension]
        there = here + step
        if not 0 <= there < extent:
            if not self.wraps or extent == 1:
                return None
            there %= extent
        return router + (there - here) * self.strides[dimension]

    def minimal_ports(self, router: int, destination: int) -> list[int]:
        """Ports on a shortest way, by dimension; of two ways equally long round a ring, up from even coordinates."""
        ports = []
        for d, (here, there) in enumerate(zip(self.at(router), self.at(destination), strict=True)):
            if here == there:
                continue
            up = (there - here) % self.size[d]
            down = self.size[d] - up
            shorter_up = up < down or (up == down and here % 2 == 0)
            goes_up = shorter_up if self.wraps else there > here
            ports.append(2 * d + (0 if goes_up else 1))
        return ports

    def crosses_dateline(self, router: int, destination: int, port: int) -> bool:
        """Whether the way through `port` still has the wrap-around link of its ring before it."""
        here, there = self.at(router)[port // 2], self.at(destination)[port // 2]
        return here > there if port % 2 == 0 else here < there


def _grid(size: Sequence[int], wraps: bool, link_cycles: int, algorithm: Algorithm, dateline: bool, vcs: int) -> Wiring:
    grid = _Grid(size, wraps)
    ports = grid.local + 1
    link_to = np.full((grid.routers, ports), NOWHERE, np.int64)
    for router in range(grid.routers):
        link_to[router, grid.local] = FIRST_NODE - router
        for port in range(grid.local):
            neighbour = grid.neighbour(router, port)
            if neighbour is not None:
                link_to[router, port] = neighbour * ports + (port ^ 1)
    classes = _Classes(vcs, split=wraps and dateline, adaptive=algorithm is Algorithm.MINIMAL_ADAPTIVE)
    routes = tuple(
        tuple(_candidates(grid, classes, router, destination) for destination in range(grid.routers))
        for router in range(grid.routers)
    )
    cycles = np.full(link_to.shape, link_cycles, np.int64)
    cycles[:, grid.local] = 1  # the node sits at its router
    return Wiring(grid.routers, grid.routers, ports, link_to, cycles, routes, classes.escape)


class _Classes:
    """How virtual channels are shared out: before and behind the dateline, for escape and for adaptive routing."""

    def __init__(self, vcs: int, split: bool, adaptive: bool) -> None:
        self.all = (1 << vcs) - 1
        ordered = (2 if split else 1) if adaptive else vcs
        low = (1 << ordered // 2) - 1 if split else (1 << ordered) - 1
        self.before, self.behind = (low, ((1 << ordered) - 1) & ~low) if split else (low, low)
        self.escape = (1 << ordered) - 1
        self.adaptive = self.all & ~self.escape


def _candidates(grid: _Grid, classes: _Classes, router: int, destination: int) -> tuple[Candidate, ...]:
    if router == destination:
        return ((grid.local, classes.all),)
    ports = grid.minimal_ports(router, destination)
    first = ports[0]
    crosses = grid.wraps and grid.crosses_dateline(router, destination, first)
    ordered = (first, classes.before if crosses else classes.behind)
    if not classes.adaptive:
        return (ordered,)
    return (*((port, classes.adaptive) for port in ports), ordered)


def _graph(topology: Graph, vcs: int) -> Wiring:
    """One node per router; ports in the order of the links; the way of a `via` or the shortest, lowest port first."""
    nodes = topology.nodes
    neighbours: list[list[int]] = [[] for _ in range(nodes)]
    for a, b in topology.links:
        neighbours[a].append(b)
        neighbours[b].append(a)
    ports = max(map(len, neighbours)) + 1
    link_to = np.full((nodes, ports), NOWHERE, np.int64)
    for router, others in enumerate(neighbours):
        link_to[router, ports - 1] = FIRST_NODE - router
        for port, other in enumerate(others):
            link_to[router, port] = other * ports + neighbours[other].index(router)
    mask = (1 << vcs) - 1
    steps = [_steps_to(neighbours, destination) for destination in range(nodes)]
    via = {(hop.at, hop.to): hop.via for hop in topology.routes}
    routes = tuple(
        tuple(
            ((ports - 1 if router == destination else _port(neighbours, steps, via, router, destination), mask),)
            for destination in range(nodes)
        )
        for router in range(nodes)
    )
    cycles = np.full(link_to.shape, topology.link_cycles, np.int64)
    cycles[:, ports - 1] = 1
    return Wiring(nodes, nodes, ports, link_to, cycles, routes, mask)


def _port(
    neighbours: list[list[int]], steps: list[list[int]], via: dict[tuple[int, int], int], router: int, destination: int
) -> int:
    chosen = via.get((router, destination))
    if chosen is not None:
        return neighbours[router].index(chosen)
    distance = steps[destination]
    if distance[router] < 0:
        raise UserError(
            f"node {destination} can't be reached from node {router}",
            expected="topology.links that connect all nodes",
        )
    return next(port for port, other in enumerate(neighbours[router]) if distance[other] == distance[router] - 1)


def _steps_to(neighbours: list[list[int]], destination: int) -> list[int]:
    """Hops from every router to `destination`, -1 where there is no way."""
    steps = [-1] * len(neighbours)
    steps[destination] = 0
    waiting = deque([destination])
    while waiting:
        router = waiting.popleft()
        for other in neighbours[router]:
            if steps[other] < 0:
                steps[other] = steps[router] + 1
                waiting.append(other)
    return steps

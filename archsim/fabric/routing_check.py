"""What a route table must not do: lead nowhere, lead in a circle, or let packets wait for each other in a circle.

The test for deadlock is Dally and Seitz's (1987): the graph of "holds this channel, may ask for that one" has no cycle.
Where routing adapts it is Duato's (1993): that graph of the escape channels has none, with the dependencies that pass
through adaptive channels added, and an escape channel can be asked for everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from archsim.config.errors import UserError
from archsim.fabric.topology import Wiring
from archsim.kernels.router_state import FIRST_NODE

Channel = tuple[int, int, int]
"""Router, output port, class of virtual channels."""


def check_routes(wiring: Wiring) -> None:
    """Raises UserError for a route that ends nowhere, runs in a circle or may deadlock."""
    routes = _Routes(wiring)
    for destination in range(wiring.nodes):
        routes.check_arrival(destination)
    cycle = _find_cycle(routes.dependencies)
    if cycle is not None:
        way = " -> ".join(str(router) for router, _, _ in [*cycle, cycle[0]])
        raise UserError(
            f"these routes may deadlock: packets on the links between routers {way} can wait for each other",
            expected="routing.dateline: true on a torus or ring, or routes whose links have an order",
        )


class _Routes:
    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        ports = wiring.ports
        self._next = [
            [int(target) // ports if target >= 0 else int(target) for target in row] for row in wiring.link_to.tolist()
        ]

    def hops(self, router: int, destination: int, mask: int) -> Iterable[tuple[int, int, int]]:
        """(port, next router, virtual channels) of the candidates that use any of `mask`."""
        for port, vcs in self._wiring.routes[router][destination]:
            following = self._next[router][port]
            if following >= 0 and vcs & mask:
                yield port, following, vcs & mask

    def check_arrival(self, destination: int) -> None:
        """From every router, every way to `destination` ends there."""
        arrived = FIRST_NODE - destination
        done: set[int] = set()
        for start in range(self._wiring.routers):
            way: list[int] = []
            self._walk(start, destination, arrived, way, done)

    def _walk(self, start: int, destination: int, arrived: int, way: list[int], done: set[int]) -> None:
        pending = [(start, iter(self._targets(start, destination)))] if start not in done else []
        way.append(start)
        while pending:
            router, targets = pending[-1]
            target = next(targets, None)
            if target is None:
                done.add(router)
                pending.pop()
                way.pop()
            elif target == arrived:
                continue
            elif target < 0:
                raise UserError(f"packets for node {destination} are sent off the network at router {router}")
            elif target in way:
                circle = " -> ".join(map(str, [*way[way.index(target) :], target]))
                raise UserError(
                    f"node {destination} can't be reached from router {start}: packets go round {circle}",
                    expected="routes that lead to their destination",
                )
            elif target not in done:
                way.append(target)
                pending.append((target, iter(self._targets(target, destination))))

    def _targets(self, router: int, destination: int) -> list[int]:
        return [self._next[router][port] for port, _ in self._wiring.routes[router][destination]]

    @cached_property
    def _classes(self) -> list[int]:
        """Virtual channels that every candidate names together or not at all: masks, one per class."""
        classes = [self._wiring.escape]
        for mask in {vcs for row in self._wiring.routes for found in row for _, vcs in found}:
            classes = [part for known in classes for part in (known & mask, known & ~mask) if part]
        return classes

    @cached_property
    def dependencies(self) -> Mapping[Channel, set[Channel]]:
        """From each escape channel to those that a packet which holds it may ask for next."""
        wiring = self._wiring
        classes = list(enumerate(self._classes))
        full = (1 << 62) - 1
        adapts = any(vcs & ~wiring.escape for row in wiring.routes for found in row for _, vcs in found[:1])
        graph: dict[Channel, set[Channel]] = {}
        for destination in range(wiring.nodes):
            asked = [
                {
                    (router, port, number)
                    for port, _, vcs in self.hops(router, destination, wiring.escape)
                    for number, mask in classes
                    if vcs & mask
                }
                for router in range(wiring.routers)
            ]
            for router in range(wiring.routers):
                for port, following, vcs in self.hops(router, destination, wiring.escape):
                    reached = self._reachable(following, destination, full & ~wiring.escape) if adapts else {following}
                    wanted = set().union(*(asked[other] for other in reached))
                    for number, mask in classes:
                        if vcs & mask:
                            graph.setdefault((router, port, number), set()).update(wanted)
        return graph

    def _reachable(self, start: int, destination: int, mask: int) -> set[int]:
        """Routers that a packet may come to over channels of `mask`."""
        found, pending = {start}, [start]
        while pending:
            for _, following, _ in self.hops(pending.pop(), destination, mask):
                if following not in found:
                    found.add(following)
                    pending.append(following)
        return found


def _find_cycle(graph: Mapping[Channel, set[Channel]]) -> list[Channel] | None:
    """A cycle of a directed graph, or None."""
    done: set[Channel] = set()
    for start in graph:
        if start in done:
            continue
        way = {start: None}  # ordered
        pending = [(start, iter(graph[start]))]
        while pending:
            channel, targets = pending[-1]
            target = next(targets, None)
            if target is None:
                done.add(channel)
                pending.pop()
                del way[channel]
            elif target in way:
                names = list(way)
                return names[names.index(target) :]
            elif target not in done:
                way[target] = None
                pending.append((target, iter(graph.get(target, ()))))
    return None

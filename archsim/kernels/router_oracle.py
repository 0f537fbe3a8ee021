"""docs/noc_policy.md, cycle by cycle in plain Python: what the kernel is compared with, bit for bit.

Nothing is shared with the kernel but the sizes: every router, port and channel is visited in every cycle, links are
lists by cycle of arrival, and an arbiter is a search round a circle.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from archsim.kernels.router_state import EJECT, HOP, INJECT, Network

Port = tuple[int, int]
"""Router and port; (-1, node) is a node."""


class Flit(NamedTuple):
    packet: int
    index: int
    is_tail: bool


@dataclass
class Lane:
    """A virtual channel of an input: its flits, and how far its packet has come."""

    flits: deque[Flit] = field(default_factory=deque)
    state: str = "idle"
    ready: int = 0
    taken: tuple[int, int] = (-1, -1)


@dataclass
class Outlet:
    """What an output knows of the buffers behind it."""

    credits: list[int]
    owned: list[bool]
    tail_sent: list[bool]


@dataclass
class Source:
    """A node: the packets it has to send."""

    queue: deque[int] = field(default_factory=deque)
    index: int = 0
    vc: int = -1
    last_vc: int = -1


@dataclass
class OracleRun:
    """`entered` and `delivered` by packet (-1: not yet); the log's rows as the kernel's, in order of cycle and kind."""

    entered: list[int]
    delivered: list[int]
    log: list[tuple[int, ...]] = field(default_factory=list)
    crossed: int = 0
    linked: int = 0
    vc_grants: int = 0


class RouterOracle:
    """A network, simulated cycle by cycle.

    Args:
        q: sizes and stages.
        links: where each output leads: an input (router, port), or (-1, node).
        link_cycles: of each output.
        routes: by (router, destination), the candidates (port, virtual channels).
        packets: (created, source, destination, flits), sorted by cycle.
    """

    def __init__(
        self,
        q: Network,
        links: Mapping[Port, Port],
        link_cycles: Mapping[Port, int],
        routes: Mapping[tuple[int, int], Sequence[tuple[int, Sequence[int]]]],
        packets: Sequence[tuple[int, int, int, int]],
    ) -> None:
        self.q, self.links, self.link_cycles, self.routes, self.packets = q, links, link_cycles, routes, packets
        self.feeder = {target: output for output, target in links.items() if target[0] >= 0}
        self.node_port = {target[1]: output for output, target in links.items() if target[0] < 0}
        self.lanes = {(r, p, v): Lane() for r, p in links for v in range(q.vcs)}
        sources: list[Port] = [(-1, node) for node in range(q.nodes)]
        self.outlets = {
            output: Outlet([q.depth] * q.vcs, [False] * q.vcs, [False] * q.vcs) for output in [*links, *sources]
        }
        self.sources = [Source() for _ in range(q.nodes)]
        self.arriving: dict[int, list[tuple[str, Port, int, Flit | None]]] = defaultdict(list)
        self.pointers: dict[tuple[object, ...], int] = defaultdict(int)
        self.turns = {(r, p, s): s for r, p in links for s in range(q.input_speedup)}
        self.run_so_far = OracleRun([-1] * len(packets), [-1] * len(packets))
        self.created = 0

    def run(self, until: int) -> OracleRun:
        """Simulate the cycles 0 to `until` - 1."""
        for now in range(until):
            self._receive(now)
            self._create(now)
            for node, source in enumerate(self.sources):
                self._send(node, source, now)
            for router in range(self.q.routers):
                bids = self._bids(router, now)
                self._allocate_channels(router, now)
                self._allocate_switch(router, bids, now)
        self.run_so_far.log.sort()
        return self.run_so_far

    # -- step 1

    def _receive(self, now: int) -> None:
        for kind, place, vc, flit in self.arriving.pop(now, ()):
            if kind == "credit":
                self._take_credit(place, vc)
            elif kind == "flit":
                assert flit is not None
                self._enter((*place, vc), flit, now)
            else:
                assert flit is not None
                self._eject(place, vc, flit, now)

    def _take_credit(self, output: Port, vc: int) -> None:
        outlet = self.outlets[output]
        outlet.credits[vc] += 1
        assert outlet.credits[vc] <= self.q.depth
        if self.q.wait_for_tail_credit and outlet.tail_sent[vc] and outlet.credits[vc] == self.q.depth:
            outlet.owned[vc] = outlet.tail_sent[vc] = False

    def _enter(self, place: tuple[int, int, int], flit: Flit, now: int) -> None:
        lane = self.lanes[place]
        lane.flits.append(flit)
        assert len(lane.flits) <= self.q.depth
        if lane.state == "idle":
            self._begin(lane, now)
        elif lane.state == "active" and len(lane.flits) == 1:
            lane.ready = now + self.q.switch_alloc_cycles - 1

    def _begin(self, lane: Lane, since: int) -> None:
        assert lane.flits[0].index == 0
        lane.state = "waiting"
        lane.ready = since + self.q.routing_cycles + self.q.vc_alloc_cycles - 1

    def _eject(self, output: Port, vc: int, flit: Flit, now: int) -> None:
        if flit.is_tail:
            self.run_so_far.delivered[flit.packet] = now
        self._later(now + 1 + self.link_cycles[output] + self.q.credit_cycles, "credit", output, vc)
        self._log(now, EJECT, self._number(output, vc), self.links[output][1], flit)

    # -- steps 2 and 3

    def _create(self, now: int) -> None:
        while self.created < len(self.packets) and self.packets[self.created][0] <= now:
            self.sources[self.packets[self.created][1]].queue.append(self.created)
            self.created += 1

    def _send(self, node: int, source: Source, now: int) -> None:
        if not source.queue:
            return
        outlet = self.outlets[-1, node]
        if source.vc < 0:
            order = [(source.last_vc + 1 + k) % self.q.vcs for k in range(self.q.vcs)]
            free = [vc for vc in order if not outlet.owned[vc] and outlet.credits[vc]]
            if not free:
                return
            source.vc = source.last_vc = free[0]
            outlet.owned[source.vc], outlet.tail_sent[source.vc] = True, False
        if not outlet.credits[source.vc]:
            return
        packet, vc = source.queue[0], source.vc
        flit = Flit(packet, source.index, source.index + 1 == self.packets[packet][3])
        outlet.credits[vc] -= 1
        port = self.node_port[node]
        self._later(now + 1 + self.link_cycles[port], "flit", port, vc, flit)
        self._log(now, INJECT, node, self._number((-1, node), vc), flit)
        if flit.index == 0:
            self.run_so_far.entered[packet] = now
        source.index += 1
        if flit.is_tail:
            self._end(outlet, vc)
            source.queue.popleft()
            source.index, source.vc = 0, -1

    def _end(self, outlet: Outlet, vc: int) -> None:
        outlet.tail_sent[vc] = True
        if not self.q.wait_for_tail_credit:
            outlet.owned[vc] = False

    # -- step 4

    def _ports(self, router: int) -> Iterable[int]:
        return [port for port in range(self.q.ports) if (router, port) in self.links]

    def _allocate_channels(self, router: int, now: int) -> None:
        q = self.q
        asking: dict[int, set[int]] = {}
        for port in self._ports(router):
            for vc in range(q.vcs):
                lane = self.lanes[router, port, vc]
                if lane.state == "waiting" and lane.ready <= now:
                    destination = self.packets[lane.flits[0].packet][2]
                    asking[port * q.vcs + vc] = {
                        out * q.vcs + v
                        for out, vcs in self.routes[router, destination]
                        for v in vcs
                        if not self.outlets[router, out].owned[v]
                    }
        size = q.ports * q.vcs
        matched = self._match("vc", router, asking, size, size, q.vc_iterations, bool(q.vc_separable))
        for asker, channel in matched.items():
            lane = self.lanes[router, asker // q.vcs, asker % q.vcs]
            out, vc = divmod(channel, q.vcs)
            outlet = self.outlets[router, out]
            assert not outlet.owned[vc]
            outlet.owned[vc], outlet.tail_sent[vc] = True, False
            lane.state, lane.taken, lane.ready = "active", (out, vc), now + q.switch_alloc_cycles
            self.run_so_far.vc_grants += 1

    def _bids(self, router: int, now: int) -> dict[tuple[int, int], int]:
        """By crossbar input and output, the virtual channel that bids; before channels are allocated this cycle."""
        q = self.q
        bids: dict[tuple[int, int], int] = {}
        for port in self._ports(router):
            for part in range(q.input_speedup):
                turn = self.turns[router, port, part]
                for k in range(q.vcs):
                    vc = (turn + k) % q.vcs
                    lane = self.lanes[router, port, vc]
                    if vc % q.input_speedup != part or lane.state != "active" or not lane.flits or lane.ready > now:
                        continue
                    out, next_vc = lane.taken
                    if self.outlets[router, out].credits[next_vc]:
                        bids.setdefault((port * q.input_speedup + part, out), vc)
        return bids

    def _allocate_switch(self, router: int, bids: Mapping[tuple[int, int], int], now: int) -> None:
        q = self.q
        asking: dict[int, set[int]] = defaultdict(set)
        for crossbar_input, out in bids:
            asking[crossbar_input].add(out)
        size = q.ports * q.input_speedup
        matched = self._match("switch", router, asking, size, q.ports, q.switch_iterations, bool(q.switch_separable))
        for crossbar_input, out in matched.items():
            port, part = divmod(crossbar_input, q.input_speedup)
            vc = bids[crossbar_input, out]
            self.turns[router, port, part] = (vc + q.input_speedup) % q.vcs
            self._cross(router, port, vc, now)

    def _match(
        self, name: str, router: int, asking: Mapping[int, set[int]], askers: int, granters: int, iterations: int,
        separable: bool,
    ) -> dict[int, int]:  # fmt: skip
        """Askers to granters, one each, by rotating pointers that the first iteration moves."""

        def next_behind(pointer: tuple[object, ...], among: Iterable[int], size: int) -> int:
            return min(among, key=lambda number: (number - self.pointers[pointer]) % size)

        matched: dict[int, int] = {}
        for iteration in range(iterations):
            taken = set(matched.values())
            wishes = {asker: wanted - taken for asker, wanted in asking.items() if asker not in matched}
            offers: dict[int, set[int]] = defaultdict(set)
            if separable:
                for asker, wanted in wishes.items():
                    if wanted:
                        offers[next_behind((name, router, "asker", asker), wanted, granters)].add(asker)
                pairs = [
                    (next_behind((name, router, "granter", granter), of, askers), granter)
                    for granter, of in offers.items()
                ]
            else:
                for granter in {granter for wanted in wishes.values() for granter in wanted}:
                    of = [asker for asker, wanted in wishes.items() if granter in wanted]
                    offers[next_behind((name, router, "granter", granter), of, askers)].add(granter)
                pairs = [
                    (asker, next_behind((name, router, "asker", asker), of, granters)) for asker, of in offers.items()
                ]
            for asker, granter in pairs:
                matched[asker] = granter
                if iteration == 0:
                    self.pointers[name, router, "granter", granter] = (asker + 1) % askers
                    self.pointers[name, router, "asker", asker] = (granter + 1) % granters
        return matched

    def _cross(self, router: int, port: int, vc: int, now: int) -> None:
        lane = self.lanes[router, port, vc]
        flit = lane.flits.popleft()
        output, next_vc = (router, lane.taken[0]), lane.taken[1]
        outlet = self.outlets[output]
        outlet.credits[next_vc] -= 1
        self.run_so_far.crossed += 1
        arrival = now + 1 + self.q.crossbar_cycles + self.link_cycles[output]
        target = self.links[output]
        if target[0] >= 0:
            self.run_so_far.linked += 1
            self._later(arrival, "flit", target, next_vc, flit)
        else:
            self._later(arrival, "eject", output, next_vc, flit)
        self._log(now, HOP, self._number((router, port), vc), self._number(output, next_vc), flit)
        feeder = self.feeder.get((router, port))
        if feeder is None:
            node = self.links[router, port][1]
            self._later(now + 1 + self.link_cycles[router, port], "credit", (-1, node), vc)
        else:
            self._later(now + 1 + self.link_cycles[feeder] + self.q.credit_cycles, "credit", feeder, vc)
        if flit.is_tail:
            self._end(outlet, next_vc)
            lane.state = "idle"
            if lane.flits:
                self._begin(lane, now + 1)
        else:
            lane.ready = now + self.q.switch_alloc_cycles

    # -- bookkeeping

    def _later(self, cycle: int, kind: str, place: Port, vc: int, flit: Flit | None = None) -> None:
        self.arriving[cycle].append((kind, place, vc, flit))

    def _number(self, output: Port, vc: int) -> int:
        """A channel's number as the kernel writes it."""
        q = self.q
        router, port = output
        return ((q.sources + port if router < 0 else (router << q.port_bits) + port) << q.vc_bits) + vc

    def _log(self, now: int, kind: int, came: int, went: int, flit: Flit) -> None:
        self.run_so_far.log.append((now, int(kind), came, went, flit.packet, flit.index))

"""A network of routers, ready to run: packets in, delivery cycles out.

network = build_network(spec)
delivery = network.deliver(packets)      # int64[n, 4]: created, source, destination, flits
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from archsim.config.errors import UserError
from archsim.fabric.noc_spec import AllocatorKind, NocSpec
from archsim.fabric.routing_check import check_routes
from archsim.fabric.topology import Wiring, wire
from archsim.kernels import router_state as layout
from archsim.kernels.router import advance
from archsim.kernels.router_layout import lay_out
from archsim.kernels.router_state import Network, crossbar_tables, new_state

Ints = NDArray[np.int64]

PATIENCE_CYCLES = 100_000
"""Cycles without any move after which waiting flits are taken for stuck."""
_NO_LOG = np.zeros((0, layout.LOG_COLUMNS), np.int64)


class NoProgressError(RuntimeError):
    """Flits wait and none moves: a bug, for routes that may deadlock are refused beforehand."""


@dataclass(frozen=True)
class NetworkCounts:
    """What happened since the network was made. `crossed` counts a flit per router, `linked` per router-router link."""

    cycles: int
    injected_flits: int
    ejected_flits: int
    crossed_flits: int
    linked_flits: int
    vc_grants: int


@dataclass(frozen=True, eq=False)
class Delivery:
    """Per packet, in the order given: the cycle in which its head left the source, and in which its tail arrived."""

    entered: Ints
    delivered: Ints


class Advance(Protocol):
    """The kernel's signature: what tests may put another implementation into."""

    def __call__(
        self, net: Ints, q: Network, state: Ints, packets: Ints, times: Ints, log: Ints, until: int
    ) -> None: ...


@dataclass(frozen=True, eq=False)
class RouterNetwork:
    """Links, routes and sizes of a network, checked. Holds no state: `start` gives a run."""

    spec: NocSpec
    wiring: Wiring
    network: Network
    tables: Ints

    def start(self, log_rows: int = 0) -> NetworkRun:
        """An empty network at cycle 0, with room for `log_rows` moves of flits in its log."""
        return NetworkRun(self, log_rows)

    def deliver(self, packets: Ints) -> Delivery:
        """Run until all packets have arrived. Raises UserError for packets that can't be sent."""
        run = self.start()
        order = run.add(packets)
        run.advance()
        times = np.empty_like(run.times)
        times[order] = run.times
        return Delivery(times[:, layout.ENTERED], times[:, layout.DELIVERED])


class NetworkRun:
    """A network with packets in it. Packets may be added at any time, if not created before `now`."""

    def __init__(self, network: RouterNetwork, log_rows: int = 0) -> None:
        self._network = network
        self.state = new_state(network.network, network.tables)
        self._packets = np.zeros((0, 4), np.int64)  # with room behind the first `_count`
        self._times = np.zeros((0, 3), np.int64)
        self._count = 0
        self._log = np.zeros((log_rows, layout.LOG_COLUMNS), np.int64) if log_rows else _NO_LOG

    @property
    def nodes(self) -> int:
        """Nodes of the network."""
        return self._network.network.nodes

    @property
    def packets(self) -> Ints:
        """What was added so far: int64[n, 4]."""
        return self._packets[: self._count]

    @property
    def times(self) -> Ints:
        """Of each packet, when its head left the source and when its tail arrived (-1: not yet): int64[n, 3]."""
        return self._times[: self._count]

    @property
    def now(self) -> int:
        """First cycle not yet done."""
        return int(self.state[layout.NOW])

    @property
    def in_flight(self) -> int:
        """Packets created and not yet delivered."""
        return int(self.state[layout.IN_FLIGHT])

    @property
    def idle(self) -> NDArray[np.bool_]:
        """Of each node, whether it has nothing (more) to send."""
        q = self._network.network
        heads = q.sources_at + (np.arange(q.nodes) << layout.SOURCE_BITS) + layout.QUEUE_HEAD
        return np.asarray(self.state[heads] < 0)

    @property
    def log(self) -> Ints:
        """Moves of flits so far: cycle, kind, where from, virtual channel taken, packet, flit of the packet."""
        return self._log[: int(self.state[layout.LOG_LENGTH])]

    @property
    def counts(self) -> NetworkCounts:
        """Counts since the start."""
        registers = (layout.INJECTED, layout.EJECTED, layout.CROSSED, layout.LINKED, layout.VC_GRANTS)
        return NetworkCounts(self.now, *(int(self.state[register]) for register in registers))

    def add(self, packets: Ints) -> Ints:
        """Add packets, int64[n, 4]: created, source, destination, flits.

        Returns the order in which they were added (by cycle; as given within one): row `i` of what was added is
        `packets[order[i]]`. Raises UserError if one can't be sent.
        """
        packets = np.ascontiguousarray(packets, np.int64)
        self._check(packets)
        created = packets[:, layout.CREATED]
        if (created[1:] >= created[:-1]).all():
            order = np.arange(len(packets))
        else:
            order = np.argsort(created, kind="stable")
            packets = packets[order]
        after = self._count + len(packets)
        self._make_room(after)
        self._packets[self._count : after] = packets
        self._times[self._count : after] = -1
        self._count = after
        return order

    def write(self, most: int, rows: Callable[[Ints], int]) -> None:
        """Add packets that are known to be fit to send, in order, without a copy.

        Args:
            most: how many they may be.
            rows: writes them to the head of an int64[most, 4] and returns how many; none of them was created before
                the one added last, or before `now`.
        """
        self._make_room(self._count + most)
        after = self._count + rows(self._packets[self._count : self._count + most])
        self._times[self._count : after] = -1
        self._count = after

    def _make_room(self, rows: int) -> None:
        """Buffers at least double, so that adding packets in many pieces takes time in proportion to their number."""
        if rows <= len(self._packets):
            return
        room = max(rows, 2 * len(self._packets))
        for name, columns in (("_packets", 4), ("_times", 3)):
            buffer = np.empty((room, columns), np.int64)
            buffer[: self._count] = getattr(self, name)[: self._count]
            setattr(self, name, buffer)

    def _check(self, packets: Ints) -> None:
        if packets.ndim != 2 or packets.shape[1] != 4:
            raise UserError(f"packets of shape {packets.shape}", expected="(n, 4): created, source, destination, flits")
        if not len(packets):
            return
        for column in (layout.SOURCE, layout.DESTINATION):
            if packets[:, column].min() < 0 or packets[:, column].max() >= self.nodes:
                raise UserError("a packet from or to a node that isn't there", expected=f"nodes 0 to {self.nodes - 1}")
        earliest = max(self.now, int(self.packets[-1, layout.CREATED]) if self._count else 0)
        if packets[:, layout.CREATED].min() < earliest:
            raise UserError(
                f"a packet of cycle {packets[:, layout.CREATED].min()}", expected=f"cycle {earliest} or later"
            )
        if packets[:, layout.FLITS].min() < 1 or packets[:, layout.FLITS].max() > layout.MAX_FLITS:
            raise UserError("a packet with too few or too many flits", expected=f"1 to {layout.MAX_FLITS}")

    def advance(self, until: int | None = None, kernel: Advance = advance) -> None:
        """Run to cycle `until`, or until the network is empty. Raises NoProgressError if flits wait for ever."""
        network = self._network
        end = int(layout.NEVER) if until is None else until
        kernel(network.tables, network.network, self.state, self.packets, self.times, self._log, end)
        if self.state[layout.STUCK]:
            raise NoProgressError(
                f"{self.in_flight} packets wait and nothing has moved since cycle {self.state[layout.LAST_MOVE]}"
            )
        if until is not None:
            self.state[layout.NOW] = max(until, self.now)  # an empty network has stopped before


def build_network(spec: NocSpec) -> RouterNetwork:
    """Wire a network up and check its routes. Raises UserError for an unreachable node or a possible deadlock."""
    wiring = wire(spec)
    check_routes(wiring)
    return assemble(spec, wiring)


def assemble(spec: NocSpec, wiring: Wiring) -> RouterNetwork:
    """The tables of a wiring, unchecked."""
    router = spec.router
    routes, classes = wiring.route_table()
    network = Network(
        nodes=wiring.nodes,
        routers=wiring.routers,
        ports=wiring.ports,
        vcs=router.virtual_channels,
        depth=router.buffer_flits,
        input_speedup=router.input_speedup,
        routing_cycles=router.routing_cycles,
        vc_alloc_cycles=router.vc_alloc_cycles,
        switch_alloc_cycles=router.switch_alloc_cycles,
        crossbar_cycles=router.crossbar_cycles,
        credit_cycles=router.credit_cycles,
        wait_for_tail_credit=int(router.wait_for_tail_credit),
        vc_separable=int(router.vc_allocator.kind is AllocatorKind.SEPARABLE),
        vc_iterations=router.vc_allocator.iterations,
        switch_separable=int(router.switch_allocator.kind is AllocatorKind.SEPARABLE),
        switch_iterations=router.switch_allocator.iterations,
        candidates=routes.shape[2],
        classes=len(classes),
        patience=PATIENCE_CYCLES,
    )
    network = lay_out(network, int(wiring.link_cycles.max()))
    return RouterNetwork(spec, wiring, network, _tables(network, wiring, routes, classes))


def _tables(q: Network, wiring: Wiring, routes: Ints, classes: Ints) -> Ints:
    outputs = np.full((q.outputs, 2), (layout.NOWHERE, 0), np.int64)
    inputs = np.full((q.sources, 2), (layout.NOWHERE, 0), np.int64)
    for router, port in np.ndindex(wiring.link_to.shape):
        output = (router << q.port_bits) + port
        target, cycles = int(wiring.link_to[router, port]), int(wiring.link_cycles[router, port])
        if target >= 0:
            fed = (target // wiring.ports << q.port_bits) + target % wiring.ports
            outputs[output] = fed, cycles
            inputs[fed] = output, cycles + q.credit_cycles
        elif target != layout.NOWHERE:
            # A node hangs on one port: what it sends comes in there, and it looks at its credits at once.
            source = q.sources + layout.FIRST_NODE - target
            outputs[output] = target, cycles
            outputs[source] = output, cycles
            inputs[output] = source, cycles
    tables = np.zeros(q.table_length, np.int64)
    used = np.concatenate([outputs.ravel(), inputs.ravel(), classes, crossbar_tables(q), routes.ravel()])
    tables[: len(used)] = used  # a room may be larger than the network
    return tables

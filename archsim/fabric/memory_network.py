"""The on-chip network between a device's memory channels and its engines: what it sustains and how long a read takes.

Nothing of that is typed in. Every memory channel sends lines to all engines, evenly, and every line's request comes the
other way; the router kernel moves them flit by flit (docs/noc_policy.md, "Between memory and engines").
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from archsim.compute.arithmetic import FS_PER_SECOND
from archsim.config.errors import UserError
from archsim.config.schema import Spec
from archsim.config.units import ByteCount
from archsim.fabric.noc_spec import NocSpec, NodeNumber
from archsim.fabric.topology import Wiring, wire
from archsim.kernels.router_state import DELIVERED, ENTERED, FIRST_NODE, MAX_FLITS

if TYPE_CHECKING:
    from archsim.fabric.noc import RouterNetwork

Ints = NDArray[np.int64]

LEAST_CYCLES = 4000
"""A measurement lasts at least so long, so that filling and draining the network are a small part of it."""
MOST_PAIRS = 100_000
"""Of channel and engine nodes: every way between two of them is looked at."""
APART_CYCLES = 100_000
"""Between packets that shall not meet. The kernel skips cycles in which nothing happens."""


class MemoryNetworkSpec(Spec):
    """The on-chip network between memory channels and engines: a `noc` with its `clock` and `flit`, and who sits where.

    `channels` are the nodes of the memory: its channels are dealt over them in turn. `engines` are the nodes that read;
    without it, all others. A read of `packet` bytes (a burst, a cache line) is `header_flits` and as many flits as its
    bytes take, its request one flit (or the header's, if that is longer). The traffic of the `noc` is not used."""

    noc: NocSpec
    channels: tuple[NodeNumber, ...]
    engines: tuple[NodeNumber, ...] | None = None
    packet: ByteCount
    header_flits: Annotated[int, Field(ge=0, le=64)] = 1

    @property
    def engine_nodes(self) -> tuple[int, ...]:
        """Where engines are: as said, else wherever no memory is."""
        if self.engines is not None:
            return self.engines
        taken = frozenset(self.channels)
        return tuple([node for node in range(self.noc.nodes) if node not in taken])

    @property
    def data_flits(self) -> int:
        """Flits of a read's answer."""
        return self.header_flits + -(-self.packet // self.flit_bytes)

    @property
    def request_flits(self) -> int:
        """Flits of a read's request."""
        return max(1, self.header_flits)

    @property
    def clock_hz(self) -> int:
        """Cycles of the network in a second."""
        assert self.noc.clock is not None, "checked when the network was read"
        return int(self.noc.clock)

    @property
    def flit_bytes(self) -> int:
        """Bytes of a flit: what a link moves in a cycle."""
        assert self.noc.flit is not None, "checked when the network was read"
        return self.noc.flit

    @model_validator(mode="after")
    def _check(self) -> MemoryNetworkSpec:
        missing = [name for name in ("clock", "flit") if getattr(self.noc, name) is None]
        if missing:
            raise UserError(
                f"{self.noc.name} has no {' and no '.join(missing)}",
                expected="noc: {base: ..., clock: 2 GHz, flit: 64 B}, to turn flits per cycle into bytes per second",
            )
        self._check_nodes()
        pairs = len(self.channels) * len(self.engine_nodes)
        if pairs > MOST_PAIRS:
            raise UserError(
                f"{len(self.channels)} nodes with channels and {len(self.engine_nodes)} engines are {pairs} ways",
                expected=f"at most {MOST_PAIRS}: fewer, wider nodes",
            )
        if self.data_flits > MAX_FLITS:
            raise UserError(f"a packet of {self.data_flits} flits", expected=f"at most {MAX_FLITS}")
        _checked_wiring(self.noc)
        return self

    def _check_nodes(self) -> None:
        for name, nodes in (("channels", self.channels), ("engines", self.engine_nodes)):
            if not nodes:
                raise UserError(f"no node is one of {name}", expected="at least one")
            beyond = [node for node in nodes if node >= self.noc.nodes]
            if beyond:
                raise UserError(
                    f"{name} names node {beyond[0]}, which {self.noc.name} hasn't",
                    expected=f"nodes 0 to {self.noc.nodes - 1}",
                )
        named = Counter([*self.channels, *self.engine_nodes])
        twice = [node for node, times in named.items() if times > 1]
        if twice:
            raise UserError(
                f"node {twice[0]} is named {named[twice[0]]} times in channels and engines",
                expected="each node once: it is memory or engine",
            )


@dataclass(frozen=True)
class MemoryFlow:
    """What a network makes of reads from memory: rates in bytes of data per second, exact; latencies in fs.

    `sustained` is what it delivers, `bound` what its busiest link would carry if it never waited. Latencies are of a
    read there and back (request and answer, the memory between them left out): `unloaded_fs` without other traffic,
    mean over all pairs; `loaded_fs` under the load of `offered` (the memory's peak) from leaving the source on, for
    waiting there is what the rate says. `flit_hops` are flits over routers for each read, mean."""

    sustained: Fraction
    bound: Fraction
    offered: Fraction
    unloaded_fs: int
    loaded_fs: int
    flit_hops: Fraction

    @property
    def bytes_per_second(self) -> int:
        """`sustained`, rounded down."""
        return int(self.sustained)


@lru_cache(maxsize=64)
def memory_flow(spec: MemoryNetworkSpec, channels: int, offered: Fraction) -> MemoryFlow:
    """Measure a network under the reads of a memory of `channels` channels and a peak of `offered` bytes per second.

    Two loads are tried: what the memory delivers, and as much as the network's busiest link could carry. What the
    faster of the two delivered is sustained."""
    from archsim.fabric.noc import assemble  # brings numba

    wiring = _checked_wiring(spec.noc)
    network = assemble(spec.noc, wiring)
    most = lines_bound(spec, wiring, channels)
    per_line = spec.packet * spec.clock_hz
    pace = offered / per_line
    loaded = measure_reads(network, spec, channels, pace, most)
    best = max(loaded.lines_per_cycle, measure_reads(network, spec, channels, most, most).lines_per_cycle)
    return MemoryFlow(
        sustained=best * per_line,
        bound=most * per_line,
        offered=offered,
        unloaded_fs=_fs(_unloaded_cycles(network, spec, channels), spec),
        loaded_fs=_fs(loaded.latency_cycles, spec),
        flit_hops=loaded.flit_hops,
    )


@dataclass(frozen=True)
class ReadMeasurement:
    """Lines per cycle from the first request's cycle to the last answer's arrival; the mean cycles of a request and an
    answer on the network, added; flits over routers per line."""

    lines_per_cycle: Fraction
    latency_cycles: Fraction
    flit_hops: Fraction


def measure_reads(
    network: RouterNetwork, spec: MemoryNetworkSpec, channels: int, pace: Fraction, most: Fraction
) -> ReadMeasurement:
    """Have all engines read evenly from all channels, at `pace` lines per cycle together, until everything has arrived.

    `most` is the network's bound on lines per cycle: it says how many lines LEAST_CYCLES need."""
    rounds = math.ceil(LEAST_CYCLES * min(pace, most) / (channels * len(spec.engine_nodes)))
    packets = reads(spec, channels, pace, rounds)
    run = network.start()
    run.add(packets)
    run.advance()
    entered, delivered = run.times[:, ENTERED], run.times[:, DELIVERED]
    lines = len(packets) // 2
    # Each flit of the busiest link takes a cycle of this time, so no rate beats the bound.
    return ReadMeasurement(
        lines_per_cycle=Fraction(lines, int(delivered.max())),
        latency_cycles=Fraction(int((delivered - entered).sum()), lines),
        flit_hops=Fraction(run.counts.crossed_flits, lines),
    )


def reads(spec: MemoryNetworkSpec, channels: int, pace: Fraction, rounds: int) -> Ints:
    """Packets of `rounds` reads of every engine from every memory channel, sorted by cycle: created, source,
    destination, flits. The channels send in turn; each goes through the engines in another order in every round."""
    engines = np.array(spec.engine_nodes, np.int64)
    rng = np.random.default_rng(spec.noc.measurement.seed)
    order = rng.permuted(np.broadcast_to(engines, (rounds, channels, len(engines))), axis=2)
    to = order.transpose(0, 2, 1).ravel()  # by round, line and channel
    ports = np.array(spec.channels, np.int64)[np.arange(channels) % len(spec.channels)]
    at = np.tile(ports, len(to) // channels)
    created = np.arange(len(to), dtype=np.int64) * pace.denominator // pace.numerator
    requests = np.stack([created, to, at, np.full_like(at, spec.request_flits)], axis=1)
    answers = np.stack([created, at, to, np.full_like(at, spec.data_flits)], axis=1)
    return np.ascontiguousarray(np.stack([requests, answers], axis=1).reshape(-1, 4))


def hop_pj_per_bit(spec: MemoryNetworkSpec, flow: MemoryFlow) -> float | None:
    """Picojoules for each bit of data that comes from memory, requests and headers included; None if not known."""
    if spec.noc.hop_energy is None:
        return None
    return float(flow.flit_hops * spec.flit_bytes / spec.packet) * spec.noc.hop_energy


def _unloaded_cycles(network: RouterNetwork, spec: MemoryNetworkSpec, channels: int) -> Fraction:
    """Mean cycles of a request and its answer that meet no other packet."""
    packets = reads(spec, channels, Fraction(1), 1)
    weights: Counter[tuple[int, ...]] = Counter(map(tuple, packets[:, 1:].tolist()))
    kinds = np.array(list(weights), np.int64)
    alone = np.column_stack([np.arange(len(kinds), dtype=np.int64) * APART_CYCLES, kinds])
    done = network.deliver(alone)
    cycles = int(((done.delivered - done.entered) * np.array(list(weights.values()))).sum())
    return Fraction(2 * cycles, len(packets))


def lines_bound(spec: MemoryNetworkSpec, wiring: Wiring, channels: int) -> Fraction:
    """Lines per cycle that no network with these links and this placement exceeds: the inverse of the flits that the
    busiest link carries for each line (Dally and Towles 2004, section 3.3.1: ideal throughput).

    A link from or to a node counts always, one between routers where the route to it is the only one."""
    flits: Counter[tuple[int, int]] = Counter()
    at = {FIRST_NODE - int(target): divmod(place, wiring.ports) for place, target in enumerate(wiring.link_to.ravel())}
    held = Counter([spec.channels[channel % len(spec.channels)] for channel in range(channels)])
    for node, weight in held.items():
        for engine in spec.engine_nodes:
            for source, destination, size in ((node, engine, spec.data_flits), (engine, node, spec.request_flits)):
                flits[-1, source] += size * weight
                for link in _way(wiring, at[source][0], destination):
                    flits[link] += size * weight
    return Fraction(channels * len(spec.engine_nodes), max(flits.values()))


def _way(wiring: Wiring, router: int, destination: int) -> Iterator[tuple[int, int]]:
    """The outputs on the way from a router to a node; of routes that adapt only the last."""
    adapts = False
    while True:
        candidates = wiring.routes[router][destination]
        port = candidates[0][0]
        adapts |= len(candidates) > 1
        target = int(wiring.link_to[router, port])
        if target < 0 or not adapts:
            yield router, port
        if target < 0:
            return
        router = target // wiring.ports


@lru_cache(maxsize=64)
def _checked_wiring(noc: NocSpec) -> Wiring:
    """Raises UserError for a node that can't be reached, or routes that may deadlock."""
    from archsim.fabric.routing_check import check_routes

    wiring = wire(noc)
    check_routes(wiring)
    return wiring


def _fs(cycles: Fraction, spec: MemoryNetworkSpec) -> int:
    return math.ceil(cycles * FS_PER_SECOND / spec.clock_hz)

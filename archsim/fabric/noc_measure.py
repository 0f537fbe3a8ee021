"""Load a network with synthetic traffic: latency and throughput at a rate, and the rate at which it saturates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

import numpy as np

from archsim.fabric.noc import Ints, NetworkCounts, NetworkRun, RouterNetwork
from archsim.fabric.noc_spec import Mesh, NocSpec, Pattern, Ring, Torus
from archsim.fabric.topology import Wiring
from archsim.kernels.router_state import CREATED, DELIVERED, ENTERED, FIRST_NODE, FLITS
from archsim.kernels.traffic import RATE_BITS, generate, mixed


class Stability(StrEnum):
    """Whether a network carries a load, or why not."""

    STABLE = "stable"
    LATENCY = "latency over the limit"
    UNSTEADY = "no steady state"


@dataclass(frozen=True)
class LoadPoint:
    """What a network does at one rate, over the measured cycles (after warm-up).

    Latencies run from a packet's creation to the arrival of its tail, so they include waiting at the source. They are
    of an unstable point only what they were when it was given up.
    """

    rate: float
    stability: Stability
    latency_cycles: float
    network_latency_cycles: float
    p99_latency_cycles: float
    offered_flits: float
    accepted_flits: float
    packets: int
    warm_up_cycles: int
    measured_cycles: int
    counts: NetworkCounts

    @property
    def stable(self) -> bool:
        """Whether the network carries this load."""
        return self.stability is Stability.STABLE


@dataclass(frozen=True)
class Saturation:
    """The highest stable rate found, and the lowest unstable one: no more than the resolution apart."""

    stable_rate: float
    unstable_rate: float
    accepted_flits: float


class Generator:
    """Packets of a spec's traffic at a rate. The same seed gives the same packets, in any pieces."""

    def __init__(self, spec: NocSpec, rate: float) -> None:
        traffic = spec.traffic
        self._nodes = spec.nodes
        self._rate = round(Fraction(rate) * (1 << RATE_BITS))
        self._flits = traffic.packet_flits
        self._table = destinations(spec)
        self._hot = np.array(traffic.hotspots, np.int64)
        self._hot_share = round(Fraction(traffic.hotspot_share or 0) * (1 << RATE_BITS))
        self._seed = np.uint64(mixed(np.uint64(spec.measurement.seed)))

    def packets(self, first: int, after: int) -> Ints:
        """The packets created in the cycles [first, after): int64[n, 4]."""
        room = np.empty(((after - first) * self._nodes, 4), np.int64)
        count = generate(
            self._seed, self._nodes, self._rate, self._flits, self._table, self._hot, self._hot_share, first, after, room
        )
        return room[:count].copy()


def destinations(spec: NocSpec) -> Ints:
    """Where each node sends to; -1 anywhere, -2 anywhere else."""
    nodes, pattern = spec.nodes, spec.traffic.pattern
    numbers = np.arange(nodes)
    bits = (nodes - 1).bit_length()
    match pattern:
        case Pattern.UNIFORM | Pattern.HOTSPOT:
            return np.full(nodes, -1, np.int64)
        case Pattern.UNIFORM_OTHERS:
            return np.full(nodes, -2, np.int64)
        case Pattern.BIT_COMPLEMENT:
            return nodes - 1 - numbers
        case Pattern.BIT_REVERSE:
            return sum((numbers >> b & 1) << (bits - 1 - b) for b in range(bits)) + 0 * numbers
        case Pattern.SHUFFLE:
            return (numbers << 1 | numbers >> (bits - 1)) & (nodes - 1) if bits else numbers
        case Pattern.PERMUTATION:
            return np.random.default_rng(spec.measurement.seed).permutation(nodes).astype(np.int64)
    size = _extents(spec)
    at = np.stack(np.unravel_index(numbers, size[::-1])[::-1])  # the first dimension runs fastest
    extents = np.array(size)[:, None]
    if pattern is Pattern.TRANSPOSE:
        at = at[::-1]
    else:
        at = (at + ((extents + 1) // 2 - 1 if pattern is Pattern.TORNADO else 1)) % extents
    return np.ravel_multi_index(tuple(at[::-1]), size[::-1]).astype(np.int64)


def _extents(spec: NocSpec) -> tuple[int, ...]:
    topology = spec.topology
    if isinstance(topology, Mesh | Torus):
        return topology.size
    assert isinstance(topology, Ring)  # the spec refuses coordinates elsewhere
    return (topology.nodes,)


def measure(network: RouterNetwork, rate: float) -> LoadPoint:
    """Load a network at `rate` (packets per node and cycle) until it is steady, and measure it.

    Samples are compared by the mean latency of the packets that arrive in them and by how many flits do. Packets
    created while measuring are measured; behind them load goes on until the last of them has arrived.
    """
    return _Measurement(network, rate).result()


class _Measurement:
    def __init__(self, network: RouterNetwork, rate: float) -> None:
        self._spec = network.spec
        self._plan = network.spec.measurement
        self._rate = rate
        self._traffic = Generator(network.spec, rate)
        self._run: NetworkRun = network.start()

    def result(self) -> LoadPoint:
        plan = self._plan
        before: tuple[float, float] | None = None
        start, steady = -1, 0
        for _ in range(plan.most_samples):
            sample = self._sample()
            if sample[0] > plan.latency_limit_cycles:
                return self._given_up(start, Stability.LATENCY)
            alike = before is not None and self._alike(before, sample)
            before = sample
            if start < 0:
                start = self._run.now if alike else -1
                continue
            steady = steady + 1 if alike else 0
            if steady == plan.stable_samples:
                return self._drained(start)
        return self._given_up(start, Stability.UNSTEADY)

    def _given_up(self, start: int, stability: Stability) -> LoadPoint:
        """A point that never was steady is measured from its beginning on."""
        return self._point(start if 0 <= start < self._run.now else 0, stability)

    def _sample(self) -> tuple[float, float]:
        """Mean latency of what arrives, or of what is still under way if that is older; flits that arrive per cycle."""
        first = self._run.now
        after = first + self._plan.sample_cycles
        self._load_to(after)
        delivered, created = self._run.times[:, DELIVERED], self._run.packets[:, CREATED]
        arrived = delivered >= first
        waiting = (delivered < 0) & (created < after)
        latency = float((delivered - created)[arrived].mean()) if arrived.any() else 0.0
        age = float((after - created[waiting]).mean()) if waiting.any() else 0.0
        flits = int(self._run.packets[arrived, FLITS].sum())
        overdue = age > self._plan.latency_limit_cycles
        return max(latency, age) if overdue else latency, flits / self._plan.sample_cycles

    def _load_to(self, cycle: int) -> None:
        self._run.add(self._traffic.packets(self._run.now, cycle))
        self._run.advance(cycle)

    def _alike(self, before: tuple[float, float], now: tuple[float, float]) -> bool:
        return all(abs(b - a) <= self._plan.tolerance * b for a, b in zip(before, now, strict=True))

    def _drained(self, start: int) -> LoadPoint:
        end = self._run.now
        patience = 10 * self._plan.latency_limit_cycles + self._plan.sample_cycles
        created = self._run.packets[:, CREATED]
        number = len(created)
        while (self._run.times[:number, DELIVERED] < 0).any():
            if self._run.now - end > patience:
                return self._point(start, Stability.LATENCY, end)
            self._load_to(self._run.now + max(100, self._plan.sample_cycles // 10))
        point = self._point(start, Stability.STABLE, end)
        if point.latency_cycles > self._plan.latency_limit_cycles:
            return self._point(start, Stability.LATENCY, end)
        return point

    def _point(self, start: int, stability: Stability, end: int | None = None) -> LoadPoint:
        run, nodes = self._run, self._spec.nodes
        end = run.now if end is None else end
        created, flits = run.packets[:, CREATED], run.packets[:, FLITS]
        delivered, entered = run.times[:, DELIVERED], run.times[:, ENTERED]
        made = (created >= start) & (created < end)
        measured = made & (delivered >= 0)
        latency = (delivered - created)[measured]
        arrived = (delivered >= start) & (delivered < end)
        cycles = end - start
        return LoadPoint(
            rate=self._rate,
            stability=stability,
            latency_cycles=_mean(latency),
            network_latency_cycles=_mean((delivered - entered)[measured]),
            p99_latency_cycles=float(np.quantile(latency, 0.99)) if latency.size else 0.0,
            offered_flits=int(flits[made].sum()) / (cycles * nodes),
            accepted_flits=int(flits[arrived].sum()) / (cycles * nodes),
            packets=int(measured.sum()),
            warm_up_cycles=start,
            measured_cycles=cycles,
            counts=run.counts,
        )


def _mean(values: Ints) -> float:
    return int(values.sum()) / values.size if values.size else 0.0


def find_saturation(network: RouterNetwork, on_point: Callable[[LoadPoint], None] = lambda point: None) -> Saturation:
    """Halve the interval between a stable and an unstable rate until it is as short as the spec's resolution.

    The resolution is a share of the rate. A network that carries one packet per node and cycle has no unstable rate:
    both rates are then 1.
    """
    resolution = network.spec.measurement.saturation_resolution
    low, high, accepted = 0.0, 1.0, 0.0
    top = measure(network, high)
    on_point(top)
    if top.stable:
        return Saturation(high, high, top.accepted_flits)
    high = min(high, 1.0 / network.spec.traffic.packet_flits)  # a node sends one flit per cycle
    while high - low > resolution * high:
        point = measure(network, (low + high) / 2)
        on_point(point)
        if point.stable:
            low, accepted = point.rate, point.accepted_flits
        else:
            high = point.rate
    return Saturation(low, high, accepted)


def zero_load_latency_cycles(network: RouterNetwork) -> float:
    """Mean latency of a packet that meets no other, over the pairs that the traffic's pattern sends between.

    A packet passes h routers: one cycle and its link at the source, then the stages of each router, the h - 1 links
    between them and the node's own, and one cycle for each flit behind the head. With stages of one cycle that is
    4 h + 2 + (flits - 1) on a mesh. Flits longer than a buffer's round trip wait for credits beyond that.
    """
    spec, wiring = network.spec, network.wiring
    router = spec.router
    stages = router.routing_cycles + router.vc_alloc_cycles + router.switch_alloc_cycles + router.crossbar_cycles
    total, pairs = 0, 0
    for source, fixed in enumerate(destinations(spec).tolist()):
        for destination in range(spec.nodes) if fixed < 0 else (fixed,):
            if not (fixed == -2 and destination == source):
                total += _way_cycles(wiring, source, destination, stages)
                pairs += 1
    return total / pairs + spec.traffic.packet_flits - 1


def _way_cycles(wiring: Wiring, source: int, destination: int, stages: int) -> int:
    router = wiring.router_of(source)
    local = int(np.flatnonzero(wiring.link_to[router] == FIRST_NODE - source)[0])
    cycles = 1 + int(wiring.link_cycles[router, local])
    while True:
        port = wiring.routes[router][destination][0][0]
        cycles += stages + int(wiring.link_cycles[router, port])
        target = int(wiring.link_to[router, port])
        if target < 0:
            return cycles
        router = target // wiring.ports

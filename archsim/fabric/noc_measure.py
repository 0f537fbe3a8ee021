"""Load a network with synthetic traffic: latency and throughput at a rate, and the rate at which it saturates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from fractions import Fraction
from functools import partial

import numpy as np

from archsim.fabric.noc import Ints, NetworkCounts, NetworkRun, RouterNetwork
from archsim.fabric.noc_spec import Mesh, NocSpec, Pattern, Procedure, Ring, Torus
from archsim.fabric.topology import Wiring
from archsim.kernels.router_state import CREATED, DELIVERED, ENTERED, FIRST_NODE, FLITS
from archsim.kernels.traffic import RATE_BITS, generate, mixed

CHANCE = 2.0
"""Standard errors of each of two means by which they may differ and still count as equal."""


_DRAWS = 1 << 14
"""Nodes times cycles for which packets are made in one go: so few that they stay in the cache."""


class Stability(StrEnum):
    """Whether a network carries a load, or why not."""

    STABLE = "stable"
    LATENCY = "latency over the limit"
    UNSTEADY = "no steady state"


@dataclass(frozen=True)
class LoadPoint:
    """What a network does at one rate, over the measured cycles (after warm-up).

    Latencies run from a packet's creation to the arrival of its tail, so they include waiting at the source. They are
    of an unstable point only what they were when it was given up. Of several `runs` this is the mean (cycles and
    packets: the sum), `latency_deviation_cycles` the standard deviation of one run, and a point is unstable if any is.
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
    runs: int = 1
    latency_deviation_cycles: float = 0.0

    @property
    def stable(self) -> bool:
        """Whether the network carries this load."""
        return self.stability is Stability.STABLE


@dataclass(frozen=True)
class Saturation:
    """The highest stable rate found, and the lowest unstable one: no more than the resolution apart.

    `throughput_flits` is the most that was accepted at any rate tried, stable or not, per node and cycle.
    """

    stable_rate: float
    unstable_rate: float
    throughput_flits: float


class Generator:
    """Packets of a spec's traffic at a rate: the same from the same seed (`run` counts on from it), in any pieces."""

    def __init__(self, spec: NocSpec, rate: float, run: int = 0) -> None:
        traffic = spec.traffic
        self._nodes = spec.nodes
        self._rate = round(Fraction(rate) * (1 << RATE_BITS))
        self._flits = traffic.packet_flits
        self._table = destinations(spec)
        self._hot = np.array(traffic.hotspots, np.int64)
        self._hot_share = round(Fraction(traffic.hotspot_share or 0) * (1 << RATE_BITS))
        self._seed = np.uint64(mixed(np.uint64(spec.measurement.seed + run)))

    def packets(self, first: int, after: int) -> Ints:
        """The packets created in the cycles [first, after): int64[n, 4]."""
        room = np.empty((self.most(first, after), 4), np.int64)
        return room[: self.write(first, after, room)].copy()

    def most(self, first: int, after: int) -> int:
        """How many packets may be created in the cycles [first, after)."""
        return (after - first) * self._nodes

    def write(self, first: int, after: int, packets: Ints) -> int:
        """Write those of `packets(first, after)` to an int64[most(first, after), 4]; returns how many."""
        count: int = generate(
            self._seed,
            self._nodes,
            self._rate,
            self._flits,
            self._table,
            self._hot,
            self._hot_share,
            first,
            after,
            packets,
        )
        return count


def load(run: NetworkRun, traffic: Generator, until: int) -> None:
    """Run a network under its traffic to cycle `until`, in pieces that fit a cache; they make the same run."""
    step = max(1, _DRAWS // run.nodes)
    while run.now < until:
        after = min(run.now + step, until)
        run.write(traffic.most(run.now, after), partial(traffic.write, run.now, after))
        run.advance(after)


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
            return np.array([sum((n >> b & 1) << (bits - 1 - b) for b in range(bits)) for n in range(nodes)], np.int64)
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
    return np.asarray(np.ravel_multi_index(tuple(at[::-1]), size[::-1]), np.int64)


def _extents(spec: NocSpec) -> tuple[int, ...]:
    topology = spec.topology
    if isinstance(topology, Mesh | Torus):
        return topology.size
    assert isinstance(topology, Ring)  # the spec refuses coordinates elsewhere
    return (topology.nodes,)


def measure(network: RouterNetwork, rate: float) -> LoadPoint:
    """Load a network at `rate` (packets per node and cycle) until it is steady, and measure it.

    Compared are the mean latency of the packets that arrive and how many flits do: during warm-up from sample to
    sample, then from the whole measurement to the whole measurement one sample longer. Packets created while measuring
    are measured; behind them load goes on until the last of them has arrived. The procedure `booksim` compares by
    tolerance alone and has a fixed warm-up.
    """
    plan = network.spec.measurement
    kind = _BookSimMeasurement if plan.procedure is Procedure.BOOKSIM else _Measurement
    points = [kind(network, rate, run).result() for run in range(plan.runs)]
    return points[0] if len(points) == 1 else _together(points)


def _together(points: Sequence[LoadPoint]) -> LoadPoint:
    def mean(values: Iterable[float]) -> float:
        return sum(values) / len(points)

    counts = zip(*(astuple(point.counts) for point in points), strict=True)
    latency = [point.latency_cycles for point in points]
    return LoadPoint(
        rate=points[0].rate,
        stability=next((point.stability for point in points if not point.stable), Stability.STABLE),
        latency_cycles=mean(latency),
        network_latency_cycles=mean(point.network_latency_cycles for point in points),
        p99_latency_cycles=mean(point.p99_latency_cycles for point in points),
        offered_flits=mean(point.offered_flits for point in points),
        accepted_flits=mean(point.accepted_flits for point in points),
        packets=sum(point.packets for point in points),
        warm_up_cycles=sum(point.warm_up_cycles for point in points),
        measured_cycles=sum(point.measured_cycles for point in points),
        counts=NetworkCounts(*map(sum, counts)),
        runs=len(points),
        latency_deviation_cycles=statistics.stdev(latency),
    )


@dataclass(frozen=True)
class _Arrivals:
    """Mean latency and flits per cycle, with the standard errors that independent packets would give them."""

    latency: float
    latency_error: float
    throughput: float
    throughput_error: float


class _Measurement:
    def __init__(self, network: RouterNetwork, rate: float, run: int) -> None:
        self._spec = network.spec
        self._plan = network.spec.measurement
        self._rate = rate
        self._traffic = Generator(network.spec, rate, run)
        self._run: NetworkRun = network.start()

    def result(self) -> LoadPoint:
        plan = self._plan
        before: _Arrivals | None = None
        start, steady = -1, 0
        for _ in range(plan.most_samples):
            first = self._run.now if start < 0 else start
            self._load_to(self._run.now + plan.sample_cycles)
            if self._mean_latency_so_far(first) > plan.latency_limit_cycles:
                return self._given_up(start, Stability.LATENCY)
            now = self._arrivals(first)
            alike = before is not None and self._alike(before, now)
            if start < 0:
                before = None if alike else now
                start = self._run.now if alike else -1
                continue
            before = now
            steady = steady + 1 if alike else 0
            if steady == plan.stable_samples:
                return self._drained(start)
        return self._given_up(start, Stability.UNSTEADY)

    def _given_up(self, start: int, stability: Stability) -> LoadPoint:
        """A point that was never steady is measured over the second half of its run."""
        return self._point(start if 0 <= start < self._run.now else self._run.now // 2, stability)

    def _arrivals(self, first: int) -> _Arrivals:
        """Of the packets that arrived since cycle `first`."""
        delivered, created = self._run.times[:, DELIVERED], self._run.packets[:, CREATED]
        arrived = delivered >= first
        latency = (delivered - created)[arrived]
        count = max(1, latency.size)
        throughput = int(self._run.packets[arrived, FLITS].sum()) / (self._run.now - first)
        deviation = float(latency.std()) if latency.size else 0.0
        return _Arrivals(_mean(latency), deviation / math.sqrt(count), throughput, throughput / math.sqrt(count))

    def _mean_latency_so_far(self, first: int) -> float:
        """As the mean latency of `_arrivals`, with the packets that are still under way, at their age."""
        delivered, created = self._run.times[:, DELIVERED], self._run.packets[:, CREATED]
        ages = np.where(delivered < 0, self._run.now, delivered) - created
        return _mean(ages[(delivered < 0) | (delivered >= first)])

    def _load_to(self, cycle: int) -> None:
        load(self._run, self._traffic, cycle)

    def _alike(self, before: _Arrivals, now: _Arrivals) -> bool:
        """Whether two stretches differ by no more than the tolerance and what chance explains."""
        tolerance = self._plan.tolerance
        latency = abs(now.latency - before.latency)
        throughput = abs(now.throughput - before.throughput)
        return latency <= tolerance * now.latency + CHANCE * (
            before.latency_error + now.latency_error
        ) and throughput <= tolerance * now.throughput + CHANCE * (before.throughput_error + now.throughput_error)

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


class _BookSimMeasurement(_Measurement):
    """BookSim 2's procedure (trafficmanager.cpp, `_SingleSim`), so that its numbers can be held against like ones.

    After a fixed warm-up each sample compares mean latency and flits accepted so far with the sample before; three in a
    row within the tolerance end it, however short the samples are. It does not ask what chance would explain. Packets
    created from the end of the warm-up on are measured, so the first samples see the quick ones alone.
    """

    def result(self) -> LoadPoint:
        plan = self._plan
        warm_up = 3 if plan.warm_up_samples is None else plan.warm_up_samples
        start, since, steady = -1, 0, 0
        before: tuple[float, float] | None = None
        for sample in range(plan.most_samples):
            if start < 0 and sample % 2 == 0:
                since = self._run.now  # the warm-up's statistics are cleared before every other sample
            self._load_to(self._run.now + plan.sample_cycles)
            if self._mean_latency_so_far(since) > plan.latency_limit_cycles:
                return self._given_up(start, Stability.LATENCY)
            now = self._so_far(since, start)
            if start < 0:
                if sample + 1 >= warm_up:
                    start = since = self._run.now
            else:
                steady = steady + 1 if before is not None and self._within(before, now) else 0
                if steady == plan.stable_samples:
                    break
            before = now
        # Samples that don't suffice make no unstable point there: what has been measured counts.
        return self._drained(start) if start >= 0 else self._given_up(start, Stability.UNSTEADY)

    def _so_far(self, since: int, start: int) -> tuple[float, float]:
        """Mean latency of the packets that count, and flits accepted per cycle, since the statistics were cleared."""
        run = self._run
        delivered, created = run.times[:, DELIVERED], run.packets[:, CREATED]
        arrived = delivered >= since
        counted = arrived & (created >= start)
        accepted = int(run.packets[arrived, FLITS].sum()) / (run.now - since)
        return _mean((delivered - created)[counted]), accepted

    def _within(self, before: tuple[float, float], now: tuple[float, float]) -> bool:
        return all(abs(new - old) <= self._plan.tolerance * new for old, new in zip(before, now, strict=True))


def _mean(values: Ints) -> float:
    return int(values.sum()) / values.size if values.size else 0.0


def find_saturation(network: RouterNetwork, on_point: Callable[[LoadPoint], None] = lambda point: None) -> Saturation:
    """Halve the interval between a stable and an unstable rate until it is as short as the spec's resolution.

    The resolution is a share of the rate. A network that carries one packet per node and cycle has no unstable rate:
    both rates are then 1.
    """
    resolution = network.spec.measurement.saturation_resolution
    low, high, throughput = 0.0, 1.0, 0.0
    rate = high
    while high - low > resolution * high:
        point = measure(network, rate)
        on_point(point)
        throughput = max(throughput, point.accepted_flits)
        if point.stable:
            low = rate
        else:
            high = min(rate, 1.0 / network.spec.traffic.packet_flits)  # a node sends one flit per cycle
        rate = (low + high) / 2
    return Saturation(low, high, throughput)


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

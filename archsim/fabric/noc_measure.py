"""Load a network with synthetic traffic: latency and throughput at a rate, and the rate at which it saturates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from archsim.fabric.booksim import BookSimMeasurement
from archsim.fabric.noc import NetworkRun, RouterNetwork
from archsim.fabric.noc_point import LoadPoint, Stability, mean_of, together
from archsim.fabric.noc_spec import Procedure
from archsim.fabric.noc_traffic import Generator, destinations, load
from archsim.fabric.topology import Wiring
from archsim.kernels.router_state import CREATED, DELIVERED, ENTERED, FIRST_NODE, FLITS

CHANCE = 2.0
"""Standard errors of each of two means by which they may differ and still count as equal."""


@dataclass(frozen=True)
class Saturation:
    """The highest stable rate found, and the lowest unstable one: no more than the resolution apart.

    `throughput_flits` is the most that was accepted at any rate tried, stable or not, per node and cycle.
    """

    stable_rate: float
    unstable_rate: float
    throughput_flits: float


def measure(network: RouterNetwork, rate: float) -> LoadPoint:
    """Load a network at `rate` (packets per node and cycle) until it is steady, and measure it.

    Compared are the mean latency of the packets that arrive and how many flits do: during warm-up from sample to
    sample, then from the whole measurement to the whole measurement one sample longer. Packets created while measuring
    are measured; behind them load goes on until the last of them has arrived. The procedure `booksim`: booksim.py.
    """
    plan = network.spec.measurement
    kind = BookSimMeasurement if plan.procedure is Procedure.BOOKSIM else _Measurement
    points = [kind(network, rate, run).result() for run in range(plan.runs)]
    return points[0] if len(points) == 1 else together(points)


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
        return _Arrivals(mean_of(latency), deviation / math.sqrt(count), throughput, throughput / math.sqrt(count))

    def _mean_latency_so_far(self, first: int) -> float:
        """As the mean latency of `_arrivals`, with the packets that are still under way, at their age."""
        delivered, created = self._run.times[:, DELIVERED], self._run.packets[:, CREATED]
        ages = np.where(delivered < 0, self._run.now, delivered) - created
        return mean_of(ages[(delivered < 0) | (delivered >= first)])

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
            latency_cycles=mean_of(latency),
            network_latency_cycles=mean_of((delivered - entered)[measured]),
            p99_latency_cycles=float(np.quantile(latency, 0.99)) if latency.size else 0.0,
            offered_flits=int(flits[made].sum()) / (cycles * nodes),
            accepted_flits=int(flits[arrived].sum()) / (cycles * nodes),
            packets=int(measured.sum()),
            warm_up_cycles=start,
            measured_cycles=cycles,
            counts=run.counts,
        )


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

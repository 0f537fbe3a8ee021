"""A load measured as BookSim 2 measures it, to the digit: the same packets in the same cycles, the same samples.

Jiang et al., "A detailed and flexible cycle-accurate network-on-chip simulator", ISPASS 2013; what is followed is its
`trafficmanager.cpp` (injection, samples, draining) and `injection.cpp`, at the commit in docs/validation.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from archsim.fabric import knuth
from archsim.fabric.noc import Ints, RouterNetwork
from archsim.fabric.noc_point import LoadPoint, Stability, mean_of
from archsim.fabric.noc_spec import NocSpec
from archsim.fabric.noc_traffic import destinations
from archsim.kernels.router_state import DELIVERED, ENTERED

_WARM_UP_SAMPLES = 3
_CYCLES_BETWEEN_LOOKS = 1000
"""At the mean latency of a network that drains."""


class BookSimSources:
    """The sources of a network: each draws whether to create a packet, cycle by cycle, but only while it has none.

    A source that has been sending catches up on the cycles it missed until a packet comes up, which then counts as
    created in the cycle it was drawn for. So no queue is longer than a packet, latencies are those of a queue without
    limit, and which random number decides what depends on the network.
    """

    def __init__(self, spec: NocSpec, rate: float, run: int) -> None:
        seed = spec.measurement.seed + run
        self._rate, self._flits = rate, spec.traffic.packet_flits
        self._fractions, self._integers = knuth.fractions(seed), knuth.integers(seed)
        self._fixed = destinations(spec).tolist()
        self._next_draw = [0] * spec.nodes
        self._created: list[int] = []

    @property
    def created(self) -> Ints:
        """Of each packet so far, the cycle it was drawn for."""
        return np.array(self._created, np.int64)

    def drawn_past(self, cycle: int) -> bool:
        """Whether all sources have drawn for `cycle`."""
        return min(self._next_draw) > cycle

    def packets(self, now: int, idle: NDArray[np.bool_]) -> list[tuple[int, int, int, int]]:
        """What the `idle` sources begin to send in cycle `now`: (now, source, destination, flits)."""
        begun = []
        for source in np.flatnonzero(idle).tolist():
            if self._draws_one(source, now):
                begun.append((now, source, self._destination(source), self._flits))
        return begun

    def _draws_one(self, source: int, now: int) -> bool:
        for cycle in range(self._next_draw[source], now + 1):
            if next(self._fractions) < self._rate:
                self._next_draw[source] = cycle + 1
                self._created.append(cycle)
                return True
        self._next_draw[source] = now + 1
        return False

    def _destination(self, source: int) -> int:
        fixed: int = self._fixed[source]
        destination = next(self._integers) % len(self._fixed) if fixed < 0 else fixed
        next(self._integers)  # chooses one of its physical networks, of which there is one
        return destination


class BookSimMeasurement:
    """One point by BookSim 2's procedure.

    After a fixed warm-up, mean latency and flits accepted since are compared from sample to sample; three changes in a
    row within the tolerance end it, or `most_samples` in all. Packets that a source begins to send after the warm-up
    are measured, the last of them while the network drains under load. No sample asks what chance would explain.

    One thing differs: for the mean latency that makes a point unstable, packets under way count once each, and there
    once for every flit. So the two may give a hopeless load up in different samples.
    """

    def __init__(self, network: RouterNetwork, rate: float, run: int) -> None:
        self._plan = network.spec.measurement
        self._rate, self._flits = rate, network.spec.traffic.packet_flits
        self._run = network.start()
        self._sources = BookSimSources(network.spec, rate, run)
        self._start = 0
        self._first_measured = 0
        self._clear()

    def result(self) -> LoadPoint:
        """Measure."""
        plan = self._plan
        warm_up = _WARM_UP_SAMPLES if plan.warm_up_samples is None else plan.warm_up_samples
        before, steady = (0.0, 0.0), 0
        for sample in range(plan.most_samples):
            if sample <= warm_up and (sample % 2 == 0 or sample == warm_up):
                self._clear()  # the warm-up's statistics are cleared before every other sample
            if sample == warm_up:
                self._start, self._first_measured = self._run.now, len(self._run.packets)
            for _ in range(plan.sample_cycles):
                self._step()
            if self._is_hopeless():
                return self._point(self._run.now, Stability.LATENCY)
            now = self._so_far()
            if sample >= warm_up:
                steady = steady + 1 if self._alike(before, now) else 0
                if steady == plan.stable_samples:
                    break
            before = now
        return self._drained()

    def _clear(self) -> None:
        self._since = self._run.now
        self._flits_before = self._run.counts.ejected_flits

    def _step(self) -> None:
        run = self._run
        begun = self._sources.packets(run.now, run.idle)
        if begun:
            run.add(np.array(begun, np.int64))
        run.advance(run.now + 1)

    def _so_far(self) -> tuple[float, float]:
        """Mean latency of the packets that count, and flits accepted per cycle, since the statistics were cleared."""
        flits = self._run.counts.ejected_flits - self._flits_before
        return mean_of(self._latencies(self._since)), flits / (self._run.now - self._since)

    def _latencies(self, since: int) -> Ints:
        """Of the packets to be measured (in the warm-up: of all) that have arrived since."""
        delivered, created = (column[self._first_measured :] for column in (self._delivered, self._sources.created))
        return (delivered - created)[delivered >= since]

    def _is_hopeless(self) -> bool:
        delivered, created = self._delivered, self._sources.created
        under_way = (self._run.now - created)[delivered < 0]
        ages = np.concatenate([self._latencies(self._since), under_way])
        return mean_of(ages) > self._plan.latency_limit_cycles

    def _alike(self, before: tuple[float, float], now: tuple[float, float]) -> bool:
        return all(abs(new - old) <= self._plan.tolerance * new for old, new in zip(before, now, strict=True))

    def _drained(self) -> LoadPoint:
        end = self._run.now
        while not self._is_drained(end):
            self._step()
            if (self._run.now - end) % _CYCLES_BETWEEN_LOOKS == 0 and self._is_hopeless():
                return self._point(end, Stability.LATENCY)
        return self._point(end, Stability.STABLE)

    def _is_drained(self, end: int) -> bool:
        return self._sources.drawn_past(end) and not (self._delivered[self._measured(end)] < 0).any()

    def _measured(self, end: int) -> NDArray[np.bool_]:
        measured = self._sources.created < end
        measured[: self._first_measured] = False
        return measured

    @property
    def _delivered(self) -> Ints:
        return self._run.times[:, DELIVERED]

    def _point(self, end: int, stability: Stability) -> LoadPoint:
        run, start = self._run, self._start
        begun = self._measured(end)
        measured = begun & (self._delivered >= 0)
        delivered, entered = self._delivered[measured], run.times[measured, ENTERED]
        latency = delivered - self._sources.created[measured]
        flits_per_cycle_and_node = self._flits / ((end - start) * run.nodes)
        arrived = int(((self._delivered >= start) & (self._delivered < end)).sum())
        return LoadPoint(
            rate=self._rate,
            stability=stability,
            latency_cycles=mean_of(latency),
            network_latency_cycles=mean_of(delivered - entered),
            p99_latency_cycles=float(np.quantile(latency, 0.99)) if latency.size else 0.0,
            offered_flits=int(begun.sum()) * flits_per_cycle_and_node,
            accepted_flits=arrived * flits_per_cycle_and_node,
            packets=len(latency),
            warm_up_cycles=start,
            measured_cycles=end - start,
            counts=run.counts,
        )

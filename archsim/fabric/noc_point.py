"""What a network does under a load."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum

from archsim.fabric.noc import Ints, NetworkCounts


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


def together(points: Sequence[LoadPoint]) -> LoadPoint:
    """Several runs of one point as one point."""

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


def mean_of(values: Ints) -> float:
    """The mean of whole numbers, 0 of none."""
    return int(values.sum()) / values.size if values.size else 0.0

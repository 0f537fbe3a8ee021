"""Bandwidth against latency of one channel, by the share of reads, as the Mess benchmark measures machines
(Esmaili-Dokht et al., "A Mess of Memory System Benchmarking, Simulation and Application Profiling", MICRO 2024).

Requests come at a given mean rate with exponentially distributed gaps (many independent sources), each at its own time
whether those before it have been served or not. Mess has a fixed number of cores instead, each with so many misses in
flight: beyond saturation its latency settles, here only the one counted from queue entry does.

One channel is simulated. Traffic is dealt evenly to all of them, and they share nothing, so it stands for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from archsim.config.errors import UserError
from archsim.kernels.timing import Count, DramTiming
from archsim.memory.replay_channel import ReplayChannel
from archsim.memory.standard import ControllerSpec, DramStandard, RefreshPolicy

READ_SHARES = (1.0, 0.75, 2 / 3, 0.5)
LOADS = (0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97, 1.1)
"""Offered rates, relative to the saturation bandwidth."""
STREAMS = 16
RUN_BURSTS = 16
"""Bursts that a stream takes of a pseudo-channel at once: 16 KiB of a stack of HBM3, as a tile or a prefetcher does."""
REQUESTS = 20_000
ISOLATED_READS = 256
ISOLATION = 8
"""Isolated reads come at so many row cycles tRC."""
MOST = 10**7
MOST_LOAD = 2

Ints = NDArray[np.int64]


class Pattern(StrEnum):
    """Which addresses follow each other in a pseudo-channel."""

    SEQUENTIAL = (
        "sequential"  # several streams of neighbouring bursts, at random places; reads and writes have their own
    )
    RANDOM = "random"


@dataclass(frozen=True)
class CurveRequest:
    """What to measure. `requests` is per pseudo-channel and point; `streams` are those of each direction, and take
    `run_bursts` neighbouring bursts at a time. Raises UserError for numbers that make no sense."""

    pattern: Pattern = Pattern.SEQUENTIAL
    read_shares: tuple[float, ...] = READ_SHARES
    loads: tuple[float, ...] = LOADS
    streams: int = STREAMS
    run_bursts: int = RUN_BURSTS
    requests: int = REQUESTS
    seed: int = 1

    def __post_init__(self) -> None:
        for share in self.read_shares:
            if not 0 <= share <= 1:
                raise UserError(f"a share of reads of {share:g}", expected="from 0 to 1")
        for load in self.loads:
            if not 0 < load <= MOST_LOAD:
                raise UserError(f"a load of {load:g}", expected=f"above 0 and at most {MOST_LOAD}")
        for name in ("streams", "run_bursts", "requests"):
            if not 1 <= getattr(self, name) <= MOST:
                raise UserError(f"{getattr(self, name)} {name}", expected=f"from 1 to {MOST}")


@dataclass(frozen=True)
class CurvePoint:
    """One rate. Bandwidths in bytes per second of one channel; latencies are means in nanoseconds, from the arrival of
    a request and from its entry into the controller's queue, to the last of its data. No writes: write latency 0.
    `saturated`: more is offered than the memory can move; the latency from arrival grows with the run."""

    offered: float
    bandwidth: float
    read_from_arrival: float
    read_from_queue: float
    write_from_arrival: float
    write_from_queue: float
    hit_rate: float
    saturated: bool


@dataclass(frozen=True)
class Curve:
    """The points of one share of reads, by rising rate. `saturation` is in bytes per second of one channel: requests as
    fast as the controller takes them."""

    read_share: float
    saturation: float
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class Unloaded:
    """Reads that meet an idle memory without refresh: their mean latency in nanoseconds, as simulated and as
    hits x (tCL + tBL), misses x (tRCDRD + tCL + tBL) and conflicts x (tRP + tRCDRD + tCL + tBL) make it."""

    simulated: float
    closed_form: float


def unloaded(standard: DramStandard, controller: ControllerSpec, request: CurveRequest) -> Unloaded:
    """Latency of isolated reads of the pattern."""
    idle = controller.model_copy(update={"refresh": RefreshPolicy.NONE})
    timing = standard.timing(idle)
    arrivals = np.arange(ISOLATED_READS, dtype=np.int64) * timing.tRC * ISOLATION
    words = _words(standard, request, 1.0, ISOLATED_READS, 0)
    nothing = np.zeros(0, np.int64)
    alone = [(words, arrivals), *[(nothing, nothing)] * (timing.pseudo_channels - 1)]
    channel = _channel(standard, idle, timed=True)
    channel.feed(alone)
    channel.finish()
    counts = channel.counts
    data = timing.tCL + timing.tBL
    ticks = (
        counts[Count.HITS] * data
        + counts[Count.MISSES] * (timing.tRCDRD + data)
        + counts[Count.CONFLICTS] * (timing.tRP + timing.tRCDRD + data)
    )
    ns = float(standard.tick_fs) * 1e-6
    return Unloaded(channel.from_arrival[0].mean * ns, float(ticks) / ISOLATED_READS * ns)


def measure(standard: DramStandard, controller: ControllerSpec, request: CurveRequest) -> Iterator[Curve]:
    """A curve for each share of reads."""
    for share in request.read_shares:
        saturation = _saturation(standard, controller, request, share)
        points = tuple(_point(standard, controller, request, share, load, saturation) for load in request.loads)
        yield Curve(share, saturation, points)


def _channel(standard: DramStandard, controller: ControllerSpec, timed: bool) -> ReplayChannel:
    bank_of, column_of = (table.astype(np.int64) for table in standard.address_tables(controller))
    return ReplayChannel(standard.timing(controller), bank_of, column_of, timed)


def _saturation(standard: DramStandard, controller: ControllerSpec, request: CurveRequest, share: float) -> float:
    channel = _channel(standard, controller, timed=False)
    at_once = np.zeros(request.requests, np.int64)
    timing = standard.timing(controller)
    channel.feed(
        [(_words(standard, request, share, request.requests, p), at_once) for p in range(timing.pseudo_channels)]
    )
    channel.finish()
    return _rate(standard, timing, request.requests, channel.end_tick)


def _point(
    standard: DramStandard,
    controller: ControllerSpec,
    request: CurveRequest,
    share: float,
    load: float,
    saturation: float,
) -> CurvePoint:
    timing = standard.timing(controller)
    gap_seconds = timing.pseudo_channels * timing.burst_bytes / (load * saturation)
    gap_ticks = gap_seconds / (float(standard.tick_fs) * 1e-15)
    parts = [
        (
            _words(standard, request, share, request.requests, p),
            _arrivals(request, p, gap_ticks),
        )
        for p in range(timing.pseudo_channels)
    ]
    channel = _channel(standard, controller, timed=True)
    channel.feed(parts)
    channel.finish()
    ns = float(standard.tick_fs) * 1e-6
    return CurvePoint(
        offered=_rate(standard, timing, request.requests, max(int(part[1][-1]) for part in parts)),
        bandwidth=_rate(standard, timing, request.requests, channel.end_tick),
        read_from_arrival=channel.from_arrival[0].mean * ns,
        read_from_queue=channel.from_queue[0].mean * ns,
        write_from_arrival=channel.from_arrival[1].mean * ns,
        write_from_queue=channel.from_queue[1].mean * ns,
        hit_rate=float(channel.counts[Count.HITS]) / sum(channel.requests),
        saturated=load >= 1,
    )


def _rate(standard: DramStandard, timing: DramTiming, requests: int, ticks: int) -> float:
    """Bytes per second of a channel whose pseudo-channels move so many bursts each."""
    seconds = max(ticks, 1) * float(standard.tick_fs) * 1e-15
    return requests * timing.pseudo_channels * timing.burst_bytes / seconds


def _arrivals(request: CurveRequest, pseudo_channel: int, mean_gap_ticks: float) -> Ints:
    """Ticks of arrival. The same random gaps at every rate, only scaled: points of a curve differ by rate alone."""
    gaps = np.random.default_rng([request.seed, pseudo_channel, 1]).exponential(size=request.requests)
    return np.asarray(np.cumsum(gaps) * mean_gap_ticks).astype(np.int64)


def _words(standard: DramStandard, request: CurveRequest, share: float, number: int, pseudo_channel: int) -> Ints:
    """Requests of a pseudo-channel as the replay takes them: local burst address << 1 | write."""
    random = np.random.default_rng([request.seed, pseudo_channel, 0])
    bursts = standard.organisation.pseudo_channel_bytes // standard.organisation.burst_bytes
    if request.pattern is Pattern.RANDOM:
        write = (random.random(number) >= share).astype(np.int64)
        return random.integers(0, bursts, number) << 1 | write
    runs = -(-number // request.run_bursts)
    writes_run = (random.random(runs) >= share).astype(np.int64)
    stream_of_run = random.integers(0, request.streams, runs) + request.streams * writes_run
    stream = np.repeat(stream_of_run, request.run_bursts)[:number]
    start = random.integers(0, bursts, 2 * request.streams)
    address: Ints = (start[stream] + _ranks(stream)) % bursts
    return address << 1 | (stream >= request.streams)


def _ranks(group: Ints) -> Ints:
    """How many earlier entries are of the same group."""
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    ranks = np.empty(len(group), np.int64)
    ranks[order] = np.arange(len(group)) - first
    return ranks

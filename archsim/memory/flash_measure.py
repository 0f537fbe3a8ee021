"""What a flash stack sustains: random reads of a size at a queue depth, and sequential streams, simulated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archsim.config.errors import UserError
from archsim.kernels.flash_state import TRACE_WORDS
from archsim.memory.device import Range, Transfer
from archsim.memory.flash import FS_PER_SECOND, FlashStandard
from archsim.memory.flash_device import FlashCounts, FlashDevice

SATURATED = 0.95
"""A resource busy for this share of the time is what limits."""
LEAST_REQUESTS = 2048
REQUESTS_PER_PLANE = 32
"""Long enough that start and end weigh little; the middle 80% of completions are measured."""


@dataclass(frozen=True, slots=True)
class ReadRate:
    """Reads of `access_bytes`, `depth` of them under way in each channel (0: as many as there is room for)."""

    access_bytes: int
    depth: int
    bytes_per_second: float
    mean_latency_fs: float
    limit: str
    """What limits: see `limiting_resource`."""


def random_reads(standard: FlashStandard, access_bytes: int, depth: int, seed: int = 0) -> ReadRate:
    """Reads at random places of the stack, aligned to their size, always `depth` of them under way in each channel.

    Raises UserError if the size is no divisor of the page in whole granules, or the depth does not fit the queue."""
    o = standard.organisation
    size = access_bytes // o.granule
    if access_bytes < 1 or access_bytes % o.granule or o.page % access_bytes:
        raise UserError(
            f"reads of {access_bytes} B", expected=f"a multiple of {o.granule} B that divides the page of {o.page} B"
        )
    if not 1 <= depth <= standard.queue:
        raise UserError(f"a queue depth of {depth} per channel", expected=f"1 to {standard.queue}")
    device = FlashDevice(standard)
    rng = np.random.default_rng(seed)
    n = max(LEAST_REQUESTS, REQUESTS_PER_PLANE * min(depth, o.channel_planes))
    trace = np.zeros((n, TRACE_WORDS), np.int64)
    trace[:, 1] = rng.integers(0, device.channel_pages, n)
    trace[:, 2] = rng.integers(0, device.timing.granules // size, n) * size
    trace[:, 3] = size
    done, _ = device.replay(trace, np.zeros(n, np.int64), depth)
    ticks = np.sort(done)
    first, last = n // 10, n - 1 - n // 10
    rate = (last - first) * access_bytes * o.channels / (int(ticks[last] - ticks[first]) * float(device.tick_fs))
    seconds_per_request = access_bytes * o.channels / (rate * FS_PER_SECOND)
    return ReadRate(
        access_bytes=access_bytes,
        depth=depth,
        bytes_per_second=rate * FS_PER_SECOND,
        mean_latency_fs=depth * seconds_per_request * FS_PER_SECOND,  # Little: always `depth` under way
        limit=limiting_resource(
            utilisation(standard, device.counts(), n * int(ticks[last] - ticks[first]) / (last - first)),
            staging_full=depth * size > device.timing.staging,
        ),
    )


def sequential_reads(standard: FlashStandard, size_bytes: int | None = None) -> ReadRate:
    """One stream over the stack, whole pages, as far ahead as queue and staging let it; all of the stack if no size is
    given."""
    device = FlashDevice(standard)
    pages = device.channel_pages if size_bytes is None else min(device.bursts(size_bytes), device.channel_pages)
    device.submit(Transfer((Range(0, pages),)))
    completion = device.advance()
    assert completion is not None, device.describe_work()
    counts = device.counts()
    fs = float(completion.tick * device.tick_fs)
    return ReadRate(
        access_bytes=standard.organisation.page,
        depth=0,
        bytes_per_second=counts.read_bytes / fs * FS_PER_SECOND,
        mean_latency_fs=float(counts.latency_ticks * device.tick_fs) / counts.reads,
        limit=limiting_resource(utilisation(standard, counts, completion.tick), staging_full=True),
    )


def limiting_resource(shares: dict[str, float], *, staging_full: bool) -> str:
    """The resource that is busy almost always; if none is, the staging SRAM if it was full, else the queue depth.

    With random reads a full staging SRAM is in part the planes' doing: those that happen to get more reads hold it."""
    busiest = max(shares, key=lambda name: shares[name])
    if shares[busiest] >= SATURATED:
        return busiest
    return "staging" if staging_full else "queue depth"


def utilisation(standard: FlashStandard, counts: FlashCounts, ticks: float) -> dict[str, float]:
    """Share of the time that each resource was busy, mean over the stack."""
    o = standard.organisation
    planes = o.channels * o.channel_planes
    active = standard.most_active * standard.group_planes * o.channels
    shares = {
        "planes": counts.array_busy_ticks / (planes * ticks),
        "channel": counts.bus_busy_ticks / (o.channels * ticks),
    }
    if standard.buses.link is not None:
        shares["link"] = counts.link_busy_ticks / (o.channels * ticks)
    if active < planes:
        shares["power"] = counts.array_busy_ticks / (active * ticks)
    return shares

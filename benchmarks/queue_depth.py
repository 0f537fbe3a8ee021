"""Is a deeper queue ever slower? For each kind of traffic and refresh: the worst case over all shipped memories.

    python benchmarks/queue_depth.py     # the table of docs/validation.md, "DRAM: depth of the queues"; about a minute

All requests are there from the start, and the controller takes them as fast as its queues have room. A depth counts as
slower by what its run ends later than the best shallower one of the same traffic.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from archsim.config.loading import data_root, load_spec
from archsim.memory.replay_channel import ReplayChannel
from archsim.memory.standard import ControllerSpec, DramStandard, RefreshPolicy

MEMORIES = tuple(path.stem for path in sorted((data_root() / "hwconfigs" / "memory").glob("*.yaml")))
DEPTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128)
REFRESHES = (RefreshPolicy.NONE, RefreshPolicy.ALL_BANK, RefreshPolicy.PER_BANK)
SPACE_BURSTS = 1 << 21
STREAM_BURSTS = 100_000
RANDOM_BURSTS = 25_000
FIXED_WRITE_QUEUE = 32


class Traffic(StrEnum):
    STREAM = "sequential reads"
    TWO_STREAMS = "sequential reads and writes 2:1"
    RANDOM = "random reads"
    MIXED = "random reads and writes 2:1"

    @property
    def seeds(self) -> tuple[int, ...]:
        return (1, 2, 3) if self in (Traffic.RANDOM, Traffic.MIXED) else (1,)


@dataclass(frozen=True)
class Slower:
    """How much later than a shallower queue, as a share, and where."""

    share: float
    memory: str
    depth: int


@cache
def preset(memory: str) -> DramStandard:
    return load_spec(data_root() / "hwconfigs" / "memory" / f"{memory}.yaml", DramStandard).spec


def requests(traffic: Traffic, seed: int, pseudo_channel: int, bursts: int | None = None) -> NDArray[np.int64]:
    """Requests of one pseudo-channel as replays take them: local burst address << 1 | write."""
    if traffic in (Traffic.STREAM, Traffic.TWO_STREAMS):
        order = np.arange(bursts or STREAM_BURSTS)
        if traffic is Traffic.STREAM:
            return order << 1
        writes = order % 3 == 2
        return np.where(writes, SPACE_BURSTS + order // 3, order // 3 * 2 + order % 3) << 1 | writes
    random = np.random.default_rng([seed, pseudo_channel])
    number = bursts or RANDOM_BURSTS
    share = 1 / 3 if traffic is Traffic.MIXED else 0
    return random.integers(0, SPACE_BURSTS, number) << 1 | (random.random(number) < share)


def ticks(
    memory: str,
    refresh: RefreshPolicy,
    traffic: Traffic,
    depth: int,
    *,
    seed: int = 1,
    write_queue: int | None = None,
    bursts: int | None = None,
) -> int:
    """When the last request is complete. The write queue is as deep as the read queue unless given; drains of writes
    start at three quarters of it and stop at a quarter."""
    writes = write_queue or max(depth, 4)
    controller = ControllerSpec(
        refresh=refresh, read_queue=depth, write_queue=writes, write_high=writes * 3 // 4, write_low=writes // 4
    )
    standard = preset(memory)
    timing = standard.timing(controller)
    bank_of, column_of = (table.astype(np.int64) for table in standard.address_tables(controller))
    channel = ReplayChannel(timing, bank_of, column_of, timed=False)
    words = [requests(traffic, seed, p, bursts) for p in range(timing.pseudo_channels)]
    channel.feed([(part, np.zeros(len(part), np.int64)) for part in words])
    channel.finish()
    return channel.end_tick


def worst(traffic: Traffic, refresh: RefreshPolicy, write_queue: int | None = None) -> Slower:
    """The worst of all memories, depths and seeds."""
    found = Slower(0.0, "", 0)
    for memory in MEMORIES:
        for seed in traffic.seeds:
            ends = [ticks(memory, refresh, traffic, depth, seed=seed, write_queue=write_queue) for depth in DEPTHS]
            best = np.minimum.accumulate(ends)
            for depth, end, fastest in zip(DEPTHS, ends, best, strict=True):
                share = end / int(fastest) - 1
                if share > found.share:
                    found = Slower(share, memory, depth)
    return found


def main() -> None:
    print("| traffic | write queue |" + "".join(f" {refresh.value} |" for refresh in REFRESHES))
    print("|---|---|" + "---|" * len(REFRESHES))
    for traffic in Traffic:
        writes = traffic in (Traffic.TWO_STREAMS, Traffic.MIXED)
        for write_queue in (None, FIXED_WRITE_QUEUE) if writes else (None,):
            cells = []
            for refresh in REFRESHES:
                found = worst(traffic, refresh, write_queue)
                where = f" (`{found.memory}`, {found.depth})" if found.share else ""
                cells.append(f"{found.share:.3%}{where}")
            queue = "" if not writes else "as deep" if write_queue is None else str(write_queue)
            print(f"| {traffic} | {queue} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

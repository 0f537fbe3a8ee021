"""Replays a trace under the reference controller `hbm34`, channel by channel and piece by piece.

The reference is one channel. Several are interleaved as its address maps would have them: the channel is the lowest
field of RoBaRaCoCh, and comes after the four bursts of a row in MOP4CLXOR. Each channel takes its own requests as fast
as it can, four per tick at most; what another channel refuses doesn't hold them up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archsim.config.errors import UserError
from archsim.kernels.hbm34_state import Hbm34Command, Hbm34Count
from archsim.memory.hbm34 import (
    ACCESS_BYTES,
    CommandSink,
    Hbm34Channel,
    Mapper,
    Served,
    controller_timing,
    nominal_timings,
)
from archsim.memory.latency import Latencies
from archsim.memory.standard import DramStandard
from archsim.memory.traces import TimeUnit, Trace

Ints = NDArray[np.int64]
HELD_BURSTS = {Mapper.ROBARACOCH: 1, Mapper.MOP4CLXOR: 4}
"""Neighbouring bursts that lie in the same channel."""


@dataclass(frozen=True)
class Hbm34Replay:
    """What the channels did, all together; latencies in ticks, from injection, of reads and of writes."""

    requests: tuple[int, int]  # reads, writes
    counts: dict[Hbm34Count, int]
    commands: dict[Hbm34Command, int]
    latencies: tuple[Latencies, Latencies]
    end_tick: int


def replay_hbm34(
    trace: Trace,
    standard: DramStandard,
    channels: int,
    mapper: Mapper,
    refresh: bool,
    command_sink: CommandSink | None = None,
) -> Hbm34Replay:
    """Run a trace through the controller. Raises UserError for a memory it doesn't know, a trace with times (it takes
    requests as fast as it can), an address beyond the capacity, or what is wrong in the trace."""
    if trace.time_unit is not TimeUnit.NONE:
        raise UserError(
            f"{trace.file} has times; the controller hbm34 takes requests as fast as it can",
            expected="a trace without times, or another controller",
        )
    timing = controller_timing(nominal_timings(standard), refresh)
    units = [Hbm34Channel(timing, mapper, command_sink, number) for number in range(channels)]
    latencies = Latencies(), Latencies()
    capacity_bytes = standard.channel_bytes * channels
    for chunk in trace.chunks():
        _check_addresses(chunk.address, capacity_bytes)
        number, local = _place(chunk.address, channels, mapper)
        for channel, unit in enumerate(units):
            mine = number == channel
            _note(unit.serve(local[mine], chunk.write[mine], last=False), latencies)
    nothing = np.zeros(0, np.int64)
    for unit in units:
        _note(unit.serve(nothing, nothing, last=True), latencies)
    return Hbm34Replay(
        requests=(latencies[0].count, latencies[1].count),
        counts={what: sum(unit.count(what) for unit in units) for what in Hbm34Count},
        commands={command: sum(unit.issued(command) for unit in units) for command in Hbm34Command},
        latencies=latencies,
        end_tick=max(unit.count(Hbm34Count.TICKS) for unit in units),
    )


def _place(address: Ints, channels: int, mapper: Mapper) -> tuple[Ints, Ints]:
    """Channel, and byte address within it."""
    block, burst = np.divmod(address // ACCESS_BYTES, HELD_BURSTS[mapper])
    row, number = np.divmod(block, channels)
    return number, (row * HELD_BURSTS[mapper] + burst) * ACCESS_BYTES


def _check_addresses(address: Ints, capacity_bytes: int) -> None:
    beyond = np.flatnonzero(address >= capacity_bytes)
    if len(beyond):
        raise UserError(
            f"address {int(address[beyond[0]]):#x} lies beyond the memory's {capacity_bytes:#x} bytes",
            expected="more channels, or a trace that fits",
        )


def _note(served: Served, latencies: tuple[Latencies, Latencies]) -> None:
    for write, one in enumerate(latencies):
        one.add(served.latency[served.write == write])

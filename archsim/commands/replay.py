"""`archsim replay`: run a memory trace through a memory, and print what happened as gem5's stats.txt does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archsim.config.errors import UserError, nearest_name
from archsim.config.loading import load_spec, resolve_preset
from archsim.energy import energy_pj
from archsim.kernels.timing import Count
from archsim.memory.interleave import Interleave
from archsim.memory.latency import Latencies
from archsim.memory.replay import ReplayResult, replay
from archsim.memory.standard import ControllerSpec, DramStandard, RefreshPolicy
from archsim.memory.traces import open_trace
from archsim.records import Counts
from archsim.system import SystemSpec

ENERGY_TABLE = "h200"
"""The system whose energy table prices the commands."""
MOST_CHANNELS = 4096
QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


@dataclass(frozen=True)
class Stat:
    """One line of stats.txt."""

    name: str
    value: int | float
    unit: str
    description: str

    def __str__(self) -> str:
        value = f"{self.value:.9g}" if isinstance(self.value, float) else str(self.value)
        return f"{self.name:<40} {value:>20}  # ({self.unit}) {self.description}"


@dataclass(frozen=True)
class ReplayReport:
    """The statistics of a replay and what was replayed on what."""

    trace: Path
    format: str
    memory: str
    channels: int
    mapper: str
    refresh: str
    stats: tuple[Stat, ...]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "trace": str(self.trace),
            "format": self.format,
            "memory": self.memory,
            "channels": self.channels,
            "mapper": self.mapper,
            "refresh": self.refresh,
            "stats": {stat.name: {"value": stat.value, "unit": stat.unit} for stat in self.stats},
        }

    def __str__(self) -> str:
        about = f"# {self.trace} ({self.format}) on {self.channels} channels of {self.memory}, refresh {self.refresh}"
        lines = [about, f"# address map from the lowest bits on: {self.mapper}"]
        begin, end = "Begin Simulation Statistics ----------", "End Simulation Statistics   ----------"
        return "\n".join([f"---------- {begin}", *lines, *map(str, self.stats), f"---------- {end}"])

    def write(self, directory: Path) -> None:
        """stats.txt and stats.json. Raises UserError if they can't be written."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "stats.txt").write_text(f"{self}\n")
            (directory / "stats.json").write_text(json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise UserError(f"can't write the statistics to {directory}: {error.strerror or error}") from None


def load_memory(name: str) -> DramStandard:
    """A memory preset by name or path. Raises UserError."""
    return load_spec(resolve_preset(name, Path()), DramStandard).spec


def refresh_policy(name: str) -> RefreshPolicy:
    """A refresh policy by name. Raises UserError."""
    names = [policy.value for policy in RefreshPolicy]
    if name not in names:
        raise UserError(
            f"there is no refresh policy '{name}'", expected=", ".join(names), nearest=nearest_name(name, names)
        )
    return RefreshPolicy(name)


def replay_trace(
    trace: Path,
    memory: str,
    *,
    channels: int | None = None,
    refresh: str = RefreshPolicy.ALL_BANK.value,
    mapper: str | None = None,
    commands: Path | None = None,
    out: Path | None = None,
) -> ReplayReport:
    """Replay a trace file on a memory; `channels` defaults to those of one stack. Raises UserError."""
    standard = load_memory(memory)
    number = standard.channels_per_stack if channels is None else channels
    if not 1 <= number <= MOST_CHANNELS:
        raise UserError(f"{number} channels", expected=f"1 to {MOST_CHANNELS}")
    policy = refresh_policy(refresh)
    interleave = Interleave(standard, number, ControllerSpec().address_map if mapper is None else mapper)
    controller = ControllerSpec(refresh=policy, address_map=interleave.local_map)
    requests = open_trace(trace)
    if commands is None:
        log: Any = nullcontext()
    else:
        from archsim.commands.command_log import CommandLogWriter

        log = CommandLogWriter(commands, {"memory": memory, "refresh": policy.value, "channels": str(number)})
    with log as writer:
        result = replay(requests, standard, controller, interleave, None if writer is None else writer.append)
    report = ReplayReport(
        trace=trace,
        format=requests.format.value,
        memory=memory,
        channels=number,
        mapper=interleave.text,
        refresh=policy.value,
        stats=tuple(_stats(result, standard, number)),
    )
    if out is not None:
        report.write(out)
    return report


def _stats(result: ReplayResult, standard: DramStandard, channels: int) -> Iterator[Stat]:
    n = [int(count) for count in result.counts.sum(axis=0)]
    reads, writes = result.requests
    seconds = result.elapsed_seconds
    peak = float(standard.peak_bytes_per_second * channels)
    yield Stat("sim.seconds", seconds, "Second", "time from the start to the last completion")
    yield Stat("sim.ticks", result.end_tick, "Tick", f"the same in ticks of {float(result.tick_fs) / 1000:g} ps")
    for kind, requests in (("read", reads), ("write", writes)):
        size = requests * result.burst_bytes
        rate = size / seconds if seconds else 0.0
        yield Stat(f"mem.requests.{kind}", requests, "Count", f"{kind} requests completed")
        yield Stat(f"mem.bytes.{kind}", size, "Byte", f"bytes moved by {kind}s")
        yield Stat(f"mem.bandwidth.{kind}", rate, "Byte/Second", f"mean bandwidth of {kind}s")
    total = (reads + writes) * result.burst_bytes / seconds if seconds else 0.0
    yield Stat("mem.bandwidth.total", total, "Byte/Second", "mean bandwidth")
    yield Stat("mem.bandwidth.peak", peak, "Byte/Second", "bandwidth of the data buses")
    yield Stat("mem.bandwidth.utilization", total / peak, "Ratio", "mean over peak bandwidth")
    for w, kind in enumerate(("read", "write")):
        yield from _latency(f"mem.latency.{kind}", result.from_arrival[w], result, f"{kind} latency from arrival")
        yield from _latency(
            f"mem.queue_latency.{kind}", result.from_queue[w], result, f"{kind} latency from queue entry"
        )
    for name, count, what in (
        ("hits", Count.HITS, "requests whose row was open"),
        ("misses", Count.MISSES, "requests that found their bank closed"),
        ("conflicts", Count.CONFLICTS, "requests that found another row open"),
    ):
        yield Stat(f"mem.rows.{name}", n[count], "Count", what)
    yield Stat("mem.rows.hit_rate", n[Count.HITS] / max(reads + writes, 1), "Ratio", "hits over requests")
    for count in (Count.ACT, Count.PRE, Count.PREAB, Count.RD, Count.WR, Count.REFAB, Count.REFPB):
        yield Stat(f"mem.commands.{count.name}", n[count], "Count", f"{count.name} commands")
    for name, count, what in (
        ("busy", Count.BUSY, "moving data"),
        ("refresh", Count.REFRESH, "waiting for refresh"),
        ("turnaround", Count.TURNAROUND, "turning around between reads and writes"),
        ("row", Count.ROW, "waiting for rows"),
        ("idle", Count.IDLE, "without requests"),
    ):
        yield Stat(f"mem.bus.{name}", n[count], "Tick", f"data-bus time {what}, all pseudo-channels")
    yield from _energy(n, reads + writes, result.burst_bytes)


def _latency(name: str, latencies: Latencies, result: ReplayResult, what: str) -> Iterator[Stat]:
    scale = result.nanoseconds_per_tick
    yield Stat(f"{name}.mean", latencies.mean * scale, "Nanosecond", f"mean {what}")
    for label, share in QUANTILES:
        yield Stat(
            f"{name}.{label}", latencies.quantile(share) * scale, "Nanosecond", f"{share:.0%} quantile of {what}"
        )
    yield Stat(f"{name}.max", latencies.maximum * scale, "Nanosecond", f"largest {what}")


def _energy(n: list[int], requests: int, burst_bytes: int) -> Iterator[Stat]:
    """Energy of the commands by the energy table of `ENERGY_TABLE`, without static power."""
    system = load_spec(resolve_preset(ENERGY_TABLE, Path()), SystemSpec).spec
    counts = Counts()
    counts.dram_activates = n[Count.ACT]
    counts.dram_reads, counts.dram_writes = n[Count.RD], n[Count.WR]
    counts.dram_refreshes_all_bank, counts.dram_refreshes_per_bank = n[Count.REFAB], n[Count.REFPB]
    parts = energy_pj(counts, 0, system.energy, system.device.power)
    parts = {name.removeprefix("hbm_"): value for name, value in parts.items() if name.startswith("hbm_")}
    for name, value in parts.items():
        yield Stat(f"mem.energy.{name}", value, "Picojoule", f"energy of {name}, by the energy table of {ENERGY_TABLE}")
    total = sum(parts.values())
    yield Stat("mem.energy.total", total, "Picojoule", "energy of all commands and pins, no static power")
    bits = 8 * burst_bytes * max(requests, 1)
    yield Stat("mem.energy.per_bit", total / bits, "Picojoule/Bit", "the same over the bits moved")

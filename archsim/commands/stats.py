"""Statistics as gem5's stats.txt has them: dotted name, value, unit, description. Also as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archsim.config.errors import UserError
from archsim.kernels.timing import Count
from archsim.memory.energy import CommandEnergy
from archsim.memory.latency import Latencies
from archsim.memory.replay import ReplayResult
from archsim.memory.standard import DramStandard

QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
NO_ENERGY = "no energy data for this memory: its file has no `energy` section"


@dataclass(frozen=True)
class Stat:
    """One line of stats.txt."""

    name: str
    value: int | float
    unit: str
    description: str

    def __str__(self) -> str:
        value = f"{self.value:.9g}" if isinstance(self.value, float) else str(self.value)
        return f"{self.name:<40} {value:>20}  # {self.description} ({self.unit})"


@dataclass(frozen=True)
class ReplayReport:
    """The statistics of a replay and what was replayed on what; `notes` say what is missing or assumed."""

    trace: Path
    format: str
    memory: str
    controller: str
    channels: int
    mapper: str
    refresh: str
    notes: tuple[str, ...]
    stats: tuple[Stat, ...]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "trace": str(self.trace),
            "format": self.format,
            "memory": self.memory,
            "controller": self.controller,
            "channels": self.channels,
            "mapper": self.mapper,
            "refresh": self.refresh,
            "notes": list(self.notes),
            "stats": {stat.name: {"value": stat.value, "unit": stat.unit} for stat in self.stats},
        }

    def __str__(self) -> str:
        about = [
            f"{self.trace} ({self.format}) on {self.channels} channels of {self.memory}",
            f"controller {self.controller}, refresh {self.refresh}",
            f"address map from the lowest bits on: {self.mapper}",
            *self.notes,
        ]
        begin, end = "Begin Simulation Statistics ----------", "End Simulation Statistics   ----------"
        lines = [f"---------- {begin}", *(f"# {line}" for line in about), *map(str, self.stats), f"---------- {end}"]
        return "\n".join(lines)

    def write(self, directory: Path) -> None:
        """stats.txt and stats.json. Raises UserError if they can't be written."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "stats.txt").write_text(f"{self}\n")
            (directory / "stats.json").write_text(json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise UserError(f"can't write the statistics to {directory}: {error.strerror or error}") from None


@dataclass(frozen=True)
class Traffic:
    """What a memory did: requests served, commands issued, and how long it took."""

    reads: int
    writes: int
    activates: int
    read_bursts: int
    write_bursts: int
    refreshes_all_bank: int
    refreshes_per_bank: int
    end_tick: int

    @property
    def requests(self) -> int:
        return self.reads + self.writes

    @classmethod
    def of_replay(cls, result: ReplayResult) -> Traffic:
        """What a replay did, on all channels together."""
        n = [int(count) for count in result.counts.sum(axis=0)]
        return cls(
            *result.requests,
            activates=n[Count.ACT],
            read_bursts=n[Count.RD],
            write_bursts=n[Count.WR],
            refreshes_all_bank=n[Count.REFAB],
            refreshes_per_bank=n[Count.REFPB],
            end_tick=result.end_tick,
        )


def traffic_stats(traffic: Traffic, standard: DramStandard, channels: int) -> Iterator[Stat]:
    """Time, requests, bytes and bandwidth."""
    burst = standard.organisation.burst_bytes
    seconds = float(traffic.end_tick * standard.tick_fs) * 1e-15
    peak = float(standard.peak_bytes_per_second * channels)
    yield Stat("sim.seconds", seconds, "Second", "time from the start to the last completion")
    yield Stat("sim.ticks", traffic.end_tick, "Tick", f"the same in ticks of {float(standard.tick_fs) / 1000:g} ps")
    for kind, requests in (("read", traffic.reads), ("write", traffic.writes)):
        size = requests * burst
        rate = size / seconds if seconds else 0.0
        yield Stat(f"mem.requests.{kind}", requests, "Count", f"{kind} requests completed")
        yield Stat(f"mem.bytes.{kind}", size, "Byte", f"bytes moved by {kind}s")
        yield Stat(f"mem.bandwidth.{kind}", rate, "Byte/Second", f"mean bandwidth of {kind}s")
    total = traffic.requests * burst / seconds if seconds else 0.0
    yield Stat("mem.bandwidth.total", total, "Byte/Second", "mean bandwidth")
    yield Stat("mem.bandwidth.peak", peak, "Byte/Second", "bandwidth of the data buses")
    yield Stat("mem.bandwidth.utilization", total / peak, "Ratio", "mean over peak bandwidth")


def latency_stats(name: str, latencies: Latencies, standard: DramStandard, what: str) -> Iterator[Stat]:
    """Mean, percentiles and maximum, in nanoseconds."""
    scale = float(standard.tick_fs) * 1e-6
    yield Stat(f"{name}.mean", latencies.mean * scale, "Nanosecond", f"mean {what}")
    for label, share in QUANTILES:
        yield Stat(
            f"{name}.{label}", latencies.quantile(share) * scale, "Nanosecond", f"{share:.0%} quantile of {what}"
        )
    yield Stat(f"{name}.max", latencies.maximum * scale, "Nanosecond", f"largest {what}")


def row_stats(hits: int, misses: int, conflicts: int, requests: int) -> Iterator[Stat]:
    """What requests found in the row buffers."""
    yield Stat("mem.rows.hits", hits, "Count", "requests whose row was open")
    yield Stat("mem.rows.misses", misses, "Count", "requests that found their bank closed")
    yield Stat("mem.rows.conflicts", conflicts, "Count", "requests that found another row open")
    yield Stat("mem.rows.hit_rate", hits / max(requests, 1), "Ratio", "hits over requests")


def energy_stats(traffic: Traffic, standard: DramStandard) -> Iterator[Stat]:
    """Energy of all commands and pins by the memory's own `energy`; nothing if it has none."""
    band = standard.energy_band
    if band is None:
        return
    burst = standard.organisation.burst_bytes
    for name, energy in _energy_parts(traffic, band.likely, burst).items():
        yield Stat(f"mem.energy.{name}", energy, "Picojoule", f"energy of {name}")
    bits = 8 * burst * max(traffic.requests, 1)
    totals = {name: sum(_energy_parts(traffic, energy, burst).values()) for name, energy in band.items()}
    for name, suffix, what in (
        ("likely", "", ""),
        ("low", ".low", ", the least by the sources"),
        ("high", ".high", ", the most by the sources"),
    ):
        about = f"energy of all commands and pins, nothing for standing by{what}"
        yield Stat(f"mem.energy.total{suffix}", totals[name], "Picojoule", about)
        yield Stat(
            f"mem.energy.per_bit{suffix}", totals[name] / bits, "Picojoule/Bit", f"the same over the bits moved{what}"
        )


def energy_notes(standard: DramStandard) -> tuple[str, ...]:
    """What to know of the energies, for the head of the statistics."""
    if standard.energy is None:
        return (NO_ENERGY,)
    methods = " and ".join(standard.energy.by_method(standard.energy_geometry(standard.energy)))
    return (f"energy by {methods}, low and high {standard.energy.spread:.0%} beyond",)


def _energy_parts(traffic: Traffic, energy: CommandEnergy, burst_bytes: int) -> dict[str, float]:
    bursts = traffic.read_bursts + traffic.write_bursts
    return {
        "activate": traffic.activates * energy.activate,
        "read": traffic.read_bursts * energy.read,
        "write": traffic.write_bursts * energy.write,
        "refresh": traffic.refreshes_all_bank * energy.refresh_all_bank
        + traffic.refreshes_per_bank * energy.refresh_per_bank,
        "io": 8 * bursts * burst_bytes * energy.io,
    }

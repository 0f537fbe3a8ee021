"""What a memory system is measured at in the Gymnasium environment: a trace of requests, or a decode step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from archsim.commands.stats import Traffic, energy_stats
from archsim.config.errors import UserError
from archsim.config.loading import load_spec, resolve_preset
from archsim.experiment import LoadedExperiment, load_experiment
from archsim.kernels.timing import Count
from archsim.memory.interleave import Interleave
from archsim.memory.replay import ReplayResult, replay
from archsim.memory.standard import DramStandard
from archsim.memory.traces import Chunk, TimeUnit, Trace, TraceFormat, open_trace
from archsim.sweep.gym_knobs import Choice, Knob, controller_of, knobs_for, settings_of

CONTROLLER_PATH = "system.device.memory.controller"


class Observation(NamedTuple):
    """What a memory system did: latency in s, bandwidth in B/s, energy in J, row hits as a share of all accesses.

    Of a trace, latency is the mean of reads, and energy that of commands and pins. Of a decode step, latency is the
    time per output token, bandwidth one device's, and energy that per token, all devices."""

    latency: float
    bandwidth: float
    energy: float
    row_hits: float


class Task(Protocol):
    """Knobs, and what comes of a choice for each."""

    @property
    def knobs(self) -> tuple[Knob, ...]: ...

    def measure(self, choices: Sequence[Choice]) -> Observation:
        """Simulate. Raises UserError if the choices together are no memory system."""
        ...


# ---------------------------------------------------------------- a trace


@dataclass(frozen=True)
class MixedTrace(Trace):
    """Requests made up by a seed: sequential streams that take turns, random accesses between them, some writes.

    `requests` of `burst_bytes`; a share `random` of them goes anywhere, a share `writes` of the streams is written."""

    requests: int = 20_000
    burst_bytes: int = 32
    capacity_bytes: int = 1 << 28
    streams: int = 8
    run_bursts: int = 16
    random: float = 0.3
    writes: float = 0.25
    seed: int = 0

    def chunks(self) -> Iterator[Chunk]:
        draws = np.random.default_rng(self.seed)
        bursts = self.capacity_bytes // self.burst_bytes
        turn = np.arange(self.requests) // self.run_bursts
        stream = turn % self.streams
        place = (turn // self.streams) * self.run_bursts + np.arange(self.requests) % self.run_bursts
        sequential = (stream * (bursts // self.streams) + place) % bursts
        anywhere = draws.random(self.requests) < self.random
        burst = np.where(anywhere, draws.integers(bursts, size=self.requests), sequential)
        written = np.where(anywhere, draws.random(self.requests) < self.writes, stream < self.writes * self.streams)
        yield Chunk(burst * self.burst_bytes, written.astype(np.int64), np.zeros(self.requests, np.int64))


@dataclass(frozen=True)
class ReplayTask:
    """A memory trace through `channels` channels of a memory. Without a trace, a mixed one (`MixedTrace`).

    A trace without times arrives as fast as the controller takes it: bandwidth is what the controller makes of it. With
    times, latency is. Raises UserError, when it is first used, for what is wrong with either."""

    memory: str = "hbm3_16gb_8hi"
    trace: str | Path | None = None
    channels: int = 1

    @cached_property
    def standard(self) -> DramStandard:
        return load_spec(resolve_preset(self.memory, Path()), DramStandard).spec

    @cached_property
    def knobs(self) -> tuple[Knob, ...]:
        return knobs_for(self.standard)

    def measure(self, choices: Sequence[Choice]) -> Observation:
        written = controller_of(choices)
        interleave = Interleave(self.standard, self.channels, written.address_map)
        controller = written.model_copy(update={"address_map": interleave.local_map})
        return self._observed(replay(self._trace, self.standard, controller, interleave))

    @cached_property
    def _trace(self) -> Trace:
        if self.trace is not None:
            return open_trace(Path(self.trace))
        burst, capacity = self.standard.organisation.burst_bytes, self.standard.channel_bytes * self.channels
        return MixedTrace(
            Path("(mixed)"), TraceFormat.NPY, TimeUnit.NONE,
            burst_bytes=burst, capacity_bytes=min(capacity, 1 << 28),
        )  # fmt: skip

    def _observed(self, result: ReplayResult) -> Observation:
        n = [int(count) for count in result.counts.sum(axis=0)]
        traffic = Traffic.of_replay(result)
        energies = {stat.name: stat.value for stat in energy_stats(traffic, self.standard)}
        accesses = n[Count.HITS] + n[Count.MISSES] + n[Count.CONFLICTS]
        return Observation(
            latency=result.from_arrival[0 if traffic.reads else 1].mean * result.nanoseconds_per_tick * 1e-9,
            bandwidth=traffic.requests * result.burst_bytes / result.elapsed_seconds,
            energy=energies.get("mem.energy.total", 0.0) * 1e-12,
            row_hits=n[Count.HITS] / accesses if accesses else 0.0,
        )


# ---------------------------------------------------------------- a decode step


@dataclass(frozen=True)
class DecodeTask:
    """The decode phase of an experiment. `more` are knobs beside the controller's: a path and its values, such as
    {"system.device.stream_window": ["8 MiB", "32 MiB"]}, or of tiers where the system has any."""

    experiment: str | Path = "llama3_70b_h200x8"
    overrides: Mapping[str, object] = field(default_factory=lambda: {"workload.prefill": None})
    more: Mapping[str, Sequence[str | int]] = field(default_factory=dict)

    @cached_property
    def _loaded(self) -> LoadedExperiment:
        return load_experiment(self.experiment, self.overrides)

    @cached_property
    def knobs(self) -> tuple[Knob, ...]:
        technology = self._loaded.spec.system.device.memory.technology
        if not isinstance(technology, DramStandard):
            raise UserError(f"{technology.name} has no controller to tune", expected="a system whose memory is DRAM")
        own = knobs_for(technology)
        return (
            *own,
            *(
                Knob(path, tuple(values), tuple({path: value} for value in values))
                for path, values in self.more.items()
            ),
        )

    def measure(self, choices: Sequence[Choice]) -> Observation:
        from archsim.run import simulate

        paths = [choice for choice in choices if choice.keys() <= self.more.keys()]
        settings = settings_of([choice for choice in choices if choice not in paths])
        changes = dict(self.overrides) | {f"{CONTROLLER_PATH}.{name}": value for name, value in settings.items()}
        for choice in paths:
            changes |= choice
        metrics = simulate(load_experiment(self.experiment, changes)).metrics()
        wanted = ("decode.tpot", "decode.hbm.bandwidth", "decode.energy_per_token", "decode.hbm.row_hit_rate")
        if missing := [name for name in wanted if name not in metrics]:
            raise UserError(f"{self.experiment} gives no {missing[0]}", expected="a workload with a decode phase")
        return Observation(*(float(metrics[name].value) for name in wanted))

"""SRAM as the main memory of a device: what a user writes, and the driver that the engine runs it by.

    memory: {kind: sram, technology: sram_groq_lpu, capacity: 220 MiB}

Operators read their operands in place; there is nothing to activate and nothing to prefetch. A model
that needs more than one chip lies on a `row` of them, each with its share of the layers. One batch goes from chip to
chip: the row has the capacity of all its chips and, at any time, the bandwidth of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from pydantic import model_validator

from archsim.config.errors import UserError
from archsim.config.schema import Spec
from archsim.config.units import ByteCount, BytesPerSecond, PositiveInt, TimeFs, format_bytes
from archsim.kernels.timing import COUNT_WORDS, Count
from archsim.memory.device import Completion, Range, Transfer
from archsim.memory.layout import Shares
from archsim.memory.sram import PortTime, SramCounts, SramSpec, Strided
from archsim.memory.sram_device import SramDevice
from archsim.memory.ticks import Ticking
from archsim.records import Counts


class ChipRowSpec(Spec):
    """Equal chips that hold a model's layers between them and work one after the other, as a static schedule has it.

    What one hands to the next takes `latency` and its bytes at `bandwidth`."""

    chips: PositiveInt
    latency: TimeFs
    bandwidth: BytesPerSecond


class SramMemorySpec(Spec):
    """The SRAM of one device, or of a `row` of chips. `capacity` is what programs can use of all of it."""

    kind: Literal["sram"]
    technology: SramSpec
    capacity: ByteCount
    row: ChipRowSpec | None = None

    @model_validator(mode="after")
    def _check(self) -> SramMemorySpec:
        if self.capacity > self.held_bytes:
            excess = format_bytes(self.capacity - self.held_bytes)
            held = format_bytes(self.held_bytes)
            raise UserError(
                f"capacity is {format_bytes(self.capacity)}, {excess} more than {self.chips} "
                f"x {self.technology.name} hold",
                expected=f"at most {held}, or a row of more chips",
            )
        return self

    @property
    def chips(self) -> int:
        """Chips of the row, 1 without one."""
        return 1 if self.row is None else self.row.chips

    @property
    def held_bytes(self) -> int:
        """What all chips hold."""
        return self.chips * self.technology.capacity

    @property
    def channels(self) -> int:
        """All slices do the same: one channel."""
        return 1

    @property
    def least_window_bytes(self) -> int:
        """A word of every slice: less could not keep them busy."""
        return self.technology.slices * self.technology.word

    @property
    def peak_bytes_per_second(self) -> Fraction:
        """Reads of the chip whose turn it is."""
        return self.technology.peak_bytes_per_second()

    @property
    def in_words(self) -> str:
        """Such as "72 x Groq LPU SRAM, one after the other"."""
        name = self.technology.name
        return name if self.row is None else f"{self.chips} x {name}, one chip after the other"

    @property
    def label(self) -> str:
        """What reports call it."""
        return "SRAM"

    def stage_of(self, layer: int, layers: int) -> int:
        """The chip of the row that holds a layer: layers are dealt out evenly, in order."""
        return layer * self.chips // layers


@dataclass(slots=True)
class _Job:
    """A transfer under way: when its last word is there, and when its consumer has used it."""

    number: int
    data_tick: int
    end_tick: int


class SramMemory(Ticking):
    """Runs the operators of one device from its SRAM. Ticks are clock cycles, a burst is a word of every slice.

    The reads of a transfer are interleaved evenly over its tiles: tile k has its data once k / tiles of all groups have
    left their ports, and starts when it has them and the tile before has ended. Writes follow the reads. Every
    transfer waits for the one before."""

    def __init__(self, spec: SramMemorySpec) -> None:
        self.spec = spec
        self.layout = None
        self.channels = 1
        self.pseudo_channels = 1
        self.burst_bytes = spec.technology.slices * spec.technology.word
        self.tick_fs = spec.technology.tick_fs
        self.reset()

    def reset(self) -> None:
        """Back to cycle 0, nothing counted."""
        self._device = SramDevice(self.spec.technology)
        self._ports = self.spec.technology.port_time
        self._job: _Job | None = None
        self._jobs = 0
        self._latency_cycles = 0

    @property
    def now(self) -> int:
        """The cycle it has been simulated to."""
        return self._device.now

    @property
    def round_bytes(self) -> int:
        """A word of every slice: what ranges are padded to."""
        return self.burst_bytes

    @property
    def row_set_bursts(self) -> int:
        """Words of all banks of a slice: what a stream passes before it comes back to a bank."""
        return self.spec.technology.banks

    @property
    def burst_ticks(self) -> int:
        """The least time between two bursts of a stream, rounded up."""
        technology = self.spec.technology
        return -(-Strided(0, technology.read_lanes).groups(technology).cycles // technology.read_lanes)

    @property
    def least_tile_ticks(self) -> int:
        """A tile takes at least a cycle."""
        return 1

    @property
    def loaded_read_fs(self) -> int:
        """Latency of a read: no queue can form in front of it."""
        return self.to_fs(self.spec.technology.latency_cycles)

    def bursts(self, size_bytes: int) -> int:
        """Words of every slice that hold `size_bytes`."""
        return self._device.accesses(size_bytes)

    def moved_bytes(self, data: Range | Shares) -> int:
        """Bytes of a range, in whole words."""
        return data.bursts * self.burst_bytes

    def check(self, transfer: Transfer) -> None:
        """Refuse what SRAM can't do. Raises UserError."""
        if transfer.gated:
            raise UserError("a prefetch from SRAM", expected="prefetch: false; operands are read in place")
        if any(isinstance(data, Shares) for data in transfer.ranges):
            raise UserError("uneven shares of channels in SRAM", expected="ranges: no paged KV cache")

    def submit(self, transfer: Transfer) -> int:
        """Start a transfer now; its job number, which comes back in a `Completion`."""
        self.check(transfer)
        assert self._job is None, "operators follow each other"
        start = self.now
        self._device.submit(*self._streams(transfer.ranges))
        reads = self._cycles([data for data in transfer.ranges if not data.write])
        writes = self._cycles([data for data in transfer.ranges if data.write])
        latency = self.spec.technology.latency_cycles
        done = max(start, self._ports.cycle(self._ports.worked(start) + reads + writes))
        end = max(done + latency, _consumed(self._ports, start, reads, latency, transfer))
        self._latency_cycles += latency * self.spec.technology.slices * sum(data.bursts for data in transfer.ranges)
        self._job = _Job(self._jobs, done + latency, end)
        self._jobs += 1
        return self._job.number

    def open_gate(self, job: int) -> None:
        """Nothing is gated here: `check` refuses it."""
        raise AssertionError(f"job {job} has no gate")

    def advance(self, until: int | None = None) -> Completion | None:
        """Simulate to the end of the transfer, its consumer included, or to cycle `until`, whichever is first."""
        job = self._job
        if job is None or (until is not None and until < job.end_tick):
            if until is not None:
                self._pass(until)
            return None
        self._pass(job.end_tick)
        self._job = None
        return Completion(job.number, job.end_tick)

    def idle_until(self, tick: int) -> None:
        """Let time pass while no transfer is under way."""
        assert self._job is None, "a transfer is under way"
        if tick > self.now:
            self._pass(tick)

    def _pass(self, tick: int) -> None:
        while self._device.advance(tick) is not None:
            pass

    def _cycles(self, ranges: Sequence[Range | Shares]) -> int:
        """Cycles that the ports need for ranges."""
        return sum(stream.groups(self.spec.technology).cycles for stream in self._streams(ranges))

    def _streams(self, ranges: Sequence[Range | Shares]) -> Iterator[Strided]:
        """Reads, then writes, as accesses of one slice; a range that goes over the end of a chip is two."""
        words = self.spec.technology.words
        for data in sorted(ranges, key=lambda each: each.write):
            assert isinstance(data, Range)  # `check` has refused others
            first, left = data.first_burst % words, data.bursts
            while left > 0:
                here = min(left, words - first)
                yield Strided(first, here, 1, data.write)
                first, left = 0, left - here

    # ------------------------------------------------------------ what happened

    def count_vector(self) -> np.ndarray:
        """Counts so far, int64[COUNT_WORDS] (timing.Count): accesses of all slices, cycles of one. Conflicts of banks
        are `ROW`."""
        technology, counts = self.spec.technology, self._device.counts
        vector = np.zeros(COUNT_WORDS, np.int64)
        vector[Count.RD] = counts.reads * technology.slices
        vector[Count.WR] = counts.writes * technology.slices
        vector[Count.BUSY] = counts.busy_cycles - counts.conflict_cycles
        vector[Count.ROW] = counts.conflict_cycles
        vector[Count.REFAB] = self._ports.refreshes(self.now)
        vector[Count.REFRESH] = counts.refresh_cycles
        vector[Count.IDLE] = max(0, self.now - counts.busy_cycles - counts.refresh_cycles)
        vector[Count.LATENCY] = self._latency_cycles
        return vector

    def channel_counts(self) -> np.ndarray:
        """As `count_vector`, of the one channel: int64[1, COUNT_WORDS]."""
        return self.count_vector()[np.newaxis]

    def add_counts(self, delta: np.ndarray, counts: Counts) -> None:
        """Add a difference of two count vectors to a device's counts; those named after DRAM are the main memory's."""
        word = self.spec.technology.word
        counts.dram_reads += int(delta[Count.RD])
        counts.dram_writes += int(delta[Count.WR])
        counts.dram_read_bytes += int(delta[Count.RD]) * word
        counts.dram_write_bytes += int(delta[Count.WR]) * word
        counts.dram_latency_ticks += int(delta[Count.LATENCY])
        counts.dram_busy_ticks += int(delta[Count.BUSY])
        counts.dram_row_ticks += int(delta[Count.ROW])
        counts.dram_refreshes_all_bank += int(delta[Count.REFAB])
        counts.dram_refresh_ticks += int(delta[Count.REFRESH])
        counts.dram_idle_ticks += int(delta[Count.IDLE])

    @property
    def counts(self) -> SramCounts:
        """Events of one slice."""
        return self._device.counts

    def describe_work(self) -> str:
        """What is in flight, for a message about a device that makes no progress."""
        return f"SRAM, cycle {self.now}: {'no transfer' if self._job is None else f'job {self._job.number}'}"


def _consumed(ports: PortTime, start: int, read_cycles: int, latency: int, transfer: Transfer) -> int:
    """The cycle in which the last tile ends: the longest way through arrivals and tiles that follow each other."""
    tiles = transfer.tiles
    if not tiles:
        return start
    arrived = np.arange(1, tiles + 1, dtype=np.int64)
    left = np.maximum(start, ports.cycle(ports.worked(start) - (-arrived * read_cycles // tiles)))
    ready = left + (latency if read_cycles else 0)
    return int((ready + (tiles + 1 - arrived) * transfer.tile_ticks).max())

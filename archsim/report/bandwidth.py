"""Bandwidth over a phase's time: of the main memory as sampled, of a tier from when its data came.

A tier is read ahead of its operators, so its bytes belong to the time it was busy with them (a span of timeline.json)
and not to the operators' own. Spans overlap, by latency and where units work beside each other: what an operator reads
is drawn between the arrival of what came before it and its own, and never faster than the tier's ceiling.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from archsim.metrics import FS_PER_SECOND
from archsim.results import PhaseSummary, RunResult

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

    _Floats = NDArray[np.float64]

_Span = tuple[str, float, float]  # operator, begin and end in femtoseconds
_BINS = 1200
_FS_PER_US = 1e9
CLOSE_TO_LIMIT = 0.1
"""A mean closer to the limit than this share of it would be written over the limit's name."""


@dataclass(frozen=True)
class Bandwidth:
    """One memory's bandwidth, of one device, as steps: `edges_ms` has one entry more than the rates (bytes per
    second). `limit` is the most it can be, a "peak" or a "ceiling"."""

    memory: str
    limit: float
    limit_name: str
    edges_ms: list[float]
    read: list[float]
    write: list[float]
    mean: float
    bin_ms: float | None

    @property
    def unit(self) -> tuple[float, str]:
        """What to divide rates by to draw them, and what they then are."""
        return (1e12, "TB/s") if self.limit >= 1e12 else (1e9, "GB/s")

    @property
    def near_limit(self) -> bool:
        """Whether the names of mean and limit need to stand aside of each other."""
        return abs(self.limit - self.mean) < CLOSE_TO_LIMIT * self.limit


@dataclass(frozen=True)
class _Moved:
    """Bytes that moved in times that do not overlap (femtoseconds), each at an even rate."""

    start: _Floats
    end: _Floats
    amount: _Floats

    def rates(self, edges: _Floats) -> list[float]:
        """Bytes per second between `edges`; those moved up to a time differ at the edges, so bytes are conserved."""
        if not len(self.amount):
            return [0.0] * (len(edges) - 1)
        times = np.stack([self.start, self.end], axis=1).ravel()
        total = np.cumsum(self.amount)
        done = np.stack([total - self.amount, total], axis=1).ravel()
        order = np.argsort(times, kind="stable")
        moved = np.diff(np.interp(edges, times[order], done[order]))
        rates: list[float] = (moved * FS_PER_SECOND / np.diff(edges)).tolist()
        return rates


class BandwidthSeries:
    """The bandwidth of each memory of a run."""

    def __init__(self, run: RunResult) -> None:
        self._run = run

    def of(self, phase: PhaseSummary) -> list[Bandwidth]:
        """The main memory's if it was sampled, then that of each tier that was read or written."""
        return [*self._main(phase), *(found for tier in phase.tiers for found in self._tier(phase, tier.name))]

    def _main(self, phase: PhaseSummary) -> Iterator[Bandwidth]:
        samples = self._run.bandwidth[self._run.bandwidth["phase"] == phase.phase]
        if len(samples):
            read, write = (_moved(samples, f"{way}_bytes") for way in ("read", "write"))
            extent = self._extent_fs(phase.phase, samples)
            yield _steps(phase.memory, (phase.peak_hbm_bytes_per_second, "peak"), read, write, extent)

    def _tier(self, phase: PhaseSummary, name: str) -> Iterator[Bandwidth]:
        operators = self._run.operators[self._run.operators["phase"] == phase.phase]
        columns = [f"tier_{name}_{way}_bytes" for way in ("read", "write")]
        if not set(columns) <= set(operators.columns) or not operators[columns].sum().sum():
            return
        reading, writing = (operators[operators[column] > 0] for column in columns)
        extent = self._extent_fs(phase.phase, operators)
        ceiling = next(tier.ceiling_bytes_per_second for tier in phase.tiers if tier.name == name)
        read = _arrived(reading, columns[0], self._spans.get((phase.phase, name), ()), extent[0], ceiling)
        if read is not None:
            yield _steps(name, (ceiling, "ceiling"), read, _moved(writing, columns[1]), extent)

    def _extent_fs(self, phase: str, otherwise: DataFrame) -> tuple[float, float]:
        """When the phase's first operator begins and its last one ends: what its metrics divide by."""
        operators = self._run.operators[self._run.operators["phase"] == phase]
        timed = operators if len(operators) else otherwise
        return float(timed["start_fs"].min()), float(timed["end_fs"].max())

    @cached_property
    def _spans(self) -> Mapping[tuple[str, str], Sequence[_Span]]:
        file = self._run.directory / "timeline.json"
        return _tier_spans(file, self._run.summary.phases) if file.is_file() else {}


def _tier_spans(file: Path, phases: tuple[PhaseSummary, ...]) -> dict[tuple[str, str], list[_Span]]:
    """What each tier did in each phase, from a run's timeline: behind the box of a phase stand its operators and spans.

    Femtoseconds since the phase's first operator began.
    """
    events: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    wanted = {tier.name for phase in phases for tier in phase.tiers}
    found: dict[tuple[str, str], list[_Span]] = {}
    phase, origin_us = "", None
    for event in events:
        if event["ph"] != "X":
            continue
        track = tracks[event["tid"]].partition(".")[2]
        if track == "Phases":
            phase, origin_us = event["name"], None
        elif track == "Operators" and origin_us is None:
            origin_us = event["ts"]
        elif track in wanted and origin_us is not None:
            begin_fs, length_fs = (event["ts"] - origin_us) * _FS_PER_US, event["dur"] * _FS_PER_US
            found.setdefault((phase, track), []).append((event["name"], begin_fs, begin_fs + length_fs))
    return found


def _arrived(
    reading: DataFrame, column: str, spans: Sequence[_Span], origin_fs: float, ceiling: float
) -> _Moved | None:
    """When the bytes that operators read of a tier came; None where the timeline has not a span for each."""
    if [name for name, _, _ in spans] != reading["name"].tolist():
        return None
    issued = np.array([begin for _, begin, _ in spans]) + origin_fs
    arrived = np.array([end for _, _, end in spans]) + origin_fs
    order = np.argsort(arrived, kind="stable")
    amount = reading[column].to_numpy(dtype=float)[order]
    start, end = _laid_out(issued[order], arrived[order], amount * FS_PER_SECOND / ceiling)
    return _Moved(start, end, amount)


def _laid_out(issued: _Floats, arrived: _Floats, least: _Floats) -> tuple[_Floats, _Floats]:
    """Times without overlap, each there by its arrival and at least `least` long: from the arrival of what came before,
    or from its issue if that is later, or earlier where that is too short. Arrivals ascend; from the last one back."""
    start, end = np.empty_like(arrived), np.empty_like(arrived)
    before = np.concatenate([[-np.inf], arrived[:-1]])
    behind = np.inf
    for index in range(len(arrived) - 1, -1, -1):
        end[index] = min(arrived[index], behind)
        start[index] = behind = min(max(issued[index], before[index]), end[index] - least[index])
    return start, end


def _moved(table: DataFrame, column: str) -> _Moved:
    start, end, amount = (table[name].to_numpy(dtype=float) for name in ("start_fs", "end_fs", column))
    return _Moved(start, end, amount)


def _steps(
    memory: str, limit: tuple[float, str], read: _Moved, write: _Moved, extent_fs: tuple[float, float]
) -> Bandwidth:
    """Steps as they are, or evenly binned if there are more than a screen can show."""
    origin, last = extent_fs
    edges = np.unique(np.concatenate([read.start, read.end, write.start, write.end, extent_fs]))
    bin_ms = None
    if max(len(read.amount), len(write.amount)) > _BINS:
        edges = np.linspace(origin, last, _BINS + 1)
        bin_ms = float(edges[1] - edges[0]) * 1e-12
    moved = float(read.amount.sum() + write.amount.sum())
    return Bandwidth(
        memory=memory,
        limit=limit[0],
        limit_name=limit[1],
        edges_ms=((edges - origin) * 1e-12).tolist(),
        read=read.rates(edges),
        write=write.rates(edges),
        mean=moved * FS_PER_SECOND / (last - origin),
        bin_ms=bin_ms,
    )

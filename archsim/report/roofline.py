"""The roofline of a run: points, roofs and the range of the axes, and where names stand so that they can be read.

Both kinds of figures draw it. Names avoid markers, roofs, the legend and each other on a canvas of a known size: the
place of the least overlap is taken, the nearest of equals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from archsim.metrics import format_quantity
from archsim.report.series import Job, RunSeries, phase_title
from archsim.results import PhaseSummary

LEAST_SHARE = 0.04
"""Points with less of their phase's time have no name beside them."""
_BESIDE, _STACKED, _HIGH = 0.5, 0.1, 0.35
"""Decades between points that share a name: as wide as one; those of a column share one all the way down."""
_GAPS = (4, 14, 28, 46, 70, 100)
_SIDES = ((1, -1), (1, 0), (1, 1), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1))
_LINE_STEP = 5.0
_MARGIN = 2.0  # around markers


@dataclass(frozen=True)
class Point:
    """An operator of all layers. `share` is of its phase's time; `job` is None for what PIM does of it."""

    operator: str
    phase: int
    intensity: float
    rate: float
    share: float
    job: Job | None

    @property
    def name(self) -> str:
        """What stands beside it."""
        return self.operator if self.job is not None else f"{self.operator} (PIM)"


@dataclass(frozen=True)
class Roof:
    """Bytes per second of one memory below a peak of FLOPs per second. `beside` counts memories other than the main
    one, from 1; it is 0 for the main one."""

    label: str
    bytes_per_second: float
    flops_per_second: float
    beside: int = 0
    until: float = math.inf
    """The highest intensity that it is drawn to."""

    def line(self, left: float, right: float) -> list[tuple[float, float]]:
        """(intensity, rate) of its corners. One beside the main memory ends where it meets the peak."""
        ridge = min(self.flops_per_second / self.bytes_per_second, self.until)
        corners = [(left, left * self.bytes_per_second), (ridge, ridge * self.bytes_per_second)]
        return corners if self.beside else [*corners, (right, self.flops_per_second)]


@dataclass(frozen=True)
class Chart:
    """What to draw. Edges: intensities (FLOP/byte), then rates (FLOP/s)."""

    points: Sequence[Point]
    roofs: Sequence[Roof]
    peak_label: str
    left: float
    right: float
    low: float
    high: float


@dataclass(frozen=True)
class Canvas:
    """A plot's size and that of its text, in one unit; `radius` is a marker's by its share, `legend` a box of (left,
    bottom, right, top) that is taken."""

    width: float
    height: float
    character: float
    line: float
    radius: Callable[[float], float]
    legend: tuple[float, float, float, float]


@dataclass(frozen=True)
class Label:
    """Text whose anchor lies (`across`, `up`) canvas units from (intensity, rate). `side` is where the text lies from
    its anchor: (1, -1) is right and below, 0 is centred."""

    lines: Sequence[str]
    intensity: float
    rate: float
    across: float
    up: float
    side: tuple[int, int]


def chart(series: RunSeries) -> Chart:
    """Points and roofs of one device."""
    points = [
        Point(job.name, index, job.intensity, job.rate, job.share, job)
        for index, phase in enumerate(series.phases)
        for job in series.jobs[phase.phase]
        if job.intensity is not None
    ]
    of_pim = [
        point for index, phase in enumerate(series.phases) if phase.pim for point in _pim_points(series, phase, index)
    ]
    main = distinct_roofs(series.phases)
    roofs = [Roof(peak_label(one), one.peak_hbm_bytes_per_second, one.peak_matrix_flops_per_second) for one in main]
    roofs += _beside(series.phases, max((point.intensity for point in of_pim), default=0.0))
    everything = [*points, *of_pim]
    ridges = [roof.flops_per_second / roof.bytes_per_second for roof in roofs if not roof.beside]
    left = min([point.intensity for point in everything] + ridges) / 2
    right = max([point.intensity for point in everything] + ridges) * 4
    rates = [point.rate for point in everything] + [left * roof.bytes_per_second for roof in roofs if not roof.beside]
    top = max(roof.flops_per_second for roof in roofs)
    peak = max(main, key=lambda one: one.peak_matrix_flops_per_second)
    return Chart(everything, roofs, roof_label(peak), left, right, min(rates) / 2, max([top, *rates]) * 2.5)


def _pim_points(series: RunSeries, phase: PhaseSummary, index: int) -> Iterator[Point]:
    """What PIM's units did of each operator, over the time that they worked on it."""
    total_s = sum(job.time_s for job in series.jobs[phase.phase])
    for job in series.pim_jobs[phase.phase]:
        if job.rate and job.read_bytes:
            yield Point(job.name, index, 2 * job.macs / job.read_bytes, job.rate, job.busy_s / total_s, None)


def _beside(phases: Sequence[PhaseSummary], until: float) -> list[Roof]:
    """The roofs of tiers, and of PIM's units (to `until`, as far as their points go), each once."""
    found: dict[tuple[str, float], Roof] = {}
    for phase in phases:
        peak = phase.peak_matrix_flops_per_second
        for tier in phase.tiers:
            ceiling = tier.ceiling_bytes_per_second
            label = f"{tier.name} ceiling {format_quantity(ceiling, 'B/s')}"
            found.setdefault((label, peak), Roof(label, ceiling, peak, len(found) + 1))
        if phase.pim and until:
            ceiling = phase.pim.ceiling_bytes_per_second
            label = f"PIM units {format_quantity(ceiling, 'B/s')}"
            found.setdefault((label, peak), Roof(label, ceiling, peak, len(found) + 1, 1.5 * until))
    return list(found.values())


def peak_label(phase: PhaseSummary) -> str:
    """ "HBM pins 4.8 TB/s"; SRAM has no pins."""
    where = phase.memory if phase.memory == "SRAM" else f"{phase.memory} pins"
    return f"{where} {format_quantity(phase.peak_hbm_bytes_per_second, 'B/s')}"


def roof_label(phase: PhaseSummary) -> str:
    """ "bf16 matrix peak 989.4 TFLOP/s"."""
    return f"{phase.matrix_format} matrix peak {format_quantity(phase.peak_matrix_flops_per_second, 'FLOP/s')}"


def distinct_roofs(phases: Sequence[PhaseSummary]) -> list[PhaseSummary]:
    """One phase for each distinct pair of roofs."""
    seen: dict[tuple[int, int], PhaseSummary] = {}
    for phase in phases:
        seen.setdefault((phase.peak_hbm_bytes_per_second, phase.peak_matrix_flops_per_second), phase)
    return list(seen.values())


def legend_lines(drawn: Chart, phases: Sequence[PhaseSummary]) -> list[str]:
    """What the legend says, for the room that it takes."""
    return [phase_title(phase) for phase in phases] + [roof.label for roof in drawn.roofs if roof.beside]


# ---------------------------------------------------------------- where names stand


@dataclass(frozen=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: _Box) -> float:
        across = min(self.right, other.right) - max(self.left, other.left)
        up = min(self.top, other.top) - max(self.bottom, other.bottom)
        return across * up if across > 0 and up > 0 else 0.0

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.top - self.bottom)


@dataclass
class _Room:
    """What of a canvas is taken."""

    drawn: Chart
    canvas: Canvas
    taken: list[_Box] = field(default_factory=list)

    def place(self, intensity: float, rate: float) -> tuple[float, float]:
        """A point's place on the canvas, from its lower left corner."""
        across = math.log(intensity / self.drawn.left) / math.log(self.drawn.right / self.drawn.left)
        up = math.log(rate / self.drawn.low) / math.log(self.drawn.high / self.drawn.low)
        return across * self.canvas.width, up * self.canvas.height

    def box(self, label: Label) -> _Box:
        wide = max(len(line) for line in label.lines) * self.canvas.character
        high = len(label.lines) * self.canvas.line
        x, y = self.place(label.intensity, label.rate)
        x, y = x + label.across + (label.side[0] - 1) * wide / 2, y + label.up + (label.side[1] - 1) * high / 2
        return _Box(x, y, x + wide, y + high)

    def cost(self, label: Label) -> float:
        """The area that a label would write over, and a little for its distance; outside is worse than anything."""
        box = self.box(label)
        inside = box.overlap(_Box(0, 0, self.canvas.width, self.canvas.height))
        over = sum(box.overlap(other) for other in self.taken)
        return over + 20 * (box.area - inside) + math.hypot(label.across, label.up) / 2

    def put(self, candidates: Sequence[Label]) -> Label:
        best = min(candidates, key=self.cost)
        self.taken.append(self.box(best))
        return best


def labels(drawn: Chart, canvas: Canvas) -> list[Label]:
    """Names of roofs, then of points, the largest first."""
    room = _Room(drawn, canvas, [_Box(*canvas.legend)])
    for point in drawn.points:
        x, y = room.place(point.intensity, point.rate)
        radius = canvas.radius(point.share) + _MARGIN
        room.taken.append(_Box(x - radius, y - radius, x + radius, y + radius))
    for roof in drawn.roofs:
        corners = [room.place(*corner) for corner in roof.line(drawn.left, drawn.right)]
        room.taken += [box for pair in pairwise(corners) for box in _line(*pair)]
    main = [roof for roof in drawn.roofs if not roof.beside]
    found = [room.put([_at_peak(drawn, max(roof.flops_per_second for roof in main))])] if main else []
    found += [room.put(_along(roof, drawn)) for roof in main]
    found += [room.put(_around(cluster, canvas)) for cluster in _clusters(drawn.points)]
    return found


def _line(begin: tuple[float, float], end: tuple[float, float]) -> Iterator[_Box]:
    """A line as small boxes."""
    steps = max(1, round(math.dist(begin, end) / _LINE_STEP))
    for step in range(steps + 1):
        x, y = (a + (b - a) * step / steps for a, b in zip(begin, end, strict=True))
        yield _Box(x - _LINE_STEP / 2, y - _LINE_STEP / 2, x + _LINE_STEP / 2, y + _LINE_STEP / 2)


def _at_peak(drawn: Chart, flops_per_second: float) -> Label:
    return Label([drawn.peak_label], drawn.right, flops_per_second, -4, 4, (-1, 1))


def _along(roof: Roof, drawn: Chart) -> list[Label]:
    """Places above a memory's slope, from its middle on."""
    low = max(drawn.left, drawn.low / roof.bytes_per_second)
    ridge = roof.flops_per_second / roof.bytes_per_second
    places = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.9)
    along = [low * (ridge / low) ** place for place in places]
    sides = (((-1, 1), -8.0, 3.0), ((1, -1), 8.0, -3.0))
    return [
        Label([roof.label], intensity, intensity * roof.bytes_per_second, across, up, side)
        for side, across, up in sides
        for intensity in along
    ]


def _around(cluster: list[Point], canvas: Canvas) -> list[Label]:
    """Places around the first point of a cluster, near ones first."""
    lead = cluster[0]
    radius = canvas.radius(lead.share)
    found = []
    for gap in _GAPS:
        for side in _SIDES:
            reach = (radius + gap) * (0.75 if all(side) else 1.0)  # a corner is further away than a side
            across, up = reach * side[0], reach * side[1]
            found.append(Label([point.name for point in cluster], lead.intensity, lead.rate, across, up, side))
    return found


def _clusters(points: Sequence[Point]) -> list[list[Point]]:
    """Points of a phase that lie so close that they share a name, each led by the one that matters most."""
    found: list[list[Point]] = []
    for point in sorted((one for one in points if one.share >= LEAST_SHARE), key=lambda one: (-one.share, one.name)):
        of_phase = [cluster for cluster in found if cluster[0].phase == point.phase]
        stacked = (cluster for cluster in of_phase if any(_near(member, point, _STACKED) for member in cluster))
        beside = (cluster for cluster in of_phase if _near(cluster[0], point, _BESIDE))
        near = next(stacked, None) or next(beside, None)
        if near is None:
            found.append([point])
        else:
            near.append(point)
    return found


def _near(one: Point, other: Point, across: float) -> bool:
    apart = abs(math.log10(one.intensity / other.intensity))
    return apart < across and abs(math.log10(one.rate / other.rate)) < _HIGH

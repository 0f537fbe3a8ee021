"""`archsim noc`: latency over load of an on-chip network, and where it saturates."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.config.errors import UserError
from archsim.config.loading import load_spec, resolve_preset
from archsim.fabric.noc import build_network
from archsim.fabric.noc_measure import Saturation, find_saturation, measure, zero_load_latency_cycles
from archsim.fabric.noc_point import LoadPoint
from archsim.fabric.noc_spec import NocSpec, Pattern

if TYPE_CHECKING:
    from rich.table import Table

PICTURE_SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class NocReport:
    """The curve of a network. Rates are packets per node and cycle, throughputs flits per node and cycle."""

    spec: NocSpec
    changes: tuple[str, ...]
    digest: str
    points: tuple[LoadPoint, ...]
    saturation: Saturation | None
    zero_load_cycles: float | None
    simulated_cycles: int
    wall_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON. An unstable point has no latency: it is null."""
        return {
            "name": self.spec.name,
            "config_sha256": self.digest,
            "nodes": self.spec.nodes,
            "zero_load_latency_cycles": self.zero_load_cycles,
            "points": [_point_dict(point) for point in self.points],
            "saturation": None if self.saturation is None else asdict(self.saturation),
            "simulated_cycles": self.simulated_cycles,
            "wall_seconds": round(self.wall_seconds, 3),
        }

    @property
    def title(self) -> str:
        """The network's name and, since a name may tell its size, what was changed of it."""
        return ", ".join([self.spec.name, *(f"with {change}" for change in self.changes)])

    def table(self) -> Table:
        """The curve for a terminal."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(
            title=escape(f"{self.title}, {self.spec.traffic.pattern} traffic"), title_justify="left", box=None
        )
        columns = ["packets", "offered flits", "accepted flits", "latency", "network only", "99 % below"]
        if self._several_runs:
            columns.insert(4, "std. dev.")
        if self._bytes_per_second is not None:
            columns.append("accepted")
        for column in columns:
            table.add_column(column, justify="right")
        for point in self.points:
            table.add_row(*self._row(point))
        return table

    def summary(self) -> list[str]:
        """What stands below the table."""
        lines = [
            "packets and flits per node and cycle; latencies in cycles, from a packet's creation to its tail's arrival"
        ]
        if self._several_runs:
            lines.append(
                f"means of {self.spec.measurement.runs} runs, each with a seed of its own; std. dev.: of one run"
            )
        if self.zero_load_cycles is not None:
            lines.append(f"without load a packet takes {self.zero_load_cycles:.3f} cycles")
        if self.saturation is not None:
            lines.append(_saturation_line(self.saturation))
        speed = self.simulated_cycles / self.wall_seconds if self.wall_seconds > 0 else 0.0
        lines.append(f"{self.simulated_cycles:,} cycles simulated, {speed:,.0f} per second")
        return lines

    @property
    def _several_runs(self) -> bool:
        return self.spec.measurement.runs > 1

    @property
    def _bytes_per_second(self) -> float | None:
        """Of one flit per node and cycle."""
        if self.spec.clock is None or self.spec.flit is None:
            return None
        return float(self.spec.clock * self.spec.flit)

    def _row(self, point: LoadPoint) -> list[str]:
        row = [f"{point.rate:.6g}", f"{point.offered_flits:.4f}", f"{point.accepted_flits:.4f}"]
        deviation = [point.latency_deviation_cycles] if self._several_runs else []
        latencies = [point.latency_cycles, *deviation, point.network_latency_cycles, point.p99_latency_cycles]
        row += [f"{cycles:.2f}" for cycles in latencies] if point.stable else ["unstable", *[""] * (len(latencies) - 1)]
        if self._bytes_per_second is not None:
            row.append(f"{point.accepted_flits * self._bytes_per_second / 1e9:.1f} GB/s")
        return row


def run_noc(
    spec: str,
    overrides: Sequence[str] = (),
    *,
    saturation: bool = True,
    figure: Path | None = None,
    on_point: Callable[[LoadPoint], None] = lambda point: None,
) -> NocReport:
    """Measure every rate of a spec (a preset's name or a path), and find its saturation unless told not to.

    Raises UserError for a bad spec, routes that end nowhere or may deadlock, or a figure that can't be written.
    """
    _check_figure(figure)
    loaded = load_spec(resolve_preset(spec, Path()), NocSpec, overrides)
    network = build_network(loaded.spec)
    simulated = 0

    def count(point: LoadPoint) -> None:
        nonlocal simulated
        simulated += point.counts.cycles
        on_point(point)

    start = time.perf_counter()
    points = []
    for rate in sorted(loaded.spec.traffic.rates):
        points.append(measure(network, rate))
        count(points[-1])
    found = find_saturation(network, count) if saturation else None
    wall = time.perf_counter() - start
    zero_load = None if loaded.spec.traffic.pattern is Pattern.HOTSPOT else zero_load_latency_cycles(network)
    report = NocReport(loaded.spec, tuple(overrides), loaded.digest(), tuple(points), found, zero_load, simulated, wall)
    if figure is not None:
        from archsim.report.noc_figure import save_curve

        flits = report.spec.traffic.packet_flits
        save_curve(report.title, report.points, report.saturation, report.zero_load_cycles, figure, packet_flits=flits)
    return report


def _check_figure(figure: Path | None) -> None:
    """Before anything is simulated."""
    if figure is None:
        return
    if figure.suffix not in PICTURE_SUFFIXES:
        raise UserError(f"can't draw '{figure.name}'", expected="a name that ends in " + ", ".join(PICTURE_SUFFIXES))
    if not figure.parent.is_dir():
        raise UserError(f"there is no folder '{figure.parent}' to draw into")


def _point_dict(point: LoadPoint) -> dict[str, Any]:
    content = asdict(point) | {"stability": point.stability.name.lower()}
    if not point.stable:
        for name in ("latency_cycles", "latency_deviation_cycles", "network_latency_cycles", "p99_latency_cycles"):
            content[name] = None
    return content


def _saturation_line(saturation: Saturation) -> str:
    if saturation.stable_rate == saturation.unstable_rate:
        return "no rate saturates it: it carries a packet per node and cycle"
    return (
        f"saturates between {saturation.stable_rate:.5g} and {saturation.unstable_rate:.5g} packets per node and cycle "
        f"({saturation.throughput_flits:.4f} flits accepted at most)"
    )

"""`archsim curve`: latency against bandwidth of a memory, by the share of reads; tables and plots."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from archsim.commands.replay import CONTROLLERS, HBM34, load_memory, refresh_policy
from archsim.config.errors import UserError, nearest_name
from archsim.memory.curve import Curve, CurveRequest, Pattern, Unloaded, measure, unloaded
from archsim.memory.dram_memory import HbmSpec
from archsim.memory.standard import ControllerSpec, DramStandard, Scheduler
from archsim.system import load_system, system_presets

if TYPE_CHECKING:
    from rich.table import Table

GB = 1e9


@dataclass(frozen=True)
class Target:
    """A memory under a controller; `channels` equal ones, of which one is simulated."""

    name: str
    standard: DramStandard
    controller: ControllerSpec
    channels: int

    @property
    def peak(self) -> float:
        """Bytes per second of all channels."""
        return float(self.standard.peak_bytes_per_second * self.channels)


@dataclass(frozen=True)
class CurveReport:
    """A family of curves; bandwidths are of all channels, in bytes per second."""

    target: Target
    request: CurveRequest
    unloaded: Unloaded
    curves: tuple[Curve, ...]

    @property
    def note(self) -> str:
        """How one channel stands for all."""
        number = self.target.channels
        return f"one channel is simulated and stands for all {number}: traffic is dealt evenly, and they share nothing"

    def saturation(self, curve: Curve) -> float:
        """Of all channels, in bytes per second."""
        return curve.saturation * self.target.channels

    def frame(self) -> pd.DataFrame:
        """A row per point; bandwidths of all channels in GB/s, mean latencies in ns."""
        scale = self.target.channels / GB
        rows = [
            {
                "read_share": curve.read_share,
                "offered_GBps": point.offered * scale,
                "bandwidth_GBps": point.bandwidth * scale,
                "read_latency_from_arrival_ns": point.read_from_arrival,
                "read_latency_from_queue_ns": point.read_from_queue,
                "write_latency_from_arrival_ns": point.write_from_arrival,
                "write_latency_from_queue_ns": point.write_from_queue,
                "row_hit_rate": point.hit_rate,
                "saturated": point.saturated,
            }
            for curve in self.curves
            for point in curve.points
        ]
        return pd.DataFrame(rows)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON; bandwidths of all channels in bytes per second."""
        n = self.target.channels
        return {
            "memory": self.target.name,
            "controller": self.target.controller.scheduler.value,
            "refresh": self.target.controller.refresh.value,
            "channels": n,
            "simulated_channels": 1,
            "pattern": self.request.pattern.value,
            "peak_bytes_per_second": self.target.peak,
            "unloaded_latency_ns": self.unloaded.simulated,
            "unloaded_closed_form_ns": self.unloaded.closed_form,
            "curves": [
                {
                    "read_share": curve.read_share,
                    "saturation_bytes_per_second": self.saturation(curve),
                    "points": [
                        asdict(point) | {"offered": point.offered * n, "bandwidth": point.bandwidth * n}
                        for point in curve.points
                    ],
                }
                for curve in self.curves
            ],
        }

    def table(self) -> Table:
        """A line per share of reads."""
        from rich.table import Table

        title = f"{self.target.name}: {self.request.pattern.value}, unloaded read {self.unloaded.simulated:.1f} ns"
        table = Table(title=title, caption=self.note)
        for column in ("reads", "saturation", "of peak", "read latency at half of it", "at 90 %"):
            table.add_column(column, justify="right")
        for curve in self.curves:
            table.add_row(
                f"{curve.read_share:.0%}",
                f"{self.saturation(curve) / GB:.1f} GB/s",
                f"{self.saturation(curve) / self.target.peak:.1%}",
                *(f"{latency_at(curve, share):.0f} ns" for share in (0.5, 0.9)),
            )
        return table


def latency_at(curve: Curve, share: float) -> float:
    """Mean read latency from arrival, in ns, of the point that is nearest to a share of the saturation bandwidth."""
    return min(curve.points, key=lambda point: abs(point.offered - share * curve.saturation)).read_from_arrival


def curve(preset: str, controller: str, refresh: str, request: CurveRequest, out: Path | None = None) -> CurveReport:
    """Measure a memory preset, or a system's memory, and write tables and plots to `out`. Raises UserError."""
    target = _target(preset, controller, refresh)
    report = CurveReport(
        target,
        request,
        unloaded(target.standard, target.controller, request),
        tuple(measure(target.standard, target.controller, request)),
    )
    if out is not None:
        _write(report, out)
    return report


def pattern(name: str) -> Pattern:
    """A pattern by name. Raises UserError."""
    names = [one.value for one in Pattern]
    if name not in names:
        raise UserError(f"there is no pattern '{name}'", expected=", ".join(names), nearest=nearest_name(name, names))
    return Pattern(name)


def _target(preset: str, controller: str, refresh: str) -> Target:
    changes = {"scheduler": _scheduler(controller), "refresh": refresh_policy(refresh)}
    if preset in system_presets():
        memory = load_system(preset).spec.device.memory
        if not isinstance(memory, HbmSpec):
            raise UserError(f"{preset} has no DRAM, so there is no curve", expected="a system whose memory is DRAM")
        return Target(preset, memory.technology, memory.controller.model_copy(update=changes), memory.channels)
    standard = load_memory(preset)
    return Target(preset, standard, ControllerSpec(**changes), standard.channels_per_stack)


def _scheduler(name: str) -> Scheduler:
    names = [scheduler.value for scheduler in Scheduler]
    if name == HBM34:
        raise UserError(
            f"{HBM34} takes requests as fast as it can; a curve needs arrivals in time", expected=", ".join(names)
        )
    if name not in names:
        raise UserError(
            f"there is no controller '{name}'", expected=", ".join(names), nearest=nearest_name(name, CONTROLLERS)
        )
    return Scheduler(name)


def _write(report: CurveReport, out: Path) -> None:
    from archsim.commands.curve_plots import draw_html, draw_png

    try:
        out.mkdir(parents=True, exist_ok=True)
        frame = report.frame()
        frame.to_csv(out / "curve.csv", index=False)
        frame.to_parquet(out / "curve.parquet", index=False)
        draw_png(report, out / "curve.png")
        draw_html(report, out / "curve.html")
    except OSError as error:
        raise UserError(f"can't write the curves to {out}: {error.strerror or error}") from None

"""What the figures show, as plain numbers: both the HTML page and the matplotlib figures draw from here.

All times leave this module in the unit that its name says; operators of all layers that do the same
job ("layers[3].qkv_proj", "layers[4].qkv_proj") count as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from archsim.metrics import FS_PER_SECOND
from archsim.records import CAUSES
from archsim.report import style
from archsim.report.bandwidth import Bandwidth, BandwidthSeries
from archsim.report.names import job_of
from archsim.report.pim import PimJob, pim_jobs
from archsim.results import PhaseSummary, RunResult

if TYPE_CHECKING:
    from pandas import DataFrame

NOTHING_TO_SEE = 0.005
"""A mean below this share of a memory's limit is a line on the axis."""


@dataclass(frozen=True)
class Job:
    """All operators of a phase that do one job, on one device. Rates are over their own running time."""

    name: str
    kind: str
    phase: str
    operators: int
    time_s: float
    share: float
    cause_s: dict[str, float]
    roofline_s: float
    bound: str
    flops: float
    hbm_bytes: float
    tier_bytes: float
    slowest: str
    slowest_s: float

    @property
    def bandwidth(self) -> float:
        """HBM bytes per second while it ran."""
        return self.hbm_bytes / self.time_s if self.time_s else 0.0

    @property
    def intensity(self) -> float | None:
        """FLOPs per byte of HBM and other tiers; None where either is zero: it has no place on a log axis."""
        moved = self.hbm_bytes + self.tier_bytes
        return self.flops / moved if self.flops and moved else None

    @property
    def rate(self) -> float:
        """FLOPs per second while it ran."""
        return self.flops / self.time_s if self.time_s else 0.0

    @property
    def main_cause(self) -> str:
        """The cause of most of its time."""
        return max(CAUSES, key=lambda cause: self.cause_s[cause])


@dataclass(frozen=True)
class TierShare:
    """Bytes that one memory moves for each job of a phase, on one device."""

    memory: str
    job_bytes: dict[str, float]


class RunSeries:
    """The numbers behind the figures of one run."""

    def __init__(self, run: RunResult) -> None:
        self.run = run
        self.phases = run.summary.phases

    @property
    def causes(self) -> list[str]:
        """The causes to show: those of any time."""
        jobs = [job for phase in self.phases for job in self.jobs[phase.phase]]
        return [cause for cause in CAUSES if any(job.cause_s[cause] for job in jobs)]

    def cause_label(self, cause: str) -> str:
        """A cause in a legend's words, with the main memory's name."""
        return style.cause_label(cause, self.memory)

    @property
    def memory(self) -> str:
        """The main memory's name."""
        return next((phase.memory for phase in self.phases), "HBM")

    def tier_shares(self, phase: PhaseSummary) -> list[TierShare]:
        """Bytes of each job by memory, the main one first; none for a phase without other tiers."""
        if not phase.tiers:
            return []
        table = self.run.operators
        table = table[table["phase"] == phase.phase]
        jobs = table["name"].map(job_of)
        columns = {phase.memory: ["dram_read_bytes", "dram_write_bytes"]}
        for tier in phase.tiers:
            wanted = (f"tier_{tier.name}_read_bytes", f"tier_{tier.name}_write_bytes")
            columns[tier.name] = [name for name in wanted if name in table.columns]
        order = [job.name for job in self.jobs[phase.phase]]
        shares = []
        for memory, names in columns.items():
            moved = table[names].sum(axis=1).groupby(jobs).sum()
            shares.append(TierShare(memory, {job: float(moved.get(job, 0.0)) for job in order}))
        return shares

    @cached_property
    def jobs(self) -> dict[str, list[Job]]:
        """Jobs of each phase, slowest first."""
        table = self.run.operators
        return {phase.phase: _jobs(table[table["phase"] == phase.phase], phase.phase) for phase in self.phases}

    @cached_property
    def pim_jobs(self) -> dict[str, list[PimJob]]:
        """What PIM did of each job, by phase."""
        return {phase.phase: pim_jobs(self.run.operators, phase) for phase in self.phases}

    def cause_shares(self, phase: str) -> dict[str, float]:
        """The share of the phase's operator time by cause."""
        total = sum(job.time_s for job in self.jobs[phase])
        return {c: sum(job.cause_s[c] for job in self.jobs[phase]) / total if total else 0.0 for c in CAUSES}

    @cached_property
    def bandwidths(self) -> dict[str, list[Bandwidth]]:
        """Bandwidth over time of each phase: the main memory's if it was sampled, then the tiers'. A memory with next
        to nothing is left out where others, or PIM, do the work: an empty plot says less than its mean."""
        series = BandwidthSeries(self.run)
        shown = {}
        for phase in self.phases:
            found = series.of(phase)
            alone = len(found) == 1 and phase.pim is None
            shown[phase.phase] = [one for one in found if alone or one.mean >= NOTHING_TO_SEE * one.limit]
        return shown

    def energy_joules(self, phase: PhaseSummary) -> list[tuple[str, float]]:
        """Energy by component, all devices, largest first; components that used none are left out."""
        parts = [(name, pj * 1e-12) for name, pj in phase.energy_pj.items() if pj > 0]
        return sorted(parts, key=lambda part: (-part[1], part[0]))


def _jobs(operators: DataFrame, phase: str) -> list[Job]:
    if not len(operators):
        return []
    table = operators.assign(
        job=operators["name"].map(job_of),
        flops=operators["matrix_flops"] + operators["vector_flops"],
        hbm_bytes=operators["dram_read_bytes"] + operators["dram_write_bytes"],
        tier_bytes=operators[[name for name in operators.columns if name.startswith("tier_")]].sum(axis=1),
    )
    phase_fs = float(table["duration_fs"].sum())
    jobs = []
    for (name, kind), group in table.groupby(["job", "kind"], sort=True):
        time_fs = float(group["duration_fs"].sum())
        slowest = int(group["duration_fs"].argmax())
        bounds = group.groupby("bound")["duration_fs"].sum()
        jobs.append(
            Job(
                name=str(name),
                kind=str(kind),
                phase=phase,
                operators=len(group),
                time_s=time_fs / FS_PER_SECOND,
                share=time_fs / phase_fs if phase_fs else 0.0,
                cause_s={c: float(group[f"cause_{c}_fs"].sum()) / FS_PER_SECOND for c in CAUSES},
                roofline_s=float(group["roofline_fs"].sum()) / FS_PER_SECOND,
                bound=str(bounds.idxmax()),
                flops=float(group["flops"].sum()),
                hbm_bytes=float(group["hbm_bytes"].sum()),
                tier_bytes=float(group["tier_bytes"].sum()),
                slowest=str(group["name"].iloc[slowest]),
                slowest_s=float(group["duration_fs"].iloc[slowest]) / FS_PER_SECOND,
            )
        )
    return sorted(jobs, key=lambda job: (-job.time_s, job.name))


def phase_title(phase: PhaseSummary) -> str:
    """ "Prefill · 2048 prompt tokens"."""
    name = phase.phase.replace("_", " ")
    return f"{name[:1].upper()}{name[1:]}" + (f" · {phase.description}" if phase.description else "")


def memory_words(phases: Sequence[PhaseSummary]) -> str:
    """What a byte of arithmetic intensity is a byte of: "HBM byte", "byte of HBM and tiers", "byte of HBM or PIM"."""
    name = next((phase.memory for phase in phases), "HBM")
    tiers = " and tiers" if any(phase.tiers for phase in phases) else ""
    pim = " or PIM" if any(phase.pim is not None and phase.pim.counts.operators for phase in phases) else ""
    return f"byte of {name}{tiers}{pim}" if tiers or pim else f"{name} byte"

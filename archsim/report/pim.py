"""What processing in memory did of each operator, and whose time it shows up in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archsim.metrics import FS_PER_SECOND
from archsim.report.names import job_of
from archsim.results import PhaseSummary

if TYPE_CHECKING:
    from pandas import DataFrame


_LITTLE_LESS = 0.9
"""A wait that is a larger share of the work than this is the work's own time."""


@dataclass(frozen=True)
class PimJob:
    """An operator of all layers, on one device: how long PIM's units worked on it, and how long the device waited for
    PIM within this operator's own time (the way there and back included). Overlap moves the wait to the operator that
    reads the results."""

    name: str
    busy_s: float
    waited_s: float
    read_bytes: float
    host_bytes: float
    macs: float

    @property
    def rate(self) -> float:
        """FLOPs per second of the multiply-accumulates asked for, while units work on it."""
        return 2 * self.macs / self.busy_s if self.busy_s else 0.0

    @property
    def bandwidth(self) -> float:
        """Bytes per second that units read while they work on it."""
        return self.read_bytes / self.busy_s if self.busy_s else 0.0


def pim_jobs(operators: DataFrame, phase: PhaseSummary) -> list[PimJob]:
    """The operators of a phase that PIM works on or that wait for it, by time at work; none without PIM."""
    if "pim_busy_fs" not in operators.columns:
        return []
    table = operators[operators["phase"] == phase.phase]
    columns = ["pim_busy_fs", "cause_pim_fs", "pim_read_bytes", "pim_host_bytes", "pim_macs_asked"]
    jobs = [
        PimJob(str(name), float(busy) / FS_PER_SECOND, float(waited) / FS_PER_SECOND, *map(float, amounts))
        for name, busy, waited, *amounts in table.groupby(table["name"].map(job_of))[columns].sum().itertuples()
        if busy or waited
    ]
    return sorted(jobs, key=lambda job: (-job.busy_s, -job.waited_s, job.name))


def overlap_in_words(jobs: Sequence[PimJob]) -> str:
    """Where PIM's time went if not into the operators that it works on; "" if it all did."""
    ahead = [job.name for job in jobs if job.waited_s < _LITTLE_LESS * job.busy_s]
    waiting = [job.name for job in jobs if job.waited_s and not job.busy_s and not job.host_bytes]
    if not ahead:
        return ""
    whose = "its" if len(ahead) == 1 else "their"
    said = (
        f"PIM works on {_listed(ahead)} while the device goes on, so that little or none of it is in {whose} own time"
    )
    if not waiting:
        return f"{said}."
    reader = "the operator that reads" if len(waiting) == 1 else "the operators that read"
    return f"{said}; what the device waits for PIM is time of {reader} the results: {_listed(waiting)}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

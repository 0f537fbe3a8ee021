"""A sweep from start to end: `archsim.sweep`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.experiment import Overrides
from archsim.sweep.agenda import Agenda
from archsim.sweep.crew import Crew, Job, executor_for, worker_count
from archsim.sweep.executors import Executor
from archsim.sweep.plan import Plan, plan_sweep
from archsim.sweep.points import Resolver, first_that_loads
from archsim.sweep.progress import SweepProgress
from archsim.sweep.space import Point
from archsim.sweep.store import Outcome, Status, Store
from archsim.sweep.table import Best, as_parquet, sweep_table
from archsim.sweep.task import Task

if TYPE_CHECKING:
    import pyarrow

    from archsim.sweep.frame import SweepFrame
    from archsim.sweep.pareto import ParetoFront


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C: the message says what is done and how to go on."""


@dataclass(frozen=True)
class SweepResult:
    """What a sweep came to. `outcomes` are by the index of the point; `simulated` of them are new."""

    plan: Plan
    directory: Path
    file: Path
    table: pyarrow.Table
    outcomes: Mapping[int, Outcome]
    best: Best
    simulated: int
    wall_seconds: float

    @cached_property
    def frame(self) -> SweepFrame:
        """The table for pandas, a row per point; units are in `frame.attrs["units"]`."""
        from archsim.sweep.frame import as_frame

        return as_frame(self.table, self.plan.name)

    def pareto(self, objectives: Sequence[str], constraints: Sequence[str] = ()) -> ParetoFront:
        """As `SweepFrame.pareto`."""
        return self.frame.pareto(objectives, constraints)

    @property
    def points(self) -> tuple[Point, ...]:
        return self.plan.space.points

    @property
    def ok(self) -> bool:
        """Whether any point has a result."""
        return self.count(Status.OK) > 0

    def count(self, status: Status) -> int:
        """How many points ended so."""
        return sum(outcome.status is status for outcome in self.outcomes.values())


def sweep(
    experiment: str | Path,
    space: Mapping[str, Any] | None = None,
    overrides: Overrides = (),
    *,
    out: str | Path | None = None,
    workers: int | None = None,
    dask: Any = None,
    best: str | None = None,
    keep_runs: bool = False,
    progress: bool = False,
) -> SweepFrame:
    """Simulate every point of a space around an experiment.

        archsim.sweep("llama3_70b_h200x8", {"workload.batch": [1, 8, 64], "system": ["h200x8", "my_system.yaml"]})

    Args:
        experiment: a `kind: sweep` file, or an experiment: its `sweep:` section is taken unless `space` is given.
        space: {path: values}; values are a list, {"from": 1, "to": 64, "points": 7, "scale": "log"}, or
            {"cases": {name: {path: value}}}. Or a whole sweep, {"axes": ..., "where": ..., ...}, as in YAML.
        overrides: changes to the experiment, the same in every point.
        out: where results land, "runs/sweep_<name>" by default. Points that are there already aren't simulated again.
        workers: processes on this machine; one per core by default.
        dask: a scheduler's address, a cluster or a client: its workers simulate instead.
        best: the metric by which points are compared while it runs.
        keep_runs: write each point's run directory, with its report, to `out`/runs.
        progress: show how far it is.

    Returns:
        A row per point: its key, axes and derived values, status, error, metrics. Units: `frame.attrs["units"]`.

    Raises:
        UserError: for anything wrong with what was asked. A point that fails is a row with its error.
    """
    return run_sweep(
        plan_sweep(experiment, space, overrides, best),
        out=out, workers=workers, dask=dask, keep_runs=keep_runs, progress=progress,
    ).frame  # fmt: skip


def run_sweep(
    plan: Plan,
    *,
    out: str | Path | None = None,
    workers: int | None = None,
    dask: Any = None,
    keep_runs: bool = False,
    progress: bool = False,
) -> SweepResult:
    """As `sweep`, with more to tell. Raises SweepInterrupted after Ctrl-C, when what is done has been written."""
    count = worker_count(workers, "sweep")
    started = time.perf_counter()
    best = Best(plan.best)
    resolver = Resolver(plan.experiment, plan.fixed)
    example = first_that_loads(plan.space.points, resolver)
    store = Store(Path(out) if out is not None else Path("runs") / f"sweep_{plan.name.removeprefix('sweep_')}")
    with SweepProgress(len(plan.space.points), lambda: best.in_words(plan.space), shown=progress) as bar:
        course = _Course(plan, store, bar, best, resolver, keep_runs)
        try:
            course.run(lambda left: executor_for(min(count, left), dask, example))
        except KeyboardInterrupt:
            course.write()
            raise SweepInterrupted(
                f"interrupted: {len(course.outcomes)} of {len(plan.space.points)} points are in {store.directory}; "
                "the same command goes on from there"
            ) from None
        bar.show(at_last=True)
    table, file = course.write()
    seconds = time.perf_counter() - started
    return SweepResult(plan, store.directory, file, table, course.outcomes, best, bar.simulated, seconds)


class _Course:
    """The course of a sweep: which points are left, what became of the others."""

    def __init__(
        self, plan: Plan, store: Store, bar: SweepProgress, best: Best, resolver: Resolver, keep_runs: bool
    ) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self._plan, self._store, self._bar, self._best = plan, store, bar, best
        self._resolver, self._keep_runs = resolver, keep_runs
        self._agenda = Agenda([point.hardware for point in plan.space.points])

    def run(self, start: Callable[[int], Executor]) -> None:
        """Simulate what isn't there yet. `start(points left)` makes the executor: none, if all is there."""
        first = self._next("")
        if first is None:
            return
        executor = start(len(self._agenda) + 1)
        self._bar.start()
        Crew(self._next, self._finish, self._bar.show).run(first, executor)

    def write(self) -> tuple[pyarrow.Table, Path]:
        """Write the table of all that is done."""
        table = sweep_table(self._plan.space, self.outcomes)
        return table, self._store.write_tables(self._plan.digest(), as_parquet(table))

    def _next(self, worker: str) -> Job | None:
        """The next point that has to be simulated; those on the way that needn't are finished at once."""
        while (index := self._agenda.take(worker)) is not None:
            resolved = self._resolver.resolve(self._plan.space.points[index])
            keep = self._store.runs / resolved.key if self._keep_runs else None
            known = self._store.get(resolved.key)
            if known is not None and (keep is None or known.status is not Status.OK or keep.is_dir()):
                self._finish(index, known, reused=True)
            elif resolved.loaded is None:
                self._finish(index, Outcome(resolved.key, Status.FAILED, resolved.error))
            else:
                return index, Task(resolved.key, resolved.loaded, keep)
        return None

    def _finish(self, index: int, outcome: Outcome, *, reused: bool = False) -> None:
        if not reused:
            self._store.put(outcome)
        self.outcomes[index] = outcome
        self._best.consider(index, outcome)
        self._bar.finished(reused=reused, failed=outcome.status is not Status.OK)

"""A search from start to end: `archsim.search`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.config.errors import UserError
from archsim.experiment import LoadedExperiment, Overrides
from archsim.sweep.crew import Crew, Job, executor_for, worker_count
from archsim.sweep.facts import Facts
from archsim.sweep.frame import as_frame
from archsim.sweep.points import Resolver
from archsim.sweep.progress import SweepProgress
from archsim.sweep.search_plan import SearchPlan, plan_search
from archsim.sweep.search_table import search_table
from archsim.sweep.store import Outcome, Status, Store
from archsim.sweep.study import Told, TrialLog, Verdict, opened
from archsim.sweep.table import as_parquet
from archsim.sweep.task import Task

if TYPE_CHECKING:
    import pyarrow
    from pandas import DataFrame


class SearchInterrupted(KeyboardInterrupt):
    """Ctrl-C: the message says what is done and how to go on."""


@dataclass(frozen=True)
class SearchResult:
    """What a search came to: its trials in order, the numbers of the best (of several objectives: the Pareto front),
    and the table of all. `simulated` trials are new points of this call."""

    plan: SearchPlan
    directory: Path
    file: Path
    table: pyarrow.Table
    trials: tuple[Told, ...]
    best: tuple[int, ...]
    simulated: int
    wall_seconds: float

    @cached_property
    def frame(self) -> DataFrame:
        """The table for pandas, a row per trial; units are in `frame.attrs["units"]`."""
        return as_frame(self.table)

    @property
    def ok(self) -> bool:
        """Whether any trial keeps all constraints."""
        return bool(self.best)

    def count(self, status: Status) -> int:
        """How many trials ended so."""
        return sum(trial.status is status for trial in self.trials)


def search(
    experiment: str | Path,
    search: Mapping[str, Any] | None = None,
    overrides: Overrides = (),
    *,
    trials: int | None = None,
    out: str | Path | None = None,
    workers: int | None = None,
    dask: Any = None,
    progress: bool = False,
) -> DataFrame:
    """Look for the best points of a space around an experiment::

        archsim.search(
            "llama3_70b_h200x8",
            {
                "axes": {"workload.batch": {"from": 1, "to": 64, "scale": "log"}},
                "objectives": ["decode.throughput"],
                "constraints": ["decode.tpot <= 20 ms"],
            },
        )

    Args:
        experiment: a `kind: search` file, or an experiment: its `search:` section is taken unless `search` is given.
        search: axes, objectives, constraints and so on, as in YAML.
        overrides: changes to the experiment, the same in every trial.
        trials: how many points to try, instead of what the search says; those tried before count.
        out: where results land, "runs/search_<name>" by default. An interrupted search goes on there.
        workers: processes on this machine; one per core by default. With one, the same seed gives the same trials.
        dask: a scheduler's address, a cluster or a client: its workers simulate instead.
        progress: show how far it is.

    Returns:
        A row per trial: number, point, axes, status, error, feasible, best, quantities, metrics.
        Units: `frame.attrs["units"]`.

    Raises:
        UserError: for anything wrong with what was asked. A trial that fails is a row with its error.
    """
    plan = plan_search(experiment, search, overrides, trials)
    return run_search(plan, out=out, workers=workers, dask=dask, progress=progress).frame


def run_search(
    plan: SearchPlan,
    *,
    out: str | Path | None = None,
    workers: int | None = None,
    dask: Any = None,
    progress: bool = False,
) -> SearchResult:
    """As `search`, with more to tell. Raises SearchInterrupted after Ctrl-C, when what is done has been written."""
    count = worker_count(workers, "search")
    started = time.perf_counter()
    store = Store(Path(out) if out is not None else Path("runs") / f"search_{plan.name.removeprefix('search_')}")
    journal = store.directory / "studies" / f"{plan.digest()}.journal"
    several = count if dask is None else 2  # a cluster has several workers
    with opened(journal, plan.spec, plan.space, several) as log:
        course = _Course(plan, store, log)
        with SweepProgress(plan.spec.trials, course.best_in_words, shown=progress) as bar:
            try:
                course.run(bar, count, dask)
            except KeyboardInterrupt:
                table, _ = course.write()
                raise SearchInterrupted(
                    f"interrupted: {table.num_rows} of {plan.spec.trials} trials are in {store.directory}; "
                    "the same command goes on from there"
                ) from None
            bar.show(at_last=True)
        table, file = course.write()
        trials, best = tuple(log.told()), tuple(log.best())
    seconds = time.perf_counter() - started
    return SearchResult(plan, store.directory, file, table, trials, best, bar.simulated, seconds)


class _Course:
    """The course of a search: asks for points, has them simulated, tells what they are worth."""

    def __init__(self, plan: SearchPlan, store: Store, log: TrialLog) -> None:
        self._plan, self._store, self._log = plan, store, log
        self._resolver = Resolver(plan.experiment, plan.fixed)
        self._loaded: dict[int, LoadedExperiment] = {}  # of the trials under way
        self._bar: SweepProgress | None = None

    def run(self, bar: SweepProgress, workers: int, dask: Any) -> None:
        """Make the trials that are left. Workers are started if anything has to be simulated."""
        self._bar = bar
        for _ in self._log.told():
            bar.finished(reused=True, failed=False)
        first = self._next("")
        if first is None:
            return
        executor = executor_for(min(workers, self._log.left), dask, self._plan.example)
        bar.start()
        Crew(self._next, self._finish, bar.show).run(first, executor)

    def write(self) -> tuple[pyarrow.Table, Path]:
        """Write the table of all trials that are over."""
        table = search_table(self._plan, self._log.told(), self._log.best(), self._outcome_of)
        return table, self._store.write_tables(self._plan.digest(), as_parquet(table))

    def best_in_words(self) -> str:
        """The best trial if there is one objective, else how many are on the Pareto front."""
        best = self._log.best()
        if not best:
            return "none feasible yet"
        if len(self._plan.spec.objectives) > 1:
            return f"{len(best)} on the Pareto front"
        found = next(trial for trial in self._log.told() if trial.number == best[0])
        objective = self._plan.spec.goals()[0].value
        return f"best {objective} {self._plan.shown(objective, found.verdict.values[0])} at {found.point}"

    def _next(self, worker: str) -> Job | None:
        """The next point that has to be simulated; those on the way that needn't are told at once."""
        while (asked := self._log.ask()) is not None:
            number, point = asked
            resolved = self._resolver.resolve(point)
            if resolved.loaded is None:
                self._tell(number, Outcome(resolved.key, Status.FAILED, resolved.error), None, known=False)
                continue
            known = self._store.get(resolved.key)
            if known is None:
                self._loaded[number] = resolved.loaded
                return number, Task(resolved.key, resolved.loaded)
            self._tell(number, known, resolved.loaded, known=True)
        return None

    def _finish(self, number: int, outcome: Outcome) -> None:
        self._tell(number, outcome, self._loaded.pop(number), known=False)

    def _tell(self, number: int, outcome: Outcome, loaded: LoadedExperiment | None, *, known: bool) -> None:
        if not known:
            self._store.put(outcome)
        verdict = self._verdict(outcome, loaded)
        status = Status.FAILED if verdict.error and outcome.status is Status.OK else outcome.status
        self._log.tell(number, outcome.key, status, verdict)
        assert self._bar is not None
        self._bar.finished(reused=known, failed=bool(verdict.error))

    def _verdict(self, outcome: Outcome, loaded: LoadedExperiment | None) -> Verdict:
        if outcome.status is not Status.OK or loaded is None:
            return Verdict(error=outcome.error)
        spec = self._plan.spec
        facts = Facts(loaded.spec, spec.measured(), outcome.metrics)
        try:
            values = tuple(facts.number(objective.value) for objective in spec.goals())
            quantities = {name: facts.number(name) for name in spec.quantities}
            return Verdict(values, tuple(limit.violation(facts) for limit in spec.limits()), quantities)
        except UserError as error:
            return Verdict(error=str(error))

    def _outcome_of(self, trial: Told) -> Outcome:
        """A trial's outcome for the table."""
        known = self._store.get(trial.key) or Outcome(trial.key, trial.status)
        return replace(known, status=trial.status, error=trial.verdict.error)

"""The trials of a search: which point comes next, and what became of the others; kept in a file as they happen.

The trials are an optuna study in a journal that is appended to and flushed at each step, so nothing that was told is
lost by a crash, and tools that read optuna's journals can show it. A sampler is made anew for every draw, seeded by
the search's seed, the trial's number and the axis: which point comes next depends on the trials told before it, not on
whether the search was interrupted in between.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.config.errors import UserError
from archsim.sweep.search_space import Knob, SearchSpace
from archsim.sweep.search_spec import GENETIC_POPULATION, NSGA2_POPULATION, SamplerName, SearchSpec
from archsim.sweep.space import Point
from archsim.sweep.store import Status

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

RELATIVE = -1
"""The place of what a sampler draws for all axes at once, before any single one."""


@dataclass(frozen=True)
class Verdict:
    """What a trial is worth: a value per objective, a violation per constraint, the quantities; or why it has none."""

    values: tuple[float, ...] = ()
    violations: tuple[float, ...] = ()
    quantities: Mapping[str, float] = field(default_factory=dict)
    error: str = ""

    @property
    def feasible(self) -> bool:
        return not self.error and all(violation <= 0 for violation in self.violations)


@dataclass(frozen=True)
class Told:
    """A trial that is over: the point tried, the key of its result, how it ended and what it is worth."""

    number: int
    point: Point
    key: str
    status: Status
    verdict: Verdict


class TrialLog:
    """The study of one search in its journal. Use `opened`."""

    def __init__(self, file: Path, spec: SearchSpec, space: SearchSpace, workers: int) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        _drop_torn_line(file)
        lock: Any = _HeldLock()
        self._spec, self._space, self._several = spec, space, workers > 1
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(file), lock)),
            study_name=file.stem,
            directions=[objective.resolved_direction().value for objective in spec.goals()],
            sampler=self._sampler(0, RELATIVE),
            load_if_exists=True,
        )
        self._open: dict[int, Trial] = {}
        self._left_over = [trial for trial in self._all() if not trial.state.is_finished()]

    def ask(self) -> tuple[int, Point] | None:
        """A trial to make, those first that an interrupted search began; None if there are enough."""
        import optuna

        if self._left_over:
            frozen = self._left_over.pop(0)
            self._study.sampler = self._sampler(frozen.number, RELATIVE)
            trial = optuna.trial.Trial(self._study, frozen._trial_id)
        elif len(self._all()) < self._spec.trials:
            number = len(self._all())
            self._study.sampler = self._sampler(number, RELATIVE)
            trial = self._study.ask()
        else:
            return None
        _ = trial.relative_params  # drawn now, by the sampler that is here for it

        def draw(knob: Knob, place: int) -> Any:
            self._study.sampler = self._sampler(trial.number, place)
            return trial._suggest(knob.name, knob.distribution)

        point = self._space.point(draw)
        self._open[trial.number] = trial
        return trial.number, point

    def tell(self, number: int, key: str, status: Status, verdict: Verdict) -> None:
        """What became of a trial: kept before this returns."""
        from optuna.trial import TrialState

        trial = self._open.pop(number)
        self._study.sampler = self._sampler(number, RELATIVE)
        attributes = {"point": key, "status": str(status), "error": verdict.error, **_as_attributes(verdict.quantities)}
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        if verdict.error:
            self._study.tell(trial, state=TrialState.FAIL)
            return
        known = self._all()[number].constraints  # those a killed search had got to
        for text, violation in zip(self._spec.constraints, verdict.violations, strict=True):
            if text not in known:
                trial.set_constraint(text, violation)
        self._study.tell(trial, list(verdict.values))

    def told(self) -> list[Told]:
        """The trials that are over, in order."""
        return [self._as_told(trial) for trial in self._all() if trial.state.is_finished()]

    def best(self) -> list[int]:
        """The numbers of the trials that keep all constraints and that no other of those beats; in order."""
        return sorted(trial.number for trial in self._study.best_trials)

    @property
    def left(self) -> int:
        """How many trials there are still to make."""
        return max(self._spec.trials - len(self._all()), 0) + len(self._left_over) + len(self._open)

    def _all(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _as_told(self, trial: FrozenTrial) -> Told:
        point = self._space.point(lambda knob, place: trial.params[knob.name])
        attributes = trial.user_attrs
        violations = tuple(trial.constraints[text] for text in self._spec.constraints if text in trial.constraints)
        quantities = {name: attributes[f"quantity {name}"] for name in self._spec.quantities if not attributes["error"]}
        verdict = Verdict(tuple(trial.values or ()), violations, quantities, attributes["error"])
        return Told(trial.number, point, attributes["point"], Status(attributes["status"]), verdict)

    def _sampler(self, number: int, place: int) -> BaseSampler:
        seed = _seed(self._spec.seed, number, place)
        return sampler_of(self._spec.sampler, seed, self._spec.population, several=self._several)


def sampler_of(name: SamplerName, seed: int, population: int | None = None, *, several: bool = False) -> BaseSampler:
    """optuna's sampler of a name. `several`: trials are under way at the same time, and TPE keeps away from them."""
    from optuna import samplers

    match name:
        case SamplerName.RANDOM:
            return samplers.RandomSampler(seed)
        case SamplerName.TPE:
            return samplers.TPESampler(seed=seed, constant_liar=several)
        case SamplerName.NSGA2:
            return samplers.NSGAIISampler(population_size=population or NSGA2_POPULATION, seed=seed)
        case SamplerName.GENETIC:
            return samplers.NSGAIISampler(population_size=population or GENETIC_POPULATION, seed=seed)


def _as_attributes(quantities: Mapping[str, float]) -> dict[str, float]:
    return {f"quantity {name}": value for name, value in quantities.items()}


def _seed(seed: int, number: int, place: int) -> int:
    from numpy.random import SeedSequence

    return int(SeedSequence([seed, number, place + 1]).generate_state(1)[0])


@contextmanager
def opened(file: Path, spec: SearchSpec, space: SearchSpace, workers: int) -> Iterator[TrialLog]:
    """The trials in a journal, held by this process alone. Raises UserError if another search is at them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
        except BlockingIOError:
            message = f"another process is at this search in {file.parent.parent}"
            raise UserError(message, expected="its end, or another --out") from None
        yield TrialLog(file, spec, space, workers)


class _HeldLock:
    """The lock that optuna asks for around each line: `opened` holds one for the whole search."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _drop_torn_line(file: Path) -> None:
    """Cut off a last line that a crash left unfinished."""
    if not file.exists():
        return
    content = file.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with file.open("r+b") as stream:
            stream.truncate(whole)

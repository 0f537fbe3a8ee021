"""From what a user asks for to a search: which experiment, which space, what is wanted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archsim.config.errors import UserError
from archsim.config.inheritance import override_values
from archsim.experiment import LoadedExperiment, Overrides, load_experiment
from archsim.metrics import definition_of, format_quantity
from archsim.sweep.facts import Facts, is_metric
from archsim.sweep.plan import read_part
from archsim.sweep.search_space import SearchSpace
from archsim.sweep.search_spec import SearchSpec


@dataclass(frozen=True)
class SearchPlan:
    """A search before it runs. `fixed` is set in every trial; `example` is the experiment with that alone."""

    name: str
    experiment: Path
    spec: SearchSpec
    space: SearchSpace
    fixed: Mapping[str, Any]
    example: LoadedExperiment

    def digest(self) -> str:
        """A name for the search: equal where the same trials would follow. More trials are the same search."""
        said = self.spec.model_dump(mode="json", exclude={"name", "description", "trials"})
        content = json.dumps([str(self.experiment.resolve()), said, dict(self.fixed)], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def shown(self, objective: str, value: float) -> str:
        """An objective's value with its unit, for people."""
        measured = self.spec.measured()
        if objective in measured:
            return f"{value:g} {measured[objective].unit or ''}".rstrip()
        return format_quantity(value, definition_of(objective).unit) if is_metric(objective) else f"{value:g}"


def plan_search(
    experiment: str | Path, search: Mapping[str, Any] | None, overrides: Overrides, trials: int | None
) -> SearchPlan:
    """The plan of a search.

    Args:
        experiment: a `kind: search` file, or an experiment: its `search:` section is taken unless `search` is given.
        search: axes, objectives and so on, as they would be written in YAML.
        overrides: changes to the experiment, the same in every trial.
        trials: how many to make, instead of the search's own number.

    Raises UserError (SpecError for the contents of files) for anything wrong with them.
    """
    require_optuna()
    file, base, loaded, folder = read_part("search", SearchSpec, experiment, search, overrides)
    spec = loaded.spec
    if trials is not None:
        if trials < 1:
            raise UserError(f"a search of {trials} trials", expected="at least 1")
        spec = spec.model_copy(update={"trials": trials})
    space = SearchSpace(spec, folder)
    fixed = dict(space.fixed) | override_values(overrides)
    if clash := sorted(fixed.keys() & space.paths):
        raise UserError(f"'{clash[0]}' is set for all trials, but the search varies it", expected="one of the two")
    example = load_experiment(base, fixed)
    spec.check_against(Facts(example.spec, spec.measured(), {}))
    name = spec.name or (file.stem if file.stem not in ("experiment", "search") else file.resolve().parent.name)
    return SearchPlan(name, base, spec, space, fixed, example)


def require_optuna() -> None:
    """Raise UserError, saying what to install, if optuna is missing."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError("a search needs optuna", expected="pip install 'archsim[search]'") from None

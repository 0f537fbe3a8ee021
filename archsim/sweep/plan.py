"""From what a user asks for to a plan: which experiment, which points, compared by what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from archsim.config.errors import UserError, listed
from archsim.config.inheritance import override_values
from archsim.config.loading import LoadedSpec, load_mapping, load_part, load_spec, read_key
from archsim.experiment import EXPLORATIONS, Overrides, experiment_file, load_experiment
from archsim.sweep.space import Space, expand
from archsim.sweep.spec import SpaceSpec, SweepSpec, as_plain


@dataclass(frozen=True)
class Plan:
    """A sweep before it runs. `fixed` is set in every point, beneath what the point sets itself."""

    name: str
    experiment: Path
    space: Space
    fixed: Mapping[str, Any]
    best: str | None

    def digest(self) -> str:
        """A name for the sweep's table: equal for the same points of the same file."""
        points = [dict(point.overrides) for point in self.space.points]
        content = json.dumps([str(self.experiment.resolve()), dict(self.fixed), points], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


def plan_sweep(experiment: str | Path, space: Mapping[str, Any] | None, overrides: Overrides, best: str | None) -> Plan:
    """The plan of a sweep.

    Args:
        experiment: a `kind: sweep` file, or an experiment: its `sweep:` section is taken unless `space` is given.
        space: {path: values}, or a whole sweep ({"axes": ..., "where": ...}), as it would be written in YAML.
        overrides: changes to the experiment, the same in every point.
        best: the metric by which points are compared, instead of the sweep's own.

    Raises UserError (SpecError for the contents of files) for anything wrong with them.
    """
    given = None if space is None else space if "axes" in space else {"axes": space}
    file, base, loaded, folder = read_part("sweep", SweepSpec, experiment, given, overrides)
    spec = loaded.spec
    expanded = expand(spec, folder)
    fixed = dict(expanded.fixed) | override_values(overrides)
    if clash := sorted(fixed.keys() & {path for point in expanded.points for path in point.overrides}):
        raise UserError(f"'{clash[0]}' is set for all points, but the sweep varies it", expected="one of the two")
    name = spec.name or (file.stem if file.stem not in ("experiment", "sweep") else file.resolve().parent.name)
    return Plan(name, base, expanded, fixed, best or spec.best)


Part = TypeVar("Part", bound=SpaceSpec)


def read_part(
    kind: str, model: type[Part], experiment: str | Path, given: Mapping[str, Any] | None, overrides: Overrides
) -> tuple[Path, Path, LoadedSpec[Part], Path]:
    """A sweep or a search (`kind`) from a file of its own, from Python (`given`) or from a section of an experiment.

    Returns the file asked for, the experiment's file, the spec, and the folder that names in it are relative to.
    Raises UserError, SpecError for the contents of files."""
    file = experiment_file(experiment)
    found = read_key(file, "kind")
    if found in EXPLORATIONS and found != kind:
        raise UserError(f"{file} is a {found}, no {kind}", expected=f"archsim {found}, or kind: {kind}")
    if found == kind:
        if given is not None:
            raise UserError(f"{file} is a {kind} with axes of its own", expected="an experiment, and other axes")
        loaded = load_spec(file, model)
        if loaded.spec.experiment is None:
            raise UserError(
                f"{file} names no experiment", expected="experiment: a path, or a shipped experiment's name"
            )
        beside = file.parent / loaded.spec.experiment
        return file, experiment_file(beside if beside.exists() else loaded.spec.experiment), loaded, file.parent
    if given is not None:
        return file, file, load_mapping(as_plain(given), model), Path()
    whole = load_experiment(file, overrides).loaded
    if kind not in whole.tree.entries:
        keys = listed(model.model_fields, 20)
        raise UserError(
            f"{file} says nothing about what to vary", expected=f"`{kind}:` with axes ({keys}), or kind: {kind}"
        )
    return file, file, load_part(whole, kind, model), file.parent

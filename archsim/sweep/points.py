"""A point as something to simulate: its experiment, resolved, and the key that its result is kept under."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from archsim import __version__
from archsim.config.errors import UserError
from archsim.config.yamltree import Node
from archsim.experiment import LoadedExperiment, load_experiment
from archsim.sweep.space import Point

KEY_LENGTH = 32
"""Hexadecimal digits of a key: 128 bits."""


@dataclass(frozen=True)
class Resolved:
    """A point with its key. `loaded` is None, and `error` says why, if its experiment can't be had."""

    point: Point
    key: str
    loaded: LoadedExperiment | None
    error: str = ""


def resolve(experiment: Path, point: Point, fixed: Mapping[str, Any]) -> Resolved:
    """A point's experiment: the file, what the command line changes, what the point sets.

    The key is a hash of the resolved configuration, model and trace included, and of archsim's version: equal
    experiments have equal keys, however they were written down.
    """
    overrides = {**fixed, **point.overrides}
    try:
        loaded = load_experiment(experiment, overrides)
    except UserError as error:
        return Resolved(point, _hash({"unresolved": overrides, "error": str(error)}), None, str(error))
    return Resolved(point, _hash({"config": loaded.digest()}), _without_tree(loaded))


def _hash(content: Mapping[str, Any]) -> str:
    text = json.dumps({**content, "archsim": __version__}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _without_tree(loaded: LoadedExperiment) -> LoadedExperiment:
    """Without the parsed YAML, which is half of what would be sent to a worker and which none needs."""
    bare = Node(None, "", None)
    return replace(loaded, loaded=replace(loaded.loaded, tree=bare), system=replace(loaded.system, tree=bare))


def first_that_loads(points: Iterable[Point], experiment: Path, fixed: Mapping[str, Any]) -> LoadedExperiment:
    """The experiment of the first point that has one. Raises the first point's UserError if none has."""
    attempts: Iterator[Resolved] = (resolve(experiment, point, fixed) for point in points)
    first = next(attempts)
    if first.loaded is not None:
        return first.loaded
    found = next((attempt.loaded for attempt in attempts if attempt.loaded is not None), None)
    if found is None:
        raise UserError(f"no point of the sweep is an experiment; the first ({first.point}): {first.error}")
    return found

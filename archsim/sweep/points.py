"""A point as something to simulate: its experiment, resolved, and the key that its result is kept under."""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from archsim import __version__
from archsim.config.errors import UserError
from archsim.config.yamltree import Node
from archsim.experiment import LoadedExperiment, load_experiment, with_workload_numbers
from archsim.sweep.space import Point

KEY_LENGTH = 32
"""Hexadecimal digits of a key: 128 bits."""
KEPT = 16
"""How many experiments are kept as they were read: each worker is at one hardware at a time."""


@dataclass(frozen=True)
class Resolved:
    """A point with its key. `loaded` is None, and `error` says why, if its experiment can't be had."""

    point: Point
    key: str
    loaded: LoadedExperiment | None
    error: str = ""


class Resolver:
    """Points as experiments: the file, what the command line changes (`fixed`), what the point sets.

    The key is a hash of the resolved configuration, model and trace included, and of archsim's version: equal
    experiments have equal keys, however they were written down. Points that differ in numbers of their workload alone
    share what has been read: a sweep over batches and contexts reads each system once."""

    def __init__(self, experiment: Path, fixed: Mapping[str, Any]) -> None:
        self._experiment, self._fixed = experiment, fixed
        self._read: OrderedDict[str, LoadedExperiment | None] = OrderedDict()

    def resolve(self, point: Point) -> Resolved:
        """A point with its experiment, or with what is wrong with it."""
        overrides = {**self._fixed, **point.overrides}
        try:
            loaded = self._loaded(overrides)
        except UserError as error:
            return Resolved(point, _hash({"unresolved": overrides, "error": str(error)}), None, str(error))
        return Resolved(point, _hash({"config": loaded.digest()}), _without_tree(loaded))

    def _loaded(self, overrides: Mapping[str, Any]) -> LoadedExperiment:
        numbers = _workload_numbers(overrides)
        others = {path: value for path, value in overrides.items() if path not in numbers}
        base = self._base(others)
        if base is not None:
            with suppress(ValidationError, UserError):
                return with_workload_numbers(base, numbers)
        return load_experiment(self._experiment, overrides)  # or it says what is wrong

    def _base(self, overrides: Mapping[str, Any]) -> LoadedExperiment | None:
        """The experiment without the numbers, None if it is none without them."""
        key = json.dumps(overrides, sort_keys=True, default=str)
        if key not in self._read:
            if len(self._read) >= KEPT:
                self._read.popitem(last=False)
            try:
                self._read[key] = load_experiment(self._experiment, overrides)
            except UserError:
                self._read[key] = None
        return self._read[key]


def _workload_numbers(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides that set a number in a part of the workload that no text or mapping among the others sets too: in
    which order they are laid over the file then makes no difference."""
    set_otherwise = {_part(path) for path, value in overrides.items() if not isinstance(value, int | float | None)}
    return {
        path: value
        for path, value in overrides.items()
        if path.startswith("workload.")
        and isinstance(value, int | float | None)
        and not set_otherwise & {("workload",), _part(path)}
    }


def _part(path: str) -> tuple[str, ...]:
    """What of an experiment a path is about: ("workload", "decode") for "workload.decode.context_tokens"."""
    return tuple(re.split(r"[.\[]", path)[:2])


def _hash(content: Mapping[str, Any]) -> str:
    text = json.dumps({**content, "archsim": __version__}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _without_tree(loaded: LoadedExperiment) -> LoadedExperiment:
    """Without the parsed YAML, which is half of what would be sent to a worker and which none needs."""
    bare = Node(None, "", None)
    return replace(loaded, loaded=replace(loaded.loaded, tree=bare), system=replace(loaded.system, tree=bare))


def first_that_loads(points: Iterable[Point], resolver: Resolver) -> LoadedExperiment:
    """The experiment of the first point that has one. Raises the first point's UserError if none has."""
    attempts: Iterator[Resolved] = (resolver.resolve(point) for point in points)
    first = next(attempts)
    if first.loaded is not None:
        return first.loaded
    found = next((attempt.loaded for attempt in attempts if attempt.loaded is not None), None)
    if found is None:
        raise UserError(f"no point of the sweep is an experiment; the first ({first.point}): {first.error}")
    return found

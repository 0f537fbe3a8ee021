"""A YAML file as a validated spec, or all of its problems at once.

loaded = load_spec(Path("experiments/decode/experiment.yaml"), ExperimentSpec, ["workload.batch=16"])
loaded.spec, loaded.resolved, loaded.digest()
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from archsim.config.dimensions import is_quantity
from archsim.config.errors import Problem, SpecError, show
from archsim.config.explain import MISSING, explain, node_at
from archsim.config.inheritance import TreeReader, apply_overrides, join
from archsim.config.kinds import check_kind
from archsim.config.presets import data_root, preset_names, resolve_preset
from archsim.config.schema import Spec, unwrap_sourced
from archsim.config.yamltree import Node, dump_yaml, plain

__all__ = [
    "LoadedSpec",
    "data_root",
    "load_mapping",
    "load_part",
    "load_spec",
    "preset_names",
    "read_key",
    "read_tree",
    "resolve_preset",
    "sources_below",
    "unsourced_numbers",
]

_MAPPING = "(mapping)"

T = TypeVar("T", bound=Spec)


@dataclass(frozen=True)
class LoadedSpec(Generic[T]):
    """A spec with where it came from.

    `resolved` is what was written, units included, after bases, presets and overrides: it loads again to the same
    spec. `sources` gives for each number that has one its source, by dotted path. `files` are all files that took
    part, the one asked for first.
    """

    spec: T
    resolved: dict[str, Any]
    sources: dict[str, str]
    file: Path
    files: tuple[Path, ...] = ()
    tree: Node = field(repr=False, compare=False, default=Node(None, "", None))

    def digest(self) -> str:
        """SHA-256 (hex) of `resolved` as canonical JSON: equal for equal specs on every machine."""
        canonical = json.dumps(self.resolved, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_yaml(self) -> str:
        """`resolved` as YAML that load_spec reads back to the same spec."""
        return dump_yaml(self.resolved)

    def problem(self, path: str, message: str, expected: str | None = None, nearest: str | None = None) -> Problem:
        """A problem at a dotted path of this spec, with the file and line that it was written on."""
        node = node_at(self.tree, path)
        return Problem(node.file, node.line, path, message, expected, nearest)


def load_spec(
    path: Path,
    model: type[T],
    overrides: Mapping[str, object] | Sequence[str] = (),
    search: Sequence[Path] = (),
) -> LoadedSpec[T]:
    """Read, inherit, override and validate a YAML file.

    `overrides` are texts "a.b.c=value" or a mapping from dotted paths to values; `search` are folders whose presets
    may be named besides the shipped ones. Raises SpecError with every problem, UserError if there is no such file.
    """
    path = Path(path)
    reader = TreeReader(search)
    return _finished(reader, reader.read(path), path, model, overrides)


def load_mapping(
    data: Mapping[str, Any],
    model: type[T],
    overrides: Mapping[str, object] | Sequence[str] = (),
    search: Sequence[Path] = (),
    folder: Path = Path(),
) -> LoadedSpec[T]:
    """As load_spec, from a mapping built in Python; relative bases and presets are looked up in `folder`."""
    reader = TreeReader(search)
    tree = reader.read_mapping(data, _MAPPING, folder)
    return _finished(reader, tree, folder / _MAPPING, model, overrides)


def load_part(loaded: LoadedSpec[Any], key: str, model: type[T]) -> LoadedSpec[T]:
    """One top-level key of a loaded file, validated as a spec of its own. Raises SpecError with every problem."""
    return _finished(TreeReader(), loaded.tree.entries[key], loaded.file, model, ())


def _finished(
    reader: TreeReader, tree: Node, path: Path, model: type[T], overrides: Mapping[str, object] | Sequence[str]
) -> LoadedSpec[T]:
    check_kind(tree, path.stem, [model])
    tree = reader.inline(tree, model)
    if overrides:
        tree = apply_overrides(tree, overrides)
        tree = reader.inline(reader.inherit(tree, ""), model)
    blemished = {problem.path for problem in reader.blemishes}
    problems = [*reader.problems, *reader.blemishes, *_source_problems(tree, "")]
    resolved = plain(tree)
    try:
        spec = model.model_validate(unwrap_sourced(resolved))
    except ValidationError as error:
        found = [problem for problem in explain(error, model, tree) if problem.path not in blemished]
        problems += _not_explained_by(reader.problems, found)
        raise SpecError(_in_file_order(problems)) from None
    if problems:
        raise SpecError(_in_file_order(problems))
    return LoadedSpec(spec, resolved, sources_below(tree, ""), path, tuple(reader.files), tree)


def _not_explained_by(unreadable: Sequence[Problem], found: Sequence[Problem]) -> list[Problem]:
    """What is still wrong apart from bases and presets that could not be read: not what they would have supplied."""
    if not unreadable:
        return list(found)
    paths = {problem.path for problem in unreadable}
    return [problem for problem in found if problem.message != MISSING and problem.path not in paths]


def _in_file_order(problems: Sequence[Problem]) -> list[Problem]:
    files = list(dict.fromkeys(problem.file for problem in problems))
    return sorted(dict.fromkeys(problems), key=lambda problem: (files.index(problem.file), problem.line or 0))


def read_key(path: Path, key: str, search: Sequence[Path] = ()) -> Any:
    """The value of one top-level key of a file, bases included; None if absent. Raises as load_spec does."""
    entry = read_tree(path, search).entries.get(key)
    return None if entry is None else plain(entry)


def read_tree(path: Path, search: Sequence[Path] = ()) -> Node:
    """A file with its bases, not yet validated. Raises as load_spec does."""
    reader = TreeReader(search)
    tree = reader.read(Path(path))
    if reader.problems or reader.blemishes:
        raise SpecError(_in_file_order([*reader.problems, *reader.blemishes]))
    return tree


def unsourced_numbers(loaded: LoadedSpec[Any]) -> list[str]:
    """Dotted paths of numbers and quantities for which no source is given.

    A number is covered by its own {value, source} or by a `source:` of a mapping around it in the same file.
    """
    return [path for path, leaf in _numbers(loaded.tree, "") if not leaf.source]


def sources_below(tree: Node, path: str) -> dict[str, str]:
    """The source of each number of a tree that has one, by dotted path; the tree itself stands at `path`."""
    return {path: leaf.source for path, leaf in _numbers(tree, path) if leaf.source}


def _numbers(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    """Every leaf that is a number or a text such as "16 GiB", with its path."""
    if node.is_sourced:
        value = node.entries["value"]
        yield from ((path, found) for _, found in _numbers(value, path))
        return
    for key, entry in node.entries.items():
        if key not in ("source", "uncertainty"):
            yield from _numbers(entry, join(path, key))
    for index, item in enumerate(node.items):
        yield from _numbers(item, join(path, index))
    value_here = node.value
    is_number = isinstance(value_here, int | float) and not isinstance(value_here, bool)
    if is_number or (isinstance(value_here, str) and is_quantity(value_here)):
        yield path, node


def _source_problems(node: Node, path: str) -> Iterator[Problem]:
    """Sources of single values that say nothing; those of specs are checked with the spec."""
    source = node.entries.get("source") if node.is_sourced else None
    if source is not None and not (isinstance(source.value, str) and source.value.strip()):
        said = show(plain(source))
        yield Problem(source.file, source.line, join(path, "source"), f"got {said}", "text that names the source")
    for key, entry in node.entries.items():
        yield from _source_problems(entry, join(path, key))
    for index, item in enumerate(node.items):
        yield from _source_problems(item, join(path, index))

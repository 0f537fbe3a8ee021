"""From files to one tree: `base:` inheritance, presets named where a spec is due, and overrides."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any

from archsim.config.annotations import accepts_text, alternatives, inner, spec_classes, spec_for
from archsim.config.errors import Problem, SpecError, UserError, show
from archsim.config.kinds import check_kind
from archsim.config.presets import resolve_preset
from archsim.config.schema import Spec
from archsim.config.yamltree import Node, Scalar, parse_value, plain, read_yaml, with_sources

OVERRIDE = "override"


MOST_KEYS_SHOWN = 6


class TreeReader:
    """Reads files into trees and remembers which files took part and what was wrong with them.

    `problems` are bases and presets that could not be had, `blemishes` what is wrong inside of files that could."""

    def __init__(self, search: Sequence[Path] = ()) -> None:
        self.search = tuple(search)
        self.files: list[Path] = []
        self.problems: list[Problem] = []
        self.blemishes: list[Problem] = []
        self._folders: dict[str, Path] = {}

    def read(self, path: Path, chain: tuple[Path, ...] = ()) -> Node:
        """The file's tree with every `base:` in it replaced by what it inherits."""
        name = _shown(path)
        tree = read_yaml(path, name, self.blemishes)
        self.files.append(path)
        self._folders[name] = path.parent
        return self.inherit(tree, "", (*chain, path.resolve()))

    def read_mapping(self, data: Mapping[str, Any], label: str, folder: Path) -> Node:
        """The same from Python; `folder` is where relative bases are looked up, `label` stands for a file name."""
        self._folders[label] = folder
        return self.inherit(with_sources(_as_node(data, label), None), "")

    def inherit(self, node: Node, path: str, chain: tuple[Path, ...] = ()) -> Node:
        """The tree with every `base:` in it followed. What goes wrong is kept in `problems`."""
        if isinstance(node.value, list):
            items = [self.inherit(item, f"{path}[{index}]", chain) for index, item in enumerate(node.value)]
            return replace(node, value=items)
        if not isinstance(node.value, dict):
            return node
        entries = {
            key: self.inherit(entry, join(path, key), chain) for key, entry in node.value.items() if key != "base"
        }
        own = replace(node, value=entries)
        base = node.value.get("base")
        return own if base is None else self._onto_base(own, base, join(path, "base"), chain)

    def _onto_base(self, own: Node, base: Node, path: str, chain: tuple[Path, ...]) -> Node:
        if not isinstance(base.value, str):
            self._complain(base, path, "got " + show(plain(base)), "the name of a preset or the path of a file")
            return own
        inherited = self.preset(base, path, chain)
        return replace(own if inherited is None else merge(inherited, own), has_base=True)

    def preset(self, name: Node, path: str, chain: tuple[Path, ...] = (), keys: str | None = None) -> Node | None:
        """The tree of the preset that a node names; None, with a problem noted, if it can't be had.

        `keys` are those that could stand there instead of a name."""
        try:
            file = self._find(str(name.value), name.file)
            if file.resolve() in chain:
                circle = [*chain[chain.index(file.resolve()) :], file]
                names = " -> ".join(link.name for link in circle)
                raise UserError(f"inherits from itself: {names}")
            return self.read(file, chain)
        except SpecError as error:
            self.problems += [problem for problem in error.problems if problem not in self.problems]
        except UserError as error:
            self._complain(name, path, error.message, keys or error.expected, error.nearest)
        return None

    def _find(self, name: str, named_in: str) -> Path:
        folder = self._folders.get(named_in)
        if folder is not None:
            return resolve_preset(name, folder, self.search)
        # An override stands in no file: its paths are relative to where the command runs.
        return resolve_preset(name, Path(), (*self.search, *list(self._folders.values())[:1]))

    def _complain(
        self, node: Node, path: str, message: str, expected: str | None = None, nearest: str | None = None
    ) -> None:
        self.problems.append(Problem(node.file, node.line, path, message, expected, nearest))

    def inline(self, node: Node, annotation: Any, path: str = "") -> Node:
        """The tree with preset names replaced by the presets, wherever a spec and no text is due, and with what nodes
        were laid over brought together with them."""
        node = self._settled(node, annotation, path)
        if isinstance(node.value, str) and _names_a_preset(annotation):
            preset = self.preset(node, path, keys=_keys_instead(annotation))
            if preset is not None:
                try:
                    check_kind(preset, node.value, spec_classes(annotation))
                except UserError as error:
                    self._complain(node, path, error.message, error.expected)
                    return node
            return node if preset is None else self.inline(preset, annotation, path)
        if node.is_sourced:
            return node
        if isinstance(node.value, dict):
            data = {key: entry.value for key, entry in node.value.items()}
            due = {key: inner(annotation, key, data) for key in node.value}
            entries = {
                key: self.inline(entry, due[key], join(path, key))
                for key, entry in node.value.items()
                if not _drops(entry, due[key])
            }
            return Node(entries, node.file, node.line, node.source)
        if isinstance(node.value, list):
            items = [
                self.inline(item, inner(annotation, index, node.value), f"{path}[{index}]")
                for index, item in enumerate(node.value)
            ]
            return Node(items, node.file, node.line, node.source)
        return node

    def _settled(self, node: Node, annotation: Any, path: str) -> Node:
        """A node together with what it was laid over: changes to a preset by name, a mapping of another kind."""
        over = node.over
        if over is None:
            return node
        node = replace(node, over=None)
        if isinstance(over.value, str) and _names_a_preset(annotation):
            preset = self.preset(over, path, keys=_keys_instead(annotation))
            return node if preset is None else self._settled(_lay(preset, node), annotation, path)
        spec = spec_for(annotation, {key: entry.value for key, entry in node.entries.items()})
        if spec is None or not node.entries:
            return node
        kept = {key: entry for key, entry in over.entries.items() if key in spec.model_fields}
        return replace(node, value=kept | node.entries)


def _names_a_preset(annotation: Any) -> bool:
    """Whether a text is the name of a preset."""
    return bool(spec_classes(annotation)) and not accepts_text(annotation)


def _drops(node: Node, annotation: Any) -> bool:
    """Whether a null takes an inherited key away: where nothing may be written, it is a value like others."""
    return node.value is None and node.over is not None and NoneType not in alternatives(annotation)


def _keys_instead(annotation: Any) -> str | None:
    """ "a mapping with weights, kv", where one of few keys could stand; None where nobody would write it out."""
    classes = spec_classes(annotation)
    keys = [key for key in classes[0].model_fields if key not in Spec.model_fields] if len(classes) == 1 else []
    return f"a mapping with {', '.join(keys)}" if 0 < len(keys) <= MOST_KEYS_SHOWN else None


def merge(base: Node, child: Node) -> Node:
    """The child laid over its base: mappings key by key, anything else (lists, numbers with a source) whole."""
    if not (isinstance(base.value, dict) and isinstance(child.value, dict)) or base.is_sourced or child.is_sourced:
        return child
    merged = dict(base.entries)
    for key, entry in child.entries.items():
        below = merged.get(key)
        merged[key] = entry if below is None else _lay(below, entry)
    return replace(child, value=merged, over=child.over or base.over)


def _lay(base: Node, child: Node) -> Node:
    """As `merge`, inside of a mapping.

    Whole as well is a mapping with a `base:` of its own, or with a `kind` over one without: SRAM over a memory that
    doesn't say that it is DRAM. `TreeReader.inline` knows what is due and settles the rest: a mapping over a name
    changes the preset of that name, a mapping of another kind keeps the keys that this kind has too, a null drops the
    key."""
    if child.value is None:
        return child if base.value is None else replace(child, over=base)
    if not isinstance(child.value, dict) or child.has_base or "base" in child.entries or child.is_sourced:
        return child
    if isinstance(base.value, str):
        return replace(child, over=base)
    if "kind" in child.entries and plain(child.entries["kind"]) != plain(base.entries.get("kind", _NOTHING)):
        return replace(child, over=base) if "kind" in base.entries else child
    return merge(base, child)


_NOTHING = Node(None, "", None)


def apply_overrides(tree: Node, overrides: Mapping[str, object] | Sequence[str]) -> Node:
    """The tree with "a.b.c=value" texts, or a mapping of paths to values, laid over it. Raises SpecError."""
    problems: list[Problem] = []
    for path, value in _parsed(overrides, problems):
        try:
            tree = _assign(tree, _tokens(path), value, "")
        except UserError as error:
            problems.append(Problem(value.file, None, path, error.message, error.expected, error.nearest))
    if problems:
        raise SpecError(problems)
    return tree


def override_values(overrides: Mapping[str, object] | Sequence[str]) -> dict[str, Any]:
    """Overrides of either form as a mapping of paths to plain values. Raises SpecError."""
    problems: list[Problem] = []
    values = {path: plain(value) for path, value in _parsed(overrides, problems)}
    if problems:
        raise SpecError(problems)
    return values


def _parsed(overrides: Mapping[str, object] | Sequence[str], problems: list[Problem]) -> Iterator[tuple[str, Node]]:
    if isinstance(overrides, str):
        raise TypeError("overrides are a list of texts, not one text")
    if isinstance(overrides, Mapping):
        for path, value in overrides.items():
            yield path, _as_node(value, f"{OVERRIDE} '{path}'")
        return
    for text in overrides:
        path, equals, value_text = text.partition("=")
        label = f"{OVERRIDE} '{text}'"
        if not equals or not path.strip():
            problems.append(Problem(label, None, "", "not a path and a value", "text such as 'workload.batch=8'"))
            continue
        try:
            value = parse_value(value_text, label)
            yield path.strip(), _as_node(plain(value), label)
        except SpecError as error:
            problems += [Problem(label, None, path.strip(), found.message, found.expected) for found in error.problems]


def _as_node(value: Any, label: str) -> Node:
    if isinstance(value, Mapping):
        return Node({str(key): _as_node(part, label) for key, part in value.items()}, label, None, OVERRIDE)
    if isinstance(value, list | tuple):
        return Node([_as_node(part, label) for part in value], label, None, OVERRIDE)
    if isinstance(value, Enum):
        return _as_node(value.value, label)
    if isinstance(value, Path):
        return Node(str(value), label, None, OVERRIDE)
    if not isinstance(value, Scalar) and hasattr(value, "item"):
        return _as_node(value.item(), label)  # a numpy scalar, as sweeps have them
    if not isinstance(value, Scalar):
        raise UserError(f"{label}: a {type(value).__name__} can't stand in a spec", expected="text, a number or a list")
    return Node(value, label, None, OVERRIDE)


def _tokens(path: str) -> list[str | int]:
    """ "a.b[2].c" and "a.b.2.c" as keys and indices; whether 2 is an index depends on what stands there."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"\.|\[|\]\.?", path) if part]


def _assign(node: Node | None, keys: list[str | int], value: Node, path: str) -> Node:
    if not keys:
        return value if node is None else _lay(node, value)
    if node is None:
        return Node({str(keys[0]): _assign(None, keys[1:], value, path)}, value.file, None, OVERRIDE)
    if isinstance(node.value, list):
        return _assign_item(node, keys, value, path)
    if node.is_sourced and keys == ["value"]:
        return value
    if not isinstance(node.value, dict):
        if node.value is None:
            return _assign(None, keys, value, path)
        raise UserError(f"'{path}' is {show(node.value)}, which has no keys")
    # A key may itself hold a dot ("qwen2.5-7b"): the longest one that exists is meant.
    length = next((n for n in range(len(keys), 1, -1) if _dotted(keys[:n]) in node.value), 1)
    key = _dotted(keys[:length])
    entries = dict(node.value)
    entries[key] = _assign(entries.get(key), keys[length:], value, join(path, key))
    return replace(node, value=entries)


def _assign_item(node: Node, keys: list[str | int], value: Node, path: str) -> Node:
    items, index = list(node.items), keys[0]
    if not isinstance(index, int) or index >= len(items):
        raise UserError(f"'{path}' is a list of {len(items)}", expected=f"an index from 0 to {len(items) - 1}")
    items[index] = _assign(items[index], keys[1:], value, f"{path}[{index}]")
    return replace(node, value=items)


def _dotted(keys: list[str | int]) -> str:
    return ".".join(str(key) for key in keys)


def join(path: str, key: str | int) -> str:
    """The dotted path of an entry or item."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def _shown(path: Path) -> str:
    """A path as messages show it: relative to where the command runs if it lies below."""
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(path)

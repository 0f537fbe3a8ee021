"""What kind of thing a tree describes, where a preset of another kind stands in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from archsim.config.errors import UserError
from archsim.config.schema import SOURCED_KEYS, Spec
from archsim.config.yamltree import Node


def check_kind(tree: Node, name: str, wanted: Sequence[type[Spec]]) -> None:
    """Raises UserError if the tree, which is called `name`, is plainly of a kind that is not wanted.

    Kinds are specs with `kind_in_words`; among those without, nothing is told apart."""
    if not wanted or not all(cls.kind_in_words for cls in wanted) or not tree.entries:
        return
    alike = _fit if _says(tree) in _kinds_said() else _shared
    if max(alike(tree, cls) for cls in wanted) > 0.5:
        return  # one of its kind with mistakes, which the spec tells one by one
    due = " or ".join(dict.fromkeys(cls.kind_in_words for cls in wanted))
    best = max(_kinds(Spec), key=lambda cls: _fit(tree, cls))
    if best not in wanted and _fit(tree, best) > 0.5:
        raise UserError(f"'{name}' is {best.kind_in_words}", expected=due)
    if _says(tree) is not None and not any(_fit(tree, cls) for cls in wanted):
        raise UserError(f"'{name}' says that it is a {_says(tree)}", expected=due)


def _kinds(spec: type[Spec]) -> Iterator[type[Spec]]:
    """All kinds that have been imported."""
    for cls in spec.__subclasses__():
        if cls.kind_in_words:
            yield cls
        yield from _kinds(cls)


def _kinds_said() -> set[object]:
    """What `kind:` can say in them."""
    return {said for cls in _kinds(Spec) for said in _own_words(cls)}


def _own_words(cls: type[Spec]) -> tuple[object, ...]:
    kind = cls.model_fields.get("kind")
    return () if kind is None else get_args(kind.annotation)


def _says(tree: Node) -> object:
    return tree.entries["kind"].value if "kind" in tree.entries else None


def _fit(tree: Node, cls: type[Spec]) -> float:
    """As `_shared`; 0 if the tree says that it is of another kind."""
    return 0 if _says(tree) is not None and _says(tree) not in _own_words(cls) else _shared(tree, cls)


def _shared(tree: Node, cls: type[Spec]) -> float:
    """The share of a mapping's keys that a spec has."""
    keys = tree.entries.keys() - SOURCED_KEYS
    return len(keys & cls.model_fields.keys()) / len(keys) if keys else 0

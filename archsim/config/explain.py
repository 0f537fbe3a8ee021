"""Pydantic's errors as a person would put them: file, line, path, what is wrong, what was expected."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from archsim.config.annotations import alternatives, choices, in_words, inner, keys_of, spec_classes, spec_for
from archsim.config.dimensions import QuantityError
from archsim.config.errors import Problem, SpecError, UserError, listed, nearest_name, show
from archsim.config.inheritance import OVERRIDE, join
from archsim.config.schema import SOURCED_KEYS, Spec
from archsim.config.yamltree import Node, plain

MISSING = "is required but missing"

_LIMITS = {
    "greater_than": ("too small", "above", "gt"),
    "greater_than_equal": ("too small", "at least", "ge"),
    "less_than": ("too large", "below", "lt"),
    "less_than_equal": ("too large", "at most", "le"),
    "multiple_of": ("not a multiple", "a multiple of", "multiple_of"),
}


@dataclass
class _Located:
    """One of pydantic's errors, found again in the tree.

    `annotation` is of the value itself (of one member if it is a union), `declared` is the whole union,
    and `owner` is the annotation of the mapping or list around it."""

    error: ErrorDetails
    path: str
    node: Node
    annotation: Any
    declared: Any
    owner: Any
    branches: list[tuple[str, str]] = field(default_factory=list)  # (path of a union, its member)

    @property
    def exception(self) -> Exception | None:
        found = self.error.get("ctx", {}).get("error")
        return found if isinstance(found, Exception) else None

    @property
    def is_mismatch(self) -> bool:
        """Whether the value is of the wrong kind altogether, so that another member of a union may still fit."""
        kind = self.error["type"]
        if kind == "value_error":
            return isinstance(self.exception, QuantityError)
        return kind.endswith(("_type", "_parsing", "_attributes_type")) or kind in (
            "literal_error",
            "enum",
            "int_from_float",
            "is_instance_of",
            "int_parsing_size",
        )


def explain(error: ValidationError, model: type[Spec], tree: Node) -> list[Problem]:
    """Every error as a Problem, in the order of the file."""
    located = [_locate(details, model, tree) for details in error.errors(include_url=False)]
    located = _only_likely_members(located)
    paths_within = [item.path for item in located]
    problems: dict[Problem, None] = {}
    for item in located:
        if item.is_mismatch and any(_is_below(path, item.path) for path in paths_within):
            continue  # a member of a union that plainly was not meant
        for problem in _problems_of(item, [other for other in located if other.path == item.path], tree):
            problems[problem] = None
    return list(problems)


def node_at(tree: Node, path: str) -> Node:
    """The node a dotted path leads to, or the deepest one on the way."""
    node = tree
    for key in _keys(path):
        following = _step(node, key)
        if following is None:
            return node
        node = following
    return node


def _locate(error: ErrorDetails, model: type[Spec], tree: Node) -> _Located:
    """Follow pydantic's location through annotations and tree; it mixes keys with names of union members."""
    annotation: Any = model
    declared, owner = annotation, None
    node, path = tree, ""
    branches: list[tuple[str, str]] = []
    steps = [step for step in error["loc"] if step != "[key]"]
    for position, step in enumerate(steps):
        if len(members := [member for member in alternatives(annotation) if member is not type(None)]) > 1:
            branches.append((path, str(step)))
            annotation = _member(members, str(step), plain(node))
            if annotation is not None:
                continue
        following = _step(node, step)
        is_last = position == len(steps) - 1
        if following is None and not (is_last and error["type"] == "missing"):
            continue  # the name of a validator or of a member that is not known here
        owner = annotation
        annotation = declared = inner(annotation, step, plain(node)) if annotation is not None else None
        path = join(path, step)
        node = following or node
    return _Located(error, path, node, annotation, declared, owner, branches)


def _member(members: Sequence[Any], label: str, data: Any) -> Any:
    """The member of a union that pydantic labels so: by tag, by the name of its class, by kind."""
    specs = [member for member in members if spec_classes(member)]
    by_tag = spec_for(specs[0] if len(specs) == 1 else _union(specs), data) if specs else None
    for member in members:
        name = getattr(member, "__name__", str(member))
        if re.search(rf"\b{re.escape(name)}\b", label):
            return member
    if by_tag is not None and label in [str(value) for value in _tag_values(by_tag)]:
        return by_tag
    tagged = [member for member in specs if label in [str(value) for value in _tag_values(member)]]
    if tagged:
        return tagged[0]
    others = [member for member in members if member not in specs]
    return others[0] if others else None


def _union(members: Sequence[Any]) -> Any:
    union = members[0]
    for member in members[1:]:
        union = union | member
    return union


def _tag_values(spec: type[Spec]) -> list[str]:
    return [name for item in spec.model_fields.values() for name in choices(item.annotation)]


def _step(node: Node, key: str | int) -> Node | None:
    if isinstance(key, int):
        return node.items[key] if key < len(node.items) else None
    return node.entries.get(key)


def _only_likely_members(located: list[_Located]) -> list[_Located]:
    """Of several mappings a value might have been meant as, keep the complaints of the one that fits best."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for item in located:
        for union, member in item.branches:
            if _is_below(item.path, union):
                counts[union][member] += 1
    best = {union: min(members, key=lambda name: members[name]) for union, members in counts.items()}
    return [
        item
        for item in located
        if all(not _is_below(item.path, union) or best[union] == member for union, member in item.branches)
    ]


def _is_below(path: str, ancestor: str) -> bool:
    return path != ancestor and (not ancestor or path.startswith((f"{ancestor}.", f"{ancestor}[")))


def _problems_of(item: _Located, siblings: list[_Located], tree: Node) -> list[Problem]:
    kind, context = item.error["type"], item.error.get("ctx", {})
    if isinstance(item.exception, SpecError):
        return [_within(problem, item.path, tree) for problem in item.exception.problems]
    if item.is_mismatch:
        return _mismatch(item, siblings)
    if item.exception is not None:
        return [_from_exception(item, item.exception)]
    if kind == "missing":
        return [_problem(item, MISSING, in_words(item.declared))]
    if kind == "extra_forbidden":
        return [_unknown_key(item)]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return [_unknown_member(item)]
    if kind in _LIMITS:
        wrong, relation, key = _LIMITS[kind]
        return [_problem(item, f"{show(item.error['input'])} is {wrong}", f"{relation} {context[key]}")]
    if kind.endswith(("too_short", "too_long")):
        return [_wrong_length(item)]
    if kind == "string_pattern_mismatch":
        return [_problem(item, f"got {show(item.error['input'])}", f"text of the form {context['pattern']}")]
    if kind == "finite_number":
        return [_problem(item, f"{item.error['input']} is not a finite number")]
    return [_problem(item, _plain_words(item.error["msg"]))]


def _problem(item: _Located, message: str, expected: str | None = None, nearest: str | None = None) -> Problem:
    return Problem(item.node.file, item.node.line, item.path, message, expected, nearest)


def _file_of_contradiction(node: Node) -> str:
    """The file of a mapping whose parts contradict each other, and the overrides in it, which may be why."""
    if node.is_scalar or node.file.startswith(OVERRIDE):
        return node.file
    overrides = list(dict.fromkeys(part.file for part in _parts(node) if part.file.startswith(OVERRIDE)))
    return f"{' and '.join(overrides)} over {node.file}" if overrides else node.file


def _parts(node: Node) -> Iterator[Node]:
    for part in (*node.entries.values(), *node.items):
        yield part
        yield from _parts(part)


def _wrong_length(item: _Located) -> Problem:
    kind, context = item.error["type"], item.error.get("ctx", {})
    bound = f"at least {context['min_length']}" if kind.endswith("short") else f"at most {context['max_length']}"
    if kind.startswith("string"):
        return _problem(item, f"{show(item.error['input'])} has the wrong length", f"{bound} characters")
    return _problem(item, f"has {context['actual_length']} entries", bound)


def _mismatch(item: _Located, siblings: list[_Located]) -> list[Problem]:
    """A value of the wrong kind; all members of a union that refused it become one problem."""
    if "value" in item.node.entries and _takes_scalars(item.declared):
        return _bad_sourced_value(item)
    written = item.error["input"]
    nearest = nearest_name(written, choices(item.declared)) if isinstance(written, str) else None
    expected = in_words(item.declared)
    quantity = next((other.exception for other in siblings if isinstance(other.exception, QuantityError)), None)
    if quantity is None:
        return [_problem(item, f"got {show(written)}", expected, nearest)]
    if expected is None or len(alternatives(item.declared)) == 1:
        expected = quantity.expected
    return [_problem(item, quantity.message, expected, nearest or quantity.nearest)]


def _takes_scalars(annotation: Any) -> bool:
    return not spec_classes(annotation) and in_words(annotation) not in ("a list", "a mapping")


def _bad_sourced_value(item: _Located) -> list[Problem]:
    """A mapping with `value` where a scalar is due, but not of the form {value, source, uncertainty}."""
    unknown = [key for key in item.node.entries if key not in SOURCED_KEYS]
    form = "{value: ..., source: ...}, with 'uncertainty' if known"
    if not unknown and "source" in item.node.entries:
        return [_problem(item, f"got {show(plain(item.node.entries['value']))}", in_words(item.declared))]
    if not unknown:
        return [_problem(item, "a value without its source", f"{form}, or the bare value")]
    return [
        Problem(
            item.node.entries[key].file,
            item.node.entries[key].line,
            join(item.path, key),
            f"unknown key '{key}'",
            form,
            nearest_name(key, SOURCED_KEYS),
        )
        for key in unknown
    ]


def _unknown_key(item: _Located) -> Problem:
    key = str(item.error["loc"][-1])
    owners = spec_classes(item.owner)
    valid = keys_of(owners[0]) if len(owners) == 1 else []
    everywhere = ["source", "uncertainty", "base"] if len(key) > 3 else []
    return _problem(item, f"unknown key '{key}'", listed(valid), nearest_name(key, [*valid, *everywhere]))


def _unknown_member(item: _Located) -> Problem:
    """A discriminated union whose tag is missing or not one of the known ones."""
    context = item.error.get("ctx", {})
    tag_key = str(context.get("discriminator", "kind")).strip("'")
    specs = spec_classes(item.annotation)
    if not any(tag_key in spec.model_fields for spec in specs):
        tag_key = "kind"  # pydantic names the function that finds the tag
    tag_fields = [spec.model_fields[tag_key] for spec in specs if tag_key in spec.model_fields]
    names = [name for tag_field in tag_fields for name in choices(tag_field.annotation)]
    path = join(item.path, tag_key)
    node = item.node.entries.get(tag_key, item.node)
    if item.error["type"] == "union_tag_not_found":
        return Problem(node.file, node.line, path, MISSING, listed(names, 30))
    tag = plain(node)
    nearest = nearest_name(tag, names) if isinstance(tag, str) else None
    return Problem(node.file, node.line, path, f"got {show(tag)}", listed(names, 30), nearest)


def _from_exception(item: _Located, exception: Exception) -> Problem:
    if isinstance(exception, UserError):
        file = _file_of_contradiction(item.node)
        return Problem(file, item.node.line, item.path, exception.message, exception.expected, exception.nearest)
    return _problem(item, str(exception) or "is not valid")


def _within(problem: Problem, path: str, tree: Node) -> Problem:
    """A problem that a validator located relative to its own object, made absolute."""
    if problem.file is not None:
        return problem
    joined = f"{path}{'' if problem.path.startswith('[') or not path else '.'}{problem.path}" if problem.path else path
    node = node_at(tree, joined)
    return Problem(_file_of_contradiction(node), node.line, joined, problem.message, problem.expected, problem.nearest)


def _keys(path: str) -> list[str | int]:
    return [int(index) if index else key for key, index in re.findall(r"([^.\[\]]+)(?![^\[]*\])|\[(\d+)\]", path)]


def _plain_words(message: str) -> str:
    """Pydantic's wording of a rare error, less its jargon."""
    message = re.sub(r"^(?:Value error|Assertion failed), ", "", message)
    message = re.sub(r"^Input should (?:be|have) ", "should be ", message)
    return message[:1].lower() + message[1:]

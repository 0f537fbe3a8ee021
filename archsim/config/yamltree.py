"""Strict YAML as a tree whose every node knows its file and line.

Less than YAML 1.1, on purpose: only `true` and `false` are booleans (`on`, `yes`, `no` are text), `010` and `1:30`
are text, dates are text, there are no tags and no merge keys, and a key may stand only once in a mapping.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from archsim.config.errors import Problem, SpecError, UserError, nearest_name
from archsim.config.schema import SOURCED_KEYS

Scalar = str | int | float | bool | None

_MAX_NODES = 200_000  # far above any spec; stops aliases of aliases from filling the memory


@dataclass(frozen=True, slots=True)
class Node:
    """A scalar, a dict of nodes or a list of nodes. In a mapping, `line` is where the key stands.

    `source` is what the file itself says about where the value comes from: its own source, else that of
    the nearest enclosing mapping in the same file (a preset doesn't vouch for numbers of another file).
    `over` is what it was laid over, where what becomes of that depends on what is due there (see
    `config/inheritance.py`); `has_base` tells a mapping that inherits from a `base:` of its own.
    """

    value: Scalar | dict[str, Node] | list[Node]
    file: str
    line: int | None
    source: str | None = None
    over: Node | None = None
    has_base: bool = False

    @property
    def entries(self) -> dict[str, Node]:
        """The mapping's entries; empty for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Node]:
        """The list's items; empty for anything else."""
        return self.value if isinstance(self.value, list) else []

    @property
    def is_sourced(self) -> bool:
        """Whether this is a scalar written as {value: X, source: S}."""
        value = self.entries.get("value")
        return value is not None and len(self.entries) > 1 and self.entries.keys() <= SOURCED_KEYS and value.is_scalar

    @property
    def is_scalar(self) -> bool:
        return not isinstance(self.value, dict | list)


class _StrictLoader(yaml.SafeLoader):
    """Composes nodes with the scalars of YAML 1.2's core schema, less octal."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own name)


_NULL, _BOOL, _INT, _FLOAT, _STR = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str"))
_KNOWN_TAGS = {_NULL, _BOOL, _INT, _FLOAT, _STR, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}

for _tag, _pattern, _first in (
    (_NULL, r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    (_BOOL, r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    (_INT, r"[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    (
        _FLOAT,
        r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$",
        list("-+0123456789."),
    ),
):
    _StrictLoader.add_implicit_resolver(_tag, re.compile(_pattern), _first)


def read_yaml(path: Path, shown_as: str | None = None, blemishes: list[Problem] | None = None) -> Node:
    """The one mapping in a YAML file. Raises UserError (no such file) or SpecError (all its problems).

    With `blemishes`, what can be read past (a key that stands twice, a tag) is added there instead of raised."""
    name = shown_as or str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _missing_file(path) from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder", expected="a YAML file") from None
    except UnicodeDecodeError as error:
        raise SpecError([Problem(name, None, "", f"not UTF-8 text (byte {error.start})")]) from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    return parse_yaml(text, name, blemishes)


def parse_yaml(text: str, file: str, blemishes: list[Problem] | None = None) -> Node:
    """As read_yaml, from text."""
    node = parse_value(text, file, blemishes)
    if node.value is None:
        raise SpecError([Problem(file, None, "", "the file is empty", "a mapping of keys to values")])
    if not isinstance(node.value, dict):
        raise SpecError([Problem(file, node.line, "", "the file is not a mapping", "lines such as 'key: value'")])
    return node


def parse_value(text: str, file: str, blemishes: list[Problem] | None = None) -> Node:
    """Any one YAML value, e.g. the right side of an override. Raises SpecError; `blemishes` as in read_yaml."""
    tree, problems = _parsed(text, file)
    if problems and blemishes is None:
        raise SpecError(list(problems))
    if blemishes is not None:
        blemishes += problems
    return tree


@lru_cache(maxsize=128)
def _parsed(text: str, file: str) -> tuple[Node, tuple[Problem, ...]]:
    """The tree and what can be read past. Trees are never changed, so the presets of a sweep are parsed once."""
    try:
        composed = _StrictLoader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise SpecError([_syntax_problem(error, text, file)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"character U+{ord(text[error.position]):04X} is not allowed in YAML"
        raise SpecError([Problem(file, line, "", message)]) from None
    except RecursionError:
        raise SpecError([Problem(file, None, "", "the values are nested too deeply")]) from None
    if composed is None:
        return Node(None, file, None), ()
    builder = _Builder(file)
    tree = builder.build(composed, "", composed.start_mark.line + 1)
    return with_sources(tree, None), tuple(builder.problems)


def with_sources(node: Node, inherited: str | None) -> Node:
    """The tree with each node's `source` filled in, starting from what its surroundings say."""
    if isinstance(node.value, dict):
        own = node.value.get("source")
        source = own.value if own is not None and isinstance(own.value, str) else inherited
        entries = {key: with_sources(entry, source) for key, entry in node.value.items()}
        return Node(entries, node.file, node.line, source)
    if isinstance(node.value, list):
        return Node([with_sources(item, inherited) for item in node.value], node.file, node.line, inherited)
    return Node(node.value, node.file, node.line, inherited)


class _Builder:
    """Turns PyYAML's nodes into ours, collecting what is not allowed."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._open: list[yaml.Node] = []
        self._count = 0

    def build(self, node: yaml.Node, path: str, line: int) -> Node:
        self._count += 1
        if self._count > _MAX_NODES:
            raise SpecError([Problem(self.file, line, path, f"more than {_MAX_NODES} values after expanding aliases")])
        if any(node is ancestor for ancestor in self._open):
            return self._complain(line, path, "an alias refers to the value it stands in")
        if node.tag not in _KNOWN_TAGS:
            return self._complain(line, path, f"the tag '{_short_tag(node.tag)}' is not supported")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, line)
        self._open.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                items = [
                    self.build(item, f"{path}[{index}]", item.start_mark.line + 1)
                    for index, item in enumerate(node.value)
                ]
                return Node(items, self.file, line)
            return self._mapping(node, path, line)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.Node, path: str, line: int) -> Node:
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(key_line, path, "a key is a list or a mapping", "a name")
                continue
            key = key_node.value
            inner = f"{path}.{key}" if path else key
            if key == "<<" and key_node.style is None:
                self._complain(key_line, path, "merge keys ('<<') are not supported", "'base:' to inherit")
            elif key in entries:
                self._complain(key_line, inner, f"the key stands twice, first on line {entries[key].line}")
            else:
                entries[key] = self.build(value_node, inner, key_line)
        return Node(entries, self.file, line)

    def _scalar(self, node: yaml.ScalarNode, path: str, line: int) -> Node:
        text = node.value
        value: Scalar = text
        try:
            if node.tag == _NULL:
                value = None
            elif node.tag == _BOOL:
                value = text.lower() == "true"
            elif node.tag == _INT:
                value = int(text)
            elif node.tag == _FLOAT:
                value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            return self._complain(line, path, f"'{text}' is not {_short_tag(node.tag)}")
        if isinstance(value, float) and not math.isfinite(value):
            return self._complain(line, path, f"'{text}' is not a finite number")
        return Node(value, self.file, line)

    def _complain(self, line: int, path: str, message: str, expected: str | None = None) -> Node:
        self.problems.append(Problem(self.file, line, path, message, expected))
        return Node(None, self.file, line)


def plain(node: Node) -> Any:
    """The tree as dicts, lists and scalars, as written."""
    if isinstance(node.value, dict):
        return {key: plain(entry) for key, entry in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value


# What PyYAML says -> what is wrong and what would be right.
_SYNTAX = (
    ("found character '\\t'", "a tab in the indentation", "spaces"),
    ("mapping values are not allowed here", "a ':' where no key can stand", "quotes around text that holds ': '"),
    ("could not find expected ':'", "a key without ':'", "'key: value'"),
    ("expected <block end>, but found", "the indentation doesn't match the lines above", None),
    ("expected ',' or", "a bracket is not closed, or a comma is missing", None),
    ("found unexpected end of stream", "a quote or bracket is not closed", None),
    ("but found another document", "a second document ('---') in the file", "one document per file"),
    ("found undefined alias", "an alias ('*name') without its anchor ('&name')", None),
    ("found duplicate anchor", "an anchor ('&name') is defined twice", None),
)
_REPORTED_WHERE_BEGUN = ("could not find expected ':'", "expected ',' or", "found unexpected end of stream")


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    said = error.problem or error.context or "not YAML"
    line = mark.line + 1 if mark is not None else None
    lines = text.splitlines()
    if line is not None and line <= len(lines) and re.match(r" *\t", lines[line - 1]):
        return Problem(file, line, "", "a tab in the indentation", "spaces")
    for marker, message, expected in _SYNTAX:
        if marker in said:
            # An unclosed bracket or quote is reported where it opened, not where the reader gave up.
            begun = error.context_mark if marker in _REPORTED_WHERE_BEGUN else None
            return Problem(file, begun.line + 1 if begun is not None else line, "", message, expected)
    return Problem(file, line, "", f"not valid YAML: {said}")


def _short_tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _missing_file(path: Path) -> UserError:
    folder = path.parent
    if not folder.is_dir():
        return UserError(f"{path} does not exist: there is no folder {folder}")
    names = {entry.stem: entry.name for entry in sorted(folder.iterdir()) if entry.suffix in (".yaml", ".yml")}
    nearest = nearest_name(path.stem, names)
    return UserError(f"{path} does not exist", nearest=names[nearest] if nearest else None)


class _StrictDumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or the strict loader would read as something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own name)
        first: [
            *_StrictLoader.yaml_implicit_resolvers.get(first, []),
            *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
        ]
        for first in {*_StrictLoader.yaml_implicit_resolvers, *yaml.SafeDumper.yaml_implicit_resolvers}
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump_yaml(data: Any) -> str:
    """Dicts, lists and scalars as YAML that reads back, here and in any YAML 1.1 reader, to the same."""
    text: str = yaml.dump(data, Dumper=_StrictDumper, sort_keys=False, allow_unicode=True, width=100)
    if any(separator in text for separator in "\x85\u2028\u2029"):  # line breaks to YAML, which it writes unescaped
        text = yaml.dump(data, Dumper=_StrictDumper, sort_keys=False, allow_unicode=False, width=100)
    return text

"""What a spec's annotations accept, in words and by key; used to inline presets and to explain errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from archsim.config.errors import listed
from archsim.config.quantities import Parsed
from archsim.config.schema import Spec

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "nothing",
}


def field_annotation(field: FieldInfo) -> Any:
    """A field's annotation with its metadata, as it was written."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def alternatives(annotation: Any) -> list[Any]:
    """The members of a union, aliases and plain Annotated peeled off; [annotation] for anything else.

    An Annotated that carries its own parser (a quantity) stays whole: it is one alternative.
    """
    annotation = getattr(annotation, "__value__", annotation)
    if get_origin(annotation) is Annotated:
        if parser_of(annotation) is not None:
            return [annotation]
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [member for part in get_args(annotation) for member in alternatives(part)]
    return [annotation]


def parser_of(annotation: Any) -> Parsed | None:
    """The parser that an annotation such as ByteCount carries."""
    if get_origin(annotation) is not Annotated:
        return None
    return next((item for item in get_args(annotation)[1:] if isinstance(item, Parsed)), None)


def spec_classes(annotation: Any) -> list[type[Spec]]:
    """The specs among the alternatives."""
    return [member for member in alternatives(annotation) if isinstance(member, type) and issubclass(member, Spec)]


def accepts_text(annotation: Any) -> bool:
    """Whether some alternative may be written as a text."""
    return any(_takes_text(member) for member in alternatives(annotation))


def _takes_text(member: Any) -> bool:
    if parser_of(member) is not None or member is str or member is Any:
        return True
    if get_origin(member) is Literal:
        return any(isinstance(choice, str) for choice in get_args(member))
    return isinstance(member, type) and not issubclass(member, Spec | int | float | NoneType)


def choices(annotation: Any) -> list[str]:
    """The names that may be written: of literals and enums."""
    names: list[str] = []
    for member in alternatives(annotation):
        if get_origin(member) is Literal:
            names += [str(choice) for choice in get_args(member)]
        elif isinstance(member, type) and issubclass(member, Enum):
            names += [str(choice.value) for choice in member]
    return names


def spec_for(annotation: Any, data: Any) -> type[Spec] | None:
    """The spec that a mapping is meant as: the only one, or the one whose literal fields match ("kind")."""
    classes = spec_classes(annotation)
    if len(classes) <= 1 or not isinstance(data, Mapping):
        return classes[0] if len(classes) == 1 else None
    return next((cls for cls in classes if _tags_match(cls, data)), None)


def _tags_match(cls: type[Spec], data: Mapping[str, Any]) -> bool:
    tags = {
        name: get_args(field.annotation)
        for name, field in cls.model_fields.items()
        if get_origin(field.annotation) is Literal
    }
    return any(data.get(name, cls.model_fields[name].default) in values for name, values in tags.items())


def inner(annotation: Any, key: str | int, data: Any) -> Any:
    """The annotation of `data[key]` where `data` is annotated with `annotation`; None if not known."""
    spec = spec_for(annotation, data)
    if spec is not None and isinstance(key, str):
        for name, field in spec.model_fields.items():
            if key in (name, field.alias):
                return field_annotation(field)
        return None
    for member in alternatives(annotation):
        origin, args = get_origin(member), get_args(member)
        if origin is None or not isinstance(origin, type) or not args:
            continue
        if isinstance(key, str) and issubclass(origin, Mapping):
            return args[1]
        if isinstance(key, int) and issubclass(origin, tuple) and args[-1] is not Ellipsis:
            return args[key] if key < len(args) else None
        if isinstance(key, int) and issubclass(origin, Sequence | Set):
            return args[0]
    return None


def keys_of(spec: type[Spec]) -> list[str]:
    """The keys a spec takes of its own, as they are written."""
    names = [field.alias or name for name, field in spec.model_fields.items()]
    return [name for name in names if name not in ("source", "uncertainty")]


def in_words(annotation: Any) -> str | None:
    """What may be written: "a size in bytes such as '16 GiB' or one of auto, none"; None if there are no words."""
    members = [member for member in alternatives(annotation) if member is not NoneType]
    words = [word for member in members if (word := _member_in_words(member))]
    return " or ".join(dict.fromkeys(words)) or None


def _member_in_words(member: Any) -> str | None:
    parser = parser_of(member)
    if parser is not None:
        return parser.expected
    if member in _WORDS:
        return _WORDS[member]
    if names := choices(member):
        return listed(names, limit=30)
    if isinstance(member, type) and issubclass(member, Spec):
        keys = listed(keys_of(member), limit=8)
        return f"a mapping with {keys.replace('one of ', 'keys such as ')}" if keys else "a mapping"
    origin = get_origin(member) or member
    if not isinstance(origin, type):
        return None
    if issubclass(origin, Mapping):
        return "a mapping"
    return "a list" if issubclass(origin, Sequence | Set) and origin is not str else None

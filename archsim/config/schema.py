"""The base of every spec: frozen, strict, and each number may say where it comes from.

    stacks: 6
    pin_rate: {value: 6.4 Gb/s, source: "JESD238A table 3", uncertainty: "5%"}

Three keys mean the same in every spec: `source` and `uncertainty` (where its numbers come from and how sure
they are) and `base` (the preset it inherits from; used up by the loader). A spec may not redefine `base`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema

SOURCED_KEYS = frozenset({"value", "source", "uncertainty"})
RESERVED_KEYS = frozenset({"base"})


def _make_scalars_strict(schema: Any) -> None:
    if isinstance(schema, dict):
        if schema.get("type") in ("int", "float", "bool"):
            schema.setdefault("strict", True)
        for key, part in schema.items():
            if key not in ("metadata", "default", "cls", "function"):
                _make_scalars_strict(part)
    elif isinstance(schema, list | tuple):
        for part in schema:
            _make_scalars_strict(part)


class Spec(BaseModel):
    """A part of what a user writes. Unknown keys are errors, and so are texts where numbers are due.

    `kind_in_words` is what messages call a spec that presets are written of: "a flash memory"."""

    kind_in_words: ClassVar[str] = ""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    source: str | None = None
    uncertainty: str | float | None = None

    @model_validator(mode="before")
    @classmethod
    def _unwrap_sourced_values(cls, data: Any) -> Any:
        return unwrap_sourced(data)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Pydantic would read "5" as 5 and "yes" as true; a spec means what it says. Only these three
        # scalars are strict: lists may still fill tuples and names may still fill enums.
        schema = handler(source)
        _make_scalars_strict(schema)
        return schema

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        taken = RESERVED_KEYS & cls.model_fields.keys()
        if taken:
            raise TypeError(f"{cls.__name__} defines the reserved key {', '.join(sorted(taken))}")


def is_sourced(data: Any) -> bool:
    """Whether `data` is a scalar with its source: {value: X, source: S[, uncertainty: U]}."""
    return (
        isinstance(data, Mapping)
        and "value" in data
        and len(data) > 1
        and data.keys() <= SOURCED_KEYS
        and not isinstance(data["value"], Mapping | list)
    )


def unwrap_sourced(data: Any) -> Any:
    """`data` with every {value: X, source: S} inside it, at any depth, replaced by X."""
    if is_sourced(data):
        return data["value"]
    if isinstance(data, Mapping):
        return {key: unwrap_sourced(value) for key, value in data.items()}
    if isinstance(data, list):
        return [unwrap_sourced(value) for value in data]
    return data

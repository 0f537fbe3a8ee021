"""`archsim schema`: the JSON schema of spec files, for completion and checks in editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from archsim.config.schema import Spec

_TEXT = {"type": "string", "minLength": 1}
_BASE = {"type": "string", "description": "Name or relative path of the preset to inherit from."}
_PRESET = {"type": "string", "description": "Name or relative path of a preset."}


def json_schema(models: Mapping[str, type[Spec]]) -> dict[str, Any]:
    """One JSON schema (draft 2020-12) for the files of all kinds; `kind:` selects the model.

    A scalar is accepted bare or as {value, source, uncertainty}; every mapping of a spec may have a `base:`, and
    then its required keys may come from there. Those of a mapping inside another may come from the base of that one, so
    they are asked for at the top of a file alone.
    """
    keys, generated = models_json_schema([(model, "validation") for model in models.values()], by_alias=True)
    written = generated.get("$defs", {})
    specs = {f"#/$defs/{name}" for name, schema in written.items() if "properties" in schema}
    root_refs = {kind: keys[(model, "validation")] for kind, model in models.items()}
    roots = {ref["$ref"] for ref in root_refs.values()}
    definitions = {
        name: _definition(schema, specs, root=f"#/$defs/{name}" in roots) for name, schema in written.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "archsim spec file",
        "type": "object",
        "properties": {"kind": {"enum": sorted(models)}, "base": _BASE},
        "anyOf": [{"required": ["kind"]}, {"required": ["base"]}],
        "allOf": [
            {"if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]}, "then": root_refs[kind]}
            for kind in sorted(models)
        ],
        "$defs": definitions,
    }


def _definition(schema: dict[str, Any], specs: set[str], *, root: bool) -> dict[str, Any]:
    """A model's schema as the loader reads it; enums and the like pass through."""
    if "properties" not in schema:
        return schema
    properties = {
        name: part if name in ("source", "uncertainty") else _accept_source(part, specs)
        for name, part in schema["properties"].items()
    }
    changed = {**schema, "properties": {**properties, "base": _BASE}}
    required = changed.pop("required", [])
    if required and root:
        changed["anyOf"] = [{"required": ["base"]}, {"required": required}]
    return changed


def _accept_source(schema: Any, specs: set[str]) -> Any:
    """The schema with every scalar in it, at any depth, also accepted with its source."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"anyOf": [schema, _PRESET]} if schema["$ref"] in specs else _with_source(schema)
    if "oneOf" in schema:  # a discriminated union of specs
        return {"anyOf": [schema, _PRESET]}
    if "anyOf" in schema:
        return {**schema, "anyOf": [_accept_source(part, specs) for part in schema["anyOf"]]}
    inside = {
        key: _accept_source(schema[key], specs)
        for key in ("items", "additionalProperties")
        if isinstance(schema.get(key), dict)
    }
    if "prefixItems" in schema:
        inside["prefixItems"] = [_accept_source(part, specs) for part in schema["prefixItems"]]
    if inside or schema.get("type") in ("array", "object", "null"):
        return {**schema, **inside}
    return _with_source(schema)


def _with_source(schema: dict[str, Any]) -> dict[str, Any]:
    notes: dict[str, Any] = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    bare = {key: value for key, value in schema.items() if key not in notes}
    sourced = {
        "type": "object",
        "properties": {"value": bare, "source": _TEXT, "uncertainty": {"type": ["string", "number"]}},
        "required": ["value"],
        "minProperties": 2,
        "additionalProperties": False,
    }
    return {**notes, "anyOf": [bare, sourced]}

"""Models by name: the shipped shapes, or any Hugging Face config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from archsim.config.errors import UserError, nearest_name
from archsim.workload.families import model_from_config
from archsim.workload.model import FfnActivation, MlaShape, ModelShape, MoeShape, NormKind

__all__ = ["FfnActivation", "MlaShape", "ModelShape", "MoeShape", "NormKind", "load_model", "shipped_models"]


def _models_folder() -> Path:
    from archsim.config.presets import data_root

    return data_root() / "workloads" / "models"


def shipped_models() -> tuple[str, ...]:
    """Names `load_model` knows without a path, sorted."""
    return tuple(sorted(path.parent.name for path in _models_folder().glob("*/config.json")))


def load_model(name_or_path: str | Path) -> ModelShape:
    """A shipped model by name ("llama-3-70b"), or a config.json file, or a folder that holds one.

    Raises UserError naming the file and the key if it is missing, no JSON, of an unknown architecture, or has
    a missing, zero, negative or fractional size."""
    file = _locate(name_or_path)
    name = file.parent.name if file.name == "config.json" else file.stem
    return model_from_config(_read(file), name or "model", file)


def _locate(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.is_dir() and (path / "config.json").is_file():
        return (path / "config.json").resolve()
    if path.is_file():
        return path.resolve()
    shipped = _models_folder() / str(name_or_path) / "config.json"
    if str(name_or_path) in shipped_models():
        return shipped
    if path.suffix == ".json" or len(path.parts) > 1:
        raise UserError(f"{path}: no such model file")
    names = shipped_models()
    raise UserError(
        f"unknown model {str(name_or_path)!r}",
        expected=f"a path to a config.json or one of {', '.join(names)}",
        nearest=nearest_name(str(name_or_path), names, cutoff=0.5),
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{file}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nesting without end
        raise UserError(f"{file}: not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected a JSON object of model sizes")
    return values

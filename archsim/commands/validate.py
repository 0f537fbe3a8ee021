"""`archsim validate`: read spec files and say what is wrong with them, all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archsim.config.errors import Problem, SpecError, UserError, listed, nearest_name, show
from archsim.config.explain import MISSING
from archsim.config.loading import load_spec, read_tree
from archsim.config.schema import Spec
from archsim.config.yamltree import Node, plain


@dataclass(frozen=True)
class FileReport:
    """One file's verdict; `kind` is None if it could not be read that far."""

    file: Path
    kind: str | None
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        return f"{self.file}: ok ({self.kind})" if self.ok else "\n".join(str(problem) for problem in self.problems)


@dataclass(frozen=True)
class ValidationReport:
    """The verdicts of all files, in the order given."""

    files: tuple[FileReport, ...]

    @property
    def ok(self) -> bool:
        return all(report.ok for report in self.files)

    @property
    def exit_code(self) -> int:
        """0 if every file is valid, else 2."""
        return 0 if self.ok else 2

    def __str__(self) -> str:
        return "\n".join(str(report) for report in self.files)

    def as_dict(self) -> dict[str, Any]:
        """The same facts for `--json`."""
        return {
            "ok": self.ok,
            "files": [
                {
                    "file": str(report.file),
                    "kind": report.kind,
                    "ok": report.ok,
                    "problems": [problem.as_dict() for problem in report.problems],
                }
                for report in self.files
            ],
        }


def validate_files(
    paths: Iterable[Path], models: Mapping[str, type[Spec]], search: tuple[Path, ...] = ()
) -> ValidationReport:
    """Validate each file against the model that its `kind:` names in `models`. Never raises for what a file holds."""
    return ValidationReport(tuple(_validate(Path(path), models, search) for path in paths))


def _validate(path: Path, models: Mapping[str, type[Spec]], search: tuple[Path, ...]) -> FileReport:
    kind: str | None = None
    try:
        tree = read_tree(path, search)
        entry = tree.entries.get("kind", Node(None, tree.file, None))
        kind = entry.value if isinstance(entry.value, str) else None
        load_spec(path, _model_of(entry, models), search=search)
    except SpecError as error:
        return FileReport(path, kind, tuple(error.problems))
    except UserError as error:
        return FileReport(path, kind, (Problem(str(path), None, "", error.message, error.expected, error.nearest),))
    return FileReport(path, kind, ())


def _model_of(entry: Node, models: Mapping[str, type[Spec]]) -> type[Spec]:
    kind = plain(entry)
    if isinstance(kind, str) and kind in models:
        return models[kind]
    message = MISSING if kind is None else f"got {show(kind)}"
    nearest = nearest_name(kind, models) if isinstance(kind, str) else None
    raise SpecError([Problem(entry.file, entry.line, "kind", message, listed(sorted(models)), nearest)])

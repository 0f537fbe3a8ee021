"""The pages of the reference that follow from the code: metrics, spec files, presets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from archsim.cli import app
from archsim.commands.kinds import KINDS
from archsim.config.annotations import field_annotation, in_words, spec_classes
from archsim.config.schema import Spec
from archsim.metrics import METRICS


def write_reference(folder: Path) -> None:
    """Write the generated pages into `folder`."""
    folder.mkdir(parents=True)
    (folder / "cli.md").write_text(cli_page(), encoding="utf-8")
    (folder / "metrics.md").write_text(metrics_page(), encoding="utf-8")
    (folder / "specs.md").write_text(specs_page(), encoding="utf-8")


def cli_page() -> str:
    """Every command and flag, from the command line itself."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="archsim")
    return get_docs_for_click(obj=command, ctx=context, name="archsim", title="The command line")


def metrics_page() -> str:
    """The metric table."""
    rows = [
        f"| `{row.name}` | {row.unit} | {row.better} | {row.formula} | {row.tolerance or 'exact'} |" for row in METRICS
    ]
    return "\n".join(
        [
            "# Metrics",
            "",
            "What a run reports. `{phase}` stands for the name of a phase: `prefill`, `decode`, or `iterations` when "
            "requests are served. `archsim check` compares two values within the tolerance, which is relative.",
            "",
            "| name | unit | better | formula | tolerance |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def specs_page() -> str:
    """Every key of every spec file, in the order in which they nest."""
    lines = [
        "# Spec files",
        "",
        "Every key that a YAML file takes, from the models that read it. Any number may be written "
        "`{value: X, source: S, uncertainty: U}`; any mapping may have a `base:` to inherit from. `archsim schema` "
        "prints the same as JSON schema.",
        "",
    ]
    seen: set[type[Spec]] = set()
    for kind, model in sorted(KINDS.items()):
        lines += [f"## {kind}", ""]
        for spec in nested(model, seen):
            lines += spec_section(spec)
    return "\n".join(lines) + "\n"


def nested(spec: type[Spec], seen: set[type[Spec]]) -> Iterator[type[Spec]]:
    """`spec` and the specs inside it, each once."""
    if spec in seen:
        return
    seen.add(spec)
    yield spec
    for field in spec.model_fields.values():
        for annotation in _parts(field_annotation(field)):
            for inner in spec_classes(annotation):
                yield from nested(inner, seen)


def _parts(annotation: object) -> Iterator[object]:
    yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _parts(part)


def spec_section(spec: type[Spec]) -> list[str]:
    """A heading, what the spec is, and a row for each of its keys."""
    lines = [f"### {spec.__name__}", "", " ".join((spec.__doc__ or "").split()), ""]
    lines += ["| key | takes | default | meaning |", "|---|---|---|---|"]
    for name, field in spec.model_fields.items():
        if name in ("source", "uncertainty"):
            continue
        takes = in_words(field_annotation(field)) or ", ".join(
            f"a {inner.__name__}" for inner in spec_classes(field_annotation(field))
        )
        default = "required" if field.is_required() else written(field.get_default(call_default_factory=True))
        cells = (f"`{field.alias or name}`", takes or "", default, field.description or "")
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return [*lines, ""]


def written(default: object) -> str:
    """A default as YAML says it; a part that is there by itself (a spec with defaults only) has none to show."""
    if default is None or default in ("", ()) or isinstance(default, Spec):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"

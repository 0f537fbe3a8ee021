"""`validate` reports every file by its kind; the JSON schema accepts what the loader accepts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from archsim.commands.schema import json_schema
from archsim.commands.validate import validate_files
from archsim.config.schema import Spec
from archsim.config.units import ByteCount, Fraction01, PositiveInt, TimeFs


class Policy(StrEnum):
    OPEN = "open"
    CLOSED = "closed"


class Buffer(Spec):
    capacity: ByteCount
    latency: TimeFs = 0
    efficiency: Fraction01 = 1.0


class Memory(Spec):
    kind: Literal["memory"]
    stacks: PositiveInt
    buffer: Buffer
    policy: Policy = Policy.OPEN
    sizes: tuple[ByteCount, ...] = ()


class Model(Spec):
    kind: Literal["model"]
    layers: PositiveInt


MODELS: dict[str, type[Spec]] = {"memory": Memory, "model": Model}

GOOD = """\
kind: memory
stacks: {value: 6, source: data sheet}
buffer: {capacity: 64 MiB, latency: {value: 5 ns, source: paper, uncertainty: "10%"}, efficiency: 87%}
policy: closed
sizes: [1 GB, {value: 2 GiB, source: paper}]
"""


def test_every_file_gets_a_verdict(tmp_path: Path) -> None:
    texts = {
        "good": GOOD,
        "child": "base: good\nstacks: 8\n",
        "wrong": "kind: model\nlayers: 0\nlayrs: 3\n",
        "unknown": "kind: modle\n",
        "kindless": "layers: 3\n",
        "broken": "kind: [\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    report = validate_files([tmp_path / f"{name}.yaml" for name in [*texts, "absent"]], MODELS)
    verdicts = {
        entry.file.stem: (entry.kind, [str(problem.nearest) for problem in entry.problems]) for entry in report.files
    }
    assert verdicts == {
        "good": ("memory", []),
        "child": ("memory", []),
        "wrong": ("model", ["None", "layers"]),
        "unknown": ("modle", ["model"]),
        "kindless": (None, ["None"]),
        "broken": (None, ["None"]),
        "absent": (None, ["None"]),
    }
    assert not report.ok and report.exit_code == 2
    assert f"{tmp_path / 'good.yaml'}: ok (memory)" in str(report)
    assert report.as_dict()["files"][2]["problems"][0]["line"] == 2
    assert validate_files([tmp_path / "good.yaml"], MODELS).exit_code == 0


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        (GOOD, True),
        ("base: good\nkind: memory\nstacks: 8\n", True),
        ("base: good\n", True),
        (GOOD.replace("buffer: {", "buffer: {base: other, "), True),
        ("kind: memory\nstacks: 6\nbuffer: big\n", True),
        (GOOD.replace("64 MiB", "64 MiBs"), False),
        (GOOD.replace("64 MiB", "64"), False),
        (GOOD.replace("stacks:", "stakcs:"), False),
        (GOOD.replace("closed", "shut"), False),
        (GOOD.replace("source: data sheet", "sorce: data sheet"), False),
        ("kind: memory\nstacks: 6\n", False),
        ("kind: modle\n", False),
        ("stacks: 6\n", False),
    ],
)
def test_the_schema_accepts_what_the_loader_accepts(text: str, valid: bool) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema: dict[str, Any] = json_schema(MODELS)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert jsonschema.Draft202012Validator(schema).is_valid(yaml.safe_load(text)) is valid


def test_the_schema_shows_examples() -> None:
    capacity = json_schema(MODELS)["$defs"]["Buffer"]["properties"]["capacity"]
    assert capacity["anyOf"][0]["examples"] == ["16 GiB"]

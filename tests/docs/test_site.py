"""`make docs`: the site builds without a warning, and the generated reference has what the code has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from archsim.commands.kinds import KINDS
from archsim.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx", reason="sphinx is not installed")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run([*command, str(ROOT / "docs"), str(out)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return out


def test_every_metric_and_every_key_is_in_the_reference(site: Path) -> None:
    metrics = (site / "_generated" / "metrics.html").read_text()
    assert all(row.name in metrics for row in METRICS)
    specs = (site / "_generated" / "specs.html").read_text()
    for model in KINDS.values():
        assert model.__name__ in specs
        keys = {field.alias or name for name, field in model.model_fields.items()} - {"source", "uncertainty"}
        assert all(f">{key}<" in specs for key in keys)


def test_every_page_of_the_documentation_is_reachable(site: Path) -> None:
    index = (site / "index.html").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem == "index" or f'href="{page.stem}.html"' in index, f"{page.name} is in no toctree of index.md"

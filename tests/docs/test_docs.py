"""What the documentation shows works: its files, its Python and its `archsim` commands, in the order of the page.

Blocks are understood by the line that opens them:

    ```yaml file=NAME       a file that later blocks use
    ```python               executed, all of a page in one namespace
    ```console              lines that start with `$ archsim` are executed; `exit=2` after it: with that exit code

A page runs in a folder that looks like the repository's root, so that what it writes goes elsewhere.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = ("archsim", "benchmarks", "docs", "experiments", "hwconfigs", "traces", "workloads")
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
ELISION = "..."


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what stands behind it ({"exit": "2"}), its text and the line it begins in."""

    language: str
    options: dict[str, str]
    text: str
    line: int


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        options = dict(word.split("=", 1) for word in found[2].split())
        yield Block(found[1], options, found[3], text.count("\n", 0, found.start()) + 1)


@pytest.fixture
def like_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with links to what the repository's root has."""
    for name in SHOWN:
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("COLUMNS", "300")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page: Path, like_root: Path) -> None:
    namespace: dict[str, object] = {"__name__": "example"}
    for block in blocks_of(page):
        if block.language == "python":
            # Empty lines in front, so that an error names the page's own line.
            exec(compile("\n" * block.line + block.text, str(page), "exec"), namespace)
        elif block.language == "console":
            run_console(block)
        elif "file" in block.options:
            (like_root / block.options["file"]).write_text(block.text, encoding="utf-8")


def run_console(block: Block) -> None:
    """Run each `$ archsim` line. What stands below it is in its output, of each line what is before an ellipsis."""
    expected = int(block.options.get("exit", 0))
    for command, shown in commands_of(block.text):
        words = shlex.split(command)
        words[0] = str(Path(sys.executable).with_name("archsim"))
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert done.returncode == expected, f"line {block.line}: {command}\n{done.stdout}{done.stderr}"
        for line in shown:
            assert line.split(ELISION)[0] in done.stdout + done.stderr, (
                f"line {block.line}: {command} prints no '{line}'"
            )


def commands_of(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each command with the lines of output that are shown below it."""
    command, shown = "", []
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line.removeprefix("$ "), []
        elif line:
            shown.append(line)
    if command:
        assert command.startswith("archsim "), f"only archsim runs in a console block, not '{command}'"
        yield command, shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"

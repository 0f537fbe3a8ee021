"""`archsim` commands within the test's own process: what they print and write, without a start of Python for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from archsim.cli import app
from archsim.sweep.executors import Finished
from archsim.sweep.task import Task, simulate_point


class Outcome(NamedTuple):
    """How a command exited, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def stat(self, name: str) -> float:
        """A statistic of a replay's JSON."""
        value: float = self.json["stats"][name]["value"]
        return value


class Here:
    """An executor that simulates in this very process: the files of a sweep without workers to start."""

    def workers(self) -> Sequence[str]:
        return ["here"]

    def submit(self, worker: str, task: Task, finished: Finished) -> None:
        finished(worker, task, simulate_point(task))

    def close(self, *, at_once: bool) -> None:
        pass


def simulate_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps, searches and elasticities start no workers from now on."""
    for name in ("archsim.sweep.run", "archsim.sweep.search"):
        monkeypatch.setattr(import_module(name), "executor_for", lambda *_: Here())


def command(*words: str | Path, cwd: Path, expect: int = 0) -> tuple[str, str]:
    """What `archsim WORDS` in a folder writes to stdout and stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == expect, done.output
    return done.stdout, done.stderr

"""Where results land: one file per finished point, replaced in one step, so that nothing is ever half-written.

    DIR/points/<key>.json       a finished point, whichever sweep it belongs to
    DIR/tables/<sweep>.parquet  the table of each sweep that ran here
    DIR/results.parquet         the table of the sweep that ended last
    DIR/runs/<key>/             run directories, if they are kept

A point's file doesn't depend on the sweep: sweeps in one directory share points, and a sweep with more values finds
those it has in common with an earlier one. Two that write the same point write the same content.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from archsim.config.errors import UserError
from archsim.metrics import Metric

STALE_SECONDS = 60.0
"""A temporary file lives for milliseconds; one this old was left by a process that was killed."""


class Status(StrEnum):
    """How a point ended: with metrics, refused (the same each time), or by a crash (worth another try)."""

    OK = "ok"
    FAILED = "failed"
    CRASHED = "crashed"


@dataclass(frozen=True)
class Outcome:
    """What became of a point. `wall_seconds` is the simulation's time; it is in no table."""

    key: str
    status: Status
    error: str = ""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    wall_seconds: float = 0.0


class Store:
    """The directory of a sweep. Raises UserError if it can't be written, or holds something else."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.runs = self.directory / "runs"
        self._points = self.directory / "points"
        self._tables = self.directory / "tables"
        _refuse_what_is_no_sweep(self.directory)
        with _explained(self.directory):
            for folder in (self._points, self._tables):
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._points):
                pass
            self._sweep_up()

    def get(self, key: str) -> Outcome | None:
        """The outcome of a finished point; None if there is none, it can't be read, or it is worth another try."""
        try:
            content = json.loads((self._points / f"{key}.json").read_text(encoding="utf-8"))
            metrics = {name: Metric(**metric) for name, metric in content.pop("metrics").items()}
            outcome = Outcome(**{**content, "status": Status(content["status"]), "metrics": metrics})
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return outcome if outcome.status is not Status.CRASHED else None

    def put(self, outcome: Outcome) -> None:
        """Keep an outcome."""
        text = json.dumps(asdict(outcome), sort_keys=True, allow_nan=False)
        with _explained(self.directory):
            _replace(self._points / f"{outcome.key}.json", text.encode())

    def write_tables(self, name: str, content: bytes) -> Path:
        """Keep a sweep's table under its name and as `results.parquet`; the path of the latter."""
        latest = self.directory / "results.parquet"
        with _explained(self.directory), self._locked():
            _replace(self._tables / f"{name}.parquet", content)
            _replace(latest, content)
        return latest

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Both tables at once: another sweep that ends at the same moment waits."""
        with (self._tables / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _sweep_up(self) -> None:
        now = time.time()
        for folder in (self.directory, self._points, self._tables):
            for left in folder.glob(".*.tmp"):
                with suppress(FileNotFoundError):
                    if now - left.stat().st_mtime > STALE_SECONDS:
                        left.unlink()


def _replace(path: Path, content: bytes) -> None:
    """Write a file in one step: whoever looks finds the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _refuse_what_is_no_sweep(directory: Path) -> None:
    if directory.is_file():
        raise UserError(f"cannot write a sweep to {directory}: it is a file; choose another --out directory")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / "points").is_dir():
        raise UserError(
            f"{directory} holds files that are not a sweep (no points/) and is left alone; "
            "choose an empty or new --out directory"
        )


@contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = f"choose another directory with --out or make {directory.parent} writable"
        raise UserError(f"cannot write a sweep to {directory}: {reason}; {advice}") from error

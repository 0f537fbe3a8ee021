"""How far a sweep is: rate, time left and the best so far, as a live bar or, where there is no terminal, as lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_SECONDS = 15.0
SHOWN_SECONDS = 0.25


class SweepProgress:
    """Told of every finished point. `shown` False: says nothing."""

    def __init__(self, total: int, best: Callable[[], str], *, shown: bool) -> None:
        """`best` says what the best point so far is; nothing if there is none."""
        self._total, self._best = total, best
        self._shown = shown
        self._bar = _bar() if shown and sys.stderr.isatty() else None
        self._task = self._bar.add_task("starting", total=total) if self._bar else None
        self._started = self._last = time.monotonic()
        self.simulated = self.reused = self.failed = 0

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def start(self) -> None:
        """The workers are ready: the rate counts from now."""
        self._started = time.monotonic()
        self.show()

    def finished(self, *, reused: bool, failed: bool) -> None:
        """One more point is done."""
        self.simulated += not reused
        self.reused += reused
        self.failed += failed
        self.show()

    def show(self, *, at_last: bool = False) -> None:
        """Say how far it is, if it is time to."""
        now = time.monotonic()
        due = SHOWN_SECONDS if self._bar else LINE_SECONDS
        if not self._shown or (now - self._last < due and not at_last):
            return
        self._last = now
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self._done, description=self.in_words())
        else:
            print(f"{self._done}/{self._total} points, {self.in_words()}", file=sys.stderr, flush=True)

    @property
    def _done(self) -> int:
        return self.simulated + self.reused

    def in_words(self) -> str:
        """ "4.1 points/s, 2:24 left, best decode.tpot 7.1 ms at workload.batch=1"."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = self.simulated / seconds
        parts = [f"{rate:.1f} points/s"]
        if rate and self._done < self._total:
            parts.append(f"{_clock((self._total - self._done) / rate)} left")
        if self.reused:
            parts.append(f"{self.reused} known before")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if best := self._best():
            parts.append(best)
        return ", ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    return Progress(*columns, console=Console(stderr=True), transient=True)

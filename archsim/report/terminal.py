"""What a run says in the terminal: two tables, and a progress bar for work that takes a while."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Timer
from typing import TYPE_CHECKING, Literal

from archsim.metrics import format_quantity
from archsim.records import CAUSES
from archsim.report import style
from archsim.report.series import phase_title
from archsim.results import PhaseSummary, RunResult

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

_PATIENCE_S = 2.0

_SERVING_ROWS = (
    ("requests", "requests"),
    ("time to first token, median", "ttft.p50"),
    ("time to first token, p99", "ttft.p99"),
    ("time per output token, median", "tpot.p50"),
    ("time per output token, p99", "tpot.p99"),
    ("output throughput", "throughput"),
    ("energy per output token", "energy_per_output_token"),
)


def print_run(run: RunResult, console: Console | None = None) -> None:
    """Print the headline of `run` and where its time goes."""
    from rich.console import Console as TerminalConsole
    from rich.markup import escape

    console = console or TerminalConsole()
    console.print()
    if "serving.requests" in run.metrics:
        console.print(serving_table(run))
    if run.summary.phases:
        console.print(headline_table(run))
        console.print(cause_table(run))
    where = escape(str(run.directory))
    console.print(f"Written to [bold]{where}[/bold]: open report.html, or timeline.json in ui.perfetto.dev")


def headline_table(run: RunResult) -> Table:
    """Time, bandwidth, utilisation, energy and bound of each phase, a column per phase."""
    rows = {
        "time to first token": _values(run, "ttft"),
        "time per output token": _values(run, "tpot"),
        "time": ["" if p.phase in ("prefill", "decode") else v for p, v in _paired(run, "latency")],
        "throughput": _values(run, "throughput"),
        f"{_memory(run)} bandwidth (device)": _values(run, "hbm.bandwidth"),
        "  of peak": [_of_peak(run, phase) for phase in run.summary.phases],
        "  row hits": _values(run, "hbm.row_hit_rate"),
        "matrix utilisation": _values(run, "matrix.utilisation"),
        "energy per token (all)": _values(run, "energy_per_token"),
        "power (device)": _values(run, "power"),
        "bound by": [f"{p.bound} ({100 * p.bound_share:.0f} % of time)" if p.bound else "" for p in run.summary.phases],
        "time / roofline time": _values(run, "roofline_ratio"),
    }
    table = _table(run.summary.name, [phase_title(phase) for phase in run.summary.phases])
    for label, values in (rows | _tier_rows(run) | _pim_rows(run)).items():
        if any(values):
            table.add_row(label, *values)
    return table


def _tier_rows(run: RunResult) -> dict[str, list[str]]:
    names = dict.fromkeys(tier.name for phase in run.summary.phases for tier in phase.tiers)
    rows = {}
    for name in names:
        rows[f"{name} bandwidth (device)"] = _values(run, f"tier.{name}.bandwidth")
        rows[f"  of {name}'s ceiling"] = _values(run, f"tier.{name}.utilisation")
    return rows


def _pim_rows(run: RunResult) -> dict[str, list[str]]:
    if all(phase.pim is None for phase in run.summary.phases):
        return {}
    return {
        "PIM at work (device)": _values(run, "pim.busy"),
        "  bandwidth at its units": _values(run, "pim.bandwidth"),
        "  of MACs back to back": _values(run, "pim.utilisation"),
        "  padding": _values(run, "pim.padding"),
    }


def cause_table(run: RunResult) -> Table:
    """The share of each phase's time by cause; causes that took none are left out."""
    phases = run.summary.phases
    table = _table("Where the time goes", [phase.phase for phase in phases], justify="left")
    for cause in CAUSES:
        metrics = [run.metrics.get(f"{phase.phase}.time.{cause}") for phase in phases]
        if any(metric and metric.value for metric in metrics):
            shown = [f"{metric!s:>7} {_bar(float(metric.value))}" if metric else "" for metric in metrics]
            table.add_row(f"[{style.CAUSE_COLOURS[cause]}]■[/] {style.cause_label(cause, _memory(run))}", *shown)
    return table


def serving_table(run: RunResult) -> Table:
    """What the requests saw."""
    table = _table("Requests", [f"in {run.metrics['serving.makespan']}" if "serving.makespan" in run.metrics else ""])
    for label, tail in _SERVING_ROWS:
        if metric := run.metrics.get(f"serving.{tail}"):
            table.add_row(label, str(metric))
    return table


def _table(title: str, columns: list[str], justify: Literal["left", "right"] = "right") -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    table = RichTable(title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(escape(column), justify=justify)
    return table


def _paired(run: RunResult, tail: str) -> list[tuple[PhaseSummary, str]]:
    return list(zip(run.summary.phases, _values(run, tail), strict=True))


def _values(run: RunResult, tail: str) -> list[str]:
    metrics = [run.metrics.get(f"{phase.phase}.{tail}") for phase in run.summary.phases]
    return ["" if metric is None else str(metric) for metric in metrics]


def _memory(run: RunResult) -> str:
    return next((phase.memory for phase in run.summary.phases), "HBM")


def _of_peak(run: RunResult, phase: PhaseSummary) -> str:
    used = run.metrics.get(f"{phase.phase}.hbm.utilisation")
    return f"{used} of {format_quantity(phase.peak_hbm_bytes_per_second, 'B/s')}" if used else ""


def _bar(share: float, width: int = 16) -> str:
    return ("█" * round(share * width)).ljust(width)


class ProgressHandle:
    """What the work tells the bar: how much there is and how much is done."""

    def __init__(self, progress: Progress | None, description: str, total: float | None) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total) if progress else None

    def advance(self, steps: float = 1) -> None:
        """So many more steps are done."""
        if self._progress and self._task is not None:
            self._progress.advance(self._task, steps)

    def update(
        self, completed: float | None = None, total: float | None = None, description: str | None = None
    ) -> None:
        """Set what is done, what there is, or what is going on."""
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=completed, total=total, description=description)


@contextmanager
def progress(
    description: str, *, total: float | None = None, enabled: bool = True, console: Console | None = None
) -> Iterator[ProgressHandle]:
    """A bar on stderr that appears once the work has lasted two seconds and vanishes when it is done.

    Nothing is shown if `enabled` is false (--json) or stderr is not a terminal.
    """
    if not enabled or (console is None and not sys.stderr.isatty()):
        yield ProgressHandle(None, description, total)
        return
    bar = _bar_on(console)
    finished, lock = Event(), Lock()

    def show() -> None:
        with lock:  # the work may end just as its patience does
            if not finished.is_set():
                bar.start()

    timer = Timer(_PATIENCE_S, show)
    timer.daemon = True
    timer.start()
    try:
        yield ProgressHandle(bar, description, total)
    finally:
        timer.cancel()
        with lock:
            finished.set()
            if bar.live.is_started:
                bar.stop()


def _bar_on(console: Console | None) -> Progress:
    from rich.console import Console as TerminalConsole
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console or TerminalConsole(stderr=True),
        transient=True,
    )

"""What `archsim sweep` prints when it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archsim.results import headline_names
from archsim.sweep.page import PAGE
from archsim.sweep.run import SweepResult
from archsim.sweep.store import Status

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from archsim.sweep.pareto import ParetoFront

SHOWN_POINTS = 5
SHOWN_METRICS = 3


def sweep_as_dict(result: SweepResult) -> dict[str, Any]:
    """What came out, for `--json`; the numbers themselves are in the table."""
    best = result.best
    found = None
    if best.index is not None and best.value is not None:
        values = dict(result.points[best.index].values)
        key = result.outcomes[best.index].key
        found = {
            "metric": best.metric,
            "value": best.value.value,
            "unit": best.value.unit,
            "point": key,
            "values": values,
        }
    return {
        "directory": str(result.directory),
        "table": str(result.file),
        "page": str(result.directory / PAGE),
        "points": len(result.points),
        **{str(status): result.count(status) for status in Status},
        "simulated": result.simulated,
        "wall_s": round(result.wall_seconds, 3),
        "best": found,
    }


def print_sweep(result: SweepResult, console: Console) -> None:
    """The best points, what failed, and where the table is."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    ranked = result.best.ranked(result.outcomes, SHOWN_POINTS)
    if ranked:
        axes = list(result.plan.space.columns)
        metrics = _metrics_shown(result, ranked[0])
        table = Table(title=f"Best by {result.best.metric}", title_justify="left", box=box.SIMPLE_HEAD)
        for name in axes:
            table.add_column(escape(name.rpartition(".")[2]), no_wrap=True)
        for name in metrics:
            table.add_column(escape(name), justify="right", no_wrap=True)
        for index in ranked:
            values, outcome = result.points[index].values, result.outcomes[index]
            shown = [_with_unit(values[name], result.plan.space.units.get(name)) for name in axes]
            table.add_row(*map(escape, shown), *(str(outcome.metrics.get(name, "")) for name in metrics))
        console.print(table)
    for status in (Status.FAILED, Status.CRASHED):
        if count := result.count(status):
            index, outcome = next((i, o) for i, o in result.outcomes.items() if o.status is status)
            which = "a point" if count == 1 else f"{count} points"
            first = "" if count == 1 else "; the first"
            console.print(f"{which} {status}{first}, {result.points[index]}: {outcome.error}", markup=False)
    rate = f", {result.simulated / result.wall_seconds:.1f} points/s" if result.simulated else ""
    known = len(result.outcomes) - result.simulated
    console.print(
        f"{len(result.outcomes)} point{'s' * (len(result.outcomes) != 1)} in {result.wall_seconds:.1f} s{rate}"
        + (f", {known} known before" if known else "")
    )
    console.print(f"Written to [bold]{escape(str(result.file))}[/bold] and {PAGE} beside it", soft_wrap=True)


def front_table(front: ParetoFront) -> Table:
    """The points on a front, for the terminal."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from archsim.sweep.frame import short_names

    table = Table(title="Pareto front", title_justify="left", box=box.SIMPLE_HEAD)
    short = short_names(front.frame.varied)
    for name in front.columns():
        is_axis = name in front.frame.varied
        table.add_column(escape(short.get(name, name)), justify="left" if is_axis else "right", no_wrap=True)
    for row in front.rows():
        table.add_row(*map(escape, row))
    return table


def _metrics_shown(result: SweepResult, index: int) -> list[str]:
    """The metric compared by, and the first headline metrics beside it."""
    metrics = result.outcomes[index].metrics
    phases = list(dict.fromkeys(name.partition(".")[0] for name in metrics))
    names = [name for name in (result.best.metric, *headline_names(metrics, phases)) if name is not None]
    return list(dict.fromkeys(names))[:SHOWN_METRICS]


def _with_unit(value: object, unit: str | None) -> str:
    if value is None:
        return ""
    return f"{value} {unit}" if unit else str(value)

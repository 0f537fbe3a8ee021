"""What `archsim search` prints when it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archsim.sweep.search import SearchResult
from archsim.sweep.store import Status

if TYPE_CHECKING:
    from rich.console import Console

SHOWN_TRIALS = 12


def search_as_dict(result: SearchResult) -> dict[str, Any]:
    """What came out, for `--json`; the numbers themselves are in the table."""
    objectives = result.plan.spec.goals()
    return {
        "directory": str(result.directory),
        "table": str(result.file),
        "trials": len(result.trials),
        **{str(status): result.count(status) for status in Status},
        "feasible": sum(trial.verdict.feasible for trial in result.trials),
        "simulated": result.simulated,
        "wall_s": round(result.wall_seconds, 3),
        "objectives": {objective.value: str(objective.resolved_direction()) for objective in objectives},
        "best": [
            {
                "trial": trial.number,
                "point": trial.key,
                "values": dict(trial.point.values),
                "objectives": dict(zip((one.value for one in objectives), trial.verdict.values, strict=True)),
            }
            for trial in result.trials
            if trial.number in result.best
        ],
    }


def print_search(result: SearchResult, console: Console, page: str | None = None) -> None:
    """The best trials, what failed, and where the table (and the page, by its name) is."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    objectives = [objective.value for objective in result.plan.spec.goals()]
    apart = {trial.key: trial for trial in reversed(result.trials) if trial.number in result.best}  # each point once
    front = sorted(apart.values(), key=lambda trial: trial.verdict.values)
    if front:
        title = "Pareto front" if len(objectives) > 1 else f"Best by {objectives[0]}"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("trial", justify="right")
        for name in result.plan.space.columns:
            table.add_column(escape(name.rpartition(".")[2]), no_wrap=True)
        for name in objectives:
            table.add_column(escape(name), justify="right", no_wrap=True)
        for trial in front[:SHOWN_TRIALS]:
            units = result.plan.space.units
            axes = [_with_unit(value, units.get(name)) for name, value in trial.point.values.items()]
            values = map(result.plan.shown, objectives, trial.verdict.values)
            table.add_row(str(trial.number), *map(escape, axes), *values)
        console.print(table)
        if len(front) > SHOWN_TRIALS:
            console.print(f"and {len(front) - SHOWN_TRIALS} more on the front")
    else:
        console.print("no trial keeps all constraints")
    for status in (Status.FAILED, Status.CRASHED):
        if count := result.count(status):
            first = next(trial for trial in result.trials if trial.status is status)
            console.print(f"{count} trials {status}; the first, {first.point}: {first.verdict.error}", markup=False)
    broken = sum(not trial.verdict.feasible and not trial.verdict.error for trial in result.trials)
    console.print(
        f"{len(result.trials)} trials in {result.wall_seconds:.1f} s, {result.simulated} points simulated"
        + (f", {broken} outside the constraints" if broken else "")
    )
    beside = f" and {page} beside it" if page else ""
    console.print(f"Written to [bold]{escape(str(result.file))}[/bold]{beside}", soft_wrap=True)


def _with_unit(value: object, unit: str | None) -> str:
    if value is None:
        return ""
    return f"{value} {unit}" if unit else str(value)

"""The pages of a sweep: one file each that works offline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from archsim.config.errors import UserError
from archsim.report import style
from archsim.report.look import embed, template
from archsim.sweep.frame import as_frame, short_names
from archsim.sweep.search_spec import Direction
from archsim.sweep.store import Status, write_whole
from archsim.sweep.table import HEADLINES

if TYPE_CHECKING:
    from archsim.sweep.elasticity import Elasticities
    from archsim.sweep.facts import Constraint as Limit
    from archsim.sweep.frame import SweepFrame
    from archsim.sweep.pareto import ParetoFront
    from archsim.sweep.search import SearchResult

PAGE = "sweep.html"
SEARCH_PAGE = "search.html"
ROWS = 200
"""How many points a table of a page shows; the parquet table has all."""
BESIDE = ("throughput", "hbm.utilisation", "energy_per_token", "power")
"""Metrics of a phase that the parallel coordinates show beside the objectives."""


def usual_objectives(frame: SweepFrame, best: str | None = None) -> list[str]:
    """What to compare points by if nothing is said: the time or rate, and the energy, of the same phase."""
    having = [name for name in frame.metrics if frame[name].notna().any()]
    first = best if best in having else next((name for name in HEADLINES if name in having), None)
    if first is None:
        return []
    phase = first.partition(".")[0]
    energies = [f"{phase}.energy_per_token", f"{phase}.energy_per_output_token"]
    rates = [name for name in HEADLINES if name.startswith(f"{phase}.")]
    # What raises the rate mostly saves energy too; what it costs is time.
    following = (*rates, *energies) if first.endswith("throughput") else (*energies, *rates)
    others = [name for name in following if name in having and name != first]
    return [first, *others[:1]]


def write_page(path: str | Path, found: ParetoFront) -> None:
    """Write a sweep's page with a front. Raises UserError if the file can't be written."""
    _write(Path(path), render(found.frame, found))


def write_sweep_page(path: str | Path, frame: SweepFrame, best: str | None = None) -> None:
    """Write a sweep's page with the usual objectives; without a front if no point has a result."""
    objectives = usual_objectives(frame, best)
    _write(Path(path), render(frame, frame.pareto(objectives) if objectives else None))


def write_search_page(path: str | Path, result: SearchResult) -> bool:
    """Write a search's page: its trials by its own objectives, those outside of its constraints apart. False, and no
    page, if no objective is a column of its table (an experiment's own value) or no trial has a result."""
    frame = as_frame(result.table, result.plan.name)
    directions = {Direction.MINIMIZE: "min", Direction.MAXIMIZE: "max"}
    objectives = [
        f"{goal.value}:{directions[goal.resolved_direction()]}"
        for goal in result.plan.spec.goals()
        if goal.value in frame.columns and frame[goal.value].notna().any()
    ]
    if not objectives:
        return False
    limits = result.plan.spec.limits()
    if not limits:
        _write(Path(path), render(frame, frame.pareto(objectives)))
    elif frame["feasible"].eq(True).any():
        frame["feasible"] = frame["feasible"].map({True: "yes", False: "no"})
        _write(Path(path), render(frame, _said(frame.pareto(objectives, ["feasible == yes"]), limits)))
    else:
        remark = f"No trial keeps {' and '.join(limit.text for limit in limits)}: here they take part all the same."
        _write(Path(path), render(frame, frame.pareto(objectives), remark))
    return True


def _said(found: ParetoFront, limits: Sequence[Limit]) -> ParetoFront:
    """The front with a search's own constraints in place of the trials' verdict."""
    (verdict,) = found.constraints
    first = found.objectives[0].column
    named = [next((name for name in sorted(limit.names) if name in found.frame.columns), first) for limit in limits]
    said = [replace(verdict, column=column, text=limit.text) for column, limit in zip(named, limits, strict=True)]
    return replace(found, constraints=tuple(said))


def write_elasticities(path: str | Path, found: Elasticities) -> None:
    """Write the page of elasticities. Raises UserError if the file can't be written."""
    from plotly.offline import get_plotlyjs

    from archsim.sweep import figures
    from archsim.sweep.elasticity import short_path

    text = template("elasticities.html.j2").render(
        title=found.name,
        found=found,
        bars=embed(figures.elasticity_bars(found), "elasticities"),
        short=short_path,
        colours=(figures.BETTER, figures.WORSE, figures.NEUTRAL),
        style=style,
        plotlyjs=get_plotlyjs(),
    )
    _write(Path(path), text)


def render(frame: SweepFrame, found: ParetoFront | None, remark: str = "") -> str:
    """A sweep's page as text, a remark above its figures; equal tables give equal text."""
    from plotly.offline import get_plotlyjs

    from archsim.sweep import figures

    failed = frame[frame["status"] != Status.OK]
    return template("sweep.html.j2").render(
        title=frame.name,
        points=len(frame),
        failures=len(failed),
        axes=frame.varied,
        short=short_names(frame.varied),
        found=found,
        remark=remark,
        drawn=int(figures.with_result(found).sum()) if found else 0,
        outside=int((figures.with_result(found) & ~found.considered).sum()) if found else 0,
        colours={"best": figures.BEST, "worst": figures.WORST, "outside": figures.OUTSIDE},
        pareto=embed(figures.pareto_plot(found), "pareto") if found else "",
        parallel=embed(figures.parallel_coordinates(found, _beside(found)), "parallel") if found else "",
        rows=found.rows()[:ROWS] if found else [],
        failed=[
            ([frame.shown(name, row[name]) for name in frame.varied], row["status"], row["error"])
            for _, row in failed.head(ROWS).iterrows()
        ],
        shown=ROWS,
        style=style,
        plotlyjs=get_plotlyjs(),
    )


def _beside(found: ParetoFront) -> list[str]:
    """Metrics that help to read the objectives: those of their phases."""
    phases = dict.fromkeys(objective.column.partition(".")[0] for objective in found.objectives)
    having = {name for name in found.frame.metrics if found.frame[name].notna().any()}
    return [name for phase in phases for tail in BESIDE if (name := f"{phase}.{tail}") in having]


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}", expected="a path that can be written") from None

"""Elasticities: by how many per cent each metric changes for each per cent of a hardware parameter.

    e = d ln(metric) / d ln(parameter), by the central difference (ln m+ - ln m-) / (ln p+ - ln p-)

-1 for TPOT and data rate: one per cent more of it is one per cent less time. 0: no matter. A power law m = c p^e has
exactly e, however large the step. Each side is a point of a sweep, simulated in full.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.config.dimensions import split_quantity
from archsim.config.errors import UserError, nearest_name
from archsim.config.inheritance import override_values
from archsim.experiment import LoadedExperiment, Overrides, experiment_file, load_experiment
from archsim.metrics import HIGHER, LOWER, Metric, definition_of
from archsim.sweep.parameters import Parameter, Skipped, find_parameters
from archsim.sweep.plan import Plan
from archsim.sweep.space import Point, Space
from archsim.sweep.store import Outcome, Status

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.table import Table

METRICS_SHOWN = (
    "serving.throughput", "serving.ttft.p99", "serving.energy_per_output_token",
    "decode.tpot", "decode.energy_per_token", "prefill.ttft", "prefill.energy_per_token",
)  # fmt: skip
"""What is looked at if nothing is named: those of these that a run has; the first is what the table is sorted by."""
STEP = "5%"
LARGEST_STEP = Fraction(1, 2)
SHOWN_FROM = 0.0005
"""Smaller elasticities are shown as about zero."""
KINK = 0.1
"""How far the elasticities of the two sides may lie apart before a row says so."""


@dataclass(frozen=True, slots=True)
class Elasticity:
    """One parameter: its value, what it was moved to, and the elasticity of each metric.

    `low` or `high` is "" where the spec or the simulation refused that side, as `one_sided` then says; the
    difference is from the value itself to the other side. A metric that one of the sides lacks, or of which there is
    no logarithm, has no entry. `kinks` has, by metric, the elasticities below and above the value where these differ by
    more than `KINK`, as they do where a tile shape, a protocol or a whole clock changes in between."""

    parameter: str
    along: tuple[str, ...]
    value: str
    low: str
    high: str
    by_metric: Mapping[str, float]
    one_sided: str = ""
    kinks: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def shown(self, metric: str) -> str:
        """ "+0.120", "-0.931*" where the sides differ, "0" if the metric didn't move, "≈0" if hardly, "–" for none."""
        elasticity = self.by_metric.get(metric)
        if elasticity is None:
            return "–"
        mark = "*" if metric in self.kinks else ""
        if abs(elasticity) < SHOWN_FROM:
            return ("0" if elasticity == 0 else "≈0") + mark
        return f"{elasticity:+.3f}{mark}"

    @property
    def moved_to(self) -> str:
        """ "5 and 7", "7 only"."""
        return f"{self.low} and {self.high}" if self.low and self.high else f"{self.low or self.high} only"


@dataclass(frozen=True)
class Elasticities:
    """Elasticities of an experiment's metrics, the largest of the first metric first."""

    name: str
    fidelity: str
    step: float
    metrics: tuple[str, ...]
    base: Mapping[str, Metric]
    rows: tuple[Elasticity, ...]
    skipped: tuple[Skipped, ...]
    directory: Path

    def frame(self) -> DataFrame:
        """A row per parameter: its path, value, low, high, and the elasticity of each metric."""
        import pandas

        columns = ["parameter", "value", "low", "high", *self.metrics]
        rows = [
            [row.parameter, row.value, row.low, row.high, *(row.by_metric.get(name) for name in self.metrics)]
            for row in self.rows
        ]
        return pandas.DataFrame(rows, columns=columns).astype(dict.fromkeys(self.metrics, float))

    def of(self, parameter: str, metric: str) -> float:
        """One elasticity; nan if there is none. Raises UserError for a parameter or a metric that isn't here."""
        row = next((row for row in self.rows if row.parameter == parameter), None)
        if row is None or metric not in self.metrics:
            wrong, known = (parameter, [r.parameter for r in self.rows]) if row is None else (metric, [*self.metrics])
            raise UserError(f"there is no elasticity of '{wrong}'", nearest=nearest_name(wrong, known))
        return row.by_metric.get(metric, math.nan)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.name,
            "fidelity": self.fidelity,
            "step": self.step,
            "directory": str(self.directory),
            "base": {name: {"value": self.base[name].value, "unit": self.base[name].unit} for name in self.metrics},
            "elasticities": [
                {
                    "parameter": row.parameter, "with": list(row.along), "value": row.value,
                    "low": row.low, "high": row.high, "one_sided": row.one_sided,
                    "elasticity": dict(row.by_metric),
                    "kinks": {name: {"below": below, "above": above} for name, (below, above) in row.kinks.items()},
                }
                for row in self.rows
            ],
            "skipped": [{"parameter": skipped.path, "reason": skipped.reason} for skipped in self.skipped],
        }  # fmt: skip

    def table(self) -> Table:
        """For the terminal."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=f"% of a metric per % of a parameter: {escape(self.name)}", title_justify="left")
        table.box = box.SIMPLE_HEAD
        table.add_column("parameter", no_wrap=True)
        table.add_column("value", justify="right", no_wrap=True)
        for name in self.metrics:
            table.add_column(name, justify="right", no_wrap=True)
        for row in self.rows:
            table.add_row(
                escape(short_path(row.parameter)), escape(row.value), *(row.shown(name) for name in self.metrics)
            )
        return table

    def remarks(self) -> list[str]:
        """What has to be said of single rows: kinks, sides that were refused, parameters that were skipped."""
        kinked = [
            f"* {short_path(row.parameter)}: {metric} {below:+.3f} below {row.value}, {above:+.3f} above"
            for row in self.rows
            for metric, (below, above) in row.kinks.items()
        ]
        refused = [f"{short_path(row.parameter)}, one side only. {row.one_sided}" for row in self.rows if row.one_sided]
        return [*kinked, *refused, *(f"{short_path(one.path)} is left out. {one.reason}" for one in self.skipped)]

    def page(self, path: str | Path) -> None:
        """Write the page: bars and the table (one file, works offline)."""
        from archsim.sweep.page import write_elasticities

        write_elasticities(path, self)

    def plot(self) -> Any:
        """The bars, as a plotly figure."""
        from archsim.sweep.figures import elasticity_bars

        return elasticity_bars(self)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("parameter", "value", *self.metrics))
        cells = (
            (short_path(row.parameter), row.value, *(row.shown(name) for name in self.metrics)) for row in self.rows
        )
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>" for row in cells)
        title = f"<strong>{html.escape(self.name)}</strong> · % of a metric per % of a parameter"
        return f"<div>{title}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def short_path(path: str) -> str:
    """A parameter's path without what all of them begin with."""
    return path.removeprefix("system.").removeprefix("device.")


def elasticities(
    experiment: str | Path,
    overrides: Overrides = (),
    *,
    parameters: Sequence[str] = (),
    metrics: Sequence[str] = (),
    step: str | float = STEP,
    out: str | Path | None = None,
    workers: int | None = None,
    dask: Any = None,
    progress: bool = False,
) -> Elasticities:
    """What to spend silicon on next: the elasticity of each metric to each parameter of the system.

        archsim.elasticities("llama3_70b_h200x8", {"workload.prefill": None}, parameters=["system.device.memory.*"])

    Args:
        experiment: a YAML file, a folder, or the name of a shipped experiment, with `overrides` as in `archsim.run`.
        parameters: paths below `system.`, or patterns; `parameters.DEFAULT` if left out.
        metrics: names of metrics; `METRICS_SHOWN` of the run if left out.
        step: how far each parameter moves up and down, "5%" or 0.05; whole numbers move by one at least.
        out: where the simulated points land, "runs/elasticities_<name>" by default; those there aren't simulated again.
        workers, dask, progress: as in `archsim.sweep`.

    Raises:
        UserError: for anything wrong with what was asked, or if the experiment itself can't be simulated.
    """
    from archsim.sweep.run import run_sweep

    share = _share(step)
    file = experiment_file(experiment)
    loaded = load_experiment(file, overrides)
    found, skipped = find_parameters(loaded, parameters)
    _require_metrics(metrics)
    name = file.stem if file.stem != "experiment" else file.resolve().parent.name
    moves = _moves(found, share)
    fixed = _opened(override_values(overrides), [leaf.path for move in moves for leaf in move.parameter.leaves])
    plan = Plan(f"elasticities_{name}", file, _space(moves), fixed, None)
    directory = Path(out) if out is not None else Path("runs") / plan.name
    result = run_sweep(plan, out=directory, workers=workers, dask=dask, progress=progress)
    return _collected(loaded, share, metrics, moves, result.outcomes, skipped, result.directory)


@dataclass(frozen=True, slots=True)
class _Move:
    """A parameter with the indices of its two points in the sweep, and the values it has there."""

    parameter: Parameter
    low: Side
    high: Side


@dataclass(frozen=True, slots=True)
class Side:
    """A parameter's value at one end, exact, and the point that has it."""

    index: int
    number: Fraction
    shown: str
    overrides: Mapping[str, Any]


def _moves(parameters: Sequence[Parameter], step: Fraction) -> list[_Move]:
    def side(index: int, parameter: Parameter, *, up: bool) -> Side:
        then, overrides = parameter.moved(step, up=up)
        return Side(index, then.number, str(then), overrides)

    return [
        _Move(parameter, side(2 * place + 1, parameter, up=False), side(2 * place + 2, parameter, up=True))
        for place, parameter in enumerate(parameters)
    ]


def _space(moves: Sequence[_Move]) -> Space:
    """The experiment as it is, then the low and the high side of each parameter."""
    points = [Point({"parameter": "none", "value": ""}, {})]
    for move in moves:
        for side in (move.low, move.high):
            points.append(Point({"parameter": move.parameter.path, "value": side.shown}, side.overrides))
    return Space(tuple(points), {}, ("parameter", "value"), {})


def _opened(overrides: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Overrides in which a preset's name that something is moved inside of can be changed: a mapping with it as base.

    `system` itself may be a name: the experiment's reader lays changes over it."""
    return {
        path: {"base": value}
        if isinstance(value, str) and path != "system" and any(inner.startswith(f"{path}.") for inner in paths)
        else value
        for path, value in overrides.items()
    }


def _collected(
    loaded: LoadedExperiment,
    step: Fraction,
    metrics: Sequence[str],
    moves: Sequence[_Move],
    outcomes: Mapping[int, Outcome],
    skipped: Sequence[Skipped],
    directory: Path,
) -> Elasticities:
    base = outcomes[0]
    if base.status is not Status.OK:
        raise UserError(f"the experiment itself can't be simulated: {base.error}")
    names = tuple(metrics) or tuple(name for name in METRICS_SHOWN if name in base.metrics)
    if missing := [name for name in names if name not in base.metrics]:
        raise UserError(f"the run has no {missing[0]}", nearest=nearest_name(missing[0], base.metrics))
    rows, refused = [], list(skipped)
    for move in moves:
        row = _row(move, names, base, outcomes)
        if isinstance(row, Skipped):
            refused.append(row)
        else:
            rows.append(row)
    rows.sort(key=lambda row: [-abs(row.by_metric.get(name, 0.0)) for name in names])
    fidelity = str(loaded.spec.fidelity)
    return Elasticities(
        loaded.spec.name, fidelity, float(step), names, base.metrics, tuple(rows), tuple(refused), directory
    )


def _row(move: _Move, names: Sequence[str], base: Outcome, outcomes: Mapping[int, Outcome]) -> Elasticity | Skipped:
    first = move.parameter.leaves[0]
    ends = {side.index: outcomes[side.index] for side in (move.low, move.high)}
    low_ok, high_ok = (ends[side.index].status is Status.OK for side in (move.low, move.high))
    refusals = "; ".join(
        f"{side.shown}: {_first_line(ends[side.index].error)}"
        for side in (move.low, move.high)
        if ends[side.index].status is not Status.OK
    )
    if not low_ok and not high_ok:
        return Skipped(move.parameter.path, refusals)
    here: _Value = (first.number, base.metrics)
    low: _Value = (move.low.number, ends[move.low.index].metrics) if low_ok else here
    high: _Value = (move.high.number, ends[move.high.index].metrics) if high_ok else here
    return Elasticity(
        move.parameter.path,
        move.parameter.along,
        str(first),
        move.low.shown if low_ok else "",
        move.high.shown if high_ok else "",
        dict(_by_metric(names, low, high)),
        refusals,
        _kinks(names, low, here, high) if low_ok and high_ok else {},
    )


_Value = tuple[Fraction, Mapping[str, Metric]]
"""A parameter's value and the metrics that go with it."""


def _by_metric(names: Sequence[str], low: _Value, high: _Value) -> Iterator[tuple[str, float]]:
    for name in names:
        if name in low[1] and name in high[1]:
            value = log_slope((low[0], low[1][name].value), (high[0], high[1][name].value))
            if value is not None:
                yield name, value


def _kinks(names: Sequence[str], low: _Value, here: _Value, high: _Value) -> dict[str, tuple[float, float]]:
    below, above = dict(_by_metric(names, low, here)), dict(_by_metric(names, here, high))
    both = {name: (below[name], above[name]) for name in names if name in below and name in above}
    return {name: pair for name, pair in both.items() if abs(pair[0] - pair[1]) > KINK}


def log_slope(low: tuple[Fraction | float, float], high: tuple[Fraction | float, float]) -> float | None:
    """(ln m+ - ln m-) / (ln p+ - ln p-) of (parameter, metric) pairs; exactly 0 if the metric is the same on both
    sides, None if there is no logarithm of it."""
    if low[1] == high[1]:
        return 0.0
    if low[1] <= 0 or high[1] <= 0:
        return None
    return math.log(high[1] / low[1]) / math.log(high[0] / low[0])


def improves(metric: str, elasticity: float) -> bool | None:
    """Whether more of the parameter makes the metric better; None if it doesn't matter or isn't known."""
    better = definition_of(metric).better
    if elasticity == 0 or better not in (HIGHER, LOWER):
        return None
    return (elasticity > 0) == (better == HIGHER)


def _first_line(error: str) -> str:
    """The first problem, without where it is written: the parameter is named beside it."""
    return re.sub(r"^(?:\S+\.ya?ml:\d+|override '[^']*'): (?:[\w.]+: )?", "", error.partition("\n")[0])


def _share(step: str | float) -> Fraction:
    """The step as a share. Raises UserError unless it is above 0 and at most `LARGEST_STEP`."""
    parts = split_quantity(str(step))
    expected = "a share such as '5%' or 0.05, at most 50%"
    if parts is None or parts[1] not in ("", "%"):
        raise UserError(f"'{step}' is no step", expected=expected)
    share = parts[0] / (100 if parts[1] else 1)
    if not 0 < share <= LARGEST_STEP:
        raise UserError(f"a step of {step}", expected=expected)
    return share


def _require_metrics(names: Sequence[str]) -> None:
    """Names of metrics that can't be are told before anything runs."""
    for name in names:
        try:
            definition_of(name)
        except KeyError:
            raise UserError(f"there is no metric '{name}'", nearest=nearest_name(name, METRICS_SHOWN)) from None

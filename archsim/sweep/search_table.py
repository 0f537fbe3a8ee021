"""The trials of a search as one tidy table: a row per trial, units with the columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from archsim.sweep.search_plan import SearchPlan
from archsim.sweep.space import Space
from archsim.sweep.store import Outcome
from archsim.sweep.study import Told
from archsim.sweep.table import sweep_table

if TYPE_CHECKING:
    import pyarrow


def search_table(
    plan: SearchPlan,
    trials: Sequence[Told],
    best: Sequence[int],
    outcome_of: Callable[[Told], Outcome],
) -> pyarrow.Table:
    """One row per trial, in order.

    Columns: `trial` (its number), then those of a sweep's table; behind `error` follow `feasible` (null where the trial
    has no result), `best` (on the Pareto front), and the quantities.
    """
    import pyarrow

    space = Space(tuple(trial.point for trial in trials), plan.fixed, plan.space.columns, plan.space.units)
    table = sweep_table(space, {row: outcome_of(trial) for row, trial in enumerate(trials)})
    table = table.add_column(0, "trial", pyarrow.array([trial.number for trial in trials], pyarrow.int64()))
    feasible = [None if trial.verdict.error else trial.verdict.feasible for trial in trials]
    place = table.schema.get_field_index("error") + 1
    table = table.add_column(place, "feasible", pyarrow.array(feasible, pyarrow.bool_()))
    on_front = [trial.number in best for trial in trials]
    table = table.add_column(place + 1, "best", pyarrow.array(on_front, pyarrow.bool_()))
    for offset, (name, quantity) in enumerate(plan.spec.measured().items(), start=2):
        values = [trial.verdict.quantities.get(name) for trial in trials]
        unit = {"unit": quantity.unit} if quantity.unit else None
        field = pyarrow.field(name, pyarrow.float64(), metadata=unit)
        table = table.add_column(place + offset, field, pyarrow.array(values, pyarrow.float64()))
    return table

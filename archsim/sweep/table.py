"""Outcomes as one tidy table: a row per point, a column per axis and metric, units with the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from archsim.config.errors import UserError, nearest_name
from archsim.metrics import HIGHER, METRICS, NEUTRAL, Metric, definition_of
from archsim.sweep.space import Space
from archsim.sweep.store import Outcome

if TYPE_CHECKING:
    import pyarrow

HEADLINES = ("decode.tpot", "serving.throughput", "prefill.ttft")
"""What points are compared by if nothing is said: the first that a run has."""


def sweep_table(space: Space, outcomes: Mapping[int, Outcome]) -> pyarrow.Table:
    """One row per point that has an outcome (by the point's index), in the order of the points.

    Columns: `point` (its key), the axes and derived values, `status`, `error` (null if ok), then the metrics by name
    (null where a run has none). A column's unit is in its field's metadata, under "unit".
    """
    import pyarrow

    rows = [(point, outcomes[index]) for index, point in enumerate(space.points) if index in outcomes]
    units = {name: metric.unit for _, outcome in rows for name, metric in outcome.metrics.items()}
    columns: dict[str, Any] = {"point": pyarrow.array([outcome.key for _, outcome in rows], pyarrow.string())}
    for name in space.columns:
        columns[name] = _column([point.values[name] for point, _ in rows])
    columns["status"] = pyarrow.array([str(outcome.status) for _, outcome in rows], pyarrow.string())
    columns["error"] = pyarrow.array([outcome.error or None for _, outcome in rows], pyarrow.string())
    for name in sorted(units):
        metrics = [outcome.metrics.get(name) for _, outcome in rows]
        columns[name] = _column([metric.value if metric is not None else None for metric in metrics])
    units |= space.units
    fields = [
        pyarrow.field(name, column.type, metadata={"unit": units[name]} if name in units else None)
        for name, column in columns.items()
    ]
    return pyarrow.table(list(columns.values()), schema=pyarrow.schema(fields))


def _column(values: Sequence[Any]) -> pyarrow.Array:
    """Values of one kind as they are; of several kinds as texts."""
    import pyarrow

    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pyarrow.array([None if value is None else float(value) for value in values], pyarrow.float64())
    if len(kinds) > 1:
        return pyarrow.array([None if value is None else str(value) for value in values], pyarrow.string())
    return pyarrow.array(values)


def as_parquet(table: pyarrow.Table) -> bytes:
    """The table as the content of a parquet file; equal tables give equal bytes."""
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


class Best:
    """The best point so far by one metric; by the first headline metric that turns up if none is named.

    Raises UserError if there is no such metric, or of two values neither is better."""

    def __init__(self, metric: str | None) -> None:
        self.metric = metric
        self.index: int | None = None
        self.value: Metric | None = None
        if metric is not None:
            self._check(metric)

    def consider(self, index: int, outcome: Outcome) -> None:
        """Compare a point's outcome with the best so far; of equal ones the first point is the best."""
        if self.metric is None:
            self.metric = next((name for name in HEADLINES if name in outcome.metrics), None)
        found = outcome.metrics.get(self.metric) if self.metric is not None else None
        if found is not None and (self.value is None or self._rank(index, found) < self._rank(self.index, self.value)):
            self.index, self.value = index, found

    def _rank(self, index: int | None, metric: Metric) -> tuple[float | int, int]:
        assert self.metric is not None
        sign = -1 if definition_of(self.metric).better == HIGHER else 1
        return sign * metric.value, index or 0

    def in_words(self, space: Space) -> str:
        """ "best decode.tpot 7.1 ms at workload.batch=1"; nothing if there is none."""
        return "" if self.index is None else f"best {self.metric} {self.value} at {space.points[self.index]}"

    def ranked(self, outcomes: Mapping[int, Outcome], count: int) -> list[int]:
        """The `count` best points, the best first."""
        known = {i: o.metrics[self.metric] for i, o in outcomes.items() if self.metric and self.metric in o.metrics}
        return sorted(known, key=lambda index: self._rank(index, known[index]))[:count]

    def _check(self, metric: str) -> None:
        try:
            definition = definition_of(metric)
        except KeyError:
            known = [row.name.replace("{phase}", phase) for row in METRICS for phase in ("prefill", "decode")]
            raise UserError(f"there is no metric '{metric}'", nearest=nearest_name(metric, known)) from None
        if definition.better == NEUTRAL:
            message = f"of two values of {metric} neither is better"
            raise UserError(message, expected=f"a metric such as {HEADLINES[0]}")

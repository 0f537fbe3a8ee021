"""The table of a sweep in Python: a pandas DataFrame that knows its axes and units, and finds its Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas

from archsim.config.errors import UserError, nearest_name
from archsim.metrics import format_quantity

if TYPE_CHECKING:
    import pyarrow

    from archsim.sweep.pareto import ParetoFront

TABLE = "results.parquet"


class SweepFrame(pandas.DataFrame):
    """A row per point: `point` (its key), axes and derived values, `status`, `error`, then the metrics.

    Units by column are in `attrs["units"]`, the names of the axes in `attrs["axes"]`.
    """

    @property
    def _constructor(self) -> Any:
        return SweepFrame

    @property
    def units(self) -> dict[str, str]:
        """The units of those columns that have one."""
        return dict(self.attrs.get("units", {}))

    @property
    def name(self) -> str:
        """What pages call the sweep."""
        return str(self.attrs.get("name", "sweep"))

    @property
    def varied(self) -> list[str]:
        """The columns of axes and derived values."""
        return [name for name in self.attrs.get("axes", []) if name in self.columns]

    @property
    def metrics(self) -> list[str]:
        """The columns of metrics."""
        others = {"point", "status", "error", *self.varied}
        return [name for name in self.columns if name not in others]

    def require(self, column: str) -> str:
        """The column's name. Raises UserError, with the nearest name, if there is none such."""
        if column in self.columns:
            return column
        known = [*self.varied, *self.metrics]
        raise UserError(
            f"the sweep has no column '{column}'",
            expected="a metric of its points, or an axis",
            nearest=nearest_name(column, known),
        )

    def is_number(self, column: str) -> bool:
        """Whether a column holds numbers, as opposed to texts and truth values."""
        from pandas.api.types import is_bool_dtype, is_numeric_dtype

        return is_numeric_dtype(self[column]) and not is_bool_dtype(self[column])

    def shown(self, column: str, value: Any) -> str:
        """A value of a column for people: "7.31 ms", "six", "" for none."""
        if value is None or value != value:
            return ""
        unit = self.units.get(column)
        if column in self.varied or isinstance(value, str):
            text = f"{value:g}" if isinstance(value, float) else str(value)
            return f"{text} {unit}" if unit else text
        return format_quantity(value, unit) if unit else str(value)

    def pareto(self, objectives: Sequence[str], constraints: Sequence[str] = ()) -> ParetoFront:
        """The points that no other point beats in all objectives at once.

            frame.pareto(["decode.tpot", "decode.energy_per_token"], ["decode.power <= 500 W"])

        Raises UserError for a column that isn't there, a unit that doesn't fit, or if no point is left to compare.
        """
        from archsim.sweep.pareto import pareto_front

        return pareto_front(self, objectives, constraints)

    def page(self, path: str | Path) -> None:
        """Write the page of the sweep (one file, works offline): Pareto plot, parallel coordinates, what failed."""
        from archsim.sweep.page import write_sweep_page

        write_sweep_page(path, self)


def as_frame(table: pyarrow.Table, name: str = "sweep") -> SweepFrame:
    """A sweep's table for pandas; `name` is what pages call it."""
    frame = SweepFrame(table.to_pandas())
    names = list(table.column_names)
    frame.attrs["units"] = {
        field.name: field.metadata[b"unit"].decode()
        for field in table.schema
        if field.metadata and b"unit" in field.metadata
    }
    frame.attrs["name"] = name
    frame.attrs["axes"] = names[names.index("point") + 1 : names.index("status")]
    return frame


def open_sweep(path: str | Path) -> SweepFrame:
    """The table of a sweep that ran before: its directory, or a parquet file of its `tables/`. Raises UserError."""
    import pyarrow
    from pyarrow import parquet

    file = Path(path) / TABLE if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise UserError(
            f"there is no sweep in {path}", expected=f"a directory with {TABLE}, as `archsim sweep` writes it"
        )
    try:
        table = parquet.read_table(file)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{file} can't be read: {error}", expected="a table that `archsim sweep` wrote") from None
    if not {"point", "status", "error"} <= set(table.column_names):
        raise UserError(f"{file} is no table of a sweep", expected="the columns point, status and error")
    return as_frame(table, file.resolve().parent.name)


def short_names(columns: Sequence[str]) -> dict[str, str]:
    """Axes by as much of the end of their paths as tells them apart: "stacks", "decode.context_tokens"."""
    short: dict[str, str] = {}
    for column in columns:
        parts = column.split(".")
        tails = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        others = [other.split(".") for other in columns if other != column]
        short[column] = next(
            (tail for n, tail in enumerate(tails, 1) if all(parts[-n:] != other[-n:] for other in others)), column
        )
    return short

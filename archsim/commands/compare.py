"""`archsim compare`: predict measured kernels one by one and report how far off the predictions are.

A measured file is a parquet table with one kernel per row. Its columns say what kind of kernel it holds:

    gemm                  m, n, k, gemm_dtype
    generation attention  batch_size, isl (1), step (cached tokens), num_heads, num_key_value_heads, head_dim,
                          kv_cache_dtype [, window_size]
    context attention     the same columns; isl > 1 new tokens per sequence after step cached ones
    moe                   num_tokens, hidden_size, inter_size, topk, num_experts, moe_tp_size, moe_ep_size, moe_dtype
    nccl                  op_name, num_gpus, message_size (elements), nccl_dtype

with `latency` in milliseconds and, where it was measured, `power` in watts (the whole board). Predictions come
from a function, so that this module knows nothing of the engine. Where a row stands for several operators in a
row (moe) their latencies and energies add up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.commands.measured import Kernel, MeasuredKind, kernels_of, kind_of
from archsim.config.errors import UserError
from archsim.records import Operator

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

Predict = Callable[[Operator], tuple[int, float]]
"""An operator to (latency in femtoseconds, energy in picojoules)."""
PredictCollective = Callable[[str, int, int, str], tuple[int, float]]
"""(operation, devices, bytes) to (latency in femtoseconds, energy in picojoules)."""

FS_PER_MS = 10**12
WATTS_PER_PJ_PER_FS = 1000.0
WORST_ROWS = 10
FIGURE_DPI = 120


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """Relative errors, predicted / measured - 1: bias is the median signed one, the others are absolute."""

    count: int
    bias: float
    median: float
    p90: float


@dataclass(frozen=True)
class CompareReport:
    """What `compare` found. `rows` is the measured table with the predictions beside it."""

    measured: str
    kind: str
    where: str | None
    latency: ErrorSummary
    power: ErrorSummary | None
    worst: tuple[dict[str, Any], ...]
    rows: pd.DataFrame = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the rows, ready for JSON."""
        return {
            "measured": self.measured,
            "kind": self.kind,
            "where": self.where,
            "latency": asdict(self.latency),
            "power": asdict(self.power) if self.power else None,
            "worst": list(self.worst),
        }

    def table(self) -> Table:
        """The summary as a rich table."""
        from rich.table import Table

        title = f"{self.kind}: predicted against {self.measured}" + (f" where {self.where}" if self.where else "")
        table = Table(title=title)
        table.add_column("quantity")
        for name in ("rows", "bias", "median |error|", "p90 |error|"):
            table.add_column(name, justify="right")
        for name, summary in (("latency", self.latency), ("power", self.power)):
            if summary is not None:
                shares = (
                    f"{share:+.1%}" if share is summary.bias else f"{share:.1%}"
                    for share in (summary.bias, summary.median, summary.p90)
                )
                table.add_row(name, str(summary.count), *shares)
        return table

    def worst_table(self) -> Table:
        """The rows with the largest latency errors as a rich table."""
        from rich.table import Table

        table = Table(title="worst rows")
        for name in self.worst[0] if self.worst else ():
            table.add_column(name, justify="right")
        for row in self.worst:
            table.add_row(*(_short(value) for value in row.values()))
        return table

    def write(self, directory: Path) -> list[Path]:
        """comparison.parquet, comparison.json and a scatter plot per quantity. Raises UserError if it can't."""
        written = [directory / "comparison.parquet", directory / "comparison.json"]
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self.rows.to_parquet(written[0], index=False)
            written[1].write_text(json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n")
            for quantity, unit in (("latency", "ms"), ("power", "W")):
                if getattr(self, quantity) is not None:
                    written.append(directory / f"{quantity}.png")
                    _scatter(self.rows, quantity, unit, self.kind, written[-1])
        except OSError as error:
            raise UserError(f"can't write the comparison to {directory}: {error.strerror or error}") from None
        return written


def compare(
    measured: Path,
    predict: Predict,
    *,
    where: str | None = None,
    out: Path | None = None,
    replay_fs: int = 0,
    predict_collective: PredictCollective | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CompareReport:
    """Predict each row of `measured` (a parquet file) that `where` selects, and report the errors.

    `where` is a pandas query over the columns and over bytes_moved, weight_bytes and flops, which are added.
    `replay_fs` is what a replay of a captured graph costs; a row carries its share of it (six products are
    replayed together, other kernels alone). `progress` is called with (done, total) operators.
    Raises UserError for a missing or unreadable file, missing columns, a bad expression, or no rows left.
    """
    frame = _read(measured)
    kind = kind_of(frame, measured)
    kernels = list(kernels_of(frame, kind))
    for name in ("bytes_moved", "weight_bytes", "flops"):
        frame[name] = [getattr(kernel, name) for kernel in kernels]
    chosen = _select(frame, where)
    kernels = [kernels[position] for position in chosen["_row"]]
    predictions = _predict_all(kernels, predict, predict_collective, progress)
    share_fs = replay_fs // kind.kernels_per_replay if kind.kernels_per_replay else 0
    rows = chosen.drop(columns="_row").rename(columns={"latency": "latency_ms", "power": "power_w"})
    rows["predicted_latency_ms"] = [(latency + share_fs) / FS_PER_MS for latency, _ in predictions]
    rows["predicted_power_w"] = [
        WATTS_PER_PJ_PER_FS * energy / latency if latency else 0.0 for latency, energy in predictions
    ]
    rows["latency_error"] = rows["predicted_latency_ms"] / rows["latency_ms"] - 1
    if "power_w" in rows:
        rows["power_error"] = rows["predicted_power_w"] / rows["power_w"] - 1
    report = CompareReport(
        measured=measured.name,
        kind=kind.value,
        where=where,
        latency=_summary(rows["latency_error"]),
        power=_summary(rows["power_error"]) if "power_w" in rows and rows["power_error"].notna().any() else None,
        worst=tuple(_worst(rows, kind)),
        rows=rows,
    )
    if out is not None:
        report.write(out)
    return report


def _read(measured: Path) -> pd.DataFrame:
    import pandas as pd

    if not measured.is_file():
        raise UserError(f"there is no file {measured}", expected="a parquet file of measured kernels")
    try:
        frame = pd.read_parquet(measured)
    except (OSError, ValueError) as error:
        raise UserError(f"{measured} can't be read as parquet: {error}") from None
    frame = frame.reset_index(drop=True)
    frame["_row"] = range(len(frame))
    return frame


def _select(frame: pd.DataFrame, where: str | None) -> pd.DataFrame:
    """The rows `where` selects that have a usable latency."""
    chosen = frame
    if where is not None:
        names = ", ".join(name for name in frame.columns if not name.startswith("_"))
        try:
            chosen = frame.query(where, engine="python", local_dict={}, global_dict={})
        except Exception as error:  # pandas raises whatever the expression's parts raise
            message = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"--where '{where}': {message}", expected=f"an expression over {names}") from None
    chosen = chosen[chosen["latency"] > 0].copy()
    if chosen.empty:
        raise UserError(f"no measured row is left{f' where {where}' if where else ''}")
    return chosen


def _predict_all(
    kernels: Sequence[Kernel],
    predict: Predict,
    predict_collective: PredictCollective | None,
    progress: Callable[[int, int], None] | None,
) -> list[tuple[int, float]]:
    """Each distinct operator is predicted once, in order of first appearance."""
    known: dict[object, tuple[int, float]] = {}
    results = []
    for done, kernel in enumerate(kernels, start=1):
        parts = []
        for operator in kernel.operators:
            if operator not in known:
                known[operator] = predict(operator)
            parts.append(known[operator])
        if kernel.collective is not None:
            if predict_collective is None:
                raise UserError("this system has no links between devices", expected="a system with several devices")
            if kernel.collective not in known:
                known[kernel.collective] = predict_collective(*kernel.collective)
            parts.append(known[kernel.collective])
        results.append((sum(latency for latency, _ in parts), sum(energy for _, energy in parts)))
        if progress is not None:
            progress(done, len(kernels))
    return results


def _summary(errors: pd.Series) -> ErrorSummary:
    errors = errors.dropna()
    absolute = errors.abs()
    return ErrorSummary(len(errors), float(errors.median()), float(absolute.median()), float(absolute.quantile(0.9)))


def _worst(rows: pd.DataFrame, kind: MeasuredKind) -> Iterator[dict[str, Any]]:
    shown = [*kind.columns, "latency_ms", "predicted_latency_ms", "latency_error"]
    order = rows["latency_error"].abs().sort_values(ascending=False, kind="stable").index[:WORST_ROWS]
    for record in rows.loc[order, shown].to_dict("records"):
        yield {str(name): value.item() if hasattr(value, "item") else value for name, value in record.items()}


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _scatter(rows: pd.DataFrame, quantity: str, unit: str, kind: str, path: Path) -> None:
    """Predicted against measured, both axes logarithmic, with the line where they are equal."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    suffix = f"{quantity}_{unit.lower()}"
    points = rows[[suffix, f"predicted_{suffix}"]].dropna()
    points = points[(points > 0).all(axis=1)]
    figure = Figure(figsize=(5.5, 5.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.scatter(points[suffix], points[f"predicted_{suffix}"], s=6, alpha=0.35, linewidths=0, rasterized=True)
    ends = (float(points.to_numpy().min()), float(points.to_numpy().max()))
    axes.plot(ends, ends, color="black", linewidth=1, label="equal")
    axes.set(
        xscale="log", yscale="log", xlabel=f"measured {quantity} ({unit})", ylabel=f"predicted {quantity} ({unit})"
    )
    axes.set_title(f"{kind}: {len(points)} kernels")
    axes.legend()
    figure.savefig(path, dpi=FIGURE_DPI, metadata={"Software": None})


def summary_lines(reports: Mapping[str, CompareReport]) -> list[str]:
    """A Markdown table of several comparisons, one line each (for docs/validation.md)."""
    lines = ["| rows | count | bias | median error | p90 error |", "|---|---:|---:|---:|---:|"]
    for name, report in reports.items():
        for quantity, summary in (("latency", report.latency), ("power", report.power)):
            if summary is not None:
                lines.append(
                    f"| {name}, {quantity} | {summary.count} | {summary.bias:+.1%} | {summary.median:.1%} "
                    f"| {summary.p90:.1%} |"
                )
    return lines

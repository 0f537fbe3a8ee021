"""How far predictions are from measured kernels, by class of kernel: the table in docs/validation.md.

    python benchmarks/silicon_table.py ../shared/silicon                             # prints Markdown
    python benchmarks/silicon_table.py ../shared/silicon --into docs/validation.md   # replaces the marked section

Each class is what `archsim compare SYSTEM FILE --where EXPRESSION` reports. Files are found by a word of their name;
one that isn't there is left out of the table. With `--every N` only each N-th row of a file is predicted, for a quick
look: the table then says so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from archsim.commands.compare import CompareReport, compare
from archsim.config.errors import UserError
from archsim.records import Operator
from archsim.run import KernelPredictor, kernel_predictor

BEGIN = "<!-- silicon table: begin (written by benchmarks/silicon_table.py) -->"
END = "<!-- silicon table: end -->"
BF16_GEMM = "gemm_dtype == 'bfloat16'"
BF16_KV = "kv_cache_dtype == 'bfloat16'"
SHORT_MS = 0.25  # the board's power sensor is a moving average over a second: shorter kernels' readings lag


@dataclass(frozen=True)
class RowClass:
    """Rows of one measured file. `goals`: the largest median errors wanted, of latency and of power; None: no goal."""

    name: str
    file_word: str
    where: str
    goals: tuple[float | None, float | None] = (None, None)
    system: str = "h200"


CLASSES = (
    RowClass(
        "decode attention, bf16, >= 100 MB", "generation_attention", f"{BF16_KV} and bytes_moved >= 100e6", (0.08, 0.30)
    ),
    RowClass(
        f"decode attention, bf16, >= 100 MB and >= {SHORT_MS} ms",
        "generation_attention",
        f"{BF16_KV} and bytes_moved >= 100e6 and latency >= {SHORT_MS}",
    ),
    RowClass("decode attention, bf16, all", "generation_attention", BF16_KV, (0.30, None)),
    RowClass(
        "gemm, bf16, m <= 64, weights >= 64 MB",
        "gemm",
        f"{BF16_GEMM} and m <= 64 and weight_bytes >= 64e6",
        (0.08, 0.30),
    ),
    RowClass("gemm, bf16, m >= 2048, >= 1 TFLOP", "gemm", f"{BF16_GEMM} and m >= 2048 and flops >= 1e12", (0.12, None)),
    RowClass("gemm, bf16, all", "gemm", BF16_GEMM, (0.25, None)),
    RowClass("prefill attention, bf16, >= 1 ms", "context_attention", f"{BF16_KV} and latency >= 1"),
    RowClass("prefill attention, bf16, all", "context_attention", BF16_KV),
    RowClass("gemm, block-scaled fp8, all", "gemm", "gemm_dtype == 'fp8_block'"),
    RowClass("MoE, bf16, balanced", "moe", "moe_dtype == 'bfloat16' and distribution == 'balanced'"),
    RowClass("NCCL, 2 to 8 GPUs, all", "nccl", "num_gpus >= 2", system="h200x8"),
    RowClass("NCCL all-reduce, 8 GPUs", "nccl", "num_gpus == 8 and op_name == 'all_reduce'", system="h200x8"),
)


@dataclass
class Bench:
    """The measured files of a folder and a predictor per system, which remembers what it has predicted."""

    folder: Path
    every: int
    scratch: Path

    def __post_init__(self) -> None:
        self._predictors: dict[str, KernelPredictor] = {}
        self._known: dict[tuple[str, Operator], tuple[int, float]] = {}

    def file(self, word: str) -> Path | None:
        """The measured file with `_word` in its name, thinned out if so wanted; None if there is none."""
        found = sorted(path for path in self.folder.glob("*.parquet") if f"_{word}" in path.name)
        if not found:
            return None
        return found[0] if self.every == 1 else self._thinned(found[0])

    def report(self, rows: RowClass) -> CompareReport | None:
        file = self.file(rows.file_word)
        if file is None:
            return None
        predictor = self._predictors.setdefault(rows.system, kernel_predictor(rows.system))

        def predict(operator: Operator) -> tuple[int, float]:
            key = (rows.system, operator)
            if key not in self._known:
                self._known[key] = predictor.predict(operator)
            return self._known[key]

        return compare(
            file,
            predict,
            where=rows.where,
            replay_fs=predictor.replay_fs,
            predict_collective=predictor.predict_collective,
        )

    def _thinned(self, file: Path) -> Path:
        import pandas as pd

        thin = self.scratch / file.name
        if not thin.exists():
            pd.read_parquet(file).iloc[:: self.every].to_parquet(thin)
        return thin


def table(bench: Bench, classes: Sequence[RowClass] = CLASSES) -> Iterator[str]:
    """The lines of the Markdown table; a class without rows or without a file is left out."""
    yield "| kernels | quantity | rows | bias | median error | p90 error | goal (median) |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for rows in classes:
        started = time.perf_counter()
        try:
            report = bench.report(rows)
        except UserError as error:
            print(f"{rows.name}: {error}", file=sys.stderr)
            continue
        if report is None:
            print(f"{rows.name}: no measured file", file=sys.stderr)
            continue
        for quantity, summary, goal in zip(
            ("latency", "power"), (report.latency, report.power), rows.goals, strict=True
        ):
            if summary is None:
                continue
            verdict = "" if goal is None else f"{goal:.0%}: {'met' if summary.median <= goal else 'missed'}"
            yield (
                f"| {rows.name} | {quantity} | {summary.count:,} | {summary.bias:+.1%} | {summary.median:.1%} "
                f"| {summary.p90:.1%} | {verdict} |"
            )
        print(f"{rows.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)


def replaced(text: str, lines: Sequence[str]) -> str:
    """`text` with what stands between the marks replaced. SystemExit if it has no marks."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        sys.exit(f"the file has no section between\n{BEGIN}\n{END}")
    return "\n".join([head + begin, "", *lines, "", end]) + tail


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/silicon"), help="measured files")
    parser.add_argument("--into", type=Path, help="a Markdown file whose marked section is replaced")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="predict only each N-th row of a file")
    options = parser.parse_args()
    if not options.folder.is_dir():
        sys.exit(f"there is no folder {options.folder}: name one that holds measured parquet files")
    with tempfile.TemporaryDirectory() as scratch:
        lines = list(table(Bench(options.folder, options.every, Path(scratch))))
    if options.every > 1:
        lines.append(f"\nOnly each {options.every}th row of the files was predicted.")
    print("\n".join(lines))
    if options.into is not None:
        options.into.write_text(replaced(options.into.read_text(encoding="utf-8"), lines), encoding="utf-8")


if __name__ == "__main__":
    main()

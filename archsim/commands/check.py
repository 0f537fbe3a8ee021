"""`archsim check`: run experiments and compare their metrics with what is expected and with a stored baseline.

An experiment's `expect:` says what metrics should be, by a paper or a measurement, within a tolerance. Its
`baseline.json`, beside it, says what they were when somebody last looked, and has the tolerance of the metric table:
next to none, since the simulation is exact. `--update` writes it. A file of another name than experiment.yaml has a
baseline of its own: x.baseline.json beside x.yaml.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from archsim.config.errors import UserError
from archsim.expectations import Expectation
from archsim.experiment import EXPERIMENT_FILE, LoadedExperiment, experiment_file, load_experiment
from archsim.metrics import HIGHER, NEUTRAL, Metric, definition_of

BASELINE_FILE = "baseline.json"
BASELINE = "baseline"
"""What a row is `against`, unless it is the source of an expected value."""


class Verdict(StrEnum):
    """What became of a metric. The first three are fine."""

    SAME = "same"
    BETTER = "better"
    NEW = "new"
    WORSE = "worse"
    CHANGED = "changed"  # neither direction is better
    GONE = "gone"
    UNEXPECTED = "unexpected"  # outside the tolerance of `expect:`


FAILURES = frozenset({Verdict.WORSE, Verdict.CHANGED, Verdict.GONE, Verdict.UNEXPECTED})


@dataclass(frozen=True, slots=True)
class Row:
    """One metric against one reference: the baseline, or the source of an expected value."""

    metric: str
    reference: Metric | None
    now: Metric | None
    verdict: Verdict
    against: str

    @property
    def failed(self) -> bool:
        return self.verdict in FAILURES

    @property
    def change(self) -> float | None:
        """now / reference - 1; None without both, or with a reference of zero."""
        if self.reference is None or self.now is None or self.reference.value == 0:
            return None
        return self.now.value / self.reference.value - 1


@dataclass(frozen=True)
class ExperimentCheck:
    """One experiment's rows. `error` says why it could not be run; `note` what a reader should know of the baseline."""

    name: str
    file: Path
    rows: tuple[Row, ...] = ()
    error: str | None = None
    note: str | None = None
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        return self.error is not None or any(row.failed for row in self.rows)


@dataclass(frozen=True)
class CheckReport:
    """All experiments, in the order they were found."""

    experiments: tuple[ExperimentCheck, ...]

    @property
    def ok(self) -> bool:
        return not any(check.failed for check in self.experiments)

    @property
    def exit_code(self) -> int:
        """0 if nothing regressed, else 1."""
        return 0 if self.ok else 1

    def as_dict(self) -> dict[str, Any]:
        """The same facts for `--json`."""
        return {"ok": self.ok, "experiments": [_as_dict(check) for check in self.experiments]}


Simulate = Callable[[LoadedExperiment], Mapping[str, Metric]]
"""A loaded experiment to its metrics."""


def find_experiments(paths: Sequence[str | Path]) -> list[Path]:
    """The experiment files that paths, folders (searched below) and names of shipped experiments mean.

    Raises UserError for a folder without experiments and for what is none of these."""
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir() or (path / EXPERIMENT_FILE).is_file():
            files.append(experiment_file(path))
            continue
        found = sorted(path.rglob(EXPERIMENT_FILE))
        if not found:
            raise UserError(f"there is no experiment below {path}", expected=f"files named {EXPERIMENT_FILE}")
        files += found
    return list(dict.fromkeys(files))


def check_experiments(
    files: Sequence[Path], simulate: Simulate, overrides: Sequence[str] = (), *, update: bool = False
) -> Iterator[ExperimentCheck]:
    """Run and compare one experiment after the other. With `update` the baselines become what the metrics are now."""
    for file in files:
        yield check_experiment(file, simulate, overrides, update=update)


def check_experiment(
    file: Path, simulate: Simulate, overrides: Sequence[str] = (), *, update: bool = False
) -> ExperimentCheck:
    """Run one experiment and compare its metrics; what is wrong with it becomes its `error`."""
    name = file.parent.name if file.name == EXPERIMENT_FILE else file.stem
    baseline_file = file.with_name(BASELINE_FILE if file.name == EXPERIMENT_FILE else f"{file.stem}.{BASELINE_FILE}")
    started = time.perf_counter()
    try:
        baseline = _replaceable(baseline_file) if update else read_baseline(baseline_file)
        loaded = load_experiment(file, overrides)
        metrics = simulate(loaded)
    except UserError as error:
        return ExperimentCheck(name, file, error=str(error), seconds=time.perf_counter() - started)
    rows = [*against_expectations(metrics, loaded.spec.expect)]
    rows += against_baseline(metrics, baseline.metrics) if baseline is not None else ()
    note = _note(baseline, loaded.digest(), bool(rows))
    if update:
        write_baseline(baseline_file, Baseline(loaded.digest(), metrics))
        note = f"{baseline_file.name} written"
    return ExperimentCheck(name, file, tuple(rows), note=note, seconds=time.perf_counter() - started)


def against_expectations(metrics: Mapping[str, Metric], expected: Sequence[Expectation]) -> Iterator[Row]:
    """A row for each expected value."""
    for entry in expected:
        reference = Metric(entry.expected, entry.unit)
        now = metrics.get(entry.metric)
        yield Row(entry.metric, reference, now, _expected_verdict(entry, now), str(entry.source))


def _expected_verdict(entry: Expectation, now: Metric | None) -> Verdict:
    if now is None:
        return Verdict.GONE
    return Verdict.SAME if entry.met_by(now.value) else Verdict.UNEXPECTED


def against_baseline(metrics: Mapping[str, Metric], baseline: Mapping[str, Metric]) -> Iterator[Row]:
    """A row for each metric that is there now or was there then, by name."""
    for name in sorted(metrics.keys() | baseline.keys()):
        now, then = metrics.get(name), baseline.get(name)
        yield Row(name, then, now, _verdict(name, then, now), BASELINE)


def _verdict(name: str, then: Metric | None, now: Metric | None) -> Verdict:
    if now is None:
        return Verdict.GONE
    if then is None:
        return Verdict.NEW
    definition = definition_of(name)
    if then.unit != now.unit:
        return Verdict.CHANGED
    if abs(now.value - then.value) <= definition.tolerance * abs(then.value):
        return Verdict.SAME
    if definition.better == NEUTRAL:
        return Verdict.CHANGED
    return Verdict.BETTER if (now.value > then.value) == (definition.better == HIGHER) else Verdict.WORSE


# ---------------------------------------------------------------- baselines


@dataclass(frozen=True)
class Baseline:
    """Metrics as they were, and the digest of the configuration they were of."""

    digest: str
    metrics: Mapping[str, Metric]


def read_baseline(file: Path) -> Baseline | None:
    """The baseline in `file`, None if there is no such file. Raises UserError if it is something else."""
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        metrics = {name: Metric(entry["value"], entry["unit"]) for name, entry in content["metrics"].items()}
        return Baseline(content["digest"], metrics)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{file} is not a baseline", expected="a file that --update wrote; with --update it is written anew"
        ) from None


def _replaceable(file: Path) -> Baseline | None:
    """The baseline that is about to be written anew; None as well for what can't be read."""
    try:
        return read_baseline(file)
    except UserError:
        return None


def write_baseline(file: Path, baseline: Baseline) -> None:
    """Write a baseline whole or not at all."""
    metrics = {name: asdict(metric) for name, metric in sorted(baseline.metrics.items())}
    text = json.dumps({"digest": baseline.digest, "metrics": metrics}, indent=1, allow_nan=False) + "\n"
    staged = file.with_name(f".{file.name}.new")
    staged.write_text(text, encoding="utf-8")
    staged.replace(file)


def _note(baseline: Baseline | None, digest: str, compared: bool) -> str | None:
    if baseline is not None and baseline.digest != digest:
        return "the configuration is not the baseline's: compare with care, or --update"
    return None if compared else "nothing to compare with: no expect:, no baseline (--update writes one)"


def _as_dict(check: ExperimentCheck) -> dict[str, Any]:
    return {
        "name": check.name,
        "file": str(check.file),
        "ok": not check.failed,
        "error": check.error,
        "note": check.note,
        "metrics": [
            {
                "metric": row.metric,
                "against": row.against,
                "reference": asdict(row.reference) if row.reference is not None else None,
                "now": asdict(row.now) if row.now is not None else None,
                "change": row.change,
                "verdict": row.verdict.value,
                "ok": not row.failed,
            }
            for row in check.rows
        ],
    }

"""`archsim diff`: where the difference between two runs comes from, operator by operator and cause by cause.

Operators are compared by what they are in a layer ("layers[*].attention"), summed over layers and iterations, so that
runs of different batches, systems and even models line up. Differences are B minus A; those of the operators add up to
the difference of each phase's operator time exactly (integer femtoseconds), and so do those of the causes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.config.schema import is_sourced
from archsim.metrics import NEUTRAL, Metric, definition_of, format_quantity
from archsim.records import CAUSES
from archsim.results import RunResult, headline_names, open_run

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

FS_PER_SECOND = 10**15
PJ_PER_JOULE = 10**12
LAYER = re.compile(r"\[\d+\]")


@dataclass(frozen=True, slots=True)
class MetricChange:
    """A metric in both runs; None where a run does not have it."""

    name: str
    a: Metric | None
    b: Metric | None

    @property
    def relative(self) -> float | None:
        """B / A - 1."""
        return None if self.a is None or self.b is None or not self.a.value else self.b.value / self.a.value - 1


@dataclass(frozen=True, slots=True)
class OperatorChange:
    """One kind of operator of one phase: time of one device, energy of all devices, in A and B."""

    phase: str
    operator: str
    a_fs: int
    b_fs: int
    cause_fs: Mapping[str, int]  # B - A
    a_pj: float
    b_pj: float

    @property
    def delta_fs(self) -> int:
        return self.b_fs - self.a_fs

    @property
    def delta_pj(self) -> float:
        return self.b_pj - self.a_pj

    @property
    def main_cause(self) -> str:
        """The cause that moved most in the direction of the whole; "" if nothing moved."""
        sign = 1 if self.delta_fs >= 0 else -1
        cause = max(CAUSES, key=lambda name: sign * self.cause_fs[name])
        return cause if self.cause_fs[cause] else ""


@dataclass(frozen=True)
class RunDiff:
    """Two runs compared. `operators` are ordered by how much time they explain; `settings` differ between the two."""

    a: str
    b: str
    metrics: tuple[MetricChange, ...]
    operators: tuple[OperatorChange, ...]
    settings: Mapping[str, tuple[Any, Any]]

    @property
    def phases(self) -> list[str]:
        return list(dict.fromkeys(change.phase for change in self.operators))

    def cause_fs(self, phase: str) -> dict[str, int]:
        """B - A of a phase's operator time by cause."""
        ours = [change for change in self.operators if change.phase == phase]
        return {cause: sum(change.cause_fs[cause] for change in ours) for cause in CAUSES}

    def delta_fs(self, phase: str) -> int:
        """B - A of a phase's operator time."""
        return sum(change.delta_fs for change in self.operators if change.phase == phase)

    def frame(self) -> pd.DataFrame:
        """The operators as a table: seconds and joules, and a column per cause."""
        import pandas

        return pandas.DataFrame([_operator_dict(change) for change in self.operators])

    def as_dict(self) -> dict[str, Any]:
        """The same facts for `--json`."""
        return {
            "a": self.a,
            "b": self.b,
            "settings": {name: {"a": a, "b": b} for name, (a, b) in self.settings.items()},
            "metrics": {
                change.name: {
                    "a": change.a.value if change.a else None,
                    "b": change.b.value if change.b else None,
                    "unit": definition_of(change.name).unit,
                    "relative": change.relative,
                }
                for change in self.metrics
            },
            "operators": [_operator_dict(change) for change in self.operators],
        }

    def tables(self, most: int = 12) -> Iterator[Table]:
        """What a reader wants: settings, headline metrics, causes, and the `most` important operators."""
        if self.settings:
            rows = [(name, *map(_setting, pair)) for name, pair in self.settings.items()]
            yield _table("Settings that differ", ("setting", "A", "B"), rows)
        yield _table("Metrics", ("metric", "A", "B", "change"), [_metric_row(change) for change in self.metrics])
        causes = [
            (cause, *[_signed(self.cause_fs(phase)[cause]) for phase in self.phases])
            for cause in CAUSES
            if any(self.cause_fs(phase)[cause] for phase in self.phases)
        ]
        total = ("all operators", *[_signed(self.delta_fs(phase)) for phase in self.phases])
        yield _table("Time by cause, B - A", ("cause", *self.phases), [*causes, total])
        moved = [change for change in self.operators if change.delta_fs or change.delta_pj]
        moved.sort(key=lambda change: -abs(change.delta_fs))
        rows = [_operator_row(change) for change in moved[:most]]
        title = f"Operators that explain most, {len(rows)} of {len(moved)}"
        yield _table(title, ("phase", "operator", "A", "B", "B - A", "mostly", "energy B - A"), rows)

    def _repr_html_(self) -> str:
        return str(self.frame().head(20).to_html(index=False))


def diff(a: str | Path, b: str | Path) -> RunDiff:
    """Compare two run directories. Raises UserError if one is none."""
    run_a, run_b = open_run(a), open_run(b)
    names = dict.fromkeys((*_headline(run_a), *_headline(run_b)))
    metrics = tuple(MetricChange(name, run_a.metrics.get(name), run_b.metrics.get(name)) for name in names)
    return RunDiff(str(a), str(b), metrics, _operator_changes(run_a, run_b), _setting_changes(run_a, run_b))


def _headline(run: RunResult) -> list[str]:
    return headline_names(run.metrics, [phase.phase for phase in run.summary.phases])


def _operator_changes(a: RunResult, b: RunResult) -> tuple[OperatorChange, ...]:
    in_a, in_b = _by_operator(a), _by_operator(b)
    changes = [
        OperatorChange(
            phase=phase,
            operator=operator,
            a_fs=sum(then[cause] for cause in CAUSES),
            b_fs=sum(now[cause] for cause in CAUSES),
            cause_fs={cause: int(now[cause] - then[cause]) for cause in CAUSES},
            a_pj=then["energy_pj"],
            b_pj=now["energy_pj"],
        )
        for phase, operator in dict.fromkeys((*in_a, *in_b))
        for then, now in [(in_a.get((phase, operator), _NOTHING), in_b.get((phase, operator), _NOTHING))]
    ]
    order = {phase: place for place, phase in enumerate(dict.fromkeys(change.phase for change in changes))}
    return tuple(sorted(changes, key=lambda change: (order[change.phase], -abs(change.delta_fs), change.operator)))


_NOTHING: Mapping[str, Any] = {**dict.fromkeys(CAUSES, 0), "energy_pj": 0.0}


def _by_operator(run: RunResult) -> dict[tuple[str, str], dict[str, Any]]:
    """Time by cause and energy of each phase's operators, layers and iterations summed, in order of appearance."""
    table = run.operators
    names = [LAYER.sub("[*]", name) for name in table["name"]]
    energies = table["energy_pj"] if "energy_pj" in table else [0.0] * len(table)
    causes = [table[f"cause_{cause}_fs"] for cause in CAUSES]
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for phase, name, energy, *times in zip(table["phase"], names, energies, *causes, strict=True):
        entry = sums.setdefault((phase, name), dict(_NOTHING))
        entry["energy_pj"] += energy
        for cause, time_fs in zip(CAUSES, times, strict=True):
            entry[cause] += int(time_fs)
    return sums


def _setting_changes(a: RunResult, b: RunResult) -> dict[str, tuple[Any, Any]]:
    """Dotted paths of the configurations whose values differ."""
    import yaml

    in_a, in_b = (dict(_leaves(yaml.safe_load(run.config))) for run in (a, b))
    names = dict.fromkeys((*in_a, *in_b))
    changed = [name for name in names if in_a.get(name) != in_b.get(name)]
    return {name: (in_a.get(name), in_b.get(name)) for name in changed if not name.endswith((".source", "description"))}


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    tree = tree["value"] if is_sourced(tree) else tree  # an override has the bare value
    if isinstance(tree, dict):
        for key, part in tree.items():
            yield from _leaves(part, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list) and any(isinstance(part, dict | list) for part in tree):
        for place, part in enumerate(tree):
            yield from _leaves(part, f"{path}[{place}]")
    else:
        yield path, tree


# ---------------------------------------------------------------- rows


def _setting(value: Any) -> str:
    return "(default)" if value is None else str(value)


def _operator_dict(change: OperatorChange) -> dict[str, Any]:
    return {
        "phase": change.phase,
        "operator": change.operator,
        "a_s": change.a_fs / FS_PER_SECOND,
        "b_s": change.b_fs / FS_PER_SECOND,
        "delta_s": change.delta_fs / FS_PER_SECOND,
        **{f"delta_{cause}_s": change.cause_fs[cause] / FS_PER_SECOND for cause in CAUSES},
        "a_J": change.a_pj / PJ_PER_JOULE,
        "b_J": change.b_pj / PJ_PER_JOULE,
        "delta_J": change.delta_pj / PJ_PER_JOULE,
    }


def _operator_row(change: OperatorChange) -> tuple[str, ...]:
    times = (format_quantity(time_fs / FS_PER_SECOND, "s") for time_fs in (change.a_fs, change.b_fs))
    return (
        change.phase,
        change.operator,
        *times,
        _signed(change.delta_fs),
        change.main_cause,
        f"{'+' if change.delta_pj > 0 else ''}{format_quantity(change.delta_pj / PJ_PER_JOULE, 'J')}",
    )


def _metric_row(change: MetricChange) -> tuple[str, ...]:
    if change.relative is None:
        verdict = ""
    else:
        better = definition_of(change.name).better
        good = (change.relative > 0) == (better == "higher")
        word = "" if better == NEUTRAL or change.relative == 0 else " better" if good else " worse"
        verdict = f"{100 * change.relative:+.2f} %{word}"
    return change.name, str(change.a or "-"), str(change.b or "-"), verdict


def _signed(time_fs: int) -> str:
    return f"{'+' if time_fs > 0 else ''}{format_quantity(time_fs / FS_PER_SECOND, 's')}"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.table import Table

    table = Table(title=title, box=None, pad_edge=False, header_style="bold", title_justify="left", title_style="bold")
    for place, name in enumerate(columns):
        left = place == 0 or name in ("operator", "mostly")
        table.add_column(name, justify="left" if left else "right", no_wrap=place == 0)
    for row in rows:
        table.add_row(*row)
    return table

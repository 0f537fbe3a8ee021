"""How `archsim check` says what it found: a table for people, Markdown and JUnit XML for CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from archsim.commands.check import BASELINE, CheckReport, ExperimentCheck, Row, Verdict
from archsim.metrics import Metric

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("metric", "reference", "now", "change", "verdict")
_NUMBERS = ("reference", "now", "change")
_COLOURS = {Verdict.SAME: "dim", Verdict.BETTER: "green", Verdict.NEW: "cyan"}


def moved_rows(check: ExperimentCheck) -> list[Row]:
    """What a reader wants to see first: every metric that is not the same."""
    return [row for row in check.rows if row.verdict is not Verdict.SAME]


def table(report: CheckReport, *, everything: bool = False) -> Table | None:
    """The metrics that moved, or all of them, by experiment; None if there is nothing to show."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in COLUMNS:
        shown.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=True)
    for check in report.experiments:
        rows = check.rows if everything else moved_rows(check)
        if rows:
            shown.add_row(check.name, style="bold")
        for row in rows:
            shown.add_row(*cells(row), style=_COLOURS.get(row.verdict, "red"))
    return shown if shown.row_count else None


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table, as texts."""
    return label(row), *_texts(row.reference, row.now), _change(row), row.verdict.value


def label(row: Row) -> str:
    """The metric, and whether it was compared with `expect:`."""
    return row.metric if row.against == BASELINE else f"{row.metric} (expected)"


def summary(check: ExperimentCheck) -> str:
    """One line about an experiment: "ok  name: 34 metrics"."""
    if check.error is not None:
        return f"FAILED  {check.name}: {check.error}"
    failed = sum(row.failed for row in check.rows)
    moved = sum(row.verdict is not Verdict.SAME for row in check.rows)
    word = "FAILED" if failed else "ok"
    parts = [
        f"{len(check.rows)} compared",
        *([f"{moved} moved"] if moved else []),
        *([check.note] if check.note else []),
    ]
    return f"{word:6}  {check.name}: {', '.join(parts)}"


def write_markdown(report: CheckReport, file: Path) -> None:
    """The same table for a pull request or a job's summary."""
    lines = [f"### archsim check: {'passed' if report.ok else 'FAILED'}", ""]
    lines += [f"- {summary(check)}" for check in report.experiments]
    for check in report.experiments:
        if moved := moved_rows(check):
            lines += ["", f"#### {check.name}", "", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
            lines += [f"| {' | '.join(cells(row))} |" for row in moved]
            sources = [f"{row.metric}: expected by {row.against}" for row in moved if row.against != BASELINE]
            lines += ["", *sources] if sources else []
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_junit(report: CheckReport, file: Path) -> None:
    """JUnit XML: an experiment is a suite, a metric a case (and so is the run itself)."""
    root = ElementTree.Element("testsuites")
    for check in report.experiments:
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=check.name,
            tests=str(len(check.rows) + 1),
            failures=str(sum(row.failed for row in check.rows)),
            errors=str(int(check.error is not None)),
            time=f"{check.seconds:.3f}",
        )
        run = ElementTree.SubElement(suite, "testcase", classname=check.name, name="runs", time=f"{check.seconds:.3f}")
        if check.error is not None:
            ElementTree.SubElement(run, "error", message=check.error)
        for row in check.rows:
            case = ElementTree.SubElement(suite, "testcase", classname=check.name, name=label(row))
            if row.failed:
                _, reference, now, change, verdict = cells(row)
                message = f"{verdict}: {reference} -> {now} ({change}), against {row.against}"
                ElementTree.SubElement(case, "failure", message=message)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)


def _texts(reference: Metric | None, now: Metric | None) -> tuple[str, str]:
    """Both values; with as many digits as it takes to tell them apart."""
    texts = tuple("-" if metric is None else str(metric) for metric in (reference, now))
    if reference is None or now is None or texts[0] != texts[1] or reference.value == now.value:
        return texts[0], texts[1]
    for digits in range(5, 18):
        texts = tuple(f"{metric.value:.{digits}g} {metric.unit}" for metric in (reference, now))
        if texts[0] != texts[1]:
            break
    return texts[0], texts[1]


def _change(row: Row) -> str:
    if row.change is None:
        return "-"
    percent = 100 * row.change
    return f"{percent:+.2f} %" if abs(percent) >= 0.005 or percent == 0 else f"{percent:+.1e} %"

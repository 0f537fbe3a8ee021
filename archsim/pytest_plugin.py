"""A pytest plugin: simulated metrics in a test suite of one's own.

    def test_decode_has_not_moved(archsim_check):
        archsim_check("experiments/my_system")

Installing archsim brings the fixture; nothing of archsim is imported before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from archsim.commands.check import CheckReport

ArchsimCheck = Callable[..., "CheckReport"]


@pytest.fixture(scope="session")
def archsim_check() -> ArchsimCheck:
    """A function that runs experiments and fails the test if a metric regressed.

    `archsim_check(path, overrides=("workload.batch=8",))` takes what `archsim check` takes and returns the report.
    """

    def check(path: str | Path, overrides: Sequence[str] = ()) -> CheckReport:
        from archsim.commands.check import CheckReport, check_experiments, find_experiments
        from archsim.commands.check_report import cells
        from archsim.run import simulate

        files = find_experiments([path])
        report = CheckReport(tuple(check_experiments(files, lambda loaded: simulate(loaded).metrics(), overrides)))
        if not report.ok:
            errors = [f"{entry.name}: {entry.error}" for entry in report.experiments if entry.error]
            failed = [" ".join(cells(row)) for entry in report.experiments for row in entry.rows if row.failed]
            pytest.fail("\n".join([*errors, *failed]), pytrace=False)
        return report

    return check

"""What people look at: the HTML page, the timeline, matplotlib figures, terminal tables.

`ARTEFACTS` are the presentation files of a run directory: `write_run(directory, data, artefacts=ARTEFACTS)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from archsim.results import Artefact, RunData, RunResult


def _timeline(data: RunData, run: RunResult, path: Path) -> None:
    from archsim.report.timeline import write_timeline

    write_timeline(data, path)


def _page(data: RunData, run: RunResult, path: Path) -> None:
    from archsim.report.html import render

    path.write_text(render(run), encoding="utf-8")


ARTEFACTS: Mapping[str, Artefact] = {"timeline.json": _timeline, "report.html": _page}

"""What a worker does with a point. Everything in a task and an outcome can be sent to another process or machine."""

from __future__ import annotations

import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from archsim import __version__
from archsim.config.errors import UserError
from archsim.experiment import LoadedExperiment
from archsim.sweep.store import Outcome, Status

MEMO_BUDGET_BYTES = 256 << 20
"""Of a worker's memo: many workers share a machine's memory."""


@dataclass(frozen=True)
class Task:
    """A point to simulate; `keep` is where its run directory goes, if it is kept."""

    key: str
    loaded: LoadedExperiment
    keep: Path | None = None
    version: str = __version__


def simulate_point(task: Task) -> Outcome:
    """Simulate a point. Never raises: what goes wrong is in the outcome."""
    from archsim.memory.device import bound_memo
    from archsim.report import ARTEFACTS
    from archsim.results import write_run
    from archsim.run import simulate

    if task.version != __version__:
        return Outcome(task.key, Status.CRASHED, f"this worker has archsim {__version__}, the sweep {task.version}")
    started = time.perf_counter()
    bound_memo(MEMO_BUDGET_BYTES)
    try:
        data = simulate(task.loaded, command=("archsim", "sweep", str(task.loaded.loaded.file)))
        metrics = data.metrics()
    except UserError as error:
        return Outcome(task.key, Status.FAILED, str(error))
    except Exception as error:
        return Outcome(task.key, Status.CRASHED, _said(error))
    try:
        if task.keep is not None:
            write_run(task.keep, data, artefacts=ARTEFACTS)
    except Exception as error:  # a full disk, say: the numbers are good, but not what was asked for
        return Outcome(task.key, Status.CRASHED, _said(error))
    return Outcome(task.key, Status.OK, metrics=metrics, wall_seconds=time.perf_counter() - started)


def warm_worker(example: LoadedExperiment) -> None:
    """Load what simulating takes, and compile the kernels if need be."""
    from archsim.run import warm_up

    with suppress(UserError):  # this one doesn't fit; its own outcome will say so
        warm_up(example)


def _said(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"

"""Keeps every worker of an executor at work until there is nothing left to do."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from typing import Any

from archsim.config.errors import UserError
from archsim.experiment import LoadedExperiment
from archsim.sweep.executors import Answer, DaskExecutor, Executor, LocalExecutor
from archsim.sweep.store import Outcome, Status
from archsim.sweep.task import Task

TICK_SECONDS = 0.5
ATTEMPTS = 2
"""How often a point is tried whose worker dies."""

Job = tuple[int, Task]
"""A point's number and what to simulate."""


class Crew:
    """Hands out jobs and takes outcomes in, one job at a time per worker.

    Args:
        take: the next job for a worker (by name), None if there is none now.
        finished: told a job's number and its outcome; one whose worker died `ATTEMPTS` times has crashed.
        waiting: called now and then while nothing happens.
    """

    def __init__(
        self,
        take: Callable[[str], Job | None],
        finished: Callable[[int, Outcome], None],
        waiting: Callable[[], None],
    ) -> None:
        self._take, self._finished, self._waiting = take, finished, waiting
        self._again: list[Job] = []  # jobs whose worker died
        self._attempts: dict[int, int] = {}
        self._at_work: dict[str, int] = {}  # worker -> number
        self._answers: queue.SimpleQueue[tuple[str, Task, Answer]] = queue.SimpleQueue()

    def run(self, first: Job, executor: Executor) -> None:
        """Work until there is no job left, from the `first`. The executor is closed at the end."""
        self._again.append(first)
        at_once = True
        try:
            while self._give_out(executor):
                self._take_in()
            at_once = False
        finally:
            executor.close(at_once=at_once)

    def _give_out(self, executor: Executor) -> bool:
        """Give a job to every idle worker; False if nothing is left to do or under way."""
        for worker in executor.workers():
            if worker in self._at_work:
                continue
            following = self._again.pop() if self._again else self._take(worker)
            if following is None:
                break
            number, task = following
            self._at_work[worker] = number
            executor.submit(worker, task, lambda *answer: self._answers.put(answer))
        return bool(self._at_work)

    def _take_in(self) -> None:
        """Wait for an answer, for a moment."""
        try:
            worker, task, answer = self._answers.get(timeout=TICK_SECONDS)
        except queue.Empty:
            self._waiting()
            return
        number = self._at_work.pop(worker)
        if answer is not None:
            self._finished(number, answer)
            return
        self._attempts[number] = self._attempts.get(number, 0) + 1
        if self._attempts[number] < ATTEMPTS:
            self._again.append((number, task))
        else:
            error = f"its worker died, {ATTEMPTS} times: killed, or out of memory"
            self._finished(number, Outcome(task.key, Status.CRASHED, error))


def worker_count(workers: int | None, what: str) -> int:
    """How many processes to use, one per core by default. Raises UserError for less than one."""
    count = workers if workers is not None else len(os.sched_getaffinity(0))
    if count < 1:
        raise UserError(f"a {what} with {count} workers", expected="at least 1")
    return count


def executor_for(workers: int, dask: Any, example: LoadedExperiment) -> Executor:
    """Processes on this machine, or the workers of a dask cluster if one is given."""
    return DaskExecutor(dask, example) if dask is not None else LocalExecutor(workers, example)

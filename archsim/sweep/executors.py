"""Who simulates: processes on this machine, or the workers of a dask cluster. One point at a time each.

Both hand a finished point back by calling the function they are given, from a thread of their own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol

from archsim.config.errors import UserError
from archsim.experiment import LoadedExperiment
from archsim.sweep.store import Outcome
from archsim.sweep.task import Task, simulate_point, warm_worker

PARENT_CHECK_SECONDS = 0.5
DASK_CONNECT_SECONDS = 20

Answer = Outcome | None
"""What a worker made of a task; None if it was lost on the way (killed, out of memory)."""
Finished = Callable[[str, Task, Answer], None]
"""Told (worker, task, answer) when a task is over."""


class Executor(Protocol):
    """Workers by name."""

    def workers(self) -> Sequence[str]:
        """The workers there are now."""

    def submit(self, worker: str, task: Task, finished: Finished) -> None:
        """Have a worker that is idle simulate a point."""

    def close(self, *, at_once: bool) -> None:
        """Let the workers go; `at_once`: without waiting for the points under way."""


# ---------------------------------------------------------------- this machine


class LocalExecutor:
    """A pool of `count` processes, each a pool of its own, so that one which dies takes no other along.

    The first one compiles the kernels that `example` needs, the others find them compiled."""

    def __init__(self, count: int, example: LoadedExperiment) -> None:
        self._example = example
        self._pools: dict[str, ProcessPoolExecutor] = {}
        self._processes: dict[str, set[Any]] = {}
        first, *others = (f"worker {number}" for number in range(1, count + 1))
        try:
            _answer(self._started(first))
            for future in [self._started(name) for name in others]:
                _answer(future)
        except BaseException:
            self.close(at_once=True)
            raise

    def workers(self) -> Sequence[str]:
        return list(self._pools)

    def submit(self, worker: str, task: Task, finished: Finished) -> None:
        def hand_back(future: Future[Outcome]) -> None:
            lost = future.cancelled() or future.exception() is not None
            finished(worker, task, None if lost else future.result())

        try:
            future = self._pools[worker].submit(simulate_point, task)
        except BrokenProcessPool:  # it died with its last point: a new one takes its place
            self._pools[worker].shutdown()
            _answer(self._started(worker))
            future = self._pools[worker].submit(simulate_point, task)
        future.add_done_callback(hand_back)

    def close(self, *, at_once: bool) -> None:
        if at_once:
            for process in {process for processes in self._processes.values() for process in processes}:
                process.terminate()
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)

    def _started(self, worker: str) -> Future[None]:
        # Spawned, not forked: this process may have threads, and a notebook has.
        context = multiprocessing.get_context("spawn")
        self._pools[worker] = ProcessPoolExecutor(1, mp_context=context, initializer=_enlist, initargs=(os.getpid(),))
        before = set(multiprocessing.active_children())
        with _spawning():
            future = self._pools[worker].submit(warm_worker, self._example)
            self._processes[worker] = set(multiprocessing.active_children()) - before
        return future


def _answer(started: Future[None]) -> None:
    """Wait until a worker has started. Raises UserError if it died."""
    try:
        started.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process died while it started", expected="enough memory; or fewer --workers"
        ) from None


def _enlist(parent: int) -> None:
    """Set a worker up: if its parent is killed, it ends too."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)


@contextmanager
def _spawning() -> Iterator[None]:
    """How this process looks while it spawns another.

    A spawned process imports its parent's main module anew, so a script that starts a sweep at its top level would
    start it again; workers need nothing of it. And they inherit that SIGINT is blocked: Ctrl-C, which a terminal sends
    to all processes, is for the parent to handle.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        with _interrupts_later():
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                yield
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C waits until the end of the block: a process that is half spawned could not be ended cleanly."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread is interrupted
        yield
        return
    pressed: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if pressed:
        raise KeyboardInterrupt


# ---------------------------------------------------------------- a cluster


class DaskExecutor:
    """The workers of a dask cluster, those that join later included.

    `cluster` is a scheduler's address ("tcp://host:8786"), the path of its scheduler file, a cluster object (of
    dask-jobqueue, dask-kubernetes, ...) or a client. Raises UserError if there is none.
    """

    def __init__(self, cluster: Any, example: LoadedExperiment) -> None:
        self._client, self._own = _client(cluster)
        self._futures: set[Any] = set()
        try:
            self._client.wait_for_workers(1, timeout=None)
            first = self.workers()[0]
            self._client.submit(warm_worker, example, workers=[first], allow_other_workers=True, pure=False).result()
        except BaseException:
            self.close(at_once=True)
            raise

    def workers(self) -> Sequence[str]:
        return list(self._client.scheduler_info(n_workers=-1)["workers"])

    def submit(self, worker: str, task: Task, finished: Finished) -> None:
        def hand_back(future: Any) -> None:
            self._futures.discard(future)
            lost = future.status != "finished"
            finished(worker, task, None if lost else future.result())

        # Where the worker is gone by now, another may take its point.
        future = self._client.submit(simulate_point, task, workers=[worker], allow_other_workers=True, pure=False)
        self._futures.add(future)
        future.add_done_callback(hand_back)

    def close(self, *, at_once: bool) -> None:
        if at_once:
            self._client.cancel(list(self._futures))
        if self._own:
            self._client.close()


def _client(cluster: Any) -> tuple[Any, bool]:
    """A client, and whether it was made here."""
    try:
        from distributed import Client
    except ImportError:
        message = "a sweep on a cluster needs dask.distributed"
        raise UserError(message, expected="pip install 'archsim[cluster]'") from None
    if isinstance(cluster, Client):
        return cluster, False
    try:
        if isinstance(cluster, str | os.PathLike) and str(cluster).endswith(".json"):
            return Client(scheduler_file=str(cluster), timeout=DASK_CONNECT_SECONDS), True
        return Client(cluster, timeout=DASK_CONNECT_SECONDS), True
    except (OSError, ValueError) as error:
        message = f"there is no dask scheduler at {cluster}: {error}"
        raise UserError(message, expected="an address such as tcp://host:8786, or a scheduler file") from None

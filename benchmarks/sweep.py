"""How many points a second a sweep does with one worker and with two, and how much memory a long one takes.

    python benchmarks/sweep.py [--points 200] [--rounds 2]       rates, in turn, and their ratio
    python benchmarks/sweep.py --memory [--points 10000]         peak memory of parent and workers together

Rates are of points of experiments/sweep_llama3_70b on two memories, the start of the workers left out. Other programs
on the machine lower both rates; the CPU time per point, of the parent and of the workers, is what each process got and
tells what two idle cores would do: two workers are worth 2 x (CPU of one worker's point) / (CPU of a point in all).

The long sweep is of two small layers, so that it takes minutes: batch x context x row timing, whose every value starts
the memo of a memory anew.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import archsim

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from small_experiment import write_phases

GIB = 1 << 30
LIMIT_BYTES = 2 * GIB
SAMPLE_SECONDS = 0.25
EXPLORED = "sweep_llama3_70b"
TIMINGS = 20
BATCHES = 10


@dataclass(frozen=True)
class Cost:
    """What a sweep took: wall seconds, and CPU seconds of the parent and of its workers."""

    points: int
    wall_s: float
    parent_s: float
    worker_s: float

    def beyond(self, start: Cost) -> Cost:
        """Without what a sweep of a few points took: mostly the start of the workers."""
        return Cost(
            self.points - start.points,
            self.wall_s - start.wall_s,
            self.parent_s - start.parent_s,
            self.worker_s - start.worker_s,
        )

    @property
    def points_per_s(self) -> float:
        return self.points / self.wall_s

    @property
    def cpu_s(self) -> float:
        return self.parent_s + self.worker_s

    def __str__(self) -> str:
        worker_ms, parent_ms = (1e3 * seconds / self.points for seconds in (self.worker_s, self.parent_s))
        cpu = f"CPU per point {worker_ms:.1f} ms of workers, {parent_ms:.1f} ms of the parent"
        return f"{self.points_per_s:5.1f} points/s; {cpu}; load {os.getloadavg()[0]:.1f}"


def cpu_s(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def measured(
    experiment: str | Path, space: dict[str, Any], workers: int, changes: Sequence[str] = (), *, page: bool = False
) -> Cost:
    """The cost of a sweep in a new directory."""
    parent, children = cpu_s(resource.RUSAGE_SELF), cpu_s(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        frame = archsim.sweep(experiment, space, changes, out=out, workers=workers)
        seconds = time.perf_counter() - started
        if page:
            frame.page(Path(out) / "sweep.html")
    assert (frame["status"] == "ok").all(), frame["error"].dropna().head().tolist()
    now_parent, now_children = cpu_s(resource.RUSAGE_SELF), cpu_s(resource.RUSAGE_CHILDREN)
    return Cost(len(frame), seconds, now_parent - parent, now_children - children)


def rates(points: int, rounds: int) -> None:
    """Print the rates of one and of two workers, measured in turn, and what the second one is worth."""
    batches = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64]
    memories = {"H200": {}, "per-bank refresh": {"system.device.memory.controller.refresh": "per_bank"}}

    def space(contexts: int) -> dict[str, Any]:
        context = {"from": 512, "to": 32768, "points": contexts, "scale": "log", "multiple_of": 128}
        return {
            "memory": {"cases": memories},
            "workload.batch": batches if contexts > 1 else batches[:1],
            "workload.decode.context_tokens": context,
        }

    many = max(2, points // (len(memories) * len(batches)))
    measured(EXPLORED, space(1), 2)  # compiles what has to be
    best: dict[int, Cost] = {}
    for turn in range(rounds):
        for workers in (1, 2):
            start = measured(EXPLORED, space(1), workers)
            cost = measured(EXPLORED, space(many), workers).beyond(start)
            print(f"round {turn + 1}, workers {workers}: {cost}", flush=True)
            if workers not in best or cost.points_per_s > best[workers].points_per_s:
                best[workers] = cost
    one, two = best[1], best[2]
    print(f"1 worker   {one.points_per_s:6.1f} points/s")
    print(f"2 workers  {two.points_per_s:6.1f} points/s")
    print(f"ratio      {two.points_per_s / one.points_per_s:6.2f}")
    by_cpu = 2 * (one.worker_s / one.points) / (two.cpu_s / two.points)
    print(f"by CPU     {by_cpu:6.2f}  (two cores with nothing else to do)")


class Watch(threading.Thread):
    """Samples the memory of this process and its children."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.parts: list[int] = []
        self.marks: list[tuple[float, int]] = []
        self._done = threading.Event()

    def run(self) -> None:
        me, started = psutil.Process(), time.monotonic()
        while not self._done.wait(SAMPLE_SECONDS):
            parts = []
            for process in (me, *me.children(recursive=True)):
                try:
                    parts.append(process.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
            self.marks.append((time.monotonic() - started, sum(parts)))
            if sum(parts) > self.peak_bytes:
                self.peak_bytes, self.parts = sum(parts), parts

    def finish(self) -> None:
        self._done.set()
        self.join()


def memory(points: int, workers: int) -> bool:
    """Print the peak memory of a sweep of small experiments; whether it stays below the limit."""
    contexts = max(1, points // (TIMINGS * BATCHES))
    space = {
        "system.device.memory.technology.timings.tRP": [f"{6.5 + 0.5 * i} ns" for i in range(TIMINGS)],
        "workload.batch": [1 + i for i in range(BATCHES)],
        "workload.decode.context_tokens": {"from": 64, "to": 64 * contexts, "points": contexts},
    }
    with tempfile.TemporaryDirectory() as folder:
        file = write_phases(Path(folder))
        watch = Watch()
        watch.start()
        cost = measured(file, space, workers, ("workload.prefill=null",), page=True)
        watch.finish()
    print(f"{cost.points} points, workers {workers}: {cost}")
    for share in (0.1, 0.25, 0.5, 0.75, 1.0):
        at_s, size = watch.marks[min(len(watch.marks) - 1, int(share * len(watch.marks)))]
        print(f"  after {at_s:6.0f} s: {size / GIB:.2f} GiB")
    parts = " + ".join(f"{part / GIB:.2f}" for part in watch.parts)
    print(f"peak memory {watch.peak_bytes / GIB:.2f} GiB ({parts}: parent, others), limit {LIMIT_BYTES / GIB:.0f} GiB")
    return watch.peak_bytes < LIMIT_BYTES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, help="points of a sweep: 200, or 10000 with --memory")
    parser.add_argument("--rounds", type=int, default=2, help="how often the rates are measured")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of the long sweep")
    parser.add_argument("--memory", action="store_true", help="measure memory, not rates")
    asked = parser.parse_args()
    if asked.memory:
        raise SystemExit(0 if memory(asked.points or 10000, asked.workers) else "above the limit")
    rates(asked.points or 200, asked.rounds)


if __name__ == "__main__":
    main()

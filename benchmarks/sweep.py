"""How many points a second a sweep does with one worker and with two, and how much memory a long one takes.

    python benchmarks/sweep.py [--points 200] [--rounds 2]       rates, in turn, and their ratio
    python benchmarks/sweep.py --memory [--points 10000]         peak memory of parent and workers together

Rates are of points of experiments/sweep_llama3_70b, after one round that compiles and warms up. Other programs on the
machine lower both rates; the CPU time per point, of the parent and of the workers, is what each process got and tells
what two idle cores would do: a second worker is worth 2 x (worker) / (worker + parent).

The long sweep is of two small layers, so that it takes minutes: batch x context x row timing, whose every value starts
the memo of a memory anew.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import archsim

GIB = 1 << 30
LIMIT_BYTES = 2 * GIB
SAMPLE_SECONDS = 0.25
WARM = 20
TIMINGS = 20
BATCHES = 10

LAYERS = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
EXPERIMENT = """\
kind: experiment
name: two small layers
system: h200
workload:
  kind: phases
  model: ./config.json
  decode: {context_tokens: 512}
"""


@dataclass(frozen=True)
class Rate:
    """One sweep: points a second, and CPU milliseconds per point of the parent and of its workers."""

    points_per_s: float
    parent_ms: float
    worker_ms: float


def cpu_s(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def measured(experiment: str | Path, space: dict[str, Any], workers: int, *, page: bool = False) -> Rate:
    """The rate of a sweep in a new directory, its start included."""
    parent, children = cpu_s(resource.RUSAGE_SELF), cpu_s(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        frame = archsim.sweep(experiment, space, out=out, workers=workers)
        seconds = time.perf_counter() - started
        if page:
            frame.page(Path(out) / "sweep.html")
    assert (frame["status"] == "ok").all(), frame["error"].dropna().head().tolist()
    points = len(frame)
    return Rate(
        points / seconds,
        (cpu_s(resource.RUSAGE_SELF) - parent) / points * 1e3,
        (cpu_s(resource.RUSAGE_CHILDREN) - children) / points * 1e3,
    )


def rates(points: int, rounds: int) -> None:
    """Print the rates of one and of two workers, measured in turn, and what the second one is worth."""
    contexts = {"from": 512, "to": 32768, "points": max(1, points // BATCHES), "scale": "log", "multiple_of": 128}
    batches = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64]
    space = {"workload.batch": batches, "workload.decode.context_tokens": contexts}
    few = {"workload.batch": batches[:2], "workload.decode.context_tokens": [512, 1024]}
    measured("sweep_llama3_70b", few, 2)
    best: dict[int, Rate] = {}
    for turn in range(rounds):
        for workers in (1, 2):
            rate = measured("sweep_llama3_70b", space, workers)
            print(
                f"round {turn + 1}, workers {workers}: {rate.points_per_s:5.1f} points/s, CPU per point: "
                f"{rate.worker_ms:.0f} ms of workers, {rate.parent_ms:.1f} ms of the parent; "
                f"load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
            if workers not in best or rate.points_per_s > best[workers].points_per_s:
                best[workers] = rate
    one, two = best[1], best[2]
    print(f"1 worker   {one.points_per_s:6.1f} points/s")
    print(f"2 workers  {two.points_per_s:6.1f} points/s")
    print(f"ratio      {two.points_per_s / one.points_per_s:6.2f}")
    print(f"by CPU     {2 * one.worker_ms / (two.worker_ms + two.parent_ms):6.2f}  (two cores with nothing else to do)")


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
        (Path(folder) / "config.json").write_text(json.dumps(LAYERS))
        file = Path(folder) / "experiment.yaml"
        file.write_text(EXPERIMENT)
        watch = Watch()
        watch.start()
        rate = measured(file, space, workers, page=True)
        watch.finish()
    done = TIMINGS * BATCHES * contexts
    print(f"{done} points, {workers} workers: {rate.points_per_s:.1f} points/s, load {os.getloadavg()[0]:.1f}")
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

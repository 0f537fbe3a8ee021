"""How soon random search, TPE, NSGA-II and a genetic baseline find a good memory controller.

    python benchmarks/search.py [--seeds 10] [--trials 200] [--out docs/images/search.png]

The task is that of the Gymnasium environment: 20000 mixed requests on a channel of HBM3. Six of its knobs make a space
small enough to be simulated whole, so the best there is is known. Prints a table and draws the curves: the median over
the seeds, and the band that half of them lie in.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import optuna
from numpy.typing import NDArray

from archsim.gym import Observation, ReplayTask
from archsim.report.style import GRID, INK, MUTED, PEAK
from archsim.sweep.search_spec import SamplerName
from archsim.sweep.study import sampler_of

COLOURS = {"random": "#8A9099", "tpe": "#0072B2", "nsga2": "#D55E00", "genetic": "#009E73"}
LABELS = {"random": "random", "tpe": "TPE", "nsga2": "NSGA-II (50)", "genetic": "genetic (20)"}
KNOBS = ("read_queue", "write_queue", "write_high", "write_low", "refresh", "address_map")
"""Of the environment's knobs: all of them together would be too many controllers to simulate."""
CLOSE = 0.02
"""A product this share above the least is close enough."""

Floats = NDArray[np.float64]


class Space:
    """Every controller, simulated once. `products[action]` is latency x energy, over that of the usual controller."""

    def __init__(self, task: ReplayTask) -> None:
        knobs = [knob for knob in task.knobs if knob.name in KNOBS]
        self.sizes = [len(knob) for knob in knobs]
        self.names = [knob.name for knob in knobs]
        self.usual = task.measure([])
        self.found: dict[tuple[int, ...], Observation] = {}
        for action in itertools.product(*(range(size) for size in self.sizes)):
            self.found[action] = task.measure([k.choices[i] for k, i in zip(knobs, action, strict=True)])
        self.products = {action: self.product(seen) for action, seen in self.found.items()}
        self.least = min(self.products.values())

    def product(self, seen: Observation) -> float:
        return seen.latency * seen.energy / (self.usual.latency * self.usual.energy)

    def ask(self, trial: optuna.Trial) -> tuple[int, ...]:
        pairs = zip(self.names, self.sizes, strict=True)
        return tuple(trial.suggest_int(name, 0, size - 1) for name, size in pairs)


def best_so_far(space: Space, sampler: SamplerName, seed: int, trials: int) -> Floats:
    """The least product after each trial."""
    study = optuna.create_study(sampler=sampler_of(sampler, seed))
    study.optimize(lambda trial: space.products[space.ask(trial)], n_trials=trials)
    return np.minimum.accumulate([trial.value for trial in study.trials])


def volume_so_far(space: Space, sampler: SamplerName, seed: int, trials: int) -> Floats:
    """What the front of (latency, energy) dominates after each trial, up to twice the usual controller's."""
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler_of(sampler, seed))

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        seen = space.found[space.ask(trial)]
        return seen.latency / space.usual.latency, seen.energy / space.usual.energy

    study.optimize(objective, n_trials=trials)
    points = [tuple(trial.values) for trial in study.trials]
    return np.array([hypervolume(points[: n + 1]) for n in range(trials)])


def hypervolume(points: Sequence[Sequence[float]], corner: float = 2.0) -> float:
    """The area between the points' front and (corner, corner), both coordinates to be small."""
    area, height = 0.0, corner
    for x, y in sorted(points):
        if x < corner and y < height:
            area += (corner - x) * (height - y)
            height = y
    return area


def draw(axes: plt.Axes, curves: dict[str, Floats], title: str, best: float) -> None:
    """Medians and the middle half of the seeds, [seeds][trials] each."""
    for name, runs in curves.items():
        low, middle, high = np.percentile(runs, [25, 50, 75], axis=0)
        trials = np.arange(1, runs.shape[1] + 1)
        axes.plot(trials, middle, color=COLOURS[name], label=LABELS[name], linewidth=1.8)
        axes.fill_between(trials, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)
    axes.axhline(best, color=PEAK, linewidth=1, linestyle="--")
    axes.annotate("the best there is", (1, best), xytext=(3, 3), textcoords="offset points", color=PEAK, fontsize=8)
    axes.set_title(title, loc="left", color=INK, fontsize=10)
    axes.set_xlabel("trials", color=MUTED)
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("docs/images/search.png"))
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    began = time.perf_counter()
    space = Space(ReplayTask())
    seconds = time.perf_counter() - began
    close = sum(value <= space.least * (1 + CLOSE) for value in space.products.values())
    print(f"{len(space.found)} controllers in {seconds:.1f} s; least latency x energy {space.least:.4f} of the usual")
    print(f"{close} of them are within {CLOSE:.0%} of it")

    seeds = range(options.seeds)
    samplers = list(SamplerName)
    curves = {s.value: np.array([best_so_far(space, s, seed, options.trials) for seed in seeds]) for s in samplers}
    several = [s for s in samplers if s is not SamplerName.GENETIC]
    areas = {s.value: np.array([volume_so_far(space, s, seed, options.trials) for seed in seeds]) for s in several}
    points = [(o.latency / space.usual.latency, o.energy / space.usual.energy) for o in space.found.values()]
    whole = hypervolume(points)

    marks = [mark for mark in (25, 50, 100, 200) if mark <= options.trials]
    print(
        "\nmedian distance to the least, after so many trials; seeds that came within 2 %; trials until then (median)"
    )
    for name, runs in curves.items():
        gaps = [f"{100 * (np.median(runs[:, mark - 1]) / space.least - 1):6.2f} %" for mark in marks]
        within = runs <= space.least * (1 + CLOSE)
        first = np.where(within.any(axis=1), within.argmax(axis=1) + 1.0, np.inf)
        reached = f"{int(within.any(axis=1).sum())}/{len(seeds)}"
        print(f"{name:8} {'  '.join(gaps)}  {reached:>6}  {np.median(first):6.0f}")
    print("\nmedian share of the whole front's hypervolume, after so many trials")
    for name, runs in areas.items():
        print(f"{name:8} " + "  ".join(f"{100 * np.median(runs[:, mark - 1]) / whole:6.2f} %" for mark in marks))

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    draw(left, curves, "Latency x energy, best so far (1: usual controller)", space.least)
    draw(right, {name: runs / whole for name, runs in areas.items()}, "Latency and energy: share of hypervolume", 1.0)
    left.set_ylim(space.least * 0.93, float(np.percentile(curves["random"][:, 4], 75)))
    right.set_ylim(0.8, 1.02)
    left.legend(frameon=False, fontsize=8)
    figure.savefig(options.out, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()

"""How fast the router kernel is: cycles per second of an 8 x 8 mesh over its load, against BookSim 2.

python benchmarks/noc.py [--cycles N] [--repeats N] [--json]

BookSim 2 does 2 to 9 thousand cycles per second at 64 routers on a machine of this kind (commit 28f4329). That is all
that is known of it: the 9 are taken for the lowest load, the 2 for loads next to saturation, and between them the time
per cycle is taken to grow in proportion to the load.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from archsim.config.loading import load_spec, resolve_preset
from archsim.fabric.noc import RouterNetwork, build_network
from archsim.fabric.noc_spec import NocSpec
from archsim.fabric.noc_traffic import Generator, load

BOOKSIM_FASTEST, BOOKSIM_SLOWEST = 9e3, 2e3
"""Cycles per second of BookSim 2, at the lowest load and next to saturation."""

LOADS = {
    "mesh8x8_booksim": (0.001, 0.1, 0.2, 0.3, 0.34, 0.35),
    "mesh8x8_booksim_20flit": (0.0005, 0.005, 0.01, 0.015, 0.02),
}
"""Packets per node and cycle."""

SATURATION_FLITS = {"mesh8x8_booksim": 0.355, "mesh8x8_booksim_20flit": 0.425}
"""Flits per node and cycle that each takes at most."""


@dataclass(frozen=True)
class Speed:
    """Cycles per second of a network's kernel under a load, making the packets included."""

    preset: str
    rate: float
    cycles_per_second: float
    hops_per_second: float
    booksim: float

    @property
    def ratio(self) -> float:
        """How many times as fast as BookSim 2."""
        return self.cycles_per_second / self.booksim


def booksim_speed(load: float) -> float:
    """BookSim 2's cycles per second at a share of saturation."""
    fastest, slowest = 1 / BOOKSIM_FASTEST, 1 / BOOKSIM_SLOWEST
    return 1 / (fastest + (slowest - fastest) * min(1.0, load))


def measure(preset: str, network: RouterNetwork, rate: float, cycles: int, repeats: int) -> Speed:
    """The fastest of `repeats` stretches of `cycles`, in processor time: what else runs can only slow one down."""
    run, traffic = network.start(), Generator(network.spec, rate)
    load(run, traffic, cycles // 5)  # warms up, and compiles
    results = []
    for _ in range(repeats):
        first, crossed = run.now, run.counts.crossed_flits
        start = time.process_time()
        load(run, traffic, first + cycles)
        seconds = time.process_time() - start
        results.append((cycles / seconds, (run.counts.crossed_flits - crossed) / seconds))
    speed, hops = max(results)
    share = rate * network.spec.traffic.packet_flits / SATURATION_FLITS[preset]
    return Speed(preset, rate, speed, hops, booksim_speed(share))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cycles", type=int, default=20_000, help="cycles of each stretch")
    parser.add_argument("--repeats", type=int, default=9, help="stretches of each load, of which the fastest counts")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    speeds = []
    for preset, rates in LOADS.items():
        network = build_network(load_spec(resolve_preset(preset, Path()), NocSpec).spec)
        speeds += [measure(preset, network, rate, options.cycles, options.repeats) for rate in rates]
    if options.json:
        print(json.dumps({"noc": [{**asdict(speed), "ratio": speed.ratio} for speed in speeds]}))
        return
    print(f"8 x 8 mesh, thousand cycles per second of processor time (load of the machine: {os.getloadavg()[0]:.1f})")
    print(f"{'network':26}{'packets':>9}{'archsim':>10}{'M hops/s':>10}{'BookSim 2':>11}{'ratio':>8}")
    for speed in speeds:
        print(
            f"{speed.preset:26}{speed.rate:9.4g}{speed.cycles_per_second / 1e3:10.0f}"
            f"{speed.hops_per_second / 1e6:10.1f}{speed.booksim / 1e3:11.1f}{speed.ratio:8.0f}"
        )


if __name__ == "__main__":
    main()

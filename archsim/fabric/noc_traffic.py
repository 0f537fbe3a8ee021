"""Synthetic traffic: who sends to whom, and a spec's packets at a rate."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import numpy as np

from archsim.fabric.noc import Ints, NetworkRun
from archsim.fabric.noc_spec import Mesh, NocSpec, Pattern, Ring, Torus
from archsim.kernels.traffic import RATE_BITS, generate, mixed

_DRAWS = 1 << 14
"""Nodes times cycles for which packets are made in one go: so few that they stay in the cache."""


class Generator:
    """Packets of a spec's traffic at a rate: the same from the same seed (`run` counts on from it), in any pieces."""

    def __init__(self, spec: NocSpec, rate: float, run: int = 0) -> None:
        traffic = spec.traffic
        self._nodes = spec.nodes
        self._rate = round(Fraction(rate) * (1 << RATE_BITS))
        self._flits = traffic.packet_flits
        self._table = destinations(spec)
        self._hot = np.array(traffic.hotspots, np.int64)
        self._hot_share = round(Fraction(traffic.hotspot_share or 0) * (1 << RATE_BITS))
        self._seed = np.uint64(mixed(np.uint64(spec.measurement.seed + run)))

    def packets(self, first: int, after: int) -> Ints:
        """The packets created in the cycles [first, after): int64[n, 4]."""
        room = np.empty((self.most(first, after), 4), np.int64)
        return room[: self.write(first, after, room)].copy()

    def most(self, first: int, after: int) -> int:
        """How many packets may be created in the cycles [first, after)."""
        return (after - first) * self._nodes

    def write(self, first: int, after: int, packets: Ints) -> int:
        """Write those of `packets(first, after)` to an int64[most(first, after), 4]; returns how many."""
        count: int = generate(
            self._seed,
            self._nodes,
            self._rate,
            self._flits,
            self._table,
            self._hot,
            self._hot_share,
            first,
            after,
            packets,
        )
        return count


def load(run: NetworkRun, traffic: Generator, until: int) -> None:
    """Run a network under its traffic to cycle `until`, in pieces that fit a cache; they make the same run."""
    step = max(1, _DRAWS // run.nodes)
    while run.now < until:
        after = min(run.now + step, until)
        run.write(traffic.most(run.now, after), partial(traffic.write, run.now, after))
        run.advance(after)


def destinations(spec: NocSpec) -> Ints:
    """Where each node sends to; -1 anywhere, -2 anywhere else."""
    nodes, pattern = spec.nodes, spec.traffic.pattern
    numbers = np.arange(nodes)
    bits = (nodes - 1).bit_length()
    match pattern:
        case Pattern.UNIFORM | Pattern.HOTSPOT:
            return np.full(nodes, -1, np.int64)
        case Pattern.UNIFORM_OTHERS:
            return np.full(nodes, -2, np.int64)
        case Pattern.BIT_COMPLEMENT:
            return nodes - 1 - numbers
        case Pattern.BIT_REVERSE:
            return np.array([sum((n >> b & 1) << (bits - 1 - b) for b in range(bits)) for n in range(nodes)], np.int64)
        case Pattern.SHUFFLE:
            return (numbers << 1 | numbers >> (bits - 1)) & (nodes - 1) if bits else numbers
        case Pattern.PERMUTATION:
            return np.random.default_rng(spec.measurement.seed).permutation(nodes).astype(np.int64)
    size = _extents(spec)
    at = np.stack(np.unravel_index(numbers, size[::-1])[::-1])  # the first dimension runs fastest
    extents = np.array(size)[:, None]
    if pattern is Pattern.TRANSPOSE:
        at = at[::-1]
    else:
        at = (at + ((extents + 1) // 2 - 1 if pattern is Pattern.TORNADO else 1)) % extents
    return np.asarray(np.ravel_multi_index(tuple(at[::-1]), size[::-1]), np.int64)


def _extents(spec: NocSpec) -> tuple[int, ...]:
    topology = spec.topology
    if isinstance(topology, Mesh | Torus):
        return topology.size
    assert isinstance(topology, Ring)  # the spec refuses coordinates elsewhere
    return (topology.nodes,)

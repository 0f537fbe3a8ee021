"""Random networks, routers and packets, and both simulations of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archsim.config.errors import UserError
from archsim.fabric.noc import NetworkRun, RouterNetwork, build_network
from archsim.fabric.noc_spec import NocSpec
from archsim.kernels.router_oracle import OracleRun, RouterOracle

Ints = NDArray[np.int64]

TOPOLOGIES: tuple[dict[str, Any], ...] = (
    {"kind": "mesh", "size": [3, 3]},
    {"kind": "mesh", "size": [2, 2, 2], "link_cycles": 2},
    {"kind": "mesh", "size": [5, 1]},
    {"kind": "torus", "size": [4, 3], "link_cycles": 2},
    {"kind": "torus", "size": [3, 3]},
    {"kind": "ring", "nodes": 6},
    {"kind": "crossbar", "nodes": 5, "link_cycles": 3},
    {"kind": "graph", "nodes": 5, "links": [[0, 1], [1, 2], [1, 3], [3, 4]]},
)


PLAIN_TOPOLOGIES: tuple[dict[str, Any], ...] = tuple(t for t in TOPOLOGIES if t["kind"] not in ("torus", "ring"))
WIDE_TOPOLOGIES: tuple[dict[str, Any], ...] = (
    {"kind": "mesh", "size": [3, 3]},
    {"kind": "crossbar", "nodes": 7},
)


@dataclass(frozen=True)
class NocCase:
    """A network, the packets sent into it, and the cycle in which to stop."""

    network: RouterNetwork
    packets: Ints
    until: int


def noc_spec(topology: dict[str, Any], router: dict[str, Any], algorithm: str = "dimension_order") -> NocSpec:
    """A spec whose traffic doesn't matter."""
    return NocSpec.model_validate(
        {
            "kind": "noc", "name": "test", "topology": topology, "router": router,
            "routing": {"algorithm": algorithm}, "traffic": {"rates": [0.1]},
        }
    )  # fmt: skip


def random_case(seed: int, until: int = 160) -> NocCase:
    """A small network under anything from light load to far too much."""
    rng = np.random.default_rng(seed)
    topology = TOPOLOGIES[rng.integers(len(TOPOLOGIES))]
    adaptive = topology["kind"] in ("mesh", "torus", "ring") and bool(rng.integers(2))
    vcs = int(rng.integers(3 if adaptive else 2, 6))
    router = {
        "virtual_channels": vcs,
        "buffer_flits": int(rng.integers(1, 6)),
        "input_speedup": int(rng.integers(1, min(vcs, 3) + 1)),
        "routing_cycles": int(rng.integers(0, 3)),
        "vc_alloc_cycles": int(rng.integers(1, 3)),
        "switch_alloc_cycles": int(rng.integers(1, 3)),
        "crossbar_cycles": int(rng.integers(1, 3)),
        "credit_cycles": int(rng.integers(0, 4)),
        "wait_for_tail_credit": bool(rng.integers(2)),
        "vc_allocator": {"kind": ["islip", "separable"][rng.integers(2)], "iterations": int(rng.integers(1, 4))},
        "switch_allocator": {"kind": ["islip", "separable"][rng.integers(2)], "iterations": int(rng.integers(1, 4))},
    }
    network = build_network(noc_spec(topology, router, "minimal_adaptive" if adaptive else "dimension_order"))
    return NocCase(network, random_packets(rng, network.wiring.nodes, until), until)


def plain_case(seed: int, until: int = 160) -> NocCase:
    """As `random_case`, of the form that the kernel is compiled for on its own: one output for each head to ask for,
    stages of one cycle, one iteration of iSLIP."""
    rng = np.random.default_rng(seed)
    topology = PLAIN_TOPOLOGIES[rng.integers(len(PLAIN_TOPOLOGIES))]
    vcs = int(rng.integers(1, 9))
    router = {
        "virtual_channels": vcs,
        "buffer_flits": int(rng.integers(1, 6)),
        "input_speedup": int(rng.integers(1, min(vcs, 3) + 1)),
        "crossbar_cycles": int(rng.integers(1, 3)),
        "credit_cycles": int(rng.integers(0, 4)),
        "wait_for_tail_credit": bool(rng.integers(2)),
    }
    network = build_network(noc_spec(topology, router))
    assert network.network.form.node_bits
    return NocCase(network, random_packets(rng, network.wiring.nodes, until), until)


def wide_case(seed: int, until: int = 100) -> NocCase:
    """As `random_case`, with more channels in a router than a word has bits."""
    rng = np.random.default_rng(seed)
    topology = WIDE_TOPOLOGIES[rng.integers(len(WIDE_TOPOLOGIES))]
    adaptive = topology["kind"] == "mesh" and bool(rng.integers(2))
    router = {
        "virtual_channels": int(rng.integers(11, 32)),
        "buffer_flits": int(rng.integers(1, 6)),
        "input_speedup": int(rng.integers(1, 9)),
        "wait_for_tail_credit": bool(rng.integers(2)),
        "vc_allocator": {"kind": ["islip", "separable"][rng.integers(2)], "iterations": int(rng.integers(1, 3))},
        "switch_allocator": {"kind": ["islip", "separable"][rng.integers(2)], "iterations": int(rng.integers(1, 3))},
    }
    network = build_network(noc_spec(topology, router, "minimal_adaptive" if adaptive else "dimension_order"))
    assert network.network.words > 1
    return NocCase(network, random_packets(rng, network.wiring.nodes, until), until)


def random_packets(rng: np.random.Generator, nodes: int, until: int) -> Ints:
    """Packets of one to seven flits, sorted by cycle; sometimes all for one node."""
    count = int(rng.integers(1, 40 * nodes))
    created = np.sort(rng.integers(0, until, count))
    to = rng.integers(0, nodes, count) if rng.integers(4) else np.full(count, rng.integers(nodes))
    longest = int(rng.integers(1, 8))
    return np.stack([created, rng.integers(0, nodes, count), to, rng.integers(1, longest + 1, count)], axis=1)


def run_kernel(case: NocCase, cuts: tuple[int, ...] = ()) -> NetworkRun:
    """The kernel's run, in pieces if `cuts` are given."""
    run = case.network.start(log_rows=400_000)
    run.add(case.packets)
    for cycle in (*sorted(cuts), case.until):
        run.advance(cycle)
    return run


def run_oracle(case: NocCase) -> OracleRun:
    """The oracle's run."""
    wiring, q = case.network.wiring, case.network.network
    links, cycles = {}, {}
    for (router, port), target in np.ndenumerate(wiring.link_to):
        if target == -1:
            continue
        links[router, port] = divmod(int(target), wiring.ports) if target >= 0 else (-1, -2 - int(target))
        cycles[router, port] = int(wiring.link_cycles[router, port])
    routes = {
        (router, destination): [(port, [v for v in range(q.vcs) if mask >> v & 1]) for port, mask in found]
        for router, row in enumerate(wiring.routes)
        for destination, found in enumerate(row)
    }
    return RouterOracle(q, links, cycles, routes, [tuple(row) for row in case.packets.tolist()]).run(case.until)


def differences(kernel: NetworkRun, oracle: OracleRun) -> list[str]:
    """What the two disagree on."""
    counts = kernel.counts
    log = sorted(map(tuple, kernel.log.tolist()))
    first = next((pair for pair in zip(log, oracle.log, strict=False) if pair[0] != pair[1]), None)
    checks = {
        "entered": (kernel.times[:, 0].tolist(), oracle.entered),
        "delivered": (kernel.times[:, 1].tolist(), oracle.delivered),
        "crossed": (counts.crossed_flits, oracle.crossed),
        "linked": (counts.linked_flits, oracle.linked),
        "grants": (counts.vc_grants, oracle.vc_grants),
        "log length": (len(log), len(oracle.log)),
        "first different move": (first, None),
    }
    return [f"{name}: {mine} {theirs}" for name, (mine, theirs) in checks.items() if mine != theirs]


__all__ = [
    "NocCase",
    "UserError",
    "differences",
    "noc_spec",
    "plain_case",
    "random_case",
    "random_packets",
    "run_kernel",
    "run_oracle",
    "wide_case",
]

"""The router kernel does what the oracle does, what a pencil says, and nothing that no network may do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noc_cases import (
    NocCase,
    differences,
    noc_spec,
    plain_case,
    random_case,
    random_packets,
    run_kernel,
    run_oracle,
    wide_case,
)

from archsim.config.errors import UserError
from archsim.fabric.noc import build_network
from archsim.fabric.noc_checker import check_moves
from archsim.fabric.noc_measure import zero_load_latency_cycles
from archsim.fabric.noc_spec import NocSpec
from archsim.fabric.noc_traffic import Generator, load
from archsim.kernels.router_state import DELIVERED, EJECT, HOP, INJECT

SEEDS = st.integers(0, 2**32 - 1)
ROUTER = {"virtual_channels": 4, "buffer_flits": 4}


@settings(max_examples=240, deadline=None)
@given(SEEDS)
def test_kernel_equals_oracle(seed: int) -> None:
    case = random_case(seed)
    assert differences(run_kernel(case), run_oracle(case)) == []


@settings(max_examples=120, deadline=None)
@given(SEEDS)
def test_the_common_form_equals_the_oracle_too(seed: int) -> None:
    case = plain_case(seed)
    assert differences(run_kernel(case), run_oracle(case)) == []


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_routers_with_many_channels_equal_the_oracle_too(seed: int) -> None:
    case = wide_case(seed)
    assert differences(run_kernel(case), run_oracle(case)) == []


def test_a_network_that_fills_its_room_equals_the_oracle_too() -> None:
    """64 nodes and 8 channels of 8 flits: offsets that are constants of the code leave room for no more."""
    network = build_network(noc_spec({"kind": "mesh", "size": [8, 8]}, {"virtual_channels": 8, "buffer_flits": 8}))
    assert network.network.routers == 1 << len(network.network.form.node_bits)
    packets = random_packets(np.random.default_rng(3), 64, 60)
    case = NocCase(network, packets, 60)
    assert differences(run_kernel(case), run_oracle(case)) == []


@pytest.mark.parametrize(
    ("topology", "router"),
    [
        ({"kind": "mesh", "size": [9, 8]}, {"virtual_channels": 8, "buffer_flits": 8}),
        ({"kind": "crossbar", "nodes": 15}, {"virtual_channels": 4, "buffer_flits": 9}),
        ({"kind": "crossbar", "nodes": 3}, {"virtual_channels": 12, "buffer_flits": 4}),
        ({"kind": "crossbar", "nodes": 31}, {"virtual_channels": 2, "buffer_flits": 4}),
    ],
)
def test_a_room_holds_its_network(topology: dict[str, Any], router: dict[str, Any]) -> None:
    """Whatever a network larger than the least room is rounded up to, no part of it overlaps the next."""
    q = build_network(noc_spec(topology, router)).network
    assert q.form.node_bits
    assert q.depth <= 1 << len(q.form.ring_bits) == q.ring_mask + 1 <= q.input_stride
    assert max(q.routers, q.nodes) <= 1 << len(q.form.node_bits)
    assert q.ports <= 1 << q.port_bits and q.vcs <= 1 << q.vc_bits and q.ports << q.vc_bits <= 62
    ports = q.routers << q.port_bits
    assert q.crossbar_at - q.inputs_at >= (ports << q.vc_bits) * q.input_stride
    assert q.credits_at - q.outputs_at >= (ports + q.nodes) * q.output_stride
    assert q.credits - q.flits >= 4 * (q.routers * q.ports + q.nodes)
    assert q.wakes - q.credits >= q.routers * q.ports * q.input_speedup + q.nodes
    assert q.slot_stride - q.wakes >= q.routers * q.ports * (q.vcs + 2 * q.input_speedup + 3)
    assert q.table_length - q.route >= q.routers * q.nodes


def test_a_load_is_its_packets() -> None:
    """Packets made in place are the ones that `packets` gives, and make the same run."""
    spec = noc_spec({"kind": "mesh", "size": [4, 4]}, ROUTER)
    network, traffic = build_network(spec), Generator(spec, 0.2)
    loaded, added = network.start(), network.start()
    load(loaded, traffic, 2_100)  # more than is made in one go
    added.add(traffic.packets(0, 2_100))
    added.advance(2_100)
    assert np.array_equal(loaded.packets, added.packets) and np.array_equal(loaded.times[:, :2], added.times[:, :2])


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.lists(st.integers(1, 159), min_size=1, max_size=30))
def test_a_run_in_pieces_is_the_same_run(seed: int, cuts: list[int]) -> None:
    case = random_case(seed)
    whole, pieces = run_kernel(case), run_kernel(case, tuple(cuts))
    assert np.array_equal(whole.times[:, :2], pieces.times[:, :2])
    assert np.array_equal(np.unique(whole.log, axis=0), np.unique(pieces.log, axis=0))
    assert whole.counts == pieces.counts


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_everything_arrives_and_the_checker_agrees(seed: int) -> None:
    case = random_case(seed, until=60)
    run = case.network.start(log_rows=400_000)
    run.add(case.packets)
    run.advance()
    flits = int(case.packets[:, 3].sum())
    assert (run.times[:, DELIVERED] >= 0).all() and run.in_flight == 0
    assert run.counts.injected_flits == run.counts.ejected_flits == flits
    assert check_moves(case.network, run.packets, run.log) == []
    q = case.network.network
    credits = run.state[q.credits_at : q.grants_at]
    assert (credits == q.depth).all(), "a credit didn't come home"


MUTATIONS = ("swap flits", "double hop", "early", "wrong route", "lost", "overfull", "shared channel")


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_checker_sees_a_planted_fault(mutation: str) -> None:
    router = {"virtual_channels": 2, "buffer_flits": 2, "credit_cycles": 2, "wait_for_tail_credit": True}
    network = build_network(noc_spec({"kind": "mesh", "size": [3, 3]}, router))
    run = network.start(log_rows=100_000)
    packets = random_packets(np.random.default_rng(5), 9, 40)
    packets[:, 3] = 3
    run.add(packets)
    run.advance()
    log = run.log.copy()
    assert check_moves(network, run.packets, log) == []
    hops = np.flatnonzero(log[:, 1] == HOP)
    bodies = hops[log[hops, 5] > 0]
    row = int(bodies[len(bodies) // 2])
    match mutation:
        case "swap flits":
            log[row, 5] -= 1
        case "double hop":
            same = hops[log[hops, 0] == log[row, 0]]
            log[same, 3] = log[row, 3]
            log = np.concatenate([log, log[[row]]])
        case "early":
            heads = hops[log[hops, 5] == 0]
            log[heads[3], 0] -= 3
        case "wrong route":
            log[row, 3] ^= 1 << network.network.vc_bits
        case "lost":
            log = np.delete(log, np.flatnonzero(log[:, 1] == EJECT)[7], axis=0)
        case "overfull":
            log[log[:, 1] != INJECT, 0] += 500  # sources sent on though nothing had left
        case "shared channel":
            heads = hops[log[hops, 5] == 0]
            log[heads[9], 3] = log[heads[4], 3]
    assert check_moves(network, run.packets, log) != []


@pytest.mark.parametrize("field", ["credits", "free"])
def test_a_mutant_kernel_is_told_from_the_oracle(field: str) -> None:
    """A network that starts with one credit, or one channel, too few does not pass for the one that has it."""
    case = next(case for case in map(random_case, range(100)) if len(case.packets) > 150)
    run = case.network.start(log_rows=400_000)
    q = case.network.network
    local = int(np.flatnonzero(case.network.wiring.link_to[0] == -2)[0])
    if field == "credits":
        run.state[q.credits_at + (local << q.vc_bits)] -= 1
    else:
        run.state[q.outputs_at + local * q.output_stride] &= ~1
    run.add(case.packets)
    run.advance(case.until)
    assert differences(run, run_oracle(case)) != []


@pytest.mark.parametrize(
    ("topology", "hops"),
    [
        ({"kind": "mesh", "size": [8, 8]}, 2 * 63 / 24 + 1),  # 2 (k^2 - 1) / 3k links between, and one router more
        ({"kind": "mesh", "size": [4, 4, 4]}, 3 * 15 / 12 + 1),
        ({"kind": "torus", "size": [8, 8]}, 2 * 8 / 4 + 1),  # k/4 per dimension
        ({"kind": "ring", "nodes": 7}, (49 - 1) / 28 + 1),
        ({"kind": "crossbar", "nodes": 7}, 1),
    ],
)
def test_zero_load_latency_is_the_closed_form(topology: dict[str, Any], hops: float) -> None:
    """Every pair alone: 4 h + 2 cycles, and one per flit behind the head; and the mean is the formula's."""
    spec = noc_spec(topology, {"virtual_channels": 2, "buffer_flits": 8})
    network = build_network(spec)
    nodes = network.wiring.nodes
    assert zero_load_latency_cycles(network) == pytest.approx(4 * hops + 2, rel=1e-12)
    pairs = np.stack(np.divmod(np.arange(nodes**2), nodes), axis=1)[:: max(1, nodes**2 // 4096)]
    gap = 400
    packets = np.column_stack([np.arange(len(pairs)) * gap, pairs, np.full(len(pairs), 5)])
    delivery = network.deliver(packets)
    routers = np.array([_routers_on_the_way(network.wiring, *pair) for pair in pairs.tolist()])
    assert (delivery.delivered - packets[:, 0] == 4 * routers + 2 + 4).all()
    assert (delivery.entered == packets[:, 0]).all()


def _routers_on_the_way(wiring: Any, source: int, destination: int) -> int:
    router, count = wiring.router_of(source), 1
    while True:
        target = wiring.link_to[router, wiring.routes[router][destination][0][0]]
        if target < 0:
            return count
        router, count = target // wiring.ports, count + 1


def test_stages_add_up() -> None:
    """Two routers, three cycles of link: each stage counts once per router, the credit's way not at all."""
    router = {
        **ROUTER, "routing_cycles": 2, "vc_alloc_cycles": 3, "switch_alloc_cycles": 2, "crossbar_cycles": 4,
        "credit_cycles": 5,
    }  # fmt: skip
    network = build_network(noc_spec({"kind": "mesh", "size": [2, 1], "link_cycles": 3}, router))
    delivery = network.deliver(np.array([[10, 0, 1, 1]]))
    assert delivery.delivered[0] - 10 == 1 + 1 + (2 + 3 + 2 + 4) * 2 + 3 + 1


@pytest.mark.parametrize("wait", [False, True])
def test_a_channel_is_taken_again_after_its_round_trip(wait: bool) -> None:
    """One channel, single flits: with tail credits a packet per round trip of 9 cycles; without, one per cycle pair."""
    router = {"virtual_channels": 1, "buffer_flits": 8, "credit_cycles": 2, "wait_for_tail_credit": wait}
    network = build_network(noc_spec({"kind": "mesh", "size": [3, 1]}, router))
    packets = np.column_stack([np.zeros(50, int), np.zeros(50, int), np.full(50, 2), np.ones(50, int)])
    arrivals = network.deliver(packets).delivered
    assert set(np.diff(arrivals[5:])) == {9 if wait else 2}


def test_a_link_carries_a_flit_per_cycle() -> None:
    """Seven nodes of a crossbar send to one: its link is never idle, and never carries two."""
    network = build_network(noc_spec({"kind": "crossbar", "nodes": 7}, {"virtual_channels": 4, "buffer_flits": 8}))
    packets = np.array([[0, node, 0, 10] for node in range(7) for _ in range(5)])
    arrivals = network.deliver(packets).delivered
    assert arrivals.max() == 6 + 7 * 5 * 10 - 1


def test_deliver_keeps_the_order_of_its_packets() -> None:
    network = build_network(noc_spec({"kind": "mesh", "size": [4, 4]}, ROUTER))
    packets = random_packets(np.random.default_rng(1), 16, 100)
    shuffled = np.random.default_rng(2).permutation(len(packets))
    once, again = network.deliver(packets), network.deliver(packets)
    assert np.array_equal(once.delivered, again.delivered)
    order = np.argsort(packets[shuffled][:, 0], kind="stable")
    other = network.deliver(packets[shuffled])
    assert np.array_equal(other.delivered[order], network.deliver(packets[shuffled][order]).delivered)
    assert (other.delivered > packets[shuffled][:, 0]).all()


def test_packets_can_be_added_to_a_running_network() -> None:
    """Requests one way, answers the other way as they arrive: what a memory behind the network does."""
    network = build_network(noc_spec({"kind": "mesh", "size": [4, 1]}, ROUTER))
    run = network.start()
    run.add(np.array([[0, 0, 3, 1]]))
    run.advance()
    arrived = int(run.times[0, DELIVERED])
    run.add(np.array([[arrived + 40, 3, 0, 4]]))
    run.advance()
    assert run.times[:, DELIVERED].tolist() == [4 * 4 + 2, arrived + 40 + 4 * 4 + 2 + 3]


@pytest.mark.parametrize(
    ("packet", "message"),
    [
        ([0, 0, 4, 1], "a node that isn't there.*nodes 0 to 3"),
        ([0, 0, 1, 0], "too few or too many flits"),
        ([-1, 0, 1, 1], "cycle -1.*cycle 0 or later"),
    ],
)
def test_packets_that_cannot_be_sent(packet: list[int], message: str) -> None:
    network = build_network(noc_spec({"kind": "mesh", "size": [4, 1]}, ROUTER))
    with pytest.raises(UserError, match=message):
        network.deliver(np.array([packet]))


def _mixed(word: int) -> int:
    word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) % 2**64
    word = ((word ^ word >> 27) * 0x94D049BB133111EB) % 2**64
    return word ^ word >> 31


@pytest.mark.parametrize(
    "traffic",
    [
        {"pattern": "uniform"},
        {"pattern": "uniform_others"},
        {"pattern": "transpose"},
        {"pattern": "hotspot", "hotspots": [3, 12], "hotspot_share": 0.25},
    ],
)
def test_traffic_is_made_from_counters(traffic: dict[str, Any]) -> None:
    """Whole numbers of any size in Python give the same packets as the kernel's 64-bit words; pieces make the whole."""
    spec = NocSpec.model_validate(
        {
            "kind": "noc", "name": "t", "topology": {"kind": "mesh", "size": [4, 4]}, "router": ROUTER,
            "traffic": {**traffic, "rates": [0.2], "packet_flits": 3}, "measurement": {"seed": 2**40 + 7},
        }
    )  # fmt: skip
    generator = Generator(spec, 0.2)
    packets = generator.packets(0, 300)
    pieces = [generator.packets(first, first + 100) for first in (0, 100, 200)]
    assert np.array_equal(packets, np.concatenate(pieces))
    step, seed = 0x9E3779B97F4A7C15, _mixed(2**40 + 7)
    expected = []
    for cycle in range(300):
        for node in range(16):
            draw = _mixed((seed + step * (cycle * 16 + 1 + node)) % 2**64)
            if draw >> 32 >= round(0.2 * 2**32):
                continue
            low = _mixed(draw ^ step) >> 33
            to = low * 16 >> 31
            if traffic["pattern"] == "uniform_others":
                to = low * 15 >> 31
                to += to >= node
            elif traffic["pattern"] == "transpose":
                to = node % 4 * 4 + node // 4
            elif "hotspots" in traffic and _mixed((draw + step) % 2**64) >> 32 < 2**30:
                to = (3, 12)[low * 2 >> 31]
            expected.append([cycle, node, to, 3])
    assert packets.tolist() == expected

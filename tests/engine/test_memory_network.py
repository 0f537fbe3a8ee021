"""The on-chip network between memory and engines: what is measured, against other measurements of the same traffic;
what it does to operators; what can't be simulated."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noc_cases import NocCase, differences, run_kernel, run_oracle
from small_experiment import write_phases

import archsim
from archsim.commands.describe import describe
from archsim.compute.matrix import TileWork
from archsim.config.errors import SpecError
from archsim.engine.prepare import LEAST_TILES
from archsim.engine.work import OperatorWork, operator_work, tile_work
from archsim.experiment import load_experiment
from archsim.fabric.memory_network import MemoryNetworkSpec, hop_pj_per_bit, lines_bound, memory_flow, reads
from archsim.fabric.noc import build_network
from archsim.records import Operator
from archsim.results import RunResult
from archsim.system import DeviceSpec, load_system
from archsim.workload.operators import lower_decode, lower_prefill

FS = 10**15
GHZ = 10**9
ROUTER = {"virtual_channels": 8, "buffer_flits": 8, "input_speedup": 2, "credit_cycles": 2}
MESH_4X4 = {"kind": "mesh", "size": [4, 4]}
TB = 10**12


def network_of(topology: dict[str, Any], channels: list[int], **changes: Any) -> MemoryNetworkSpec:
    """A network of 1 GHz with flits of 32 bytes and lines of 128."""
    noc: dict[str, Any] = {
        "kind": "noc", "name": "test", "topology": topology, "router": ROUTER, "traffic": {"rates": [0.1]},
        "clock": "1 GHz", "flit": "32 B",
    } | changes.pop("noc", {})  # fmt: skip
    return MemoryNetworkSpec.model_validate({"noc": noc, "channels": channels, "packet": "128 B"} | changes)


# ---------------------------------------------------------------- the measurement


def test_a_read_that_meets_no_other_takes_the_stages_of_its_way() -> None:
    """4 h + 2 cycles over h routers, and one for each flit behind the head (docs/noc_policy.md)."""
    flow = memory_flow(network_of({"kind": "mesh", "size": [3, 1]}, [0], engines=[2]), 1, Fraction(GHZ))
    request, answer = 4 * 3 + 2, 4 * 3 + 2 + 4
    assert flow.unloaded_fs == (request + answer) * FS // GHZ


def test_the_measured_reads_are_those_of_the_oracle() -> None:
    spec = network_of({"kind": "mesh", "size": [3, 2]}, [0, 5])
    packets = reads(spec, 4, Fraction(1), rounds=3)
    case = NocCase(build_network(spec.noc), packets, until=300)
    assert differences(run_kernel(case), run_oracle(case)) == []


def accepted_lines(spec: MemoryNetworkSpec, lines_per_cycle: float, cycles: int = 6000) -> float:
    """Lines per cycle that arrive of a steady random load, from the second third of the time on: as `archsim noc`
    measures, with other packets than `memory_flow` makes."""
    rng = np.random.default_rng(7)
    count = rng.poisson(lines_per_cycle * cycles)
    created = np.sort(rng.integers(0, cycles, count))
    at, to = rng.choice(spec.channels, count), rng.choice(spec.engine_nodes, count)
    requests = np.stack([created, to, at, np.full(count, spec.request_flits)], axis=1)
    answers = np.stack([created, at, to, np.full(count, spec.data_flits)], axis=1)
    run = build_network(spec.noc).start()
    run.add(np.concatenate([requests, answers]))
    run.advance(cycles)
    arrived = run.times[:, 1][run.packets[:, 3] == spec.data_flits]
    return float(np.count_nonzero(arrived >= cycles // 3) / (cycles - cycles // 3))


@pytest.mark.parametrize("channels", [[0, 3, 12, 15], [0, 4, 8, 12]], ids=["corners", "one side"])
def test_what_is_sustained_is_where_random_load_saturates(channels: list[int]) -> None:
    spec = network_of(MESH_4X4, channels)
    flow = memory_flow(spec, 8, Fraction(10 * TB))
    sustained = float(flow.sustained / (128 * GHZ))
    assert accepted_lines(spec, 0.8 * sustained) == pytest.approx(0.8 * sustained, rel=0.05)
    assert accepted_lines(spec, 1.5 * sustained) == pytest.approx(sustained, rel=0.06)


def closed_loop_lines(spec: MemoryNetworkSpec, outstanding: int, memory_cycles: int = 100, pieces: int = 60) -> float:
    """Lines per cycle of engines that keep so many reads under way: a request that arrives is answered `memory_cycles`
    later, an answer is followed by the next request at the end of a piece of so many cycles."""
    rng = np.random.default_rng(3)
    run = build_network(spec.noc).start()

    def requests(cycle: int, engines: Any) -> Any:
        count = len(engines)
        at = rng.choice(spec.channels, count)
        return np.stack([np.full(count, cycle), engines, at, np.full(count, spec.request_flits)], axis=1)

    waiting = requests(0, np.repeat(spec.engine_nodes, outstanding))
    lines = []
    for piece in range(pieces):
        start, end = piece * memory_cycles, (piece + 1) * memory_cycles
        known = len(run.times)
        before = run.times[:, 1] >= 0
        due = waiting[:, 0] < end
        run.add(waiting[due])
        run.advance(end)
        arrived = run.times[:, 1] >= 0
        arrived[:known] &= ~before
        packets, cycles = run.packets[arrived], run.times[arrived, 1]
        asked = np.isin(packets[:, 2], spec.channels)
        answers = packets[asked][:, [0, 2, 1, 3]]
        answers[:, 0] = cycles[asked] + memory_cycles
        answers[:, 3] = spec.data_flits
        waiting = np.concatenate([waiting[~due], answers, requests(end, packets[~asked, 2])])
        lines.append(np.count_nonzero(~asked) / (end - start))
    return float(np.mean(lines[pieces // 3 :]))


def test_what_is_sustained_is_what_a_closed_loop_reaches() -> None:
    """Requests that answers bring about, and answers that requests do, come to the same rate as either by itself."""
    spec = network_of(MESH_4X4, [0, 3, 12, 15])
    sustained = float(memory_flow(spec, 8, Fraction(10 * TB)).sustained / (128 * GHZ))
    reached = [closed_loop_lines(spec, outstanding) for outstanding in (2, 16, 32)]
    assert reached[0] < 0.5 * sustained
    assert max(reached) == pytest.approx(sustained, rel=0.05)


def test_placement_decides_what_is_sustained() -> None:
    """Four corners feed both dimensions of a mesh; neighbours in one corner share their links."""
    spread, together = (
        memory_flow(network_of(MESH_4X4, channels), 8, Fraction(10 * TB)) for channels in ([0, 3, 12, 15], [0, 1, 4, 5])
    )
    assert together.sustained < 0.75 * spread.sustained


def test_a_load_that_the_network_carries_is_sustained_and_waits_less() -> None:
    spec = network_of(MESH_4X4, [0, 3, 12, 15])
    light, heavy = (memory_flow(spec, 8, Fraction(rate)) for rate in (10 * GHZ, 10 * TB))
    assert light.unloaded_fs <= light.loaded_fs < heavy.loaded_fs
    assert light.loaded_fs < 1.1 * light.unloaded_fs
    assert light.sustained > light.offered


def test_every_engine_reads_evenly_from_every_channel() -> None:
    spec = network_of(MESH_4X4, [0, 3, 12])
    packets = reads(spec, 6, Fraction(1, 3), rounds=2)
    answers = packets[1::2]
    pairs, times = np.unique(answers[:, 1:3], axis=0, return_counts=True)
    assert len(pairs) == 3 * 13
    assert set(times) == {2 * 2}  # two channels on each node, two rounds
    assert (packets[::2, [2, 1]] == answers[:, 1:3]).all()  # each has its request, the other way
    assert answers[-1, 0] == 3 * (len(answers) - 1)


TOPOLOGIES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"kind": "mesh", "size": [3, 3]}, "dimension_order"),
    ({"kind": "torus", "size": [3, 3]}, "minimal_adaptive"),
    ({"kind": "ring", "nodes": 9}, "dimension_order"),
    ({"kind": "crossbar", "nodes": 9}, "dimension_order"),
    ({"kind": "graph", "nodes": 9, "links": [[n, n + 1] for n in range(8)]}, "dimension_order"),
)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(TOPOLOGIES),
    st.permutations(range(9)),
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(0, 2),
    st.sampled_from([GHZ, 100 * GHZ, 10 * TB]),
)
def test_no_measurement_beats_the_bound(
    topology: tuple[dict[str, Any], str], nodes: list[int], ports: int, idle: int, header: int, offered: int
) -> None:
    kind, algorithm = topology
    spec = network_of(
        kind,
        nodes[:ports],
        engines=nodes[ports : 9 - idle],
        header_flits=header,
        noc={"routing": {"algorithm": algorithm}},
    )
    flow = memory_flow(spec, ports + 1, Fraction(offered))
    assert 0 < flow.sustained <= flow.bound
    assert flow.unloaded_fs > 0


def test_the_bound_is_that_of_the_busiest_link() -> None:
    """One engine takes a flit a cycle; a line is four flits and a header."""
    spec = network_of(MESH_4X4, [0, 3], engines=[5])
    assert lines_bound(spec, build_network(spec.noc).wiring, 4) == Fraction(1, 5)
    # Two engines behind the one link of a chain: the requests go the other way.
    chain = network_of({"kind": "graph", "nodes": 4, "links": [[0, 1], [1, 2], [2, 3]]}, [0], engines=[2, 3])
    assert lines_bound(chain, build_network(chain.noc).wiring, 1) == Fraction(1, 5)


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def simulate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunResult]:
    """Run the small model's decode step on `system` with changes; equal calls run once."""
    experiment = write_phases(tmp_path_factory.mktemp("experiment"))
    known: dict[str, RunResult] = {}

    def call(system: str, **changes: object) -> RunResult:
        key = json.dumps([system, changes])
        if key not in known:
            whole = {"system": system, "workload.prefill": None} | changes
            known[key] = archsim.run(experiment, whole, out=tmp_path_factory.mktemp("runs") / "run")
        return known[key]

    return call


FLIT = "system.device.network.noc.flit"


def longest(run: RunResult) -> Any:
    return run.operators.sort_values("duration_fs").iloc[-1]


def test_an_operator_takes_its_bytes_at_the_sustained_rate(simulate: Callable[..., RunResult]) -> None:
    """The logits' weights: the memory alone would be quicker, and half the link takes what half the rate says. The
    first tile has to be there before the network's time begins."""
    times, streams = [], []
    for flit in ("128 B", "64 B"):
        operator = longest(simulate("h200_mesh", **{FLIT: flit}))
        flow = load_system("h200_mesh", [f"device.network.noc.flit={flit}"]).spec.device.memory_flow
        assert flow is not None
        stream_fs = int(operator["dram_read_bytes"]) * FS / flow.sustained
        fixed_fs = operator["cause_launch_fs"] + operator["cause_fill_fs"]
        assert stream_fs <= operator["duration_fs"] <= (1 + Fraction(1, LEAST_TILES)) * stream_fs + int(fixed_fs)
        assert operator["cause_noc_fs"] > 0
        assert operator["cause_compute_fs"] == 0
        times.append(int(operator["duration_fs"]))
        streams.append(float(stream_fs))
    # A refresh (0.4 us) may fall into one's first tile and not into the other's.
    assert times[1] - times[0] == pytest.approx(streams[1] - streams[0], rel=0.03)
    assert longest(simulate("h200"))["duration_fs"] < 0.8 * times[0]


def test_a_run_says_what_its_network_sustains(simulate: Callable[..., RunResult]) -> None:
    run = simulate("h200_mesh", **{FLIT: "128 B"})
    assert "sustains 2.94 TB/s of 4.8 TB/s" in run.summary.facts["on-chip network"]
    assert run.metrics["decode.time.noc"].value > 0.1
    assert "decode.time.noc" not in simulate("h200").metrics
    described = describe("h200_mesh").as_dict()["facts"]
    assert described["(on-chip network sustains)"]["value"].startswith("2.944 TB/s")


def test_the_bound_of_a_run_stays_below_it(simulate: Callable[..., RunResult]) -> None:
    cycle, bound = simulate("h200_mesh"), simulate("h200_mesh", fidelity="roofline")
    assert (bound.operators["duration_fs"] <= cycle.operators["duration_fs"]).all()
    assert longest(bound)["bound"] == "noc"
    flow = load_system("h200_mesh").spec.device.memory_flow
    assert flow is not None
    operator = longest(bound)
    assert operator["duration_fs"] == int(int(operator["dram_read_bytes"]) * FS / flow.bound)


CROSSBAR = {
    "noc": {
        "kind": "noc", "name": "crossbar", "topology": {"kind": "crossbar", "nodes": 60}, "router": ROUTER,
        "traffic": {"rates": [0.1]}, "clock": "4 GHz", "flit": "512 B",
    },
    "channels": list(range(24)),
    "packet": "2048 B",
}  # fmt: skip


def works(device: DeviceSpec, memory_read_fs: int, folder: Path) -> list[OperatorWork]:
    """All operators of a prefill and a decode step on a device whose memory answers a dependent read so late."""
    loaded = load_experiment(write_phases(folder))
    precision = loaded.spec.workload.precision
    traces = (lower_prefill(loaded.model, precision, 1, (128,)), lower_decode(loaded.model, precision, 1, (512,)))

    def tiles(operator: Operator, latency_fs: int, memory_bytes: int) -> TileWork:
        return tile_work(operator, device, latency_fs, memory_bytes)

    return [operator_work(one, device, memory_read_fs, tiles) for trace in traces for one in trace.operators]


def test_a_crossbar_with_enough_ports_changes_the_latency_alone(
    simulate: Callable[..., RunResult], tmp_path: Path
) -> None:
    """Its way added to what a miss takes anyway, everything is as without a network."""
    plain = load_system("h200").spec.device
    crossed = plain.model_copy(update={"network": MemoryNetworkSpec.model_validate(CROSSBAR)})
    flow = crossed.memory_flow
    assert flow is not None
    assert flow.sustained > plain.noc
    later_fs = plain.buffer.miss_latency + flow.unloaded_fs
    later = plain.model_copy(update={"buffer": plain.buffer.model_copy(update={"miss_latency": later_fs})})
    read_fs = 40_000_000
    expected = works(later, read_fs + flow.loaded_fs - flow.unloaded_fs, tmp_path)
    assert works(crossed, read_fs, tmp_path) == expected
    assert works(plain, read_fs, tmp_path) != expected

    with_it = simulate("h200", **{"system.device.network": CROSSBAR})
    miss = {"system.device.buffer.miss_latency": f"{later_fs} fs"}
    without = simulate("h200", **miss)
    for column in ("dram_read_bytes", "dram_write_bytes", "dram_reads", "roofline_fs"):
        assert with_it.operators[column].tolist() == without.operators[column].tolist()
    assert (with_it.operators["cause_noc_fs"] == 0).all()
    assert with_it.metrics["decode.tpot"].value == pytest.approx(without.metrics["decode.tpot"].value, rel=0.003)


def test_energy_is_that_of_the_flits_hops(simulate: Callable[..., RunResult]) -> None:
    """One channel and one engine at either end of a chain: every line crosses four routers, in five flits and one."""
    chain = {"kind": "graph", "nodes": 4, "links": [[0, 1], [1, 2], [2, 3]]}
    spec = network_of(chain, [0], engines=[3], noc={"hop_energy": "0.5 pJ/b"})
    flow = memory_flow(spec, 1, Fraction(GHZ))
    assert flow.flit_hops == 4 * (5 + 1)
    assert hop_pj_per_bit(spec, flow) == pytest.approx(24 * 32 * 8 * 0.5 / (128 * 8))

    system = load_system("h200_mesh").spec
    assert system.energy_table.memory_network > system.energy.memory_network
    assert load_system("h200").spec.energy_table.memory_network == system.energy.memory_network
    run, half = simulate("h200_mesh"), simulate("h200_mesh", **{"system.device.network.noc.hop_energy": "0.35 pJ/b"})
    spent_j = run.metrics["decode.energy.noc"].value - half.metrics["decode.energy.noc"].value
    moved_bits = 8 * int(run.operators["noc_bytes"].sum())
    assert spent_j == pytest.approx(moved_bits * system.energy_table.memory_network * 1e-12 / 2)


# ---------------------------------------------------------------- what can't be


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": [0, 7, 7]}, r"node 7 is named 2 times.*each node once"),
        ({"engines": [7, 9]}, r"node 7 is named 2 times in channels and engines"),
        ({"channels": [0, 64]}, r"channels names node 64, which .*mesh.* hasn't.*nodes 0 to 63"),
        ({"channels": []}, r"no node is one of channels"),
        ({"engines": []}, r"no node is one of engines"),
        ({"noc": "mesh8x8_booksim"}, r"has no clock and no flit.*clock: 2 GHz"),
        ({"noc": {"topology": {"kind": "graph", "nodes": 4, "links": [[0, 1], [2, 3]]}}, "channels": [0]},
         r"node \d can't be reached from node \d.*links that connect all nodes"),
        ({"noc": {"topology": {"kind": "torus", "size": [5, 5]},
                  "routing": {"dateline": False}}, "channels": [0]}, r"may deadlock"),
        ({"channel": [0]}, r"channel"),
    ],
)  # fmt: skip
def test_impossible_networks_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    network: dict[str, Any] = {"noc": {"base": "mesh8x8_memory"}, "channels": [0, 7], "packet": "512 B"}
    if isinstance(changes.get("noc"), dict):
        plain = {"kind": "noc", "name": "n", "router": ROUTER, "traffic": {"rates": [0.1]}}
        changes = changes | {"noc": plain | {"clock": "1 GHz", "flit": "64 B"} | changes["noc"]}
    file = tmp_path / "machine.yaml"
    file.write_text(json.dumps({"base": "h200", "device": {"network": network | changes}}))
    with pytest.raises(SpecError, match=f"(?s){message}"):
        load_system(file)


@pytest.mark.parametrize(
    ("system", "message"),
    [
        ("groq_lpu", "anything but DRAM is not simulated"),
        ("h200_hbf", "anything but DRAM is not simulated"),
        ("attacc", "anything but DRAM is not simulated"),
        ("phone_lpddr5x", r"names 16 nodes for the \d+ channels of the memory"),
    ],
)
def test_networks_that_do_not_fit_the_memory_are_refused(tmp_path: Path, system: str, message: str) -> None:
    network = {"noc": "mesh8x8_memory", "channels": list(range(16)), "packet": "512 B"}
    file = tmp_path / "machine.yaml"
    base = "dgx_attacc_bank" if system == "attacc" else system
    file.write_text(json.dumps({"base": base, "device": {"network": network}}))
    with pytest.raises(SpecError, match=message):
        load_system(file)

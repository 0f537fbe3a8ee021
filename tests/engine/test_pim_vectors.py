"""Elementwise operators in banks, in whole runs: which they are, what is left to the host, what they cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_experiment import write_model, write_phases

import archsim
from archsim.compute.vector import vector_fs
from archsim.engine.pim_vectors import VectorWork, vector_work
from archsim.experiment import load_experiment
from archsim.memory.pim_device import PimDevice
from archsim.memory.pim_vectors import BankVector
from archsim.records import Access, Operator, OperatorKind, TensorClass
from archsim.report.series import job_of
from archsim.run import simulate
from archsim.workload.costs import NORM_FLOPS, RESIDUAL_FLOPS
from archsim.workload.model import NormKind
from archsim.workload.operators import lower_decode

CENT = {"system": "cent", "workload.batch": 1, "workload.prefill": None}
VECTORS = {"input_norm", "post_attention_norm", "final_norm", "rope", "activation"}
MAPPING = "system.device.pim.technology.mapping"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phases(tmp_path_factory.mktemp("experiment"))


def operators(experiment: Path, *, batch: int = 1, **precision: str) -> list[Operator]:
    changes = CENT | {f"workload.precision.{name}": value for name, value in precision.items()}
    loaded = load_experiment(experiment, changes)
    return list(lower_decode(loaded.model, loaded.spec.workload.precision, 1, (512,) * batch).operators)


def spec_of(experiment: Path, **changes: object):  # type: ignore[no-untyped-def]
    loaded = load_experiment(experiment, CENT | changes)
    pim = loaded.system.spec.device.pim
    assert pim is not None
    return pim.whole


def test_banks_do_norms_rotations_and_gates(experiment: Path) -> None:
    """Hidden size 1024, eight heads and four KV heads of 128, 4096 elements inside the feed-forward network."""
    spec = spec_of(experiment)
    works = {job_of(op.name): vector_work(op, spec) for op in operators(experiment)}
    assert {name for name, work in works.items() if work is not None} == VECTORS
    assert works["post_attention_norm"] == VectorWork(BankVector.NORM, 1024, 256 + 1024)  # partial sums, residual
    assert works["rope"] == VectorWork(BankVector.ROTARY, 12 * 128, 12 * 128)
    assert works["activation"] == VectorWork(BankVector.GATED, 4096, 0)


def test_the_first_norm_adds_no_residual(experiment: Path) -> None:
    first = next(op for op in operators(experiment) if op.kind is OperatorKind.NORM)
    assert vector_work(first, spec_of(experiment)) == VectorWork(BankVector.NORM, 1024, 256)


def test_the_rest_is_the_hosts(experiment: Path) -> None:
    spec = spec_of(experiment)
    norm = next(op for op in operators(experiment) if op.kind is OperatorKind.NORM)
    layer_norm = replace(norm, vector_flops=(NORM_FLOPS[NormKind.LAYER] + RESIDUAL_FLOPS) * 1024)
    inner = Access("inner", TensorClass.ACTIVATION, 8192)
    ungated = Operator("up", OperatorKind.ACTIVATION, 0, compute_format="bf16", reads=(inner,), writes=(inner,))
    assert vector_work(layer_norm, spec) is None
    assert vector_work(ungated, spec) is None
    assert vector_work(norm, spec_of(experiment, **{f"{MAPPING}.vectors": "host"})) is None
    assert all(vector_work(op, spec) is None for op in operators(experiment, activations="fp8"))
    large = [op for op in operators(experiment, batch=129) if vector_work(op, spec) is not None]
    assert large == []  # 129 x 1024 elements fill more than a row of 128 bank groups


def test_vectors_take_what_the_device_takes_alone(experiment: Path, tmp_path: Path) -> None:
    run = archsim.run(experiment, CENT, out=tmp_path / "run")
    table = run.operators
    assert {job_of(name) for name in table[table["pim_operators"] > 0]["name"]} >= VECTORS
    spec = spec_of(experiment)
    loaded = load_experiment(experiment, CENT)
    host = loaded.system.spec.device
    for job, (kind, elements, host_flops) in {
        "post_attention_norm": (BankVector.NORM, 1024, 256 + 1024),
        "rope": (BankVector.ROTARY, 12 * 128, 12 * 128),
        "activation": (BankVector.GATED, 4096, 0),
    }.items():
        rows = table[table["name"].map(job_of) == job]
        result = PimDevice(spec).vector(kind, elements)
        assert set(rows["pim_busy_fs"]) == {result.duration_fs}
        assert set(rows["counted_vector_flops"]) == {host_flops}
        host_fs = vector_fs(host_flops, host.vector) if host_flops else 0
        back_fs = host.buffer.latency + host.buffer.miss_latency
        assert set(rows["duration_fs"]) == {result.duration_fs + host_fs + back_fs}


def test_shortcuts_change_nothing_and_causes_tile(experiment: Path) -> None:
    found, plain, bound = (
        simulate(load_experiment(experiment, CENT | more)).phases[-1]
        for more in ({}, {"no_shortcuts": True}, {"fidelity": "roofline"})
    )
    assert found.records == plain.records
    assert bound.records[-1].end_fs <= found.records[-1].end_fs
    assert all(sum(record.cause_fs.values()) == record.duration_fs for record in found.records)


def test_a_mapping_is_a_change_to_the_system(experiment: Path, tmp_path: Path) -> None:
    """Each choice of CENT's costs time: that is what its gap to a mapping without them is made of."""
    ticks = []
    for changes in ({}, {f"{MAPPING}.scores": "host"}, {f"{MAPPING}.scores": "host", f"{MAPPING}.results": "held"}):
        run = archsim.run(experiment, CENT | changes, out=tmp_path / str(len(ticks)))
        ticks.append(float(run.metrics["decode.tpot"].value))
    assert ticks == sorted(ticks, reverse=True) and len(set(ticks)) == 3


def test_energy_counts_what_goes_to_banks_and_back(experiment: Path, tmp_path: Path) -> None:
    moved, kept = (
        archsim.run(experiment, CENT | changes, out=tmp_path / name)
        for name, changes in (("moved", {}), ("kept", {f"{MAPPING}.scores": "host", f"{MAPPING}.vectors": "host"}))
    )
    more = float(moved.metrics["decode.energy.pim_pins"].value) - float(kept.metrics["decode.energy.pim_pins"].value)
    scores = 2 * 6 * 8 * 513 * 2  # layers, passes, heads, context, bytes
    pj_per_byte = 8 * 5.5
    assert more * 1e12 > scores * pj_per_byte


def test_a_model_without_gates(tmp_path: Path) -> None:
    """OPT's layer norms and ReLU stay with the host, on a device whose banks could do others."""
    write_model(tmp_path)
    file = tmp_path / "experiment.yaml"
    file.write_text(
        "kind: experiment\nname: opt\nsystem: cent\nworkload:\n  kind: phases\n  model: opt-6.7b\n  batch: 1\n"
        "  precision: {weights: fp16, kv: fp16, activations: fp16}\n  decode: {context_tokens: 64}\n"
    )
    loaded = load_experiment(file)
    spec = loaded.system.spec.device.pim
    assert spec is not None
    trace = lower_decode(loaded.model, loaded.spec.workload.precision, 1, (64,))
    assert all(vector_work(op, spec.whole) is None for op in trace.operators)

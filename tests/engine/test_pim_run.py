"""Processing in memory in whole runs: operators as the PIM device has them, policies, overlap, capacity, bad input."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from small_experiment import LINK, write_phases, write_requests

import archsim
from archsim import cli
from archsim.commands.describe import Description, describe
from archsim.compute.arithmetic import most_that_fits
from archsim.config.errors import SpecError, UserError
from archsim.config.loading import load_mapping
from archsim.energy import COMPONENTS
from archsim.engine.machine import Machine
from archsim.engine.phases import kv_storage
from archsim.engine.pim import PimPart, PimUnit
from archsim.engine.pim_overlap import PimOverlap
from archsim.experiment import experiment_file, load_experiment
from archsim.memory.pim_device import PimDevice, PimResult
from archsim.memory.pim_memory import PimMemorySpec
from archsim.records import Access, GemmShape, Operator, OperatorKind, OperatorTrace, PimCounts, TensorClass
from archsim.report.series import job_of
from archsim.results import RunResult
from archsim.run import simulate
from archsim.standing import facts_of
from archsim.workload.operators import lower_decode, lower_prefill
from archsim.workload.sub_batches import halves, interleaved

BATCH, CONTEXT = 4, 513


def pim(technology: str = "attacc_bank", policy: str = "attention", **more: object) -> dict[str, object]:
    """A PIM memory of its own behind a link."""
    own = {"technology": technology, "stacks": 2, "capacity": "8 GiB", "link": LINK, "offload": {"policy": policy}}
    return {"system.device.pim": own | more}


def inside(technology: str, policy: str, stacks: int = 1, **more: object) -> dict[str, object]:
    """The main memory itself computes."""
    return {
        "system.device.pim": {"technology": technology, "stacks": stacks, "offload": {"policy": policy}} | more,
        "system.device.memory.capacity": "16 GiB",
    }


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phases(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def attacc(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return archsim.run(experiment, pim(), out=tmp_path_factory.mktemp("runs") / "run")


def value(run: RunResult, name: str) -> float:
    return float(run.metrics[name].value)


def offloaded(run: RunResult, phase: str = "decode") -> set[str]:
    table = run.operators
    return set(table[(table["phase"] == phase) & (table["pim_operators"] > 0)]["name"].map(job_of))


# ---------------------------------------------------------------- operators as the device alone has them


def alone(name: str, stacks: int) -> PimDevice:
    spec = load_mapping({"technology": name, "stacks": stacks, "offload": {"policy": "attention"}}, PimMemorySpec).spec
    assert spec.whole.organisation.channels == stacks * spec.technology.organisation.channels
    return PimDevice(spec.whole)


def check_operator(run: RunResult, job: str, result: PimResult) -> None:
    table = run.operators
    rows = table[(table["phase"] == "decode") & (table["name"].map(job_of) == job)]
    assert len(rows) > 0
    assert set(rows["pim_busy_fs"]) == {result.duration_fs}
    assert set(rows["pim_read_bytes"]) == {result.read_bytes}
    assert set(rows["pim_macs_asked"]) == {result.macs}
    for name, count in result.counts.items():
        assert not count or set(rows[f"pim_command_{name}"]) == {count}


@pytest.mark.parametrize("name", ["attacc_bank", "attacc_bank_group", "aim_gddr6", "neupims", "logic_pim"])
def test_attention_is_that_of_the_device_alone(name: str, experiment: Path, tmp_path: Path) -> None:
    """Eight query heads that share four KV heads, four sequences."""
    run = archsim.run(experiment, pim(name), out=tmp_path / "run")
    check_operator(run, "attention", alone(name, 2).attention(8 * BATCH, CONTEXT, 128, kv_heads=4 * BATCH))


@pytest.mark.parametrize("name", ["hbm_pim", "aim_gddr6"])
def test_a_product_is_that_of_the_device_alone(name: str, experiment: Path, tmp_path: Path) -> None:
    run = archsim.run(experiment, pim(name, "gemv", capacity="1 GiB") | {"workload.batch": 1}, out=tmp_path / "run")
    check_operator(run, "down_proj", alone(name, 2).gemv(1024, 4096))
    check_operator(run, "o_proj", alone(name, 2).gemv(1024, 1024))


# ---------------------------------------------------------------- invariants of whole runs


def test_causes_tile_every_duration(attacc: RunResult) -> None:
    table = attacc.operators
    causes = [name for name in table.columns if name.startswith("cause_")]
    assert (table[causes].sum(axis=1) == table["duration_fs"]).all()
    assert (table[causes] >= 0).all().all()
    decode = table[table["phase"] == "decode"]
    attention = decode[decode["name"].map(job_of) == "attention"]
    assert (attention["cause_pim_fs"] + attention["cause_launch_fs"] == attention["duration_fs"]).all()
    assert (attention["bound"] == "pim").all()


def test_metrics_are_sums_over_operators(attacc: RunResult) -> None:
    decode = attacc.operators[attacc.operators["phase"] == "decode"]
    assert value(attacc, "decode.pim.bytes") == decode["pim_read_bytes"].sum()
    assert value(attacc, "decode.pim.host_bytes") == decode["pim_host_bytes"].sum()
    commands = [name for name in decode.columns if name.startswith("pim_command_")]
    assert value(attacc, "decode.pim.commands") == decode[commands].sum().sum()
    assert value(attacc, "decode.pim.operators") == 2
    share = decode["cause_pim_fs"].sum() / decode["duration_fs"].sum()
    assert math.isclose(value(attacc, "decode.time.pim"), share, rel_tol=1e-12)
    assert 0 < value(attacc, "decode.pim.utilisation") < 1


def test_bytes_are_those_of_the_cache_and_the_padding(attacc: RunResult) -> None:
    token = 4 * 2 * 128 * 2  # KV heads, keys and values, elements, bytes
    cache = 2 * BATCH * CONTEXT * token  # of two layers
    decode = attacc.operators[attacc.operators["phase"] == "decode"]
    queries = 2  # of a KV head; each reads it anew
    assert decode["pim_read_bytes"].sum() - decode["pim_padding_bytes"].sum() == queries * cache
    sent = 2 * BATCH * (8 * 128 + 8 * 128 + 2 * 4 * 128) * 2  # queries, results, new keys and values
    assert value(attacc, "decode.pim.host_bytes") == sent


def test_energy_of_pim_is_counts_times_table(attacc: RunResult) -> None:
    spec = load_mapping({"technology": "attacc_bank", "stacks": 2, "offload": {"policy": "attention"}}, PimMemorySpec)
    cost = spec.spec.technology.energy
    assert cost is not None
    parts = ["pim_activate", "pim_read", "pim_pins", "pim_mac", "pim_link"]
    found = [value(attacc, f"decode.energy.{name}") for name in (*COMPONENTS, *parts)]
    assert math.isclose(math.fsum(found), value(attacc, "decode.energy"), rel_tol=1e-12)
    decode = attacc.operators[attacc.operators["phase"] == "decode"]
    cells = 8 * decode["pim_read_bytes"].sum() * cost.read * 1e-12
    assert math.isclose(value(attacc, "decode.energy.pim_read"), cells, rel_tol=1e-9)
    assert math.isclose(value(attacc, "decode.energy.pim_mac"), decode["pim_macs"].sum() * cost.mac * 1e-12)


OVERLAPS = [{}, {"heads": True}, {"sub_batches": True}, {"feed_forward": True, "heads": True}]


@pytest.mark.parametrize("overlap", OVERLAPS, ids=str)
def test_shortcuts_change_nothing_and_nothing_beats_its_bound(overlap: dict[str, bool], experiment: Path) -> None:
    change = pim(overlap=overlap)
    found, plain, bound = (
        simulate(load_experiment(experiment, change | more)).phases
        for more in ({}, {"no_shortcuts": True}, {"fidelity": "roofline"})
    )
    for phase, other, least in zip(found, plain, bound, strict=True):
        assert phase.records == other.records
        assert least.records[-1].end_fs <= phase.records[-1].end_fs
        for record in phase.records:
            assert sum(record.cause_fs.values()) == record.duration_fs
            assert min(record.cause_fs.values()) >= 0


def test_step_by_step_is_the_chain(experiment: Path) -> None:
    loaded = load_experiment(experiment, pim())
    trace = lower_decode(loaded.model, loaded.spec.workload.precision, 1, (512,) * BATCH)
    chain, steps = (Machine(loaded.system.spec, 1, stepwise=stepwise).run(trace) for stepwise in (False, True))
    assert [(a.start_fs, a.end_fs, a.cause_fs) for a in chain] == [(b.start_fs, b.end_fs, b.cause_fs) for b in steps]


def test_without_offloading_the_device_does_what_it_did(experiment: Path, tmp_path: Path) -> None:
    plain = archsim.run(experiment, out=tmp_path / "plain")
    beside = archsim.run(experiment, inside("hbm_pim", "gemv"), out=tmp_path / "beside")  # a batch of four: no GEMV
    kept = ["name", "start_fs", "end_fs", "bound", "dram_reads", "cause_transfer_fs", "noc_bytes"]
    one, other = (run.operators[run.operators["phase"] == "decode"] for run in (plain, beside))
    assert one[kept].equals(other[kept])


# ---------------------------------------------------------------- policies


PRODUCTS = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head"}


@pytest.mark.parametrize(
    ("policy", "batch", "jobs"),
    [
        ("attention", 1, {"attention"}),
        ("gemv", 1, PRODUCTS),
        ("all_gemv", 1, PRODUCTS | {"attention"}),
        ("all_gemv", 4, {"attention"}),
        ("intensity", 4, PRODUCTS | {"attention"}),
        ("experts", 4, {"attention"}),
    ],
)
def test_policies_choose_operators(policy: str, batch: int, jobs: set[str], experiment: Path, tmp_path: Path) -> None:
    run = archsim.run(experiment, pim("aim_gddr6", policy) | {"workload.batch": batch}, out=tmp_path / "run")
    assert offloaded(run) == jobs
    assert offloaded(run, "prefill") <= {"lm_head"}  # one row, that of the last token


def test_thresholds_choose_operators(experiment: Path, tmp_path: Path) -> None:
    change = inside("aim_gddr6", "intensity", offload={"policy": "intensity", "most_op_per_byte": 3.0})
    assert offloaded(archsim.run(experiment, change, out=tmp_path / "run")) == {"attention"}


def unit_of(experiment: Path, change: dict[str, object]) -> PimUnit:
    return PimUnit(load_experiment(experiment, change).system.spec.device)


def attention_over(experiment: Path, contexts: tuple[int, ...]) -> Operator:
    loaded = load_experiment(experiment)
    trace = lower_decode(loaded.model, loaded.spec.workload.precision, 1, contexts)
    return next(operator for operator in trace.operators if operator.kind is OperatorKind.DECODE_ATTENTION)


def test_sequences_of_other_lengths_come_one_length_after_the_other(experiment: Path) -> None:
    unit = unit_of(experiment, pim("aim_gddr6"))
    batches = ((100, 100, 300), (100, 100), (300,))
    mixed, short, long = (unit.part_of(attention_over(experiment, batch)).counts for batch in batches)
    assert mixed.busy_fs == short.busy_fs + long.busy_fs
    assert mixed.read_bytes == short.read_bytes + long.read_bytes


def expert_product(experts: int) -> Operator:
    shape = GemmShape(2, 512, 1024, experts)
    weight = Access("w", TensorClass.WEIGHT, 2 * 512 * 1024 * experts)
    source = Access("x", TensorClass.ACTIVATION, 2 * 2 * 1024 * experts)
    result = Access("y", TensorClass.ACTIVATION, 2 * 2 * 512 * experts)
    return Operator("experts", OperatorKind.GEMM, 0, shape.flops, gemm=shape, reads=(source, weight), writes=(result,))


def test_experts_are_one_product_each(experiment: Path) -> None:
    unit = unit_of(experiment, pim("logic_pim", "experts"))
    one, eight = (unit.part_of(expert_product(count)).counts for count in (1, 8))
    assert eight.busy_fs == 8 * one.busy_fs
    assert eight.read_bytes == 8 * one.read_bytes
    assert unit.offloads(expert_product(8))


@pytest.mark.parametrize("devices", [2, 4])
def test_heads_are_shared_out_to_devices(devices: int, experiment: Path, attacc: RunResult) -> None:
    """Each device of a tensor-parallel group has its KV heads and reads their cache alone."""
    loaded = load_experiment(experiment, pim())
    trace = lower_decode(loaded.model, loaded.spec.workload.precision, devices, (512,) * BATCH)
    unit = PimUnit(loaded.system.spec.device)
    counts = [unit.part_of(op).counts for op in trace.operators if op.kind is OperatorKind.DECODE_ATTENTION]
    whole = attacc.operators[attacc.operators["phase"] == "decode"]
    useful = sum(count.read_bytes - count.padding_bytes for count in counts)
    assert useful * devices == whole["pim_read_bytes"].sum() - whole["pim_padding_bytes"].sum()


# ---------------------------------------------------------------- a memory of its own


def test_the_cache_lies_in_pim_memory_alone(experiment: Path) -> None:
    loaded = load_experiment(experiment, pim())
    machine = Machine(loaded.system.spec, 1)
    cache = tuple(kv_storage(loaded.model, loaded.spec.workload.precision, 1, 100))
    machine.reserve(cache)
    assert machine.pim is not None
    assert machine.pim.used_bytes == sum(access.bytes for access in cache)
    assert machine.placement.main.used_bytes == 0


def test_weights_that_may_be_offloaded_lie_in_both(experiment: Path) -> None:
    loaded = load_experiment(experiment, pim("aim_gddr6", "all_gemv"))
    machine = Machine(loaded.system.spec, 1)
    machine.reserve((Access("w", TensorClass.WEIGHT, 1000), Access("x", TensorClass.ACTIVATION, 10)))
    assert machine.pim is not None
    assert (machine.pim.used_bytes, machine.placement.main.used_bytes) == (1000, 1010)


def test_feed_forward_weights_that_are_shared_out_lie_in_both(experiment: Path) -> None:
    unit = unit_of(experiment, pim(overlap={"feed_forward": True}))
    names = ("layers[0].up_proj.weight", "layers[0].o_proj.weight", "layers[0].experts.down_proj.weight")
    weights = [Access(name, TensorClass.WEIGHT, 10**power) for power, name in enumerate(names)]
    assert unit.reserve(weights) == weights
    assert unit.used_bytes == 1


def test_new_keys_and_values_go_over_the_link(attacc: RunResult) -> None:
    appended = 4 * 2 * 128 * 2  # KV heads, keys and values, elements, bytes
    for phase, tokens in (("prefill", 128), ("decode", BATCH)):
        table = attacc.operators[attacc.operators["phase"] == phase]
        rows = table[table["name"].map(job_of) == "kv_append"]
        flits = -(-tokens * appended // 236)
        assert set(rows["pim_link_bytes"]) == {256 * flits}
        wire_fs = -(-8 * 256 * flits * 10**15 // (16 * 32 * 10**9))
        assert set(rows["cause_pim_fs"]) == {wire_fs + 500 * 10**6}
        assert set(rows["dram_write_bytes"]) == {0}


@pytest.mark.parametrize("overlap", [{}, {"feed_forward": True, "heads": True}], ids=str)
def test_served_requests_keep_their_cache_in_pim_memory(overlap: dict[str, bool], tmp_path: Path) -> None:
    trace = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,40,4\n2023-11-16 18:15:46.69,70,3\n"
    run = archsim.run(write_requests(tmp_path, trace), pim(overlap=overlap), out=tmp_path / "run")
    assert value(run, "serving.requests") == 2
    assert value(run, "iterations.pim.operators") > 0
    assert run.summary.phases[0].pim is not None
    assert run.summary.phases[0].pim.placed_bytes <= 8 << 30


# ---------------------------------------------------------------- overlap


def part(busy_fs: int, steps: int = 1, send_fs: int = 0, receive_fs: int = 0) -> PimPart:
    return PimPart(send_fs, busy_fs, receive_fs, 0, busy_fs, PimCounts(), steps)


def named(name: str, reads: str, writes: str, product: bool = True) -> Operator:
    shape = GemmShape(1, 1, 1) if product else None
    accesses = ((Access(reads, TensorClass.ACTIVATION, 1),), (Access(writes, TensorClass.ACTIVATION, 1),))
    return Operator(name, OperatorKind.GEMM, 0, gemm=shape, reads=accesses[0], writes=accesses[1])


BEFORE, ATTENTION, BEHIND = (
    named("qkv", "x", "qkv"),
    named("attention", "qkv", "out", product=False),
    named("o", "out", "y"),
)


def pipelined(before_fs: int, attention_fs: int, behind_fs: int, heads: int) -> int:
    """From the beginning of the projection before to the end of the one behind."""
    overlap = PimOverlap(heads=True)
    overlap.begin(BEFORE, 0)
    overlap.submit(1, ATTENTION, part(attention_fs, heads), before_fs)
    begin_fs = max(before_fs, overlap.ready_fs(BEHIND))
    return overlap.end_fs(BEHIND, begin_fs, begin_fs + behind_fs)


def test_a_pipeline_of_heads_is_as_long_as_its_longest_stage() -> None:
    """AttAcc: the longer of attention and projections, and a head's share of the other."""
    heads = 10
    assert pipelined(100, 1000, 50, heads) == 100 // heads + 1000 + 50 // heads
    assert pipelined(1000, 100, 500, heads) == 1000 + 500
    assert pipelined(100, 1000, 50, 1) == 100 + 1000 + 50


def test_without_the_switch_attention_waits_for_all_heads() -> None:
    overlap = PimOverlap(heads=False)
    overlap.begin(BEFORE, 0)
    overlap.submit(1, ATTENTION, part(1000, 10, send_fs=7, receive_fs=3), 100)
    assert overlap.ready_fs(BEHIND) == 100 + 7 + 1000 + 3
    assert overlap.busy == [(1, 107, 1107)]


def test_pim_does_one_thing_after_the_other() -> None:
    overlap = PimOverlap(heads=False)
    overlap.submit(0, ATTENTION, part(1000), 0)
    assert overlap.beside(1, part(10), 500) == 1010


def test_halves_of_a_batch_take_turns(experiment: Path) -> None:
    loaded = load_experiment(experiment)
    model, precision = loaded.model, loaded.spec.workload.precision
    contexts = (10, 20, 30)
    first, second = (lower_decode(model, precision, 1, half) for half in halves(contexts))
    both = interleaved(first, second)
    assert (both.tokens, both.sequences) == (3, 3)
    assert len(both.operators) == len(first.operators) + len(second.operators)
    assert [op for op in both.operators if not op.name.endswith(" (2)")] == list(first.operators)
    kinds = [op.name for op in both.operators if op.kind is OperatorKind.DECODE_ATTENTION]
    assert kinds[:2] == ["layers[0].attention", "layers[0].attention (2)"]
    written = {a.tensor for op in first.operators for a in op.writes if a.tensor_class is TensorClass.ACTIVATION}
    assert not written & {a.tensor for op in both.operators for a in op.writes if op.name.endswith(" (2)")}


def test_sub_batches_hide_attention(experiment: Path, tmp_path: Path) -> None:
    """With long contexts: PIM is at work for most of the time, and the device hardly waits longer than for one half."""
    change = inside("neupims", "attention") | {"workload.decode.context_tokens": 2048, "workload.prefill": None}
    apart = archsim.run(experiment, change, out=tmp_path / "apart")
    change["system.device.pim.overlap"] = {"sub_batches": True}
    together = archsim.run(experiment, change, out=tmp_path / "together")
    assert value(together, "decode.pim.busy") > value(apart, "decode.pim.busy")
    assert value(together, "decode.time.pim") < value(apart, "decode.time.pim")


def test_a_shared_product_is_whole_and_balanced(experiment: Path, tmp_path: Path) -> None:
    change = pim(link=None, overlap={"feed_forward": True}) | {"workload.batch": 1, "workload.prefill": None}
    run = archsim.run(experiment, change, out=tmp_path / "run")
    rows = run.operators[run.operators["name"].map(job_of) == "gate_up_proj"]
    useful = rows["pim_read_bytes"] - rows["pim_padding_bytes"]
    assert (useful > 0).all()
    dram = rows["dram_read_bytes"] - rows["dram_padding_bytes"]
    assert (useful + dram == 2 * 8192 * 1024).all()
    alone_run = archsim.run(experiment, pim() | {"workload.batch": 1, "workload.prefill": None}, out=tmp_path / "alone")
    before = alone_run.operators[alone_run.operators["name"].map(job_of) == "gate_up_proj"]
    assert rows["duration_fs"].sum() < before["duration_fs"].sum()


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 7, 8, 1000])
def test_the_most_that_fits_is_found(limit: int) -> None:
    assert most_that_fits(lambda number: number <= limit) == limit


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pim(technology="attac_bank"), "did you mean 'attacc_bank'"),
        (pim(capacity="1 TB"), "more than 2 stacks"),
        (pim(offload={"policy": "atention"}), "did you mean 'attention'"),
        (pim(overlap={"heads": True, "sub_batches": True}), "one of the two"),
        (inside("attacc_bank", "attention") | {"system.device.memory.capacity": "100 GB"}, "as many PIM stacks"),
        (pim() | {"system.device.prefetch": True}, "prefetch is not simulated"),
        (pim(technology={"base": "attacc_bank", "energy": None}), "has no energy data"),
        (
            pim(technology={"base": "attacc_bank", "commands": {"MACXX": {"role": "use", "bus": "row"}}}),
            "one kind of MAC",
        ),
    ],
)
def test_a_bad_spec_is_refused(change: dict[str, object], message: str, experiment: Path) -> None:
    with pytest.raises(SpecError, match=message):
        load_experiment(experiment, change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pim("hbm_pim", "attention"), "has no attention"),
        (pim(capacity="1 MiB"), "PIM memory needs .* 1 MiB there"),
        (pim() | {"workload.precision.kv": "fp8"}, "8 bits an element of the KV cache, .* multiply 16"),
        (pim("aim_gddr6", "intensity") | {"workload.precision.weights": "fp8"}, "8 bits an element of the weights"),
        (pim(offload={"policy": "intensity", "most_op_per_byte": 0.5}), "its KV cache lies in PIM memory"),
        (pim() | {"workload.kv_block_tokens": 16}, "no kv_block_tokens"),
    ],
)
def test_what_pim_cannot_do_is_an_error(
    change: dict[str, object], message: str, experiment: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        archsim.run(experiment, change, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("technology", "context"), [("attacc_bank", 10**7), ("aim_gddr6", 10**8)])
def test_a_cache_that_outgrows_the_rows_of_a_bank(technology: str, context: int, experiment: Path) -> None:
    with pytest.raises(UserError, match="rows of each bank"):
        unit_of(experiment, pim(technology)).part_of(attention_over(experiment, (context,)))


def test_latent_attention_is_not_laid_out(experiment: Path) -> None:
    unit = unit_of(experiment, pim())
    operator = attention_over(experiment, (64,))
    assert operator.attention is not None
    latent = type(operator.attention)(8, 1, 576, 512, (1,), (64,))
    changed = Operator(**{name: getattr(operator, name) for name in operator.__slots__} | {"attention": latent})
    with pytest.raises(UserError, match="keys of 576 and values of 512"):
        unit.part_of(changed)


# ---------------------------------------------------------------- what a user sees


def test_the_command_line_runs_a_shipped_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_phases(tmp_path)
    out = tmp_path / "out"
    words = ["archsim", "run", str(file), "system=cent", "workload.batch=1", "workload.prefill=null", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert exit_info.value.code in (None, 0)
    assert "PIM at work" in capsys.readouterr().out
    page = (out / "report.html").read_text()
    assert "Processing in memory" in page and "MACAB" in page
    timeline = (out / "timeline.json").read_text()
    assert "PIM" in timeline
    again = archsim.open_run(out).summary.phases[0].pim
    assert again is not None and again.policy == "all_gemv" and again.counts.commands["MACAB"] > 0


def test_describe_knows_pim_of_a_system() -> None:
    found = describe("dgx_attacc_bank")
    assert isinstance(found, Description)
    facts = {fact.name: fact.value for fact in found.facts}
    assert facts["device.pim.stacks"] == 5
    assert "TB/s" in str(facts["(bandwidth at the PIM units of a device)"])


def test_a_prompt_is_the_devices(experiment: Path) -> None:
    loaded = load_experiment(experiment, pim())
    trace: OperatorTrace = lower_prefill(loaded.model, loaded.spec.workload.precision, 1, (128,))
    machine = Machine(loaded.system.spec, 1)
    records = machine.run(trace)
    attention = [record for record in records if record.kind is OperatorKind.PREFILL_ATTENTION]
    assert attention and all(record.counts.pim is None for record in attention)


@pytest.mark.parametrize(("devices", "said"), [(8, True), (4, False)])
def test_an_overlap_of_heads_that_changes_nothing_says_so(devices: int, said: bool) -> None:
    changes = {
        "workload.model": "llama-3-8b",
        "workload.tensor_parallel": devices,
        "system.device.pim.overlap.heads": True,
    }
    facts = facts_of(load_experiment(experiment_file("attacc_gpt3_bank"), changes))
    assert "overlap of heads" in facts["offloaded to PIM"]
    assert ("without effect" in facts["offloaded to PIM"]) is said

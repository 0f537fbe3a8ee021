"""Prefill and decode on a machine: invariants of every operator, and how results answer to changes of the machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simpy
from small_experiment import write_phases

import archsim
from archsim.config.errors import UserError
from archsim.energy import COMPONENTS
from archsim.engine.machine import Machine
from archsim.engine.memory_port import MemoryPort
from archsim.engine.phases import PhaseOutcome, Setup, kv_storage, new_machine, reserve_kv, run_phase
from archsim.experiment import LoadedExperiment, load_experiment
from archsim.experiment_spec import PhasesWorkload
from archsim.memory.device import HbmDevice, Range, Transfer
from archsim.records import CAUSES, OperatorKind, OperatorRecord, OperatorTrace, TensorClass
from archsim.results import RunResult
from archsim.system import load_system
from archsim.workload.operators import lower_decode, lower_prefill

FS = 10**15
CONTENTION = 1.01
"""Prefetched loads share banks and queues with an operator that waits for memory itself, and cost it a little."""
BUS = ("busy", "refresh", "turnaround", "row", "idle")

SYSTEMS: dict[str, list[str]] = {
    "h200": [],
    "a100": ["system=a100"],
    "b200, fp8": ["system=b200", "workload.precision.weights=fp8", "workload.precision.kv=fp8"],
    "h200x8, tp 4": ["system=h200x8", "workload.tensor_parallel=4"],
    "h200, prompt of 4096": ["workload.prefill.prompt_tokens=4096", "workload.prefill.batch=2"],
    "h200, one token": ["workload.batch=1", "workload.prefill.prompt_tokens=1", "workload.decode.context_tokens=1"],
    "h200, batch 256": ["workload.batch=256", "workload.decode.context_tokens=4096"],
    "h200, small window": ["system.device.stream_window=1 MB"],
}
PREFETCH = ["system.device.prefetch=true"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phases(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def simulate(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunResult]:
    """Run the small experiment with changes; equal changes run once."""
    known: dict[tuple[str, ...], RunResult] = {}

    def call(*changes: str) -> RunResult:
        if changes not in known:
            known[changes] = archsim.run(experiment, list(changes), out=tmp_path_factory.mktemp("runs") / "run")
        return known[changes]

    return call


def traces_of(loaded: LoadedExperiment) -> list[tuple[OperatorTrace, int]]:
    """(trace, cached tokens) of prefill and decode."""
    workload = loaded.spec.workload
    assert isinstance(workload, PhasesWorkload) and workload.prefill is not None and workload.decode is not None
    prompts = (workload.prefill.prompt_tokens,) * workload.prefill.batch
    contexts = (workload.decode.context_tokens,) * workload.batch
    like = (loaded.model, workload.precision, workload.tensor_parallel)
    return [
        (lower_prefill(*like, prompts), sum(prompts)),
        (lower_decode(*like, contexts), sum(contexts) + len(contexts)),
    ]


def setup_of(loaded: LoadedExperiment) -> Setup:
    workload = loaded.spec.workload
    return Setup(loaded.system.spec, loaded.model, workload.precision, workload.tensor_parallel)


def outcomes_of(experiment: Path, changes: Sequence[str]) -> list[tuple[LoadedExperiment, PhaseOutcome]]:
    loaded = load_experiment(experiment, changes)
    return [(loaded, run_phase(setup_of(loaded), trace, tokens, None)) for trace, tokens in traces_of(loaded)]


def value(run: RunResult, metric: str) -> float:
    return float(run.metrics[metric].value)


# ---------------------------------------------------------------- every operator


@pytest.mark.parametrize("changes", SYSTEMS.values(), ids=SYSTEMS)
def test_no_operator_beats_its_roofline(experiment: Path, changes: list[str]) -> None:
    """The bound is computed again here, from the lowered operators and the data sheet's rates alone."""
    for loaded, outcome in outcomes_of(experiment, changes):
        device = loaded.system.spec.device
        for operator, record in zip(outcome.trace.operators, outcome.trail.operators, strict=True):
            assert record.name == operator.name
            assert record.duration_fs >= record.roofline_fs
            peak = device.memory.peak_bytes_per_second
            moved = sum(
                access.bytes
                for access in (*operator.reads, *operator.writes)
                if access.tensor_class is not TensorClass.ACTIVATION
            )
            assert record.duration_fs * peak >= (moved * FS) - peak
            if operator.matrix_flops:
                flops = device.matrix.peak_flops(operator.compute_format)
                assert record.duration_fs * flops >= operator.matrix_flops * FS - flops


@pytest.mark.parametrize("changes", SYSTEMS.values(), ids=SYSTEMS)
def test_causes_tile_every_duration(experiment: Path, changes: list[str]) -> None:
    for _, outcome in outcomes_of(experiment, changes):
        check_tiling(outcome.trail.operators)


def check_tiling(records: Sequence[OperatorRecord]) -> None:
    end_fs = records[0].start_fs
    for record in records:
        assert record.start_fs == end_fs
        assert list(record.cause_fs) == list(CAUSES)
        assert min(record.cause_fs.values()) >= 0
        assert sum(record.cause_fs.values()) == record.duration_fs
        end_fs = record.end_fs


@pytest.mark.parametrize("prefetch", [[], PREFETCH], ids=["", "prefetch"])
@pytest.mark.parametrize("changes", [SYSTEMS["h200"], SYSTEMS["a100"], SYSTEMS["h200, small window"]])
def test_decode_moves_the_lowered_bytes_and_their_padding(
    experiment: Path, changes: list[str], prefetch: list[str]
) -> None:
    """Activations of a decode step stay on chip; all else is read or written once, in whole rounds of bursts."""
    loaded, outcome = outcomes_of(experiment, [*changes, *prefetch])[1]
    machine = new_machine(setup_of(loaded))
    lowered = {False: 0, True: 0}
    moved = {False: 0, True: 0}
    padding = accesses = 0
    for operator, record in zip(outcome.trace.operators, outcome.trail.operators, strict=True):
        for write, sides in ((False, operator.reads), (True, operator.writes)):
            kept = [access for access in sides if access.tensor_class is not TensorClass.ACTIVATION]
            lowered[write] += sum(access.bytes for access in kept)
            accesses += len(kept)
        moved[False] += record.counts.dram_read_bytes
        moved[True] += record.counts.dram_write_bytes
        padding += record.counts.dram_padding_bytes
    assert sum(moved.values()) == sum(lowered.values()) + padding
    assert 0 <= padding < accesses * machine.memory.round_bytes
    for write in (False, True):
        assert 0 <= moved[write] - lowered[write] < accesses * machine.memory.round_bytes
    weights = loaded.model.weight_bytes(loaded.spec.workload.precision)
    cache = sum(access.bytes for access in kv_storage(loaded.model, loaded.spec.workload.precision, 1, sum((512,) * 4)))
    embedding = loaded.model.vocabulary * loaded.model.hidden * 2  # of which a row per sequence is read
    assert lowered[False] == pytest.approx(weights - embedding + cache, rel=0.001)


@pytest.mark.parametrize("changes", SYSTEMS.values(), ids=SYSTEMS)
def test_counts_of_the_memory_add_up(experiment: Path, changes: list[str]) -> None:
    for _, outcome in outcomes_of(experiment, changes):
        records = outcome.trail.operators
        for name in ("dram_reads", "dram_writes", "dram_row_hits", "dram_row_misses", "dram_row_conflicts"):
            parts = sum(getattr(record.counts, name) for record in records)
            assert parts == sum(getattr(group.counts, name) * len(group.members) for group in outcome.channels)
        one = outcome.channels[0].counts
        assert one.dram_row_hits + one.dram_row_misses + one.dram_row_conflicts == one.dram_reads + one.dram_writes
        for record in records:
            assert record.counts.noc_bytes == record.counts.dram_read_bytes + record.counts.dram_write_bytes


@pytest.mark.parametrize("changes", SYSTEMS.values(), ids=SYSTEMS)
def test_bus_time_tiles_every_operator(experiment: Path, changes: list[str]) -> None:
    """Busy, refresh, turnaround, row and idle ticks of all pseudo-channels are the operator's time, up to a tick."""
    for loaded, outcome in outcomes_of(experiment, changes):
        memory = loaded.system.spec.device.memory
        for record in outcome.trail.operators:
            ticks = sum(getattr(record.counts, f"dram_{cause}_ticks") for cause in BUS)
            elapsed = record.duration_fs / memory.technology.tick_fs
            assert abs(ticks / memory.pseudo_channels - elapsed) <= 1


@pytest.mark.parametrize("changes", SYSTEMS.values(), ids=SYSTEMS)
def test_energy_parts_sum_to_the_total(simulate: Callable[..., RunResult], changes: list[str]) -> None:
    run = simulate(*changes)
    for phase in ("prefill", "decode"):
        parts = [value(run, f"{phase}.energy.{name}") for name in COMPONENTS]
        assert min(parts) >= 0
        assert math.isclose(sum(parts), value(run, f"{phase}.energy"), rel_tol=1e-12)
        limit = load_system("b200").spec.device.power.limit
        assert 0 < value(run, f"{phase}.power") <= limit


# ---------------------------------------------------------------- the same numbers again


def test_two_runs_are_byte_identical(experiment: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        archsim.run(experiment, out=tmp_path / name)
    for file in ("metrics.json", "operators.parquet", "bandwidth.parquet", "timeline.json", "run.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file


@pytest.mark.parametrize("changes", SYSTEMS.values(), ids=SYSTEMS)
@pytest.mark.parametrize("prefetch", [[], PREFETCH], ids=["", "prefetch"])
def test_shortcuts_change_no_number(
    simulate: Callable[..., RunResult], changes: list[str], prefetch: list[str]
) -> None:
    quick, plain = simulate(*changes, *prefetch), simulate(*changes, *prefetch, "no_shortcuts=true")
    for file in ("metrics.json", "operators.parquet"):
        assert (quick.directory / file).read_bytes() == (plain.directory / file).read_bytes(), file


@pytest.mark.parametrize("changes", SYSTEMS.values(), ids=SYSTEMS)
def test_a_chain_and_single_steps_give_the_same_records(experiment: Path, changes: list[str]) -> None:
    loaded = load_experiment(experiment, changes)
    for trace, tokens in traces_of(loaded):
        trails = []
        for stepwise in (False, True):
            machine = Machine(loaded.system.spec, loaded.spec.workload.tensor_parallel, stepwise=stepwise)
            reserve_kv(machine, setup_of(loaded), tokens)
            machine.run(trace)
            trails.append(machine.trail)
        assert trails[0].operators == trails[1].operators
        assert trails[0].bandwidth == trails[1].bandwidth


# ---------------------------------------------------------------- how results answer


@pytest.mark.parametrize("name", ["h200", "h200x8, tp 4", "h200, small window"])
def test_layers_prepared_alike_are_as_prepared_one_by_one(experiment: Path, name: str) -> None:
    loaded = load_experiment(experiment, SYSTEMS[name])
    for trace, kv_tokens in traces_of(loaded):
        prepared, computed = [], []
        for one_by_one in (False, True):
            machine = new_machine(setup_of(loaded))
            reserve_kv(machine, setup_of(loaded), kv_tokens)
            machine._preparer._names_decide = one_by_one
            prepared.append([machine._preparer.prepare(operator) for operator in trace.operators])
            computed.append(len(machine._preparer._alike))
        assert prepared[0] == prepared[1]
        assert computed[0] > computed[1] == 0, "the first way did share"


def test_a_larger_batch_is_never_faster(simulate: Callable[..., RunResult]) -> None:
    latencies = [value(simulate(f"workload.batch={batch}"), "decode.latency") for batch in (1, 2, 3, 4, 8, 31, 64, 256)]
    assert latencies == sorted(latencies)


def test_a_longer_context_is_never_faster(simulate: Callable[..., RunResult]) -> None:
    contexts = (1, 512, 4096, 32768)
    latencies = [value(simulate(f"workload.decode.context_tokens={tokens}"), "decode.latency") for tokens in contexts]
    assert latencies == sorted(latencies)


def test_half_the_stacks_are_slower(simulate: Callable[..., RunResult]) -> None:
    both = ["system.device.memory.capacity=70 GB"]
    whole, half = simulate(*both), simulate(*both, "system.device.memory.stacks=3")
    assert value(half, "decode.tpot") > value(whole, "decode.tpot")
    assert value(half, "prefill.latency") > value(whole, "prefill.latency")
    large = ["workload.batch=256", "workload.decode.context_tokens=8192", *both]
    slowdown = value(simulate(*large, "system.device.memory.stacks=3"), "decode.tpot") / value(
        simulate(*large), "decode.tpot"
    )
    assert 1.5 < slowdown <= 2.1


@pytest.mark.parametrize("changes", SYSTEMS.values(), ids=SYSTEMS)
def test_prefetching_does_not_cost_time_and_moves_the_same(
    simulate: Callable[..., RunResult], changes: list[str]
) -> None:
    plain, ahead = simulate(*changes), simulate(*changes, *PREFETCH)
    for phase in ("prefill", "decode"):
        assert value(ahead, f"{phase}.latency") <= CONTENTION * value(plain, f"{phase}.latency")
        assert value(ahead, f"{phase}.hbm.bytes") == value(plain, f"{phase}.hbm.bytes")
        assert value(ahead, f"{phase}.hbm.utilisation") <= 1
    unchanged = ["name", "phase", "matrix_flops", "vector_flops", "link_bytes", "buffer_read_bytes"]
    assert ahead.operators[unchanged].equals(plain.operators[unchanged])
    for column in ("dram_read_bytes", "dram_write_bytes", "dram_padding_bytes"):
        totals = [run.operators.groupby("phase")[column].sum().to_dict() for run in (plain, ahead)]
        assert totals[0] == totals[1], column


@pytest.mark.parametrize("prompt", [512, 16384], ids=["activations on chip", "activations in memory"])
def test_nothing_is_prefetched_before_it_is_written(
    experiment: Path, prompt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load that starts while the operator before still runs is of tensors which that one does not write."""
    loaded = load_experiment(experiment, [*PREFETCH, f"workload.prefill.prompt_tokens={prompt}"])
    started: dict[Transfer, int] = {}
    submit = MemoryPort.submit

    def noting(port: MemoryPort, transfer: Transfer, *, gated: bool = False) -> tuple[int, simpy.Event]:
        if gated:
            started[transfer] = int(port._environment.now)
        return submit(port, transfer, gated=gated)

    monkeypatch.setattr(MemoryPort, "submit", noting)
    trace, tokens = traces_of(loaded)[0]
    machine = new_machine(setup_of(loaded))
    reserve_kv(machine, setup_of(loaded), tokens)
    records = machine.run(trace)
    prefetched = 0
    for before, operator, record in zip(trace.operators, trace.operators[1:], records, strict=False):
        item = machine._preparer.prepare(operator)
        if item.transfer in started and started[item.transfer] < record.end_fs:
            prefetched += 1
            assert not item.loads & {access.tensor for access in before.writes}, operator.name
    assert prefetched > 0 or prompt > 512


@pytest.mark.parametrize("changes", SYSTEMS.values(), ids=SYSTEMS)
def test_roofline_fidelity_is_a_bound_for_every_operator(
    simulate: Callable[..., RunResult], changes: list[str]
) -> None:
    cycle, bound = simulate(*changes), simulate(*changes, "fidelity=roofline")
    assert list(cycle.operators["name"]) == list(bound.operators["name"])
    assert (bound.operators["duration_fs"] <= cycle.operators["duration_fs"]).all()
    assert (bound.operators["roofline_fs"] == cycle.operators["roofline_fs"]).all()
    for phase in ("prefill", "decode"):
        assert value(bound, f"{phase}.roofline_ratio") == 1
        assert value(bound, f"{phase}.latency") <= value(cycle, f"{phase}.latency")
        assert value(bound, f"{phase}.hbm.utilisation") <= 1 + 1e-8  # bounds are rounded down to femtoseconds


def test_collectives_take_time_on_the_links(simulate: Callable[..., RunResult]) -> None:
    operators = simulate(*SYSTEMS["h200x8, tp 4"]).operators
    reduces = operators[operators["kind"] == OperatorKind.ALL_REDUCE.value]
    assert len(reduces)
    assert (reduces["cause_link_fs"] == reduces["duration_fs"]).all()
    assert (reduces["link_bytes"] > 0).all()


# ---------------------------------------------------------------- what goes wrong


def test_a_model_that_does_not_fit_says_by_how_much(experiment: Path, tmp_path: Path) -> None:
    """Llama-3-70B in bf16 is 141.1 GB: a GPU of 141 GB lacks a little, and what it lacks for the cache."""
    with pytest.raises(UserError) as raised:
        archsim.run(experiment, ["workload.model=llama-3-70b"], out=tmp_path / "run")
    said = str(raised.value)
    assert "141 GB" in said
    assert "too much" in said
    assert "tensor_parallel" in said
    assert not (tmp_path / "run").exists()


def test_the_watchdog_names_the_stuck_memory() -> None:
    """A consumer that never starts: its window fills, and then nothing can happen any more."""
    machine = Machine(load_system("h200").spec, 1)
    transfer = Transfer((Range(0, 5000),), tiles=16, tile_ticks=2000, window_bursts=2000)
    _, done = machine._port.submit(transfer, gated=True)
    with pytest.raises(RuntimeError, match=r"GPU\[0\]\.HBM makes no progress.*job 0: 6000 reads and 0 writes to go"):
        machine.environment.run(until=done)


def test_the_watchdog_hears_of_a_stuck_chain(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain of operators that doesn't end before the clock's last tick counts as stuck."""
    monkeypatch.setattr("archsim.memory.device.HORIZON_TICKS", 20_000)
    loaded = load_experiment(experiment)
    (trace, tokens), _ = traces_of(loaded)
    with pytest.raises(RuntimeError, match=r"GPU\[0\]\.HBM makes no progress"):
        run_phase(setup_of(loaded), trace, tokens, None)


# ---------------------------------------------------------------- what is long


@pytest.mark.parametrize(
    ("what", "ticks"), [("archsim.engine.chain.CHAIN_TICKS", 50_000), ("archsim.memory.device.HORIZON_TICKS", 60_000)]
)
def test_a_trace_longer_than_the_kernel_counts_goes_on_in_another_chain(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, what: str, ticks: int
) -> None:
    """Cut by bounds before it runs, or where the horizon came: the numbers stay."""
    outcomes, chains = [], []
    run_program = HbmDevice.run_program

    def counted(self: HbmDevice, operators: np.ndarray, *others: Any) -> np.ndarray:
        chains.append(len(operators))
        return run_program(self, operators, *others)

    monkeypatch.setattr(HbmDevice, "run_program", counted)
    for cut in (False, True):
        loaded = load_experiment(experiment)
        trace = lower_decode(loaded.model, loaded.spec.workload.precision, 1, (512,) * 4)
        machine = Machine(loaded.system.spec, 1)
        assert machine.memory.loaded_read_fs  # measured with a horizon of its own
        if cut:
            monkeypatch.setattr(what, ticks)
            monkeypatch.setattr("archsim.memory.device.REBASE_TICKS", 1)
        outcomes.append(machine.run(trace))
    assert outcomes[0] == outcomes[1]
    assert len(chains) > 4


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["system=h200x8", "workload.tensor_parallel=2", "system.link.latency=100 s"], "takes longer than 22 s"),
        (
            ["system=h200x8", "workload.tensor_parallel=2", "system.link.latency=1e6 s"],
            "counted in femtoseconds, to 9223 s",
        ),
        (["system.device.memory.technology.data_rate=1e30 Gb/s"], r"expected a data_rate of at most 2e\+06 Gb/s"),
        (["system.device.memory.technology.timings.tREFI=1e9 s"], "tREFI = [0-9]* clocks is more than 2147483648"),
        (["system.device.memory.controller.starve_after=1e9 s"], "expected at most 4294967296"),
        (["system.device.memory.technology.commands.activate_clocks=1e25"], "activate_clocks = 1e[+]25 is too large"),
    ],
)
def test_times_that_can_not_be_counted_are_refused(experiment: Path, changes: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        archsim.run(experiment, changes, out=experiment.parent / "never")
    assert not (experiment.parent / "never").exists()


def test_a_window_without_bounds_is_one_that_holds_everything(simulate: Callable[..., RunResult]) -> None:
    found = [simulate(f"system.device.stream_window={size}") for size in ("1e30 MB", "1 TB")]
    assert found[0].metrics["decode.latency"] == found[1].metrics["decode.latency"]


def test_a_link_of_a_second_is_simulated(simulate: Callable[..., RunResult]) -> None:
    result = simulate("system=h200x8", "workload.tensor_parallel=2", "system.link.latency=1 s", "workload.prefill=null")
    assert 5 < result.metrics["decode.latency"].value < 60  # five collectives, each over the link at least once

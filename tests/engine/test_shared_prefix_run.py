"""A prefix that all sequences share, in whole runs: stored once, read as often as said; tiers, PIM, serving."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from small_experiment import LINK, write_phases, write_requests

import archsim
from archsim.compute.attention import AttentionEngines, AttentionKernelSpec, PrefixSchedule, decode_work, prefix_work
from archsim.config.errors import SpecError, UserError
from archsim.engine.machine import Machine
from archsim.engine.phases import Setup, phase_machine, reserve_kv, reserve_prefix, shared_kv_storage
from archsim.engine.tiering import KvAges
from archsim.experiment import load_experiment
from archsim.memory.device import HbmDevice, Range, Transfer
from archsim.records import AttentionShape, TensorClass
from archsim.report.series import job_of
from archsim.results import RunResult
from archsim.system import HbmSpec, load_system
from archsim.workload.operators import lower_decode, tensors
from archsim.workload.precision import Precision
from archsim.workload.shared_prefix import SharedPrefix

BF16 = Precision()
BATCH, CONTEXT, PREFIX = 4, 512, 3000
LAYERS, TOKEN = 2, 2 * 4 * 128 * 2  # bytes of a token in a layer's cache: keys and values, four heads, bf16
FLASH = {"kind": "flash", "technology": "hbf_1536", "stacks": 1, "capacity": "512 GiB", "staging": "8 MiB"}


DEALT: dict[str, object] = {
    "system": "h200x8",
    "workload.tensor_parallel": 8,
    "workload.prefill": None,
    "workload.decode.context_parallel": 2,
}
"""Eight devices have two copies of each of four KV heads."""


def shared(attention: str = "cascade", **more: object) -> dict[str, object]:
    return {"workload.shared_prefix": {"tokens": PREFIX, "attention": attention} | more}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phases(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module", params=["cascade", "per_sequence"])
def run(request: pytest.FixtureRequest, experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return archsim.run(experiment, shared(request.param), out=tmp_path_factory.mktemp("runs") / "run")


def is_cascade(run: RunResult) -> bool:
    return run.operators["name"].str.contains("prefix_attention").any()


def jobs(run: RunResult, phase: str, job: str) -> Any:
    table = run.operators
    return table[(table["phase"] == phase) & (table["name"].map(job_of) == job)]


# ---------------------------------------------------------------- bytes and time


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_the_prefix_is_read_once_or_once_for_each_sequence(run: RunResult, phase: str) -> None:
    """Bytes from memory in closed form, padding to whole rounds left out."""
    own = 128 if phase == "prefill" else BATCH * (CONTEXT + 1)
    attention = jobs(run, phase, "attention")
    moved = attention["dram_read_bytes"] - attention["dram_padding_bytes"]
    if is_cascade(run):
        assert set(moved) == {own * TOKEN}
        prefix = jobs(run, phase, "prefix_attention")
        assert len(prefix) == LAYERS
        assert set(prefix["dram_read_bytes"] - prefix["dram_padding_bytes"]) == {PREFIX * TOKEN}
    else:
        passes = 1 if phase == "prefill" else BATCH
        assert set(moved) == {(own + passes * PREFIX) * TOKEN}


def test_causes_tile_every_duration_and_nothing_beats_its_bound(run: RunResult) -> None:
    table = run.operators
    causes = [name for name in table.columns if name.startswith("cause_")]
    assert (table[causes].sum(axis=1) == table["duration_fs"]).all()
    assert (table[causes] >= 0).all().all()
    assert (table["duration_fs"] >= table["roofline_fs"]).all()


@pytest.mark.parametrize("attention", ["cascade", "per_sequence"])
def test_without_shortcuts_and_step_by_step_it_is_the_same(experiment: Path, attention: str) -> None:
    loaded = load_experiment(experiment, shared(attention))
    prefix = loaded.spec.workload.prefix
    trace = lower_decode(loaded.model, BF16, 1, [CONTEXT] * BATCH, prefix)
    setup = Setup(loaded.system.spec, loaded.model, BF16, 1, prefix=prefix)
    outcomes = []
    for how in ({}, {"shortcuts": False}, {"stepwise": True}):
        machine = Machine(setup.system, 1, **how)
        machine.reserve(tensors(loaded.model, BF16, 1))
        reserve_prefix(machine, setup)
        reserve_kv(machine, setup, BATCH * (CONTEXT + 1))
        outcomes.append(machine.run(trace))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_reading_copies_takes_as_long_as_reading_the_prefix_for_each_sequence(experiment: Path, tmp_path: Path) -> None:
    """The same bytes in two streams instead of one: within 2%."""
    one = archsim.run(experiment, shared("per_sequence", tokens=50_000), out=tmp_path / "shared")
    context = {"workload.decode.context_tokens": 50_000 + CONTEXT}
    many = archsim.run(experiment, context, out=tmp_path / "copies")
    mine, theirs = (jobs(each, "decode", "attention")["duration_fs"].sum() for each in (one, many))
    assert mine == pytest.approx(theirs, rel=0.02)


def test_a_cascade_saves_the_copies_time(experiment: Path, tmp_path: Path) -> None:
    long = {"workload.shared_prefix.tokens": 100_000, "workload.batch": 16}
    once = archsim.run(experiment, long, out=tmp_path / "once")
    each = archsim.run(
        experiment, long | {"workload.shared_prefix.attention": "per_sequence"}, out=tmp_path / "for each"
    )
    assert each.metrics["decode.tpot"].value > 3 * once.metrics["decode.tpot"].value
    bound = archsim.run(experiment, long | {"fidelity": "roofline"}, out=tmp_path / "bound")
    assert bound.metrics["decode.tpot"].value < once.metrics["decode.tpot"].value


# ---------------------------------------------------------------- capacity and tiers


def machine_of(
    experiment: Path, rules: Sequence[object], batch: int = BATCH, context: int = CONTEXT, **changes: object
) -> Machine:
    system = {"system.device.tiers": {"hbf": FLASH}, "system.device.placement": {"rules": list(rules)}}
    loaded = load_experiment(experiment, system | shared() | changes)
    setup = Setup(loaded.system.spec, loaded.model, BF16, 1, prefix=SharedPrefix(PREFIX))
    return phase_machine(setup, batch, batch * (context + 1))


def test_the_prefix_is_stored_once(experiment: Path) -> None:
    stored = shared_kv_storage(load_experiment(experiment).model, BF16, 1, PREFIX)
    assert sum(access.bytes for access in stored) == LAYERS * PREFIX * TOKEN
    free = [machine_of(experiment, [], batch).placement.main.free_bytes for batch in (4, 5)]
    assert free[0] - free[1] == LAYERS * (CONTEXT + 1) * TOKEN  # a sequence more needs its own tokens alone


def test_a_prefix_that_does_not_fit_says_by_how_much(experiment: Path) -> None:
    loaded = load_experiment(experiment)
    weights = sum(access.bytes for access in tensors(loaded.model, BF16, 1))
    needed = weights + LAYERS * TOKEN * (PREFIX + BATCH * (CONTEXT + 1))
    just = {"system.device.memory.capacity": f"{needed} B"}
    assert machine_of(experiment, [], **just).placement.main.free_bytes == 0
    with pytest.raises(UserError, match=r"1 B too much"):
        machine_of(experiment, [], **{"system.device.memory.capacity": f"{needed - 1} B"})
    full = {"system.device.tiers": {"hbf": FLASH | {"capacity": "1 MiB"}}}
    with pytest.raises(UserError, match=r"tier hbf needs 12.3 MB on each device"):
        machine_of(experiment, [{"tensors": "kv_shared", "tier": "hbf"}], **full)


@pytest.mark.parametrize(
    ("rule", "tokens"),
    [
        ({"tensors": "kv_shared"}, PREFIX),
        ({"tensors": "kv"}, PREFIX + BATCH * (CONTEXT + 1)),
        ({"tensors": "kv_shared", "share": 0.25}, PREFIX // 4),
        # The newest tokens of a sequence are its own; what is left of the window is the end of the prefix.
        ({"tensors": "kv", "older_than_tokens": CONTEXT + 1}, PREFIX),
        ({"tensors": "kv", "older_than_tokens": CONTEXT + 1 + 1000}, PREFIX - 1000),
        ({"tensors": "kv", "older_than_tokens": 500}, PREFIX + BATCH * 13),
        ({"tensors": "kv", "older_than_tokens": CONTEXT + 1 + PREFIX}, 0),
        ({"tensors": "experts"}, 0),
    ],
    ids=str,
)
def test_rules_place_the_prefix(experiment: Path, rule: dict[str, object], tokens: int) -> None:
    machine = machine_of(experiment, [rule | {"tier": "hbf"}])
    assert machine.placement.stores["hbf"].used_bytes == LAYERS * tokens * TOKEN


def test_ages_where_devices_deal_the_cache_out() -> None:
    ages = KvAges(token_bytes=Fraction(10, 4), sequences=4, own_tokens=10)
    assert ages.newest_bytes(10, TensorClass.KV_SHARED) == 0
    assert ages.newest_bytes(17, TensorClass.KV_SHARED) == 18  # 7 tokens of 10 B over four devices, rounded up
    assert ages.newest_bytes(17, TensorClass.KV) == 170


@pytest.mark.parametrize("attention", ["cascade", "per_sequence"])
def test_a_prefix_in_flash_is_read_there(experiment: Path, tmp_path: Path, attention: str) -> None:
    system = {
        "system.device.tiers": {"hbf": FLASH},
        "system.device.placement": {"rules": [{"tensors": "kv_shared", "tier": "hbf"}]},
    }
    tiered = archsim.run(experiment, system | shared(attention), out=tmp_path / "run")
    job = "prefix_attention" if attention == "cascade" else "attention"
    reads = jobs(tiered, "decode", job)["tier_hbf_read_bytes"]
    passes = 1 if attention == "cascade" else BATCH
    assert all(0 <= read - passes * PREFIX * TOKEN < passes * 65536 for read in reads)
    assert jobs(tiered, "decode", "o_proj")["tier_hbf_read_bytes"].sum() == 0


def test_passes_over_a_tensor_in_main_memory_are_one_long_range(experiment: Path) -> None:
    machine = machine_of(experiment, [])
    loaded = load_experiment(experiment)
    trace = lower_decode(loaded.model, BF16, 1, [CONTEXT] * BATCH, SharedPrefix(PREFIX, cascade=False))
    access = next(a for op in trace.operators for a in op.reads if a.tensor_class is TensorClass.KV_SHARED)
    data = machine.placement.main.range_of(access, write=False)
    assert isinstance(data, Range)
    assert data.bursts == BATCH * machine.memory.bursts(PREFIX * TOKEN)


def test_rows_behind_the_end_of_memory_take_the_time_of_others() -> None:
    """What stands for the passes behind the first may be more than there is."""
    memory = load_system("h200", {}).spec.device.memory
    assert isinstance(memory, HbmSpec)
    times = []
    for row in (0, 10**9):
        device = HbmDevice(memory.technology, memory.controller, memory.channels)
        device.submit(Transfer((Range(row * device.row_set_bursts, 100_000),)))
        times.append((device.advance(), device.count_vector().tolist()))
    assert times[0] == times[1]


# ---------------------------------------------------------------- the kernel's schedule


def work(schedule: PrefixSchedule, queries: int, keys: int) -> tuple[int, int]:
    """(engine time, time of one block on one unit) of 8 query heads of 4 KV heads on an H200, in femtoseconds."""
    device = load_system("h200", {}).spec.device
    kernel = AttentionKernelSpec(**(device.attention.model_dump() | {"prefix_schedule": schedule}))
    engines = AttentionEngines(device.matrix, device.vector, device.buffer, kernel, 10**9)
    shape = AttentionShape(8, 4, 128, 128, (queries,), (keys,))
    done = prefix_work(shape, "bf16", engines)
    if schedule is PrefixSchedule.SPLIT:
        assert done == decode_work(shape, "bf16", engines)
    return done.compute_fs, engines.block_fs(shape, 128, 128, "bf16")


def test_even_schedules_lose_nothing_to_waves() -> None:
    """65 tiles of 128 rows in each of four heads on 132 units: 260 tiles are two waves, for which 264 would do."""
    queries, keys = 65 * 64, 128 * 1000
    even, block = work(PrefixSchedule.EVEN, queries, keys)
    assert even == -(-260 * 1000 // 132) * block
    split, _ = work(PrefixSchedule.SPLIT, queries, keys)
    assert split == 2 * 1000 * block
    half_a_wave = 34 * 64  # 136 tiles: one wave and four tiles
    assert work(PrefixSchedule.SPLIT, half_a_wave, keys)[0] > 1.9 * work(PrefixSchedule.EVEN, half_a_wave, keys)[0]


# ---------------------------------------------------------------- context parallel


def test_devices_that_deal_the_cache_out_store_and_read_it_once(experiment: Path, tmp_path: Path) -> None:
    runs = [
        archsim.run(experiment, DEALT | shared() | changes, out=tmp_path / str(len(changes)))
        for changes in ({"workload.decode.context_parallel": 1}, {})
    ]
    bound = archsim.run(experiment, DEALT | shared() | {"fidelity": "roofline"}, out=tmp_path / "bound")
    assert 0 < bound.metrics["decode.tpot"].value < runs[1].metrics["decode.tpot"].value
    moved = [
        sum(jobs(run, "decode", job)[name].sum() for job in ("attention", "prefix_attention"))
        for run in runs
        for name in ("dram_read_bytes", "dram_padding_bytes")
    ]
    heads_token = TOKEN // 4
    assert moved[0] - moved[1] == LAYERS * heads_token * (PREFIX + BATCH * (CONTEXT + 1))
    assert moved[2] - moved[3] == LAYERS * heads_token * (PREFIX // 2 + BATCH * ((CONTEXT + 2) // 2))
    for name in ("query_all_gather", "lse_all_gather", "attention_reduce_scatter"):
        gathered = jobs(runs[1], "decode", name)
        assert len(gathered) == LAYERS
        assert (gathered["cause_link_fs"] == gathered["duration_fs"]).all()


# ---------------------------------------------------------------- PIM and serving


def pim(**more: object) -> dict[str, object]:
    own = {
        "technology": "attacc_bank",
        "stacks": 2,
        "capacity": "8 GiB",
        "link": LINK,
        "offload": {"policy": "attention"},
    }
    return {"system.device.pim": own | more}


def test_beside_pim_the_prefix_is_the_devices(experiment: Path, tmp_path: Path) -> None:
    """PIM does what it does without a prefix; the prefix lies in the device's own memory."""
    with_prefix = archsim.run(experiment, pim() | shared(), out=tmp_path / "shared")
    without = archsim.run(experiment, pim(), out=tmp_path / "without")
    for name in ("pim_busy_fs", "pim_read_bytes", "pim_macs"):
        assert (
            jobs(with_prefix, "decode", "attention")[name].tolist()
            == jobs(without, "decode", "attention")[name].tolist()
        )
    prefix = jobs(with_prefix, "decode", "prefix_attention")
    assert set(prefix["pim_operators"]) == {0}
    assert set(prefix["dram_read_bytes"] - prefix["dram_padding_bytes"]) == {PREFIX * TOKEN}


def test_pim_refuses_a_prefix_for_each_sequence(experiment: Path) -> None:
    with pytest.raises(SpecError, match=r"workload.shared_prefix.attention: PIM lays out a cache.*expected cascade"):
        load_experiment(experiment, pim() | shared("per_sequence"))


def test_halves_of_a_batch_read_the_prefix_each(experiment: Path, tmp_path: Path) -> None:
    run = archsim.run(experiment, pim(overlap={"sub_batches": True}) | shared(), out=tmp_path / "run")
    assert len(jobs(run, "decode", "prefix_attention")) == 2 * LAYERS


TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2025-01-01 09:00:00.0,40,3
2025-01-01 09:00:00.0,60,3
"""


def test_requests_are_served_behind_a_prefix(tmp_path: Path) -> None:
    """It is stored once, read once in an iteration, and no request waits for more memory than its own."""
    file = write_requests(tmp_path, TRACE)
    run = archsim.run(file, shared(), out=tmp_path / "run")
    table = run.operators
    iterations = table["iteration"].nunique()
    prefix = table[table["name"].str.endswith("prefix_attention")]
    assert len(prefix) == iterations == 3
    assert set(prefix["dram_read_bytes"] - prefix["dram_padding_bytes"]) == {LAYERS * PREFIX * TOKEN}
    weights = sum(access.bytes for access in tensors(load_experiment(file).model, BF16, 1))
    needed = weights + LAYERS * TOKEN * (PREFIX + 62)
    archsim.run(file, shared() | {"system.device.memory.capacity": f"{needed} B"}, out=tmp_path / "just")
    with pytest.raises(UserError, match=r"needs 62 tokens of KV cache, 1 more than fit"):
        archsim.run(file, shared() | {"system.device.memory.capacity": f"{needed - 1} B"}, out=tmp_path / "less")


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (shared("hydragen"), "one of cascade, per_sequence"),
        ({"workload.shared_prefix": {"tokens": 0}}, "workload.shared_prefix.tokens"),
        ({"workload.shared_prefix": {"token": 5}}, "tokens"),
        ({"workload.decode.context_parallel": 2}, "expected more devices than its 4 KV heads, or 1"),
        (DEALT | {"workload.kv_block_tokens": 16}, "deal out a paged cache yet"),
        (DEALT | pim(), "deal out the cache that PIM attends to yet"),
        (shared(context_parallel=2), "context_parallel"),
        (shared() | {"workload.kv_block_tokens": 16}, "shared_prefix or kv_block_tokens"),
    ],
    ids=str,
)
def test_bad_prefixes_are_refused(experiment: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        load_experiment(experiment, changes)

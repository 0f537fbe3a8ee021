"""Tiers beside the main memory: closed forms of the pipeline, placement, invariants of whole runs, and bad input."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from small_experiment import LINK, write_phases, write_requests

import archsim
from archsim.config.errors import SpecError, UserError
from archsim.config.loading import load_mapping
from archsim.energy import COMPONENTS
from archsim.engine.phases import Setup, kv_storage, phase_machine
from archsim.engine.tier_pipeline import TierPart, TierPipeline
from archsim.experiment import load_experiment
from archsim.kernels import channel, flash_state
from archsim.memory.device import HbmDevice, Range, Transfer
from archsim.memory.flash_device import FlashDevice
from archsim.memory.tiers import PARTS, WRITE_PARTS, DramTier, FlashTier, TierLinkSpec
from archsim.records import Access, TensorClass
from archsim.results import RunResult
from archsim.system import load_system
from archsim.workload.operators import tensors

MIB = 1 << 20
PART_ROUNDS = 16
ENGINE_FS = 7_000_000_003

FLASH = {"kind": "flash", "technology": "hbf_1536", "stacks": 1, "capacity": "512 GiB"}
DRAM = {"kind": "dram", "technology": "lpddr5x_8gb_x64", "stacks": 2, "capacity": "8 GiB"}


def flash_tier() -> FlashTier:
    return load_mapping(FLASH, FlashTier).spec


def pipeline(*, ahead: bool = False, link: TierLinkSpec | None = None) -> TierPipeline:
    device = FlashDevice(flash_tier().technology)
    buffer_bytes = PARTS * PART_ROUNDS * device.round_bytes
    jobs, rounds = flash_state.MAX_JOBS, device.channel_pages
    return TierPipeline("hbf", device, buffer_bytes, ahead=ahead, link=link, jobs=jobs, rounds=rounds)


def reads(*ranges: tuple[int, int]) -> TierPart:
    return TierPart("hbf", ranges, 0, 0)


def alone_fs(*ranges: tuple[int, int]) -> int:
    """What the flash itself takes for ranges that start together."""
    device = FlashDevice(flash_tier().technology)
    ticks = []
    for first, rounds in ranges:
        device.submit(Transfer((Range(first, rounds),)))
    while (done := device.advance()) is not None:
        ticks.append(done.tick)
    return device.to_fs(max(ticks))


# ---------------------------------------------------------------- the pipeline's closed forms


@pytest.mark.parametrize("rounds", [1, 5, PART_ROUNDS])
def test_one_chunk_takes_what_the_flash_takes(rounds: int) -> None:
    tier = pipeline()
    tier.load([reads((0, rounds))], rounds, 0)
    tier.begin(0, 0, ENGINE_FS)
    done = tier.finish(0)
    assert done.end_fs == alone_fs((0, rounds)) + ENGINE_FS
    assert done.wait_fs == done.arrival_fs - done.issue_fs == alone_fs((0, rounds))


def test_chunks_that_fit_the_buffer_start_together() -> None:
    """Without engine time an operator ends when the flash has its chunks, as if all were submitted at once."""
    parts = PARTS - WRITE_PARTS
    tier = pipeline()
    tier.load([reads((0, parts * PART_ROUNDS))], 0, 0)
    tier.begin(0, 0, 0)
    chunks = [(k * PART_ROUNDS, PART_ROUNDS) for k in range(parts)]
    assert tier.finish(0).end_fs == alone_fs(*chunks)


def test_without_staging_loads_start_with_their_operator() -> None:
    tier = pipeline()
    tier.load([None, reads((0, 4))], 4, 0)
    tier.begin(0, 0, ENGINE_FS)
    tier.finish(0)
    start_fs = 10 * ENGINE_FS
    tier.begin(1, start_fs, ENGINE_FS)
    done = tier.finish(0)
    assert done.issue_fs == start_fs
    tick_fs = math.ceil(flash_tier().technology.tick_fs)
    assert 0 <= done.end_fs - (start_fs + alone_fs((0, 4)) + ENGINE_FS) <= tick_fs


@pytest.mark.parametrize("late_fs", [-1, 0, 1, 1_000_000])
def test_staging_hides_latency_to_the_femtosecond(late_fs: int) -> None:
    """Data that arrive before their operator begins cost nothing; later, just what they are late."""
    needed_fs = alone_fs((0, 4))
    begin_fs = needed_fs - late_fs
    tier = pipeline(ahead=True)
    tier.load([None, reads((0, 4))], 4, 0)
    tier.begin(0, 0, begin_fs)
    assert tier.finish(0).end_fs == begin_fs
    tier.begin(1, begin_fs, ENGINE_FS)
    done = tier.finish(0)
    assert done.wait_fs == max(0, late_fs)
    assert done.end_fs == begin_fs + max(0, late_fs) + ENGINE_FS


def test_staging_goes_as_far_ahead_as_there_is_room() -> None:
    """The chunk that finds no room is issued when the first operator's data are consumed."""
    parts = PARTS - WRITE_PARTS
    tier = pipeline(ahead=True)
    tier.load([reads((k * PART_ROUNDS, PART_ROUNDS)) for k in range(parts + 1)], 0, 0)
    tier.begin(0, 0, ENGINE_FS)
    first = tier.finish(0)
    end_fs = first.end_fs
    for index in range(1, parts + 1):
        tier.begin(index, end_fs, 0)
        last = tier.finish(0)
        end_fs = last.end_fs
        assert last.issue_fs == (0 if index < parts else first.end_fs)


def test_an_operator_is_consumed_at_the_engines_rate() -> None:
    """Compute-bound: it ends its engine time after its first chunk, whatever the flash could do."""
    tier = pipeline()
    tier.load([reads((0, 40 * PART_ROUNDS))], 0, 0)
    engine_fs = 10**12
    tier.begin(0, 0, engine_fs)
    done = tier.finish(0)
    assert done.end_fs == done.wait_fs + engine_fs
    assert done.wait_fs <= alone_fs(*((k * PART_ROUNDS, PART_ROUNDS) for k in range(PARTS - WRITE_PARTS)))


def test_activations_are_not_loaded_before_they_are_written() -> None:
    tier = pipeline(ahead=True)
    written = TierPart("hbf", (), 0, 100, writes=frozenset({"hidden"}))
    again = TierPart("hbf", ((0, 1),), 100, 0, reads=frozenset({"hidden"}))
    tier.load([written, again], 1, 0)
    tier.begin(0, 0, ENGINE_FS)
    end_fs = tier.finish(100).end_fs
    tier.begin(1, end_fs, 0)
    assert tier.finish(0).issue_fs >= ENGINE_FS


def test_writes_gather_and_stall_only_when_all_parts_are_under_way() -> None:
    tier = pipeline()
    part_bytes = PART_ROUNDS * tier.device.round_bytes
    tier.load([TierPart("hbf", (), 0, 1)], 0, 0)
    tier.begin(0, 0, 0)
    assert tier.finish(part_bytes - 1).written_bytes == 0
    free = tier.finish(WRITE_PARTS * part_bytes)
    assert (free.end_fs, free.written_bytes) == (0, WRITE_PARTS * part_bytes)
    stalled = tier.finish(part_bytes)
    assert stalled.written_bytes == part_bytes
    assert stalled.end_fs >= flash_tier().technology.timings.tPROG


@pytest.mark.parametrize("rounds", [1, 16, 64])
def test_a_link_takes_its_flits_time(rounds: int) -> None:
    link = load_mapping(LINK, TierLinkSpec).spec
    tier = pipeline(link=link)
    size_bytes = rounds * tier.device.round_bytes
    tier.load([reads((0, rounds))], 0, 0)
    tier.begin(0, 0, 0)
    chunks = [min(PART_ROUNDS, rounds - k) * tier.device.round_bytes for k in range(0, rounds, PART_ROUNDS)]
    wire_fs = sum(-(-8 * -(-size // 236) * 256 * 10**15 // (16 * 32 * 10**9)) for size in chunks)
    assert sum(chunks) == size_bytes
    assert tier.finish(0).end_fs == max(wire_fs, alone_fs((0, rounds))) + 500_000_000


def test_a_dram_tier_takes_what_the_dram_takes() -> None:
    spec = load_mapping(DRAM, DramTier).spec
    devices = [HbmDevice(spec.technology, spec.controller, spec.channels) for _ in range(2)]
    rounds = 4096
    job = devices[0].submit(Transfer((Range(0, rounds),)))
    done = devices[0].advance()
    assert done is not None and done.job == job
    buffer_bytes = PARTS * rounds * devices[1].round_bytes
    tier = TierPipeline("ddr", devices[1], buffer_bytes, ahead=False, link=None, jobs=channel.MAX_JOBS, rounds=1 << 20)
    tier.load([reads((0, rounds))], 0, 0)
    tier.begin(0, 0, 0)
    assert tier.finish(0).end_fs == devices[0].to_fs(done.tick)


# ---------------------------------------------------------------- whole runs


RULES: list[dict[str, object]] = [
    {"tensors": "weights", "layers": [0, 0], "tier": "hbf"},
    {"tensors": "weights", "tier": "ddr", "share": 0.25},
    {"tensors": "kv", "older_than_tokens": 64, "tier": "hbf"},
    {"tensors": "embeddings", "tier": "ddr"},
]


def changes(staging: bool = True, rules: Sequence[object] = RULES, **more: object) -> dict[str, object]:
    flash = FLASH | ({"staging": "8 MiB"} if staging else {})
    dram = DRAM | {"link": LINK} | ({"staging": "4 MiB"} if staging else {})
    said: dict[str, object] = {
        "system.device.tiers": {"hbf": flash, "ddr": dram},
        "system.device.placement": {"rules": list(rules)},
    }
    return said | more


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phases(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module", params=[True, False], ids=["staged", "not staged"])
def tiered(request: pytest.FixtureRequest, experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return archsim.run(experiment, changes(request.param), out=tmp_path_factory.mktemp("runs") / "run")


def value(run: RunResult, name: str) -> float:
    return float(run.metrics[name].value)


def test_energy_parts_sum_to_the_total_and_lie_in_their_band(tiered: RunResult) -> None:
    for phase in ("prefill", "decode"):
        parts = [value(tiered, f"{phase}.energy.{name}") for name in (*COMPONENTS, "tier_hbf", "tier_ddr")]
        assert min(parts) >= 0
        assert math.isclose(math.fsum(parts), value(tiered, f"{phase}.energy"), rel_tol=1e-12)
        for tier in ("hbf", "ddr"):
            low, likely, high = (value(tiered, f"{phase}.tier.{tier}.energy{end}") for end in ("_low", "", "_high"))
            assert 0 < low < likely < high


def test_no_tier_is_faster_than_its_ceiling(tiered: RunResult) -> None:
    for phase in ("prefill", "decode"):
        for tier in ("hbf", "ddr"):
            assert 0 < value(tiered, f"{phase}.tier.{tier}.utilisation") <= 1


def test_bytes_go_where_the_rules_say(tiered: RunResult, experiment: Path) -> None:
    """Bytes of a decode step by tier, from the lowered sizes, up to the padding of whole rounds."""
    loaded = load_experiment(experiment, changes())
    model, precision = loaded.model, loaded.spec.workload.precision
    lowered = tensors(model, precision, 1)
    weights = [a for a in lowered if a.tensor_class is TensorClass.WEIGHT or a.tensor == "lm_head.weight"]
    first = sum(a.bytes for a in weights if a.tensor.startswith("layers[0]."))
    others = sum(a.bytes for a in weights if not a.tensor.startswith("layers[0]."))
    token = model.kv_bytes_per_token_per_layer(precision, 1)
    old = 4 * (512 + 1 - 64) * token * model.layers
    run = tiered.operators[tiered.operators["phase"] == "decode"]
    flash_round, dram_round = 65536, 2 * load_mapping(DRAM, DramTier).spec.round_bytes
    operators = len(run)
    assert 0 <= run["tier_hbf_read_bytes"].sum() - (first + old) < operators * 3 * flash_round
    rows = 4 * 1024 * 2  # of the embedding table
    assert 0 <= run["tier_ddr_read_bytes"].sum() - (others // 4 + rows) < operators * 3 * dram_round


def test_causes_tile_every_duration(tiered: RunResult) -> None:
    table = tiered.operators
    causes = [name for name in table.columns if name.startswith("cause_")]
    assert (table[causes].sum(axis=1) == table["duration_fs"]).all()
    assert (table[causes] >= 0).all().all()
    assert table["cause_tier_fs"].sum() > 0


def test_staging_is_never_slower(experiment: Path, tmp_path: Path) -> None:
    staged, direct = (archsim.run(experiment, changes(on), out=tmp_path / str(on)) for on in (True, False))
    assert value(staged, "decode.latency") < value(direct, "decode.latency")
    assert value(staged, "decode.tier.hbf.bytes") == value(direct, "decode.tier.hbf.bytes")


def test_the_same_run_twice_and_without_shortcuts_is_the_same(experiment: Path, tmp_path: Path) -> None:
    for name, more in (("first", {}), ("second", {}), ("plain", {"no_shortcuts": True})):
        archsim.run(experiment, changes(**more), out=tmp_path / name)
    for file in ("metrics.json", "operators.parquet"):
        assert len({(tmp_path / name / file).read_bytes() for name in ("first", "second", "plain")}) == 1, file


def test_tiers_that_nothing_lies_on_change_no_time(experiment: Path, tmp_path: Path) -> None:
    plain = archsim.run(experiment, out=tmp_path / "plain")
    beside = archsim.run(experiment, changes(rules=[]), out=tmp_path / "beside")
    kept = ["name", "start_fs", "end_fs", "bound", "dram_reads", "dram_activates", "cause_transfer_fs", "noc_bytes"]
    assert plain.operators[kept].equals(beside.operators[kept])


def test_a_tier_as_fast_and_a_rule_for_everything(experiment: Path, tmp_path: Path) -> None:
    """Everything but activations on one flash stack: HBM is left alone."""
    rules = [{"tensors": name, "tier": "hbf"} for name in ("weights", "kv", "embeddings")]
    run = archsim.run(experiment, changes(rules=rules), out=tmp_path / "run")
    assert value(run, "decode.hbm.bytes") == 0
    assert value(run, "decode.tier.hbf.bytes") > 0
    ceiling = float(flash_tier().ceiling_bytes_per_second)
    assert value(run, "decode.latency") >= value(run, "decode.tier.hbf.bytes") * 0.9 / ceiling


def test_a_share_of_nothing_is_no_rule(experiment: Path, tmp_path: Path) -> None:
    """A sweep over shares may begin at zero."""
    none = [{"tensors": name, "share": 0, "tier": "hbf"} for name in ("weights", "kv")]
    runs = [
        archsim.run(experiment, changes(rules=rules), out=tmp_path / name) for name, rules in (("a", none), ("b", []))
    ]
    assert runs[0].metrics == runs[1].metrics


def test_requests_are_served_from_tiers(tmp_path: Path) -> None:
    rules = [{"tensors": "kv", "share": 0.5, "tier": "hbf"}, {"tensors": "weights", "tier": "hbf"}]
    run = archsim.run(write_requests(tmp_path), changes(rules=rules) | {"workload.limit": 4}, out=tmp_path / "run")
    assert value(run, "serving.requests") == 4
    assert value(run, "iterations.tier.hbf.bytes") > 0


def test_the_bound_knows_tiers(experiment: Path, tmp_path: Path) -> None:
    bound = archsim.run(experiment, changes(fidelity="roofline"), out=tmp_path / "bound")
    cycle = archsim.run(experiment, changes(staging=False), out=tmp_path / "cycle")
    assert value(bound, "decode.latency") < value(cycle, "decode.latency")
    assert value(bound, "decode.time.tier") > 0
    assert (cycle.operators["duration_fs"] >= cycle.operators["roofline_fs"]).all()


# ---------------------------------------------------------------- placement


def machine_of(experiment: Path, rules: Sequence[object], **more: object) -> object:
    loaded = load_experiment(experiment, changes(rules=rules, **more))
    setup = Setup(loaded.system.spec, loaded.model, loaded.spec.workload.precision, 1)
    return phase_machine(setup, 4, 4 * 513)


def test_a_cache_split_by_age_sends_on_what_ages(experiment: Path) -> None:
    """A new token of each sequence goes to HBM, and one of each that has grown old from there to flash."""
    machine = machine_of(experiment, [{"tensors": "kv", "older_than_tokens": 64, "tier": "hbf"}])
    loaded = load_experiment(experiment)
    (layer, *_) = kv_storage(loaded.model, loaded.spec.workload.precision, 1, 4 * 513)
    token = layer.bytes // 513
    append = machine.placement.sort((), (Access(layer.tensor, TensorClass.KV, token),))  # type: ignore[attr-defined]
    assert [access.bytes for access in append.writes] == [token]
    assert [access.bytes for access in append.reads] == [token]
    assert append.parts[0].write_bytes == token
    whole = machine.placement.sort((), (layer,))  # type: ignore[attr-defined]
    assert not whole.reads
    assert whole.parts[0].write_bytes == (513 - 64) * token


def test_a_full_tier_says_by_how_much(experiment: Path) -> None:
    small = {"system.device.tiers": {"hbf": FLASH | {"capacity": "20 MiB"}}}
    with pytest.raises(UserError, match=r"tier hbf needs .* on each device, which has .* too much"):
        machine_of(experiment, [{"tensors": "weights", "tier": "hbf"}], **small)


def test_a_tensor_without_a_tier_is_named(experiment: Path) -> None:
    nowhere = {"system.device.placement": {"rules": [{"tensors": "weights", "tier": "hbf"}], "rest": None}}
    with pytest.raises(UserError, match=r"embedding.weight \(embedding\) has no tier.*placement.rest: hbm"):
        machine_of(experiment, [], **nowhere)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"tensors": "weights", "tier": "hbff"}, "did you mean 'hbf'"),
        ({"tensors": "wieghts", "tier": "hbf"}, "did you mean 'weights'"),
        ({"tensors": "weights", "tier": "hbf", "layers": [4, 1]}, "first at most last"),
        ({"tensors": "weights", "tier": "hbf", "layers": [1, 2]}, "the model has 2 layers .*from 0 to 1"),
        ({"tensors": "weights", "tier": "hbf", "share": -0.1}, "a fraction from 0 to 1"),
        ({"tensors": "weights", "tier": "hbf", "older_than_tokens": 5}, "tensors: kv only"),
        ({"tensors": "kv", "tier": "hbf", "older_than_tokens": 5, "share": 0.5}, "older_than_tokens or share"),
    ],
)
def test_wrong_rules_are_refused(experiment: Path, rule: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_experiment(experiment, changes(rules=[rule]))


@pytest.mark.parametrize(
    ("tier", "message"),
    [
        (FLASH | {"capacity": "513 GiB"}, "at most 512 GiB"),
        (FLASH | {"staging": "4 KiB"}, "staging of at least"),
        (DRAM | {"kind": "dramm"}, "dram"),
        (FLASH | {"link": LINK | {"payload": "300 B"}}, "at most 256 B"),
    ],
)
def test_wrong_tiers_are_refused(experiment: Path, tier: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_experiment(experiment, {"system.device.tiers": {"hbf": tier}})


def test_age_needs_equal_sequences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a rule with a share instead"):
        archsim.run(write_requests(tmp_path), changes(), out=tmp_path / "run")


@pytest.mark.parametrize("name", ["h200_hbf", "h3"])
def test_shipped_systems_have_sourced_tiers(name: str) -> None:
    loaded = load_system(name)
    assert loaded.spec.device.tiers["hbf"].ceiling_bytes_per_second > 10**12
    assert "device.tiers.hbf.staging" in loaded.sources
    json.dumps(loaded.resolved)

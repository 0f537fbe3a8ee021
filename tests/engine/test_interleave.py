"""Interleaves, paged caches and experts on channel subsets, as a user asks for them: classes change no number.

`no_shortcuts: true` simulates every channel on its own, command by command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_experiment import write_model, write_phases

import archsim
from archsim.config.errors import SpecError, UserError
from archsim.engine.placement import PagedKv
from archsim.results import RunResult

SMALL = {"system.device.memory.stacks": 1, "system.device.memory.capacity": "24 GB"}  # 16 channels
INTERLEAVE = "system.device.memory.interleave"
MIXTURE = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "intermediate_size": 512,
}
VARIANTS = {
    "ragged": {INTERLEAVE: {"granularity": "256 B"}},
    "hashed": {INTERLEAVE: {"granularity": "128 B", "hash": "channel^=round[3:0] channel^=round[7:4]"}},
    "paged": {"workload.kv_block_tokens": 1, INTERLEAVE: {"granularity": "1 KiB", "hash": "channel^=round[3:0]"}},
    "experts": {"system.device.memory.expert_channels": 4},
}


def experiment(folder: Path, variant: str) -> Path:
    file = write_phases(folder)
    file.write_text(file.read_text().replace("prompt_tokens: 128", "prompt_tokens: 16").replace("512}", "40}"))
    if variant == "experts":
        write_model(folder, **MIXTURE)
    return file


def run(folder: Path, variant: str, **more: object) -> RunResult:
    changes = SMALL | VARIANTS.get(variant, {}) | more
    return archsim.run(experiment(folder, variant), changes, out=folder / f"{variant}{len(more)}")


@pytest.mark.parametrize("variant", VARIANTS)
def test_classes_change_no_number_of_a_run(variant: str, tmp_path: Path) -> None:
    quick = run(tmp_path, variant)
    plain = run(tmp_path, variant, no_shortcuts=True)
    assert {name: quick.metrics[name].value for name in quick.metrics} == {
        name: plain.metrics[name].value for name in plain.metrics
    }
    assert quick.operators.equals(plain.operators)
    phases, plainly = (
        json.loads((tmp_path / name / "run.json").read_text())["phases"] for name in (f"{variant}0", f"{variant}1")
    )
    for phase, other in zip(phases, plainly, strict=True):
        assert phase["channels"] == other["channels"]
        assert sum(group["weight"] for group in phase["channels"]) == 16
    assert any(len(phase["channels"]) > 1 for phase in phases)  # the channels did differ


def test_an_interleave_without_ragged_ends_is_the_uniform_one(tmp_path: Path) -> None:
    """Padded to whole rounds of bursts, all channels do the same, stepwise as in a chain."""
    uniform = run(tmp_path, "uniform")
    padded = run(tmp_path, "uniform", **{INTERLEAVE: {"granularity": "32 B", "ragged": False}})
    assert uniform.operators.equals(padded.operators)


def test_experts_on_few_channels_are_slower_than_on_all(tmp_path: Path) -> None:
    """A token's two experts keep at most two groups of four channels busy, out of four groups."""
    alone = {"workload.batch": 1, "workload.prefill.batch": 1}
    few = run(tmp_path, "experts", **alone)
    everywhere = run(tmp_path, "experts", **alone, **{"system.device.memory.expert_channels": 16})
    assert few.metrics["decode.tpot"].value > everywhere.metrics["decode.tpot"].value


def test_pages_hold_every_token_once() -> None:
    pages = PagedKv(block_tokens=16, token_bytes=100, sequences=3, tokens=37)
    begin, size = pages.pieces(3 * 37 * 100)
    assert pages.pool_tokens == 3 * 48 and size.sum() == 3 * 37 * 100
    covered = [byte for a, n in zip(begin.tolist(), size.tolist(), strict=True) for byte in range(a, a + n)]
    assert len(set(covered)) == len(covered) and max(covered) < pages.pool_tokens * 100


def test_the_newest_tokens_are_the_last_of_each_sequence() -> None:
    begin, size = PagedKv(block_tokens=4, token_bytes=8, sequences=2, tokens=9).pieces(2 * 8)
    assert sorted(size[size > 0].tolist()) == [8, 8]
    whole, _ = PagedKv(block_tokens=4, token_bytes=8, sequences=2, tokens=9).pieces(2 * 9 * 8)
    assert begin[size > 0].tolist() == whole[[2, 5]].tolist()  # each third block holds one token


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({INTERLEAVE: {"granularity": "48 B"}}, "does not cut a row set"),
        ({INTERLEAVE: {"granularity": "64 B", "hash": "channel^=round[9:0]"}}, "takes 10 bits for channel"),
        ({INTERLEAVE: {"granularity": "64 B", "hash": "row^=3"}}, "is no term of a channel hash"),
        ({"system.device.memory.expert_channels": 5}, "can't be cut into groups of 5"),
    ],
)
def test_what_does_not_fit_is_said(change: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises((SpecError, UserError), match=message):
        archsim.run(write_phases(tmp_path), SMALL | change, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()

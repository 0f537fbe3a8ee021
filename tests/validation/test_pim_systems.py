"""Whole systems with processing in memory against what papers' simulators report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from archsim.config.loading import data_root
from archsim.experiment import load_experiment
from archsim.run import simulate

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "validation" / "pim.yaml"
pytestmark = [
    pytest.mark.validate,
    pytest.mark.skipif(not REFERENCE.exists(), reason="the shared data validation/pim.yaml are not here"),
]

CONTEXTS = (2048, 3072, 4095)
"""The first output position, the middle and the last."""


def reference(section: str) -> Any:
    return yaml.safe_load(REFERENCE.read_text())[section]


def token_ms(experiment: str, **changes: object) -> float:
    """Time of a decode step."""
    loaded = load_experiment(data_root() / "experiments" / experiment, changes)
    return 1e3 * float(simulate(loaded).phases[0].metrics()["decode.tpot"].value)


def mean_token_ms(system: str, batch: int) -> float:
    """The mean over output positions: linear between the ends and the middle."""
    first, middle, last = (
        token_ms(f"attacc_gpt3_{system}", **{"workload.batch": batch, "workload.decode.context_tokens": context})
        for context in CONTEXTS
    )
    return (first + 2 * middle + last) / 4


@pytest.mark.parametrize("batch", [54, 78])
@pytest.mark.parametrize("system", ["gpu", "bank", "bank_group", "buffer"])
def test_gpt_175b_with_and_without_attacc(system: str, batch: int) -> None:
    table = reference("attacc_gpt175b_ms_per_token")
    expected = table[f"2048/2048 b{batch}"][system]
    error = mean_token_ms(system, batch) / expected - 1
    print(f"{system} b{batch}: {expected * (1 + error):.2f} against {expected}, {error:+.1%}")
    assert abs(error) <= float(table["tolerance"].rstrip("%")) / 100


def test_attacc_orders_systems_as_its_authors_do() -> None:
    """At batch 78: banks before bank groups before the buffer die before the GPUs alone."""
    times = [token_ms(f"attacc_gpt3_{system}", **{"workload.batch": 78}) for system in ("bank", "bank_group", "buffer")]
    assert times == sorted(times)
    assert times[-1] < token_ms("attacc_gpt3_gpu", **{"workload.batch": 78})


def test_duplex_gains_where_experts_have_few_tokens() -> None:
    """Up to 2.67x by the paper; four times the pins' bandwidth gains more than twice."""
    experiment, alone = "duplex_mixtral", {"system.device.pim": None}
    twice = {"system.device.pim.technology": "logic_pim_2x"}
    gain = token_ms(experiment, **alone) / token_ms(experiment)
    less = token_ms(experiment, **alone) / token_ms(experiment, **twice)
    assert 1 < gain <= 2.67
    assert less < gain


def test_neupims_gains_by_pim_and_more_by_sub_batches() -> None:
    """By the paper 2.4x over the NPU alone and 1.6x over PIM that takes turns with it."""
    experiment, turns = "neupims_opt_6_7b", {"system.device.pim.overlap.sub_batches": False}
    npu, naive, full = (
        token_ms(experiment, **{"system.device.pim": None}),
        token_ms(experiment, **turns),
        token_ms(experiment),
    )
    assert npu > naive > full


CENT_BLOCK_US = {"cent_llama2_7b": (59.04, 100.4465), "cent_llama2_70b_block": (218.4915, 323.093)}
"""PIM time of a block at 128 and at 4096 tokens, one device: CENT (ASPLOS 2025) repository,
cent_simulation/simulation_results.csv, rows of 32 channels per block without tensor parallelism."""


def cent_layer(experiment: str, tokens: int) -> tuple[float, float]:
    """(PIM's time, whole time) of a middle block in microseconds; the token itself is the last of `tokens`."""
    changes = {"workload.decode.context_tokens": tokens - 1}
    (phase,) = simulate(load_experiment(data_root() / "experiments" / experiment, changes)).phases
    records = [record for record in phase.records if record.layer == 2]
    busy_fs = sum(record.counts.pim.busy_fs for record in records if record.counts.pim is not None)
    return busy_fs / 1e9, sum(record.duration_fs for record in records) / 1e9


@pytest.mark.parametrize("experiment", CENT_BLOCK_US)
def test_pim_time_of_a_block_on_cent(experiment: str) -> None:
    """All of it, and what depends on the context, which the mapping of attention alone decides."""
    short, long = CENT_BLOCK_US[experiment]
    found_short, found_long = (cent_layer(experiment, tokens)[0] for tokens in (128, 4096))
    print(f"{experiment}: {found_long:.1f} us, {found_long / long - 1:+.1%}; by context {found_long - found_short:.1f}")
    assert abs(found_long / long - 1) <= 0.05
    assert abs((found_long - found_short) / (long - short) - 1) <= 0.05


def test_cents_own_numbers_agree() -> None:
    """What the shared table calls the time of a block of Llama-2-70B is its PIM's alone."""
    table = reference("cent_published")["llama2_70b_32dev_pp32_seq4096"]
    assert abs(1e3 * table["block_ms"] / CENT_BLOCK_US["cent_llama2_70b_block"][1] - 1) < 1e-3
    assert table["token_ms"] > 1.1 * 80 * table["block_ms"]


def test_a_token_of_llama_7b_on_cent() -> None:
    table = reference("cent_published")
    error = token_ms("cent_llama2_7b") / table["llama2_7b_8dev_pp8_seq4096_token_ms"] - 1
    print(f"{error:+.1%}")
    assert abs(error) <= float(table["tolerance"].rstrip("%")) / 100


def test_a_token_of_llama_70b_on_cent() -> None:
    """Eighty blocks like those that fit a device, and what comes before and after them."""
    table = reference("cent_published")
    _, block_us = cent_layer("cent_llama2_70b_block", 4096)
    token = token_ms("cent_llama2_70b_block") + (80 - 4) * block_us / 1e3
    error = token / table["llama2_70b_32dev_pp32_seq4096"]["token_ms"] - 1
    print(f"{token:.2f} ms, {error:+.1%}")
    assert abs(error) <= float(table["tolerance"].rstrip("%")) / 100


@pytest.mark.parametrize(
    ("choice", "least"),
    [("scores=host", 0.15), ("results=held", 0.05), ("keys=head_in_channel", 0.01), ("vectors=host", 0.02)],
)
def test_each_choice_of_cents_mapping_costs_a_share_of_its_token(choice: str, least: float) -> None:
    name, value = choice.split("=")
    without = token_ms("cent_llama2_7b", **{f"system.device.pim.technology.mapping.{name}": value})
    assert without < (1 - least) * token_ms("cent_llama2_7b")

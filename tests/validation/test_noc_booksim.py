"""Latency over load, and saturation, of an 8 x 8 mesh against BookSim 2 (commit 28f4329)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from archsim.config.loading import load_spec, resolve_preset
from archsim.fabric.noc import RouterNetwork, build_network
from archsim.fabric.noc_measure import find_saturation, measure, zero_load_latency_cycles
from archsim.fabric.noc_spec import NocSpec

REFERENCE = Path(__file__).parents[3] / "shared" / "validation" / "fabric.yaml"
pytestmark = pytest.mark.skipif(not REFERENCE.is_file(), reason=f"the reference curves, {REFERENCE}, are not here")

TOLERANCE = 0.03
SATURATION = 0.355
SATURATION_WITHOUT_TAIL_CREDIT = 0.462
AS_BOOKSIM = ("measurement.procedure=booksim", "measurement.sample_cycles=1000")
POINTS = [
    *(("mesh8x8_booksim", "mesh8x8_uniform_1flit", rate) for rate in (0.001, 0.1, 0.2, 0.3, 0.34, 0.35)),
    *(("mesh8x8_booksim_20flit", "mesh8x8_uniform_20flit", rate) for rate in (0.0005, 0.005, 0.01, 0.0125, 0.015)),
]


def _reference(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(REFERENCE.read_text())[name]
    return content


@cache
def _network(preset: str, *overrides: str) -> RouterNetwork:
    return build_network(load_spec(resolve_preset(preset, Path()), NocSpec, list(overrides)).spec)


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.2])
def test_single_flit_latency(rate: float) -> None:
    """All points of the curve below 80% of saturation (0.284)."""
    reference = _reference("mesh8x8_uniform_1flit")["injection_to_latency_cycles"]
    point = measure(_network("mesh8x8_booksim"), rate)
    assert point.stable
    assert point.latency_cycles == pytest.approx(reference[rate], rel=TOLERANCE)


def test_zero_load_is_the_closed_form() -> None:
    """4 H + 2 with the exact mean of H, 2 (k^2 - 1) / 3k + 1 = 6.25; BookSim's 6.14 is the mean of a few packets."""
    assert zero_load_latency_cycles(_network("mesh8x8_booksim")) == 4 * 6.25 + 2
    assert zero_load_latency_cycles(_network("mesh8x8_booksim_20flit")) == 4 * 6.25 + 2 + 19


@pytest.mark.parametrize("rate", [0.0005, 0.005, 0.01, 0.0125])
def test_20_flit_latency(rate: float) -> None:
    """A long run, with packets of its own. At 0.015 the reference's one short run is 6% below the long one's mean."""
    reference = _reference("mesh8x8_uniform_20flit")["injection_to_latency_cycles"]
    point = measure(_network("mesh8x8_booksim_20flit"), rate)
    assert point.stable
    assert point.latency_cycles == pytest.approx(reference[rate], rel=TOLERANCE)


@pytest.mark.parametrize(("preset", "name", "rate"), POINTS)
def test_the_reference_s_own_procedure_gives_its_every_digit(preset: str, name: str, rate: float) -> None:
    """BookSim 2's random numbers, samples and draining (seed 0, as there): what is left to differ is the network."""
    reference = str(_reference(name)["injection_to_latency_cycles"][rate])
    digits = len(reference.partition(".")[2])
    point = measure(_network(preset, *AS_BOOKSIM), rate)
    assert point.stable
    assert f"{point.latency_cycles:.{digits}f}" == reference


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "router.credit_cycles=1",
        "router.input_speedup=1",
        "router.wait_for_tail_credit=false",
        "tolerance=0.01",
    ],
)
def test_digits_that_agree_are_no_accident(change: str) -> None:
    """Another seed, another network, another rule for ending: each gives another number."""
    change = change if change.startswith("router") else f"measurement.{change}"
    point = measure(_network("mesh8x8_booksim_20flit", *AS_BOOKSIM, change), 0.015)
    assert f"{point.latency_cycles:.2f}" != "95.66"


def test_overload_is_unstable_not_a_number() -> None:
    rate = _reference("mesh8x8_uniform_20flit")["unstable_at"]
    assert not measure(_network("mesh8x8_booksim_20flit"), rate).stable
    assert not measure(_network("mesh8x8_booksim"), 0.4).stable


@pytest.mark.validate
@pytest.mark.parametrize("rate", [0.3, 0.34])
def test_single_flit_latency_near_saturation(rate: float) -> None:
    reference = _reference("mesh8x8_uniform_1flit")["injection_to_latency_cycles"]
    point = measure(_network("mesh8x8_booksim"), rate)
    assert point.latency_cycles == pytest.approx(reference[rate], rel=0.05)


@pytest.mark.validate
@pytest.mark.parametrize(("wait", "saturation"), [("true", SATURATION), ("false", SATURATION_WITHOUT_TAIL_CREDIT)])
def test_saturation_with_and_without_waiting_for_the_tail_credit(wait: str, saturation: float) -> None:
    network = _network("mesh8x8_booksim", f"router.wait_for_tail_credit={wait}")
    assert find_saturation(network).throughput_flits == pytest.approx(saturation, rel=TOLERANCE)

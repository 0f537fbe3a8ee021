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
    reference = _reference("mesh8x8_uniform_20flit")["injection_to_latency_cycles"]
    point = measure(_network("mesh8x8_booksim_20flit"), rate)
    assert point.stable
    assert point.latency_cycles == pytest.approx(reference[rate], rel=TOLERANCE)


@pytest.mark.validate
def test_20_flit_latency_at_70_percent_of_saturation() -> None:
    """The one point below 80% of saturation that isn't within 3%: 7% above the reference.

    The reference is one run. Runs of 4000 measured cycles with six seeds scatter from 97 to 108 cycles here, the mean
    of a long run is 102, and the reference says 95.7.
    """
    reference = _reference("mesh8x8_uniform_20flit")["injection_to_latency_cycles"]
    point = measure(_network("mesh8x8_booksim_20flit"), 0.015)
    assert point.latency_cycles == pytest.approx(reference[0.015], rel=0.08)


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

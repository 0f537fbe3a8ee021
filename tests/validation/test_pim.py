"""PIM devices against what other simulators report: cycles within the tolerance of the reference, counts exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from archsim.config.loading import load_spec
from archsim.config.presets import data_root
from archsim.memory.pim import PimSpec
from archsim.memory.pim_checker import check_pim
from archsim.memory.pim_device import PimDevice

VALIDATION = Path(__file__).resolve().parents[3] / "shared" / "validation"
needs_reference = pytest.mark.skipif(
    not (VALIDATION / "pim.yaml").exists(), reason="the shared data validation/pim.yaml are not here"
)
PLACEMENTS = {"bank": "attacc_bank", "bank_group": "attacc_bank_group", "buffer": "attacc_buffer"}


def load(name: str, *changes: str) -> PimSpec:
    return load_spec(data_root() / "hwconfigs" / "pim" / f"{name}.yaml", PimSpec, changes).spec


def reference(section: str, file: str = "pim.yaml") -> Any:
    return yaml.safe_load((VALIDATION / file).read_text())[section]


def tolerance(text: str) -> float:
    return float(text.rstrip("%")) / 100


def within(found: float, expected: float, share: float, what: str) -> None:
    error = found / expected - 1
    assert abs(error) <= share, f"{what}: {found} against {expected}, {error:+.1%}"


def test_aim_row_of_64_macs_takes_226_cycles() -> None:
    """Opening to opening: tRCDMAC + 63 tCCDL + tRTP + tRP."""
    spec = load("aim_gddr6")
    device = PimDevice(load("aim_gddr6", "units.accumulators=2", "units.outputs_per_input_load=2"))
    result = device.gemv(1024, 1024, log=1000)
    opens = [tick for tick, target, _ in result.log.tolist() if target == spec.rules_table().index("ACTAB")]
    assert len(opens) == 2
    assert opens[1] - opens[0] == 56 + 63 * 2 + 12 + 32 == 226


@needs_reference
@pytest.mark.parametrize("shape", ["1024x4096", "4096x1024", "4096x4096", "8192x8192"])
def test_aim_gemv(shape: str) -> None:
    table = reference("aim_gemv")
    outputs, inputs = map(int, shape.split("x"))
    found = PimDevice(load("aim_gddr6")).gemv(outputs, inputs).ticks
    within(found, table["cycles_one_output_per_input_load"][shape], tolerance(table["tolerance"]), shape)


SHAPES = ["1024x1024", "4096x1024", "4096x4096", "8192x8192"]
HALF_A_REFRESH_INTERVAL = "first_refresh=1950 ns"
"""The reference measures from its first cycle on; its two ranks are refreshed in turn, the one measured after half of
tREFI (PIMSimulator b464dde, MemoryController.cpp)."""


@needs_reference
@pytest.mark.parametrize("shape", SHAPES)
def test_hbm_pim_gemv(shape: str) -> None:
    table = reference("hbm_pim_gemv")
    outputs, inputs = map(int, shape.split("x"))
    found = PimDevice(load("hbm_pim", HALF_A_REFRESH_INTERVAL)).gemv(outputs, inputs).ticks
    within(found, table["cycles"][shape][1], 0.01, shape)


@needs_reference
@pytest.mark.parametrize("shape", SHAPES)
def test_hbm_pim_without_pim(shape: str) -> None:
    table = reference("hbm_pim_gemv")
    outputs, inputs = map(int, shape.split("x"))
    device = PimDevice(load("hbm_pim", HALF_A_REFRESH_INTERVAL))
    result = device.host_gemv(outputs, inputs, log=200_000)
    assert check_pim(device.rules, result.log) == []
    within(result.ticks, table["cycles"][shape][0], tolerance(table["tolerance"]), shape)


def test_a_first_refresh_comes_when_it_is_said_to() -> None:
    """One refresh more within a product that is shorter than tREFI, and its time."""
    late, early = (PimDevice(load("hbm_pim", f"first_refresh={ns} ns")).host_gemv(1024, 1024) for ns in (3900, 1000))
    assert late.counts["REFAB"] == 0 and early.counts["REFAB"] == 1
    assert late.ticks + 350 <= early.ticks <= late.ticks + 500


def attacc_cases() -> list[tuple[str, int, int, bool, int]]:
    if not (VALIDATION / "pim.yaml").exists():
        return []
    table = reference("attacc_attention")
    cases = []
    for placement in PLACEMENTS:
        for size, cycles in table[placement].items():
            context, heads = (int(word[1:]) for word in size.split())
            for capped, value in zip((True, False), cycles if isinstance(cycles, list) else [cycles], strict=False):
                cases.append((placement, heads, context, capped, value))
    return cases


@needs_reference
@pytest.mark.parametrize(("placement", "heads", "context", "capped", "cycles"), attacc_cases())
def test_attacc_attention(placement: str, heads: int, context: int, capped: bool, cycles: int) -> None:
    spec = load(PLACEMENTS[placement], f"power_cap.enabled={str(capped).lower()}")
    found = PimDevice(spec).attention(heads, context, 128).ticks
    share = tolerance(reference("attacc_attention")["tolerance"])
    within(found, cycles, share, f"{placement} {heads} heads, {context} tokens")


def published_cases() -> list[tuple[str, int, int, bool, int]]:
    if not (VALIDATION / "papers.yaml").exists():
        return []
    cases = []
    for row in reference("attacc_golden", "papers.yaml")["expect"]:
        for placement in PLACEMENTS:
            for capped in (True, False):
                key = placement if placement == "buffer" else f"{placement}_{'capped' if capped else 'uncapped'}"
                key = key.replace("bank_capped", "bank_power_capped")
                if key in row and (placement != "buffer" or capped):
                    cases.append((placement, row["heads"], row["context"], capped, row[key]))
    return cases


@needs_reference
@pytest.mark.parametrize(("placement", "heads", "context", "capped", "cycles"), published_cases())
def test_attacc_published_table(placement: str, heads: int, context: int, capped: bool, cycles: int) -> None:
    """With the program of the release that the table was published with; the current one does less."""
    change = f"power_cap.enabled={str(capped).lower()}"
    found = PimDevice(load(PLACEMENTS[placement], change, "program=first")).attention(heads, context, 128).ticks
    within(found, cycles, tolerance("7%"), f"{placement} {heads} heads, {context} tokens")
    assert PimDevice(load(PLACEMENTS[placement], change)).attention(heads, context, 128).ticks <= found


PUBLISHED_COUNTS = {
    # (context, heads): MAC, SFM, MVGB, MVSB, WRGB of all channels, units at banks (ramulator.out of c1540de)
    (128, 2050): (65616, 2052, 16416, 49200, 16400),
    (248, 2050): (131216, 2052, 16416, 49200, 16400),
    (160, 101): (4056, 106, 848, 2424, 808),
}


@pytest.mark.parametrize(("context", "heads"), PUBLISHED_COUNTS)
def test_attacc_command_counts_are_exact(context: int, heads: int) -> None:
    """The published counts of all channels, less a MAC of each at the start, with which the reference opens the first
    row. Channels have one head more or less: those of each are simulated."""
    device = PimDevice(load("attacc_bank", "program=first"))
    per_channel, more = divmod(heads, 16)
    total = dict.fromkeys(("MACAB", "SFM", "MVGB", "MVSB", "WRGB"), 0)
    for channel_heads, channels in ((per_channel, 16 - more), (per_channel + 1, more)):
        if channel_heads and channels:
            counts = device.attention(16 * channel_heads, context, 128).counts
            total = {name: count + channels * counts[name] for name, count in total.items()}
    macs, softmax, weights, scores, queries = PUBLISHED_COUNTS[context, heads]
    assert total == {"MACAB": macs - 16, "SFM": softmax, "MVGB": weights, "MVSB": scores, "WRGB": queries}


def test_switches_that_move_results() -> None:
    """As large as their reference says: power cap up to 1.5x, outputs per input load up to 1.7x."""
    capped, free = (
        PimDevice(load("attacc_bank", f"power_cap.enabled={on}")).attention(64, 4096, 128).ticks
        for on in ("true", "false")
    )
    assert 1.3 < capped / free <= 1.5
    one = PimDevice(load("aim_gddr6")).gemv(16384, 4096).ticks
    many = PimDevice(load("aim_gddr6", "units.accumulators=32", "units.outputs_per_input_load=32"))
    assert 1.6 < one / many.gemv(16384, 4096).ticks < 1.8

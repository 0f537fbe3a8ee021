"""Command energies of memory technologies: by hand, by two methods, as bands, and as systems use them."""

from __future__ import annotations

import re
from dataclasses import astuple
from pathlib import Path

import pytest

from archsim.config.errors import SpecError
from archsim.config.loading import data_root, load_mapping, load_spec
from archsim.memory.dram_memory import HbmSpec
from archsim.memory.energy import Geometry, MemoryEnergySpec, Method
from archsim.memory.standard import DramStandard
from archsim.system import load_system, system_presets

ROOT = Path(__file__).resolve().parents[2]
ENERGIES = sorted((data_root() / "hwconfigs" / "energy").glob("*.yaml"))
MEMORIES = sorted((data_root() / "hwconfigs" / "memory").glob("*.yaml"))
HBM = Geometry(row_bytes=1024, burst_bytes=32, banks=32, refreshed_rows=64)


def load(name: str) -> MemoryEnergySpec:
    return load_spec(data_root() / "hwconfigs" / "energy" / f"{name}.yaml", MemoryEnergySpec).spec


def memories_with_energy() -> list[DramStandard]:
    standards = [load_spec(file, DramStandard).spec for file in MEMORIES]
    return [standard for standard in standards if standard.energy is not None]


def test_currents_by_hand() -> None:
    """Micron's formulas for DRAMsim3's HBM2: 828 pJ, 804 pJ, 1068 pJ, 60.8 nJ."""
    currents = load("hbm_energy").currents
    assert currents is not None
    assert currents.activate_pj == pytest.approx(1.2 * (65 * 48 - 55 * 34 - 40 * 14)) == pytest.approx(828)
    assert currents.read_pj == pytest.approx(1.2 * 335 * 2) == pytest.approx(804)
    assert currents.write_pj == pytest.approx(1.2 * 445 * 2) == pytest.approx(1068)
    assert currents.refresh_pj == pytest.approx(1.2 * 195 * 260) == pytest.approx(60840)


def test_currents_carry_over_by_size() -> None:
    """The part moves 64 B and refreshes 64 rows; a memory of half its burst and twice its rows: half and double."""
    energy = load("hbm_energy").by_method(HBM)[Method.CURRENTS]
    larger = load("hbm_energy").by_method(Geometry(2048, 64, 32, 128))[Method.CURRENTS]
    assert (energy.activate, energy.read, energy.refresh_all_bank) == pytest.approx((828, 402, 60840))
    assert (larger.activate, larger.read, larger.refresh_all_bank) == pytest.approx((1656, 804, 4 * 60840))
    assert energy.refresh_per_bank == pytest.approx(60840 / 32)


def test_per_bit_by_hand() -> None:
    """FGDRAM via AttAcc: 0.11 of a used row, 0.44 + 1.01 + 1.23 + 0.5 inside, 0.3 on the interposer: 3.59 pJ/b."""
    energy = load("hbm_energy").by_method(HBM)[Method.PER_BIT]
    assert energy.read == pytest.approx(256 * 3.18)
    assert energy.streaming(1024, 32) == pytest.approx(3.59, abs=0.005)
    assert energy.random(32) == pytest.approx(909 / 256 + 3.18 + 0.3)


@pytest.mark.parametrize("file", ENERGIES, ids=lambda file: file.stem)
def test_bands_hold_what_they_are_made_of(file: Path) -> None:
    spec = load_spec(file, MemoryEnergySpec).spec
    band = spec.band(HBM)
    for one in spec.by_method(HBM).values():
        assert all(
            low < value < high for low, value, high in zip(*map(astuple, (band.low, one, band.high)), strict=True)
        )
    assert band.likely == next(iter(spec.by_method(HBM).values()))


@pytest.mark.parametrize(
    ("vendor", "pj_per_bit"), [("HBM3E, Micron, all in", 3.9), ("HBM3E, RPU's model", 3.44), ("FlashAccel", 2.99)]
)
def test_published_totals_lie_in_the_band(vendor: str, pj_per_bit: float) -> None:
    band = load("hbm_energy").band(HBM)
    assert band.low.streaming(1024, 32) < pj_per_bit < band.high.streaming(1024, 32), vendor


def test_the_two_methods_compare_as_the_documentation_says() -> None:
    """docs/energy.md has a row per command: per bit, currents, ratio."""
    methods = load("hbm_energy").by_method(HBM)
    per_bit, currents = methods[Method.PER_BIT], methods[Method.CURRENTS]
    found = {
        "ACT with PRE, 1 KiB": (per_bit.activate, currents.activate),
        "RD, 32 B": (per_bit.read, currents.read),
        "WR, 32 B": (per_bit.write, currents.write),
        "REF, 64 rows": (per_bit.refresh_all_bank, currents.refresh_all_bank),
        "streaming, per bit": (per_bit.streaming(1024, 32), currents.streaming(1024, 32)),
        "random, per bit": (per_bit.random(32), currents.random(32)),
    }
    page = (ROOT / "docs" / "energy.md").read_text()
    for name, (first, second) in found.items():
        row = re.search(
            rf"^\| {re.escape(name)} \| ([\d.]+) \w?J(?:/b)? \| ([\d.]+) \w?J(?:/b)? \| ([\d.]+) \|$", page, re.M
        )
        assert row, name
        scale = 1000 if first > 10_000 else 1  # the page says nJ
        assert (float(row[1]), float(row[2])) == pytest.approx((first / scale, second / scale), rel=0.005), name
        assert float(row[3]) == pytest.approx(second / first, abs=0.005), name
    assert 0.4 < currents.read / per_bit.read < 0.6  # what the band is there for


@pytest.mark.parametrize("standard", memories_with_energy(), ids=lambda standard: standard.name)
def test_shipped_memories_cost_a_few_picojoules_per_bit(standard: DramStandard) -> None:
    band, organisation = standard.energy_band, standard.organisation
    assert band is not None
    sizes = (organisation.row_bytes, organisation.burst_bytes)
    assert 1 < band.low.streaming(*sizes) < band.likely.streaming(*sizes) < band.high.streaming(*sizes) < 12


@pytest.mark.parametrize("name", system_presets())
def test_systems_agree_with_their_memory(name: str) -> None:
    """Where a shipped system has a table of its own, it may differ from the memory's by rounding and no more; that of
    the RPU is of a memory that no other has."""
    system = load_system(name).spec
    table = system.energy.hbm
    if name == "rpu" or not isinstance(system.device.memory, HbmSpec):
        return
    band = system.device.memory.technology.energy_band
    assert band is not None
    if table is None:  # as the memory has it
        assert system.energy_table.hbm is not None and system.energy_table.hbm.activate == band.likely.activate
        return
    assert system.energy_table.hbm is system.energy.hbm
    for entry in ("activate", "read", "write", "refresh_all_bank", "refresh_per_bank", "io"):
        assert getattr(table, entry) == pytest.approx(getattr(band.likely, entry), rel=0.015), entry


def test_a_system_without_a_table_has_its_memorys() -> None:
    tree = load_system("h200").resolved
    own = {**tree, "energy": {name: value for name, value in tree["energy"].items() if name != "hbm"}}
    from archsim.system import SystemSpec

    system = load_mapping(own, SystemSpec).spec
    band = system.device.memory.technology.energy_band
    assert system.energy.hbm is None and band is not None
    assert system.energy_table.hbm is not None
    assert system.energy_table.hbm.activate == band.likely.activate
    assert system.energy_table.vector == system.energy.vector

    memory = {**own["device"]["memory"], "technology": {**own["device"]["memory"]["technology"], "energy": None}}
    with pytest.raises(SpecError, match="has no energy data"):
        load_mapping({**own, "device": {**own["device"], "memory": memory}}, SystemSpec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"per_bit": None, "currents": None}, "neither per_bit nor currents"),
        ({"spread": 1.5}, "reaches below zero"),
        ({"io": 0.3}, "energy per bit"),
        ({"oi": "0.3 pJ/b"}, "io"),
    ],
)
def test_bad_energies_are_refused(change: dict[str, object], message: str) -> None:
    tree = load_spec(ENERGIES[0].with_name("hbm_energy.yaml"), MemoryEnergySpec).resolved
    with pytest.raises(SpecError, match=message):
        load_mapping({**tree, **change}, MemoryEnergySpec)


def test_currents_below_standby_are_refused() -> None:
    tree = load_spec(ENERGIES[0].with_name("hbm_energy.yaml"), MemoryEnergySpec).resolved
    with pytest.raises(SpecError, match="give -"):
        load_mapping({**tree, "currents": {**tree["currents"], "idd4r": "50 mA"}}, MemoryEnergySpec)

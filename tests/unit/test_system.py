"""The shipped systems: loadable, sourced, true to their data sheets; and machines that can't be."""

from __future__ import annotations

from pathlib import Path

import pytest

from archsim.config.errors import SpecError, UserError
from archsim.config.loading import load_spec, resolve_preset, unsourced_numbers
from archsim.fabric.noc_spec import NocSpec, Ring, RouterSpec
from archsim.memory.standard import DramStandard
from archsim.system import SystemSpec, describe_systems, load_system, system_presets

# Data sheets: peak memory bandwidth in TB/s, dense bf16 TFLOP/s, usable GB, board watts.
DATA_SHEETS = {
    "a100": (2.039, 312, 80, 400),
    "h100": (3.352, 989.4, 80, 700),
    "h200": (4.8, 989.4, 141, 700),
    "h200x8": (4.8, 989.4, 141, 700),
    "b200": (8.0, 2250, 180, 1000),
    "mi300x": (5.3, 1307, 192, 750),
    "tpu_v6e": (1.638, 918, 32, 350),
    "rubin": (22.0, 4000, 288, 1800),
}


def test_these_systems_are_shipped() -> None:
    assert set(DATA_SHEETS) <= set(system_presets()) == set(describe_systems())
    assert describe_systems()["h200x8"] == "8 x NVIDIA H200 SXM, NVLink 4"


@pytest.mark.parametrize("name", DATA_SHEETS)
def test_a_preset_is_its_data_sheet(name: str) -> None:
    device = load_system(name).spec.device
    bandwidth, flops, capacity, watts = DATA_SHEETS[name]
    assert float(device.memory.peak_bytes_per_second) == pytest.approx(bandwidth * 1e12, rel=0.005)
    assert device.matrix.peak["bf16"] == pytest.approx(flops * 1e12, rel=0.005)
    assert device.memory.capacity == capacity * 10**9
    assert device.power.limit == watts


@pytest.mark.parametrize("name", system_presets())
def test_every_number_has_a_source(name: str) -> None:
    assert unsourced_numbers(load_system(name)) == []


@pytest.mark.parametrize("name", system_presets())
def test_a_resolved_system_loads_again_to_the_same(name: str, tmp_path: Path) -> None:
    loaded = load_system(name)
    copy = tmp_path / "copy.yaml"
    copy.write_text(loaded.to_yaml(), encoding="utf-8")
    assert load_spec(copy, SystemSpec).spec == loaded.spec
    assert load_system(copy).digest() == loaded.digest()


@pytest.mark.parametrize("name", DATA_SHEETS)
def test_peak_is_what_units_and_clock_make(name: str) -> None:
    """Operations per clock and unit are a power of two, so rate, units and clock belong together."""
    matrix = load_system(name).spec.device.matrix
    per_clock = matrix.peak["bf16"] / matrix.units / matrix.clock
    assert min(abs(per_clock / 2**power - 1) for power in range(3, 18)) < 0.01


def test_h200x8_is_eight_linked_h200() -> None:
    one, eight = load_system("h200").spec, load_system("h200x8").spec
    assert eight.device == one.device and eight.energy == one.energy
    assert (eight.devices, one.devices, one.link) == (8, 1, None)
    assert eight.link is not None and eight.link.bandwidth == 450 * 10**9
    assert eight.capacity_bytes == 8 * 141 * 10**9


def test_the_window_is_the_buffer_unless_given() -> None:
    assert load_system("h200").spec.device.window_bytes == 50 * 10**6
    assert load_system("h200", ["device.stream_window=4 MB"]).spec.device.window_bytes == 4 * 10**6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("device.memory.capacity=200 GB", r"more than 6 stacks of 24 GiB hold.*or at least 8 stacks"),
        ("device.memory.stacks=0", "above zero"),
        ("device.memory.stacks=6 GB", "whole number above zero"),
        ("device.memory.capacity=141", "a size in bytes"),
        ("device.memory.technology=hbm3e_24gb_9hi", "did you mean 'hbm3e_24gb_8hi'"),
        ("device.memory.controller.write_low=30", "write_low"),
        ("device.memory.controller.address_map=row column", "address|bank"),
        ("device.power.idle=800 W", "not below the limit of 700 W"),
        ("device.stream_window=1 KiB", "can't keep 192 pseudo-channels busy"),
        ("devices=8", "8 devices need a link"),
        ("energy.hbm.row=2 KiB", "energy.hbm.row is 2 KiB, but a row of the memory is 1 KiB"),
        ("device.matrix.peak.fp4=4 PFLOP/s", "energy.mac has no entry for fp4"),
        ("device.nooc=5 TB/s", "nooc"),
        ("kind=sistem", "system"),
    ],
)
def test_impossible_machines_are_refused(override: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_system("h200", [override])


def test_an_unknown_system_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no system 'h20'.*a100.*did you mean 'h200'"):
        load_system("h20")


# ---------------------------------------------------------------- presets of another kind


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("device.tiers.hbf.technology=hbm3e_24gb_8hi", "'hbm3e_24gb_8hi' is a DRAM (expected a flash memory)"),
        ("device.memory.technology=hbf_384", "'hbf_384' is a flash memory (expected a DRAM)"),
        ("device.memory.technology=aim_gddr6", "'aim_gddr6' is a PIM device (expected a DRAM)"),
        ("link=h200", "'h200' is a system (expected a link)"),
    ],
)
def test_a_preset_of_another_kind_is_one_line(change: str, told: str) -> None:
    with pytest.raises(SpecError) as error:
        load_system("h3", [change])
    assert [str(problem).split(": ", 2)[2] for problem in error.value.problems] == [told]


# ---------------------------------------------------------------- over what was inherited


def test_a_mapping_over_a_named_preset_changes_that_preset(tmp_path: Path) -> None:
    """As an override of the same path does."""
    file = tmp_path / "mine.yaml"
    file.write_text("base: h200\ndevice: {memory: {technology: {timings: {tFAW: 20 ns}}}}\n")
    written, overridden = load_system(file), load_system("h200", ["device.memory.technology.timings.tFAW=20 ns"])
    assert written.spec == overridden.spec != load_system("h200").spec


def test_a_mapping_with_a_base_of_its_own_replaces_what_was_inherited(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: h200\ndevice: {memory: {technology: {base: hbm4_36gb_12hi}, capacity: 120 GB}}\n")
    hbm4 = load_spec(resolve_preset("hbm4_36gb_12hi", tmp_path), DramStandard).spec
    assert load_system(file).spec.device.memory.technology == hbm4
    override = {"device.memory.technology": {"base": "hbm4_36gb_12hi"}, "device.memory.capacity": "120 GB"}
    assert load_system("h200", override).spec.device.memory.technology == hbm4


def test_a_mapping_of_another_kind_keeps_only_the_keys_that_it_has(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: torus8x8_adaptive\ntopology: {kind: ring, nodes: 8}\n")
    topology = load_spec(file, NocSpec).spec.topology
    assert isinstance(topology, Ring)
    assert topology.link_cycles == 2  # of the torus
    changed = load_spec(
        resolve_preset("torus8x8_adaptive", tmp_path), NocSpec, {"topology": {"kind": "ring", "nodes": 8}}
    )
    assert changed.resolved["topology"] == {"kind": "ring", "nodes": 8, "link_cycles": 2}


def test_a_null_drops_an_inherited_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: mesh8x8_memory\nrouter: {wait_for_tail_credit: null}\n")
    loaded = load_spec(file, NocSpec)
    assert "wait_for_tail_credit" not in loaded.resolved["router"]
    assert loaded.spec.router.wait_for_tail_credit is RouterSpec.model_fields["wait_for_tail_credit"].default
    path = resolve_preset("mesh8x8_memory", tmp_path)
    assert load_spec(path, NocSpec, ["router.wait_for_tail_credit=null"]).spec == loaded.spec


def test_a_null_is_a_value_where_nothing_may_be_written_and_an_error_where_nothing_is_inherited(tmp_path: Path) -> None:
    assert load_system("h200_hbf", ["device.placement.rest=null"]).spec.device.placement.rest is None
    with pytest.raises(SpecError, match=r"device.memory.capacity: is required but missing"):
        load_system("h200", ["device.memory.capacity=null"])
    file = tmp_path / "mine.yaml"
    file.write_text("base: hbm3e_24gb_8hi\ncommands: {shared_bus: }\n")
    with pytest.raises(SpecError, match=r"commands.shared_bus: got nothing"):
        load_spec(file, DramStandard)


# ---------------------------------------------------------------- where contradictions are told


def test_a_contradiction_names_the_overrides_in_it() -> None:
    with pytest.raises(SpecError) as error:
        load_system("h200", ["device.memory.stacks=2", "name=mine"])
    (problem,) = error.value.problems
    assert str(problem).startswith("override 'device.memory.stacks=2' over ")
    assert (problem.path, problem.line) == ("device.memory", load_system("h200").problem("device.memory", "").line)


def test_a_contradiction_of_timings_is_told_where_the_timing_stands(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: hbm3e_24gb_8hi\nname: mine\ntimings:\n  tRAS: 9 nCK\nstack_capacity: 20 GiB\n")
    with pytest.raises(SpecError) as error:
        load_spec(file, DramStandard)
    assert [(problem.path, problem.line) for problem in error.value.problems] == [
        ("timings.tRAS", 4), ("timings.tRAS", 4), ("stack_capacity", 5),
    ]  # fmt: skip

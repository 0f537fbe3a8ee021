"""PIM devices: every preset's commands obey its rules, fast-forward is exact, layouts are what programs read."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from archsim.config.errors import SpecError, UserError
from archsim.config.loading import load_spec, unsourced_numbers
from archsim.config.presets import data_root
from archsim.memory.pim import PimSpec
from archsim.memory.pim_checker import check_pim
from archsim.memory.pim_device import PimDevice
from archsim.memory.pim_layout import HeadLayout, Place, RegisterLayout, RowLayout

PRESETS = sorted((data_root() / "hwconfigs" / "pim").glob("*.yaml"))
NAMES = [path.stem for path in PRESETS]
LOG = 400_000


def load(name: str, *changes: str) -> PimSpec:
    return load_spec(data_root() / "hwconfigs" / "pim" / f"{name}.yaml", PimSpec, changes).spec


@pytest.mark.parametrize("path", PRESETS, ids=NAMES)
def test_every_number_has_a_source(path: Path) -> None:
    assert unsourced_numbers(load_spec(path, PimSpec)) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("outputs", "inputs"), [(1000, 700), (4096, 1500), (700, 5000)])
def test_commands_of_a_gemv_obey_the_rules(name: str, outputs: int, inputs: int) -> None:
    spec = load(name)
    device = PimDevice(spec)
    result = device.gemv(outputs, inputs, log=LOG)
    assert len(result.log) == sum(result.counts.values())
    assert check_pim(device.rules, result.log) == []
    plain = PimDevice(spec, fast_forward=False).gemv(outputs, inputs)
    assert (plain.ticks, plain.counts) == (result.ticks, result.counts)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "hbm_pim"])
@pytest.mark.parametrize(("heads", "context"), [(40, 1000), (16, 4096), (70, 300)])
def test_commands_of_attention_obey_the_rules(name: str, heads: int, context: int) -> None:
    device = PimDevice(load(name))
    result = device.attention(heads, context, 128, log=LOG)
    assert len(result.log) == sum(result.counts.values())
    assert check_pim(device.rules, result.log) == []


@pytest.mark.parametrize("name", NAMES)
def test_fast_forward_gives_the_plain_numbers(name: str) -> None:
    spec = load(name)
    fast, plain = PimDevice(spec).gemv(8192, 8192), PimDevice(spec, fast_forward=False).gemv(8192, 8192)
    assert (fast.ticks, fast.counts, fast.fences, fast.refresh_stall_ticks) == (
        plain.ticks, plain.counts, plain.fences, plain.refresh_stall_ticks,
    )  # fmt: skip


def test_a_gemv_of_a_hundred_million_commands_is_a_small_program() -> None:
    result = PimDevice(load("aim_gddr6")).gemv(2**18, 2**14, tokens=2**10)
    assert sum(result.counts.values()) > 10**8
    assert result.skipped_ticks > 0.99 * result.ticks


@pytest.mark.parametrize("name", NAMES)
def test_bytes_read_are_the_work_and_its_padding(name: str) -> None:
    device = PimDevice(load(name))
    result = device.gemv(3000, 1000)
    assert result.read_bytes - result.padding_bytes == 3000 * 1000 * 2
    assert result.padding_bytes > 0
    assert result.bytes_per_second < float(device.spec.peak_bytes_per_second)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "hbm_pim"])
@pytest.mark.parametrize("heads", [7, 16, 33])
def test_bytes_of_attention_are_the_cache_and_its_padding(name: str, heads: int) -> None:
    result = PimDevice(load(name)).attention(heads, 1000, 128)
    assert result.read_bytes - result.padding_bytes == 2 * heads * 1000 * 128 * 2


# ---- layouts ---------------------------------------------------------------------------------------------------------


def assert_one_to_one(places: list[Place], spec: PimSpec) -> None:
    organisation = spec.organisation
    assert len(set(places)) == len(places)
    limits = (
        organisation.channels, organisation.pseudo_channels, organisation.banks, organisation.rows,
        organisation.columns, spec.units.multipliers,
    )  # fmt: skip
    assert (np.array(places).min(axis=0) >= 0).all()
    assert (np.array(places).max(axis=0) < np.array(limits)).all()


@pytest.mark.parametrize("name", ["aim_gddr6", "neupims", "pim_gpt"])
@pytest.mark.parametrize(("outputs", "inputs"), [(1100, 70), (40, 2600)])
def test_rows_hold_each_weight_once(name: str, outputs: int, inputs: int) -> None:
    spec = load(name)
    layout = RowLayout(spec, outputs, inputs, spec.organisation.channels)
    assert_one_to_one([layout.place(o, i) for o, i in itertools.product(range(outputs), range(inputs))], spec)
    bursts = layout.tiles * layout.granule * layout.columns
    assert layout.padding_bytes == bursts * spec.organisation.burst_bytes - outputs * inputs * 2


def test_a_row_of_an_output_lies_in_one_bank() -> None:
    layout = RowLayout(load("aim_gddr6"), 2048, 4096, 32)
    places = [layout.place(1234, i) for i in range(4096)]
    assert {place[:3] for place in places} == {(210 // 16 + 0, 0, 210 % 16)}
    assert sorted({place.row for place in places}) == [8, 9, 10, 11]


@pytest.mark.parametrize(("outputs", "inputs"), [(100, 300), (4200, 130)])
def test_registers_hold_each_weight_once(outputs: int, inputs: int) -> None:
    spec = load("hbm_pim")
    layout = RegisterLayout(spec, outputs, inputs)
    assert layout.granule == 4096
    assert_one_to_one([layout.place(o, i) for o, i in itertools.product(range(outputs), range(inputs))], spec)


@pytest.mark.parametrize("name", ["attacc_bank", "attacc_bank_group", "attacc_buffer", "logic_pim"])
def test_heads_hold_each_element_once(name: str) -> None:
    layout = HeadLayout(load(name), 203, 128)
    for place in (layout.place_key, layout.place_value):
        places = [place(key, element) for key, element in itertools.product(range(203), range(128))]
        assert len(set(places)) == len(places)
        limits = (layout.parts, layout.splits, layout.macs, 16)
        assert (np.array(places).max(axis=0) < np.array(limits)).all()
    assert layout.padding_bytes == 2 * (layout.keys * layout.parts - 203) * 128 * 2


# ---- placements and switches -----------------------------------------------------------------------------------------


def test_nearer_to_the_cells_is_faster() -> None:
    bank, group, buffer = (
        PimDevice(load(name)).attention(64, 2048, 128).ticks
        for name in ("attacc_bank", "attacc_bank_group", "attacc_buffer")
    )
    assert 3 * bank < group and 2.5 * group < buffer


def test_logic_die_reads_once_for_eight_queries() -> None:
    logic, group = PimDevice(load("logic_pim")), PimDevice(load("attacc_bank_group", "power_cap.enabled=false"))
    assert (
        logic.attention(64, 2048, 128, kv_heads=8).counts["MACSB"] * 8
        == (group.attention(64, 2048, 128, kv_heads=8).counts["MACSB"])
    )
    assert logic.gemv(4096, 4096, tokens=8).counts["MACSB"] == logic.gemv(4096, 4096).counts["MACSB"]
    assert logic.gemv(4096, 4096, tokens=9).counts["MACSB"] == 2 * logic.gemv(4096, 4096).counts["MACSB"]


def test_second_row_buffer_lets_normal_reads_go_on() -> None:
    dual, single = (PimDevice(load(name)) for name in ("neupims", "neupims_single"))
    assert dual.gemv(4096, 4096).ticks == single.gemv(4096, 4096).ticks
    beside, in_turn = dual.gemv(4096, 4096, reads=200), single.gemv(4096, 4096, reads=200)
    assert beside.counts["RD"] == in_turn.counts["RD"] == 200 * 16
    assert beside.ticks < 0.85 * in_turn.ticks
    for device in (dual, single):
        assert check_pim(device.rules, device.gemv(4096, 4096, reads=200, log=LOG).log) == []


def test_refresh_takes_its_share() -> None:
    with_refresh = PimDevice(load("attacc_bank")).attention(160, 4096, 128)
    without = PimDevice(load("attacc_bank", "refresh=none")).attention(160, 4096, 128)
    assert without.refresh_stall_ticks == 0
    share = 456 / 5070
    assert share < with_refresh.refresh_stall_ticks / with_refresh.ticks < 1.1 * share
    assert with_refresh.ticks > without.ticks * (1 + share)


def test_energy_is_counts_times_table() -> None:
    spec = load("attacc_bank")
    result = PimDevice(spec).gemv(4096, 4096)
    activates = result.counts["ACTAB"] * 64 * 16 * 909
    cells = result.read_bytes * 8 * 0.44
    pins = result.counts["WRGB"] * 32 * 8 * 16 * 3.04
    assert result.energy_pj == pytest.approx(activates + cells + pins + 4096 * 4096 * 0.32)


@pytest.mark.parametrize("name", ["attacc_bank", "attacc_bank_group", "logic_pim"])
def test_channels_that_share_inputs_do_the_same_work(name: str) -> None:
    """Each writes its part of the inputs alone; the multiply-accumulates are the same, but for padding."""
    device = PimDevice(load(name))
    apart, shared = (device.gemv(2048, 8192, tokens=8, input_splits=splits) for splits in (1, 16))
    assert shared.counts["WRGB"] * 16 == apart.counts["WRGB"]
    assert shared.macs == apart.macs
    useful = 2 * 2048 * 8192 * (8 // min(8, device.spec.units.tokens_per_read))
    for result in (apart, shared):
        assert result.read_bytes - result.padding_bytes == useful
    assert shared.ticks < apart.ticks


def test_inputs_are_shared_by_channels_that_divide() -> None:
    with pytest.raises(UserError, match="can't share inputs"):
        PimDevice(load("attacc_bank")).gemv(64, 1024, input_splits=3)
    with pytest.raises(UserError, match="one layout of inputs"):
        PimDevice(load("aim_gddr6")).gemv(64, 1024, input_splits=2)


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("timings.tRAS='200 nCK'", "tRAS = 200 nCK is longer than tRC = 89 nCK"),
        ("organisation.row_bytes='1000 B'", "no whole number of bursts"),
        ("units.multipliers=8", "8 multipliers of 2 B take 16 B a MAC"),
        ("units.banks_per_unit=3", "can't be shared out to units of 3 banks"),
        ("units.outputs_per_input_load=4", "a unit has 1 accumulators"),
        ("commands.MACAB.targets=bank", "no command opens the bank rows of buffer 0 that MACAB needs"),
        ("commands.MACAB.buffer=1", "without `dual_row_buffer` there is buffer 0 only"),
        ("commands.WRGB.latency=tXY", "there is no timing 'tXY'"),
        ("clock=2", "has no unit"),
    ],
)
def test_contradictions_are_named(change: str, message: str) -> None:
    with pytest.raises(SpecError, match=message.replace("(", r"\(")):
        load("aim_gddr6", change)


def test_a_rule_about_an_unknown_command_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: aim_gddr6\nrules: [{before: [MACBA], after: [MACAB], scope: channel, distance: tCCDL}]\n")
    with pytest.raises(SpecError, match=r"MACBA, which is no command \(MACAB\?\)"):
        load_spec(file, PimSpec)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("aim_gddr6", "timings.tRCDMACC='56 nCK'", "timings.tRCDMACC: .* uses 'tRCDMACC' .*did you mean 'tRCDMAC'"),
        ("aim_gddr6", "timings.banana='1 us'", "timings.banana: no rule and no latency of AiM"),
        ("aim_gddr6", "timings.tFAW='99 nCK'", "timings.tFAW: "),  # none of its commands counts activations
        ("attacc_bank", "power_cap.timings.tCCDSB='6 nCK'", "power_cap.timings.tCCDSB: no rule"),
    ],
)
def test_a_timing_that_changes_nothing_is_refused(name: str, change: str, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        load(name, change)


def test_a_preset_may_add_a_timing_for_a_rule_or_for_the_activation_window(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "base: cent_gddr6\ntimings: {tMINE: {value: 7 nCK, source: test}, tFAW: {value: 50 nCK, source: test}}\n"
        "commands: {AF: {latency: tMINE}}\n"
    )
    assert load_spec(file, PimSpec).spec.clocks("tMINE") == 7


def test_work_that_does_not_fit_is_refused() -> None:
    aim, attacc = PimDevice(load("aim_gddr6")), PimDevice(load("attacc_bank"))
    with pytest.raises(UserError, match=r"takes 32768 rows of each bank, a bank has 16384"):
        aim.gemv(2**24, 1024)
    with pytest.raises(UserError, match="head of 100 elements does not divide into granules of 64"):
        attacc.attention(16, 2048, 100)
    with pytest.raises(UserError, match="10 heads can't share 4 KV heads"):
        attacc.attention(10, 2048, 128, kv_heads=4)
    with pytest.raises(UserError, match="outputs = 0"):
        aim.gemv(0, 5)
    with pytest.raises(UserError, match="no normal reads beside PIM"):
        aim.gemv(64, 64, reads=1)
    with pytest.raises(UserError, match="has no normal accesses"):
        aim.host_gemv(64, 64)
    with pytest.raises(UserError, match="has no attention"):
        PimDevice(load("hbm_pim")).attention(16, 2048, 128)

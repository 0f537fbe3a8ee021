"""A DRAM standard: the presets say what their sources say, and a contradictory one is refused in plain words."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from archsim.config.errors import SpecError, UserError
from archsim.config.loading import data_root, load_spec, unsourced_numbers
from archsim.memory.address_map import parse_address_map, row_set_tables
from archsim.memory.standard import ControllerSpec, DramStandard, RefreshPolicy

MEMORY = data_root() / "hwconfigs" / "memory"
HBM3 = MEMORY / "hbm3_16gb_8hi.yaml"
HBM3E = MEMORY / "hbm3e_24gb_8hi.yaml"

# The preset HBM3_6400Mbps / HBM3_16Gb_8hi of Ramulator 2.1, in clocks; tRREFD is JESD238's 8 ns there and here.
RAMULATOR_HBM3 = dict(
    tCL=20, tCWL=10, tBL=2, tRCDRD=31, tRCDWR=15, tRP=26, tRAS=45, tRC=72, tRTP=9, tWR=33, tCCDS=2, tCCDL=4, tCCDR=3,
    tRRDS=4, tRRDL=5, tFAW=24, tWTRS=7, tWTRL=10, tRTW=20, tPPD=2, tRFCab=560, tRFCpb=320, tRREFD=13, tREFI=6240,
    tREFIpb=195,
)  # fmt: skip


def standard(path: Path = HBM3, *overrides: str) -> DramStandard:
    return load_spec(path, DramStandard, overrides).spec


def test_hbm3_is_the_table_it_cites() -> None:
    hbm3 = standard()
    assert {name: hbm3.clocks(name) for name in RAMULATOR_HBM3} == RAMULATOR_HBM3
    timing = hbm3.timing(ControllerSpec())
    assert {name: getattr(timing, name) for name in RAMULATOR_HBM3} == {k: 2 * v for k, v in RAMULATOR_HBM3.items()}
    assert (timing.ticks_per_ck, timing.column_ticks, timing.activate_ticks, timing.precharge_ticks) == (2, 2, 3, 1)
    assert hbm3.tick_fs == 312_500
    assert hbm3.peak_bytes_per_second == Fraction(512, 10) * 10**9


def test_hbm3e_is_the_memory_of_an_h200() -> None:
    hbm3e = standard(HBM3E)
    assert 6 * hbm3e.channels_per_stack * hbm3e.peak_bytes_per_second == 4_800 * 10**9
    assert hbm3e.channels_per_stack * hbm3e.channel_bytes == hbm3e.stack_capacity == 24 * 2**30
    assert hbm3e.tick_fs == 320_000
    assert hbm3e.clocks("tRFCab") == 625
    assert hbm3e.organisation.row_bytes == 1024


PUBLISHED = {  # GB/s and GiB of a stack, a chip, a package or a DIMM
    "ddr5_16gb_4800": (38.4, 16),  # PC5-38400: two sub-channels of 32 bits
    "gddr6_16gb_x32": (64.0, 2),  # 16 Gb/s on 32 pins
    "hbm2_8gb_4hi": (256.0, 8),  # A64FX: four make 1024 GB/s and 32 GiB
    "hbm2e_16gb_8hi": (407.8, 16),  # A100 80 GB: five make 2039 GB/s
    "hbm3_16gb_8hi": (819.2, 16),  # JESD238: 819 GB/s
    "hbm3_16gb_8hi_5230": (670.4, 16),  # H100: five make 3.35 TB/s
    "hbm3e_24gb_8hi": (800.0, 24),  # H200: six make 4.8 TB/s
    "hbm4_36gb_12hi": (2048.0, 36),  # JESD270-4: 2 TB/s
    "hybrid_bonded_8gb": (64 * 34, 8),  # IEDM 2020: 34 GB/s per 1 Gb
    "monolithic_3d_48gb": (64 * 34, 48),  # arXiv 2603.12461: six times the bits in the area; the same bonds
    "lpddr5x_8gb_x64": (68.3, 8),  # 8533 Mb/s on 64 pins
}
PRESETS = sorted(MEMORY.glob("*.yaml"))


def test_every_preset_is_held_against_published_figures() -> None:
    assert {preset.stem for preset in PRESETS} == set(PUBLISHED)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_bandwidth_and_capacity_are_the_published_ones(path: Path) -> None:
    memory = standard(path)
    bandwidth, capacity = PUBLISHED[path.stem]
    assert float(memory.channels_per_stack * memory.peak_bytes_per_second) / 1e9 == pytest.approx(bandwidth, rel=5e-3)
    assert memory.stack_capacity == capacity * 2**30
    row_sets = memory.organisation.rows * memory.organisation.row_set
    pseudo_channels = memory.channels_per_stack * memory.organisation.pseudo_channels
    assert row_sets * memory.organisation.burst_bytes * pseudo_channels == memory.stack_capacity


# nCK as Ramulator 2.1 has them: HBM2_2000Mbps with HBM2_8Gb, HBM4_8000Mbps, DDR5_4800AN with DDR5_16Gb_x8.
RAMULATOR = {
    "hbm2_8gb_4hi": dict(
        tCL=14, tCWL=5, tBL=2, tRCDRD=14, tRCDWR=12, tRP=14, tRAS=34, tRC=48, tRTP=5, tWR=16, tCCDS=2, tCCDL=4,
        tRRDS=4, tRRDL=4, tFAW=15, tWTRS=6, tWTRL=8, tRTW=13, tRFCab=350, tRFCpb=160, tRREFD=8, tREFI=3900,
    ),
    "hbm4_36gb_12hi": dict(
        tCL=20, tCWL=10, tBL=2, tRCDRD=39, tRCDWR=19, tRP=33, tRAS=57, tRC=90, tRTP=12, tWR=42, tCCDS=2, tCCDL=4,
        tCCDR=2, tRRDS=5, tRRDL=7, tFAW=30, tWTRS=9, tWTRL=13, tRTW=25, tPPD=2, tRREFD=16, tREFI=7800,
    ),
    "ddr5_16gb_4800": dict(
        tCL=34, tCWL=32, tBL=8, tRCDRD=34, tRCDWR=34, tRP=34, tRAS=77, tRC=111, tRTP=18, tWR=72, tCCDS=8, tCCDL=12,
        tRRDS=8, tRRDL=12, tWTRS=6, tWTRL=24, tRTW=14, tPPD=2, tRFCab=708, tREFI=9360,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RAMULATOR)
def test_clocks_are_those_of_the_cited_table(name: str) -> None:
    memory = standard(MEMORY / f"{name}.yaml")
    assert {field: memory.clocks(field) for field in RAMULATOR[name]} == RAMULATOR[name]


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_number_of_a_preset_has_a_source(path: Path) -> None:
    assert unsourced_numbers(load_spec(path, DramStandard)) == []


def test_times_round_up_and_refresh_intervals_down() -> None:
    hbm3e = standard(HBM3E)
    assert hbm3e.clocks("tRCDRD") == 31  # 19.375 ns / 0.64 ns = 30.27
    assert hbm3e.clocks("tREFI") == 6093  # 3900 ns / 0.64 ns = 6093.75: later would be too late
    assert hbm3e.clocks("tREFIpb") == 190  # 190.43


def test_the_interval_of_per_bank_refresh_may_be_given() -> None:
    assert standard(HBM3, "timings.tREFIpb=100 ns").clocks("tREFIpb") == 160


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("timings.tRC=40 ns", "tRC = 64 clocks is less than tRAS + tRP less one clock of rounding = 70 clocks"),
        ("timings.tRAS=50 ns", "tRC = 72 clocks is less than tRAS = 80 clocks"),
        ("timings.tRAS=18 ns", "tRAS = 29 clocks is less than tRCDRD = 31 clocks"),
        ("timings.tBL=4 nCK", "a burst of 32 B over 32 pins takes 2 clocks, but tBL = 4"),
        ("timings.tCCDS=1 nCK", "tCCDS = 1 clocks is less than the burst tBL = 2 clocks"),
        ("timings.tCCDL=1 nCK", "tCCDL = 1 clocks is less than tCCDS = 2 clocks"),
        ("timings.tRTW=5 nCK", "tRTW = 5 clocks is less than tCL + tBL - tCWL = 12 clocks"),
        ("timings.tREFI=300 ns", "tREFI = 480 clocks is less than tRFCab + 1 = 561 clocks"),
        ("timings.tRP=0 ns", "tRP is zero"),
        ("organisation.rows=24576", "stack_capacity is 17179869184 B, but 16 channels of 1610612736 B hold"),
        ("organisation.burst_bytes=64 B", "a burst of 64 B over 32 pins takes 4 clocks, but tBL = 2"),
        ("organisation.rows=0", "0 is too small"),
        ("organisation.columns=-1", "-1 is too small"),
        ("commands.activate_clocks=1.3", "activate_clocks = 1.3 is not a whole number of command edges"),
        ("commands.edges_per_clock=3", "edges_per_clock = 3 is not a power of two (expected 1 if commands start"),
        ("organisation.banks_per_group=16", "128 banks per pseudo-channel, at most 64 are supported"),
        ("organisation.stack_ids=8", "8 stack IDs, at most 4 are supported"),
        ("organisation.pseudo_channels=4", "4 pseudo-channels per channel, at most 2 are supported"),
        ("data_rate=6.4", "data_rate"),
        ("timings.tFAW=16", "timings.tFAW"),
    ],
)
def test_a_contradiction_is_named(override: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        standard(HBM3, override)
    assert message in str(caught.value)


def test_all_contradictions_come_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        standard(HBM3, "timings.tCCDL=1 nCK", "timings.tRRDL=1 nCK", "organisation.rows=1000")
    for name in ("tCCDL", "tRRDL", "stack_capacity"):
        assert name in str(caught.value)


def test_a_controller_chooses_refresh_and_queues() -> None:
    controller = ControllerSpec(refresh="per_bank", refresh_stagger="100 ns", read_queue=64, write_low=4)
    timing = standard().timing(controller)
    assert controller.refresh is RefreshPolicy.PER_BANK
    assert (timing.refresh_mode, timing.refresh_stagger) == (2, 320)
    assert (timing.read_queue, timing.write_queue, timing.write_high, timing.write_low) == (64, 32, 24, 4)


def test_a_controller_chooses_scheduler_and_page_policy() -> None:
    controller = ControllerSpec(
        scheduler="fr_fcfs_cap", row_hit_cap=4, starve_after="1 us", page_policy="adaptive", page_timeout="100 ns",
        refresh="per_bank", refresh_order="unwanted_first", refresh_postpone=8, write_forwarding=True,
    )  # fmt: skip
    timing = standard().timing(controller)
    assert (timing.row_hit_cap, timing.starve_after, timing.page_timeout) == (4, 3200, 320)
    assert (timing.refresh_order, timing.refresh_postpone) == (1, 8 * timing.tREFI)
    assert (timing.write_forwarding, timing.write_coalescing, timing.forward_ticks) == (1, 0, 2)
    assert standard().timing(ControllerSpec(page_policy="closed")).page_timeout == 0


@pytest.mark.parametrize(
    ("settings", "missing"), [({"refresh": "same_bank"}, "tRFCsb"), ({"power_down_after": "1 us"}, "tCKE and no tXP")]
)
def test_a_policy_without_its_timings_is_refused(settings: dict[str, object], missing: str) -> None:
    with pytest.raises(UserError, match=f"has no {missing}"):
        standard().timing(ControllerSpec(**settings))


def test_a_shared_bus_and_optional_timings_reach_the_table() -> None:
    changed = standard(HBM3, "commands.shared_bus=true", "timings.tCCDLW=8 nCK", "timings.tRFCsb=130 ns")
    timing = changed.timing(ControllerSpec(refresh="same_bank"))
    assert (timing.shared_command_bus, timing.tCCDLW, timing.tRFCsb) == (1, 16, 416)
    assert timing.tREFIsb == 2 * (6240 // 8)  # two stack IDs of four banks per group


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"write_high": 33}, "can never be reached in a write queue of 32"),
        ({"write_low": 24}, "is not below write_high"),
        ({"scheduler": "fifo"}, "fr_fcfs"),
        ({"page_policy": "shut"}, "open"),
        ({"page_policy": "adaptive"}, "page_timeout is missing"),
        ({"page_timeout": "100 ns"}, "page_timeout is given with page_policy = open"),
        ({"row_hit_cap": 4}, "fr_fcfs_cap"),
        ({"refresh_postpone": 9}, "8"),
        ({"read_queue": 0}, "too small"),
        ({"read_queue": 129}, "read_queue = 129 is longer than supported"),
        ({"write_queue": 129}, "write_queue = 129 is longer than supported"),
        ({"address_map": "bank_group column bank row"}, "lacks the field stack_id"),
    ],
)
def test_a_controller_that_cannot_work_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ControllerSpec(**settings)


# ---- address map -----------------------------------------------------------------------------------------------------

SIZES = {"bank_group": 4, "column": 32, "bank": 4, "stack_id": 2, "row": 100}


@pytest.mark.parametrize(
    "text",
    [
        "bank_group column bank stack_id row",
        "column bank_group bank stack_id row",
        "column:2 bank_group stack_id column:3 bank row",
        "stack_id:1 bank:1 column:1 bank_group:1 bank:1 bank_group:1 column:4 row",
    ],
)
def test_a_row_set_reaches_every_burst_once(text: str) -> None:
    bank, column = row_set_tables(text, SIZES)
    assert bank.dtype == column.dtype == np.int16
    places = set(zip(bank.tolist(), column.tolist(), strict=True))
    assert places == {(b, c) for b in range(32) for c in range(32)}
    assert len(bank) == 1024


def test_the_default_map_changes_the_bank_group_first() -> None:
    tables = standard().address_tables(ControllerSpec())
    assert tables.bank[:5].tolist() == [0, 1, 2, 3, 0]
    assert tables.column[:9].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert tables.bank[128] == 4  # the next bank of the group
    assert tables.bank[512] == 16  # the next stack ID


def test_the_pieces_of_a_field_come_lowest_bits_first() -> None:
    _, column = row_set_tables("column:2 bank_group bank stack_id column:3 row", SIZES)
    assert column[:5].tolist() == [0, 1, 2, 3, 0]
    assert column[128] == 4


def test_sizes_need_not_be_powers_of_two() -> None:
    bank, column = row_set_tables("bank_group column bank stack_id row", SIZES | {"bank": 3, "column": 5})
    assert len({*zip(bank.tolist(), column.tolist(), strict=True)}) == len(bank) == 4 * 3 * 2 * 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bank_group column bank row", "lacks the field stack_id"),
        ("bank_group colum bank stack_id row", "did you mean 'column'"),
        ("row bank_group column bank stack_id", "does not end with one whole row"),
        ("column:2 bank_group bank stack_id column row", "need bits"),
        ("column:2 bank_group bank stack_id row", "gives column 4 values, but there are 32"),
        ("column:x bank_group bank stack_id row", "no number of bits"),
        ("", "lacks the field bank_group"),
    ],
)
def test_a_wrong_address_map_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_address_map(text, SIZES)


def test_an_address_map_that_does_not_fit_the_standard_is_refused() -> None:
    with pytest.raises(UserError, match="there are 32"):
        standard().timing(ControllerSpec(address_map="column:6 bank_group bank stack_id row"))

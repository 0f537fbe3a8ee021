"""Energy: parts and their sum, published ranges, the power limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsim.config.errors import UserError
from archsim.energy import COMPONENTS, energy_pj, power_w, total_pj, within_limit
from archsim.records import Counts
from archsim.system import SystemSpec, load_system, system_presets

H200 = load_system("h200").spec
SECOND_FS = 10**15


def streaming(system: SystemSpec, moved_bytes: int, elapsed_fs: int) -> Counts:
    """A long sequential read: whole rows, every byte once through network and buffer, refresh at its interval."""
    technology = system.device.memory.technology
    row = technology.organisation.row_bytes
    refreshes = system.device.memory.pseudo_channels * elapsed_fs // (3900 * 10**6)
    return Counts(
        dram_activates=moved_bytes // row,
        dram_reads=moved_bytes // technology.organisation.burst_bytes,
        dram_read_bytes=moved_bytes,
        dram_refreshes_all_bank=refreshes,
        noc_bytes=moved_bytes,
        buffer_read_bytes=moved_bytes,
    )


@pytest.mark.parametrize("name", system_presets())
def test_streaming_costs_what_is_published_for_hbm(name: str) -> None:
    system = load_system(name).spec
    if system.device.memory.label != "HBM" or name == "rpu":
        return  # other memories, and HBM-CO (tests/validation/test_systems.py), have figures of their own
    moved = int(system.device.memory.peak_bytes_per_second * 9 // 10)
    energy = energy_pj(streaming(system, moved, SECOND_FS), SECOND_FS, system.energy_table, system.device.power)
    hbm = sum(amount for component, amount in energy.items() if component.startswith("hbm"))
    dearest = 5 if system.device.memory.technology.name.startswith("HBM") else 10  # GDDR6: 7.5, Micron
    assert 3 <= hbm / (8 * moved) <= dearest
    board = power_w(energy, SECOND_FS, system.device.power)
    assert system.device.power.idle < board.drawn <= system.device.power.limit


def test_board_power_while_streaming() -> None:
    """Public H200 kernel measurements: 460 to 590 W at 4.2 TB/s."""
    energy = energy_pj(streaming(H200, 42 * 10**11, SECOND_FS), SECOND_FS, H200.energy, H200.device.power)
    assert 460 <= power_w(energy, SECOND_FS, H200.device.power).drawn <= 590


@given(
    st.builds(
        Counts,
        dram_activates=st.integers(0, 10**9),
        dram_reads=st.integers(0, 10**9),
        dram_writes=st.integers(0, 10**9),
        dram_refreshes_all_bank=st.integers(0, 10**6),
        dram_refreshes_per_bank=st.integers(0, 10**6),
        buffer_read_bytes=st.integers(0, 10**12),
        buffer_write_bytes=st.integers(0, 10**12),
        noc_bytes=st.integers(0, 10**12),
        link_bytes=st.integers(0, 10**12),
        matrix_macs=st.dictionaries(st.sampled_from(["bf16", "fp8", "mxfp8"]), st.integers(0, 10**15)),
        vector_flops=st.integers(0, 10**13),
    ),
    st.integers(1, SECOND_FS),
)
def test_parts_make_the_sum_and_the_limit_holds(counts: Counts, elapsed_fs: int) -> None:
    power = H200.device.power
    energy = energy_pj(counts, elapsed_fs, H200.energy, power)
    assert tuple(energy) == COMPONENTS
    assert all(amount >= 0 for amount in energy.values())
    assert total_pj(energy) == sum(energy.values())
    drawn = within_limit(energy, elapsed_fs, power)
    board = power_w(energy, elapsed_fs, power)
    assert total_pj(drawn) / elapsed_fs * 1000 == pytest.approx(board.drawn)
    assert board.drawn <= power.limit
    assert drawn["static"] == energy["static"]
    assert (drawn == energy) is not board.limited


def test_energy_is_additive_in_counts() -> None:
    once = Counts(dram_activates=3, dram_reads=96, dram_writes=5, link_bytes=7, matrix_macs={"bf16": 11})
    twice = Counts()
    twice.add(once)
    twice.add(once)
    single = energy_pj(once, 500, H200.energy, H200.device.power)
    double = energy_pj(twice, 1000, H200.energy, H200.device.power)
    assert double == pytest.approx({component: 2 * amount for component, amount in single.items()})


def test_each_component_by_hand() -> None:
    counts = Counts(dram_activates=2, dram_reads=10, dram_refreshes_per_bank=1, noc_bytes=100, link_bytes=10)
    counts.matrix_macs["bf16"] = 1000
    energy = energy_pj(counts, 10**6, H200.energy, H200.device.power)
    expected = {
        "hbm_activate": 2 * 909.0,
        "hbm_read": 10 * 814.0,
        "hbm_refresh": 2730.0,
        "hbm_io": 10 * 256 * 0.3,
        "noc": 800 * 3.3,
        "link": 80 * 1.3,
        "matrix": 380.0,
        "static": 130_000.0,
    }
    assert energy == pytest.approx({component: expected.get(component, 0.0) for component in COMPONENTS})


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UserError, match="no multiply-accumulate in 'fp4'"):
        energy_pj(Counts(matrix_macs={"mxfp4": 1}), 1, H200.energy, H200.device.power)


def test_a_limit_below_the_one_that_efficiency_holds_at_is_refused_where_it_binds() -> None:
    """Times can't follow it, so energies that do would make it look like a gift."""
    power = H200.device.power.model_copy(update={"limit": 400.0})
    assert power.efficiency_at == 700

    def asked(watts: float) -> dict[str, float]:
        """Picojoules in 1000 fs: one for each watt."""
        return dict.fromkeys(COMPONENTS, 0.0) | {"static": power.idle, "matrix": watts - power.idle}

    assert within_limit(asked(390), 1000, power) == asked(390)
    with pytest.raises(UserError, match="asks a device for 600 W, above its power limit of 400 W"):
        within_limit(asked(600), 1000, power)
    lifted = power.model_copy(update={"efficiency_at": None})
    assert total_pj(within_limit(asked(600), 1000, lifted)) == pytest.approx(400)

"""An on-chip buffer out of a technology: the numbers that follow from it, and what it changes in a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_experiment import write_phases

import archsim
from archsim.config.errors import SpecError
from archsim.memory.sram import SramSpec
from archsim.memory.sram_buffer import SramBufferSpec
from archsim.system import SystemSpec, load_system

NS = 10**6


def a100(technology: str, **changes: object) -> dict[str, object]:
    """Overrides for an A100 whose L2 is of a technology."""
    buffer = {"kind": "sram", "technology": technology, "miss_latency": "119 ns"}
    return {"system": "a100", "system.device.buffer": buffer} | {
        f"system.{key}": value for key, value in changes.items()
    }


def system_of(technology: str) -> SystemSpec:
    return load_system("a100", {"device.buffer": a100(technology)["system.device.buffer"]}).spec


def buffer_of(system: SystemSpec) -> SramBufferSpec:
    assert isinstance(system.device.buffer, SramBufferSpec)
    return system.device.buffer


@pytest.mark.parametrize(
    ("technology", "mib", "share_of_rate"),
    [
        ("sram_gpu_l2", 40, 1),
        ("gain_cell_silicon", 80, 1),
        ("gain_cell_hybrid", 120, 0.98),
        ("gain_cell_beol", 184, 0.5),
    ],
)
def test_what_follows_from_a_technology(technology: str, mib: int, share_of_rate: float) -> None:
    """Capacity and clock of the A100's L2 times what the publications say, less a refresh of two cycles a row."""
    found = buffer_of(system_of(technology))
    assert found.capacity == pytest.approx(mib * 2**20, rel=1e-5)
    peak = 80 * 64 * 1410e6 * share_of_rate
    rows = 64 / 77e-6 if technology == "gain_cell_silicon" else 64 / 5000
    refreshed = 0 if technology == "sram_gpu_l2" else 2 * rows / (1410e6 * share_of_rate)
    assert found.bandwidth == pytest.approx(peak * (1 - refreshed), rel=1e-6)
    assert 141.587 * NS <= found.latency < 141.587 * NS + found.technology.tick_fs
    assert found.miss_latency == 119 * NS


def test_a_technology_and_its_numbers_run_alike(tmp_path: Path) -> None:
    """Times and counts of the L2 by name and by its numbers are the same."""
    by_name = archsim.run(write_phases(tmp_path), a100("sram_gpu_l2"), out=tmp_path / "name")
    l2 = buffer_of(system_of("sram_gpu_l2"))
    numbers = {
        "system": "a100",
        "system.device.buffer.capacity": f"{l2.capacity} B",
        "system.device.buffer.bandwidth": f"{l2.bandwidth} B/s",
        "system.device.buffer.latency": f"{l2.latency} fs",
        "system.device.buffer.miss_latency": "119 ns",
    }
    by_number = archsim.run(tmp_path / "experiment.yaml", numbers, out=tmp_path / "number")
    assert dict(by_name.metrics) == dict(by_number.metrics)


def test_what_keeps_the_data_is_idle_power(tmp_path: Path) -> None:
    """80 MiB of silicon gain cells, read and written back every 77 us."""
    leaky = archsim.run(write_phases(tmp_path), a100("gain_cell_silicon"), out=tmp_path / "leaky")
    device = system_of("gain_cell_silicon").device
    watts = 8 * 80 * 2**20 * (0.1147 + 0.1216) * 1e-12 / 77e-6
    assert device.board_power.idle - device.power.idle == pytest.approx(watts) == pytest.approx(2.06, rel=0.01)
    decode = leaky.metrics
    assert decode["decode.energy.static"].value == pytest.approx(
        (device.power.idle + watts) * decode["decode.latency"].value
    )


def test_more_buffer_keeps_activations_on_chip(tmp_path: Path) -> None:
    """4 x 2048 rows of 4096 in bf16 are 64 MiB: the products between them fit 184 MiB and not 40."""
    long = {"workload.prefill.prompt_tokens": 2048}
    small = archsim.run(write_phases(tmp_path), a100("sram_gpu_l2") | long, out=tmp_path / "small")
    large = archsim.run(tmp_path / "experiment.yaml", a100("gain_cell_beol") | long, out=tmp_path / "large")
    moved = [int(run.operators["dram_write_bytes"].sum()) for run in (small, large)]
    assert moved[1] < moved[0] / 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device.buffer.technology": "gain_cell_hybird"}, "did you mean 'gain_cell_hybrid'"),
        ({"device.buffer.kind": "edram"}, "expected sram"),
        (
            {"device.buffer.capacity": "1 MiB"},
            "unknown key 'capacity' \\(expected one of kind, technology, miss_latency\\)",
        ),
        (
            {"device.buffer.technology": {"base": "gain_cell_silicon", "refresh": {"rows": 100000}}},
            "100000 rows in 77 us are one in 1 cycles, and each takes 2",
        ),
    ],
)
def test_bad_buffers(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        archsim.run(write_phases(tmp_path), a100("gain_cell_silicon", **changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_gain_cell_memory_is_refreshed(tmp_path: Path) -> None:
    """A machine whose main memory leaks: time and energy of refresh, by counts."""
    technology = load_system("wse3").spec.device.memory.technology
    assert isinstance(technology, SramSpec)
    changes = {
        "system": "wse3",
        "workload.prefill": None,
        "system.device.memory.row.chips": 2,
        "system.device.memory.capacity": "2700000 kB",
        "system.device.memory.technology.refresh": {"retention": "10 us", "rows": 64, "cycles": 2},
    }
    leaky = archsim.run(write_phases(tmp_path), changes, out=tmp_path / "leaky")
    refreshes = int(leaky.operators["dram_refreshes_all_bank"].sum())
    assert refreshes > 0 and leaky.metrics["decode.time.refresh"].value > 0
    each_pj = 2 * 8 * technology.capacity / 64 * (technology.energy.read + technology.energy.write)
    assert leaky.metrics["decode.energy.hbm_refresh"].value == pytest.approx(refreshes * each_pj * 1e-12)


def test_a_buffer_slower_than_memory_bounds_a_stream(tmp_path: Path) -> None:
    """Nothing that comes from memory passes a buffer of 1 TB/s faster; one above the memory's peak bounds no stream."""
    write_phases(tmp_path)
    runs = {
        rate: archsim.run(
            tmp_path / "experiment.yaml", {"system.device.buffer.bandwidth": f"{rate} TB/s"}, out=tmp_path / str(rate)
        ).operators
        for rate in (1, 6)
    }
    slow = runs[1]
    moved = slow["dram_read_bytes"] + slow["dram_write_bytes"]
    assert (slow["duration_fs"] >= moved * 1000).all()
    products = slow["kind"] == "gemm"
    assert (1.01 * slow["roofline_fs"] >= moved * 1000)[products].all()  # padding is not part of the bound
    assert (slow["cause_noc_fs"][products] > 0).any()
    assert (runs[6]["cause_noc_fs"] == 0).all()

"""The kernel does with every shipped memory what the oracle does, and with shortcuts what it does without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dram_cases import Case, differences, run_kernel, run_oracle

from archsim.config.loading import data_root, load_spec
from archsim.kernels.oracle import OracleJob, OracleStream
from archsim.kernels.timing import Count
from archsim.memory.checker import check_commands
from archsim.memory.device import HbmDevice, Range, Transfer
from archsim.memory.standard import ControllerSpec, DramStandard, RefreshPolicy

PRESETS = sorted((data_root() / "hwconfigs" / "memory").glob("*.yaml"))
REQUESTS = 400  # per pseudo-channel; they last several refresh intervals


def standard(preset: Path) -> DramStandard:
    return load_spec(preset, DramStandard).spec


CASES = [
    (preset, refresh)
    for preset in PRESETS
    for refresh in RefreshPolicy
    if refresh is not RefreshPolicy.SAME_BANK or standard(preset).timings.tRFCsb is not None
]
OFTEN = ("hbm3e_24gb_8hi",)
"""The others are tried by `make validate`: each shape of kernel is compiled first."""
BY_PRESET_AND_REFRESH = pytest.mark.parametrize(
    ("preset", "refresh"),
    [
        pytest.param(preset, refresh, marks=() if preset.stem in OFTEN else pytest.mark.validate)
        for preset, refresh in CASES
    ],
    ids=[f"{preset.stem}-{refresh}" for preset, refresh in CASES],
)


@BY_PRESET_AND_REFRESH
def test_kernel_and_oracle_agree(preset: Path, refresh: RefreshPolicy) -> None:
    memory, controller = standard(preset), ControllerSpec(refresh=refresh)
    tables, timing = memory.address_tables(controller), memory.timing(controller)
    draw = np.random.default_rng(3)
    pcs = range(timing.pseudo_channels)
    mixed = OracleStream(
        [draw.integers(0, 1 << 20, REQUESTS) for _ in pcs],
        arrivals=[np.cumsum(draw.integers(0, 60, REQUESTS)) for _ in pcs],
        writes=[(draw.random(REQUESTS) < 0.3).astype(np.int8) for _ in pcs],
    )
    beside = OracleStream([(1 << 18) + np.arange(REQUESTS)] * timing.pseudo_channels)
    case = Case(timing, tables.bank.astype(np.int64), tables.column.astype(np.int64), (mixed, beside), (OracleJob(),))
    assert differences(case, run_kernel(case), run_oracle(case)) == []


@BY_PRESET_AND_REFRESH
def test_shortcuts_change_nothing(preset: Path, refresh: RefreshPolicy) -> None:
    memory, controller = standard(preset), ControllerSpec(refresh=refresh)
    ends = []
    for shortcuts in (False, True):
        device = HbmDevice(memory, controller, channels=1, shortcuts=shortcuts)
        for bursts in (20 * device.row_set_bursts + 7, 3):
            device.submit(Transfer((Range(5, bursts), Range(1 << 16, bursts // 3 + 1, write=True))))
            completion = device.advance()
            assert completion is not None
            ends.append((shortcuts, completion.tick, device.count_vector().tolist()))
    plain, short = ([end[1:] for end in ends if end[0] is used] for used in (False, True))
    assert plain == short


@pytest.mark.interpreted
@pytest.mark.parametrize(
    ("memory", "exit_clocks", "least_clocks"), [("lpddr5x_8gb_x64", 8, 8), ("ddr5_16gb_4800", 18, 18)]
)
def test_memories_with_the_timings_power_down(memory: str, exit_clocks: int, least_clocks: int) -> None:
    """tXP of 7 or 7.5 ns and tCKE of 7.5 ns, in clocks of 0.9375 and 0.4167 ns, between bursts of requests."""
    preset = next(path for path in PRESETS if path.stem == memory)
    controller = ControllerSpec(power_down_after="20 ns", refresh=RefreshPolicy.NONE)
    tables, timing = standard(preset).address_tables(controller), standard(preset).timing(controller)
    assert (timing.tXP, timing.tCKE) == (exit_clocks, least_clocks)
    arrivals = np.repeat(np.arange(4) * 500, 6)
    stream = OracleStream([np.arange(24) * 37 % 4096], arrivals=[arrivals], writes=[np.arange(24) % 5 == 0])
    tables_of = (tables.bank.astype(np.int64), tables.column.astype(np.int64))
    case = Case(timing, *tables_of, (stream,), (OracleJob(),))
    oracle = run_oracle(case)
    result = run_kernel(case, oracle.ticks)
    assert differences(case, result, oracle) == []
    assert result.counts[Count.PDX] == 3 and result.counts[Count.POWER_DOWN_ACTIVE] > 300
    assert check_commands(timing, result.log) == []

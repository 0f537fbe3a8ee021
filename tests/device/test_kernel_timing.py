"""The checker finds no violation in what the kernel does with the shipped memories."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from dram_cases import Case, KernelResult, run_kernel

from archsim.config.loading import data_root, load_spec
from archsim.kernels.oracle import OracleJob, OracleStream
from archsim.kernels.timing import Command, Count, LogField
from archsim.memory.checker import check_commands
from archsim.memory.standard import ControllerSpec, DramStandard, RefreshPolicy

PRESETS = sorted((data_root() / "hwconfigs" / "memory").glob("*.yaml"))
REQUESTS = 6000  # per pseudo-channel
KERNEL_POLICIES = (RefreshPolicy.NONE, RefreshPolicy.ALL_BANK, RefreshPolicy.PER_BANK)


@cache
def standard(preset: Path) -> DramStandard:
    return load_spec(preset, DramStandard).spec


def case(preset: Path, refresh: RefreshPolicy, trace: Trace) -> Case:
    controller = ControllerSpec(refresh=refresh)
    tables = standard(preset).address_tables(controller)
    bank, column = tables.bank.astype(np.int64), tables.column.astype(np.int64)
    timing = standard(preset).timing(controller)
    return Case(timing, bank, column, trace(timing.pseudo_channels), (OracleJob(),))


Trace = Callable[[int], tuple[OracleStream, ...]]  # by the number of pseudo-channels


def stream(pseudo_channels: int) -> tuple[OracleStream, ...]:
    """A long read with a write beside it."""
    reads = [7 + np.arange(REQUESTS)] * pseudo_channels
    return OracleStream(reads), OracleStream([(1 << 20) + np.arange(REQUESTS // 4)] * pseudo_channels, write=True)


def random(write_fraction: float, longest_gap: int) -> Trace:
    def requests(pseudo_channels: int) -> tuple[OracleStream, ...]:
        draw = np.random.default_rng(11)
        pcs = range(pseudo_channels)
        return (
            OracleStream(
                [draw.integers(0, 1 << 22, REQUESTS) for _ in pcs],
                arrivals=[np.cumsum(draw.integers(0, longest_gap, REQUESTS)) for _ in pcs],
                writes=[(draw.random(REQUESTS) < write_fraction).astype(np.int8) for _ in pcs],
            ),
        )

    return requests


TRACES: dict[str, Trace] = {
    "stream": stream,
    "random": random(0.0, 1),
    "mixed": random(0.4, 1),
    "sparse": random(0.3, 200),
}


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("refresh", KERNEL_POLICIES)
@pytest.mark.parametrize("preset", PRESETS, ids=[preset.stem for preset in PRESETS])
def test_no_violation(preset: Path, refresh: RefreshPolicy, name: str) -> None:
    what = case(preset, refresh, TRACES[name])
    result: KernelResult = run_kernel(what, log_rows=1 << 16)
    requests = sum(len(addresses) for each in what.streams for addresses in each.addresses)
    assert result.counts[Count.RD] + result.counts[Count.WR] == requests
    commands = np.bincount(result.log[:, LogField.COMMAND], minlength=Command.REFPB + 1)
    assert np.array_equal(commands, result.counts[: Command.REFPB + 1])  # the log is whole
    assert check_commands(what.timing, result.log) == []

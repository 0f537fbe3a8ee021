"""Refreshing bank by bank costs a stream no more than refreshing all banks at once, on every shipped memory.

In turn, refresh walks over the banks in the same order as a stream, and the two meet again and again: on memories whose
rows are refreshed no faster than they are read, that halves the bandwidth. So `unwanted_first` is the default.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from dram_cases import Case, run_kernel

from archsim.config.loading import data_root, load_spec
from archsim.kernels.oracle import OracleJob, OracleStream
from archsim.kernels.timing import Count
from archsim.memory.standard import ControllerSpec, DramStandard, RefreshPolicy, RefreshTurn
from archsim.system import load_system

PRESETS = sorted((data_root() / "hwconfigs" / "memory").glob("*.yaml"))
SYSTEMS = ("a100", "h100", "h200", "b200")
INTERVALS = 12  # tREFI that a run lasts: each bank is refreshed as often


def preset(name: str) -> tuple[DramStandard, ControllerSpec]:
    """A memory by the name of its preset, or the memory and the controller of a system."""
    if name in SYSTEMS:
        memory = load_system(name).spec.device.memory
        return memory.technology, memory.controller
    return load_spec(data_root() / "hwconfigs" / "memory" / f"{name}.yaml", DramStandard).spec, ControllerSpec()


def sequential(q_bursts: int, pseudo_channels: int) -> tuple[OracleStream, ...]:
    return (OracleStream([np.arange(q_bursts)] * pseudo_channels),)


def mixed(q_bursts: int, pseudo_channels: int) -> tuple[OracleStream, ...]:
    """Reads with a quarter as many writes beside them."""
    reads, writes = np.arange(4 * q_bursts // 5), (1 << 21) + np.arange(q_bursts // 5)
    return OracleStream([reads] * pseudo_channels), OracleStream([writes] * pseudo_channels, write=True)


STREAMS = {"sequential": sequential, "mixed": mixed}
OFTEN = ("hbm4_36gb_12hi", "h200")
NAMES = [
    pytest.param(name, marks=() if name in OFTEN else pytest.mark.validate)
    for name in (*(path.stem for path in PRESETS), *SYSTEMS)
]


@cache
def ticks(name: str, stream: str, read_queue: int, refresh: RefreshPolicy, order: RefreshTurn) -> int:
    """How long the stream lasts."""
    memory, controller = preset(name)
    changes = {"refresh": refresh, "refresh_order": order, "read_queue": read_queue}
    controller = controller.model_copy(update=changes)
    q, tables = memory.timing(controller), memory.address_tables(controller)
    streams = STREAMS[stream](INTERVALS * q.tREFI // q.tCCDS, q.pseudo_channels)
    case = Case(q, tables.bank.astype(np.int64), tables.column.astype(np.int64), streams, (OracleJob(),))
    result = run_kernel(case, log_rows=0)
    banks = memory.organisation.banks
    command, units = {
        RefreshPolicy.ALL_BANK: (Count.REFAB, 1),
        RefreshPolicy.PER_BANK: (Count.REFPB, banks),
        RefreshPolicy.SAME_BANK: (Count.REFSB, banks // memory.organisation.bank_groups),
    }[refresh]
    assert result.counts[command] >= (INTERVALS - 1) * units * q.pseudo_channels  # none is left out
    return int(result.job_done[0])


@pytest.mark.parametrize("read_queue", [8, 16, 32, 64])
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("name", NAMES)
def test_per_bank_refresh_is_no_slower_than_all_bank_refresh(name: str, stream: str, read_queue: int) -> None:
    per_bank = ticks(name, stream, read_queue, RefreshPolicy.PER_BANK, RefreshTurn.UNWANTED_FIRST)
    all_bank = ticks(name, stream, read_queue, RefreshPolicy.ALL_BANK, RefreshTurn.UNWANTED_FIRST)
    assert per_bank <= all_bank


def test_the_default_is_unwanted_first_and_matters() -> None:
    """On HBM4, which has two bank groups, a stream is half as long as under refresh in turn."""
    assert ControllerSpec().refresh_order is RefreshTurn.UNWANTED_FIRST
    orders = (RefreshTurn.UNWANTED_FIRST, RefreshTurn.IN_TURN)
    chosen, in_turn = (ticks("hbm4_36gb_12hi", "sequential", 64, RefreshPolicy.PER_BANK, order) for order in orders)
    assert chosen < 0.6 * in_turn


@pytest.mark.parametrize("stream", STREAMS)
def test_same_bank_refresh_of_ddr5_is_no_slower_than_all_bank_refresh(stream: str) -> None:
    same_bank, all_bank = (
        ticks("ddr5_16gb_4800", stream, 32, refresh, RefreshTurn.UNWANTED_FIRST)
        for refresh in (RefreshPolicy.SAME_BANK, RefreshPolicy.ALL_BANK)
    )
    assert same_bank <= all_bank

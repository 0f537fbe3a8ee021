"""Maps keep every page, never program in place, and wear as arithmetic says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.config.errors import UserError
from archsim.config.loading import data_root, load_spec
from archsim.memory.flash import FlashStandard
from archsim.memory.flash_map import (
    LogMap,
    WearLedger,
    ZonedMap,
    cycles_used,
    retention_refresh,
    seconds_until_disturbed,
    years_to_wear_out,
)

FLASH = data_root() / "hwconfigs" / "flash"


def standard(preset: str, *changes: str) -> FlashStandard:
    return load_spec(FLASH / f"{preset}.yaml", FlashStandard, list(changes)).spec


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 8), st.integers(1, 6))
def test_a_log_keeps_every_page(seed: int, filled: int, pages_per_block: int, spare: int) -> None:
    rng = np.random.default_rng(seed)
    log = LogMap(filled + spare + 1, pages_per_block, filled * pages_per_block)
    written: set[int] = set()
    for page in rng.integers(0, log.logical_pages, 300).tolist():
        log.write(page)
        written.add(page)
        if rng.random() < 0.05:
            log.refresh(int(rng.integers(0, log.blocks)))
    places = [log.read(page) for page in sorted(written)]
    assert len(set(places)) == len(places), "two pages in one place"
    assert [int(log.owner[place]) for place in places] == sorted(written)
    assert log.valid.sum() == len(written)
    assert log.ledger.programs == log.ledger.host_programs + log.ledger.copies
    assert log.ledger.programs <= (log.ledger.erases.sum() + log.blocks) * pages_per_block


def test_sequential_overwrites_copy_nothing() -> None:
    log = LogMap(10, 32, 256)
    for _ in range(6):
        for page in range(256):
            log.write(page)
    assert log.ledger.write_amplification == 1
    assert log.ledger.erases.max() - log.ledger.erases.min() <= 1


@pytest.mark.parametrize("spare_share", [0.15, 0.3])
def test_random_overwrites_amplify_less_than_a_circular_log(spare_share: float) -> None:
    """Cleaning the oldest block has a closed form (Desnoyers 2012): A = a / (a + W(-a exp(-a))), a physical over
    logical pages. Cleaning the emptiest does better, but not by much."""
    blocks, pages_per_block = 100, 32
    logical = int(blocks * pages_per_block / (1 + spare_share))
    log = LogMap(blocks, pages_per_block, logical)
    rng = np.random.default_rng(1)
    for page in rng.integers(0, logical, 3 * logical).tolist():
        log.write(page)
    log.ledger.programs = log.ledger.host_programs = 0
    for page in rng.integers(0, logical, 4 * logical).tolist():
        log.write(page)
    a = blocks * pages_per_block / logical
    circular = a / (a + lambert(-a * math.exp(-a)))
    assert 0.6 * circular < log.ledger.write_amplification < circular


def lambert(x: float) -> float:
    """The principal branch of w exp(w) = x for -1/e < x < 0, by bisection."""
    low, high = -1.0, 0.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * math.exp(middle) < x else (low, middle)
    return low


def test_reads_disturb_until_a_block_is_rewritten() -> None:
    log = LogMap(6, 4, 16)
    for page in range(16):
        log.write(page)
    for _ in range(100):
        log.read(0)
    [block] = log.ledger.disturbed(100)
    assert log.refresh(int(block)) == 4
    assert len(log.ledger.disturbed(100)) == 0
    assert log.ledger.copies == 4
    assert [int(log.owner[log.read(page)]) for page in range(16)] == list(range(16))


def test_what_a_log_has_no_room_for_is_refused() -> None:
    with pytest.raises(UserError, match="at least 6 blocks"):
        LogMap(5, 4, 16)
    log = LogMap(6, 4, 16)
    with pytest.raises(UserError, match="expected 0 to 15"):
        log.write(16)
    with pytest.raises(UserError, match="never written"):
        log.read(3)


def test_zones_are_written_in_order_and_reset_whole() -> None:
    zones = ZonedMap(2, 3)
    assert [zones.append(1) for _ in range(3)] == [3, 4, 5]
    with pytest.raises(UserError, match="zone 1 is full"):
        zones.append(1)
    assert zones.read(1, 2) == 5
    with pytest.raises(UserError, match="page 0 of zone 0"):
        zones.read(0, 0)
    zones.reset(1)
    assert zones.ledger.erases.tolist() == [0, 1] and zones.ledger.reads.tolist() == [0, 0]
    assert zones.ledger.write_amplification == 1
    with pytest.raises(UserError, match="zone 2"):
        zones.append(2)
    with pytest.raises(UserError, match="at least one of each"):
        ZonedMap(0, 3)


def test_years_follow_from_cycles_capacity_and_rate() -> None:
    flash = standard("son_hbf")
    # 1e5 x 512 GB at 1 GB/s: 5.12e7 s
    assert years_to_wear_out(flash, 1e9) == pytest.approx(5.12e7 / (365.25 * 86400))
    assert years_to_wear_out(flash, 1e9, 2.5) == pytest.approx(years_to_wear_out(flash, 1e9) / 2.5)
    assert math.isinf(years_to_wear_out(flash, 0))
    assert cycles_used(flash, 1e9, years_to_wear_out(flash, 1e9)) == pytest.approx(flash.wear.pe_cycles)
    assert WearLedger.new(3).write_amplification == 1


def test_refresh_rewrites_the_capacity_once_per_retention() -> None:
    flash = standard("hbf_1536")
    load = retention_refresh(flash)
    assert load is not None
    assert load.bytes_per_second == pytest.approx(2**39 / 86400)
    assert load.years_to_wear_out == pytest.approx(1e5 / 365.25)
    # 2^27 pages a day, each 5 us + 100 us + 3 ms / 256 of one of 2048 planes
    assert load.plane_share == pytest.approx(2**27 / 86400 * (105e-6 + 3e-3 / 256) / 2048)
    assert retention_refresh(standard("flint")) is None
    half = retention_refresh(flash, 0.5)
    assert half is not None and half.plane_share == pytest.approx(load.plane_share / 2)


def test_a_block_read_at_every_step_lasts_seconds() -> None:
    """FLINT's million reads of a block, all of its 1024 pages at each of 40 steps per second (its own 25 s is near)."""
    assert seconds_until_disturbed(standard("flint"), 1024 * 40) == pytest.approx(24.4, rel=0.01)
    assert seconds_until_disturbed(standard("son_hbf"), 1.0) is None

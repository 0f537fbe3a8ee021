"""The flash driver: transfers in and out, resumed and refused; policies as data."""

from __future__ import annotations

import numpy as np
import pytest

from archsim.config.errors import SpecError, UserError
from archsim.config.loading import data_root, load_spec
from archsim.memory.device import Range, Transfer
from archsim.memory.flash import FlashStandard
from archsim.memory.flash_checker import check_flash_commands
from archsim.memory.flash_device import FlashDevice
from archsim.memory.flash_measure import random_reads, sequential_reads

FLASH = data_root() / "hwconfigs" / "flash"
SMALL = ("organisation.channels=2", "organisation.dies=4", "organisation.planes=2", "organisation.blocks=8")
SMALL += ("organisation.pages_per_block=16", "capacity=8 MiB", "staging=1 MiB")


def standard(preset: str, *changes: str) -> FlashStandard:
    return load_spec(FLASH / f"{preset}.yaml", FlashStandard, list(changes)).spec


def small(*changes: str) -> FlashStandard:
    return standard("hbf_1536", *SMALL, *changes)


@pytest.mark.parametrize("shortcuts", [True, False])
def test_transfers_complete_in_order_of_their_ends(shortcuts: bool) -> None:
    device = FlashDevice(small(), shortcuts=shortcuts)
    long = device.submit(Transfer((Range(0, 600),)))
    short = device.submit(Transfer((Range(700, 8), Range(720, 4))))
    first, second = device.advance(), device.advance()
    assert first is not None and second is not None
    assert (first.job, second.job) == (short, long)
    assert first.tick < second.tick
    assert device.advance() is None
    assert device.counts().read_bytes == 612 * device.round_bytes


@pytest.mark.parametrize("shortcuts", [True, False])
def test_a_run_can_be_resumed_anywhere(shortcuts: bool) -> None:
    whole = FlashDevice(small(), shortcuts=shortcuts)
    whole.submit(Transfer((Range(0, 900), Range(1000, 10, write=True))))
    expected = whole.advance()
    pieces = FlashDevice(small(), shortcuts=not shortcuts)
    pieces.submit(Transfer((Range(0, 900), Range(1000, 10, write=True))))
    found = None
    while found is None:
        found = pieces.advance(pieces.now + 12_345)
    assert found == expected
    assert pieces.counts() == whole.counts()


def test_bytes_in_are_bytes_out() -> None:
    device = FlashDevice(small())
    device.submit(Transfer((Range(0, 100), Range(500, 30, write=True))), granules=8)
    device.advance()
    counts = device.counts()
    assert counts.read_bytes == 100 * device.round_bytes
    assert counts.write_bytes == 30 * device.round_bytes
    assert counts.programs == counts.writes == 30 * device.channels
    assert counts.reads == counts.senses + counts.joined_reads
    reads = FlashDevice(small())
    reads.submit(Transfer((Range(0, 100),)), granules=8)
    reads.advance()
    assert reads.counts().senses == 100 * device.channels, "eight reads of 512 B share a sense"
    assert counts.senses > reads.counts().senses, "a read does not join a page on the other side of a program"


def test_a_later_transfer_starts_when_it_is_submitted() -> None:
    device = FlashDevice(small())
    device.idle_until(1_000_000)
    device.submit(Transfer((Range(0, 1),)))
    completion = device.advance()
    assert completion is not None
    assert device.to_fs(completion.tick - 1_000_000) == small().read_latency_fs
    device.reset()
    assert device.now == 0 and device.counts().reads == 0


def test_time_converts_exactly() -> None:
    device = FlashDevice(standard("hbf_1536"))
    for tick in (0, 1, 12_345, 10**12):
        assert device.to_ticks(device.to_fs(tick)) in (tick, tick + 1)
        assert device.to_fs(device.to_ticks(device.to_fs(tick))) >= device.to_fs(tick)


@pytest.mark.parametrize(
    ("transfer", "granules", "message"),
    [
        (Transfer((Range(0, 4),), tiles=2, tile_ticks=100, window_bursts=4), None, "a paced transfer on flash"),
        (Transfer((Range(0, 0),)), None, "a transfer of no pages"),
        (Transfer((Range(1020, 8),)), None, "expected 0 to 1023"),
        (Transfer((Range(0, 4),)), 3, "expected a divisor of the 64 granules of a page"),
        (Transfer(tuple(Range(k, 1) for k in range(30))), None, "more streams at the same time"),
    ],
)
def test_what_it_cannot_do_is_refused(transfer: Transfer, granules: int | None, message: str) -> None:
    device = FlashDevice(small())
    before = device._state.copy()
    with pytest.raises(UserError, match=message):
        device.submit(transfer, granules=granules)
    assert np.array_equal(before, device._state), "a refused transfer leaves nothing behind"


def test_traces_are_checked_and_logged() -> None:
    device = FlashDevice(small())
    rng = np.random.default_rng(3)
    kind = rng.choice([0, 0, 0, 1, 2], 300)
    whole = device.timing.granules
    size = np.where(kind == 0, 8, np.where(kind == 1, whole, 0))
    trace = np.stack([kind, rng.integers(0, 64, 300), np.where(kind == 0, 16, 0), size], axis=1)
    done, log = device.replay(trace, np.sort(rng.integers(0, 10**7, 300)), window=16, log_rows=2000)
    assert (done > 0).all()
    assert len(log) > 300
    assert check_flash_commands(device.timing, log) == []
    trace[7, 3] = 1000
    with pytest.raises(UserError, match="request 7 of the trace"):
        FlashDevice(small()).replay(trace, np.zeros(300, np.int64), window=1)


def test_hot_planes_cost_what_they_hold_up() -> None:
    """Half the planes get three times the pages: a round of 4 x pages takes the hot ones 3 senses, not 2."""
    even = sequential_reads(small("timings.tR=50 us")).bytes_per_second
    hot = sequential_reads(small("timings.tR=50 us", "striping.hot_planes=4", "striping.hot_share=3"))
    assert hot.bytes_per_second / even == pytest.approx(2 / 3, rel=0.03)
    assert hot.limit != "planes"


def test_blocks_in_a_row_use_one_plane_at_a_time() -> None:
    """With a whole block before the next plane's turn, the staging SRAM reaches over few planes."""
    dealt = sequential_reads(small("timings.tR=50 us")).bytes_per_second
    in_blocks = sequential_reads(small("timings.tR=50 us", "striping.run=16", "staging=64 KiB")).bytes_per_second
    assert in_blocks < dealt / 3


def test_the_order_of_planes_and_dies_matters_in_lockstep() -> None:
    """Multi-plane operations need the same page of a die's planes at the same time."""
    lockstep = ("organisation.plane_mode=multi_plane", "timings.tR=50 us")
    together = FlashDevice(small(*lockstep))
    together.submit(Transfer((Range(0, 512),)))
    together.advance()
    assert together.counts().array_operations == together.counts().senses // 2


def test_a_second_buffer_hides_the_bus() -> None:
    """One buffer: sense, then stream, in turn. Two: whichever is longer."""
    changes = ("organisation.channels=1", "organisation.dies=1", "organisation.planes=1", "capacity=512 KiB")
    changes += ("buses.channel=1 GB/s", "buses.link=100 GB/s", "timings.ecc=0 ns", "timings.tR=4.096 us")
    two = sequential_reads(small(*changes)).bytes_per_second
    one = sequential_reads(small(*changes, "organisation.page_buffers=1")).bytes_per_second
    assert two / one == pytest.approx(2, rel=0.02)


def test_a_power_limit_lets_so_many_planes_sense() -> None:
    limited = small("timings.tR=50 us", "power_limit=42 mW")
    # 8 pJ/b x 32768 b / 50 us = 5.24 mW per sense, 21 mW per channel
    assert limited.most_active == 4
    measured = sequential_reads(limited)
    assert measured.limit == "power"
    assert measured.bytes_per_second == pytest.approx(float(limited.plane_bytes_per_second) / 2, rel=0.02)


def test_programs_hold_up_reads() -> None:
    reads = FlashDevice(small())
    reads.submit(Transfer((Range(0, 512),)))
    alone = reads.advance()
    mixed = FlashDevice(small())
    mixed.submit(Transfer((Range(512, 64, write=True),)))
    job = mixed.submit(Transfer((Range(0, 512),)))
    ends = {}
    while (completion := mixed.advance()) is not None:
        ends[completion.job] = completion.tick
    assert alone is not None
    assert ends[job] > 2 * alone.tick


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("organisation.page=4000 B", "a page of 4000 B is not a multiple of the codeword of 512 B"),
        ("organisation.granule=96 B", "a codeword of 512 B is not a multiple of the read granule of 96 B"),
        ("organisation.planes=3", "capacity is 8388608 B, but 2 channels x 4 dies x 3 planes"),
        ("organisation.planes=3", "no whole number of blocks does, the capacity has to be a multiple of"),
        ("organisation.dies=8", "blocks would fit"),
        ("organisation.planes=0", "0 is too small"),
        ("organisation.page_buffers=3", "3 page buffers per plane, at most 2"),
        ("organisation.plane_mode=independant", "independent, multi_plane"),
        ("timings.tR=0 us", "tR is zero"),
        ("timings.tR=4", "has no unit"),
        ("staging=4 KiB", "staging of 4096 B holds no page of 4096 B for each of 2 channels"),
        ("power_limit=1 mW", "does not pay for one sense per channel"),
        ("queue=5000", "at most 4096"),
        ("striping.hot_planes=9", "expected 0 to 8"),
        ("striping.hot_planes=-1", "expected 0 to 8"),
    ],
)
def test_a_stack_that_cannot_be_is_refused(change: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        small(change)
    assert message in str(caught.value)


@pytest.mark.parametrize(("size", "depth", "message"), [(96, 1, "64 B"), (0, 1, "reads of 0"), (64, 0, "queue depth")])
def test_reads_that_cannot_be_are_refused(size: int, depth: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        random_reads(small(), size, depth)

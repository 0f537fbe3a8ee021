"""Flash against what is published: closed forms to the tick, published stacks out of planes, pages and tR."""

from __future__ import annotations

import math

import numpy as np
import pytest

from archsim.config.loading import data_root, load_spec, unsourced_numbers
from archsim.memory.device import Range, Transfer
from archsim.memory.flash import FlashStandard
from archsim.memory.flash_device import FlashDevice
from archsim.memory.flash_map import cycles_used
from archsim.memory.flash_measure import random_reads, sequential_reads

PRESETS = sorted((data_root() / "hwconfigs" / "flash").glob("*.yaml"))


def standard(preset: str, *changes: str) -> FlashStandard:
    return load_spec(data_root() / "hwconfigs" / "flash" / f"{preset}.yaml", FlashStandard, list(changes)).spec


@pytest.mark.parametrize("rate_mts", [1000, 500, 333])
def test_one_4_kb_read_at_a_time(rate_mts: int) -> None:
    """tR + 4096 B / rate, to the tick: 8 / 12 / 16 us (measured with MQSim, published)."""
    flash = standard("xl_flash_gen1", f"buses.channel={rate_mts} MB/s")
    device = FlashDevice(flash)
    trace = np.array([[0, page, 0, 8] for page in (5, 900, 17, 17 + 16)], np.int64)
    done, _ = device.replay(trace, np.zeros(4, np.int64), window=1)
    each = 4 * rate_mts + 4096  # ticks of a byte
    assert np.diff(done, prepend=0).tolist() == [each] * 4
    assert device.to_fs(each) == flash.read_latency_fs
    published_us = {1000: 8, 500: 12, 333: 16}[rate_mts]
    assert flash.read_latency_fs / 1e9 == pytest.approx(published_us, rel=0.025)
    assert random_reads(flash, 4096, 1).mean_latency_fs == pytest.approx(flash.read_latency_fs, rel=1e-9)


@pytest.mark.parametrize(
    ("preset", "read_tbps", "tolerance"),
    [("son_hbf", 1.638, 0.001), ("son_conventional", 0.35, 0.005), ("flashaccel", 0.768, 0.001)],
)
def test_published_stacks_come_out_of_planes_pages_and_t_r(preset: str, read_tbps: float, tolerance: float) -> None:
    measured = sequential_reads(standard(preset))
    assert measured.bytes_per_second / 1e12 == pytest.approx(read_tbps, rel=tolerance)


def test_programs_of_a_son_stack() -> None:
    """25 x 16 x 4096 B / 100 us = 16.4 GB/s."""
    device = FlashDevice(standard("son_hbf"))
    device.submit(Transfer((Range(0, 16_000, write=True),)))
    completion = device.advance()
    assert completion is not None
    rate = device.counts().write_bytes / (device.to_fs(completion.tick) * 1e-15)
    assert rate / 1e9 == pytest.approx(16.384, rel=0.005)


@pytest.mark.parametrize("t_read_us", [1, 3, 20])
@pytest.mark.parametrize("planes", [4, 16])
def test_steady_senses_are_planes_times_page_over_t_r(t_read_us: int, planes: int) -> None:
    """In the steady state a round of all planes takes tR, to the tick."""
    flash = standard(
        "hbf_3072", "organisation.dies=1", f"organisation.planes={planes}", f"timings.tR={t_read_us} us",
        f"capacity={planes * 2048} MiB",
    )  # fmt: skip
    ticks = []
    for rounds in (50, 150):
        device = FlashDevice(flash, shortcuts=False)
        device.submit(Transfer((Range(0, rounds * planes),)))
        completion = device.advance()
        assert completion is not None
        ticks.append(completion.tick)
    assert ticks[1] - ticks[0] == 100 * flash.timing().t_read


def test_planes_that_3_tb_per_second_need() -> None:
    """3.072 TB/s at tR = 15 us need 11,250 planes: 704 in each of 16 channels suffice, 702 don't."""
    assert math.ceil(3.072e12 * 15e-6 / 4096) == 11_250
    rates = {}
    for planes in (702, 704):
        flash = standard(
            "hbf_3072", "organisation.dies=1", f"organisation.planes={planes}", "timings.tR=15 us", "staging=256 MiB",
            f"capacity={planes * 2048} MiB", "buses.channel=200 GB/s", "buses.link=3200 GB/s",
        )  # fmt: skip
        rates[planes] = sequential_reads(flash).bytes_per_second
    assert rates[702] < 3.072e12 < rates[704]


def test_staging_of_twice_bandwidth_times_latency_hides_the_latency() -> None:
    """2 x 1.638 TB/s x 1 us = 3.125 MiB is enough; with less, bandwidth = staging / latency of a page."""
    flash = standard("son_hbf")
    assert 2 * float(flash.plane_bytes_per_second) * 1e-6 == 3.125 * 2**20
    assert sequential_reads(flash).bytes_per_second == pytest.approx(1.6384e12, rel=1e-3)
    one_page = sequential_reads(standard("son_hbf", "staging=102400 B"), 10**9)  # a page per channel
    assert one_page.bytes_per_second == pytest.approx(102400 / (flash.read_latency_fs * 1e-15), rel=1e-3)
    quarter = sequential_reads(standard("son_hbf", "staging=0.78125 MiB"))
    assert quarter.bytes_per_second < 0.55 * 1.6384e12


def test_small_reads_waste_what_they_don_t_use() -> None:
    """128 B of a 4 KiB page: 97% of the sensing is wasted (published for random reads of such parts)."""
    flash = standard("son_hbf")
    useful = random_reads(flash, 128, 1024).bytes_per_second / float(flash.plane_bytes_per_second)
    assert 1 - useful == pytest.approx(0.97, abs=0.005)


def test_cycles_of_a_serving_load() -> None:
    """Cycles in 3 years = tps / Lout x (Lin + Lout) x KV bytes per token x 94.6e6 s / capacity.

    Son et al. publish 171.8 thousand; HBM + 7 HBF stacks on SHORT, with the capacity in GiB, come nearest to it."""
    rate = 2495 / 373 * (1660 + 373) * 516_096
    stack = standard("son_hbf")
    per_gpu = cycles_used(stack, rate, 3) * stack.capacity / (3620 * 2**30)
    assert per_gpu == pytest.approx(171_800, rel=0.05)


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_presets_load_with_sources_and_reach_their_lowest_ceiling(file: object) -> None:
    loaded = load_spec(file, FlashStandard)  # type: ignore[arg-type]
    assert unsourced_numbers(loaded) == []
    lowest = float(min(loaded.spec.ceilings.values()))
    assert sequential_reads(loaded.spec).bytes_per_second == pytest.approx(lowest, rel=5e-3)


def test_a_terabyte_is_read_without_simulating_it() -> None:
    """Both halves over the whole stack; the plain run of a short piece says the same."""
    device = FlashDevice(standard("son_hbf"))
    pages = device.channel_pages
    for _ in range(2):
        device.submit(Transfer((Range(0, pages),)))
        assert device.advance() is not None
    assert device.counts().read_bytes >= 1_000_000_000_000
    ends = []
    for shortcuts in (True, False):
        short = FlashDevice(standard("son_hbf"), shortcuts=shortcuts)
        short.submit(Transfer((Range(3, 50_001),)))
        ends.append((short.advance(), short.counts(), short.plane_senses().tolist()))
    assert ends[0] == ends[1]

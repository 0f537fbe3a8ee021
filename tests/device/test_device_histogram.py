"""A device's histogram of latencies is that of all its channels, with shortcuts or without."""

from __future__ import annotations

import numpy as np
import pytest

from archsim.config.loading import data_root, load_spec
from archsim.kernels.timing import Count
from archsim.memory.device import HbmDevice, Transfer
from archsim.memory.layout import InterleaveSpec
from archsim.memory.standard import ControllerSpec, DramStandard

CHANNELS = 4


def histogram(shortcuts: bool, keep: bool = True) -> tuple[np.ndarray, int, list[int]]:
    """The histogram after a ragged read and, once channels have merged again, a ragged write; classes; counts."""
    memory = load_spec(data_root() / "hwconfigs" / "memory" / "hybrid_bonded_8gb.yaml", DramStandard).spec
    controller = ControllerSpec(latency_histogram=keep)
    device = HbmDevice(
        memory, controller, CHANNELS, shortcuts=shortcuts, interleave=InterleaveSpec(granularity="256 B")
    )
    assert device.layout is not None
    for write in (False, True):
        device.submit(Transfer((device.layout.contiguous(100, 20_000, write=write),)))
        assert device.advance() is not None
        device.idle_until(device.now + 3 * device.timing.tREFI)
    return device.latency_histogram(), device.classes, device.count_vector().tolist()


@pytest.mark.interpreted
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_devices_histogram_counts_every_channels_requests() -> None:
    plain, apart, counts = histogram(shortcuts=False)
    merged, classes, same_counts = histogram(shortcuts=True)
    assert apart == CHANNELS and classes < CHANNELS  # they have been merged
    assert np.array_equal(plain, merged) and counts == same_counts
    assert plain.sum(axis=1).tolist() == [counts[Count.RD], counts[Count.WR]]
    assert not histogram(shortcuts=True, keep=False)[0].any()

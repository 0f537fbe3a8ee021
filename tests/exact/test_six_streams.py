"""Fast-forward at scale: six streams of 50 million requests each, with and without the memo, to the last counter."""

from __future__ import annotations

import numpy as np
import pytest

from archsim.memory.device import HbmDevice, Range, Transfer
from archsim.memory.standard import RefreshPolicy
from archsim.system import load_system

REQUESTS = 50_000_000  # of each stream
WEIGHTS, KEYS, VALUES, OUTPUT, APPENDED, GATHERED = (place * 40_000 * 1024 for place in range(6))


def outcome(shortcuts: bool, refresh: RefreshPolicy, requests: int) -> tuple[int, list[int]]:
    """(completion tick, counts) of one channel that reads weights, keys, values and a neighbour's part and writes
    its output and new KV entries, all at once."""
    memory = load_system("h200").spec.device.memory
    controller = memory.controller.model_copy(update={"refresh": refresh})
    device = HbmDevice(memory.technology, controller, 1, shortcuts=shortcuts)
    bursts = requests // device.pseudo_channels
    reads = (WEIGHTS, KEYS, VALUES, GATHERED)
    ranges = [Range(first, bursts, first not in reads) for first in (WEIGHTS, KEYS, VALUES, OUTPUT, APPENDED, GATHERED)]
    device.submit(Transfer(tuple(ranges)))
    completion = device.advance()
    assert completion is not None
    return completion.tick, device.count_vector().tolist()


@pytest.mark.parametrize("refresh", [RefreshPolicy.ALL_BANK, RefreshPolicy.PER_BANK, RefreshPolicy.NONE])
def test_six_streams_of_a_million_requests_are_the_same_with_the_memo(refresh: RefreshPolicy) -> None:
    assert outcome(True, refresh, 1_000_000) == outcome(False, refresh, 1_000_000)


@pytest.mark.validate
def test_six_streams_of_50_million_requests_are_the_same_with_the_memo() -> None:
    tick, counts = outcome(True, RefreshPolicy.ALL_BANK, REQUESTS)
    assert (tick, counts) == outcome(False, RefreshPolicy.ALL_BANK, REQUESTS)
    assert np.sum(counts[3:5]) == 6 * REQUESTS  # RD and WR

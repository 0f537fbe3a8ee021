"""A replay whose write queue answers is the oracle's, in one piece or in many: commands, counts, latencies and entries.

The kernels run as plain Python: compiling them for one more shape would take longer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from dram_cases import address_tables, random_timing

from archsim.kernels.oracle import OracleResult, Trace, run_oracle
from archsim.kernels.timing import Count, DramTiming
from archsim.memory.replay_channel import ReplayChannel

pytestmark = pytest.mark.interpreted

REQUESTS = 500


@dataclass(frozen=True)
class Scene:
    """Two pseudo-channels' requests: words `address << 1 | write`, and their ticks of arrival."""

    q: DramTiming
    words: list[np.ndarray]
    arrivals: list[np.ndarray]
    timed: bool


def scene(seed: int) -> Scene:
    """Few addresses, so that queued writes have answers; in every third scene hardly any request needs a command."""
    random = np.random.default_rng(seed)
    q = random_timing(random, seed % 3, 2, 1, 1)
    q = q._replace(
        bank_groups=2, banks_per_group=2, columns=8, read_queue=6, write_queue=8, write_high=7, write_low=3,
        write_forwarding=int(seed % 4 != 1), write_coalescing=int(seed % 4 != 2),
        forward_ticks=int(random.integers(1, 2 * q.tCL)), row_hit_cap=seed % 2 * 3,
    )  # fmt: skip
    span, timed = (4 if seed % 3 == 0 else 40), seed % 2 == 1
    words = [random.integers(0, span, REQUESTS) << 1 | (random.random(REQUESTS) < 0.5) for _ in range(2)]
    arrivals = [np.cumsum(random.integers(0, 9, REQUESTS) * timed) for _ in range(2)]
    return Scene(q, words, arrivals, timed)


def replayed(one: Scene, cuts: list[int]) -> tuple[ReplayChannel, np.ndarray, int]:
    """The channel after the requests were fed up to each cut in turn, its command log, and the most it held at once."""
    log: list[np.ndarray] = []
    channel = ReplayChannel(one.q, *address_tables(one.q), one.timed, lambda _, rows: log.append(rows))
    most = 0
    for first, after in zip([0, *cuts], [*cuts, REQUESTS], strict=True):
        channel.feed([(one.words[p][first:after], one.arrivals[p][first:after]) for p in range(2)])
        most = max(most, channel.waiting_requests)
        if cuts:
            channel.run(min(int(one.arrivals[p][min(after, REQUESTS - 1)]) for p in range(2)))
    channel.finish()
    return channel, np.concatenate(log), most


def by_oracle(one: Scene) -> OracleResult:
    words = np.concatenate(one.words)
    trace = Trace(words >> 1, (words & 1).astype(np.int8), np.concatenate(one.arrivals), np.array([0, 1, 2]) * REQUESTS)
    bank_of, column_of = address_tables(one.q)
    return run_oracle(one.q, bank_of.astype(np.int16), trace, log=True, column_table=column_of.astype(np.int16))


@pytest.mark.parametrize("seed", range(12))
def test_a_replay_with_answers_is_the_oracles(seed: int) -> None:
    one = scene(seed)
    expected = by_oracle(one)
    written = np.concatenate(one.words) & 1
    since = {"from_queue": expected.admitted, "from_arrival": np.concatenate(one.arrivals)}
    if not one.timed:
        since["from_arrival"] = expected.admitted
    assert expected.answered.any()
    random = np.random.default_rng(seed)
    for pieces in (1, 3, 25):
        cuts = sorted(random.integers(0, REQUESTS, pieces - 1).tolist())
        channel, log, _ = replayed(one, cuts)
        n = min(len(log), len(expected.log))  # either may see another refresh after the last request
        assert np.array_equal(log[:n], expected.log[:n]) and n >= len(log) - 4
        for name, start in since.items():
            for w in (0, 1):
                latencies = (expected.done - start)[written == w]
                part = getattr(channel, name)[w]
                found = (part.count, part.total, part.maximum)
                assert found == (len(latencies), latencies.sum(), latencies.max())
        for count in (Count.RD, Count.WR, Count.HITS, Count.MISSES, Count.CONFLICTS, Count.FORWARDED, Count.COALESCED):
            assert channel.counts[count] == expected.counts[count]
        assert channel.end_tick == expected.done.max()


def test_a_replay_with_answers_does_not_keep_the_whole_trace() -> None:
    """Requests that mostly need commands leave while others still come."""
    one = scene(4)
    _, _, most = replayed(one, list(range(50, REQUESTS, 50)))
    assert most < REQUESTS


def test_running_on_without_the_next_requests_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake that a try guards against: answers let a pseudo-channel run out of requests too soon."""
    one = scene(0)
    monkeypatch.setattr(ReplayChannel, "_try", lambda self, arrays, until: (self._advance(arrays, until), True)[1])
    channel, log, _ = replayed(one, list(range(50, REQUESTS, 50)))
    expected = by_oracle(one)
    n = min(len(log), len(expected.log))
    assert channel.end_tick != expected.done.max() or not np.array_equal(log[:n], expected.log[:n])

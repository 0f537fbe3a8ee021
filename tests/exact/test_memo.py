"""The memo is exact: with it a channel is at every stop in the state that the plain simulation reaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from dram_cases import (
    HORIZON,
    NO_LOG,
    NOTHING,
    REFRESH_MODES,
    Array,
    address_tables,
    open_job,
    open_stream,
    random_timing,
    start_job,
)

from archsim.kernels import canonical, channel, memo_tables
from archsim.kernels import memo as memo_module
from archsim.kernels.canonical import FORM_LENGTH, write_form
from archsim.kernels.channel import ChannelView
from archsim.kernels.dram import advance
from archsim.kernels.entries import settle
from archsim.kernels.jit import kernel, pointer
from archsim.kernels.memo import advance_with_memo
from archsim.kernels.memo_tables import Memo, new_memo
from archsim.kernels.special import specialised
from archsim.kernels.timing import DramTiming, RefreshMode, RefreshOrder

ORGANISATIONS = ((1, 1), (2, 1), (2, 2))  # pseudo-channels, stack IDs
SCENARIOS = 24  # per refresh mode and organisation
JOBS = 6
POLICIES: tuple[dict[str, int], ...] = (
    {"row_hit_cap": 2, "starve_after": 60, "page_timeout": 0, "write_forwarding": 1, "forward_ticks": 5},
    {"scheduler": 1, "page_timeout": 40, "write_coalescing": 1},
)
PLACES = (0, 0, 1, 55, 110, 3000, 6000, 9000)  # rows at which streams start


def form_of(state, q, form):
    return _form_of(state, specialised(q), form)


@kernel
def _form_of(state, q, form):
    return write_form(pointer(state), q, pointer(form))


@dataclass(frozen=True)
class Stop:
    """What of a state has to be equal: all that anyone reads, and all that decides how it goes on (the form)."""

    now: int
    finished: int
    last_data: int
    words: tuple[tuple[int, ...], ...]


def stop(state: np.ndarray, q: DramTiming) -> Stop:
    settle(state, q)
    view = ChannelView(state)
    form = np.zeros(FORM_LENGTH, np.int64)
    length = form_of(state.copy(), q, form)
    finished = int(state[channel.FINISHED_JOB])
    slots = state[channel.ACTIVE : channel.ACTIVE + state[channel.ACTIVE_STREAMS]]
    parts = (
        view.counts,
        view.histogram,
        view.due,
        view.queued,
        view.open_row,
        view.stream_next[slots],
        view.stream_issued[slots],
        form[:length],
    )
    return Stop(
        now=int(state[channel.NOW]),
        finished=finished,
        last_data=int(view.job[finished, channel.JOB_LAST_DATA]) if finished >= 0 else -1,
        words=tuple(tuple(part.ravel().tolist()) for part in parts),
    )


def scenario(q: DramTiming, seed: int, memo: Memo | None) -> tuple[list[Stop], int]:
    """Jobs one after the other or at once, over addresses old and new: every stop on the way, and periods taken."""
    random = np.random.default_rng(seed)
    bank_of, column_of = address_tables(q)
    row_set = len(bank_of)
    state = channel.new_state(q)
    view = ChannelView(state)
    stops: list[Stop] = []
    running: set[int] = set()
    used: dict[int, list[int]] = {}

    def go(until: int) -> None:
        while True:
            if memo is None:
                advance(state, q, bank_of, column_of, NOTHING, NOTHING, NOTHING, NO_LOG, until, False)
            else:
                advance_with_memo(state, q, bank_of, column_of, memo, until)
            stops.append(stop(state, q))
            finished = int(state[channel.FINISHED_JOB])
            if finished < 0:
                return
            running.discard(finished)
            used.pop(finished)
            if until == HORIZON:
                return

    sizes = [row_set // 2, 5 * row_set + int(random.integers(0, row_set)), int(random.integers(60, 200)) * row_set]
    for _ in range(JOBS):
        job = min(set(range(channel.MAX_JOBS)) - running)
        size = sizes[int(random.integers(0, 3))]
        tiles = int(random.integers(0, 2)) * int(random.integers(1, 12))
        share = -(-size // max(tiles, 1))
        tile_ticks = max(q.tCL + q.tBL, int(share * q.tCCDS * random.choice([0.5, 1.0, 2.0])))
        gate = channel.NEVER if tiles and random.random() < 0.1 else 0
        open_job(state, q, job, tiles, tile_ticks, gate)
        slots = sorted(set(range(channel.MAX_STREAMS)) - {slot for mine in used.values() for slot in mine})
        used[job] = slots[: int(random.integers(1, 4))]
        for k, slot in enumerate(used[job]):
            # A few places in all, so that rows left open are met again; some streams come to where others are.
            view.stream_base[slot, :] = row_set * int(random.choice(PLACES)) + int(random.integers(0, 2)) * 7
            view.stream_total[slot, :] = size if k < 2 else size // 8 + 1
            window = share + int(random.integers(0, 3)) * share // 2 + 1
            open_stream(state, q, slot, job, int(k == 2 or random.random() < 0.1), window, 0)
        start_job(state, q, job)
        running.add(job)
        go(int(state[channel.NOW]) + int(random.integers(1, 4 * size * q.tCCDS)))
        if gate:
            view.job[job, channel.JOB_GATE] = state[channel.NOW]
            state[channel.TILE_EVENT] = state[channel.NOW]
        if random.random() < 0.7:
            while running:
                go(HORIZON)
        if random.random() < 0.4:
            go(int(state[channel.NOW]) + int(random.integers(0, 3)) * 4000)
    while running:
        go(HORIZON)
    return stops, int(state[channel.CHAINED])


def timing(refresh: int, pseudo_channels: int, stack_ids: int) -> DramTiming:
    """A small channel whose refreshes come often, so that a short run has many periods."""
    q = random_timing(np.random.default_rng(7), refresh, pseudo_channels, stack_ids, 1)
    return q._replace(
        bank_groups=2, banks_per_group=2, columns=8, tRFCab=90, tREFI=700, tRFCpb=60, tREFIpb=110, tRFCsb=60,
        tREFIsb=190, refresh_stagger=150 * (stack_ids - 1), read_queue=16, write_queue=12, write_high=9, write_low=3,
        tCKE=9, tXP=7,
    )  # fmt: skip


UNWANTED = {"refresh_order": int(RefreshOrder.UNWANTED_FIRST)}
LATE_AND_EARLY = {"refresh_postpone": 1400, "refresh_pull_in": 2100, "refresh_idle": 40}
FEATURES: dict[str, tuple[RefreshMode, dict[str, int]]] = {
    "shared bus": (RefreshMode.ALL_BANK, {"shared_command_bus": 1, "tCCDLW": 9}),
    "unwanted first": (RefreshMode.PER_BANK, UNWANTED),
    "unwanted first, late and early": (RefreshMode.PER_BANK, UNWANTED | LATE_AND_EARLY),
    "all banks late and early": (RefreshMode.ALL_BANK, LATE_AND_EARLY),
    "same bank": (RefreshMode.SAME_BANK, {}),
    "power-down": (RefreshMode.ALL_BANK, {"power_down_after": 30}),
    "everything": (
        RefreshMode.SAME_BANK,
        UNWANTED | LATE_AND_EARLY | {"shared_command_bus": 1, "power_down_after": 30},
    ),
}


@pytest.mark.parametrize("refresh", REFRESH_MODES)
@pytest.mark.parametrize(("pseudo_channels", "stack_ids"), ORGANISATIONS)
def test_memo_equals_plain_simulation(refresh: int, pseudo_channels: int, stack_ids: int) -> None:
    assert_memo_is_exact(timing(refresh, pseudo_channels, stack_ids), SCENARIOS)


@pytest.mark.validate  # compiles the memo for another shape of kernel
@pytest.mark.parametrize("feature", FEATURES)
def test_memo_equals_plain_simulation_with_features(feature: str) -> None:
    refresh, settings = FEATURES[feature]
    assert_memo_is_exact(timing(refresh, 2, 2)._replace(**settings), SCENARIOS // 2)


def assert_memo_is_exact(q: DramTiming, scenarios: int, *, latency_histogram: bool = False) -> None:
    memo = new_memo(16 << 20, latency_histogram=latency_histogram)
    periods = 0
    for seed in range(scenarios):
        plain, _ = scenario(q, seed, None)
        for attempt in ("learning", "knowing"):
            stops, taken = scenario(q, seed, memo)
            differ = [k for k, (a, b) in enumerate(zip(plain, stops, strict=False)) if a != b]
            assert not differ, (
                f"seed {seed}, {attempt}: stop {differ[0]}, {explain(plain[differ[0]], stops[differ[0]])}"
            )
            assert len(plain) == len(stops)
            periods += taken
    assert periods > 10 * scenarios  # the shortcut was taken all the time


HISTOGRAM = {"latency_histogram": 1}
HISTOGRAM_WITH: dict[str, tuple[RefreshMode, dict[str, int]]] = {
    **{f"{mode.name.lower()} refresh": (mode, {}) for mode in RefreshMode},
    "front policies": (RefreshMode.ALL_BANK, {"row_hit_cap": 2, "starve_after": 60, "page_timeout": 0}),
    "answers": (RefreshMode.PER_BANK, {"write_forwarding": 1, "write_coalescing": 1, "forward_ticks": 5}),
    "everything": FEATURES["everything"],
}


@pytest.mark.validate  # compiles the memo for two other shapes of kernel
@pytest.mark.parametrize("case", HISTOGRAM_WITH)
def test_memo_equals_plain_simulation_in_every_bucket(case: str) -> None:
    refresh, settings = HISTOGRAM_WITH[case]
    assert_memo_is_exact(timing(refresh, 2, 1)._replace(**settings, **HISTOGRAM), SCENARIOS, latency_histogram=True)


@pytest.mark.validate  # compiles the memo for another shape of kernel
@pytest.mark.parametrize("policies", POLICIES)
@pytest.mark.parametrize("refresh", REFRESH_MODES)
def test_memo_knows_front_policies(refresh: int, policies: dict[str, int]) -> None:
    q = timing(refresh, 2, 1)._replace(**policies)
    memo = new_memo(16 << 20)
    periods = 0
    for seed in range(SCENARIOS // 3):
        plain, _ = scenario(q, seed, None)
        for _ in ("learning", "knowing"):
            stops, taken = scenario(q, seed, memo)
            assert plain == stops, f"seed {seed}"
            periods += taken
    assert periods > SCENARIOS


def explain(plain: Stop, other: Stop) -> str:
    names = ("counts", "histogram", "due", "queued", "open rows", "admitted", "issued", "form")
    parts = [name for name, a, b in zip(names, plain.words, other.words, strict=True) if a != b]
    numbers = [(one.now, one.finished, one.last_data) for one in (plain, other)]
    return f"tick, job and its end {numbers[0]} plain, {numbers[1]} with memo; other words: {parts}"


def test_a_full_memo_starts_anew() -> None:
    q = timing(1, 2, 1)
    small = new_memo(0)
    for seed in range(6):
        assert scenario(q, seed, small)[0] == scenario(q, seed, None)[0]
    assert small.used[1] <= len(small.start)


Acts = list[list[tuple[int, int, int]]]
"""Acts come one after the other with idle time between; each is jobs of one stream (row, rows, ticks per row)."""


def play(q: DramTiming, memo: Memo | None, acts: Acts, writes: tuple[int, ...] = ()) -> list[Stop]:
    """The stops of some acts. Streams in the slots of `writes` write, the others read."""
    bank_of, column_of = address_tables(q)
    row_set = len(bank_of)
    state = channel.new_state(q)
    view = ChannelView(state)
    stops = []
    for act in acts:
        for job, (first_row, rows, row_ticks) in enumerate(act):
            open_job(state, q, job, rows if row_ticks else 0, row_ticks, 0)
            view.stream_base[job, :] = first_row * row_set
            view.stream_total[job, :] = rows * row_set
            open_stream(state, q, job, job, int(job in writes), 2 * row_set, 0)
            start_job(state, q, job)
        left = len(act)
        while left >= 0:
            until = HORIZON if left else int(state[channel.NOW]) + 5000
            if memo is None:
                advance(state, q, bank_of, column_of, NOTHING, NOTHING, NOTHING, NO_LOG, until, False)
            else:
                advance_with_memo(state, q, bank_of, column_of, memo, until)
            stops.append(stop(state, q))
            left -= 1
    return stops


@pytest.mark.parametrize("refresh", REFRESH_MODES)
def test_rows_left_open_are_met_again(refresh: int) -> None:
    """Reading one row set over and over hits; after another one it conflicts. All else looks alike."""
    q = timing(refresh, 2, 1)
    acts = [[(row, 1, 0)] for row in (0, 90, 90, 90, 0, 0, 90, 0, 0, 90)]
    memo = new_memo(1 << 20)
    for _ in range(2):
        assert play(q, memo, acts) == play(q, None, acts)


@pytest.mark.parametrize("refresh", REFRESH_MODES)
def test_a_stream_runs_into_a_slower_one(refresh: int) -> None:
    """The memo has learnt the two streams far apart, where they don't matter to each other."""
    q = timing(refresh, 2, 1)
    memo = new_memo(8 << 20)
    row_ticks = 2 * len(address_tables(q)[0]) * q.tCCDS
    for first_row in (5000, 5000, 70, 50, 110):
        acts = [[(0, 400, 0), (first_row, 60, 4 * row_ticks)], [(0, 300, 0), (first_row, 60, row_ticks)]]
        assert play(q, memo, acts) == play(q, None, acts)


# ---- the histogram of latencies, interpreted -------------------------------------------------------------------------

wraps_around = pytest.mark.filterwarnings("ignore:overflow encountered")  # digests do

READS_AND_WRITES: Acts = [[(0, 30, 0), (900, 20, 0)], [(300, 8, 300), (600, 30, 0)], [(0, 1, 0)], [(0, 30, 0)]]


def buckets_match(refresh: int) -> bool:
    """Whether a memo that learns and one that knows give every bucket, and something is taken from the memo."""
    q = timing(refresh, 1, 1)._replace(**HISTOGRAM)
    memo = new_memo(1 << 20, latency_histogram=True)
    plain = play(q, None, READS_AND_WRITES, writes=(1,))
    return all(play(q, memo, READS_AND_WRITES, writes=(1,)) == plain for _ in ("learning", "knowing"))


@pytest.mark.interpreted
@wraps_around
@pytest.mark.parametrize("refresh", RefreshMode)
def test_the_memo_keeps_the_histogram(refresh: RefreshMode) -> None:
    assert buckets_match(refresh)


def one_bucket_on(st: Array, q: DramTiming, memo: Memo, period: Array) -> None:
    """A period's latencies in the next bucket."""
    first = period[memo_tables.FIRST_PAIR]
    for word, grown in memo.latencies[first : first + period[memo_tables.PAIRS]]:
        st[channel.HISTOGRAM + word + 1] += grown


HISTOGRAM_MISTAKES = {
    "a period adds nothing": ("add_histogram", lambda st, q, memo, period: None),
    "the next bucket": ("add_histogram", one_bucket_on),
    "all since the beginning": (
        "note_histogram",
        lambda st, q, deltas: deltas[memo_tables.HISTOGRAM_BEFORE :].fill(0),
    ),
}


@pytest.mark.interpreted
@wraps_around
@pytest.mark.parametrize("mistake", HISTOGRAM_MISTAKES)
def test_a_mistake_in_the_memos_histogram_is_caught(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, planted = HISTOGRAM_MISTAKES[mistake]
    monkeypatch.setattr(memo_module, name, planted)
    assert not all(buckets_match(mode) for mode in (RefreshMode.NONE, RefreshMode.ALL_BANK))


@pytest.mark.interpreted
@wraps_around
def test_waiting_so_far_is_part_of_a_form_with_a_histogram(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a period would add the latencies of other requests, and those read back would count from nowhere."""
    monkeypatch.setattr(canonical, "entry_words", lambda q: 4)
    assert not all(buckets_match(mode) for mode in (RefreshMode.NONE, RefreshMode.ALL_BANK))

"""Classes of channels are exact: the same numbers as simulating every channel on its own, tick by tick together.

The reference below knows no classes and runs nothing ahead: all channels take tick after tick, and a tile starts at the
first tick at which every channel has its data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from dram_cases import HORIZON, NOTHING, address_tables, open_job, open_stream, random_timing, start_job
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from archsim.kernels import channel
from archsim.kernels.channel import JOB, JOB_FIELDS, NEVER, NOW, TILE_EVENT, ChannelView
from archsim.kernels.classes import IDENTITY_LENGTH, write_identity
from archsim.kernels.dram import advance_special
from archsim.kernels.entries import settle
from archsim.kernels.jit import kernel
from archsim.kernels.memo_tables import new_memo
from archsim.kernels.special import specialised
from archsim.kernels.timing import DramTiming
from archsim.memory.channel_class import ChannelClass, Stream
from archsim.memory.classes import ChannelClasses
from archsim.memory.layout import InterleaveSpec, Layout, Shares

BURST = 32


# ---- the reference ---------------------------------------------------------------------------------------------------


@kernel
def may_start(states, job, gate, tick):
    """Whether a job's next tile starts at this tick: its data are there in every channel, the last tile has ended."""
    some = False
    for c in range(states.shape[0]):
        j = JOB + job * JOB_FIELDS
        if states[c, j + channel.JOB_ACTIVE] == 0:
            continue
        some = True
        running = states[c, j + channel.JOB_TILE_END]
        if states[c, j + channel.JOB_READY] > tick or (running < NEVER and running > tick):
            return False
    return some and gate <= tick


@kernel
def run_plainly(states, q, bank_of, column_of, trace, arrival, gates, last_data, until):
    """All channels to `until`, tick by tick; `last_data[c, job]` is set when a job ends in channel c."""
    done, log = np.zeros(0, np.int64), np.zeros((0, 8), np.int64)
    for tick in range(states[0, NOW], until):
        for job in range(channel.MAX_JOBS):
            go = may_start(states, job, gates[job], tick)
            for c in range(states.shape[0]):
                states[c, JOB + job * JOB_FIELDS + channel.JOB_GATE] = tick if go else NEVER
                if go:
                    states[c, TILE_EVENT] = min(states[c, TILE_EVENT], tick)
        for c in range(states.shape[0]):
            state = states[c]
            while state[NOW] <= tick:
                advance_special(state, q, bank_of, column_of, trace, arrival, done, log, tick + 1, False)
                job = state[channel.FINISHED_JOB]
                if job >= 0:
                    last_data[c, job] = state[JOB + job * JOB_FIELDS + channel.JOB_LAST_DATA]


@dataclass(frozen=True)
class Task:
    """A transfer that begins at a tick; its gate opens at `gate` if it is gated."""

    start: int
    works: tuple[Shares, ...]
    tiles: int
    tile_ticks: int
    windows: tuple[int, ...]
    gate: int | None = None


@dataclass(frozen=True)
class Scene:
    q: DramTiming
    layout: Layout
    tasks: tuple[Task, ...]
    end: int

    def events(self) -> Iterator[tuple[int, str, int]]:
        """(tick, what, task) in order of time."""
        starts = [(task.start, "start", k) for k, task in enumerate(self.tasks)]
        gates = [(task.gate, "open", k) for k, task in enumerate(self.tasks) if task.gate is not None]
        yield from sorted([*starts, *gates, (self.end, "end", 0)])

    def slots(self, task: int) -> range:
        first = sum(len(earlier.works) for earlier in self.tasks[:task])
        return range(first, first + len(self.tasks[task].works))


@dataclass
class Outcome:
    """Completion tick of each task; counts and open rows of every channel at each event; final states."""

    ends: dict[int, int] = field(default_factory=dict)
    counts: list[list[list[int]]] = field(default_factory=list)
    rows: list[list[list[int]]] = field(default_factory=list)
    finals: list[bytes] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)

    def same_numbers(self, other: Outcome) -> list[str]:
        """What differs, by name."""
        return [name for name in ("ends", "counts", "rows", "finals") if getattr(self, name) != getattr(other, name)]


def open_rows(state: np.ndarray) -> list[int]:
    return list(ChannelView(state).open_row.ravel().tolist())


def identity(state: np.ndarray, q: DramTiming) -> bytes:
    out = np.zeros(IDENTITY_LENGTH, np.int64)
    return out[: write_identity(state.copy(), q, out)].tobytes()


def every_channel(scene: Scene) -> Outcome:
    """The plain simulation of every channel."""
    q, channels = scene.q, scene.layout.channels
    bank_of, column_of = address_tables(q)
    states = np.stack([channel.new_state(q)] * channels)
    gates = np.full(channel.MAX_JOBS, NEVER, np.int64)
    last_data = np.full((channels, channel.MAX_JOBS), -1, np.int64)
    words, arrivals = [NOTHING], [NOTHING]
    length = 0
    out = Outcome()
    for tick, what, k in scene.events():
        trace, arrival = np.concatenate(words), np.concatenate(arrivals)
        run_plainly(states, specialised(q), bank_of, column_of, trace, arrival, gates, last_data, tick)
        for state in states:
            settle(state, q)
        out.counts.append([ChannelView(state).counts.tolist() for state in states])
        out.rows.append([open_rows(state) for state in states])
        if what == "open":
            gates[k] = tick
        if what != "start":
            continue
        task = scene.tasks[k]
        gates[k] = NEVER if task.gate is not None else 0
        for c, state in enumerate(states):
            if not any(count.sum() for work in task.works for _, count in work.of(c)):
                continue
            open_job(state, q, k, task.tiles, task.tile_ticks, NEVER)
            for slot, work, window in zip(scene.slots(k), task.works, task.windows, strict=True):
                view, runs = ChannelView(state), work.of(c)
                listed = any(len(first) > 1 for first, _ in runs)
                for p, (first, count) in enumerate(runs):
                    bursts = [a + i for a, n in zip(first, count, strict=True) for i in range(n)]
                    view.stream_base[slot, p] = length if listed else (bursts[0] if bursts else 0)
                    view.stream_total[slot, p] = len(bursts)
                    if listed:
                        words.append(np.array(bursts, np.int64) << 1 | int(work.write))
                        arrivals.append(np.full(len(bursts), tick))
                        length += len(bursts)
                open_stream(state, q, slot, k, int(work.write), window, int(listed))
            start_job(state, q, k)
    assert not any(states[c, JOB + k * JOB_FIELDS] for c in range(channels) for k in range(len(scene.tasks)))
    out.ends = {k: int(last_data[:, k].max()) for k in range(len(scene.tasks))}
    for state in states:
        ChannelView(state).job[:, channel.JOB_GATE] = 0  # of jobs that are over
    out.finals = [identity(state, q) for state in states]
    return out


# ---- the same scene with classes -------------------------------------------------------------------------------------


def drive(scene: Scene, out: Outcome, *, memo: bool = False, **options: bool) -> ChannelClasses:
    """Run a scene to its last event, noting what is seen on the way."""
    tables = address_tables(scene.q)
    device = ChannelClasses(scene.q, *tables, scene.layout.channels, new_memo(8 << 20) if memo else None, **options)
    for tick, what, k in scene.events():
        while device.now < tick:
            finished = device.advance(tick)
            if finished is not None:
                out.ends[finished[0]] = finished[1]
            assert len({one.now for one in device.classes}) == 1
        rows = {int(c): open_rows(one.state) for one in device.classes for c in one.members}
        out.rows.append([rows[c] for c in range(scene.layout.channels)])
        out.counts.append(device.counts().tolist())
        assert device.total_counts().tolist() == device.counts().sum(axis=0).tolist()
        out.classes.append(len(device.classes))
        if what == "open":
            device.open_gate(k)
        if what == "start":
            task = scene.tasks[k]
            streams = [
                Stream(slot, work, work.write, window)
                for slot, work, window in zip(scene.slots(k), task.works, task.windows, strict=True)
            ]
            device.submit(k, task.tiles, task.tile_ticks, task.gate is not None, streams)
    return device


def with_classes(scene: Scene, *, memo: bool = False, **options: bool) -> Outcome:
    """The scene by classes of channels."""
    out = Outcome()
    device = drive(scene, out, memo=memo, **options)
    finals = {int(c): identity(one.state, scene.q) for one in device.classes for c in one.members}
    out.finals = [finals[c] for c in range(scene.layout.channels)]
    assert not device.busy
    return out


# ---- random scenes ---------------------------------------------------------------------------------------------------


def timing(refresh: int, pseudo_channels: int) -> DramTiming:
    """A small channel whose refreshes come often."""
    q = random_timing(np.random.default_rng(7), refresh, pseudo_channels, 1, 1)
    return q._replace(
        bank_groups=2, banks_per_group=2, columns=8, tRFCab=90, tREFI=700, tRFCpb=60, tREFIpb=110,
        refresh_stagger=0, read_queue=16, write_queue=12, write_high=9, write_low=3,
    )  # fmt: skip


def random_work(draw: st.DrawFn, layout: Layout, row_set: int) -> Shares:
    """A range, a tensor on some channels, or pages: at most a few hundred bursts in a pseudo-channel."""
    write = draw(st.booleans()) and draw(st.booleans())
    place = draw(st.sampled_from([0, 0, 40, 900, 901])) * row_set * layout.units * BURST
    shape = draw(st.sampled_from(["range", "even", "subset", "pages"]))
    most = 50 * layout.units * BURST
    if shape == "range":
        return layout.contiguous(place + draw(st.integers(0, 4000)), draw(st.integers(1, most)), write=write)
    if shape == "even":
        return layout.contiguous(place, draw(st.integers(1, 5)) * 8 * layout.units * BURST, write=write)
    if shape == "subset":
        low = draw(st.integers(0, layout.channels - 1))
        high = draw(st.integers(low + 1, layout.channels))
        first = draw(st.sampled_from([0, 40, 900])) * row_set
        return layout.on_channels(range(low, high), first, draw(st.integers(1, most // 2)), write=write)
    page = draw(st.sampled_from([1, 2, 5])) * layout.spec.granularity
    pages = np.array(draw(st.lists(st.integers(0, 400), min_size=1, max_size=24)))
    return layout.pieces(place + pages * page, np.full(len(pages), page), write=write)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    pseudo_channels = draw(st.integers(1, 2))
    q = timing(draw(st.integers(0, 2)), pseudo_channels)
    channels = draw(st.integers(2, 8))
    row_set = len(address_tables(q)[0])
    bits = (channels & -channels).bit_length() - 1
    hashed = f"channel^=round[{bits - 1}:0] channel^=round[{bits + 1}:2]" if bits and draw(st.booleans()) else ""
    granule = draw(st.sampled_from([1, 4]))
    spec = InterleaveSpec(granularity=f"{granule * BURST} B", hash=hashed, ragged=draw(st.integers(0, 4)) > 0)
    layout = Layout(spec, channels, pseudo_channels, BURST, row_set)
    tasks, start = [], draw(st.integers(0, 300))
    for _ in range(draw(st.integers(1, 4))):
        works = tuple(random_work(draw, layout, row_set) for _ in range(draw(st.integers(1, 4))))
        tiles = draw(st.sampled_from([0, 0, 1, 3, 7]))
        shares = [-(-work.bursts // max(tiles, 1)) for work in works]
        windows = tuple(share + draw(st.integers(0, share + 1)) for share in shares)
        least = q.tCL + q.tBL
        tile_ticks = max(least, int(max(shares) * q.tCCDS * draw(st.sampled_from([0.3, 1.0, 3.0]))))
        gate = start + draw(st.integers(1, 2000)) if tiles and draw(st.integers(0, 3)) == 0 else None
        tasks.append(Task(start, works, tiles, tile_ticks, windows, gate))
        start += draw(st.integers(1, 4000))
    return ended(Scene(q, layout, tuple(tasks), start))


def ended(scene: Scene) -> Scene:
    """The scene with an end shortly after its last transfer's. If the reference takes longer, it says so."""
    device, ends = drive(scene, Outcome()), []
    while device.busy:
        finished = device.advance(HORIZON)
        assert finished is not None
        ends.append(finished[1])
    return replace(scene, end=max([device.now, scene.end, *ends]) + 50)


@settings(max_examples=150)
@given(scenes())
def test_classes_equal_the_plain_simulation_of_every_channel(scene: Scene) -> None:
    plain = every_channel(scene)
    assert with_classes(scene).same_numbers(plain) == []
    assert with_classes(scene, memo=True).same_numbers(plain) == []
    assert with_classes(scene, split_all=True, merging=False).same_numbers(plain) == []


# ---- how many classes there are --------------------------------------------------------------------------------------


def one_read(work: Shares, layout: Layout, q: DramTiming) -> Scene:
    return ended(Scene(q, layout, (Task(10, (work,), 0, 0, (0,)),), 20))


def test_an_even_range_is_one_class_and_ragged_ends_are_few() -> None:
    q = timing(1, 2)
    layout = Layout(InterleaveSpec(granularity="64 B"), 8, 2, BURST, 32)
    assert max(with_classes(one_read(layout.contiguous(0, 64 * layout.round_bytes), layout, q)).classes) == 1
    ragged = one_read(layout.contiguous(100, 64 * layout.round_bytes + 333), layout, q)
    assert with_classes(ragged).same_numbers(every_channel(ragged)) == []
    assert 2 <= max(with_classes(ragged).classes) <= 5


def test_classes_merge_again_once_the_ends_are_past() -> None:
    q = timing(1, 2)
    layout = Layout(InterleaveSpec(granularity="64 B"), 8, 2, BURST, 32)
    device = ChannelClasses(q, *address_tables(q), 8, None)
    device.submit(0, 0, 0, False, [Stream(0, layout.contiguous(100, 50_000), False, 0)])
    split = len(device.classes)
    assert device.advance(HORIZON) is not None
    device.advance(device.now + 3 * q.tREFI)
    device.merge()
    assert split > 1 and len(device.classes) == 1
    assert len({tuple(row) for row in device.counts().tolist()}) > 1  # what each channel did is still known


# ---- planted mistakes ------------------------------------------------------------------------------------------------


def merge_blindly(self: ChannelClasses) -> None:
    first, *others = self.classes
    for one in others:
        self._join(first, one)
    self.classes = [first]


def merge_by_form_alone(self: ChannelClasses) -> None:
    kept: dict[object, ChannelClass] = {}
    for one in self.classes:
        other = kept.setdefault((one.now, tuple(sorted(one.active))), one)
        if other is not one:
            self._join(other, one)
    self.classes = list(kept.values())


def join_without_counts(self: ChannelClasses, other: ChannelClass, one: ChannelClass) -> None:
    other.members = np.sort(np.concatenate((other.members, one.members)))


MISTAKES = {
    "merge without comparing": ("merge", merge_blindly),
    "merge by clock and jobs": ("merge", merge_by_form_alone),
    "counts forgotten in a merge": ("_join", join_without_counts),
    "forgotten split": ("_split", lambda self, one, works: [one]),
    "tiles start on their own": ("_hold", lambda self: None),
    "a tile does not wait for the last channel": ("_start_bound", lambda self, job: 1 << 36),
    "classes overtake the end of a job": ("_end_bound", lambda self, job: 1 << 36),
}

MOST_ROUNDS = 20_000
"""More rounds of all classes than any example takes: a mistake may make it go around forever."""


@pytest.fixture(scope="module")
def examples() -> list[tuple[Scene, Outcome]]:
    found: list[tuple[Scene, Outcome]] = []

    @settings(max_examples=40, phases=[Phase.generate], database=None)
    @given(scenes())
    def collect(scene: Scene) -> None:
        found.append((scene, every_channel(scene)))

    collect()
    return found


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_caught(
    name: str, examples: list[tuple[Scene, Outcome]], monkeypatch: pytest.MonkeyPatch
) -> None:
    method, mistake = MISTAKES[name]
    monkeypatch.setattr(ChannelClasses, method, mistake)
    first_end, rounds = ChannelClasses._first_end, 0

    def first_end_and_count(self: ChannelClasses) -> int:
        nonlocal rounds
        rounds += 1
        assert rounds < MOST_ROUNDS, "it never ends"
        return first_end(self)

    monkeypatch.setattr(ChannelClasses, "_first_end", first_end_and_count)

    def caught(scene: Scene, plain: Outcome) -> bool:
        nonlocal rounds
        rounds = 0
        try:
            return with_classes(scene).same_numbers(plain) != []
        except (AssertionError, KeyError, RecursionError):
            return True

    assert any(caught(scene, plain) for scene, plain in examples)

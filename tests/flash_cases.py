"""Random flash channels and requests, run through the kernel and through the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from archsim.kernels.flash import advance_flash
from archsim.kernels.flash_forward import advance_flash_streams, new_scratch
from archsim.kernels.flash_oracle import FlashOracle, OracleStream, oracle_counts
from archsim.kernels.flash_state import (
    FINISHED,
    JUMPED,
    LOG_LENGTH,
    NOW,
    TRACE,
    TRACE_WORDS,
    FlashTiming,
    FlashView,
    Kind,
    Striping,
    new_state,
    open_stream,
    striping,
)

Int64 = np.ndarray


class StreamCase(NamedTuple):
    """A sequential stream (`kind`, `base`, `total`, requests of `size` granules) or, with `rows`, a trace."""

    window: int
    kind: Kind = Kind.READ
    base: int = 0
    total: int = 0
    size: int = 1
    rows: Int64 | None = None
    arrivals: Int64 | None = None


class FlashCase(NamedTuple):
    timing: FlashTiming
    stripes: Striping
    streams: tuple[StreamCase, ...]


class FlashRun(NamedTuple):
    ticks: int
    log: Int64
    counts: Int64
    senses: Int64
    done: Int64
    """Completion ticks of the traces' requests, trace after trace."""


def random_timing(rng: np.random.Generator) -> FlashTiming:
    """A small channel: times are short, so that everything meets everything."""
    group = int(rng.choice([1, 2, 4]))
    planes = group * int(rng.integers(1, 4))
    codeword = int(rng.choice([1, 2, 4]))
    granules = codeword * int(rng.choice([1, 2, 4]))
    return FlashTiming(
        planes=planes,
        group_planes=group,
        buffers=int(rng.integers(1, 3)),
        granules=granules,
        codeword=codeword,
        codeword_ticks=int(rng.integers(1, 12)),
        ecc_ticks=int(rng.choice([0, 3, 17])),
        link_ticks=int(rng.choice([0, 1, 2, 5])),
        command_ticks=int(rng.choice([0, 0, 1, 4])),
        t_read=int(rng.integers(1, 60)),
        t_program=int(rng.integers(20, 200)),
        t_erase=int(rng.integers(50, 400)),
        most_active=int(rng.choice([1, 2, planes])),
        queue=int(rng.choice([1, 3, 8, 32])),
        staging=granules * int(rng.choice([1, 2, 16])),
    )


def random_case(seed: int, requests: int = 60) -> FlashCase:
    """Up to three streams and traces on a random channel."""
    rng = np.random.default_rng(seed)
    q = random_timing(rng)
    order = np.arange(q.planes) if rng.random() < 0.7 else rng.integers(0, q.planes, int(rng.integers(1, 9)))
    stripes = striping(order, q.planes)
    streams = []
    for _ in range(int(rng.integers(1, 4))):
        window = int(rng.choice([1, 2, 8, 64]))
        if rng.random() < 0.5:
            write = rng.random() < 0.3
            sizes = [size for size in (1, 2, 4, 8, 16) if q.granules % size == 0]
            size = q.granules if write else int(rng.choice(sizes))
            base = int(rng.integers(0, 20)) * (q.granules // size)
            kind = Kind.PROGRAM if write else Kind.READ
            streams.append(StreamCase(window, kind, base, int(rng.integers(1, requests)), size))
        else:
            streams.append(random_trace(rng, q, window, int(rng.integers(1, requests))))
    return FlashCase(q, stripes, tuple(streams))


def random_trace(rng: np.random.Generator, q: FlashTiming, window: int, n: int) -> StreamCase:
    """Reads of any granules, programs and erases, on few pages so that they meet."""
    rows = np.zeros((n, TRACE_WORDS), np.int64)
    kinds = rng.choice([0, 0, 0, 0, 1, 2] if rng.random() < 0.6 else [0], n)
    rows[:, 0] = kinds
    rows[:, 1] = rng.integers(0, int(rng.choice([2, 8, 40])), n)
    first = rng.integers(0, q.granules, n)
    size = 1 + rng.integers(0, q.granules, n) % (q.granules - first)
    rows[:, 2] = np.where(kinds == 0, first, 0)
    rows[:, 3] = np.where(kinds == 0, size, np.where(kinds == 1, q.granules, 0))
    arrivals = np.sort(rng.integers(0, int(rng.choice([1, 200, 3000])), n))
    return StreamCase(window, rows=rows, arrivals=arrivals)


def oracle_stream(stream: StreamCase, granules: int) -> OracleStream:
    if stream.rows is not None:
        assert stream.arrivals is not None
        requests = [(Kind(int(kind)), int(page), int(first), int(size)) for kind, page, first, size in stream.rows]
        return OracleStream(requests, stream.window, [int(tick) for tick in stream.arrivals])
    parts = granules // stream.size
    places = [divmod(k, parts) for k in range(stream.base, stream.base + stream.total)]
    return OracleStream([(stream.kind, page, part * stream.size, stream.size) for page, part in places], stream.window)


def run_oracle(case: FlashCase, limit: int = 200_000) -> FlashRun:
    streams = [oracle_stream(stream, case.timing.granules) for stream in case.streams]
    oracle = FlashOracle(case.timing, case.stripes, streams)
    oracle.run(limit)
    assert oracle.idle, "the oracle makes no progress"
    done = [[stream.done[k] for k in range(len(stream.requests))] for stream in streams if stream.arrivals is not None]
    log = np.array(oracle.log, np.int64).reshape(-1, 8)
    return FlashRun(
        oracle.tick,
        log,
        oracle_counts(oracle),
        np.array(oracle.senses),
        np.array([tick for ticks in done for tick in ticks], np.int64),
    )


def run_kernel(case: FlashCase, cuts: Sequence[int] = (), limit: int = 200_000) -> FlashRun:
    """The plain kernel, in pieces that end at the ticks `cuts`; each stream is a job."""
    state = new_state(case.timing)
    view = FlashView(state)
    traces = [stream for stream in case.streams if stream.rows is not None]
    trace = np.concatenate([stream.rows.ravel() for stream in traces] or [np.zeros(0, np.int64)])  # type: ignore
    arrival = np.concatenate([stream.arrivals for stream in traces] or [np.zeros(0, np.int64)])  # type: ignore
    at = 0
    for slot, stream in enumerate(case.streams):
        if stream.rows is not None:
            open_stream(state, slot, slot, TRACE, at, len(stream.rows), stream.window, 0)
            at += len(stream.rows)
        else:
            open_stream(state, slot, slot, stream.kind, stream.base, stream.total, stream.window, stream.size)
    done = np.full(at, -1, np.int64)
    log = np.zeros((6 * 60 * 4, 8), np.int64)
    horizons = [*sorted(cuts), limit]
    while view.job_open.any():
        advance_flash(state, case.timing, case.stripes, trace, arrival, done, log, horizons[0])
        state[FINISHED] = 0
        if state[NOW] >= horizons[0]:
            horizons.pop(0)
        assert horizons, "the kernel makes no progress"
    planes = case.timing.planes
    return FlashRun(
        int(state[NOW]), log[: state[LOG_LENGTH]].copy(), view.counts.copy(), view.senses[:planes].copy(), done
    )


def differences(kernel: FlashRun, oracle: FlashRun) -> list[str]:
    """What the two don't agree on. The log of a tick may be in any order."""
    found = []
    for name in ("counts", "senses", "done"):
        if not np.array_equal(getattr(kernel, name), getattr(oracle, name)):
            found.append(f"{name}: kernel {getattr(kernel, name)}, oracle {getattr(oracle, name)}")
    if not np.array_equal(in_order(kernel.log), in_order(oracle.log)):
        found.append(f"log: kernel {in_order(kernel.log).tolist()}\noracle {in_order(oracle.log).tolist()}")
    if kernel.ticks != oracle.ticks:
        found.append(f"ticks: kernel {kernel.ticks}, oracle {oracle.ticks}")
    return found


def in_order(log: Int64) -> Int64:
    return log[np.lexsort((log[:, 7], log[:, 1], log[:, 0]))]


def random_streams(seed: int) -> FlashCase:
    """Up to three sequential streams, most of them on pages of their own: what fast-forward is for."""
    rng = np.random.default_rng(seed)
    q = random_timing(rng)
    orders = (
        np.arange(q.planes),
        rng.integers(0, q.planes, int(rng.integers(1, 9))),
        np.repeat(np.arange(q.planes), 3),
    )
    stripes = striping(orders[int(rng.choice(3, p=[0.5, 0.3, 0.2]))], q.planes)
    streams, page = [], 0
    for _ in range(int(rng.integers(1, 4))):
        write = rng.random() < 0.3
        sizes = [size for size in (1, 2, 4, 8, 16) if q.granules % size == 0]
        size = q.granules if write else int(rng.choice(sizes))
        parts = q.granules // size
        base, total = page * parts + int(rng.integers(0, parts)), int(rng.integers(1, 3000))
        kind = Kind.PROGRAM if write else Kind.READ
        streams.append(StreamCase(int(rng.choice([1, 2, 8, 64])), kind, base, total, size))
        if rng.random() < 0.8:
            page += total // parts + 2
    return FlashCase(q, stripes, tuple(streams))


class StreamsRun(NamedTuple):
    """After each return of the kernel: tick, counts, senses by plane, requests to go and completion ticks by job."""

    history: list[tuple[int, list[int], list[int], list[int], list[int]]]
    periods: int
    """Taken by fast-forward."""


def run_streams(case: FlashCase, shortcuts: bool, cuts: Sequence[int] = ()) -> StreamsRun:
    state = new_state(case.timing)
    view = FlashView(state)
    for slot, stream in enumerate(case.streams):
        open_stream(state, slot, slot, stream.kind, stream.base, stream.total, stream.window, stream.size)
    nothing, no_log = np.zeros(0, np.int64), np.zeros((0, 8), np.int64)
    horizons, history = [*sorted(cuts), 1 << 50], []
    while view.job_open.any():
        if shortcuts:
            advance_flash_streams(state, case.timing, case.stripes, new_scratch(case.timing), horizons[0])
        else:
            advance_flash(state, case.timing, case.stripes, nothing, nothing, nothing, no_log, horizons[0])
        state[FINISHED] = 0
        senses = view.senses[: case.timing.planes].tolist()
        jobs = view.job_open.tolist(), view.job_done.tolist()
        history.append((int(state[NOW]), view.counts.tolist(), senses, *jobs))
        if state[NOW] >= horizons[0]:
            horizons.pop(0)
    return StreamsRun(history, int(state[JUMPED]))

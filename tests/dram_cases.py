"""Cases for the tests of the DRAM kernel: random channels, jobs and streams, and how to run the kernel on them.

A case is written in the oracle's terms (`OracleStream`, `OracleJob`), so both run the very same thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

import numpy as np

from archsim.kernels import channel
from archsim.kernels.dram import advance
from archsim.kernels.entries import open_job, open_stream, start_job
from archsim.kernels.oracle import OracleJob, OracleResult, OracleStream, run_streams
from archsim.kernels.timing import DramTiming, RefreshMode, RefreshOrder

Array = np.ndarray
HORIZON = 1 << 37
NOTHING = np.zeros(0, np.int64)
NO_LOG = np.zeros((0, 8), np.int64)


@dataclass(frozen=True)
class Case:
    """What the kernel and the oracle both run. A job's streams start together, at `OracleStream.start`."""

    timing: DramTiming
    bank_of: Array  # int64[row_set]
    column_of: Array
    streams: tuple[OracleStream, ...]
    jobs: tuple[OracleJob, ...]

    def job_start(self, job: int) -> int:
        return max((stream.start for stream in self.streams if stream.job == job), default=0)


@dataclass(frozen=True)
class KernelResult:
    done: Array  # completion ticks of the requests of traces
    answered: Array  # which of them the write queue has answered
    job_done: Array
    counts: Array
    histogram: Array
    log: Array
    state: Array


# ---- the kernel, submitted to as the driver does ---------------------------------------------------------------------


def submit(case: Case, state: Array, job: int, base: Array) -> None:
    """Submit a job and its streams. `base[slot, pc]`: a stream's first burst, or its offset in the trace arrays."""
    view, q = channel.ChannelView(state), case.timing
    open_job(state, q, job, case.jobs[job].tiles, case.jobs[job].tile_ticks, case.jobs[job].gate)
    for slot, stream in enumerate(case.streams):
        if stream.job == job:
            view.stream_base[slot, : q.pseudo_channels] = base[slot]
            view.stream_total[slot, : q.pseudo_channels] = [len(addresses) for addresses in stream.addresses]
            window = min(stream.window, HORIZON)
            open_stream(state, q, slot, job, int(stream.write), window, int(stream.arrivals is not None))
    start_job(state, q, job)


def trace_arrays(case: Case) -> tuple[Array, Array, Array]:
    """(requests, arrivals, base per stream and PC) as the kernel takes them."""
    words, arrivals, offset = [NOTHING], [NOTHING], 0
    base = np.zeros((len(case.streams), case.timing.pseudo_channels), np.int64)
    for slot, stream in enumerate(case.streams):
        for pc, addresses in enumerate(stream.addresses):
            if stream.arrivals is None:
                base[slot, pc] = addresses[0] if len(addresses) else 0
                continue
            write = stream.writes[pc] if stream.writes is not None else np.full(len(addresses), int(stream.write))
            words.append(np.asarray(addresses, np.int64) << 1 | np.asarray(write, np.int64))
            arrivals.append(np.asarray(stream.arrivals[pc], np.int64))
            base[slot, pc] = offset
            offset += len(addresses)
    return np.concatenate(words), np.concatenate(arrivals), base


def run_kernel(
    case: Case,
    ticks: int = 0,
    cuts: Sequence[int] = (),
    log_rows: int = 1 << 15,
    state: Array | None = None,
    limit: int = HORIZON,
) -> KernelResult:
    """Run a case to its end, and to tick `ticks` at least, pausing at each of `cuts`. It has to end before `limit`."""
    trace, arrival, base = trace_arrays(case)
    done = np.full(len(trace), -1, np.int64)
    log = np.full((log_rows, 8), -1, np.int64)
    if state is None:
        state = channel.new_state(case.timing)
    job_done = np.full(len(case.jobs), -1, np.int64)
    waiting = sorted(range(len(case.jobs)), key=case.job_start)
    pauses = sorted(cuts)
    while True:
        now = int(state[channel.NOW])
        while waiting and case.job_start(waiting[0]) <= now:
            submit(case, state, waiting.pop(0), base)
        pauses = [pause for pause in pauses if pause > now]
        stops = [limit, *pauses[:1], *(case.job_start(job) for job in waiting[:1])]
        if not waiting and (job_done >= 0).all():
            if now >= ticks:
                break
            stops.append(ticks)
        advance(state, case.timing, case.bank_of, case.column_of, trace, arrival, done, log, min(stops), False)
        finished = int(state[channel.FINISHED_JOB])
        if finished >= 0:
            job_done[finished] = channel.ChannelView(state).job[finished, channel.JOB_LAST_DATA]
        assert state[channel.NOW] < limit, "the kernel makes no progress"
    view = channel.ChannelView(state)
    answered = done >= channel.ANSWERED
    done[answered] -= channel.ANSWERED
    return KernelResult(
        done, answered, job_done, view.counts.copy(), view.histogram.copy(), log[: state[channel.LOG_LENGTH]], state
    )


def run_oracle(case: Case, run_until: int = 0) -> OracleResult:
    return run_streams(
        case.timing,
        case.bank_of.astype(np.int16),
        case.streams,
        case.jobs,
        log=True,
        column_table=case.column_of.astype(np.int16),
        run_until=run_until,
    )


def differences(case: Case, result: KernelResult, expected: OracleResult) -> list[str]:
    """What the kernel did otherwise than the oracle, in words; empty if nothing."""
    found = []
    n = min(len(result.log), len(expected.log))
    other = np.flatnonzero((result.log[:n] != expected.log[:n]).any(axis=1))
    if len(other):
        found.append(f"command {other[0]}: {result.log[other[0]].tolist()}, not {expected.log[other[0]].tolist()}")
    elif len(result.log) != len(expected.log):
        found.append(f"{len(result.log)} commands, not {len(expected.log)}")
    if (result.job_done != expected.job_done).any():
        found.append(f"jobs done at {result.job_done.tolist()}, not {expected.job_done.tolist()}")
    if (result.counts != expected.counts).any():
        found.append(f"counts {result.counts.tolist()}, not {expected.counts.tolist()}")
    if (result.histogram != expected.histogram).any():
        found.append("histogram")
    is_trace = [np.full(sum(len(a) for a in stream.addresses), stream.arrivals is not None) for stream in case.streams]
    traced = np.concatenate(is_trace)
    if not np.array_equal(result.done, expected.done[traced]):
        found.append("completion ticks")
    if not np.array_equal(result.answered, expected.answered[traced]):
        found.append("which requests the write queue answered")
    return found


# ---- random cases ----------------------------------------------------------------------------------------------------


def address_tables(q: DramTiming) -> tuple[Array, Array]:
    """Bank groups interleave burst by burst, then columns, then banks, then stack IDs."""
    burst = np.arange(q.stack_ids * q.bank_groups * q.banks_per_group * q.columns)
    group, column = burst % q.bank_groups, burst // q.bank_groups % q.columns
    return burst // (q.bank_groups * q.columns) * q.bank_groups + group, column


def random_timing(
    random: np.random.Generator, refresh: int, pseudo_channels: int, stack_ids: int, ticks_per_ck: int
) -> DramTiming:
    """Timings of about HBM3's proportions, with refresh intervals short enough to matter in a short case."""

    def number(low: int, high: int) -> int:
        return int(random.integers(low, high + 1))

    clocks = {
        "tCL": number(10, 24), "tCWL": number(4, 12), "tBL": 2, "tRCDRD": number(10, 30), "tRCDWR": number(8, 20),
        "tRP": number(10, 26), "tRTP": number(0, 9), "tWR": number(8, 33), "tCCDS": 2, "tCCDL": number(2, 5),
        "tCCDR": number(0, 4), "tRRDS": number(1, 4), "tFAW": number(4, 30), "tWTRS": number(0, 8),
        "tRTW": number(12, 22), "tPPD": number(0, 3), "tRFCab": number(60, 560), "tRFCpb": number(40, 200),
        "tRREFD": number(2, 13), "tREFI": number(700, 4000), "tREFIpb": number(100, 600),
    }  # fmt: skip
    clocks["tRAS"] = max(clocks["tRCDRD"], clocks["tRCDWR"]) + number(0, 20)
    clocks["tRC"] = clocks["tRAS"] + clocks["tRP"] + number(-1, 3)
    clocks["tRRDL"] = clocks["tRRDS"] + number(0, 2)
    clocks["tWTRL"] = clocks["tWTRS"] + number(0, 6)
    read_queue, write_queue = number(1, 40), number(2, 40)
    write_high = number(1, write_queue)
    return DramTiming(
        ticks_per_ck=ticks_per_ck,
        pseudo_channels=pseudo_channels,
        stack_ids=stack_ids,
        bank_groups=number(1, 4),
        banks_per_group=number(1, 4),
        columns=number(4, 32),
        burst_bytes=32,
        column_ticks=ticks_per_ck,
        activate_ticks=3 if ticks_per_ck == 2 else number(1, 2),
        precharge_ticks=1,
        refresh_mode=int(refresh),
        refresh_stagger=number(0, 1) * number(0, 500) * ticks_per_ck,
        read_queue=read_queue,
        write_queue=write_queue,
        write_high=write_high,
        write_low=number(0, write_high - 1),
        **{name: value * ticks_per_ck for name, value in clocks.items()},
    )


def with_policies(random: np.random.Generator, q: DramTiming) -> DramTiming:
    """Switch about half of the policies on that are off by default, each with timings that matter."""

    def perhaps(low: int, high: int, otherwise: int = 0) -> int:
        return int(random.integers(low, high + 1)) if random.random() < 0.5 else otherwise

    clock = q.ticks_per_ck
    recovery = int(random.integers(40, 200)) * clock
    banks = q.stack_ids * q.bank_groups * q.banks_per_group
    return q._replace(
        refresh_mode=int(RefreshMode.SAME_BANK) if random.random() < 0.25 else q.refresh_mode,
        # Slow enough for every bank to get its refresh although it has to be closed first.
        tREFIpb=q.tREFIpb + (q.tRFCpb + q.tRC) // banks // clock * clock,
        tRFCsb=recovery,
        tREFIsb=recovery + q.tRC + int(random.integers(20, 400)) * clock,
        shared_command_bus=perhaps(1, 1),
        tCCDLW=perhaps(4, 12) * clock,
        scheduler=perhaps(0, 1),
        row_hit_cap=perhaps(1, 6),
        starve_after=perhaps(50, 2000),
        page_timeout=perhaps(0, 300, otherwise=-1),
        write_forwarding=perhaps(1, 1),
        write_coalescing=perhaps(1, 1),
        forward_ticks=min(int(random.integers(1, 30)), q.tCL + q.tBL),
        refresh_order=perhaps(1, 1),
        refresh_postpone=perhaps(0, 4) * q.tREFI,
        refresh_pull_in=perhaps(0, 4) * q.tREFI,
        refresh_idle=perhaps(0, 200),
        power_down_after=perhaps(1, 300),
        tCKE=int(random.integers(1, 12)) * clock,
        tXP=int(random.integers(1, 16)) * clock,
        latency_histogram=perhaps(1, 1),
    )


def with_front_policies(random: np.random.Generator, q: DramTiming) -> DramTiming:
    """Switch about half of the front policies on, and nothing else that is off by default.

    In every other case the write queue is kept full, so that it has answers."""
    all_on = with_policies(random, q)
    q = q._replace(**{name: getattr(all_on, name) for name in FRONT_POLICIES})
    q = q._replace(starve_after=q.starve_after % 400)
    if random.random() < 0.5:
        return q
    return q._replace(write_queue=q.write_queue + 8, write_high=q.write_queue + 8, write_low=q.write_queue)


FRONT_POLICIES = (
    "scheduler", "row_hit_cap", "starve_after", "page_timeout", "write_forwarding", "write_coalescing",
    "forward_ticks", "latency_histogram", "tREFIpb",
)  # fmt: skip


class Feature(Enum):
    """What the kernel is compiled with or without (special.Shape)."""

    SHARED_BUS = auto()
    SAME_BANK = auto()
    REFRESH_CHOICE = auto()
    POWER_DOWN = auto()


FEATURE_SETS = (
    frozenset({Feature.SHARED_BUS}),
    frozenset({Feature.REFRESH_CHOICE}),
    frozenset({Feature.SAME_BANK}),
    frozenset({Feature.POWER_DOWN, Feature.SHARED_BUS}),
    frozenset(Feature),
)
"""Each is a kernel of its own to compile: every feature alone or nearly so, and all together."""


def with_features(random: np.random.Generator, q: DramTiming, features: frozenset[Feature]) -> DramTiming:
    """Switch refresh, bus and power features on that have an effect in each case, and leave the front end plain."""
    full = with_policies(random, q)
    kept = ("tREFIpb", "tRFCsb", "tREFIsb", "tCKE", "tXP", "tCCDLW")
    q = q._replace(**{name: getattr(full, name) for name in kept})
    if Feature.SHARED_BUS in features:
        q = q._replace(shared_command_bus=1)
    if Feature.SAME_BANK in features:
        q = q._replace(refresh_mode=int(RefreshMode.SAME_BANK))
    if Feature.REFRESH_CHOICE in features and q.refresh_mode != RefreshMode.NONE:
        in_turn = q.refresh_mode == RefreshMode.ALL_BANK or random.random() < 0.4
        late, early = (int(random.integers(0, 5)) * q.tREFI for _ in range(2))
        q = q._replace(
            refresh_order=int(RefreshOrder.IN_TURN if in_turn else RefreshOrder.UNWANTED_FIRST),
            refresh_postpone=max(late, q.tREFI) if in_turn else late,
            refresh_pull_in=early,
            refresh_idle=full.refresh_idle,
        )
    if Feature.POWER_DOWN in features:
        q = q._replace(power_down_after=int(random.integers(1, 300)))
    return q


def feature_case(seed: int, features: frozenset[Feature], requests: int = 200, **kinds: int) -> Case:
    """`random_case` with features that the kernel knows; `kinds` as there."""
    case = random_case(seed, requests=requests, **kinds)
    return replace(case, timing=with_features(np.random.default_rng(seed), case.timing, features))


def random_case(
    seed: int,
    refresh: int | None = None,
    pseudo_channels: int | None = None,
    stack_ids: int | None = None,
    ticks_per_ck: int | None = None,
    requests: int = 200,
    policies: bool = False,
    front: bool = False,
) -> Case:
    """Up to three jobs of up to two streams, each of up to `requests` requests per pseudo-channel.

    With `policies` also what only the oracle knows so far, with `front` front policies alone; otherwise the very same
    case without them."""
    random = np.random.default_rng(seed)
    q = random_timing(
        random,
        int(random.integers(0, 3)) if refresh is None else int(refresh),
        int(random.integers(1, 3)) if pseudo_channels is None else pseudo_channels,
        int(random.integers(1, 5)) if stack_ids is None else stack_ids,
        int(random.integers(1, 3)) if ticks_per_ck is None else ticks_per_ck,
    )
    jobs, streams = [], []
    for job in range(int(random.integers(1, 4))):
        start = int(random.integers(0, 2)) * int(random.integers(0, 2000))
        tiles = int(random.integers(0, 2)) * int(random.integers(1, 6))
        gate = start + int(random.integers(0, 3000)) if tiles else 0
        jobs.append(OracleJob(tiles, int(random.integers(q.tCL + q.tBL, 1500)), gate))
        for _ in range(int(random.integers(1, 3))):
            streams.append(_random_stream(random, q, job, tiles, start, requests))
    bank_of, column_of = address_tables(q)
    if policies:
        q = with_policies(random, q)
    elif front:
        q = with_front_policies(random, q)
        streams = [_brought_together(random, stream) for stream in streams]
    return Case(q, bank_of, column_of, tuple(streams), tuple(jobs))


def _random_stream(
    random: np.random.Generator, q: DramTiming, job: int, tiles: int, start: int, requests: int
) -> OracleStream:
    write = bool(random.random() < 0.3)
    sizes = [int(random.integers(1, requests))] * q.pseudo_channels
    if random.random() < 0.2:
        sizes = [int(random.integers(0, size + 1)) for size in sizes]
        sizes[0] = max(sizes[0], 1)
    if tiles == 0 and random.random() < 0.5:
        span = 1 << int(random.integers(4, 16))
        longest_gap = int(random.choice([1, 3, 12, 60]))
        return OracleStream(
            addresses=[random.integers(0, span, size) for size in sizes],
            write=write,
            job=job,
            start=start,
            arrivals=[start + np.cumsum(random.integers(0, longest_gap, size)) for size in sizes],
            writes=[(random.random(size) < 0.4).astype(np.int8) for size in sizes],
        )
    base = [int(random.integers(0, 1 << 16))] * q.pseudo_channels
    window = 1 << 40
    if tiles and not write:
        window = -(-max(sizes) // tiles) + int(random.integers(0, requests))
    addresses = [first + np.arange(size) for first, size in zip(base, sizes, strict=True)]
    return OracleStream(addresses=addresses, write=write, job=job, window=window, start=start)


def _brought_together(random: np.random.Generator, stream: OracleStream) -> OracleStream:
    """The stream over the first few bursts, where reads meet queued writes."""
    if stream.arrivals is not None:
        return replace(stream, addresses=[addresses % 256 for addresses in stream.addresses])
    first = int(random.integers(0, 60))
    return replace(stream, addresses=[first + np.arange(len(addresses)) for addresses in stream.addresses])


def refresh_choice_case(seed: int) -> Case:
    """Bursts of reads and writes with pauses between, on four banks whose refreshes are often due, may wait and may
    come early, and a power-down as short as it may be: what is chosen, and when, matters in every few ticks."""
    random = np.random.default_rng(seed)
    mode = (RefreshMode.PER_BANK, RefreshMode.ALL_BANK, RefreshMode.SAME_BANK)[seed % 3]
    q = random_timing(random, int(mode), 1, 1, 1)
    in_turn = mode is RefreshMode.ALL_BANK or random.random() < 0.3
    interval = q.tRC + q.tRP + 60
    q = q._replace(
        bank_groups=2, banks_per_group=2, columns=8, read_queue=8, write_queue=8, write_high=6, write_low=1,
        tRFCab=60, tRFCpb=40, tRFCsb=40, tREFI=2 * interval, tREFIpb=interval, tREFIsb=interval, refresh_stagger=0,
        refresh_order=int(RefreshOrder.IN_TURN if in_turn else RefreshOrder.UNWANTED_FIRST),
        refresh_postpone=int(random.integers(1, 4)) * interval, refresh_pull_in=int(random.integers(0, 4)) * interval,
        refresh_idle=int(random.integers(0, 40)), power_down_after=seed // 3 % 2 * int(random.integers(1, 20)),
        tCKE=40, tXP=7,
    )  # fmt: skip
    bursts, each = 12, 12
    arrival = np.repeat(np.cumsum(random.integers(20, 400, bursts)), each) + np.arange(bursts * each) % each * 5
    writes = np.repeat(random.random(bursts) < 0.4, each).astype(np.int8)
    addresses = random.integers(0, 4, bursts * each) * 32 + random.integers(0, 32, bursts * each)
    stream = OracleStream([addresses], arrivals=[np.maximum.accumulate(arrival)], writes=[writes])
    return Case(q, *address_tables(q), (stream,), (OracleJob(),))


def small_policy_case(seed: int) -> Case:
    """A few requests in bursts, with refresh, power-down and a shared bus all at work: short enough to interpret."""
    random = np.random.default_rng(seed)
    q = with_policies(random, random_timing(random, int(RefreshMode.PER_BANK), 1, 2, 1))
    q = q._replace(
        bank_groups=2, banks_per_group=2, columns=8, read_queue=8, write_queue=8, write_high=6, write_low=1,
        refresh_mode=int(RefreshMode.SAME_BANK if seed % 2 else RefreshMode.PER_BANK), tREFIsb=q.tRFCsb + 40,
        refresh_postpone=0, refresh_pull_in=0, power_down_after=1 + seed, tCCDLW=q.tCCDL + 40, page_timeout=-1,
        shared_command_bus=1, scheduler=0, starve_after=0, activate_ticks=2, tCKE=60,
    )  # fmt: skip
    arrival = np.repeat([0, 180, 420, 700], 5) + np.arange(20)
    stream = OracleStream(
        [random.integers(0, 64, 20)], arrivals=[arrival], writes=[np.arange(20) // 10 * (np.arange(20) % 5 > 1)]
    )
    return Case(q, *address_tables(q), (stream,), (OracleJob(),))


REFRESH_MODES = (RefreshMode.NONE, RefreshMode.ALL_BANK, RefreshMode.PER_BANK)
"""What every standard has timings for."""

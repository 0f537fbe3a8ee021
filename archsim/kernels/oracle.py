"""The oracle of the DRAM kernel: docs/dram_policy.md tick by tick, slow, plain, and encoded unlike the kernel.

Tests compare its results with the kernel bit for bit. The steps of a tick are in oracle_steps.py
(oracle_front.py, oracle_refresh.py, oracle_commands.py), here the requests that go in and the results that come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from archsim.kernels.histogram import BUCKETS
from archsim.kernels.oracle_state import LONG_AGO, NOBODY, READ, Banks, Channel, Jobs, Log, Requests, Streams
from archsim.kernels.oracle_steps import simulate
from archsim.kernels.timing import Count, DramTiming, LogField, refresh_interval

Int64 = NDArray[np.int64]
Int16 = NDArray[np.int16]


class Trace(NamedTuple):
    """One in-order request sequence per pseudo-channel: PC p owns requests `offsets[p]` up to `offsets[p + 1]`."""

    address: Int64  # local burst address
    write: NDArray[np.int8]
    arrival: Int64  # ticks, not decreasing inside a PC
    offsets: Int64  # length pseudo_channels + 1


@dataclass(frozen=True)
class OracleStream:
    """One in-order request sequence per pseudo-channel, beside other streams (policy: "Front end", "Jobs and tiles").

    `addresses[p]` are the local burst addresses on PC p. `start` is the first tick at which a request may be admitted.
    With `arrivals` (ticks, per PC) the stream is a trace: latency counts from the arrival. Without, from the admission.
    `writes` (per PC) lets a trace mix directions; otherwise `write` holds for all. `window` counts bursts per PC.
    """

    addresses: Sequence[Int64]
    write: bool = False
    job: int = 0
    window: int = 1 << 40
    start: int = 0
    arrivals: Sequence[Int64] | None = None
    writes: Sequence[NDArray[np.int8]] | None = None


@dataclass(frozen=True)
class OracleJob:
    """A compute unit consuming the streams that name this job. `tiles` = 0: data are consumed as they arrive.

    `tile_ticks` must be at least tCL + tBL where there are tiles. No tile starts before the tick `gate`.
    """

    tiles: int = 0
    tile_ticks: int = 0
    gate: int = 0


@dataclass(frozen=True)
class OracleResult:
    """What happened. Requests are ordered by stream, then pseudo-channel, then position. -1: did not happen."""

    done: Int64  # completion tick per request
    issued: Int64  # tick of the column command per request, of its admission if the write queue answered it
    admitted: Int64  # tick of admission per request
    answered: NDArray[np.bool_]  # per request, whether a queued write answered it
    counts: Int64  # indexed by Count
    histogram: Int64  # [direction, bucket] requests by latency, see histogram.py; zeros unless asked for
    job_done: Int64  # per job
    log: Int64  # (commands, 8), see LogField; empty unless asked for
    ticks: int  # ticks simulated


def _new_banks(timing: DramTiming) -> Banks:
    banks = np.arange(timing.stack_ids * timing.bank_groups * timing.banks_per_group, dtype=np.int64)
    stack_id = banks // (timing.bank_groups * timing.banks_per_group)
    shape = (timing.pseudo_channels, len(banks))

    def never() -> Int64:
        return np.full(shape, LONG_AGO, np.int64)

    return Banks(
        stack_id=stack_id,
        group=stack_id * timing.bank_groups + banks % timing.bank_groups,
        activated=never(),
        precharged=never(),
        read=never(),
        written=never(),
        refreshed=never(),
        open_row=np.full(shape, -1, np.int64),
        passed=np.zeros(shape, np.int64),
    )


def _new_channel(timing: DramTiming) -> Channel:
    pcs = timing.pseudo_channels

    def of_pc(value: int, *more: int) -> Int64:
        return np.full((pcs, *more), value, np.int64)

    banks = timing.stack_ids * timing.bank_groups * timing.banks_per_group
    interval = refresh_interval(timing)
    return Channel(
        queue=of_pc(NOBODY, 2, max(timing.read_queue, timing.write_queue)),
        length=of_pc(0, 2),
        mode=of_pc(READ),
        last_stream=of_pc(NOBODY),
        four_activates=of_pc(LONG_AGO, 4),
        refresh_due=interval + timing.refresh_stagger * np.arange(pcs, dtype=np.int64),
        refresh_all=of_pc(LONG_AGO),
        refresh_unit=of_pc(NOBODY),
        refresh_turn=of_pc(0),
        refreshed_units=of_pc(0, banks),
        held=of_pc(0, 2),
        blocked=of_pc(0),
        row_command=of_pc(0),
        power=of_pc(0),
        power_changed=of_pc(LONG_AGO),
        empty_since=of_pc(NOBODY),
        column_bus=np.full(1, LONG_AGO, np.int64),
        row_bus=np.array([LONG_AGO, 0], np.int64),
        next_age=np.zeros(1, np.int64),
        slot_end=of_pc(0),
        waited=of_pc(0, 3),
        last_direction=of_pc(NOBODY),
        counts=np.zeros(len(Count), np.int64),
        histogram=np.zeros((2, BUCKETS), np.int64),
    )


def _lay_out(
    timing: DramTiming, bank_table: Int16, column_table: Int16 | None, streams: Sequence[OracleStream]
) -> tuple[Requests, Streams]:
    """All requests of all streams one after the other: by stream, then PC, then position."""
    pcs = timing.pseudo_channels
    begin = np.zeros((len(streams), pcs), np.int64)
    end = np.zeros_like(begin)
    parts: list[tuple[Int64, Int64, Int64, Int64]] = []
    total = 0
    for s, stream in enumerate(streams):
        for pc in range(pcs):
            address = np.asarray(stream.addresses[pc], np.int64)
            n = len(address)
            write = np.full(n, stream.write, np.int64)
            if stream.writes is not None:
                write[:] = stream.writes[pc]
            arrival = np.full(n, stream.start, np.int64)
            if stream.arrivals is not None:
                arrival[:] = stream.arrivals[pc]
            parts.append((address, write, arrival, np.full(n, s, np.int64)))
            begin[s, pc], end[s, pc] = total, total + n
            total += n
    address, write, arrival, owner = (np.concatenate([part[k] for part in parts]) for k in range(4))
    row_set = len(bank_table)
    place = address % row_set
    column = np.full(total, -1, np.int64) if column_table is None else column_table[place].astype(np.int64)
    requests = Requests(
        address=address,
        bank=bank_table[place].astype(np.int64),
        row=address // row_set,
        column=column,
        write=write,
        arrival=arrival,
        stream=owner,
        age=np.full(total, -1, np.int64),
        admitted=np.full(total, -1, np.int64),
        issued=np.full(total, -1, np.int64),
        done=np.full(total, -1, np.int64),
        first=np.full(total, NOBODY, np.int64),
    )
    table = Streams(
        begin=begin,
        end=end,
        next=begin.copy(),
        served=np.zeros_like(begin),
        arrived=np.full(total, -1, np.int64),
        write=np.array([stream.write for stream in streams], np.int64),
        job=np.array([stream.job for stream in streams], np.int64),
        window=np.array([stream.window for stream in streams], np.int64),
        timed=np.array([stream.arrivals is not None for stream in streams], np.int64),
    )
    return requests, table


def _job_completion(timing: DramTiming, requests: Requests, streams: Streams, jobs: Jobs) -> Int64:
    """Tick at which each job is done, -1 if it isn't: the end of its last request or tile, whichever is later."""
    done = np.maximum(jobs.last_end, 0)
    done[jobs.ended < jobs.tiles] = -1
    for job in range(len(done)):
        of_job = streams.job[requests.stream] == job
        if done[job] < 0 or np.any(requests.done[of_job] < 0):
            done[job] = -1
        elif np.any(of_job):
            done[job] = max(done[job], requests.done[of_job].max())
    return done


def run_streams(
    timing: DramTiming,
    bank_table: Int16,
    streams: Sequence[OracleStream],
    jobs: Sequence[OracleJob] = (OracleJob(),),
    max_ticks: int = 1 << 40,
    log: bool = False,
    column_table: Int16 | None = None,
    run_until: int = 0,
) -> OracleResult:
    """Simulate `streams` (round robin in this order) and their `jobs` until all is done, or `max_ticks` ticks.

    It stops after the tick of the last column command or tile end, but not before `run_until` ticks.
    """
    if not streams:
        raise ValueError("the oracle needs at least one stream")
    requests, table = _lay_out(timing, bank_table, column_table, streams)
    n_jobs = len(jobs)
    job_table = Jobs(
        tiles=np.array([job.tiles for job in jobs], np.int64),
        tile_ticks=np.array([job.tile_ticks for job in jobs], np.int64),
        gate=np.array([job.gate for job in jobs], np.int64),
        ended=np.zeros(n_jobs, np.int64),
        running_until=np.full(n_jobs, NOBODY, np.int64),
        last_end=np.full(n_jobs, -1, np.int64),
    )
    rows = 1 << 14 if log else 0
    while True:
        notes = Log(np.full((rows, len(LogField)), -1, np.int64), np.zeros(1, np.int64))
        run_requests = Requests(*(array.copy() for array in requests))
        run_table = Streams(*(array.copy() for array in table))
        run_jobs = Jobs(*(array.copy() for array in job_table))
        channel = _new_channel(timing)
        ticks = simulate(
            timing, run_requests, run_table, run_jobs, _new_banks(timing), channel, notes, max_ticks, run_until
        )
        if not log or notes.used[0] <= rows:
            break
        rows = int(notes.used[0])  # now the size is known: once more, with room for all
    return OracleResult(
        done=run_requests.done,
        issued=run_requests.issued,
        admitted=run_requests.admitted,
        answered=(run_requests.issued >= 0) & (run_requests.first == NOBODY),
        counts=channel.counts,
        histogram=channel.histogram,
        job_done=_job_completion(timing, run_requests, run_table, run_jobs),
        log=notes.entries[: notes.used[0]],
        ticks=int(ticks),
    )


def run_oracle(
    timing: DramTiming,
    bank_table: Int16,
    trace: Trace,
    max_ticks: int = 1 << 40,
    log: bool = False,
    column_table: Int16 | None = None,
) -> OracleResult:
    """Simulate one trace per pseudo-channel. `done` is in the order of the trace. `column_table` only fills the log."""
    cuts = [slice(int(a), int(b)) for a, b in zip(trace.offsets[:-1], trace.offsets[1:], strict=True)]
    stream = OracleStream(
        addresses=[trace.address[cut] for cut in cuts],
        writes=[trace.write[cut] for cut in cuts],
        arrivals=[trace.arrival[cut] for cut in cuts],
    )
    return run_streams(timing, bank_table, [stream], max_ticks=max_ticks, log=log, column_table=column_table)

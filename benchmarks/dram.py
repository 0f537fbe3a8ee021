"""How fast the DRAM kernel is on this machine: requests per second on a stream, random reads and a random 2:1 mix.

    python benchmarks/dram.py            # or: make bench-dram
    python benchmarks/dram.py --json

One HBM3 pseudo-channel with all-bank refresh, all requests there from the start, shortcuts off unless the row says so.
If an earlier prototype of the kernel lies beside the repository (../shared/prototype), it runs the same traces in the
same process, turn by turn, and the completion ticks of both are compared: then the ratio says something.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from archsim.kernels import channel
from archsim.kernels.dram import advance
from archsim.kernels.jit import kernel, pointer
from archsim.kernels.tiles import submit_job, submit_stream
from archsim.kernels.timing import DramTiming, RefreshMode

PROTOTYPE = Path(__file__).resolve().parents[2] / "shared" / "prototype"
HORIZON = 1 << 37
SPACE_BURSTS = 1 << 25  # random addresses fall into 1 GiB of the pseudo-channel
NO_LOG = np.zeros((0, 8), np.int64)
NOTHING = np.zeros(0, np.int64)

# HBM3 at 6.4 Gb/s per pin, in clocks of 0.625 ns: the values of the prototype, so that both do the same work.
TIMING = DramTiming(
    ticks_per_ck=1, pseudo_channels=1, stack_ids=1, bank_groups=4, banks_per_group=4, columns=32, burst_bytes=32,
    column_ticks=1, activate_ticks=1, precharge_ticks=1, tCL=23, tCWL=10, tBL=2, tRCDRD=23, tRCDWR=15, tRP=23, tRAS=45,
    tRC=68, tRTP=7, tWR=26, tCCDS=2, tCCDL=4, tCCDR=3, tRRDS=4, tRRDL=6, tFAW=16, tWTRS=6, tWTRL=12, tRTW=18, tPPD=0,
    tRFCab=560, tRFCpb=320, tRREFD=13, tREFI=6240, tREFIpb=390, refresh_mode=int(RefreshMode.ALL_BANK),
    refresh_stagger=0, read_queue=32, write_queue=32, write_high=24, write_low=8,
)  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """Requests to bursts of one pseudo-channel, in order."""

    name: str
    bursts: np.ndarray
    writes: np.ndarray


@dataclass(frozen=True)
class Speed:
    """One row of the table; rates in requests per second of processor time, medians of the repeats."""

    trace: str
    requests: int
    kernel: float
    prototype: float | None
    same: bool | None

    @property
    def ratio(self) -> float | None:
        return self.kernel / self.prototype if self.prototype else None


def traces(requests: int) -> list[Trace]:
    """A sequential read, random reads, and random reads and writes 2:1; the same at each call."""
    random = np.random.default_rng(1)
    none = np.zeros(requests, np.int64)
    anywhere = random.integers(0, SPACE_BURSTS, requests)
    return [
        Trace("stream", np.arange(requests), none),
        Trace("random", anywhere, none),
        Trace("mixed 2:1", anywhere, (random.random(requests) < 1 / 3).astype(np.int64)),
    ]


# ---------------------------------------------------------------- this kernel


@kernel
def _submit(state, q, window, trace):  # type: ignore[no-untyped-def]
    submit_job(pointer(state), q, 0, 0, 0, 0)
    submit_stream(pointer(state), q, 0, 0, 0, window, trace)


def address_tables() -> tuple[np.ndarray, np.ndarray]:
    """Bank and column of each burst of a row set: bank groups alternate, then columns, then banks."""
    burst = np.arange(TIMING.bank_groups * TIMING.banks_per_group * TIMING.columns)
    group, column = burst % TIMING.bank_groups, burst // TIMING.bank_groups % TIMING.columns
    return burst // (TIMING.bank_groups * TIMING.columns) * TIMING.bank_groups + group, column


def run_trace(trace: Trace) -> Callable[[], np.ndarray]:
    """A call that simulates a trace and returns when each request was done."""
    bank_of, column_of = address_tables()
    words = trace.bursts << 1 | trace.writes
    arrivals = np.zeros(len(words), np.int64)
    done = np.full(len(words), -1, np.int64)  # here, so that no page of it is touched first while the clock runs

    def run() -> np.ndarray:
        state = channel.new_state(TIMING)
        view = channel.ChannelView(state)
        view.stream_base[0, 0], view.stream_total[0, 0] = 0, len(words)
        _submit(state, TIMING, 0, 1)
        advance(state, TIMING, bank_of, column_of, words, arrivals, done, NO_LOG, HORIZON, False)
        return done

    return run


# ---------------------------------------------------------------- the prototype


def prototype_modules() -> tuple[ModuleType, ModuleType] | None:
    """The prototype's kernel and its definitions, if it is there."""
    if not (PROTOTYPE / "ev_fast.py").is_file():
        return None
    sys.path.insert(0, str(PROTOTYPE))
    return importlib.import_module("ev_fast"), importlib.import_module("common")


def run_prototype(modules: tuple[ModuleType, ModuleType], trace: Trace) -> Callable[[], np.ndarray]:
    """As `run_trace`, in the prototype."""
    kernel_module, common = modules
    parameters = common.params()
    requests = common.pack(trace.bursts, trace.writes)
    arrivals = np.zeros(len(requests), np.int64)
    done = np.full(len(requests), -1, np.int64)

    def run() -> np.ndarray:
        kernel_module.run(parameters, requests, arrivals, done)
        return done

    return run


# ---------------------------------------------------------------- measuring


def seconds_of(run: Callable[[], np.ndarray]) -> float:
    """Processor time of one call: other work on the machine does not count."""
    start = time.thread_time()
    run()
    return time.thread_time() - start


def measure(trace: Trace, modules: tuple[ModuleType, ModuleType] | None, repeats: int) -> Speed:
    """Both kernels on one trace, in turn."""
    ours = run_trace(trace)
    theirs = run_prototype(modules, trace) if modules is not None else None
    same = bool(np.array_equal(ours(), theirs())) if theirs is not None else None  # compiles, too
    if theirs is None:
        ours()
    our_seconds, their_seconds = [], []
    for _ in range(repeats):
        our_seconds.append(seconds_of(ours))
        if theirs is not None:
            their_seconds.append(seconds_of(theirs))
    n = len(trace.bursts)
    other = n / statistics.median(their_seconds) if their_seconds else None
    return Speed(trace.name, n, n / statistics.median(our_seconds), other, same)


def measure_device(size_bytes: int = 4 * 10**9) -> list[dict[str, Any]]:
    """A whole H200's sequential read: every command simulated, then with an empty memo, then with one that knows it."""
    from archsim.memory.device import HbmDevice, Range, Transfer
    from archsim.system import load_system

    memory = load_system("h200").spec.device.memory
    rows = []
    for name, shortcuts in (("every command", False), ("memo, first time", True), ("memo, again", True)):
        device = HbmDevice(memory.technology, memory.controller, memory.channels, shortcuts=shortcuts)
        bursts = device.bursts(size_bytes)
        device.submit(Transfer((Range(0, 64),)))
        device.advance()  # compiles
        start = time.thread_time()
        device.submit(Transfer((Range(0, bursts),)))
        completion = device.advance()
        seconds = time.thread_time() - start
        assert completion is not None
        requests = bursts * device.pseudo_channels
        rows.append(
            {"name": name, "seconds": seconds, "requests_per_second": requests / seconds, "tick": completion.tick}
        )
    assert len({row["tick"] for row in rows}) == 1, "shortcuts changed the result"
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=2_000_000, help="requests of each trace")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each, of which the median counts")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    modules = prototype_modules()
    speeds = [measure(trace, modules, options.repeats) for trace in traces(options.requests)]
    device = measure_device()
    if options.json:
        rows = [{**speed.__dict__, "ratio": speed.ratio} for speed in speeds]
        print(json.dumps({"pseudo_channel": rows, "h200_stream": device}))
        return
    print(f"one HBM3 pseudo-channel, {options.requests:,} requests, million requests per second of one core")
    print(f"{'trace':12}{'archsim':>10}{'prototype':>12}{'ratio':>8}   completions")
    for speed in speeds:
        other = f"{speed.prototype / 1e6:12.1f}{speed.ratio:8.2f}" if speed.prototype else f"{'-':>12}{'-':>8}"
        same = "" if speed.same is None else "all equal" if speed.same else "DIFFERENT"
        print(f"{speed.trace:12}{speed.kernel / 1e6:10.1f}{other}   {same}")
    print("\na sequential read of 4 GB by an H200, one channel standing for all 96 of them")
    for row in device:
        print(f"{row['name']:20}{row['seconds'] * 1e3:10.2f} ms{row['requests_per_second'] / 1e9:14.1f} G requests/s")


if __name__ == "__main__":
    main()

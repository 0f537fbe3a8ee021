"""Parts of a kernel by themselves, for Python to call on a channel's state: jobs, streams, the clock."""

from __future__ import annotations

from archsim.kernels import clock
from archsim.kernels.canonical import settle_idle
from archsim.kernels.channel import NOW
from archsim.kernels.jit import kernel, pointer
from archsim.kernels.tiles import submit_job, submit_stream, wait_for_data


@kernel
def open_job(state, q, job, tiles, tile_ticks, gate):  # type: ignore[no-untyped-def]
    """A new job in a slot, without streams yet (`tiles.submit_job`)."""
    submit_job(pointer(state), q, job, tiles, tile_ticks, gate)


@kernel
def open_stream(state, q, slot, job, write, window, trace):  # type: ignore[no-untyped-def]
    """A new stream of a job whose range, or place in the trace, stands in the state (`tiles.submit_stream`)."""
    submit_stream(pointer(state), q, slot, job, write, window, trace)


@kernel
def start_job(state, q, job):  # type: ignore[no-untyped-def]
    """Let a job with all its streams begin, now."""
    wait_for_data(pointer(state), q, job, state[NOW])


@kernel
def settle(state, q):  # type: ignore[no-untyped-def]
    """Account for idle time up to now."""
    settle_idle(pointer(state), q)


@kernel
def shift_clock(state, q, shift):  # type: ignore[no-untyped-def]
    """Move a state's ticks back by `shift`, so that they stay small."""
    clock.shift_clock(pointer(state), q, shift)

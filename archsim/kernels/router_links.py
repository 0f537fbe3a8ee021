"""What is under way: events in the wheels, and the log of moves."""

from __future__ import annotations

from archsim.kernels.jit import inlined
from archsim.kernels.router_state import (
    CREDIT,
    FREE,
    LOG_COLUMNS,
    LOG_LENGTH,
    MAX_FLITS,
    PACKET_SHIFT,
    WAKE,
    WAKE_BITS,
    Network,
)


@inlined
def slot_of(q: Network, cycle):  # type: ignore[no-untyped-def]
    """Where the wheel's slot of a cycle stands: how many events of each kind, then the events."""
    return q.slots + (cycle & (q.wheel - 1)) * q.slot_stride


@inlined
def schedule_flit(q: Network, state, kind, cycle, channel, flit):  # type: ignore[no-untyped-def]
    """A flit will arrive: at a channel of an input (FLIT) or, from one of an output, at a node (LAST_FLIT)."""
    slot = slot_of(q, cycle)
    used = state[slot + kind]
    state[slot + kind] = used + 1
    event = slot + q.flits + 2 * (kind * q.flit_slot + used)
    state[event] = channel
    state[event + 1] = flit


@inlined
def schedule_credit(q: Network, state, cycle, channel):  # type: ignore[no-untyped-def]
    """A credit comes home to a channel of an output in a later cycle."""
    slot = slot_of(q, cycle)
    used = state[slot + CREDIT]
    state[slot + CREDIT] = used + 1
    state[slot + q.credits + used] = channel


@inlined
def wake_at(q: Network, state, cycle, channel, what):  # type: ignore[no-untyped-def]
    """Something may happen at a channel from a later cycle on."""
    slot = slot_of(q, cycle)
    used = state[slot + WAKE]
    state[slot + WAKE] = used + 1
    state[slot + q.wakes + used] = channel << WAKE_BITS | what


@inlined
def set_free(q: Network, state, channel):  # type: ignore[no-untyped-def]
    """No packet owns a channel of an output any more."""
    output = channel >> q.vc_bits
    state[q.outputs_at + output * q.output_stride + FREE] |= 1 << (channel - (output << q.vc_bits))


@inlined
def log_move(state, log, rows, now, kind, came, went, flit):  # type: ignore[no-untyped-def]
    """Write a move down if there is a log with room."""
    if rows == 0:
        return
    row = state[LOG_LENGTH]
    if row >= rows:
        return
    at = row * LOG_COLUMNS
    log[at] = now
    log[at + 1] = kind
    log[at + 2] = came
    log[at + 3] = went
    log[at + 4] = flit >> PACKET_SHIFT
    log[at + 5] = flit >> 1 & MAX_FLITS
    state[LOG_LENGTH] = row + 1

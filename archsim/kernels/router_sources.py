"""Nodes: the packets that they have to send, flit by flit."""

from __future__ import annotations

from archsim.kernels.jit import inlined
from archsim.kernels.router_links import log_move, schedule_flit, set_free
from archsim.kernels.router_sets import next_bit
from archsim.kernels.router_state import (
    ARRIVES,
    BUSY_NODES,
    CREATED,
    DESTINATION,
    ENTERED,
    FLIT,
    FLIT_BITS,
    FLITS,
    FREE,
    IN_FLIGHT,
    INJECT,
    INJECTED,
    LAST_MOVE,
    LAST_VC,
    LEADS,
    NEXT_IN_QUEUE,
    NEXT_PACKET,
    NODE_IS_BUSY,
    PACKET_SHIFT,
    QUEUE_FLIT,
    QUEUE_HEAD,
    QUEUE_TAIL,
    QUEUE_VC,
    SOURCE,
    SOURCE_BITS,
    TAIL_SENT,
    Network,
)

_PACKET_COLUMNS = 4
_TIME_COLUMNS = 3


@inlined
def hand_over(q: Network, state, packets, count, times, now):  # type: ignore[no-untyped-def]
    """Step 2: packets created by now join the queue of their source."""
    packet = state[NEXT_PACKET]
    while packet < count and packets[packet * _PACKET_COLUMNS + CREATED] <= now:
        node = packets[packet * _PACKET_COLUMNS + SOURCE]
        source = q.sources_at + (node << SOURCE_BITS)
        if state[source + QUEUE_HEAD] < 0:
            state[source + QUEUE_HEAD] = packet
        else:
            times[state[source + QUEUE_TAIL] * _TIME_COLUMNS + NEXT_IN_QUEUE] = packet
        state[source + QUEUE_TAIL] = packet
        if state[source + NODE_IS_BUSY] == 0:
            state[source + NODE_IS_BUSY] = 1
            state[q.busy_nodes_at + state[BUSY_NODES]] = node
            state[BUSY_NODES] += 1
        if state[IN_FLIGHT] == 0:
            state[LAST_MOVE] = now
        state[IN_FLIGHT] += 1
        packet += 1
    state[NEXT_PACKET] = packet


@inlined
def run_sources(net, q: Network, state, packets, times, log, rows, now):  # type: ignore[no-untyped-def]
    """Step 3: each node with a packet sends a flit if it has a channel and a credit."""
    k = 0
    while k < state[BUSY_NODES]:
        node = state[q.busy_nodes_at + k]
        source = q.sources_at + (node << SOURCE_BITS)
        _run_source(net, q, state, packets, times, log, rows, node, source, now)
        if state[source + QUEUE_HEAD] < 0:
            state[source + NODE_IS_BUSY] = 0
            state[BUSY_NODES] -= 1
            state[q.busy_nodes_at + k] = state[q.busy_nodes_at + state[BUSY_NODES]]
        else:
            k += 1


@inlined
def _run_source(net, q: Network, state, packets, times, log, rows, node, source, now):  # type: ignore[no-untyped-def]
    output = q.sources + node
    first_channel = output << q.vc_bits
    packet = state[source + QUEUE_HEAD]
    vc = state[source + QUEUE_VC]
    if vc < 0:
        vc = _choose_source_vc(q, state, source, output)
        if vc < 0:
            return
        state[source + QUEUE_VC] = vc
        state[source + LAST_VC] = vc
        state[q.outputs_at + output * q.output_stride + FREE] &= ~(1 << vc)
    record = q.credits_at + first_channel + vc
    if state[record] == 0:
        return
    index = state[source + QUEUE_FLIT]
    tail = 1 if index + 1 == packets[packet * _PACKET_COLUMNS + FLITS] else 0
    flit = packet << PACKET_SHIFT | packets[packet * _PACKET_COLUMNS + DESTINATION] << FLIT_BITS | index << 1 | tail
    state[record] -= 1
    state[INJECTED] += 1
    state[LAST_MOVE] = now
    leads = q.outputs_at + output * q.output_stride
    channel = first_channel + vc + (state[leads + LEADS] >> 1)
    schedule_flit(q, state, FLIT, now + state[leads + ARRIVES], channel, flit)
    log_move(state, log, rows, now, INJECT, node, first_channel + vc, flit)
    if index == 0:
        times[packet * _TIME_COLUMNS + ENTERED] = now
    state[source + QUEUE_FLIT] = index + 1
    if tail != 0:
        if q.wait_for_tail_credit != 0:
            state[record] += TAIL_SENT
        else:
            set_free(q, state, first_channel + vc)
        state[source + QUEUE_FLIT] = 0
        state[source + QUEUE_VC] = -1
        state[source + QUEUE_HEAD] = times[packet * _TIME_COLUMNS + NEXT_IN_QUEUE]


@inlined
def _choose_source_vc(q: Network, state, source, output):  # type: ignore[no-untyped-def]
    """The next free channel with a credit behind the one used last; -1 if there is none."""
    free = state[q.outputs_at + output * q.output_stride + FREE]
    while free != 0:
        vc = next_bit(free, state[source + LAST_VC] + 1)
        if state[q.credits_at + (output << q.vc_bits) + vc] != 0:
            return vc
        free &= ~(1 << vc)
    return -1

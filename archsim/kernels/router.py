"""The event-driven kernel of a network of routers: docs/noc_policy.md, visiting only what has something to do.

Flits and credits on links stand in an event wheel (one slot per cycle ahead), routers with a flit at an input and
sources with a packet to send in lists. A cycle costs what happens in it; cycles in which nothing can happen are
skipped.
"""

from __future__ import annotations

from archsim.kernels.jit import inlined, kernel, pointer
from archsim.kernels.router_alloc import allocate_switch, allocate_vcs, join_list, leave_list
from archsim.kernels.router_state import (
    BIDDERS,
    BUSY_NODES,
    BUSY_ROUTERS,
    COUNT,
    CREATED,
    CREDIT_CYCLES,
    CREDITS,
    CROSSED,
    DELIVERED,
    DESTINATION,
    EJECT,
    EJECTED,
    ENTERED,
    FIRST,
    FIRST_NODE,
    FLIT_BITS,
    FLITS,
    FREE,
    HOP,
    IDLE,
    IN_FLIGHT,
    INJECT,
    INJECTED,
    IS_BUSY,
    LAST_MOVE,
    LAST_VC,
    LINK_CYCLES,
    LINK_FROM,
    LINK_TO,
    LINKED,
    LOG_COLUMNS,
    LOG_LENGTH,
    MAX_FLITS,
    MAX_NODES,
    NEXT_IN_QUEUE,
    NEXT_PACKET,
    NODE_IS_BUSY,
    NOW,
    OUTPUT_BITS,
    PACKET_SHIFT,
    PAIR_BITS,
    PENDING,
    QUEUE_FLIT,
    QUEUE_HEAD,
    QUEUE_TAIL,
    QUEUE_VC,
    READY,
    RING,
    ROUTE_ROW,
    ROUTER_BITS,
    SOURCE,
    SOURCE_BITS,
    STATUS,
    STUCK,
    TAIL_SENT,
    TAKEN,
    WAITERS,
    WAITING,
    Network,
)

_PACKET_COLUMNS = 4
_TIME_COLUMNS = 3

# Kinds of events; an event is two words, `kind | channel << 2` and the flit.
_FLIT = 0  # arrives at a channel of an input
_LAST_FLIT = 1  # arrives at a node, from a channel of an output
_CREDIT = 2  # comes home to a channel of an output


@kernel
def advance(net, q, state, packets, times, log, until):  # type: ignore[no-untyped-def]
    """Run a network until cycle `until`, or until it is empty, or until nothing has moved for `q.patience` cycles.

    Args:
        net: int64[q.table_length], links and routes.
        q: sizes, stages and offsets.
        state: int64[q.state_length] (see `router_state.new_state`), changed in place. Cycles before `state[NOW]` are
            done; an empty network (no packet left, none in flight, all credits home) stops before `until`.
        packets: int64[n, 4], sorted by cycle of creation: created, source, destination, flits. Rows may be added
            between calls.
        times: int64[n, 3], written: cycle in which the head left the source, cycle in which the tail arrived.
        log: int64[m, 6], every move of a flit (empty: not recorded; a full log drops what follows).
        until: first cycle that is left for the next call.
    """
    rows = log.shape[0]
    count = packets.shape[0]
    _run(
        pointer(net), q, pointer(state), pointer(packets.reshape(packets.size)), count,
        pointer(times.reshape(times.size)), pointer(log.reshape(log.size)), rows, until,
    )  # fmt: skip


@inlined
def _run(net, q: Network, state, packets, count, times, log, rows, until):  # type: ignore[no-untyped-def]
    while state[NOW] < until:
        now = state[NOW]
        _receive(net, q, state, times, log, rows, now)
        _hand_over(q, state, packets, count, times, now)
        _run_sources(net, q, state, packets, times, log, rows, now)
        _run_routers(net, q, state, log, rows, now)
        if state[IN_FLIGHT] > 0 and now - state[LAST_MOVE] >= q.patience:
            state[STUCK] = 1
            return
        following = _next_cycle(q, state, packets, count, now, until)
        if following < 0:
            state[NOW] = now + 1
            return
        state[NOW] = following


@inlined
def _next_cycle(q: Network, state, packets, count, now, until):  # type: ignore[no-untyped-def]
    """The next cycle in which something can happen, at most `until`; -1 if nothing is left to happen."""
    if state[BUSY_ROUTERS] + state[BUSY_NODES] > 0:
        return now + 1
    target = until
    left = state[NEXT_PACKET] < count
    if left:
        target = min(target, max(packets[state[NEXT_PACKET] * _PACKET_COLUMNS + CREATED], now + 1))
    if state[PENDING] == 0:
        return target if left else -1
    for cycle in range(now + 1, now + q.wheel):
        if cycle >= target:
            break
        if state[q.slot_count + (cycle & (q.wheel - 1))] > 0:
            return cycle
    return target


@inlined
def _schedule(q: Network, state, cycle, kind, channel, flit):  # type: ignore[no-untyped-def]
    slot = cycle & (q.wheel - 1)
    used = state[q.slot_count + slot]
    event = q.events + 2 * (slot * q.slot + used)
    state[event] = kind | channel << 2
    state[event + 1] = flit
    state[q.slot_count + slot] = used + 1
    state[PENDING] += 1


@inlined
def _receive(net, q: Network, state, times, log, rows, now):  # type: ignore[no-untyped-def]
    """Step 1: flits and credits arrive."""
    slot = now & (q.wheel - 1)
    arriving = state[q.slot_count + slot]
    state[q.slot_count + slot] = 0
    state[PENDING] -= arriving
    first = q.events + 2 * slot * q.slot
    for k in range(arriving):
        kind = state[first + 2 * k] & 3
        channel = state[first + 2 * k] >> 2
        flit = state[first + 2 * k + 1]
        if kind == _CREDIT:
            _return_credit(q, state, channel)
        elif kind == _FLIT:
            _enter(q, state, channel, flit, now)
        else:
            _eject(net, q, state, times, log, rows, channel, flit, now)


@inlined
def _return_credit(q: Network, state, channel):  # type: ignore[no-untyped-def]
    """A place of the next buffer is free again; the last of them may end a packet's ownership."""
    record = q.output_channels_at + (channel << OUTPUT_BITS)
    credits = state[record + CREDITS] + 1
    state[record + CREDITS] = credits
    if q.wait_for_tail_credit != 0 and credits == q.depth and state[record + TAIL_SENT] != 0:
        state[record + TAIL_SENT] = 0
        output = channel >> q.vc_bits
        state[q.outputs_at + (output << PAIR_BITS) + FREE] |= 1 << (channel - (output << q.vc_bits))


@inlined
def _enter(q: Network, state, channel, flit, now):  # type: ignore[no-untyped-def]
    """A flit arrives in the buffer of an input's channel."""
    record = q.inputs_at + channel * q.channel_stride
    held = state[record + COUNT]
    at = state[record + FIRST] + held
    state[record + RING + (at if at < q.depth else at - q.depth)] = flit
    state[record + COUNT] = held + 1
    if held > 0:
        return
    bits = q.port_bits + q.vc_bits
    router = channel >> bits
    local = channel - (router << bits)
    if state[record + STATUS] == IDLE:
        _begin_packet(q, state, router, local, record, flit, now)
    else:
        state[record + READY] = now + q.switch_alloc_cycles - 1
        join_list(q, state, q.bidders_at, BIDDERS, router, local)
    busy = q.routers_at + (router << ROUTER_BITS) + IS_BUSY
    if state[busy] == 0:
        state[busy] = 1
        state[q.busy_routers_at + state[BUSY_ROUTERS]] = router
        state[BUSY_ROUTERS] += 1


@inlined
def _begin_packet(q: Network, state, router, local, record, flit, since):  # type: ignore[no-untyped-def]
    """A head is at the front of its buffer from cycle `since` on: it is routed, and then waits for a channel."""
    destination = flit >> FLIT_BITS & (MAX_NODES - 1)
    state[record + STATUS] = WAITING
    state[record + ROUTE_ROW] = q.route + (router * q.nodes + destination) * q.candidates
    state[record + READY] = since + q.routing_cycles + q.vc_alloc_cycles - 1
    join_list(q, state, q.waiters_at, WAITERS, router, local)


@inlined
def _eject(net, q: Network, state, times, log, rows, channel, flit, now):  # type: ignore[no-untyped-def]
    """A flit arrives at its node, which takes it at once and returns the credit."""
    link = q.link_of_output + (channel >> q.vc_bits << PAIR_BITS)
    state[EJECTED] += 1
    state[LAST_MOVE] = now
    if flit & 1 != 0:
        times[(flit >> PACKET_SHIFT) * _TIME_COLUMNS + DELIVERED] = now
        state[IN_FLIGHT] -= 1
    _schedule(q, state, now + 1 + net[link + LINK_CYCLES] + q.credit_cycles, _CREDIT, channel, 0)
    _log(state, log, rows, now, EJECT, channel, FIRST_NODE - net[link + LINK_TO], flit)


@inlined
def _hand_over(q: Network, state, packets, count, times, now):  # type: ignore[no-untyped-def]
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
def _run_sources(net, q: Network, state, packets, times, log, rows, now):  # type: ignore[no-untyped-def]
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
        state[q.outputs_at + (output << PAIR_BITS) + FREE] &= ~(1 << vc)
        state[q.output_channels_at + (first_channel + vc << OUTPUT_BITS) + TAIL_SENT] = 0
    record = q.output_channels_at + (first_channel + vc << OUTPUT_BITS)
    if state[record + CREDITS] == 0:
        return
    index = state[source + QUEUE_FLIT]
    tail = 1 if index + 1 == packets[packet * _PACKET_COLUMNS + FLITS] else 0
    flit = packet << PACKET_SHIFT | packets[packet * _PACKET_COLUMNS + DESTINATION] << FLIT_BITS | index << 1 | tail
    state[record + CREDITS] -= 1
    state[INJECTED] += 1
    state[LAST_MOVE] = now
    link = q.link_of_output + (output << PAIR_BITS)
    channel = (net[link + LINK_TO] << q.vc_bits) + vc
    _schedule(q, state, now + 1 + net[link + LINK_CYCLES], _FLIT, channel, flit)
    _log(state, log, rows, now, INJECT, node, first_channel + vc, flit)
    if index == 0:
        times[packet * _TIME_COLUMNS + ENTERED] = now
    state[source + QUEUE_FLIT] = index + 1
    if tail != 0:
        _end_packet(q, state, record, output, vc)
        state[source + QUEUE_FLIT] = 0
        state[source + QUEUE_VC] = -1
        state[source + QUEUE_HEAD] = times[packet * _TIME_COLUMNS + NEXT_IN_QUEUE]


@inlined
def _choose_source_vc(q: Network, state, source, output):  # type: ignore[no-untyped-def]
    """The next free channel with a credit behind the one used last; -1 if there is none."""
    vc = state[source + LAST_VC]
    free = state[q.outputs_at + (output << PAIR_BITS) + FREE]
    for _ in range(q.vcs):
        vc = vc + 1 if vc + 1 < q.vcs else 0
        if free >> vc & 1 != 0 and state[q.output_channels_at + ((output << q.vc_bits) + vc << OUTPUT_BITS)] > 0:
            return vc
    return -1


@inlined
def _end_packet(q: Network, state, record, output, vc):  # type: ignore[no-untyped-def]
    """The tail has left over a channel of an output."""
    state[record + TAIL_SENT] = 1
    if q.wait_for_tail_credit == 0:
        state[q.outputs_at + (output << PAIR_BITS) + FREE] |= 1 << vc


@inlined
def _run_routers(net, q: Network, state, log, rows, now):  # type: ignore[no-untyped-def]
    """Step 4: each router with a flit allocates channels, then the crossbar."""
    k = 0
    while k < state[BUSY_ROUTERS]:
        router = state[q.busy_routers_at + k]
        record = q.routers_at + (router << ROUTER_BITS)
        if state[record + WAITERS] > 0:
            allocate_vcs(net, q, state, router, now)
        if state[record + BIDDERS] > 0:
            matches = allocate_switch(q, state, router, now)
            for m in range(matches):
                _depart(net, q, state, log, rows, router, state[q.winners + m], now)
        if state[record + WAITERS] + state[record + BIDDERS] == 0:
            state[record + IS_BUSY] = 0
            state[BUSY_ROUTERS] -= 1
            state[q.busy_routers_at + k] = state[q.busy_routers_at + state[BUSY_ROUTERS]]
        else:
            k += 1


@inlined
def _depart(net, q: Network, state, log, rows, router, local, now):  # type: ignore[no-untyped-def]
    """The first flit of an input's channel crosses to its output; its place goes back as a credit."""
    bits = q.port_bits + q.vc_bits
    came = (router << bits) + local
    record = q.inputs_at + came * q.channel_stride
    at = state[record + FIRST]
    flit = state[record + RING + at]
    at = at + 1 if at + 1 < q.depth else 0
    state[record + FIRST] = at
    left = state[record + COUNT] - 1
    state[record + COUNT] = left

    went = (router << bits) + state[record + TAKEN]
    output = went >> q.vc_bits
    vc = went - (output << q.vc_bits)
    state[q.output_channels_at + (went << OUTPUT_BITS) + CREDITS] -= 1
    state[CROSSED] += 1
    state[LAST_MOVE] = now
    link = q.link_of_output + (output << PAIR_BITS)
    arrival = now + 1 + q.crossbar_cycles + net[link + LINK_CYCLES]
    target = net[link + LINK_TO]
    if target >= 0:
        state[LINKED] += 1
        _schedule(q, state, arrival, _FLIT, (target << q.vc_bits) + vc, flit)
    else:
        _schedule(q, state, arrival, _LAST_FLIT, went, flit)
    _log(state, log, rows, now, HOP, came, went, flit)

    port = came >> q.vc_bits
    upstream = q.link_of_input + (port << PAIR_BITS)
    home = (net[upstream + LINK_FROM] - port << q.vc_bits) + came
    _schedule(q, state, now + 1 + net[upstream + CREDIT_CYCLES], _CREDIT, home, 0)

    if flit & 1 != 0:
        _end_packet(q, state, q.output_channels_at + (went << OUTPUT_BITS), output, vc)
        leave_list(q, state, q.bidders_at, BIDDERS, router, local)
        state[record + STATUS] = IDLE
        if left > 0:
            _begin_packet(q, state, router, local, record, state[record + RING + at], now + 1)
    elif left == 0:
        leave_list(q, state, q.bidders_at, BIDDERS, router, local)
    else:
        state[record + READY] = now + q.switch_alloc_cycles


@inlined
def _log(state, log, rows, now, kind, came, went, flit):  # type: ignore[no-untyped-def]
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

"""The event-driven kernel of a network of routers: docs/noc_policy.md, visiting only what has something to do.

Flits and credits on links stand in event wheels (one slot per cycle ahead). Who waits for a channel and who bids for an
output are sets of bits that change with events, so a cycle costs what happens in it and not what is there; cycles in
which nothing can happen are skipped. Within a cycle the crossbars come before the channels, the other way round than in
the policy: what either changes is seen a cycle later by the other, so the order is free.
"""

from __future__ import annotations

from archsim.kernels.jit import inlined, kernel, pointer
from archsim.kernels.router_alloc import allocate_vcs, ask
from archsim.kernels.router_layout import known_layout
from archsim.kernels.router_links import log_move, schedule_credit, schedule_flit, set_free, slot_of, wake_at
from archsim.kernels.router_sets import (
    enter_bid,
    is_empty,
    leave_if,
)
from archsim.kernels.router_sources import hand_over, run_sources
from archsim.kernels.router_state import (
    ARRIVES,
    BID_FOR,
    BIDS,
    BUSY_NODES,
    CREATED,
    CREDIT,
    CROSSED,
    DELIVERED,
    EJECT,
    EJECTED,
    FIRST_NODE,
    FLIT,
    HEAD,
    HOME,
    HOME_BITS,
    HOP,
    IN_FLIGHT,
    IS_FREE,
    KINDS,
    LAST_FLIT,
    LAST_MOVE,
    LEADS,
    LINK_CYCLES,
    LINK_TO,
    LINKED,
    MAY_ASK,
    MAY_BID,
    NEXT_PACKET,
    NOW,
    PACKET_SHIFT,
    PAIR_BITS,
    READY,
    RING,
    STUCK,
    TAIL,
    TAIL_SENT,
    TAKEN,
    WAITED,
    WAKE,
    WAKE_BITS,
    Network,
)
from archsim.kernels.router_switch import grant_inputs, match_switch, move_pointers, winning_place

_PACKET_COLUMNS = 4
_TIME_COLUMNS = 3


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
        pointer(net), known_layout(q), pointer(state), pointer(packets.reshape(packets.size)), count,
        pointer(times.reshape(times.size)), pointer(log.reshape(log.size)), rows, until,
    )  # fmt: skip
    state[LINKED] = state[CROSSED] - state[EJECTED]
    for slot in range(q.wheel):
        state[LINKED] -= state[slot_of(q, slot) + LAST_FLIT]


@inlined
def _run(net, q: Network, state, packets, count, times, log, rows, until):  # type: ignore[no-untyped-def]
    while state[NOW] < until:
        now = state[NOW]
        _receive(net, q, state, times, log, rows, now)
        hand_over(q, state, packets, count, times, now)
        run_sources(net, q, state, packets, times, log, rows, now)
        _run_crossbars(net, q, state, log, rows, now)
        allocate_vcs(net, q, state, now)
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
    if state[BUSY_NODES] + state[WAITED] + state[BID_FOR] > 0:
        return now + 1
    target = until
    left = state[NEXT_PACKET] < count
    if left:
        target = min(target, max(packets[state[NEXT_PACKET] * _PACKET_COLUMNS + CREATED], now + 1))
    for cycle in range(now + 1, now + q.wheel):
        if left and cycle >= target:
            return target
        if not is_empty(state, slot_of(q, cycle), KINDS):
            return min(cycle, target)
    return target if left else -1


@inlined
def _receive(net, q: Network, state, times, log, rows, now):  # type: ignore[no-untyped-def]
    """Step 1: flits and credits arrive, stages end."""
    slot = slot_of(q, now)
    for k in range(state[slot + WAKE]):
        _wake(net, q, state, state[slot + q.wakes + k])
    for k in range(state[slot + CREDIT]):
        _return_credit(net, q, state, state[slot + q.credits + k], now)
    for k in range(state[slot + FLIT]):
        event = slot + q.flits + 2 * k
        _enter(net, q, state, state[event], state[event + 1], now)
    for k in range(state[slot + LAST_FLIT]):
        event = slot + q.flits + 2 * (q.flit_slot + k)
        _eject(net, q, state, times, log, rows, state[event], state[event + 1], now)
    for kind in range(KINDS):
        state[slot + kind] = 0


@inlined
def _wake(net, q: Network, state, event):  # type: ignore[no-untyped-def]
    """A stage has passed."""
    channel = event >> WAKE_BITS
    what = event & ((1 << WAKE_BITS) - 1)
    if what == MAY_ASK:
        ask(net, q, state, channel)
    elif what == MAY_BID:
        _bid(net, q, state, channel)
    else:
        set_free(q, state, channel)


@inlined
def _bid(net, q: Network, state, channel):  # type: ignore[no-untyped-def]
    """The first flit of a channel may cross if there is a credit; else the next credit says so."""
    taken = state[q.inputs_at + channel * q.input_stride + TAKEN]
    enter_bid(net, q, state, channel, taken, 1 if state[q.credits_at + taken] != 0 else 0)


@inlined
def _return_credit(net, q: Network, state, channel, now):  # type: ignore[no-untyped-def]
    """A place of the next buffer is free again; the last of them may end a packet's ownership, the first let it go."""
    credits = state[q.credits_at + channel] + 1
    state[q.credits_at + channel] = credits
    if credits == q.depth + TAIL_SENT:
        state[q.credits_at + channel] = q.depth
        set_free(q, state, channel)
    elif credits == 1 and state[q.owners_at + channel] >= 0:
        owner = state[q.owners_at + channel]
        holder = q.inputs_at + owner * q.input_stride
        waits = 1 if state[holder + TAIL] > state[holder + HEAD] else 0
        waits = waits if state[holder + TAKEN] == channel else 0
        if q.switch_alloc_cycles > 1:
            waits = waits if state[holder + READY] <= now else 0
        enter_bid(net, q, state, owner, channel, waits)


@inlined
def _enter(net, q: Network, state, channel, flit, now):  # type: ignore[no-untyped-def]
    """A flit arrives in the buffer of an input's channel."""
    record = q.inputs_at + channel * q.input_stride
    tail = state[record + TAIL]
    state[record + RING + (tail & q.ring_mask)] = flit
    state[record + TAIL] = tail + 1
    if tail != state[record + HEAD]:
        return
    if state[record + TAKEN] < 0:
        _begin_packet(net, q, state, channel, now, now)
        return
    if q.switch_alloc_cycles > 1:
        state[record + READY] = now + q.switch_alloc_cycles - 1
        wake_at(q, state, now + q.switch_alloc_cycles - 1, channel, MAY_BID)
    else:
        _bid(net, q, state, channel)


@inlined
def _begin_packet(net, q: Network, state, channel, since, now):  # type: ignore[no-untyped-def]
    """A head is at the front of its buffer from cycle `since` on: it is routed, and then asks for a channel."""
    ready = since + q.routing_cycles + q.vc_alloc_cycles - 1
    if ready > now:
        wake_at(q, state, ready, channel, MAY_ASK)
    else:
        ask(net, q, state, channel)


@inlined
def _eject(net, q: Network, state, times, log, rows, channel, flit, now):  # type: ignore[no-untyped-def]
    """A flit arrives at its node, which takes it at once and returns the credit."""
    link = q.link_of_output + (channel >> q.vc_bits << PAIR_BITS)
    state[EJECTED] += 1
    state[LAST_MOVE] = now
    if flit & 1 != 0:
        times[(flit >> PACKET_SHIFT) * _TIME_COLUMNS + DELIVERED] = now
        state[IN_FLIGHT] -= 1
    schedule_credit(q, state, now + 1 + net[link + LINK_CYCLES] + q.credit_cycles, channel)
    log_move(state, log, rows, now, EJECT, channel, FIRST_NODE - net[link + LINK_TO], flit)


@inlined
def _run_crossbars(net, q: Network, state, log, rows, now):  # type: ignore[no-untyped-def]
    """Step 4.2: flits cross that have a bid and win."""
    listed = state[BID_FOR]
    specials = grant_inputs(net, q, state)
    left = 0
    for k in range(listed):
        output = state[q.bid_at + k]
        router = output >> q.port_bits
        state[q.seen_at + router] = 0
        if state[q.special + router] == 0:
            expanded = state[q.inputs_granted + k]
            move_pointers(net, q, state, router, expanded, output - (router << q.port_bits))
            _cross(net, q, state, log, rows, router, output, expanded, now)
            left = _keep(q, state, output, left)
    for k in range(specials):
        router = state[q.specials + k]
        state[q.special + router] = 0
        for m in range(match_switch(net, q, state, router)):
            output = (router << q.port_bits) + state[q.touched + m]
            _cross(net, q, state, log, rows, router, output, state[q.winners + m], now)
        for port in range(q.ports):
            left = _keep(q, state, (router << q.port_bits) + port, left)
    if listed > 0:  # at least one bid wins
        state[LAST_MOVE] = now
    state[BID_FOR] = left


@inlined
def _keep(q: Network, state, output, left):  # type: ignore[no-untyped-def]
    """List an output again if anything still bids for it."""
    state[q.bid_at + left] = output
    return left if is_empty(state, q.outputs_at + output * q.output_stride + BIDS, q.words) else left + 1


@inlined
def _cross(net, q: Network, state, log, rows, router, output, expanded, now):  # type: ignore[no-untyped-def]
    """A crossbar input and an output are matched."""
    state[CROSSED] += 1
    record = q.outputs_at + output * q.output_stride
    place = winning_place(net, q, state, router, record, expanded)
    vcs = (1 << q.vc_bits) - 1
    local = (place & ~vcs) + net[q.channel_at + (place & vcs)]
    stays = _depart(net, q, state, log, rows, router, local, record, now)
    leave_if(q, state, record + BIDS, place, 1 - stays)


@inlined
def _depart(net, q: Network, state, log, rows, router, local, leads, now):  # type: ignore[no-untyped-def]
    """The first flit of an input's channel crosses to its output, whose record is `leads`; its place goes back as a
    credit. Returns 1 if the flit behind it may bid in the next cycle, else 0.

    Whether there is one, whether it has a credit and where the flit goes is nothing that a processor could predict, so
    there is no branch for them."""
    came = (router << (q.port_bits + q.vc_bits)) + local
    record = q.inputs_at + came * q.input_stride
    head = state[record + HEAD]
    more = 1 if state[record + TAIL] > head + 1 else 0
    flit = state[record + RING + (head & q.ring_mask)]
    state[record + HEAD] = (head + 1) * more  # an empty ring begins at its first place
    state[record + TAIL] *= more

    went = state[record + TAKEN]
    last = state[leads + LEADS] & 1
    channel = went + (state[leads + LEADS] >> 1)
    schedule_flit(q, state, FLIT + last, now + state[leads + ARRIVES], channel, flit)
    log_move(state, log, rows, now, HOP, came, went, flit)

    home = state[record + HOME]
    schedule_credit(q, state, now + (home >> HOME_BITS), home & ((1 << HOME_BITS) - 1))

    owned = q.credits_at + went
    if flit & 1 != 0:
        state[record + TAKEN] = -1
        if q.wait_for_tail_credit != 0:
            state[owned] += TAIL_SENT - 1
        else:
            state[owned] -= 1
            wake_at(q, state, now + 1, went, IS_FREE)
        if more != 0:
            _begin_packet(net, q, state, came, now + 1, now)
        return 0
    credits = state[owned] - 1
    state[owned] = credits
    if q.switch_alloc_cycles > 1:
        if more != 0:
            state[record + READY] = now + q.switch_alloc_cycles
            wake_at(q, state, now + q.switch_alloc_cycles, came, MAY_BID)
        return 0
    return more if credits != 0 else 0

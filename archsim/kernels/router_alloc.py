"""The allocator of channels: heads that wait at a router's inputs to channels of its outputs that no packet owns.

A matching with rotating pointers ("iSLIP", McKeown 1999: channels grant, heads accept; "separable": heads choose,
channels grant). Who waits for an output is a set, so that the next one behind a pointer is a shift and a count of zeros.
"""

from __future__ import annotations

from archsim.kernels.jit import inlined, lowest_bit
from archsim.kernels.router_sets import (
    enter_bid,
    input_channel,
    is_empty,
    join,
    join_routers,
    leave,
    leave_routers,
    next_bit,
    next_member,
    output_channel,
    output_port,
)
from archsim.kernels.router_state import (
    CREDITS,
    FLIT_BITS,
    FREE,
    HEAD,
    MASK_BITS,
    MAX_NODES,
    MAY_BID,
    NEVER,
    OWNER,
    READY,
    RING,
    TAKEN,
    VC_ACCEPT,
    VC_GRANT,
    VC_GRANTS,
    WAKE,
    WAKE_BITS,
    KIND_BITS,
    Network,
)

_CLASS = (1 << MASK_BITS) - 1


@inlined
def wake_at(q: Network, state, cycle, channel, what):  # type: ignore[no-untyped-def]
    """Something may happen at a channel from a later cycle on."""
    slot = cycle & (q.wheel - 1)
    count = q.slots + (slot << KIND_BITS) + WAKE
    used = state[count]
    state[count] = used + 1
    state[q.wakes + slot * q.wake_slot + used] = channel << WAKE_BITS | what


@inlined
def routes_at(q: Network, state, router, record):  # type: ignore[no-untyped-def]
    """Where the candidates of the head at the front of an input's channel stand in the tables."""
    flit = state[record + RING + (state[record + HEAD] & q.ring_mask)]
    return q.route + (router * q.nodes + (flit >> FLIT_BITS & (MAX_NODES - 1))) * q.candidates


@inlined
def ask(net, q: Network, state, channel):  # type: ignore[no-untyped-def]
    """The head of an input's channel waits for a channel of each output on its route."""
    bits = q.port_bits + q.vc_bits
    router = channel >> bits
    row = routes_at(q, state, router, q.inputs_at + channel * q.input_stride)
    for c in range(q.candidates):
        candidate = net[row + c]
        if candidate < 0:
            break
        port = candidate >> MASK_BITS
        waits = output_port(q, router, port) + q.waits + (candidate & _CLASS) * q.words
        join(q, state, waits, channel - (router << bits))
        join(q, state, q.waited_at + router * q.port_words, port)
    join_routers(state, q.waiting, router)


@inlined
def allocate_vcs(net, q: Network, state, router, now):  # type: ignore[no-untyped-def]
    """Match heads that wait at the inputs of a router to channels of its outputs that no packet owns."""
    contested = True
    if q.words == 1:
        contested = _serve_the_uncontested(net, q, state, router, now)
    if contested:
        for iteration in range(q.vc_iterations):
            if q.vc_separable != 0:
                matches = _choose_input_first(net, q, state, router)
            else:
                matches = _choose_output_first(net, q, state, router)
            for k in range(matches):
                waiter = state[q.winners + k]
                channel = state[q.offered + waiter]
                state[q.offered + waiter] = -1
                _take_channel(net, q, state, router, waiter, channel, iteration == 0, now)
            if matches == 0:
                break
    if is_empty(state, q.waited_at + router * q.port_words, q.port_words):
        leave_routers(state, q.waiting, router)


@inlined
def _serve_the_uncontested(net, q: Network, state, router, now):  # type: ignore[no-untyped-def]
    """Who alone asks for its outputs gets the next channel behind its pointer, under either allocator.

    Only where a set is one word. Returns whether somebody is left who may get a channel."""
    asked = 0
    contested = 0
    ports = state[q.waited_at + router]
    while ports != 0:
        output = output_port(q, router, lowest_bit(ports))
        ports &= ports - 1
        if state[output + FREE] != 0:
            here = 0
            for k in range(q.classes):
                here |= state[output + q.waits + k]
            asked |= here
            if here & (here - 1) != 0:
                contested |= here
    alone = asked & ~contested
    while alone != 0:
        waiter = lowest_bit(alone)
        alone &= alone - 1
        channel = _nearest_channel(net, q, state, router, input_channel(q, router, waiter))
        if channel >= 0:
            _take_channel(net, q, state, router, waiter, channel, True, now)
    return contested != 0


@inlined
def _nearest_channel(net, q: Network, state, router, record):  # type: ignore[no-untyped-def]
    """The free channel next behind a head's pointer; -1 if there is none."""
    wrap = (1 << (q.port_bits + q.vc_bits)) - 1
    pointer = state[record + VC_ACCEPT]
    row = routes_at(q, state, router, record)
    best = -1
    nearest = NEVER
    for c in range(q.candidates):
        candidate = net[row + c]
        if candidate < 0:
            break
        port = candidate >> MASK_BITS
        mask = net[q.class_masks + (candidate & _CLASS)] & state[output_port(q, router, port) + FREE]
        if mask == 0:
            continue
        first = port << q.vc_bits
        inside = pointer - first
        channel = first + next_bit(mask, inside if 0 < inside < MASK_BITS else 0)
        behind = (channel - pointer) & wrap
        if behind < nearest:
            nearest = behind
            best = channel
    return best


@inlined
def _choose_output_first(net, q: Network, state, router):  # type: ignore[no-untyped-def]
    """Each free channel grants to the next head behind its pointer, each head accepts the next grant.

    Leaves the heads matched in `winners` and their channels in `offered`; returns how many.
    """
    wrap = (1 << (q.port_bits + q.vc_bits)) - 1
    matches = 0
    for w in range(q.port_words):
        ports = state[q.waited_at + router * q.port_words + w]
        while ports != 0:
            port = (w << q.word_bits) + lowest_bit(ports)
            ports &= ports - 1
            output = output_port(q, router, port)
            free = state[output + FREE]
            if q.classes == 1:
                free &= net[q.class_masks]
            while free != 0:
                vc = lowest_bit(free)
                free &= free - 1
                channel = (port << q.vc_bits) + vc
                pointer = state[output_channel(q, router, channel) + VC_GRANT]
                if q.classes == 1:
                    waiter = next_member(q, state, output + q.waits, pointer)
                else:
                    _collect_heads(net, q, state, output, vc)
                    waiter = next_member(q, state, q.some, pointer)
                if waiter < 0:
                    continue
                behind = (channel - state[input_channel(q, router, waiter) + VC_ACCEPT]) & wrap
                if state[q.offered + waiter] < 0:
                    state[q.winners + matches] = waiter
                    matches += 1
                elif behind >= state[q.offered_distance + waiter]:
                    continue
                state[q.offered + waiter] = channel
                state[q.offered_distance + waiter] = behind
    return matches


@inlined
def _collect_heads(net, q: Network, state, output, vc):  # type: ignore[no-untyped-def]
    """Leave those who wait for a channel of an output in `some`."""
    for w in range(q.words):
        heads = 0
        for k in range(q.classes):
            if net[q.class_masks + k] >> vc & 1 != 0:
                heads |= state[output + q.waits + k * q.words + w]
        state[q.some + w] = heads


@inlined
def _choose_input_first(net, q: Network, state, router):  # type: ignore[no-untyped-def]
    """Each head asks for one free channel, the next behind its pointer; each of those grants to the next of the heads
    that ask. Returns as `_choose_output_first`."""
    wrap = (1 << (q.port_bits + q.vc_bits)) - 1
    for w in range(q.words):
        state[q.some + w] = 0
    for w in range(q.port_words):
        ports = state[q.waited_at + router * q.port_words + w]
        while ports != 0:
            waits = output_port(q, router, (w << q.word_bits) + lowest_bit(ports)) + q.waits
            ports &= ports - 1
            for k in range(q.classes):
                for v in range(q.words):
                    state[q.some + v] |= state[waits + k * q.words + v]
    granting = 0
    for w in range(q.words):
        heads = state[q.some + w]
        while heads != 0:
            waiter = (w << q.word_bits) + lowest_bit(heads)
            heads &= heads - 1
            best = _nearest_channel(net, q, state, router, input_channel(q, router, waiter))
            if best < 0:
                continue
            behind = (waiter - state[output_channel(q, router, best) + VC_GRANT]) & wrap
            if state[q.chosen + best] < 0:
                state[q.touched + granting] = best
                granting += 1
            elif behind >= state[q.chosen_distance + best]:
                continue
            state[q.chosen + best] = waiter
            state[q.chosen_distance + best] = behind
    for k in range(granting):
        channel = state[q.touched + k]
        waiter = state[q.chosen + channel]
        state[q.chosen + channel] = -1
        state[q.offered + waiter] = channel
        state[q.winners + k] = waiter
    return granting


@inlined
def _take_channel(net, q: Network, state, router, waiter, channel, move_pointers, now):  # type: ignore[no-untyped-def]
    """A head gets its channel: from now on its packet owns it, and may bid for the crossbar a stage later."""
    record = input_channel(q, router, waiter)
    row = routes_at(q, state, router, record)
    for c in range(q.candidates):
        candidate = net[row + c]
        if candidate < 0:
            break
        port = candidate >> MASK_BITS
        waits = output_port(q, router, port) + q.waits
        leave(q, state, waits + (candidate & _CLASS) * q.words, waiter)
        if is_empty(state, waits, q.classes * q.words):
            leave(q, state, q.waited_at + router * q.port_words, port)
    state[output_port(q, router, channel >> q.vc_bits) + FREE] &= ~(1 << (channel & ((1 << q.vc_bits) - 1)))
    owned = output_channel(q, router, channel)
    first = router << (q.port_bits + q.vc_bits)
    state[owned + OWNER] = first + waiter
    if move_pointers:
        state[owned + VC_GRANT] = waiter + 1
        state[record + VC_ACCEPT] = channel + 1
    state[record + TAKEN] = first + channel
    state[record + READY] = now + q.switch_alloc_cycles
    state[VC_GRANTS] += 1
    if q.switch_alloc_cycles > 1:
        wake_at(q, state, now + q.switch_alloc_cycles, first + waiter, MAY_BID)
    elif state[owned + CREDITS] != 0:  # this cycle's bids are over
        enter_bid(q, state, first + waiter, first + channel)

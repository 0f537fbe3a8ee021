"""The allocator of channels: heads that wait at a router's inputs to channels of its outputs that no packet owns.

A matching with rotating pointers ("iSLIP", McKeown 1999: channels grant, heads accept; "separable": heads choose,
channels grant). Who waits for an output is a set, so that the next behind a pointer is a shift and a count of zeros.
"""

from __future__ import annotations

from archsim.kernels.jit import inlined, lowest_bit
from archsim.kernels.router_links import wake_at
from archsim.kernels.router_sets import (
    enter_bid,
    input_channel,
    is_empty,
    join,
    leave,
    next_bit,
    next_member,
    offer,
    output_port,
)
from archsim.kernels.router_state import (
    FLIT_BITS,
    FREE,
    HEAD,
    MASK_BITS,
    MAX_NODES,
    MAY_BID,
    NEVER,
    READY,
    RING,
    TAKEN,
    VC_ACCEPT,
    VC_GRANTS,
    WAITED,
    Network,
)

_CLASS = (1 << MASK_BITS) - 1


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
        output = (router << q.port_bits) + (candidate >> MASK_BITS)
        waits = q.outputs_at + output * q.output_stride + q.waits
        listed = state[WAITED]
        state[q.waited_at + listed] = output
        state[WAITED] = listed + 1 if is_empty(state, waits, q.classes * q.words) else listed
        join(q, state, waits + (candidate & _CLASS) * q.words, channel - (router << bits))


@inlined
def allocate_vcs(net, q: Network, state, now):  # type: ignore[no-untyped-def]
    """Match heads that wait to channels of outputs that no packet owns, router by router.

    If heads have one output each to ask for, the outputs of a router don't matter to each other."""
    listed = state[WAITED]
    left = 0
    if q.candidates > 1:
        _allocate_by_router(net, q, state, now)
    for k in range(listed):
        output = state[q.waited_at + k]
        router = output >> q.port_bits
        if q.candidates == 1 and not _serve_one(net, q, state, router, output, now):
            port = output - (router << q.port_bits)
            _match_channels(net, q, state, router, port, port + 1, now)
        left = _keep(q, state, output, left)
    state[WAITED] = left


@inlined
def _keep(q: Network, state, output, left):  # type: ignore[no-untyped-def]
    """List an output again if anybody still waits for it."""
    state[q.waited_at + left] = output
    waits = q.outputs_at + output * q.output_stride + q.waits
    return left if is_empty(state, waits, q.classes * q.words) else left + 1


@inlined
def _allocate_by_router(net, q: Network, state, now):  # type: ignore[no-untyped-def]
    """Heads may ask for several outputs of their router, so these are looked at together."""
    specials = 0
    for k in range(state[WAITED]):
        router = state[q.waited_at + k] >> q.port_bits
        if state[q.special + router] == 0:
            state[q.special + router] = 1
            state[q.specials + specials] = router
            specials += 1
    for k in range(specials):
        router = state[q.specials + k]
        state[q.special + router] = 0
        if not _serve_the_uncontested(net, q, state, router, now):
            _match_channels(net, q, state, router, 0, q.ports, now)


@inlined
def _serve_one(net, q: Network, state, router, output, now):  # type: ignore[no-untyped-def]
    """Whoever alone asks for an output gets the next free channel behind its pointer, under either allocator.

    Only where a set is one word, and heads ask for one output each. Returns whether nobody else can get a channel."""
    if q.words > 1:
        return False
    record = q.outputs_at + output * q.output_stride
    heads = state[record + q.waits]
    mask = net[q.class_masks]
    for k in range(1, q.classes):
        more = state[record + q.waits + k]
        if more != 0:
            mask = net[q.class_masks + k] if heads == 0 else mask | net[q.class_masks + k]
        heads |= more
    mask &= state[record + FREE]
    if mask == 0:
        return True
    first = output - (router << q.port_bits) << q.vc_bits
    if heads & (heads - 1) != 0:
        one_round = q.classes == 1 and q.vc_iterations == 1 and q.vc_separable == 0
        if one_round:
            _serve_several(net, q, state, router, record, heads, mask, first, now)
        return one_round
    waiter = lowest_bit(heads)
    inside = state[input_channel(q, router, waiter) + VC_ACCEPT] - first
    for k in range(q.classes):
        state[record + q.waits + k] = 0
    channel = first + next_bit(mask, inside if 0 < inside < MASK_BITS else 0)
    _own_channel(net, q, state, router, waiter, channel, True, now)
    return True


@inlined
def _serve_several(net, q: Network, state, router, record, heads, mask, first, now):  # type: ignore[no-untyped-def]
    """One iteration of iSLIP at an output: its free channels, `mask`, each grant to one of `heads`."""
    grants = q.grants_at + (router << (q.port_bits + q.vc_bits)) + first
    granted = 0
    while mask != 0:
        vc = lowest_bit(mask)
        mask &= mask - 1
        waiter = next_bit(heads, state[grants + vc])
        state[q.offers + waiter] |= 1 << vc
        granted |= 1 << waiter
    state[record + q.waits] = heads & ~granted
    while granted != 0:
        waiter = lowest_bit(granted)
        granted &= granted - 1
        inside = state[input_channel(q, router, waiter) + VC_ACCEPT] - first
        channel = first + next_bit(state[q.offers + waiter], inside if 0 < inside < MASK_BITS else 0)
        state[q.offers + waiter] = 0
        _own_channel(net, q, state, router, waiter, channel, True, now)


@inlined
def _serve_the_uncontested(net, q: Network, state, router, now):  # type: ignore[no-untyped-def]
    """As `_serve_one`, of the heads of a router that may ask for several outputs: those who ask alone for all of
    theirs."""
    if q.words > 1:
        return False
    asked = 0
    contested = 0
    for port in range(q.ports):
        output = output_port(q, router, port)
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
    return contested == 0


@inlined
def _match_channels(net, q: Network, state, router, first_port, after, now):  # type: ignore[no-untyped-def]
    """All iterations of the allocator over some outputs of a router."""
    for iteration in range(q.vc_iterations):
        if q.vc_separable != 0:
            matches = _choose_input_first(net, q, state, router, first_port, after)
        else:
            matches = _choose_output_first(net, q, state, router, first_port, after)
        for k in range(matches):
            waiter = state[q.winners + k]
            channel = state[q.offered + waiter]
            state[q.offered + waiter] = -1
            _take_channel(net, q, state, router, waiter, channel, iteration == 0, now)
        if matches == 0:
            break


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
def _choose_output_first(net, q: Network, state, router, first_port, after):  # type: ignore[no-untyped-def]
    """Each free channel grants to the next head behind its pointer, each head accepts the next grant.

    Leaves the heads matched in `winners` and their channels in `offered`; returns how many.
    """
    wrap = (1 << (q.port_bits + q.vc_bits)) - 1
    matches = 0
    for port in range(first_port, after):
        output = output_port(q, router, port)
        free = state[output + FREE]
        if q.classes == 1:
            free &= net[q.class_masks]
        while free != 0:
            vc = lowest_bit(free)
            free &= free - 1
            channel = (port << q.vc_bits) + vc
            grant = state[q.grants_at + (router << (q.port_bits + q.vc_bits)) + channel]
            if q.classes == 1:
                waiter = next_member(q, state, output + q.waits, grant)
            else:
                _collect_heads(net, q, state, output, vc)
                waiter = next_member(q, state, q.some, grant)
            if waiter < 0:
                continue
            behind = (channel - state[input_channel(q, router, waiter) + VC_ACCEPT]) & wrap
            matches = offer(state, q.offered, q.offered_distance, q.winners, matches, waiter, channel, behind)
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
def _choose_input_first(net, q: Network, state, router, first_port, after):  # type: ignore[no-untyped-def]
    """Each head asks for one free channel, the next behind its pointer; each of those grants to the next of the heads
    that ask. Returns as `_choose_output_first`."""
    wrap = (1 << (q.port_bits + q.vc_bits)) - 1
    for w in range(q.words):
        state[q.some + w] = 0
    for port in range(first_port, after):
        waits = output_port(q, router, port) + q.waits
        for k in range(q.classes):
            for w in range(q.words):
                state[q.some + w] |= state[waits + k * q.words + w]
    granting = 0
    for w in range(q.words):
        heads = state[q.some + w]
        while heads != 0:
            waiter = (w << q.word_bits) + lowest_bit(heads)
            heads &= heads - 1
            best = _nearest_channel(net, q, state, router, input_channel(q, router, waiter))
            if best < 0:
                continue
            behind = (waiter - state[q.grants_at + (router << (q.port_bits + q.vc_bits)) + best]) & wrap
            granting = offer(state, q.chosen, q.chosen_distance, q.touched, granting, best, waiter, behind)
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
        leave(q, state, output_port(q, router, port) + q.waits + (candidate & _CLASS) * q.words, waiter)
    _own_channel(net, q, state, router, waiter, channel, move_pointers, now)


@inlined
def _own_channel(net, q: Network, state, router, waiter, channel, move_pointers, now):  # type: ignore[no-untyped-def]
    first = router << (q.port_bits + q.vc_bits)
    taken = first + channel
    record = input_channel(q, router, waiter)
    state[output_port(q, router, channel >> q.vc_bits) + FREE] &= ~(1 << (channel & ((1 << q.vc_bits) - 1)))
    state[q.owners_at + taken] = first + waiter
    if move_pointers:
        state[q.grants_at + taken] = waiter + 1
        state[record + VC_ACCEPT] = channel + 1
    state[record + TAKEN] = taken
    state[VC_GRANTS] += 1
    if q.switch_alloc_cycles > 1:
        state[record + READY] = now + q.switch_alloc_cycles
        wake_at(q, state, now + q.switch_alloc_cycles, first + waiter, MAY_BID)
    elif state[q.credits_at + taken] != 0:  # this cycle's bids are over
        enter_bid(net, q, state, first + waiter, taken, 1)

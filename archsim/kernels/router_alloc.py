"""The two allocators of a router: waiting heads to channels of its outputs, and bidding flits to the crossbar.

Both are matchings with rotating pointers ("iSLIP", McKeown 1999: outputs grant, inputs accept; "separable": inputs
choose, outputs grant). Requesters stand in unsorted lists: who is next behind a pointer is found by its distance.
"""

from __future__ import annotations

from archsim.kernels.jit import inlined, lowest_bit
from archsim.kernels.router_state import (
    ACTIVE,
    BIDDERS,
    CREDITS,
    EXPANDED,
    FREE,
    MASK_BITS,
    NEVER,
    OUTPUT_BITS,
    PAIR_BITS,
    PLACE,
    READY,
    ROUTE_ROW,
    ROUTER_BITS,
    STATUS,
    SWITCH_ACCEPT,
    SWITCH_GRANT,
    TAIL_SENT,
    TAKEN,
    VC_ACCEPT,
    VC_GRANT,
    VC_GRANTS,
    VC_TURN,
    WAITERS,
    Network,
)

_MASK = (1 << MASK_BITS) - 1
_NOBODY = -1


@inlined
def input_channel(q: Network, router, channel):  # type: ignore[no-untyped-def]
    """Where the record of a channel of a router's inputs stands."""
    return q.inputs_at + ((router << (q.port_bits + q.vc_bits)) + channel) * q.channel_stride


@inlined
def output_channel(q: Network, router, channel):  # type: ignore[no-untyped-def]
    """Where the record of a channel of a router's outputs stands."""
    return q.output_channels_at + ((router << (q.port_bits + q.vc_bits)) + channel << OUTPUT_BITS)


@inlined
def output_port(q: Network, router, port):  # type: ignore[no-untyped-def]
    """Where the record of a router's output stands."""
    return q.outputs_at + ((router << q.port_bits) + port << PAIR_BITS)


@inlined
def crossbar_input(q: Network, router, expanded):  # type: ignore[no-untyped-def]
    """Where the record of an input of a router's crossbar stands."""
    return q.crossbar_at + ((router << (q.port_bits + q.speedup_bits)) + expanded << PAIR_BITS)


@inlined
def join_list(q: Network, state, lists, field, router, member):  # type: ignore[no-untyped-def]
    """Append an input's channel to one of a router's lists."""
    count = q.routers_at + (router << ROUTER_BITS) + field
    state[lists + (router << (q.port_bits + q.vc_bits)) + state[count]] = member
    state[input_channel(q, router, member) + PLACE] = state[count]
    state[count] += 1


@inlined
def leave_list(q: Network, state, lists, field, router, member):  # type: ignore[no-untyped-def]
    """Take an input's channel out of one of a router's lists; the last one moves to its place."""
    count = q.routers_at + (router << ROUTER_BITS) + field
    first = lists + (router << (q.port_bits + q.vc_bits))
    state[count] -= 1
    place = state[input_channel(q, router, member) + PLACE]
    last = state[first + state[count]]
    state[first + place] = last
    state[input_channel(q, router, last) + PLACE] = place


@inlined
def allocate_vcs(net, q: Network, state, router, now):  # type: ignore[no-untyped-def]
    """Match heads that wait at the inputs of a router to channels of its outputs that no packet owns."""
    for iteration in range(q.vc_iterations):
        contested = _contested_ports(net, q, state, router, now)
        if contested == _NOBODY:
            return
        if q.vc_separable != 0:
            matches = _choose_vcs_input_first(net, q, state, router, now)
        else:
            matches = _choose_vcs_output_first(net, q, state, router, contested, now)
        for k in range(matches):
            waiter = state[q.winners + k]
            channel = state[q.offered + waiter]
            state[q.offered + waiter] = -1
            if iteration == 0:
                state[output_channel(q, router, channel) + VC_GRANT] = waiter + 1
                state[input_channel(q, router, waiter) + VC_ACCEPT] = channel + 1
            _take_channel(q, state, router, waiter, channel, now)


@inlined
def _contested_ports(net, q: Network, state, router, now):  # type: ignore[no-untyped-def]
    """A mask of the outputs (modulo 32) that several heads ask for; _NOBODY if no head can ask for any."""
    list_at = q.waiters_at + (router << (q.port_bits + q.vc_bits))
    asked = 0
    contested = 0
    for k in range(state[q.routers_at + (router << ROUTER_BITS) + WAITERS]):
        record = input_channel(q, router, state[list_at + k])
        if state[record + READY] > now:
            continue
        row = state[record + ROUTE_ROW]
        for c in range(q.candidates):
            candidate = net[row + c]
            if candidate < 0:
                break
            port = candidate >> MASK_BITS
            if candidate & _MASK & state[output_port(q, router, port) + FREE] != 0:
                bit = _port_bit(port)
                contested |= asked & bit
                asked |= bit
    return contested if asked != 0 else _NOBODY


@inlined
def _port_bit(port):  # type: ignore[no-untyped-def]
    """One bit for an output; two outputs may share one, which costs time and changes nothing."""
    return 1 << (port & 31)


@inlined
def _nearest_channel(net, q: Network, state, router, record, contested):  # type: ignore[no-untyped-def]
    """The free channel next behind a head's pointer; -1 if there is none or if a port it asks for is `contested`."""
    wrap = (1 << (q.port_bits + q.vc_bits)) - 1
    pointer = state[record + VC_ACCEPT]
    row = state[record + ROUTE_ROW]
    best = -1
    nearest = NEVER
    for c in range(q.candidates):
        candidate = net[row + c]
        if candidate < 0:
            break
        port = candidate >> MASK_BITS
        mask = candidate & _MASK & state[output_port(q, router, port) + FREE]
        if mask == 0:
            continue
        if contested & _port_bit(port) != 0:
            return -1
        first = port << q.vc_bits
        beyond = mask >> (pointer - first) << (pointer - first) if first < pointer < first + MASK_BITS else mask
        channel = first + lowest_bit(beyond if beyond != 0 else mask)
        behind = (channel - pointer) & wrap
        if behind < nearest:
            nearest = behind
            best = channel
    return best


@inlined
def _choose_vcs_output_first(net, q: Network, state, router, contested, now):  # type: ignore[no-untyped-def]
    """Each free channel grants to the next requester behind its pointer, each requester accepts the next grant.

    Who alone asks for its ports gets all their grants, so only contested ones need be written down. Leaves the
    requesters matched in `winners` and their channels in `offered`; returns how many.
    """
    wrap = (1 << (q.port_bits + q.vc_bits)) - 1
    list_at = q.waiters_at + (router << (q.port_bits + q.vc_bits))
    granting = 0
    matches = 0
    for k in range(state[q.routers_at + (router << ROUTER_BITS) + WAITERS]):
        waiter = state[list_at + k]
        record = input_channel(q, router, waiter)
        if state[record + READY] > now:
            continue
        best = _nearest_channel(net, q, state, router, record, contested)
        if best >= 0:
            state[q.winners + matches] = waiter
            state[q.offered + waiter] = best
            matches += 1
            continue
        row = state[record + ROUTE_ROW]
        for c in range(q.candidates):
            candidate = net[row + c]
            if candidate < 0:
                break
            port = candidate >> MASK_BITS
            mask = candidate & _MASK & state[output_port(q, router, port) + FREE]
            while mask != 0:
                channel = (port << q.vc_bits) + lowest_bit(mask)
                mask &= mask - 1
                behind = (waiter - state[output_channel(q, router, channel) + VC_GRANT]) & wrap
                if state[q.chosen + channel] < 0:
                    state[q.touched + granting] = channel
                    granting += 1
                elif behind >= state[q.chosen_distance + channel]:
                    continue
                state[q.chosen + channel] = waiter
                state[q.chosen_distance + channel] = behind
    for k in range(granting):
        channel = state[q.touched + k]
        waiter = state[q.chosen + channel]
        state[q.chosen + channel] = -1
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
def _choose_vcs_input_first(net, q: Network, state, router, now):  # type: ignore[no-untyped-def]
    """Each requester asks for one free channel, the next behind its pointer; each of those grants to the next of its
    requesters. Returns as `_choose_vcs_output_first`."""
    wrap = (1 << (q.port_bits + q.vc_bits)) - 1
    list_at = q.waiters_at + (router << (q.port_bits + q.vc_bits))
    granting = 0
    for k in range(state[q.routers_at + (router << ROUTER_BITS) + WAITERS]):
        waiter = state[list_at + k]
        record = input_channel(q, router, waiter)
        if state[record + READY] > now:
            continue
        best = _nearest_channel(net, q, state, router, record, 0)
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
def _take_channel(q: Network, state, router, waiter, channel, now):  # type: ignore[no-untyped-def]
    """A head gets its channel: from now on its packet owns it, and bids for the crossbar."""
    vc = channel & ((1 << q.vc_bits) - 1)
    state[output_port(q, router, channel >> q.vc_bits) + FREE] &= ~(1 << vc)
    state[output_channel(q, router, channel) + TAIL_SENT] = 0
    leave_list(q, state, q.waiters_at, WAITERS, router, waiter)
    join_list(q, state, q.bidders_at, BIDDERS, router, waiter)
    record = input_channel(q, router, waiter)
    state[record + STATUS] = ACTIVE
    state[record + TAKEN] = channel
    state[record + READY] = now + q.switch_alloc_cycles
    state[VC_GRANTS] += 1


@inlined
def allocate_switch(q: Network, state, router, now):  # type: ignore[no-untyped-def]
    """Match bidding flits to the crossbar of a router: one per crossbar input and one per output.

    Leaves the winners (channels of inputs) in `winners`; returns how many.
    """
    requests = _collect_bids(q, state, router, now)
    if requests == 0:
        return 0
    matches = 0
    if _nothing_contested(q, state, requests):  # then every bid wins, under either allocator
        for k in range(requests):
            request = state[q.touched + k]
            matches = _match(
                q, state, router, request >> q.port_bits, request & ((1 << q.port_bits) - 1), matches, True
            )
    else:
        for iteration in range(q.switch_iterations):
            before = matches
            if q.switch_separable != 0:
                matches = _match_input_first(q, state, router, requests, matches, iteration == 0)
            else:
                matches = _match_output_first(q, state, router, requests, matches, iteration == 0)
            if matches == before:
                break
    for k in range(matches):
        request = state[q.winners + k]
        winner = state[q.label + request]
        expanded = request >> q.port_bits
        state[q.matched_in + expanded] = 0
        state[q.matched_out + (request & ((1 << q.port_bits) - 1))] = 0
        turn = (winner & ((1 << q.vc_bits) - 1)) + q.input_speedup
        state[crossbar_input(q, router, expanded) + VC_TURN] = turn if turn < q.vcs else turn - q.vcs
        state[q.winners + k] = winner
    for k in range(requests):
        state[q.label + state[q.touched + k]] = -1
    return matches


@inlined
def _collect_bids(q: Network, state, router, now):  # type: ignore[no-untyped-def]
    """Flits with a credit, at most one per crossbar input and output: the next by the input's turn.

    Leaves the requests, `crossbar input << port_bits | output`, in `touched` and who makes them in `label`.
    """
    list_at = q.bidders_at + (router << (q.port_bits + q.vc_bits))
    wrap = (1 << q.vc_bits) - 1
    requests = 0
    for k in range(state[q.routers_at + (router << ROUTER_BITS) + BIDDERS]):
        bidder = state[list_at + k]
        record = input_channel(q, router, bidder)
        channel = state[record + TAKEN]
        if state[record + READY] > now or state[output_channel(q, router, channel) + CREDITS] == 0:
            continue
        vc = bidder & wrap
        expanded = state[record + EXPANDED]
        request = (expanded << q.port_bits) + (channel >> q.vc_bits)
        behind = (vc - state[crossbar_input(q, router, expanded) + VC_TURN]) & wrap
        if state[q.label + request] < 0:
            state[q.touched + requests] = request
            requests += 1
        elif behind >= state[q.label_distance + request]:
            continue
        state[q.label + request] = bidder
        state[q.label_distance + request] = behind
    return requests


@inlined
def _nothing_contested(q: Network, state, requests):  # type: ignore[no-untyped-def]
    """Whether all requests come from different crossbar inputs and go to different outputs. (Rarely wrong, and then
    no: inputs and outputs are told apart modulo 64 and 32.)"""
    inputs = 0
    outputs = 0
    for k in range(requests):
        request = state[q.touched + k]
        input_bit = 1 << (request >> q.port_bits & 63)
        output_bit = _port_bit(request & ((1 << q.port_bits) - 1))
        if inputs & input_bit != 0 or outputs & output_bit != 0:
            return False
        inputs |= input_bit
        outputs |= output_bit
    return True


@inlined
def _match_output_first(q: Network, state, router, requests, matches, move_pointers):  # type: ignore[no-untyped-def]
    """One iteration of iSLIP over what is not matched yet."""
    outputs = (1 << q.port_bits) - 1
    wrap = (1 << (q.port_bits + q.speedup_bits)) - 1
    for k in range(requests):
        request = state[q.touched + k]
        expanded = request >> q.port_bits
        output = request & outputs
        if state[q.matched_in + expanded] + state[q.matched_out + output] != 0:
            continue
        behind = (expanded - state[output_port(q, router, output) + SWITCH_GRANT]) & wrap
        if state[q.chosen + output] < 0 or behind < state[q.chosen_distance + output]:
            state[q.chosen + output] = expanded
            state[q.chosen_distance + output] = behind
    for k in range(requests):
        output = state[q.touched + k] & outputs
        expanded = state[q.chosen + output]
        if expanded < 0:
            continue
        state[q.chosen + output] = -1
        behind = (output - state[crossbar_input(q, router, expanded) + SWITCH_ACCEPT]) & outputs
        if state[q.offered + expanded] < 0 or behind < state[q.offered_distance + expanded]:
            state[q.offered + expanded] = output
            state[q.offered_distance + expanded] = behind
    for k in range(requests):
        expanded = state[q.touched + k] >> q.port_bits
        output = state[q.offered + expanded]
        if output < 0:
            continue
        state[q.offered + expanded] = -1
        matches = _match(q, state, router, expanded, output, matches, move_pointers)
    return matches


@inlined
def _match_input_first(q: Network, state, router, requests, matches, move_pointers):  # type: ignore[no-untyped-def]
    """One iteration of a separable allocator over what is not matched yet: inputs choose, then outputs grant."""
    outputs = (1 << q.port_bits) - 1
    wrap = (1 << (q.port_bits + q.speedup_bits)) - 1
    for k in range(requests):
        request = state[q.touched + k]
        expanded = request >> q.port_bits
        output = request & outputs
        if state[q.matched_in + expanded] + state[q.matched_out + output] != 0:
            continue
        behind = (output - state[crossbar_input(q, router, expanded) + SWITCH_ACCEPT]) & outputs
        if state[q.offered + expanded] < 0 or behind < state[q.offered_distance + expanded]:
            state[q.offered + expanded] = output
            state[q.offered_distance + expanded] = behind
    for k in range(requests):
        expanded = state[q.touched + k] >> q.port_bits
        output = state[q.offered + expanded]
        if output < 0:
            continue
        state[q.offered + expanded] = -1
        behind = (expanded - state[output_port(q, router, output) + SWITCH_GRANT]) & wrap
        if state[q.chosen + output] < 0 or behind < state[q.chosen_distance + output]:
            state[q.chosen + output] = expanded
            state[q.chosen_distance + output] = behind
    for k in range(requests):
        output = state[q.touched + k] & outputs
        expanded = state[q.chosen + output]
        if expanded < 0:
            continue
        state[q.chosen + output] = -1
        matches = _match(q, state, router, expanded, output, matches, move_pointers)
    return matches


@inlined
def _match(q: Network, state, router, expanded, output, matches, move_pointers):  # type: ignore[no-untyped-def]
    """Enter a match; in the first iteration both pointers move behind it. Returns how many matches there are."""
    state[q.matched_in + expanded] = 1
    state[q.matched_out + output] = 1
    if move_pointers:
        state[output_port(q, router, output) + SWITCH_GRANT] = expanded + 1
        state[crossbar_input(q, router, expanded) + SWITCH_ACCEPT] = output + 1
    state[q.winners + matches] = (expanded << q.port_bits) + output
    return matches + 1

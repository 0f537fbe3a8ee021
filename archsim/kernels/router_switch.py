"""The allocator of the crossbar: flits that bid to a router's outputs, one per crossbar input and one per output.

As the allocator of channels a matching with rotating pointers ("islip" or "separable"). In the sets that bid, virtual
channels that share an input of the crossbar stand together, and the first of their places is the input's number: who is
next behind an input is found without looking at the others that share it.
"""

from __future__ import annotations

from archsim.kernels.jit import inlined, lowest_bit
from archsim.kernels.router_sets import (
    next_bit,
    next_member,
    offer,
    output_port,
    word_of,
)
from archsim.kernels.router_state import BID_FOR, BIDS, PAIR_BITS, SWITCH_ACCEPT, SWITCH_GRANT, VC_TURN, Network


@inlined
def crossbar_input(q: Network, router, expanded):  # type: ignore[no-untyped-def]
    """Where the record of an input of a router's crossbar stands."""
    return q.crossbar_at + ((router << (q.port_bits + q.vc_bits)) + expanded << PAIR_BITS)


@inlined
def grant_inputs(net, q: Network, state):  # type: ignore[no-untyped-def]
    """Each output that is bid for grants to the crossbar input next behind its pointer, in `inputs_granted`.

    Where no two outputs grant to the same input all grants are accepted, under iSLIP, and nothing is left for another
    iteration. Returns how many routers that isn't so of (or where inputs choose first): they are listed in `specials`.
    (Now and then one too many: inputs are told apart modulo 64.)
    """
    specials = 0
    for k in range(state[BID_FOR]):
        output = state[q.bid_at + k]
        router = output >> q.port_bits
        record = q.outputs_at + output * q.output_stride
        if q.words == 1:
            bids = state[record + BIDS]
            expanded = _input_of(net, q, next_bit(bids, state[record + SWITCH_GRANT]))
            choice = bids != bids & _places(net, q, expanded) << expanded
        else:
            expanded = _input_of(net, q, next_member(q, state, record + BIDS, state[record + SWITCH_GRANT]))
            choice = True
        state[q.inputs_granted + k] = expanded
        bit = 1 << (expanded & 63)
        seen = state[q.seen_at + router]
        state[q.seen_at + router] = seen | bit
        together = seen & bit != 0 or (q.switch_separable != 0 and choice)
        if together and state[q.special + router] == 0:
            state[q.special + router] = 1
            state[q.specials + specials] = router
            specials += 1
    return specials


@inlined
def match_switch(net, q: Network, state, router):  # type: ignore[no-untyped-def]
    """Match the bids of a router by iterations. Leaves outputs in `touched` and the crossbar inputs matched to them in
    `winners`; returns how many."""
    matches = 0
    for w in range(q.words):
        state[q.taken + w] = 0
    for iteration in range(q.switch_iterations):
        before = matches
        if q.switch_separable != 0:
            matches = _match_input_first(net, q, state, router, matches, iteration == 0)
        else:
            matches = _match_output_first(net, q, state, router, matches, iteration == 0)
        if matches == before:
            break
    for k in range(matches):
        state[q.matched + state[q.touched + k]] = 0
    return matches


@inlined
def _input_of(net, q: Network, place):  # type: ignore[no-untyped-def]
    """The crossbar input of a channel's place."""
    vcs = (1 << q.vc_bits) - 1
    return (place & ~vcs) + net[q.starts + (place & vcs)]


@inlined
def _places(net, q: Network, expanded):  # type: ignore[no-untyped-def]
    """A mask of the places of a crossbar input, from its first one on."""
    return net[q.parts + (expanded & ((1 << q.vc_bits) - 1))]


@inlined
def _collect_inputs(q: Network, state, output):  # type: ignore[no-untyped-def]
    """Leave the bids for an output whose crossbar inputs aren't taken in `some`."""
    for w in range(q.words):
        state[q.some + w] = state[output + BIDS + w] & ~state[q.taken + w]


@inlined
def _match_output_first(net, q: Network, state, router, matches, moving):  # type: ignore[no-untyped-def]
    """One iteration of iSLIP over what is not matched yet."""
    wrap = (1 << q.port_bits) - 1
    offers = 0
    for port in range(q.ports):
        if state[q.matched + port] != 0:
            continue
        output = output_port(q, router, port)
        _collect_inputs(q, state, output)
        place = next_member(q, state, q.some, state[output + SWITCH_GRANT])
        if place < 0:
            continue
        expanded = _input_of(net, q, place)
        behind = (port - state[crossbar_input(q, router, expanded) + SWITCH_ACCEPT]) & wrap
        offers = offer(state, q.offered, q.offered_distance, q.chosen_distance, offers, expanded, port, behind)
    for k in range(offers):
        expanded = state[q.chosen_distance + k]
        port = state[q.offered + expanded]
        state[q.offered + expanded] = -1
        matches = _match(net, q, state, router, expanded, port, matches, moving)
    return matches


@inlined
def _match_input_first(net, q: Network, state, router, matches, moving):  # type: ignore[no-untyped-def]
    """One iteration of a separable allocator over what is not matched yet: inputs choose, then outputs grant."""
    wrap = (1 << q.port_bits) - 1
    inputs_wrap = (1 << (q.port_bits + q.vc_bits)) - 1
    asking = 0
    for port in range(q.ports):
        if state[q.matched + port] != 0:
            continue
        _collect_inputs(q, state, output_port(q, router, port))
        for v in range(q.words):
            inputs = state[q.some + v]
            while inputs != 0:
                expanded = (v << q.word_bits) + lowest_bit(inputs)  # the first place that bids
                expanded = _input_of(net, q, expanded)
                inputs &= ~(_places(net, q, expanded) << (expanded & ((1 << q.word_bits) - 1)))
                behind = (port - state[crossbar_input(q, router, expanded) + SWITCH_ACCEPT]) & wrap
                asking = offer(state, q.offered, q.offered_distance, q.chosen_distance, asking, expanded, port, behind)
    # Each output takes the next of those that chose it: `chosen` by output.
    for k in range(asking):
        expanded = state[q.chosen_distance + k]
        port = state[q.offered + expanded]
        grant = state[output_port(q, router, port) + SWITCH_GRANT]
        rival = state[q.chosen + port]
        if rival < 0 or (expanded - grant) & inputs_wrap < (rival - grant) & inputs_wrap:
            state[q.chosen + port] = expanded
    for k in range(asking):
        expanded = state[q.chosen_distance + k]
        port = state[q.offered + expanded]
        state[q.offered + expanded] = -1
        if state[q.chosen + port] == expanded:
            state[q.chosen + port] = -1
            matches = _match(net, q, state, router, expanded, port, matches, moving)
    return matches


@inlined
def _match(net, q: Network, state, router, expanded, port, matches, moving):  # type: ignore[no-untyped-def]
    """Enter a match; in the first iteration both pointers move behind it. Returns how many matches there are."""
    state[q.matched + port] = 1
    state[q.taken + word_of(q, expanded)] |= _places(net, q, expanded) << (expanded & ((1 << q.word_bits) - 1))
    if moving:
        move_pointers(net, q, state, router, expanded, port)
    state[q.touched + matches] = port
    state[q.winners + matches] = expanded
    return matches + 1


@inlined
def move_pointers(net, q: Network, state, router, expanded, port):  # type: ignore[no-untyped-def]
    """Output and crossbar input have matched: next time they begin behind each other."""
    vcs = (1 << q.vc_bits) - 1
    behind = (expanded & ~vcs) + net[q.ends + (expanded & vcs)]
    state[output_port(q, router, port) + SWITCH_GRANT] = behind
    state[crossbar_input(q, router, expanded) + SWITCH_ACCEPT] = port + 1


@inlined
def winning_place(net, q: Network, state, router, output, expanded):  # type: ignore[no-untyped-def]
    """Of the channels that share a crossbar input and bid for an output, the place of the next by the input's turn,
    which moves."""
    word = state[output + BIDS + word_of(q, expanded)] >> (expanded & ((1 << q.word_bits) - 1))
    turn = crossbar_input(q, router, expanded) + VC_TURN
    place = expanded + next_bit(word & _places(net, q, expanded), state[turn])
    state[turn] = net[q.turns + (place & ((1 << q.vc_bits) - 1))]
    return place

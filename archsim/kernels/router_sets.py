"""Sets of a router's channels and ports, as bits of words, and who is next in one of them behind a pointer."""

from __future__ import annotations

from archsim.kernels.jit import inlined, lowest_bit
from archsim.kernels.router_state import BID_FOR, BIDS, Network


@inlined
def word_of(q: Network, member):  # type: ignore[no-untyped-def]
    """The word of a set in which a channel stands."""
    return 0 if q.words == 1 else member >> q.word_bits


@inlined
def join(q: Network, state, at, member):  # type: ignore[no-untyped-def]
    """Put a channel or a port into a set."""
    state[at + word_of(q, member)] |= 1 << (member & ((1 << q.word_bits) - 1))


@inlined
def join_if(q: Network, state, at, member, joins):  # type: ignore[no-untyped-def]
    """Put a channel or a port into a set if `joins` is 1 (not if it is 0), without a branch."""
    state[at + word_of(q, member)] |= joins << (member & ((1 << q.word_bits) - 1))


@inlined
def leave(q: Network, state, at, member):  # type: ignore[no-untyped-def]
    """Take a channel or a port out of a set."""
    state[at + word_of(q, member)] &= ~(1 << (member & ((1 << q.word_bits) - 1)))


@inlined
def leave_if(q: Network, state, at, member, leaves):  # type: ignore[no-untyped-def]
    """Take a channel or a port out of a set if `leaves` is 1 (not if it is 0), without a branch."""
    state[at + word_of(q, member)] &= ~(leaves << (member & ((1 << q.word_bits) - 1)))


@inlined
def is_empty(state, at, count):  # type: ignore[no-untyped-def]
    """Whether nobody is in a set of so many words."""
    for w in range(count):  # noqa: SIM110  (numba)
        if state[at + w] != 0:
            return False
    return True


@inlined
def next_bit(word, pointer):  # type: ignore[no-untyped-def]
    """The member next at or behind `pointer`, going round, of a set of one word that isn't empty."""
    beyond = word >> pointer << pointer
    return lowest_bit(beyond if beyond != 0 else word)


@inlined
def next_member(q: Network, state, at, pointer):  # type: ignore[no-untyped-def]
    """The member of a set next at or behind `pointer`, going round; -1 if nobody is in it."""
    if q.words == 1:
        word = state[at]
        return next_bit(word, pointer) if word != 0 else -1
    inside = (1 << q.word_bits) - 1
    first = pointer >> q.word_bits
    for k in range(q.words + 1):
        w = first + k if first + k < q.words else first + k - q.words
        word = state[at + w]
        if k == 0:
            word = word >> (pointer & inside) << (pointer & inside)
        if word != 0:
            return (w << q.word_bits) + lowest_bit(word)
    return -1


@inlined
def offer(state, offers, distances, listed, count, to, what, behind):  # type: ignore[no-untyped-def]
    """Offer something that lies so far behind the pointer of `to`, whose nearest offer stands; `offers` are -1 where
    there is none yet. Whoever gets a first one is listed. Returns how many are."""
    if state[offers + to] < 0:
        state[listed + count] = to
        count += 1
    elif behind >= state[distances + to]:
        return count
    state[offers + to] = what
    state[distances + to] = behind
    return count


@inlined
def input_channel(q: Network, router, channel):  # type: ignore[no-untyped-def]
    """Where the record of a channel of a router's inputs stands."""
    return q.inputs_at + ((router << (q.port_bits + q.vc_bits)) + channel) * q.input_stride


@inlined
def output_port(q: Network, router, port):  # type: ignore[no-untyped-def]
    """Where the record of a router's output stands."""
    return q.outputs_at + ((router << q.port_bits) + port) * q.output_stride


@inlined
def enter_bid(net, q: Network, state, channel, taken, bid):  # type: ignore[no-untyped-def]
    """If `bid` is 1 (not if it is 0) the first flit of an input's channel may cross to the output that its packet has
    a channel of. Nobody could predict which it is, so there is no branch for it."""
    output = taken >> q.vc_bits
    bids = q.outputs_at + output * q.output_stride + BIDS
    listed = state[BID_FOR]
    state[q.bid_at + listed] = output
    state[BID_FOR] = listed + bid if is_empty(state, bids, q.words) else listed
    vcs = (1 << q.vc_bits) - 1
    port = channel & ((1 << (q.port_bits + q.vc_bits)) - 1) & ~vcs
    join_if(q, state, bids, port + net[q.places + (channel & vcs)], bid)

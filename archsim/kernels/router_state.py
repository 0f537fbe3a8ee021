"""A network of routers as integers: what never changes, what does, and where each part of it stands.

Everything is one flat int64 array (`tables` for what never changes, `state` for what does), so a network can be copied,
hashed and compared in one call, and a kernel passes raw pointers. Sizes differ from network to network, so offsets are
not constants here but fields of `Network`, a tuple of ints.

Indices. Ports and virtual channels are numbered with strides that are powers of two, so that shifts take them apart: a
*port* is `router << port_bits | port`, a *channel* of a router `port << vc_bits | vc`. Inputs and outputs are numbered
alike. Outputs have more entries behind those of the routers: the *sources*, one per node. Circular order, which is all
that the allocators use, doesn't mind the numbers left out.

Sets. Who waits and who bids at an output is a set of channels of the router's inputs, a bit each: one word where they
fit (62 channels; an 8 x 8 mesh with 8 virtual channels has 40), else words of 32. Times are cycles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from archsim.kernels.special import Size

NEVER = np.int64(1) << 60

# Where an output leads to: an input port, or one of these.
NOWHERE = -1
FIRST_NODE = -2  # node n is FIRST_NODE - n

# A route candidate is `port << MASK_BITS | class`; -1 ends the list. A class is a set of virtual channels.
MASK_BITS = 32
MAX_VCS = 31

# A flit is `packet << PACKET_SHIFT | destination << FLIT_BITS | index << 1 | tail`.
FLIT_BITS = 21
MAX_FLITS = (1 << (FLIT_BITS - 1)) - 1
NODE_BITS = 12
MAX_NODES = 1 << NODE_BITS
PACKET_SHIFT = FLIT_BITS + NODE_BITS
MAX_PACKETS = 1 << (62 - PACKET_SHIFT)

# Registers at the head of the state.
NOW = 0
NEXT_PACKET = 1  # first packet not yet handed to its source
IN_FLIGHT = 2  # packets handed to their source and not yet delivered
BUSY_NODES = 3
WAITED = 12  # outputs that a head waits for
BID_FOR = 13  # outputs that a flit bids for
LAST_MOVE = 4  # cycle in which a flit last moved
STUCK = 5  # 1 if no flit moved for `patience` cycles though some wait
LOG_LENGTH = 6
INJECTED = 7  # flits, by sources
EJECTED = 8  # flits, by destinations
CROSSED = 9  # flits through a router's crossbar
LINKED = 10  # flits over a link between routers
VC_GRANTS = 11
REGISTERS = 16

# Columns of `packets` and `times`.
CREATED, SOURCE, DESTINATION, FLITS = range(4)
ENTERED, DELIVERED, NEXT_IN_QUEUE = range(3)

# Columns of the log, and its kinds.
LOG_COLUMNS = 6  # cycle, kind, where from, channel taken, packet, flit of the packet
INJECT, HOP, EJECT = range(3)

# Fields of an input's channel; its flits, a ring, follow. A channel without a packet that has got its next channel
# (TAKEN) and with a flit holds a head that is routed and waits.
HEAD = 0  # flits that have left since it was empty
TAIL = 1  # flits that have come since then
READY = 2  # first cycle in which its flit may bid, where the switch's stage takes more than one
TAKEN = 3  # output and channel there that its packet owns, -1 for none
VC_ACCEPT = 4  # pointer: the channel of the outputs it likes best
HOME = 5  # where its credits go: a channel of an output (or source) and, from HOME_BITS on, after how many cycles
HOME_BITS = 40
RING = 6
LINE = 8  # words of a cache line

# Of an output's channel, each in an array of its own: its credits (places free behind it, and TAIL_SENT while its
# packet's tail has left and the credits are waited for); its grant pointer, the channel of the inputs it likes best;
# its owner, the input's channel whose packet took it last (-1: a source's).
TAIL_SENT = 1 << 32

# Fields of an output. Behind them the sets of the inputs' channels that bid for it, and that wait for one of its
# channels, by class.
FREE = 0  # mask of the channels that no packet owns
SWITCH_GRANT = 1  # pointer: the crossbar input it likes best
LEADS = 2  # from a channel of it to the one that it leads to: the difference, and a low bit for a node
ARRIVES = 3  # after how many cycles
BIDS = 4

# Fields of a crossbar input.
VC_TURN = 0  # place among its channels of the one that bids first
SWITCH_ACCEPT = 1  # pointer: the output it likes best

# Fields of a link, by output.
LINK_TO = 0
LINK_CYCLES = 1
# Fields of a link, by input.
LINK_FROM = 0
CREDIT_CYCLES = 1
PAIR_BITS = 1  # of the three records above: two words each

# Kinds of events. A cycle's slot of the wheel begins with how many of each there are.
FLIT = 0  # arrives at a channel of an input: channel, flit
LAST_FLIT = 1  # arrives at a node, from a channel of an output: channel, flit
CREDIT = 2  # comes home to a channel of an output
WAKE = 3  # of a channel: a stage of its router has passed
KINDS = 4

# What a WAKE is for, in its low bits.
MAY_ASK, MAY_BID, IS_FREE = range(3)
WAKE_BITS = 2

# Fields of a source.
QUEUE_HEAD = 0
QUEUE_TAIL = 1
QUEUE_FLIT = 2  # next flit of the packet at the head
QUEUE_VC = 3  # -1 if it has none yet
LAST_VC = 4
NODE_IS_BUSY = 5
SOURCE_BITS = 3


class Form(NamedTuple):
    """What the kernel is compiled for, of a network of the common form (`router_layout.form_of`); else all empty."""

    node_bits: Size = ()  # room for that many routers and that many nodes
    port_bits: Size = ()
    vc_bits: Size = ()
    ring_bits: Size = ()  # flits of a buffer


NO_FORM = Form()


class Network(NamedTuple):
    """Sizes, stages and offsets. `*_cycles` are stages of a router; the policy is docs/noc_policy.md."""

    nodes: int
    routers: int
    ports: int
    vcs: int
    depth: int
    input_speedup: int
    routing_cycles: int
    vc_alloc_cycles: int
    switch_alloc_cycles: int
    crossbar_cycles: int
    credit_cycles: int
    wait_for_tail_credit: int
    vc_separable: int
    vc_iterations: int
    switch_separable: int
    switch_iterations: int
    candidates: int
    classes: int  # different sets of channels among the routes
    patience: int
    # strides and sizes
    vc_bits: int = 0
    port_bits: int = 0
    word_bits: int = 0  # of a set of channels
    words: int = 0
    input_stride: int = 0
    ring_mask: int = 0
    output_stride: int = 0
    waits: int = 0  # offset in an output's record of its sets of channels that wait
    sources: int = 0  # the first output that is a source
    outputs: int = 0  # sources included
    wheel: int = 0
    slot_stride: int = 0
    flit_slot: int = 0  # flits of one kind that a slot has room for
    # offsets in a slot
    flits: int = 0
    credits: int = 0
    wakes: int = 0
    # offsets in the tables
    link_of_output: int = 0
    link_of_input: int = 0
    class_masks: int = 0
    places: int = 0
    starts: int = 0
    ends: int = 0
    parts: int = 0
    turns: int = 0
    channel_at: int = 0
    route: int = 0
    table_length: int = 0
    # offsets in the state
    waited_at: int = 0
    bid_at: int = 0
    seen_at: int = 0  # by router, the crossbar inputs that an output grants to
    inputs_granted: int = 0  # by place in `bid_at`
    special: int = 0  # by router, whether its outputs have to be looked at together
    specials: int = 0
    inputs_at: int = 0
    crossbar_at: int = 0
    outputs_at: int = 0
    credits_at: int = 0
    grants_at: int = 0
    owners_at: int = 0
    sources_at: int = 0
    busy_nodes_at: int = 0
    # scratch of the allocators
    some: int = 0
    taken: int = 0
    chosen: int = 0
    chosen_distance: int = 0
    offered: int = 0
    offered_distance: int = 0
    touched: int = 0
    winners: int = 0
    matched: int = 0
    offers: int = 0
    slots: int = 0  # one for each cycle ahead; last, so that no offset depends on their number
    state_length: int = 0
    form: Form = NO_FORM


def new_state(network: Network, tables: np.ndarray) -> np.ndarray:
    """An empty network at cycle 0: all buffers empty, all credits at home, all arbiters at their first input.

    What an output or an input's channel looks up about its link in every cycle is copied into its record."""
    q = network
    room = np.zeros(q.state_length + LINE, np.int64)
    first = -room.ctypes.data // room.itemsize % LINE  # records are lines of the cache
    state = room[first : first + q.state_length]
    state[q.credits_at : q.grants_at] = q.depth
    state[q.owners_at : q.sources_at] = -1
    outputs = state[q.outputs_at : q.credits_at].reshape(-1, q.output_stride)
    inputs = state[q.inputs_at : q.crossbar_at].reshape(-1, 1 << q.vc_bits, q.input_stride)
    sources = state[q.sources_at : q.busy_nodes_at].reshape(-1, 1 << SOURCE_BITS)
    to, cycles = tables[q.link_of_output : q.link_of_input].reshape(-1, 2).T
    change = np.where(to >= 0, to - np.arange(len(to)), 0) << q.vc_bits
    outputs[:, FREE] = (1 << q.vcs) - 1
    outputs[:, LEADS] = change << 1 | (to < 0)
    outputs[:, ARRIVES] = cycles + 1
    outputs[: q.sources, ARRIVES] += q.crossbar_cycles
    origin, back = tables[q.link_of_input : q.class_masks].reshape(-1, 2).T
    home = (np.maximum(origin, 0)[:, None] << q.vc_bits) + np.arange(1 << q.vc_bits)
    inputs[:, :, HOME] = home | (back[:, None] + 1) << HOME_BITS
    inputs[:, :, TAKEN] = -1
    sources[:, [QUEUE_HEAD, QUEUE_TAIL, QUEUE_VC, LAST_VC]] = -1
    state[q.chosen : q.chosen_distance] = -1
    state[q.offered : q.offered_distance] = -1
    return state


def crossbar_tables(network: Network) -> np.ndarray:
    """How the virtual channels of a port stand in the sets that bid: together if they share an input of the crossbar.

    By virtual channel its place. By place: the first place of its input, which is the input's number; the first one
    behind the input; a mask of the input's places from its first one on; the place from its first one on that is looked
    at first after this one has won; the virtual channel.
    """
    q = network
    size = 1 << q.vc_bits
    order = sorted(range(q.vcs), key=lambda vc: (vc % q.input_speedup, vc))
    table = np.zeros((6, size), np.int64)
    for place, vc in enumerate(order):
        part = [other for other in order if other % q.input_speedup == vc % q.input_speedup]
        start = order.index(part[0])
        turn = (vc + q.input_speedup) % q.vcs
        table[0, vc] = place
        table[1:, place] = (
            start, start + len(part), (1 << len(part)) - 1, next((k for k, c in enumerate(part) if c >= turn), 0), vc,
        )  # fmt: skip
    return table.ravel()

"""A network of routers as integers: what never changes, what does, and where each part of it stands.

Everything is one flat int64 array (`tables` for what never changes, `state` for what does), so a network can be copied,
hashed and compared in one call, and a kernel passes raw pointers. Sizes differ from network to network, so offsets are
not constants here but fields of `Network`, a tuple of ints.

Indices. Ports, virtual channels and crossbar inputs are numbered with strides that are powers of two, so that shifts
take them apart: a *port* is `router << port_bits | port`, a *channel* of a port `port << vc_bits | vc`. Inputs and
outputs are numbered alike. Outputs have more entries behind those of the routers: the *sources*, one per node. Circular
order, which is all that the allocators use, doesn't mind the numbers left out. Times are cycles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NEVER = np.int64(1) << 60

# Where an output leads to: an input port, or one of these.
NOWHERE = -1
FIRST_NODE = -2  # node n is FIRST_NODE - n

# A route candidate is `port << MASK_BITS | mask of virtual channels`; -1 ends the list.
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
BUSY_ROUTERS = 3
BUSY_NODES = 4
PENDING = 5  # flits and credits under way on links
LAST_MOVE = 6  # cycle in which a flit last moved
STUCK = 7  # 1 if no flit moved for `patience` cycles though some wait
LOG_LENGTH = 8
INJECTED = 9  # flits, by sources
EJECTED = 10  # flits, by destinations
CROSSED = 11  # flits through a router's crossbar
LINKED = 12  # flits over a link between routers
VC_GRANTS = 13
REGISTERS = 16

# Columns of `packets` and `times`.
CREATED, SOURCE, DESTINATION, FLITS = range(4)
ENTERED, DELIVERED, NEXT_IN_QUEUE = range(3)

# Columns of the log, and its kinds.
LOG_COLUMNS = 6  # cycle, kind, where from, channel taken, packet, flit of the packet
INJECT, HOP, EJECT = range(3)

# States of an input's channel.
IDLE, WAITING, ACTIVE = range(3)

# Fields of an input's channel; its flits, a ring of `depth`, follow.
STATUS = 0
FIRST = 1  # place of the first flit in the ring
COUNT = 2
READY = 3  # first cycle in which it may ask
TAKEN = 4  # channel of the router's outputs that its packet owns
ROUTE_ROW = 5  # first candidate in the tables
PLACE = 6  # in the router's list
VC_ACCEPT = 7  # pointer: the channel of the outputs it likes best
EXPANDED = 8  # its crossbar input, of the router's
RING = 9

# Fields of an output's channel.
CREDITS = 0
TAIL_SENT = 1
VC_GRANT = 2  # pointer: the channel of the inputs it likes best
OUTPUT_BITS = 2

# Fields of a crossbar input.
VC_TURN = 0  # virtual channel that bids first
SWITCH_ACCEPT = 1  # pointer: the output it likes best

# Fields of an output.
FREE = 0  # mask of the channels that no packet owns
SWITCH_GRANT = 1  # pointer: the crossbar input it likes best

# Fields of a link, by output.
LINK_TO = 0
LINK_CYCLES = 1
# Fields of a link, by input.
LINK_FROM = 0
CREDIT_CYCLES = 1
PAIR_BITS = 1  # of the four records above: two words each

# Fields of a router.
WAITERS = 0
BIDDERS = 1
IS_BUSY = 2
ROUTER_BITS = 2

# Fields of a source.
QUEUE_HEAD = 0
QUEUE_TAIL = 1
QUEUE_FLIT = 2  # next flit of the packet at the head
QUEUE_VC = 3  # -1 if it has none yet
LAST_VC = 4
NODE_IS_BUSY = 5
SOURCE_BITS = 3


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
    patience: int
    wheel: int
    slot: int
    # strides
    vc_bits: int = 0
    port_bits: int = 0
    speedup_bits: int = 0
    channel_stride: int = 0
    sources: int = 0  # the first output that is a source
    # offsets in the tables
    link_of_output: int = 0
    link_of_input: int = 0
    route: int = 0
    table_length: int = 0
    # offsets in the state
    routers_at: int = 0
    inputs_at: int = 0
    waiters_at: int = 0
    bidders_at: int = 0
    crossbar_at: int = 0
    outputs_at: int = 0
    output_channels_at: int = 0
    sources_at: int = 0
    busy_routers_at: int = 0
    busy_nodes_at: int = 0
    slot_count: int = 0
    events: int = 0
    # scratch of the allocators
    chosen: int = 0
    chosen_distance: int = 0
    offered: int = 0
    offered_distance: int = 0
    touched: int = 0
    winners: int = 0
    label: int = 0
    label_distance: int = 0
    matched_in: int = 0
    matched_out: int = 0
    state_length: int = 0


def _bits(count: int) -> int:
    return (count - 1).bit_length()


def lay_out(network: Network, longest_link_cycles: int) -> Network:
    """The same network with its strides, the size of its event wheel, and offsets."""
    q = network
    vc_bits, port_bits, speedup_bits = _bits(q.vcs), _bits(q.ports), _bits(q.input_speedup)
    ports = q.routers << port_bits
    outputs = ports + q.nodes
    channels = 1 << (port_bits + vc_bits)
    stride = RING + q.depth
    # In one cycle arrive at most one flit per output and source, one credit per crossbar input and one per destination.
    slot = q.routers * q.ports * (1 + q.input_speedup) + 2 * q.nodes
    wheel = 1 << (2 + longest_link_cycles + max(q.crossbar_cycles, q.credit_cycles)).bit_length()
    crossbar = 1 << (port_bits + speedup_bits)
    scratch = max(channels, crossbar)
    requests = crossbar << port_bits
    tables = (
        ("link_of_output", outputs << PAIR_BITS), ("link_of_input", ports << PAIR_BITS),
        ("route", q.routers * q.nodes * q.candidates),
    )  # fmt: skip
    parts = (
        ("routers_at", q.routers << ROUTER_BITS), ("inputs_at", q.routers * channels * stride),
        ("waiters_at", q.routers * channels), ("bidders_at", q.routers * channels),
        ("crossbar_at", q.routers * crossbar << PAIR_BITS), ("outputs_at", outputs << PAIR_BITS),
        ("output_channels_at", outputs << vc_bits << OUTPUT_BITS), ("sources_at", q.nodes << SOURCE_BITS),
        ("busy_routers_at", q.routers), ("busy_nodes_at", q.nodes),
        ("slot_count", wheel), ("events", wheel * slot * 2),
        ("chosen", scratch), ("chosen_distance", scratch), ("offered", scratch), ("offered_distance", scratch),
        ("touched", max(scratch, requests)), ("winners", scratch),
        ("label", requests), ("label_distance", requests), ("matched_in", scratch), ("matched_out", scratch),
    )  # fmt: skip
    fields = {
        "vc_bits": vc_bits, "port_bits": port_bits, "speedup_bits": speedup_bits, "channel_stride": stride,
        "sources": ports, "wheel": wheel, "slot": slot,
    }  # fmt: skip
    for sizes, start, total in ((tables, 0, "table_length"), (parts, REGISTERS, "state_length")):
        at = start
        for name, size in sizes:
            fields[name] = at
            at += size
        fields[total] = at
    return network._replace(**fields)


def new_state(network: Network) -> np.ndarray:
    """An empty network at cycle 0: all buffers empty, all credits at home, all arbiters at their first input."""
    q = network
    state = np.zeros(q.state_length, np.int64)
    state[q.output_channels_at + CREDITS : q.sources_at : 1 << OUTPUT_BITS] = q.depth
    state[q.outputs_at + FREE : q.output_channels_at : 1 << PAIR_BITS] = (1 << q.vcs) - 1
    inputs = state[q.inputs_at : q.waiters_at].reshape(q.routers, 1 << q.port_bits, 1 << q.vc_bits, q.channel_stride)
    crossbar = np.arange(1 << q.port_bits)[:, None] << q.speedup_bits
    inputs[:, :, :, EXPANDED] = crossbar + np.arange(1 << q.vc_bits) % q.input_speedup
    sources = state[q.sources_at : q.busy_routers_at].reshape(q.nodes, 1 << SOURCE_BITS)
    sources[:, [QUEUE_HEAD, QUEUE_TAIL, QUEUE_VC, LAST_VC]] = -1
    state[q.chosen : q.chosen_distance] = -1
    state[q.offered : q.offered_distance] = -1
    state[q.label : q.label_distance] = -1
    turns = state[q.crossbar_at + VC_TURN : q.outputs_at : 1 << PAIR_BITS].reshape(-1, 1 << q.speedup_bits)
    turns[:] = np.arange(1 << q.speedup_bits)
    return state

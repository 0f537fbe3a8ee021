"""Where each part of a network of routers stands in its arrays: offsets, and those that the compiler may know.

A network of the common form is laid out in rooms of a few sizes: its offsets follow from its `Form`, whose lengths are
types to the compiler (kernels/special.py), so they are constants of the machine code. That makes the kernel a third
faster: none of them is kept in a register or fetched from the stack. What a room has too much of is never touched.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
from numba.core import types
from numba.extending import intrinsic

from archsim.kernels.jit import inlined
from archsim.kernels.router_state import (
    BIDS,
    KINDS,
    LINE,
    NO_FORM,
    PAIR_BITS,
    REGISTERS,
    RING,
    SOURCE_BITS,
    Form,
    Network,
)

_COMMON = {
    "routing_cycles": 0, "vc_alloc_cycles": 1, "switch_alloc_cycles": 1, "candidates": 1, "classes": 1,
    "vc_separable": 0, "vc_iterations": 1, "switch_separable": 0, "switch_iterations": 1,
}  # fmt: skip
"""The common form: one output for a head to ask for, stages of one cycle, one iteration of iSLIP."""

_WORD_CHANNELS = 62
"""Channels of a router whose sets are one word."""

_ROOM_NODE_BITS = (6, 8, 10, 12)
_ROOM_PORT_BITS, _ROOM_VC_BITS, _ROOM_RING_BITS = 3, 3, 3
"""The least that a room of the common form has, so that most networks share one compiled kernel."""


class _Room(NamedTuple):
    """The numbers that offsets follow from."""

    routers: int
    nodes: int
    ports: int
    vcs: int
    input_speedup: int
    candidates: int
    classes: int
    vc_bits: int
    port_bits: int
    words: int
    ring: int


def lay_out(network: Network, longest_link_cycles: int) -> Network:
    """The same network with its strides, the sizes of its event wheels, and offsets."""
    q = network
    farthest = max(
        longest_link_cycles + max(q.crossbar_cycles, q.credit_cycles),
        q.routing_cycles + q.vc_alloc_cycles,
        q.switch_alloc_cycles,
    )
    wheel = 1 << (2 + farthest).bit_length()
    form = form_of(q)
    fields = _offsets(_common_room(form) if form.node_bits else _own_room(q))
    length = fields["slots"] + wheel * fields["slot_stride"]
    return q._replace(form=form, wheel=wheel, state_length=length, **fields)


def form_of(q: Network) -> Form:
    """What to compile the kernel for."""
    common = all(getattr(q, name) == value for name, value in _COMMON.items())
    if not common or q.ports << _bits(q.vcs) > _WORD_CHANNELS:
        return NO_FORM
    needed = _bits(max(q.routers, q.nodes))
    node_bits = next((bits for bits in _ROOM_NODE_BITS if bits >= needed), needed)
    fits = q.ports << _ROOM_VC_BITS <= _WORD_CHANNELS
    vc_bits = max(_bits(q.vcs), _ROOM_VC_BITS) if fits else _bits(q.vcs)
    sizes = (
        node_bits, max(_bits(q.ports), _ROOM_PORT_BITS), vc_bits, max(_bits(q.depth), _ROOM_RING_BITS),
    )  # fmt: skip
    return Form(*((None,) * size for size in sizes))


def _bits(count: int) -> int:
    return (count - 1).bit_length()


def _own_room(q: Network) -> _Room:
    vc_bits = _bits(q.vcs)
    channels = q.ports << vc_bits
    words = 1 if channels <= _WORD_CHANNELS else -(-channels >> 5)
    return _Room(
        q.routers, q.nodes, q.ports, q.vcs, q.input_speedup, q.candidates, q.classes, vc_bits, _bits(q.ports), words,
        1 << _bits(q.depth),
    )  # fmt: skip


def _common_room(form: Form) -> _Room:
    node_bits, port_bits, vc_bits, ring_bits = map(len, form)
    nodes, ports, vcs = 1 << node_bits, 1 << port_bits, 1 << vc_bits
    return _Room(nodes, nodes, ports, vcs, vcs, 1, 1, vc_bits, port_bits, 1, 1 << ring_bits)


def _offsets(room: _Room) -> dict[str, int]:
    """Strides, sizes and offsets, by field of `Network`."""
    vc_bits = room.vc_bits
    ports = room.routers << room.port_bits
    outputs = ports + room.nodes
    input_stride, waits = -(-(RING + room.ring) // LINE) * LINE, BIDS + room.words
    output_stride = -(-(waits + room.classes * room.words) // LINE) * LINE
    # In one cycle arrive at most one flit per output and source, one credit per crossbar input and destination; wake at
    # most all channels that were taken at once, and what came or left one stage ago.
    flit_slot = room.routers * room.ports + room.nodes
    credit_slot = room.routers * room.ports * room.input_speedup + room.nodes
    wake_slot = room.routers * room.ports * (room.vcs + 2 * room.input_speedup + 3)
    scratch = (room.ports << vc_bits) + 1
    slot = (("counts", KINDS), ("flits", 4 * flit_slot), ("credits", credit_slot), ("wakes", wake_slot))
    tables = (
        ("link_of_output", outputs << PAIR_BITS), ("link_of_input", ports << PAIR_BITS), ("class_masks", room.classes),
        *((name, 1 << vc_bits) for name in ("places", "starts", "ends", "parts", "turns", "channel_at")),
        ("route", room.routers * room.nodes * room.candidates),
    )  # fmt: skip
    parts = (
        ("waited_at", ports + 1), ("bid_at", ports + 1), ("inputs_granted", ports),
        ("seen_at", room.routers), ("special", room.routers), ("specials", room.routers),
        ("inputs_at", (ports << vc_bits) * input_stride), ("crossbar_at", ports << vc_bits << PAIR_BITS),
        ("outputs_at", outputs * output_stride), ("credits_at", outputs << vc_bits), ("grants_at", outputs << vc_bits),
        ("owners_at", outputs << vc_bits), ("sources_at", room.nodes << SOURCE_BITS), ("busy_nodes_at", room.nodes),
        ("some", room.words), ("taken", room.words), ("chosen", scratch), ("chosen_distance", scratch),
        ("offered", scratch), ("offered_distance", scratch), ("touched", scratch), ("winners", scratch),
        ("matched", scratch), ("offers", scratch), ("slots", 0),
    )  # fmt: skip
    fields = {
        "vc_bits": vc_bits, "port_bits": room.port_bits, "word_bits": 6 if room.words == 1 else 5, "words": room.words,
        "input_stride": input_stride, "ring_mask": room.ring - 1, "output_stride": output_stride, "waits": waits,
        "sources": ports, "outputs": outputs, "flit_slot": flit_slot,
    }  # fmt: skip
    fields["table_length"] = _place(tables, 0, 1, fields)
    _place(parts, REGISTERS, LINE, fields)
    fields["slot_stride"] = _place(slot, 0, LINE, fields)
    del fields["counts"]  # they stand first
    return fields


def _place(parts: tuple[tuple[str, int], ...], start: int, unit: int, fields: dict[str, int]) -> int:
    """Give parts of these sizes their offsets, one behind the other; returns where the next would stand."""
    at = start
    for name, size in parts:
        fields[name] = at
        at += -(-size // unit) * unit
    return at


@intrinsic
def _constant_layout(_typing: Any, q: Any) -> Any:
    """The network with each field that follows from its form as a constant; as it is, if it has none."""
    form = dict(zip(q.fields, q.types, strict=True))["form"]
    sizes = Form(*((None,) * len(size) for size in form))
    constants = _COMMON | _offsets(_common_room(sizes)) if sizes.node_bits else {}

    def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        network = arguments[0]
        for name, value in constants.items():
            known = context.get_constant(types.int64, value)
            network = builder.insert_value(network, known, q.fields.index(name))
        return network

    return q(q), codegen


if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]

    def known_layout(q: Network) -> Network:
        """The network itself."""
        return q

else:

    @inlined
    def known_layout(q: Network) -> Network:
        """The network, with offsets that are constants of the machine code where its form says what they are."""
        return _constant_layout(q)  # type: ignore[no-any-return,call-arg]

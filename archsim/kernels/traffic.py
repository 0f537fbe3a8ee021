"""Packets of synthetic traffic: who sends when to whom, from counters alone.

Whether a node creates a packet in a cycle depends on a hash of seed, cycle and node and on nothing else, so any stretch
of cycles can be made again, in any order.
"""

from __future__ import annotations

import numpy as np

from archsim.kernels.jit import kernel

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)

RATE_BITS = 32
"""A rate of packets per node and cycle is a whole number of 2^-32."""


@kernel
def mixed(word: np.uint64) -> np.uint64:
    """The output function of SplitMix64 (Steele, Lea, Flood 2014): every bit of the result depends on every bit."""
    word = (word ^ (word >> np.uint64(30))) * _FIRST
    word = (word ^ (word >> np.uint64(27))) * _SECOND
    return word ^ (word >> np.uint64(31))


@kernel
def generate(seed, nodes, rate, flits, table, hot, hot_share, first, after, packets):  # type: ignore[no-untyped-def]
    """Write the packets that are created in the cycles [first, after), sorted by cycle and node; returns how many.

    Args:
        seed: uint64.
        nodes: number of nodes; each draws once per cycle.
        rate, hot_share: probability of a packet, and of its going to one of `hot`, in units of 2^-RATE_BITS.
        flits: flits of each packet.
        table: int64[nodes], the destination of each node, or -1: any node, itself included, with equal probability;
            -2: any other node.
        hot: int64[k], hot spots (may be empty).
        packets: int64[n, 4], written: created, source, destination, flits. Must have room.
    """
    count = 0
    draws = np.empty(nodes, np.uint64)
    senders = np.empty(nodes, np.int64)
    for cycle in range(first, after):
        base = seed + _STEP * np.uint64(cycle * nodes + 1)
        for node in range(nodes):  # without a branch, so that it is done several at a time
            draws[node] = mixed(base + _STEP * np.uint64(node))
        sending = 0
        for node in range(nodes):  # without a branch, for nobody could predict it
            senders[sending] = node
            sending += np.int64(draws[node] >> np.uint64(64 - RATE_BITS)) < rate
        for k in range(sending):
            node = senders[k]
            draw = draws[node]
            low = np.int64(mixed(draw ^ _STEP) >> np.uint64(33))  # 31 bits, so that a product with them is an int64
            destination = table[node]
            if hot.size > 0 and np.int64(mixed(draw + _STEP) >> np.uint64(64 - RATE_BITS)) < hot_share:
                destination = hot[low * hot.size >> 31]
            elif destination == -1:
                destination = low * nodes >> 31
            elif destination == -2:
                destination = low * (nodes - 1) >> 31
                if destination >= node:
                    destination += 1
            packets[count, 0] = cycle
            packets[count, 1] = node
            packets[count, 2] = destination
            packets[count, 3] = flits
            count += 1
    return count

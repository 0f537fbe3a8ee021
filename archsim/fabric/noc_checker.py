"""What no network may do, whatever its policy: read off the log of moves, knowing nothing of the kernel's state.

Checked: every flit goes from its source to its destination over links that are there and channels that its route
allows, in order, once; a link and a crossbar input carry one flit per cycle; a channel belongs to one packet from head
to tail (and, where tail credits are waited for, until its buffer is empty); no buffer gets more flits than it has room
for, by the credits that have come home; no stage is shorter than it is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from archsim.fabric.noc import Ints, RouterNetwork
from archsim.kernels.router_state import DESTINATION, EJECT, FIRST_NODE, FLITS, HOP, INJECT, SOURCE

MOST_REPORTED = 20


@dataclass(frozen=True, slots=True)
class _Move:
    cycle: int
    kind: int
    came: int
    went: int
    packet: int
    index: int


def check_moves(network: RouterNetwork, packets: Ints, log: Ints, finished: bool = True) -> list[str]:
    """Violations in a log, at most MOST_REPORTED of them, in words.

    `packets` are those of the run, in its order; `finished` says that all of them should have arrived.
    """
    checker = _Checker(network, packets, [_Move(*row) for row in sorted(map(tuple, log.tolist()))])
    found = []
    for violation in checker.violations(finished):
        found.append(violation)
        if len(found) == MOST_REPORTED:
            break
    return found


class _Checker:
    def __init__(self, network: RouterNetwork, packets: Ints, moves: list[_Move]) -> None:
        self._q = network.network
        self._wiring = network.wiring
        self._packets = packets
        self._moves = moves
        by_flit: dict[tuple[int, int], list[_Move]] = defaultdict(list)
        for move in moves:
            by_flit[move.packet, move.index].append(move)
        self._by_flit = by_flit

    def violations(self, finished: bool) -> Iterator[str]:
        yield from self._one_at_a_time()
        yield from self._ways()
        if finished:
            yield from self._all_arrived()
        yield from self._channels()

    def _one_at_a_time(self) -> Iterator[str]:
        q = self._q
        uses: Counter[tuple[int, str, int]] = Counter()
        for move in self._moves:
            if move.kind == EJECT:
                uses[move.cycle, "link to node", move.went] += 1
            else:
                uses[move.cycle, "output", move.went >> q.vc_bits] += 1
            if move.kind == HOP:
                port, vc = move.came >> q.vc_bits, move.came & ((1 << q.vc_bits) - 1)
                uses[move.cycle, "crossbar input", port * q.input_speedup + vc % q.input_speedup] += 1
        for (cycle, what, number), count in uses.items():
            if count > 1:
                yield f"cycle {cycle}: {count} flits over {what} {number}"

    def _ways(self) -> Iterator[str]:
        """Each flit's moves follow each other over real links, no sooner than the stages allow."""
        for (packet, index), moves in self._by_flit.items():
            name = f"flit {index} of packet {packet}"
            first = moves[0]
            if first.kind != INJECT or first.came != self._packets[packet, SOURCE]:
                yield f"{name} starts at {first.came}, not at its source"
                continue
            if first.cycle < self._packets[packet, 0]:
                yield f"{name} leaves its source in cycle {first.cycle}, before it is made"
            for before, after in pairwise(moves):
                yield from self._step(name, before, after, packet, index)

    def _step(self, name: str, before: _Move, after: _Move, packet: int, index: int) -> Iterator[str]:
        q = self._q
        destination = int(self._packets[packet, DESTINATION])
        leads_to, arrival = self._arrival(before)
        if after.kind == EJECT:
            if leads_to != FIRST_NODE - destination or after.came != before.went or after.cycle != arrival:
                yield f"cycle {after.cycle}: {name} arrives at node {after.went}, sent to {destination}"
            return
        vc = before.went & ((1 << q.vc_bits) - 1)
        if after.kind != HOP or leads_to < 0 or after.came != (leads_to << q.vc_bits) + vc:
            yield f"cycle {after.cycle}: {name} crosses from channel {after.came}, but isn't there"
            return
        stages = q.routing_cycles + q.vc_alloc_cycles + q.switch_alloc_cycles - 1 if index == 0 else 0
        if after.cycle < arrival + stages:
            yield f"cycle {after.cycle}: {name} crosses {arrival + stages - after.cycle} cycles too soon"
        router = after.went >> (q.vc_bits + q.port_bits)
        port, next_vc = (after.went >> q.vc_bits) - (router << q.port_bits), after.went & ((1 << q.vc_bits) - 1)
        if router != after.came >> (q.vc_bits + q.port_bits):
            yield f"cycle {after.cycle}: {name} leaves router {router} without having come there"
        elif not any(p == port and mask >> next_vc & 1 for p, mask in self._wiring.routes[router][destination]):
            yield f"cycle {after.cycle}: {name} leaves router {router} by port {port}, channel {next_vc}: not its route"

    def _arrival(self, move: _Move) -> tuple[int, int]:
        """Where a move leads to (an input, or FIRST_NODE - node), and when it is there."""
        q = self._q
        output = move.went >> q.vc_bits
        if output >= q.sources:
            node = output - q.sources
            for router in range(q.routers):
                for port in range(q.ports):
                    if self._wiring.link_to[router, port] == FIRST_NODE - node:
                        cycles = int(self._wiring.link_cycles[router, port])
                        return (router << q.port_bits) + port, move.cycle + 1 + cycles
        router, port = output >> q.port_bits, output & ((1 << q.port_bits) - 1)
        target = int(self._wiring.link_to[router, port])
        if target >= 0:
            target = (target // q.ports << q.port_bits) + target % q.ports
        return target, move.cycle + 1 + q.crossbar_cycles + int(self._wiring.link_cycles[router, port])

    def _all_arrived(self) -> Iterator[str]:
        for packet, row in enumerate(self._packets):
            for index in range(int(row[FLITS])):
                moves = self._by_flit.get((packet, index), [])
                ends = sum(move.kind == EJECT for move in moves)
                if ends != 1:
                    yield f"flit {index} of packet {packet} arrives {ends} times"

    def _channels(self) -> Iterator[str]:
        """Per channel: packets whole and in order, and never more flits under way than the buffer has room for."""
        sent: dict[int, list[_Move]] = defaultdict(list)
        for move in self._moves:
            if move.kind != EJECT:
                sent[move.went].append(move)
        for channel, moves in sent.items():
            yield from self._whole_packets(channel, moves)
            yield from self._credits(channel, moves)

    def _whole_packets(self, channel: int, moves: list[_Move]) -> Iterator[str]:
        expected, packet = 0, -1
        for move in moves:
            if move.index != expected or (expected > 0 and move.packet != packet):
                yield (
                    f"cycle {move.cycle}: channel {channel} carries flit {move.index} of packet {move.packet}, "
                    f"but belongs to packet {packet}"
                )
                return
            packet = move.packet
            expected = 0 if move.index + 1 == int(self._packets[packet, FLITS]) else move.index + 1

    def _credits(self, channel: int, moves: list[_Move]) -> Iterator[str]:
        """Credits at home are depth less flits sent plus places freed, each after its way back."""
        q = self._q
        home: list[int] = []
        for move in moves:
            following = self._following(move)
            if following is not None:
                delay = self._arrival(move)[1] - move.cycle - (0 if move.kind == INJECT else q.crossbar_cycles)
                home.append(following.cycle + delay + (0 if move.kind == INJECT else q.credit_cycles))
        for number, move in enumerate(moves):
            back = sum(1 for cycle in home[:number] if cycle <= move.cycle)
            if number - back >= q.depth:
                yield f"cycle {move.cycle}: channel {channel} sends without a credit"
            if q.wait_for_tail_credit and move.index == 0 and number != back:
                yield f"cycle {move.cycle}: channel {channel} starts a packet before it is empty"

    def _following(self, move: _Move) -> _Move | None:
        moves = self._by_flit[move.packet, move.index]
        at = moves.index(move)
        return moves[at + 1] if at + 1 < len(moves) else None

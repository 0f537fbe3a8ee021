"""Collectives as explicit schedules: who sends which chunk to whom, after which arrivals.

A message is cut into `chunks` equal parts. A send carries one chunk from node to node; the target adds it to what it
has (`reduces`) or takes it instead. Nodes 0 to devices - 1 are the devices, node `devices` is a switch that adds.
`delivered` follows the data through a schedule, knowing nothing of time, so that `mistakes` can prove that every
device ends with every contribution exactly once. References: Thakur, Rabenseifner and Gropp, IJHPCA 19 (2005), for
ring, recursive doubling, binomial tree; Klenk et al., ISCA 2020, for the reduction in the switch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from archsim.config.errors import UserError, listed
from archsim.fabric.closed_form import Outline
from archsim.fabric.operations import Algorithm, Operation


@dataclass(frozen=True, slots=True)
class Send:
    """One chunk from `source` to `target`, which may start once the sends `after` (indices) have arrived."""

    step: int
    source: int
    target: int
    chunk: int
    reduces: bool = False
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """The sends of a collective, ordered by step; `owners` says who starts with a chunk (all_gather, all_to_all,
    broadcast) or ends with its sum (reduce_scatter); `steps` is the longest chain of sends that wait for each other."""

    operation: Operation
    algorithm: Algorithm
    devices: int
    chunks: int
    sends: tuple[Send, ...]
    owners: tuple[int, ...]

    @property
    def steps(self) -> int:
        """The longest chain of sends of which each waits for the one before."""
        depth: list[int] = []
        for send in self.sends:
            depth.append(1 + max((depth[index] for index in send.after), default=0))
        return max(depth, default=0)

    @property
    def parts(self) -> int:
        """How many chunks make a message: all, but in an all-to-all every device has its own message."""
        return self.chunks // self.devices if self.operation is Operation.ALL_TO_ALL else self.chunks

    def chunk_bytes(self, message_bytes: int) -> int:
        """Bytes of one chunk of a message, the last one padded."""
        return -(-message_bytes // self.parts)

    @property
    def outline(self) -> Outline:
        """Its size; slots are those of the device that sends most."""
        sent = Counter(send.source for send in self.sends if send.source < self.devices)
        return Outline(self.parts, self.steps, max(sent.values()), max(sent.values()))


# ---------------------------------------------------------------- following the data


def delivered(schedule: Schedule) -> dict[tuple[int, int], Counter[int]]:
    """What every (node, chunk) holds in the end: how often each device's contribution is in it.

    A send carries what its source had at first, changed by those arrivals alone that the send waits for: a
    dependency that the schedule forgets makes contributions be missing here."""
    carried: list[Counter[int]] = []
    for send in schedule.sends:
        awaited = [i for i in send.after if _lands(schedule.sends[i], send.source, send.chunk)]
        carried.append(_combined(schedule, send.source, send.chunk, awaited, carried))
    arrivals: dict[tuple[int, int], list[int]] = {}
    for index, send in enumerate(schedule.sends):
        arrivals.setdefault((send.target, send.chunk), []).append(index)
    return {
        (device, chunk): _combined(schedule, device, chunk, arrivals.get((device, chunk), []), carried)
        for device in range(schedule.devices)
        for chunk in range(schedule.chunks)
    }


def mistakes(schedule: Schedule) -> list[str]:
    """In words, where a schedule does not do what its operation is; empty if it is right."""
    found = []
    held = delivered(schedule)
    for (device, chunk), contributions in held.items():
        wanted = _wanted(schedule, device, chunk)
        if wanted is not None and contributions != wanted:
            found.append(f"device {device} ends with {dict(contributions)} in chunk {chunk}, not {dict(wanted)}")
    return found


def _lands(send: Send, node: int, chunk: int) -> bool:
    return send.target == node and send.chunk == chunk


def _combined(
    schedule: Schedule, node: int, chunk: int, arrivals: Iterable[int], carried: list[Counter[int]]
) -> Counter[int]:
    held = _initial(schedule, node, chunk)
    for index in sorted(arrivals):
        held = held + carried[index] if schedule.sends[index].reduces else Counter(carried[index])
    return held


def _initial(schedule: Schedule, node: int, chunk: int) -> Counter[int]:
    if node >= schedule.devices:
        return Counter()  # a switch has no data of its own
    if schedule.operation in (Operation.ALL_REDUCE, Operation.REDUCE_SCATTER):
        return Counter([node])
    return Counter([node]) if schedule.owners[chunk] == node else Counter()


def _wanted(schedule: Schedule, device: int, chunk: int) -> Counter[int] | None:
    """What `device` must end with in `chunk`; None where it doesn't matter."""
    owner = schedule.owners[chunk]
    match schedule.operation:
        case Operation.ALL_REDUCE:
            return Counter(range(schedule.devices))
        case Operation.REDUCE_SCATTER:
            return Counter(range(schedule.devices)) if device == owner else None
        case Operation.ALL_TO_ALL:
            return Counter([owner]) if chunk % schedule.devices == device else None
        case _:
            return Counter([owner])


# ---------------------------------------------------------------- building


class _Builder:
    """Collects sends step by step and works out what each has to wait for."""

    def __init__(self) -> None:
        self.sends: list[Send] = []
        self._at: dict[tuple[int, int], list[int]] = {}
        self._last: dict[int, list[int]] = {}
        self._step = 0

    def step(self, sends: Iterable[tuple[int, int, int, bool]], *, gated: bool = True) -> None:
        """Sends (source, target, chunk, reduces) that don't wait for each other.

        Each waits for earlier arrivals of its chunk; if `gated`, for all of its source's last step (a device starts a
        step when it has finished the one before)."""
        first = len(self.sends)
        for source, target, chunk, reduces in sends:
            awaited = set(self._at.get((source, chunk), ())) | (set(self._last.get(source, ())) if gated else set())
            self.sends.append(Send(self._step, source, target, chunk, reduces, tuple(sorted(awaited))))
        last: dict[int, list[int]] = {}
        for index in range(first, len(self.sends)):
            send = self.sends[index]
            self._at.setdefault((send.target, send.chunk), []).append(index)
            last.setdefault(send.target, []).append(index)
        self._last.update(last)
        self._step += 1


def build(operation: Operation, algorithm: Algorithm, devices: int, group: int | None = None) -> Schedule:
    """The schedule of a collective among `devices` devices; `group` of them share a package or node (hierarchical).

    Raises UserError for fewer than two devices, and where the algorithm can't do the operation on so many."""
    require_schedule(operation, algorithm, devices, group)
    return _built(operation, algorithm, devices, group)


def require_schedule(operation: Operation, algorithm: Algorithm, devices: int, group: int | None = None) -> None:
    """Raise UserError if there is no such schedule."""
    if devices < 2:
        raise UserError(
            f"a {algorithm} of {devices} device{'' if devices == 1 else 's'}", expected="at least 2 devices"
        )
    if algorithm not in algorithms_for(operation):
        raise UserError(f"{algorithm} can't do {operation}", expected=f"{listed(algorithms_for(operation))}, or auto")
    if algorithm is Algorithm.RECURSIVE_DOUBLING and devices & (devices - 1):
        raise UserError(f"recursive doubling among {devices} devices", expected="a power of two devices")
    if algorithm is Algorithm.HIERARCHICAL and (group is None or not 1 < group < devices or devices % group):
        raise UserError(
            f"a hierarchical collective of {devices} devices in groups of {group or devices}",
            expected="equal groups of at least two devices, and at least two groups",
        )


@lru_cache(maxsize=256)
def _built(operation: Operation, algorithm: Algorithm, devices: int, group: int | None) -> Schedule:
    builder = _Builder()
    owners = tuple(range(devices))
    chunks = devices
    match algorithm, operation:
        case Algorithm.RING, Operation.ALL_REDUCE:
            _ring_reduce(builder, devices)
            _ring_gather(builder, devices, first=1)
        case Algorithm.RING, Operation.REDUCE_SCATTER:
            _ring_reduce(builder, devices)
            owners = tuple((chunk - 1) % devices for chunk in range(devices))
        case Algorithm.RING, Operation.ALL_GATHER:
            _ring_gather(builder, devices, first=0)
        case Algorithm.RING, Operation.BROADCAST:
            _chain(builder, devices)
            owners = (0,) * devices
        case Algorithm.DIRECT, Operation.ALL_REDUCE:
            _direct_reduce(builder, devices)
            _direct_gather(builder, devices)
        case Algorithm.DIRECT, Operation.REDUCE_SCATTER:
            _direct_reduce(builder, devices)
        case Algorithm.DIRECT, Operation.ALL_GATHER:
            _direct_gather(builder, devices)
        case Algorithm.DIRECT, Operation.ALL_TO_ALL:
            chunks, owners = devices**2, tuple(chunk // devices for chunk in range(devices**2))
            builder.step((d, peer, d * devices + peer, False) for d, peer in _pairs(devices))
        case Algorithm.DIRECT, Operation.BROADCAST:
            chunks, owners = 1, (0,)
            builder.step((0, peer, 0, False) for peer in range(1, devices))
        case Algorithm.ONE_SHOT, Operation.ALL_REDUCE:
            chunks, owners = 1, (0,)
            builder.step((d, peer, 0, True) for d, peer in _pairs(devices))
        case Algorithm.TREE, Operation.ALL_REDUCE:
            chunks, owners = 1, (0,)
            _tree_reduce(builder, devices)
            _tree_broadcast(builder, devices)
        case Algorithm.TREE, Operation.BROADCAST:
            chunks, owners = 1, (0,)
            _tree_broadcast(builder, devices)
        case Algorithm.RECURSIVE_DOUBLING, Operation.ALL_REDUCE:
            chunks, owners = 1, (0,)
            for distance in _distances(devices):
                builder.step((d, d ^ distance, 0, True) for d in range(devices))
        case Algorithm.RECURSIVE_DOUBLING, Operation.ALL_GATHER:
            for distance in _distances(devices):
                builder.step((d, d ^ distance, c, False) for d in range(devices) for c in _block(d, distance))
        case Algorithm.RECURSIVE_DOUBLING, Operation.REDUCE_SCATTER:
            for distance in reversed(_distances(devices)):
                builder.step((d, d ^ distance, c, True) for d in range(devices) for c in _block(d ^ distance, distance))
        case Algorithm.IN_NETWORK, Operation.ALL_REDUCE:
            _through_switch(builder, devices)
        case Algorithm.HIERARCHICAL, Operation.ALL_REDUCE:
            assert group is not None  # require_schedule has seen to it
            owners = (0,) * devices
            _two_level(builder, devices, group)
    return Schedule(operation, algorithm, devices, chunks, tuple(builder.sends), owners)


ALGORITHMS: dict[Operation, tuple[Algorithm, ...]] = {
    Operation.ALL_REDUCE: (
        Algorithm.RING,
        Algorithm.TREE,
        Algorithm.RECURSIVE_DOUBLING,
        Algorithm.DIRECT,
        Algorithm.ONE_SHOT,
        Algorithm.HIERARCHICAL,
        Algorithm.IN_NETWORK,
    ),
    Operation.ALL_GATHER: (Algorithm.RING, Algorithm.RECURSIVE_DOUBLING, Algorithm.DIRECT),
    Operation.REDUCE_SCATTER: (Algorithm.RING, Algorithm.RECURSIVE_DOUBLING, Algorithm.DIRECT),
    Operation.ALL_TO_ALL: (Algorithm.DIRECT,),
    Operation.BROADCAST: (Algorithm.RING, Algorithm.TREE, Algorithm.DIRECT),
}


def algorithms_for(operation: Operation) -> tuple[Algorithm, ...]:
    """The algorithms that have a schedule for an operation."""
    return ALGORITHMS[operation]


def _pairs(devices: int) -> Iterator[tuple[int, int]]:
    """(device, peer) so that in each round every device sends to one and receives from one."""
    return ((d, (d + shift) % devices) for shift in range(1, devices) for d in range(devices))


def _distances(devices: int) -> tuple[int, ...]:
    return tuple(1 << bit for bit in range(devices.bit_length() - 1))


def _block(device: int, size: int) -> range:
    """The aligned block of `size` chunks that holds the device's own."""
    return range(device // size * size, device // size * size + size)


def _ring_reduce(builder: _Builder, devices: int) -> None:
    """Device d ends with the sum of chunk d + 1."""
    for step in range(devices - 1):
        builder.step((d, (d + 1) % devices, (d - step) % devices, True) for d in range(devices))


def _ring_gather(builder: _Builder, devices: int, first: int) -> None:
    """Device d starts with chunk d + `first`."""
    for step in range(devices - 1):
        builder.step((d, (d + 1) % devices, (d + first - step) % devices, False) for d in range(devices))


def _chain(builder: _Builder, devices: int) -> None:
    """Device 0 passes the message on piece by piece, and so does everyone who gets a piece."""
    for wave in range(2 * devices - 2):
        builder.step(((d, d + 1, wave - d, False) for d in range(devices - 1) if 0 <= wave - d < devices), gated=False)


def _direct_reduce(builder: _Builder, devices: int) -> None:
    builder.step((d, peer, peer, True) for d, peer in _pairs(devices))


def _direct_gather(builder: _Builder, devices: int) -> None:
    builder.step((d, peer, d, False) for d, peer in _pairs(devices))


def _tree_reduce(builder: _Builder, devices: int) -> None:
    distance = 1
    while distance < devices:
        builder.step((d, d - distance, 0, True) for d in range(distance, devices, 2 * distance))
        distance *= 2


def _tree_broadcast(builder: _Builder, devices: int) -> None:
    distance = 1 << ((devices - 1).bit_length() - 1)
    while distance:
        builder.step((d, d + distance, 0, False) for d in range(0, devices - distance, 2 * distance))
        distance //= 2


def _through_switch(builder: _Builder, devices: int) -> None:
    """The switch adds up a chunk for its owner, who stores it back to all through the switch (multicast)."""
    switch = devices
    builder.step(((d, switch, c, True) for c in range(devices) for d in range(devices)), gated=False)
    builder.step(((switch, c, c, False) for c in range(devices)), gated=False)
    builder.step(((c, switch, c, False) for c in range(devices)), gated=False)
    builder.step(((switch, d, c, False) for c in range(devices) for d in range(devices) if d != c), gated=False)


def _two_level(builder: _Builder, devices: int, size: int) -> None:
    """Reduce-scatter inside the groups, all-reduce of each part across them, all-gather inside, each as a ring.

    Part p of `size` is chunks p * groups to (p + 1) * groups - 1. All groups (and all parts) go at the same time."""
    groups = devices // size
    inside = [range(g * size, (g + 1) * size) for g in range(groups)]
    for step in range(size - 1):
        builder.step(
            (members[m], members[(m + 1) % size], part * groups + c, True)
            for members in inside
            for m in range(size)
            for part in ((m - step) % size,)
            for c in range(groups)
        )
    for phase in (0, 1):
        for step in range(groups - 1):
            builder.step(
                (
                    g * size + m,
                    (g + 1) % groups * size + m,
                    (m + 1) % size * groups + (g + phase - step) % groups,
                    not phase,
                )
                for m in range(size)
                for g in range(groups)
            )
    for step in range(size - 1):
        builder.step(
            (members[m], members[(m + 1) % size], part * groups + c, False)
            for members in inside
            for m in range(size)
            for part in ((m + 1 - step) % size,)
            for c in range(groups)
        )

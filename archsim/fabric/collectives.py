"""How long collectives of equal devices take, in integer femtoseconds.

`message_bytes` is the whole message: what a device holds before an all-reduce, reduce-scatter, all-to-all or
broadcast, and what it holds after an all-gather. It is cut into the equal chunks of a schedule (schedule.py).

time = launch (of an eager one) + base latency + simulated schedule (simulate.py), in which every step pays the
protocol's step latency. Behind a switch, or around a ring, all devices do the same at the same time and the simulation
has a closed form, steps x (step latency + wire latency) + chunks that follow each other x bytes / rate, which is used
instead (closed_form.py). It is the same number, bit for bit. The library estimates what it may choose from and takes
the fastest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil

from archsim.config.errors import UserError, listed
from archsim.fabric.closed_form import Outline, outline
from archsim.fabric.links import LinkSpec, ProtocolSpec
from archsim.fabric.operations import SCHEDULED, Algorithm, Operation, operation_named
from archsim.fabric.schedule import algorithms_for, build, require_schedule
from archsim.fabric.simulate import serialisation_fs, simulate
from archsim.fabric.wires import Shape, TopologySpec

SWITCH_PROTOCOL = "Simple"
"""The only protocol that reductions in the switch have."""


@dataclass(frozen=True, slots=True)
class CollectiveTime:
    """How long a collective takes and what a device sends.

    total_fs = latency_fs + transfer_fs. `link_bytes` leave the device that sends most (of equal devices: each one);
    `steps` follow each other, each of `step_bytes` from every device."""

    total_fs: int
    latency_fs: int
    transfer_fs: int
    link_bytes: int
    protocol: str
    steps: int
    step_bytes: int
    algorithm: Algorithm


NOTHING = CollectiveTime(0, 0, 0, 0, "none", 0, 0, Algorithm.AUTO)


def collective(
    operation: str,
    devices: int,
    message_bytes: int,
    link: LinkSpec,
    *,
    algorithm: Algorithm | None = None,
    fmt: str | None = None,
) -> CollectiveTime:
    """The time of `operation` over a link, by its fastest algorithm and protocol, or by the algorithm asked for.

    Without `algorithm` the link's own choice holds where it can do the operation, else the fastest. `fmt` is the number
    format of the data; without it, one that a switch can add. Equally fast choices are taken in the order of the link's
    lists. Raises UserError for an unknown operation, fewer than one device, less than one byte and an `algorithm` that
    can't do it."""
    wanted = operation_named(operation)
    _check_size(devices, message_bytes)
    if devices == 1:
        return NOTHING
    time = _fastest(wanted, devices, message_bytes, link, algorithm, fmt)
    return replace(time, total_fs=time.total_fs + link.launch_fs, latency_fs=time.latency_fs + link.launch_fs)


def _fastest(
    wanted: Operation, devices: int, message_bytes: int, link: LinkSpec, algorithm: Algorithm | None, fmt: str | None
) -> CollectiveTime:
    if algorithm is None and _possible(wanted, link.algorithm, devices, link, fmt):
        algorithm = link.algorithm
    if algorithm not in (None, Algorithm.AUTO):
        return min(_times(wanted, algorithm, devices, message_bytes, link, fmt), key=lambda time: time.total_fs)
    candidates = link.automatic or SCHEDULED
    times = [
        time
        for candidate in candidates
        if _possible(wanted, candidate, devices, link, fmt)
        for time in _times(wanted, candidate, devices, message_bytes, link, fmt)
    ]
    if not times:  # the list says what its library does best, not what the link can do
        return _fastest(wanted, devices, message_bytes, link, algorithms_for(wanted)[0], fmt)
    return min(times, key=lambda time: time.total_fs)


def all_reduce(message_bytes: int, devices: int, link: LinkSpec) -> CollectiveTime:
    """Every device ends with the sum of all messages. Raises UserError for sizes below one."""
    return collective("all_reduce", devices, message_bytes, link)


def all_gather(message_bytes: int, devices: int, link: LinkSpec) -> CollectiveTime:
    """Every device ends with all parts; `message_bytes` is all of them together."""
    return collective("all_gather", devices, message_bytes, link)


def reduce_scatter(message_bytes: int, devices: int, link: LinkSpec) -> CollectiveTime:
    """Every device ends with its part of the sum."""
    return collective("reduce_scatter", devices, message_bytes, link)


def all_to_all(message_bytes: int, devices: int, link: LinkSpec) -> CollectiveTime:
    """Every device sends a different part of its message to each other device."""
    return collective("all_to_all", devices, message_bytes, link)


def broadcast(message_bytes: int, devices: int, link: LinkSpec) -> CollectiveTime:
    """Every device ends with the first one's message."""
    return collective("broadcast", devices, message_bytes, link)


def collective_over(
    topology: TopologySpec, operation: str, message_bytes: int, *, algorithm: Algorithm = Algorithm.AUTO
) -> CollectiveTime:
    """The time of `operation` among all devices of a described network, simulated wire by wire.

    Raises UserError as `collective` does."""
    wanted = operation_named(operation)
    _check_size(topology.devices, message_bytes)
    if topology.devices == 1:
        return NOTHING
    if algorithm is not Algorithm.AUTO:
        return _over(topology, wanted, algorithm, message_bytes)
    times = []
    for candidate in algorithms_for(wanted):
        try:
            times.append(_over(topology, wanted, candidate, message_bytes))
        except UserError:
            continue  # this network or number of devices can't do it; ring and direct can
    return min(times, key=lambda time: time.total_fs)


def _over(topology: TopologySpec, operation: Operation, algorithm: Algorithm, message_bytes: int) -> CollectiveTime:
    network = topology.network()
    if algorithm is Algorithm.IN_NETWORK and network.adder != topology.devices:
        raise UserError(f"no switch of {topology.name} adds", expected="`adds` with the name of its first switch")
    schedule = build(operation, algorithm, topology.devices, topology.group)
    chunk_bytes = schedule.chunk_bytes(message_bytes)
    sent = simulate(schedule, network, chunk_bytes, step_fs=topology.step_latency)
    bare = simulate(schedule, network.without_latency(), chunk_bytes)
    total_fs = topology.base_latency + sent.total_fs
    return _result(algorithm, schedule.outline, total_fs, bare.total_fs, chunk_bytes, "plain")


def _check_size(devices: int, message_bytes: int) -> None:
    if devices < 1:
        raise UserError(f"a collective of {devices} devices", expected="at least 1 device")
    if message_bytes < 1:
        raise UserError(f"a collective over {message_bytes} bytes", expected="at least 1 byte")


# ---------------------------------------------------------------- one algorithm


def _possible(operation: Operation, algorithm: Algorithm, devices: int, link: LinkSpec, fmt: str | None) -> bool:
    try:
        _require(operation, algorithm, devices, link, fmt)
    except UserError:
        return False
    return True


def _require(operation: Operation, algorithm: Algorithm, devices: int, link: LinkSpec, fmt: str | None) -> None:
    """Refuse what there is no schedule for, or no switch on the link. Raises UserError."""
    require_schedule(operation, algorithm, devices)
    if algorithm is not Algorithm.IN_NETWORK:
        return
    if link.in_network is None:
        raise UserError(f"{link.name} has no switch that adds", expected="a link with `in_network`")
    if fmt is not None and fmt not in link.in_network.formats:
        raise UserError(f"the switch of {link.name} can't add {fmt}", expected=listed(link.in_network.formats))


def _times(
    operation: Operation, algorithm: Algorithm, devices: int, message_bytes: int, link: LinkSpec, fmt: str | None
) -> Iterator[CollectiveTime]:
    _require(operation, algorithm, devices, link, fmt)
    if algorithm is Algorithm.IN_NETWORK:
        yield _in_network(devices, message_bytes, link)
        return
    job = _Job(operation, algorithm, devices, message_bytes)
    for protocol in _protocols(operation, devices, message_bytes, link):
        yield _in_step(job, link, protocol) or _simulated(job, link, protocol)


def _protocols(operation: Operation, devices: int, message_bytes: int, link: LinkSpec) -> tuple[ProtocolSpec, ...]:
    """Those the library chooses from: all, but between peers the one that their share of the message calls for."""
    if operation is not Operation.ALL_TO_ALL or link.peers is None:
        return link.protocols
    name = link.peers.short if message_bytes <= link.peers.up_to * devices else link.peers.long
    return tuple(protocol for protocol in link.protocols if protocol.name == name)


@dataclass(frozen=True, slots=True)
class _Job:
    """A collective by one algorithm."""

    operation: Operation
    algorithm: Algorithm
    devices: int
    message_bytes: int

    def chunk_bytes(self, parts: int) -> int:
        """Bytes of one of the equal parts of the message, the last one padded."""
        return -(-self.message_bytes // parts)

    def rate(self, link: LinkSpec, protocol: ProtocolSpec, parts: int) -> Fraction:
        """Bytes of data per second and device."""
        if self.operation is Operation.ALL_TO_ALL:  # between peers, channels go by peer and not by size
            return link.data_rate(protocol)
        padded_bytes = parts * self.chunk_bytes(parts)
        return link.data_rate(protocol) * link.channel_share(protocol, padded_bytes, self.devices)


def _in_step(job: _Job, link: LinkSpec, protocol: ProtocolSpec) -> CollectiveTime | None:
    """The closed form, where there is one."""
    neighbours = link.shape is Shape.RING and job.algorithm is Algorithm.RING
    plan = outline(job.operation, job.algorithm, job.devices)
    if plan is None or not (neighbours or link.shape is Shape.SWITCH):
        return None
    chunk_bytes = job.chunk_bytes(plan.parts)
    wires = min(2, job.devices - 1) if neighbours else 1
    transfer_fs = plan.slots * serialisation_fs(chunk_bytes, job.rate(link, protocol, plan.parts) / wires)
    total_fs = protocol.base_latency + plan.steps * (protocol.step_latency + link.latency) + transfer_fs
    return _result(job.algorithm, plan, total_fs, transfer_fs, chunk_bytes, protocol.name)


def _simulated(job: _Job, link: LinkSpec, protocol: ProtocolSpec) -> CollectiveTime:
    schedule = build(job.operation, job.algorithm, job.devices)
    chunk_bytes = job.chunk_bytes(schedule.parts)
    network = link.network(job.devices)
    share = job.rate(link, protocol, schedule.parts) / link.payload_rate
    sent = simulate(schedule, network, chunk_bytes, step_fs=protocol.step_latency, share=share)
    bare = simulate(schedule, network.without_latency(), chunk_bytes, share=share)
    total_fs = protocol.base_latency + sent.total_fs
    return _result(job.algorithm, schedule.outline, total_fs, bare.total_fs, chunk_bytes, protocol.name)


def _result(
    algorithm: Algorithm, plan: Outline, total_fs: int, transfer_fs: int, chunk_bytes: int, protocol: str
) -> CollectiveTime:
    return CollectiveTime(
        total_fs=total_fs,
        latency_fs=total_fs - transfer_fs,
        transfer_fs=transfer_fs,
        link_bytes=plan.sent_chunks * chunk_bytes,
        protocol=protocol,
        steps=plan.steps,
        step_bytes=-(-plan.sent_chunks // plan.steps) * chunk_bytes,
        algorithm=algorithm,
    )


def _in_network(devices: int, message_bytes: int, link: LinkSpec) -> CollectiveTime:
    """The switch reads every device's data once and stores the sum to all: message x (1 + 1 / devices) leaves a device.

    This is what the schedule of `in_network` tends to as its chunks become small: the loads and stores are of a few
    bytes. The rounds of the library's pipeline come on top."""
    switch = link.in_network
    assert switch is not None  # _require has seen to it
    rate = link.payload_rate * Fraction(str(switch.efficiency))
    part_bytes = -(-message_bytes // devices)
    sent_bytes = (devices + 1) * part_bytes
    transfer_fs = serialisation_fs(sent_bytes, rate)
    round_bytes = min(message_bytes, switch.round_bytes(message_bytes, devices))
    fill_fs = (switch.stages - 1) * ceil(Fraction(transfer_fs * round_bytes, message_bytes))
    latency_fs = switch.latency + link.latency + fill_fs
    return CollectiveTime(
        total_fs=latency_fs + transfer_fs,
        latency_fs=latency_fs,
        transfer_fs=transfer_fs,
        link_bytes=sent_bytes,
        protocol=SWITCH_PROTOCOL,
        steps=1,
        step_bytes=sent_bytes,
        algorithm=Algorithm.IN_NETWORK,
    )

"""Collective operations of equal devices as schedules of equal chunks, in integer femtoseconds.

Ring: the message is cut into one chunk per device; in each step every device passes a chunk to its neighbour.
All-reduce takes 2 (n - 1) steps (reduce-scatter, then all-gather), the halves n - 1 each. All-to-all is direct:
every device sends its n - 1 chunks through the switch at once, after one step's latency.

`message_bytes` is the whole message: what a device holds before an all-reduce, reduce-scatter or all-to-all, and
what it holds after an all-gather.
"""

from __future__ import annotations

from dataclasses import dataclass

from archsim.config.errors import UserError, listed, nearest_name
from archsim.fabric.links import LinkSpec, ProtocolSpec

FS_PER_SECOND = 10**15


@dataclass(frozen=True, slots=True)
class CollectiveTime:
    """How long a collective takes and what each device sends.

    total_fs = latency_fs + transfer_fs. `link_bytes` leave ONE device (and as many arrive); `steps` follow each
    other, each of `step_bytes` from every device."""

    total_fs: int
    latency_fs: int
    transfer_fs: int
    link_bytes: int
    protocol: str
    steps: int
    step_bytes: int


@dataclass(frozen=True, slots=True)
class _Schedule:
    """`steps` of `chunks` chunks each, of which the message has one per device."""

    steps: int
    chunks: int


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


def collective(operation: str, devices: int, message_bytes: int, link: LinkSpec) -> CollectiveTime:
    """The time of `operation` ("all_reduce", "all_gather", "reduce_scatter", "all_to_all") by its fastest protocol.

    The library estimates every protocol and takes the fastest; equally fast ones in the order of the link's list.
    Raises UserError for an unknown operation, fewer than one device or less than one byte."""
    schedule = _schedule(operation, devices)
    if message_bytes < 1:
        raise UserError(f"a collective over {message_bytes} bytes", expected="at least 1 byte")
    if devices == 1:
        return CollectiveTime(0, 0, 0, 0, "none", 0, 0)
    times = (_timed(schedule, devices, message_bytes, link, protocol) for protocol in link.protocols)
    return min(times, key=lambda time: time.total_fs)


def _timed(
    schedule: _Schedule, devices: int, message_bytes: int, link: LinkSpec, protocol: ProtocolSpec
) -> CollectiveTime:
    step_bytes = schedule.chunks * -(-message_bytes // devices)
    step_fs = -(-step_bytes * FS_PER_SECOND // link.data_rate(protocol))
    latency_fs = protocol.base_latency + schedule.steps * protocol.step_latency
    transfer_fs = schedule.steps * step_fs
    return CollectiveTime(
        total_fs=latency_fs + transfer_fs,
        latency_fs=latency_fs,
        transfer_fs=transfer_fs,
        link_bytes=schedule.steps * step_bytes,
        protocol=protocol.name,
        steps=schedule.steps,
        step_bytes=step_bytes,
    )


OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
_ALIASES = {"alltoall": "all_to_all"}


def _schedule(operation: str, devices: int) -> _Schedule:
    if devices < 1:
        raise UserError(f"a collective of {devices} devices", expected="at least 1 device")
    others = devices - 1
    match _ALIASES.get(operation, operation):
        case "all_reduce":
            return _Schedule(steps=2 * others, chunks=1)
        case "all_gather" | "reduce_scatter":
            return _Schedule(steps=others, chunks=1)
        case "all_to_all":
            return _Schedule(steps=1, chunks=others)
    raise UserError(
        f"there is no collective '{operation}'",
        expected=listed(OPERATIONS),
        nearest=nearest_name(operation, OPERATIONS),
    )

"""The link of a device to its peers, with the protocols that a communication library runs over it.

The terms are those of NCCL's own cost model (src/graph/tuning.cc), which it uses to choose a protocol: a latency
per operation, a latency per step, and the share of the bus bandwidth that is data.
"""

from __future__ import annotations

from enum import StrEnum
from fractions import Fraction
from typing import ClassVar, Literal

from pydantic import model_validator

from archsim.config.errors import UserError, listed, nearest_name
from archsim.config.schema import Spec
from archsim.config.units import ByteCount, BytesPerSecond, Fraction01, PositiveInt, TimeFs
from archsim.fabric.operations import Algorithm
from archsim.fabric.wires import Network, Shape, shaped_network


class Launch(StrEnum):
    """Whether a collective's kernel is a node of a captured graph, or launched on a stream when its turn comes."""

    GRAPH = "graph"
    EAGER = "eager"


class ProtocolSpec(Spec):
    """How data and its "ready" flags travel.

    `base_latency` is paid once per collective, `step_latency` once per step of it. `data_share` is what is left of
    the bus bandwidth for data (flags take the rest), `limit` an upper bound on it in bytes per second.

    A library gives a short message few of the link's channels: one for every `channel_bytes` of it, or, with
    `per_device`, for every `channel_bytes` times the number of devices. Without `channel_bytes` it gets all."""

    name: str
    base_latency: TimeFs
    step_latency: TimeFs
    data_share: Fraction01
    limit: BytesPerSecond | None = None
    channel_bytes: ByteCount | None = None
    per_device: bool = False


class PeerProtocolsSpec(Spec):
    """What a library takes when each device talks to each other (all-to-all): `short` up to `up_to` bytes for every
    peer, `long` above."""

    short: str
    long: str
    up_to: ByteCount


class ChunkRuleSpec(Spec):
    """A chunk becomes `size` when the message has fewer than `rounds` rounds of the chunks it would have had."""

    size: ByteCount
    rounds: PositiveInt


class InNetworkSpec(Spec):
    """A switch that adds (NVLink SHARP), as a library uses it: in rounds of one chunk for each channel and device.

    Rounds pass a pipeline of `stages` (copy in, reduce and multicast, copy out) at the pace of the wires, so a message
    pays stages - 1 rounds on top. `efficiency` is the share of the link's payload bandwidth that is reached.
    `formats` are the number formats that the switch adds."""

    latency: TimeFs
    efficiency: Fraction01
    channels: PositiveInt
    stages: PositiveInt
    chunk: ByteCount
    smaller: tuple[ChunkRuleSpec, ...] = ()
    formats: tuple[str, ...]

    def round_bytes(self, message_bytes: int, devices: int) -> int:
        """Bytes of a message that are under way in one round."""
        chunk = self.chunk
        for rule in self.smaller:
            if chunk > rule.size and message_bytes < rule.rounds * self.channels * devices * chunk:
                chunk = rule.size
        return self.channels * devices * chunk


class LinkSpec(Spec):
    """What one device has towards all others together: `bandwidth` in bytes per second and direction.

    `efficiency` is the share of it that reaches memory as payload (packet headers, flow control); `latency` the way
    to a peer, a switch included, where the protocols' step latencies don't have it in them already. `algorithm` is the
    one to use wherever it can; `auto` takes the fastest of `automatic` (if not given: of all that the link can do).

    The protocols' base latencies are those of a kernel in a captured graph. With `launch: eager` each collective pays
    `eager_launch` on top, which is what benchmarks that launch on a stream see."""

    kind_in_words: ClassVar[str] = "a link"

    kind: Literal["link"] = "link"
    name: str
    bandwidth: BytesPerSecond
    efficiency: Fraction01
    shape: Shape = Shape.SWITCH
    latency: TimeFs = 0
    channels: PositiveInt = 1
    protocols: tuple[ProtocolSpec, ...]
    peers: PeerProtocolsSpec | None = None
    in_network: InNetworkSpec | None = None
    algorithm: Algorithm = Algorithm.AUTO
    automatic: tuple[Algorithm, ...] = ()
    launch: Launch = Launch.GRAPH
    eager_launch: TimeFs | None = None

    @model_validator(mode="after")
    def _check(self) -> LinkSpec:
        names = [protocol.name for protocol in self.protocols]
        if not names:
            raise UserError("protocols is empty", expected="at least one protocol")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"protocol '{twice[0]}' stands twice")
        for name in (self.peers.short, self.peers.long) if self.peers else ():
            if name not in names:
                raise UserError(
                    f"there is no protocol '{name}'", expected=listed(names), nearest=nearest_name(name, names)
                )
        if self.launch is Launch.EAGER and self.eager_launch is None:
            raise UserError(
                f"{self.name} doesn't say what a launch on a stream takes", expected="`eager_launch`, or launch: graph"
            )
        if self.in_network is not None and self.shape is not Shape.SWITCH:
            raise UserError(f"a {self.shape} has no switch that could add", expected="shape: switch, or no in_network")
        for choice in (self.algorithm, *self.automatic):
            if choice is Algorithm.HIERARCHICAL:
                raise UserError("one link has no groups to go through", expected="a topology with `group`")
            if choice is Algorithm.IN_NETWORK and self.in_network is None:
                raise UserError(f"{self.name} has no switch that adds", expected="`in_network`, or another algorithm")
        return self

    @property
    def launch_fs(self) -> int:
        """What the launch adds to a collective."""
        return self.eager_launch or 0 if self.launch is Launch.EAGER else 0

    @property
    def payload_rate(self) -> Fraction:
        """Payload bytes per second and direction."""
        return self.bandwidth * Fraction(str(self.efficiency))

    def network(self, devices: int) -> Network:
        """The wires of `devices` devices. Raises UserError for fewer than two."""
        adds = self.in_network is not None
        return shaped_network(self.shape, devices, self.payload_rate, self.latency, adds=adds)

    def data_rate(self, protocol: ProtocolSpec) -> Fraction:
        """Bytes of data per second and direction under a protocol, all channels together."""
        bus = self.payload_rate * Fraction(str(protocol.data_share))
        return bus if protocol.limit is None else min(bus, Fraction(protocol.limit))

    def channel_share(self, protocol: ProtocolSpec, message_bytes: int, devices: int) -> Fraction:
        """The share of the channels that a message gets: at least one, at most all.

        A library takes whole channels; fractions between them keep a longer message from being faster."""
        if protocol.channel_bytes is None:
            return Fraction(1)
        for_each = protocol.channel_bytes * (devices if protocol.per_device else 1)
        return min(Fraction(1), max(Fraction(1), Fraction(message_bytes, for_each)) / self.channels)

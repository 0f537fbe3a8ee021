"""The link of a device to its peers, with the protocols that a communication library runs over it.

The terms are those of NCCL's own cost model (src/graph/tuning.cc), which it uses to choose a protocol: a latency
per operation, a latency per step, and the share of the bus bandwidth that is data.
"""

from fractions import Fraction

from pydantic import model_validator

from archsim.config.errors import UserError
from archsim.config.schema import Spec
from archsim.config.units import BytesPerSecond, Fraction01, TimeFs


class ProtocolSpec(Spec):
    """How data and its "ready" flags travel.

    `base_latency` is paid once per collective, `step_latency` once per step of it. `data_share` is what is left of
    the bus bandwidth for data (flags take the rest), `limit` an upper bound on it in bytes per second.
    """

    name: str
    base_latency: TimeFs
    step_latency: TimeFs
    data_share: Fraction01
    limit: BytesPerSecond | None = None


class LinkSpec(Spec):
    """What one device has towards all others together: `bandwidth` in bytes per second and direction.

    `efficiency` is the share of it that reaches memory as payload (packet headers, flow control)."""

    name: str
    bandwidth: BytesPerSecond
    efficiency: Fraction01
    protocols: tuple[ProtocolSpec, ...]

    @model_validator(mode="after")
    def _check(self) -> "LinkSpec":
        names = [protocol.name for protocol in self.protocols]
        if not names:
            raise UserError("protocols is empty", expected="at least one protocol")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"protocol '{twice[0]}' stands twice")
        return self

    def data_rate(self, protocol: ProtocolSpec) -> int:
        """Bytes of payload per second and direction under a protocol, rounded down."""
        bus = self.bandwidth * Fraction(str(self.efficiency)) * Fraction(str(protocol.data_share))
        return int(bus) if protocol.limit is None else min(int(bus), protocol.limit)

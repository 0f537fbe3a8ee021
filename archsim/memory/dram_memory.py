"""DRAM as a device's main memory, as a user writes it: stacks of a technology, and how addresses fall on them.

memory: {technology: hbm3e_24gb_8hi, stacks: 6, capacity: 141 GB}
"""

from fractions import Fraction
from typing import Literal

from pydantic import model_validator

from archsim.config.errors import UserError
from archsim.config.schema import Spec
from archsim.config.units import ByteCount, PositiveInt, format_bytes
from archsim.memory.layout import InterleaveSpec, Layout
from archsim.memory.standard import ControllerSpec, DramStandard


class HbmSpec(Spec):
    """DRAM as the memory of one device (no `kind` means this): `stacks` stacks of a technology, a controller for each
    channel.

    `technology` is a preset's name, or a mapping that may have one as its `base`. `capacity` is what programs can
    use of it, all stacks together. `interleave` says how addresses fall on channels; without it ranges are dealt
    burst by burst and padded, so that all channels do the same. `expert_channels` puts each expert of a mixture on so
    many channels alone, one group of channels after the other; without it, on all."""

    kind: Literal["dram"] = "dram"
    technology: DramStandard
    stacks: PositiveInt
    controller: ControllerSpec = ControllerSpec()
    capacity: ByteCount
    interleave: InterleaveSpec | None = None
    expert_channels: PositiveInt | None = None

    @model_validator(mode="after")
    def _check(self) -> "HbmSpec":
        held = self.stacks * self.technology.stack_capacity
        if self.capacity > held:
            stacks = -(-self.capacity // (held // self.stacks))
            raise UserError(
                f"capacity is {format_bytes(self.capacity)}, {format_bytes(self.capacity - held)} more than "
                f"{self.stacks} stacks of {format_bytes(self.technology.stack_capacity)} hold",
                expected=f"at most {format_bytes(held)}, or at least {stacks} stacks",
            )
        if self.expert_channels is not None and self.channels % self.expert_channels:
            raise UserError(
                f"{self.channels} channels can't be cut into groups of {self.expert_channels}",
                expected=f"expert_channels: a divisor of {self.channels}",
            )
        if self.interleave is not None:
            organisation = self.technology.organisation
            sizes = (organisation.pseudo_channels, organisation.burst_bytes, organisation.row_set)
            Layout(self.interleave, self.channels, *sizes)  # raises UserError where it doesn't fit
        self.technology.timing(self.controller)  # raises UserError where the controller doesn't fit
        return self

    @property
    def channels(self) -> int:
        """Channels of all stacks."""
        return self.stacks * self.technology.channels_per_stack

    @property
    def pseudo_channels(self) -> int:
        """Pseudo-channels of all stacks."""
        return self.channels * self.technology.organisation.pseudo_channels

    @property
    def peak_bytes_per_second(self) -> Fraction:
        """Data-bus bandwidth of all channels, exact."""
        return self.channels * self.technology.peak_bytes_per_second

    @property
    def least_window_bytes(self) -> int:
        """A burst of every pseudo-channel: less could not keep them busy."""
        return self.pseudo_channels * self.technology.organisation.burst_bytes

    @property
    def in_words(self) -> str:
        """Such as "6 stacks of HBM3E 24 GB 8-high, 6.25 Gb/s"."""
        return f"{self.stacks} stacks of {self.technology.name}"

    @property
    def label(self) -> str:
        """What reports call it: "HBM", or another technology's first word."""
        return "HBM" if self.technology.name.startswith("HBM") else self.technology.name.split()[0]

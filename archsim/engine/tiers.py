"""All tiers of a machine beside its main memory: their devices and pipelines, and what operators did there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from archsim.engine.tier_pipeline import Consumed, TierPart, TierPipeline
from archsim.engine.tiering import TierStore
from archsim.kernels import channel, flash_state
from archsim.kernels.timing import Count
from archsim.memory.device import HbmDevice
from archsim.memory.flash_device import FlashDevice
from archsim.memory.tiers import DramTier, TierSpec
from archsim.records import TierCounts
from archsim.system import DeviceSpec

FS_PER_SECOND = 10**15


@dataclass(slots=True)
class TierOutcome:
    """What an operator did beside the main memory. `wait_fs` is how long the engines stood idle for one tier,
    `data_fs` what its late data take at its ceiling, both of the tier with the longest; `busy` has, by tier, the time
    from the first issue of its loads to their last arrival."""

    wait_fs: int = 0
    data_fs: int = 0
    counts: dict[str, TierCounts] = field(default_factory=dict)
    busy: dict[str, tuple[int, int]] = field(default_factory=dict)


class Tiers:
    """The tiers of one device; empty for a device with its main memory alone."""

    def __init__(self, device: DeviceSpec, *, shortcuts: bool) -> None:
        self.specs: Mapping[str, TierSpec] = device.tiers
        devices = {name: _device(spec, shortcuts) for name, spec in device.tiers.items()}
        self.stores = {name: TierStore(name, spec, devices[name]) for name, spec in device.tiers.items()}
        self._pipelines = {
            name: TierPipeline(
                name,
                devices[name],
                spec.staging or device.window_bytes,
                ahead=spec.staging is not None,
                link=spec.link,
                jobs=channel.MAX_JOBS if isinstance(spec, DramTier) else flash_state.MAX_JOBS,
                rounds=_rounds(spec, devices[name]),
            )
            for name, spec in device.tiers.items()
        }
        self._seen: dict[str, np.ndarray] = {}

    def restart(self) -> None:
        """Back to time 0, idle; tensors keep their places."""
        for pipeline in self._pipelines.values():
            pipeline.restart()

    def load(self, parts: Sequence[Mapping[str, TierPart]], now_fs: int) -> None:
        """The program from `now_fs` on: what each operator moves on each tier."""
        for name, pipeline in self._pipelines.items():
            pipeline.load([part.get(name) for part in parts], self.stores[name].next_round, now_fs)
            if isinstance(pipeline.device, HbmDevice):
                pipeline.catch_up()
                self._seen[name] = pipeline.device.count_vector()

    def begin(self, index: int, start_fs: int, engine_fs: int) -> None:
        """Operator `index` is ready for data."""
        for pipeline in self._pipelines.values():
            pipeline.begin(index, start_fs, engine_fs)

    def finish(self, parts: Mapping[str, TierPart], outcome: TierOutcome) -> int:
        """Simulate the current operator to the end of its parts (above zero); that time, in femtoseconds."""
        end_fs = 0
        for name, part in parts.items():
            consumed = self._pipelines[name].finish(part.write_bytes)
            end_fs = max(end_fs, consumed.end_fs)
            late_bytes = consumed.late_rounds * self.stores[name].device.round_bytes
            outcome.wait_fs = max(outcome.wait_fs, consumed.wait_fs)
            outcome.data_fs = max(outcome.data_fs, tier_bound_fs(late_bytes, self.specs[name]))
            if part.ranges:
                outcome.busy[name] = (consumed.issue_fs, consumed.arrival_fs)
            outcome.counts[name] = self._counts(name, part, consumed)
        return end_fs

    def count_commands(self, end_fs: int, outcome: TierOutcome) -> None:
        """Add the commands of DRAM tiers up to an operator's end."""
        for name, pipeline in self._pipelines.items():
            if isinstance(pipeline.device, HbmDevice):
                pipeline.advance_to(end_fs)
                pipeline.catch_up()
                counts = pipeline.device.count_vector()
                _add_commands(outcome.counts.setdefault(name, TierCounts()), counts - self._seen[name])
                self._seen[name] = counts

    def _counts(self, name: str, part: TierPart, consumed: Consumed) -> TierCounts:
        read_bytes = part.rounds * self.stores[name].device.round_bytes
        link = self.specs[name].link
        return TierCounts(
            read_bytes=read_bytes,
            write_bytes=consumed.written_bytes,
            link_bytes=0 if link is None else link.wire_bytes(read_bytes) + link.wire_bytes(consumed.written_bytes),
        )


def bound_fs(parts: Mapping[str, TierPart], specs: Mapping[str, TierSpec]) -> int:
    """What the parts' reads take at each tier's ceiling, the longest, rounded down: no machine is faster."""
    return max([tier_bound_fs(part.read_bytes, specs[name]) for name, part in parts.items()], default=0)


def tier_bound_fs(read_bytes: int, spec: TierSpec) -> int:
    """Femtoseconds that bytes take at a tier's ceiling, rounded down."""
    ceiling = spec.ceiling_bytes_per_second
    return read_bytes * FS_PER_SECOND * ceiling.denominator // ceiling.numerator


def _device(spec: TierSpec, shortcuts: bool) -> HbmDevice | FlashDevice:
    if isinstance(spec, DramTier):
        return HbmDevice(spec.technology, spec.controller, spec.channels, shortcuts=shortcuts)
    return FlashDevice(spec.technology, stacks=spec.stacks, shortcuts=shortcuts)


def _rounds(spec: TierSpec, device: HbmDevice | FlashDevice) -> int:
    if isinstance(device, FlashDevice):
        return device.channel_pages
    assert isinstance(spec, DramTier)
    return spec.stacks * spec.technology.stack_capacity // device.round_bytes


def _add_commands(total: TierCounts, delta: np.ndarray) -> None:
    total.activates += int(delta[Count.ACT])
    total.reads += int(delta[Count.RD])
    total.writes += int(delta[Count.WR])
    total.refreshes_all_bank += int(delta[Count.REFAB])
    total.refreshes_per_bank += int(delta[Count.REFPB])

"""Operators made ready to run on one device: their work, memory ranges, tiles and bounds, computed once for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from archsim.compute.matrix import TileWork
from archsim.engine.pim import PimPart, PimUnit
from archsim.engine.placement import Placement
from archsim.engine.tier_pipeline import TierPart
from archsim.engine.tiering import TieredPlacement
from archsim.engine.tiers import bound_fs
from archsim.engine.work import (
    COLLECTIVE_KINDS,
    OperatorWork,
    collective_time,
    operator_work,
    roofline_fs,
    roofline_memory_fs,
    roofline_noc_fs,
    through_memory,
    tile_work,
)
from archsim.fabric.collectives import CollectiveTime
from archsim.memory.device import Range, Transfer
from archsim.memory.layout import Shares
from archsim.memory.main import MainMemory
from archsim.records import Access, Counts, Operator
from archsim.system import SystemSpec
from archsim.workload.sub_batches import SECOND

TILES_IN_WINDOW = 4
"""The consumer works on a quarter of the window at a time: what it frees is refilled while it goes on."""
LEAST_TILES = 16
"""An operator is consumed in at least so many steps, so that filling the first and using the last stay small."""
LARGEST_WINDOW = 1 << 40
"""Bursts: more than any operator has."""
KEPT = 20_000
KEPT_BITS = 5
"""The tile time of a consumer that memory can't keep up with is rounded up to so many significant bits, so that like
operators are consumed alike. It waits for memory anyway: only the last tile ends later, by at most 1/16 of its time."""


@dataclass(frozen=True)
class Prepared:
    """An operator, ready to run. `fixed_fs` is its time if nothing goes through memory (`transfer` is None).

    `pim` is what processing in memory does of it: all (`pim_alone`), or a part beside the device.
    `loads` names the tensors that it reads through the main memory, whose bytes `memory_bytes` are; `parts` is what it
    moves on other tiers, by their names. `noc_fs` is `engine_fs` where a simulated on-chip network sets it, else 0;
    `noc_bound_fs` is that network's bound."""

    operator: Operator
    launch_fs: int
    lead_fs: int
    fixed_fs: int
    tail_fs: int
    engine_fs: int
    roofline_fs: int
    transfer: Transfer | None
    loads: frozenset[str]
    memory_bytes: int
    padding_bytes: int
    link_fs: int
    memory_fs: int
    counts: Counts
    parts: Mapping[str, TierPart] = field(default_factory=dict)
    tier_fs: int = 0
    pim: PimPart | None = None
    pim_alone: bool = False
    noc_fs: int = 0
    noc_bound_fs: int = 0

    @cached_property
    def row(self) -> tuple[int, ...]:
        """The words of `kernels.program` that do not depend on the place in the chain, ranges left out."""
        transfer = self.transfer
        if transfer is None:
            return (self.launch_fs + self.lead_fs, self.fixed_fs, self.tail_fs, 0, 0, 0, 0, 0)
        words = (len(transfer.ranges), transfer.tiles, transfer.tile_ticks, transfer.window_bursts)
        return (self.launch_fs + self.lead_fs, 0, self.tail_fs, 0, *words)

    @cached_property
    def least_fs(self) -> int:
        """A bound on what it takes, launch and latencies included."""
        return self.launch_fs + self.lead_fs + max(self.fixed_fs, self.roofline_fs) + self.tail_fs

    @cached_property
    def range_rows(self) -> tuple[tuple[int, int, int], ...]:
        """(first burst, bursts, write) of each range; a chain has no others."""
        ranges = self.transfer.ranges if self.transfer is not None else ()
        return tuple((data.first_burst, data.bursts, int(data.write)) for data in ranges if isinstance(data, Range))

    @cached_property
    def group(self) -> str:
        """The operator's name without its layer: "qkv_proj" for "layers[3].qkv_proj"."""
        name = self.operator.name.removesuffix(SECOND)
        return name.split("].", 1)[1] if name.startswith("layers[") else name


class Preparer:
    """Prepares operators for one device. Operators are immutable and shared between traces, so the answers are kept."""

    def __init__(
        self,
        system: SystemSpec,
        devices: int,
        memory: MainMemory,
        placement: TieredPlacement,
        *,
        cold: bool = False,
        pim: PimUnit | None = None,
    ) -> None:
        self._system = system
        self._devices = devices
        self._memory = memory
        self._tiering = placement
        self._placement: Placement = placement.main
        self._cold = cold
        self._pim = pim
        self._peak = system.device.memory.peak_bytes_per_second
        self._prepared: dict[int, Prepared] = {}
        self._tile_works: dict[object, TileWork] = {}
        self._collectives: dict[object, CollectiveTime] = {}
        self._alike: dict[object, Prepared] = {}
        self._names_decide = bool(placement.stores) or memory.layout is not None

    def prepare(self, operator: Operator) -> Prepared:
        """The operator made ready; the same object for the same operator."""
        known = self._prepared.get(id(operator))
        if known is not None and known.operator is operator:
            return known
        if len(self._prepared) >= KEPT:
            self._prepared.clear()
        if operator.kind in COLLECTIVE_KINDS:
            made = self._collective(operator)
        elif self._pim is not None:
            made = self._beside_pim(operator, self._pim)
        else:
            made = self._alike_or_computed(operator)
        self._prepared[id(operator)] = made
        return made

    def _alike_or_computed(self, operator: Operator) -> Prepared:
        """The layers of a model differ in where their tensors lie: the rest of their work is computed once. Where a
        tensor's name decides on more (its tier, its channels), each operator is computed."""
        if self._names_decide:
            return self._compute(operator)
        shape = _nameless(operator)
        known = self._alike.get(shape)
        if known is None:
            if len(self._alike) >= KEPT:
                self._alike.clear()
            known = self._alike[shape] = self._compute(operator)
            return known
        reads, writes = through_memory(operator, self._system.device, cold=self._cold)
        transfer = known.transfer
        if transfer is not None:
            transfer = Transfer(
                self._ranges(reads, writes), transfer.tiles, transfer.tile_ticks, transfer.window_bursts
            )
        return replace(
            known, operator=operator, transfer=transfer, loads=frozenset([access.tensor for access in reads])
        )

    def _collective(self, operator: Operator) -> Prepared:
        key = (operator.kind, operator.collective_bytes, operator.collective_devices)
        time = self._collectives.get(key)
        if time is None:
            if len(self._collectives) >= KEPT:
                self._collectives.clear()
            time = self._collectives[key] = collective_time(operator, self._system, self._devices)
        return Prepared(
            operator=operator,
            launch_fs=0,  # the library's base latency covers it
            lead_fs=0,
            fixed_fs=time.total_fs,
            tail_fs=0,
            engine_fs=0,
            roofline_fs=time.transfer_fs,
            transfer=None,
            loads=frozenset(),
            memory_bytes=0,
            padding_bytes=0,
            link_fs=time.total_fs,
            memory_fs=0,
            counts=Counts(link_bytes=time.link_bytes),
        )

    def _beside_pim(self, operator: Operator, pim: PimUnit) -> Prepared:
        """An operator on PIM, on the device, or shared out to both."""
        part = pim.part_of(operator) if pim.offloads(operator) else pim.append(operator)
        if part is not None:
            return self._on_pim(operator, part)
        whole = self._compute(pim.without_cache(operator))
        shared = pim.shared(operator, max(whole.engine_fs, whole.roofline_fs))
        if shared is None:
            return replace(whole, operator=operator)
        mine, part = shared
        made = self._compute(mine)
        counts = replace(made.counts, pim=part.counts)
        return replace(made, roofline_fs=max(made.roofline_fs, part.bound_fs), counts=counts, pim=part)

    def _on_pim(self, operator: Operator, part: PimPart) -> Prepared:
        return Prepared(
            operator=operator,
            launch_fs=self._system.device.launch.kernel,
            lead_fs=0,
            fixed_fs=part.total_fs,
            tail_fs=0,
            engine_fs=part.host_fs,
            roofline_fs=part.bound_fs,
            transfer=None,
            loads=frozenset(),
            memory_bytes=0,
            padding_bytes=0,
            link_fs=0,
            memory_fs=0,
            counts=Counts(vector_flops=part.host_flops if part.host_fs else 0, pim=part.counts),
            pim=part,
            pim_alone=True,
        )

    def _compute(self, operator: Operator) -> Prepared:
        device = self._system.device
        whole = operator_work(operator, device, self._memory.loaded_read_fs, self._tile_work, cold=self._cold)
        sides = self._tiering.sort(whole.reads, whole.writes)
        work = replace(whole, reads=sides.reads, writes=sides.writes)
        parts = {part.tier: part for part in sides.parts}
        transfer = self._transfer(work)
        macs = {operator.compute_format: operator.matrix_flops // 2} if operator.matrix_flops else {}
        return Prepared(
            operator=operator,
            launch_fs=work.launch_fs,
            lead_fs=work.lead_fs,
            fixed_fs=work.engine_fs,
            tail_fs=work.tail_fs,
            engine_fs=work.engine_fs,
            roofline_fs=max(roofline_fs(operator, work, device, self._peak), bound_fs(parts, device.tiers)),
            transfer=transfer,
            loads=frozenset(access.tensor for access in work.reads),
            memory_bytes=work.memory_bytes,
            padding_bytes=self._moved_bytes(transfer) - work.memory_bytes,
            link_fs=0,
            memory_fs=roofline_memory_fs(work.memory_bytes, self._peak),
            counts=Counts(
                buffer_read_bytes=work.buffer_read_bytes,
                buffer_write_bytes=work.buffer_write_bytes,
                matrix_macs=macs,
                vector_flops=operator.vector_flops,
            ),
            parts=parts,
            tier_fs=bound_fs(parts, device.tiers),
            noc_fs=work.noc_fs,
            noc_bound_fs=roofline_noc_fs(work.memory_bytes, device),
        )

    def _tile_work(self, operator: Operator, access_latency_fs: int, memory_bytes: int) -> TileWork:
        """As `work.tile_work`; the layers of a model share their attention's."""
        stream_fs = roofline_memory_fs(memory_bytes, self._peak)
        if operator.attention is None:
            return tile_work(operator, self._system.device, access_latency_fs, stream_fs)
        key = (operator.kind, operator.compute_format, operator.attention)
        if key not in self._tile_works:
            if len(self._tile_works) > 64:
                self._tile_works.clear()
            self._tile_works[key] = tile_work(operator, self._system.device, access_latency_fs, stream_fs)
        return self._tile_works[key]

    def _transfer(self, work: OperatorWork) -> Transfer | None:
        """An operator's memory traffic, cut into tiles that fit the window; None if all of it stays on chip."""
        ranges = self._ranges(work.reads, work.writes)
        if not ranges:
            return None
        window = max(1, self._memory.bursts(self._system.device.window_bytes) // max(1, len(work.reads)))
        window = min(window, LARGEST_WINDOW)
        tiles, tile_ticks = self._tiles(max([data.bursts for data in ranges]), window, work.engine_fs)
        transfer = Transfer(ranges, tiles, tile_ticks, window)
        self._memory.check(transfer)
        return transfer

    def _ranges(self, reads: Sequence[Access], writes: Sequence[Access]) -> tuple[Range | Shares, ...]:
        ranges = [self._placement.range_of(access, write=False) for access in reads]
        ranges += [self._placement.range_of(access, write=True) for access in writes]
        return tuple([data for data in ranges if data.bursts > 0])

    def _moved_bytes(self, transfer: Transfer | None) -> int:
        """Bytes that a transfer moves, in whole bursts."""
        ranges = transfer.ranges if transfer is not None else ()
        return sum(self._memory.moved_bytes(data) for data in ranges)

    def _tiles(self, bursts: int, window: int, engine_fs: int) -> tuple[int, int]:
        """How many tiles an operator is consumed in, and the ticks of each; together at least the engines' time.

        A tile is a row set, or half, a quarter, ... of one, so that an operator has enough of them and they fit the
        window several times over: tile boundaries then fall on the same places of every row set."""
        share = self._memory.row_set_bursts
        while share > 1 and (share * LEAST_TILES > bursts or share * TILES_IN_WINDOW > window):
            share //= 2
        shortest_ticks = self._memory.least_tile_ticks
        engine_ticks = self._memory.to_ticks(engine_fs)
        tiles = -(-bursts // share)
        while tiles > 1 and tiles * shortest_ticks > engine_ticks and -(-bursts // (tiles // 2)) <= window:
            tiles = -(-tiles // 2)  # less arithmetic per tile than a read's latency: fewer, longer tiles
        tile_ticks = max(-(-engine_ticks // tiles), shortest_ticks)
        if tile_ticks < share * self._memory.burst_ticks:
            grain = 1 << max(0, tile_ticks.bit_length() - KEPT_BITS)
            tile_ticks = -(-tile_ticks // grain) * grain
        return tiles, tile_ticks


def _nameless(operator: Operator) -> object:
    """All of an operator that its work depends on, if it doesn't depend on the names of tensors."""
    return (
        operator.kind,
        operator.compute_format,
        operator.matrix_flops,
        operator.vector_flops,
        operator.gemm,
        operator.attention,
        tuple([(access.tensor_class, access.bytes, access.passes) for access in operator.reads]),
        tuple([(access.tensor_class, access.bytes) for access in operator.writes]),
    )

"""A device's main memory from its spec, with the placement of tensors in it; and the way along a row of SRAM chips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from archsim.config.errors import UserError
from archsim.engine.placement import PagedKv, Placement
from archsim.memory.device import HbmDevice
from archsim.memory.dram_memory import HbmSpec
from archsim.memory.layout import even_interleave
from archsim.memory.main import MainMemory
from archsim.memory.sram_memory import SramMemory, SramMemorySpec
from archsim.records import Access, Operator, OperatorKind, TensorClass

RESIDUAL = "residual"
"""What goes from layer to layer, and so from chip to chip."""


def main_memory(
    spec: HbmSpec | SramMemorySpec, *, shortcuts: bool, paged_kv: PagedKv | None
) -> tuple[MainMemory, Placement]:
    """The memory and an empty placement. Raises UserError for a paged cache in SRAM."""
    if isinstance(spec, SramMemorySpec):
        if paged_kv is not None:
            raise UserError("a paged KV cache in SRAM", expected="a workload without kv_block_tokens")
        sram = SramMemory(spec)
        return sram, Placement(sram, spec.capacity, spec.held_bytes)
    interleave = spec.interleave
    if interleave is None and (paged_kv is not None or spec.expert_channels is not None):
        interleave = even_interleave(spec.technology.organisation.burst_bytes)
    dram = HbmDevice(spec.technology, spec.controller, spec.channels, shortcuts=shortcuts, interleave=interleave)
    physical_bytes = spec.stacks * spec.technology.stack_capacity
    placement = Placement(dram, spec.capacity, physical_bytes, expert_channels=spec.expert_channels, paged_kv=paged_kv)
    return dram, placement


def with_hops(operators: Sequence[Operator], spec: HbmSpec | SramMemorySpec) -> Iterator[Operator]:
    """The operators with a hop wherever the next one's layer lies on a later chip of the row.

    What runs before the first layer does so on its chip, what runs after the last on that one's."""
    if not isinstance(spec, SramMemorySpec) or spec.row is None:
        yield from operators
        return
    layers = 1 + max((operator.layer for operator in operators), default=0)
    chip, residual_bytes = 0, 0
    for operator in operators:
        residual_bytes = max([residual_bytes, *_residuals(operator)])
        here = spec.stage_of(operator.layer, layers) if operator.layer >= 0 else chip
        for _ in range(chip, here):
            yield _hop(operator.layer, residual_bytes)
        chip = max(chip, here)
        yield operator


def _hop(layer: int, residual_bytes: int) -> Operator:
    residual = Access(RESIDUAL, TensorClass.ACTIVATION, residual_bytes)
    name = f"layers[{layer}].hop"
    return Operator(
        name, OperatorKind.HOP, layer, reads=(residual,), writes=(residual,), collective_bytes=residual_bytes
    )


def _residuals(operator: Operator) -> list[int]:
    return [access.bytes for access in (*operator.reads, *operator.writes) if access.tensor == RESIDUAL]

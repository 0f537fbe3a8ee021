"""What an operator asks of a device: memory ranges, engine time, latencies. Pure functions of operator and device.

A device is described by its spec; the only number from the simulated memory is the latency of a read under load.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from archsim.compute.arithmetic import ceil_div, transfer_fs
from archsim.compute.attention import AttentionEngines, decode_work, prefill_work, prefix_work
from archsim.compute.matrix import TileWork, gemm_work
from archsim.compute.vector import vector_fs, vector_work
from archsim.fabric.collectives import CollectiveTime, all_gather, all_reduce, reduce_scatter
from archsim.fabric.operations import Algorithm
from archsim.memory.sram_memory import SramMemorySpec
from archsim.records import Access, Operator, OperatorKind, TensorClass
from archsim.system import DeviceSpec, SystemSpec
from archsim.workload.precision import FORMATS

MATRIX_KINDS = (
    OperatorKind.GEMM,
    OperatorKind.ROUTER,
    OperatorKind.PREFILL_ATTENTION,
    OperatorKind.DECODE_ATTENTION,
    OperatorKind.PREFIX_ATTENTION,
)
ATTENTION_KERNELS = {
    OperatorKind.PREFILL_ATTENTION: prefill_work,
    OperatorKind.DECODE_ATTENTION: decode_work,
    OperatorKind.PREFIX_ATTENTION: prefix_work,
}
COLLECTIVES = {
    OperatorKind.ALL_REDUCE: all_reduce,
    OperatorKind.ALL_GATHER: all_gather,
    OperatorKind.REDUCE_SCATTER: reduce_scatter,
}
COLLECTIVE_KINDS = (*COLLECTIVES, OperatorKind.HOP)
"""What the links do alone."""


@dataclass(frozen=True, slots=True)
class OperatorWork:
    """An operator on one device, ready to run.

    `engine_fs` is how long the engines need once everything is on chip: arithmetic, or serving the operands from the
    buffer if that takes longer; `noc_fs` is the same if a simulated network is what
    takes longest, else 0. `lead_fs` are latencies before data flow that nothing hides, `tail_fs` those after.
    `reads` and `writes` are what goes through memory; the rest stays in the on-chip buffer."""

    reads: tuple[Access, ...]
    writes: tuple[Access, ...]
    engine_fs: int
    launch_fs: int
    lead_fs: int
    tail_fs: int
    buffer_read_bytes: int
    buffer_write_bytes: int
    noc_fs: int = 0

    @property
    def memory_bytes(self) -> int:
        return sum(access.bytes for access in self.reads) + sum(access.bytes for access in self.writes)


TileWorkOf = Callable[[Operator, int, int], TileWork]
"""(operator, latency of one dependent access in fs, bytes that go through memory) to tile work."""


def operator_work(
    operator: Operator, device: DeviceSpec, memory_read_fs: int, tile_work_of: TileWorkOf, *, cold: bool = False
) -> OperatorWork:
    """Reduce an operator to what it asks of a device.

    Activations that fit the on-chip buffer together stay there between operators, unless the caches are `cold` (single
    kernels, as benchmarks measure them). `memory_read_fs` is the memory's own latency for a dependent read among the
    others that keep it busy; the way between memory and engines is the buffer's miss latency on top, and that of a
    simulated network (loaded for a dependent read, unloaded for the first of a stream)."""
    reads, writes = through_memory(operator, device, cold=cold)
    memory_bytes = sum(access.bytes for access in (*reads, *writes))
    flow = device.memory_flow
    miss_fs = device.buffer.latency + device.buffer.miss_latency
    access_latency_fs = miss_fs + memory_read_fs + (flow.loaded_fs if flow is not None else 0)
    work = tile_work_of(operator, access_latency_fs, memory_bytes)
    operand_bytes = _operand_bytes(operator, work)
    others_fs = max(
        work.compute_fs,
        vector_fs(operator.vector_flops, device.vector) if operator.vector_flops else 0,
        # What the matrix engine sustains was measured with operands coming from the buffer; elementwise work wasn't.
        0 if operator.kind in MATRIX_KINDS else transfer_fs(operand_bytes, device.buffer.bandwidth),
        transfer_fs(memory_bytes, device.noc),
    )
    network_fs = max(
        transfer_fs(memory_bytes, flow.bytes_per_second) if flow is not None else 0,
        transfer_fs(memory_bytes, device.buffer.bandwidth) if device.buffer_is_slower_than_memory else 0,
    )
    return OperatorWork(
        reads=reads,
        writes=writes,
        engine_fs=max(others_fs, network_fs),
        launch_fs=work.launches * device.launch.kernel,
        lead_fs=work.serial_fs + (miss_fs + (flow.unloaded_fs if flow is not None else 0) if reads else 0),
        tail_fs=work.tail_fs,
        buffer_read_bytes=operand_bytes,
        buffer_write_bytes=operator.write_bytes,
        noc_fs=network_fs if network_fs > others_fs else 0,
    )


def through_memory(
    operator: Operator, device: DeviceSpec, *, cold: bool
) -> tuple[tuple[Access, ...], tuple[Access, ...]]:
    """The reads and writes that the on-chip buffer doesn't hold."""
    reads, writes = operator.reads, operator.writes
    activations = sum([access.bytes for access in (*reads, *writes) if access.tensor_class is TensorClass.ACTIVATION])
    if cold or not device.buffer.holds(activations):
        return reads, writes
    return (
        tuple([access for access in reads if access.tensor_class is not TensorClass.ACTIVATION]),
        tuple([access for access in writes if access.tensor_class is not TensorClass.ACTIVATION]),
    )


def tile_work(operator: Operator, device: DeviceSpec, access_latency_fs: int, stream_fs: int) -> TileWork:
    """The tiles of an operator on the engine that runs it."""
    fmt = operator.compute_format
    if operator.attention is not None:
        engines = AttentionEngines(device.matrix, device.vector, device.buffer, device.attention, access_latency_fs)
        return ATTENTION_KERNELS[operator.kind](operator.attention, fmt, engines)
    if operator.gemm is not None:
        return gemm_work(operator.gemm, fmt, device.matrix, device.buffer, access_latency_fs, stream_fs)
    return vector_work(operator.vector_flops, device.vector, access_latency_fs)


def _operand_bytes(operator: Operator, work: TileWork) -> int:
    """Bytes that the units read from the buffer: each tile its own operands; elementwise operators what they read."""
    if work.operand_elements == 0:
        return operator.read_bytes
    bits = FORMATS[operator.compute_format].bits if operator.compute_format in FORMATS else 8
    return ceil_div(work.operand_elements * bits, 8)


def collective_time(operator: Operator, system: SystemSpec, devices: int) -> CollectiveTime:
    """How long a collective operator takes among `devices` devices, or a hop to the next chip of each one's row."""
    if operator.kind is OperatorKind.HOP:
        return _hop_time(operator, system.device)
    assert system.link is not None  # system.py refuses several devices without a link
    members = operator.collective_devices or devices
    return COLLECTIVES[operator.kind](operator.collective_bytes, members, system.link)


def _hop_time(operator: Operator, device: DeviceSpec) -> CollectiveTime:
    row = device.memory.row if isinstance(device.memory, SramMemorySpec) else None
    assert row is not None  # nobody else hops
    moved = operator.collective_bytes
    wire_fs = transfer_fs(moved, row.bandwidth)
    return CollectiveTime(row.latency + wire_fs, row.latency, wire_fs, moved, "plain", 1, moved, Algorithm.DIRECT)


def roofline_memory_fs(memory_bytes: int, peak: Fraction) -> int:
    """Femtoseconds that the bytes take at the pins' full rate, rounded down: no machine is faster."""
    return memory_bytes * 10**15 * peak.denominator // peak.numerator


def roofline_fs(operator: Operator, work: OperatorWork, device: DeviceSpec, peak: Fraction) -> int:
    """The largest of arithmetic at peak rate and bytes at peak bandwidth, of a simulated network too, rounded down
    (Williams et al., CACM 2009). What elementwise work reads of the buffer counts at the buffer's rate."""
    compute_fs = operator.vector_flops * 10**15 // device.vector.peak
    if operator.kind not in MATRIX_KINDS:
        compute_fs = max(compute_fs, roofline_memory_fs(work.buffer_read_bytes, Fraction(device.buffer.bandwidth)))
    elif operator.matrix_flops:
        matrix_fs = operator.matrix_flops * 10**15 // device.matrix.peak_flops(operator.compute_format)
        compute_fs = max(compute_fs, matrix_fs)
    return max(compute_fs, roofline_memory_fs(work.memory_bytes, peak), roofline_noc_fs(work.memory_bytes, device))


def roofline_noc_fs(memory_bytes: int, device: DeviceSpec) -> int:
    """Femtoseconds that the bytes take at the rate of a simulated network's busiest link, or of a buffer that is slower
    than the memory; 0 without either."""
    flow = device.memory_flow
    network_fs = roofline_memory_fs(memory_bytes, flow.bound) if flow is not None else 0
    if not device.buffer_is_slower_than_memory:
        return network_fs
    return max(network_fs, roofline_memory_fs(memory_bytes, Fraction(device.buffer.bandwidth)))

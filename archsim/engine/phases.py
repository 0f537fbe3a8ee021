"""Running a model on a system: place its tensors, run a phase, hand over the records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from archsim.engine.machine import Machine, Step, Trail
from archsim.records import Access, Counts, OperatorTrace, TensorClass
from archsim.system import SystemSpec
from archsim.workload.model import ModelShape
from archsim.workload.operators import tensors
from archsim.workload.precision import Precision


@dataclass(frozen=True)
class PhaseOutcome:
    """A phase that has run: its trace, what was recorded, and the counts of one memory channel."""

    trace: OperatorTrace
    trail: Trail
    channel: Counts
    channels: int


def kv_storage(model: ModelShape, precision: Precision, tp: int, tokens: int) -> Iterator[Access]:
    """The KV storage of `tokens` cached tokens on one device, layer by layer."""
    layer_bytes = model.kv_bytes_per_token_per_layer(precision, tp)
    for layer in range(model.layers):
        yield Access(f"layers[{layer}].kv", TensorClass.KV, layer_bytes * tokens)


@dataclass(frozen=True)
class Setup:
    """A model on a system: what `new_machine` builds. `cycle` False takes roofline bounds; without `shortcuts` every
    memory command is simulated (same numbers)."""

    system: SystemSpec
    model: ModelShape
    precision: Precision
    tensor_parallel: int
    cycle: bool = True
    shortcuts: bool = True


def new_machine(setup: Setup, *, folded: bool = False) -> Machine:
    """A machine with the model's weights in place. Raises UserError if they don't fit."""
    machine = Machine(setup.system, setup.tensor_parallel, cycle=setup.cycle, shortcuts=setup.shortcuts, folded=folded)
    machine.reserve(tensors(setup.model, setup.precision, setup.tensor_parallel))
    return machine


def reserve_kv(machine: Machine, setup: Setup, tokens: int) -> None:
    """Place a cache for `tokens` tokens. Raises UserError if it doesn't fit beside the weights."""
    machine.reserve(tuple(kv_storage(setup.model, setup.precision, setup.tensor_parallel, tokens)))


def run_phase(setup: Setup, trace: OperatorTrace, kv_tokens: int, step: Step | None) -> PhaseOutcome:
    """Run one phase on a machine of its own whose cache holds `kv_tokens` tokens in all."""
    machine = new_machine(setup)
    reserve_kv(machine, setup, kv_tokens)
    machine.run(trace, step=step)
    return PhaseOutcome(trace, machine.trail, channel_counts(machine), machine.memory.channels)


def channel_counts(machine: Machine) -> Counts:
    """What one memory channel of a machine did so far; all channels did the same."""
    total = Counts()
    machine.memory.add_counts(machine.memory.count_vector(), total)
    share = Counts()
    for name in Counts.__slots__:
        if name.startswith("dram_"):
            setattr(share, name, getattr(total, name) // machine.memory.channels)
    return share


def peak_matrix_flops(system: SystemSpec, trace: OperatorTrace) -> tuple[int, str]:
    """The matrix engine's peak rate in the format most of the phase's arithmetic is in, and that format."""
    flops: dict[str, int] = {}
    for operator in trace.operators:
        if operator.matrix_flops:
            flops[operator.compute_format] = flops.get(operator.compute_format, 0) + operator.matrix_flops
    fmt = max(flops, key=lambda name: flops[name]) if flops else next(iter(system.device.matrix.peak))
    return system.device.matrix.peak_flops(fmt), fmt

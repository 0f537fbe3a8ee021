"""Running a model on a system: place its tensors, run a phase, hand over the records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from archsim.engine.machine import Machine, Step, Trail
from archsim.experiment import Fidelity, LoadedExperiment
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


def new_machine(experiment: LoadedExperiment, *, folded: bool = False) -> Machine:
    """A machine as the experiment describes it, with the model's weights in place.

    Raises UserError if they don't fit."""
    spec = experiment.spec
    machine = Machine(
        experiment.system.spec,
        spec.workload.tensor_parallel,
        cycle=spec.fidelity is Fidelity.CYCLE,
        shortcuts=not spec.no_shortcuts,
        folded=folded,
    )
    machine.reserve(tensors(experiment.model, spec.workload.precision, spec.workload.tensor_parallel))
    return machine


def run_phase(experiment: LoadedExperiment, trace: OperatorTrace, kv_tokens: int, step: Step | None) -> PhaseOutcome:
    """Run one phase on a machine of its own whose cache holds `kv_tokens` tokens in all."""
    machine = new_machine(experiment)
    workload = experiment.spec.workload
    machine.reserve(tuple(kv_storage(experiment.model, workload.precision, workload.tensor_parallel, kv_tokens)))
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

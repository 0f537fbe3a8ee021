"""Running a model on a system: place its tensors, run a phase, hand over the records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from archsim.engine.machine import Machine, Step, Trail
from archsim.engine.placement import PagedKv
from archsim.engine.tiering import KvAges
from archsim.records import Access, Counts, OperatorTrace, TensorClass
from archsim.system import SystemSpec
from archsim.workload.context_parallel import share_of
from archsim.workload.model import ModelShape
from archsim.workload.operators import experts_of, tensors
from archsim.workload.precision import Precision
from archsim.workload.shared_prefix import NO_PREFIX, SharedPrefix


@dataclass(frozen=True)
class PhaseOutcome:
    """A phase that has run: its trace, what was recorded, the memory channels by what they did, and the bytes of
    tensors on each other tier of a device."""

    trace: OperatorTrace
    trail: Trail
    channels: tuple[ChannelGroup, ...]
    placed_bytes: dict[str, int]
    pim_placed_bytes: int = 0


@dataclass(frozen=True)
class ChannelGroup:
    """Memory channels that have done the same; the counts are of one of them."""

    members: tuple[int, ...]
    counts: Counts


def kv_storage(model: ModelShape, precision: Precision, tp: int, tokens: int) -> Iterator[Access]:
    """The KV storage of `tokens` cached tokens on one device, layer by layer."""
    layer_bytes = model.kv_bytes_per_token_per_layer(precision, tp)
    for layer in range(model.layers):
        yield Access(f"layers[{layer}].kv", TensorClass.KV, layer_bytes * tokens)


def shared_kv_storage(model: ModelShape, precision: Precision, tp: int, tokens: int) -> Iterator[Access]:
    """The KV storage of `tokens` tokens of a shared prefix on one device, layer by layer."""
    layer_bytes = model.kv_bytes_per_token_per_layer(precision, tp)
    for layer in range(model.layers) if tokens else ():
        yield Access(f"layers[{layer}].kv_shared", TensorClass.KV_SHARED, layer_bytes * tokens)


@dataclass(frozen=True)
class Setup:
    """A model on a system: what `new_machine` builds. `cycle` False takes roofline bounds; without `shortcuts` every
    memory command is simulated (same numbers). `kv_block_tokens` are the tokens of a block of a paged cache; `prefix`
    is cached once for all sequences. `context_parallel` devices deal the cache out by tokens."""

    system: SystemSpec
    model: ModelShape
    precision: Precision
    tensor_parallel: int
    cycle: bool = True
    shortcuts: bool = True
    kv_block_tokens: int | None = None
    prefix: SharedPrefix = NO_PREFIX
    context_parallel: int = 1
    seed: int = 0


def new_machine(
    setup: Setup, *, folded: bool = False, paged_kv: PagedKv | None = None, kv_ages: KvAges | None = None
) -> Machine:
    """A machine with the model's weights in place; `kv_ages` if all sequences are of one length. Raises UserError if
    they don't fit."""
    machine = Machine(
        setup.system,
        setup.tensor_parallel,
        cycle=setup.cycle,
        shortcuts=setup.shortcuts,
        folded=folded,
        paged_kv=paged_kv,
        kv_ages=kv_ages,
    )
    machine.name_experts(experts_of(setup.model, setup.precision, setup.tensor_parallel))
    machine.reserve(tensors(setup.model, setup.precision, setup.tensor_parallel))
    return machine


def kv_ages(setup: Setup, sequences: int, kv_tokens: int) -> KvAges:
    """Of a cache of which a device has `kv_tokens` tokens of `sequences` equal sequences."""
    token_bytes = setup.model.kv_bytes_per_token_per_layer(setup.precision, setup.tensor_parallel)
    devices = setup.context_parallel
    return KvAges(Fraction(token_bytes, devices), sequences, kv_tokens // sequences * devices)


def reserve_prefix(machine: Machine, setup: Setup) -> None:
    """Place the cache of the shared prefix, once. Raises UserError if it doesn't fit beside the weights."""
    tokens = share_of(setup.prefix.tokens, setup.context_parallel)
    machine.reserve(tuple(shared_kv_storage(setup.model, setup.precision, setup.tensor_parallel, tokens)))


def reserve_kv(machine: Machine, setup: Setup, tokens: int) -> None:
    """Place a cache for `tokens` tokens. Raises UserError if it doesn't fit beside the weights."""
    machine.reserve(tuple(kv_storage(setup.model, setup.precision, setup.tensor_parallel, tokens)))


def paged_kv(setup: Setup, sequences: int, kv_tokens: int) -> PagedKv | None:
    """The blocks of a cache of `kv_tokens` tokens in `sequences` equal sequences, None if it isn't paged."""
    if setup.kv_block_tokens is None:
        return None
    token_bytes = setup.model.kv_bytes_per_token_per_layer(setup.precision, setup.tensor_parallel)
    return PagedKv(setup.kv_block_tokens, token_bytes, sequences, -(-kv_tokens // sequences), setup.seed)


def phase_machine(setup: Setup, sequences: int, kv_tokens: int) -> Machine:
    """A machine with weights, the shared prefix and a cache for `kv_tokens` tokens of `sequences` equal sequences in
    place. Raises UserError if they don't fit."""
    pages = paged_kv(setup, sequences, kv_tokens)
    machine = new_machine(setup, paged_kv=pages, kv_ages=kv_ages(setup, sequences, kv_tokens))
    reserve_prefix(machine, setup)
    reserve_kv(machine, setup, pages.pool_tokens if pages is not None else kv_tokens)
    return machine


def run_phase(setup: Setup, trace: OperatorTrace, kv_tokens: int, step: Step | None) -> PhaseOutcome:
    """Run one phase on a machine of its own whose cache holds `kv_tokens` tokens in all."""
    machine = phase_machine(setup, trace.sequences, kv_tokens)
    machine.run(trace, step=step)
    placed = placed_bytes(machine), pim_placed_bytes(machine)
    return PhaseOutcome(trace, machine.trail, channel_groups(machine), *placed)


def placed_bytes(machine: Machine) -> dict[str, int]:
    """Bytes of the tensors on each tier beside the main memory, of one device."""
    return {name: store.used_bytes for name, store in machine.placement.stores.items()}


def pim_placed_bytes(machine: Machine) -> int:
    """Bytes of the tensors in a separate PIM memory of one device; 0 if there is none."""
    return machine.pim.used_bytes if machine.pim is not None else 0


def channel_groups(machine: Machine) -> tuple[ChannelGroup, ...]:
    """What the memory channels of a machine did so far, those together that did the same."""
    members: dict[tuple[int, ...], list[int]] = {}
    for number, words in enumerate(machine.memory.channel_counts().tolist()):
        members.setdefault(tuple(words), []).append(number)
    groups = []
    for words, numbers in members.items():
        counts = Counts()
        machine.memory.add_counts(np.array(words), counts)
        groups.append(ChannelGroup(tuple(numbers), counts))
    return tuple(groups)


def peak_matrix_flops(system: SystemSpec, trace: OperatorTrace) -> tuple[int, str]:
    """The matrix engine's peak rate in the format most of the phase's arithmetic is in, and that format."""
    flops: dict[str, int] = {}
    for operator in trace.operators:
        if operator.matrix_flops:
            flops[operator.compute_format] = flops.get(operator.compute_format, 0) + operator.matrix_flops
    fmt = max(flops, key=lambda name: flops[name]) if flops else next(iter(system.device.matrix.peak))
    return system.device.matrix.peak_flops(fmt), fmt

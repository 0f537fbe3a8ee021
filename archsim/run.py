"""An experiment in, a result out."""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from archsim.config.errors import UserError
from archsim.energy import energy_pj, tier_component, total_pj, within_limit
from archsim.engine.machine import Machine
from archsim.engine.phases import (
    ChannelGroup,
    PhaseOutcome,
    Setup,
    channel_groups,
    new_machine,
    peak_matrix_flops,
    phase_machine,
    pim_placed_bytes,
    placed_bytes,
    run_phase,
)
from archsim.experiment import LoadedExperiment, load_experiment
from archsim.experiment_spec import Fidelity, PhasesWorkload, RequestsWorkload
from archsim.fabric.collectives import collective
from archsim.records import (
    Counts,
    Operator,
    OperatorRecord,
    OperatorTrace,
    PimCounts,
    PimUse,
    TierCounts,
    TierUse,
)
from archsim.report import ARTEFACTS
from archsim.report.terminal import progress as progress_bar
from archsim.results import ChannelClass, PhaseData, RunData, RunResult, write_run
from archsim.results_store import ensure_writable
from archsim.serving.serve import serve
from archsim.standing import facts_of, provenance_of
from archsim.system import SystemSpec, load_system
from archsim.workload.context_parallel import share_of
from archsim.workload.operators import lower_decode, lower_prefill
from archsim.workload.sub_batches import halves, interleaved

WARM_UP_OPERATORS = 8

Overrides = Mapping[str, object] | Sequence[str]


def run(
    experiment: str | Path, overrides: Overrides = (), *, out: str | Path | None = None, progress: bool = False
) -> RunResult:
    """Simulate an experiment and write its run directory.

    Args:
        experiment: path of an experiment file or of its folder.
        overrides: changes, {"workload.batch": 32} or ["workload.batch=32"].
        out: the run directory; "runs/<name of the experiment's folder>" by default. It appears whole or not at all.
        progress: show a progress bar on a terminal.

    Raises:
        UserError: for anything wrong with the experiment, a model that doesn't fit, or an unwritable directory.
    """
    loaded = load_experiment(experiment, overrides)
    directory = Path(out) if out is not None else Path("runs") / Path(str(loaded.loaded.file)).parent.name
    ensure_writable(directory)
    command = ("archsim", "run", str(experiment), *_override_words(overrides))
    return write_run(directory, simulate(loaded, command=command, progress=progress), artefacts=ARTEFACTS)


def simulate(loaded: LoadedExperiment, *, command: Sequence[str] = (), progress: bool = False) -> RunData:
    """Simulate a loaded experiment; nothing is written. `command` goes into the run's manifest.

    Raises UserError for a model that doesn't fit.
    """
    started = time.perf_counter()
    workload = loaded.spec.workload
    if isinstance(workload, RequestsWorkload):
        phases, requests = _serve(loaded, workload, progress)
    else:
        phases, requests = _phases(loaded, workload, progress), ()
    return RunData(
        name=loaded.spec.name,
        phases=phases,
        requests=requests,
        config=loaded.loaded.resolved,
        digest=loaded.digest(),
        seed=loaded.spec.seed,
        fidelity=loaded.spec.fidelity.value,
        facts=facts_of(loaded),
        sources=loaded.loaded.sources,
        provenance=provenance_of(loaded),
        wall_seconds=time.perf_counter() - started,
        command=command,
    )


def warm_up(loaded: LoadedExperiment) -> None:
    """Have the kernels that an experiment needs compiled, or loaded from their cache: runs a few operators.

    Raises UserError if the model doesn't fit."""
    setup = _setup(loaded)
    machine = phase_machine(setup, 1, 2)
    trace = lower_decode(loaded.model, setup.precision, setup.tensor_parallel, (1,))
    machine.run(replace(trace, operators=trace.operators[:WARM_UP_OPERATORS]))


# ---------------------------------------------------------------- phases


def _phases(loaded: LoadedExperiment, workload: PhasesWorkload, progress: bool) -> tuple[PhaseData, ...]:
    tp, precision, model = workload.tensor_parallel, workload.precision, loaded.model
    prefill, decode = workload.prefill, workload.decode
    setup = replace(_setup(loaded), kv_block_tokens=workload.kv_block_tokens)
    behind = f", behind {setup.prefix.tokens} shared ones" if setup.prefix.tokens else ""
    plan: list[tuple[Setup, OperatorTrace, int, str]] = []
    if prefill is not None:
        what = f"{prefill.batch} x {prefill.prompt_tokens} prompt tokens{behind}"
        trace = lower_prefill(model, precision, tp, (prefill.prompt_tokens,) * prefill.batch, setup.prefix)
        plan.append((setup, trace, prefill.batch * prefill.prompt_tokens, what))
    if decode is not None:
        what = f"batch {workload.batch}, {decode.context_tokens} tokens of context each{behind}"
        dealt = replace(setup, context_parallel=decode.context_parallel)
        trace = _decode_trace(dealt, (decode.context_tokens,) * workload.batch)
        kept = share_of(decode.context_tokens + 1, decode.context_parallel)
        plan.append((dealt, trace, workload.batch * kept, what))
    for setup, trace, kv_tokens, _ in plan[1:]:
        phase_machine(setup, trace.sequences, kv_tokens)  # all fits before anything runs
    phases = []
    for setup, trace, kv_tokens, what in plan:
        with _bar(f"simulating {trace.phase}", len(trace.operators), progress) as bar:
            outcome = run_phase(setup, trace, kv_tokens, bar.advance if bar is not None else None)
        phases.append(_phase_data(loaded, outcome, what))
    return tuple(phases)


def _decode_trace(setup: Setup, contexts: Sequence[int]) -> OperatorTrace:
    """A decode step; in two interleaved halves where the system has PIM that works on one while the other computes."""
    model, precision, tp = setup.model, setup.precision, setup.tensor_parallel
    pim = setup.system.device.pim
    if pim is None or not pim.overlap.sub_batches or len(contexts) < 2:
        return lower_decode(model, precision, tp, contexts, setup.prefix, setup.context_parallel)
    first, second = (lower_decode(model, precision, tp, half, setup.prefix) for half in halves(contexts))
    return interleaved(first, second)


def _setup(loaded: LoadedExperiment) -> Setup:
    spec = loaded.spec
    return Setup(
        system=loaded.system.spec,
        model=loaded.model,
        precision=spec.workload.precision,
        tensor_parallel=spec.workload.tensor_parallel,
        cycle=spec.fidelity is Fidelity.CYCLE,
        shortcuts=not spec.no_shortcuts,
        prefix=spec.workload.prefix,
        seed=spec.seed,
    )


def _phase_data(loaded: LoadedExperiment, outcome: PhaseOutcome, description: str) -> PhaseData:
    system, trace = loaded.system.spec, outcome.trace
    records = outcome.trail.operators
    energy = _energy(system, records, trace.devices)
    return PhaseData(
        phase=trace.phase,
        tokens=trace.tokens,
        sequences=trace.sequences,
        devices=trace.devices,
        description=description,
        records=records,
        spans=outcome.trail.spans,
        bandwidth=outcome.trail.bandwidth,
        energy_pj=energy.by_component_pj,
        operator_energy_pj=energy.of_operators_pj,
        channels=_channel_classes(outcome.channels),
        tiers=_tier_uses(system, records, outcome.placed_bytes, energy.by_component_pj),
        pim=_pim_use(system, records, outcome.pim_placed_bytes),
        **_peaks(system, trace),
    )


def _peaks(system: SystemSpec, trace: OperatorTrace) -> dict[str, Any]:
    flops, fmt = peak_matrix_flops(system, trace)
    return {
        "memory": system.device.memory.label,
        "peak_hbm_bytes_per_second": int(system.device.memory.peak_bytes_per_second),
        "peak_matrix_flops_per_second": flops,
        "matrix_format": fmt,
    }


def _tier_uses(
    system: SystemSpec, records: Sequence[OperatorRecord], placed: Mapping[str, int], energy: Mapping[str, float]
) -> tuple[TierUse, ...]:
    """What a phase did on each tier. `energy` is that of all devices by component, within the board's power limit,
    which the ends of the band are scaled to as well."""
    counts = Counts()
    for record in records if system.device.tiers else ():
        counts.add(Counts(tiers=record.counts.tiers))
    uses = []
    for name, tier in system.device.tiers.items():
        part = counts.tiers.get(name, TierCounts())
        low, likely, high = tier.energy_pj(part)
        spent = energy.get(tier_component(name), 0.0)
        uses.append(
            TierUse(
                name=name,
                memory=f"{tier.stacks} x {tier.technology.name}",
                capacity_bytes=tier.capacity,
                placed_bytes=placed[name],
                ceiling_bytes_per_second=int(tier.ceiling_bytes_per_second),
                read_bytes=part.read_bytes,
                write_bytes=part.write_bytes,
                energy_low_pj=spent * low / likely if likely else 0.0,
                energy_pj=spent,
                energy_high_pj=spent * high / likely if likely else 0.0,
            )
        )
    return tuple(uses)


def _pim_use(system: SystemSpec, records: Sequence[OperatorRecord], placed_bytes: int) -> PimUse | None:
    """What a phase did with processing in memory; None for a system without."""
    pim = system.device.pim
    if pim is None:
        return None
    counts = PimCounts()
    for record in records:
        if record.counts.pim is not None:
            counts.add(record.counts.pim)
    return PimUse(
        memory=f"{pim.stacks} x {pim.technology.name}",
        policy=str(pim.offload.policy),
        capacity_bytes=pim.capacity or 0,
        placed_bytes=placed_bytes,
        ceiling_bytes_per_second=int(pim.peak_bytes_per_second),
        counts=counts,
    )


def _channel_classes(groups: Sequence[ChannelGroup]) -> tuple[ChannelClass, ...]:
    return tuple(
        ChannelClass(label=_channel_label(group.members), weight=len(group.members), counts=group.counts)
        for group in groups
    )


def _channel_label(members: Sequence[int]) -> str:
    """ "channels 0-3", "channel 5", or how many there are if they aren't neighbours."""
    if len(members) == 1:
        return f"channel {members[0]}"
    if members[-1] - members[0] + 1 == len(members):
        return f"channels {members[0]}-{members[-1]}"
    return f"{len(members)} channels from {members[0]} on"


@dataclass
class _Energy:
    """Energy of all devices over a phase: by component, and of each operator."""

    by_component_pj: dict[str, float] = field(default_factory=dict)
    of_operators_pj: array[float] = field(default_factory=lambda: array("d"))

    def add(self, one_device_pj: Mapping[str, float], devices: int) -> None:
        for name, amount in one_device_pj.items():
            self.by_component_pj[name] = self.by_component_pj.get(name, 0.0) + amount * devices


def _energy(system: SystemSpec, records: Sequence[OperatorRecord], devices: int) -> _Energy:
    """What operators take, within the board's power limit. Time between them (a server waiting for requests) draws
    idle power."""
    table, power = system.energy_table, system.device.board_power
    tiers, pim = system.device.tiers, system.device.pim
    energy = _Energy()
    idle_fs = records[-1].end_fs - records[0].start_fs if records else 0
    for record in records:
        duration_fs = record.duration_fs
        part = within_limit(energy_pj(record.counts, duration_fs, table, power, tiers, pim), duration_fs, power)
        energy.add(part, devices)
        energy.of_operators_pj.append(total_pj(part) * devices)
        idle_fs -= duration_fs
    energy.add(energy_pj(Counts(), max(0, idle_fs), table, power), devices)
    return energy


# ---------------------------------------------------------------- requests


def _serve(loaded: LoadedExperiment, workload: RequestsWorkload, progress: bool) -> tuple[tuple[PhaseData, ...], Any]:
    requests = loaded.requests()
    setup = _setup(loaded)
    machine = new_machine(setup, folded=True)
    with _bar("serving requests", len(requests), progress) as bar:
        outcome = serve(
            machine,
            setup,
            workload.batching,
            requests,
            (lambda finished: bar.update(completed=finished)) if bar is not None else None,
        )
    records = machine.trail.operators
    energy = _energy(machine.system, records, machine.devices)
    trace = lower_prefill(loaded.model, workload.precision, workload.tensor_parallel, (requests[0].context_tokens,))
    phase = PhaseData(
        phase="iterations",
        tokens=outcome.tokens,
        sequences=len(requests),
        devices=machine.devices,
        description=f"{outcome.iterations} iterations of {len(requests)} requests",
        records=records,
        spans=machine.trail.spans,
        bandwidth=machine.trail.bandwidth,
        energy_pj=energy.by_component_pj,
        operator_energy_pj=energy.of_operators_pj,
        channels=_channel_classes(channel_groups(machine)),
        tiers=_tier_uses(machine.system, records, placed_bytes(machine), energy.by_component_pj),
        pim=_pim_use(machine.system, records, pim_placed_bytes(machine)),
        **_peaks(machine.system, trace),
    )
    return (phase,), outcome.requests


def _bar(description: str, total: int, shown: bool) -> AbstractContextManager[Any]:
    return progress_bar(description, total=total) if shown else nullcontext(None)


def _override_words(overrides: Overrides) -> list[str]:
    if isinstance(overrides, Mapping):
        return [f"{name}={value}" for name, value in overrides.items()]
    return [str(word) for word in overrides]


# ---------------------------------------------------------------- single kernels, for compare


class KernelPredictor:
    """Predicts single operators on one device, cold, each from an idle memory, for `archsim compare`."""

    def __init__(self, system: SystemSpec) -> None:
        self._system = system
        self._machine = Machine(system, 1, cold=True)
        self.replay_fs = system.device.launch.graph_replay

    def predict(self, operator: Operator) -> tuple[int, float]:
        """(latency in femtoseconds, energy of the device in picojoules within its power limit)."""
        trace = OperatorTrace("kernel", (operator,), 1, 1, 1)
        self._machine.restart()
        (record,) = self._machine.run(trace)
        power = self._system.device.board_power
        device = self._system.device
        energy = energy_pj(
            record.counts, record.duration_fs, self._system.energy_table, power, device.tiers, device.pim
        )
        return record.duration_fs, total_pj(within_limit(energy, record.duration_fs, power))

    def predict_collective(self, operation: str, devices: int, message_bytes: int, fmt: str) -> tuple[int, float]:
        """(latency in femtoseconds, energy of one device in picojoules) of data in the number format `fmt`.

        Raises UserError if the system has no link."""
        link = self._system.link
        if link is None:
            raise UserError("this system has no link, so there are no collectives", expected="a system with `link`")
        done = collective(operation, devices, message_bytes, link, fmt=fmt)
        counts = Counts(link_bytes=done.link_bytes)
        energy = energy_pj(counts, done.total_fs, self._system.energy_table, self._system.device.board_power)
        return done.total_fs, total_pj(energy)


def kernel_predictor(system: str | Path, overrides: Overrides = ()) -> KernelPredictor:
    """A predictor for a shipped or described system. Raises UserError as `load_system` does."""
    return KernelPredictor(load_system(system, overrides).spec)

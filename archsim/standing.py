"""What a run says beside its numbers: what was run, and which numbers are exact and which a model's."""

from __future__ import annotations

from archsim.config.units import format_quantity
from archsim.experiment import LoadedExperiment
from archsim.experiment_spec import Fidelity, PhasesWorkload, RequestsWorkload
from archsim.memory.dram_memory import HbmSpec
from archsim.memory.sram_memory import SramMemorySpec
from archsim.metrics import FS_PER_SECOND
from archsim.results import Provenance
from archsim.system import DeviceSpec, SystemSpec


def facts_of(loaded: LoadedExperiment) -> dict[str, str]:
    """What was run, in words: model, system, devices, memories, precision."""
    system, workload = loaded.system.spec, loaded.spec.workload
    memory = system.device.memory
    tiers = {
        f"tier {name}": f"{tier.stacks} stacks of {tier.technology.name}, "
        f"{format_quantity(tier.ceiling_bytes_per_second, 'bytes/s')} ceiling"
        for name, tier in system.device.tiers.items()
    }
    return {
        "model": loaded.model.name,
        "system": system.name,
        "devices": f"{workload.tensor_parallel} of {system.devices}, tensor parallel",
        "memory per device": f"{memory.in_words}, {format_quantity(memory.peak_bytes_per_second, 'bytes/s')} peak",
        "precision": f"weights {workload.precision.weights}, KV {workload.precision.kv}, "
        f"activations {workload.precision.activations}",
    } | (_cache_facts(workload) | tiers | _network_facts(system.device) | _pim_facts(loaded))


def _cache_facts(workload: PhasesWorkload | RequestsWorkload) -> dict[str, str]:
    """What sequences or devices share of the KV cache."""
    facts = {}
    prefix = workload.prefix
    if prefix.tokens:
        read = "once for the batch (cascade attention)" if prefix.cascade else "once for each sequence"
        facts["shared prefix"] = f"{prefix.tokens} tokens, cached once, read {read}"
    decode = workload.decode if isinstance(workload, PhasesWorkload) else None
    if decode is not None and decode.context_parallel > 1:
        facts["context parallel"] = f"{decode.context_parallel} devices deal the cache out by tokens in decode"
    return facts


def _network_facts(device: DeviceSpec) -> dict[str, str]:
    """The simulated on-chip network: what it sustains of what the memory delivers."""
    network, flow = device.network, device.memory_flow
    if network is None or flow is None:
        return {}
    sustained, offered, bound = (
        format_quantity(rate, "bytes/s", 3) for rate in (flow.sustained, flow.offered, flow.bound)
    )
    unloaded, loaded = (
        format_quantity(time_fs / FS_PER_SECOND, "time") for time_fs in (flow.unloaded_fs, flow.loaded_fs)
    )
    return {
        "on-chip network": f"{network.noc.name}: sustains {sustained} of {offered} (its busiest link allows {bound}); "
        f"{unloaded} there and back unloaded, {loaded} loaded"
    }


def _pim_facts(loaded: LoadedExperiment) -> dict[str, str]:
    pim = loaded.system.spec.device.pim
    if pim is None:
        return {}
    where = "a memory of its own" if pim.separate else "the main memory itself"
    rate = format_quantity(pim.peak_bytes_per_second, "bytes/s")
    overlap = [name for name, on in pim.overlap.model_dump(exclude_none=True).items() if on is True]
    alone = pim.overlap.heads and loaded.model.kv_heads_per_device(loaded.spec.workload.tensor_parallel) == 1
    without_effect = (
        "; overlap of heads without effect: a device has one KV head, attention is one step" if alone else ""
    )
    return {
        "processing in memory": f"{pim.stacks} x {pim.technology.name}, {rate} at its units, {where}",
        "offloaded to PIM": f"by {pim.offload.policy}"
        + (f"; overlap of {', '.join(overlap)}" if overlap else "")
        + without_effect,
    }


def provenance_of(loaded: LoadedExperiment) -> tuple[Provenance, ...]:
    """Which of the result's numbers are exact and which come from a model, and of what kind."""
    if loaded.spec.fidelity is Fidelity.ROOFLINE:
        return (Provenance(subject="all times", standing="model", note="roofline bounds: no machine is faster"),)
    return (
        _memory_provenance(loaded.system.spec.device.memory),
        *_tier_provenance(loaded.system.spec),
        *_network_provenance(loaded.system.spec.device),
        *_pim_provenance(loaded.system.spec),
        Provenance(
            subject="devices",
            standing="exact",
            note="one device stands for the tensor-parallel group: same operators, same sizes, same times",
        ),
        Provenance(
            subject="engines",
            standing="model",
            note="matrix and vector engines by tiles and waves; efficiency, launch and L2 terms are the preset's",
        ),
        Provenance(
            subject="collectives",
            standing="model",
            note="chunk schedules on the links with the library's published latency terms, by its fastest choice",
        ),
        Provenance(subject="energy", standing="model", note="counted events times the preset's energy table"),
    )


def _memory_provenance(memory: HbmSpec | SramMemorySpec) -> Provenance:
    if isinstance(memory, SramMemorySpec):
        note = "every access of a slice through its banks and ports in closed form, equal to a walk cycle by cycle; "
        note += "slices do the same and are simulated once"
        return Provenance(subject="SRAM accesses", standing="exact", note=note)
    return Provenance(
        subject=f"{memory.label} commands",
        standing="exact",
        note="every command of a channel scheduled under its standard's timing constraints; channels with equal "
        f"request sequences and equal states, of {memory.channels} in all, are simulated once",
    )


def _tier_provenance(system: SystemSpec) -> list[Provenance]:
    if not system.device.tiers:
        return []
    exact = Provenance(
        subject=f"commands of {', '.join(system.device.tiers)}",
        standing="exact",
        note="every sense, program and bus transfer, or DRAM command, scheduled under the technology's constraints",
    )
    note = "chunks through a staging buffer in program order, posted writes, links by flits (docs/tiers.md)"
    return [exact, Provenance(subject="staging between tiers", standing="model", note=note)]


def _network_provenance(device: DeviceSpec) -> list[Provenance]:
    if device.network is None:
        return []
    exact = Provenance(
        subject="routers of the on-chip network",
        standing="exact",
        note="every flit of a measurement of reads, through routers simulated cycle by cycle",
    )
    note = "operators move their bytes at the rate that reads sustain, evenly over channels and engines"
    return [exact, Provenance(subject="operators on the on-chip network", standing="model", note=note)]


def _pim_provenance(system: SystemSpec) -> list[Provenance]:
    pim = system.device.pim
    if pim is None:
        return []
    note = "every command of the busiest channel scheduled under the technology's rules; equal operators simulated once"
    exact = Provenance(subject="PIM commands", standing="exact", note=note)
    note = "which operators go there, the way there and back, and what overlaps (docs/pim_engine.md)"
    return [exact, Provenance(subject="offloading", standing="model", note=note)]

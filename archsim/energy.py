"""Energy of ONE device: counts times energy per event, plus the idle power over time. Picojoules as floats.

The parts are `COMPONENTS`, always all of them and in that order, so a sum over them is the same float everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from archsim.config.errors import UserError
from archsim.config.quantities import FS_PER_PJ_AND_WATT
from archsim.memory.pim_memory import PimMemorySpec
from archsim.memory.tiers import TierSpec
from archsim.records import Counts
from archsim.system import EnergyTableSpec, PowerSpec
from archsim.workload.precision import FORMATS

COMPONENTS = (
    "hbm_activate",
    "hbm_read",
    "hbm_write",
    "hbm_refresh",
    "hbm_io",
    "buffer",
    "noc",
    "link",
    "matrix",
    "vector",
    "static",
)


@dataclass(frozen=True, slots=True)
class BoardPower:
    """Mean power of one device's board in watts: `demand` is what the counts ask for, `drawn` what the limit lets
    through. `limited` says that the two differ."""

    demand: float
    drawn: float

    @property
    def limited(self) -> bool:
        return self.drawn < self.demand


def energy_pj(
    counts: Counts,
    elapsed_fs: int,
    table: EnergyTableSpec,
    power: PowerSpec,
    tiers: Mapping[str, TierSpec] | None = None,
    pim: PimMemorySpec | None = None,
) -> dict[str, float]:
    """Picojoules by component that one device takes for `counts` within `elapsed_fs`.

    `counts` are those of the whole device (all channels). Bytes pass the network between memory and buffer
    (`noc_bytes`) and the one between buffer and engines (`buffer_read_bytes` + `buffer_write_bytes`). `table` is a
    `SystemSpec.energy_table`, complete with the memory's energies. The power limit is not applied: see `within_limit`.
    Tiers beside the main memory are components of their own, "tier_" and their name, and so are PIM's, "pim_...".
    Raises UserError for a compute format without an energy."""
    hbm = table.hbm
    assert hbm is not None, "a system's energy_table, not its energy"
    bursts = counts.dram_reads + counts.dram_writes
    buffer_bits = 8 * (counts.buffer_read_bytes + counts.buffer_write_bytes)
    beside = {tier_component(name): tiers[name].energy_pj(part)[1] for name, part in counts.tiers.items() if tiers}
    if pim is not None and counts.pim is not None:
        beside |= pim.energy_pj(counts.pim)
    return {
        "hbm_activate": counts.dram_activates * hbm.activate,
        "hbm_read": counts.dram_reads * hbm.read,
        "hbm_write": counts.dram_writes * hbm.write,
        "hbm_refresh": counts.dram_refreshes_all_bank * hbm.refresh_all_bank
        + counts.dram_refreshes_per_bank * hbm.refresh_per_bank,
        "hbm_io": 8 * bursts * hbm.burst * hbm.io,
        "buffer": buffer_bits * table.buffer,
        "noc": 8 * counts.noc_bytes * table.memory_network + buffer_bits * table.engine_network,
        "link": 8 * counts.link_bytes * table.link,
        "matrix": sum(macs * table.mac_pj(element(fmt)) for fmt, macs in sorted(counts.matrix_macs.items())),
        "vector": counts.vector_flops * table.vector,
        "static": static_pj(elapsed_fs, power),
    } | beside


def tier_component(tier: str) -> str:
    """What a tier's energy is called among the components."""
    return f"tier_{tier}"


def element(fmt: str) -> str:
    """The format that a matrix engine multiplies in: "fp4" for "mxfp4"; others mean themselves."""
    return FORMATS[fmt].element if fmt in FORMATS else fmt


def static_pj(elapsed_fs: int, power: PowerSpec) -> float:
    """Picojoules that a device draws in a time whatever it does."""
    return power.idle * elapsed_fs / FS_PER_PJ_AND_WATT


def total_pj(energy: Mapping[str, float]) -> float:
    """The sum of all components, in their fixed order, tiers last."""
    total = sum([energy[name] for name in COMPONENTS])
    if len(energy) == len(COMPONENTS):
        return total
    return total + sum([energy[name] for name in sorted(energy.keys() - frozenset(COMPONENTS))])


def power_w(energy: Mapping[str, float], elapsed_fs: int, power: PowerSpec) -> BoardPower:
    """Mean board power over `elapsed_fs` (above zero)."""
    demand = total_pj(energy) / elapsed_fs * FS_PER_PJ_AND_WATT
    return BoardPower(demand, min(demand, power.limit))


def within_limit(energy: Mapping[str, float], elapsed_fs: int, power: PowerSpec) -> dict[str, float]:
    """The components as a board at its power limit draws them: all but `static` scaled down to meet it.

    A board at its limit lowers clock and voltage: each event then costs less. The time it loses is part of the matrix
    engine's `efficiency`, which is measured at the limit, so time stays as it is. Raises UserError if the limit is
    lower than that and what the counts ask for is above it: nobody knows here how much longer it would take."""
    if elapsed_fs <= 0 or not (board := power_w(energy, elapsed_fs, power)).limited:
        return dict(energy)
    if power.efficiency_at is not None and power.limit < power.efficiency_at:
        raise UserError(
            f"work asks a device for {min(board.demand, power.efficiency_at):.0f} W, above its power limit of "
            f"{power.limit:.0f} W; how much longer it takes then is not simulated",
            expected=f"a limit of {power.efficiency_at:.0f} W, at which the engines' efficiency was measured, or one "
            "that all work stays below",
        )
    allowed = (power.limit - power.idle) * elapsed_fs / FS_PER_PJ_AND_WATT
    scale = allowed / (total_pj(energy) - energy["static"])
    return {name: amount if name == "static" else amount * scale for name, amount in energy.items()}

"""A machine: equal devices with their memory and engines, the links between them, and what each event costs.

Everything a preset in hwconfigs/systems says, validated as a whole.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from archsim.compute.attention import AttentionKernelSpec
from archsim.compute.matrix import MatrixEngineSpec
from archsim.compute.onchip import OnChipBufferSpec
from archsim.compute.vector import VectorEngineSpec
from archsim.config.errors import UserError, listed, nearest_name
from archsim.config.loading import LoadedSpec, data_root, load_spec, read_key
from archsim.config.schema import Spec
from archsim.config.units import (
    ByteCount,
    BytesPerSecond,
    PicojoulePerBit,
    Picojoules,
    PositiveInt,
    TimeFs,
    Watts,
    format_bytes,
)
from archsim.fabric.links import LinkSpec
from archsim.fabric.memory_network import MemoryFlow, MemoryNetworkSpec, hop_pj_per_bit, memory_flow
from archsim.memory.dram_memory import HbmSpec
from archsim.memory.pim_memory import PimMemorySpec
from archsim.memory.sram import SramSpec
from archsim.memory.sram_buffer import SramBufferSpec
from archsim.memory.sram_memory import SramMemorySpec
from archsim.memory.tiers import MAIN_TIER, PlacementSpec, TierSpec


def _memory_kind(written: Any) -> Any:
    return written.get("kind", "dram") if isinstance(written, Mapping) else getattr(written, "kind", None)


MemorySpec = Annotated[
    Annotated[HbmSpec, Tag("dram")] | Annotated[SramMemorySpec, Tag("sram")], Discriminator(_memory_kind)
]
"""A device's main memory: DRAM unless its `kind` says otherwise."""


def _buffer_kind(written: Any) -> Any:
    return written.get("kind", "numbers") if isinstance(written, Mapping) else getattr(written, "kind", "numbers")


BufferSpec = Annotated[
    Annotated[OnChipBufferSpec, Tag("numbers")] | Annotated[SramBufferSpec, Tag("sram")], Discriminator(_buffer_kind)
]
"""A device's on-chip buffer: by its numbers, or `kind: sram` out of a technology."""


class LaunchSpec(Spec):
    """What software adds: `kernel` per kernel launch; `graph_replay` once per replay of a captured graph, which only
    the comparison with measured kernels adds to single operators."""

    kernel: TimeFs
    graph_replay: TimeFs


class PowerSpec(Spec):
    """Of one device's board: `idle` is drawn whatever it does (leakage, clocks, regulators), `limit` is enforced.

    A board at its limit lowers its clocks. What that costs is part of the engines' `efficiency`, measured at the limit
    `efficiency_at`, or at `limit` without it; how much longer work takes below it isn't simulated (energy.py)."""

    idle: Watts
    limit: Watts
    efficiency_at: Watts | None = None

    @model_validator(mode="after")
    def _check(self) -> "PowerSpec":
        if self.idle >= self.limit:
            raise UserError(
                f"idle is {self.idle:g} W, not below the limit of {self.limit:g} W", expected=f"idle < {self.limit:g} W"
            )
        return self


class DeviceSpec(Spec):
    """One accelerator. `noc` is the on-chip network's bandwidth between memory and engines; with a `network`, no more
    than that network sustains, and its latency is on top of the buffer's `miss_latency`.

    `prefetch` says whether an operator's loads start behind the operator before it while the buffer allows (a
    compiled dataflow machine) or only with its own launch (a GPU's separate kernels). `stream_window` is how many
    bytes may be in flight or waiting to be consumed; without it, what the buffer holds. `tiers` are further memories
    by name, `placement` says which tensors lie there; rules call the main memory `hbm`. `pim` is processing in memory,
    in the main memory or beside it."""

    name: str
    memory: MemorySpec
    tiers: dict[str, TierSpec] = Field(default_factory=dict)
    pim: PimMemorySpec | None = None
    placement: PlacementSpec = PlacementSpec()
    matrix: MatrixEngineSpec
    vector: VectorEngineSpec
    buffer: BufferSpec
    attention: AttentionKernelSpec
    launch: LaunchSpec
    noc: BytesPerSecond
    network: MemoryNetworkSpec | None = None
    prefetch: bool = False
    stream_window: ByteCount | None = None
    power: PowerSpec

    @property
    def board_power(self) -> PowerSpec:
        """`power`, with what keeping the data of an on-chip buffer out of leaky cells takes all the time."""
        if not isinstance(self.buffer, SramBufferSpec):
            return self.power
        return self.power.model_copy(update={"idle": self.power.idle + self.buffer.technology.refresh_watts})

    @property
    def buffer_is_slower_than_memory(self) -> bool:
        """Whether what passes the buffer on its way from memory takes longer there than on the memory's pins. A faster
        one adds nothing to a stream."""
        return self.buffer.bandwidth < self.memory.peak_bytes_per_second

    @property
    def window_bytes(self) -> int:
        """Bytes of a stream that may be in flight or waiting to be consumed."""
        return self.buffer.capacity if self.stream_window is None else self.stream_window

    @property
    def memory_flow(self) -> MemoryFlow | None:
        """What `network` makes of reads from the memory, measured once for each network; None without one."""
        if self.network is None:
            return None
        assert isinstance(self.memory, HbmSpec), "checked when the device was read"
        return memory_flow(self.network, self.memory.channels, self.memory.peak_bytes_per_second)

    @model_validator(mode="after")
    def _check(self) -> "DeviceSpec":
        least = self.memory.least_window_bytes
        if self.window_bytes < least:
            raise UserError(
                f"a window of {format_bytes(self.window_bytes)} can't keep {_parts(self.memory)} busy",
                expected=f"stream_window of at least {format_bytes(least)}, one burst for each",
            )
        if self.prefetch and isinstance(self.memory, SramMemorySpec):
            raise UserError("a prefetch from SRAM", expected="prefetch: false; operands are read in place")
        self._check_tiers()
        self._check_pim()
        self._check_network()
        return self

    def _check_network(self) -> None:
        if self.network is None:
            return
        if not isinstance(self.memory, HbmSpec) or self.tiers or self.pim is not None:
            raise UserError(
                "a network between engines and anything but DRAM is not simulated",
                expected="a memory of DRAM, no tiers, no pim; or no network",
            )
        nodes = len(self.network.channels)
        if nodes > self.memory.channels:
            raise UserError(
                f"network.channels names {nodes} nodes for the {self.memory.channels} channels of the memory",
                expected=f"at most {self.memory.channels}: channels are dealt over the nodes",
            )

    def _check_pim(self) -> None:
        pim = self.pim
        if pim is None:
            return
        if self.tiers or self.prefetch:
            raise UserError("pim beside tiers or prefetch is not simulated", expected="pim alone, prefetch: false")
        if not pim.separate and pim.held_bytes < self.memory.capacity:
            raise UserError(
                f"pim is the main memory of {format_bytes(self.memory.capacity)}, but its {pim.stacks} stacks hold "
                f"{format_bytes(pim.held_bytes)}",
                expected="as many PIM stacks as the memory has, or pim.capacity for a memory of its own",
            )

    def _check_tiers(self) -> None:
        if MAIN_TIER in self.tiers:
            raise UserError(f"a tier can't be called {MAIN_TIER}: that is the main memory", expected="another name")
        for name, tier in self.tiers.items():
            tier.check_buffer(name, self.window_bytes, tier.round_bytes)
        names = [MAIN_TIER, *self.tiers]
        wanted = [rule.tier for rule in self.placement.rules]
        wanted += [self.placement.rest] if self.placement.rest is not None else []
        for name in wanted:
            if name not in names:
                raise UserError(
                    f"placement names the tier '{name}', which there isn't",
                    expected=listed(names),
                    nearest=nearest_name(name, names),
                )


class HbmEnergySpec(Spec):
    """Energy of the memory's commands, in pJ each, and of its pins.

    `activate` is an ACT with its precharge, of a row of `row` bytes; `read` and `write` move `burst` bytes inside the
    stack; a refresh command is one pseudo-channel's. `io` is per bit between stack and device."""

    row: ByteCount
    burst: ByteCount
    activate: Picojoules
    read: Picojoules
    write: Picojoules
    refresh_all_bank: Picojoules
    refresh_per_bank: Picojoules
    io: PicojoulePerBit


class EnergyTableSpec(Spec):
    """Energy per event. Counts times these, plus the idle power, is what energy.py reports.

    `memory_network` is per bit between the memory's pins and the on-chip buffer, `engine_network` per bit between
    buffer and engines, `buffer` per bit read or written there, the engine's own scratchpad included; `link` per bit
    that leaves a device. `mac` is one multiply-accumulate per compute format, `vector` one elementwise operation.
    Without `hbm`, the memory technology's own `energy` holds (`SystemSpec.energy_table`)."""

    hbm: HbmEnergySpec | None = None
    memory_network: PicojoulePerBit
    engine_network: PicojoulePerBit
    buffer: PicojoulePerBit
    link: PicojoulePerBit
    mac: dict[str, Picojoules]
    vector: Picojoules

    def mac_pj(self, fmt: str) -> float:
        """Picojoules of one multiply-accumulate. Raises UserError for a format without an entry."""
        if fmt not in self.mac:
            raise UserError(
                f"the energy table has no multiply-accumulate in '{fmt}'",
                expected=listed(self.mac),
                nearest=nearest_name(fmt, self.mac),
            )
        return self.mac[fmt]


def _sram_energy(sram: SramSpec, chips: int) -> HbmEnergySpec:
    """Accesses of SRAM in the form of memory commands: a word is the burst, nothing is activated, a refresh is of all
    banks, and the wires to the engines take the place of pins."""
    word_bits = 8 * sram.word
    return HbmEnergySpec.model_construct(
        row=sram.word,
        burst=sram.word,
        activate=0.0,
        read=word_bits * sram.energy.read,
        write=word_bits * sram.energy.write,
        refresh_all_bank=chips * sram.refresh_bits * (sram.energy.read + sram.energy.write),
        refresh_per_bank=0.0,
        io=sram.energy.wire,
    )


class SystemSpec(Spec):
    """A whole machine: `devices` equal devices, joined by `link` if there are several."""

    kind_in_words: ClassVar[str] = "a system"

    kind: Literal["system"]
    name: str
    devices: PositiveInt = 1
    device: DeviceSpec
    link: LinkSpec | None = None
    energy: EnergyTableSpec

    @property
    def capacity_bytes(self) -> int:
        """Usable memory of all devices."""
        return self.devices * self.device.memory.capacity

    @property
    def energy_table(self) -> EnergyTableSpec:
        """What each event costs: `energy`, with the memory technology's own energies if it has none for the memory, and
        the device's `network` in the place of `memory_network` if it has a `hop_energy`."""
        known = self._network_energy
        if known.hbm is not None:
            return known
        memory = self.device.memory
        if isinstance(memory, SramMemorySpec):
            return known.model_copy(update={"hbm": _sram_energy(memory.technology, memory.chips)})
        technology = memory.technology
        band = technology.energy_band
        assert band is not None, "checked when the system was read"
        organisation = technology.organisation
        hbm = HbmEnergySpec.model_construct(
            row=organisation.row_bytes, burst=organisation.burst_bytes, **dataclasses.asdict(band.likely)
        )
        return known.model_copy(update={"hbm": hbm})

    @property
    def _network_energy(self) -> EnergyTableSpec:
        """`energy`, with the memory's network at the flit-hops of a simulated one that says what each costs."""
        network, flow = self.device.network, self.device.memory_flow
        hops = hop_pj_per_bit(network, flow) if network is not None and flow is not None else None
        return self.energy if hops is None else self.energy.model_copy(update={"memory_network": hops})

    @model_validator(mode="after")
    def _check(self) -> "SystemSpec":
        problems = [*self._link_problems(), *self._energy_problems()]
        if problems:
            raise UserError("; ".join(problems))
        return self

    def _link_problems(self) -> list[str]:
        if self.devices > 1 and self.link is None:
            return [f"{self.devices} devices need a link between them: add `link`, or set devices to 1"]
        return []

    def _energy_problems(self) -> list[str]:
        problems = self._hbm_energy_problems()
        missing = [fmt for fmt in self.device.matrix.peak if fmt not in self.energy.mac]
        if missing:
            problems.append(f"energy.mac has no entry for {', '.join(missing)}, which the matrix engine computes in")
        return problems

    def _hbm_energy_problems(self) -> list[str]:
        memory, table = self.device.memory, self.energy.hbm
        if isinstance(memory, SramMemorySpec):
            return ["energy.hbm doesn't go with SRAM, which has its own energies: leave it out"] if table else []
        technology = memory.technology
        if table is None:
            if technology.energy is None:
                return [
                    f"{technology.name} has no energy data: add `energy` to the memory, or energy.hbm to the system"
                ]
            return []
        organisation = technology.organisation
        return [
            f"energy.hbm.{name} is {format_bytes(said)}, but a {name} of the memory is {format_bytes(actual)}"
            for name, said, actual in (
                ("row", table.row, organisation.row_bytes),
                ("burst", table.burst, organisation.burst_bytes),
            )
            if said != actual
        ]


def system_presets() -> dict[str, Path]:
    """The shipped systems by name, sorted."""
    folder = data_root() / "hwconfigs" / "systems"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def describe_systems() -> dict[str, str]:
    """What each shipped system says of itself (`name` in its file), by preset name."""
    return {name: str(read_key(path, "name")) for name, path in system_presets().items()}


def system_path(name_or_path: str | Path) -> Path:
    """The file of a shipped system's name, or the path itself. Raises UserError with the nearest name."""
    path = Path(name_or_path)
    presets = system_presets()
    if str(name_or_path) in presets:
        return presets[str(name_or_path)]
    if path.is_file():
        return path
    raise UserError(
        f"there is no system '{name_or_path}'",
        expected=f"a path of a YAML file, or {listed(presets, limit=100)}",
        nearest=nearest_name(path.stem, presets),
    )


def load_system(
    name_or_path: str | Path, overrides: Mapping[str, object] | Sequence[str] = (), search: Sequence[Path] = ()
) -> LoadedSpec[SystemSpec]:
    """A shipped system by name, or any file, with overrides such as "device.memory.stacks=8".

    Raises SpecError with every problem of the file, UserError if there is no such system."""
    return load_spec(system_path(name_or_path), SystemSpec, overrides, search)


def _parts(memory: HbmSpec | SramMemorySpec) -> str:
    if isinstance(memory, SramMemorySpec):
        return f"{memory.technology.slices} slices"
    return f"{memory.pseudo_channels} pseudo-channels"

"""Systems against what is published of them; docs/validation.md, "Systems against publications", has the table."""

from __future__ import annotations

from fractions import Fraction

import pytest

from archsim.compute.arithmetic import most_that_fits
from archsim.config.errors import UserError
from archsim.engine.phases import Setup, phase_machine
from archsim.experiment import LoadedExperiment, load_experiment
from archsim.experiment_spec import PhasesWorkload
from archsim.memory.device import HbmDevice, Range, Transfer
from archsim.memory.dram_memory import HbmSpec
from archsim.memory.sram_memory import SramMemorySpec
from archsim.memory.tiers import DramTier
from archsim.results import RunData
from archsim.run import simulate
from archsim.system import SystemSpec, load_system
from archsim.workload.precision import Precision
from archsim.workload.shapes import load_model

LLAMA_405B = load_model("llama-3.1-405b")
BF16 = Precision(weights="bf16", kv="bf16", activations="bf16")
FP8_WEIGHTS = Precision(weights="fp8", kv="fp16", activations="fp8", embedding="fp8")


def system(name: str, **changes: object) -> SystemSpec:
    return load_system(name, changes).spec


def weight_bytes(precision: Precision, tp: int = 1) -> int:
    """Weights of the 405B model on one device of `tp`."""
    from archsim.workload.operators import tensors

    return sum(access.bytes for access in tensors(LLAMA_405B, precision, tp))


def kv_bytes_per_token() -> int:
    """Of all layers, 16 bits."""
    return LLAMA_405B.layers * LLAMA_405B.kv_bytes_per_token_per_layer(BF16, 1)


def run(experiment: str, **changes: object) -> RunData:
    return simulate(load_experiment(experiment, {path.replace("__", "."): value for path, value in changes.items()}))


def tpot_ms(data: RunData) -> float:
    return float(data.metrics()["decode.tpot"].value) * 1e3


# ---------------------------------------------------------------- SN40L


def copy_ms(socket: SystemSpec, size_bytes: int) -> float:
    """From DDR to HBM: the slower of reading there and writing here, both simulated."""
    tier, memory = socket.device.tiers["ddr"], socket.device.memory
    assert isinstance(tier, DramTier) and isinstance(memory, HbmSpec)
    ddr = HbmDevice(tier.technology, tier.controller, tier.channels)
    hbm = HbmDevice(memory.technology, memory.controller, memory.channels)
    times = []
    for device, write in ((ddr, False), (hbm, True)):
        device.submit(Transfer((Range(0, device.bursts(size_bytes), write),)))
        done = device.advance()
        assert done is not None
        times.append(device.to_fs(done.tick) * 1e-12)
    return max(times)


def test_sn40l_switches_an_expert_of_7b() -> None:
    """13.5 ms within 20%; 15 times as fast as a host that has one PCIe 5 x16 link (64 GB/s), 31 times PCIe 4."""
    expert_bytes = 2 * 6_738_415_616  # Llama-2-7B in bf16
    switch_ms = copy_ms(system("sn40l"), -(-expert_bytes // 8))
    assert switch_ms == pytest.approx(13.5, rel=0.2)
    assert expert_bytes / 64e9 * 1e3 / switch_ms == pytest.approx(15, rel=0.2)
    assert expert_bytes / 32e9 * 1e3 / switch_ms == pytest.approx(31, rel=0.2)


# ---------------------------------------------------------------- HBF as main memory (Son et al., IEEE CAL 2026)

TOKENS = {"SHORT": (1660, 373), "MID": (5900, 499)}


@pytest.mark.parametrize(("requests", "batch"), [("SHORT", 194), ("MID", 61.5)])
def test_sons_hbm4_batches_are_what_fits(requests: str, batch: float) -> None:
    """Within 3%, if GB are GiB and the cache of a whole request is reserved. With GB, and half of what is generated,
    they would be 0.9% and -4.4% off."""
    machine = system("son_hbm4")
    free_bytes = machine.capacity_bytes - weight_bytes(BF16)
    assert free_bytes / kv_bytes_per_token() / sum(TOKENS[requests]) / 8 == pytest.approx(batch, rel=0.03)


@pytest.mark.parametrize(
    ("name", "read", "write"),
    [
        ("son_hbf_plus", 12.8, 0.128),
        ("son_conv_plus", 2.80, 0.084),
        ("son_hbf_hbm", 11.2, 0.112),
        ("son_conv", 2.45, 0.073),
    ],
)
def test_sons_bandwidths_come_out_of_planes(name: str, read: float, write: float) -> None:
    tier = system(name).device.tiers["hbf"]
    assert float(tier.ceiling_bytes_per_second) / 1e12 == pytest.approx(read, rel=0.025)
    organisation, timings = tier.technology.organisation, tier.technology.timings
    pages = tier.stacks * organisation.channels * organisation.channel_planes
    assert pages * organisation.page / (timings.tPROG * 1e-15) / 1e12 == pytest.approx(write, rel=0.025)


def test_sons_endurance() -> None:
    """Program/erase cycles in three years: 172.5K by the paper's tokens per second, of 171.8K published."""
    tokens_in, tokens_out = TOKENS["SHORT"]
    written = 2495 / tokens_out * (tokens_in + tokens_out) * kv_bytes_per_token()  # bytes per second and GPU
    stacks = system("son_hbf_hbm").device.tiers["hbf"].stacks
    assert written * 94.6e6 / (stacks * 512 * 2**30) == pytest.approx(171_800, rel=0.05)


@pytest.mark.validate
@pytest.mark.parametrize(
    ("name", "requests", "batch", "tps", "tolerance", "hides_collectives"),
    [
        ("son_hbf_hbm", "SHORT", 253, 2495, 0.20, False),
        ("son_hbf_hbm", "MID", 146.2, 1494, 0.20, False),
        ("son_hbf_plus", "MID", 188.9, 1954, 0.08, False),
        # Cells that come out only if the all-reduces cost nothing:
        ("son_hbf_plus", "SHORT", 326.1, 3251, 0.08, True),
        ("son_hbm4", "SHORT", 194, 3300, 0.03, True),
    ],
)
def test_sons_tokens_per_second(
    name: str, requests: str, batch: float, tps: float, tolerance: float, hides_collectives: bool
) -> None:
    """Per GPU at the published batch, in the middle of a request."""
    tokens_in, tokens_out = TOKENS[requests]
    changes = {"system": name, "workload__batch": round(8 * batch)}
    data = run("son_hbm4", **changes, workload__decode__context_tokens=tokens_in + tokens_out // 2)
    records = data.phases[0].records
    link_s = sum(record.cause_fs["link"] for record in records) * 1e-15
    step_s = sum(record.duration_fs for record in records) * 1e-15
    assert (batch / step_s == pytest.approx(tps, rel=tolerance)) != hides_collectives
    if hides_collectives:
        assert batch / (step_s - link_s) == pytest.approx(tps, rel=tolerance)


# ---------------------------------------------------------------- H3 (IEEE CAL 2026)


class H3:
    """The paper's arithmetic on the numbers of the `h3` system: `gpus` of them, a pre-computed cache of `shared`
    tokens that every request reads, 2K tokens of a cache of its own for each. Times add up one after the other."""

    def __init__(self, gpus: int, shared: int) -> None:
        device = system("h3").device
        self.gpus, self.device = gpus, device
        self.hbm_rate = float(device.memory.peak_bytes_per_second)
        self.hbf_rate = float(device.tiers["hbf"].ceiling_bytes_per_second)
        self.hbm_bytes = gpus * device.memory.capacity
        self.weights = weight_bytes(FP8_WEIGHTS)
        self.shared_tokens, self.shared = shared, shared * kv_bytes_per_token()
        self.own = 2048 * kv_bytes_per_token()

    def batch(self, *, with_hbf: bool) -> float:
        return (self.hbm_bytes - (0 if with_hbf else self.weights + self.shared)) / self.own

    def throughput(self, *, with_hbf: bool, hbf: float = 1.0, attention: bool = False) -> float:
        """Tokens per second of all GPUs."""
        batch = self.batch(with_hbf=with_hbf)
        rate = self.hbf_rate * hbf if with_hbf else self.hbm_rate
        matrix = self.device.matrix
        compute = 2 * batch * self.weights / matrix.peak_flops("fp8")
        if attention:  # the cache has 16 bits
            compute += batch * self.attention_flops / matrix.peak_flops("bf16")
        seconds = (self.weights + self.shared) / rate + batch * self.own / self.hbm_rate + compute
        return batch * self.gpus / seconds

    @property
    def attention_flops(self) -> int:
        """Of one token over the shared cache."""
        return 4 * self.shared_tokens * LLAMA_405B.layers * LLAMA_405B.query_heads * LLAMA_405B.head_dim

    def gain(self, **how: float | bool) -> float:
        return self.throughput(with_hbf=True, **how) / self.throughput(with_hbf=False, **how | {"hbf": 1.0})  # type: ignore[arg-type]


ONE_M, TEN_M = H3(8, 2**20), H3(32, 10 * 2**20)
"""The paper's two cases."""


def test_h3_caches_and_batches() -> None:
    assert ONE_M.shared == pytest.approx(540e9, rel=0.01)
    assert TEN_M.shared == pytest.approx(5.4e12, rel=0.01)
    assert ONE_M.batch(with_hbf=True) / ONE_M.batch(with_hbf=False) == pytest.approx(2.6, rel=0.01)
    assert TEN_M.batch(with_hbf=True) / TEN_M.batch(with_hbf=False) == pytest.approx(18.8, rel=0.01)
    assert float(ONE_M.device.tiers["hbf"].capacity) * 8 > ONE_M.weights + ONE_M.shared
    assert float(TEN_M.device.tiers["hbf"].capacity) * 32 > TEN_M.weights + TEN_M.shared


def test_h3_gains_come_out_of_serial_times_without_attention_over_the_shared_cache() -> None:
    limit_w = ONE_M.device.power.limit
    hbm_only_w = 680 + 8 * 40  # the paper's GPU and HBM cubes
    assert ONE_M.gain() == pytest.approx(1.25, rel=0.07)
    assert TEN_M.gain() == pytest.approx(6.14, rel=0.07)
    assert TEN_M.gain() * hbm_only_w / limit_w == pytest.approx(2.69, rel=0.05)
    assert TEN_M.gain(hbf=0.5) * hbm_only_w / limit_w == pytest.approx(2.09, rel=0.05)


def test_h3_gains_vanish_with_attention_over_the_shared_cache() -> None:
    """86.6 TFLOP for each token at ten million tokens, which the published gains leave out."""
    assert TEN_M.attention_flops == pytest.approx(86.6e12, rel=0.01)
    assert ONE_M.gain(attention=True) == pytest.approx(1.03, rel=0.01)
    assert TEN_M.gain(attention=True) == pytest.approx(1.06, rel=0.01)
    assert ONE_M.gain() / 2.28 < 0.6  # per watt, at equal numbers of GPUs, 2280 W for 1000 W


TEN_M_DEVICES = {
    "system.devices": 32,
    "workload.tensor_parallel": 32,
    "workload.shared_prefix.tokens": 10 * 2**20,
    "workload.decode.context_parallel": 4,  # 32 devices have four copies of each KV head
}
HBM_ALONE = {"system.device.tiers": {}, "system.device.placement.rules": [], "system.device.power.limit": "1000 W"}
FREE_ATTENTION = {
    "system.device.matrix.peak.fp16": "1000000 PFLOP/s",  # attention alone multiplies in 16 bits
    "system.device.vector.peak": "1000000 PFLOP/s",
    "system.device.vector.special_per_clock": 10**9,
}
HALF_HBF = {"system.device.tiers.hbf.stacks": 4, "system.device.tiers.hbf.capacity": "1.5 TB"}
WATTS = 2280 / 1000  # with HBF over without, by the paper's TDPs


def h3(changes: dict[str, object]) -> LoadedExperiment:
    return load_experiment("llama3_405b_h3_shared", changes)


def batch_that_fits(changes: dict[str, object]) -> int:
    """Sequences with 2048 tokens of their own behind the shared ones."""
    loaded = h3(changes)
    workload = loaded.spec.workload
    assert isinstance(workload, PhasesWorkload) and workload.decode is not None
    devices = workload.decode.context_parallel
    setup = Setup(
        loaded.system.spec,
        LLAMA_405B,
        workload.precision,
        workload.tensor_parallel,
        prefix=workload.prefix,
        context_parallel=devices,
    )

    def fits(batch: int) -> bool:
        try:
            phase_machine(setup, batch, batch * 2048 // devices)
        except UserError:
            return False
        return True

    return most_that_fits(fits)


def h3_gain(case: dict[str, object], *, hbm: dict[str, object], hbf: dict[str, object]) -> tuple[float, float]:
    """Throughput with HBF over without, each at the batch that fits: as simulated, and with collectives for nothing."""
    rates = []
    for changes in (case | hbf, case | HBM_ALONE | hbm):
        batch = batch_that_fits(changes)
        (phase,) = simulate(h3(changes | {"workload.batch": batch})).phases
        step_fs = sum(record.duration_fs for record in phase.records)
        rates.append((batch / step_fs, batch / (step_fs - sum(record.cause_fs["link"] for record in phase.records))))
    return rates[0][0] / rates[1][0], rates[0][1] / rates[1][1]


@pytest.mark.parametrize(("case", "ratio", "within"), [({}, 2.6, 0.01), (TEN_M_DEVICES, 18.8, 0.05)], ids=["1M", "10M"])
def test_h3_batches_fit_a_run(case: dict[str, object], ratio: float, within: float) -> None:
    """At 10M, 5810 / 296 = 19.6 instead of 18.8: weights and shared cache leave 5% of HBM, and 32 devices have four
    copies of each KV head's projections."""
    assert batch_that_fits(case) / batch_that_fits(case | HBM_ALONE) == pytest.approx(ratio, rel=within)


@pytest.mark.validate
@pytest.mark.parametrize(
    ("case", "schedule", "published", "found"),
    [
        ({}, "even", 1.25, 1.02),
        ({}, "split", 1.25, 0.68),
        (TEN_M_DEVICES, "even", 6.14, 1.02),
        (TEN_M_DEVICES, "split", 6.14, 1.00),
    ],
)
def test_h3_gains_vanish_in_runs(case: dict[str, object], schedule: str, published: float, found: float) -> None:
    """Attention over the shared cache takes 92% of a step or more, and a larger batch has more of it."""
    kernel = {"system.device.attention.prefix_schedule": schedule}
    gain, _ = h3_gain(case, hbm=kernel, hbf=kernel)
    assert gain == pytest.approx(found, abs=0.01)
    assert gain < 0.85 * published


@pytest.mark.validate
@pytest.mark.parametrize(
    ("case", "hbf", "published", "off", "off_without_collectives"),
    [
        ({}, {}, 1.25, 0.11, 0.04),
        (TEN_M_DEVICES, {}, 6.14, -0.21, -0.18),
        (TEN_M_DEVICES, {}, 2.69 * WATTS, -0.21, -0.18),
        (TEN_M_DEVICES, HALF_HBF, 2.09 * WATTS, -0.06, -0.08),
    ],
    ids=["1M", "10M", "10M per watt", "10M per watt, half of HBF"],
)
def test_h3_gains_with_attention_for_nothing(
    case: dict[str, object], hbf: dict[str, object], published: float, off: float, off_without_collectives: float
) -> None:
    """How far runs are from the published gains if engines attend in no time."""
    gain, without = h3_gain(case, hbm=FREE_ATTENTION, hbf=FREE_ATTENTION | hbf)
    assert gain / published - 1 == pytest.approx(off, abs=0.01)
    assert without / published - 1 == pytest.approx(off_without_collectives, abs=0.01)


# ---------------------------------------------------------------- RPU (HPCA 2026)


@pytest.mark.validate
@pytest.mark.parametrize(
    ("model", "units", "published_ms", "most"),
    [("llama-3.1-405b", 428, 1.0, 0.12), ("llama-3.1-405b", 308, 1.4, 0.10), ("llama-3-70b", 204, 0.4, 0.25)],
)
def test_rpu_lies_between_bandwidth_and_simulation(model: str, units: int, published_ms: float, most: float) -> None:
    """The published time is above the roofline's and below the simulated one. Only one of the three is within 10%: the
    shorter an operator, the more of it is filling and the attention that waits for its newest key."""
    cores = 16 * units
    changes = {
        "workload.model": model,
        "system.device.memory.stacks": 2 * units,
        "system.device.memory.capacity": f"{2 * units * 768} MiB",
        "system.device.matrix.units": cores,
        "system.device.matrix.peak.bf16": f"{cores} TFLOP/s",
        "system.device.vector.units": cores,
        "system.device.power.limit": f"{18 * units} W",
        "system.device.power.idle": f"{4 * units} W",
    }
    bound_ms = tpot_ms(simulate(load_experiment("rpu", changes | {"fidelity": "roofline"})))
    simulated_ms = tpot_ms(simulate(load_experiment("rpu", changes)))
    assert bound_ms <= published_ms <= simulated_ms <= (1 + most) * published_ms


def test_hbm_co_takes_1_45_pj_per_bit() -> None:
    table = system("rpu").energy_table.hbm
    assert table is not None
    burst_bits = 8 * table.burst
    per_bit = table.activate / (8 * table.row) + table.read / burst_bits + table.io
    assert per_bit == pytest.approx(1.45, rel=0.01)


# ---------------------------------------------------------------- SRAM machines


def test_groq_by_bandwidth_alone_would_be_a_thousand_times_faster() -> None:
    """576 chips of 80 TB/s over 70B weights of 16 bits: 327K tokens per second, of about 300 reported."""
    assert pytest.approx(327e3, rel=0.01) == 576 * 80e12 / (2 * 70.5e9)
    memory = system("groq_lpu").device.memory
    assert isinstance(memory, SramMemorySpec)
    assert memory.chips * 8 == 576
    assert memory.peak_bytes_per_second == Fraction(88 * 320 * 10**9)  # reads alone, by the published organisation


def test_wse3_bandwidth_is_two_thirds_of_the_published_one() -> None:
    """21 PB/s count two reads and a write in each cycle; a decode step reads."""
    memory = system("wse3").device.memory
    assert isinstance(memory, SramMemorySpec)
    assert float(memory.chips * memory.peak_bytes_per_second) == pytest.approx(14e15, rel=0.01)


def test_llama_70b_fits_no_single_wafer() -> None:
    setup = Setup(system("wse3"), load_model("llama-3-70b"), BF16, 1)
    with pytest.raises(UserError, match="too much"):
        phase_machine(setup, 1, 1)

"""The one table of metrics: what each is called, its unit, which way is better, how it is computed.

Values are computed from integer sums with one division each, so the same records give the same
bits. Names are `{phase}.x` for a phase ("decode.hbm.bandwidth") and `serving.x` for requests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from archsim.records import CAUSES, Counts, OperatorRecord, PimUse, RequestRecord, TierUse

FS_PER_SECOND = 10**15
PJ_PER_JOULE = 10**12

HIGHER, LOWER, NEUTRAL = "higher", "lower", "neutral"

_PHASE, _COMPONENT, _TIER = "{phase}", "{component}", "{tier}"
_LAST_BITS = 1e-12  # floats of the same run on another machine may differ by rounding only


@dataclass(frozen=True, slots=True)
class Metric:
    """A number with its unit: "s", "B/s", "J", "W", "tokens/s", "tokens", "count", "fraction", "ratio"."""

    value: float | int
    unit: str

    def __str__(self) -> str:
        return format_quantity(self.value, self.unit)

    def __repr__(self) -> str:
        return f"Metric({self.value!r}, {self.unit!r}: {self})"


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """One row of the table. `tolerance`: the relative difference up to which two values are the same."""

    name: str
    unit: str
    better: str
    formula: str
    tolerance: float = _LAST_BITS

    def matches(self, name: str) -> bool:
        """Whether `name` ("decode.hbm.bandwidth") is an instance of this row ("{phase}.hbm.bandwidth")."""
        if self.name.startswith(_PHASE):
            tail = name.partition(".")[2]
            pattern = self.name[len(_PHASE) + 1 :]
            if _TIER in pattern:
                before, after = pattern.split(_TIER)
                named = len(tail) > len(before) + len(after)
                return named and tail.startswith(before) and tail.endswith(after)
            if pattern.endswith(_COMPONENT):
                stem = pattern[: -len(_COMPONENT)]
                return tail.startswith(stem) and len(tail) > len(stem)
            return tail == pattern
        return name == self.name


_CAUSE_WORDS = {
    "launch": "kernel launch",
    "compute": "waiting on the matrix or vector engine",
    "transfer": "data bursts on the HBM pins",
    "row": "row activation and bank conflicts",
    "turnaround": "HBM bus turnaround",
    "refresh": "HBM refresh",
    "noc": "waiting on a simulated on-chip network, or on a buffer slower than memory",
    "pim": "processing in memory, and the way there and back",
    "tier": "waiting for data of another memory tier",
    "fill": "memory pipeline fill and drain",
    "link": "collective communication",
}


def cause_in_words(cause: str) -> str:
    """What the time named `cause` was spent on, in plain words."""
    return _CAUSE_WORDS.get(cause, cause)


METRICS: tuple[MetricDefinition, ...] = (
    MetricDefinition("{phase}.latency", "s", LOWER, "end of the phase's last operator minus start of its first"),
    MetricDefinition("prefill.ttft", "s", LOWER, "time to first token: latency of the prefill phase"),
    MetricDefinition(
        "decode.tpot", "s", LOWER, "time per output token: latency of the decode phase x sequences / tokens produced"
    ),
    MetricDefinition("{phase}.throughput", "tokens/s", HIGHER, "tokens processed by the whole system / latency"),
    MetricDefinition(
        "{phase}.hbm.bandwidth", "B/s", HIGHER, "HBM bytes read and written by one device over the phase / latency"
    ),
    MetricDefinition("{phase}.hbm.utilisation", "fraction", HIGHER, "hbm.bandwidth / pin bandwidth of one device"),
    MetricDefinition(
        "{phase}.hbm.row_hit_rate", "fraction", HIGHER, "row hits / (row hits + row misses + row conflicts)"
    ),
    MetricDefinition("{phase}.hbm.bytes", "B", NEUTRAL, "HBM bytes read and written by one device", 0.0),
    MetricDefinition(
        "{phase}.matrix.utilisation", "fraction", HIGHER, "matrix FLOPs of one device / (peak FLOP/s x latency)"
    ),
    MetricDefinition("{phase}.roofline_ratio", "ratio", LOWER, "sum of operator times / sum of their roofline bounds"),
    MetricDefinition("{phase}.energy", "J", LOWER, "energy of all devices over the phase: sum of its components"),
    MetricDefinition("{phase}.energy_per_token", "J", LOWER, "energy / tokens processed"),
    MetricDefinition("{phase}.power", "W", LOWER, "energy / latency / devices: mean power of one device"),
    *(
        MetricDefinition(
            f"{{phase}}.time.{cause}",
            "fraction",
            NEUTRAL,
            f"share of operator time: {cause_in_words(cause)}",
        )
        for cause in CAUSES
    ),
    MetricDefinition("{phase}.tier.{tier}.bytes", "B", NEUTRAL, "bytes read and written on a tier by one device", 0.0),
    MetricDefinition("{phase}.tier.{tier}.bandwidth", "B/s", HIGHER, "bytes of a tier over the phase / latency"),
    MetricDefinition("{phase}.tier.{tier}.utilisation", "fraction", HIGHER, "bandwidth of a tier / its read ceiling"),
    MetricDefinition("{phase}.tier.{tier}.energy", "J", LOWER, "a tier's energy, all devices: energy.tier_{tier}"),
    MetricDefinition("{phase}.tier.{tier}.energy_low", "J", NEUTRAL, "the least that sources allow for tier energy"),
    MetricDefinition("{phase}.tier.{tier}.energy_high", "J", NEUTRAL, "the most that sources allow for tier energy"),
    MetricDefinition("{phase}.pim.operators", "count", NEUTRAL, "operators on PIM, or shared out to it", 0.0),
    MetricDefinition("{phase}.pim.busy", "fraction", NEUTRAL, "time that PIM's units work / latency"),
    MetricDefinition("{phase}.pim.bytes", "B", NEUTRAL, "bytes that PIM's units of one device read, with padding", 0.0),
    MetricDefinition("{phase}.pim.padding", "fraction", LOWER, "bytes of padding / pim.bytes"),
    MetricDefinition("{phase}.pim.bandwidth", "B/s", HIGHER, "pim.bytes / time that PIM's units work"),
    MetricDefinition(
        "{phase}.pim.utilisation", "fraction", HIGHER, "pim.bandwidth / units' rate with MACs back to back"
    ),
    MetricDefinition("{phase}.pim.commands", "count", NEUTRAL, "PIM commands of one channel, the busiest", 0.0),
    MetricDefinition("{phase}.pim.host_bytes", "B", NEUTRAL, "inputs to PIM and results from it, one device", 0.0),
    MetricDefinition("{phase}.energy.{component}", "J", NEUTRAL, "energy of one component, all devices"),
    MetricDefinition("serving.requests", "count", NEUTRAL, "requests that finished", 0.0),
    MetricDefinition("serving.context_tokens", "tokens", NEUTRAL, "prompt tokens of all requests", 0.0),
    MetricDefinition("serving.output_tokens", "tokens", NEUTRAL, "tokens generated for all requests", 0.0),
    MetricDefinition("serving.makespan", "s", LOWER, "last finish minus first arrival"),
    MetricDefinition("serving.throughput", "tokens/s", HIGHER, "output tokens / makespan"),
    MetricDefinition("serving.ttft.p50", "s", LOWER, "median over requests of first token minus arrival"),
    MetricDefinition("serving.ttft.p99", "s", LOWER, "99th percentile of first token minus arrival"),
    MetricDefinition(
        "serving.tpot.p50", "s", LOWER, "median of the mean time per token after the first (requests of 2+ tokens)"
    ),
    MetricDefinition(
        "serving.tpot.p99", "s", LOWER, "99th percentile of the mean time per token after the first (2+ tokens)"
    ),
    MetricDefinition("serving.latency.p50", "s", LOWER, "median over requests of finish minus arrival"),
    MetricDefinition("serving.latency.p99", "s", LOWER, "99th percentile of finish minus arrival"),
    MetricDefinition("serving.energy", "J", LOWER, "energy attributed to requests, all devices"),
    MetricDefinition("serving.energy_per_output_token", "J", LOWER, "serving.energy / output tokens"),
)


def definition_of(name: str) -> MetricDefinition:
    """The row that defines metric `name`; exact rows win over `{phase}` rows. KeyError if there is none."""
    for definition in METRICS:
        if definition.name == name:
            return definition
    for definition in METRICS:
        if definition.matches(name):
            return definition
    raise KeyError(name)


def phase_metrics(
    records: Sequence[OperatorRecord],
    *,
    phase: str,
    tokens: int,
    sequences: int,
    devices: int,
    peak_hbm_bytes_per_second: int,
    peak_matrix_flops_per_second: int,
    energy_breakdown_pj: Mapping[str, float],
    tiers: Sequence[TierUse] = (),
    pim: PimUse | None = None,
) -> dict[str, Metric]:
    """The metrics of one phase. Records and peaks are of ONE device, `energy_breakdown_pj` is of all.

    Time spent on other tiers or PIM is a metric only of devices that have some, time on a simulated on-chip network
    only where some operator waits for it.

    A ratio whose denominator is zero (no HBM access, an empty phase) is left out rather than invented.
    ValueError if an operator's causes don't tile its duration: that would be a bug in the engine.
    """
    totals = _PhaseTotals.of(records)
    energy_pj = math.fsum(energy_breakdown_pj.values())
    hbm_bytes, latency = totals.hbm_bytes, totals.latency_fs
    values: dict[str, float | int | None] = {
        "latency": _over(latency, FS_PER_SECOND),
        "throughput": _over(tokens * FS_PER_SECOND, latency),
        "hbm.bytes": hbm_bytes,
        "hbm.bandwidth": _over(hbm_bytes * FS_PER_SECOND, latency),
        "hbm.utilisation": _over(hbm_bytes * FS_PER_SECOND, latency * peak_hbm_bytes_per_second),
        "hbm.row_hit_rate": _over(totals.row_hits, totals.row_accesses),
        "matrix.utilisation": _over(totals.matrix_flops * FS_PER_SECOND, latency * peak_matrix_flops_per_second),
        "roofline_ratio": _over(totals.operator_fs, totals.roofline_fs),
        "energy": energy_pj / PJ_PER_JOULE,
        "energy_per_token": energy_pj / PJ_PER_JOULE / tokens if tokens else None,
        "power": energy_pj * 1e-12 * FS_PER_SECOND / latency / devices if latency else None,
    }
    absent = {"tier"} if not tiers else set()
    absent |= {"pim"} if pim is None else set()
    absent |= {"noc"} if not totals.cause_fs["noc"] else set()
    causes = [cause for cause in CAUSES if cause not in absent]
    values |= {f"time.{cause}": _over(totals.cause_fs[cause], totals.operator_fs) for cause in causes}
    for tier in tiers:
        values |= _tier_values(tier, latency)
    if pim is not None:
        values |= _pim_values(pim, latency)
    values |= {f"energy.{component}": pj / PJ_PER_JOULE for component, pj in energy_breakdown_pj.items()}
    if phase == "prefill":
        values["ttft"] = values["latency"]
    if phase == "decode":
        values["tpot"] = _over(latency * sequences, FS_PER_SECOND * tokens)
    return _as_metrics(phase, values)


def _tier_values(tier: TierUse, latency_fs: int) -> dict[str, float | int | None]:
    moved = tier.read_bytes + tier.write_bytes
    values: dict[str, float | int | None] = {
        "bytes": moved,
        "bandwidth": _over(moved * FS_PER_SECOND, latency_fs),
        "utilisation": _over(moved * FS_PER_SECOND, latency_fs * tier.ceiling_bytes_per_second),
        "energy": tier.energy_pj / PJ_PER_JOULE,
        "energy_low": tier.energy_low_pj / PJ_PER_JOULE,
        "energy_high": tier.energy_high_pj / PJ_PER_JOULE,
    }
    return {f"tier.{tier.name}.{name}": value for name, value in values.items()}


def _pim_values(pim: PimUse, latency_fs: int) -> dict[str, float | int | None]:
    counts = pim.counts
    rate = counts.busy_fs * pim.ceiling_bytes_per_second
    return {
        "pim.operators": counts.operators,
        "pim.busy": _over(counts.busy_fs, latency_fs),
        "pim.bytes": counts.read_bytes,
        "pim.padding": _over(counts.padding_bytes, counts.read_bytes),
        "pim.bandwidth": _over(counts.read_bytes * FS_PER_SECOND, counts.busy_fs),
        "pim.utilisation": _over(counts.read_bytes * FS_PER_SECOND, rate),
        "pim.commands": sum(counts.commands.values()),
        "pim.host_bytes": counts.host_bytes,
    }


def serving_metrics(requests: Sequence[RequestRecord]) -> dict[str, Metric]:
    """The metrics of served requests; empty if there are none."""
    if not requests:
        return {}
    output = sum(request.generated_tokens for request in requests)
    makespan_fs = max(r.finish_fs for r in requests) - min(r.arrival_fs for r in requests)
    energy = math.fsum(request.energy_pj for request in requests) / PJ_PER_JOULE
    times_fs = {
        "ttft": [request.ttft_fs for request in requests],
        "tpot": [request.tpot_fs for request in requests if request.generated_tokens > 1],
        "latency": [request.finish_fs - request.arrival_fs for request in requests],
    }
    values: dict[str, float | int | None] = {
        "requests": len(requests),
        "context_tokens": sum(request.context_tokens for request in requests),
        "output_tokens": output,
        "makespan": _over(makespan_fs, FS_PER_SECOND),
        "throughput": _over(output * FS_PER_SECOND, makespan_fs),
        "energy": energy,
        "energy_per_output_token": energy / output if output else None,
    }
    for name, sample in times_fs.items():
        for percent in (50, 99):
            values[f"{name}.p{percent}"] = percentile_seconds(sample, percent) if sample else None
    return _as_metrics("serving", values)


def percentile_seconds(sample_fs: Sequence[int], percent: int) -> float:
    """The percentile of femtosecond values in seconds: linear interpolation between ranks, rounded once."""
    ordered = sorted(sample_fs)
    rank = Fraction(percent * (len(ordered) - 1), 100)
    below = math.floor(rank)
    above = min(below + 1, len(ordered) - 1)
    exact = ordered[below] + (rank - below) * (ordered[above] - ordered[below])
    return float(exact / FS_PER_SECOND)


def bound_times_fs(records: Iterable[OperatorRecord]) -> dict[str, int]:
    """How long operators ran under each bound ("memory", "compute", ...), longest first."""
    times: dict[str, int] = {}
    for record in records:
        times[record.bound] = times.get(record.bound, 0) + record.duration_fs
    return dict(sorted(times.items(), key=lambda item: (-item[1], item[0])))


@dataclass(slots=True)
class _PhaseTotals:
    start_fs: float = math.inf
    end_fs: int = 0
    operator_fs: int = 0
    roofline_fs: int = 0
    matrix_flops: int = 0
    hbm_bytes: int = 0
    row_hits: int = 0
    row_accesses: int = 0
    cause_fs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))

    @classmethod
    def of(cls, records: Iterable[OperatorRecord]) -> _PhaseTotals:
        """In one pass: records of a long run are built anew for each."""
        totals = cls()
        for record in records:
            _require_tiling(record)
            totals._add(record)
        return totals

    @property
    def latency_fs(self) -> int:
        """From the first start to the last end."""
        return self.end_fs - int(self.start_fs) if math.isfinite(self.start_fs) else 0

    def _add(self, record: OperatorRecord) -> None:
        counts = record.counts
        self.start_fs = min(self.start_fs, record.start_fs)
        self.end_fs = max(self.end_fs, record.end_fs)
        self.operator_fs += record.duration_fs
        self.roofline_fs += record.roofline_fs
        self.matrix_flops += record.matrix_flops
        self.hbm_bytes += counts.dram_read_bytes + counts.dram_write_bytes
        self.row_hits += counts.dram_row_hits
        self.row_accesses += _row_accesses(counts)
        for cause, time_fs in record.cause_fs.items():
            self.cause_fs[cause] += time_fs


def _row_accesses(counts: Counts) -> int:
    return counts.dram_row_hits + counts.dram_row_misses + counts.dram_row_conflicts


def _require_tiling(record: OperatorRecord) -> None:
    unknown = record.cause_fs.keys() - set(CAUSES)
    if unknown:
        raise ValueError(f"{record.name}: unknown causes {sorted(unknown)}; known: {', '.join(CAUSES)}")
    tiled_fs = sum(record.cause_fs.values())
    if tiled_fs != record.duration_fs:
        raise ValueError(f"{record.name}: causes sum to {tiled_fs} fs but it ran for {record.duration_fs} fs")


def _over(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


def _as_metrics(prefix: str, values: Mapping[str, float | int | None]) -> dict[str, Metric]:
    named = {f"{prefix}.{name}": value for name, value in values.items()}
    return {name: Metric(value, definition_of(name).unit) for name, value in named.items() if value is not None}


_PREFIXES = (
    (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""),
    (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f"),
)  # fmt: skip


def format_quantity(value: float | int, unit: str) -> str:
    """`value` for people: 4.213e12, "B/s" -> "4.213 TB/s"; fractions in per cent, counts with thousands."""
    if unit == "fraction":
        return f"{100 * value:.1f} %"
    if unit == "ratio":
        return f"{value:.3f}x"
    if unit in ("count", "tokens", "tokens/s"):
        number = f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.4g}"
        return number if unit == "count" else f"{number} {unit}"
    if value == 0:
        return f"0 {unit}"
    largest = 1.0 if unit == "s" else math.inf  # nobody says kiloseconds
    for scale, prefix in _PREFIXES:
        if scale <= largest and (abs(value) >= scale or scale == 1e-15):
            return f"{_four_digits(value / scale)} {prefix}{unit}"
    raise AssertionError("unreachable: the last prefix takes every value")


def _four_digits(scaled: float) -> str:
    return f"{scaled:,.0f}" if abs(scaled) >= 1000 else f"{scaled:#.4g}".rstrip(".")

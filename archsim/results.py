"""A run directory: what a run leaves on disk, written whole or not at all, and read back lazily.

    manifest.json       who, when, with what versions (the only file that differs between equal runs)
    metrics.json        {name: {value, unit}}, sorted
    run.json            phases, peaks, energy by component, channels, provenance: what the report draws from
    config.yaml         the resolved configuration
    operators.parquet   one row per executed operator
    bandwidth.parquet   HBM bytes over time
    requests.parquet    one row per request (serving runs only)

Further files (timeline.json, report.html) are made by the `artefacts` that the caller passes, since
presentation stands above this module.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from archsim.config.errors import UserError
from archsim.metrics import Metric, bound_times_fs, phase_metrics, serving_metrics
from archsim.records import (
    CAUSES,
    BandwidthSample,
    Counts,
    OperatorRecord,
    PimCounts,
    PimUse,
    RequestRecord,
    Span,
    TierUse,
)
from archsim.results_store import bandwidth_table, manifest, operator_table, replaced_directory, request_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

RESERVED_PHASE = "serving"  # the prefix of request metrics


@dataclass(frozen=True, kw_only=True)
class ChannelClass:
    """HBM channels that evolved equally: `counts` is of ONE of them, `weight` says how many they are."""

    label: str
    weight: int
    counts: Counts


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What one part of the result stands on. `standing`: "exact", "model", "estimate" or "measured"."""

    subject: str
    standing: str
    note: str


@dataclass(frozen=True, kw_only=True)
class PhaseSummary:
    """What a phase was and cost; peaks are of one device, `energy_pj` (by component) is of all."""

    phase: str
    tokens: int
    sequences: int
    devices: int
    peak_hbm_bytes_per_second: int
    peak_matrix_flops_per_second: int
    energy_pj: Mapping[str, float]
    matrix_format: str = "bf16"
    memory: str = "HBM"
    description: str = ""
    channels: tuple[ChannelClass, ...] = ()
    tiers: tuple[TierUse, ...] = ()
    pim: PimUse | None = None
    bound_fs: Mapping[str, int] = field(default_factory=dict)

    @property
    def bound(self) -> str:
        """What bounds the phase for most of its time ("memory"), "" if nothing ran."""
        return next(iter(self.bound_fs), "")

    @property
    def bound_share(self) -> float:
        """The share of operator time spent under `bound`."""
        return self.bound_fs[self.bound] / sum(self.bound_fs.values()) if self.bound else 0.0


@dataclass(frozen=True, kw_only=True)
class PhaseData(PhaseSummary):
    """A phase with everything that happened in it. Records, spans and samples are of one device and one clock.

    `operator_energy_pj`: of all devices, one for each record, or none at all."""

    records: Sequence[OperatorRecord]
    operator_energy_pj: Sequence[float] = ()
    spans: Sequence[Span] = ()
    bandwidth: Sequence[BandwidthSample] = ()

    def metrics(self) -> dict[str, Metric]:
        """The phase's metrics by full name."""
        return phase_metrics(
            self.records,
            phase=self.phase,
            tokens=self.tokens,
            sequences=self.sequences,
            devices=self.devices,
            peak_hbm_bytes_per_second=self.peak_hbm_bytes_per_second,
            peak_matrix_flops_per_second=self.peak_matrix_flops_per_second,
            energy_breakdown_pj=self.energy_pj,
            tiers=self.tiers,
            pim=self.pim,
        )


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Everything a run hands over. `config` is the resolved configuration, `digest` its hash.

    `facts` are shown at the head of the report ({"model": "llama-3-70b"}); `sources` gives the source
    of each preset number by its path; `wall_seconds` and `command` go to the manifest alone.
    """

    name: str
    phases: tuple[PhaseData, ...]
    config: Mapping[str, Any]
    digest: str
    seed: int
    fidelity: str = "cycle"
    requests: Sequence[RequestRecord] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    provenance: tuple[Provenance, ...] = ()
    wall_seconds: float = 0.0
    command: Sequence[str] = ()

    def metrics(self) -> dict[str, Metric]:
        """All metrics of the run, sorted by name. ValueError if two phases share a name."""
        names = [phase.phase for phase in self.phases]
        if len(set(names)) != len(names) or RESERVED_PHASE in names:
            raise ValueError(f"phases need distinct names other than {RESERVED_PHASE!r}: {names}")
        merged = serving_metrics(self.requests)
        for phase in self.phases:
            merged |= phase.metrics()
        return dict(sorted(merged.items()))


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """run.json: the run without its tables."""

    name: str
    digest: str
    seed: int
    fidelity: str
    facts: Mapping[str, str]
    sources: Mapping[str, str]
    phases: tuple[PhaseSummary, ...]
    provenance: tuple[Provenance, ...]


Artefact = Callable[[RunData, "RunResult", Path], None]
"""Makes one more file of a run directory: (the run, its tables as written so far, the file to write)."""


def write_run(directory: Path | str, data: RunData, *, artefacts: Mapping[str, Artefact] | None = None) -> RunResult:
    """Write `data` as a run directory and open it.

    Everything goes to a temporary sibling that is renamed into place at the end: an interrupted
    write leaves no half-written directory, and an earlier run in `directory` stays until then.
    UserError if it cannot be written or `directory` holds something that is not a run.
    """
    target = Path(directory).resolve()
    with replaced_directory(target) as staging:
        _write_json(staging / "metrics.json", {name: asdict(metric) for name, metric in data.metrics().items()})
        _write_json(staging / "run.json", _summary_as_dict(data))
        _write_config(staging / "config.yaml", data.config)
        _write_tables(staging, data)
        for filename, make in (artefacts or {}).items():
            make(data, RunResult(staging), staging / filename)
        _write_json(staging / "manifest.json", manifest(data))
    return RunResult(target)


def open_run(directory: Path | str) -> RunResult:
    """Open a run directory. UserError if there is none at `directory`."""
    path = Path(directory).resolve()
    missing = [name for name in ("manifest.json", "metrics.json", "run.json") if not (path / name).is_file()]
    if missing:
        what = "no such directory" if not path.is_dir() else f"it has no {missing[0]}"
        raise UserError(f"{directory} is not a run directory ({what}); `archsim run EXPERIMENT --out DIR` writes one")
    return RunResult(path)


class Plots(Protocol):
    """The figures of a run, as matplotlib figures."""

    def roofline(self) -> Figure: ...
    def where_time_goes(self) -> Figure: ...
    def bandwidth(self) -> Figure: ...
    def energy(self) -> Figure: ...
    def channels(self) -> Figure: ...
    def requests(self) -> Figure: ...


class Metrics(dict[str, Metric]):
    """Metrics by name; a notebook shows them as a table."""

    def _repr_html_(self) -> str:
        return _html_table(self, self)


class RunResult:
    """A finished run. Tables are read from `directory` when first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @cached_property
    def metrics(self) -> Metrics:
        """Metrics by name: `run.metrics["decode.tpot"].value` (seconds)."""
        return Metrics((name, Metric(**entry)) for name, entry in self._read_json("metrics.json").items())

    @cached_property
    def summary(self) -> RunSummary:
        """Phases, peaks, energy by component, channel classes and provenance."""
        return _summary_from_dict(self._read_json("run.json"))

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Versions, git commit, command and wall time of this very run."""
        return self._read_json("manifest.json")

    @cached_property
    def config(self) -> str:
        """The resolved configuration, YAML."""
        return (self.directory / "config.yaml").read_text(encoding="utf-8")

    @cached_property
    def operators(self) -> DataFrame:
        """One row per executed operator of one device; units are in the column names. Causes of time that the version
        which wrote the run did not know took none."""
        table = self._read_table("operators")
        unknown = {f"cause_{cause}_fs" for cause in CAUSES} - set(table.columns)
        return table.assign(**dict.fromkeys(sorted(unknown), 0)) if unknown else table

    @cached_property
    def bandwidth(self) -> DataFrame:
        """HBM bytes of one device over time, by phase."""
        return self._read_table("bandwidth")

    @cached_property
    def requests(self) -> DataFrame | None:
        """One row per served request, None if the run served none."""
        return self._read_table("requests") if (self.directory / "requests.parquet").exists() else None

    @cached_property
    def plot(self) -> Plots:
        """Matplotlib figures: `run.plot.roofline()` and so on."""
        # By name: presentation stands above this module, and matplotlib loads only when a figure is wanted.
        plots: Plots = import_module("archsim.report.figures").RunPlots(self)
        return plots

    def __repr__(self) -> str:
        headline = ", ".join(f"{name} {self.metrics[name]}" for name in self._headline())
        return f"RunResult({self.summary.name!r}: {headline}; in {self.directory})"

    def _repr_html_(self) -> str:
        title = f"<strong>{html.escape(self.summary.name)}</strong> · {html.escape(self.summary.fidelity)} fidelity"
        where = f"<small>{html.escape(str(self.directory))}</small>"
        return f"<div>{title}{_html_table(self.metrics, self._headline())}{where}</div>"

    def _headline(self) -> list[str]:
        return headline_names(self.metrics, [phase.phase for phase in self.summary.phases])

    def _read_json(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.directory / name).read_text(encoding="utf-8"))
        return content

    def _read_table(self, stem: str) -> DataFrame:
        import pandas

        return pandas.read_parquet(self.directory / f"{stem}.parquet")


def _html_table(metrics: Mapping[str, Metric], names: Iterable[str]) -> str:
    rows = "".join(
        f"<tr><td style='text-align:left'>{html.escape(name)}</td>"
        f"<td style='text-align:right'>{html.escape(str(metrics[name]))}</td></tr>"
        for name in names
    )
    return f"<table><tbody>{rows}</tbody></table>"


def headline_names(metrics: Mapping[str, Metric], phases: Sequence[str]) -> list[str]:
    """The metrics to show first, of those the run has, in reading order."""
    wanted = [f"serving.{tail}" for tail in ("requests", "ttft.p50", "ttft.p99", "tpot.p50", "tpot.p99", "throughput")]
    wanted += ["serving.energy_per_output_token"]
    for phase in phases:
        time = {"prefill": "ttft", "decode": "tpot"}.get(phase, "latency")
        tails = (time, "throughput", "hbm.bandwidth", "hbm.utilisation", "matrix.utilisation", "energy_per_token")
        wanted += [f"{phase}.{tail}" for tail in (*tails, "power")]
    return [name for name in wanted if name in metrics]


def _write_json(path: Path, content: object) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _write_config(path: Path, config: Mapping[str, Any]) -> None:
    import yaml

    path.write_text(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")


def _write_tables(staging: Path, data: RunData) -> None:
    from pyarrow import parquet

    tables = {"operators": operator_table(data.phases), "bandwidth": bandwidth_table(data.phases)}
    if data.requests:
        tables["requests"] = request_table(data.requests)
    for stem, table in tables.items():
        parquet.write_table(table, staging / f"{stem}.parquet", compression="zstd")


def _summary_as_dict(data: RunData) -> dict[str, Any]:
    names = [f.name for f in fields(RunSummary) if f.name != "phases"]
    kept = {name: getattr(data, name) for name in names}
    kept["facts"], kept["sources"] = dict(data.facts), dict(data.sources)
    kept["provenance"] = [asdict(entry) for entry in data.provenance]
    kept["phases"] = [_phase_as_dict(phase) for phase in data.phases]
    return kept


def _phase_as_dict(phase: PhaseData) -> dict[str, Any]:
    entry = {f.name: getattr(phase, f.name) for f in fields(PhaseSummary)}
    entry["energy_pj"] = dict(phase.energy_pj)
    entry["channels"] = [asdict(channel) for channel in phase.channels]
    entry["tiers"] = [asdict(tier) for tier in phase.tiers]
    entry["pim"] = asdict(phase.pim) if phase.pim is not None else None
    entry["bound_fs"] = bound_times_fs(phase.records)
    return entry


def _summary_from_dict(content: dict[str, Any]) -> RunSummary:
    phases = tuple(_phase_from_dict(entry) for entry in content["phases"])
    provenance = tuple(Provenance(**entry) for entry in content["provenance"])
    return RunSummary(**{**content, "phases": phases, "provenance": provenance})


def _phase_from_dict(entry: dict[str, Any]) -> PhaseSummary:
    channels = tuple(
        ChannelClass(label=channel["label"], weight=channel["weight"], counts=Counts(**channel["counts"]))
        for channel in entry["channels"]
    )
    bound_fs = dict(sorted(entry["bound_fs"].items(), key=lambda item: (-item[1], item[0])))
    tiers = tuple(TierUse(**tier) for tier in entry.get("tiers", ()))
    use = entry.get("pim")
    pim = PimUse(**{**use, "counts": PimCounts(**use["counts"])}) if use is not None else None
    return PhaseSummary(**{**entry, "channels": channels, "tiers": tiers, "pim": pim, "bound_fs": bound_fs})

"""`archsim describe`: what there is, and any one thing with its numbers and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.commands.fact_table import SourcedFacts, table
from archsim.commands.kinds import KINDS, kind_of
from archsim.config.errors import UserError, nearest_name
from archsim.config.inheritance import join
from archsim.config.loading import LoadedSpec, data_root, load_spec
from archsim.config.schema import Spec, is_sourced
from archsim.config.units import Dimension, format_quantity
from archsim.config.yamltree import plain, read_yaml
from archsim.experiment import load_experiment, shipped_experiments
from archsim.experiment_spec import BatchingPolicy, Fidelity
from archsim.memory.flash import FlashStandard
from archsim.memory.sram import SramSpec
from archsim.memory.standard import ControllerSpec, DramStandard, PagePolicy, RefreshPolicy, RefreshTurn, Scheduler
from archsim.metrics import FS_PER_SECOND, METRICS, definition_of
from archsim.system import SystemSpec
from archsim.workload.precision import FORMATS, Precision
from archsim.workload.shapes import load_model, shipped_models

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

COMPUTED = "computed from the above"
SIMULATED = "simulated flit by flit"

POLICIES: Mapping[str, type[StrEnum]] = {
    "scheduler": Scheduler,
    "page_policy": PagePolicy,
    "refresh": RefreshPolicy,
    "refresh_order": RefreshTurn,
    "batching": BatchingPolicy,
    "fidelity": Fidelity,
}

CONTROLLER = "controller"
"""The name under which the options of a memory controller are described."""


@dataclass(frozen=True)
class Listing:
    """Things of one category, each with a line on what it is."""

    category: str
    entries: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        return {self.category: dict(self.entries)}

    def renderables(self) -> Iterator[Table]:
        """One table: name, what it is."""
        yield table(self.category, ("name", "what it is"), list(self.entries.items()))


@dataclass(frozen=True)
class Catalogue:
    """All listings."""

    listings: Sequence[Listing]

    def as_dict(self) -> dict[str, Any]:
        return {listing.category: dict(listing.entries) for listing in self.listings}

    def renderables(self) -> Iterator[Table]:
        for listing in self.listings:
            yield from listing.renderables()


@dataclass(frozen=True)
class Fact:
    """One number or text of a thing; `source` is "" where none is given."""

    name: str
    value: Any
    source: str = ""


@dataclass(frozen=True)
class Description:
    """One thing: what it is and its facts."""

    name: str
    category: str
    facts: Sequence[Fact]
    file: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        facts = {
            fact.name: {"value": fact.value, "source": fact.source} if fact.source else {"value": fact.value}
            for fact in self.facts
        }
        return {
            "name": self.name,
            "category": self.category,
            "file": str(self.file) if self.file is not None else None,
            "facts": facts,
        }

    def renderables(self) -> Iterator[RenderableType]:
        """Fact, value and, where there are any, sources: in columns, or below the values where there is no room."""
        title = f"{self.name} ({self.category})" + (f": {self.file}" if self.file is not None else "")
        rows = [(fact.name, _text(fact.value), fact.source) for fact in self.facts]
        if any(fact.source for fact in self.facts):
            yield SourcedFacts(title, rows)
        else:
            yield table(title, ("", "value"), [row[:2] for row in rows])


@dataclass(frozen=True)
class _Category:
    """How a category is listed and how one of its things is described."""

    names: Callable[[], Mapping[str, str]]
    describe: Callable[[str], Description]

    @cached_property
    def entries(self) -> Mapping[str, str]:
        return self.names()


def describe(thing: str | None = None) -> Catalogue | Listing | Description:
    """Everything there is, the things of a category ("systems"), or one thing. Raises UserError for an unknown one."""
    if thing is None:
        return Catalogue([Listing(name, category.entries) for name, category in _CATEGORIES.items()])
    if thing in _CATEGORIES:
        return Listing(thing, _CATEGORIES[thing].entries)
    for category in _CATEGORIES.values():
        if thing in category.entries:
            return category.describe(thing)
    return _unlisted(thing)


def _unlisted(thing: str) -> Description:
    """A metric of a phase ("decode.hbm.bandwidth"), a value of a policy ("fr_fcfs"), or a file."""
    try:
        definition_of(thing)
        return _metric(thing)
    except KeyError:
        pass
    for name, policy in POLICIES.items():
        if thing in list(policy):
            return _policy(name)
    if Path(thing).suffix in (".yaml", ".yml") and Path(thing).is_file():
        return _file(Path(thing))
    if Path(thing).suffix == ".json" and Path(thing).is_file():
        return _model(thing)
    known = [name for category in _CATEGORIES.values() for name in category.entries]
    known += [value for policy in POLICIES.values() for value in policy]
    raise UserError(
        f"there is nothing called '{thing}'",
        expected="a name that `archsim describe` lists",
        nearest=nearest_name(thing, [*known, *_CATEGORIES]),
    )


def _presets(folder: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((data_root() / "hwconfigs" / folder).glob("*.yaml"))}


def _preset_names(folder: str) -> Callable[[], Mapping[str, str]]:
    return lambda: {name: _title_of(path) for name, path in _presets(folder).items()}


def _title_of(path: Path) -> str:
    """A file's own description or name; the rest of it is not looked at."""
    entries = read_yaml(path).entries
    titles = (plain(entries[key]) for key in ("description", "name") if key in entries)
    return next((title for title in titles if isinstance(title, str) and title), "")


def _preset(folder: str, kind: str) -> Callable[[str], Description]:
    return lambda name: _described(name, kind, load_spec(_presets(folder)[name], KINDS[kind]))


def _described(name: str, category: str, loaded: LoadedSpec[Any]) -> Description:
    facts = [Fact(path, value, loaded.sources.get(path, "")) for path, value in _leaves(loaded.resolved, "")]
    return Description(name, category, [*facts, *_derived(loaded.spec)], loaded.file)


def _derived(spec: Spec) -> Iterator[Fact]:
    """What follows from a preset's numbers and is asked for more often than they are."""
    if isinstance(spec, DramStandard):
        stack = spec.channels_per_stack * spec.peak_bytes_per_second
        yield Fact("(bandwidth of a stack)", format_quantity(stack, Dimension.BYTES_PER_SECOND, 4), COMPUTED)
        yield Fact("(clock period)", format_quantity(spec.clock_fs / 10**15, Dimension.TIME, 4), COMPUTED)
    if isinstance(spec, FlashStandard):
        for name, rate in spec.ceilings.items():
            yield Fact(f"(ceiling: {name})", format_quantity(rate, Dimension.BYTES_PER_SECOND, 4), COMPUTED)
    if isinstance(spec, SramSpec):
        for name, write in (("read", False), ("write", True)):
            peak_rate = spec.peak_bytes_per_second(write=write)
            yield Fact(f"({name} bandwidth)", format_quantity(peak_rate, Dimension.BYTES_PER_SECOND, 4), COMPUTED)
    if isinstance(spec, SystemSpec):
        peak, capacity = spec.device.memory.peak_bytes_per_second, spec.capacity_bytes
        yield Fact("(memory bandwidth of a device)", format_quantity(peak, Dimension.BYTES_PER_SECOND, 4), COMPUTED)
        flow = spec.device.memory_flow
        if flow is not None:
            sustained, bound = (
                format_quantity(rate, Dimension.BYTES_PER_SECOND, 4) for rate in (flow.sustained, flow.bound)
            )
            yield Fact("(on-chip network sustains)", f"{sustained}, its busiest link {bound}", SIMULATED)
            for name, time_fs in (("unloaded", flow.unloaded_fs), ("loaded", flow.loaded_fs)):
                latency = format_quantity(time_fs / FS_PER_SECOND, Dimension.TIME, 4)
                yield Fact(f"(on-chip network there and back, {name})", latency, SIMULATED)
        if spec.device.pim is not None:
            units = format_quantity(spec.device.pim.peak_bytes_per_second, Dimension.BYTES_PER_SECOND, 4)
            yield Fact("(bandwidth at the PIM units of a device)", units, COMPUTED)
        yield Fact("(usable memory of all devices)", format_quantity(capacity, Dimension.BYTES, 4), COMPUTED)


def _leaves(data: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every scalar of a resolved spec, as written, with its dotted path; lists of scalars stay whole."""
    if is_sourced(data):
        yield path, data["value"]
    elif isinstance(data, Mapping):
        for key, value in data.items():
            if key not in ("source", "uncertainty"):
                yield from _leaves(value, join(path, key))
    elif isinstance(data, list) and any(isinstance(item, Mapping | list) for item in data):
        for index, item in enumerate(data):
            yield from _leaves(item, join(path, index))
    else:
        yield path, data


def _file(path: Path) -> Description:
    kind = kind_of(path)
    if kind is None:
        raise UserError(f"{path} is of no known kind", expected=f"kind: {' or '.join(KINDS)}")
    return _described(path.stem, kind, load_spec(path, KINDS[kind]))


def _experiment(name: str) -> Description:
    return _described(name, "experiment", load_experiment(name).loaded)


def _model(name: str) -> Description:
    model = load_model(name)
    bf16 = Precision()
    facts = [
        Fact("family", model.family),
        Fact("parameters", model.parameters()),
        Fact("active parameters", model.active_parameters()),
        Fact("layers", model.layers),
        Fact("hidden", model.hidden),
        Fact("query heads", model.query_heads),
        Fact("KV heads", model.kv_heads),
        Fact("head dimension", model.head_dim),
        Fact("feed-forward width", model.ffn),
        Fact("vocabulary", model.vocabulary),
        Fact("weights in bf16", f"{model.weight_bytes(bf16)} B"),
        Fact("KV cache per token in bf16", f"{model.kv_bytes_per_token(bf16)} B"),
    ]
    if model.moe is not None:
        facts.append(Fact("experts", f"{model.moe.experts}, {model.moe.experts_per_token} per token"))
    if model.mla is not None:
        facts.append(Fact("latent attention", f"{model.mla.cached_dim} elements cached per token and layer"))
    return Description(model.name, "model", facts)


def _model_title(name: str) -> str:
    model = load_model(name)
    total, active = f"{model.parameters() / 1e9:.2f}e9 parameters", f"{model.active_parameters() / 1e9:.2f}e9 active"
    return f"{model.family}, {total}" + (f", {active}" if model.moe is not None else "")


def _metric(name: str) -> Description:
    definition = definition_of(name)
    facts = [Fact("unit", definition.unit), Fact("better", definition.better), Fact("formula", definition.formula)]
    return Description(name, "metric", facts)


def _policies() -> Mapping[str, str]:
    return {
        name: f"{_first_line(policy)} One of {', '.join(policy)}."
        if len(policy) > 1
        else f"{_first_line(policy)} {next(iter(policy))}."
        for name, policy in POLICIES.items()
    }


def _policy(name: str) -> Description:
    policy = POLICIES[name]
    return Description(name, "policy", [Fact("chooses", _first_line(policy)), Fact("values", list(policy))])


def _controller(name: str) -> Description:
    """The options of a memory controller and their defaults."""
    defaults = ControllerSpec().model_dump(mode="json")
    options = [option for option in ControllerSpec.model_fields if option not in Spec.model_fields]
    return Description(name, "controller", [Fact(option, defaults[option]) for option in options])


def _first_line(documented: type) -> str:
    return " ".join((documented.__doc__ or "").split())


def _formats() -> Mapping[str, str]:
    return {name: _bits(name) for name in FORMATS}


def _bits(name: str) -> str:
    number = FORMATS[name]
    blocks = f", a scale of {number.scale_bits} bits for every {number.block}" if number.block else ""
    return f"{number.bits} bits per element{blocks}"


def _format(name: str) -> Description:
    number = FORMATS[name]
    facts = [
        Fact("bits per element", number.bits),
        Fact("multiplied as", number.element),
        Fact("elements per scale", number.block or "no scales in memory"),
    ]
    if number.block:
        facts += [
            Fact("bits per scale", number.scale_bits),
            Fact("bits per element with scales", number.bits + number.scale_bits / number.block),
        ]
    return Description(name, "format", facts)


_CATEGORIES: Mapping[str, _Category] = {
    "systems": _Category(_preset_names("systems"), _preset("systems", "system")),
    "memories": _Category(_preset_names("memory"), _preset("memory", "memory")),
    "memory energies": _Category(_preset_names("energy"), _preset("energy", "energy")),
    "flash": _Category(_preset_names("flash"), _preset("flash", "flash")),
    "links": _Category(_preset_names("links"), _preset("links", "link")),
    "networks": _Category(_preset_names("noc"), _preset("noc", "noc")),
    "sram": _Category(_preset_names("sram"), _preset("sram", "sram")),
    "topologies": _Category(_preset_names("topologies"), _preset("topologies", "topology")),
    "pim devices": _Category(_preset_names("pim"), _preset("pim", "pim")),
    "models": _Category(lambda: {name: _model_title(name) for name in shipped_models()}, _model),
    "experiments": _Category(
        lambda: {name: _title_of(file) for name, file in shipped_experiments().items()}, _experiment
    ),
    "controllers": _Category(lambda: {CONTROLLER: _first_line(ControllerSpec).partition(".")[0]}, _controller),
    "policies": _Category(_policies, _policy),
    "formats": _Category(_formats, _format),
    "metrics": _Category(lambda: {row.name: f"{row.formula} ({row.unit})" for row in METRICS}, _metric),
}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return "" if value is None else str(value)

"""What a user writes to have something simulated: a system, a workload, and how closely to look.

experiment = load_experiment("experiments/llama3_70b_h200x8/experiment.yaml", ["workload.batch=64"])
experiment.spec.workload.batch, experiment.system.spec, experiment.model
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, model_validator

from archsim.config.errors import Problem, SpecError, UserError, listed, nearest_name
from archsim.config.inheritance import OVERRIDE, TreeReader, apply_overrides
from archsim.config.loading import (
    LoadedSpec,
    data_root,
    load_mapping,
    load_spec,
    read_key,
    resolve_preset,
    sources_below,
)
from archsim.config.schema import Spec, unwrap_sourced
from archsim.config.units import PositiveInt
from archsim.config.yamltree import Node, plain
from archsim.expectations import Expectation
from archsim.system import SystemSpec
from archsim.workload.context_parallel import check_context_parallel
from archsim.workload.precision import Precision
from archsim.workload.requests import Request, read_requests
from archsim.workload.shapes import ModelShape, load_model
from archsim.workload.shared_prefix import NO_PREFIX, PrefixAttention, SharedPrefix, SharedPrefixSpec
from archsim.workload.weights import check_tensor_parallel

EXPERIMENT_FILE = "experiment.yaml"

Overrides = Mapping[str, object] | Sequence[str]
Found = TypeVar("Found")


class Fidelity(StrEnum):
    """How closely operators are simulated: every memory command, or only the bound that no machine can beat."""

    CYCLE = "cycle"
    ROOFLINE = "roofline"


class BatchingPolicy(StrEnum):
    """Which waiting work an iteration takes up first."""

    PREFILL_FIRST = "prefill_first"  # whole prompts of waiting requests as far as they fit, else a decode step of all


class BatchingSpec(Spec):
    """Iteration-level continuous batching. The defaults are those of vLLM's server on an H100 or H200
    (vllm/engine/arg_utils.py, v0.8: max_num_seqs, max_num_batched_tokens)."""

    max_batch: Annotated[PositiveInt, Field(description="requests that run at the same time")] = 256
    max_prefill_tokens: Annotated[
        PositiveInt, Field(description="prompt tokens of one iteration; a longer prompt has one to itself")
    ] = 8192
    policy: Annotated[BatchingPolicy, Field(description="what an iteration takes up first")] = (
        BatchingPolicy.PREFILL_FIRST
    )


class PrefillSpec(Spec):
    """One pass over `batch` prompts of `prompt_tokens` each, nothing cached before but a shared prefix."""

    prompt_tokens: PositiveInt
    batch: PositiveInt = 1


class DecodeSpec(Spec):
    """One token for each sequence of the workload's batch, with `context_tokens` cached in each."""

    context_tokens: PositiveInt
    context_parallel: Annotated[
        PositiveInt, Field(description="devices with copies of the same KV heads that deal the cache out by tokens")
    ] = 1


class _Workload(Spec):
    model: Annotated[str, Field(description="a shipped model, or the path of a Hugging Face config.json")]
    precision: Precision = Precision()
    tensor_parallel: Annotated[PositiveInt, Field(description="devices that share every operator")] = 1
    shared_prefix: SharedPrefixSpec | None = None

    @property
    def prefix(self) -> SharedPrefix:
        """The shared prefix as lowering takes it."""
        return NO_PREFIX if self.shared_prefix is None else self.shared_prefix.lowered


class PhasesWorkload(_Workload):
    """Prefill and decode, each looked at by itself: one forward pass of each."""

    kind: Literal["phases"]
    batch: Annotated[PositiveInt, Field(description="sequences that decode together")] = 1
    prefill: PrefillSpec | None = None
    decode: DecodeSpec | None = None
    kv_block_tokens: Annotated[
        PositiveInt | None,
        Field(description="tokens per block of a paged KV cache, blocks in random order; contiguous by default"),
    ] = None

    @model_validator(mode="after")
    def _has_a_phase(self) -> "PhasesWorkload":
        if self.prefill is None and self.decode is None:
            raise UserError("there is nothing to run", expected="prefill, decode or both")
        return self


class RequestsWorkload(_Workload):
    """Requests of a trace, served with continuous batching."""

    kind: Literal["requests"]
    trace: Annotated[
        str | tuple[str, ...],
        Field(description="a CSV file of requests, or several of which the first that exists is taken"),
    ]
    limit: Annotated[PositiveInt | None, Field(description="so many requests from the start; all by default")] = None
    batching: BatchingSpec = BatchingSpec()


WorkloadSpec = Annotated[PhasesWorkload | RequestsWorkload, Field(discriminator="kind")]


class ExperimentSpec(Spec):
    """A system and a workload. The system is the name or path of a preset, or a mapping with a `base:` and changes."""

    kind_in_words: ClassVar[str] = "an experiment"

    kind: Literal["experiment"]
    name: str
    description: str = ""
    system: SystemSpec
    workload: WorkloadSpec
    fidelity: Fidelity = Fidelity.CYCLE
    seed: Annotated[int, Field(ge=0)] = 0
    sweep: Annotated[
        dict[str, Any] | None, Field(description="what `archsim sweep` varies; a single run takes no notice of it")
    ] = None
    search: Annotated[
        dict[str, Any] | None, Field(description="what `archsim search` looks for; a single run takes no notice of it")
    ] = None
    no_shortcuts: Annotated[
        bool, Field(description="simulate every command although an exact shortcut is known; slower, same numbers")
    ] = False
    expect: Annotated[
        tuple[Expectation, ...], Field(description="what metrics should be, by papers or measurements: `archsim check`")
    ] = ()


@dataclass(frozen=True)
class LoadedExperiment:
    """An experiment whose every reference has been followed. `trace` is None unless requests are served.

    `system` is the part of `loaded` below `system:`, overrides included, as a spec of its own.
    """

    spec: ExperimentSpec
    loaded: LoadedSpec[ExperimentSpec]
    system: LoadedSpec[SystemSpec]
    model: ModelShape
    trace: Path | None = None

    def digest(self) -> str:
        """SHA-256 (hex) of all that goes into the result: configuration, model shape, content of the trace."""
        config = {name: value for name, value in self.loaded.resolved.items() if name != "expect"}
        inputs = {"config": config, "model": repr(self.model)}
        if self.trace is not None:
            inputs["trace"] = hashlib.sha256(self.trace.read_bytes()).hexdigest()
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()

    def requests(self) -> list[Request]:
        """The requests to serve, none for a workload of phases. Raises UserError if the trace can't be read."""
        workload = self.spec.workload
        if self.trace is None or not isinstance(workload, RequestsWorkload):
            return []
        return read_requests(self.trace, workload.limit)


def load_experiment(experiment: str | Path, overrides: Overrides = (), search: Sequence[Path] = ()) -> LoadedExperiment:
    """Read an experiment: a YAML file, a folder with an experiment.yaml, or the name of a shipped one.

    `overrides` are texts "workload.batch=64" or a mapping of dotted paths to values; those below `system.` change
    the system. Paths in the file are relative to it, else to the folder of shipped files; paths in overrides to the
    current folder. Raises SpecError with every problem at once, UserError if there is no such experiment.
    """
    file = experiment_file(experiment)
    problems: list[Problem] = []
    loaded = _collected(problems, lambda: _load(file, overrides, search))
    written = _Written(_collected([], lambda: _as_written(file, overrides, search)), file.parent)
    model, trace = written.model(problems), written.trace(problems)
    if loaded is not None and model is not None:
        problems += _misfits(loaded, model)
    if problems or loaded is None or model is None:
        _refuse_an_exploration(file)
        raise SpecError(list(dict.fromkeys(problems)))
    loaded = _without_explorations(loaded)
    return LoadedExperiment(loaded.spec, loaded, _system_of(loaded), model, trace)


def with_workload_numbers(base: LoadedExperiment, changes: Mapping[str, object]) -> LoadedExperiment:
    """`base` with other numbers in its workload: what `load_experiment` gives, without reading the system again.

    `changes` are dotted paths below `workload.` to numbers, truth values or None (a text could name a file). Raises
    pydantic's ValidationError or UserError for what doesn't hold, with less to say than `load_experiment`."""
    tree = apply_overrides(base.loaded.tree, changes)
    node = tree.entries["workload"]
    workload = type(base.spec.workload).model_validate(unwrap_sourced(plain(node)))
    prefix = "workload."
    others = {path: said for path, said in base.loaded.sources.items() if not path.startswith(prefix)}
    loaded = replace(
        base.loaded,
        spec=base.spec.model_copy(update={"workload": workload}),
        resolved=base.loaded.resolved | {"workload": plain(node)},
        sources=others | sources_below(node, "workload"),
        tree=tree,
    )
    if problems := _misfits(loaded, base.model):
        raise SpecError(problems)
    return replace(base, spec=loaded.spec, loaded=loaded)


EXPLORATIONS = ("sweep", "search")
"""Sections about many runs, which one run takes no notice of."""


def _refuse_an_exploration(file: Path) -> None:
    """Raises UserError if a file is a sweep or a search: no problem of it as an experiment would say so."""
    kind = read_key(file, "kind")
    if kind in EXPLORATIONS:
        raise UserError(f"{file} is a {kind}, which is many runs", expected=f"an experiment, or `archsim {kind}`")


def _without_explorations(loaded: LoadedSpec[ExperimentSpec]) -> LoadedSpec[ExperimentSpec]:
    """What a sweep or a search would vary doesn't belong to a run; `tree` keeps it, for them to read."""
    if not loaded.resolved.keys() & set(EXPLORATIONS):
        return loaded
    return replace(
        loaded,
        spec=loaded.spec.model_copy(update=dict.fromkeys(EXPLORATIONS)),
        resolved={key: value for key, value in loaded.resolved.items() if key not in EXPLORATIONS},
        sources={path: said for path, said in loaded.sources.items() if path.partition(".")[0] not in EXPLORATIONS},
    )


def experiment_file(experiment: str | Path) -> Path:
    """The YAML file that a path, a folder or the name of a shipped experiment means. Raises UserError."""
    path = Path(experiment)
    if path.is_dir() and (path / EXPERIMENT_FILE).is_file():
        return path / EXPERIMENT_FILE
    if path.exists() or path.suffix in (".yaml", ".yml"):
        return path  # what is wrong with it, the reader says
    shipped = shipped_experiments()
    if str(experiment) in shipped:
        return shipped[str(experiment)]
    raise UserError(
        f"there is no experiment '{experiment}'",
        expected=listed(shipped, 8) or "the path of a YAML file",
        nearest=nearest_name(path.name, shipped),
    )


def shipped_experiments() -> dict[str, Path]:
    """Name to file of the experiments that come with archsim, sorted by name."""
    files = sorted((data_root() / "experiments").glob(f"*/{EXPERIMENT_FILE}"))
    return {file.parent.name: file for file in files}


def _load(file: Path, overrides: Overrides, search: Sequence[Path]) -> LoadedSpec[ExperimentSpec]:
    chosen, others = _chosen_system(overrides)
    if chosen is None:
        return load_spec(file, ExperimentSpec, overrides, search)
    # Another system and changes to it: the changes must be laid over the other one, not over the file's.
    try:
        resolve_preset(chosen, Path(), search)
    except UserError as error:
        raise SpecError([_problem(Node(None, f"{OVERRIDE} 'system={chosen}'", None), "system", error)]) from None
    onto = {"base": str(file.resolve()), "system": chosen}
    return replace(load_mapping(onto, ExperimentSpec, others, search), file=file)


def _chosen_system(overrides: Overrides) -> tuple[str | None, Overrides]:
    """The system that `overrides` name, if they also change something in it, and the overrides without it."""
    if isinstance(overrides, Mapping):
        chosen = overrides.get("system")
        others: Overrides = {path: value for path, value in overrides.items() if path != "system"}
        changes_it = any(path.startswith("system.") for path in others)
    else:
        named = [text.partition("=")[2].strip() for text in overrides if text.partition("=")[0].strip() == "system"]
        chosen = named[-1] if named else None
        others = [text for text in overrides if text.partition("=")[0].strip() != "system"]
        changes_it = any(text.lstrip().startswith("system.") for text in others)
    return (chosen, others) if isinstance(chosen, str) and changes_it else (None, overrides)


def _system_of(loaded: LoadedSpec[ExperimentSpec]) -> LoadedSpec[SystemSpec]:
    tree = loaded.tree.entries["system"]
    prefix = "system."
    return LoadedSpec(
        spec=loaded.spec.system,
        resolved=loaded.resolved["system"],
        sources={path.removeprefix(prefix): said for path, said in loaded.sources.items() if path.startswith(prefix)},
        file=Path(tree.file),
        files=loaded.files,
        tree=tree,
    )


def _collected(problems: list[Problem], action: Callable[[], Found]) -> Found | None:
    """What `action` gives, or None with what is wrong added to `problems`."""
    try:
        return action()
    except SpecError as error:
        problems += error.problems
    return None


def _as_written(file: Path, overrides: Overrides, search: Sequence[Path]) -> Node:
    """The tree before the system is filled in: enough to look up what the workload names."""
    tree = TreeReader(search).read(file)  # what is wrong with its bases, the loader reports
    if isinstance(overrides, Mapping):
        return apply_overrides(tree, {path: value for path, value in overrides.items() if _in_workload(path)})
    return apply_overrides(tree, [text for text in overrides if _in_workload(text)])


def _in_workload(path: str) -> bool:
    return path.lstrip().startswith("workload")


class _Written:
    """The files that a workload names. They are looked up even if the spec has other mistakes, to tell all at once."""

    def __init__(self, tree: Node | None, folder: Path) -> None:
        workload = tree.entries.get("workload") if tree is not None else None
        self.workload = workload.entries if workload is not None else {}
        self.folder = folder

    def model(self, problems: list[Problem]) -> ModelShape | None:
        """The model's shape; None, with the problem noted, if there is no such model or it isn't one."""
        node = _unwrapped(self.workload.get("model"))
        if node is None or not isinstance(node.value, str):
            return None
        beside = next((path for path in self._places(node) if _names_a_file(node.value) and path.exists()), None)
        try:
            return load_model(beside or node.value)
        except UserError as error:
            problems.append(_problem(node, "workload.model", error))
            return None

    def trace(self, problems: list[Problem]) -> Path | None:
        """The first trace that exists; None, with the problem noted, if none does."""
        node = _unwrapped(self.workload.get("trace"))
        if node is None:
            return None
        names = [item for item in node.items or [node] if isinstance(item.value, str)]
        found = next((path for name in names for path in self._places(name) if path.is_file()), None)
        if found is None and names:
            missing = " or ".join(f"'{name.value}'" for name in names)
            error = UserError(f"there is no request trace {missing}", expected="the path of a CSV file")
            problems.append(_problem(node, "workload.trace", error))
        return found.resolve() if found is not None else None

    def _places(self, node: Node) -> list[Path]:
        """Where a path may lead, by the place it is written in."""
        beside = Path() if node.file.startswith(OVERRIDE) else self.folder
        return [folder / str(node.value) for folder in (beside, data_root())]


def _unwrapped(node: Node | None) -> Node | None:
    return node.entries["value"] if node is not None and node.is_sourced else node


def _names_a_file(name: str) -> bool:
    return name.endswith(".json") or len(Path(name).parts) > 1


def _problem(node: Node, path: str, error: UserError) -> Problem:
    return Problem(node.file, node.line, path, error.message, error.expected, error.nearest)


def _misfits(loaded: LoadedSpec[ExperimentSpec], model: ModelShape) -> list[Problem]:
    """Where model, workload and system contradict each other."""
    workload, devices = loaded.spec.workload, loaded.spec.system.devices
    path = "workload.tensor_parallel"
    problems = []
    try:
        check_tensor_parallel(model, workload.tensor_parallel)
    except UserError as error:
        problems.append(loaded.problem(path, error.message, error.expected, error.nearest))
    problems += _cache_misfits(loaded, model)
    if workload.tensor_parallel > devices:
        message = f"{workload.tensor_parallel} devices are wanted, the system has {devices}"
        problems.append(loaded.problem(path, message, f"at most {devices}"))
    return problems + _layers_beyond(loaded, model)


def _cache_misfits(loaded: LoadedSpec[ExperimentSpec], model: ModelShape) -> list[Problem]:
    """Why a shared prefix, or a cache that devices deal out, can't be laid out on these devices."""
    workload, has_pim = loaded.spec.workload, loaded.spec.system.device.pim is not None
    prefix = workload.shared_prefix
    paged = isinstance(workload, PhasesWorkload) and workload.kv_block_tokens is not None
    decode = workload.decode if isinstance(workload, PhasesWorkload) else None
    problems = []
    if prefix is not None and prefix.attention is PrefixAttention.PER_SEQUENCE and has_pim:
        message = "PIM lays out a cache of its own for each sequence, so it can't attend to a shared prefix"
        expected = "cascade, whose prefix attention is the device's"
        problems.append(loaded.problem("workload.shared_prefix.attention", message, expected))
    if prefix is not None and paged:
        message = "a shared prefix in a paged cache is not there yet"
        problems.append(loaded.problem("workload.shared_prefix", message, "shared_prefix or kv_block_tokens"))
    if decode is not None and decode.context_parallel > 1:
        path = "workload.decode.context_parallel"
        try:
            check_context_parallel(model, workload.tensor_parallel, decode.context_parallel)
        except UserError as error:
            problems.append(loaded.problem(path, error.message, error.expected, error.nearest))
        if has_pim or paged:
            message = f"devices can't deal out {'a paged cache' if paged else 'the cache that PIM attends to'} yet"
            problems.append(loaded.problem(path, message, "context_parallel: 1"))
    return problems


def _layers_beyond(loaded: LoadedSpec[ExperimentSpec], model: ModelShape) -> list[Problem]:
    """Placement rules for layers that the model does not have."""
    rules = loaded.spec.system.device.placement.rules
    return [
        loaded.problem(
            f"system.device.placement.rules[{index}].layers",
            f"{list(rule.layers)}, the model has {model.layers} layers",
            f"[first, last] from 0 to {model.layers - 1}",
        )
        for index, rule in enumerate(rules)
        if rule.layers is not None and rule.layers[1] >= model.layers
    ]

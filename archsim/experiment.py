"""What a user writes to have something simulated: a system, a workload, and how closely to look.

experiment = load_experiment("experiments/llama3_70b_h200x8/experiment.yaml", ["workload.batch=64"])
experiment.spec.workload.batch, experiment.system.spec, experiment.model
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

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
from archsim.config.schema import unwrap_sourced
from archsim.config.yamltree import Node, plain
from archsim.experiment_spec import ExperimentSpec, RequestsWorkload
from archsim.misfits import misfits
from archsim.system import SystemSpec
from archsim.workload.requests import Request, read_requests
from archsim.workload.shapes import ModelShape, load_model

EXPERIMENT_FILE = "experiment.yaml"

Overrides = Mapping[str, object] | Sequence[str]
Found = TypeVar("Found")


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
    try:
        loaded = _collected(problems, lambda: _load(file, overrides, search))
    except UserError:  # a file of another kind
        _refuse_an_exploration(file)
        raise
    written = _Written(_collected([], lambda: _as_written(file, overrides, search)), file.parent)
    model, trace = written.model(problems), written.trace(problems)
    if loaded is not None and model is not None:
        problems += misfits(loaded, model)
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
    if problems := misfits(loaded, base.model):
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

"""The kinds of spec files there are, for `archsim validate` and `archsim schema`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from archsim.commands.schema import json_schema
from archsim.commands.validate import FileReport, ValidationReport, validate_files
from archsim.config.errors import Problem, SpecError, UserError, listed, nearest_name
from archsim.config.inheritance import TreeReader
from archsim.config.loading import load_spec
from archsim.config.schema import Spec
from archsim.experiment import load_experiment
from archsim.experiment_spec import ExperimentSpec
from archsim.fabric.links import LinkSpec
from archsim.fabric.noc_spec import NocSpec
from archsim.fabric.wires import TopologySpec
from archsim.memory.energy import MemoryEnergySpec
from archsim.memory.flash import FlashStandard
from archsim.memory.pim import PimSpec
from archsim.memory.sram import SramSpec
from archsim.memory.standard import DramStandard
from archsim.sweep.plan import plan_sweep
from archsim.sweep.search_plan import plan_search
from archsim.sweep.search_spec import SearchSpec
from archsim.sweep.spec import SweepSpec
from archsim.system import SystemSpec

EXPERIMENT = "experiment"
SWEEP = "sweep"
SEARCH = "search"

KINDS: Mapping[str, type[Spec]] = {
    EXPERIMENT: ExperimentSpec,
    "energy": MemoryEnergySpec,
    "flash": FlashStandard,
    "link": LinkSpec,
    "memory": DramStandard,
    SWEEP: SweepSpec,
    SEARCH: SearchSpec,
    "noc": NocSpec,
    "sram": SramSpec,
    "pim": PimSpec,
    "system": SystemSpec,
    "topology": TopologySpec,
}


def validate(paths: Iterable[Path]) -> ValidationReport:
    """Validate each file by its `kind:`, or by its keys if the kind needs none. Never raises for what a file holds.

    Of an experiment what it refers to is followed too: system, model, trace; of a sweep its points are laid out; of a
    search its names are looked up.
    """
    return ValidationReport(tuple(_validate(Path(path)) for path in paths))


def schema(kind: str | None = None) -> dict[str, Any]:
    """The JSON schema of one kind's files, or of all. Raises UserError for an unknown kind."""
    if kind is None:
        return json_schema(KINDS)
    if kind not in KINDS:
        raise UserError(f"there is no kind '{kind}'", expected=listed(KINDS), nearest=nearest_name(kind, KINDS))
    return json_schema({kind: KINDS[kind]})


def _validate(path: Path) -> FileReport:
    kind = kind_of(path)
    if kind is None:
        return validate_files([path], KINDS).files[0]
    try:
        if kind == EXPERIMENT:
            sections = load_experiment(path).loaded.tree.entries
            if SWEEP in sections:
                plan_sweep(path, None, (), None)
            if SEARCH in sections:
                plan_search(path, None, (), None)
        elif kind == SWEEP:
            plan_sweep(path, None, (), None)
        elif kind == SEARCH:
            plan_search(path, None, (), None)
        else:
            load_spec(path, KINDS[kind])
    except SpecError as error:
        return FileReport(path, kind, tuple(error.problems))
    except UserError as error:
        where = kind if kind in (SWEEP, SEARCH) else ""
        return FileReport(path, kind, (Problem(str(path), None, where, error.message, error.expected, error.nearest),))
    return FileReport(path, kind, ())


def kind_of(path: Path) -> str | None:
    """The kind a file says it is of, else the one whose keys it has; None if it can't be read or fits none."""
    try:
        tree = TreeReader().read(path)  # a base that can't be had is the loader's to report
    except UserError:
        return None
    if "kind" in tree.entries:
        written = tree.entries["kind"].value
        return written if isinstance(written, str) and written in KINDS else None
    kindless = {kind: model for kind, model in KINDS.items() if _goes_without_saying(kind, model)}
    shared = {kind: len(tree.entries.keys() & model.model_fields.keys()) for kind, model in kindless.items()}
    best = max(shared, key=lambda kind: shared[kind], default=None)
    return best if best is not None and 2 * shared[best] > len(tree.entries) else None


def _goes_without_saying(kind: str, model: type[Spec]) -> bool:
    """Whether a file of this kind may leave its `kind:` out; a sweep or a search may only inside an experiment."""
    return kind not in (SWEEP, SEARCH) and not model.model_fields["kind"].is_required()

"""The pieces a run directory is made of: tables from records, the manifest, and the atomic replacement."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from platform import platform, python_version
from typing import TYPE_CHECKING, Any, Protocol

from archsim.config.errors import UserError
from archsim.record_log import COUNT_FIELDS, PIM_FIELDS, Integers, OperatorLog
from archsim.records import CAUSES, BandwidthSample, OperatorRecord, RequestRecord

if TYPE_CHECKING:
    import pyarrow

_INT64_MAX = 2**63 - 1
_LIBRARIES = ("numba", "numpy", "pandas", "pyarrow", "pydantic", "simpy", "plotly", "matplotlib")


class Phase(Protocol):
    """The part of a phase that becomes tables."""

    @property
    def phase(self) -> str: ...
    @property
    def records(self) -> Sequence[OperatorRecord]: ...
    @property
    def operator_energy_pj(self) -> Sequence[float]: ...
    @property
    def bandwidth(self) -> Sequence[BandwidthSample]: ...


class Run(Protocol):
    """The part of a run that the manifest tells of."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def fidelity(self) -> str: ...
    @property
    def wall_seconds(self) -> float: ...
    @property
    def command(self) -> Sequence[str]: ...


def operator_table(phases: Sequence[Phase]) -> pyarrow.Table:
    """One row per operator record, counts flattened; times are integer femtoseconds, energies of all devices."""
    log = _packed(phases)
    energies = array("d", (energy for phase in phases for energy in phase.operator_energy_pj))
    start_fs, end_fs = log.column("start_fs"), log.column("end_fs")
    columns: dict[str, Sequence[Any]] = {
        "name": [form.name for form in log.each_form()],
        "kind": [str(form.kind) for form in log.each_form()],
        "layer": log.column("layer"),
        "phase": [phase.phase for phase in phases for _ in range(len(phase.records))],
        "iteration": log.column("iteration"),
        "start_fs": start_fs,
        "end_fs": end_fs,
        "duration_fs": [end - start for start, end in zip(start_fs, end_fs, strict=True)],
        "roofline_fs": log.column("roofline_fs"),
        "bound": [form.bound for form in log.each_form()],
        "matrix_flops": log.column("matrix_flops"),
        "vector_flops": log.column("vector_flops"),
    }
    for cause in CAUSES:
        columns[f"cause_{cause}_fs"] = log.column("cause_fs", cause)
    if energies:
        columns["energy_pj"] = energies
    return _table(columns | _count_columns(log))


def _packed(phases: Sequence[Phase]) -> OperatorLog:
    """The records of all phases, one after the other."""
    if len(phases) == 1 and isinstance(phases[0].records, OperatorLog):
        return phases[0].records
    return OperatorLog(record for phase in phases for record in phase.records)


def _count_columns(log: OperatorLog) -> dict[str, Integers]:
    columns: dict[str, Integers] = {}
    for name in COUNT_FIELDS:
        column = "counted_vector_flops" if name == "vector_flops" else name
        columns[column] = log.column("counts", name)
    for number_format in sorted({fmt for form in log.forms for fmt in form.formats}):
        columns[f"matrix_macs_{number_format}"] = log.column("matrix_macs", number_format)
    for tier in sorted({tier for form in log.forms for tier in form.tiers}):
        columns[f"tier_{tier}_read_bytes"] = log.column("tiers", tier, "read_bytes")
        columns[f"tier_{tier}_write_bytes"] = log.column("tiers", tier, "write_bytes")
    if any(form.commands is not None for form in log.forms):
        columns |= _pim_columns(log)
    return columns


def _pim_columns(log: OperatorLog) -> dict[str, Integers]:
    """What each operator did on PIM; commands are those of the busiest channel."""
    columns = {f"pim_{name}": log.column("pim", name) for name in PIM_FIELDS}
    for command in sorted({command for form in log.forms for command in form.commands or ()}):
        columns[f"pim_command_{command}"] = log.column("pim", "commands", command)
    return columns


def bandwidth_table(phases: Sequence[Phase]) -> pyarrow.Table:
    """HBM bytes of one device over time, one row per sample."""
    samples = [(phase.phase, sample) for phase in phases for sample in phase.bandwidth]
    columns: dict[str, list[Any]] = {"phase": [phase for phase, _ in samples]}
    for name in ("start_fs", "end_fs", "read_bytes", "write_bytes"):
        columns[name] = [getattr(sample, name) for _, sample in samples]
    return _table(columns)


def request_table(requests: Sequence[RequestRecord]) -> pyarrow.Table:
    """One row per request, with its derived times."""
    names = [f.name for f in fields(RequestRecord)] + ["ttft_fs", "tpot_fs"]
    return _table({name: [getattr(request, name) for request in requests] for name in names})


def _table(columns: Mapping[str, Sequence[Any]]) -> pyarrow.Table:
    import pyarrow

    return pyarrow.table({name: _arrow(name, values) for name, values in columns.items()})


def _arrow(name: str, values: Sequence[Any]) -> pyarrow.Array:
    """A column as Arrow has it; 64-bit numbers are not copied."""
    import pyarrow

    kind = _type(name, values)
    if isinstance(values, array):
        return pyarrow.Array.from_buffers(kind, len(values), [None, pyarrow.py_buffer(values)])
    return pyarrow.array(values, type=kind)


def _type(name: str, values: Sequence[Any]) -> Any:
    import pyarrow

    if name in ("name", "kind", "phase", "bound"):
        return pyarrow.string()
    if name.endswith("_pj"):
        return pyarrow.float64()
    # int64 femtoseconds end after 2.6 hours; longer runs keep their exact integers as decimals.
    fits = isinstance(values, array) or max(values, default=0) <= _INT64_MAX
    return pyarrow.int64() if fits else pyarrow.decimal128(38, 0)


def manifest(run: Run) -> dict[str, Any]:
    """What ran, with what, when: the facts that may differ between two runs that are otherwise equal."""
    return {
        "name": run.name,
        "command": list(run.command),
        "config_digest": run.digest,
        "fidelity": run.fidelity,
        "seed": run.seed,
        "wall_time_s": round(run.wall_seconds, 3),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"archsim": _version("archsim"), "python": python_version(), **_library_versions()},
        "platform": platform(),
        "git": _git_state(Path(__file__).resolve()),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _library_versions() -> dict[str, str]:
    found = {name: _version(name) for name in _LIBRARIES}
    return {name: version for name, version in found.items() if version is not None}


def _git_state(source: Path) -> dict[str, Any] | None:
    """The commit that holds `source` and whether tracked files changed since; None outside a checkout.

    An installed copy may lie inside some other project's repository, so `source` must be tracked.
    """
    folder = str(source.parent)
    if _git(folder, "ls-files", "--error-unmatch", source.name) is None:
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit.strip(), "modified": bool(changes)} if commit else None


def _git(folder: str, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def ensure_writable(directory: Path | str) -> None:
    """Fail now rather than after the simulation: UserError if a run could not be written to `directory`."""
    target = Path(directory).resolve()
    _refuse_what_is_no_run(target)
    with _explained(target), tempfile.TemporaryDirectory(dir=_made_parent(target), prefix=f".{target.name}."):
        pass


@contextmanager
def replaced_directory(target: Path) -> Iterator[Path]:
    """A temporary sibling to fill, renamed to `target` on success and removed on any failure, Ctrl-C included."""
    _refuse_what_is_no_run(target)
    with _explained(target):
        staging = Path(tempfile.mkdtemp(dir=_made_parent(target), prefix=f".{target.name}.", suffix=".partial"))
        try:
            yield staging
            staging.chmod(0o777 & ~_umask())  # mkdtemp made it private
            _swap_in(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _swap_in(staging: Path, target: Path) -> None:
    """Rename `staging` to `target`; what was there stays until then and comes back if the rename fails."""
    if not target.exists():
        staging.rename(target)
        return
    aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".old"))
    try:
        target.rename(aside)
        staging.rename(target)
    except BaseException:
        if not target.exists():
            aside.rename(target)
        raise
    finally:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _made_parent(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.parent


def _refuse_what_is_no_run(target: Path) -> None:
    with suppress(OSError):
        if target.is_file():
            raise UserError(f"cannot write a run to {target}: it is a file; choose another --out directory")
        if target.is_dir() and any(target.iterdir()) and not (target / "manifest.json").is_file():
            raise UserError(
                f"{target} holds files that are not a run (no manifest.json) and will not be replaced; "
                "choose an empty or new --out directory"
            )


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = f"choose another directory with --out or make {target.parent} writable"
        raise UserError(f"cannot write a run to {target}: {reason}; {advice}") from error

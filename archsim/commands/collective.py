"""`archsim collective`: how long one collective takes on a system's link, on a link or on a described network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.commands.kinds import kind_of
from archsim.config.dimensions import units_of
from archsim.config.errors import UserError, nearest_name
from archsim.config.loading import data_root, load_spec
from archsim.config.units import Dimension, QuantityError, format_quantity, format_time_fs, parse_quantity
from archsim.fabric.collectives import CollectiveTime, collective, collective_over
from archsim.fabric.links import LinkSpec
from archsim.fabric.operations import Algorithm, Operation, algorithm_named, operation_named
from archsim.fabric.wires import FS_PER_SECOND, TopologySpec
from archsim.system import SystemSpec

if TYPE_CHECKING:
    from rich.table import Table

FOLDERS = ("systems", "links", "topologies")


@dataclass(frozen=True, slots=True)
class Question:
    """What to time: sizes and names as a user writes them."""

    operation: str
    size: str
    devices: int | None = None
    algorithm: str = "auto"
    fmt: str | None = None


@dataclass(frozen=True, slots=True)
class CollectiveReport:
    """The answer, with what it is an answer to."""

    on: str
    operation: Operation
    devices: int
    message_bytes: int
    time: CollectiveTime

    @property
    def algorithm_rate(self) -> float:
        """Bytes of the message per second."""
        return self.message_bytes * FS_PER_SECOND / self.time.total_fs if self.time.total_fs else 0.0

    @property
    def bus_rate(self) -> float:
        """Bytes per second that a link would carry in the best schedule without reduction in the network, as nccl-tests
        define it: comparable over operations and numbers of devices."""
        n = self.devices
        moved = {Operation.ALL_REDUCE: 2 * (n - 1) / n, Operation.BROADCAST: 1.0}.get(self.operation, (n - 1) / n)
        return self.algorithm_rate * moved

    def as_dict(self) -> dict[str, Any]:
        """The same for `--json`; times in femtoseconds, rates in bytes per second."""
        time = self.time
        return {
            "on": self.on,
            "operation": str(self.operation),
            "devices": self.devices,
            "message_bytes": self.message_bytes,
            "algorithm": str(time.algorithm),
            "protocol": time.protocol,
            "total_fs": time.total_fs,
            "latency_fs": time.latency_fs,
            "transfer_fs": time.transfer_fs,
            "steps": time.steps,
            "link_bytes": time.link_bytes,
            "algorithm_bytes_per_second": self.algorithm_rate,
            "bus_bytes_per_second": self.bus_rate,
        }

    @property
    def title(self) -> str:
        """What was timed, in one line."""
        size = format_quantity(self.message_bytes, Dimension.BYTES)
        return f"{self.operation} of {size} among {self.devices} devices: {self.on}"

    def table(self) -> Table:
        """How long it takes, for a terminal."""
        from rich import box
        from rich.table import Table as RichTable

        table = RichTable(box=box.SIMPLE, show_header=False)
        for name, value in self._rows():
            table.add_row(name, value)
        return table

    @property
    def _latency_name(self) -> str:
        if self.time.algorithm is Algorithm.IN_NETWORK:
            return "latency, filling the pipeline"  # whose rounds grow with the message
        return f"latency of {self.time.steps} step{'' if self.time.steps == 1 else 's'}"

    def _rows(self) -> Iterator[tuple[str, str]]:
        time = self.time
        yield "algorithm, protocol", f"{time.algorithm}, {time.protocol}"
        yield "time", format_time_fs(time.total_fs)
        yield f"  {self._latency_name}", format_time_fs(time.latency_fs)
        yield "  transfer", format_time_fs(time.transfer_fs)
        yield "leaves each device", _in_unit_of(self.message_bytes, time.link_bytes)
        yield "bandwidth of the message", format_quantity(self.algorithm_rate, Dimension.BYTES_PER_SECOND, 4)
        yield "bus bandwidth", format_quantity(self.bus_rate, Dimension.BYTES_PER_SECOND, 4)


def _in_unit_of(message_bytes: int, other_bytes: int) -> str:
    """`other_bytes` in the unit that a message's size is shown in: two sizes side by side in MiB, or both in MB."""
    unit = format_quantity(message_bytes, Dimension.BYTES).partition(" ")[2]
    return f"{float(other_bytes / units_of(Dimension.BYTES)[unit]):.4g} {unit}"


def time_collective(name: str, question: Question, changes: Sequence[str] = ()) -> CollectiveReport:
    """Time a collective on the preset or file `name`.

    Raises UserError for an unknown name, a wrong size, and whatever the network can't do; SpecError for a bad file."""
    operation, algorithm = operation_named(question.operation), algorithm_named(question.algorithm)
    message_bytes = _message_bytes(question.size)
    spec = _spec(name, changes)
    if isinstance(spec, TopologySpec):
        if question.devices not in (None, spec.devices):
            raise UserError(f"{spec.name} has {spec.devices} devices, not {question.devices}", expected="no --devices")
        time = collective_over(spec, operation, message_bytes, algorithm=algorithm)
        return CollectiveReport(spec.name, operation, spec.devices, message_bytes, time)
    link, own_devices = (spec.link, spec.devices) if isinstance(spec, SystemSpec) else (spec, None)
    if link is None:
        raise UserError(f"{spec.name} has no link, so there are no collectives", expected="a system with `link`")
    devices = question.devices or own_devices
    if (question.devices is not None and question.devices < 2) or devices is None or devices < 2:
        raise UserError(
            f"a collective of {devices or 'an unknown number of'} device{'' if devices == 1 else 's'}",
            expected="--devices with 2 or more",
        )
    if own_devices is not None and devices > own_devices:
        raise UserError(
            f"{devices} devices are wanted, {spec.name} has {own_devices}",
            expected=f"at most {own_devices}, `--set devices={devices}`, or a link alone",
        )
    asked = None if question.algorithm == "auto" else algorithm
    time = collective(operation, devices, message_bytes, link, algorithm=asked, fmt=question.fmt)
    return CollectiveReport(link.name, operation, devices, message_bytes, time)


def _message_bytes(text: str) -> int:
    try:
        exact = parse_quantity(text, Dimension.BYTES)
    except QuantityError as error:
        raise UserError(f"--bytes: {error}") from None
    if exact.denominator != 1:
        raise UserError(f"--bytes: '{text}' is not a whole number of bytes")
    return exact.numerator


def _spec(name: str, changes: Sequence[str]) -> SystemSpec | LinkSpec | TopologySpec:
    path = _path(name)
    match kind_of(path):
        case "system":
            return load_spec(path, SystemSpec, changes).spec
        case "link":
            return load_spec(path, LinkSpec, changes).spec
        case "topology":
            return load_spec(path, TopologySpec, changes).spec
    raise UserError(f"{path} is no system, link or topology", expected="a file of one of these kinds")


def _path(name: str) -> Path:
    presets = {
        path.stem: path for folder in FOLDERS for path in sorted((data_root() / "hwconfigs" / folder).glob("*.yaml"))
    }
    if name in presets:
        return presets[name]
    if Path(name).is_file():
        return Path(name)
    raise UserError(
        f"there is no system, link or topology '{name}'",
        expected="a path of a YAML file, or a name that `archsim describe` lists",
        nearest=nearest_name(Path(name).stem, presets),
    )

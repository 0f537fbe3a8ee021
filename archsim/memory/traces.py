"""Readers of memory traces: a file in, chunks of requests out, never the whole file in memory.

| format | what a file looks like | time |
|---|---|---|
| `ramulator` | lines `LD 0x40`, `ST 0x80` or `R 0x40`, `W 0x80`; also `0x40 R` | none |
| `dramsim3` | lines `0x40 READ 12`: address, operation, cycle | clocks CK |
| `csv` | a header that names `address`, `op` and, if wanted, a time: `time_ns`, `time (us)`, `cycle` | as named |
| `npy` | uint64[n] coded as `binary`; int64[n, 2 or 3]: address, write, cycle; or structured | as named, or clocks |
| `parquet` | columns as those of `csv`; `write` (0 or 1) may stand for `op` | as named |
| `binary` | little-endian u64 per request: the byte address, whose bit 0 says write | none |

Addresses count bytes. Requests come in order of time. A trace without times arrives as fast as the memory takes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from archsim.config.errors import UserError
from archsim.memory.trace_text import FAULT_TEXT, LARGEST, LineFault, scan_lines

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_REQUESTS = 1 << 20
"""Requests per chunk of the formats with records of fixed size."""
TEXT_BLOCK_BYTES = 1 << 24
PARQUET_BUFFER_BYTES = 1 << 20
"""Read a column's pages as they are wanted, not a whole row group at once."""
SNIFFED_BYTES = 1 << 16
SHOWN_CHARACTERS = 60

Ints = NDArray[np.int64]


class TraceFormat(StrEnum):
    """How a trace is written, see the table above."""

    RAMULATOR = "ramulator"
    DRAMSIM3 = "dramsim3"
    CSV = "csv"
    NPY = "npy"
    PARQUET = "parquet"
    BINARY = "binary"


class TimeUnit(StrEnum):
    """What the times of a chunk count."""

    NONE = "none"
    CLOCKS = "cycle"  # clocks CK of the memory
    FEMTOSECONDS = "fs"


class Chunk(NamedTuple):
    """Some requests in order. `address` in bytes, `write` 0 or 1, `time` in the trace's `time_unit` (0 for none)."""

    address: Ints
    write: Ints
    time: Ints


class _TimeColumn(NamedTuple):
    name: str
    unit: TimeUnit
    decimals: int  # its numbers times 10^decimals are in `unit`


_DECIMALS = {"fs": 0, "ps": 3, "ns": 6, "us": 9, "ms": 12, "s": 15}
_TIME_NAME = re.compile(r"(?:time|arrival)(?:[ _]|\s*[(\[])\s*([a-z]+)\s*[)\]]?")
_ADDRESS_NAMES = ("address", "addr")
_OPERATION_NAMES = ("op", "operation", "type")
_COLUMNS = "columns address, op and, if wanted, time_ns (or fs, ps, us, ms, s) or cycle"
_READS = ("R", "RD", "READ", "LD", "LOAD")
_WRITES = ("W", "WR", "WRITE", "ST", "STORE")


@dataclass(frozen=True)
class Trace:
    """A trace file whose format is known. Its chunks can be read any number of times."""

    file: Path
    format: TraceFormat
    time_unit: TimeUnit
    columns: tuple[str, ...] = ()  # of a text: what each field is

    def chunks(self) -> Iterator[Chunk]:
        """The requests in order. Raises UserError with the file and the line (or request, from 1) that is wrong."""
        readers = {
            TraceFormat.NPY: _npy_chunks,
            TraceFormat.PARQUET: _parquet_chunks,
            TraceFormat.BINARY: _binary_chunks,
        }
        yield from readers.get(self.format, _text_chunks)(self)


def open_trace(file: Path) -> Trace:
    """Find out how a trace is written, by its first bytes and its suffix. Raises UserError if that can't be told."""
    try:
        with file.open("rb") as stream:
            head = stream.read(SNIFFED_BYTES)
    except OSError as error:
        raise UserError(f"can't read the trace {file}: {error.strerror or error}") from None
    if not head:
        raise UserError(f"{file} is empty", expected="a trace of memory requests")
    if head.startswith(b"\x93NUMPY"):
        return Trace(file, TraceFormat.NPY, _npy_time(_open_npy(file), file).unit)
    if head.startswith(b"PAR1"):
        names = _open_parquet(file).schema_arrow.names
        return Trace(file, TraceFormat.PARQUET, _time_of(_folded(names), str(file)).unit, tuple(names))
    if file.suffix in (".bin", ".u64") or b"\0" in head:
        return Trace(file, TraceFormat.BINARY, TimeUnit.NONE)
    return _text_trace(file, head)


# ---- text ------------------------------------------------------------------------------------------------------------


def _text_trace(file: Path, head: bytes) -> Trace:
    """The kind of text by its first line that says something."""
    lines = head.decode("utf-8", "replace").splitlines()
    for number, line in enumerate(lines, start=1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        if "," in line and not any(word.upper() in (*_READS, *_WRITES) for word in words):
            names = _folded(line.split(","))
            unit = _time_of(names, f"{file}:{number}").unit
            return Trace(file, TraceFormat.CSV, unit, tuple(names))
        operations = [position for position, word in enumerate(words) if word.upper() in (*_READS, *_WRITES)]
        if operations == [0] and len(words) == 2:
            return Trace(file, TraceFormat.RAMULATOR, TimeUnit.NONE, ("op", "address"))
        if operations == [1] and len(words) == 2:
            return Trace(file, TraceFormat.RAMULATOR, TimeUnit.NONE, ("address", "op"))
        if operations == [1] and len(words) == 3:
            return Trace(file, TraceFormat.DRAMSIM3, TimeUnit.CLOCKS, ("address", "op", "cycle"))
        raise UserError(
            f"{file}:{number}: '{line[:SHOWN_CHARACTERS]}' is a line of no trace format",
            expected="'LD 0x40', 'R 0x40', '0x40 READ 12', or a CSV header with address and op",
        )
    raise UserError(f"{file} has no requests", expected="a trace of memory requests")


def _text_chunks(trace: Trace) -> Iterator[Chunk]:
    names = trace.columns
    time = _time_of(names, str(trace.file))
    places = (_position(names, _ADDRESS_NAMES), _position(names, _OPERATION_NAMES))
    time_at = names.index(time.name) if time.unit is not TimeUnit.NONE else -1
    lines_before, earliest = 0, 0
    with trace.file.open("rb") as stream:
        if trace.format is TraceFormat.CSV:
            lines_before = _skip_header(stream)
        for block in _blocks_of_lines(stream):
            text = np.frombuffer(block, np.uint8)
            room = block.count(b"\n")
            chunk = Chunk(*(np.empty(room, np.int64) for _ in range(3)))
            n, lines, fault, offset = scan_lines(text, len(names), *places, time_at, time.decimals, earliest, *chunk)
            if fault:
                line = block[offset : block.index(b"\n", offset)].decode("utf-8", "replace").strip()
                raise _line_error(trace, lines_before + lines, line, LineFault(fault))
            lines_before += lines
            if n:
                earliest = int(chunk.time[n - 1])
                yield Chunk(*(column[:n] for column in chunk))


def _blocks_of_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """The rest of a file in blocks that end with a newline."""
    rest = b""
    while block := stream.read(TEXT_BLOCK_BYTES):
        block = rest + block
        cut = block.rfind(b"\n") + 1
        rest = block[cut:]
        if cut:
            yield block[:cut]
    if rest:
        yield rest + b"\n"


def _skip_header(stream: IO[bytes]) -> int:
    """Read past the header; how many lines that took."""
    number = 1
    while not (line := stream.readline()).strip() or line.lstrip().startswith(b"#"):
        number += 1
    return number


def _line_error(trace: Trace, number: int, line: str, fault: LineFault) -> UserError:
    shape = " ".join(trace.columns)
    message = FAULT_TEXT.get(fault, f"the line has not the {len(trace.columns)} fields '{shape}'")
    return UserError(f"{trace.file}:{number}: '{line[:SHOWN_CHARACTERS]}': {message}")


# ---- numpy and binary ------------------------------------------------------------------------------------------------


def _open_npy(file: Path) -> NDArray[np.generic]:
    """The array, mapped: what is looked at of it is read."""
    try:
        array: NDArray[np.generic] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} can't be read as a numpy array: {error}") from None
    return array


def _npy_parts(file: Path) -> Iterator[NDArray[np.generic]]:
    """The array's first axis in parts. Read, not mapped: mapped pages stay in memory as long as the array does."""
    array = _open_npy(file)
    if not array.flags.c_contiguous:  # stored column by column
        for first in range(0, len(array), CHUNK_REQUESTS):
            yield np.array(array[first : first + CHUNK_REQUESTS])
        return
    shape, dtype = array.shape[1:], array.dtype
    row_bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    with file.open("rb") as stream:
        stream.seek(file.stat().st_size - row_bytes * len(array))
        while block := stream.read(row_bytes * CHUNK_REQUESTS):
            yield np.frombuffer(block, dtype).reshape(-1, *shape)


def _npy_time(array: NDArray[np.generic], file: Path) -> _TimeColumn:
    names = array.dtype.names
    if names is not None and array.ndim == 1:
        return _time_of(_folded(names), str(file))
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] not in (2, 3)):
        raise UserError(
            f"{file} holds an array of {array.dtype} of shape {array.shape}",
            expected="uint64[n], integers [n, 2 or 3] (address, write, cycle), or a structured array",
        )
    if array.ndim == 2 and array.shape[1] == 3:
        return _TimeColumn("cycle", TimeUnit.CLOCKS, 0)
    return _TimeColumn("", TimeUnit.NONE, 0)


def _npy_chunks(trace: Trace) -> Iterator[Chunk]:
    time = _npy_time(_open_npy(trace.file), trace.file)
    first, earliest = 0, 0
    for part in _npy_parts(trace.file):
        if part.dtype.names is not None:
            columns: Any = part  # a structured array is indexed by name
            names = dict(zip(_folded(part.dtype.names), part.dtype.names, strict=True))
            chunk = _chunk_of({name: columns[field] for name, field in names.items()}, time)
        elif part.ndim == 2:
            chunk = _chunk_of({"address": part[:, 0], "write": part[:, 1], time.name or "-": part[:, -1]}, time)
        else:
            chunk = _decoded(part)
        earliest = _check_chunk(trace, chunk, first, earliest)
        first += len(part)
        yield chunk


def _binary_chunks(trace: Trace) -> Iterator[Chunk]:
    first = 0
    if trace.file.stat().st_size % 8:
        raise UserError(f"{trace.file}: {trace.file.stat().st_size} bytes are no whole number of 8-byte requests")
    with trace.file.open("rb") as stream:
        while block := stream.read(8 * CHUNK_REQUESTS):
            chunk = _decoded(np.frombuffer(block, "<u8"))
            _check_chunk(trace, chunk, first, 0)
            yield chunk
            first += len(chunk.address)


def _decoded(words: NDArray[np.generic]) -> Chunk:
    """Requests of words `address | write`."""
    values = words.astype(np.int64)
    return Chunk(values & ~np.int64(1), values & 1, np.zeros(len(values), np.int64))


def _check_chunk(trace: Trace, chunk: Chunk, first: int, earliest: int) -> int:
    """The chunk's last time. Raises UserError naming the first request (counted from 1) that can't be."""
    late = np.concatenate(([earliest], chunk.time[:-1]))
    for bad, fault in (
        ((chunk.address < 0) | (chunk.address >= LARGEST), LineFault.ADDRESS),
        ((chunk.write != 0) & (chunk.write != 1), LineFault.OPERATION),
        ((chunk.time < 0) | (chunk.time >= LARGEST), LineFault.TIME),
        (chunk.time < late, LineFault.ORDER),
    ):
        if bad.any():
            request = first + int(np.argmax(bad)) + 1
            raise UserError(f"{trace.file}:{request}: request {request}: {FAULT_TEXT[fault]}")
    return int(chunk.time[-1]) if len(chunk.time) else earliest


# ---- parquet ---------------------------------------------------------------------------------------------------------


def _open_parquet(file: Path) -> "pa.parquet.ParquetFile":  # noqa: UP037 - pyarrow is imported for types only
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(file, pre_buffer=False, buffer_size=PARQUET_BUFFER_BYTES)
    except (OSError, ArrowException) as error:
        raise UserError(f"{file} can't be read as parquet: {error}") from None


def _parquet_chunks(trace: Trace) -> Iterator[Chunk]:
    names = _folded(trace.columns)
    time = _time_of(names, str(trace.file))
    first, earliest = 0, 0
    for batch in _open_parquet(trace.file).iter_batches(CHUNK_REQUESTS):
        columns = {name: batch.column(position).to_numpy(zero_copy_only=False) for position, name in enumerate(names)}
        chunk = _chunk_of(columns, time)
        earliest = _check_chunk(trace, chunk, first, earliest)
        first += len(chunk.address)
        if len(chunk.address):
            yield chunk


# ---- columns by name -------------------------------------------------------------------------------------------------


def _folded(names: Sequence[str]) -> list[str]:
    return [name.strip().strip('"').casefold() for name in names]


def _time_of(names: Sequence[str], place: str) -> _TimeColumn:
    """The column that holds the time, after checking that address and operation are there. Raises UserError."""
    if not any(name in _ADDRESS_NAMES for name in names) or not any(
        name in (*_OPERATION_NAMES, "write") for name in names
    ):
        raise UserError(f"{place}: the columns {', '.join(names)} are not those of a trace", expected=_COLUMNS)
    for name in names:
        if name in ("cycle", "cycles", "clock"):
            return _TimeColumn(name, TimeUnit.CLOCKS, 0)
        match = _TIME_NAME.fullmatch(name)
        if match and match[1] in _DECIMALS:
            return _TimeColumn(name, TimeUnit.FEMTOSECONDS, _DECIMALS[match[1]])
        if name in ("time", "arrival") or match:
            raise UserError(f"{place}: the column '{name}' has no unit that is known", expected=_COLUMNS)
    return _TimeColumn("", TimeUnit.NONE, 0)


def _position(names: Sequence[str], wanted: Sequence[str]) -> int:
    for position, name in enumerate(names):
        if name in wanted:
            return position
    raise UserError(f"a text trace needs a column {wanted[0]}", expected=_COLUMNS)


def _chunk_of(columns: dict[str, NDArray[np.generic]], time: _TimeColumn) -> Chunk:
    """A chunk from columns by name; what can't be read becomes -1, which `_check_chunk` reports."""
    address = next(columns[name] for name in columns if name in _ADDRESS_NAMES)
    operation = columns.get("write")
    if operation is None:
        operation = next(columns[name] for name in columns if name in _OPERATION_NAMES)
    when = columns.get(time.name)
    if when is None or time.unit is TimeUnit.NONE:
        times = np.zeros(len(address), np.int64)
    else:
        times = _scaled(when, time.decimals)
    return Chunk(_integers(address), _writes(operation), times)


def _writes(values: NDArray[np.generic]) -> Ints:
    if values.dtype.kind in "biu":
        return values.astype(np.int64)
    codes = {name: code for code, names in enumerate((_READS, _WRITES)) for name in names}
    found, inverse = np.unique(values.astype(str), return_inverse=True)
    return np.array([codes.get(name.upper(), -1) for name in found.tolist()], np.int64)[inverse]


def _integers(values: NDArray[np.generic]) -> Ints:
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    return np.full(len(values), -1, np.int64)


def _scaled(values: NDArray[np.generic], decimals: int) -> Ints:
    if values.dtype.kind == "f":
        numbers = values.astype(np.float64) * 10.0**decimals
        return np.where((numbers >= 0) & (numbers < LARGEST), numbers, -1.0).round().astype(np.int64)
    integers = _integers(values)
    return np.where(integers > LARGEST // 10**decimals, -1, integers * 10**decimals)

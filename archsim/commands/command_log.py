"""The command trace of a memory as a parquet file: a row per command, channels interleaved, each in order of time.

Columns: channel, tick, command (ACT, PRE, PREAB, RD, WR, REFAB, REFPB), pseudo_channel, stack_id, bank_group, bank,
row, column; -1 where one doesn't apply. The file's metadata keep the refresh policy and the number of channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from archsim.config.errors import UserError
from archsim.kernels.timing import Command, LogField

ROWS_PER_GROUP = 1 << 19

_PLACE = ("pseudo_channel", "stack_id", "bank_group", "bank", "row", "column")
COLUMNS = ("channel", "tick", "command", *_PLACE)
_SCHEMA = pa.schema(
    [
        ("channel", pa.int16()),
        ("tick", pa.int64()),
        ("command", pa.dictionary(pa.int8(), pa.string())),
        *((name, pa.int32() if name == "row" else pa.int16()) for name in _PLACE),
    ]
)
_NAMES = pa.array([command.name for command in Command])


class CommandLogWriter:
    """Writes rows of the kernel's command log as they come; use as a context manager.

    Raises UserError if the file can't be written."""

    def __init__(self, file: Path, facts: dict[str, str]) -> None:
        self._file = file
        self._held: list[tuple[int, NDArray[np.int64]]] = []
        self._rows = 0
        self.written = 0
        try:
            self._writer = pq.ParquetWriter(file, _SCHEMA.with_metadata({f"archsim.{k}": v for k, v in facts.items()}))
        except OSError as error:
            raise UserError(f"can't write the command trace {file}: {error.strerror or error}") from None

    def __enter__(self) -> CommandLogWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is not None:
            self._file.unlink(missing_ok=True)

    def append(self, channel: int, rows: NDArray[np.int64]) -> None:
        """Add a channel's commands (columns: LogField)."""
        self._held.append((channel, rows))
        self._rows += len(rows)
        if self._rows >= ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        rows = np.concatenate([part for _, part in self._held])
        channel = np.concatenate([np.full(len(part), number, np.int16) for number, part in self._held])
        self._held.clear()
        self.written += self._rows
        self._rows = 0
        commands = pa.DictionaryArray.from_arrays(pa.array(rows[:, LogField.COMMAND].astype(np.int8)), _NAMES)
        places = [pa.array(rows[:, LogField[name.upper()]], type=_SCHEMA.field(name).type) for name in _PLACE]
        table = pa.Table.from_arrays(
            [pa.array(channel), pa.array(rows[:, LogField.TICK]), commands, *places], _SCHEMA.names
        )
        try:
            self._writer.write_table(table.cast(_SCHEMA))
        except OSError as error:
            raise UserError(f"can't write the command trace {self._file}: {error.strerror or error}") from None


class ChannelLog(NamedTuple):
    """A channel's commands in the order of the file (columns: LogField), and the row of the file that each is."""

    channel: int
    log: NDArray[np.int64]
    rows: NDArray[np.int64]


class CommandLog:
    """A command trace that has been read. Raises UserError for a file that isn't one."""

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise UserError(f"there is no file {file}", expected="a command trace of archsim replay --commands")
        try:
            table = pq.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{file} can't be read as parquet: {error}") from None
        needed = [name for name in COLUMNS if name != "channel"]  # without it, all are of one channel
        missing = [name for name in needed if name not in table.column_names]
        if missing:
            raise UserError(f"{file} lacks the column {', '.join(missing)}", expected=", ".join(COLUMNS))
        self.facts = _facts(table.schema.metadata)
        self._log = np.empty((table.num_rows, len(LogField)), np.int64)
        for name in needed:
            column = (
                _codes(file, table.column(name)) if name == "command" else _integers(file, name, table.column(name))
            )
            self._log[:, LogField[name.upper()]] = column
        self._channel = np.zeros(table.num_rows, np.int64)
        if "channel" in table.column_names:
            self._channel = _integers(file, "channel", table.column("channel"))

    def __len__(self) -> int:
        return len(self._log)

    def channels(self) -> Iterator[ChannelLog]:
        """Each channel's commands, channel by channel."""
        for channel in np.unique(self._channel).tolist():
            rows = np.flatnonzero(self._channel == channel)
            yield ChannelLog(channel, self._log[rows], rows)


def _facts(metadata: dict[bytes, bytes] | None) -> dict[str, str]:
    pairs = ((key.decode(), value.decode()) for key, value in (metadata or {}).items() if key.startswith(b"archsim."))
    return {key.removeprefix("archsim."): value for key, value in pairs}


def _integers(file: Path, name: str, column: Any) -> NDArray[np.int64]:
    if not pa.types.is_integer(column.type) or column.null_count:
        raise UserError(f"the column {name} of {file} holds {column.type}, not integers")
    values: NDArray[np.int64] = column.to_numpy().astype(np.int64)
    return values


def _codes(file: Path, column: Any) -> NDArray[np.int64]:
    """Command codes from names; an unknown name is an error that says which row."""
    names = column.to_pandas().astype(str).str.upper()
    codes = names.map({command.name: int(command) for command in Command})
    if codes.isna().any():
        row = int(np.argmax(codes.isna().to_numpy()))
        raise UserError(
            f"{file}: row {row}: there is no command '{names.iloc[row]}'",
            expected="one of " + ", ".join(command.name for command in Command),
        )
    values: NDArray[np.int64] = codes.to_numpy().astype(np.int64)
    return values

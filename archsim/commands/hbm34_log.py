"""The command trace of the reference controller, with the columns of Ramulator's own."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from archsim.config.errors import UserError

_ORDER = ("clock", "command", "Channel", "PseudoChannel", "Sid", "BankGroup", "Bank", "Row", "Column", "type", "source")
_TYPES = {
    "clock": pa.int64(),
    "command": pa.dictionary(pa.int8(), pa.string()),
    "Channel": pa.int16(),
    "Row": pa.int32(),
}
_SCHEMA = pa.schema([(name, _TYPES.get(name, pa.int8())) for name in _ORDER])


class Hbm34LogWriter:
    """Writes commands as they come; use as a context manager. What was begun in vain is removed.

    Raises UserError if the file can't be written."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._writer = pq.ParquetWriter(file, _SCHEMA)
        except OSError as error:
            raise UserError(f"can't write the command trace {file}: {error.strerror or error}") from None

    def __enter__(self) -> Hbm34LogWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._writer.close()
        if kind is not None:
            self._file.unlink(missing_ok=True)

    def append(self, commands: pd.DataFrame) -> None:
        """Add commands, in order of time within each channel."""
        try:
            self._writer.write_table(pa.Table.from_pandas(commands, _SCHEMA, preserve_index=False))
        except OSError as error:
            raise UserError(f"can't write the command trace {self._file}: {error.strerror or error}") from None

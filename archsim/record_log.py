"""The operator records of a long run, packed: those of an hour of serving are millions.

A record's words (its name, what bounds it, which number formats and memories it counts) recur: each set is kept once,
as a `Form`. Its numbers stand in columns of 64-bit integers, where what is mostly zero takes no room. A record is built
anew whenever one is asked for, equal to the one that was put in.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import islice, repeat
from typing import NamedTuple, TypeAlias, overload

from archsim.records import Counts, OperatorKind, OperatorRecord, PimCounts, TierCounts

Key = tuple[str, ...]
"""A column: a field, or where it lies within one, such as ("counts", "dram_reads")."""

Integers: TypeAlias = "array[int] | list[int]"
"""Of 32 bits, of 64 where a value takes more, a list where one takes more than that."""

RECORD_FIELDS = ("layer", "iteration", "start_fs", "end_fs", "roofline_fs", "matrix_flops", "vector_flops")
COUNT_FIELDS = tuple(f.name for f in fields(Counts) if f.name not in ("matrix_macs", "tiers", "pim"))
TIER_FIELDS = tuple(f.name for f in fields(TierCounts))
PIM_FIELDS = tuple(f.name for f in fields(PimCounts) if f.name != "commands")
NO_TIER, NO_PIM = TierCounts(), PimCounts()

BATCH = 1024
"""Records are packed so many at a time."""


class Form(NamedTuple):
    """All of a record but its numbers. `commands` are those of PIM, None for an operator that PIM has no part in."""

    name: str
    kind: OperatorKind
    phase: str
    bound: str
    causes: tuple[str, ...]
    formats: tuple[str, ...]
    tiers: tuple[str, ...]
    commands: tuple[str, ...] | None

    @classmethod
    def of(cls, record: OperatorRecord) -> Form:
        counts = record.counts
        commands = tuple(counts.pim.commands) if counts.pim is not None else None
        parts = (tuple(record.cause_fs), tuple(counts.matrix_macs), tuple(counts.tiers))
        return cls(record.name, record.kind, record.phase, record.bound, *parts, commands)


class OperatorLog(Sequence[OperatorRecord]):
    """Records in the order they were put in, at a fourth of their size or less."""

    def __init__(self, records: Iterable[OperatorRecord] = ()) -> None:
        self._forms: list[Form] = []
        self._numbers_of_forms: dict[Form, int] = {}
        self._form_of = array("i")
        self._columns: dict[Key, Integers] = {}  # ends with the last value that is not zero
        self.extend(records)

    def extend(self, records: Iterable[OperatorRecord]) -> None:
        """Put records in behind those that are there."""
        coming = iter(records)
        while batch := list(islice(coming, BATCH)):
            for key, values in _numbers(batch):
                if any(values):
                    self._put(key, values)
            self._form_of.extend(self._form_number(Form.of(record)) for record in batch)

    @property
    def forms(self) -> Sequence[Form]:
        """Each form there is, once."""
        return self._forms

    def each_form(self) -> Iterator[Form]:
        """The form of every record."""
        return map(self._forms.__getitem__, self._form_of)

    def column(self, *key: str) -> Integers:
        """A copy of a number of every record, 0 where a record has none: in 64 bits, if they all fit."""
        known = self._columns.get(key, ())
        column = [*known] if isinstance(known, list) else array("q", known)
        column.extend(repeat(0, len(self) - len(column)))
        return column

    def __len__(self) -> int:
        return len(self._form_of)

    @overload
    def __getitem__(self, index: int) -> OperatorRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[OperatorRecord]: ...
    def __getitem__(self, index: int | slice) -> OperatorRecord | list[OperatorRecord]:
        if isinstance(index, slice):
            return [self._record(position) for position in range(*index.indices(len(self)))]
        return self._record(range(len(self))[index])

    def __iter__(self) -> Iterator[OperatorRecord]:
        return map(self._record, range(len(self)))

    def _form_number(self, form: Form) -> int:
        number = self._numbers_of_forms.setdefault(form, len(self._forms))
        if number == len(self._forms):
            self._forms.append(form)
        return number

    def _put(self, key: Key, values: list[int]) -> None:
        """Append what the next records have in a column."""
        column = self._columns.get(key, array("i"))
        column.extend(repeat(0, len(self) - len(column)))
        self._columns[key] = _appended(column, values)

    def _record(self, position: int) -> OperatorRecord:
        columns = self._columns

        def number(*key: str) -> int:
            column = columns.get(key, ())
            return column[position] if position < len(column) else 0

        form = self._forms[self._form_of[position]]
        counts = Counts()
        for name in COUNT_FIELDS:
            setattr(counts, name, number("counts", name))
        counts.matrix_macs = {fmt: number("matrix_macs", fmt) for fmt in form.formats}
        for tier in form.tiers:
            counts.tiers[tier] = TierCounts(**{name: number("tiers", tier, name) for name in TIER_FIELDS})
        if form.commands is not None:
            counts.pim = PimCounts(
                **{name: number("pim", name) for name in PIM_FIELDS},
                commands={name: number("pim", "commands", name) for name in form.commands},
            )
        return OperatorRecord(
            name=form.name,
            kind=form.kind,
            phase=form.phase,
            bound=form.bound,
            cause_fs={cause: number("cause_fs", cause) for cause in form.causes},
            counts=counts,
            **{name: number(name) for name in RECORD_FIELDS},
        )


def _appended(column: Integers, values: list[int]) -> Integers:
    """The column with values behind it: itself, or a wider one if they don't fit."""
    if isinstance(column, list):
        column.extend(values)
        return column
    try:
        column.fromlist(values)  # all of them or none
        return column
    except OverflowError:
        return _appended(array("q", column) if column.typecode == "i" else column.tolist(), values)


def _numbers(records: Sequence[OperatorRecord]) -> Iterator[tuple[Key, list[int]]]:
    """Every column that records have numbers in, with those."""
    for name in RECORD_FIELDS:
        yield (name,), [getattr(record, name) for record in records]
    yield from _entries(("cause_fs",), [record.cause_fs for record in records])
    counts = [record.counts for record in records]
    for name in COUNT_FIELDS:
        yield ("counts", name), [getattr(count, name) for count in counts]
    yield from _entries(("matrix_macs",), [count.matrix_macs for count in counts])
    for tier in {tier: None for count in counts for tier in count.tiers}:
        parts = [count.tiers.get(tier, NO_TIER) for count in counts]
        for name in TIER_FIELDS:
            yield ("tiers", tier, name), [getattr(part, name) for part in parts]
    if any(count.pim is not None for count in counts):
        pims = [count.pim or NO_PIM for count in counts]
        for name in PIM_FIELDS:
            yield ("pim", name), [getattr(pim, name) for pim in pims]
        yield from _entries(("pim", "commands"), [pim.commands for pim in pims])


def _entries(where: Key, numbers: Sequence[Mapping[str, int]]) -> Iterator[tuple[Key, list[int]]]:
    """A column for each name that any of the mappings has."""
    for name in {name: None for mapping in numbers for name in mapping}:
        yield (*where, name), [mapping.get(name, 0) for mapping in numbers]

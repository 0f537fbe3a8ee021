"""Packed operator records: what comes out is what was put in, in a fraction of the room."""

from __future__ import annotations

import tracemalloc
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsim.record_log import COUNT_FIELDS, OperatorLog
from archsim.records import CAUSES, Counts, OperatorKind, OperatorRecord, PimCounts, TierCounts

NUMBERS = st.one_of(
    st.just(0), st.integers(0, 9), st.sampled_from([2**31 - 1, 2**31, 2**63 - 1, 2**63]), st.integers(0, 2**66)
)
NAMES = st.sampled_from(["a", "b.c", "read_bytes", "commands"])


def by_name(values: st.SearchStrategy) -> st.SearchStrategy:  # type: ignore[type-arg]
    return st.dictionaries(NAMES, values, max_size=2)


TIERS = st.builds(TierCounts, read_bytes=NUMBERS, refreshes_per_bank=NUMBERS)
PIM = st.builds(PimCounts, busy_fs=NUMBERS, macs=NUMBERS, commands=by_name(NUMBERS))
COUNTS = st.builds(
    Counts,
    dram_reads=NUMBERS, dram_idle_ticks=NUMBERS, vector_flops=NUMBERS, matrix_macs=by_name(NUMBERS),
    tiers=by_name(TIERS), pim=st.none() | PIM,
)  # fmt: skip
RECORDS = st.builds(
    OperatorRecord,
    name=NAMES, kind=st.sampled_from(OperatorKind), layer=st.integers(-1, 3), phase=NAMES, iteration=NUMBERS,
    start_fs=NUMBERS, end_fs=NUMBERS, bound=NAMES, roofline_fs=NUMBERS,
    cause_fs=st.dictionaries(st.sampled_from(CAUSES), NUMBERS, max_size=3),
    matrix_flops=NUMBERS, vector_flops=NUMBERS, counts=COUNTS,
)  # fmt: skip


@given(st.lists(RECORDS, max_size=12), st.integers(0, 12))
def test_records_come_out_as_they_were_put_in(records: list[OperatorRecord], cut: int) -> None:
    log = OperatorLog(records[:cut])
    assert list(log) == records[:cut]  # looking at what is there changes nothing
    log.extend(records[cut:])
    assert len(log) == len(records)
    assert list(log) == records
    assert [log[-1 - index] for index in range(len(records))] == records[::-1]
    assert log[1:-1] == records[1:-1]
    for name in COUNT_FIELDS:
        assert list(log.column("counts", name)) == [getattr(record.counts, name) for record in records]
    assert [form.name for form in log.each_form()] == [record.name for record in records]
    with pytest.raises(IndexError):
        log[len(records)]


def test_a_column_that_fits_is_of_64_bits() -> None:
    log = OperatorLog(served(3))
    for name in ("start_fs", "layer", "roofline_fs"):
        column = log.column(name)
        assert isinstance(column, array) and column.typecode == "q"
    assert list(log.column("counts", "link_bytes")) == [0, 0, 0]


def served(count: int) -> Iterator[OperatorRecord]:
    """Records such as a server's: thirteen operators over and over, each time with other numbers."""
    for number in range(count):
        step = 10**9 + 7919 * number
        counts = Counts(matrix_macs={"bf16": 31 * step})
        cause_fs = {cause: step if place < 4 else 0 for place, cause in enumerate(CAUSES)}
        for name in COUNT_FIELDS[:20]:
            setattr(counts, name, step)
        yield OperatorRecord(
            f"32 x operator {number % 13}", OperatorKind.GEMM, -1, "decode", number // 13, number * step,
            number * step + 4 * step, "memory", step, cause_fs, 5 * step, step, counts,
        )  # fmt: skip


def test_it_takes_less_than_a_third_of_the_records() -> None:
    tracemalloc.start()
    try:
        records = list(served(2000))
        plain_bytes, _ = tracemalloc.get_traced_memory()
        log = OperatorLog(records)
        packed_bytes = tracemalloc.get_traced_memory()[0] - plain_bytes
    finally:
        tracemalloc.stop()
    assert list(log) == records
    assert 0 < 3 * packed_bytes < plain_bytes

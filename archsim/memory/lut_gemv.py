"""A matrix-vector product by look-up tables in SRAM, with every access counted.

y[n] = sum over j of w[n, j] x[j], weights of `weight_bits` bits in two's complement. The inputs fall into groups of
`group`; a group's table holds the sum of each of its 2^group subsets. Bit t of a group's weights, over the group, is an
index into its table: what is found there counts 2^t times (the highest bit -2^t). There is no multiplication:

- building: one addition for every subset of two inputs or more, one word written for every subset;
- look-ups: one for every output, group and bit, each followed by an addition;
- weights: read once, all their bits, for all vectors of a batch.

The groups are dealt over the slices of the SRAM, each table lies in its slice alone, and the partial sums of the slices
are added at the end. Tables are built, then weights read and tables looked up; the ports serve that one after the other
by the policy of sram.py. Adders and index logic are taken to keep pace with the ports.

Tables of inputs indexed by weight bits are those of LUT-GEMM (Park et al., ICLR 2024). Doing it where the SRAM is, for
a batch, is SAIL's idea (Zhang et al., arXiv 2509.25853, of which the abstract was read: tables may hold weights there,
and bits of inputs be the index). SAIL compares itself with processors. The comparison here is a product that reads the
same weights from the same SRAM and multiplies them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from archsim.config.errors import UserError
from archsim.memory.sram import SramCounts, SramSpec, Strided, busiest_cycles

Int64 = NDArray[np.int64]

MOST_LOOKUPS = 1 << 24
"""Of one slice: their addresses are laid out one by one."""


class TableLayout(StrEnum):
    """Where a table's words lie."""

    BANK = "bank"  # each table in one bank, neighbouring tables in neighbouring banks
    SPREAD = "spread"  # each table over all banks, by index


@dataclass(frozen=True, slots=True)
class LutGemv:
    """A product of a matrix (`outputs` x `inputs`) with `batch` vectors. Raises UserError for sizes below one."""

    outputs: int
    inputs: int
    weight_bits: int
    group: int
    batch: int = 1
    layout: TableLayout = TableLayout.BANK

    def __post_init__(self) -> None:
        for name in ("outputs", "inputs", "weight_bits", "group", "batch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}", expected="at least 1")
        if self.group > 16:
            raise UserError(f"tables of 2^{self.group} sums", expected="a group of at most 16 inputs")

    @property
    def groups(self) -> int:
        """Groups of inputs; the last one may be short and has a whole table all the same."""
        return -(-self.inputs // self.group)

    @property
    def table_words(self) -> int:
        """Sums in a table, one word each."""
        return 1 << self.group


@dataclass(frozen=True, slots=True)
class LutCounts:
    """Events of a whole product, all slices and vectors."""

    tables: int
    table_words: int
    build_additions: int
    lookups: int
    lookup_additions: int
    slice_additions: int
    weight_words: int
    multiplications: int  # of the product that multiplies instead


@dataclass(frozen=True, slots=True)
class LutRun:
    """Counts, and the cycles of the busiest slice by what its ports did; `conflict_cycles` of the look-ups are part of
    theirs, `refresh_cycles` come on top. `multiplying_cycles` is what reading the weights alone would take."""

    counts: LutCounts
    build_cycles: int
    weight_cycles: int
    lookup_cycles: int
    conflict_cycles: int
    refresh_cycles: int
    latency_cycles: int
    multiplying_cycles: int
    energy_pj: float
    multiplying_pj: float

    @property
    def cycles(self) -> int:
        """From the first write to the last word."""
        working = self.build_cycles + self.weight_cycles + self.lookup_cycles
        return working + self.refresh_cycles + self.latency_cycles


def run_lut_gemv(spec: SramSpec, product: LutGemv, weights: Int64 | None = None, seed: int = 0) -> LutRun:
    """Count a product's accesses and time them on an SRAM.

    Args:
        spec: the SRAM.
        product: what is multiplied, and how tables lie.
        weights: int64[outputs, inputs] in two's complement; without them, drawn at random from `seed`. They decide
            which words are looked up, and so conflicts of banks where tables are spread.

    Raises UserError if a slice can't hold its tables and weights, or weights don't fit their shape or bits."""
    indices = table_indices(product, _checked(product, weights, seed))
    per_slice = -(-product.groups // spec.slices)
    busy_slices = -(-product.groups // per_slice)
    table_words = product.batch * per_slice * product.table_words
    weight_words = -(-product.outputs * per_slice * product.group * product.weight_bits // (8 * spec.word))
    _check_room(spec, product, per_slice, table_words + weight_words)
    build = Strided(0, table_words, write=True).groups(spec).cycles
    reading = Strided(table_words, weight_words).groups(spec).cycles
    words = lookup_words(spec, product, indices[:, :, :per_slice])
    cycles = busiest_cycles(spec, words, spec.read_lanes)
    ideal = Strided(0, len(words)).groups(spec).cycles
    looking_up = product.batch * int(cycles.sum())
    working = build + reading + looking_up
    ports = spec.port_time
    counts = _counts(product, busy_slices, weight_words)
    direct = SramCounts(reads=weight_words)
    return LutRun(
        counts=counts,
        build_cycles=build,
        weight_cycles=reading,
        lookup_cycles=looking_up,
        conflict_cycles=looking_up - product.batch * ideal,
        refresh_cycles=ports.cycle(working) - working,
        latency_cycles=spec.latency_cycles,
        multiplying_cycles=ports.cycle(reading) + spec.latency_cycles,
        energy_pj=_energy_pj(spec, counts),
        multiplying_pj=spec.energy_pj(direct) * busy_slices / spec.slices,
    )


def table_indices(product: LutGemv, weights: Int64) -> Int64:
    """int64[outputs, weight_bits, groups]: where each output looks in each group's table for each bit."""
    padded = np.zeros((product.outputs, product.groups * product.group), np.int64)
    padded[:, : product.inputs] = weights
    bits = (padded.reshape(product.outputs, product.groups, product.group)[:, np.newaxis] >> _planes(product)) & 1
    return np.asarray(bits @ (1 << np.arange(product.group, dtype=np.int64)))


def build_tables(product: LutGemv, vector: Int64) -> Int64:
    """int64[groups, 2^group]: the sums of all subsets of each group, each from a smaller one by one addition."""
    padded = np.zeros(product.groups * product.group, np.int64)
    padded[: product.inputs] = vector
    inputs = padded.reshape(product.groups, product.group)
    tables = np.zeros((product.groups, product.table_words), np.int64)
    for index in range(1, product.table_words):
        lowest = (index & -index).bit_length() - 1
        tables[:, index] = tables[:, index & (index - 1)] + inputs[:, lowest]
    return tables


def multiply(product: LutGemv, weights: Int64, vector: Int64) -> Int64:
    """int64[outputs]: the product itself, by tables."""
    tables = build_tables(product, vector)
    indices = table_indices(product, _checked(product, weights, 0))
    found = np.take_along_axis(tables[np.newaxis, np.newaxis], indices[..., np.newaxis], axis=3)[..., 0]
    scale = 1 << np.arange(product.weight_bits, dtype=np.int64)
    scale[-1] = -scale[-1]
    return np.asarray((found.sum(axis=2) * scale).sum(axis=1))


def lookup_words(spec: SramSpec, product: LutGemv, indices: Int64) -> Int64:
    """int64[outputs * weight_bits * tables]: the words of a slice that are looked up, in order: the tables of an
    output's bit one after the other, then its next bit, then the next output. `indices` are those of its tables."""
    outputs, planes, tables = indices.shape
    if outputs * planes * tables > MOST_LOOKUPS:
        raise UserError(
            f"{outputs * planes * tables} look-ups in a slice",
            expected=f"at most {MOST_LOOKUPS}: fewer outputs at a time",
        )
    table = np.arange(tables)
    if product.layout is TableLayout.SPREAD:
        return np.asarray(table * product.table_words + indices).ravel()
    row = (table // spec.banks) * product.table_words + indices
    return np.asarray(row * spec.banks + table % spec.banks).ravel()


def _planes(product: LutGemv) -> Int64:
    return np.arange(product.weight_bits, dtype=np.int64)[:, np.newaxis, np.newaxis]


def _counts(product: LutGemv, busy_slices: int, weight_words: int) -> LutCounts:
    tables = product.batch * product.groups
    lookups = tables * product.outputs * product.weight_bits
    return LutCounts(
        tables=tables,
        table_words=tables * product.table_words,
        build_additions=tables * (product.table_words - product.group - 1),
        lookups=lookups,
        lookup_additions=lookups - product.batch * product.outputs * busy_slices,
        slice_additions=product.batch * product.outputs * (busy_slices - 1),
        weight_words=weight_words * busy_slices,
        multiplications=product.batch * product.outputs * product.inputs,
    )


def _energy_pj(spec: SramSpec, counts: LutCounts) -> float:
    """Of the SRAM alone: no energy of adders is part of a spec."""
    word_bits, energy = 8 * spec.word, spec.energy
    reads = counts.lookups + counts.weight_words
    return word_bits * (reads * (energy.read + energy.wire) + counts.table_words * (energy.write + energy.wire))


def _checked(product: LutGemv, weights: Int64 | None, seed: int) -> Int64:
    least, most = -(1 << (product.weight_bits - 1)), (1 << (product.weight_bits - 1)) - 1
    shape = (product.outputs, product.inputs)
    if weights is None:
        return np.random.default_rng(seed).integers(least, most + 1, shape)
    if weights.shape != shape:
        raise UserError(f"weights of shape {weights.shape}", expected=f"{shape}, outputs by inputs")
    if int(weights.min()) < least or int(weights.max()) > most:
        raise UserError(
            f"weights from {int(weights.min())} to {int(weights.max())}",
            expected=f"{least} to {most}, two's complement of {product.weight_bits} bits",
        )
    return weights


def _check_room(spec: SramSpec, product: LutGemv, per_slice: int, words: int) -> None:
    if product.layout is TableLayout.BANK:  # whole rows of banks
        words += (-per_slice % spec.banks) * product.table_words
    if words > spec.words:
        raise UserError(
            f"tables and weights need {words} words of each slice of {spec.name}, which has {spec.words}",
            expected="smaller groups, fewer outputs at a time or fewer vectors",
        )

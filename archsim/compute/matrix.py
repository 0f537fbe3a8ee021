"""The matrix engine: how a product is cut into tiles, and how long the tiles take.

A product is cut into output tiles, one per unit (streaming multiprocessor) at a time; the units work in
*waves*. A product with fewer tiles than units may also be cut along k (split-K), which costs a reduction
through the on-chip buffer. Libraries choose among a fixed set of tile shapes and splits; so does `gemm_work`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from pydantic import field_validator

from archsim.compute.arithmetic import FS_PER_SECOND, ceil_div
from archsim.compute.onchip import OnChipBuffer
from archsim.config.errors import UserError, listed, nearest_name
from archsim.config.quantities import FlopPerSecond, Fraction01, FrequencyHz, PositiveInt
from archsim.config.schema import Spec
from archsim.records import GemmShape

PARTIAL_SUM_BYTES = 4
"""Split-K and split-KV partial results are fp32."""


class MatrixEngineSpec(Spec):
    """Tensor cores, a systolic array: `units` that each hold one output tile.

    `peak` is dense FLOP/s of the whole engine per compute format at `clock` (datasheet). `efficiency` is the
    share of it that a large, perfectly tiled product sustains (power-limited clock, pipeline bubbles): a named
    term that needs a source. `tiles` are the (rows, columns) of the output tiles that the library has."""

    units: PositiveInt
    clock: FrequencyHz
    peak: dict[str, FlopPerSecond]
    efficiency: Fraction01
    tiles: tuple[tuple[PositiveInt, PositiveInt], ...]
    k_block: PositiveInt
    split_k: tuple[PositiveInt, ...]

    @field_validator("peak", "tiles")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if not value:
            raise UserError("is empty", expected="at least one entry")
        return value

    @field_validator("split_k")
    @classmethod
    def _includes_no_split(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if 1 not in value:
            raise UserError(f"{list(value)} has no 1", expected="1 (no split) among the splits")
        return value

    def peak_flops(self, fmt: str) -> int:
        """Peak FLOP/s in a format. Raises UserError where the engine doesn't have the format."""
        if fmt not in self.peak:
            raise UserError(
                f"the matrix engine has no rate for format '{fmt}'",
                expected=listed(self.peak),
                nearest=nearest_name(fmt, self.peak),
            )
        return self.peak[fmt]

    def sustained_flops(self, fmt: str) -> int:
        """Peak times efficiency, FLOP/s, rounded down (so that time is never below the roofline)."""
        return int(self.peak_flops(fmt) * Fraction(str(self.efficiency)))


@dataclass(frozen=True, slots=True)
class TileWork:
    """What an operator asks of an engine.

    `tiles` waves follow each other; each keeps the engine for `tile_fs` once its operands are there, so
    `tiles * tile_fs >= flops / peak`. `serial_fs` is latency of dependent accesses that nothing hides, spread
    evenly over the tiles; `tail_fs` comes after the last tile (output store, reduction). `launches` counts
    kernels. `operand_elements` are the elements that go from the on-chip buffer to the units, each tile reading
    its own (padding is not read)."""

    tiles: int
    tile_fs: int
    serial_fs: int = 0
    tail_fs: int = 0
    launches: int = 1
    operand_elements: int = 0
    choice: str = ""

    @property
    def compute_fs(self) -> int:
        """Femtoseconds the engine is busy."""
        return self.tiles * self.tile_fs


def tile_fs(flops: int, engine_flops: int, units: int) -> int:
    """Femtoseconds, rounded up, that ONE of `units` units takes for `flops`."""
    return ceil_div(flops * units * FS_PER_SECOND, engine_flops)


def gemm_work(
    shape: GemmShape,
    fmt: str,
    engine: MatrixEngineSpec,
    buffer: OnChipBuffer,
    access_latency_fs: int,
    stream_fs: int = 0,
) -> TileWork:
    """The tiles of a product, as the fastest of the library's tile shapes and splits would run it.

    `access_latency_fs` is one dependent access to memory (the last tile's output store, and the reduction's).
    `stream_fs` is how long the operands need to arrive: a product that waits for memory isn't split. The time
    that the choice minimises, max(stream, compute) + tail, never falls when m, n, k or count grow.
    """
    return _fastest(
        (shape.m, shape.n, shape.k, shape.count),
        (engine.tiles, engine.split_k, engine.k_block, engine.units, engine.sustained_flops(fmt)),
        (buffer.bandwidth, buffer.latency),
        access_latency_fs,
        stream_fs,
    )


@lru_cache(maxsize=65536)
def _fastest(
    shape: tuple[int, int, int, int],
    engine: tuple[tuple[tuple[int, int], ...], tuple[int, ...], int, int, int],
    buffer: tuple[int, int],
    access_latency_fs: int,
    stream_fs: int,
) -> TileWork:
    candidates = _candidates(shape, engine, buffer, access_latency_fs)
    # Of equally fast choices the one that moves the fewest operands: the largest tile.
    return min(
        candidates,
        key=lambda work: (max(stream_fs, work.compute_fs) + work.tail_fs, work.operand_elements, work.choice),
    )


def _candidates(
    shape: tuple[int, int, int, int],
    engine: tuple[tuple[tuple[int, int], ...], tuple[int, ...], int, int, int],
    buffer: tuple[int, int],
    access_latency_fs: int,
) -> Iterator[TileWork]:
    m, n, k, count = shape
    tiles, splits, k_block, units, flops = engine
    bandwidth, latency = buffer
    for rows, columns in tiles:
        row_tiles, column_tiles = ceil_div(m, rows), ceil_div(n, columns)
        outputs = row_tiles * column_tiles * count
        for split in splits:
            depth = ceil_div(ceil_div(k, k_block), split) * k_block
            reduction_fs = 0
            if split > 1:
                partial_bytes = split * m * n * count * PARTIAL_SUM_BYTES
                reduction_fs = access_latency_fs + latency + ceil_div(partial_bytes * FS_PER_SECOND, bandwidth)
            yield TileWork(
                tiles=ceil_div(outputs * split, units),
                tile_fs=tile_fs(2 * rows * columns * depth, flops, units),
                tail_fs=access_latency_fs + reduction_fs,
                operand_elements=(m * column_tiles + n * row_tiles) * k * count,
                choice=f"{rows}x{columns}/{split}",
            )

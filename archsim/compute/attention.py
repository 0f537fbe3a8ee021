"""Attention kernels: tiles of queries against blocks of keys, in the structure of FlashAttention-3.

The query heads that share a key head are packed into the rows of one tile. Decode has few rows and much
cache, so a sequence's keys are split over units and a second kernel combines the parts. Within a tile the two
products run at the engine's peak and the exponentials of the softmax follow them in series.
"""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from math import ceil

from pydantic import field_validator

from archsim.compute.arithmetic import ceil_div
from archsim.compute.matrix import PARTIAL_SUM_BYTES, MatrixEngineSpec, TileWork, tile_fs
from archsim.compute.onchip import OnChipBuffer
from archsim.compute.vector import VectorEngineSpec
from archsim.config.errors import UserError
from archsim.config.quantities import PositiveFloat, PositiveInt
from archsim.config.schema import Spec
from archsim.records import AttentionShape

EXPOSED_ACCESSES = 2
"""In prefill a tile's first key block and its output store are not hidden behind the tile before."""


class AttentionTileSpec(Spec):
    """The tile for head dimensions up to `head_dim`: query rows, and keys per block in prefill and decode.

    `few_rows` is the tile height that is used when all packed rows fit into it."""

    head_dim: PositiveInt
    query_rows: PositiveInt
    few_rows: PositiveInt
    key_block: PositiveInt
    decode_key_block: PositiveInt


class PrefixSchedule(StrEnum):
    """How the tiles of attention to a prefix, that a batch's queries share, are dealt to units."""

    SPLIT = "split"  # as in decode: whole tiles, or equal parts of their keys if there are few, in waves
    EVEN = "even"  # each unit gets the same number of key blocks, cutting tiles where that falls (stream-K)


class AttentionKernelSpec(Spec):
    """A library's attention kernel.

    A decode of up to `split_batch` sequences runs the split kernel (up to `max_splits` parts per sequence, sized
    so that the units are loaded `split_margin` times evenly) and always the combining kernel after it. A tile
    begins with `dependent_accesses` memory accesses that wait for each other (tile scheduler, sequence metadata,
    page table, keys, output store); the split kernel's has `split_accesses`. Cascade attention's kernel for a shared
    prefix is FlashAttention's own in vLLM (`prefix_schedule: split`); `even` is LeanAttention's (arXiv 2405.10480)."""

    tiles: tuple[AttentionTileSpec, ...]
    max_splits: PositiveInt
    split_batch: PositiveInt
    split_margin: PositiveFloat
    dependent_accesses: PositiveInt
    split_accesses: PositiveInt
    prefix_schedule: PrefixSchedule = PrefixSchedule.SPLIT

    @field_validator("tiles")
    @classmethod
    def _ascending(cls, value: tuple[AttentionTileSpec, ...]) -> tuple[AttentionTileSpec, ...]:
        dims = [tile.head_dim for tile in value]
        if not dims or dims != sorted(set(dims)):
            raise UserError(f"head dimensions {dims}", expected="at least one tile, in ascending head_dim")
        return value

    def tile(self, head_dim: int) -> AttentionTileSpec:
        """The tile for a head dimension. Raises UserError above the largest the library has."""
        for tile in self.tiles:
            if head_dim <= tile.head_dim:
                return tile
        raise UserError(
            f"no attention tile for head dimension {head_dim}", expected=f"at most {self.tiles[-1].head_dim}"
        )


@dataclass(frozen=True, slots=True)
class AttentionEngines:
    """What an attention kernel runs on; `access_latency_fs` is one dependent access to memory."""

    matrix: MatrixEngineSpec
    vector: VectorEngineSpec
    buffer: OnChipBuffer
    kernel: AttentionKernelSpec
    access_latency_fs: int

    def block_fs(self, shape: AttentionShape, rows: int, keys: int, fmt: str) -> int:
        """Femtoseconds one unit takes for one block of keys: both products, then the exponentials."""
        flops = 2 * rows * keys * (shape.head_dim + shape.value_dim)
        products = tile_fs(flops, self.matrix.peak_flops(fmt), self.matrix.units)
        return products + self.vector.special_fs(rows * keys)


def attention_flops(shape: AttentionShape) -> int:
    """Matrix operations of causal attention: each query sees the keys up to its own."""
    pairs = sum(
        queries * context - queries * (queries - 1) // 2
        for queries, context in zip(shape.query_tokens, shape.context_tokens, strict=True)
    )
    return 2 * pairs * shape.query_heads * (shape.head_dim + shape.value_dim)


def decode_work(shape: AttentionShape, fmt: str, engines: AttentionEngines) -> TileWork:
    """One new token (or a few) per sequence against its cache; see AttentionKernelSpec.

    The waves of a decode kernel run in step: the accesses that a tile starts with are exposed once per wave."""
    kernel, units = engines.kernel, engines.matrix.units
    tile = kernel.tile(shape.head_dim)
    group = shape.query_heads // shape.kv_heads
    keys = tile.decode_key_block
    rows = tile.few_rows if group * max(shape.query_tokens) <= tile.few_rows else tile.query_rows
    jobs = [
        (ceil_div(queries * group, rows), ceil_div(context, keys))
        for queries, context in zip(shape.query_tokens, shape.context_tokens, strict=True)
    ]
    split = len(jobs) <= kernel.split_batch
    blocks_per_unit = _blocks_per_unit(jobs, shape.kv_heads, kernel, units)
    tiles = total_blocks = longest = partial_queries = 0
    shortest = max(blocks for _, blocks in jobs)
    for queries, (row_blocks, key_blocks) in zip(shape.query_tokens, jobs, strict=True):
        parts = min(ceil_div(key_blocks, blocks_per_unit), kernel.max_splits) if split else 1
        per_part = ceil_div(key_blocks, parts)
        tiles += row_blocks * parts * shape.kv_heads
        total_blocks += row_blocks * parts * per_part * shape.kv_heads
        longest, shortest = max(longest, per_part), min(shortest, per_part)
        partial_queries += parts * queries
    waves = ceil_div(tiles, units)
    busiest = max(ceil_div(total_blocks, units), longest, waves * shortest)
    accesses = kernel.split_accesses if split else kernel.dependent_accesses
    partial_bytes = partial_queries * shape.query_heads * shape.value_dim * PARTIAL_SUM_BYTES
    return TileWork(
        tiles=waves,
        tile_fs=ceil_div(busiest * engines.block_fs(shape, rows, keys, fmt), waves),
        serial_fs=waves * accesses * engines.access_latency_fs,
        tail_fs=2 * engines.access_latency_fs + engines.buffer.serve_fs(partial_bytes) if split else 0,
        launches=2 if split else 1,
        operand_elements=partial_queries * shape.query_heads * shape.head_dim
        + total_blocks * keys * (shape.head_dim + shape.value_dim),
        choice=f"{rows}x{keys}/{'split' if split else 'whole'}",
    )


def prefix_work(shape: AttentionShape, fmt: str, engines: AttentionEngines) -> TileWork:
    """The queries of a whole batch, as one sequence, against all keys of a prefix; see PrefixSchedule.

    Parts of tiles that were cut evenly are combined as the split kernel's are."""
    kernel, units = engines.kernel, engines.matrix.units
    if kernel.prefix_schedule is PrefixSchedule.SPLIT:
        return decode_work(shape, fmt, engines)
    tile = kernel.tile(shape.head_dim)
    packed = sum(shape.query_tokens) * (shape.query_heads // shape.kv_heads)
    keys = tile.decode_key_block
    rows = tile.few_rows if packed <= tile.few_rows else tile.query_rows
    tiles = ceil_div(packed, rows) * shape.kv_heads
    blocks = tiles * ceil_div(sum(shape.context_tokens), keys)
    share = ceil_div(blocks, units)
    parts = tiles + ceil_div(blocks, share) - 1  # a cut within a tile makes one more
    partial_bytes = parts * rows * shape.value_dim * PARTIAL_SUM_BYTES
    return TileWork(
        tiles=1,
        tile_fs=share * engines.block_fs(shape, rows, keys, fmt),
        serial_fs=kernel.split_accesses * engines.access_latency_fs,
        tail_fs=2 * engines.access_latency_fs + engines.buffer.serve_fs(partial_bytes),
        launches=2,
        operand_elements=parts * rows * shape.head_dim + blocks * keys * (shape.head_dim + shape.value_dim),
        choice=f"{rows}x{keys}/even",
    )


def _blocks_per_unit(jobs: list[tuple[int, int]], kv_heads: int, kernel: AttentionKernelSpec, units: int) -> int:
    """Key blocks that one unit takes at most when the cache is split evenly over the units."""
    blocks = kv_heads * sum(row_blocks * key_blocks for row_blocks, key_blocks in jobs)
    return max(1, ceil(blocks * Fraction(str(kernel.split_margin)) / units))


def prefill_work(shape: AttentionShape, fmt: str, engines: AttentionEngines) -> TileWork:
    """Many queries per sequence, causal: key blocks wholly in the future are skipped.

    A persistent scheduler deals the tiles out longest first, so the units end together up to the longest tile."""
    kernel, units = engines.kernel, engines.matrix.units
    tile = kernel.tile(shape.head_dim)
    group = shape.query_heads // shape.kv_heads
    rows, keys = tile.query_rows, tile.key_block
    tiles = total_blocks = longest = 0
    for queries, context in zip(shape.query_tokens, shape.context_tokens, strict=True):
        row_blocks, blocks, last = _causal_blocks(queries, context, group, rows, keys)
        tiles += row_blocks * shape.kv_heads
        total_blocks += blocks * shape.kv_heads
        longest = max(longest, last)
    waves = ceil_div(tiles, units)
    busiest = max(ceil_div(total_blocks, units), longest)
    hidden = kernel.dependent_accesses - EXPOSED_ACCESSES
    return TileWork(
        tiles=waves,
        tile_fs=ceil_div(busiest * engines.block_fs(shape, rows, keys, fmt), waves),
        serial_fs=(hidden + waves * EXPOSED_ACCESSES) * engines.access_latency_fs,
        operand_elements=sum(shape.query_tokens) * shape.query_heads * shape.head_dim
        + total_blocks * keys * (shape.head_dim + shape.value_dim),
        choice=f"{rows}x{keys}/causal",
    )


@lru_cache(maxsize=4096)
def _causal_blocks(queries: int, context: int, group: int, rows: int, keys: int) -> tuple[int, int, int]:
    """(row tiles, key blocks of them all, key blocks of the longest) of one sequence and one key head."""
    row_blocks = ceil_div(queries * group, rows)
    before = context - queries
    total = 0
    for block in range(row_blocks):
        last_query = min(((block + 1) * rows - 1) // group, queries - 1)
        total += ceil_div(before + last_query + 1, keys)
    return row_blocks, total, ceil_div(context, keys)

"""Measured kernels as operators: one row of a benchmark table becomes what the engine would be asked to run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsim.config.errors import UserError, listed, nearest_name
from archsim.records import Access, AttentionShape, GemmShape, Operator, OperatorKind, TensorClass

if TYPE_CHECKING:
    import pandas as pd

ACTIVATION_BYTES = 2
"""Activations and outputs of the measured kernels are bf16."""

FP8_BLOCK = 128
FP8_SCALE_BYTES = 4
"""Block-scaled fp8 weights carry one fp32 scale per 128 x 128 block."""


class MeasuredKind(Enum):
    """What kind of kernels a file holds."""

    GEMM = "gemm"
    GENERATION_ATTENTION = "generation attention"
    CONTEXT_ATTENTION = "context attention"
    MOE = "moe"
    NCCL = "nccl"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that describe a kernel of this kind."""
        return _COLUMNS[self]

    @property
    def kernels_per_replay(self) -> int:
        """How many kernels the benchmark captured into the graph that it replays (aiconfigurator's collectors).

        0 for collectives: nccl-tests launches them one after the other, without a graph."""
        return {MeasuredKind.GEMM: 6, MeasuredKind.NCCL: 0}.get(self, 1)


_ATTENTION_COLUMNS = ("batch_size", "isl", "step", "num_heads", "num_key_value_heads", "head_dim", "kv_cache_dtype")
_COLUMNS = {
    MeasuredKind.GEMM: ("m", "n", "k", "gemm_dtype"),
    MeasuredKind.GENERATION_ATTENTION: _ATTENTION_COLUMNS,
    MeasuredKind.CONTEXT_ATTENTION: _ATTENTION_COLUMNS,
    MeasuredKind.MOE: (
        "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size", "moe_dtype",
    ),
    MeasuredKind.NCCL: ("op_name", "num_gpus", "message_size", "nccl_dtype"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How a measured dtype stores weights (or a cache) and computes: exact bytes per `block` elements."""

    compute: str
    block: int
    block_bytes: int

    def bytes(self, elements: int) -> int:
        """Bytes of so many elements, whole blocks."""
        return -(-elements // self.block) * self.block_bytes


_FP8_SCALED = WeightFormat("fp8", FP8_BLOCK**2, FP8_BLOCK**2 + FP8_SCALE_BYTES)
DTYPES = {
    "bfloat16": WeightFormat("bf16", 1, 2),
    "float16": WeightFormat("fp16", 1, 2),
    "half": WeightFormat("fp16", 1, 2),
    "fp8": WeightFormat("fp8", 1, 1),
    "fp8_block": _FP8_SCALED,
    "int8": WeightFormat("int8", 1, 1),
    "int4_wo": WeightFormat("bf16", 128, 128 // 2 + 2),  # 4-bit weights, one bf16 scale per 128
}


@dataclass(frozen=True, slots=True)
class Kernel:
    """A measured row: the operators it stands for, or a collective (operation, devices, bytes, number format)."""

    operators: tuple[Operator, ...]
    collective: tuple[str, int, int, str] | None = None

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written, each tensor once; of a collective, its message."""
        moved = sum(operator.read_bytes + operator.write_bytes for operator in self.operators)
        return moved + (self.collective[2] if self.collective else 0)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights read."""
        accesses = (access for operator in self.operators for access in operator.reads)
        return sum(access.bytes for access in accesses if access.tensor_class is TensorClass.WEIGHT)

    @property
    def flops(self) -> int:
        """Matrix operations."""
        return sum(operator.matrix_flops for operator in self.operators)


def kind_of(frame: pd.DataFrame, measured: Path) -> MeasuredKind:
    """The kind a table's columns fit. Raises UserError that names the missing columns of the closest kind."""
    have = set(frame.columns)
    attention = MeasuredKind.GENERATION_ATTENTION
    candidates = [MeasuredKind.GEMM, attention, MeasuredKind.MOE, MeasuredKind.NCCL]
    closest = max(candidates, key=lambda kind: len(have & set(kind.columns)) / len(kind.columns))
    missing = [name for name in (*closest.columns, "latency") if name not in have]
    if missing:
        raise UserError(
            f"{measured}: a table of {closest.value} kernels lacks the column {', '.join(missing)}",
            expected=f"{', '.join(closest.columns)} and latency (ms)",
        )
    if closest is attention and len(frame) and (frame["isl"] > 1).any():
        return MeasuredKind.CONTEXT_ATTENTION
    return closest


def kernels_of(frame: pd.DataFrame, kind: MeasuredKind) -> Iterator[Kernel]:
    """Each row's kernel, in order. Raises UserError for values that make no sense, naming the row."""
    build = _BUILDERS[kind]
    for number, row in enumerate(frame.to_dict("records"), start=1):
        try:
            yield build(row)
        except (TypeError, ValueError, ZeroDivisionError) as error:
            raise UserError(f"row {number} of the measured table: {error}") from None


def _format(name: object) -> WeightFormat:
    try:
        return DTYPES[str(name)]
    except KeyError:
        raise UserError(
            f"unknown data type '{name}'", expected=listed(DTYPES), nearest=nearest_name(str(name), DTYPES)
        ) from None


def _counts(row: Mapping[Any, Any], *names: str) -> list[int]:
    values = [int(row[name]) for name in names]
    for name, value in zip(names, values, strict=True):
        if value <= 0:
            raise UserError(f"{name} is {value}", expected="a whole number above zero")
    return values


def _optional(row: Mapping[Any, Any], name: str) -> int:
    """A count that a table may lack, or leave empty in some rows: then 0."""
    value = row.get(name, 0)
    return 0 if value is None or value != value else int(value)  # only NaN differs from itself


def _activation(tensor: str, elements: int) -> Access:
    return Access(tensor, TensorClass.ACTIVATION, elements * ACTIVATION_BYTES)


def _product(name: str, shape: GemmShape, fmt: WeightFormat, inputs: int, outputs: int) -> Operator:
    weights = shape.count * fmt.bytes(shape.n * shape.k)
    return Operator(
        name=name,
        kind=OperatorKind.GEMM,
        layer=0,
        matrix_flops=shape.flops,
        compute_format=fmt.compute,
        gemm=shape,
        reads=(Access(f"{name}.weight", TensorClass.WEIGHT, weights), _activation(f"{name}.input", inputs)),
        writes=(_activation(f"{name}.output", outputs),),
    )


def _gemm(row: Mapping[Any, Any]) -> Kernel:
    m, n, k = _counts(row, "m", "n", "k")
    return Kernel((_product("gemm", GemmShape(m, n, k), _format(row["gemm_dtype"]), m * k, m * n),))


def _attention(row: Mapping[Any, Any]) -> Kernel:
    batch, queries, heads, kv_heads, dim = _counts(
        row, "batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim"
    )
    if heads % kv_heads:
        raise UserError(f"{heads} heads can't share {kv_heads} key-value heads")
    step = int(row["step"])
    if step < 0:
        raise UserError(f"step is {step}", expected="zero or more cached tokens")
    window = _optional(row, "window_size") or step + queries
    pieces = _windowed(queries, step, window)
    pairs = sum(min(step + query, window) for query in range(1, queries + 1))
    cached = min(step + queries, window + queries - 1)
    cache = batch * cached * kv_heads * dim * 2
    new = batch * queries * heads * dim
    fmt = _format(row["kv_cache_dtype"])
    operator = Operator(
        name="attention",
        kind=OperatorKind.DECODE_ATTENTION if queries == 1 and step > 0 else OperatorKind.PREFILL_ATTENTION,
        layer=0,
        matrix_flops=4 * batch * heads * dim * pairs,
        compute_format="bf16",
        attention=AttentionShape(
            heads,
            kv_heads,
            dim,
            dim,
            _repeated(tuple(tokens for tokens, _ in pieces), batch),
            _repeated(tuple(context for _, context in pieces), batch),
        ),
        reads=(_activation("attention.query", new), Access("attention.kv", TensorClass.KV, fmt.bytes(cache))),
        writes=(_activation("attention.output", new),),
    )
    return Kernel((operator,))


@lru_cache(maxsize=4096)
def _windowed(queries: int, step: int, window: int) -> tuple[tuple[int, int], ...]:
    """A sequence as pieces of (queries, keys seen): one, or with a sliding window one per window of queries.

    A piece of as many queries as the window is long sees that many keys before it at most, as a kernel that
    skips blocks outside of the window does."""
    if step + queries <= window:
        return ((queries, step + queries),)
    pieces = []
    for start in range(0, queries, window):
        tokens = min(window, queries - start)
        pieces.append((tokens, min(step + start + tokens, window + tokens - 1)))
    return tuple(pieces)


@lru_cache(maxsize=4096)
def _repeated(values: tuple[int, ...], count: int) -> tuple[int, ...]:
    """`values` for each sequence of a batch; equal batches share one tuple."""
    return values * count


def _moe(row: Mapping[Any, Any]) -> Kernel:
    """Both products of the experts on one device, at the mean load of balanced routing."""
    tokens, hidden, inter, topk, experts, tensor, expert = _counts(
        row, "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"
    )
    fmt = _format(row["moe_dtype"])
    local = max(1, experts // expert)
    routed = max(1, tokens * topk // expert)
    active = min(local, routed)
    load = -(-routed // active)
    width = max(1, inter // tensor)
    up = GemmShape(load, 2 * width, hidden, active)
    down = GemmShape(load, hidden, width, active)
    return Kernel(
        (
            _product("moe.up", up, fmt, tokens * hidden, routed * width),
            _product("moe.down", down, fmt, routed * width, tokens * hidden),
        )
    )


def _nccl(row: Mapping[Any, Any]) -> Kernel:
    devices, elements = _counts(row, "num_gpus", "message_size")
    fmt = _format(row["nccl_dtype"])
    return Kernel((), (str(row["op_name"]), devices, fmt.bytes(elements), fmt.compute))


_BUILDERS = {
    MeasuredKind.GEMM: _gemm,
    MeasuredKind.GENERATION_ATTENTION: _attention,
    MeasuredKind.CONTEXT_ATTENTION: _attention,
    MeasuredKind.MOE: _moe,
    MeasuredKind.NCCL: _nccl,
}

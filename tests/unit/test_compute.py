"""Compute models against hand-made numbers, and what must hold for every shape."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from archsim.compute.attention import (
    AttentionEngines,
    AttentionKernelSpec,
    attention_flops,
    decode_work,
    prefill_work,
)
from archsim.compute.matrix import MatrixEngineSpec, TileWork, gemm_work
from archsim.compute.onchip import OnChipBufferSpec
from archsim.compute.vector import VectorEngineSpec, vector_fs, vector_work
from archsim.config.errors import UserError
from archsim.records import AttentionShape, GemmShape

FS = 10**15
US = 10**9
LATENCY_FS = US // 2
PEAK = 1_000_000_000_000_000


def matrix(**changes: object) -> MatrixEngineSpec:
    values: dict[str, object] = {
        "units": 100,
        "clock": "1.8 GHz",
        "peak": {"bf16": "1000 TFLOP/s", "fp8": "2000 TFLOP/s"},
        "efficiency": {"value": 0.8, "source": "a measurement"},
        "tiles": [[64, 64], [128, 128], [128, 256]],
        "k_block": 64,
        "split_k": [1, 2, 4, 8],
    }
    return MatrixEngineSpec.model_validate(values | changes)


BUFFER = OnChipBufferSpec.model_validate(
    {"capacity": "50 MB", "bandwidth": "5 TB/s", "latency": "150 ns", "miss_latency": "90 ns"}
)
VECTOR = VectorEngineSpec.model_validate(
    {"units": 100, "clock": "2 GHz", "peak": "64 TFLOP/s", "special_per_clock": 16}
)
KERNEL = AttentionKernelSpec.model_validate(
    {
        "tiles": [
            {"head_dim": 64, "query_rows": 192, "few_rows": 64, "key_block": 128, "decode_key_block": 192},
            {"head_dim": 128, "query_rows": 128, "few_rows": 64, "key_block": 128, "decode_key_block": 128},
        ],
        "max_splits": 32,
        "split_batch": 512,
        "split_margin": 1.1,
        "dependent_accesses": 5,
        "split_accesses": 6,
    }
)
ENGINES = AttentionEngines(matrix(), VECTOR, BUFFER, KERNEL, LATENCY_FS)


def gemm(m: int, n: int, k: int, count: int = 1, stream_fs: int = 0, fmt: str = "bf16") -> TileWork:
    return gemm_work(GemmShape(m, n, k, count), fmt, matrix(), BUFFER, LATENCY_FS, stream_fs)


def chosen_fs(work: TileWork, stream_fs: int = 0) -> int:
    return max(stream_fs, work.compute_fs) + work.tail_fs


def test_a_product_that_fills_the_engine_takes_flops_over_sustained_rate():
    work = gemm(1280, 2560, 4096)  # 10 x 10 tiles of 128 x 256 on 100 units
    assert (work.tiles, work.choice) == (1, "128x256/1")
    assert work.compute_fs == 2 * 1280 * 2560 * 4096 * FS // (PEAK * 8 // 10)
    assert work.tail_fs == LATENCY_FS
    assert work.operand_elements == 100 * (128 + 256) * 4096
    assert gemm(1, 256, 4096).operand_elements <= (4 + 256) * 4096


def test_one_tile_too_many_costs_a_whole_wave():
    engine = matrix(tiles=[[128, 256]], split_k=[1])
    full = gemm_work(GemmShape(1280, 2560, 4096), "bf16", engine, BUFFER, LATENCY_FS)
    spilled = gemm_work(GemmShape(1281, 2560, 4096), "bf16", engine, BUFFER, LATENCY_FS)
    assert (full.tiles, spilled.tiles) == (1, 2)
    assert spilled.tile_fs == full.tile_fs


def test_few_tiles_and_a_long_k_are_split_and_pay_the_reduction():
    work = gemm(64, 64, 65536)
    assert work.choice == "64x64/8"
    assert work.compute_fs == -(-2 * 64 * 64 * 8192 * 100 * FS // (PEAK * 8 // 10))
    assert work.tail_fs == LATENCY_FS + LATENCY_FS + BUFFER.serve_fs(8 * 64 * 64 * 4)


def test_a_product_that_waits_for_memory_is_not_split():
    assert gemm(64, 64, 65536, stream_fs=10**15).choice.endswith("/1")


def test_half_the_bits_take_half_the_time():
    assert gemm(1280, 2560, 4096, fmt="fp8").compute_fs * 2 == pytest.approx(gemm(1280, 2560, 4096).compute_fs, abs=2)


def test_independent_products_share_waves():
    engine = matrix(tiles=[[64, 64]], split_k=[1])
    work = gemm_work(GemmShape(64, 64, 1024, count=250), "bf16", engine, BUFFER, LATENCY_FS)
    assert work.tiles == 3


def test_an_unknown_format_names_the_nearest():
    with pytest.raises(UserError, match=r"no rate for format 'bf15'.*did you mean 'bf16'"):
        gemm(64, 64, 64, fmt="bf15")


@pytest.mark.parametrize(
    "change", [{"split_k": [2]}, {"split_k": []}, {"tiles": []}, {"peak": {}}, {"efficiency": 1.1}, {"units": 0}]
)
def test_a_matrix_engine_that_makes_no_sense_is_refused(change):
    with pytest.raises(ValidationError):
        matrix(**change)


SIZES = st.integers(1, 20_000)


@given(SIZES, SIZES, SIZES, st.integers(1, 64), st.sampled_from(["bf16", "fp8"]))
def test_a_product_is_never_faster_than_the_roofline(m, n, k, count, fmt):
    shape = GemmShape(m, n, k, count)
    work = gemm_work(shape, fmt, matrix(), BUFFER, LATENCY_FS)
    assert work.compute_fs * matrix().peak_flops(fmt) >= shape.flops * FS
    assert work.tiles > 0
    assert isinstance(work.tile_fs, int)


@given(SIZES, SIZES, SIZES, SIZES, st.sampled_from("mnk"), st.integers(0, 100 * US))
def test_time_never_falls_when_a_product_grows(m, n, k, more, grown, stream_fs):
    size = {"m": m, "n": n, "k": k}
    larger = size | {grown: size[grown] + more}
    assert chosen_fs(gemm(**larger, stream_fs=stream_fs), stream_fs) >= chosen_fs(
        gemm(**size, stream_fs=stream_fs), stream_fs
    )


def attention(queries: list[int], contexts: list[int], heads: int = 32, kv_heads: int = 8) -> AttentionShape:
    return AttentionShape(heads, kv_heads, 128, 128, tuple(queries), tuple(contexts))


def block_fs(rows: int, keys: int) -> int:
    products = -(-4 * rows * keys * 128 * 100 * FS // PEAK)
    return products + -(-rows * keys * FS // (16 * 2 * 10**9))


def test_decode_splits_a_lone_sequence_over_the_units_and_combines():
    work = decode_work(attention([1], [12800]), "bf16", ENGINES)
    # 100 blocks of 128 keys x 8 heads on 100 units: ceil(1.1 * 8) = 9 blocks each, 12 parts of 9, 96 tiles
    assert (work.tiles, work.launches, work.choice) == (1, 2, "64x128/split")
    assert work.tile_fs == 9 * block_fs(64, 128)
    assert work.serial_fs == 6 * LATENCY_FS
    assert work.tail_fs == 2 * LATENCY_FS + BUFFER.serve_fs(12 * 32 * 128 * 4)


def test_a_large_decode_batch_runs_whole_sequences_in_waves():
    work = decode_work(attention([1] * 1000, [256] * 1000), "bf16", ENGINES)
    assert (work.tiles, work.launches, work.tail_fs) == (80, 1, 0)
    assert work.compute_fs == 80 * 2 * block_fs(64, 128)
    assert work.serial_fs == 80 * 5 * LATENCY_FS


def test_many_query_heads_per_key_head_take_the_tall_tile():
    assert decode_work(attention([1], [128], heads=128, kv_heads=1), "bf16", ENGINES).choice.startswith("128x128")


def test_prefill_skips_blocks_in_the_future():
    # 4 heads share a key head: 128 rows are 32 queries. 256 queries: 8 tiles, 4 of 1 key block and 4 of 2
    work = prefill_work(attention([256] * 100, [256] * 100, heads=4, kv_heads=1), "bf16", ENGINES)
    assert work.tiles == 8
    assert work.compute_fs == 12 * block_fs(128, 128) or work.compute_fs - 12 * block_fs(128, 128) < work.tiles
    assert work.serial_fs == (3 + 8 * 2) * LATENCY_FS


def test_prefill_is_at_least_its_longest_tile():
    work = prefill_work(attention([1], [12800], heads=8, kv_heads=8), "bf16", ENGINES)
    assert work.compute_fs == 100 * block_fs(128, 128)


def test_attention_flops_count_the_causal_triangle():
    assert attention_flops(attention([3], [5], heads=1, kv_heads=1)) == 2 * (3 + 4 + 5) * (128 + 128)


def test_a_head_dimension_beyond_the_library_is_an_error():
    with pytest.raises(UserError, match=r"head dimension 129.*at most 128"):
        decode_work(AttentionShape(8, 8, 129, 129, (1,), (10,)), "bf16", ENGINES)


def test_attention_tiles_must_ascend():
    with pytest.raises(ValidationError, match="ascending"):
        AttentionKernelSpec.model_validate(
            KERNEL.model_dump() | {"tiles": list(reversed(KERNEL.model_dump()["tiles"]))}
        )


BATCHES = st.lists(st.tuples(st.integers(1, 300), st.integers(0, 5000)), min_size=1, max_size=12)


@settings(max_examples=60)
@given(BATCHES, st.sampled_from([(8, 8), (32, 8), (64, 1)]))
def test_attention_is_never_faster_than_the_roofline(batch, heads):
    shape = attention([queries for queries, _ in batch], [queries + before for queries, before in batch], *heads)
    flops = attention_flops(shape)
    for work in (prefill_work(shape, "bf16", ENGINES), decode_work(shape, "bf16", ENGINES)):
        assert work.compute_fs * PEAK >= flops * FS
        assert work.serial_fs > 0


@given(st.integers(1, 100_000), st.integers(1, 600), st.integers(1, 5000))
def test_a_longer_whole_decode_takes_no_less_time(context, batch, more):
    def cost(keys: int) -> int:
        work = decode_work(attention([1] * (512 + batch), [keys] * (512 + batch)), "bf16", ENGINES)
        return work.compute_fs + work.serial_fs

    assert cost(context + more) >= cost(context)


def test_elementwise_work():
    assert vector_fs(64_000_000, VECTOR) == US
    assert vector_work(64_000_000, VECTOR, LATENCY_FS) == TileWork(1, US, tail_fs=LATENCY_FS, choice="elementwise")
    assert VECTOR.special_fs(32_000) == US


def test_the_buffer_serves_and_holds():
    assert BUFFER.serve_fs(0) == 0
    assert BUFFER.serve_fs(5_000_000) == 150_000_000 + US
    assert BUFFER.holds(50_000_000)
    assert not BUFFER.holds(50_000_001)

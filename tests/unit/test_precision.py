"""Number formats: exact bytes with their scales, and which tensor gets which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from archsim.workload.precision import COMPUTE_FORMATS, FORMATS, Precision
from archsim.workload.weights import WeightKind, WeightTensor


# Bits per element with full blocks. MX: 8 bits of scale on 32 elements (OCP MX v1.0, table 1).
@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("fp32", 32),
        ("bf16", 16),
        ("fp16", 16),
        ("fp8", 8),
        ("int8", 8),
        ("int4", 4),
        ("int4_g128", 4.125),
        ("mxfp8", 8.25),
        ("mxfp6", 6.25),
        ("mxfp4", 4.25),
        ("nvfp4", 4.5),
    ],
)
def test_bits_per_element(name: str, bits: float) -> None:
    assert FORMATS[name].tensor_bits(3, 128 * 5) == bits * 3 * 128 * 5


def test_every_format_is_tested_above() -> None:
    assert len(FORMATS) == 11


@given(st.sampled_from(sorted(FORMATS)), st.integers(1, 40), st.integers(1, 400))
def test_bytes_count_every_element_and_every_started_block(name: str, rows: int, columns: int) -> None:
    fmt = FORMATS[name]
    bits = 0
    for _ in range(rows):
        bits += columns * fmt.bits
        if fmt.block:
            bits += len(range(0, columns, fmt.block)) * fmt.scale_bits
    assert fmt.tensor_bits(rows, columns) == bits
    assert 0 <= 8 * fmt.tensor_bytes(rows, columns) - bits < 8


def test_a_short_last_block_has_a_whole_scale() -> None:
    assert FORMATS["mxfp4"].tensor_bytes(1, 33) == -(-(33 * 4 + 2 * 8) // 8)


def test_vectors_and_vocabulary_stay_unquantised() -> None:
    precision = Precision(weights="int4_g128")
    assert precision.weight_format(WeightKind.MATRIX).name == "int4_g128"
    assert precision.weight_format(WeightKind.UNQUANTISED).name == "bf16"
    assert precision.weight_format(WeightKind.VOCABULARY).name == "bf16"
    assert Precision(weights="fp8", activations="fp16").unquantised_format.name == "fp16"
    assert Precision(weights="fp8", activations="fp8").unquantised_format.name == "bf16"
    assert Precision(weights="fp8", embedding="int8").weight_format(WeightKind.VOCABULARY).name == "int8"


def test_experts_are_stored_block_by_block() -> None:
    tensor = WeightTensor("experts", rows=3, columns=40, copies=5)
    assert Precision(weights="mxfp4").weight_bytes(tensor) == -(-5 * 3 * (40 * 4 + 2 * 8) // 8)


def test_products_are_in_the_wider_operand_unless_said_otherwise() -> None:
    assert Precision().compute_format(WeightKind.MATRIX) == "bf16"
    assert Precision(weights="int4_g128").compute_format(WeightKind.MATRIX) == "bf16"
    assert Precision(weights="mxfp4", activations="mxfp8").compute_format(WeightKind.MATRIX) == "fp8"
    dynamic = Precision(weights="fp8", compute="fp8")
    assert dynamic.compute_format(WeightKind.MATRIX) == "fp8"
    assert dynamic.compute_format(WeightKind.VOCABULARY) == "bf16"
    assert dynamic.attention_compute_format == "bf16"
    assert Precision(kv="fp8", activations="fp8").attention_compute_format == "fp8"


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(ValidationError, match="did you mean 'bf16'"):
        Precision(weights="bfloat16")
    with pytest.raises(ValidationError, match="unknown compute format 'mxfp4'"):
        Precision(compute="mxfp4")
    assert set(COMPUTE_FORMATS) == {"fp32", "bf16", "fp16", "fp8", "int8", "int4", "fp6", "fp4"}

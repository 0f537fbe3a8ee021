"""`archsim sram` as a user types it."""

from __future__ import annotations

import json
from typing import Any

import pytest


def test_a_product_as_json(invoke: Any) -> None:
    code, out, err = invoke("sram", "sram_gpu_l2", "--lut-gemv", "256x1280", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["device"] == "GPU L2, A100"
    assert report["counts"]["tables"] == 320
    assert report["counts"]["lookups"] == 320 * 256 * 4
    assert report["time_fs"] == -(-report["cycles"] * 10**15 // 1_410_000_000)


def test_a_product_as_a_table(invoke: Any) -> None:
    code, out, err = invoke("sram", "sram_gpu_l2", "--lut-gemv", "64x64", "--layout", "spread", "--batch", 2)
    assert (code, err) == (0, "")
    assert "GEMV 64 x 64, 4-bit weights, tables of 4 inputs, 2 vectors" in out
    assert "bank conflicts" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sram_gpu_l2", "--lut-gemv", "64"), "--lut-gemv 64"),
        (("sram_gpu_l2", "--lut-gemv", "64x64", "--layout", "banks"), "did you mean 'bank'"),
        (("sram_gpu_l2", "--lut-gemv", "64x64", "--group", 20), "at most 16"),
        (("sram_gpu_l3", "--lut-gemv", "64x64"), "did you mean 'sram_gpu_l2'"),
    ],
)
def test_bad_input(invoke: Any, arguments: tuple[object, ...], message: str) -> None:
    code, out, err = invoke("sram", *arguments)
    assert (code, out) == (2, "")
    assert message in err and "Traceback" not in err

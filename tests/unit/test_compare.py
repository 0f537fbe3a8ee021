"""`archsim compare` on small measured tables with a predictor whose answers are known."""

import json
from pathlib import Path

import pandas as pd
import pytest

from archsim.commands.compare import FS_PER_MS, compare, summary_lines
from archsim.config.errors import UserError
from archsim.records import Operator, OperatorKind, TensorClass


def write(tmp_path: Path, rows: list[dict[str, object]]) -> Path:
    path = tmp_path / "measured.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return path


def product(m: int, latency: float, **more: object) -> dict[str, object]:
    return {"m": m, "n": 128, "k": 256, "gemm_dtype": "bfloat16", "latency": latency, **more}


def one_ms(operator: Operator) -> tuple[int, float]:
    """Every kernel takes 1 ms and draws 100 W."""
    return FS_PER_MS, 100 * 1e-3 * 1e12


def attention(**more: object) -> dict[str, object]:
    return {
        "batch_size": 4, "isl": 1, "step": 999, "num_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "kv_cache_dtype": "bfloat16", "latency": 1.0, **more,
    }  # fmt: skip


def predicted(path: Path, **options: object) -> tuple[list[Operator], object]:
    seen: list[Operator] = []

    def predict(operator: Operator) -> tuple[int, float]:
        seen.append(operator)
        return one_ms(operator)

    return seen, compare(path, predict, **options)  # type: ignore[arg-type]


def test_errors_are_relative_to_what_was_measured(tmp_path):
    path = write(tmp_path, [product(1, 1.0, power=100.0), product(2, 2.0, power=200.0), product(4, 0.5, power=50.0)])
    report = compare(path, one_ms)
    assert (report.kind, report.latency.count) == ("gemm", 3)
    assert report.latency.bias == 0.0  # of 0, -50% and +100%
    assert report.latency.median == pytest.approx(0.5)
    assert report.latency.p90 == pytest.approx(0.9)
    assert report.power is not None
    assert report.power.median == pytest.approx(0.5)
    assert [row["m"] for row in report.worst] == [4, 2, 1]


def test_equal_rows_are_predicted_once(tmp_path):
    seen, report = predicted(write(tmp_path, [product(1, 1.0), product(1, 1.1), product(2, 1.2)]))
    assert [operator.gemm.m for operator in seen if operator.gemm] == [1, 2]
    assert report.latency.count == 3


def test_a_product_becomes_an_operator(tmp_path):
    seen, _ = predicted(write(tmp_path, [product(3, 1.0), product(3, 1.0, gemm_dtype="fp8_block")]))
    plain, scaled = seen
    assert plain.kind is OperatorKind.GEMM
    assert plain.matrix_flops == 2 * 3 * 128 * 256
    assert plain.read_bytes == 2 * (128 * 256 + 3 * 256)
    assert plain.write_bytes == 2 * 3 * 128
    assert scaled.compute_format == "fp8"
    assert scaled.reads[0].bytes == 128 * 256 + 2 * 4  # a scale per 128 x 128 block
    assert scaled.reads[0].tensor_class is TensorClass.WEIGHT


def test_where_selects_by_columns_and_derived_columns(tmp_path):
    path = write(tmp_path, [product(m, 1.0) for m in (1, 2, 4, 8)])
    assert compare(path, one_ms, where="m <= 4 and flops > 2 * 128 * 256").latency.count == 2
    assert compare(path, one_ms, where="weight_bytes >= 65536").latency.count == 4


def test_the_replay_of_a_captured_graph_is_shared(tmp_path):
    _, report = predicted(write(tmp_path, [product(1, 1.0)]), replay_fs=6 * FS_PER_MS)
    assert report.rows["predicted_latency_ms"].tolist() == [2.0]
    _, report = predicted(write(tmp_path, [attention()]), replay_fs=6 * FS_PER_MS)
    assert report.rows["predicted_latency_ms"].tolist() == [7.0]


def test_decode_attention_reads_the_cache_once(tmp_path):
    seen, report = predicted(
        write(tmp_path, [attention(), attention(kv_cache_dtype="fp8"), attention(window_size=128)])
    )
    assert report.kind == "generation attention"
    plain, fp8, windowed = seen
    assert plain.kind is OperatorKind.DECODE_ATTENTION
    assert plain.attention is not None
    assert plain.attention.context_tokens == (1000,) * 4
    assert plain.reads[1].bytes == 2 * fp8.reads[1].bytes == 4 * 1000 * 8 * 128 * 2 * 2
    assert windowed.attention is not None
    assert windowed.attention.context_tokens == (128,) * 4
    assert windowed.reads[1].bytes == 4 * 128 * 8 * 128 * 2 * 2


def test_context_attention_counts_the_causal_triangle(tmp_path):
    rows = [attention(isl=100, step=0), attention(isl=100, step=0, window_size=30)]
    seen, report = predicted(write(tmp_path, rows))
    assert report.kind == "context attention"
    plain, windowed = seen
    assert plain.kind is OperatorKind.PREFILL_ATTENTION
    assert plain.matrix_flops == 4 * 4 * 32 * 128 * (100 * 101 // 2)
    assert windowed.matrix_flops == 4 * 4 * 32 * 128 * (30 * 31 // 2 + 70 * 30)
    assert windowed.attention is not None
    assert windowed.attention.query_tokens == (30, 30, 30, 10) * 4
    assert windowed.attention.context_tokens == (30, 59, 59, 39) * 4


def test_an_expert_layer_is_two_products(tmp_path):
    row = {
        "num_tokens": 64, "hidden_size": 1024, "inter_size": 512, "topk": 2, "num_experts": 8, "moe_tp_size": 2,
        "moe_ep_size": 1, "moe_dtype": "bfloat16", "distribution": "balanced", "latency": 2.0,
    }  # fmt: skip
    seen, report = predicted(write(tmp_path, [row]))
    up, down = (operator.gemm for operator in seen)
    assert up is not None and down is not None
    assert (up.m, up.n, up.k, up.count) == (16, 512, 1024, 8)
    assert (down.m, down.n, down.k, down.count) == (16, 1024, 256, 8)
    assert report.latency.bias == 0.0


def test_collectives_go_to_their_own_predictor(tmp_path):
    row = {"op_name": "all_reduce", "num_gpus": 8, "message_size": 1024, "nccl_dtype": "half", "latency": 1.0}
    path = write(tmp_path, [row])
    asked = []

    def collective(name: str, devices: int, message_bytes: int, fmt: str) -> tuple[int, float]:
        asked.append((name, devices, message_bytes, fmt))
        return FS_PER_MS, 0.0

    assert compare(path, one_ms, predict_collective=collective).latency.bias == 0.0
    assert asked == [("all_reduce", 8, 2048, "fp16")]
    with pytest.raises(UserError, match="no links"):
        compare(path, one_ms)


def test_the_report_can_be_written(tmp_path):
    path = write(tmp_path, [product(m, 0.5 * m, power=50.0 * m) for m in (1, 2, 4)])
    out = tmp_path / "out"
    report = compare(path, one_ms, out=out)
    assert sorted(file.name for file in out.iterdir()) == [
        "comparison.json", "comparison.parquet", "latency.png", "power.png",
    ]  # fmt: skip
    assert json.loads((out / "comparison.json").read_text()) == report.to_dict()
    assert len(pd.read_parquet(out / "comparison.parquet")) == 3
    assert (out / "latency.png").read_bytes().startswith(b"\x89PNG")
    assert report.table().row_count == 2
    assert report.worst_table().row_count == 3
    assert summary_lines({"gemm": report})[2].startswith("| gemm, latency | 3 | ")


def test_missing_power_is_no_error(tmp_path):
    assert compare(write(tmp_path, [product(1, 1.0)]), one_ms).power is None
    some = compare(write(tmp_path, [product(1, 1.0, power=None), product(2, 1.0, power=100.0)]), one_ms)
    assert some.power is not None
    assert some.power.count == 1


@pytest.mark.parametrize(
    ("rows", "where", "message"),
    [
        ([product(1, 1.0)], "m <", "--where 'm <'"),
        ([product(1, 1.0)], "batch > 1", "expression over m, n, k"),
        ([product(1, 1.0)], "n", "--where 'n'"),
        ([product(1, 1.0)], "m > 5", "no measured row is left where m > 5"),
        ([product(1, float("nan"))], None, "no measured row is left"),
        ([product(0, 1.0)], None, "row 1 .*m is 0"),
        ([product(1, 1.0), product(1, 1.0, gemm_dtype="bfloat17")], None, "row 2 .*did you mean 'bfloat16'"),
        ([attention(num_heads=30)], None, "30 heads can't share 8"),
        ([{"m": 1, "n": 2, "gemm_dtype": "half", "latency": 1.0}], None, "lacks the column k"),
        ([{"m": 1, "n": 2, "k": 3, "gemm_dtype": "half"}], None, "lacks the column latency"),
    ],
)
def test_bad_input_is_explained(tmp_path, rows, where, message):
    with pytest.raises(UserError, match=message):
        compare(write(tmp_path, rows), one_ms, where=where)


def test_a_missing_or_broken_file_is_explained(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        compare(tmp_path / "absent.parquet", one_ms)
    broken = tmp_path / "broken.parquet"
    broken.write_text("not parquet")
    with pytest.raises(UserError, match="can't be read as parquet"):
        compare(broken, one_ms)


def test_an_unwritable_directory_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write the comparison"):
        compare(write(tmp_path, [product(1, 1.0)]), one_ms, out=tmp_path / "file")

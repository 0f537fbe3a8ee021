"""Metrics and run directories: values, tables, byte-equality, and that an interrupted write loses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fabricated import LAYERS, PEAK_HBM, fabricated_run

from archsim.config.errors import UserError
from archsim.metrics import (
    METRICS,
    Metric,
    bound_times_fs,
    definition_of,
    format_quantity,
    percentile_seconds,
    phase_metrics,
    serving_metrics,
)
from archsim.records import CAUSES, Counts, OperatorKind, OperatorRecord, RequestRecord
from archsim.results import RunData, RunResult, open_run, write_run
from archsim.results_store import ensure_writable

MS = 10**12  # femtoseconds


def record(start: int, end: int, **more: object) -> OperatorRecord:
    given: dict[str, object] = {
        "name": "layers[0].qkv_proj", "kind": OperatorKind.GEMM, "layer": 0, "phase": "decode", "iteration": 0,
        "start_fs": start, "end_fs": end, "bound": "memory", "roofline_fs": (end - start) // 2,
        "cause_fs": {"transfer": end - start}, "matrix_flops": 10**9, "vector_flops": 0,
        "counts": Counts(dram_read_bytes=3_000_000, dram_write_bytes=1_000_000, dram_row_hits=3, dram_row_misses=1),
    }  # fmt: skip
    return OperatorRecord(**(given | more))  # type: ignore[arg-type]


def metrics_of(records: list[OperatorRecord], **more: object) -> dict[str, Metric]:
    given: dict[str, object] = {
        "phase": "decode", "tokens": 32, "sequences": 32, "devices": 8, "peak_hbm_bytes_per_second": 8 * 10**9,
        "peak_matrix_flops_per_second": 10**13, "energy_breakdown_pj": {"hbm.io": 3e12, "static": 1e12},
    }  # fmt: skip
    return phase_metrics(records, **(given | more))  # type: ignore[arg-type]


class TestMetrics:
    def test_a_phase_worked_by_hand(self) -> None:
        found = metrics_of([record(0, MS), record(MS, 2 * MS, cause_fs={"transfer": MS // 2, "launch": MS // 2})])
        expected = {
            "latency": 2e-3, "tpot": 2e-3, "throughput": 16_000.0, "hbm.bytes": 8_000_000, "hbm.bandwidth": 4e9,
            "hbm.utilisation": 0.5, "hbm.row_hit_rate": 0.75, "matrix.utilisation": 0.1, "roofline_ratio": 2.0,
            "energy": 4.0, "energy_per_token": 0.125, "power": 250.0, "time.transfer": 0.75, "time.launch": 0.25,
            "energy.hbm.io": 3.0,
        }  # fmt: skip
        assert {name: found[f"decode.{name}"].value for name in expected} == expected
        assert sum(found[f"decode.time.{cause}"].value for cause in CAUSES if cause not in ("tier", "pim", "noc")) == 1

    def test_tpot_of_several_steps_is_per_step(self) -> None:
        assert metrics_of([record(0, 8 * MS)], tokens=128)["decode.tpot"].value == 2e-3

    def test_only_prefill_has_ttft(self) -> None:
        assert metrics_of([record(0, MS)], phase="prefill")["prefill.ttft"].value == 1e-3
        assert "decode.ttft" not in metrics_of([record(0, MS)])

    def test_causes_that_leave_a_gap_are_refused(self) -> None:
        with pytest.raises(ValueError, match="qkv_proj: causes sum to 5 fs but it ran for 10 fs"):
            metrics_of([record(0, 10, cause_fs={"transfer": 5})])
        with pytest.raises(ValueError, match="unknown causes"):
            metrics_of([record(0, 10, cause_fs={"magic": 10})])

    def test_an_empty_phase_has_no_invented_ratios(self) -> None:
        assert set(metrics_of([])) >= {"decode.energy", "decode.hbm.bytes"}
        assert not {"decode.hbm.bandwidth", "decode.power", "decode.hbm.row_hit_rate"} & set(metrics_of([]))

    def test_serving_worked_by_hand(self) -> None:
        second = 10**15
        requests = [
            RequestRecord(0, 0, 0, second, 3 * second, 10, 3, 2e12),
            RequestRecord(1, second, second, 4 * second, 4 * second, 20, 1, 1e12),
        ]
        found = {name: metric.value for name, metric in serving_metrics(requests).items()}
        assert found["serving.output_tokens"] == 4 and found["serving.context_tokens"] == 30
        assert found["serving.makespan"] == 4 and found["serving.throughput"] == 1
        assert found["serving.ttft.p50"] == 2 and found["serving.ttft.p99"] == 2.98
        assert found["serving.tpot.p50"] == 1  # the one-token request has no time per further token
        assert found["serving.energy_per_output_token"] == 0.75
        assert serving_metrics([]) == {}

    @pytest.mark.parametrize(("percent", "expected"), [(0, 1.0), (50, 2.5), (99, 3.97), (100, 4.0)])
    def test_percentiles_interpolate(self, percent: int, expected: float) -> None:
        assert percentile_seconds([x * 10**15 for x in (4, 1, 3, 2)], percent) == expected

    def test_every_metric_is_defined_once_and_in_words(self) -> None:
        names = [definition.name for definition in METRICS]
        assert len(set(names)) == len(names)
        assert all(definition.formula and definition.unit for definition in METRICS)
        assert {definition.better for definition in METRICS} == {"higher", "lower", "neutral"}
        for name, metric in fabricated_run(requests=5).metrics().items():
            assert definition_of(name).unit == metric.unit
        with pytest.raises(KeyError):
            definition_of("decode.happiness")

    @pytest.mark.parametrize(
        ("value", "unit", "text"),
        [
            (4.2131e12, "B/s", "4.213 TB/s"), (0.01098, "s", "10.98 ms"), (0, "J", "0 J"), (5000.0, "s", "5,000 s"),
            (0.8732, "fraction", "87.3 %"), (1.5, "ratio", "1.500x"), (34338.4, "tokens/s", "34,338 tokens/s"),
            (7, "count", "7"), (9.894e14, "FLOP/s", "989.4 TFLOP/s"), (-2e-3, "J", "-2.000 mJ"),
            (1e-18, "J", "0.001000 fJ"),
        ],
    )  # fmt: skip
    def test_quantities_read_well(self, value: float, unit: str, text: str) -> None:
        assert format_quantity(value, unit) == text

    def test_what_bounds_comes_longest_first(self) -> None:
        records = [record(0, 2, bound="compute"), record(2, 3), record(3, 7)]
        assert list(bound_times_fs(records).items()) == [("memory", 5), ("compute", 2)]


class TestRunDirectory:
    def test_what_is_written_is_read_back(self, tmp_path: Path) -> None:
        data = fabricated_run(layers=3, requests=4)
        run = write_run(tmp_path / "run", data)
        assert {path.name for path in run.directory.iterdir()} == {
            "manifest.json", "metrics.json", "run.json", "config.yaml",
            "operators.parquet", "bandwidth.parquet", "requests.parquet",
        }  # fmt: skip
        assert run.metrics == data.metrics()
        decode = open_run(run.directory).summary.phases[1]
        assert (decode.tokens, decode.devices, decode.bound) == (32, 8, "memory")
        assert decode.channels == data.phases[1].channels
        assert run.requests is not None and list(run.requests["request_id"]) == [0, 1, 2, 3]
        assert "decode.tpot" in repr(run) and "decode.tpot" in run._repr_html_()
        table = run.metrics._repr_html_()
        assert table.count("<tr>") == len(run.metrics) and str(run.metrics["decode.tpot"]) in table

    def test_operators_hold_every_count_and_cause(self, tmp_path: Path) -> None:
        data = fabricated_run(layers=2)
        table = write_run(tmp_path / "run", data).operators
        records = [record for phase in data.phases for record in phase.records]
        assert len(table) == len(records)
        causes = table[[f"cause_{cause}_fs" for cause in CAUSES]].sum(axis=1)
        assert (causes == table["duration_fs"]).all()
        assert table["dram_reads"].sum() == sum(record.counts.dram_reads for record in records)
        assert table["matrix_macs_bf16"].sum() == sum(record.counts.matrix_macs["bf16"] for record in records)
        assert table["start_fs"].dtype == "int64"

    def test_a_run_from_before_a_cause_was_known_opens(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "run", fabricated_run(layers=2))
        table = run.operators
        table.drop(columns="cause_noc_fs").to_parquet(run.directory / "operators.parquet")
        assert (open_run(run.directory).operators["cause_noc_fs"] == 0).all()

    def test_metrics_json_is_sorted_values_with_units(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "run", fabricated_run(layers=1))
        content = json.loads((run.directory / "metrics.json").read_text())
        assert list(content) == sorted(content)
        assert all(set(entry) == {"value", "unit"} for entry in content.values())
        tails = ("tpot", "hbm.bandwidth", "hbm.utilisation", "energy_per_token")
        assert {"prefill.latency", *(f"decode.{tail}" for tail in tails)} <= set(content)

    def test_the_manifest_names_versions_seed_and_command(self, tmp_path: Path) -> None:
        manifest = write_run(tmp_path / "run", fabricated_run(layers=1)).manifest
        assert manifest["seed"] == 1 and manifest["wall_time_s"] == 3.25 and manifest["command"][0] == "archsim"
        assert manifest["versions"]["python"] and manifest["versions"]["pyarrow"]
        assert manifest["git"] is None or len(manifest["git"]["commit"]) == 40

    def test_femtoseconds_beyond_int64_stay_exact(self, tmp_path: Path) -> None:
        data = fabricated_run(layers=1)
        late = data.phases[0].records[0]
        late.start_fs, late.end_fs = late.start_fs + 10**19, late.end_fs + 10**19
        run = write_run(tmp_path / "run", data)
        assert int(run.operators["end_fs"].max()) == late.end_fs

    def test_phases_need_distinct_names(self) -> None:
        data = fabricated_run(layers=1)
        with pytest.raises(ValueError, match="distinct"):
            RunData(name="x", phases=(data.phases[0],) * 2, config={}, digest="", seed=0).metrics()


class TestAtomicity:
    def test_an_interrupted_write_leaves_no_trace(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            write_run(tmp_path / "run", fabricated_run(layers=1), artefacts={"report.html": interrupt})
        assert list(tmp_path.iterdir()) == []

    def test_an_interrupted_write_keeps_the_earlier_run(self, tmp_path: Path) -> None:
        write_run(tmp_path / "run", fabricated_run(layers=1, name="first"))
        with pytest.raises(KeyboardInterrupt):
            write_run(tmp_path / "run", fabricated_run(layers=1, name="second"), artefacts={"report.html": interrupt})
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
        assert open_run(tmp_path / "run").summary.name == "first"

    def test_an_interrupted_rename_brings_the_earlier_run_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_run(tmp_path / "run", fabricated_run(layers=1, name="first"))
        rename = Path.rename

        def stop_at_the_last(self: Path, target: Path) -> Path:
            if self.name.endswith(".partial"):
                raise KeyboardInterrupt
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", stop_at_the_last)
        with pytest.raises(KeyboardInterrupt):
            write_run(tmp_path / "run", fabricated_run(layers=1, name="second"))
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
        assert open_run(tmp_path / "run").summary.name == "first"

    def test_a_finished_write_replaces_the_earlier_run(self, tmp_path: Path) -> None:
        write_run(tmp_path / "run", fabricated_run(layers=1, requests=2))
        run = write_run(tmp_path / "run", fabricated_run(layers=1, name="second"))
        assert run.summary.name == "second" and run.requests is None
        assert [path.name for path in tmp_path.iterdir()] == ["run"]

    def test_other_peoples_files_are_not_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("precious")
        for attempt in (lambda: write_run(tmp_path, fabricated_run(layers=1)), lambda: ensure_writable(tmp_path)):
            with pytest.raises(UserError, match="will not be replaced"):
                attempt()
        assert (tmp_path / "thesis.tex").read_text() == "precious"

    @pytest.mark.parametrize("where", ["file", "file/run", "/proc/archsim/run"])
    def test_where_nothing_can_be_written(self, tmp_path: Path, where: str) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="--out"):
            ensure_writable(tmp_path / where)
        with pytest.raises(UserError, match="--out"):
            write_run(tmp_path / where, fabricated_run(layers=1))

    def test_ensure_writable_leaves_nothing_behind(self, tmp_path: Path) -> None:
        ensure_writable(tmp_path / "deep" / "run")
        assert list((tmp_path / "deep").iterdir()) == []

    def test_opening_what_is_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"no manifest\.json"):
            open_run(tmp_path)
        with pytest.raises(UserError, match="no such directory"):
            open_run(tmp_path / "missing")


def interrupt(data: RunData, run: RunResult, path: Path) -> None:
    path.write_text("half")
    raise KeyboardInterrupt


def test_importing_results_loads_no_heavy_library() -> None:
    code = "import sys, archsim.results, archsim.report; print([m for m in ('pandas', 'plotly', 'matplotlib', 'pyarrow', 'jinja2', 'rich') if m in sys.modules])"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_fabricated_run_is_of_the_size_it_claims() -> None:
    data = fabricated_run()
    assert len(data.phases[1].records) == 12 * LAYERS
    assert data.phases[1].metrics()["decode.hbm.bandwidth"].value < PEAK_HBM

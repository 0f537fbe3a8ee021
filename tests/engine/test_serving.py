"""A request trace served to the end: every request finishes, tokens, times and energies add up, runs repeat."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from small_experiment import write_requests

import archsim
from archsim.results import RunResult

REQUESTS = 10


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_requests(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def serve(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunResult]:
    """Serve the first requests of the sample with the small model; equal changes run once."""
    known: dict[tuple[str, ...], RunResult] = {}

    def call(*changes: str) -> RunResult:
        if changes not in known:
            out = tmp_path_factory.mktemp("runs") / "run"
            known[changes] = archsim.run(experiment, [f"workload.limit={REQUESTS}", *changes], out=out)
        return known[changes]

    return call


SETTINGS: dict[str, list[str]] = {
    "default": [],
    "batch of 3": ["workload.batching.max_batch=3"],
    "short prefills": ["workload.batching.max_prefill_tokens=256"],
    "little memory": ["system.device.memory.capacity=215 MB"],
    "tp 2": ["system=h200x8", "workload.tensor_parallel=2"],
}


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
class TestEverySetting:
    def test_every_request_finishes_with_all_its_tokens(
        self, serve: Callable[..., RunResult], experiment: Path, changes: list[str]
    ) -> None:
        asked = archsim.load(experiment, [f"workload.limit={REQUESTS}"]).requests()
        run = serve(*changes)
        assert run.requests is not None
        served = run.requests.set_index("request_id")
        assert len(served) == len(asked) == REQUESTS
        for request in asked:
            row = served.loc[request.request_id]
            assert row["context_tokens"] == request.context_tokens
            assert row["generated_tokens"] == request.generated_tokens
            assert row["arrival_fs"] == request.arrival_fs
        assert run.metrics["serving.requests"].value == REQUESTS
        assert run.metrics["serving.output_tokens"].value == sum(request.generated_tokens for request in asked)
        assert run.metrics["serving.context_tokens"].value == sum(request.context_tokens for request in asked)

    def test_times_are_in_order(self, serve: Callable[..., RunResult], changes: list[str]) -> None:
        requests = serve(*changes).requests
        assert requests is not None
        assert (requests["arrival_fs"] <= requests["first_scheduled_fs"]).all()
        assert (requests["first_scheduled_fs"] < requests["first_token_fs"]).all()
        assert (requests["first_token_fs"] <= requests["finish_fs"]).all()
        assert (requests["ttft_fs"] > 0).all()
        several = requests[requests["generated_tokens"] > 1]
        assert len(several) and (several["tpot_fs"] > 0).all()

    def test_energy_adds_up(self, serve: Callable[..., RunResult], changes: list[str]) -> None:
        run = serve(*changes)
        assert run.requests is not None
        assert (run.requests["energy_pj"] > 0).all()
        shared = run.requests["energy_pj"].sum() / 10**12
        assert math.isclose(shared, float(run.metrics["serving.energy"].value), rel_tol=1e-9)
        # The phase also holds the idle power between iterations, which no request is charged for.
        assert shared <= float(run.metrics["iterations.energy"].value) * (1 + 1e-9)

    def test_operators_tile_each_iteration(self, serve: Callable[..., RunResult], changes: list[str]) -> None:
        operators = serve(*changes).operators
        causes = [column for column in operators if column.startswith("cause_")]
        assert (operators[causes].sum(axis=1) == operators["duration_fs"]).all()
        assert (operators[causes] >= 0).all(axis=None)
        assert (operators["duration_fs"] >= operators["roofline_fs"]).all()
        for _, rows in operators.groupby("iteration"):
            assert (rows["end_fs"].to_numpy()[:-1] == rows["start_fs"].to_numpy()[1:]).all()


def test_a_smaller_batch_makes_requests_wait(serve: Callable[..., RunResult]) -> None:
    crowded, free = serve(*SETTINGS["batch of 3"]), serve()
    assert crowded.metrics["serving.latency.p50"].value >= free.metrics["serving.latency.p50"].value


def test_two_runs_are_byte_identical(experiment: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        archsim.run(experiment, ["workload.limit=5"], out=tmp_path / name)
    for file in ("metrics.json", "operators.parquet", "requests.parquet"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file


def test_shortcuts_change_no_number(experiment: Path, tmp_path: Path) -> None:
    for name, off in (("quick", "false"), ("plain", "true")):
        archsim.run(experiment, ["workload.limit=5", f"no_shortcuts={off}"], out=tmp_path / name)
    for file in ("metrics.json", "operators.parquet", "requests.parquet"):
        assert (tmp_path / "quick" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes(), file


def test_a_request_alone_takes_its_iterations_and_nothing_else(tmp_path: Path) -> None:
    trace = "TIMESTAMP,ContextTokens,GeneratedTokens\n2025-01-01 00:00:00.0,100,5\n2025-01-01 00:02:00.0,100,5\n"
    run = archsim.run(write_requests(tmp_path, trace), out=tmp_path / "run")
    assert run.requests is not None
    first, second = run.requests.to_dict("records")
    assert second["arrival_fs"] - first["arrival_fs"] == 120 * 10**15
    assert first["first_scheduled_fs"] == 0
    assert second["first_scheduled_fs"] == second["arrival_fs"]
    assert run.operators["iteration"].nunique() == 10
    assert first["ttft_fs"] == pytest.approx(second["ttft_fs"], rel=0.01)


def test_roofline_fidelity_bounds_the_makespan(serve: Callable[..., RunResult]) -> None:
    assert serve("fidelity=roofline").metrics["serving.tpot.p50"].value <= serve().metrics["serving.tpot.p50"].value

"""`archsim sweep` as a user meets it: tables, failures, interruptions of every kind, clusters."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from in_process import command, simulate_here
from small_experiment import write_phases

import archsim
from archsim.config.errors import UserError
from archsim.sweep.plan import plan_sweep

COMMAND = [sys.executable, "-c", "from archsim.cli import main; main()"]
PATIENCE_S = 300.0  # the first point may compile the kernels

SMALL = """\
kind: sweep
experiment: experiment.yaml
axes:
  workload.batch: [1, 2]
  stacks:
    cases:
      six: {}
      seven: {system.device.memory.stacks: 7, system.device.memory.capacity: 160 GB}
  system.device.power.idle: {from: 100 W, to: 200 W, step: 100 W, when: stacks == 'six'}
best: decode.tpot
"""

# Points enough to be caught in the middle of.
LONG = """\
kind: sweep
experiment: experiment.yaml
set: {workload.prefill: null}
axes:
  workload.decode.context_tokens: {from: 256, to: 6560, step: 64}
"""
LONG_POINTS = 99


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's sweeps and searches start no workers."""
    simulate_here(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the small experiment and sweeps of it."""
    return write_sweeps(tmp_path)


def write_sweeps(below: Path) -> Path:
    """The folder has the same name everywhere: a model is called after its folder, and keys depend on its name."""
    folder = below / "two_layers"
    folder.mkdir()
    write_phases(folder)
    (folder / "small.yaml").write_text(SMALL)
    (folder / "long.yaml").write_text(LONG)
    return folder


def started(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """`archsim sweep ARGUMENTS` in a process and a session of its own, as a shell would start it."""
    words = [*COMMAND, "sweep", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, cwd=cwd, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload,no-any-return]


def ended(process: subprocess.Popen[str], expect: int = 0) -> tuple[str, str]:
    """What a process wrote to stdout and stderr by its end."""
    out, err = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in out + err, err
    assert process.returncode == expect, err
    return out, err


def swept(*arguments: str | Path, cwd: Path, expect: int = 0) -> dict[str, object]:
    """What `archsim sweep ARGUMENTS --json` prints."""
    out, _ = ended(started(*arguments, "--json", cwd=cwd), expect)
    found: dict[str, object] = json.loads(out)
    return found


def swept_here(*words: str | Path, cwd: Path) -> dict[str, object]:
    """As `swept`, in this process; without workers of its own if the test asks for `here`."""
    found: dict[str, object] = json.loads(command("sweep", *words, "--json", cwd=cwd)[0])
    return found


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


def landed(out: Path) -> int:
    """How many points have landed."""
    return len(list((out / "points").glob("*.json")))


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The worker processes of a sweep: those that multiprocessing spawned, less its resource tracker."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if any("spawn_main" in word for word in child.cmdline())]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The table of the long sweep, run in one go."""
    folder = write_sweeps(tmp_path_factory.mktemp("uninterrupted"))
    with pytest.MonkeyPatch.context() as patch:
        simulate_here(patch)
        report = swept_here("long.yaml", "--out", "out", cwd=folder)
    assert report["ok"] == report["simulated"] == LONG_POINTS
    return (folder / "out" / "results.parquet").read_bytes()


# ---------------------------------------------------------------- what comes out


@pytest.mark.usefixtures("here")
def test_the_table_is_tidy_and_its_numbers_are_those_of_single_runs(folder: Path) -> None:
    report = swept_here("small.yaml", "--out", "out", "--workers", "2", cwd=folder)
    counts = {name: report[name] for name in ("points", "ok", "failed", "crashed", "simulated")}
    assert counts == {"points": 6, "ok": 6, "failed": 0, "crashed": 0, "simulated": 6}
    table = pd.read_parquet(folder / "out" / "results.parquet")
    assert table["workload.batch"].tolist() == [1, 1, 1, 2, 2, 2]
    assert table["stacks"].tolist() == ["six", "six", "seven"] * 2
    assert table["system.device.power.idle"].fillna(0).tolist() == [100, 200, 0] * 2
    assert table["point"].is_unique
    assert table["error"].isna().all()
    schema = pq.read_schema(folder / "out" / "results.parquet")
    assert schema.field("decode.tpot").metadata == {b"unit": b"s"}
    assert schema.field("system.device.power.idle").metadata == {b"unit": b"W"}

    changes = {"workload.batch": 2, "system.device.memory.stacks": 7, "system.device.memory.capacity": "160 GB"}
    single = archsim.run(folder / "experiment.yaml", changes, out=folder / "single")
    row = table[(table["workload.batch"] == 2) & (table["stacks"] == "seven")].iloc[0]
    assert {name: row[name] for name in single.metrics} == {n: m.value for n, m in single.metrics.items()}
    best = report["best"]
    assert isinstance(best, dict)
    assert best["value"] == table["decode.tpot"].min()


def test_python_gives_the_same_rows_as_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    swept("small.yaml", "--out", "typed", "--workers", "2", cwd=folder)
    frame = archsim.sweep("small.yaml", out="called", workers=1)
    pd.testing.assert_frame_equal(frame, pd.read_parquet("typed/results.parquet"))
    assert frame.attrs["units"]["decode.energy_per_token"] == "J"
    assert (folder / "called/results.parquet").read_bytes() == (folder / "typed/results.parquet").read_bytes()

    axes = {"workload.batch": [1, 2], "system.device.power.idle": ["100 W", "200 W"]}
    part = archsim.sweep("experiment.yaml", axes, out="called", workers=1)
    shared = frame[frame["stacks"] == "six"]
    assert part["point"].tolist() == shared["point"].tolist(), "the same experiments have the same keys"
    assert part["decode.tpot"].tolist() == shared["decode.tpot"].tolist()


def test_a_script_needs_no_guard_around_a_sweep(folder: Path) -> None:
    """A spawned worker would import the script anew, and sweep again, if it were let."""
    script = folder / "script.py"
    call = "archsim.sweep('experiment.yaml', {'workload.batch': [1, 2]}, out='out', workers=2)"
    script.write_text(f"import archsim\nprint('started')\nprint(len({call}))\n")
    done = subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout.split() == ["started", "2"], done.stderr


@pytest.mark.usefixtures("here")
def test_an_experiment_may_say_itself_what_to_vary(folder: Path) -> None:
    file = folder / "experiment.yaml"
    plain = archsim.load(file).digest()
    file.write_text(file.read_text() + "sweep:\n  axes: {workload.batch: [4, 8]}\n")
    report = swept_here("experiment.yaml", "workload.prefill=null", "--out", "out", cwd=folder)
    assert report["ok"] == 2
    assert archsim.load(file).digest() == plain, "a single run takes no notice of it"
    table = pd.read_parquet(folder / "out" / "results.parquet")
    assert not [name for name in table if name.startswith("prefill.")]


@pytest.mark.usefixtures("here")
def test_run_directories_are_kept_if_asked_for(folder: Path) -> None:
    words = ("experiment.yaml", "workload.prefill=null", "--out", "out")
    (folder / "experiment.yaml").write_text(
        (folder / "experiment.yaml").read_text() + "sweep: {axes: {workload.batch: [4, 8]}}\n"
    )
    swept_here(*words, cwd=folder)
    report = swept_here(*words, "--keep-runs", cwd=folder)
    assert report["simulated"] == 2, "they were there, but without their directories"
    for key in pd.read_parquet(folder / "out" / "results.parquet")["point"]:
        assert archsim.open_run(folder / "out" / "runs" / key).metrics["decode.tpot"].value > 0
    assert swept_here(*words, "--keep-runs", cwd=folder)["simulated"] == 0


@pytest.mark.usefixtures("here")
def test_people_get_the_best_points_and_scripts_a_rate(folder: Path) -> None:
    out, err = command("sweep", "small.yaml", "--out", "out", "--best", "decode.throughput", cwd=folder)
    assert "Best by decode.throughput" in out
    assert "results.parquet" in out
    assert "6/6 points" in err
    assert "points/s" in err
    assert "best decode.throughput" in err


# ---------------------------------------------------------------- what fails


@pytest.mark.usefixtures("here")
def test_axes_reach_every_tier(folder: Path) -> None:
    (folder / "tiers.yaml").write_text(
        "kind: sweep\nexperiment: experiment.yaml\n"
        "set: {system: h200_hbf, workload.prefill: null}\n"
        "axes: {system.device.tiers.hbf.technology.timings.tR: [4 us, 8 us]}\n"
    )
    report = swept_here("tiers.yaml", "--out", "out", cwd=folder)
    assert report["ok"] == 2
    table = pd.read_parquet(folder / "out" / "results.parquet")
    assert table["system.device.tiers.hbf.technology.timings.tR"].tolist() == [4, 8]
    assert table["decode.tpot"].is_monotonic_increasing and table["decode.tpot"].is_unique
    assert (table["decode.tier.hbf.bytes"] > 0).all()


@pytest.mark.usefixtures("here")
def test_a_point_that_fails_is_a_row_and_the_others_go_on(folder: Path) -> None:
    (folder / "failing.yaml").write_text(
        "kind: sweep\nexperiment: experiment.yaml\n"
        "axes: {workload.tensor_parallel: [1, 2], workload.decode.context_tokens: [512, 100000000]}\n"
    )
    report = swept_here("failing.yaml", "--out", "out", cwd=folder)
    assert (report["ok"], report["failed"]) == (1, 3)
    table = pd.read_parquet(folder / "out" / "results.parquet")
    assert table["status"].tolist() == ["ok", "failed", "failed", "failed"]
    assert "KV cache need" in table["error"][1]
    assert "2 devices are wanted, the system has 1" in table["error"][2]
    assert table["decode.tpot"].notna().tolist() == [True, False, False, False]
    assert swept_here("failing.yaml", "--out", "out", cwd=folder)["simulated"] == 0, "they would fail again"


@pytest.mark.usefixtures("here")
def test_if_nothing_works_it_says_so(folder: Path) -> None:
    (folder / "all.yaml").write_text(
        "kind: sweep\nexperiment: experiment.yaml\naxes: {workload.decode.context_tokens: [100000000, 200000000]}\n"
    )
    out, _ = command("sweep", "all.yaml", "--out", "out", cwd=folder, expect=2)
    assert "2 points failed" in out
    assert "KV cache need" in out


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("experiment: experiment.yaml\naxes: {workload.bacth: [1]}", (), "unknown key 'bacth'"),
        ("experiment: experiment.yaml\naxis: {workload.batch: [1]}", (), "sweep.yaml:3: axis: unknown key 'axis'"),
        ("experiment: nowhere\naxes: {workload.batch: [1]}", (), "there is no experiment 'nowhere'"),
        ("axes: {workload.batch: [1]}", (), "names no experiment"),
        ("experiment: experiment.yaml\naxes: {workload.batch: [1]}", ("workload.batch=2",), "but the sweep varies it"),
        ("experiment: experiment.yaml\naxes: {workload.batch: [1]}", ("--best", "decode.tpto"), "mean 'decode.tpot'?"),
        (
            "experiment: experiment.yaml\naxes: {workload.batch: [1]}",
            ("--best", "decode.time.row"),
            "neither is better",
        ),
        ("experiment: experiment.yaml\naxes: {workload.batch: [1]}", ("--workers", "0"), "expected at least 1"),
        ("experiment: experiment.yaml\naxes: {workload.batch: [1]}", ("--out", "long.yaml"), "it is a file"),
        ("experiment: experiment.yaml\naxes: {workload.batch: [1]}", ("--out", "."), "not a sweep"),
    ],
)
def test_mistakes_are_told_before_anything_runs(folder: Path, text: str, words: tuple[str, ...], said: str) -> None:
    (folder / "sweep.yaml").write_text(f"kind: sweep\n{text}\n")
    before = sorted(folder.rglob("*"))
    _, err = command("sweep", "sweep.yaml", *words, cwd=folder, expect=2)
    assert said in err
    assert sorted(folder.rglob("*")) == before


def test_a_sweep_is_no_search_and_no_single_run(folder: Path) -> None:
    with pytest.raises(UserError, match=r"is a sweep, no search \(expected archsim sweep"):
        archsim.search(folder / "small.yaml", out=folder / "out")
    with pytest.raises(UserError, match=r"is a sweep, which is many runs \(expected an experiment, or `archsim sweep`"):
        archsim.run(folder / "small.yaml", out=folder / "out")
    assert not (folder / "out").exists()


def test_an_experiment_without_axes_is_no_sweep(folder: Path) -> None:
    with pytest.raises(UserError, match="says nothing about what to vary"):
        archsim.sweep(folder / "experiment.yaml", out=folder / "out")


# ---------------------------------------------------------------- interruptions


def test_after_kill_9_it_goes_on_and_ends_with_the_same_table(folder: Path, uninterrupted: bytes) -> None:
    out = folder / "out"
    process = started("long.yaml", "--workers", "2", "--out", "out", cwd=folder)
    until(lambda: landed(out) >= 10, "the first points")
    workers = workers_of(process)
    process.kill()
    process.communicate()
    left = landed(out)
    assert 10 <= left < LONG_POINTS
    assert not (out / "results.parquet").exists()
    for file in (out / "points").glob("*.json"):
        assert json.loads(file.read_text())["status"] == "ok", "what has landed is whole"
    assert workers
    _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
    assert not alive, "workers end with the process that started them"

    report = swept("long.yaml", "--workers", "2", "--out", "out", cwd=folder)
    assert report["simulated"] == LONG_POINTS - left, "what is done isn't done again"
    assert (out / "results.parquet").read_bytes() == uninterrupted


def test_ctrl_c_ends_cleanly(folder: Path, uninterrupted: bytes) -> None:
    out = folder / "out"
    process = started("long.yaml", "--workers", "2", "--out", "out", cwd=folder)
    until(lambda: landed(out) >= 5, "the first points")
    os.killpg(process.pid, signal.SIGINT)  # the terminal sends it to every process of the group
    _, err = ended(process, expect=130)
    assert f"of {LONG_POINTS} points are in {out}; the same command goes on from there" in err
    partial = pd.read_parquet(out / "results.parquet")
    assert 5 <= len(partial) == landed(out) < LONG_POINTS
    with pytest.MonkeyPatch.context() as patch:
        simulate_here(patch)
        swept_here("long.yaml", "--out", "out", cwd=folder)
    assert (out / "results.parquet").read_bytes() == uninterrupted


def test_ctrl_c_while_workers_start(folder: Path) -> None:
    process = started("long.yaml", "--workers", "2", "--out", "out", cwd=folder)
    until(lambda: process.poll() is not None or bool(workers_of(process)), "a worker")
    os.killpg(process.pid, signal.SIGINT)
    _, err = ended(process, expect=130)
    assert "the same command goes on from there" in err


def test_a_worker_that_is_killed_is_replaced(folder: Path, uninterrupted: bytes) -> None:
    out = folder / "out"
    process = started("long.yaml", "--workers", "1", "--out", "out", "--json", cwd=folder)
    until(lambda: landed(out) >= 5, "the first points")
    for worker in workers_of(process):
        worker.kill()
    text, _ = ended(process)
    assert json.loads(text)["ok"] == LONG_POINTS
    assert (out / "results.parquet").read_bytes() == uninterrupted


@pytest.mark.usefixtures("here")
def test_a_torn_or_crashed_point_is_simulated_again(folder: Path) -> None:
    swept_here("small.yaml", "--out", "out", cwd=folder)
    before = (folder / "out" / "results.parquet").read_bytes()
    first, second, third, *_ = sorted((folder / "out" / "points").glob("*.json"))
    first.write_bytes(first.read_bytes()[:100])  # as after a loss of power
    second.write_text(second.read_text().replace('"status": "ok"', '"status": "crashed"'))
    third.unlink()
    assert swept_here("small.yaml", "--out", "out", cwd=folder)["simulated"] == 3
    assert (folder / "out" / "results.parquet").read_bytes() == before


def test_two_sweeps_in_one_directory_get_along(folder: Path, uninterrupted: bytes) -> None:
    (folder / "other.yaml").write_text(LONG.replace("to: 6560, step: 64", "to: 6560, step: 48"))
    arguments = ("--workers", "1", "--out", "out")
    processes = [started(name, *arguments, cwd=folder) for name in ("long.yaml", "long.yaml", "other.yaml")]
    for process in processes:
        ended(process)
    tables = {file.name: file.read_bytes() for file in (folder / "out" / "tables").glob("*.parquet")}
    assert len(tables) == 2
    assert uninterrupted in tables.values()
    assert (folder / "out" / "results.parquet").read_bytes() in tables.values()
    (other,) = (table for table in tables.values() if table != uninterrupted)
    with pytest.MonkeyPatch.context() as patch:
        simulate_here(patch)
        swept_here("other.yaml", "--out", "alone", cwd=folder)
    assert (folder / "alone" / "results.parquet").read_bytes() == other
    assert not list((folder / "out").rglob("*.tmp"))


# ---------------------------------------------------------------- clusters


@contextmanager
def scheduler_and_workers(folder: Path, count: int) -> Iterator[str]:
    """A dask scheduler and workers, each a process as an administrator would start it; the scheduler's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    dask = [sys.executable, "-m", "dask"]
    host, _, port = address.removeprefix("tcp://").partition(":")
    scheduler = [*dask, "scheduler", "--host", host, "--port", port, "--no-dashboard"]
    worker = [*dask, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", "."]
    quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(words, **quiet) for words in (scheduler, *[worker] * count)]  # type: ignore[call-overload]
    try:
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(timeout=PATIENCE_S)


def test_a_scheduler_and_workers_of_their_own_give_the_same_table(folder: Path, uninterrupted: bytes) -> None:
    pytest.importorskip("distributed")
    elsewhere = folder / "elsewhere"  # workers need none of the sweep's files
    elsewhere.mkdir()
    with scheduler_and_workers(elsewhere, 2) as address:
        report = swept("long.yaml", "--dask", address, "--out", "out", cwd=folder)
    assert report["ok"] == LONG_POINTS
    assert (folder / "out" / "results.parquet").read_bytes() == uninterrupted


def test_a_local_cluster_gives_the_same_table(folder: Path, uninterrupted: bytes) -> None:
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster:
        archsim.sweep(folder / "long.yaml", dask=cluster, out=folder / "out")
    assert (folder / "out" / "results.parquet").read_bytes() == uninterrupted


def test_no_scheduler_is_a_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(sys.modules["archsim.sweep.executors"], "DASK_CONNECT_SECONDS", 0.5)
    with pytest.raises(UserError, match="there is no dask scheduler"):
        archsim.sweep(folder / "small.yaml", dask="tcp://127.0.0.1:9", out=folder / "out")


def test_validate_looks_into_sweeps(folder: Path) -> None:
    (folder / "wrong.yaml").write_text("kind: sweep\nexperiment: experiment.yaml\naxes: {x: [1]}\nwhere: y > 1\n")
    shipped = Path(__file__).resolve().parents[2] / "experiments" / "sweep_llama3_70b" / "experiment.yaml"
    for files, code, said in ((["small.yaml", str(shipped)], 0, "ok (sweep)"), (["wrong.yaml"], 2, "names 'y'")):
        assert said in "".join(command("validate", *files, cwd=folder, expect=code))


def test_the_shipped_sweep_has_a_thousand_points() -> None:
    plan = plan_sweep("sweep_llama3_70b", None, (), None)
    assert len(plan.space.points) == 1000
    assert len({point.hardware for point in plan.space.points}) == 5

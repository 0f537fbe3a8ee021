"""`archsim search` as a user meets it: trials, constraints, interruptions, several workers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from browser import needs_chromium, opened_in_chromium
from in_process import command, simulate_here
from small_experiment import write_phases

import archsim

COMMAND = [sys.executable, "-c", "from archsim.cli import main; main()"]
PATIENCE_S = 300.0  # the first point may compile the kernels

SEARCH = """\
kind: search
experiment: experiment.yaml
set: {workload.prefill: null}
axes:
  workload.batch: {from: 1, to: 64, scale: log}
  stacks:
    cases:
      five: {system.device.memory.stacks: 5, system.device.memory.capacity: 117.5 GB}
      six: {}
      too many: {workload.tensor_parallel: 2}
  system.device.power.idle: {from: 100 W, to: 200 W, when: stacks == 'six'}
quantities:
  area: {expression: 121 * system.device.memory.stacks, unit: mm2}
objectives: [decode.throughput, decode.energy_per_token, {value: area, direction: minimize}]
constraints: [decode.tpot <= 90 us, system.device.memory.capacity >= 117.5 GB]
sampler: nsga2
population: 8
trials: 30
seed: 1
"""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's sweeps and searches start no workers."""
    simulate_here(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_search(tmp_path)


def write_search(below: Path) -> Path:
    """The folder has the same name everywhere: keys depend on the model's name."""
    folder = below / "two_layers"
    folder.mkdir()
    write_phases(folder)
    (folder / "search.yaml").write_text(SEARCH)
    return folder


def started(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "search", *arguments], cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def ended(process: subprocess.Popen[str], expect: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in out + err, err
    assert process.returncode == expect, err
    return out, err


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The search, run in one go by one worker; the folder it ran in."""
    folder = write_search(tmp_path_factory.mktemp("uninterrupted"))
    with pytest.MonkeyPatch.context() as patch:
        simulate_here(patch)
        words = ("search.yaml", "--workers", "1", "--out", "out", "--json")
        report = json.loads(command("search", *words, cwd=folder)[0])
    assert report["trials"] == 30
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_the_table_is_tidy_and_its_front_is_one(uninterrupted: Path) -> None:
    file = uninterrupted / "out" / "results.parquet"
    table = pd.read_parquet(file)
    assert table["trial"].tolist() == list(range(30))
    assert pq.read_schema(file).field("area").metadata == {b"unit": b"mm2"}
    failed = table[table["status"] == "failed"]
    assert len(failed) > 0 and (failed["stacks"] == "too many").all() and failed["feasible"].isna().all()
    assert failed["error"].str.contains("2 devices are wanted").all(), "failed points are told, and go on"

    done = table[table["status"] == "ok"]
    assert (done["feasible"] == (done["decode.tpot"] <= 90e-6)).all()
    assert 0 < done["feasible"].sum() < len(done), "the constraint cuts the space"
    assert (done["area"] == done["stacks"].map({"five": 605, "six": 726})).all()
    allowed = done[done["feasible"].astype(bool)]
    wanted = pd.DataFrame(
        {"t": -allowed["decode.throughput"], "e": allowed["decode.energy_per_token"], "a": allowed["area"]}
    )
    for index, row in wanted.iterrows():
        beaten = ((wanted <= row).all(axis=1) & (wanted < row).any(axis=1)).any()
        assert beaten != table.loc[index, "best"]
    assert not table[~table.index.isin(allowed.index)]["best"].any()
    report = json.loads((uninterrupted / "report.json").read_text())
    assert [one["trial"] for one in report["best"]] == table[table["best"]]["trial"].tolist()


@needs_chromium
def test_a_browser_draws_the_trials(uninterrupted: Path, tmp_path: Path) -> None:
    page = Path(json.loads((uninterrupted / "report.json").read_text())["page"])
    assert page == uninterrupted / "out" / "search.html"
    dom, log = opened_in_chromium(page, tmp_path)
    table = pd.read_parquet(uninterrupted / "out" / "results.parquet")
    pareto, parallel = dom.index('id="figure-pareto"'), dom.index('id="figure-parallel"')
    done = (table["status"] == "ok").sum()
    assert len(re.findall(r'<path class="point"', dom[pareto:parallel])) == done
    outside = (table["feasible"].eq(False)).sum()
    said = f"{outside} left out by decode.tpot &lt;= 90 us, system.device.memory.capacity &gt;= 117.5 GB"
    assert said in dom and "area" in dom and "feasible" not in dom[pareto:]
    assert (
        f"A line per point with a result, {done} of {len(table)}, {outside} of them outside of the constraints" in dom
    )
    assert "Uncaught" not in log and "SEVERE" not in log


def test_a_trial_is_an_ordinary_run(uninterrupted: Path) -> None:
    table = pd.read_parquet(uninterrupted / "out" / "results.parquet")
    row = table[(table["status"] == "ok") & (table["stacks"] == "six")].iloc[0]
    changes = {
        "workload.prefill": None,
        "workload.batch": int(row["workload.batch"]),
        "system.device.power.idle": f"{row['system.device.power.idle']} W",
    }
    single = archsim.run(uninterrupted / "experiment.yaml", changes, out=uninterrupted / "single")
    assert {name: row[name] for name in single.metrics} == {n: m.value for n, m in single.metrics.items()}


def test_python_and_the_same_seed_give_the_same_trials(folder: Path, uninterrupted: Path) -> None:
    frame = archsim.search(folder / "search.yaml", out=folder / "out", workers=1)
    assert (folder / "out" / "results.parquet").read_bytes() == (uninterrupted / "out" / "results.parquet").read_bytes()
    assert frame.attrs["units"]["area"] == "mm2"


def test_after_kill_9_it_goes_on_with_the_same_trials(
    folder: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = started("search.yaml", "--workers", "1", "--out", "out", cwd=folder)
    deadline = time.monotonic() + PATIENCE_S
    while len(list((folder / "out" / "points").glob("*.json"))) < 5:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    psutil.wait_procs(workers, timeout=PATIENCE_S)
    assert not (folder / "out" / "results.parquet").exists()
    left = len(list((folder / "out" / "points").glob("*.json")))
    simulate_here(monkeypatch)
    words = ("search.yaml", "--workers", "1", "--out", "out", "--json")
    report = json.loads(command("search", *words, cwd=folder)[0])
    assert report["simulated"] <= 31 - left, "what is done isn't done again"
    table = (folder / "out" / "results.parquet").read_bytes()
    assert table == (uninterrupted / "out" / "results.parquet").read_bytes()


@pytest.mark.usefixtures("here")
def test_more_trials_go_on_from_those_there(folder: Path, uninterrupted: Path) -> None:
    command("search", "search.yaml", "--trials", "10", "--workers", "1", "--out", "out", cwd=folder)
    out, err = command("search", "search.yaml", "--workers", "1", "--out", "out", cwd=folder)
    assert "Pareto front" in out and "30 trials" in out and "trials failed" in out
    assert "30/30 points" in err
    table = (folder / "out" / "results.parquet").read_bytes()
    assert table == (uninterrupted / "out" / "results.parquet").read_bytes()


def test_two_workers_share_the_trials(folder: Path) -> None:
    words = ("search.yaml", "--workers", "2", "--out", "out", "--json")
    report = json.loads(ended(started(*words, cwd=folder))[0])
    assert report["trials"] == 30 and report["best"]
    table = pd.read_parquet(folder / "out" / "results.parquet")
    assert table["trial"].tolist() == list(range(30))
    assert json.loads(command("search", *words, cwd=folder)[0])["simulated"] == 0


def test_a_dask_cluster_simulates_too(folder: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        frame = archsim.search(folder / "search.yaml", trials=6, dask=cluster, out=folder / "out")
    assert len(frame) == 6 and (frame["status"] == "ok").any()


@pytest.mark.usefixtures("here")
def test_if_nothing_is_feasible_it_says_so(folder: Path) -> None:
    text = SEARCH.replace("90 us", "1 us")
    (folder / "search.yaml").write_text(text)
    out, _ = command("search", "search.yaml", "--trials", "4", "--workers", "1", "--out", "out", cwd=folder, expect=2)
    assert "no trial keeps all constraints" in out
    page = (folder / "out" / "search.html").read_text()
    assert "No trial keeps decode.tpot &lt;= 1 us and" in page and "they take part all the same" in page


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        (("decode.throughput", "decode.thruput"), (), "mean 'decode.throughput'?"),
        (("sampler: nsga2", "sampler: nsga22"), (), "search.yaml:16: sampler"),
        (("experiment.yaml", "nowhere"), (), "there is no experiment 'nowhere'"),
        (("", ""), ("--trials", "0"), "expected at least 1"),
        (("", ""), ("workload.batch=2",), "but the search varies it"),
        (("", ""), ("--out", "."), "not a sweep"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    folder: Path, change: tuple[str, str], words: tuple[str, ...], said: str
) -> None:
    (folder / "search.yaml").write_text(SEARCH.replace(*change, 1) if change[0] else SEARCH)
    before = sorted(folder.rglob("*"))
    _, err = command("search", "search.yaml", *words, cwd=folder, expect=2)
    assert said in err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.usefixtures("here")
def test_a_section_of_an_experiment_and_validate(folder: Path) -> None:
    file = folder / "experiment.yaml"
    plain = archsim.load(file).digest()
    section = "search:\n  axes: {workload.batch: [1, 2]}\n  objectives: [decode.tpot]\n  trials: 3\n  sampler: random\n"
    file.write_text(file.read_text() + section)
    assert archsim.load(file).digest() == plain, "a single run takes no notice of it"
    command("validate", "experiment.yaml", "search.yaml", cwd=folder)
    (folder / "search.yaml").write_text(SEARCH.replace("decode.tpot <=", "decode.tpto <="))
    assert "mean 'decode.tpot'?" in "".join(command("validate", "search.yaml", cwd=folder, expect=2))
    frame = archsim.search(file, overrides=["workload.prefill=null"], out=folder / "out", workers=1)
    assert len(frame) == 3 and frame["best"].any()

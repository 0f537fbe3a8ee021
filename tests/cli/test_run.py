"""`archsim run` and `archsim compare` as a user types them: files, numbers, messages, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from small_experiment import LLAMA, PHASES, write_model, write_phases, write_requests

FILES = ("manifest.json", "metrics.json", "operators.parquet", "timeline.json", "report.html", "config.yaml")
NAMED = {
    "prefill.latency": "s",
    "decode.tpot": "s",
    "decode.hbm.bandwidth": "B/s",
    "decode.hbm.utilisation": "fraction",
    "decode.energy_per_token": "J",
}
COMMAND = [sys.executable, "-c", "from archsim.cli import main; main()"]


def archsim(*arguments: str | Path, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `archsim ARGUMENTS` in a process of its own and in a folder of its own."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"COLUMNS": "160"},
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    assert done.returncode == expect, done.stderr
    return done


def refused(*arguments: str | Path, cwd: Path) -> str:
    """What `archsim ARGUMENTS` says when it refuses: exit code 2, a message on stderr, nothing else anywhere."""
    before = sorted(cwd.rglob("*"))
    done = archsim(*arguments, cwd=cwd, expect=2)
    assert done.stdout == ""
    assert done.stderr.strip()
    assert sorted(cwd.rglob("*")) == before, "something was left behind"
    return done.stderr


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return write_phases(tmp_path)


# ---------------------------------------------------------------- archsim run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    done = archsim("run", write_phases(folder), "--out", folder / "out", cwd=folder)
    (folder / "said.txt").write_text(done.stdout)
    return folder


class TestRun:
    def test_the_directory_holds_every_file(self, folder: Path) -> None:
        for name in FILES:
            assert (folder / "out" / name).stat().st_size > 0, name

    def test_metrics_have_values_and_units(self, folder: Path) -> None:
        metrics = json.loads((folder / "out" / "metrics.json").read_text())
        for name, unit in NAMED.items():
            assert metrics[name].keys() == {"value", "unit"}
            assert metrics[name]["unit"] == unit
            assert metrics[name]["value"] > 0
        assert metrics["decode.hbm.utilisation"]["value"] < 1

    def test_the_terminal_shows_what_was_asked_for(self, folder: Path) -> None:
        said = (folder / "said.txt").read_text()
        for words in ("time to first token", "time per output token", "of peak", "energy per token", "bound by"):
            assert words in said
        assert str(folder / "out") in said.replace("\n", "")

    def test_the_timeline_is_one_perfetto_reads(self, folder: Path) -> None:
        timeline = json.loads((folder / "out" / "timeline.json").read_text())
        events = timeline["traceEvents"]
        assert any(event["ph"] == "X" and event["dur"] > 0 for event in events)

    def test_the_report_works_offline(self, folder: Path) -> None:
        report = (folder / "out" / "report.html").read_text()
        loaded = re.findall(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)\s*=\s*["']?(https?:)?//""", report)
        assert loaded == []

    def test_the_resolved_configuration_runs_to_the_same_numbers(self, folder: Path) -> None:
        archsim(
            "run", folder / "out" / "config.yaml", f"workload.model={folder}/config.json", "--out", "again", cwd=folder
        )
        first, again = (folder / name / "metrics.json" for name in ("out", "again"))
        assert first.read_bytes() == again.read_bytes()

    def test_json_is_one_object(self, experiment: Path, tmp_path: Path) -> None:
        done = archsim("run", experiment, "workload.batch=2", "--out", "out", "--json", cwd=tmp_path)
        assert len(done.stdout.splitlines()) == 1
        said = json.loads(done.stdout)
        assert said["metrics"] == json.loads((tmp_path / "out" / "metrics.json").read_text())
        assert Path(tmp_path, said["directory"]) == tmp_path / "out"

    def test_requests(self, tmp_path: Path) -> None:
        archsim("run", write_requests(tmp_path), "workload.limit=3", "--out", "out", "--json", cwd=tmp_path)
        requests = pd.read_parquet(tmp_path / "out" / "requests.parquet")
        assert len(requests) == 3
        assert {"ttft_fs", "tpot_fs", "energy_pj"} <= set(requests)

    def test_roofline(self, experiment: Path, tmp_path: Path) -> None:
        done = archsim("run", experiment, "--fidelity", "roofline", "--out", "out", "--json", cwd=tmp_path)
        assert json.loads(done.stdout)["metrics"]["decode.roofline_ratio"]["value"] == 1


# ---------------------------------------------------------------- bad input: a message, exit code 2, nothing left


class TestBadInput:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        assert "none.yaml" in refused("run", "none.yaml", cwd=tmp_path)

    def test_an_unknown_experiment_names_the_nearest(self, tmp_path: Path) -> None:
        assert "did you mean 'llama3_70b_h200x8'" in refused("run", "llama3_70b_h200x", cwd=tmp_path)

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            (
                "system: h200",
                "system: {base: h200, device: {memory: {capacity: 141 GB/s}}}",
                ["experiment.yaml:3", "141 GB/s"],
            ),
            ("system: h200", "system: {base: h200, device: {memory: {capacity: 141}}}", ["unit"]),
            ("system: h200", "system: {base: h200, device: {memory: {stacks: 0}}}", ["stacks"]),
            ("batch: 4", "bach: 4", ["experiment.yaml:7", "did you mean 'batch'"]),
            ("batch: 4", "batch: 4\n  batch: 5", ["experiment.yaml:8", "stands twice"]),
            ("batch: 4", "batch: 0", ["experiment.yaml:7", "batch"]),
            ("batch: 4", "batch: -4", ["experiment.yaml:7", "batch"]),
            ("batch: 4", "batch: .nan", ["experiment.yaml:7", "finite"]),
            ("batch: 4", "batch: 4.5", ["experiment.yaml:7", "batch"]),
            ("prompt_tokens: 128", "prompt_tokens: 0", ["prompt_tokens"]),
            ("context_tokens: 512", "context_tokens: .inf", ["context_tokens"]),
            ("system: h200", "system: h20", ["did you mean 'h200'"]),
            ("system: h200", "system: [", ["experiment.yaml"]),
            ("kind: experiment\n", "", ["kind"]),
            ("batch: 4", "tensor_parallel: 3", ["not divisible by 3"]),
        ],
    )
    def test_a_mistake_in_the_file(self, experiment: Path, tmp_path: Path, old: str, new: str, said: list[str]) -> None:
        experiment.write_text(PHASES.replace(old, new))
        message = refused("run", experiment, "--out", "out", cwd=tmp_path)
        for words in said:
            assert words in message

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("workload.bach=2", "did you mean"),
            ("workload.batch=two", "workload.batch"),
            ("workload.batch", "workload.batch"),
            ("system.device.memory.capacity=141 GBs", "did you mean"),
            ("fidelity=cycles", "did you mean 'cycle'"),
        ],
    )
    def test_a_mistake_on_the_command_line(self, experiment: Path, tmp_path: Path, override: str, said: str) -> None:
        assert said in refused("run", experiment, override, "--out", "out", cwd=tmp_path)

    def test_heads_that_cannot_be_split(self, experiment: Path, tmp_path: Path) -> None:
        changes = ["system=h200x8", "system.devices=5", "workload.tensor_parallel=5"]
        message = refused("run", experiment, *changes, "--out", "out", cwd=tmp_path)
        assert "heads" in message and "5" in message

    def test_more_devices_than_there_are(self, experiment: Path, tmp_path: Path) -> None:
        assert "the system has 1" in refused("run", experiment, "workload.tensor_parallel=2", cwd=tmp_path)

    def test_a_model_that_does_not_fit(self, experiment: Path, tmp_path: Path) -> None:
        message = refused("run", experiment, "workload.model=llama-3.1-405b", "--out", "out", cwd=tmp_path)
        assert re.search(r"need 8\d\d GB .* has 141 GB: 6\d\d GB too much", message)
        assert "tensor_parallel" in message

    def test_a_context_that_does_not_fit(self, experiment: Path, tmp_path: Path) -> None:
        message = refused("run", experiment, "workload.decode.context_tokens=100000000", "--out", "out", cwd=tmp_path)
        assert "too much" in message

    def test_an_unknown_architecture(self, experiment: Path, tmp_path: Path) -> None:
        write_model(tmp_path, architectures=["MambaForCausalLM"], model_type="mamba")
        message = refused("run", experiment, "--out", "out", cwd=tmp_path)
        assert "mamba" in message.lower()
        assert "llama" in message.lower()

    @pytest.mark.parametrize("changes", [{"num_hidden_layers": 0}, {"hidden_size": -1}, {"vocab_size": "many"}])
    def test_a_model_with_senseless_sizes(self, experiment: Path, tmp_path: Path, changes: dict[str, object]) -> None:
        write_model(tmp_path, **changes)
        assert next(iter(changes)) in refused("run", experiment, "--out", "out", cwd=tmp_path)

    @pytest.mark.parametrize(
        "text", ["{", "[]", "", json.dumps({k: v for k, v in LLAMA.items() if k != "hidden_size"})]
    )
    def test_a_broken_config_json(self, experiment: Path, tmp_path: Path, text: str) -> None:
        (tmp_path / "config.json").write_text(text)
        assert "config.json" in refused("run", experiment, "--out", "out", cwd=tmp_path)

    def test_an_output_directory_below_a_file(self, experiment: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        refused("run", experiment, "--out", "file/out", cwd=tmp_path)
        refused("run", experiment, "--out", "file", cwd=tmp_path)
        assert (tmp_path / "file").read_text() == "mine"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_an_output_directory_without_permission(self, experiment: Path, tmp_path: Path) -> None:
        (tmp_path / "closed").mkdir(mode=0o555)
        refused("run", experiment, "--out", "closed/out", cwd=tmp_path)

    def test_a_folder_of_something_else_is_not_overwritten(self, experiment: Path, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.tex").write_text("years of work")
        refused("run", experiment, "--out", "mine", cwd=tmp_path)
        assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"

    @pytest.mark.parametrize(
        "trace",
        [
            "",
            "TIMESTAMP,ContextTokens\n2025-01-01 00:00:00,7\n",
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2025-01-01 00:00:00,0,3\n",
            "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,7,3\n",
            "TIMESTAMP,ContextTokens,GeneratedTokens\n",
        ],
    )
    def test_a_broken_trace(self, tmp_path: Path, trace: str) -> None:
        assert "trace.csv" in refused("run", write_requests(tmp_path, trace), "--out", "out", cwd=tmp_path)


# ---------------------------------------------------------------- Ctrl-C


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("shown", [[], ["--json"]], ids=["terminal", "json"])
def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path, shown: list[str]) -> None:
    """Interrupted in the middle of the simulation, over a run directory that is there already: that one stays."""
    rows = "".join(f"2025-01-01 00:{n // 60:02}:{n % 60:02}.0,600,900\n" for n in range(2000))
    trace = f"TIMESTAMP,ContextTokens,GeneratedTokens\n{rows}".replace("00:60", "01:00")
    experiment = write_requests(tmp_path, trace)
    archsim("run", experiment, "workload.limit=1", "--out", "out", "--json", cwd=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    process = subprocess.Popen(
        [*COMMAND, "run", str(experiment), "workload.limit=1500", "--out", "out", *shown],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for_processor_seconds(process, 4.0)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "interrupted, nothing written" in err
    assert "Traceback" not in out + err
    if shown:
        assert out == ""
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def wait_for_processor_seconds(process: subprocess.Popen[str], seconds: float) -> None:
    """Until a process has computed for a while: past its imports, in the middle of its work."""
    ticks = os.sysconf("SC_CLK_TCK")
    stat = Path(f"/proc/{process.pid}/stat")
    if not stat.exists():  # no /proc here
        time.sleep(2 * seconds)
        return
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        fields = stat.read_text().rpartition(")")[2].split()
        if (int(fields[11]) + int(fields[12])) / ticks >= seconds:
            return
        time.sleep(0.05)
    raise AssertionError("the process does not get going")


# ---------------------------------------------------------------- archsim compare


class TestCompare:
    @pytest.fixture
    def measured(self, tmp_path: Path) -> Path:
        file = tmp_path / "gemm.parquet"
        columns = {
            "m": [1, 16, 4096],
            "n": [8192, 8192, 4096],
            "k": [8192, 8192, 4096],
            "gemm_dtype": ["bfloat16"] * 3,
            "latency": [0.0353, 0.0360, 0.21],
            "power": [400.0, 410.0, float("nan")],
        }
        pd.DataFrame(columns).to_parquet(file)
        return file

    def test_the_terminal(self, measured: Path, tmp_path: Path) -> None:
        said = archsim("compare", "h200", measured, cwd=tmp_path).stdout
        for words in ("latency", "power", "bias", "median", "p90", "worst rows"):
            assert words in said
        assert sorted(tmp_path.iterdir()) == [measured]

    def test_json_and_files(self, measured: Path, tmp_path: Path) -> None:
        done = archsim("compare", "h200", measured, "--where", "m < 100", "--out", "out", "--json", cwd=tmp_path)
        (comparison,) = json.loads(done.stdout)["comparisons"]
        assert comparison["kind"] == "gemm"
        assert comparison["latency"]["count"] == comparison["power"]["count"] == 2
        assert comparison["latency"]["median"] < 0.3
        rows = pd.read_parquet(tmp_path / "out" / "comparison.parquet")
        assert (rows["predicted_latency_ms"] > 0).all()
        assert (tmp_path / "out" / "latency.png").stat().st_size > 0

    @pytest.mark.parametrize("preset", ["a100", "h100", "b200"])
    def test_other_presets(self, measured: Path, tmp_path: Path, preset: str) -> None:
        done = archsim("compare", preset, measured, "--json", cwd=tmp_path)
        assert json.loads(done.stdout)["system"] == preset

    @pytest.mark.parametrize(
        ("where", "said"),
        [
            ("speed > 3", "speed"),
            ("m <", "--where"),
            ("m > 10**9", "no measured row is left"),
            ("__import__('os')", "--where"),
        ],
    )
    def test_a_bad_where(self, measured: Path, tmp_path: Path, where: str, said: str) -> None:
        assert said in refused("compare", "h200", measured, "--where", where, cwd=tmp_path)

    def test_a_missing_or_broken_file(self, tmp_path: Path) -> None:
        (tmp_path / "text.parquet").write_text("not parquet")
        assert "none.parquet" in refused("compare", "h200", "none.parquet", cwd=tmp_path)
        assert "text.parquet" in refused("compare", "h200", "text.parquet", cwd=tmp_path)

    def test_missing_columns(self, tmp_path: Path) -> None:
        pd.DataFrame({"m": [1], "n": [2], "latency": [1.0]}).to_parquet(tmp_path / "some.parquet")
        assert "k, gemm_dtype" in refused("compare", "h200", "some.parquet", cwd=tmp_path)

    def test_senseless_rows(self, measured: Path, tmp_path: Path) -> None:
        pd.read_parquet(measured).assign(n=0).to_parquet(tmp_path / "zero.parquet")
        assert "n is 0" in refused("compare", "h200", "zero.parquet", cwd=tmp_path)
        pd.read_parquet(measured).assign(gemm_dtype="bfloat61").to_parquet(tmp_path / "odd.parquet")
        assert "did you mean 'bfloat16'" in refused("compare", "h200", "odd.parquet", cwd=tmp_path)

    def test_an_unknown_system(self, measured: Path, tmp_path: Path) -> None:
        assert "did you mean 'h200'" in refused("compare", "h20", measured, cwd=tmp_path)


def test_no_shortcuts_gives_byte_identical_metrics(tmp_path: Path) -> None:
    file = write_phases(tmp_path)
    few = ["system.device.memory.stacks=1", "system.device.memory.capacity=20 GB", "workload.prefill=null"]
    for name, flag in (("quick", []), ("plain", ["--no-shortcuts"])):
        archsim("run", file, *few, *flag, "--out", tmp_path / name, "--json", cwd=tmp_path)
    metrics = [(tmp_path / name / "metrics.json").read_bytes() for name in ("quick", "plain")]
    assert metrics[0] == metrics[1]

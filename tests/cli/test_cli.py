"""The `archsim` command: what it imports, what it prints where, and how it exits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jsonschema
import pandas as pd
import pytest
import yaml
from in_process import Outcome

import archsim
from archsim.config.errors import UserError
from archsim.experiment import load_experiment, shipped_experiments
from archsim.metrics import Metric

HEAVY = ("numba", "numpy", "pandas", "pyarrow", "plotly", "matplotlib", "simpy", "rich", "yaml")

EXPERIMENT = """\
kind: experiment
name: small
system: h200
workload:
  kind: phases
  model: llama-3-8b
  batch: 4
  prefill: {prompt_tokens: 128}
  decode: {context_tokens: 256}
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    file = tmp_path / "experiment.yaml"
    file.write_text(EXPERIMENT)
    return file


def in_fresh_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["compare", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["archsim", *{arguments!r}]
from archsim.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("loaded:", *(name for name in {HEAVY!r} if name in sys.modules))
"""
    assert in_fresh_process(code).splitlines()[-1] == "loaded:"


def test_help_names_every_command(invoke: Any) -> None:
    outcome = invoke("--help")
    assert outcome.code == 0
    for command in ("run", "validate", "describe", "schema", "compare"):
        assert f"  {command} " in outcome.out


def test_version(invoke: Any) -> None:
    assert invoke("--version") == Outcome(0, f"archsim {archsim.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["nonsense"], ["run"], ["run", "x", "--nonsense"], ["compare", "h200"]])
def test_wrong_usage_exits_2(invoke: Any, arguments: list[str]) -> None:
    outcome = invoke(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err


class TestPublicNames:
    def test_all_are_there_and_listed(self) -> None:
        for name in archsim.__all__:
            assert getattr(archsim, name) is not None
            assert name in dir(archsim)

    def test_unknown_name(self) -> None:
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            archsim.nonsense  # noqa: B018

    @pytest.mark.parametrize("first", ["import archsim.run", "from archsim.run import kernel_predictor", "archsim.run"])
    def test_run_is_the_function_in_whatever_order(self, first: str) -> None:
        code = f"import archsim; {first}; from archsim import run; print(callable(archsim.run), run is archsim.run)"
        assert in_fresh_process(code) == "True True\n"

    def test_importing_the_package_is_cheap(self) -> None:
        code = f"import sys, archsim; print(*(name for name in {HEAVY!r} if name in sys.modules))"
        assert in_fresh_process(code).strip() == ""


class TestValidate:
    def test_everything_shipped_is_valid(self, invoke: Any) -> None:
        root = Path(archsim.__file__).parents[1]
        files = [str(path) for folder in ("hwconfigs", "experiments") for path in (root / folder).rglob("*.yaml")]
        outcome = invoke("validate", *files)
        assert outcome.code == 0, outcome.err
        assert len(outcome.out.splitlines()) == len(files)

    def test_five_mistakes_are_five_lines(self, invoke: Any, tmp_path: Path) -> None:
        file = tmp_path / "wrong.yaml"
        file.write_text(
            "kind: experiment\n"
            "name: wrong\n"
            "system: h2000\n"
            "workload:\n"
            "  kind: phases\n"
            "  model: llama-3-80b\n"
            "  batch: -4\n"
            "  bach: 3\n"
            "  decode: {context_tokens: 256 GB}\n"
        )
        outcome = invoke("validate", str(file))
        assert outcome.code == 2
        assert outcome.out == ""
        lines = outcome.err.splitlines()
        assert sorted(line.split(": ")[0] for line in lines) == [f"{file}:{number}" for number in (3, 6, 7, 8, 9)]
        assert "did you mean 'h200'?" in outcome.err
        assert "did you mean 'llama-3-70b'?" in outcome.err or "did you mean 'llama-3-8b'?" in outcome.err
        assert "did you mean 'batch'?" in outcome.err
        problems = invoke("validate", str(file), "--json").json["files"][0]["problems"]
        assert sorted(problem["line"] for problem in problems) == [3, 6, 7, 8, 9]

    def test_five_mistakes_in_a_memory(self, invoke: Any, tmp_path: Path) -> None:
        file = tmp_path / "memory.yaml"
        file.write_text(
            "base: hbm3e_24gb_8hi\n"
            "data_rate: 6.25 GB/s\n"
            "nmae: x\n"
            "pins_per_pseudo_channel: 0\n"
            "stack_capacity: 24\n"
            "timings:\n"
            "  tRP: 16.25\n"
        )
        lines = invoke("validate", str(file)).err.splitlines()
        assert sorted(line.split(": ")[0] for line in lines) == [f"{file}:{number}" for number in (2, 3, 4, 5, 7)]

    def test_a_missing_file_and_an_unknown_kind(self, invoke: Any, tmp_path: Path) -> None:
        (tmp_path / "odd.yaml").write_text("kind: experimnt\n")
        outcome = invoke("validate", str(tmp_path / "none.yaml"), str(tmp_path / "odd.yaml"))
        assert outcome.code == 2
        assert "none.yaml does not exist" in outcome.err
        assert "did you mean 'experiment'?" in outcome.err
        assert "Traceback" not in outcome.err

    def test_good_files_are_named_beside_bad_ones(self, invoke: Any, experiment: Path, tmp_path: Path) -> None:
        (tmp_path / "bad.yaml").write_text("kind: experiment\n")
        outcome = invoke("validate", str(experiment), str(tmp_path / "bad.yaml"))
        assert outcome.code == 2
        assert outcome.out == f"{experiment}: ok (experiment)\n"

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("model: llama-3-8b", "model: ./none/config.json", "no such model file"),
            ("batch: 4", "batch: 4\n  tensor_parallel: 3", "not divisible by 3"),
            ("batch: 4", "batch: 4\n  tensor_parallel: 2", "the system has 1"),
            ("batch: 4", "batch: .nan", "not a finite number"),
            ("prefill: {prompt_tokens: 128}\n  decode: {context_tokens: 256}", "", "nothing to run"),
            ("kind: phases", "kind: phase", "did you mean 'phases'?"),
            ("name: small", "name: small\nname: twice", "the key stands twice, first on line 2"),
            ("system: h200", "system: h200\nfidelity: cylce", "did you mean 'cycle'?"),
            ("system: h200", "system: h200\nseed: -1", "too small"),
        ],
    )
    def test_what_does_not_fit(self, invoke: Any, experiment: Path, old: str, new: str, said: str) -> None:
        experiment.write_text(EXPERIMENT.replace(old, new))
        outcome = invoke("validate", str(experiment))
        assert outcome.code == 2
        assert said in outcome.err
        assert outcome.err.startswith(f"{experiment}:")

    def test_a_trace_that_is_not_there(self, invoke: Any, experiment: Path) -> None:
        requests = {"kind": "requests", "model": "llama-3-8b", "trace": ["none.csv", "nothing.csv"]}
        experiment.write_text(yaml.safe_dump({**yaml.safe_load(EXPERIMENT), "workload": requests}))
        outcome = invoke("validate", str(experiment))
        assert outcome.code == 2
        assert "there is no request trace 'none.csv' or 'nothing.csv'" in outcome.err


class TestDescribe:
    def test_the_catalogue(self, invoke: Any) -> None:
        found = invoke("describe", "--json").json
        assert {"systems", "memories", "models", "policies", "metrics", "formats", "experiments"} <= found.keys()
        assert "h200x8" in found["systems"]
        assert "llama-3-70b" in found["models"]
        assert "llama3_70b_h200x8" in found["experiments"]
        assert invoke("describe").code == 0

    def test_everything_listed_can_be_described(self, invoke: Any) -> None:
        for entries in invoke("describe", "--json").json.values():
            for name in entries:
                found = invoke("describe", name, "--json").json
                assert found["name"] == name
                assert found["facts"]

    def test_sources_stand_below_values_where_there_is_no_room_beside_them(
        self, invoke: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        narrow = invoke("describe", "h200").out.splitlines()
        monkeypatch.setenv("COLUMNS", "160")
        wide = invoke("describe", "h200").out.splitlines()
        limit = next(index for index, line in enumerate(narrow) if line.startswith("device.power.limit"))
        assert narrow[limit].split() == ["device.power.limit", "700", "W"]
        assert narrow[limit + 1].strip() == "NVIDIA H200 data sheet: maximum TDP"
        assert any(line.split()[:3] == ["device.power.limit", "700", "W"] and "maximum TDP" in line for line in wide)
        assert len(narrow) < 1.5 * len(wide) and max(map(len, narrow)) <= 80

    def test_a_preset_shows_its_numbers_with_their_sources(self, invoke: Any) -> None:
        outcome = invoke("describe", "hbm3e_24gb_8hi")
        assert outcome.code == 0
        assert "6.25 Gb/s" in outcome.out
        assert "NVIDIA H200" in outcome.out
        facts = invoke("describe", "hbm3e_24gb_8hi", "--json").json["facts"]
        assert facts["timings.tREFI"]["value"] == "3900 ns"
        assert all(fact["source"] for name, fact in facts.items() if name.startswith("timings."))

    def test_a_metric_of_a_phase(self, invoke: Any) -> None:
        facts = invoke("describe", "decode.tpot", "--json").json["facts"]
        assert facts["unit"]["value"] == "s"
        assert facts["better"]["value"] == "lower"
        assert "latency" in invoke("describe", "decode.hbm.bandwidth").out

    def test_a_value_of_a_policy(self, invoke: Any) -> None:
        found = invoke("describe", "fr_fcfs", "--json").json
        assert found["name"] == "scheduler"
        assert "fr_fcfs" in found["facts"]["values"]["value"]

    def test_a_category(self, invoke: Any) -> None:
        assert list(invoke("describe", "models", "--json").json) == ["models"]

    def test_a_file(self, invoke: Any, experiment: Path) -> None:
        assert invoke("describe", str(experiment), "--json").json["facts"]["workload.batch"]["value"] == 4

    def test_something_unknown_names_the_nearest(self, invoke: Any) -> None:
        outcome = invoke("describe", "h20")
        assert outcome.code == 2
        assert outcome.out == ""
        assert "did you mean 'h200'?" in outcome.err


class TestSchema:
    def test_shipped_experiments_fit(self, invoke: Any) -> None:
        schema = invoke("schema", "experiment").json
        jsonschema.Draft202012Validator.check_schema(schema)
        for file in shipped_experiments().values():
            jsonschema.validate(yaml.safe_load(file.read_text()), schema)

    def test_mistakes_do_not(self, invoke: Any) -> None:
        schema = invoke("schema").json
        wrong = {**yaml.safe_load(EXPERIMENT), "sede": 3}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)

    def test_json_is_one_line(self, invoke: Any) -> None:
        assert len(invoke("schema", "--json").out.splitlines()) == 1

    def test_an_unknown_kind(self, invoke: Any) -> None:
        outcome = invoke("schema", "sytem")
        assert outcome.code == 2
        assert "did you mean 'system'?" in outcome.err


class FakeRun(ModuleType):
    """Stands in for archsim.run: remembers what it was asked and answers at once."""

    def __init__(self, directory: Path) -> None:
        super().__init__("archsim.run")
        self.asked: list[tuple[Any, ...]] = []
        self.directory = directory

    def run(self, experiment: str, overrides: list[str], *, out: Path | None, progress: bool) -> SimpleNamespace:
        self.asked.append((experiment, overrides, out, progress))
        return SimpleNamespace(metrics={"decode.tpot": Metric(0.012, "s")}, directory=self.directory)

    def kernel_predictor(self, system: str, overrides: list[str]) -> SimpleNamespace:
        self.asked.append((system, overrides))
        return SimpleNamespace(predict=lambda _: (2 * 10**12, 5.0), replay_fs=0, predict_collective=None)


@pytest.fixture
def fake_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeRun:
    fake = FakeRun(tmp_path)
    monkeypatch.setitem(sys.modules, "archsim.run", fake)
    return fake


class TestRun:
    def test_json_is_one_object_and_nothing_else(self, invoke: Any, fake_run: FakeRun) -> None:
        outcome = invoke("run", "some", "workload.batch=2", "--out", "there", "--fidelity", "roofline", "--json")
        assert outcome.json == {
            "directory": str(fake_run.directory),
            "metrics": {"decode.tpot": {"value": 0.012, "unit": "s"}},
        }
        assert fake_run.asked == [("some", ["workload.batch=2", "fidelity=roofline"], Path("there"), False)]

    def test_the_terminal_gets_tables(self, invoke: Any, fake_run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("archsim.report.terminal.print_run", lambda run: print(run.metrics["decode.tpot"]))
        assert invoke("run", "some").out == "12.00 ms\n"
        assert fake_run.asked == [("some", [], None, True)]


class TestCompare:
    @pytest.fixture
    def measured(self, tmp_path: Path) -> Path:
        file = tmp_path / "gemm.parquet"
        rows = {"m": [1, 2], "n": [64, 64], "k": [64, 64], "gemm_dtype": ["bfloat16"] * 2, "latency": [2.0, 4.0]}
        pd.DataFrame(rows).to_parquet(file)
        return file

    def test_json(self, invoke: Any, fake_run: FakeRun, measured: Path, tmp_path: Path) -> None:
        out, again = tmp_path / "comparison", tmp_path / "again.parquet"
        again.write_bytes(measured.read_bytes())
        outcome = invoke(
            "compare", "h200", str(measured), str(again), "--json", "--out", str(out), "--set", "device.x=1"
        )
        assert outcome.json["system"] == "h200"
        first, second = outcome.json["comparisons"]
        assert first["latency"] == second["latency"]
        assert first["latency"]["count"] == 2
        assert (out / "gemm" / "comparison.json").is_file()
        assert (out / "again" / "comparison.json").is_file()
        assert fake_run.asked == [("h200", ["device.x=1"])]

    def test_two_files_of_one_name_do_not_overwrite_each_other(
        self, invoke: Any, fake_run: FakeRun, measured: Path, tmp_path: Path
    ) -> None:
        outcome = invoke("compare", "h200", str(measured), str(measured), "--out", str(tmp_path / "comparison"))
        assert outcome.code == 2
        assert "same name" in outcome.err

    def test_tables(self, invoke: Any, fake_run: FakeRun, measured: Path) -> None:
        outcome = invoke("compare", "h200", str(measured), "--where", "m == 1")
        assert outcome.code == 0
        assert "worst rows" in outcome.out

    def test_a_bad_expression(self, invoke: Any, fake_run: FakeRun, measured: Path) -> None:
        outcome = invoke("compare", "h200", str(measured), "--where", "nonsense == 1")
        assert outcome.code == 2
        assert outcome.out == ""


class TestFailures:
    """What a command raises, as an exit code and a message."""

    def fail_with(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        def raising(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr("archsim.commands.describe.describe", raising)

    def test_a_mistake_of_the_user(self, invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fail_with(monkeypatch, UserError("no", expected="yes"))
        assert invoke("describe") == Outcome(2, "", "error: no (expected yes)\n")

    def test_ctrl_c(self, invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fail_with(monkeypatch, KeyboardInterrupt())
        assert invoke("describe") == Outcome(130, "", "interrupted, nothing written\n")

    def test_a_bug_shows_its_traceback(self, invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fail_with(monkeypatch, RuntimeError("broken"))
        outcome = invoke("describe")
        assert outcome.code == 1
        assert "RuntimeError: broken" in outcome.err

    def test_a_reader_that_goes_away(self) -> None:
        code = "import sys; sys.argv = ['archsim', 'describe']; from archsim.cli import main; main()"
        archsim_process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert archsim_process.stdout is not None and archsim_process.stderr is not None
        archsim_process.stdout.close()
        said = archsim_process.stderr.read()
        archsim_process.stderr.close()
        assert archsim_process.wait(timeout=60) != 0
        assert said == b""


class TestExperiments:
    def test_overrides_reach_workload_and_system(self) -> None:
        name = "llama3_70b_h200x8"
        assert load_experiment(name).spec.workload.model == "llama-3-70b"
        changed = load_experiment(name, {"workload.batch": 64, "workload.model": "llama-3-8b"})
        assert (changed.spec.workload.model, changed.model.name) == ("llama-3-8b", "llama-3-8b")
        assert (
            load_experiment(name, ["workload.batch=64"]).digest()
            == load_experiment(name, {"workload.batch": 64}).digest()
        )
        assert load_experiment(name).digest() != changed.digest()

    def test_another_system_and_a_change_to_it(self) -> None:
        both = ["system=h200", "system.name=changed", "workload.tensor_parallel=1"]
        changed = load_experiment("llama3_70b_h200x8", both)
        assert changed.system.spec.name == "changed"
        assert changed.system.spec.devices == 1

    def test_another_system_that_is_not_there(self) -> None:
        with pytest.raises(UserError, match="system=h20': system: there is no preset 'h20'"):
            load_experiment("llama3_70b_h200x8", ["system=h20", "system.name=changed"])

    def test_the_resolved_configuration_loads_to_the_same(self, tmp_path: Path) -> None:
        first = load_experiment("llama3_70b_h200x8", ["system.name=changed"])
        file = tmp_path / "config.yaml"
        file.write_text(first.loaded.to_yaml())
        assert load_experiment(file).spec == first.spec

    def test_the_first_trace_that_exists(self, tmp_path: Path, experiment: Path) -> None:
        requests = {"kind": "requests", "model": "llama-3-8b", "trace": ["mine.csv", "traces/sample_conversation.csv"]}
        experiment.write_text(yaml.safe_dump({**yaml.safe_load(EXPERIMENT), "workload": requests}))
        shipped = load_experiment(experiment, ["workload.limit=5"])
        assert shipped.trace is not None and shipped.trace.name == "sample_conversation.csv"
        assert len(shipped.requests()) == 5
        (tmp_path / "mine.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2025-01-01 00:00:00,7,3\n")
        own = load_experiment(experiment, ["workload.limit=5"])
        assert own.trace == (tmp_path / "mine.csv").resolve()
        assert own.digest() != shipped.digest()

    def test_an_unknown_experiment(self) -> None:
        with pytest.raises(UserError, match="llama3_70b_h200x8"):
            load_experiment("llama3_70b_h200")

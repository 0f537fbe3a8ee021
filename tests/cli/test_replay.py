"""`archsim replay` and `archsim check-timing` as a user types them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

MEMORY = ("--memory", "hbm3_16gb_8hi")
BURST = 32
CHANNEL_BYTES = 1 << 30


def requests(n: int, channels: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    address = random.integers(0, channels * CHANNEL_BYTES // BURST, n) * BURST
    return address, (random.random(n) < 0.3).astype(np.int64)


def write_binary(file: Path, n: int = 6000, channels: int = 2) -> Path:
    address, write = requests(n, channels)
    (address | write).astype("<u8").tofile(file)
    return file


def planted(file: Path, change: Any) -> Path:
    """A copy of a command trace with a change to its table, metadata kept."""
    table = pq.read_table(file)
    frame = table.to_pandas()
    change(frame)
    copy = file.with_name("planted.parquet")
    pq.write_table(
        pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(table.schema.metadata), copy
    )
    return copy


def test_statistics_are_those_of_the_trace(invoke: Any, tmp_path: Path) -> None:
    address, write = requests(6000, 2)
    trace = write_binary(tmp_path / "trace.bin")
    result = invoke("replay", trace, *MEMORY, "--channels", "2", "--json")
    assert result.code == 0
    assert result.json["channels"] == 2
    assert result.stat("mem.requests.write") == write.sum()
    assert result.stat("mem.requests.read") == len(address) - write.sum()
    assert sum(result.stat(f"mem.rows.{name}") for name in ("hits", "misses", "conflicts")) == 6000
    assert result.stat("mem.commands.RD") + result.stat("mem.commands.WR") == 6000
    for kind in ("read", "write"):
        quantiles = [result.stat(f"mem.latency.{kind}.{name}") for name in ("p50", "p90", "p99", "max")]
        assert quantiles == sorted(quantiles) and quantiles[0] > 0
    assert 0 < result.stat("mem.bandwidth.utilization") < 1
    assert result.stat("mem.energy.total") > 0


def test_stats_txt_has_names_units_and_descriptions(invoke: Any, tmp_path: Path) -> None:
    trace = write_binary(tmp_path / "trace.bin", 100)
    result = invoke("replay", trace, *MEMORY, "--channels", "2", "--out", tmp_path / "out")
    assert (tmp_path / "out" / "stats.txt").read_text() == result.out
    assert "stats" in json.loads((tmp_path / "out" / "stats.json").read_text())
    lines = [line for line in result.out.splitlines() if line.startswith(("sim.", "mem."))]
    assert len(lines) > 40
    for line in lines:
        values, comment = line.split("#")
        assert len(values.split()) == 2
        assert re.fullmatch(r" .+ \([A-Z][A-Za-z/]+\)", comment)


def test_an_unloaded_read_has_the_latency_of_the_closed_form(invoke: Any, tmp_path: Path) -> None:
    """A closed bank: tRCDRD + tCL + tBL = 31 + 20 + 2 clocks of 0.625 ns."""
    trace = tmp_path / "one.csv"
    trace.write_text("address,op,time_ns\n0x40,R,100\n")
    result = invoke("replay", trace, *MEMORY, "--channels", "1", "--json")
    assert result.stat("mem.latency.read.max") == pytest.approx(53 * 0.625)
    assert result.stat("sim.seconds") == pytest.approx(133.125e-9)


@pytest.mark.parametrize("refresh", ["all_bank", "per_bank", "none"])
def test_written_commands_break_no_rule(invoke: Any, tmp_path: Path, refresh: str) -> None:
    trace, log = write_binary(tmp_path / "trace.bin"), tmp_path / "log.parquet"
    stats = invoke("replay", trace, *MEMORY, "--channels", 2, "--refresh", refresh, "--commands", log, "--json")
    frame = pd.read_parquet(log)
    commands = frame["command"].value_counts()
    assert commands["RD"] == stats.stat("mem.commands.RD") and commands["ACT"] == stats.stat("mem.commands.ACT")
    assert set(frame["channel"]) == {0, 1}
    result = invoke("check-timing", log, *MEMORY, "--channels", 2, "--json")
    assert (result.code, result.json["violations"]) == (0, [])
    assert result.json["refresh"] == refresh and result.json["commands"] == len(frame)


def test_a_shifted_command_is_found(invoke: Any, tmp_path: Path) -> None:
    trace, log = write_binary(tmp_path / "trace.bin"), tmp_path / "log.parquet"
    invoke("replay", trace, *MEMORY, "--channels", 2, "--commands", log)
    row = 0

    def shift(frame: pd.DataFrame) -> None:
        nonlocal row
        reads = frame.index[(frame["command"] == "RD") & (frame["channel"] == 1)]
        row = int(reads[len(reads) // 2])
        frame.loc[row, "tick"] = frame.loc[row, "tick"] - 1

    result = invoke("check-timing", planted(log, shift), *MEMORY)
    assert result.code == 1
    assert f"row {row}: channel 1: rising edge: RD" in result.err
    assert "1  rising edge\n" in result.err


def test_violations_are_counted_by_rule_and_not_listed_by_the_hundred(invoke: Any, tmp_path: Path) -> None:
    trace, log = write_binary(tmp_path / "trace.bin"), tmp_path / "log.parquet"
    invoke("replay", trace, *MEMORY, "--channels", 2, "--commands", log)

    def shift(frame: pd.DataFrame) -> None:
        reads = frame["command"] == "RD"
        frame.loc[reads, "row"] = (frame.loc[reads, "row"] + 1) % 16384

    file = planted(log, shift)
    result, as_json = invoke("check-timing", file, *MEMORY), invoke("check-timing", file, *MEMORY, "--json")
    reads = int((pd.read_parquet(file)["command"] == "RD").sum())
    assert (result.code, as_json.code) == (1, 1)
    assert as_json.json["by_rule"]["open row"] == reads
    assert result.err.count("open row: RD") == 20
    assert f"{reads:,}  open row\n" in result.err


def test_a_log_of_another_memory_says_what_does_not_fit(invoke: Any, tmp_path: Path) -> None:
    trace, log = write_binary(tmp_path / "trace.bin"), tmp_path / "log.parquet"
    invoke("replay", trace, *MEMORY, "--channels", 2, "--commands", log)
    result = invoke("check-timing", log, "--memory", "hbm2_8gb_4hi", "--channels", 2)
    assert result.code == 2
    assert re.search(r"not a command of this channel: ACT at tick \d+, .* of \d", result.err), result.err


def test_a_command_of_another_row_is_found(invoke: Any, tmp_path: Path) -> None:
    trace, log = write_binary(tmp_path / "trace.bin"), tmp_path / "log.parquet"
    invoke("replay", trace, *MEMORY, "--channels", 2, "--commands", log)

    def other_row(frame: pd.DataFrame) -> None:
        row = int(frame.index[frame["command"] == "WR"][10])
        frame.loc[row, "row"] = (frame.loc[row, "row"] + 1) % 16384

    assert "open row" in invoke("check-timing", planted(log, other_row), *MEMORY).err


def test_every_format_of_the_same_requests_gives_the_same_statistics(invoke: Any, tmp_path: Path) -> None:
    address, write = requests(500, 1)
    pairs = list(zip(address.tolist(), write.tolist(), strict=True))
    write_binary(tmp_path / "a.bin", 500, 1)
    (tmp_path / "b.trace").write_text("".join(f"{('LD', 'ST')[w]} {a:#x}\n" for a, w in pairs))
    (tmp_path / "c.trace").write_text("".join(f"{'RW'[w]} {a:#x}\n" for a, w in pairs))
    (tmp_path / "d.trc").write_text("".join(f"{a:#x} {('READ', 'WRITE')[w]} 0\n" for a, w in pairs))
    (tmp_path / "e.csv").write_text("op,address,time_ns\n" + "".join(f"{'RW'[w]},{a},0\n" for a, w in pairs))
    np.save(tmp_path / "f.npy", np.column_stack((address, write)))
    pd.DataFrame({"address": address, "op": np.where(write, "W", "R")}).to_parquet(tmp_path / "g.parquet")
    stats = []
    for name in ("a.bin", "b.trace", "c.trace", "d.trc", "e.csv", "f.npy", "g.parquet"):
        found = invoke("replay", tmp_path / name, *MEMORY, "--channels", 1, "--json").json["stats"]
        stats.append({key: value for key, value in found.items() if not key.startswith("mem.latency")})
    assert all(other == stats[0] for other in stats[1:])


def test_a_mapper_decides_where_requests_go(invoke: Any, tmp_path: Path) -> None:
    """A stream within a row: bursts interleaved over bank groups are faster than the columns of one bank."""
    trace = tmp_path / "stream.bin"
    (np.arange(4000) * BURST).astype("<u8").tofile(trace)
    ticks = {}
    for mapper in ("RoBaRaCoCh", "bank_group column bank stack_id row", "channel column bank bank_group stack_id row"):
        result = invoke("replay", trace, *MEMORY, "--channels", 1, "--mapper", mapper, "--json")
        assert result.code == 0
        ticks[mapper] = result.stat("sim.ticks")
    assert ticks["bank_group column bank stack_id row"] < ticks["RoBaRaCoCh"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("LD 0x40\n\n# comment\nLD 64 64\n", "trace:4: 'LD 64 64'"),
        ("LD 0x40\nXX 0x80\n", "trace:2: 'XX 0x80': the operation"),
        ("0x40 READ 1\n0x4g READ 2\n", "trace:2: '0x4g READ 2': the address"),
        ("0x40 READ 9\n0x40 READ 2\n", "trace:2: '0x40 READ 2': the request is earlier"),
        ("0x40 READ 9\n0x40 READ x\n", "trace:2: '0x40 READ x': the time"),
        ("hello world\n", "trace:1: 'hello world'"),
        ("", "is empty"),
        ("LD 0x40000000\n", "address 0x40000000 lies beyond"),
    ],
)
def test_a_bad_trace_is_named_with_its_line(invoke: Any, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "trace").write_text(text)
    result = invoke("replay", tmp_path / "trace", *MEMORY, "--channels", 1)
    assert result.code == 2
    assert message in result.err and "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--memory", "hbm3_16gb_8h"), "hbm3_16gb_8hi"),
        ((*MEMORY, "--refresh", "allbank"), "all_bank"),
        ((*MEMORY, "--mapper", "MOP4CLX"), "MOP4CLXOR"),
        ((*MEMORY, "--mapper", "bank_group column bank stack_id row bank^=column[9:8]"), "does not fit"),
        ((*MEMORY, "--mapper", "column bank row"), "lacks the field"),
        ((*MEMORY, "--channels", "0"), "0 channels"),
    ],
)
def test_bad_options_say_what_was_expected(
    invoke: Any, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    trace = write_binary(tmp_path / "trace.bin", 10)
    result = invoke("replay", trace, *arguments)
    assert result.code == 2 and message in result.err


def test_reads_and_writes_have_their_percentiles_and_energy_its_band(invoke: Any, tmp_path: Path) -> None:
    trace = write_binary(tmp_path / "trace.bin")
    for controller in ("fr_fcfs", "hbm34"):
        result = invoke("replay", trace, *MEMORY, "--controller", controller, "--channels", 2, "--json")
        for kind in ("read", "write"):
            quantiles = [result.stat(f"mem.latency.{kind}.{name}") for name in ("p50", "p90", "p99", "max")]
            assert quantiles == sorted(quantiles) and quantiles[0] > 0
        low, likely, high = (result.stat(f"mem.energy.per_bit{name}") for name in (".low", "", ".high"))
        assert 3 < low < likely < high < 12
        parts = ("activate", "read", "write", "refresh", "io")
        assert result.stat("mem.energy.total") == pytest.approx(sum(result.stat(f"mem.energy.{p}") for p in parts))
        assert result.json["controller"] == controller and "per_bit and currents" in result.json["notes"][0]


def test_energy_is_that_of_the_memory(invoke: Any, tmp_path: Path) -> None:
    """An all-bank refresh of 64 rows (HBM3) or 128 (HBM2E), at 0.909 nJ a row."""
    trace = write_binary(tmp_path / "trace.bin", 6000, 1)
    for memory, rows in (("hbm3_16gb_8hi", 64), ("hbm2e_16gb_8hi", 128)):
        result = invoke("replay", trace, "--memory", memory, "--channels", 1, "--json")
        refreshes = result.stat("mem.commands.REFAB")
        assert refreshes > 0
        assert result.stat("mem.energy.refresh") == pytest.approx(refreshes * rows * 909, rel=0.003)


def test_a_memory_without_energy_data_says_so(invoke: Any, tmp_path: Path) -> None:
    memory = tmp_path / "unknown.yaml"
    memory.write_text("base: hbm3_16gb_8hi\nname: unknown\nenergy: null\n")
    trace = write_binary(tmp_path / "trace.bin", 100, 1)
    result = invoke("replay", trace, "--memory", memory, "--channels", 1)
    assert result.code == 0 and "no energy data for this memory" in result.out and "mem.energy" not in result.out


def test_channels_of_the_reference_controller_are_independent(invoke: Any, tmp_path: Path) -> None:
    """Channel 1 of two gets every second burst; alone, it does the same with the same requests."""
    address, write = requests(8000, 2)
    (address | write).astype("<u8").tofile(tmp_path / "both.bin")
    mine = address // BURST % 2 == 1
    (address[mine] // (2 * BURST) * BURST | write[mine]).astype("<u8").tofile(tmp_path / "one.bin")
    run = ("--controller", "hbm34", "--json", "--commands")
    both = invoke("replay", tmp_path / "both.bin", *MEMORY, "--channels", 2, *run, tmp_path / "both.parquet")
    one = invoke("replay", tmp_path / "one.bin", *MEMORY, *run, tmp_path / "one.parquet")
    assert both.stat("mem.requests.read") + both.stat("mem.requests.write") == 8000
    assert one.stat("mem.commands.ACT") < both.stat("mem.commands.ACT")
    commands = pd.read_parquet(tmp_path / "both.parquet")
    alone = pd.read_parquet(tmp_path / "one.parquet").drop(columns="Channel")
    pd.testing.assert_frame_equal(
        commands[commands["Channel"] == 1].drop(columns="Channel").reset_index(drop=True), alone
    )


def test_mappers_of_the_reference_controller(invoke: Any, tmp_path: Path) -> None:
    """A stream is faster when its bursts alternate between pseudo-channels and banks."""
    trace = tmp_path / "stream.bin"
    (np.arange(8000) * BURST).astype("<u8").tofile(trace)
    run = ("replay", trace, *MEMORY, "--controller", "hbm34", "--json", "--mapper")
    assert invoke(*run, "MOP4CLXOR").stat("sim.ticks") < invoke(*run, "RoBaRaCoCh").stat("sim.ticks")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--controller", "hbm3"), "there is no controller 'hbm3'"),
        (("--controller", "hbm34", "--write-forwarding"), "always forwards and coalesces"),
        (("--controller", "fr_fcf"), "did you mean 'fr_fcfs'"),
        (("--controller", "hbm34", "--refresh", "per_bank"), "all_bank, none"),
        (("--controller", "hbm34", "--mapper", "MOP4"), "MOP4CLXOR"),
        (("--controller", "hbm34", "--memory", "hbm2e_16gb_8hi"), "schedules HBM3 channels"),
        (("--controller", "hbm34", "--commands", "/nowhere/at/all.parquet"), "can't write the command trace"),
    ],
)
def test_bad_controllers_say_what_was_expected(
    invoke: Any, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    trace = write_binary(tmp_path / "trace.bin", 10, 1)
    result = invoke("replay", trace, *MEMORY, *arguments)
    assert result.code == 2 and message in result.err and "Traceback" not in result.err


@pytest.mark.validate  # compiles another shape of kernel
def test_queued_writes_answer(invoke: Any, tmp_path: Path) -> None:
    """Sixteen addresses: reads and writes of them meet queued writes; what is left takes commands."""
    random = np.random.default_rng(3)
    address, write = random.integers(0, 16, 4000) * BURST, random.integers(0, 2, 4000)
    (address | write).astype("<u8").tofile(tmp_path / "trace.bin")
    run = ("replay", tmp_path / "trace.bin", *MEMORY, "--channels", 1, "--json")
    plain, answering = invoke(*run), invoke(*run, "--write-forwarding", "--write-coalescing")
    served = {
        outcome: [
            outcome.stat(f"mem.{name}")
            for name in ("requests.forwarded", "requests.coalesced", "commands.RD", "commands.WR")
        ]
        for outcome in (plain, answering)
    }
    assert served[plain][:2] == [0, 0] and sum(served[plain]) == 4000
    assert min(served[answering]) > 0 and sum(served[answering]) == 4000
    assert answering.stat("sim.ticks") < plain.stat("sim.ticks")


def test_the_reference_controller_has_no_arrival_times(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("address,op,time_ns\n0x40,R,100\n")
    result = invoke("replay", tmp_path / "trace.csv", *MEMORY, "--controller", "hbm34")
    assert result.code == 2 and "has times" in result.err


def test_a_failed_replay_leaves_no_command_trace(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("LD 0x40\nLD 0x40000000\n")
    log = tmp_path / "log.parquet"
    for controller in ("fr_fcfs", "hbm34"):
        run = ("--channels", 1, "--controller", controller, "--commands", log)
        assert "lies beyond" in invoke("replay", tmp_path / "trace", *MEMORY, *run).err
        assert not log.exists()


PEAK_BYTES = """
import resource, sys
from archsim import cli
try:
    cli.main()
except SystemExit as end:
    assert not end.code
print("peak", 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["binary", "npy", "text"])
def test_memory_does_not_grow_with_the_trace(tmp_path: Path, form: str) -> None:
    """Two and eight million requests: held in memory, six million would be 144 MB at the least."""

    def peak_bytes(n: int) -> int:
        trace = tmp_path / f"{n}"
        address, write = requests(n, 16)
        if form == "binary":
            (address | write).astype("<u8").tofile(trace.with_suffix(".bin"))
            trace = trace.with_suffix(".bin")
        elif form == "npy":
            np.save(trace.with_suffix(".npy"), np.column_stack((address, write, np.zeros(n, np.int64))))
            trace = trace.with_suffix(".npy")
        else:
            pd.DataFrame({"op": np.where(write, "ST", "LD"), "address": address}).to_csv(
                trace, sep=" ", header=False, index=False
            )
        words = [sys.executable, "-c", PEAK_BYTES, "replay", str(trace), *MEMORY, "--json"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return int(done.stdout.split()[-1])

    assert peak_bytes(8_000_000) < peak_bytes(2_000_000) + 70_000_000


def test_check_timing_refuses_what_is_no_command_trace(invoke: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(other)
    assert "lacks the column" in invoke("check-timing", other, *MEMORY).err
    assert "there is no file" in invoke("check-timing", tmp_path / "none.parquet", *MEMORY).err


def test_a_trace_without_requests_is_no_crash(invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("address,op,cycle\n")
    result = invoke("replay", tmp_path / "a.csv", *MEMORY, "--no-refresh", "--json")
    assert result.code == 0 and result.json["refresh"] == "none"
    assert result.stat("mem.requests.read") == 0 and result.stat("sim.seconds") == 0

"""The preset `hbm34-fcfs` against Ramulator 2.1: equal commands, equal totals. No tolerance anywhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from archsim.commands.replay import ReplayRequest, load_memory, replay_trace
from archsim.config.errors import UserError
from archsim.kernels.hbm34_state import Hbm34Count
from archsim.memory import hbm34
from archsim.memory.hbm34 import (
    HBM3_16GB_8HI_6400,
    Hbm34Channel,
    Hbm34Result,
    Mapper,
    controller_timing,
    map_addresses,
    nominal_timings,
    run_hbm34,
)

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "validation" / "dram"
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "README.md").exists(), reason="the shared data validation/dram (Ramulator 2.1 runs) are not here"
)
GOLDEN = [
    f"{trace}_RoBaRaCoCh_{refresh}_20k"
    for trace in ("stream", "random", "mixed", "hot4k")
    for refresh in ("AllBank", "NoRefresh")
]
LONG = [
    "hbm3_1ch_MOP4CLXOR_AllBank_FRFCFS__stream_1ch_32B_2M_",
    "hbm3_1ch_RoBaRaCoCh_AllBank_FRFCFS__mixed_1ch_32B_2M_",
    "hbm3_1ch_RoBaRaCoCh_AllBank_FRFCFS__random_1ch_32B_2M_",
    "hbm3_1ch_RoBaRaCoCh_AllBank_FRFCFS__stream_1ch_32B_2M_",
    "hbm3_1ch_RoBaRaCoCh_NoRefresh_FRFCFS__mixed_1ch_32B_2M_",
    "hbm3_1ch_RoBaRaCoCh_NoRefresh_FRFCFS__random_1ch_32B_2M_",
    "hbm3_1ch_RoBaRaCoCh_NoRefresh_FRFCFS__stream_1ch_32B_2M_",
]


def splitmix64(seed: int, n: int) -> np.ndarray:
    """Numbers 0 up to n of the splitmix64 sequence that starts at `seed`."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def make_trace(kind: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Byte addresses and whether each writes, for a trace of the reference."""

    def bursts(seed: int, count: int) -> np.ndarray:
        return (splitmix64(seed, n) % np.uint64(count)).astype(np.int64) * 32

    def every_third(seed: int) -> np.ndarray:
        return splitmix64(seed, n) % np.uint64(3) == 0

    if kind == "stream":
        return np.arange(n, dtype=np.int64) * 32, np.zeros(n, bool)
    if kind == "random":
        return bursts(1, 1 << 25), np.zeros(n, bool)
    if kind == "mixed":
        return bursts(2, 1 << 25), every_third(3)
    assert kind == "hot4k"
    return bursts(11, 4096), every_third(12)


def write_trace(name: str, n: int, file: Path) -> Path:
    """The trace of a case as a file of u64."""
    kind = re.search("stream|random|mixed|hot4k", name)
    assert kind
    address, write = make_trace(kind[0], n)
    (address | write).astype("<u8").tofile(file)
    return file


def replay_case(name: str, n: int, folder: Path, commands: Path | None = None) -> dict[str, float]:
    """The case as `archsim replay TRACE --memory hbm3_16gb_8hi --controller hbm34` runs it."""
    request = ReplayRequest(
        trace=write_trace(name, n, folder / "trace.bin"),
        memory="hbm3_16gb_8hi",
        controller="hbm34",
        refresh="all_bank" if "AllBank" in name else "none",
        mapper="MOP4CLXOR" if "MOP4CLXOR" in name else None,
        commands=commands,
    )
    return {stat.name: stat.value for stat in replay_trace(request).stats}


def run_case(name: str, n: int, log: bool) -> Hbm34Result:
    kind = re.search("stream|random|mixed|hot4k", name)
    assert kind
    mapper = Mapper.MOP4CLXOR if "MOP4CLXOR" in name else Mapper.ROBARACOCH
    return run_hbm34(*make_trace(kind[0], n), refresh="AllBank" in name, mapper=mapper, log=log)


# Our name of a gap, and its level, previous command, next command in constraints.txt (S: to the sibling stack IDs).
RULES = {
    "act_act": "PseudoChannel ACT ACT",
    "act_act_g": "BankGroup ACT ACT",
    "act_act_b": "Bank ACT ACT",
    "act_window": "PseudoChannel ACT ACT window=4",
    "act_rd_b": "Bank ACT RD",
    "act_wr_b": "Bank ACT WR",
    "act_pre": "Bank ACT PREpb, PseudoChannel ACT PREab",
    "act_refab": "PseudoChannel ACT REFab",
    "act_row": "Channel ACT ACT, Channel ACT PREpb, Channel ACT PREab, Channel ACT REFab",
    "pre_act": "Bank PREpb ACT, PseudoChannel PREab ACT",
    "pre_pre": "PseudoChannel PREpb PREpb, PseudoChannel PREpb PREab, "
    "PseudoChannel PREab PREpb, PseudoChannel PREab PREab",
    "pre_refab": "PseudoChannel PREpb REFab, PseudoChannel PREab REFab",
    "rd_rd": "PseudoChannel RD RD, Sid RD RD",
    "rd_rd_g": "BankGroup RD RD",
    "rd_rd_sid": "Sid RD RD SIBLING",
    "rd_wr": "PseudoChannel RD WR",
    "rd_pre": "Bank RD PREpb, PseudoChannel RD PREab",
    "wr_wr": "PseudoChannel WR WR, Sid WR WR",
    "wr_wr_g": "BankGroup WR WR",
    "wr_rd": "PseudoChannel WR RD",
    "wr_rd_g": "BankGroup WR RD",
    "wr_pre": "Bank WR PREpb, PseudoChannel WR PREab",
    "column_column": "Channel RD RD, Channel RD WR, Channel WR RD, Channel WR WR",
    "refab_act": "PseudoChannel REFab ACT",
    "refab_preab": "PseudoChannel REFab PREab",
}


@needs_reference
def test_the_gaps_are_those_of_the_reference_and_none_is_missing() -> None:
    issued = {"ACT", "PREpb", "PREab", "RD", "WR", "REFab"}
    theirs = {}
    section = (REFERENCE / "constraints.txt").read_text().split("\n## ")[0]
    for line in section.splitlines()[1:]:
        level, previous, _, following, ticks, _, *kind = line.split()
        for a in issued.intersection(previous.split("/")):
            for b in issued.intersection(following.split("/")):
                theirs[" ".join((level, a, b, *kind))] = int(ticks)
    timing = controller_timing(HBM3_16GB_8HI_6400, refresh=True)._asdict()
    assert {rule: timing[name] for name, rules in RULES.items() for rule in rules.split(", ")} == theirs
    assert (timing["refresh_interval"], timing["read_latency"]) == (12480, 44)
    assert (timing["write_on"], timing["write_off"]) == (26, 6)


@needs_reference
def test_the_nominal_timings_are_those_of_the_reference() -> None:
    table = (REFERENCE / "timings.txt").read_text()
    found = re.search(r"^HBM3 HBM3_16Gb_8hi HBM3_6400Mbps .*\n +CK timings (\{.*?\})", table, re.MULTILINE)
    assert found
    theirs = yaml.safe_load(found[1])
    assert {name: theirs[name] for name in HBM3_16GB_8HI_6400} == dict(HBM3_16GB_8HI_6400)


@pytest.mark.parametrize("mapper", Mapper)
def test_maps_are_one_to_one(mapper: Mapper) -> None:
    keys, columns = map_addresses(np.arange(1 << 16, dtype=np.int64) * 32, mapper)
    assert len(np.unique(keys << 5 | columns)) == 1 << 16
    assert keys.max() >> 6 == (1 << 5) - 1 and columns.max() == 31


@pytest.mark.parametrize(("rows", "ticks"), [((0,), 109), ((0, 1), 253)])
def test_unloaded_reads(rows: tuple[int, ...], ticks: int) -> None:
    """34.1 ns for a closed bank: ACT at 1, RD at 65, data 44 later. Another row: ACT at 145 (tRC), RD at 209."""
    result = run_hbm34([row << 16 for row in rows], [False] * len(rows), refresh=False, log=True)
    assert result.ticks == ticks == result.commands["clock"].iloc[-1] + 44
    assert (result.row_misses, result.row_conflicts) == (1, len(rows) - 1)


def test_no_requests_and_wrong_ones() -> None:
    assert run_hbm34([], [], log=True).commands_issued == 0
    with pytest.raises(ValueError, match="capacity"):
        run_hbm34([1 << 30], [False])
    with pytest.raises(ValueError, match="one length"):
        run_hbm34([0, 32], [False])


@needs_reference
@pytest.mark.parametrize("case", GOLDEN)
def test_every_command_of_the_golden_traces(case: str) -> None:
    golden = pd.read_parquet(REFERENCE / f"cmd_{case}.parquet")
    result = run_case(case, 20_000, log=True)
    assert list(result.commands.columns) == list(golden.columns)
    assert len(result.commands) == len(golden) == result.commands_issued
    for column in golden.columns:
        ours, theirs = result.commands[column].to_numpy(), golden[column].to_numpy()
        differing = np.flatnonzero(ours != theirs)
        assert len(differing) == 0, f"{column}, first at command {differing[0]}"


@needs_reference
@pytest.mark.parametrize("case", GOLDEN)
def test_the_command_line_writes_the_golden_traces(case: str, tmp_path: Path) -> None:
    golden = pd.read_parquet(REFERENCE / f"cmd_{case}.parquet")
    stats = replay_case(case, 20_000, tmp_path, tmp_path / "commands.parquet")
    ours = pd.read_parquet(tmp_path / "commands.parquet")
    assert list(ours.columns) == list(golden.columns) and len(ours) == len(golden)
    assert sum(int((ours[column].to_numpy() != golden[column].to_numpy()).sum()) for column in golden.columns) == 0
    assert stats["sim.ticks"] == json.loads((REFERENCE / f"run_{case}.json").read_text())["ticks"]


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["stream", "random", "mixed", "hot4k"]),
    pieces=st.lists(st.integers(0, 90), min_size=1, max_size=12),
    refresh=st.booleans(),
    room=st.integers(2, 70),
)
def test_pieces_give_what_the_whole_gives(kind: str, pieces: list[int], refresh: bool, room: int) -> None:
    """However a trace is cut, and however small the log is: equal commands, counts and latencies."""
    repeat = 6
    n = sum(pieces) * repeat
    address, write = make_trace(kind, max(n, 1))
    address, write = address[:n], write[:n].astype(np.int64)
    whole = run_hbm34(address, write, refresh=refresh, log=True)
    tables: list[pd.DataFrame] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hbm34, "LOG_COMMANDS", room)
        channel = Hbm34Channel(controller_timing(HBM3_16GB_8HI_6400, refresh), Mapper.ROBARACOCH, tables.append)
    latencies, first = [], 0
    for size in pieces * repeat:
        served = channel.serve(address[first : first + size], write[first : first + size], last=False)
        latencies.append(served.latency[served.write == 0])
        first += size
    served = channel.serve(np.zeros(0, np.int64), np.zeros(0, np.int64), last=True)
    latencies.append(served.latency[served.write == 0])
    assert channel.waiting_requests == 0
    commands = pd.concat(tables, ignore_index=True) if tables else whole.commands
    pd.testing.assert_frame_equal(commands, whole.commands)
    assert sorted(np.concatenate(latencies).tolist()) == sorted(whole.read_latency.tolist())
    for count, value in (
        (Hbm34Count.TICKS, whole.ticks),
        (Hbm34Count.HITS, whole.row_hits),
        (Hbm34Count.CONFLICTS, whole.row_conflicts),
        (Hbm34Count.READ_LATENCY, whole.read_latency_sum),
        (Hbm34Count.READ_QUEUE, whole.queue_sums[0]),
        (Hbm34Count.FORWARDED, whole.forwarded),
    ):
        assert channel.count(count) == value


def test_what_waits_stays_small() -> None:
    """A channel holds what its queues and active buffers do, and the few requests that no tick has taken."""
    address, write = make_trace("mixed", 30_000)
    channel = Hbm34Channel(controller_timing(HBM3_16GB_8HI_6400, True), Mapper.ROBARACOCH)
    for first in range(0, 30_000, 500):
        channel.serve(address[first : first + 500], write[first : first + 500].astype(np.int64), last=False)
        assert channel.waiting_requests <= 2 * 32 + 64 + 4


def test_the_timings_come_from_the_memory() -> None:
    assert nominal_timings(load_memory("hbm3_16gb_8hi")) == dict(HBM3_16GB_8HI_6400)
    assert nominal_timings(load_memory("hbm3e_24gb_8hi"))["nRCDRD"] == 31  # 19.375 ns in clocks of 0.64 ns
    with pytest.raises(UserError, match="schedules HBM3 channels with 2 command edges per clock"):
        nominal_timings(load_memory("hbm2e_16gb_8hi"))


@needs_reference
@pytest.mark.parametrize("case", GOLDEN)
def test_totals_of_the_golden_traces(case: str) -> None:
    run = json.loads((REFERENCE / f"run_{case}.json").read_text())
    result = run_case(case, 20_000, log=False)
    latency = np.sort(result.read_latency)
    assert result.ticks == run["ticks"]
    assert f"{latency.mean():.3f}" == f"{run['avg_read_lat']:.3f}"  # of all reads, also those forwarded
    assert (latency[0], latency[-1]) == (run["lat_min"], run["lat_max"])
    assert (latency[len(latency) // 2], latency[len(latency) * 99 // 100]) == (run["lat_p50"], run["lat_p99"])
    statistics = REFERENCE / f"stats_{case}.yaml"
    if statistics.exists():
        theirs = yaml.safe_load(statistics.read_text())["memory_system"]["controller"]
        assert result.ticks == theirs["cycles"]
        assert result.read_latency_sum == theirs["read_latency"]
        assert result.row_hits == theirs["row_hits"]
        assert result.row_misses == theirs["row_misses"]
        assert result.row_conflicts == theirs["row_conflicts"]
        assert result.forwarded == theirs["num_read_reqs_forwarded"]
        assert result.coalesced == theirs["num_write_reqs_coalesced"]
        assert result.queue_sums == tuple(theirs[f"{queue}_queue_len"] for queue in ("read", "write", "priority"))


@needs_reference
@pytest.mark.validate
@pytest.mark.parametrize("case", LONG)
def test_totals_of_two_million_requests(case: str) -> None:
    table = pd.read_csv(REFERENCE / "ramulator21_hbm3_2M.csv", dtype={"avg_read_latency_ticks": str}, index_col="case")
    assert sorted(table.index) == LONG
    theirs = table.loc[case]
    result = run_case(case, 2_000_000, log=False)
    assert result.ticks == theirs["half_ck_ticks"]
    assert result.row_hits == theirs["row_hits"]
    assert result.row_misses == theirs["row_misses"]
    assert result.row_conflicts == theirs["row_conflicts"]
    assert result.forwarded == theirs["forwarded"]
    assert result.coalesced == theirs["coalesced"]
    assert f"{result.average_read_latency:.6g}" == theirs["avg_read_latency_ticks"]


@needs_reference
@pytest.mark.validate
@pytest.mark.parametrize("case", LONG)
def test_the_command_line_gives_the_totals_of_two_million_requests(case: str, tmp_path: Path) -> None:
    theirs = pd.read_csv(REFERENCE / "ramulator21_hbm3_2M.csv", index_col="case").loc[case]
    stats = replay_case(case, 2_000_000, tmp_path)
    assert stats["sim.ticks"] == theirs["half_ck_ticks"]
    for name in ("hits", "misses", "conflicts"):
        assert stats[f"mem.rows.{name}"] == theirs[f"row_{name}"]
    assert (stats["mem.forwarded"], stats["mem.coalesced"]) == (theirs["forwarded"], theirs["coalesced"])

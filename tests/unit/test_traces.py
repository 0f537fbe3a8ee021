"""Readers of traces, the spread over channels, and a replay in pieces against one in a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from archsim.config.errors import UserError
from archsim.config.loading import load_spec, resolve_preset
from archsim.memory import replay_channel, traces
from archsim.memory.interleave import Interleave
from archsim.memory.latency import Latencies
from archsim.memory.replay_channel import ReplayChannel
from archsim.memory.standard import ControllerSpec, DramStandard, RefreshPolicy
from archsim.memory.traces import Chunk, TimeUnit, TraceFormat, open_trace

KERNEL_POLICIES = (RefreshPolicy.ALL_BANK, RefreshPolicy.PER_BANK, RefreshPolicy.NONE)


def read(file: Path) -> Chunk:
    parts = list(open_trace(file).chunks())
    return Chunk(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def hbm3() -> DramStandard:
    return load_spec(resolve_preset("hbm3_16gb_8hi", Path()), DramStandard).spec


@pytest.mark.parametrize(
    ("name", "text", "form", "unit", "times"),
    [
        ("a.trace", "# x\nLD 0x40\r\nst 128\n\nld 0XfF", TraceFormat.RAMULATOR, TimeUnit.NONE, [0, 0, 0]),
        ("a.trace", "0x40 R\n128 W\n255 R\n", TraceFormat.RAMULATOR, TimeUnit.NONE, [0, 0, 0]),
        ("a.trc", "0x40 READ 5\n128 WRITE 5\n0xff READ 7\n", TraceFormat.DRAMSIM3, TimeUnit.CLOCKS, [5, 5, 7]),
        ("a.csv", "op,address,time_ns\nR,64,1.5\nW,128,2\nR,255,2.0000019\n", TraceFormat.CSV, TimeUnit.FEMTOSECONDS,
         [1500000, 2000000, 2000001]),
        ("a.csv", "# c\nTime (us),x,Addr,Op\n0,1,64,R\n1,1,128,W\n2,1,255,R\n", TraceFormat.CSV,
         TimeUnit.FEMTOSECONDS, [0, 10**9, 2 * 10**9]),
        ("a.csv", "address,op,cycle\n64,READ,0\n128,WRITE,1\n255,READ,2\n", TraceFormat.CSV, TimeUnit.CLOCKS,
         [0, 1, 2]),
    ],
)  # fmt: skip
def test_text(tmp_path: Path, name: str, text: str, form: TraceFormat, unit: TimeUnit, times: list[int]) -> None:
    file = tmp_path / name
    file.write_text(text)
    trace, chunk = open_trace(file), read(file)
    assert (trace.format, trace.time_unit) == (form, unit)
    assert chunk.address.tolist() == [64, 128, 255]
    assert chunk.write.tolist() == [0, 1, 0]
    assert chunk.time.tolist() == times


def test_arrays(tmp_path: Path) -> None:
    words = np.array([64, 129], "<u8")
    words.tofile(tmp_path / "a.bin")
    np.save(tmp_path / "b.npy", words)
    np.save(tmp_path / "c.npy", np.array([[64, 0, 3], [128, 1, 4]]))
    structured = np.array([(64, 0, 1.5), (128, 1, 2)], [("address", "i8"), ("write", "i8"), ("time_ns", "f8")])
    np.save(tmp_path / "d.npy", structured)
    pd.DataFrame({"addr": [64, 128], "op": ["read", "ST"], "cycle": [3, 4]}).to_parquet(tmp_path / "e.parquet")
    expected = {"a.bin": [0, 0], "b.npy": [0, 0], "c.npy": [3, 4], "d.npy": [1500000, 2000000], "e.parquet": [3, 4]}
    for name, times in expected.items():
        chunk = read(tmp_path / name)
        assert (chunk.address.tolist(), chunk.write.tolist()) == ([64, 128], [0, 1]), name
        assert chunk.time.tolist() == times, name


def test_chunks_of_a_text_do_not_depend_on_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.trace"
    file.write_text("".join(f"LD {n * 32}\n" for n in range(1000)) + "LD nonsense\n")
    monkeypatch.setattr(traces, "TEXT_BLOCK_BYTES", 100)
    with pytest.raises(UserError, match=r"a\.trace:1001: 'LD nonsense'"):
        read(file)
    file.write_text("".join(f"LD {n * 32}\n" for n in range(1000)))
    assert read(file).address.tolist() == [n * 32 for n in range(1000)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"address,op,time\n1,R,2\n", "no unit"),
        ("a.csv", b"where,op\n1,R\n", "not those of a trace"),
        ("a.bin", b"123456789", "no whole number"),
        ("a.bin", b"\xff" * 8, r"a\.bin:1: request 1: the address"),
        ("a.trace", b"LD 99999999999999999999\nLD 1\n", r"a\.trace:1:"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


def test_times_of_arrays_must_not_decrease(tmp_path: Path) -> None:
    pd.DataFrame({"address": [0, 32, 64], "write": 0, "time_ns": [1, 3, 2]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet:3: .* earlier"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    "mapper",
    [
        "bank_group column bank stack_id row",
        "RoBaRaCoCh",
        "MOP4CLXOR",
        "column:2 channel bank_group pseudo_channel bank stack_id column:3 row",
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 16])
def test_every_burst_has_a_place_of_its_own(mapper: str, channels: int) -> None:
    interleave = Interleave(hbm3(), channels, mapper)
    n = channels * 2 * 4096
    unit, local = interleave.place(np.arange(n) * 32)
    assert len(set(zip(unit.tolist(), local.tolist(), strict=True))) == n
    assert np.bincount(unit).tolist() == [4096] * (channels * 2)
    assert local.max() < 4096  # whole row sets fill first
    with pytest.raises(UserError, match=f"address {channels << 30:#x}"):
        interleave.place(np.array([0, channels << 30]))


def test_mop4clxor_is_that_of_the_reference() -> None:
    """validation/dram: column 2, pseudo-channel, stack ID, bank group 2, bank 2, column 3, row; then the hashes."""
    interleave, standard = Interleave(hbm3(), 1, "MOP4CLXOR"), hbm3()
    burst = np.random.default_rng(2).integers(0, 1 << 25, 2000)
    unit, local = interleave.place(burst * 32)
    bank_of, column_of = standard.address_tables(ControllerSpec(address_map=interleave.local_map))
    column = burst & 3 | (burst >> 8 & 7) << 2
    pc, sid = burst >> 2 & 1 ^ column & 1, burst >> 3 & 1 ^ column >> 1 & 1
    group, bank = burst >> 4 & 3 ^ column >> 2 & 3, burst >> 6 & 3 ^ column >> 4
    expected_bank = (sid * 4 + bank) * 4 + group
    assert (unit == pc).all()
    assert (column_of[local % 1024] == column).all()
    assert (local // 1024 == burst >> 11).all()
    assert (bank_of[local % 1024] == expected_bank).all()


def test_quantiles() -> None:
    random = np.random.default_rng(3)
    values = np.concatenate((random.integers(0, 30000, 5000), random.integers(0, 1 << 35, 5000)))
    latencies, rest = Latencies(), Latencies()
    latencies.add(values[:4000])
    rest.add(values[4000:])
    latencies.merge(rest)
    assert (latencies.count, latencies.total, latencies.maximum) == (10000, values.sum(), values.max())
    for share in (0.1, 0.5, 0.9, 1.0):
        exact = int(np.sort(values)[int(share * 10000) - 1])
        assert exact <= latencies.quantile(share) <= exact * (1 + 2**-14)
        if exact < 1 << 15:
            assert latencies.quantile(share) == exact


@pytest.mark.parametrize("seed", range(8))
def test_a_replay_in_pieces_is_that_of_the_whole(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands, counts and latencies do not depend on how the requests were handed over."""
    monkeypatch.setattr(replay_channel, "LOG_ROWS", 1 << 12)
    random = np.random.default_rng(seed)
    standard = hbm3()
    controller = ControllerSpec(refresh=KERNEL_POLICIES[seed % 3])
    timing = standard.timing(controller)
    bank_of, column_of = (table.astype(np.int64) for table in standard.address_tables(controller))
    n, timed = 5000, seed % 2 == 1
    span = int(random.choice([64, 4096, 1 << 22]))
    words = [random.integers(0, span, n) << 1 | (random.random(n) < 0.4) for _ in range(2)]
    gaps = [random.integers(0, 12, n) * timed for _ in range(2)]
    arrivals = [np.cumsum(gap) for gap in gaps]
    results = []
    for pieces in (0, 1, 7, 40):
        log: list[np.ndarray] = []
        one = ReplayChannel(timing, bank_of, column_of, timed, lambda _, rows, log=log: log.append(rows))
        cuts = np.sort(random.integers(0, n, max(pieces - 1, 0))).tolist()
        for first, after in zip([0, *cuts], [*cuts, n], strict=True):
            one.feed([(words[p][first:after], arrivals[p][first:after]) for p in range(2)])
            if pieces:  # else everything is there from the beginning
                one.run(min(int(arrivals[p][min(after, n - 1)]) for p in range(2)))
                assert pieces > 1 or one.end_tick > 0
        one.finish()
        latencies = [(part.count, part.total, part.maximum) for part in (*one.from_arrival, *one.from_queue)]
        results.append((np.concatenate(log).tolist(), one.counts.tolist(), latencies, one.end_tick))
    for other in results[1:]:
        assert other == results[0]


def test_latency_from_queue_entry_is_that_of_the_kernels_admissions() -> None:
    """Entries derived from completions against those seen by stepping the kernel tick by tick."""
    from archsim.kernels import channel

    standard, controller = hbm3(), ControllerSpec(read_queue=5, write_queue=3, write_high=2, write_low=1)
    timing = standard.timing(controller)
    tables = [table.astype(np.int64) for table in standard.address_tables(controller)]
    random = np.random.default_rng(5)
    words = [random.integers(0, 4096, 400) << 1 | (random.random(400) < 0.4) for _ in range(2)]
    one = ReplayChannel(timing, *tables, False)
    one.feed([(part, np.zeros(400, np.int64)) for part in words])
    entries, counted = 0, [0, 0]
    arrays = one._begin(last=True)
    tick = 0
    while (one._view.stream_issued[0, :2] < 400).any():
        tick += 1
        one._advance(arrays, tick)
        for p in range(2):
            admitted = int(one._view.stream_next[0, p])
            entries += (admitted - counted[p]) * (tick - 1)
            counted[p] = admitted
    done = int(arrays[2].sum())
    one._end(arrays)
    assert one._state[channel.FINISHED_JOB] >= 0
    assert sum(part.total for part in one.from_queue) == done - entries

"""timeline.json: the run in Chrome's trace format, which ui.perfetto.dev opens.

Times are microseconds written as exact decimals of the femtosecond counts. Phases that start on
their own clock are laid end to end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from archsim.metrics import FS_PER_SECOND
from archsim.records import BandwidthSample, OperatorRecord, Span
from archsim.results import PhaseData, RunData

EVENT_LIMIT = 150_000
"""Boxes of one kind (spans, operators, samples) per phase; more would not open in a browser."""

_FS_PER_US = 10**9


def write_timeline(data: RunData, path: Path) -> None:
    """Write `data` as a trace: a process per device, a track per component, HBM bandwidth as a counter."""
    tracks = _Tracks()
    with path.open("w", encoding="utf-8") as file:
        file.write('{"displayTimeUnit": "ns", "otherData": ' + json.dumps({"run": data.name, "config": data.digest}))
        file.write(', "traceEvents": [\n')
        separator = ""
        for event in chain(_events(data, tracks), tracks.metadata()):
            file.write(separator + event)
            separator = ",\n"
        file.write("\n]}\n")


def microseconds(time_fs: int) -> str:
    """Femtoseconds as a decimal number of microseconds, exactly: 1_500_000_001 -> "1.500000001"."""
    whole, rest = divmod(time_fs, _FS_PER_US)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".")


class _Tracks:
    """Numbers for processes ("GPU[0]") and threads ("GPU[0].HBM"), given in order of appearance."""

    def __init__(self) -> None:
        self._processes: dict[str, int] = {}
        self._threads: dict[str, int] = {}

    def of(self, component: str) -> str:
        process = self._processes.setdefault(component.partition(".")[0], len(self._processes) + 1)
        thread = self._threads.setdefault(component, len(self._threads) + 1)
        return f'"pid":{process},"tid":{thread}'

    def metadata(self) -> Iterator[str]:
        for name, process in self._processes.items():
            yield f'{{"ph":"M","name":"process_name","pid":{process},"args":{{"name":{json.dumps(name)}}}}}'
            yield f'{{"ph":"M","name":"process_sort_index","pid":{process},"args":{{"sort_index":{process}}}}}'
        for name, thread in self._threads.items():
            process = self._processes[name.partition(".")[0]]
            where = f'"pid":{process},"tid":{thread}'
            yield f'{{"ph":"M","name":"thread_name",{where},"args":{{"name":{json.dumps(name)}}}}}'
            yield f'{{"ph":"M","name":"thread_sort_index",{where},"args":{{"sort_index":{thread}}}}}'


def _events(data: RunData, tracks: _Tracks) -> Iterator[str]:
    end_fs = 0
    for phase in data.phases:
        begin_fs, finish_fs = _extent(phase)
        shift_fs = max(0, end_fs - begin_fs)
        end_fs = finish_fs + shift_fs
        device = _device(phase)
        yield _box(tracks.of("Run.Phases"), phase.phase, begin_fs + shift_fs, end_fs, {"detail": phase.description})
        yield from _limited(phase.records, tracks, shift_fs, f"{device}.Operators")
        yield from _limited(phase.spans, tracks, shift_fs, "")
        yield from _counter(phase.bandwidth, tracks, shift_fs, f"{device}.HBM")


def _device(phase: PhaseData) -> str:
    """The device whose records these are: that of the first span."""
    return phase.spans[0].component.partition(".")[0] if phase.spans else "GPU[0]"


def _extent(phase: PhaseData) -> tuple[int, int]:
    begin_fs: list[int] = []
    end_fs: list[int] = []
    for entries in (phase.records, phase.spans, phase.bandwidth):
        if entries:
            begin_fs.append(min(entry.start_fs for entry in entries))
            end_fs.append(max(entry.end_fs for entry in entries))
    return min(begin_fs, default=0), max(end_fs, default=0)


def _limited(entries: Sequence[OperatorRecord | Span], tracks: _Tracks, shift_fs: int, track: str) -> Iterator[str]:
    for entry in islice(entries, EVENT_LIMIT):
        where = tracks.of(entry.component if isinstance(entry, Span) else track)
        details = _details(entry) if isinstance(entry, OperatorRecord) else {}
        yield _box(where, entry.name, entry.start_fs + shift_fs, entry.end_fs + shift_fs, details)
    if len(entries) > EVENT_LIMIT:
        note = f"cut here: {EVENT_LIMIT:,} of {len(entries):,} shown, all are in operators.parquet"
        at = microseconds(entries[EVENT_LIMIT].start_fs + shift_fs)
        yield f'{{"ph":"i","s":"g","name":{json.dumps(note)},{tracks.of("Run.Phases")},"ts":{at}}}'


def _details(record: OperatorRecord) -> dict[str, object]:
    shown = {f"{cause}_us": fs / _FS_PER_US for cause, fs in record.cause_fs.items() if fs}
    moved = record.counts.dram_read_bytes + record.counts.dram_write_bytes
    return {"kind": str(record.kind), "bound": record.bound, "hbm_bytes": moved, "flops": record.matrix_flops} | shown


def _box(where: str, name: str, start_fs: int, end_fs: int, details: dict[str, object]) -> str:
    times = f'"ts":{microseconds(start_fs)},"dur":{microseconds(end_fs - start_fs)}'
    args = f',"args":{json.dumps(details)}' if details else ""
    return f'{{"ph":"X","name":{json.dumps(name)},{where},{times}{args}}}'


def _counter(samples: Sequence[BandwidthSample], tracks: _Tracks, shift_fs: int, component: str) -> Iterator[str]:
    """The HBM bandwidth of each sample, zero in the gaps and at the end."""
    where, name = tracks.of(component), json.dumps(f"{component} bandwidth (GB/s)")
    last_fs: int | None = None
    for sample in islice(samples, EVENT_LIMIT):
        if last_fs is not None and last_fs < sample.start_fs:
            yield _rates(where, name, last_fs + shift_fs, 0.0, 0.0)
        per_byte = FS_PER_SECOND / 1e9 / (sample.end_fs - sample.start_fs) if sample.end_fs > sample.start_fs else 0.0
        read, write = sample.read_bytes * per_byte, sample.write_bytes * per_byte
        yield _rates(where, name, sample.start_fs + shift_fs, read, write)
        last_fs = sample.end_fs
    if last_fs is not None:
        yield _rates(where, name, last_fs + shift_fs, 0.0, 0.0)


def _rates(where: str, name: str, time_fs: int, read: float, write: float) -> str:
    rates = f'{{"read":{round(read, 3)},"write":{round(write, 3)}}}'
    return f'{{"ph":"C","name":{name},{where},"ts":{microseconds(time_fs)},"args":{rates}}}'

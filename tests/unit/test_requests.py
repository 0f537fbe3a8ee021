"""Request traces: exact arrival times, and errors that name the line."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsim.config.errors import UserError
from archsim.workload.requests import Request, read_requests, timestamp_fs

TRACES = Path(__file__).parents[2] / "traces"
PUBLIC = Path(__file__).parents[3] / "shared" / "traces" / "AzureLLMInferenceTrace_conv.csv"
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
FIRST = "2023-11-16 18:15:46.6805900,374,44\n"


def trace(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    return file


def test_arrivals_are_exact_femtoseconds_from_the_first(tmp_path: Path) -> None:
    file = trace(tmp_path, HEADER + FIRST + "2023-11-16 18:15:50.9951690,396,109\n\n")
    assert read_requests(file) == [Request(0, 0, 374, 44), Request(1, 4_314_579_000_000_000, 396, 109)]


def test_time_runs_on_over_midnight_and_new_year(tmp_path: Path) -> None:
    file = trace(tmp_path, HEADER + "2023-12-31 23:59:59.9999999,1,1\n2024-01-01 00:00:00.0000001,1,1\n")
    assert read_requests(file)[1].arrival_fs == 200 * 10**6


def test_offsets_are_times_of_the_same_clock() -> None:
    assert timestamp_fs("2024-05-10 02:00:00.009930+02:00") == timestamp_fs("2024-05-10T00:00:00.00993Z")
    assert timestamp_fs("2024-05-09 19:00:00-0500") == timestamp_fs("2024-05-10 00:00:00")


@given(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)), st.integers(0, 9))
def test_times_agree_with_datetime(moment: datetime, tenth: int) -> None:
    text = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond:06d}{tenth}"
    expected = (moment - datetime(1, 1, 1)) // timedelta(microseconds=1) * 10**9 + tenth * 10**8
    assert timestamp_fs(text) - timestamp_fs("0001-01-01 00:00:00") == expected


def test_columns_in_any_order_with_others_between(tmp_path: Path) -> None:
    text = "GeneratedTokens,user,ContextTokens,TIMESTAMP\r\n44,ann,374,2023-11-16 18:15:46\r\n"
    assert read_requests(trace(tmp_path, text)) == [Request(0, 0, 374, 44)]


def test_a_limit_takes_the_first_and_reads_no_further(tmp_path: Path) -> None:
    file = trace(tmp_path, HEADER + FIRST * 3 + "nonsense\n")
    assert [request.request_id for request in read_requests(file, limit=2)] == [0, 1]
    with pytest.raises(UserError, match="limit of 0"):
        read_requests(file, limit=0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2023-11-16 18:15:47,374", r"trace\.csv:3: 2 fields"),
        ("2023-11-16 18:15:47,1,2,3", r"trace\.csv:3: 4 fields"),
        ("yesterday,374,44", r"trace\.csv:3: TIMESTAMP cannot be 'yesterday'"),
        ("2023-02-30 18:15:47,374,44", r"trace\.csv:3: TIMESTAMP cannot be"),
        ("2023-11-16 24:15:47,374,44", r"trace\.csv:3: TIMESTAMP cannot be"),
        ("2023-11-16 18:15:47,0,44", r"trace\.csv:3: ContextTokens cannot be 0"),
        ("2023-11-16 18:15:47,374,0", r"trace\.csv:3: GeneratedTokens cannot be 0 .*at least 1"),
        ("2023-11-16 18:15:47,374,-44", r"trace\.csv:3: GeneratedTokens cannot be -44"),
        ("2023-11-16 18:15:47,374,4.5", r"trace\.csv:3: GeneratedTokens cannot be '4\.5'"),
        ("2023-11-16 18:15:47,nan,44", r"trace\.csv:3: ContextTokens cannot be 'nan'"),
        ("2023-11-16 18:15:47,,44", r"trace\.csv:3: ContextTokens cannot be ''"),
        ("2023-11-16 18:15:46.6805899,374,44", r"trace\.csv:3: .* is before the one above it"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_requests(trace(tmp_path, HEADER + FIRST + row + "\n"))


def test_a_missing_column_names_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trace\.csv:1: column 'ContextTokens' is missing .*did you mean"):
        read_requests(trace(tmp_path, "TIMESTAMP,ContextToken,GeneratedTokens\n" + FIRST))
    with pytest.raises(UserError, match="appears more than once"):
        read_requests(trace(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens,ContextTokens\n"))
    with pytest.raises(UserError, match="an empty file"):
        read_requests(trace(tmp_path, ""))


def test_files_that_are_no_trace(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such request trace"):
        read_requests(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="cannot be read"):
        read_requests(tmp_path)
    with pytest.raises(UserError, match="no requests below the header"):
        read_requests(trace(tmp_path, HEADER))
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        read_requests(binary)


def test_the_shipped_sample_is_what_its_script_makes() -> None:
    made = subprocess.run(
        [sys.executable, str(TRACES / "make_sample.py")], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert made == (TRACES / "sample_conversation.csv").read_text()
    requests = read_requests(TRACES / "sample_conversation.csv")
    assert len(requests) == 120
    assert all(later.arrival_fs >= earlier.arrival_fs for earlier, later in pairwise(requests))


@pytest.mark.skipif(not PUBLIC.is_file(), reason="the public Azure trace is not beside the project")
def test_the_public_trace_reads_whole() -> None:
    requests = read_requests(PUBLIC)
    assert len(requests) == 19_366
    assert requests[-1].arrival_fs == 3_501_721_937 * 10**9  # 18:15:46.6805900 to 19:14:08.4025270

"""The flash checker finds nothing in the kernel's logs and what is wrong in edited ones, by name."""

from __future__ import annotations

import numpy as np
import pytest
from flash_cases import FlashCase, StreamCase, run_kernel

from archsim.kernels.flash_state import FlashCommand, FlashLogField, FlashTiming, Kind, striping
from archsim.memory.flash_checker import RULES, check_flash_commands

T, COMMAND, PLANE, BUFFER, PAGE = (
    FlashLogField.TICK, FlashLogField.COMMAND, FlashLogField.PLANE, FlashLogField.BUFFER, FlashLogField.PAGE,
)  # fmt: skip
TIMING = FlashTiming(
    planes=4, group_planes=2, buffers=2, granules=4, codeword=2, codeword_ticks=5, ecc_ticks=3, link_ticks=2,
    command_ticks=4, t_read=50, t_program=200, t_erase=600, most_active=2, queue=16, staging=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def log() -> np.ndarray:
    """Reads of twenty pages, then programs of eight."""
    reads = StreamCase(8, Kind.READ, 0, 20, 4)
    writes = StreamCase(4, Kind.PROGRAM, 40, 8, 4)
    return run_kernel(FlashCase(TIMING, striping(np.arange(4), 4), (reads, writes))).log


def rules(log: np.ndarray, timing: FlashTiming = TIMING) -> set[str]:
    return {violation.rule for violation in check_flash_commands(timing, log)}


def first(log: np.ndarray, command: FlashCommand, skip: int = 0) -> int:
    return int(np.flatnonzero(log[:, COMMAND] == command)[skip])


def test_the_kernel_breaks_no_rule(log: np.ndarray) -> None:
    assert {int(c) for c in log[:, COMMAND]} == {0, 1, 3, 4}
    assert check_flash_commands(TIMING, log) == []


def test_a_sense_of_a_tick_less_is_found_at_exactly_that_tick(log: np.ndarray) -> None:
    assert "buffer filled" in rules(log, TIMING._replace(t_read=TIMING.t_read + 1))
    assert "loaded" not in rules(log, TIMING._replace(t_read=TIMING.t_read + 1))


def test_longer_times_break_the_rule_they_belong_to(log: np.ndarray) -> None:
    assert "array" in rules(log, TIMING._replace(t_program=TIMING.t_program + 1))
    assert "bus" in rules(log, TIMING._replace(codeword_ticks=TIMING.codeword_ticks + 1))
    assert "command bus" in rules(log, TIMING._replace(command_ticks=TIMING.command_ticks + 1))
    assert "power" in rules(log, TIMING._replace(most_active=1))


def test_each_rule_can_be_broken(log: np.ndarray) -> None:
    broken: set[str] = set()
    for row, field, value in (
        (first(log, FlashCommand.READ_OUT), PAGE, 1_000),
        (first(log, FlashCommand.PROGRAM), PAGE, 1_000),
        (first(log, FlashCommand.READ_OUT), T, 10),
        (first(log, FlashCommand.SENSE, 4), T, 1),
        (first(log, FlashCommand.SENSE, 1), PAGE, 7),
        (first(log, FlashCommand.SENSE, 2), T, 3),
    ):
        edited = log.copy()
        edited[row, field] = value
        broken |= rules(edited)
    for timing in (
        TIMING._replace(most_active=1),
        TIMING._replace(codeword_ticks=6),
        TIMING._replace(t_program=201),
    ):
        broken |= rules(log, timing)
    assert broken == set(RULES)


def test_a_violation_says_what_would_have_been_right(log: np.ndarray) -> None:
    violation = check_flash_commands(TIMING._replace(t_read=60), log)[0]
    assert str(violation) == f"entry {violation.index} at tick {violation.found} breaks '{violation.rule}': " + (
        f"not before tick {violation.needed}"
    )


@pytest.mark.parametrize("bad", [np.zeros((3, 7), np.int64), np.full((1, 8), 9, np.int64), -np.ones((1, 8), np.int64)])
def test_what_is_no_log_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="command"):
        check_flash_commands(TIMING, bad)

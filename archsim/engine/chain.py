"""A trace cut into chains that the memory's kernel can count in ticks, and what is too long to be simulated.

The kernel counts the ticks of a chain up to `HORIZON_TICKS`, the engine counts femtoseconds in 64 bits. How long an
operator takes is known when it has run: before, by its bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from archsim.config.errors import UserError
from archsim.config.units import format_time_fs
from archsim.engine.memory_port import NoProgressError
from archsim.engine.prepare import Prepared
from archsim.memory.device import HORIZON_TICKS, HbmDevice
from archsim.memory.main import MainMemory

CHAIN_OPERATORS = 512
"""A chain is cut into pieces of this size, so that progress can be shown and an interrupt is heard."""
CHAIN_TICKS = HORIZON_TICKS >> 3
"""Bounds of a chain's operators add up to no more than this: it may take several times as long."""
OPERATOR_TICKS = HORIZON_TICKS >> 1
"""The longest bound of one operator. When a chain starts, the clock stands at a quarter of the horizon at most."""
LAST_FS = (1 << 63) - 1


def chains(prepared: Sequence[Prepared], memory: HbmDevice) -> Iterator[list[Prepared]]:
    """The operators in pieces, each a chain of the kernel."""
    chain_fs = float(CHAIN_TICKS * memory.tick_fs)
    piece: list[Prepared] = []
    piece_fs = 0
    for item in prepared:
        if piece and (len(piece) == CHAIN_OPERATORS or piece_fs + item.least_fs > chain_fs):
            yield piece
            piece, piece_fs = [], 0
        piece.append(item)
        piece_fs += item.least_fs
    if piece:
        yield piece


def check_lengths(prepared: Sequence[Prepared], memory: MainMemory, now_fs: int) -> None:
    """Raises UserError for an operator, or a time at the end, that can't be counted."""
    most_fs = float(OPERATOR_TICKS * memory.tick_fs) if isinstance(memory, HbmDevice) else LAST_FS
    total_fs = 0
    for item in prepared:
        total_fs += item.least_fs
        if now_fs + 2 * total_fs > LAST_FS:  # twice: a bound is not what it will take
            raise UserError(
                f"{item.operator.name} would end after {format_time_fs(now_fs + total_fs)} or later: a run is counted "
                f"in femtoseconds, to {format_time_fs(LAST_FS)}",
                expected="less work, faster hardware, or shorter latencies",
            )
        if item.least_fs > most_fs:
            raise too_many_ticks(item, most_fs)


def too_many_ticks(item: Prepared, most_fs: float) -> UserError:
    """What to say of an operator that takes longer than the memory's kernel counts."""
    return UserError(
        f"{item.operator.name} takes longer than {format_time_fs(most_fs)}, the most that the DRAM kernel counts in "
        f"ticks of this memory's clock for one operator",
        expected="shorter latencies and timings, less work in one operator, or a lower data_rate",
    )


def why_unfinished(item: Prepared, memory: HbmDevice, component: str, stuck: object) -> Exception:
    """An operator did not end before the horizon: it was too long, or nothing could happen any more."""
    bursts = sum(data[1] for data in item.range_rows)
    slowest = bursts * sum(ticks for name, ticks in memory.timing._asdict().items() if name.startswith("t"))
    if memory.to_ticks(item.least_fs) + slowest > HORIZON_TICKS // 4:
        return too_many_ticks(item, float(HORIZON_TICKS * memory.tick_fs))
    return NoProgressError(f"{component} makes no progress: {stuck}")

"""The picture of a command trace shows what the trace says."""

from __future__ import annotations

import pandas as pd
import pytest

from archsim.commands.replay import load_memory
from archsim.config.errors import UserError
from archsim.report.dram_timeline import dram_timeline

MEMORY = load_memory("hbm3_16gb_8hi")
PLACE = {"channel": 0, "pseudo_channel": 0, "stack_id": 0, "bank_group": 1, "bank": 2}


def trace(*commands: tuple[int, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [{**PLACE, "tick": tick, "command": command, "row": 5, "column": 0} for tick, command in commands]
    )


def bars(figure) -> list[tuple[float, float]]:  # type: ignore[no-untyped-def]
    """(start, width) in nanoseconds of every bar, as drawn."""
    paths = [path for bar in figure.axes[0].collections for path in bar.get_paths() if len(path.vertices) == 5]
    return [(path.vertices[:, 0].min(), path.vertices[:, 0].max() - path.vertices[:, 0].min()) for path in paths]


def test_a_row_is_open_from_its_act_to_its_precharge_and_the_burst_follows_its_read() -> None:
    figure = dram_timeline(trace((0, "ACT"), (62, "RD"), (120, "PRE"), (400, "ACT")), MEMORY)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["SID0 BG1 B2", "data bus"]
    tick_ns = 0.3125
    burst = ((62 + 40) * tick_ns, 4 * tick_ns)  # tCL 20 and tBL 2 clocks of two ticks
    assert (0.0, 120 * tick_ns) in bars(figure)
    assert burst in [(round(start, 6), round(width, 6)) for start, width in bars(figure)]


def test_a_window_without_commands_is_refused() -> None:
    with pytest.raises(UserError, match="0 commands of channel 3"):
        dram_timeline(trace((0, "ACT")), MEMORY, channel=3, end_ns=10)

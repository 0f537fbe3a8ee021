"""Row outcomes and bus time by class of channels, as shares: what both kinds of figures draw of a memory's channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archsim.report import style
from archsim.results import ChannelClass, PhaseSummary

_MOST_BARS = 48
TILES = ("busy", "refresh", "turnaround", "row", "idle")
ROW_OUTCOMES = ("hits", "misses", "conflicts")


@dataclass(frozen=True)
class ChannelBar:
    """One class of equal channels: shares of row outcomes and of bus time (each sums to 1, or to 0 without any)."""

    label: str
    accesses: int
    outcomes: Mapping[str, float]
    tiles: Mapping[str, float]


@dataclass(frozen=True)
class Part:
    """One colour of a panel: its share (0..1) in each bar."""

    label: str
    colour: str
    shares: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """Stacked bars, one for each class of channels."""

    title: str
    of: str
    parts: Sequence[Part]

    @property
    def legend(self) -> list[tuple[str, str]]:
        """Label and colour of each part."""
        return [(part.label, part.colour) for part in self.parts]


def channel_bars(phase: PhaseSummary) -> list[ChannelBar]:
    """One bar per channel class, the heaviest classes first if there are too many to draw."""
    channels = phase.channels
    if len(channels) > _MOST_BARS:
        channels = tuple(sorted(channels, key=lambda channel: -channel.weight)[:_MOST_BARS])
    return [_bar(channel) for channel in channels]


def channel_panels(phase: PhaseSummary, phases: Sequence[PhaseSummary]) -> list[Panel]:
    """Row accesses, for a memory that has rows, and bus time; parts that no phase has are left out."""
    bars = channel_bars(phase)
    every = [bar for one in phases for bar in channel_bars(one)]
    outcomes = [
        Part(style.ROW_LABELS[name], style.ROW_COLOURS[name], [bar.outcomes[name] for bar in bars])
        for name in ROW_OUTCOMES
        if any(bar.outcomes[name] for bar in every)
    ]
    tiles = [
        Part(style.TILE_LABELS[name], style.TILE_COLOURS[name], [bar.tiles[name] for bar in bars])
        for name in TILES
        if any(bar.tiles[name] for bar in every)
    ]
    panels = (
        Panel("share of row accesses (%)", "row accesses", outcomes),
        Panel("share of data bus time (%)", "bus time", tiles),
    )
    return [panel for panel in panels if panel.parts]


def _bar(channel: ChannelClass) -> ChannelBar:
    counts = channel.counts
    outcomes = {name: getattr(counts, f"dram_row_{name}") for name in ROW_OUTCOMES}
    tiles = {name: getattr(counts, f"dram_{name}_ticks") for name in TILES}
    label = channel.label if channel.weight == 1 else f"{channel.label} (one class of {channel.weight})"
    return ChannelBar(label, sum(outcomes.values()), _shares(outcomes), _shares(tiles))


def _shares(parts: Mapping[str, int]) -> dict[str, float]:
    total = sum(parts.values())
    return {name: value / total if total else 0.0 for name, value in parts.items()}

"""Channels that do the same, as one: the state that stands for them, and the work that they are given.

A job is a transfer: streams of bursts in slots of the kernel, and tiles that a consumer takes them in. What becomes of
many classes is in classes.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from archsim.kernels import channel
from archsim.kernels.timing import COUNT_WORDS
from archsim.memory.layout import Shares

Ints = NDArray[np.int64]

NO_WORDS = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Stream:
    """One stream of a job in its slot: the same run in every pseudo-channel (first, bursts), or shares of their own."""

    slot: int
    work: tuple[int, int] | Shares
    write: bool
    window_bursts: int

    def runs_of(self, member: int, pseudo_channels: int) -> tuple[tuple[Ints, Ints], ...]:
        """(first, count) of the runs in each pseudo-channel of a channel."""
        if isinstance(self.work, Shares):
            return self.work.of(member)
        first, bursts = self.work
        return ((np.array([first]), np.array([bursts])),) * pseudo_channels


@dataclass
class Job:
    """A transfer under way. `gate` is the tick before which no tile starts, NEVER while it is shut.

    `start` is when tile `tile` starts, once every channel's data for it are known to come."""

    tiles: int
    tile_ticks: int
    gate: int
    tile: int = -1
    start: int = 0


@dataclass(eq=False)
class ChannelClass:
    """A state and the channels it stands for. `ended` holds (tick reached, last data) of jobs that are done here but
    not yet in all channels; `words` and `arrival` are the requests of streams with lists (kernels/dram.py)."""

    state: Ints
    members: Ints
    active: set[int] = field(default_factory=set)
    listed: set[int] = field(default_factory=set)
    ended: dict[int, tuple[int, int]] = field(default_factory=dict)
    words: Ints = field(default_factory=lambda: NO_WORDS)
    arrival: Ints = field(default_factory=lambda: NO_WORDS)

    @property
    def now(self) -> int:
        """The tick this class has been simulated to."""
        return int(self.state[channel.NOW])

    @property
    def counts(self) -> Ints:
        return self.state[channel.COUNTS : channel.COUNTS + COUNT_WORDS]

    @property
    def histogram(self) -> Ints:
        return channel.ChannelView(self.state).histogram

    def job_word(self, job: int, word: int) -> int:
        """A field of a job (kernels/channel.py)."""
        return int(self.state[channel.JOB + job * channel.JOB_FIELDS + word])

    def split_off(self, members: Ints) -> ChannelClass:
        """A copy for some of the members."""
        return ChannelClass(
            self.state.copy(), members, set(self.active), set(self.listed), dict(self.ended), self.words, self.arrival
        )

    def list_requests(self, job: int, first: Ints, count: Ints, write: bool) -> int:
        """Write runs out as requests that arrive now; where they begin in the list."""
        begin = len(self.words)
        within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        words = (np.repeat(first, count) + within) << 1 | int(write)
        self.words = np.concatenate((self.words, words))
        self.arrival = np.concatenate((self.arrival, np.full(len(words), self.now, np.int64)))
        self.listed.add(job)
        return begin

"""The controller preset `hbm34-fcfs`: the driver of the kernel that schedules an HBM3 channel as Ramulator 2.1 does.

For comparison with that simulator, command by command. Addresses in, one channel, all requests queued as fast as the
controller takes them (four per tick at most); commands and totals out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from archsim.config.errors import UserError
from archsim.kernels.hbm34 import serve_requests
from archsim.kernels.hbm34_state import (
    ACTIVE_ID,
    ACTIVE_LENGTH,
    BANKS_OF_PC,
    COUNT_WORDS,
    DEPTH,
    DRAINED,
    FIRST_COMMAND,
    FOLLOWING,
    ID,
    INJECTED,
    LENGTH,
    LOG_FIELDS,
    PCS,
    STATE_WORDS,
    Hbm34Command,
    Hbm34Count,
    Hbm34Timing,
)
from archsim.memory.standard import DramStandard

Int64 = NDArray[np.int64]

TICKS_PER_CK = 2
ACCESS_BYTES = 32
CAPACITY_BYTES = 1 << 30
"""2 pseudo-channels x 2 stack IDs x 4 bank groups x 4 banks x 16384 rows x 32 columns of 32 B."""
COMMAND_TICKS = MappingProxyType({"ACT": 3, "PRE": 1, "RD": 2, "WR": 2, "REF": 1})
"""How long a command takes on its bus."""
HBM3_16GB_8HI_6400 = MappingProxyType(
    {
        "tCK_ps": 625,
        "nBL": 2,
        "nCL": 20,
        "nRCDRD": 31,
        "nRCDWR": 15,
        "nRP": 26,
        "nRAS": 45,
        "nRC": 72,
        "nWR": 33,
        "nRTP": 9,
        "nCWL": 10,
        "nCCDS": 2,
        "nCCDL": 4,
        "nCCDR": 3,
        "nRRDS": 4,
        "nRRDL": 5,
        "nWTRS": 7,
        "nWTRL": 10,
        "nRTW": 20,
        "nFAW": 24,
        "nPPD": 2,
        "nRFC": 560,
        "nREFI": 6240,
    }
)
"""HBM3 16 Gb, 8 high, 6400 Mb/s, in CK. source: Ramulator 2.1 (commit c5b1c3a) HBM3 preset"""


LOG_COMMANDS = 1 << 17
"""Room of the command log between two hand-overs."""
LANES = 2 * PCS

CommandSink = Callable[[pd.DataFrame], None]
"""Takes commands in order of time, with the columns of Ramulator's command trace."""


class Mapper(StrEnum):
    """Address maps."""

    ROBARACOCH = "RoBaRaCoCh"
    MOP4CLXOR = "MOP4CLXOR"


@dataclass(frozen=True, slots=True)
class Hbm34Result:
    """What the controller did. Times are in ticks, half a CK each."""

    commands: pd.DataFrame
    """Every command with the columns of Ramulator's command trace; empty unless logged."""
    ticks: int
    row_hits: int
    row_misses: int
    row_conflicts: int
    forwarded: int
    """Reads answered from the write queue."""
    coalesced: int
    """Writes merged into a queued write of the same address."""
    read_latency: Int64
    """Of each read, in order of injection, from injection to the last of its data; 1 if forwarded."""
    read_latency_sum: int
    average_read_latency: float
    """The sum divided by the reads that were not forwarded, as Ramulator has it; 0 without any."""
    queue_sums: tuple[int, int, int]
    """Reads, writes and refreshes that wait in their queues, summed over ticks."""
    commands_issued: int


def nominal_timings(standard: DramStandard) -> dict[str, int]:
    """A memory's timings in CK, by the names of `HBM3_16GB_8HI_6400`.

    Raises UserError if it is not organised as the HBM3 channel whose rules the controller knows."""
    organisation = standard.organisation
    for what, found, wanted in (
        ("pseudo-channels", organisation.pseudo_channels, 2),
        ("stack IDs", organisation.stack_ids, 2),
        ("bank groups", organisation.bank_groups, 4),
        ("banks per group", organisation.banks_per_group, 4),
        ("columns", organisation.columns, 32),
        ("bytes per burst", organisation.burst_bytes, ACCESS_BYTES),
        ("command edges per clock", standard.commands.edges_per_clock, TICKS_PER_CK),
        ("command edges of an ACT", standard.commands.ticks(standard.commands.activate_clocks), COMMAND_TICKS["ACT"]),
        ("command edges of a RD", standard.commands.ticks(standard.commands.column_clocks), COMMAND_TICKS["RD"]),
    ):
        if found != wanted:
            raise UserError(
                f"the controller hbm34 schedules HBM3 channels with {wanted} {what}; {standard.name} has {found}",
                expected="--memory hbm3_16gb_8hi, or another controller",
            )
    nominal: dict[str, int] = {"tCK_ps": int(Fraction(standard.clock_fs) / 1000)}
    for name in list(HBM3_16GB_8HI_6400)[1:]:
        nominal[name] = standard.clocks("tRFCab" if name == "nRFC" else "t" + name[1:])
    return nominal


def controller_timing(nominal: Mapping[str, int], refresh: bool, depth: int = DEPTH) -> Hbm34Timing:
    """Gaps between commands in ticks, from nominal timings in CK. A nominal gap reaches from the last tick of one
    command to the last tick of the next; the kernel counts from first to first."""

    def gap(previous: str, following: str, clocks: int) -> int:
        return TICKS_PER_CK * clocks + COMMAND_TICKS[previous] - COMMAND_TICKS[following]

    n = nominal
    write_end = n["nCWL"] + n["nBL"]
    return Hbm34Timing(
        act_act=gap("ACT", "ACT", n["nRRDS"]),
        act_act_g=gap("ACT", "ACT", n["nRRDL"]),
        act_act_b=gap("ACT", "ACT", n["nRC"]),
        act_window=gap("ACT", "ACT", n["nFAW"]),
        act_rd_b=gap("ACT", "RD", n["nRCDRD"]),
        act_wr_b=gap("ACT", "WR", n["nRCDWR"]),
        act_pre=gap("ACT", "PRE", n["nRAS"]),
        act_refab=gap("ACT", "REF", n["nRC"]),
        act_row=COMMAND_TICKS["ACT"],
        pre_act=gap("PRE", "ACT", n["nRP"]),
        pre_pre=gap("PRE", "PRE", n["nPPD"]),
        pre_refab=gap("PRE", "REF", n["nRP"]),
        rd_rd=gap("RD", "RD", n["nCCDS"]),
        rd_rd_g=gap("RD", "RD", n["nCCDL"]),
        rd_rd_sid=gap("RD", "RD", n["nCCDR"]),
        rd_wr=gap("RD", "WR", n["nRTW"]),
        rd_pre=gap("RD", "PRE", n["nRTP"]),
        wr_wr=gap("WR", "WR", n["nCCDS"]),
        wr_wr_g=gap("WR", "WR", n["nCCDL"]),
        wr_rd=gap("WR", "RD", write_end + n["nWTRS"]),
        wr_rd_g=gap("WR", "RD", write_end + n["nWTRL"]),
        wr_pre=gap("WR", "PRE", write_end + n["nWR"]),
        column_column=COMMAND_TICKS["RD"],
        refab_act=gap("REF", "ACT", n["nRFC"]),
        refab_preab=gap("REF", "PRE", n["nRFC"]),
        refresh_interval=TICKS_PER_CK * n["nREFI"] if refresh else 0,
        read_latency=TICKS_PER_CK * (n["nCL"] + n["nBL"]),
        write_on=depth * 8 // 10 + 1,  # more than 0.8 of the depth
        write_off=(depth * 2 - 1) // 10,  # less than 0.2
    )


def map_addresses(addresses: Int64, mapper: Mapper) -> tuple[Int64, Int64]:
    """Each address as a key, row << 6 | bank in the channel, and a column. A bank in the channel is, from the most
    significant bit: pseudo-channel (1 bit), stack ID (1), bank group (2), bank (2)."""
    burst = addresses // ACCESS_BYTES
    row = burst >> 11
    if mapper is Mapper.ROBARACOCH:
        column, place = burst & 31, burst >> 5
    else:
        column, place = (burst & 3) | (((burst >> 8) & 7) << 2), burst >> 2
    pc, sid, group, bank = place & 1, (place >> 1) & 1, (place >> 2) & 3, (place >> 4) & 3
    if mapper is Mapper.MOP4CLXOR:
        pc = pc ^ (column & 1)
        sid = sid ^ ((column >> 1) & 1)
        group = group ^ ((column >> 2) & 3)
        bank = bank ^ ((column >> 4) & 1)
    return row << 6 | pc << 5 | sid << 4 | group << 2 | bank, column


class Served(NamedTuple):
    """Requests that are done, in order of injection: whether each wrote, and its latency in ticks."""

    write: Int64
    latency: Int64


class Hbm34Channel:
    """One channel that is given requests piece by piece; what it holds is what has not been served.

    Requests come as byte addresses and writes (0 or 1), in order; the controller takes four per tick while it has room.
    `latencies` of a read reach to the last of its data (1 if forwarded), of a write to its WR (0 if merged).
    """

    def __init__(
        self, timing: Hbm34Timing, mapper: Mapper, command_sink: CommandSink | None = None, number: int = 0
    ) -> None:
        self._timing = timing
        self._mapper = mapper
        self._sink = command_sink
        self._number = number
        self._state = np.zeros(STATE_WORDS, np.int64)
        self._log = np.zeros(LOG_COMMANDS * LOG_FIELDS if command_sink is not None else 0, np.int64)
        self._held = [np.zeros(0, np.int64) for _ in range(5)]  # keys, columns, writes, arrivals, decided
        self.counts = np.zeros(COUNT_WORDS, np.int64)

    def count(self, what: Hbm34Count) -> int:
        """One of the counts so far."""
        return int(self.counts[what])

    def issued(self, command: Hbm34Command) -> int:
        """How many of these commands have been issued."""
        return int(self.counts[FIRST_COMMAND + command])

    @property
    def waiting_requests(self) -> int:
        """Requests in memory: given and not served."""
        return len(self._held[0])

    def serve(self, addresses: Int64, writes: Int64, last: bool) -> Served:
        """Go as far as these requests and those before determine what happens; with `last`, to the end."""
        keys, columns = map_addresses(addresses, self._mapper)
        nothing = np.zeros(len(keys), np.int64)
        new = (keys, columns, writes, nothing, nothing)
        keys, columns, writes, arrivals, decided = (np.concatenate(pair) for pair in zip(self._held, new, strict=True))
        latencies = np.zeros(len(keys), np.int64)
        while True:
            self.counts[Hbm34Count.LOG_LENGTH] = 0
            _serve_requests(
                self._timing,
                self._state,
                keys,
                columns,
                writes,
                int(last),
                arrivals,
                latencies,
                decided,
                self.counts,
                self._log,
            )
            self._hand_over(keys, columns, writes)
            following = int(self._state[FOLLOWING])
            if self._state[DRAINED] if last else len(keys) - following < INJECTED:
                break
        held = np.concatenate((self._queued(), np.arange(following, len(keys))))
        done = np.ones(len(keys), bool)
        done[held] = False
        self._renumber(held)
        self._held = [column[held] for column in (keys, columns, writes, arrivals, decided)]
        return Served(writes[done], latencies[done])

    def _hand_over(self, keys: Int64, columns: Int64, writes: Int64) -> None:
        n = self.count(Hbm34Count.LOG_LENGTH)
        if self._sink is not None and n:
            notes = self._log[: n * LOG_FIELDS].reshape(-1, LOG_FIELDS)
            self._sink(_command_table(notes, keys, columns, writes, self._number))

    def _places(self) -> Int64:
        """Where the state holds the numbers of injected requests that are not served."""
        lanes = [np.arange(self._state[LENGTH + lane]) + ID + lane * DEPTH for lane in range(LANES)]
        active = [np.arange(self._state[ACTIVE_LENGTH + pc]) + ACTIVE_ID + pc * BANKS_OF_PC for pc in range(PCS)]
        return np.concatenate((*lanes, *active))

    def _queued(self) -> Int64:
        return np.sort(self._state[self._places()])

    def _renumber(self, held: Int64) -> None:
        """Number the requests from the oldest one held on; `held` has their numbers so far, ascending."""
        places = self._places()
        self._state[places] = np.searchsorted(held, self._state[places])
        self._state[FOLLOWING] = len(held) - (held >= self._state[FOLLOWING]).sum()


def run_hbm34(
    addresses: ArrayLike,
    writes: ArrayLike,
    refresh: bool = True,
    mapper: Mapper | str = Mapper.ROBARACOCH,
    log: bool = False,
) -> Hbm34Result:
    """Serve requests (byte addresses, and whether each writes) in this order until the channel is drained."""
    address = np.ascontiguousarray(addresses, np.int64)
    write = np.ascontiguousarray(writes, np.bool_).astype(np.int64)
    if address.shape != write.shape or address.ndim != 1:
        raise ValueError("addresses and writes are two sequences of one length")
    if len(address) and (address.min() < 0 or address.max() >= CAPACITY_BYTES):
        raise ValueError(f"addresses are from 0 up to {CAPACITY_BYTES}, the channel's capacity in bytes")
    tables: list[pd.DataFrame] = []
    timing = controller_timing(HBM3_16GB_8HI_6400, refresh)
    channel = Hbm34Channel(timing, Mapper(mapper), tables.append if log else None)
    served = channel.serve(address, write, last=True)
    count = channel.count
    reads = len(address) - int(write.sum()) - count(Hbm34Count.FORWARDED)
    return Hbm34Result(
        commands=pd.concat(tables, ignore_index=True) if tables else _no_commands(),
        ticks=count(Hbm34Count.TICKS),
        row_hits=count(Hbm34Count.HITS),
        row_misses=count(Hbm34Count.MISSES),
        row_conflicts=count(Hbm34Count.CONFLICTS),
        forwarded=count(Hbm34Count.FORWARDED),
        coalesced=count(Hbm34Count.COALESCED),
        read_latency=served.latency[served.write == 0],
        read_latency_sum=count(Hbm34Count.READ_LATENCY),
        average_read_latency=count(Hbm34Count.READ_LATENCY) / reads if reads else 0.0,
        queue_sums=(
            count(Hbm34Count.READ_QUEUE),
            count(Hbm34Count.WRITE_QUEUE),
            count(Hbm34Count.REFRESH_QUEUE),
        ),
        commands_issued=count(Hbm34Count.COMMANDS),
    )


def _no_commands() -> pd.DataFrame:
    none = np.zeros(0, np.int64)
    return _command_table(none.reshape(0, LOG_FIELDS), none, none, none, 0)


def _command_table(notes: Int64, keys: Int64, columns: Int64, writes: Int64, channel: int) -> pd.DataFrame:
    """A log as a table like Ramulator's command trace; -1 where a field does not apply."""
    names = np.array(["ACT", "PREpb", "PREab", "RD", "WR", "REFab"])
    assert len(names) == len(Hbm34Command)
    request = notes[:, 2]
    whole = request < 0  # an all-bank command: the pseudo-channel - 2 is in the request's place
    some = np.where(whole, 0, request)
    if len(keys):
        key, column, write = keys[some], columns[some], writes[some]
    else:
        key = column = write = some

    def field(values: Int64) -> Int64:
        return np.where(whole, -1, values)

    return pd.DataFrame(
        {
            "clock": notes[:, 0],
            "command": names[notes[:, 1]],
            "Channel": np.full_like(request, channel),
            "PseudoChannel": np.where(whole, request + 2, (key >> 5) & 1),
            "Sid": field((key >> 4) & 1),
            "BankGroup": field((key >> 2) & 3),
            "Bank": field(key & 3),
            "Row": field(key >> 6),
            "Column": field(column),
            "type": field(write),
            "source": field(np.zeros_like(request)),
        }
    )


# Kernels are untyped.
_serve_requests: Any = serve_requests

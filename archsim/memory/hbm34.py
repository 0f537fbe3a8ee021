"""The controller preset `hbm34-fcfs`: the driver of the kernel that schedules an HBM3 channel as Ramulator 2.1 does.

For comparison with that simulator, command by command. Addresses in, one channel, all requests queued as fast as the
controller takes them (four per tick at most); commands and totals out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from archsim.kernels.hbm34 import serve_requests
from archsim.kernels.hbm34_state import (
    DEPTH,
    LOG_FIELDS,
    STATE_WORDS,
    Hbm34Command,
    Hbm34Count,
    Hbm34Timing,
)

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
    n = len(address)
    if address.shape != write.shape or address.ndim != 1:
        raise ValueError("addresses and writes are two sequences of one length")
    if n and (address.min() < 0 or address.max() >= CAPACITY_BYTES):
        raise ValueError(f"addresses are from 0 up to {CAPACITY_BYTES}, the channel's capacity in bytes")
    keys, columns = map_addresses(address, Mapper(mapper))
    timing = controller_timing(HBM3_16GB_8HI_6400, refresh)
    room = 4 * n + 1024 if log else 0
    while True:
        notes = np.zeros(room * LOG_FIELDS, np.int64)
        counts = np.zeros(len(Hbm34Count), np.int64)
        latencies = np.zeros(n, np.int64)
        arrivals, decided = np.zeros(n, np.int64), np.zeros(n, np.int64)
        state = np.zeros(STATE_WORDS, np.int64)
        serve_requests(timing, state, keys, columns, write, arrivals, latencies, decided, counts, notes)
        issued = int(counts[Hbm34Count.COMMANDS])
        if not log or issued <= room:
            break
        room = issued  # now the size is known: once more, with room for all
    total = {count: int(counts[count]) for count in Hbm34Count}
    reads = n - int(write.sum()) - total[Hbm34Count.FORWARDED]
    return Hbm34Result(
        commands=_command_table(notes.reshape(-1, LOG_FIELDS)[:issued], keys, columns, write),
        ticks=total[Hbm34Count.TICKS],
        row_hits=total[Hbm34Count.HITS],
        row_misses=total[Hbm34Count.MISSES],
        row_conflicts=total[Hbm34Count.CONFLICTS],
        forwarded=total[Hbm34Count.FORWARDED],
        coalesced=total[Hbm34Count.COALESCED],
        read_latency=latencies[write == 0],
        read_latency_sum=total[Hbm34Count.READ_LATENCY],
        average_read_latency=total[Hbm34Count.READ_LATENCY] / reads if reads else 0.0,
        queue_sums=(
            total[Hbm34Count.READ_QUEUE],
            total[Hbm34Count.WRITE_QUEUE],
            total[Hbm34Count.REFRESH_QUEUE],
        ),
        commands_issued=issued,
    )


def _command_table(notes: Int64, keys: Int64, columns: Int64, writes: Int64) -> pd.DataFrame:
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
            "Channel": np.zeros_like(request),
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

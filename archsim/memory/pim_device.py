"""The driver of a PIM device: work in, ticks and counts out.

One channel is simulated and stands for all: each runs the same program, or, where work does not divide, less of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from archsim.config.errors import UserError
from archsim.kernels.pim import advance_pim
from archsim.kernels.pim_program import PimProgram
from archsim.kernels.pim_repeat import new_history
from archsim.kernels.pim_tables import (
    COUNTS,
    FENCES,
    FINISH,
    LOG_LENGTH,
    REFRESH_STALL,
    SKIPPED,
    STALLED,
    compile_rules,
    new_state,
)
from archsim.memory.pim import PimEnergy, PimFamily, PimSpec, RoleName
from archsim.memory.pim_attacc import head_attention, head_gemv
from archsim.memory.pim_banks import mapped_attention
from archsim.memory.pim_hbm import register_gemv
from archsim.memory.pim_layout import check_sizes
from archsim.memory.pim_mapping import OperandPlace
from archsim.memory.pim_programs import PimWork, host_gemv, row_attention, row_gemv
from archsim.memory.pim_vectors import BankVector, vector_works

HORIZON = 1 << 50
HEAD_FAMILIES = (PimFamily.ATTACC, PimFamily.LOGIC_PIM)
PIN_COMMANDS = ("WRGB", "RDRES", "WRGRF", "WRBANK", "WRCRF", "SETM", "WRSBK", "RDSBK", "RDAF")
"""Commands that move a burst over the channel's pins, in the families that have them."""
NOT_BY_ROWS = (*HEAD_FAMILIES, PimFamily.HBM_PIM)


@dataclass(frozen=True)
class PimEvents:
    """What energy is counted by, of all channels: rows of single banks opened, bytes from the cells to the units and
    over the channels' pins, multiply-accumulates done (those on padding, and products in banks, too)."""

    activates: int
    read_bytes: int
    pin_bytes: int
    macs: int

    def energy_pj(self, cost: PimEnergy) -> float:
        """Counts times energy per event."""
        return (
            self.activates * cost.activate
            + 8 * self.read_bytes * cost.read
            + 8 * self.pin_bytes * cost.pins
            + self.macs * cost.mac
        )


@dataclass(frozen=True)
class PimResult:
    """What one piece of work took. Counts are of one channel, the busiest; bytes and energy of the whole device.

    `ticks` run from the first command to the completion of the last."""

    ticks: int
    clock_fs: Fraction
    counts: dict[str, int]
    channels: int
    fences: int
    refresh_stall_ticks: int
    skipped_ticks: int
    read_bytes: int
    """Bytes that the units of all channels read, padding included."""
    padding_bytes: int
    macs: int
    events: PimEvents
    energy_pj: float | None
    log: NDArray[np.int64]
    """int64[n, 3]: tick, target, lane; empty unless asked for."""

    @property
    def duration_fs(self) -> int:
        """Rounded up."""
        return -(-self.ticks * self.clock_fs.numerator // self.clock_fs.denominator)

    @property
    def bytes_per_second(self) -> float:
        """Of what was asked for: padding is not counted."""
        return (self.read_bytes - self.padding_bytes) / (self.duration_fs / 10**15)


class PimDevice:
    """A PIM device that does one piece of work after another, each from a channel at rest."""

    def __init__(self, spec: PimSpec, *, fast_forward: bool = True) -> None:
        self.spec = spec
        self.rules = spec.rules_table()
        self._fast_forward = fast_forward

    def gemv(
        self, outputs: int, inputs: int, *, tokens: int = 1, reads: int = 0, input_splits: int = 1, log: int = 0
    ) -> PimResult:
        """A matrix of outputs x inputs by `tokens` vectors, beside `reads` rows of normal reads on every channel.

        On AttAcc and logic-die PIM, `input_splits` channels may share the inputs (`head_gemv`). Raises UserError if it
        does not fit, or for what the family or preset has not."""
        check_sizes(outputs=outputs, inputs=inputs, tokens=tokens, input_splits=input_splits)
        if input_splits > 1 and self.spec.family not in HEAD_FAMILIES:
            raise UserError(f"{self.spec.name} has one layout of inputs", expected="no input_splits")
        if reads and (self.spec.family in NOT_BY_ROWS or not {"ACT", "RD", "PRE"} <= self.spec.commands.keys()):
            raise UserError(f"{self.spec.name} has no normal reads beside PIM", expected="a preset such as 'neupims'")
        if self.spec.family is PimFamily.HBM_PIM:
            work = register_gemv(self.spec, self.rules, outputs, inputs, tokens)
        elif self.spec.family in HEAD_FAMILIES:
            work = head_gemv(self.spec, self.rules, outputs, inputs, tokens, input_splits)
        else:
            work = row_gemv(self.spec, self.rules, outputs, inputs, tokens, reads)
        return self.run(work, log=log)

    def host_gemv(self, outputs: int, inputs: int, *, log: int = 0) -> PimResult:
        """The same product without PIM: what memory takes to read weights and input and to write the result.

        Raises UserError on a device whose preset has no normal accesses."""
        check_sizes(outputs=outputs, inputs=inputs)
        if not {"ACT", "RD", "WR", "PRE"} <= self.spec.commands.keys():
            raise UserError(f"{self.spec.name} has no normal accesses", expected="a preset such as 'hbm_pim'")
        return self.run(host_gemv(self.spec, self.rules, outputs, inputs), log=log)

    def attention(
        self, heads: int, context: int, head_dim: int, *, kv_heads: int | None = None, log: int = 0
    ) -> PimResult:
        """Scores, softmax where the device has it, and context of one token's heads over its KV cache.

        `kv_heads` (default: all) are shared by heads / kv_heads query heads each, which read them once per
        `tokens_per_read`. Raises UserError for sizes that don't divide or don't fit."""
        kv_heads = heads if kv_heads is None else kv_heads
        check_sizes(heads=heads, kv_heads=kv_heads, context=context, head_dim=head_dim)
        if heads % kv_heads:
            raise UserError(f"{heads} heads can't share {kv_heads} KV heads", expected="a divisor of the heads")
        queries = heads // kv_heads
        if self.spec.family is PimFamily.HBM_PIM:
            raise UserError(
                f"{self.spec.name} has no attention: its units have no softmax and the host would reduce every score",
                expected="a device of another family",
            )
        if self.spec.family in HEAD_FAMILIES:
            work = head_attention(self.spec, self.rules, kv_heads, queries, context, head_dim)
        elif self.spec.mapping.whole_heads:
            work = row_attention(self.spec, self.rules, kv_heads, queries, context, head_dim)
        else:
            works = mapped_attention(self.spec, self.rules, kv_heads, queries, context, head_dim)
            return self.run_in_turn(works, log=log)
        return self.run(work, log=log)

    def vector(self, kind: BankVector, elements: int, *, log: int = 0) -> PimResult:
        """An elementwise operator of so many elements in banks. Raises UserError if the mapping leaves it to the host,
        or if it does not fit."""
        check_sizes(elements=elements)
        if self.spec.mapping.vectors is not OperandPlace.BANKS:
            raise UserError(
                f"{self.spec.name} leaves elementwise operators to the host", expected="a preset such as 'cent_gddr6'"
            )
        return self.run_in_turn(vector_works(self.spec, self.rules, kind, elements), log=log)

    def run(self, work: PimWork, *, log: int = 0) -> PimResult:
        """Run a program; `log` is the number of commands to record. Raises UserError if it can't go on."""
        state, rows = run_program(self.spec, work.program, log=log, fast_forward=self._fast_forward)
        counts = {name: int(state[COUNTS + k]) for k, name in enumerate(self.spec.commands)}
        channels = work.channels * work.load
        read_bytes = int(counts[self.spec.mac_command] * self.spec.bytes_per_mac * channels)
        pin_bursts = sum(counts.get(name, 0) for name in PIN_COMMANDS)
        elements = read_bytes // self.spec.units.element_bytes
        useful = elements - work.padding_bytes // self.spec.units.element_bytes
        macs = round(Fraction(elements * work.macs, useful)) if useful > 0 else work.macs
        products = int(counts.get("EWMUL", 0) * self.rules.banks.groups * channels)
        events = PimEvents(
            activates=round(self._activates(counts) * channels),
            read_bytes=read_bytes + 2 * products * self.spec.organisation.burst_bytes,
            pin_bytes=round(pin_bursts * self.spec.organisation.burst_bytes * channels),
            macs=macs + products * self.spec.units.multipliers,
        )
        return PimResult(
            ticks=int(state[FINISH]),
            clock_fs=self.spec.clock_fs,
            counts=counts,
            channels=work.channels,
            fences=int(state[FENCES]),
            refresh_stall_ticks=int(state[REFRESH_STALL]),
            skipped_ticks=int(state[SKIPPED]),
            read_bytes=read_bytes,
            padding_bytes=work.padding_bytes,
            macs=work.macs,
            events=events,
            energy_pj=None if self.spec.energy is None else events.energy_pj(self.spec.energy),
            log=rows,
        )

    def run_in_turn(self, works: Sequence[PimWork], *, log: int = 0) -> PimResult:
        """Run programs that leave their rows closed, each when the one before it is through and tRP is over."""
        results: list[PimResult] = []
        for work in works:
            results.append(self.run(work, log=max(log - sum(len(result.log) for result in results), 0)))
        return in_turn(results, self.spec.clocks("tRP"))

    def _activates(self, counts: dict[str, int]) -> int:
        """Rows of single banks that one channel's commands open."""
        organisation, banks = self.spec.organisation, self.rules.banks
        return sum(
            counts[name] * len(banks.footprint(command.targets, 0)) * organisation.pseudo_channels
            for name, command in zip(self.spec.commands, self.rules.commands, strict=True)
            if self.spec.commands[name].role is RoleName.OPEN
        )


def in_turn(results: Sequence[PimResult], gap_ticks: int) -> PimResult:
    """Pieces of work one after the other, `gap_ticks` between them; `channels` are those of the widest."""
    begins = list(accumulate((result.ticks + gap_ticks for result in results[:-1]), initial=0))
    counts: Counter[str] = Counter()
    for result in results:
        counts.update(result.counts)
    energies = [result.energy_pj for result in results if result.energy_pj is not None]
    return PimResult(
        ticks=begins[-1] + results[-1].ticks,
        clock_fs=results[0].clock_fs,
        counts=dict(counts),
        channels=max(result.channels for result in results),
        fences=sum(result.fences for result in results),
        refresh_stall_ticks=sum(result.refresh_stall_ticks for result in results),
        skipped_ticks=sum(result.skipped_ticks for result in results),
        read_bytes=sum(result.read_bytes for result in results),
        padding_bytes=sum(result.padding_bytes for result in results),
        macs=sum(result.macs for result in results),
        events=PimEvents(
            activates=sum(result.events.activates for result in results),
            read_bytes=sum(result.events.read_bytes for result in results),
            pin_bytes=sum(result.events.pin_bytes for result in results),
            macs=sum(result.events.macs for result in results),
        ),
        energy_pj=sum(energies) if len(energies) == len(results) else None,
        log=np.concatenate(
            [result.log + np.array([begin, 0, 0]) for begin, result in zip(begins, results, strict=True)]
        ),
    )


def run_program(
    spec: PimSpec, program: PimProgram, *, log: int = 0, fast_forward: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The state a program ends in, and its log. Raises UserError if its lanes wait for each other."""
    rules = spec.rules_table()
    tables = compile_rules(rules, program.lanes)
    state = new_state(tables.shape, program)
    history = new_history(tables.shape) if fast_forward and not log else np.zeros(0, np.int64)
    rows = np.zeros((log, 3), np.int64)
    advance_pim(state, tables.shape, tables.table, program.code, history, rows, HORIZON)
    if state[STALLED]:
        raise UserError(f"the program for {spec.name} can't go on: its lanes wait for each other's rows or fences")
    return state, rows[: state[LOG_LENGTH]]

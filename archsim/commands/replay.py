"""`archsim replay`: run a memory trace through a memory, and print what happened as gem5's stats.txt does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archsim.commands.stats import (
    ReplayReport,
    Stat,
    Traffic,
    energy_notes,
    energy_stats,
    latency_stats,
    row_stats,
    traffic_stats,
)
from archsim.config.errors import UserError, nearest_name
from archsim.config.loading import load_spec, resolve_preset
from archsim.kernels.hbm34_state import Hbm34Command, Hbm34Count
from archsim.kernels.timing import Count
from archsim.memory.hbm34 import Mapper
from archsim.memory.hbm34_replay import Hbm34Replay, replay_hbm34
from archsim.memory.interleave import Interleave
from archsim.memory.replay import ReplayResult, replay
from archsim.memory.standard import ControllerSpec, DramStandard, RefreshPolicy, Scheduler
from archsim.memory.traces import Trace, open_trace

HBM34 = "hbm34"
"""The reference controller: Ramulator 2.1's scheduling of HBM3, command by command."""
CONTROLLERS = (*(scheduler.value for scheduler in Scheduler), HBM34)
MOST_CHANNELS = 4096


@dataclass(frozen=True)
class ReplayRequest:
    """What to replay on what; None stands for the controller's own choice."""

    trace: Path
    memory: str
    controller: str = Scheduler.FR_FCFS.value
    channels: int | None = None
    refresh: str = RefreshPolicy.ALL_BANK.value
    mapper: str | None = None
    commands: Path | None = None
    out: Path | None = None
    write_forwarding: bool = False
    write_coalescing: bool = False


def load_memory(name: str) -> DramStandard:
    """A memory preset by name or path. Raises UserError."""
    return load_spec(resolve_preset(name, Path()), DramStandard).spec


def refresh_policy(name: str) -> RefreshPolicy:
    """A refresh policy by name. Raises UserError."""
    return RefreshPolicy(_known(name, [policy.value for policy in RefreshPolicy], "refresh policy"))


def replay_trace(wanted: ReplayRequest) -> ReplayReport:
    """Replay a trace file on a memory. Raises UserError."""
    standard = load_memory(wanted.memory)
    controller = _known(wanted.controller, CONTROLLERS, "controller")
    run = _replay_reference if controller == HBM34 else _replay
    report = run(wanted, standard)
    if wanted.out is not None:
        report.write(wanted.out)
    return report


def _replay(wanted: ReplayRequest, standard: DramStandard) -> ReplayReport:
    """By archsim's own controller."""
    channels = _channel_number(wanted, standard.channels_per_stack)
    policy = refresh_policy(wanted.refresh)
    interleave = Interleave(standard, channels, wanted.mapper or ControllerSpec().address_map)
    controller = ControllerSpec(
        scheduler=Scheduler(wanted.controller),
        refresh=policy,
        address_map=interleave.local_map,
        write_forwarding=wanted.write_forwarding,
        write_coalescing=wanted.write_coalescing,
    )
    trace = open_trace(wanted.trace)
    with _command_log(wanted, policy, channels) as writer:
        result = replay(trace, standard, controller, interleave, None if writer is None else writer.append)
    stats = tuple(_stats(result, standard, channels))
    return _report(wanted, standard, trace, channels, interleave.text, policy, stats)


def _replay_reference(wanted: ReplayRequest, standard: DramStandard) -> ReplayReport:
    """By the reference controller."""
    if wanted.write_forwarding or wanted.write_coalescing:
        raise UserError(f"{HBM34} always forwards and coalesces", expected="neither option with it")
    channels = _channel_number(wanted, 1)
    policy = RefreshPolicy(
        _known(wanted.refresh, [RefreshPolicy.ALL_BANK.value, RefreshPolicy.NONE.value], f"refresh policy of {HBM34}")
    )
    mapper = Mapper(
        _known(wanted.mapper or Mapper.ROBARACOCH.value, [one.value for one in Mapper], f"mapper of {HBM34}")
    )
    trace = open_trace(wanted.trace)
    log: AbstractContextManager[Any] = nullcontext()
    if wanted.commands is not None:
        from archsim.commands.hbm34_log import Hbm34LogWriter

        log = Hbm34LogWriter(wanted.commands)
    with log as writer:
        sink = None if writer is None else writer.append
        result = replay_hbm34(trace, standard, channels, mapper, policy is not RefreshPolicy.NONE, sink)
    stats = tuple(_reference_stats(result, standard, channels))
    return _report(wanted, standard, trace, channels, mapper.value, policy, stats)


def _known(name: str, names: list[str] | tuple[str, ...], what: str) -> str:
    if name not in names:
        raise UserError(f"there is no {what} '{name}'", expected=", ".join(names), nearest=nearest_name(name, names))
    return name


def _channel_number(wanted: ReplayRequest, default: int) -> int:
    number = default if wanted.channels is None else wanted.channels
    if not 1 <= number <= MOST_CHANNELS:
        raise UserError(f"{number} channels", expected=f"1 to {MOST_CHANNELS}")
    return number


def _command_log(wanted: ReplayRequest, policy: RefreshPolicy, channels: int) -> AbstractContextManager[Any]:
    if wanted.commands is None:
        return nullcontext()
    from archsim.commands.command_log import CommandLogWriter

    facts = {"memory": wanted.memory, "refresh": policy.value, "channels": str(channels)}
    return CommandLogWriter(wanted.commands, facts)


def _report(
    wanted: ReplayRequest,
    standard: DramStandard,
    trace: Trace,
    channels: int,
    mapper: str,
    policy: RefreshPolicy,
    stats: tuple[Stat, ...],
) -> ReplayReport:
    return ReplayReport(
        trace=wanted.trace,
        format=trace.format.value,
        memory=wanted.memory,
        controller=wanted.controller,
        channels=channels,
        mapper=mapper,
        refresh=policy.value,
        notes=energy_notes(standard),
        stats=stats,
    )


def _stats(result: ReplayResult, standard: DramStandard, channels: int) -> Iterator[Stat]:
    n = [int(count) for count in result.counts.sum(axis=0)]
    traffic = Traffic.of_replay(result)
    yield from traffic_stats(traffic, standard, channels)
    for w, kind in enumerate(("read", "write")):
        arrival, queue = f"{kind} latency from arrival", f"{kind} latency from queue entry"
        yield from latency_stats(f"mem.latency.{kind}", result.from_arrival[w], standard, arrival)
        yield from latency_stats(f"mem.queue_latency.{kind}", result.from_queue[w], standard, queue)
    yield from row_stats(n[Count.HITS], n[Count.MISSES], n[Count.CONFLICTS], traffic.requests)
    yield Stat("mem.requests.forwarded", n[Count.FORWARDED], "Count", "reads answered by a queued write")
    yield Stat("mem.requests.coalesced", n[Count.COALESCED], "Count", "writes merged with a queued one")
    for count in (Count.ACT, Count.PRE, Count.PREAB, Count.RD, Count.WR, Count.REFAB, Count.REFPB):
        yield Stat(f"mem.commands.{count.name}", n[count], "Count", f"{count.name} commands")
    for name, count, what in (
        ("busy", Count.BUSY, "moving data"),
        ("refresh", Count.REFRESH, "waiting for refresh"),
        ("turnaround", Count.TURNAROUND, "turning around between reads and writes"),
        ("row", Count.ROW, "waiting for rows"),
        ("idle", Count.IDLE, "without requests"),
    ):
        yield Stat(f"mem.bus.{name}", n[count], "Tick", f"data-bus time {what}, all pseudo-channels")
    yield from energy_stats(traffic, standard)


def _reference_stats(result: Hbm34Replay, standard: DramStandard, channels: int) -> Iterator[Stat]:
    n, commands = result.counts, result.commands
    reads, writes = result.requests
    traffic = Traffic(
        reads=reads,
        writes=writes,
        activates=commands[Hbm34Command.ACT],
        read_bursts=commands[Hbm34Command.RD],
        write_bursts=commands[Hbm34Command.WR],
        refreshes_all_bank=commands[Hbm34Command.REFAB],
        refreshes_per_bank=0,
        end_tick=result.end_tick,
    )
    yield from traffic_stats(traffic, standard, channels)
    for kind, latencies in zip(("read", "write"), result.latencies, strict=True):
        what = f"{kind} latency from queue entry" + (" to its WR" if kind == "write" else "")
        yield from latency_stats(f"mem.latency.{kind}", latencies, standard, what)
    yield from row_stats(n[Hbm34Count.HITS], n[Hbm34Count.MISSES], n[Hbm34Count.CONFLICTS], traffic.requests)
    yield Stat("mem.forwarded", n[Hbm34Count.FORWARDED], "Count", "reads answered from the write queue")
    yield Stat("mem.coalesced", n[Hbm34Count.COALESCED], "Count", "writes merged into a queued write")
    for command in Hbm34Command:
        yield Stat(f"mem.commands.{command.name}", commands[command], "Count", f"{command.name} commands")
    for name, count in (
        ("read", Hbm34Count.READ_QUEUE),
        ("write", Hbm34Count.WRITE_QUEUE),
        ("refresh", Hbm34Count.REFRESH_QUEUE),
    ):
        mean = n[count] / result.end_tick if result.end_tick else 0.0
        yield Stat(f"mem.queue.{name}", mean, "Count", f"mean length of the {name} queues, all channels")
    yield from energy_stats(traffic, standard)

"""Commands about one part of a machine by itself: memories, flash, PIM, SRAM, networks, collectives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archsim.cli.app import TABLE_COLUMNS, Json, app, console, print_json


@app.command()
def replay(
    trace: Annotated[Path, typer.Argument(help="Ramulator, DRAMsim3, CSV, .npy, .parquet or u64 binary.")],
    memory: Annotated[str, typer.Option(help="A memory preset's name or path.")],
    controller: Annotated[
        str, typer.Option(help="How requests are scheduled; hbm34 is the reference, Ramulator 2.1's HBM3.")
    ] = "fr_fcfs",
    channels: Annotated[
        int | None, typer.Option(help="Channels; if left out, those of one stack, or one under hbm34.")
    ] = None,
    refresh: Annotated[
        str, typer.Option(metavar="all_bank|per_bank|none", help="How rows are refreshed.")
    ] = "all_bank",
    no_refresh: Annotated[bool, typer.Option("--no-refresh", help="The same as --refresh none.")] = False,
    mapper: Annotated[
        str | None,
        typer.Option(help="RoBaRaCoCh, MOP4CLXOR, or the fields of an address from the lowest on, in quotes."),
    ] = None,
    write_forwarding: Annotated[
        bool, typer.Option("--write-forwarding", help="Queued writes answer reads of their addresses.")
    ] = False,
    write_coalescing: Annotated[
        bool, typer.Option("--write-coalescing", help="Queued writes take writes to their addresses.")
    ] = False,
    commands: Annotated[Path | None, typer.Option(help="Where to write the command trace (parquet).")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for stats.txt and stats.json.")] = None,
    as_json: Json = False,
) -> None:
    """Run a memory trace through a memory, command by command."""
    from archsim.commands.replay import ReplayRequest, replay_trace

    policy = "none" if no_refresh else refresh
    answers = (write_forwarding, write_coalescing)
    report = replay_trace(ReplayRequest(trace, memory, controller, channels, policy, mapper, commands, out, *answers))
    if as_json:
        print_json(report.as_dict())
    else:
        typer.echo(str(report))


@app.command("check-timing")
def check_timing(
    commands: Annotated[Path, typer.Argument(help="A command trace (parquet), as replay --commands writes it.")],
    memory: Annotated[str | None, typer.Option(help="A memory preset; what the trace says if left out.")] = None,
    channels: Annotated[int | None, typer.Option(help="Channels of the memory.")] = None,
    refresh: Annotated[
        str | None, typer.Option(metavar="all_bank|per_bank|none", help="How rows are refreshed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say which timing constraints a command trace breaks."""
    from archsim.commands.check_timing import check_timing as check

    report = check(commands, memory, channels, refresh)
    if as_json:
        print_json(report.as_dict())
    else:
        typer.echo(str(report), err=not report.ok)
    raise typer.Exit(report.exit_code)


@app.command()
def curve(
    preset: Annotated[str, typer.Argument(help="A memory preset, a path, or a system, whose memory is meant.")],
    controller: Annotated[str, typer.Option(help="How requests are scheduled.")] = "fr_fcfs",
    refresh: Annotated[
        str, typer.Option(metavar="all_bank|per_bank|none", help="How rows are refreshed.")
    ] = "all_bank",
    pattern: Annotated[str, typer.Option(metavar="sequential|random", help="Which addresses follow.")] = "sequential",
    reads: Annotated[
        list[float] | None, typer.Option(metavar="SHARE", help="A share of reads from 0 to 1; may be repeated.")
    ] = None,
    loads: Annotated[
        list[float] | None,
        typer.Option("--load", metavar="SHARE", help="A rate, 1 being the saturation bandwidth; may be repeated."),
    ] = None,
    streams: Annotated[int, typer.Option(help="Sequential streams of each direction.")] = 16,
    run_bursts: Annotated[int, typer.Option(help="Neighbouring bursts that a stream takes at a time.")] = 16,
    requests: Annotated[int, typer.Option(help="Requests per pseudo-channel and point.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="Of addresses and arrivals.")] = 1,
    out: Annotated[Path | None, typer.Option(help="A folder for curve.csv, .parquet, .png and .html.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a memory's latency against its bandwidth, by the share of reads."""
    from archsim.commands.curve import curve as measure
    from archsim.commands.curve import pattern as pattern_of
    from archsim.memory.curve import LOADS, READ_SHARES, CurveRequest

    request = CurveRequest(
        pattern=pattern_of(pattern),
        read_shares=tuple(reads) if reads else READ_SHARES,
        loads=tuple(sorted(loads)) if loads else LOADS,
        streams=streams,
        run_bursts=run_bursts,
        requests=requests,
        seed=seed,
    )
    report = measure(preset, controller, refresh, request, out)
    if as_json:
        print_json(report.as_dict())
    else:
        console().print(report.table())


@app.command()
def flash(
    memory: Annotated[str, typer.Argument(help="A flash preset's name or path.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as timings.tR=3us.")
    ] = None,
    writes: Annotated[str, typer.Option(help="Rate at which the host writes, for the wear.")] = "1 GB/s",
    write_amplification: Annotated[float, typer.Option(help="Pages programmed per page written.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Measure what a flash stack reads by size and queue depth, what limits it, and how long it lasts."""
    from archsim.commands.flash import flash as measure

    report = measure(memory, changes or (), writes=writes, write_amplification=write_amplification)
    if as_json:
        print_json(report.as_dict())
        return
    screen = console()
    for part in report.renderables():
        screen.print(part)


@app.command()
def pim(
    preset: Annotated[str, typer.Argument(help="A PIM preset's name or path, such as aim_gddr6 or attacc_bank.")],
    gemv: Annotated[str | None, typer.Option(metavar="OUTxIN", help="A matrix by a vector.")] = None,
    attention: Annotated[
        str | None, typer.Option(metavar="HEADS,CONTEXT,D_HEAD", help="One token's attention over its KV cache.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Vectors that the matrix is multiplied by.")] = 1,
    kv_heads: Annotated[int | None, typer.Option(help="KV heads that the heads share; all if left out.")] = None,
    reads: Annotated[int, typer.Option(min=0, help="Rows of normal reads beside a GEMV, on each channel.")] = 0,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A change to the preset; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a piece of work on processing-in-memory, command by command."""
    from archsim.commands.pim import run_pim

    report = run_pim(preset, gemv, attention, tokens=tokens, reads=reads, kv_heads=kv_heads, changes=changes or ())
    if as_json:
        print_json(report.as_dict())
    else:
        console(at_least=TABLE_COLUMNS).print(report.table())


@app.command()
def sram(
    preset: Annotated[str, typer.Argument(help="An SRAM preset's name or path, such as sram_gpu_l2.")],
    lut_gemv: Annotated[str, typer.Option(metavar="OUTxIN", help="A matrix by a vector, by look-up tables.")],
    weight_bits: Annotated[int, typer.Option(help="Bits of a weight.")] = 4,
    group: Annotated[int, typer.Option(help="Inputs whose subsets a table holds.")] = 4,
    batch: Annotated[int, typer.Option(help="Vectors that the matrix is multiplied by.")] = 1,
    layout: Annotated[
        str, typer.Option(help="bank: each table in a bank of its own; spread: over all banks.")
    ] = "bank",
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A change to the preset; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Multiply by look-up tables in an SRAM, with every access counted."""
    from archsim.commands.sram import run_sram

    report = run_sram(
        preset, lut_gemv, weight_bits=weight_bits, group=group, batch=batch, layout=layout, changes=changes or ()
    )
    if as_json:
        print_json(report.as_dict())
    else:
        console(at_least=TABLE_COLUMNS).print(report.table())


@app.command()
def noc(
    spec: Annotated[str, typer.Argument(help="An on-chip network: a YAML file, or a preset of hwconfigs/noc.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as traffic.pattern=tornado.")
    ] = None,
    saturation: Annotated[bool, typer.Option(help="Search for the rate at which it saturates.")] = True,
    figure: Annotated[Path | None, typer.Option(help="Where to draw the curve (.png, .svg, .pdf).")] = None,
    as_json: Json = False,
) -> None:
    """Load an on-chip network with traffic: latency by rate, and where it saturates."""
    from archsim.commands.noc import run_noc

    report = run_noc(spec, overrides or (), saturation=saturation, figure=figure)
    if as_json:
        print_json(report.as_dict())
        return
    console().print(report.table())
    for line in report.summary():
        typer.echo(line)


@app.command()
def collective(
    system: Annotated[str, typer.Argument(metavar="SYSTEM|LINK|TOPOLOGY", help="A preset's name or path.")],
    operation: Annotated[
        str, typer.Option(metavar="NAME", help="all_reduce, all_gather, reduce_scatter, all_to_all or broadcast.")
    ] = "all_reduce",
    devices: Annotated[int | None, typer.Option(help="How many devices; those of the system if left out.")] = None,
    size: Annotated[str, typer.Option("--bytes", metavar="SIZE", help="The whole message, such as 1MiB.")] = "1 MiB",
    algorithm: Annotated[str, typer.Option(metavar="NAME", help="ring, tree, ...; auto: the fastest.")] = "auto",
    fmt: Annotated[str | None, typer.Option("--format", help="The data's number format, such as bf16.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A change to the file; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how long a collective takes on a link or a network, and by which algorithm."""
    from archsim.commands.collective import Question, time_collective

    report = time_collective(system, Question(operation, size, devices, algorithm, fmt), changes or ())
    if as_json:
        print_json(report.as_dict())
    else:
        typer.echo(report.title)
        console().print(report.table())

"""The `archsim` command: names and flags. What the commands do stands below, and is imported when one is called."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from archsim import __version__
from archsim.config.errors import SpecError, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from archsim.commands.compare import CompareReport

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE
TABLE_COLUMNS = 110


class _Guarded(TyperGroup):
    """Turns what a command may raise into a message and an exit code; only bugs pass."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except UserError as error:
            typer.echo(str(error) if isinstance(error, SpecError) else f"error: {error}", err=True)
            raise typer.Exit(EXIT_USER_ERROR) from None
        except KeyboardInterrupt as interrupt:
            typer.echo(str(interrupt) or "interrupted, nothing written", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read our output has gone; give the interpreter's last flush somewhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_BROKEN_PIPE) from None


app = typer.Typer(
    name="archsim",
    cls=_Guarded,
    help="A cycle-level simulator of memory systems for LLM inference.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would double the time of --help
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"archsim {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped experiment.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, such as workload.batch=64.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the run directory.")] = None,
    fidelity: Annotated[str | None, typer.Option(metavar="cycle|roofline", help="How closely to simulate.")] = None,
    no_shortcuts: Annotated[
        bool, typer.Option("--no-shortcuts", help="Simulate every command of every channel: slower, same numbers.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Simulate an experiment and write its run directory."""
    from archsim.run import run as simulate

    changes = list(overrides or ())
    changes += [f"fidelity={fidelity}"] if fidelity is not None else []
    changes += ["no_shortcuts=true"] if no_shortcuts else []
    result = simulate(experiment, changes, out=out, progress=not as_json)
    if as_json:
        metrics = {name: {"value": metric.value, "unit": metric.unit} for name, metric in result.metrics.items()}
        _print_json({"directory": str(result.directory), "metrics": metrics})
        return
    from archsim.report.terminal import print_run

    print_run(result)


@app.command()
def sweep(
    experiment: Annotated[str, typer.Argument(help="A `kind: sweep` file, or an experiment with a `sweep:` section.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, the same in every point.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes on this machine; one per core if left out.")] = None,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A dask scheduler (tcp://host:8786), or its scheduler file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where results land; points that are there are kept.")] = None,
    best: Annotated[str | None, typer.Option(metavar="METRIC", help="What points are compared by.")] = None,
    keep_runs: Annotated[bool, typer.Option("--keep-runs", help="Write the run directory of every point.")] = False,
    as_json: Json = False,
) -> None:
    """Simulate every point of a space: hardware, batch, context, whatever has a path."""
    from archsim.commands.sweep import print_sweep, sweep_as_dict
    from archsim.sweep.page import PAGE, write_sweep_page
    from archsim.sweep.plan import plan_sweep
    from archsim.sweep.run import run_sweep

    plan = plan_sweep(experiment, None, overrides or (), best)
    result = run_sweep(plan, out=out, workers=workers, dask=dask, keep_runs=keep_runs, progress=not as_json)
    write_sweep_page(result.directory / PAGE, result.frame, result.best.metric)
    if as_json:
        _print_json(sweep_as_dict(result))
    else:
        print_sweep(result, _console(at_least=TABLE_COLUMNS))
    raise typer.Exit(0 if result.ok else EXIT_USER_ERROR)


@app.command()
def pareto(
    sweep_dir: Annotated[Path, typer.Argument(help="The directory of a sweep, or a table of its tables/.")],
    objectives: Annotated[
        list[str], typer.Option("--objective", metavar="COLUMN[:min|:max]", help="What to compare by; repeat it.")
    ],
    constraints: Annotated[
        list[str] | None, typer.Option("--constraint", metavar="'COLUMN <= LIMIT'", help="What points must fulfil.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write the page (.html).")] = None,
    as_json: Json = False,
) -> None:
    """Show the points of a sweep that no other point beats in all objectives at once."""
    from archsim.commands.sweep import front_table
    from archsim.sweep.frame import open_sweep

    front = open_sweep(sweep_dir).pareto(objectives, constraints or ())
    if out is not None:
        front.page(out)
    if as_json:
        _print_json(front.as_dict())
        return
    _console(at_least=TABLE_COLUMNS).print(front_table(front))
    typer.echo(front.in_words())


@app.command()
def elasticities(
    experiment: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped experiment.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, the same in every point.")
    ] = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--parameter", metavar="PATH", help="What to move, 'system.device.buffer.*'.")
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", metavar="METRIC", help="What to look at; repeat it.")
    ] = None,
    step: Annotated[str, typer.Option(help="How far to move it, up and down.")] = "5%",
    workers: Annotated[int | None, typer.Option(help="Processes on this machine; one per core if left out.")] = None,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A dask scheduler (tcp://host:8786), or its scheduler file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where points and elasticities.html land.")] = None,
    as_json: Json = False,
) -> None:
    """Say what to spend silicon on next: % of each metric per % of each hardware parameter."""
    from archsim.sweep.elasticity import elasticities as measure

    found = measure(
        experiment, overrides or (), parameters=parameters or (), metrics=metrics or (), step=step,
        out=out, workers=workers, dask=dask, progress=not as_json,
    )  # fmt: skip
    page = found.directory / "elasticities.html"
    found.page(page)
    if as_json:
        _print_json(found.as_dict())
        return
    _console(at_least=TABLE_COLUMNS).print(found.table())
    for remark in found.remarks():
        typer.echo(remark)
    typer.echo(f"Written to {page}")


@app.command()
def search(
    experiment: Annotated[str, typer.Argument(help="A `kind: search` file, or an experiment with `search:`.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes, the same in every trial.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="How many points to try, those tried before included.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes on this machine; one per core if left out.")] = None,
    dask: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A dask scheduler (tcp://host:8786), or its scheduler file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where results land; an interrupted search goes on there.")] = None,
    as_json: Json = False,
) -> None:
    """Look for the best points of a space, within constraints."""
    from archsim.commands.search import print_search, search_as_dict
    from archsim.sweep.page import SEARCH_PAGE, write_search_page
    from archsim.sweep.search import run_search
    from archsim.sweep.search_plan import plan_search

    plan = plan_search(experiment, None, overrides or (), trials)
    result = run_search(plan, out=out, workers=workers, dask=dask, progress=not as_json)
    page = result.directory / SEARCH_PAGE
    has_page = write_search_page(page, result)
    if as_json:
        _print_json(search_as_dict(result) | {"page": str(page) if has_page else None})
    else:
        print_search(result, _console(at_least=TABLE_COLUMNS), SEARCH_PAGE if has_page else None)
    raise typer.Exit(0 if result.ok else EXIT_USER_ERROR)


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Experiments, systems, memories: YAML.")],
    as_json: Json = False,
) -> None:
    """Say what is wrong with spec files, all of it."""
    from archsim.commands.kinds import validate as validate_specs

    report = validate_specs(files)
    if as_json:
        _print_json(report.as_dict())
    else:
        for file in report.files:
            typer.echo(str(file), err=not file.ok)
    raise typer.Exit(report.exit_code)


@app.command()
def describe(
    thing: Annotated[
        str | None, typer.Argument(help="A preset, model, metric, policy, format or experiment; all if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List what there is, or show one thing with its numbers and their sources."""
    from archsim.commands.describe import describe as look_up

    found = look_up(thing)
    if as_json:
        _print_json(found.as_dict())
        return
    console = _console()
    for part in found.renderables():
        console.print(part)


@app.command()
def schema(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="energy, experiment, flash, link, memory, noc, pim, sram, sweep, system or topology; all if left out."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As without: the schema is JSON anyway.")] = False,
) -> None:
    """Print the JSON schema of spec files, for completion and checks in editors."""
    from archsim.commands.kinds import schema as schema_of

    typer.echo(json.dumps(schema_of(kind), indent=None if as_json else 2))


@app.command()
def compare(
    system: Annotated[str, typer.Argument(help="A preset's name or path.")],
    measured: Annotated[list[Path], typer.Argument(metavar="MEASURED...", help="Parquet tables of measured kernels.")],
    where: Annotated[str | None, typer.Option(help="Only rows for which this expression over columns is true.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write tables and scatter plots.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A change to the system; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict measured kernels and report how far off the predictions are."""
    from archsim.run import kernel_predictor

    predictor = kernel_predictor(system, changes or ())
    folders = _folders_for(measured, out)
    reports = [
        _compared(predictor, file, where, folder, show_progress=not as_json)
        for file, folder in zip(measured, folders, strict=True)
    ]
    if as_json:
        _print_json({"system": system, "comparisons": [report.to_dict() for report in reports]})
        return
    console = _console()
    for report in reports:
        console.print(report.table())
        console.print(report.worst_table())


def _compared(predictor: Any, file: Path, where: str | None, out: Path | None, show_progress: bool) -> CompareReport:
    from archsim.commands.compare import compare as compare_kernels
    from archsim.report.terminal import progress

    with progress(f"predicting {file.name}", enabled=show_progress) as bar:
        return compare_kernels(
            file,
            predictor.predict,
            where=where,
            out=out,
            replay_fs=predictor.replay_fs,
            predict_collective=predictor.predict_collective,
            progress=lambda done, total: bar.update(completed=done, total=total),
        )


def _folders_for(measured: Sequence[Path], out: Path | None) -> list[Path | None]:
    """Where each comparison is written: one has `out` to itself, several get a folder each below it."""
    if out is None or len(measured) == 1:
        return [out] * len(measured)
    names = [file.stem for file in measured]
    if len(set(names)) < len(names):
        raise UserError(f"two measured files have the same name, so they would share a folder in {out}")
    return [out / name for name in names]


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
        _print_json(report.as_dict())
    else:
        typer.echo(report.title)
        _console().print(report.table())


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
        _print_json(report.as_dict())
    else:
        typer.echo(str(report))


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
        _print_json(report.as_dict())
    else:
        _console().print(report.table())


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
        _print_json(report.as_dict())
    else:
        typer.echo(str(report), err=not report.ok)
    raise typer.Exit(report.exit_code)


@app.command()
def check(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Experiments, or folders of them.")],
    update: Annotated[bool, typer.Option("--update", help="Make what the metrics are now the baseline.")] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A change to all of them; may be repeated.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show metrics that have not moved, too.")] = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to write Markdown.")] = None,
    as_json: Json = False,
) -> None:
    """Run experiments and compare their metrics with what is expected and with their baselines."""
    from archsim.commands.check import CheckReport, check_experiments, find_experiments
    from archsim.commands.check_report import summary, table, write_junit, write_markdown
    from archsim.run import simulate

    done = []
    files = find_experiments(paths)
    for one in check_experiments(files, lambda loaded: simulate(loaded).metrics(), changes or (), update=update):
        done.append(one)
        if not as_json:
            typer.echo(summary(one))
    report = CheckReport(tuple(done))
    if junit is not None:
        write_junit(report, junit)
    if markdown is not None:
        write_markdown(report, markdown)
    if as_json:
        _print_json(report.as_dict())
    elif (shown := table(report, everything=everything)) is not None:
        _console(at_least=TABLE_COLUMNS).print(shown)
    raise typer.Exit(0 if update and not any(one.error for one in done) else report.exit_code)


@app.command()
def diff(
    run_a: Annotated[Path, typer.Argument(help="A run directory.")],
    run_b: Annotated[Path, typer.Argument(help="Another one.")],
    most: Annotated[int, typer.Option(min=1, help="How many operators to show.")] = 12,
    as_json: Json = False,
) -> None:
    """Explain where the difference between two runs comes from, by operator and by cause."""
    from archsim.commands.diff import diff as difference

    found = difference(run_a, run_b)
    if as_json:
        _print_json(found.as_dict())
        return
    console = _console(at_least=TABLE_COLUMNS)
    for table in found.tables(most):
        console.print(table)
        console.print()


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
        _print_json(report.as_dict())
        return
    _console().print(report.table())
    for line in report.summary():
        typer.echo(line)


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
        _print_json(report.as_dict())
        return
    console = _console()
    for part in report.renderables():
        console.print(part)


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
        _print_json(report.as_dict())
    else:
        _console(at_least=TABLE_COLUMNS).print(report.table())


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
        _print_json(report.as_dict())
    else:
        _console(at_least=TABLE_COLUMNS).print(report.table())


def _print_json(content: object) -> None:
    typer.echo(json.dumps(content, ensure_ascii=False, allow_nan=False))


def _console(at_least: int = 0) -> Console:
    """A console of the terminal's width, or wider: a log has room for whole names."""
    from rich.console import Console

    console = Console()
    console.width = max(console.width, at_least)
    return console


def main() -> None:
    """Entry point of the `archsim` command."""
    try:
        app()
    except Exception:
        import traceback

        traceback.print_exc()
        sys.exit("this is a bug in archsim: please report it with the command and the lines above")

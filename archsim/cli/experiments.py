"""Commands about experiments: running, sweeping, searching, comparing, explaining."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsim.cli.app import EXIT_USER_ERROR, TABLE_COLUMNS, Json, app, console, print_json
from archsim.config.errors import UserError

if TYPE_CHECKING:
    from archsim.commands.compare import CompareReport


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
        print_json({"directory": str(result.directory), "metrics": metrics})
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
        print_json(sweep_as_dict(result))
    else:
        print_sweep(result, console(at_least=TABLE_COLUMNS))
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
        print_json(front.as_dict())
        return
    console(at_least=TABLE_COLUMNS).print(front_table(front))
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
        print_json(found.as_dict())
        return
    console(at_least=TABLE_COLUMNS).print(found.table())
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
        print_json(search_as_dict(result) | {"page": str(page) if has_page else None})
    else:
        print_search(result, console(at_least=TABLE_COLUMNS), SEARCH_PAGE if has_page else None)
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
        print_json(report.as_dict())
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
        print_json(found.as_dict())
        return
    screen = console()
    for part in found.renderables():
        screen.print(part)


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
        print_json({"system": system, "comparisons": [report.to_dict() for report in reports]})
        return
    screen = console()
    for report in reports:
        screen.print(report.table())
        screen.print(report.worst_table())


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
        print_json(report.as_dict())
    elif (shown := table(report, everything=everything)) is not None:
        console(at_least=TABLE_COLUMNS).print(shown)
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
        print_json(found.as_dict())
        return
    screen = console(at_least=TABLE_COLUMNS)
    for table in found.tables(most):
        screen.print(table)
        screen.print()

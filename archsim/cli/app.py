"""The `archsim` command as such: what all of its commands share, and how their errors are told."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from archsim import __version__
from archsim.config.errors import SpecError, UserError

if TYPE_CHECKING:
    from rich.console import Console

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


def print_json(content: object) -> None:
    typer.echo(json.dumps(content, ensure_ascii=False, allow_nan=False))


def console(at_least: int = 0) -> Console:
    """A console of the terminal's width, or wider: a log has room for whole names."""
    from rich.console import Console

    made = Console()
    made.width = max(made.width, at_least)
    return made

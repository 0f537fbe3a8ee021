"""The `archsim` command: names and flags. What the commands do stands below, and is imported when one is called."""

from __future__ import annotations

import sys

from archsim.cli import experiments, memories
from archsim.cli.app import app

__all__ = ["app", "experiments", "main", "memories"]  # importing the commands is what registers them


def main() -> None:
    """Entry point of the `archsim` command."""
    try:
        app()
    except Exception:
        import traceback

        traceback.print_exc()
        sys.exit("this is a bug in archsim: please report it with the command and the lines above")

"""Kernels as plain Python, in a process of their own: every index checked, mistakes planted in copies of them.

Compiling would take a minute for each copy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "archsim" / "kernels"


class Mutant(Protocol):
    """A mistake: one text of a file in the place of another."""

    @property
    def file(self) -> str: ...
    @property
    def old(self) -> str: ...
    @property
    def new(self) -> str: ...


class Guarded(np.ndarray):
    """An array that takes no negative index."""

    def __getitem__(self, at: Any) -> Any:
        assert not isinstance(at, int | np.integer) or at >= 0, f"index {at}"
        return super().__getitem__(at)

    def __setitem__(self, at: Any, value: Any) -> None:
        assert not isinstance(at, int | np.integer) or at >= 0, f"index {at}"
        super().__setitem__(at, value)


def run_plain_python(program: str, *arguments: object, warnings: str = "default") -> None:
    """Run a program, which finds archsim and the tests' modules, with kernels that aren't compiled. `warnings` is what
    Python makes of them."""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-W", warnings, "-c", program, *map(str, arguments)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def edited(mutant: Mutant, source: Path) -> str:
    """A source file with the mistake in it, if it is the one that has it."""
    text = source.read_text()
    if source.name != mutant.file:
        return text
    assert mutant.old in text, f"{mutant.file} no longer contains: {mutant.old}"
    return text.replace(mutant.old, mutant.new)


def plant(mutant: Mutant, tree: Path) -> None:
    """A package `archsim` with a copy of the kernels in which one place is edited."""
    package = tree / "archsim" / "kernels"
    package.mkdir(parents=True)
    (tree / "archsim" / "__init__.py").touch()
    for source in KERNELS.glob("*.py"):
        (package / source.name).write_text(edited(mutant, source))

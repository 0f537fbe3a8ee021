"""Compiled kernels are shared among processes: each is compiled once, whoever needs it first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from archsim.kernels.jit import kernel

MODULE = """
import numpy as np
from archsim.kernels.jit import kernel

@kernel
def total(values, weight):
    sum = 0
    for value in values:
        sum += value * weight
    return sum

if __name__ == "__main__":
    import sys
    types = [np.int64, np.int32, np.float64, np.float32]
    for k in range(len(types)):
        kind = types[(k + int(sys.argv[1])) % len(types)]
        assert total(np.arange(5, dtype=kind), kind(2)) == 20
    print(sum(total.stats.cache_misses.values()))
"""


@pytest.mark.parametrize("processes", [1, 3])
def test_each_signature_is_compiled_once(tmp_path: Path, processes: int) -> None:
    """Processes that start at the same time, each with another type first."""
    (tmp_path / "totals.py").write_text(MODULE)
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    running = [
        subprocess.Popen(
            [sys.executable, "totals.py", str(number)], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )
        for number in range(processes)
    ]
    compiled = [int(process.communicate(timeout=300)[0]) for process in running]
    assert all(process.returncode == 0 for process in running)
    assert sum(compiled) == 4


def test_without_a_home_to_write_to_there_is_another_place(tmp_path: Path) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": "/dev/null/cache", "TMPDIR": str(tmp_path)}
    program = "import numba, archsim.kernels.jit; print(numba.config.CACHE_DIR)"
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert Path(ran.stdout.strip()).is_relative_to(tmp_path)
    assert Path(ran.stdout.strip()).is_dir()


def test_a_mistake_in_a_kernel_holds_no_lock() -> None:
    """Compiling fails, and again: the first failure has let go of what others wait for."""

    @kernel
    def wrong(value):  # type: ignore[no-untyped-def]
        return value.no_such_thing

    for _ in range(2):
        with pytest.raises(Exception, match="no_such_thing"):
            wrong(1)

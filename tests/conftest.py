"""What all tests share: settings of hypothesis, and a compile cache for each worker process."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import settings

# Compiled kernels are cached below the user's cache folder. Two processes that compile the same function for different
# types at the same time can mix up each other's files there, so parallel workers get a folder each.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER")
if _WORKER:
    _CACHES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ["XDG_CACHE_HOME"] = str(_CACHES / "archsim" / "pytest" / _WORKER)

# The first example of a test may compile a kernel: no deadlines. Runs repeat; HYPOTHESIS_PROFILE=explore doesn't.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

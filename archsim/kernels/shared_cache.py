"""Numba's cache on disk, safe and shared among processes: each kernel is compiled by one of them, once.

Numba's own cache lets two processes that need a kernel at the same time both compile it, and if they do so for
different types, both may write to the same file. Here a process holds a lock while it compiles a signature; whoever
needs the same one waits, then finds it. The lists of a function's signatures are changed under a lock of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from numba.core.caching import FunctionCache
from numba.core.compiler_lock import global_compiler_lock


class _SharedCache(FunctionCache):  # type: ignore[misc]
    """What is on disk of one function, changed by one process at a time."""

    def lock(self, about: str) -> FileLock:
        """A lock among all processes that use this cache, for what `about` names."""
        digest = hashlib.sha256(about.encode()).hexdigest()[:16]
        folder = Path(self._cache_path)
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{self._impl.filename_base}-{digest}.lock")

    def _save_overload(self, sig: Any, data: Any) -> None:
        with self.lock("index"):
            super()._save_overload(sig, data)


def share(dispatcher: Any, function: Callable[..., Any]) -> None:
    """Let a function decorated with `njit(cache=True)` share its compiled code with other processes.

    The compiler's lock among threads is taken first: a thread that compiles may need what another process compiles,
    and no other thread of this process then holds a file's lock while it waits for the compiler.
    """
    cache = dispatcher._cache = _SharedCache(function)
    compile_or_load = dispatcher.compile

    def compile_once(signature: Any) -> Any:
        with global_compiler_lock:
            if signature in dispatcher.overloads:
                return compile_or_load(signature)
            with cache.lock(str(signature)):
                return compile_or_load(signature)

    dispatcher.compile = compile_once

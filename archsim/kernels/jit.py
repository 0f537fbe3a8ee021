"""The one place for numba's options and for the folder of compiled kernels.

A cached kernel does not notice an edit in a callee of another file, so the cache folder is keyed by a
hash of every file of this package and of the checks switched on: a stale kernel cannot run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from archsim.kernels.shared_cache import share

F = TypeVar("F", bound=Callable[..., Any])


def _cache_folder() -> Path:
    checks = f"{numba.config.DISABLE_JIT}{numba.config.BOUNDSCHECK}"  # type: ignore[attr-defined]
    digest = hashlib.sha256(f"{numba.__version__} {checks}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    name = f"kernels-{digest.hexdigest()[:16]}"
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    whose = os.getuid() if hasattr(os, "getuid") else 0
    for root in (Path(user), Path(tempfile.gettempdir(), f"cache-{whose}")):
        folder = root / "archsim" / name
        with contextlib.suppress(OSError):  # a home that can't be written to, as in a container
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                break
    return folder


if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = str(_cache_folder())  # type: ignore[attr-defined]


def kernel(function: F) -> F:
    """Compile `function` to machine code, cached on disk. With NUMBA_DISABLE_JIT=1 it stays Python."""
    return _compiled(function)


def inlined(function: F) -> F:
    """A part of a kernel that takes pointers: always compiled into its callers."""
    return _compiled(function, forceinline=True)


def _compiled(function: F, *, forceinline: bool = False) -> F:
    dispatcher = numba.njit(cache=True, boundscheck=None, error_model="numpy", forceinline=forceinline)(function)
    if not numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        share(dispatcher, function)
    return cast(F, dispatcher)


@intrinsic
def _int64_pointer(_typing: Any, array: types.Array) -> Any:
    """The address of a contiguous int64 array, as a C pointer."""
    signature = types.CPointer(types.int64)(array)

    def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return cgutils.create_struct_proxy(array)(context, builder, value=arguments[0]).data

    return signature, codegen


@intrinsic
def _int64_shifted(_typing: Any, address: types.CPointer, words: Any) -> Any:
    """The address `words` words further on."""
    signature = address(address, types.int64)

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]])

    return signature, codegen


_PLAIN = bool(numba.config.DISABLE_JIT) or bool(numba.config.BOUNDSCHECK)  # type: ignore[attr-defined]


if _PLAIN:

    @kernel
    def pointer(array: np.ndarray) -> np.ndarray:
        """The array itself: interpreted and bounds-checked kernels index arrays."""
        return array

    @kernel
    def shifted(part: np.ndarray, words: int) -> np.ndarray:
        """The array from there on."""
        return part[words:]

else:

    @inlined
    def pointer(array: np.ndarray) -> np.ndarray:
        """What a kernel's parts pass around: no reference counts, no negative indices, half the time.

        The caller keeps the array alive. With NUMBA_DISABLE_JIT=1 or NUMBA_BOUNDSCHECK=1 it stays an array."""
        return _int64_pointer(array)  # type: ignore[no-any-return,call-arg]

    @inlined
    def shifted(part: np.ndarray, words: int) -> np.ndarray:
        """A pointer further into the array: a block of it, with its own offsets."""
        return _int64_shifted(part, words)  # type: ignore[no-any-return,call-arg]


@intrinsic
def _trailing_zeros(_typing: Any, _word: types.Integer) -> Any:
    """The number of zero bits below the lowest one, of an int64 that is not zero."""
    signature = types.int64(types.int64)

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], cgutils.true_bit)

    return signature, codegen


if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]

    def lowest_bit(word: int) -> int:
        """The place of the lowest one of a word that is not zero."""
        return (int(word) & -int(word)).bit_length() - 1

else:

    @inlined
    def lowest_bit(word: int) -> int:
        """The place of the lowest one of a word that is not zero."""
        return _trailing_zeros(word)  # type: ignore[no-any-return,call-arg]

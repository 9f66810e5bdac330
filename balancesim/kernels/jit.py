"""How this project compiles: one place for the options that every kernel shares.

``nnan`` and ``nsz`` let LLVM use plain minimum and maximum instructions; no flag that reorders or fuses
arithmetic is set, so results never depend on vector width or on where a loop's remainder begins.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

_FLAGS = {"nnan", "nsz"}


def _source_digest() -> str:
    """Hash every kernel source, so that a change in one file renews the cache of all that call it."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_DIGEST = _source_digest()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls: cached on disk, releases the GIL."""
    # Numba's cache looks at the kernel's own file only; its file name carries the digest of all of them.
    function.__qualname__ += f"-{_DIGEST}"
    return numba.njit(cache=True, nogil=True, fastmath=_FLAGS, error_model="numpy")(function)


def inner(function: Callable[..., Any]) -> Any:
    """Compile a loop nest that kernels call."""
    return numba.njit(nogil=True, fastmath=_FLAGS, error_model="numpy")(function)


def inline(function: Callable[..., Any]) -> Any:
    """Compile a scalar function so that it dissolves into the loops that call it."""
    return numba.njit(forceinline=True, fastmath=_FLAGS, error_model="numpy")(function)


def pasted(function: Callable[..., Any]) -> Any:
    """Compile a function that only chooses among others as part of its callers.

    Every compiled function optimises all that it calls once more; a layer that is pasted costs nothing.
    """
    return numba.njit(nogil=True, inline="always", error_model="numpy")(function)


def strict(function: Callable[..., Any]) -> Any:
    """Compile a function that may meet infinities and NaN, such as a rule whose steps are far too large."""
    return numba.njit(nogil=True, error_model="numpy")(function)

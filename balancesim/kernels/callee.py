"""Functions that only kernels call: linked into them, without entry points or machine code of their own.

Numba gives every compiled function a wrapper for Python and one for C and turns all three into machine code,
though what a kernel calls is translated once more as a part of the kernel. Here a callee ends as the code
that is linked. A Numba other than those that this was tested with compiles callees as it compiles all else:
slower, to the same results.
"""

from collections.abc import Callable
from typing import Any

import numba

_TESTED = ((0, 61), (0, 68))


def links_callees(version: tuple[int, int]) -> bool:
    """Whether callees are compiled for linking alone under a version of Numba, and not as all else."""
    return _TESTED[0] <= version <= _TESTED[1] and not numba.config.DISABLE_JIT  # type: ignore[attr-defined]


def callee(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function for the kernels that call it, with the options of ``numba.njit``.

    Called from Python, it is compiled once more, with an entry point.
    """
    if not links_callees(numba.version_info.short):
        return numba.njit(**options)(function)
    from balancesim.kernels.linked import Callee

    return Callee(function, targetoptions=options)


def is_linked_only(function: Any) -> bool:
    """Whether a compiled function has no entry point of its own."""
    return hasattr(function, "standing_alone")

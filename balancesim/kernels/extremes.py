"""Minima that LLVM vectorises also where a whole loop is reduced to one: its selections carry their flags.

What ``b if b < a else a`` compiles to has lost the permission to take elements in another order. That changes
no minimum where there are no NaN and zeros' signs do not matter.
"""

from typing import Any

from numba.core import types
from numba.extending import intrinsic, overload

_FLAGS = ("nnan", "nsz")


@intrinsic
def _least_of_two(typing_context: Any, a: Any, b: Any) -> Any:
    def generate(context, builder, signature, args):
        below = builder.fcmp_ordered("<", args[1], args[0], flags=_FLAGS)
        return builder.select(below, args[1], args[0], flags=_FLAGS)

    return (a(a, b), generate) if a == b and isinstance(a, types.Float) else None


def least_of_two(a: Any, b: Any) -> Any:
    """Return the lesser of two floats of one dtype."""
    return b if b < a else a


@overload(least_of_two)
def _least(a, b):
    return lambda a, b: _least_of_two(a, b)  # type: ignore[call-arg]

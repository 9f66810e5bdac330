"""Rules of any origin inside the compiled loop: functions of two fixed signatures, called by address.

A rule's functions are compiled once, on their own, whatever loops call them: a rule of a third party costs
the loop no compilation and needs no line in it.
"""

from typing import Any

import numba
from numba.core import cgutils, types
from numba.extending import intrinsic

from balancesim.errors import InputError
from balancesim.kernels.jit import Pointer

_FLOATS, _INTS = types.float64[::1], types.int64[::1]

UPDATE = (_FLOATS, types.int64, types.int64, types.int64, _INTS, _FLOATS, _FLOATS)
"""(parameters, step, n_tokens, k, loads, price, memory)"""


def observe_arguments(real: Any) -> tuple[Any, ...]:
    """(parameters, n_tokens, k, n_experts, tile, bias, top, token, n_lanes, memory), for a tile's dtype."""
    counts, tile = (types.int64,) * 3, real[:, ::1]
    return (_FLOATS, *counts, tile, real[::1], tile, types.int64, types.int64, _FLOATS)


_INTERPRETED: bool = numba.config.DISABLE_JIT  # type: ignore[attr-defined]  # set by Numba when it loads

# Where the JIT is off, an address is a key into this.
_functions: dict[int, Any] = {}
_pointers: dict[tuple[Any, tuple[Any, ...]], Pointer] = {}


def address_of(function: Any, arguments: tuple[Any, ...]) -> int:
    """Compile a function for the arguments' types, or find it compiled; return its address.

    Parameters
    ----------
    function : compiled function
        See ``balancesim.kernels.jit.rule_kernel``.
    arguments : tuple of Numba types
        `UPDATE` or `observe_arguments`.

    Returns
    -------
    int
        What `as_update` and `as_observe` take; valid for the life of the process.

    Raises
    ------
    InputError
        If the function is not compiled: its address would be no code.
    """
    if not hasattr(function, "compile"):
        if not _INTERPRETED or not callable(function):
            raise InputError(
                f"`rule` has a function that is not compiled, {function!r}; decorate it with rule_kernel"
            )
        _functions[id(function)] = function
        return id(function)
    key = (function, arguments)
    if key not in _pointers:
        _pointers[key] = Pointer(function, arguments)
    return _pointers[key].__wrapper_address__()


def _function_at(builder: Any, context: Any, kind: Any, address: Any) -> Any:
    """A first-class function value that holds nothing but a C address."""
    value = cgutils.create_struct_proxy(kind)(context, builder)
    nothing = cgutils.get_null_value(cgutils.voidptr_t)
    value.c_addr = builder.inttoptr(address, cgutils.voidptr_t)
    value.py_addr, value.jit_addr = nothing, nothing
    return value._getvalue()


@intrinsic
def _as_update(_typing, address):
    kind = types.FunctionType(types.void(*UPDATE))

    def generate(context, builder, signature, arguments):
        return _function_at(builder, context, signature.return_type, arguments[0])

    return kind(address), generate


@intrinsic
def _as_observe(_typing, address, tile):
    kind = types.FunctionType(types.void(*observe_arguments(tile.dtype)))

    def generate(context, builder, signature, arguments):
        return _function_at(builder, context, signature.return_type, arguments[0])

    return kind(address, tile), generate


if _INTERPRETED:

    def _update_at(address: int) -> Any:
        return _functions[address]

    def _observe_at(address: int, tile: Any) -> Any:
        del tile
        return _functions[address]

    as_update: Any = _update_at
    as_observe: Any = _observe_at
else:
    as_update, as_observe = _as_update, _as_observe

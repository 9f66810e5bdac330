"""How this project compiles: one place for the options that every kernel shares.

``nnan`` and ``nsz`` let LLVM use plain minimum and maximum instructions; no flag that reorders or fuses
arithmetic is set, so results never depend on vector width or on where a loop's remainder begins.
"""

import gc
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import event, types

from balancesim.kernels.callee import callee, is_linked_only

SHARED_OPTIONS: Any = {"fastmath": {"nnan", "nsz"}, "error_model": "numpy"}
# With ``nogil`` as all else: Numba compiles its own small functions once per set of options.
INLINE_OPTIONS: Any = {"nogil": True, **SHARED_OPTIONS, "forceinline": True}


def _source_digest() -> str:
    """Hash every kernel source, so that a change in one file renews the cache of all that call it."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_DIGEST = _source_digest()


class _Uncollected(event.Listener):
    """Stops the collector of cyclic garbage while Numba compiles: it finds little, in a tenth of the time.

    Numba tells of every compilation in the process, so that functions of others gain as well.
    """

    def __init__(self) -> None:
        self._depth, self._was_enabled = 0, False

    def on_start(self, _event: Any) -> None:
        """Stop it; Numba compiles one function at a time, but others inside it."""
        if self._depth == 0:
            self._was_enabled = gc.isenabled()
            gc.disable()
        self._depth += 1

    def on_end(self, _event: Any) -> None:
        """Start it again."""
        self._depth -= 1
        if self._depth == 0 and self._was_enabled:
            gc.enable()


event.register("numba:compile", _Uncollected())


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls: cached on disk, releases the GIL."""
    # Numba's cache looks at the kernel's own file only; its file name carries the digest of all of them.
    function.__qualname__ += f"-{_DIGEST}"
    return numba.njit(cache=True, nogil=True, **SHARED_OPTIONS)(function)


def was_compiled(function: Any) -> bool:
    """Whether the disk cache has a kernel, for arguments of whatever types; true where nothing compiles."""
    if not hasattr(function, "stats"):
        return True
    return any(Path(function.stats.cache_path).glob(f"*.{function.py_func.__qualname__}-*.nbi"))


class Pointer(types.WrapperAddressProtocol):
    """A compiled function that kernels call by address.

    What is linked is optimised again in every kernel that links it; what is called by address is compiled
    once. Worth it for large functions that are called once a tile.
    """

    def __init__(self, function: Any, arguments: tuple[Any, ...]) -> None:
        self._signature = types.void(*arguments)
        if is_linked_only(function):
            function = function.standing_alone
        function.compile(self._signature.args)
        self._compiled = function.overloads[self._signature.args]

    def __wrapper_address__(self) -> int:
        """Return the address of the C entry point."""
        name = self._compiled.fndesc.llvm_cfunc_wrapper_name
        address: int = self._compiled.library.get_pointer_to_function(name)
        return address

    def signature(self) -> Any:
        """Return the function's Numba signature."""
        return self._signature


def pointer_to(function: Any, *examples: Any) -> Any:
    """Return a pointer to a function, compiled for the types of the examples; itself where the JIT is off."""
    if not hasattr(function, "compile"):
        return function
    return _pointer(function, tuple(numba.typeof(example) for example in examples))


@cache
def _pointer(function: Any, arguments: tuple[Any, ...]) -> Pointer:
    return Pointer(function, arguments)


def inner(function: Callable[..., Any]) -> Any:
    """Compile a loop nest that kernels call."""
    return callee(function, nogil=True, **SHARED_OPTIONS)


def inline(function: Callable[..., Any]) -> Any:
    """Compile a scalar function so that it dissolves into the loops that call it."""
    return callee(function, **INLINE_OPTIONS)


def pasted(function: Callable[..., Any]) -> Any:
    """Compile a function as a part of its callers, before types are inferred.

    Saves the compilation of the function itself and of one more layer: every compiled function optimises all
    that it calls once more. For functions with few callers; deep nests of them take longer to compile.
    """
    return numba.njit(inline="always", **SHARED_OPTIONS)(function)


def strict(function: Callable[..., Any]) -> Any:
    """Compile a function that may meet infinities and NaN, such as a rule whose steps are far too large."""
    return callee(function, nogil=True, error_model="numpy")


def rule_kernel(function: Callable[..., Any]) -> Any:
    """Compile what a balancing rule does in the loop: cached on disk, safe with infinities and NaN.

    Parameters
    ----------
    function : callable
        An update or an observation with the arguments that `balancers.CompiledRule` names, in the Python that
        Numba compiles.

    Returns
    -------
    compiled function
        To be held in a ``staticmethod`` of the rule.
    """
    function.__qualname__ += f"-{_DIGEST}"
    return numba.njit(cache=True, nogil=True, error_model="numpy")(function)

"""Functions that only kernels call: linked into them, without entry points or machine code of their own.

Numba gives every compiled function a wrapper for Python and one for C and turns all three into machine code,
though what a kernel calls is translated once more as a part of the kernel. Here a callee ends as the code
that is linked. A Numba other than those that this was tested with compiles callees as it compiles all else:
slower, to the same results.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numba
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.registry import CPUDispatcher
from numba.core.typed_passes import NativeLowering

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
    return Callee(function, options)


class _Library(JITCodeLibrary):
    """Code that waits to be linked, not handed to the machine.

    It is optimised alone all the same: what a kernel's loops call inlines and vectorises better so.
    """

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):
    """Write a callee's code and nothing around it."""

    _name = "callee_lowering"

    def run_pass(self, state: Any) -> bool:
        shared, state.flags = state.flags, state.flags.copy()
        state.flags.no_cpython_wrapper = state.flags.no_cfunc_wrapper = state.flags.no_compile = True
        state.library = _Library(state.targetctx.codegen(), state.func_id.func_qualname)
        try:
            return bool(super().run_pass(state))
        finally:
            # Numba compiles its own small functions once per set of flags: one set for callees and kernels.
            state.flags = shared


class _Compiler(Compiler):
    """Numba's pipeline with another lowering."""

    def define_pipelines(self) -> Any:
        pipelines = super().define_pipelines()
        for pipeline in pipelines:
            pipeline.passes = [
                (_Lowering if step is NativeLowering else step, text) for step, text in pipeline.passes
            ]
            pipeline.finalize()
        return pipelines

    def compile_extra(self, function: Any) -> Any:
        # What callers find it by; an ordinary function has its entry point here.
        result = super().compile_extra(function)._replace(entry_point=object())
        context = self.state.targetctx
        context.insert_user_function(result.entry_point, result.fndesc, [result.library])
        return result


class Callee(CPUDispatcher):
    """A compiled function that kernels call.

    Parameters
    ----------
    function : callable
        In the Python that Numba compiles.
    options : dict of str to object
        Options of ``numba.njit``.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self._options = options
        super().__init__(
            function,
            targetoptions={**options, "nopython": True, "boundscheck": None},
            pipeline_class=_Compiler,
        )

    def add_overload(self, result: Any) -> None:
        # Not told to the part in C, which would call it.
        self.overloads[tuple(result.signature.args)] = result

    @cached_property
    def standing_alone(self) -> Any:
        """The same function with an entry point."""
        return numba.njit(**self._options)(self.py_func)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.standing_alone(*arguments, **named)

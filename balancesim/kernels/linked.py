"""What Numba compiles a callee with: parts of Numba that are not public, and so loaded only where tested."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numba
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.registry import CPUDispatcher
from numba.core.typed_passes import NativeLowering


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
    locals : dict, optional
        Numba's types of local variables.
    targetoptions : dict of str to object, optional
        Options of ``numba.njit``. Names and order are those that Numba unpickles a function with.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        locals: dict[str, Any] | None = None,  # noqa: A002 - the name that Numba's own class gives it
        targetoptions: dict[str, Any] | None = None,
    ) -> None:
        options = {"nopython": True, "boundscheck": None, **(targetoptions or {})}
        super().__init__(function, locals, options, pipeline_class=_Compiler)

    def add_overload(self, result: Any) -> None:
        # Not told to the part in C, which would call it.
        self.overloads[tuple(result.signature.args)] = result

    @cached_property
    def standing_alone(self) -> Any:
        """The same function with an entry point."""
        return numba.jit(**self.targetoptions)(self.py_func)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.standing_alone(*arguments, **named)

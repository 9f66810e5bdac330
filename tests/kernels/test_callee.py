"""Functions that only kernels call: linked, called from Python, by address, and under an unknown Numba."""

import gc
from collections.abc import Callable
from typing import Any, ClassVar

import numba
import numpy as np
import pytest
from numba.core import event

from balancesim.kernels import callee as callees
from balancesim.kernels.callee import callee, is_linked_only, links_callees
from balancesim.kernels.calls import UPDATE, address_of
from balancesim.kernels.jit import SHARED_OPTIONS, inline, inner, kernel, was_compiled

compiles = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the JIT is off")  # type: ignore[attr-defined]


def added(values: Any) -> float:
    total = 0.0
    for value in values:
        total += value / 3.0
    return total


def successor(number: int) -> int:
    return number + 1


def sum_by(function: Callable[..., Any]) -> Any:
    @numba.njit(nogil=True, **SHARED_OPTIONS)
    def twice(values: Any) -> Any:
        return function(values) + function(values)

    return twice


@compiles
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_linked_and_alone_give_the_same_bits(dtype: Any) -> None:
    values = np.random.default_rng(0).standard_normal(37).astype(dtype)
    linked, plain = inner(added), numba.njit(nogil=True, **SHARED_OPTIONS)(added)
    assert is_linked_only(linked)
    assert sum_by(linked)(values) == sum_by(inline(added))(values) == sum_by(plain)(values)
    assert linked(values) == plain(values)


@compiles
def test_a_callee_has_no_machine_code() -> None:
    linked = inner(added)
    sum_by(linked)(np.ones(3))
    (result,) = linked.overloads.values()
    assert result.library.get_pointer_to_function(result.fndesc.llvm_func_name) == 0


@compiles
def test_a_callee_can_be_pickled() -> None:
    linked = inner(added)
    # As another process would, which does not hold the function that was pickled.
    states = {**linked._reduce_states(), "uuid": "00000000-0000-0000-0000-000000000001"}
    again = type(linked)._rebuild(**states)
    assert is_linked_only(again)
    assert sum_by(again)(np.ones(3)) == sum_by(linked)(np.ones(3))


@compiles
def test_the_address_of_a_callee_is_code() -> None:
    def update(parameters: Any, step: Any, n_tokens: Any, k: Any, loads: Any, price: Any, memory: Any) -> Any:
        price[:] = step * parameters[0] + n_tokens + k + loads[0] + memory[0]

    assert address_of(inner(update), UPDATE) != 0


@compiles
def test_an_unknown_numba_compiles_callees_as_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert links_callees(numba.version_info.short)  # type: ignore[attr-defined]
    assert not links_callees((0, 60))
    assert not links_callees((0, 69))
    monkeypatch.setattr(callees, "links_callees", lambda _: False)
    plain = callee(added, nogil=True, **SHARED_OPTIONS)
    assert not is_linked_only(plain)
    assert sum_by(plain)(np.ones(3)) == pytest.approx(2.0)


@compiles
def test_no_garbage_is_collected_while_compiling() -> None:
    class Watcher(event.Listener):
        seen: ClassVar[set[bool]] = set()

        def on_start(self, _event: Any) -> None:
            self.seen.add(gc.isenabled())

        def on_end(self, _event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Watcher()):
        sum_by(inner(added))(np.ones(3))
    assert Watcher.seen == {False}
    assert gc.isenabled()
    with pytest.raises(numba.TypingError):
        sum_by(inner(added))("not numbers")
    assert gc.isenabled()


@compiles
def test_was_compiled_sees_the_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    fresh = kernel(successor)
    assert not was_compiled(fresh)
    fresh(1)
    assert was_compiled(fresh)

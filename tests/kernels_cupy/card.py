"""A stand-in for CuPy and a card: NumPy arrays, and kernels run by ``emulator.hpp`` on the processor."""

import ctypes
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from balancesim.kernels_cupy import device, route
from tests.kernels_cupy import compiled

MULTIPROCESSORS = 3
SHARED_MEMORY = 227 * 1024

_I64, _I32, _U32, _POINTER = ctypes.c_longlong, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p

_ARGUMENTS = {
    "route_tokens": "(const REAL* a, i64 b, int c, int d, const REAL* e, u64* f, double* g, u32* h, i64* i)",
    "route_any": "(const REAL* a, i64 b, int c, int d, const REAL* e, u64* f, double* g, u32* h, i64* i)",
    "draw_batch": "(u32 a, u32 b, const Model* c, i64 d, i64 e, i64 f, i64 g, REAL* h)",
    "walk_offsets": "(u32 a, u32 b, const Model* c, const double* d, i64 e, i64 f, REAL* g)",
    "draw_and_route": (
        "(u32 a, u32 b, const Model* c, i64 d, i64 e, int f, int g, const REAL* h, u64* i, double* j)"
    ),
    "run_steps": "(u32 a, u32 b, const Model* c, const Loop* d, i64 e, i64 f)",
}
_OF_PROGRAM = {
    "route": ("route_tokens",),
    "any": ("route_any",),
    "draw": ("draw_batch", "walk_offsets", "draw_and_route"),
    "loop": ("run_steps",),
}


class Array(np.ndarray):
    """A NumPy array that answers as CuPy's do."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def __cuda_array_interface__(self):
        return self.__array_interface__

    def get(self):
        return np.array(self)

    def set(self, values):
        self[...] = values


def _array(made):
    return made.view(Array)


def asarray(values):
    return _array(np.array(values))


CUPY = SimpleNamespace(
    asarray=asarray,
    zeros=lambda *arguments: _array(np.zeros(*arguments)),
    # Poisoned: what is not written is seen.
    empty=lambda shape, dtype=np.float64: _array(np.full(shape, 113, dtype)),
    asnumpy=np.array,
    ascontiguousarray=lambda values: _array(np.ascontiguousarray(values)),
    __version__="stand-in",
)


def _launcher(name):
    given = _ARGUMENTS[name]
    parts = [part.strip().rsplit(" ", 1) for part in given.strip("()").split(",")]
    is_struct = [kind in ("const Model*", "const Loop*") for kind, _ in parts]
    pairs = zip(parts, is_struct, strict=True)
    values = ", ".join(f"*{one}" if by_value else one for (_, one), by_value in pairs)
    return (
        f'extern "C" void launch_{name}(unsigned n_blocks, unsigned n_threads, unsigned long n_bytes, '
        f"{given[1:]} {{\n"
        f"    emulator::launch(n_blocks, n_threads, n_bytes, [&] {{ {name}({values}); }});\n}}\n"
    )


@cache
def _library(program):
    emulator = (Path(__file__).parent / "emulator.hpp").read_text(encoding="utf-8")
    text = emulator + program.source() + "".join(map(_launcher, _OF_PROGRAM[program.name]))
    macros = [f"-D{name}={value}" for name, value in program.macros]
    return compiled.load(program.name, text, ["-O1", "-w", *macros])


class Kernel:
    """One compiled kernel."""

    def __init__(self, program, name):
        self.call = getattr(_library(program), f"launch_{name}")
        self.max_dynamic_shared_size_bytes = 0


def _argument(value):
    if isinstance(value, Array) or (isinstance(value, np.ndarray) and value.dtype.names):
        return _POINTER(value.ctypes.data)
    return {
        np.dtype(np.int64): _I64, np.dtype(np.int32): _I32, np.dtype(np.uint32): _U32,
        np.dtype(np.uint64): ctypes.c_ulonglong,
    }[value.dtype](int(value))  # fmt: skip


def _launch(function, n_blocks, n_threads, arguments, n_bytes):
    assert n_bytes <= max(function.max_dynamic_shared_size_bytes, 48 * 1024), "shared memory not asked for"
    function.call(n_blocks, n_threads, ctypes.c_ulong(n_bytes), *map(_argument, arguments))


@cache
def _kernel(program, name, *, cooperative=False):
    assert cooperative == (name == "run_steps")
    return Kernel(program, name)


def forget():
    """Compile anew what is asked for next."""
    route.route_kernel.cache_clear()
    _kernel.cache_clear()
    _library.cache_clear()


def install(monkeypatch):
    """Put the stand-in in CuPy's place."""
    route.route_kernel.cache_clear()
    monkeypatch.setattr(device, "cupy", lambda: CUPY)
    monkeypatch.setattr(device, "kernel", _kernel)
    monkeypatch.setattr(device, "multiprocessors", lambda: MULTIPROCESSORS)
    monkeypatch.setattr(device, "shared_memory_limit", lambda: SHARED_MEMORY)
    monkeypatch.setattr(device, "resident_blocks", lambda *_: MULTIPROCESSORS)
    monkeypatch.setattr(device, "launch", _launch)
    monkeypatch.setattr(device, "free_bytes", lambda: 1 << 30)

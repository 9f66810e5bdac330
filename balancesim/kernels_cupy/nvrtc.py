"""NVRTC without CuPy and without a driver: compiles programs on machines that have no card."""

import ctypes
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from typing import Any

from balancesim.errors import MissingDependencyError
from balancesim.kernels_cupy.program import Program

WAY_OUT = "pip install 'balancesim[nvrtc]'"


class CompilationError(Exception):
    """NVRTC refused a program; the message is its log."""


def compile_program(given: Program, architecture: str) -> bytes:
    """Compile to machine code.

    Parameters
    ----------
    given : Program
        The program.
    architecture : str
        Such as ``sm_90``.

    Returns
    -------
    bytes
        The cubin.

    Raises
    ------
    CompilationError
        If it does not compile, warnings included.
    MissingDependencyError
        If NVRTC is not installed.
    """
    library = _library()
    handle = ctypes.c_void_p()
    text = given.source().encode()
    name = f"{given.name}.cu".encode()
    _check(library, library.nvrtcCreateProgram(ctypes.byref(handle), text, name, 0, None, None))
    try:
        options = [option.encode() for option in (*given.options(), f"--gpu-architecture={architecture}")]
        array = (ctypes.c_char_p * len(options))(*options)
        status = library.nvrtcCompileProgram(handle, len(options), array)
        log = _read(library, handle, "ProgramLog").rstrip(b"\0").decode(errors="replace").strip()
        if status != 0 or log:
            raise CompilationError(log or f"NVRTC says {status}")
        return _read(library, handle, "CUBIN")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(handle))


def version() -> str:
    """Return NVRTC's version.

    Returns
    -------
    str
        Major and minor.
    """
    library, major, minor = _library(), ctypes.c_int(), ctypes.c_int()
    _check(library, library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


def _read(library: Any, handle: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(library, getattr(library, f"nvrtcGet{what}Size")(handle, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(library, getattr(library, f"nvrtcGet{what}")(handle, buffer))
    return buffer.raw


def _check(library: Any, status: int) -> None:
    if status != 0:
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise CompilationError(library.nvrtcGetErrorString(status).decode())


@cache
def _library() -> Any:
    for path in _candidates():
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    raise MissingDependencyError(f"compiling for a card needs NVRTC, which is not installed: {WAY_OUT}")


def _candidates() -> Iterator[str]:
    """NVRTC as pip installs it, then as the system has it."""
    for package in ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"):
        try:
            found = metadata.files(package) or []
        except metadata.PackageNotFoundError:
            continue
        yield from (str(path.locate()) for path in found if path.name.startswith("libnvrtc.so"))
    yield from ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")

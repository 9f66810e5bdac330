"""The card: CuPy where it is installed and finds one, compiled kernels, and launches."""

import hashlib
import os
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from balancesim.errors import InputError, MissingDependencyError
from balancesim.kernels_cupy.program import Program

_LEAST_CAPABILITY = 80
"""Of copies that bypass registers, and of sums over a warp by one instruction."""

WAY_OUT = "pip install 'balancesim[cuda12]' or 'balancesim[cuda13]', by the driver's CUDA version"


def cupy() -> Any:
    """Return the module CuPy, with a card behind it.

    Returns
    -------
    module
        CuPy.

    Raises
    ------
    MissingDependencyError
        If CuPy is not installed, or finds no driver or card.
    """
    try:
        module = import_module("cupy")
    except ImportError as error:
        raise MissingDependencyError(
            f"the backend 'cupy' needs CuPy, which is not installed: {WAY_OUT}"
        ) from error
    try:
        count = module.cuda.runtime.getDeviceCount()
    except module.cuda.runtime.CUDARuntimeError as error:
        raise MissingDependencyError(
            f"the backend 'cupy' needs a CUDA card and its driver, and CuPy {module.__version__} finds none "
            f'({error}): use the backend "numba", or {WAY_OUT}'
        ) from error
    if count == 0:
        raise MissingDependencyError(
            "the backend 'cupy' needs a CUDA card, and there is none: use the backend \"numba\""
        )
    return module


def is_on_card(scores: Any) -> bool:
    """Whether an array lies in a card's memory."""
    return hasattr(scores, "__cuda_array_interface__")


@cache
def kernel(program: Program, name: str, *, cooperative: bool = False) -> Any:
    """Compile a kernel, once a process and card, or find its machine code in CuPy's cache on disk.

    By NVRTC itself: CuPy's own compilation flushes denormals to zero, which changes bits.

    Raises
    ------
    InputError
        If the card is too old.
    """
    module = cupy()
    module.cuda.runtime.free(0)  # a thread that has not met the card yet has no context to load into
    capability = str(module.cuda.Device().compute_capability)
    if int(capability) < _LEAST_CAPABILITY:
        raise InputError(
            f'`backend` "cupy" needs a card of compute capability 8.0 or later, got {capability}; '
            'use backend "numba"'
        )
    path = _machine_code(program, f"sm_{capability}")
    return module.RawModule(path=str(path), enable_cooperative_groups=cooperative).get_function(name)


def _machine_code(program: Program, architecture: str) -> Path:
    nvrtc = cupy().cuda.nvrtc
    options = (*program.options(), f"--gpu-architecture={architecture}")
    told = "\0".join((program.source(), *options, str(nvrtc.getVersion())))
    folder = Path(os.environ.get("CUPY_CACHE_DIR") or "~/.cupy/kernel_cache").expanduser()
    path = folder / f"balancesim-{hashlib.blake2b(told.encode(), digest_size=16).hexdigest()}.cubin"
    if not path.exists():
        handle = nvrtc.createProgram(program.source(), f"{program.name}.cu", (), ())
        try:
            nvrtc.compileProgram(handle, options)
            code: bytes = nvrtc.getCUBIN(handle)
        finally:
            nvrtc.destroyProgram(handle)
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, delete=False) as file:
            file.write(code)
        Path(file.name).replace(path)  # whole or not at all, whoever else compiles
    return path


def multiprocessors() -> int:
    """Number of the card's multiprocessors."""
    return int(cupy().cuda.Device().attributes["MultiProcessorCount"])


def shared_memory_limit() -> int:
    """Bytes of shared memory that one block may have."""
    return int(cupy().cuda.Device().attributes["MaxSharedMemoryPerBlockOptin"])


def allow_shared_memory(function: Any, n_bytes: int) -> None:
    """Let a kernel have this much dynamic shared memory.

    Raises
    ------
    InputError
        If the card has less.
    """
    if n_bytes > shared_memory_limit():
        raise InputError(
            f'`backend` "cupy" needs {n_bytes} bytes of shared memory a block for these sizes, and this card '
            f'has {shared_memory_limit()}; use backend "numba"'
        )
    if n_bytes > 48 * 1024:
        function.max_dynamic_shared_size_bytes = n_bytes


def resident_blocks(function: Any, n_threads: int, n_bytes: int) -> int:
    """Blocks of a kernel that the card holds at a time."""
    driver = import_module("cupy_backends.cuda.api.driver")
    each = driver.occupancyMaxActiveBlocksPerMultiprocessor(function.kernel.ptr, n_threads, n_bytes)
    return max(1, int(each)) * multiprocessors()


def launch(function: Any, n_blocks: int, n_threads: int, arguments: Sequence[Any], n_bytes: int) -> None:
    """Launch a kernel on the current stream."""
    function((n_blocks,), (n_threads,), tuple(arguments), shared_mem=n_bytes)


def free_bytes() -> int:
    """Bytes of the card's memory that can be had, those that CuPy keeps in its pool included."""
    module = cupy()
    free, _ = module.cuda.runtime.memGetInfo()
    return int(free) + int(module.get_default_memory_pool().free_bytes())

"""``balancesim doctor``: check the installation and this machine."""

import os
from collections.abc import Callable
from typing import Any

import click

_SOME_FAILED = 1
_CUPY = "pip install cupy-cuda12x (or cupy-cuda13x, by the driver's CUDA version)"


@click.command("doctor")
@click.option("--gpu", is_flag=True, help="Also look for a CUDA device and the package that drives it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def doctor_command(ctx: click.Context, gpu: bool, as_json: bool) -> None:
    """Check versions, compilation, the compilation cache and a routing self-test."""
    from balancesim.cli.output import print_json

    checks: dict[str, Callable[[], str]] = {
        "packages": _packages,
        "machine": _machine,
        "compilation": _compilation,
        "compilation cache": _cache,
        "routing self-test": _routing,
    }
    if gpu:
        checks["gpu"] = _gpu
    results = [(name, *_outcome(check)) for name, check in checks.items()]
    if as_json:
        print_json({name: {"ok": ok, "found": found} for name, ok, found in results})
    else:
        for name, ok, found in results:
            click.echo(f"{'ok  ' if ok else 'FAIL'}  {name}: {found}")
    if gpu:
        _require_cupy()
    ctx.exit(0 if all(ok for _, ok, _ in results) else _SOME_FAILED)


class CheckError(Exception):
    """A check that found something wrong; the message says what, and the way out."""


def _outcome(check: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, check()
    except CheckError as error:
        return False, str(error)


def _packages() -> str:
    import platform

    from balancesim.sweep.machine import PACKAGES, version

    found = {name: version(name) for name in PACKAGES}
    missing = [name for name, number in found.items() if number == "not installed"]
    if missing:
        raise CheckError(f"not installed: {', '.join(missing)}; pip install {' '.join(missing)}")
    return f"python {platform.python_version()}, " + ", ".join(
        f"{name} {number}" for name, number in found.items()
    )


def _machine() -> str:
    from balancesim.sweep.machine import memory_bytes, processor

    memory = memory_bytes()
    size = f"{memory / 2**30:.0f} GiB of memory" if memory else "memory unknown"
    return f"{processor()}, {os.cpu_count()} cores, {size}"


def _compilation() -> str:
    import time

    import numba
    import numpy as np

    def total(values: Any) -> float:
        result = 0.0
        for value in values:
            result += value
        return result

    start = time.perf_counter()
    found = numba.njit(nogil=True)(total)(np.arange(10.0))
    if found != 45.0:
        raise CheckError(f"a compiled sum of 0..9 is {found}; reinstall numba and llvmlite")
    return f"numba compiles ({time.perf_counter() - start:.1f} s for a small function)"


def _cache() -> str:
    import tempfile
    from pathlib import Path

    import balancesim

    given = os.environ.get("NUMBA_CACHE_DIR")
    folder = Path(given) if given else Path(balancesim.__file__).parent / "kernels" / "__pycache__"
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            return f"{folder} is writable"
    except OSError as error:
        if not given:
            return f"{folder} is not writable; numba keeps compiled kernels in the user's cache folder"
        raise CheckError(
            f"NUMBA_CACHE_DIR={folder} is not writable ({error.strerror}): all is compiled anew"
        ) from error


def _routing() -> str:
    import numpy as np

    import balancesim

    rng = np.random.default_rng(0)
    for n_experts, k in ((16, 2), (64, 8), (100, 3)):
        # Quarters, so that ties happen: they go to the lower expert index.
        scores = (rng.integers(-40, 40, size=(512, n_experts)) / 4.0).astype(np.float32)
        bias = rng.integers(-8, 8, size=n_experts) / 4.0
        picks = np.argsort(-(scores + bias), axis=1, kind="stable")[:, :k]
        expected = np.bincount(picks.ravel(), minlength=n_experts)
        found = balancesim.route(scores, bias, k=k).loads
        if not np.array_equal(found, expected):
            raise CheckError(
                f"compiled routing differs from a sort at E={n_experts}, K={k}; please report this"
            )
    return "compiled routing equals a stable sort, ties included"


def _gpu() -> str:
    from importlib import import_module

    try:
        cupy = import_module("cupy")
    except ImportError as error:
        raise CheckError("cupy is not installed") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
        names = [cupy.cuda.runtime.getDeviceProperties(i)["name"].decode() for i in range(count)]
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise CheckError(f"cupy {cupy.__version__} finds no CUDA device: {error}") from error
    return f"cupy {cupy.__version__}, {', '.join(names)}"


def _require_cupy() -> None:
    from importlib.util import find_spec

    from balancesim.errors import MissingDependencyError

    if find_spec("cupy") is None:
        raise MissingDependencyError(f"the GPU needs cupy, which is not installed: {_CUPY}")

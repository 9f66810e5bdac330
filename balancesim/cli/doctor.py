"""``balancesim doctor``: check the installation and this machine."""

import os
from collections.abc import Callable
from typing import Any

import click

_SOME_FAILED = 1
_FROM_PROCESSOR = "from the processor's; please report this"


@click.command("doctor")
@click.option("--gpu", is_flag=True, help="Also test the CUDA card and the package that drives it.")
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
        checks["gpu self-test"] = _gpu_self_test
    results = [(name, *_outcome(check)) for name, check in checks.items()]
    if as_json:
        print_json({name: {"ok": ok, "found": found} for name, ok, found in results})
    else:
        for name, ok, found in results:
            click.echo(f"{'ok  ' if ok else 'FAIL'}  {name}: {found}")
    if gpu:
        from balancesim.kernels_cupy.device import cupy

        cupy()
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
    import time

    from balancesim.errors import MissingDependencyError
    from balancesim.kernels_cupy import device
    from balancesim.kernels_cupy.route import route_kernel

    try:
        cupy = device.cupy()
    except MissingDependencyError as error:
        raise CheckError(str(error)) from error
    runtime = cupy.cuda.runtime
    found = runtime.getDeviceProperties(cupy.cuda.Device().id)
    free, total = runtime.memGetInfo()
    start = time.perf_counter()
    route_kernel(64, 8, 4)
    return (
        f"{found['name'].decode()}, {found['multiProcessorCount']} multiprocessors, "
        f"{free / 2**30:.0f} of {total / 2**30:.0f} GiB free; cupy {cupy.__version__}, driver for CUDA "
        f"{_cuda(runtime.driverGetVersion())}, NVRTC {'.'.join(map(str, cupy.cuda.nvrtc.getVersion()))}, "
        f"a kernel compiles or is found compiled in {time.perf_counter() - start:.1f} s"
    )


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _gpu_self_test() -> str:
    """Hold the card's scores and loads against the compiled kernels'."""
    import numpy as np

    import balancesim
    from balancesim import balancers, sources
    from balancesim.errors import MissingDependencyError
    from balancesim.kernels_cupy.scores import draw_batch

    offsets = np.linspace(-0.5, 0.5, 64).tolist()
    tested = (
        sources.Normal(n_experts=64, offsets=offsets),
        sources.Gumbel(n_experts=64, transform="softmax"),
        sources.Pareto(n_experts=64, tail_index=0.8),
    )
    try:
        for source in tested:
            scores = source.batch(3, 2000)
            if not np.array_equal(draw_batch(source.kernel_model(), 3, 2000, source.dtype).get(), scores):
                raise CheckError(f"scores of {source.describe()} differ {_FROM_PROCESSOR}")
            loads = balancesim.route(scores, k=8, backend="cupy").loads
            if not np.array_equal(loads, balancesim.route(scores, k=8).loads):
                raise CheckError(f"loads of {source.describe()} differ {_FROM_PROCESSOR}")
        rule = balancers.AlfLB(schedule="sign", step_size=0.01)
        given: Any = {"n_tokens": 128, "k": 8, "horizon": 50, "n_exact": 0}
        here = balancesim.simulate(rule, tested[0], backend="cupy", **given)
        there = balancesim.simulate(rule, tested[0], **given)
        if not (np.array_equal(here.loads, there.loads) and np.array_equal(here.bias, there.bias)):
            raise CheckError(f"a simulation's loads or biases differ {_FROM_PROCESSOR}")
    except MissingDependencyError as error:
        raise CheckError("not run") from error
    return f"scores, loads and a simulation equal the processor's, bit for bit ({len(tested)} sources)"

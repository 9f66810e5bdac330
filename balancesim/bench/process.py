"""Memory, and the time that the command takes to start, each in processes of their own."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from balancesim.bench.instances import Shape, normal
from balancesim.bench.rows import SECONDS, Goal, Ratio, Row, at_most, compared
from balancesim.bench.timing import Plan, estimate, interleaved, plain_pairs
from balancesim.types import Float64Array

_RUN = """
import sys
from balancesim.balancers import AlfLB
from balancesim.bench.process import peak_mebibytes
from balancesim.simulation import simulate
from balancesim.sources import Normal
simulate(AlfLB(), Normal(n_experts=8, offsets="iqr"), n_tokens=8, k=2, horizon=int(sys.argv[1]))
print(peak_mebibytes())
"""
_LONG, _SHORT = 1_000_000, 1_000

_SOLVE = """
import sys
from balancesim.bench.process import peak_of_solving
print(peak_of_solving(sys.argv[1], *map(int, sys.argv[2:])))
"""
_SECONDS_OF_HELP = 10.0
_SWEEP = ["run", "regret-sweep", "--seeds", "0:1", "--set", "horizon=64", "--quiet"]
_MOST_COMPILATION = 10.0
"""Seconds that compilation may add to a sweep in all."""

_LEAST = 0.1
"""MiB below which a difference of two processes is noise."""


def memory(plan: Plan) -> Iterator[Row]:
    """Compare the peak memory of a run of a million steps with that of a thousand.

    Parameters
    ----------
    plan : Plan
        One round, whatever it says: the peak hardly varies.

    Yields
    ------
    Row
    """
    case = "8x8 K=2, 10^6 steps"
    plan.say(case)
    printed(_RUN, _SHORT)  # compiles, if need be, which takes more memory than any run
    pairs = plain_pairs([printed(_RUN, _LONG)], [printed(_RUN, _SHORT)])
    yield compared("memory", case, "10^3 steps", pairs, at_most(1.1), unit="MiB")


def startup(plan: Plan) -> Iterator[Row]:
    """Time the start of the command: alone, and of the default sweep where nothing is compiled.

    Parameters
    ----------
    plan : Plan
        Rounds and time of the first; the second is measured once.

    Yields
    ------
    Row
    """
    yield helping(replace(plan, seconds=min(plan.seconds, _SECONDS_OF_HELP)))
    yield compiling(plan, [*_command(), *_SWEEP])


def _command() -> list[str]:
    script = Path(sys.executable).with_name("balancesim")
    return [str(script)] if script.exists() else [sys.executable, "-m", "balancesim.cli"]


def helping(plan: Plan) -> Row:
    """Compare the time of ``balancesim --help`` with that of an interpreter that imports click.

    Parameters
    ----------
    plan : Plan
        Rounds and time.

    Returns
    -------
    Row
    """
    command = _command()
    plan.say("balancesim --help")
    name = "import click"
    pairs = interleaved(
        lambda: _output([*command, "--help"]),
        {name: lambda: _output([sys.executable, "-c", "import click"])},
        plan,
    )
    return compared("startup", "balancesim --help", name, pairs[name], at_most(2.0))


def compiling(plan: Plan, command: list[str]) -> Row:
    """Time a command with an empty cache of compiled code, less the same with what that left there.

    Parameters
    ----------
    plan : Plan
        Told what is measured; one round, whatever it says.
    command : list of str
        A command that compiles; it also gets ``--out`` with a new folder.

    Returns
    -------
    Row
    """
    case = "the default sweep, 64 steps: compilation"
    plan.say(case)
    with tempfile.TemporaryDirectory(prefix="balancesim-bench-") as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        seconds = []
        for name in ("cold", "warm"):
            start = time.perf_counter()
            _output([*command, "--out", str(Path(folder) / name)], environment)
            seconds.append(time.perf_counter() - start)
    cold, warm = seconds
    return Row(
        "startup", case, SECONDS, Goal(Ratio.OURS, _MOST_COMPILATION), ours=estimate([cold - warm]),
        note=f"{cold:.1f} s where nothing is compiled, {warm:.1f} s after",
    )  # fmt: skip


def extra_memory(solver: str, shape: Shape) -> float:
    """Measure the memory that solving takes on top of the scores.

    Parameters
    ----------
    solver : {"ours", "ortools"}
        What solves.
    shape : Shape
        The instance.

    Returns
    -------
    float
        MiB at the peak of a process that solves, less that of one that has loaded the solver, solved a tiny
        instance and made the same scores, but does not solve them.
    """
    with_solve, without = (printed(_SOLVE, solver, *shape, solves) for solves in (1, 0))
    return max(_LEAST, with_solve - without)


def peak_of_solving(solver: str, n_tokens: int, n_experts: int, k: int, solves: int) -> float:
    """Solve, or do all but that, and return this process's peak; called in processes of their own.

    Parameters
    ----------
    solver : {"ours", "ortools"}
        What solves.
    n_tokens, n_experts, k : int
        The instance.
    solves : int
        Whether to solve it.

    Returns
    -------
    float
        MiB.
    """
    if solver == "ours":
        from balancesim.exact import solve

        def run(scores: Float64Array) -> object:
            return solve(scores, k=k)
    else:
        from balancesim.bench.exact_peers import solve_ortools

        def run(scores: Float64Array) -> object:
            return solve_ortools(scores, k)

    run(normal(Shape(4 * n_experts, n_experts, k)))
    scores = normal(Shape(n_tokens, n_experts, k))
    forget_peak()
    if solves:
        run(scores)
    return peak_mebibytes()


def forget_peak() -> None:
    """Start the peak anew from what is resident now, where the system allows it (Linux)."""
    # Elsewhere the peak of loading and compiling may hide a small solve.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mebibytes() -> float:
    """Return the largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # The peak that getrusage gives includes that of the process that started this one.
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024.0**2 if sys.platform == "darwin" else 1024.0)


def printed(script: str, *arguments: object) -> float:
    """Run a script in a process of its own and return the number that it prints.

    Parameters
    ----------
    script : str
        Python.
    *arguments : object
        Its arguments.

    Returns
    -------
    float
    """
    return float(_output([sys.executable, "-c", script, *map(str, arguments)]))


def _output(command: list[str], environment: dict[str, str] | None = None) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout

"""Memory of a long run, and the time that the command takes to start, each in processes of their own."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from balancesim.bench.timing import Goal, Row, compare, interleaved

_RUN = """
import resource, sys
from balancesim.balancers import AlfLB
from balancesim.simulation import simulate
from balancesim.sources import Normal
simulate(AlfLB(), Normal(n_experts=8, offsets="iqr"), n_tokens=8, k=2, horizon=int(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
_LONG, _SHORT = 1_000_000, 1_000
_PER_MIB = 1024.0 if sys.platform != "darwin" else 1024.0**2


def memory(rounds: int) -> Iterator[Row]:
    """Compare the peak memory of a run of a million steps with that of a thousand.

    Parameters
    ----------
    rounds : int
        Ignored beyond one: the peak hardly varies.

    Yields
    ------
    Row
    """
    del rounds
    _peak(_SHORT)  # compiles, if need be, which takes more memory than any run
    peaks = [_peak(_LONG)], [_peak(_SHORT)]
    goal = Goal(1.1, is_least=False)
    yield compare("memory", "8x8 K=2, 10^6 steps", peaks, "MiB at the peak", "10^3 steps", goal)


def startup(rounds: int) -> Iterator[Row]:
    """Compare the time of ``balancesim --help`` with that of an interpreter that imports click.

    Parameters
    ----------
    rounds : int
        Rounds of the comparison.

    Yields
    ------
    Row
    """
    script = Path(sys.executable).with_name("balancesim")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "balancesim.cli"]
    samples = interleaved(
        lambda: _output([*command, "--help"]), lambda: _output([sys.executable, "-c", "import click"]), rounds
    )
    yield compare("startup", "balancesim --help", samples, "s", "import click", Goal(2.0, is_least=False))


def _peak(horizon: int) -> float:
    return float(_output([sys.executable, "-c", _RUN, str(horizon)])) / _PER_MIB


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout

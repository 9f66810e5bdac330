"""The exact solver compiled in a process of its own, while the sweep compiles what its loop needs.

Numba compiles one function at a time in a process; what another process leaves in the disk cache is loaded.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import numpy as np

from balancesim.batches import n_cores
from balancesim.exact import solve
from balancesim.kernels.certificate import certify_part
from balancesim.kernels.jit import was_compiled
from balancesim.sweep.cells import Task
from balancesim.sweep.executors import ExecutorName

NOTE = "compiling the kernels, once"
_SCRIPT = "from balancesim.sweep.ahead import compile_solver; compile_solver()"


def is_worthwhile(tasks: Sequence[Task], executor: ExecutorName) -> bool:
    """Whether the tasks will need the solver, nothing seems to have compiled it, and there are two cores."""
    solves = any(
        task.run.n_exact > 0 or any(cell.rule["kind"] == "exact" for cell in task.cells) for task in tasks
    )
    # What a solve needs last: where it is cached, all is.
    return solves and executor != "process" and n_cores() > 1 and not was_compiled(certify_part)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Compile the solver in another process for as long as the context lasts."""
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", _SCRIPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent
        )
    except OSError:  # no memory for it, or no right to
        yield
        return
    with child:
        try:
            yield
        finally:
            child.kill()


def compile_solver() -> None:
    """Solve a small problem, which leaves the solver's kernels in the disk cache; end with the parent."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    solve(np.random.default_rng(0).standard_normal((64, 16)), k=2)


def _end_with_parent() -> None:
    sys.stdin.read()  # until the parent's end is closed
    os._exit(1)

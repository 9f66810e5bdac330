"""Two workers of a sweep against one, and against two processes that know nothing of each other."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from balancesim.bench.rows import Row, at_least, compared
from balancesim.bench.timing import Plan, interleaved

if TYPE_CHECKING:
    from balancesim.sweep.configuration import Configuration

_SEEDS = 4
_ONE, _UNLINKED = "one worker", "two unlinked processes"

# Waits until both are loaded and compiled, then runs its half.
_HALF = """
import sys
from pathlib import Path
from balancesim.bench.sweep import run
folder, first, last, horizon = Path(sys.argv[1]), *map(int, sys.argv[2:])
run(folder, first, last, 10, 1)
print("ready", flush=True)
for line in sys.stdin:
    run(folder, first, last, horizon, 1)
    print("done", flush=True)
"""


def sweep(plan: Plan) -> Iterator[Row]:
    """Time a sweep of the default experiment's normal source, four seeds, all its rules.

    Parameters
    ----------
    plan : Plan
        Rounds, and the time for the whole area.

    Yields
    ------
    Row
        Two workers against each peer; what is compared is work in the same time.
    """
    yield from workers(plan.share(2), horizon=8000)


def workers(plan: Plan, horizon: int) -> Iterator[Row]:
    """Time two workers and their peers on runs of some length.

    Parameters
    ----------
    plan : Plan
        Rounds, and the time for one peer.
    horizon : int
        Steps of each run.

    Yields
    ------
    Row
    """
    case = f"normal scores, {_SEEDS} seeds, {horizon} steps, two workers"
    plan.say(case)
    with tempfile.TemporaryDirectory(prefix="balancesim-bench-") as folder:
        half = _SEEDS // 2
        processes = [_start(Path(folder) / name, first, horizon) for name, first in (("a", 0), ("b", half))]
        try:
            peers = {
                _ONE: lambda: run(Path(folder) / "one", 0, _SEEDS, horizon, 1),
                _UNLINKED: lambda: _run_both(processes),
            }
            pairs = interleaved(lambda: run(Path(folder) / "two", 0, _SEEDS, horizon, 2), peers, plan)
        finally:
            for process in processes:
                process.communicate()
    for name, goal in ((_ONE, 1.8), (_UNLINKED, 0.9)):
        yield compared("sweep", case, name, pairs[name], at_least(goal))


def run(folder: Path, first: int, last: int, horizon: int, jobs: int) -> None:
    """Run the sweep of some seeds anew.

    Parameters
    ----------
    folder : Path
        Its run directory.
    first, last : int
        Seeds, ``last`` excluded.
    horizon : int
        Steps of each run.
    jobs : int
        Workers.
    """
    from balancesim.sweep import RunDirectory, run_sweep

    run_sweep(RunDirectory(folder), _configuration(first, last, horizon), jobs=jobs, fresh=True)


def _configuration(first: int, last: int, horizon: int) -> "Configuration":
    from balancesim.sweep.configuration import resolve
    from balancesim.sweep.experiment import Setting, load_draft
    from balancesim.sweep.overrides import apply_overrides

    draft, _ = apply_overrides(load_draft("regret-sweep", None), ("source=normal", f"horizon={horizon}"))
    return resolve(replace(draft, run={**draft.run, "seeds": Setting(f"{first}:{last}", "bench")}))


def _start(folder: Path, first: int, horizon: int) -> "subprocess.Popen[str]":
    arguments = map(str, (folder, first, first + _SEEDS // 2, horizon))
    process = subprocess.Popen(
        [sys.executable, "-c", _HALF, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    _expect(process, "ready")
    return process


def _run_both(processes: "list[subprocess.Popen[str]]") -> None:
    for process in processes:
        if process.stdin is not None:
            process.stdin.write("\n")
            process.stdin.flush()
    for process in processes:
        _expect(process, "done")


def _expect(process: "subprocess.Popen[str]", word: str) -> None:
    said = process.stdout.readline().strip() if process.stdout is not None else ""
    if said != word:
        raise RuntimeError(f"a process of the sweep area ended, exit code {process.poll()}")

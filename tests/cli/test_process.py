"""The command line as a process of its own: killed and resumed, and light to start."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from balancesim.sweep.store import RunDirectory
from balancesim.sweep.summary import record_figures
from tests.sweep.tiny import TINY, configuration, parts, summary_bytes, sweep, write

# A second of work in eight tasks, so that a signal falls between two of them.
LONGER = (
    TINY.replace("horizon = 50", "horizon = 20_000")
    .replace('"0:2"', '"0:8"')
    .replace('[[source]]\nkind = "pareto"\ntail_index = 0.8\n', "")
)
N_LONGER = 8
COMMAND = [sys.executable, "-m", "balancesim.cli"]


def command(folder: Path) -> list[str]:
    return [
        *COMMAND,
        "run",
        "--config",
        str(folder / "tiny.toml"),
        "--out",
        str(folder / "run"),
        "--jobs",
        "1",
    ]


def signalled(folder: Path, number: signal.Signals) -> tuple[int, int, str]:
    """Start a run, signal it after its first part; the exit code, the number of parts, stderr."""
    write(folder, LONGER)
    process = subprocess.Popen(command(folder), stderr=subprocess.PIPE, text=True)
    for _ in range(18000):  # a cold start compiles
        if parts(folder / "run") or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, len(parts(folder / "run")), said


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
def test_killed_in_the_middle_and_resumed(tmp_path: Path) -> None:
    code, n_parts, _ = signalled(tmp_path, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert 1 <= n_parts < N_LONGER
    resumed = subprocess.run(command(tmp_path), capture_output=True, text=True, check=True)
    assert f"{3 * N_LONGER} of {3 * N_LONGER} cells are done" in resumed.stdout
    assert len(list((tmp_path / "run" / "cells").iterdir())) == len(parts(tmp_path / "run")) == N_LONGER
    sweep(tmp_path / "whole", configuration(tmp_path, LONGER))
    assert summary_bytes(tmp_path / "run") == summary_bytes(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal on Windows")
def test_interrupted_in_the_middle(tmp_path: Path) -> None:
    code, n_parts, said = signalled(tmp_path, signal.SIGINT)
    assert code == 130
    assert 1 <= n_parts < N_LONGER
    assert f"interrupted: {3 * n_parts} of {3 * N_LONGER} cells are done and kept in" in said
    assert not list((tmp_path / "run" / "cells").glob("claim-*"))
    assert (tmp_path / "run" / "summary.parquet").exists()


def test_help_imports_neither_numpy_nor_numba() -> None:
    code = (
        "import sys, contextlib\n"
        "from balancesim.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main(['--help'])\n"
        "print([name for name in ('numpy', 'numba', 'rich', 'msgspec', 'pyarrow') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_doing_nothing_imports_no_plotting_and_no_frames(tmp_path: Path) -> None:
    sweep(tmp_path / "run", configuration(tmp_path))
    run = RunDirectory(tmp_path / "run")
    run.figures.mkdir()
    (run.figures / "a.png").write_bytes(b"")
    record_figures(run, [run.figures / "a.png"])
    code = (
        "import sys, contextlib\n"
        "from balancesim.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        f"    main({command(tmp_path)[3:]!r})\n"
        "print([name for name in ('matplotlib', 'pandas', 'cvxpy', 'scipy.stats') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, loaded = done.stdout.splitlines()
    assert said.startswith("nothing to do: 12 of 12")
    assert loaded == "[]"


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{' '.join(COMMAND)} list | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stdout == "experiments:\n"
    assert "Traceback" not in done.stderr

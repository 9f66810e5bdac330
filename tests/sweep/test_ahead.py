"""The solver compiled ahead: when it is worthwhile, and that its process outlives nobody."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from balancesim.sweep import ahead
from balancesim.sweep.cells import Task, tasks_of
from tests.sweep.tiny import N_CELLS, TINY, configuration, sweep


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "was_compiled", lambda _: False)
    monkeypatch.setattr(ahead, "n_cores", lambda: 2)


def tasks(folder: Path, text: str = TINY) -> tuple[Task, ...]:
    return tasks_of(configuration(folder, text))


@pytest.mark.usefixtures("cold")
def test_worthwhile_where_tasks_solve(tmp_path: Path) -> None:
    assert ahead.is_worthwhile(tasks(tmp_path), "thread")
    assert ahead.is_worthwhile(tasks(tmp_path), "serial")
    # Workers compile each for itself and have every core busy.
    assert not ahead.is_worthwhile(tasks(tmp_path), "process")
    assert not ahead.is_worthwhile((), "thread")


@pytest.mark.usefixtures("cold")
def test_not_worthwhile_where_nothing_is_solved(tmp_path: Path) -> None:
    text = TINY.replace("n_records = 10", "n_records = 10\nn_exact = 0")
    assert not ahead.is_worthwhile(tasks(tmp_path, text), "thread")
    with_exact = text + '[[rule]]\nkind = "exact"\n'
    assert ahead.is_worthwhile(tasks(tmp_path, with_exact), "thread")


@pytest.mark.usefixtures("cold")
def test_not_worthwhile_on_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "n_cores", lambda: 1)
    assert not ahead.is_worthwhile(tasks(tmp_path), "thread")


@pytest.mark.usefixtures("cold")
def test_not_worthwhile_once_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "was_compiled", lambda _: True)
    assert not ahead.is_worthwhile(tasks(tmp_path), "thread")


def test_its_process_ends_with_the_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    script = (
        f"import os, pathlib, sys; pathlib.Path({str(told)!r}).write_text(str(os.getpid())); sys.stdin.read()"
    )
    monkeypatch.setattr(ahead, "_SCRIPT", script)
    deadline = time.monotonic() + 60.0
    with ahead.compiling():
        while not (told.exists() and told.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        number = int(told.read_text())
        os.kill(number, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_its_process_ends_with_the_parent() -> None:
    script = "from balancesim.sweep.ahead import _end_with_parent; _end_with_parent()"
    assert (
        subprocess.run([sys.executable, "-c", script], stdin=subprocess.DEVNULL, check=False).returncode == 1
    )


def test_no_process_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "no such interpreter")
    with ahead.compiling():
        pass


def test_a_sweep_says_that_it_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_SCRIPT", "raise SystemExit(1)")
    for worthwhile, remarks in ((False, []), (True, [ahead.NOTE])):
        monkeypatch.setattr(ahead, "is_worthwhile", lambda *_, answer=worthwhile: answer)
        outcome, reporter = sweep(tmp_path / str(worthwhile), configuration(tmp_path))
        assert (outcome.n_done, reporter.remarks, reporter.notes) == (N_CELLS, remarks, [])

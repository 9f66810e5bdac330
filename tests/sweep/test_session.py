"""Resuming, executors, damage and failures: what is finished is kept, and the summary is the same bytes."""

import errno
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pyarrow.parquet as pq
import pytest

from balancesim import balancers, plugins
from balancesim.errors import ConfigurationError, InputError, RunDirectoryError
from balancesim.sweep import scales, work
from balancesim.sweep.cells import ENGINE_VERSION
from balancesim.sweep.executors import EXECUTORS
from balancesim.sweep.parts import read_facts
from balancesim.sweep.session import plan_sweep
from balancesim.sweep.store import RunDirectory
from tests.sweep.tiny import N_CELLS, N_TASKS, TINY, configuration, parts, summary_bytes, sweep


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    outcome, reporter = sweep(folder / "run", configuration(folder))
    assert (outcome.n_cells, outcome.n_before, outcome.n_done) == (N_CELLS, 0, N_CELLS)
    assert (reporter.n_cells, round(reporter.cells, 6), reporter.notes) == (N_CELLS, N_CELLS, [])
    return folder / "run"


@dataclass(frozen=True)
class Breaking(balancers.PriceRule):
    """A rule that raises at its first step on one expert count."""

    name = "breaking"
    n_experts: int = 6

    def init(self, n_experts: int, k: int) -> Any:
        del k
        if n_experts == self.n_experts:
            raise ZeroDivisionError("no such price")
        return balancers.NoBalance().init(n_experts, 1)

    def bias(self, state: Any) -> Any:
        return state

    def update(self, state: Any, loads: Any, probabilities: Any) -> Any:
        del loads, probabilities
        return state


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    known = {**balancers.registry(), "breaking": Breaking}
    monkeypatch.setattr(balancers, "registry", lambda: known)
    plugins.load_group.cache_clear()
    yield
    plugins.load_group.cache_clear()


BROKEN = TINY + '\n[[source]]\nkind = "uniform"\nn_experts = 5\n[[rule]]\nkind = "breaking"\n'


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("jobs", [1, 2])
def test_every_executor_gives_the_same_bytes(whole: Path, tmp_path: Path, executor: str, jobs: int) -> None:
    outcome, reporter = sweep(tmp_path / "run", configuration(tmp_path), executor=executor, jobs=jobs)
    assert outcome.failures == {}
    assert round(reporter.cells, 6) == N_CELLS
    assert summary_bytes(tmp_path / "run") == summary_bytes(whole)


def test_a_finished_run_is_left_alone(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in whole.rglob("*")}
    monkeypatch.setattr(work, "perform", None)
    outcome, _ = sweep(whole, configuration(tmp_path))
    assert (outcome.n_before, outcome.n_done) == (N_CELLS, 0)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in whole.rglob("*")} == before


def test_only_what_is_missing_is_run(whole: Path, tmp_path: Path) -> None:
    config = configuration(tmp_path)
    sweep(tmp_path / "run", config)
    missing, kept = parts(tmp_path / "run")[0], parts(tmp_path / "run")[1:]
    missing.unlink()
    inodes = [path.stat().st_ino for path in kept]
    outcome, _ = sweep(tmp_path / "run", config)
    assert (outcome.n_before, outcome.n_done) == (N_CELLS - 3, 3)
    assert [path.stat().st_ino for path in kept] == inodes
    assert summary_bytes(tmp_path / "run") == summary_bytes(whole)


def test_more_seeds_add_to_a_run(tmp_path: Path) -> None:
    more = TINY.replace("0:2", "0:3")
    sweep(tmp_path / "grown", configuration(tmp_path))
    outcome, _ = sweep(tmp_path / "grown", configuration(tmp_path, more))
    assert (outcome.n_before, outcome.n_done) == (N_CELLS, N_CELLS // 2)
    sweep(tmp_path / "at once", configuration(tmp_path, more))
    assert summary_bytes(tmp_path / "grown") == summary_bytes(tmp_path / "at once")
    fewer, _ = sweep(tmp_path / "grown", configuration(tmp_path))
    assert (fewer.n_before, fewer.n_done) == (N_CELLS, 0)
    assert 'seeds = "0:3"' in (tmp_path / "grown" / "config.toml").read_text(encoding="utf-8")


def test_a_rule_alone_has_the_numbers_it_has_among_others(whole: Path, tmp_path: Path) -> None:
    alone = TINY.replace('schedule = ["sign", "harmonic"]', 'schedule = "sign"').replace('kind = "none"', "")
    alone = alone.replace("[[rule]]\n\n\n", "")
    sweep(tmp_path / "run", configuration(tmp_path, alone))
    found = pd.read_parquet(tmp_path / "run" / "summary.parquet")
    among = pd.read_parquet(whole / "summary.parquet")
    among = among[among["schedule"] == "sign"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, among, check_exact=True)


def test_fresh_starts_again(whole: Path, tmp_path: Path) -> None:
    sweep(tmp_path / "run", configuration(tmp_path, TINY.replace("0.8", "1.1")))
    with pytest.raises(RunDirectoryError, match="holds another configuration"):
        sweep(tmp_path / "run", configuration(tmp_path))
    outcome, _ = sweep(tmp_path / "run", configuration(tmp_path), fresh=True)
    assert (outcome.n_before, outcome.n_done) == (0, N_CELLS)
    assert len(parts(tmp_path / "run")) == N_TASKS
    assert summary_bytes(tmp_path / "run") == summary_bytes(whole)


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "text", "of another task", "foreign parquet", "other engine"]
)
def test_a_damaged_part_is_reported_and_run_again(whole: Path, tmp_path: Path, damage: str) -> None:
    config = configuration(tmp_path)
    sweep(tmp_path / "run", config)
    part, other = parts(tmp_path / "run")[:2]
    data = part.read_bytes()
    if damage == "truncated":
        part.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        part.write_bytes(b"")
    elif damage == "text":
        part.write_text("no Parquet", encoding="utf-8")
    elif damage == "of another task":
        part.write_bytes(other.read_bytes())
    elif damage == "foreign parquet":
        part.write_bytes((whole / "summary.parquet").read_bytes())
    else:
        table = pq.read_table(part)
        changed = table.schema.metadata[b"balancesim"].replace(
            f'"engine": {ENGINE_VERSION}'.encode(), b'"engine": 9'
        )
        pq.write_table(table.replace_schema_metadata({b"balancesim": changed}), part)
    outcome, reporter = sweep(tmp_path / "run", config)
    assert (outcome.n_before, outcome.n_done) == (N_CELLS - 3, 3)
    assert [str(part) in note and "cannot be used" in note for note in reporter.notes] == [True]
    assert (part.parent / f"damaged-{part.name}").exists()
    assert summary_bytes(tmp_path / "run") == summary_bytes(whole)


def test_a_part_of_no_task_is_set_aside(whole: Path, tmp_path: Path) -> None:
    config = configuration(tmp_path)
    sweep(tmp_path / "run", config)
    stray = tmp_path / "run" / "cells" / "part-0123456789abcdef.parquet"
    stray.write_bytes(parts(tmp_path / "run")[0].read_bytes())
    outcome, reporter = sweep(tmp_path / "run", config)
    assert outcome.n_done == 0
    assert "it belongs to no task of this run" in reporter.notes[0]
    assert not stray.exists()
    assert summary_bytes(tmp_path / "run") == summary_bytes(whole)


@pytest.mark.parametrize("damage", ["gone", "truncated", "stale"])
def test_the_summary_is_made_again(whole: Path, tmp_path: Path, damage: str) -> None:
    config = configuration(tmp_path)
    sweep(tmp_path / "run", config)
    summary = tmp_path / "run" / "summary.parquet"
    if damage == "gone":
        summary.unlink()
    elif damage == "truncated":
        summary.write_bytes(summary.read_bytes()[:100])
    else:
        sweep(tmp_path / "less", configuration(tmp_path, TINY.replace("0:2", "0:1")))
        summary.write_bytes(summary_bytes(tmp_path / "less"))
    outcome, _ = sweep(tmp_path / "run", config)
    assert outcome.n_done == 0
    assert summary_bytes(tmp_path / "run") == summary_bytes(whole)


@pytest.mark.usefixtures("breaking")
@pytest.mark.parametrize("executor", ["serial", "thread"])
def test_a_failure_is_kept_and_the_rest_goes_on(tmp_path: Path, executor: str) -> None:
    config = configuration(tmp_path, BROKEN)
    outcome, reporter = sweep(tmp_path / "run", config, executor=executor, jobs=2)
    assert (outcome.n_cells, outcome.n_done, outcome.n_failed, outcome.stopped) == (24, 8, 16, False)
    assert reporter.failed == 16
    message = "ZeroDivisionError: no such price; in balancing rule breaking, before the first step"
    assert outcome.failures["Normal, seed 0"] == message
    run = RunDirectory(tmp_path / "run")
    plan = plan_sweep(run, config)
    assert set(plan.states.failed.values()) == {message}
    notes = [json.loads(path.read_text(encoding="utf-8")) for path in run.cells.glob("failed-*.json")]
    assert len(notes) == N_TASKS
    assert not list(run.cells.glob("claim-*"))


@pytest.mark.usefixtures("breaking")
def test_a_failed_cell_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configuration(tmp_path, BROKEN)
    sweep(tmp_path / "run", config)
    monkeypatch.setattr(Breaking, "init", lambda _, n_experts, k: balancers.NoBalance().init(n_experts, k))
    outcome, _ = sweep(tmp_path / "run", config)
    assert (outcome.n_before, outcome.n_done, outcome.n_failed) == (8, 16, 0)
    assert not list((tmp_path / "run" / "cells").glob("failed-*"))


@pytest.mark.usefixtures("breaking")
def test_fail_fast_stops_at_the_first_failure(tmp_path: Path) -> None:
    outcome, _ = sweep(tmp_path / "run", configuration(tmp_path, BROKEN), fail_fast=True)
    assert outcome.stopped
    assert (len(outcome.failures), outcome.n_done) == (1, 0)


def test_a_killed_task_is_lost_and_run_again(whole: Path, tmp_path: Path) -> None:
    config = configuration(tmp_path)
    sweep(tmp_path / "run", config)
    part = parts(tmp_path / "run")[0]
    part.unlink()
    claim = part.with_name(part.name.replace("part-", "claim-").replace(".parquet", ".json"))
    claim.write_text("{}", encoding="utf-8")
    (part.parent / ".tmp-1-part.parquet").write_bytes(b"half")
    # A kill between writing a part and removing its claim.
    done = parts(tmp_path / "run")[0]
    done.with_name(done.name.replace("part-", "claim-").replace(".parquet", ".json")).touch()
    assert len(plan_sweep(RunDirectory(tmp_path / "run"), config).states.lost) == 1
    _, reporter = sweep(tmp_path / "run", config)
    assert reporter.notes == ["3 cells were lost when an earlier run was killed; they are run again"]
    assert len(list(part.parent.iterdir())) == N_TASKS
    assert summary_bytes(tmp_path / "run") == summary_bytes(whole)


@pytest.mark.parametrize("executor", ["serial", "thread"])
def test_ctrl_c_keeps_what_is_done(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    config = configuration(tmp_path)
    perform = work.perform
    calls: list[Any] = []

    def interrupted(assignment: Any, progress: Any) -> None:
        calls.append(assignment)
        if len(calls) == 3:
            raise KeyboardInterrupt
        perform(assignment, progress)

    monkeypatch.setattr("balancesim.sweep.executors.perform", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path / "run", config, executor=executor)
    assert len(parts(tmp_path / "run")) == 2
    assert (tmp_path / "run" / "summary.parquet").exists()
    monkeypatch.setattr("balancesim.sweep.executors.perform", perform)
    outcome, _ = sweep(tmp_path / "run", config)
    assert (outcome.n_before, outcome.n_done) == (6, 6)
    assert summary_bytes(tmp_path / "run") == summary_bytes(whole)


def full_disk(monkeypatch: pytest.MonkeyPatch, parts_that_fit: int) -> None:
    """Let the disk be full once so many parts are written."""
    written: list[Path] = []
    write_table = pq.write_table

    def write(table: Any, path: Path, **options: Any) -> None:
        if len(written) == parts_that_fit:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)
        write_table(table, path, **options)

    monkeypatch.setattr(pq, "write_table", write)


@pytest.mark.parametrize("executor", ["serial", "thread"])
def test_a_full_disk_stops_the_run_and_loses_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    config = configuration(tmp_path)
    with monkeypatch.context() as patch:
        full_disk(patch, 2)
        with pytest.raises(RunDirectoryError, match="is full; what is finished is kept"):
            sweep(tmp_path / "run", config, executor=executor)
    assert len(parts(tmp_path / "run")) == 2
    assert not list((tmp_path / "run" / "cells").glob(".tmp-*"))
    outcome, _ = sweep(tmp_path / "run", config)
    assert (outcome.n_before, outcome.n_done) == (6, 6)
    assert summary_bytes(tmp_path / "run") == summary_bytes(whole)


def test_out_is_a_file(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    for path in (tmp_path / "tiny.toml", tmp_path / "tiny.toml" / "below"):
        with pytest.raises(RunDirectoryError, match=r"tiny\.toml.* is a file, not a directory"):
            sweep(path, config)


def test_out_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The superuser may write anywhere, so the refusal is put in the system's place.
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "run")

    config = configuration(tmp_path)
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        RunDirectoryError, match=r"is not writable \(Permission denied\); give another --out DIR"
    ):
        sweep(tmp_path / "run", config)


def test_a_step_without_a_modulus_stops_before_any_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_near(*_: object) -> NoReturn:
        raise InputError("no token is near a tie")

    monkeypatch.setattr(scales, "_counted", none_near)
    text = TINY.replace('kind = "normal"', 'kind = "factor"')
    impossible = configuration(tmp_path, text)
    with pytest.raises(ConfigurationError, match=r"multiples of 1/mu needs the modulus"):
        sweep(tmp_path / "run", impossible)
    assert parts(tmp_path / "run") == []
    sweep(tmp_path / "run", configuration(tmp_path))
    with pytest.raises(ConfigurationError, match=r"multiples of 1/mu needs the modulus"):
        sweep(tmp_path / "run", impossible, fresh=True)
    assert len(parts(tmp_path / "run")) == N_TASKS


def test_parts_hold_what_their_cells_came_to(whole: Path) -> None:
    facts = read_facts(parts(whole)[0])["cells"]
    assert len(facts) == 3
    assert {"cell", "seed", "regret", "modulus", "outcome", "reason", "kept_of_exact"} <= set(facts[0])


WITH_EXACT = TINY + '\n[[rule]]\nkind = "exact"\n'


def test_a_current_batch_rule_resumes_and_spreads_like_the_others(tmp_path: Path) -> None:
    config = configuration(tmp_path, WITH_EXACT)
    sweep(tmp_path / "run", config)
    cold = summary_bytes(tmp_path / "run")
    parts(tmp_path / "run")[1].unlink()
    outcome, _ = sweep(tmp_path / "run", config, executor="thread", jobs=2)
    assert (outcome.n_before, outcome.n_done) == (12, 4)
    assert summary_bytes(tmp_path / "run") == cold


def test_the_other_rules_numbers_do_not_depend_on_it(whole: Path, tmp_path: Path) -> None:
    sweep(tmp_path / "run", configuration(tmp_path, WITH_EXACT))
    found = pd.read_parquet(tmp_path / "run" / "summary.parquet")
    found = found[found["causal"]].reset_index(drop=True)
    among = pd.read_parquet(whole / "summary.parquet")
    pd.testing.assert_frame_equal(found, among, check_exact=True)


KILLER = """
import os, signal
from dataclasses import dataclass
from balancesim.balancers import PriceRule

@dataclass(frozen=True)
class Killer(PriceRule):
    "A rule of somebody else's package that takes its process down."
    name = "killer"
    def init(self, n_experts, k):
        os.kill(os.getpid(), signal.SIGKILL)
    def bias(self, state): ...
    def update(self, state, loads, probabilities): ...
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
def test_a_killed_worker_is_lost_not_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "killer-1.0.dist-info").mkdir(parents=True)
    (site / "killer.py").write_text(KILLER, encoding="utf-8")
    (site / "killer-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: killer\nVersion: 1.0\n"
    )
    entry = "[balancesim.balancers]\nkiller = killer:Killer\n"
    (site / "killer-1.0.dist-info" / "entry_points.txt").write_text(entry, encoding="utf-8")
    monkeypatch.syspath_prepend(site)
    plugins.load_group.cache_clear()
    try:
        config = configuration(tmp_path, TINY + '\n[[rule]]\nkind = "killer"\n')
        outcome, reporter = sweep(tmp_path / "run", config, executor="process", jobs=1)
        assert (outcome.n_done, outcome.n_failed, outcome.n_lost) == (0, 0, 16)
        assert set(outcome.failures.values()) == {"the worker process was killed"}
        assert reporter.failed == 16
        assert len(plan_sweep(RunDirectory(tmp_path / "run"), config).states.lost) >= 1
    finally:
        plugins.load_group.cache_clear()

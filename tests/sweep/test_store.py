import json
from pathlib import Path

import pytest

from balancesim.errors import RunDirectoryError
from balancesim.sweep.cells import ENGINE_VERSION
from balancesim.sweep.store import (
    RunDirectory,
    changed_versions,
    clear,
    conflict,
    locked,
    read_configuration,
    recorded_figures,
)
from balancesim.sweep.summary import record_figures
from tests.sweep.tiny import TINY, configuration, sweep


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    sweep(folder / "run", configuration(folder))
    return folder / "run"


def test_what_a_directory_holds(finished: Path, tmp_path: Path) -> None:
    assert read_configuration(RunDirectory(finished)) == configuration(tmp_path)
    manifest = json.loads((finished / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["engine_version"] == ENGINE_VERSION
    assert {"python", "numpy", "numba", "pyarrow", "balancesim"} <= set(manifest["versions"])
    assert {"system", "architecture", "processor"} == set(manifest["machine"])
    assert sorted(path.name for path in finished.iterdir()) == [
        "cells",
        "config.toml",
        "manifest.json",
        "summary.parquet",
    ]
    assert all(path.name.startswith("part-") for path in (finished / "cells").iterdir())


def test_other_configurations_conflict(finished: Path, tmp_path: Path) -> None:
    run = RunDirectory(finished)
    assert conflict(run, configuration(tmp_path)) is None
    assert conflict(run, configuration(tmp_path, TINY.replace("0:2", "5:6"))) is None
    assert conflict(run, configuration(tmp_path, TINY.replace("0.8", "1.1"))) == (
        f"{finished} holds another configuration: source[1].tail_index (0.8 there, 1.1 here); "
        "give another --out DIR, or --fresh to replace it"
    )


def test_another_engine_conflicts(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balancesim.sweep.store.ENGINE_VERSION", 7)
    message = conflict(RunDirectory(finished), configuration(tmp_path))
    assert message is not None
    assert f"engine version ({ENGINE_VERSION} there, 7 here)" in message


def test_a_file_or_a_foreign_folder_conflicts(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    file = tmp_path / "tiny.toml"
    assert (
        conflict(RunDirectory(file), config) == f"{file} is a file, not a directory; give another --out DIR"
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    assert conflict(RunDirectory(folder), config) is None
    (folder / "summary.parquet").write_bytes(b"mine")
    message = conflict(RunDirectory(folder), config)
    assert message is not None
    assert "has summary.parquet but no config.toml" in message


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="there is no run directory"):
        read_configuration(RunDirectory(tmp_path / "nowhere"))
    with pytest.raises(RunDirectoryError, match=r"not a run directory: it has no config\.toml"):
        read_configuration(RunDirectory(tmp_path))
    (tmp_path / "config.toml").write_text("[[[", encoding="utf-8")
    with pytest.raises(RunDirectoryError, match="holds a configuration that cannot be used"):
        read_configuration(RunDirectory(tmp_path))


def test_clear_removes_only_what_a_sweep_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    sweep(folder, configuration(tmp_path))
    run = RunDirectory(folder)
    own = [
        folder / "notes.txt",
        folder / "cells" / "mine.parquet",
        run.figures / "mine.png",
        run.figures / "a.png",
    ]
    run.figures.mkdir()
    for path in own:
        path.write_text("x", encoding="utf-8")
    record_figures(run, [run.figures / "a.png"])
    assert recorded_figures(run) == [run.figures / "a.png"]
    clear(run)
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert sorted(left) == sorted(own[:3])


def test_a_lock_belongs_to_one_process_at_a_time(finished: Path) -> None:
    run = RunDirectory(finished)
    with locked(run), pytest.raises(RunDirectoryError, match="another process is working in"), locked(run):
        pass
    with locked(run):
        pass


def test_changed_versions_are_named(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(finished)
    assert changed_versions(run) == []
    now = {"versions": {"numpy": "99"}, "machine": {}}
    monkeypatch.setattr("balancesim.sweep.store.manifest", lambda: now)
    (change,) = changed_versions(run)
    assert change.startswith("numpy ")
    assert change.endswith("(now 99)")

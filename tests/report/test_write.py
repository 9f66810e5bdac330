"""The report of a real run directory."""

from pathlib import Path

import pytest

from balancesim.errors import RunDirectoryError
from balancesim.report import write_report
from balancesim.sweep import RunDirectory, group_summary
from tests.sweep.tiny import TINY, configuration, sweep


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("report")
    sweep(folder / "run", configuration(folder))
    return RunDirectory(folder / "run")


def test_writes_a_figure_per_source_and_one_for_all(run: RunDirectory) -> None:
    written = write_report(run)
    assert [path.name for path in written] == [
        f"{name}.{ending}"
        for name in ("summary", "source-00-normal", "source-01-pareto-index-0.8")
        for ending in ("svg", "png")
    ]
    assert sorted(run.figures.iterdir()) == sorted(written)
    assert all(path.read_bytes().startswith((b"<?xml", b"\x89PNG")) for path in written)


def test_same_bytes_again_by_path_or_with_the_groups_at_hand(run: RunDirectory) -> None:
    first = [path.read_bytes() for path in write_report(run)]
    assert [path.read_bytes() for path in write_report(run.path, group_summary(run))] == first


def test_a_run_without_regret_has_no_figure_of_it(tmp_path: Path) -> None:
    text = TINY.replace("[run]", '[run]\ncomparator = "none"')
    sweep(tmp_path / "run", configuration(tmp_path, text))
    assert [path.name for path in write_report(tmp_path / "run")] == ["summary.svg", "summary.png"]


def test_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        write_report(tmp_path)


def test_figures_is_a_file(run: RunDirectory) -> None:
    kept = run.path / "kept"
    if run.figures.exists():
        run.figures.rename(kept)
    run.figures.write_text("")
    try:
        with pytest.raises(RunDirectoryError, match="is a file"):
            write_report(run)
    finally:
        run.figures.unlink()
        if kept.exists():
            kept.rename(run.figures)

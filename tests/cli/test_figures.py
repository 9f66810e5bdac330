"""`balancesim figures`: files, captions and commands; the statements are the tests' own."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from balancesim.cli import main
from balancesim.report import gallery
from balancesim.report.style import source_name
from balancesim.sweep.configuration import resolve
from balancesim.sweep.experiment import load_draft, read_draft
from balancesim.sweep.labels import group_labels
from tests.checks.statements import CONTROL, GOOD, stated
from tests.cli.test_check import install
from tests.sweep.tiny import TINY, write


def figures(folder: Path, *names: str) -> Result:
    places = ["--out", str(folder / "figures"), "--work", str(folder / "work")]
    return CliRunner().invoke(main, ["figures", *names, *places, "--jobs", "1"])


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = stated("Q3", GOOD, CONTROL, figure=False)
    install(monkeypatch, stated("Q1", GOOD, CONTROL), stated("R1", GOOD, CONTROL), plain)


@pytest.mark.usefixtures("own")
def test_a_statement_s_figure_and_its_page(tmp_path: Path) -> None:
    done = figures(tmp_path, "q")
    assert done.exit_code == 0, done.output
    files = sorted(path.name for path in (tmp_path / "figures" / "checks").iterdir())
    assert files == ["Q1.png", "Q1.svg"]
    page = (tmp_path / "figures" / "README.md").read_text()
    assert "![checks/Q1](checks/Q1.png)" in page
    assert "Statement Q1. Errors." in page
    assert "`balancesim figures Q1`" in page
    assert "R1" not in page
    before = (tmp_path / "figures" / "checks" / "Q1.svg").read_bytes()
    figures(tmp_path, "Q1")
    assert (tmp_path / "figures" / "checks" / "Q1.svg").read_bytes() == before


@pytest.mark.usefixtures("own")
def test_an_unknown_name_is_named(tmp_path: Path) -> None:
    for wrong in ("Q3", "regret-sweeps"):
        done = figures(tmp_path, wrong)
        assert done.exit_code == 2
        assert f"unknown figure '{wrong}'; did you mean" in done.stderr


def test_an_experiment_s_figures_are_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch)
    drafts = {("tiny", None): read_draft(write(tmp_path, TINY))}
    monkeypatch.setattr("balancesim.sweep.experiment.load_draft", lambda *named: drafts[named])
    exhibit = gallery.Exhibit("tiny", "0:1", {"all": ("summary", "All of it.")})
    monkeypatch.setattr(gallery, "EXHIBITS", (exhibit,))
    done = figures(tmp_path, "tiny")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "figures" / "tiny").iterdir()) == ["all.png", "all.svg"]
    page = (tmp_path / "figures" / "README.md").read_text()
    assert "All of it." in page
    assert "`balancesim figures tiny`" in page


def test_every_file_of_the_gallery_is_one_that_its_report_draws() -> None:
    for exhibit in gallery.EXHIBITS:
        configuration = resolve(load_draft(exhibit.experiment, None))
        drawn = {"summary", *(source_name(i, label) for i, label in enumerate(group_labels(configuration)))}
        drawn |= {name.replace("source", "recovery", 1) for name in drawn}
        assert {file for file, _ in exhibit.pictures.values()} <= drawn

"""Running checks: what passes, what is kept, and that one check's failure is its own."""

import json
from pathlib import Path

import pytest

from balancesim.checks import Depth, Outcome, Statement, Verdict, find_statements, run_checks
from balancesim.errors import InputError, RunDirectoryError
from tests.checks.statements import (
    BAD,
    BROKEN_CONTROL,
    CONTROL,
    GOOD,
    NOT_A_NUMBER,
    PASSING_CONTROL,
    UNMET,
    UNSURE,
    stated,
)


def run(folder: Path, *statements: Statement, depth: Depth = Depth.DEFAULT) -> list[Outcome]:
    return run_checks(statements, folder, depth=depth)


@pytest.mark.parametrize(
    ("cases", "verdict", "passed"),
    [
        ((GOOD, CONTROL), Verdict.HOLDS, True),
        ((GOOD, UNMET, CONTROL), Verdict.HOLDS, True),
        ((GOOD, UNSURE, CONTROL), Verdict.INCONCLUSIVE, True),
        ((UNMET, CONTROL), Verdict.UNMET, True),
        ((GOOD, BAD, UNSURE, CONTROL), Verdict.FAILS, False),
        ((GOOD, CONTROL, PASSING_CONTROL), Verdict.HOLDS, False),
        ((GOOD, CONTROL, BROKEN_CONTROL), Verdict.HOLDS, False),
        ((GOOD, NOT_A_NUMBER, CONTROL), Verdict.FAILS, False),
        ((GOOD,), Verdict.HOLDS, False),
    ],
    ids=[
        "holds",
        "unmet too",
        "inconclusive",
        "unmet",
        "fails",
        "control passes",
        "control is no number",
        "statement is no number",
        "no control",
    ],
)
def test_what_passes(tmp_path: Path, cases: tuple, verdict: Verdict, passed: bool) -> None:
    (outcome,) = run(tmp_path, stated("Q1", *cases))
    assert outcome.findings is not None
    assert outcome.findings.verdict is verdict
    assert outcome.passed is passed


def test_findings_and_figures_are_written(tmp_path: Path) -> None:
    run(tmp_path, stated("Q1", GOOD, CONTROL))
    document = json.loads((tmp_path / "Q1.json").read_text())
    assert document["verdict"] == "holds"
    assert document["data"] == {"errors": [0.5, "inf"]}
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["Q1.png", "Q1.svg"]


def test_what_is_done_is_read_again(tmp_path: Path) -> None:
    runs = list[int]()
    check = stated("Q1", GOOD, UNSURE, CONTROL, act=lambda: runs.append(1))
    (first,) = run(tmp_path, check)
    (second,) = run(tmp_path, check)
    assert len(runs) == 1
    assert first.findings is not None
    assert second.findings is not None
    assert list(second.findings.cases) == list(first.findings.cases)
    assert list(second.findings.remarks) == list(first.findings.remarks)


def test_what_is_done_is_run_again_where_it_must_be(tmp_path: Path) -> None:
    runs = list[int]()
    check = stated("Q1", GOOD, CONTROL, act=lambda: runs.append(1))
    run(tmp_path, check)
    run(tmp_path, check, depth=Depth.DEEP)
    assert len(runs) == 2, "another depth"
    (tmp_path / "figures" / "Q1.png").unlink()
    run(tmp_path, check, depth=Depth.DEEP)
    assert len(runs) == 3, "no figure"
    run_checks([check], tmp_path, depth=Depth.DEEP, fresh=True)
    assert len(runs) == 4, "fresh"
    stored = json.loads((tmp_path / "Q1.json").read_text())
    (tmp_path / "Q1.json").write_text(json.dumps({**stored, "digest": "of other code"}))
    run(tmp_path, check, depth=Depth.DEEP)
    assert len(runs) == 5, "other code"
    (tmp_path / "Q1.json").write_text("{")
    run(tmp_path, check, depth=Depth.DEEP)
    assert len(runs) == 6, "a broken file"


def test_same_bytes_twice(tmp_path: Path) -> None:
    check = stated("Q1", GOOD, CONTROL)
    run(tmp_path / "a", check)
    run(tmp_path / "b", check)
    for name in ("Q1.json", "figures/Q1.svg", "figures/Q1.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_check_that_breaks_off_stops_no_other(tmp_path: Path) -> None:
    def break_off() -> None:
        raise InputError("`k` must be at least 1, got 0")

    told = list[str]()
    outcomes = run_checks(
        [stated("Q1", GOOD, CONTROL, act=break_off), stated("Q2", GOOD, CONTROL)],
        tmp_path,
        report=lambda outcome: told.append(outcome.statement.label),
    )
    assert [outcome.passed for outcome in outcomes] == [False, True]
    assert outcomes[0].error == "InputError: `k` must be at least 1, got 0"
    assert told == ["Q1", "Q2"]
    assert not (tmp_path / "Q1.json").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="is a file, not a directory"):
        run(tmp_path / "file", stated("Q1", GOOD, CONTROL))


def test_a_figure_needs_a_caption() -> None:
    good = stated("Q1", GOOD)
    with pytest.raises(InputError, match="Q1: a figure needs a `caption`"):
        Statement("Q1", "ours", "", "", (), "", "", good.run, good.figure)


def test_processes_find_what_one_finds(tmp_path: Path) -> None:
    statements = find_statements(["P1", "P2"])
    alone = run_checks(statements, tmp_path / "alone")
    beside = run_checks(statements, tmp_path / "beside", jobs=2)
    assert [outcome.passed for outcome in alone] == [outcome.passed for outcome in beside] == [True, True]
    for label in ("P1", "P2"):
        assert (tmp_path / "alone" / f"{label}.json").read_bytes() == (
            tmp_path / "beside" / f"{label}.json"
        ).read_bytes()

"""`balancesim check`, `describe` and `list checks` on statements of the tests' own."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from click.testing import CliRunner, Result

from balancesim.checks import Statement, registry
from balancesim.cli import main
from balancesim.plugins import load_group
from tests.checks.statements import BAD, CONTROL, GOOD, PASSING_CONTROL, UNMET, UNSURE, stated


def install(monkeypatch: pytest.MonkeyPatch, *statements: Statement) -> None:
    known: Mapping[str, Statement] = MappingProxyType({s.label: s for s in statements})
    monkeypatch.setattr(registry, "load_group", {registry.GROUP: known}.__getitem__)
    monkeypatch.setattr("balancesim.plugins.names", {registry.GROUP: sorted(known)}.__getitem__)


def check(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments, "--out", str(folder), "--jobs", "1"])


def test_all_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, stated("Q10", GOOD, CONTROL), stated("Q2", GOOD, UNSURE, UNMET, CONTROL))
    done = check(tmp_path)
    assert done.exit_code == 0, done.output
    assert "2 of 2 statements pass" in done.stdout
    assert (
        "Q2 inconclusive: elsewhere: error is 0.9 [0.8, 1.1], allowed at most 1; more would be known by more"
        in (done.stdout)
    )
    assert "Q2 hypothesis not met (no density): beyond" in done.stdout
    assert done.stdout.index("Statement Q2") < done.stdout.index("Statement Q10"), "numbers in their order"
    assert "Statement Q2: inconclusive" in done.stderr
    written = json.loads((tmp_path / "checks.json").read_text())
    assert written["passed"] is True
    assert written["statements"][0]["cases"][0]["margin"] == 0.5


@pytest.mark.parametrize(
    ("cases", "message"),
    [
        ((BAD, CONTROL), "Q1 fails: there: error is 2, allowed at most 1"),
        ((GOOD, PASSING_CONTROL), "Q1 negative control does not fail (sign flipped): here: error is 0.1"),
        ((GOOD,), "Q1 has no negative control"),
    ],
    ids=["fails", "control passes", "no control"],
)
def test_what_fails_exits_with_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cases: tuple, message: str
) -> None:
    install(monkeypatch, stated("Q1", *cases))
    done = check(tmp_path)
    assert done.exit_code == 1
    assert message in done.stdout


def test_json_is_one_document(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, stated("Q1", GOOD, CONTROL))
    done = check(tmp_path, "--json", "--quiet", "--deep")
    assert json.loads(done.stdout) == json.loads((tmp_path / "checks.json").read_text())
    assert json.loads(done.stdout)["depth"] == "deep"
    assert done.stderr == ""


def test_labels_families_and_unknown_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(
        monkeypatch, stated("Q1", GOOD, CONTROL), stated("Q2", GOOD, CONTROL), stated("R1", GOOD, CONTROL)
    )
    assert "2 of 2 statements" in check(tmp_path, "q").stdout
    assert "1 of 1 statements" in check(tmp_path, "r1").stdout
    wrong = check(tmp_path, "Q3")
    assert wrong.exit_code == 2
    assert "unknown statement 'Q3'; did you mean 'Q" in wrong.stderr


def test_an_interrupt_names_the_command_that_continues(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    install(monkeypatch, stated("Q1", GOOD, CONTROL), stated("Q2", GOOD, CONTROL, act=interrupt))
    done = check(tmp_path, "Q")
    assert done.exit_code == 130
    assert f"continue with:\n  balancesim check Q --jobs 1 --out {tmp_path}" in done.stderr
    assert (tmp_path / "Q1.json").is_file()


def test_what_is_registered_must_be_a_statement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "load_group", {registry.GROUP: {"Q1": stated("Q2", GOOD)}}.__getitem__)
    done = check(tmp_path)
    assert done.exit_code == 2
    assert "'Q1' in balancesim.checks must be a Statement of that label" in done.stderr


def test_describe_says_what_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, stated("Q1", GOOD, CONTROL))
    done = CliRunner().invoke(main, ["describe", "q1"])
    assert done.exit_code == 0, done.output
    assert "Q1 (statement, ours): Statement Q1" in done.stdout
    assert "- Scores have a density." in done.stdout
    assert "balancesim check Q1" in done.stdout


def test_every_installed_statement_is_listed() -> None:
    done = CliRunner().invoke(main, ["list", "checks", "--json"])
    assert done.exit_code == 0
    assert set(json.loads(done.stdout)["checks"]) == set(load_group("balancesim.checks"))

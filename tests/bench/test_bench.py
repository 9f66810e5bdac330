"""The benchmark command: what it reports. No test asserts a time."""

import json
import time

import pytest
from click.testing import CliRunner

from balancesim.bench import __main__ as command
from balancesim.bench.timing import Goal, Row, compare, interleaved


def test_rounds_alternate_after_untimed_calls() -> None:
    calls: list[str] = []

    def ours() -> None:
        calls.append("ours")
        time.sleep(0.02)

    def peer() -> None:
        calls.append("peer")
        time.sleep(0.02)

    mine, theirs = interleaved(ours, peer, 3)
    assert calls == ["ours"] * 2 + ["peer"] * 2 + ["ours", "peer"] * 3
    assert len(mine) == len(theirs) == 3
    assert min(*mine, *theirs) >= 0.02


def test_short_calls_are_timed_together() -> None:
    calls: list[int] = []
    interleaved(lambda: calls.append(0), lambda: time.sleep(0.01), 2)
    assert len(calls) > 10


def test_ratio_is_the_median_over_rounds() -> None:
    row = compare(
        "area", "case", ([1.0, 2.0, 4.0], [8.0, 18.0, 20.0]), "ms", "peer", Goal(8.0, is_least=True)
    )
    assert (row.ours, row.peer, row.ratio) == (2.0, 18.0, 8.0)
    assert row.met
    assert not compare("area", "case", ([1.0], [7.9]), "ms", "peer", Goal(8.0, is_least=True)).met


def test_limit_on_our_share() -> None:
    goal = Goal(1.1, is_least=False)
    assert compare("area", "case", ([11.0], [10.0]), "MiB", "peer", goal).met
    row = compare("area", "case", ([12.0], [10.0]), "MiB", "peer", goal)
    assert row.ratio == pytest.approx(1.2)
    assert not row.met


def test_command_prints_a_table_or_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def area(rounds: int) -> list[Row]:
        asked.append(rounds)
        return [compare("routing", "8x8", ([1.0], [16.0]), "ms", "numpy", Goal(8.0, is_least=True))]

    monkeypatch.setattr(command, "AREAS", {"routing": area})
    table = CliRunner().invoke(command.main, ["routing"])
    document = CliRunner().invoke(command.main, ["routing", "--rounds", "2", "--json"])
    assert table.exit_code == document.exit_code == 0
    last = table.stdout.splitlines()[-1].split()
    assert last == [
        "routing",
        "8x8",
        "1",
        "16",
        "ms",
        "numpy",
        "16",
        "peer",
        "/",
        "ours",
        "at",
        "least",
        "8",
        "reached",
    ]
    assert json.loads(document.stdout)[0]["ratio"] == 16.0
    assert asked == [21, 2]


def test_unknown_area_is_named() -> None:
    result = CliRunner().invoke(command.main, ["speed"])
    assert result.exit_code == 2
    assert "routing" in result.stderr


def test_startup_runs_the_command() -> None:
    (row,) = command.AREAS["startup"](1)
    assert row.case == "balancesim --help"
    assert row.ratio > 0.0

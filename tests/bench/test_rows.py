"""Ratios, goals and how they are shown."""

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from balancesim.bench.figure import draw
from balancesim.bench.report import document, table
from balancesim.bench.rows import Goal, Ratio, Row, at_least, at_most, compared, measured, missing
from balancesim.bench.timing import Pair, Sample, estimate, plain_pairs

WITH_BUILD = [
    Pair(Sample(2.0, 0.0, 1.5), Sample(99.0, 10.0, 40.0)),
    Pair(Sample(4.0, 0.0, 1.0), Sample(99.0, 20.0, 60.0)),
]


def rows() -> list[Row]:
    return [
        compared("exact", "8x8 K=1", "flow", WITH_BUILD, at_least(20.0)),
        missing("exact", "8x8 K=1", "other", at_least(5.0), "not installed: pip install other"),
        compared("exact", "ties", "normal scores", plain_pairs([3.0], [2.0]), at_most(1.2)),
        measured("exact", "64x8 K=1", [Sample(1e-3, 0.0, 5e-4)], note="relative gap 0"),
        Row("exact", "gap", "", Goal(Ratio.OURS, 1e-12), estimate([math.inf])),
        compared("memory", "8x8", "OR-tools", plain_pairs([1.0], [4.0]), at_most(0.25), unit="MiB"),
    ]


def printed(shown: list[Row]) -> str:
    lines = io.StringIO()
    Console(file=lines, width=200).print(table(shown))
    return lines.getvalue()


def test_a_ratio_is_the_median_over_rounds() -> None:
    row = compared("area", "case", "peer", plain_pairs([1.0, 2.0, 4.0], [8.0, 18.0, 20.0]), at_least(8.0))
    assert row.ours is not None
    assert row.peer is not None
    assert row.ratio is not None
    assert (row.ours.median, row.peer.median, row.ratio.median) == (2.0, 18.0, 8.0)
    assert (row.ratio.low, row.ratio.high) == (5.0, 9.0)
    assert row.met
    assert row.verdict == "reached"
    assert not compared("area", "case", "peer", plain_pairs([1.0], [7.9]), at_least(8.0)).met


def test_limit_on_our_share() -> None:
    assert compared("area", "case", "peer", plain_pairs([11.0], [10.0]), at_most(1.1)).met
    row = compared("area", "case", "peer", plain_pairs([12.0], [10.0]), at_most(1.1))
    assert row.ratio is not None
    assert row.ratio.median == pytest.approx(1.2)
    assert row.verdict == "missed"


def test_the_ratio_takes_our_whole_call_and_the_peers_solve_alone() -> None:
    row = rows()[0]
    assert row.ratio is not None
    assert row.ratio_with_build is not None
    assert row.ours_solve is not None
    assert row.ratio.median == (40.0 / 2.0 + 60.0 / 4.0) / 2
    assert row.ratio_with_build.median == (50.0 / 2.0 + 80.0 / 4.0) / 2
    assert row.ours_solve.median == 1.25
    assert not row.met


def test_a_peer_without_set_up_has_one_ratio() -> None:
    row = rows()[2]
    assert row.peer_build is None
    assert row.ratio_with_build is None
    assert row.ours_solve is None


def test_without_a_goal_nothing_is_met_or_missed() -> None:
    row = compared("area", "case", "peer", plain_pairs([1.0], [2.0]), at_least(None))
    assert row.met is None
    assert row.verdict == ""


def test_the_table_says_what_is_reached_missed_and_missing() -> None:
    text = printed(rows())
    lines = text.splitlines()
    assert "17.5 [15, 20]" in text
    assert "peer / ours at least 20" in text
    assert "not installed: pip install other" in text
    assert "ours / peer at most 0.25  reached" in text
    assert "1 ms" in text
    assert "500 us" in text
    assert "4 MiB" in text
    assert "inf" in text
    assert lines[-1] == "goals: 1 reached, 3 missed, 1 not measured"


def test_the_document_is_strict_json_and_names_the_machine_but_no_host() -> None:
    found = document(rows(), rounds=2)
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["goals"] == {"reached": 1, "missed": 3, "not_measured": 1}
    assert again["machine"]["cores"] >= 1
    assert set(again["machine"]) == {"system", "architecture", "processor", "cores", "memory_gib"}
    assert {"python", "numpy", "ortools", "POT"} <= set(again["versions"])
    first, absent, _, single, gap, memory = again["rows"]
    assert (first["ratio"]["median"], first["ratio"]["rounds"], first["ratio_is"]) == (17.5, 2, "peer / ours")
    assert (first["goal"], first["met"]) == (20.0, False)
    assert (first["peer"]["median"], first["peer_build"]["median"]) == (50.0, 15.0)
    assert (absent["ratio"], absent["met"]) == (None, None)
    assert single["ours"]["median"] == 1e-3
    assert gap["ours"]["median"] is None
    assert memory["unit"] == "MiB"


@pytest.mark.parametrize("name", ["ratios.svg", "ratios.png", "ratios.pdf"])
def test_the_figure_is_written(tmp_path: Path, name: str) -> None:
    draw(rows(), tmp_path / name)
    first = (tmp_path / name).read_bytes()
    assert len(first) > 1000
    draw(rows(), tmp_path / name)
    assert (tmp_path / name).read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_figure_of_nothing_to_compare(tmp_path: Path) -> None:
    draw(rows()[3:5], tmp_path / "ratios.svg")
    assert (tmp_path / "ratios.svg").exists()

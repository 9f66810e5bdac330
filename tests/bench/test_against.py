"""A run against an earlier one: only ratios count, and only where their intervals part."""

import json
from pathlib import Path

import pytest

from balancesim.bench.against import changes, read_ratios
from balancesim.bench.report import document
from balancesim.bench.rows import Row, at_least, at_most, compared
from balancesim.bench.timing import plain_pairs
from balancesim.errors import ConfigurationError


def row(ours: float, *, faster: bool = True, case: str = "here") -> Row:
    times = [ours * (1.0 + 0.01 * i) for i in range(7)]
    return compared(
        "area", case, "peer", plain_pairs(times, [1.0] * 7), (at_least if faster else at_most)(1.0)
    )


def stored(folder: Path, *rows: Row) -> Path:
    file = folder / "run.json"
    file.write_text(json.dumps(document(rows, rounds=7)))
    return file


@pytest.mark.parametrize(
    ("now", "faster", "verdict", "factor"),
    [
        (0.5, True, "better", 2.0),
        (2.0, True, "worse", 0.5),
        (1.01, True, "same", 1 / 1.01),
        (0.5, False, "better", 2.0),
        (2.0, False, "worse", 0.5),
    ],
)
def test_what_became_of_a_ratio(
    tmp_path: Path, now: float, faster: bool, verdict: str, factor: float
) -> None:
    before = read_ratios(stored(tmp_path, row(1.0, faster=faster)))
    change, new = changes([row(now, faster=faster), row(now, case="elsewhere")], before)
    assert new is None
    assert change is not None
    assert change.verdict == verdict
    assert change.factor == pytest.approx(factor)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_ratios(tmp_path / "none.json")
    (tmp_path / "other.json").write_text('{"rows": 3}')
    with pytest.raises(ConfigurationError, match="must be what `balancesim bench --json` printed"):
        read_ratios(tmp_path / "other.json")

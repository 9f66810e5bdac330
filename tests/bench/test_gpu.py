"""The area of the card: what it says without one, and its floor."""

import sys

import pytest

from balancesim.bench.gpu import arithmetic_floor, gpu
from balancesim.bench.instances import Shape
from balancesim.bench.timing import Plan


def test_without_a_card_one_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    (row,) = gpu(Plan(1))
    assert row.met is None
    assert "pip install 'balancesim[cuda12]'" in row.note


def test_the_floor_is_the_busier_pipe() -> None:
    one = Shape(1, 1, 8)
    # One rule: 59 + 10.75 operations at 128 a cycle; sixteen: 15 + 16 * 9.75 at 64.
    assert arithmetic_floor(one, 1, 1, 1.0) == pytest.approx(69.75 / 128)
    assert arithmetic_floor(one, 16, 1, 1.0) == pytest.approx(171.0 / 64)
    assert arithmetic_floor(Shape(1000, 64, 8), 16, 132, 2e9) == pytest.approx(
        64_000 * 171.0 / 64 / 132 / 2e9
    )

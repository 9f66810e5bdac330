"""Cases: where an interval lies decides, and nothing else."""

import math

import pytest

from balancesim.checks import Verdict, at_least, at_most, between
from balancesim.errors import InputError


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.2, 0.8, Verdict.HOLDS),
        (0.0, 1.0, Verdict.HOLDS),
        (1.1, 1.2, Verdict.FAILS),
        (-0.2, -0.1, Verdict.FAILS),
        (0.9, 1.1, Verdict.INCONCLUSIVE),
        (-0.1, 1.1, Verdict.INCONCLUSIVE),
    ],
)
def test_verdict_of_an_interval(low: float, high: float, verdict: Verdict) -> None:
    middle = (low + high) / 2
    assert between("one", "share", middle, 0.0, 1.0, low=low, high=high).verdict is verdict


def test_a_number_alone_is_decided() -> None:
    assert at_most("one", "error", 1.0, 1.0).verdict is Verdict.HOLDS
    assert at_most("one", "error", math.nextafter(1.0, 2.0), 1.0).verdict is Verdict.FAILS
    assert at_least("one", "gain", 1.0, 2.0).verdict is Verdict.FAILS


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_does_not_hold(value: float) -> None:
    assert at_most("one", "error", value, 1.0).verdict is Verdict.FAILS


def test_a_control_must_fail_by_a_number() -> None:
    assert at_most("one", "error", math.inf, 1.0, control="sign flipped").verdict is Verdict.FAILS
    assert at_most("one", "error", math.nan, 1.0, control="sign flipped").verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(("low", "high"), [(math.nan, 5.0), (5.0, math.nan)])
def test_an_interval_that_is_no_interval(low: float, high: float) -> None:
    assert at_most("one", "error", 5.0, 9.0, low=low, high=high).verdict is Verdict.FAILS
    control = at_most("one", "error", 5.0, 1.0, low=low, high=high, control="sign flipped")
    assert control.verdict is Verdict.INCONCLUSIVE


def test_an_unmet_hypothesis_is_no_failure() -> None:
    assert at_most("one", "error", 5.0, 1.0, unmet="iterates leave the set").verdict is Verdict.UNMET


def test_margin_is_relative_to_the_nearest_end() -> None:
    assert at_most("one", "ratio", 0.75, 1.0).margin == 0.25
    assert at_least("one", "ratio", 3.0, 2.0).margin == 0.5
    assert between("one", "ratio", 1.9, 1.0, 2.0).margin == pytest.approx(0.05)
    assert at_most("one", "violations", 0.0, 0.0).margin == 0.0
    assert at_most("one", "ratio", 0.5, 1.0, low=0.3, high=0.9).margin == pytest.approx(0.1)


def test_ends_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(InputError, match="`least` must not exceed `most`"):
        between("one", "ratio", 0.0, 2.0, 1.0)
    with pytest.raises(InputError, match="`low` must not exceed `high`"):
        between("one", "ratio", 0.0, 0.0, 1.0, low=2.0, high=1.0)

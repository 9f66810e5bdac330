"""S4 to S8: what the checks measure with, and the checks themselves at default depth."""

import numpy as np
import pytest

from balancesim import sources
from balancesim.balancers import AlfLB
from balancesim.checks import Depth, Verdict
from balancesim.report import style
from paper_checks.primal_dual import growth, regret, threshold
from paper_checks.primal_dual.curves import (
    Curves,
    Interval,
    mean_interval,
    over_seeds,
    ratio_case,
    regret_curves,
    slopes,
)

HEAVY = [regret.bound, growth.telling_growth, growth.sharp_constant, threshold.threshold]


def test_slopes_of_exact_logarithms():
    steps = np.array([1, 3, 10, 40, 100])
    curves = Curves(steps, np.array([0.5 + 2.0 * np.log(steps), 1.0 - np.log(steps)]))
    np.testing.assert_allclose(slopes(curves, 3), [2.0, -1.0])
    bent = Curves(steps, np.where(steps < 10, 9.0, np.log(steps))[None])
    np.testing.assert_allclose(slopes(bent, 10), [1.0])
    np.testing.assert_allclose(slopes(bent, 1, 3), [0.0], atol=1e-12)


def test_mean_interval():
    found = mean_interval([1.0, 2.0, 3.0])
    # Student's t with two degrees: 4.3027, standard error 1/sqrt(3).
    assert found.value == 2.0
    assert found.high - 2.0 == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert found.low + found.high == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        (Interval(2.0, 1.92, 2.08), Verdict.HOLDS),
        (Interval(2.0, 1.8, 2.2), Verdict.INCONCLUSIVE),
        (Interval(3.0, 2.9, 3.1), Verdict.FAILS),
    ],
)
def test_ratio_case(interval, verdict):
    assert ratio_case("", "", interval, 2.0, within=0.05).verdict is verdict


def test_curves_are_those_of_each_seed():
    source = sources.Uniform(n_experts=4)
    rules = [AlfLB(step_size=0.5), AlfLB(step_size=1.0)]
    many = regret_curves(rules, source, k=1, n_tokens=4, horizon=20, seeds=[3, 5, 9])
    one = regret_curves(rules[1:], source, k=1, n_tokens=4, horizon=20, seeds=[5])
    np.testing.assert_array_equal(many[1].regret[1], one[0].regret[0])
    assert many[0].regret.shape == (3, many[0].steps.size)
    assert over_seeds(lambda seed: seed + 1, [2, 1]) == [3, 2]


def test_a_projection_that_does_nothing_fails(monkeypatch):
    instance = regret._Instance(sources.Uniform(n_experts=10), 3, 0.1, horizon=50)
    monkeypatch.setattr(regret, "_measured_form", lambda _: ([], {}))
    monkeypatch.setattr(regret, "_instances", lambda _: [instance])
    monkeypatch.setattr(regret, "_FAMILIES", ())
    assert regret.bound.run(Depth.DEFAULT).verdict is Verdict.HOLDS
    monkeypatch.setattr(regret, "AlfLB", lambda **options: AlfLB(**{**options, "radius": None}))
    assert regret.bound.run(Depth.DEFAULT).verdict is Verdict.FAILS


def test_safe_differences():
    found = regret.safe_differences.run(Depth.DEFAULT)
    assert found.verdict is Verdict.HOLDS
    assert found.controls_fail
    with style.settings():
        assert regret.safe_differences.figure(found).axes


@pytest.mark.deep
@pytest.mark.parametrize("check", HEAVY, ids=lambda check: check.label)
def test_check(check):
    found = check.run(Depth.DEFAULT)
    assert found.verdict is Verdict.HOLDS
    assert found.controls_fail
    with style.settings():
        assert check.figure(found).axes

"""D1's identity and D2's bound against exact arithmetic, and on scores that a plain sum cannot take."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given

import balancesim as bs
from balancesim import sources
from balancesim.errors import InputError
from balancesim.theory import step_change
from tests import naive
from tests.strategies import Step, steps


def exact(step: Step) -> Fraction:
    return naive.dual(step.scores, step.new_bias, step.k) - naive.dual(step.scores, step.bias, step.k)


def close(found: float, expected: Fraction, size: float) -> bool:
    """Sums are exact, L delta is rounded a few times."""
    return abs(Fraction(found) - expected) <= Fraction(4 * np.finfo(float).eps) * Fraction(size)


@pytest.mark.properties
@given(step=steps())
def test_identity(step):
    scores, bias, new_bias, k, unit = step
    found = step_change(scores, bias, new_bias, k=k)
    delta = new_bias - bias
    size = 1.0 + found.loads.sum() * np.abs(delta).max()
    assert close(found.change, exact(step), size)
    assert (found.benefits >= 0.0).all()
    assert close(found.benefits.sum() - found.descent, exact(step), size)
    assert found.error <= 1e-14 * size
    load = len(scores) * k / bias.size
    if unit is not None:
        assert found.descent == pytest.approx(unit * ((found.loads - load) ** 2).sum(), abs=1e-14 * size)
    assert (found.loads == bs.route(scores, bias, k=k).loads).all()
    assert (found.new_loads == bs.route(scores, new_bias, k=k).loads).all()


@pytest.mark.properties
@given(step=steps())
def test_no_overshoot(step):
    scores, bias, new_bias, k, unit = step
    found = step_change(scores, bias, new_bias, k=k)
    load = Fraction(len(scores) * k, bias.size)
    old, new = ([Fraction(int(a)) - load for a in loads] for loads in (found.loads, found.new_loads))
    ceiling = sum(Fraction(d) * x for d, x in zip(new_bias - bias, new, strict=True))
    assert exact(step) <= ceiling
    assert close(found.ceiling, ceiling, 1.0 + found.loads.sum() * np.abs(new_bias - bias).max())
    if unit is not None and sum(a * b for a, b in zip(old, new, strict=True)) >= 0:
        assert exact(step) <= 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_heavy_tails(dtype, k):
    """Pareto scores of index 0.1 reach 1e30 and more: their sums have no digit left for a step of 1e-3."""
    source = sources.Pareto(n_experts=8, tail_index=0.1, seed=3)
    scores = np.minimum(source.batch(0, 300).astype(np.float64), 1e30).astype(dtype)
    bias = np.zeros(8)
    for _ in range(5):
        loads = bs.route(scores, bias, k=k).loads
        new_bias = bias + 1e-3 * (300 * k / 8 - loads)
        found = step_change(scores, bias, new_bias, k=k)
        step = Step(scores.astype(np.float64), bias, new_bias, k, None)
        assert found.change == pytest.approx(float(exact(step)), rel=1e-12)
        assert found.error <= 1e-13
        bias = new_bias
    plain = bs.dual_value(scores.astype(np.float64), new_bias, k=k)
    assert np.spacing(plain) > 1e9


def test_masked_experts_take_no_part():
    scores = np.array([[1.0, 0.5, -np.inf], [0.0, 0.25, -np.inf], [0.0, 1.0, 2.0]])
    found = step_change(scores, np.zeros(3), [-1.0, 0.0, 5.0], k=1)
    assert found.new_loads.tolist() == [0, 2, 1]
    assert found.change == (0.5 + 0.25 + 7.0) - (1.0 + 0.25 + 2.0) - 4.0


def test_no_step():
    found = step_change(np.eye(3), np.zeros(3), np.zeros(3), k=1)
    assert (found.change, found.error, found.descent, found.ceiling) == (0.0, 0.0, 0.0, 0.0)


def test_bad_input():
    with pytest.raises(InputError, match=r"`new_bias` must have one entry per expert"):
        step_change(np.eye(3), np.zeros(3), np.zeros(2), k=1)
    with pytest.raises(InputError, match=r"`scores` must be finite, or minus infinity"):
        step_change(np.full((2, 3), np.nan), np.zeros(3), np.zeros(3), k=1)

"""D3's t* against exact arithmetic on both sides, and its three special values."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import balancesim as bs
from balancesim.errors import InputError
from balancesim.theory import max_monotone_step, step_change
from tests import naive
from tests.strategies import steps

# A few roundings of t*, each half a unit in the last place.
ROUNDING = Fraction(1, 10**14)


def along(step, t):
    """D(p + t delta) - D(p), exactly."""
    delta = [Fraction(d) for d in step.new_bias - step.bias]
    moved = [Fraction(b) + t * d for b, d in zip(step.bias, delta, strict=True)]
    return naive.dual(step.scores, moved, step.k) - naive.dual(step.scores, step.bias, step.k)


@pytest.mark.properties
@given(step=steps(max_tokens=8, max_experts=5, ties=False))
def test_equals_exact_arithmetic(step):
    delta = step.new_bias - step.bias
    assume(np.ptp(delta) > 0.0)
    found = max_monotone_step(step.scores, step.bias, delta, k=step.k)
    end = naive.line_end(step.scores, step.bias, delta, step.k)
    assert abs(Fraction(found) - end) <= ROUNDING * end


@pytest.mark.properties
@given(step=steps(ties=False), part=st.sampled_from([0.001, 0.25, 0.5, 0.99, 1.0]))
def test_monotone_up_to_the_end_and_no_further(step, part):
    delta = step.new_bias - step.bias
    assume(np.ptp(delta) > 0.0)
    end = Fraction(max_monotone_step(step.scores, step.bias, delta, k=step.k))
    assert along(step, Fraction(part) * end * (1 - ROUNDING)) <= 0
    assert along(step, end * (1 + ROUNDING) / Fraction(part) + (end == 0)) > 0
    if step.unit is not None:
        assert end > 0


@pytest.mark.properties
@given(step=steps(ties=True))
def test_ties_give_zero_and_constants_infinity(step):
    scores, bias, new_bias, k, _ = step
    found = max_monotone_step(scores, bias, new_bias - bias, k=k)
    biased = np.sort(scores + bias, axis=1)[:, ::-1]
    if np.ptp(new_bias - bias) == 0.0:
        assert found == math.inf
    elif (biased[:, k - 1] == biased[:, k]).any():
        assert found == 0.0
    assert max_monotone_step(scores, bias, np.full(bias.size, 0.25), k=k) == math.inf


def test_a_tie_may_still_fall():
    """Three tokens, one tied: 0 is the safe answer, though the dual is lower up to t = 2/3."""
    scores, direction = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), [-1.0, 1.0]
    assert max_monotone_step(scores, [0.0, 0.0], direction, k=1) == 0.0
    assert step_change(scores, [0.0, 0.0], [-0.5, 0.5], k=1).change < 0.0
    assert naive.line_end(scores, [0.0, 0.0], direction, 1) == Fraction(2, 3)


def test_a_tie_may_rise_at_once():
    scores = np.zeros((2, 2))
    assert (bs.route(scores, k=1).loads == [2, 0]).all()
    assert max_monotone_step(scores, [0.0, 0.0], [-1.0, 1.0], k=1) == 0.0
    assert step_change(scores, [0.0, 0.0], [-0.01, 0.01], k=1).change > 0.0


def test_a_direction_that_is_no_step_may_rise_at_once():
    """h'(0+) < 0 needs delta_k = eps_k (L - A_k), as a momentum's step need not be."""
    scores = np.array([[1.0, 0.0], [2.0, 0.0]])
    assert max_monotone_step(scores, [0.0, 0.0], [1.0, -1.0], k=1) == 0.0
    assert max_monotone_step(scores, [0.0, 0.0], [-1.0, 1.0], k=1) > 0.0


def test_flat_at_the_start():
    """Balanced loads: D neither rises nor falls until the first token switches."""
    scores = np.array([[1.0, 0.0], [0.0, 2.0]])
    assert max_monotone_step(scores, [0.0, 0.0], [-1.0, 1.0], k=1) == 0.5
    assert max_monotone_step(scores, [0.0, 0.0], [1.0, -1.0], k=1) == 1.0


def test_masks_may_leave_the_dual_falling_for_ever():
    scores = np.array([[0.0, -np.inf, -np.inf], [0.0, -1.0, -np.inf]])
    assert max_monotone_step(scores, np.zeros(3), [-1.0, 0.0, 1.0], k=1) == math.inf
    assert max_monotone_step(scores, np.zeros(3), [-1.0, 2.0, -1.0], k=1) < math.inf


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_any_scale(size):
    """Doubling starts from the batch's own scale; t* is a multiple of the direction."""
    rng = np.random.default_rng(5)
    scores, direction = rng.normal(size=(60, 7)), rng.normal(size=7)
    direction *= -np.sign(direction @ (bs.route(scores, k=2).loads - 60 * 2 / 7))
    plain = max_monotone_step(scores, np.zeros(7), direction, k=2)
    assert max_monotone_step(size * scores, np.zeros(7), direction, k=2) == pytest.approx(size * plain)
    assert max_monotone_step(scores, np.zeros(7), size * direction, k=2) == pytest.approx(plain / size)


FAR = {
    "heavy tails": lambda rng, shape: np.minimum(rng.pareto(0.1, size=shape), 1e60),
    "one scale of many": lambda rng, shape: rng.normal(size=shape) * 10.0 ** rng.integers(-150, 150),
    "float32": lambda rng, shape: rng.random(shape).astype(np.float32),
    "close together, far from 0": lambda rng, shape: 1e9 + 1e-6 * rng.normal(size=shape),
}


@pytest.mark.parametrize("kind", FAR)
def test_scores_and_prices_of_other_scales(kind):
    """A first t far past t* must not cost t* its digits: Newton's step is a quotient of sums of leads."""
    rng = np.random.default_rng(10)
    n_tried = 0
    while n_tried < 150:
        n_experts = int(rng.integers(2, 6))
        k = int(rng.integers(1, n_experts))
        scores = FAR[kind](rng, (int(rng.integers(1, 8)), n_experts))
        size = 10.0 ** rng.integers(-3, 3) if kind != "one scale of many" else np.abs(scores).max()
        bias, direction = size * rng.normal(size=n_experts), rng.normal(size=n_experts)
        split = step_change(scores, bias, bias + size * direction, k=k)
        direction *= np.sign(split.descent)
        exact = [
            sorted((Fraction(float(x)) + Fraction(b) for x, b in zip(row, bias, strict=True)))
            for row in scores
        ]
        if split.descent != 0.0 and all(row[-k] != row[-k - 1] for row in exact):
            n_tried += 1
            end = naive.line_end(scores.astype(np.float64), bias, direction, k)
            found = Fraction(max_monotone_step(scores, bias, direction, k=k))
            assert abs(found - end) <= ROUNDING * end


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_sides_on_heavy_tails(dtype):
    rng = np.random.default_rng(6)
    for k in (1, 4, 7):
        scores = np.minimum(rng.pareto(0.2, size=(200, 8)), 1e30).astype(dtype)
        bias = rng.normal(size=8)
        direction = 200 * k / 8 - bs.theory.step_change(scores, bias, bias, k=k).loads
        end = max_monotone_step(scores, bias, direction, k=k)
        sides = [
            step_change(scores, bias, bias + t * end * direction, k=k).change for t in (1 - 1e-9, 1 + 1e-9)
        ]
        assert sides[0] < 0.0 < sides[1]


def test_bad_input():
    with pytest.raises(InputError, match=r"`direction` must have one entry per expert"):
        max_monotone_step(np.eye(3), np.zeros(3), [1.0], k=1)
    with pytest.raises(InputError, match=r"`direction` must be finite"):
        max_monotone_step(np.eye(3), np.zeros(3), [1.0, np.nan, 0.0], k=1)

"""The sensitivity interval: inside it a price stays optimal, beyond it the dual value rises."""

import numpy as np
import pytest
from hypothesis import given

import balancesim as bs
from tests.exact.instances import GAP, METHODS
from tests.strategies import assignments

BEYOND = 1.0
FAR = 100.0


def dual_at(instance, bias):
    capacity = "integral" if instance.capacity is None else instance.capacity
    return bs.dual_value(instance.scores, bias, k=instance.k, capacity=capacity)


@pytest.mark.parametrize("method", METHODS)
@given(instance=assignments(masks=True))
def test_one_price_moves(method, instance):
    """Beyond, at least one token or load is wrong: the dual value rises with a slope of at least 1."""
    solution = bs.solve(instance.scores, k=instance.k, capacity=instance.capacity, method=method)
    tolerance = GAP[method] * max(1.0, abs(solution.value))
    assert (solution.interval[:, 0] <= solution.bias).all()
    assert (solution.bias <= solution.interval[:, 1]).all()
    for expert, limits in enumerate(solution.interval):
        for limit, sign in zip(limits, (-1.0, 1.0), strict=True):
            inside = limit if np.isfinite(limit) else solution.bias[expert] + sign * FAR
            for part in (0.5, 1.0):
                bias = solution.bias.copy()
                bias[expert] += part * (inside - bias[expert])
                # Rounding of the price itself, times the tokens that pay it.
                assert dual_at(instance, bias) - solution.value <= tolerance + 1e-12 * FAR
            if np.isfinite(limit):
                bias[expert] = limit + sign * BEYOND
                assert dual_at(instance, bias) - solution.value >= BEYOND - tolerance - 1e-12 * FAR


def test_an_example_by_hand():
    """One token each: expert 0 is taken by the token that loses 1 by leaving it."""
    scores = np.array([[3.0, 0.0], [2.0, 0.0]])
    solution = bs.solve(scores, k=1, method="highs")
    assert solution.experts.tolist() == [[0], [1]]
    np.testing.assert_allclose(solution.interval[0] - solution.bias[1], [-3.0, -2.0], atol=1e-12)
    np.testing.assert_allclose(solution.interval[1] - solution.bias[0], [2.0, 3.0], atol=1e-12)

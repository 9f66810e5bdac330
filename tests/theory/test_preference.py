"""D4: no pair goes against the price in exact arithmetic, and rounding explains those that do else."""

import numpy as np
import pytest
from hypothesis import given

from balancesim import GroupLimit, route
from balancesim.theory import preference
from tests import naive
from tests.strategies import steps


@pytest.mark.properties
@given(step=steps(max_tokens=20, max_experts=10))
def test_every_pair_follows_the_price(step):
    scores, bias, new_bias, k, unit = step
    found = preference(scores, bias, new_bias, k=k)
    assert found.token.size == found.leaving.size == found.entering.size == found.gap.size == 0
    old, new = naive.choose(scores, bias, k), naive.choose(scores, new_bias, k)
    loads = naive.loads_of(old, bias.size)
    n_switches = 0
    for before, after in zip(old, new, strict=True):
        for left in set(before) - set(after):
            for entered in set(after) - set(before):
                n_switches += 1
                assert new_bias[entered] - bias[entered] > new_bias[left] - bias[left]
                assert unit is None or loads[entered] < loads[left]
    assert found.n_switches == n_switches


def test_one_tie_order_is_needed():
    """Ties to the lower index at p and to the higher at p+: a token moves though no price did."""
    scores, bias = np.zeros((1, 3)), np.zeros(3)
    lower = naive.choose(scores, bias, 1)[0][0]
    higher = 2 - naive.choose(scores[:, ::-1], bias, 1)[0][0]
    assert (lower, higher) == (0, 2)


def test_a_limit_on_groups_breaks_the_rule():
    """The choice must be the K best of all: a group rises with one expert, and another of it enters."""
    scores, groups = np.array([[5.0, 0.0, 4.0, 2.0]]), GroupLimit(2, 1)
    new_bias = np.array([0.0, 2.0, 0.0, 0.0])
    first, second = (
        route(scores, bias, k=1, groups=groups, experts=True).experts for bias in (np.zeros(4), new_bias)
    )
    assert (first[0, 0], second[0, 0]) == (2, 0)
    assert new_bias[0] == new_bias[2] == 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_explains_exceptions(dtype):
    """Steps too small for the prices' last place: pairs go against the price, by a gap of at most 2 ulp."""
    rng = np.random.default_rng(8)
    n_exceptions, widest = 0, 0.0
    for size in (1.0, 30.0, 1e4):
        unit = float(np.spacing(dtype(size)))
        scores = (size / 8 * rng.integers(0, 8, size=(2000, 6))).astype(dtype)
        bias = 0.3 * size + unit * rng.normal(size=6)
        for _ in range(20):
            new_bias = bias + unit * rng.normal(size=6)
            found = preference(scores, bias, new_bias, k=2)
            n_exceptions += found.token.size
            widest = max(widest, found.gap.max(initial=0.0))
            bias = new_bias
    assert n_exceptions > 0
    assert widest <= 2.0


def test_exceptions_are_named():
    """Float32: the price moves 0 up by less than half a unit of the sum and nothing follows; 1 enters."""
    scores = np.array([[1.0, 1.0]], np.float32)
    unit = float(np.spacing(np.float32(1.0)))
    found = preference(scores, [0.0, -0.2 * unit], [0.0, 0.6 * unit], k=1)
    assert (found.n_switches, found.token.size) == (1, 0)
    found = preference(scores, [0.4 * unit, 0.6 * unit], [0.95 * unit, 0.9 * unit], k=1)
    assert found.n_switches == 1

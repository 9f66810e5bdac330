"""The sampling floor of MaxVio against enumeration and an independent simulation."""

import itertools
import math

import numpy as np
import pytest

from balancesim.errors import InputError
from balancesim.theory import max_violation_floor, sampling


def enumerated(n_tokens, n_experts, k):
    subsets = np.array(
        [np.isin(np.arange(n_experts), chosen) for chosen in itertools.combinations(range(n_experts), k)]
    )
    total = [sum(rows).max() for rows in itertools.product(subsets.astype(int), repeat=n_tokens)]
    return np.mean(total) * n_experts / (n_tokens * k) - 1


@pytest.mark.parametrize(
    ("n_tokens", "n_experts", "k"), [(1, 5, 2), (2, 4, 1), (3, 4, 2), (4, 3, 2), (5, 3, 1), (3, 5, 4)]
)
def test_small_batches_against_enumeration(n_tokens, n_experts, k):
    floor = max_violation_floor(n_tokens, n_experts, k)
    exact = enumerated(n_tokens, n_experts, k)
    # Twice the 95 % interval, 3.9 standard errors: a false alarm in 1e-4 of seeds, and the seed is fixed.
    assert abs(floor.value - exact) <= 2 * (floor.high - floor.value) + 1e-12


@pytest.mark.parametrize(("n_tokens", "n_experts", "k"), [(64, 16, 2), (40, 6, 4), (256, 8, 1)])
def test_both_samplers_and_the_formula_agree(n_tokens, n_experts, k):
    capacity = n_tokens * k / n_experts
    by_expert = sampling._maxima_by_expert(np.random.default_rng(1), 4000, n_tokens, n_experts, k)
    by_token = sampling._maxima_by_token(np.random.default_rng(2), 2000, n_tokens, n_experts, k)
    error = math.hypot(by_expert.std() / math.sqrt(4000), by_token.std() / math.sqrt(2000))
    assert abs(by_expert.mean() - by_token.mean()) <= 4 * error
    # The formula's stated error plus four standard errors of the simulation.
    value = (by_expert.mean() / capacity) - 1
    stated = 0.02 * math.sqrt(8 / min(capacity, n_tokens - capacity)) * value
    allowed = stated + 4 * by_expert.std() / math.sqrt(4000) / capacity
    assert abs(sampling._order_statistics(n_tokens, n_experts, k) - value) <= allowed


def test_continuous_where_the_method_changes():
    # L = 63.9 is simulated, L = 64.1 is the formula; the floor falls like 1/sqrt(L), 0.2 % between them.
    below, above = max_violation_floor(511, 16, 2), max_violation_floor(513, 16, 2)
    assert "simulated" in below.method
    assert "binomial" in above.method
    assert below.value == pytest.approx(
        above.value, abs=(above.high - above.low) / 2 + below.high - below.low
    )


def test_large_windows_approach_the_normal_form():
    # E = 2: the maximum of two is |difference|/2 above the mean, E|N(0, sigma^2)| = sigma sqrt(2/pi).
    n_tokens = 10**10
    floor = max_violation_floor(n_tokens, 2, 1)
    assert floor.value == pytest.approx(math.sqrt(2 / math.pi / n_tokens), rel=1e-4)


def test_falls_with_the_batch_and_is_remembered():
    values = [max_violation_floor(n, 16, 2).value for n in (16, 64, 256, 1024, 4096)]
    assert values == sorted(values, reverse=True)
    assert max_violation_floor(256, 16, 2) is max_violation_floor(256, 16, 2)


@pytest.mark.parametrize("shape", [(0, 16, 2), (256, 1, 1), (256, 16, 16), (256, 16, 0), (2.5, 16, 2)])
def test_bad_arguments(shape):
    with pytest.raises(InputError):
        max_violation_floor(*shape)

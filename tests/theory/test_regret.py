"""S4's bound against its sum, S7's slope against its general form, S8's exponents."""

import math

import numpy as np
import pytest

from balancesim import sources
from balancesim.errors import InputError
from balancesim.theory import modulus, power_exponent, regret_bound, sharp_slope

SIZES = {"k": 2, "n_experts": 16}


@pytest.mark.parametrize("delay", [0, 7, 2.5])
@pytest.mark.parametrize("horizon", [1, 2, 10_000])
def test_bound_is_the_sum(horizon, delay):
    n = np.arange(1, horizon + 1)
    expected = 0.5 * 0.13 * delay * 0.4**2 + 1.75 / (2 * 0.13) * math.fsum(1 / (n + delay))
    found = regret_bound(modulus=0.13, horizon=horizon, delay=delay, initial_distance=0.4, **SIZES)
    assert isinstance(found, float)
    # digamma's rounding.
    assert found == pytest.approx(expected, rel=1e-13)


def test_bound_of_many_horizons():
    steps = np.array([[1, 10], [100, 10**12]])
    bounds = regret_bound(modulus=0.2, horizon=steps, squared_gradient_bound=0.5, **SIZES)
    assert bounds.shape == steps.shape
    assert bounds[1, 0] == regret_bound(modulus=0.2, horizon=100, squared_gradient_bound=0.5, **SIZES)
    # At most the classical 1 + ln N, and short of ln N by Euler's constant.
    assert bounds[1, 1] == pytest.approx(0.5 / 0.4 * (12 * math.log(10) + np.euler_gamma), rel=1e-12)


def test_bound_holds_for_projected_steps():
    # T = 1, Pareto 0.8, steps 1/(mu_C n). Alternating projections onto plane and box never move away from p*,
    # which is all that the proof asks of a projection.
    radius, n_experts, k, n_seeds, horizon = 0.5, 6, 1, 32, 300
    rng = np.random.default_rng(9)
    mu = modulus(sources.Pareto(n_experts=n_experts, tail_index=0.8), k, radius=radius).low
    bias, total = np.zeros((n_seeds, n_experts)), np.zeros(n_seeds)
    for n in range(1, horizon + 1):
        scores = rng.pareto(0.8, size=bias.shape) + 1.0
        chosen = np.argmax(scores + bias, axis=1)
        best = np.argmax(scores, axis=1)
        rows = np.arange(n_seeds)
        # The safe difference (S5): nothing but prices where the choices agree.
        gain = np.where(chosen == best, 0.0, scores[rows, chosen] - scores[rows, best])
        total += gain + bias[rows, chosen] - bias.sum(axis=1) * k / n_experts
        gradient = (np.arange(n_experts) == chosen[:, None]) - k / n_experts
        bias = bias - gradient / (mu * n)
        for _ in range(60):
            bias = np.clip(bias - bias.mean(axis=1, keepdims=True), -radius, radius)
    assert total.mean() <= regret_bound(modulus=mu, k=k, n_experts=n_experts, horizon=horizon)


@pytest.mark.parametrize("multiple", [0.6, 1.0, 3.0])
def test_slope_is_the_sum_over_directions(multiple):
    mu, n_tokens = 0.13, 256
    a, variance = multiple / mu, 2 * (1 - 2 / 16) / (n_tokens * 15)
    expected = sum(a**2 * mu * variance / (2 * (2 * a * mu - 1)) for _ in range(15))
    assert sharp_slope(modulus=mu, n_tokens=n_tokens, multiple=multiple, **SIZES) == pytest.approx(expected)


def test_slope_at_one():
    assert sharp_slope(modulus=0.13, n_tokens=256, **SIZES) == pytest.approx(
        1.75 / (2 * 0.13 * 256), rel=1e-15
    )


def test_published_slopes():
    # S7's predictions as theory.md rounds them.
    for source, k, expected in [
        (sources.Exponential(n_experts=10), 3, 0.0123),
        (sources.Uniform(n_experts=8), 2, 0.00256),
        (sources.Gumbel(n_experts=8), 1, 0.0137),
    ]:
        mu = modulus(source, k).value
        slope = sharp_slope(modulus=mu, k=k, n_experts=source.n_experts, n_tokens=256)
        assert slope == pytest.approx(expected, rel=5e-3)


def test_power_exponent():
    assert power_exponent(0.3) == pytest.approx(0.4)
    assert power_exponent(0.1) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"modulus": 0.0}, "`modulus`"),
        ({"modulus": -1.0}, "`modulus`"),
        ({"modulus": math.nan}, "`modulus`"),
        ({"modulus": None}, "`modulus`"),
        ({"k": 16}, "`k`"),
        ({"k": 0}, "`k`"),
        ({"n_experts": 1}, "`n_experts`"),
        ({"horizon": 0}, "`horizon`"),
        ({"horizon": 10.0}, "`horizon`"),
        ({"horizon": []}, "`horizon`"),
        ({"delay": -1}, "`delay`"),
        ({"initial_distance": math.inf}, "`initial_distance`"),
        ({"squared_gradient_bound": -1.0}, "`squared_gradient_bound`"),
    ],
)
def test_bad_bound_arguments(changes, name):
    with pytest.raises(InputError, match=name):
        regret_bound(**({"modulus": 0.1, "horizon": 10, **SIZES} | changes))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"multiple": 0.5}, "power of N"),
        ({"multiple": math.nan}, "`multiple`"),
        ({"n_tokens": 0}, "`n_tokens`"),
        ({"modulus": 0.0}, "`modulus`"),
    ],
)
def test_bad_slope_arguments(changes, name):
    with pytest.raises(InputError, match=name):
        sharp_slope(**({"modulus": 0.1, "n_tokens": 256, **SIZES} | changes))


@pytest.mark.parametrize("multiple", [0.0, -0.1, 0.5, 1.0, math.nan])
def test_bad_exponent_arguments(multiple):
    with pytest.raises(InputError, match="`multiple`"):
        power_exponent(multiple)

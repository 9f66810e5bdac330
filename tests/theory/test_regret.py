"""S4's bound against its sum, S7's slope against its general form, S8's exponents."""

import math

import numpy as np
import pytest

from balancesim import sources
from balancesim.errors import InputError
from balancesim.theory import (
    curvature,
    general_slope,
    gradient_covariance,
    hindsight_gain,
    modulus,
    power_exponent,
    regret_bound,
    sharp_slope,
)

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


def test_bound_from_measured_gradients():
    # One number a step; a longer array than the horizons need is no error.
    squared = np.random.default_rng(3).uniform(0.1, 1.7, 50)
    found = regret_bound(
        modulus=0.2, horizon=[1, 40], squared_gradient_bound=squared, delay=3, initial_distance=0.5, **SIZES
    )
    start = 0.5 * 0.2 * 3 * 0.25
    for n, bound in zip((1, 40), found, strict=True):
        expected = start + math.fsum(squared[:n] / (np.arange(1, n + 1) + 3)) / 0.4
        assert bound == pytest.approx(expected, rel=1e-13)


def test_equal_gradients_give_the_bound_of_one_number():
    steps = np.array([1, 7, 300])
    one = regret_bound(modulus=0.2, horizon=steps, squared_gradient_bound=0.4, delay=2, **SIZES)
    each = regret_bound(
        modulus=0.2, horizon=steps, squared_gradient_bound=np.full(300, 0.4), delay=2, **SIZES
    )
    np.testing.assert_allclose(each, one, rtol=1e-13)


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


@pytest.mark.parametrize("multiple", [0.7, 1.0, 2.0])
def test_general_slope_of_exchangeable_scores(multiple):
    source = sources.Exponential(n_experts=16)
    mu = modulus(source, 2).value
    found = general_slope(
        curvature(source, 2), gradient_covariance(source, 2), n_tokens=64, step_size=multiple / mu
    )
    expected = sharp_slope(modulus=mu, n_tokens=64, multiple=multiple, **SIZES)
    assert found == pytest.approx(expected, rel=1e-12)


def random_problem(seed, n_experts=5):
    """A Laplacian and a covariance that do not commute."""
    rng = np.random.default_rng(seed)
    weights = np.triu(rng.uniform(0.1, 1.0, (n_experts, n_experts)), 1)
    weights = weights + weights.T
    root = rng.normal(size=(n_experts, n_experts)) * 0.2
    root -= root.mean(axis=0)
    return np.diag(weights.sum(axis=1)) - weights, root @ root.T


def test_general_slope_is_that_of_the_recursion():
    # Second moments of e+ = (I - (a/n) H) e - (a/n) xi, without H's eigenvectors: regret is tr(H M)/2 a step.
    hessian, covariance = random_problem(1)
    n_tokens, step_size = 4, 1.1 / np.linalg.eigvalsh(hessian)[1]
    moments, regret, at = np.zeros((5, 5)), 0.0, {}
    for n in range(1, 20_001):
        regret += 0.5 * np.trace(hessian @ moments)
        at[n] = regret
        step = np.eye(5) - step_size / n * hessian
        moments = step @ moments @ step.T + (step_size / n) ** 2 * covariance / n_tokens
    slope = (at[20_000] - at[2000]) / math.log(10.0)
    # Corrections of order 1/n and n^(1 - 2 a lambda_2), here n^-1.2.
    predicted = general_slope(hessian, covariance, n_tokens=n_tokens, step_size=step_size)
    assert slope == pytest.approx(predicted, rel=2e-3)


def test_commuting_would_not_do():
    # Eigenvalues paired with the wrong variances give another number: the test above can fail.
    hessian, covariance = random_problem(1)
    step_size = 1.1 / np.linalg.eigvalsh(hessian)[1]
    order = np.array([3, 1, 4, 0, 2])
    permuted = covariance[np.ix_(order, order)]
    one, other = (
        general_slope(hessian, matrix, n_tokens=4, step_size=step_size) for matrix in (covariance, permuted)
    )
    assert abs(one / other - 1.0) > 0.01


def test_gain_in_hindsight():
    source = sources.Gumbel(n_experts=8)
    gain = hindsight_gain(curvature(source, 1), gradient_covariance(source, 1), n_tokens=32)
    assert gain == pytest.approx((1 - 1 / 8) / (2 * modulus(source, 1).value * 32), rel=1e-12)


def test_gain_in_hindsight_is_the_pseudo_inverse():
    hessian, covariance = random_problem(2)
    expected = 0.5 * np.trace(np.linalg.pinv(hessian) @ covariance) / 7
    assert hindsight_gain(hessian, covariance, n_tokens=7) == pytest.approx(expected, rel=1e-10)


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


@pytest.mark.parametrize("squared", [np.ones(9), np.ones((10, 2)), np.full(10, -1.0), np.full(10, np.nan)])
def test_bad_measured_gradients(squared):
    with pytest.raises(InputError, match="`squared_gradient_bound`"):
        regret_bound(modulus=0.1, horizon=10, squared_gradient_bound=squared, **SIZES)


EYE = np.eye(4) - 0.25


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"hessian": np.eye(4)}, "`hessian` must have rows that sum to zero"),
        ({"hessian": np.zeros((3, 4))}, r"`hessian` must be \(E, E\)"),
        ({"hessian": EYE + np.triu(np.ones((4, 4)), 1)}, "`hessian` must be symmetric"),
        ({"covariance": EYE * np.nan}, "`covariance` must be finite"),
        ({"covariance": np.eye(3) - 1 / 3}, "`covariance` must have the shape"),
        ({"n_tokens": 0}, "`n_tokens`"),
        ({"step_size": 0.5}, "power of N"),
        ({"hessian": EYE * 0.0}, "power of N"),
        ({"step_size": 0.0}, "`step_size`"),
    ],
)
def test_bad_general_slope_arguments(changes, text):
    arguments = {"hessian": EYE, "covariance": EYE, "n_tokens": 4, "step_size": 1.0} | changes
    with pytest.raises(InputError, match=text):
        general_slope(arguments.pop("hessian"), arguments.pop("covariance"), **arguments)


def test_no_gain_without_curvature():
    with pytest.raises(InputError, match="`hessian` must be positive"):
        hindsight_gain(EYE * 0.0, EYE, n_tokens=4)


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

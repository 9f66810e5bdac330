"""The modulus and tails: hazard form, limits, bounds over a ball, gates."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

from balancesim.errors import InputError
from balancesim.sources import (
    Cauchy,
    Clustered,
    Exponential,
    FromScipy,
    Gumbel,
    LogNormal,
    Normal,
    Pareto,
    StudentT,
    Uniform,
)
from balancesim.theory import boundary_spread, curvature, domain_modulus, modulus, spread_limit
from balancesim.theory.tails import hazard_modulus, sigmoid_modulus, softmax_modulus, tree_weights


@pytest.mark.parametrize("k", [1, 5, 15])
@pytest.mark.parametrize(
    "source",
    [
        Pareto(n_experts=16, tail_index=0.5),
        StudentT(n_experts=16, degrees=1.5),
        Cauchy(n_experts=16),
        LogNormal(n_experts=16, sigma=2.0),
        Normal(n_experts=16),
        Gumbel(n_experts=16),
        Exponential(n_experts=16),
    ],
    ids=lambda source: source.describe(),
)
def test_the_modulus_is_a_hazard_rate(source, k):
    """Both are quadratures of the same number, good to 1e-11; the trapezoidal rule adds about 1e-12."""
    exact = modulus(source, k).value
    assert hazard_modulus(source.noise_distribution(), k, 16) == pytest.approx(exact, rel=1e-10)


def test_many_experts_are_no_obstacle():
    """K/(E-1) for the exponential, to the bits that logarithms of E lose."""
    for n_experts, k in ((2**16, 2**13), (2**16, 1)):
        found = hazard_modulus(stats.expon(), k, n_experts)
        assert found == pytest.approx(k / (n_experts - 1), rel=1e-8)
    assert hazard_modulus(stats.expon(), 2, 2.0**300) == pytest.approx(2.0**-299, rel=1e-8)


def test_limits():
    assert spread_limit(0.0, 3) == pytest.approx(math.log(4.0))
    assert spread_limit(1e-9, 3) == pytest.approx(math.log(4.0))
    # The uniform's mu is E/(E-1) and its spread 3K/(2E) for every K <= E/3.
    assert spread_limit(-1.0, 4) == pytest.approx(1.5)
    found = [spread_limit(xi, 2) for xi in (0.0, 0.5, 1.0, 3.0)]
    assert found == sorted(found)
    for source, xi in ((Pareto(n_experts=2**14, tail_index=0.5), 2.0), (Uniform(n_experts=2**14), -1.0)):
        scaled = 2**14 / 2 * modulus(source, 2).value * boundary_spread(source, 2)
        assert scaled == pytest.approx(spread_limit(xi, 2), rel=1e-3)


@pytest.mark.parametrize(
    ("xi", "k", "message"),
    [
        (-3.0, 2, "`extreme_value_index` must be finite and above"),
        (math.nan, 2, "`extreme_value_index` must be finite and above"),
        (math.inf, 2, "`extreme_value_index` must be finite and above"),
        ("heavy", 2, "`extreme_value_index` must be a number"),
        (1e6, 2, "`extreme_value_index` must be lower"),
        (0.5, 0, "`k` must be at least 1"),
        (0.5, 2.5, "`k` must be an integer"),
        (0.5, "a", "`k` must be an integer"),
    ],
)
def test_limits_out_of_range(xi, k, message):
    with pytest.raises(InputError, match=message):
        spread_limit(xi, k)


def test_a_large_limit():
    """2 sinh(y) is e^y to the last bit at y = 97, and the sum of logarithms is within float64."""
    xi, k = 140.0, 2
    expected = (
        140 * math.log(2) - math.log(140.0) + math.lgamma(k + 1 + xi) - math.log(2.0) - xi * math.log(2)
    )
    assert math.log(spread_limit(xi, k)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "source",
    [
        Pareto(n_experts=6, tail_index=0.7),
        StudentT(n_experts=6),
        Exponential(n_experts=6),
        Normal(n_experts=6),
    ],
    ids=lambda source: source.name,
)
def test_a_ball_of_radius_zero_is_the_minimiser(source):
    for k in (1, 3):
        found = domain_modulus(source, k, 0.0)
        assert found.high == pytest.approx(modulus(source, k).value, rel=1e-10)
        assert 0.0 < found.low < found.high


def test_bounds_are_of_one_order_and_fall():
    """T5: the power 1 + aK for Pareto, 1 + a for Student t; units are the source's."""
    for source, power in (
        (Pareto(n_experts=8, tail_index=0.5), 2.0),
        (StudentT(n_experts=8, degrees=2.0), 3.0),
    ):
        bounds = [domain_modulus(source, 2, r) for r in (1e7, 2e7)]
        for side in (0, 1):
            assert math.log2(bounds[0][side] / bounds[1][side]) == pytest.approx(power, rel=0.01)
    scaled = domain_modulus(Pareto(n_experts=8, tail_index=0.5, scale=4.0), 2, 8.0)
    plain = domain_modulus(Pareto(n_experts=8, tail_index=0.5), 2, 2.0)
    assert np.array(scaled) * 4.0 == pytest.approx(np.array(plain))
    s4 = modulus(Pareto(n_experts=8, tail_index=0.5), 2, radius=1e4).high
    assert domain_modulus(Pareto(n_experts=8, tail_index=0.5), 2, 1e4).low > s4


@pytest.mark.parametrize("noise", [stats.expon(), stats.t(1.5), stats.norm()], ids=["expon", "t", "norm"])
def test_the_upper_bound_is_an_integral(noise):
    """By adaptive quadrature over the others' level: three experts, K = 1, one of them shifted by 1.5 R."""
    radius, found = 0.8, []
    for shift in (1.5 * radius, -1.5 * radius):
        low = noise.support()[0] + max(shift, 0.0)
        cuts = [low, max(low + 1.0, -3.0), 4.0, math.inf]
        parts = [
            integrate.quad(
                lambda z, d=shift: noise.pdf(z - d) * noise.pdf(z) * noise.cdf(z), a, b, epsabs=1e-13
            )
            for a, b in itertools.pairwise(cuts)
        ]
        found.append(3.0 * sum(value for value, _ in parts))
    assert domain_modulus(FromScipy(noise, n_experts=3), 1, radius).high == pytest.approx(
        min(found), rel=1e-8
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Normal(n_experts=4, transform="sigmoid"), "transform"),
        (np.zeros((5, 4)), "got ndarray"),
        (FromScipy(stats.poisson(3.0), n_experts=4), "without a density"),
        (Clustered(n_experts=4), "independent"),
    ],
    ids=["gate", "array", "atoms", "clustered"],
)
def test_what_has_no_ball(source, message):
    with pytest.raises(InputError, match=message) as raised:
        domain_modulus(source, 1, 1.0)
    assert "`modulus` with" in str(raised.value)


def test_each_weight_of_the_tree():
    """T5 (ii) against S1's matrix at a price that lets one expert fall and one rise by the radius."""
    price = np.array([0.4, 0.0, 0.0, 0.0, -0.4])
    for source in (Exponential(n_experts=5), Normal(n_experts=5)):
        pairs = -curvature(source, 2, bias=price)
        weights = tree_weights(source.noise_distribution(), 5, 2, 0.4)
        assert 0.0 < weights.first < pairs[1, 2:].min()
        assert 0.0 < max(weights.passed, weights.fallen, weights.hazard) < pairs[2, 0]
    assert tree_weights(stats.expon(), 5, 1, 0.4)[1:] == (0.0, 0.0, 0.0)
    assert tree_weights(stats.norm(), 5, 2, 0.4).hazard == 0.0


def test_gates():
    """One expert of two: mu = 2 f_(X-Y)(0), by Monte Carlo of s(X) - s(Y) with 10^6 pairs, seed fixed."""
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, 1_000_000))
    width = 0.01
    # A gap density is counted from some 8000 to 16,000 pairs: 4 standard errors are 5 %.
    sigmoid = 1.0 / (1.0 + np.exp(-x)) - 1.0 / (1.0 + np.exp(-y))
    found = np.count_nonzero(np.abs(sigmoid) < width) / (width * x.size)
    assert sigmoid_modulus(stats.norm(), 1, 2) == pytest.approx(found, rel=0.05)
    softmax = np.tanh((x - y) / 2.0)
    found = np.count_nonzero(np.abs(softmax) < width) / (width * x.size)
    assert softmax_modulus(stats.norm(), 1, 2) == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize("noise", [stats.cauchy(), stats.pareto(1.5), stats.lognorm(1.0), stats.t(5.0)])
def test_heavy_logits_behind_a_gate(noise):
    assert sigmoid_modulus(noise, 1, 8) == math.inf
    assert softmax_modulus(noise, 2, 8) == math.inf
    assert 2.0 < softmax_modulus(noise, 1, 8) / hazard_modulus(noise, 1, 8) < 8.0


def test_logits_that_are_light_enough():
    """Exponential logits of scale s: e^(x/..) is integrable against S^(K+1) while K + 1 > s."""
    assert math.isfinite(sigmoid_modulus(stats.expon(scale=1.5), 1, 8))
    assert sigmoid_modulus(stats.expon(scale=2.5), 1, 8) == math.inf
    assert math.isfinite(softmax_modulus(stats.expon(scale=0.5), 3, 8))

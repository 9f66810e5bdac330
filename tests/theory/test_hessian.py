"""S1's integrals against closed forms, exact fractions, high precision, and slopes of expected loads."""

import dataclasses
import itertools
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy import integrate, stats

from balancesim import sources
from balancesim.errors import InputError
from balancesim.penalised import share_slope
from balancesim.theory import curvature, modulus
from balancesim.theory.hessian import (
    Conditions,
    degrees,
    integrate_hessian,
    least_eigenvalue,
    pair_integrals,
)
from balancesim.theory.kronrod import NODES, WEIGHTS

FAMILIES = [
    sources.Uniform(n_experts=2),
    sources.Exponential(n_experts=2),
    sources.Logistic(n_experts=2),
    sources.Gumbel(n_experts=2),
    sources.Pareto(n_experts=2, tail_index=1.5),
    sources.Pareto(n_experts=2, tail_index=0.1),
    sources.Normal(n_experts=2),
    sources.Cauchy(n_experts=2),
    sources.StudentT(n_experts=2, degrees=2.0),
    sources.LogNormal(n_experts=2, sigma=3.0),
]
SHAPES = [(2, 1), (8, 7), (16, 2), (64, 8)]


def hessian_of(source, k, shifts=None):
    centre = np.zeros(source.n_experts) if shifts is None else shifts
    return integrate_hessian(source.noise_distribution(), centre, k)


def check_closed_form(source, k):
    known, found = modulus(source, k).value, hessian_of(source, k)
    n_experts = source.n_experts
    # The integral in one variable is good to 1e-11; for index 0.1 mu is 1e-14 of the density's largest value.
    assert least_eigenvalue(found.matrix)[0] == pytest.approx(known, rel=1e-10)
    even = known * (np.eye(n_experts) - 1.0 / n_experts)
    assert np.abs(found.matrix - even).max() <= 1e-10 * known
    assert found.error <= 1e-9 * known


@pytest.mark.parametrize("source", FAMILIES, ids=lambda source: source.describe())
@pytest.mark.parametrize(("n_experts", "k"), SHAPES)
def test_equal_experts_have_the_closed_form(source, n_experts, k):
    check_closed_form(dataclasses.replace(source, n_experts=n_experts), k)


@pytest.mark.deep
@pytest.mark.parametrize("source", FAMILIES, ids=lambda source: source.describe())
@pytest.mark.parametrize(
    ("n_experts", "k"), [(3, 1), (3, 2), (8, 4), (16, 15), (32, 9), (64, 1), (64, 2), (64, 32), (64, 63)]
)
def test_equal_experts_have_the_closed_form_at_more_sizes(source, n_experts, k):
    check_closed_form(dataclasses.replace(source, n_experts=n_experts), k)


@pytest.mark.deep
@pytest.mark.parametrize("k", [1, 8, 256, 511])
def test_equal_experts_have_the_closed_form_for_512(k):
    known = modulus(sources.Logistic(n_experts=512), k).value
    found = hessian_of(sources.Logistic(n_experts=512), k)
    assert least_eigenvalue(found.matrix)[0] == pytest.approx(known, rel=1e-10)


def random_conditions(n_nodes, n_experts, seed):
    """Probabilities in 64ths, 0 and 1 among them, so that fractions are exact."""
    rng = np.random.default_rng(seed)
    above = rng.integers(0, 65, (n_nodes, n_experts)) / 64.0
    return Conditions(above, 1.0 - above, rng.integers(0, 9, (n_nodes, n_experts)) / 8.0)


def exactly(above, m):
    """P(exactly m exceed), by enumeration of who does."""
    total = Fraction(0)
    for chosen in itertools.combinations(range(len(above)), m):
        product = Fraction(1)
        for e, q in enumerate(above):
            product *= q if e in chosen else 1 - q
        total += product
    return total


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_pairs_against_enumeration(k):
    at = random_conditions(3, 6, seed=k)
    found = pair_integrals(at, np.ones((3, 1)), k)[0]
    expected = np.zeros((6, 6))
    for a, b in itertools.combinations(range(6), 2):
        total = Fraction(0)
        for node in range(3):
            above = [Fraction(q) for q in at.above[node]]
            others = [q for e, q in enumerate(above) if e not in (a, b)]
            total += Fraction(at.density[node, a]) * Fraction(at.density[node, b]) * exactly(others, k - 1)
        expected[a, b] = expected[b, a] = float(total)
    # Sums and products of non-negative numbers: a few units in the last place each.
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=0)


def check_against_high_precision(k):
    rng = np.random.default_rng(k)
    logit = rng.normal(np.log(k / (512 - k)), 3.0, (1, 512))
    above, below = 1.0 / (1.0 + np.exp(-logit)), 1.0 / (1.0 + np.exp(logit))
    found = pair_integrals(Conditions(above, below, np.ones((1, 512))), np.ones((1, 1)), k)[0]
    with mpmath.workdps(40):
        for a, b in ((0, 1), (17, 300), (510, 511)):
            counts = [mpmath.mpf(1)] + [mpmath.mpf(0)] * (k - 1)
            for e in range(512):
                if e not in (a, b):
                    q, p = mpmath.mpf(above[0, e]), mpmath.mpf(below[0, e])
                    counts = [p * counts[0]] + [p * counts[m] + q * counts[m - 1] for m in range(1, k)]
            # 512 experts of two roundings each add up to at most 1e-12.
            assert found[a, b] == pytest.approx(float(counts[k - 1]), rel=1e-12)


def test_512_experts_against_high_precision():
    check_against_high_precision(8)


@pytest.mark.deep
@pytest.mark.parametrize("k", [1, 64, 256])
def test_512_experts_against_high_precision_at_more_sizes(k):
    check_against_high_precision(k)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_degrees_are_row_sums(k):
    at = random_conditions(5, 7, seed=10 + k)
    each = [
        pair_integrals(Conditions(*(part[node : node + 1] for part in at)), np.ones((1, 1)), k)[0]
        for node in range(5)
    ]
    np.testing.assert_allclose(degrees(at, k), np.sum(each, axis=2), rtol=1e-13)


PLACES = [
    (sources.Normal(n_experts=8), 2, 0.4),
    (sources.Uniform(n_experts=8), 3, 0.2),
    (sources.Pareto(n_experts=8, tail_index=0.8, scale=2.0, offsets="iqr"), 3, 0.5),
    (sources.StudentT(n_experts=16, degrees=2.0), 5, 1.0),
    (sources.Gumbel(n_experts=8, offsets="iqr"), 1, 0.5),
    (sources.Exponential(n_experts=8), 7, 0.5),
]


@pytest.mark.parametrize(("source", "k", "spread"), PLACES, ids=lambda value: str(value)[:20])
def test_against_another_quadrature(source, k, spread):
    # `share_slope` integrates along each expert's own score, with panels fixed beforehand.
    bias = spread * np.random.default_rng(5).standard_normal(source.n_experts)
    found = curvature(source, k, bias=bias)
    np.testing.assert_allclose(found, k * share_slope(source, bias, k=k), atol=1e-12 * np.trace(found))


def test_derivative_of_expected_loads():
    # Three normal experts, K = 1: the load of the first by SciPy's quad, its slope by central differences of
    # step d = 1e-3, good to d^2 |third derivative| / 6, below 1e-7.
    bias = np.array([0.3, -0.2, 0.1])

    def load(p):
        def integrand(z):
            return stats.norm.pdf(z - p[0]) * stats.norm.cdf(z - p[1]) * stats.norm.cdf(z - p[2])

        return integrate.quad(integrand, -12.0, 12.0, epsabs=1e-13, epsrel=1e-13)[0]

    found = curvature(sources.Normal(n_experts=3), 1, bias=bias)
    for e in range(3):
        step = 1e-3 * (np.arange(3) == e)
        slope = (load(bias + step) - load(bias - step)) / 2e-3
        assert found[0, e] == pytest.approx(slope, abs=1e-7)


def test_two_experts_at_any_distance():
    # Their tie density is that of N(0, 2) at the difference of the biases.
    for difference in (0.0, 1.0, 5.0):
        found = curvature(sources.Normal(n_experts=2), 1, bias=[difference, 0.0])
        assert -found[0, 1] == pytest.approx(stats.norm(scale=2**0.5).pdf(difference), rel=1e-11)


def test_an_expert_far_from_the_others_keeps_its_digits():
    # h_0j of an expert 9 standard deviations above seven others, K = 2: of order 1e-8 beside 0.1.
    shifts = np.array([9.0] + [0.0] * 7)
    found = hessian_of(sources.Normal(n_experts=8), 2, shifts).matrix

    def integrand(z):
        return stats.norm.pdf(z - 9) * stats.norm.pdf(z) * 6 * stats.norm.sf(z) * stats.norm.cdf(z) ** 5

    expected = integrate.quad(integrand, -5.0, 15.0, epsabs=0, epsrel=1e-12, points=[3.0, 4.5, 6.0])[0]
    assert -found[0, 1] == pytest.approx(expected, rel=1e-8)


def test_symmetries():
    source, bias = sources.Normal(n_experts=6), np.array([0.5, -0.3, 0.1, 0.8, -1.0, 0.0])
    found = curvature(source, 2, bias=bias)
    order = np.array([3, 0, 5, 1, 4, 2])
    tolerance = {"atol": 1e-11 * np.trace(found)}
    np.testing.assert_allclose(
        curvature(source, 2, bias=bias[order]), found[np.ix_(order, order)], **tolerance
    )
    np.testing.assert_allclose(curvature(source, 2, bias=bias + 3.0), found, **tolerance)
    # Turned upside down, K chosen become K left out.
    np.testing.assert_allclose(curvature(source, 4, bias=-bias), found, **tolerance)
    np.testing.assert_allclose(found.sum(axis=1), 0.0, atol=1e-15)
    assert (found == found.T).all()
    wide = sources.Normal(n_experts=6, scale=2.0)
    np.testing.assert_allclose(2.0 * curvature(wide, 2, bias=2.0 * bias), found, **tolerance)


def test_modulus_at_a_bias_is_the_second_eigenvalue():
    source, bias = sources.Cauchy(n_experts=8), np.linspace(-1.0, 1.0, 8)
    found = modulus(source, 3, bias=bias)
    second = np.linalg.eigvalsh(curvature(source, 3, bias=bias))[1]
    assert found.value == pytest.approx(second, rel=1e-12)
    assert found.low <= second <= found.high
    assert found.method == "quadrature (S1)"


def test_nothing_left_between_uniform_scores_far_apart():
    found = modulus(sources.Uniform(n_experts=4), 2, bias=[5.0, 5.0, 0.0, 0.0])
    assert found.low == found.value == 0.0


def test_a_density_whose_square_has_no_integral_is_refused():
    with pytest.raises(InputError, match=r"unbounded.*method=\"gap\""):
        curvature(sources.FromScipy(stats.beta(0.3, 1.0), n_experts=4), 3, bias=[0.0, 0.0, 0.0, 0.1])


def test_rules_of_gauss_and_kronrod():
    for rule, degree in ((0, 31), (1, 19)):
        for power in range(0, degree + 1, 2):
            assert WEIGHTS[:, rule] @ NODES**power == pytest.approx(2.0 / (power + 1), rel=1e-14)


@pytest.mark.parametrize("parts", [[1, 1], [1, 1, 1], [2, 1], [2, 2], [4, 2, 3, 1], [5, 3]])
def test_parts_that_no_tie_joins_have_no_modulus(parts):
    # Complete graphs of unequal weights, their experts mixed.
    n_experts = sum(parts)
    label = np.random.default_rng(3).permutation(np.repeat(np.arange(len(parts)), parts))
    weights = np.where(label[:, None] == label, 0.1 + np.add.outer(label, label), 0.0)
    np.fill_diagonal(weights, 0.0)
    laplacian = np.diag(weights.sum(axis=1)) - weights
    value, vector = least_eigenvalue(laplacian)
    assert value == 0.0
    assert vector.sum() == pytest.approx(0.0, abs=1e-14)
    assert vector @ vector == pytest.approx(1.0, rel=1e-14)
    np.testing.assert_allclose(laplacian @ vector, 0.0, atol=1e-13)
    # Joined, however weakly, they have one.
    joined = laplacian + 1e-3 * (n_experts * np.eye(n_experts) - 1.0)
    assert least_eigenvalue(joined)[0] == pytest.approx(1e-3 * n_experts, rel=1e-10)


def test_uniform_experts_out_of_reach_have_no_modulus():
    found = modulus(sources.Uniform(n_experts=3), 1, bias=[5.0, 0.0, -5.0])
    assert found[:3] == (0.0, 0.0, 0.0)
    pairs = modulus(sources.Uniform(n_experts=4), 1, bias=[5.0, 5.0, -5.0, -5.0])
    assert (pairs.value, pairs.low) == (0.0, 0.0)

"""Closed forms against quadrature, independent integrals and simulation; S4's bound over a domain."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import special, stats

from balancesim import sources
from balancesim.errors import InputError
from balancesim.theory import boundary_spread, modulus
from balancesim.theory.quadrature import integrate_modulus

CLOSED = [
    sources.Uniform(n_experts=2),
    sources.Exponential(n_experts=2),
    sources.Logistic(n_experts=2),
    sources.Gumbel(n_experts=2),
    sources.Pareto(n_experts=2, tail_index=1.5),
    sources.Pareto(n_experts=2, tail_index=0.1),
]
SHAPES = [(2, 1), (10, 3), (16, 2), (64, 8), (1024, 1), (1024, 512), (1024, 1023)]


def with_experts(source, n_experts):
    return dataclasses.replace(source, n_experts=n_experts)


@pytest.mark.parametrize("source", CLOSED, ids=lambda source: source.describe())
@pytest.mark.parametrize(("n_experts", "k"), SHAPES)
def test_closed_forms_equal_the_integral(source, n_experts, k):
    closed = modulus(with_experts(source, n_experts), k)
    integral = integrate_modulus(source.noise_distribution(), k, n_experts, 0.0)
    assert closed.method.startswith("closed form")
    assert closed.low == closed.value == closed.high
    # The rule's own claim, plus the rounding of a sum of logarithms as large as E.
    assert abs(integral.value - closed.value) <= max(integral.error, 1e-11 * closed.value)
    assert integral.error <= 1e-10 * closed.value


@pytest.mark.parametrize(("n_experts", "k"), [(2, 1), (6, 2), (16, 15), (64, 8)])
def test_closed_forms_as_theory_words_them(n_experts, k):
    c = n_experts * special.binom(n_experts - 2, k - 1)
    expected = {
        "uniform": n_experts / (n_experts - 1),
        "exponential": c * special.beta(n_experts - k, k + 1),
        "logistic": c * special.beta(n_experts - k + 1, k + 1),
        "pareto": 1.5 * c * special.beta(n_experts - k, k + 1 + 1 / 1.5),
    }
    built = {
        "uniform": sources.Uniform(n_experts=n_experts),
        "exponential": sources.Exponential(n_experts=n_experts),
        "logistic": sources.Logistic(n_experts=n_experts),
        "pareto": sources.Pareto(n_experts=n_experts, tail_index=1.5),
    }
    for name, value in expected.items():
        assert modulus(built[name], k).value == pytest.approx(value, rel=1e-12)
    assert modulus(sources.Gumbel(n_experts=n_experts), 1).value == pytest.approx(1 / n_experts, rel=1e-14)


def test_two_normal_experts():
    # The tie density of two experts is that of N(0, 2) at 0; lambda_2 is twice it.
    assert modulus(sources.Normal(n_experts=2), 1).value == pytest.approx(1 / math.sqrt(math.pi), rel=1e-12)


def test_cauchy_against_an_exact_sum():
    # q(u) = sin(pi u)^2 / pi; for K = 1 the weight is (E-1) u^(E-2): integrate by a fine trapezoid of a
    # smooth function.
    n_experts = 16
    u = np.linspace(0.0, 1.0, 200_001)
    mean = np.trapezoid((n_experts - 1) * u ** (n_experts - 2) * np.sin(np.pi * u) ** 2 / np.pi, u)
    expected = n_experts / (n_experts - 1) * mean
    # Trapezoid error h^2/12 |f'| at the ends, about 2e-12 relative to the value 0.01.
    assert modulus(sources.Cauchy(n_experts=n_experts), 1).value == pytest.approx(expected, rel=1e-8)


def test_piecewise_constant_density_is_within_its_interval():
    counts, edges = np.array([1, 5, 2, 8, 4]), np.array([-2.0, -1.0, 0.5, 1.0, 1.5, 4.0])
    noise = stats.rv_histogram((counts, edges), density=False)
    mass = counts / counts.sum()
    weight = np.diff(special.betainc(6, 2, np.concatenate([[0.0], np.cumsum(mass)])))
    expected = 8 / 7 * float(np.sum(mass / np.diff(edges) * weight))
    found = modulus(sources.FromScipy(noise, n_experts=8), 2)
    assert found.low <= expected <= found.high
    assert found.value == pytest.approx(expected, rel=1e-9)


def test_simulated_loads_bend_as_the_modulus_says():
    # Finite differences of mean loads with common random numbers: (E A_k(p + d) - E A_k(p - d))/(2 d T) =
    # H_kk = mu (1 - 1/E). Standard error sqrt(2 d H_kk/T)/(2 d) = 0.0066 at T = 65536, d = 0.05; five of
    # them allowed.
    source = sources.Logistic(n_experts=8, seed=3)
    scores, d = source.batch(0, 65_536).astype(float), 0.05
    shares = []
    for sign in (1, -1):
        shifted = scores + sign * d * (np.arange(8) == 0)
        shares.append(np.mean(np.argsort(np.argsort(-shifted, axis=1), axis=1)[:, 0] < 2))
    slope = (shares[0] - shares[1]) / (2 * d)
    assert slope == pytest.approx(modulus(source, 2).value * 7 / 8, abs=0.033)


def test_scale_and_offsets():
    plain = modulus(sources.StudentT(n_experts=16, degrees=2.0), 2)
    scaled = modulus(sources.StudentT(n_experts=16, degrees=2.0, scale=4.0, offsets="iqr"), 2)
    assert scaled.value == pytest.approx(plain.value / 4.0, rel=1e-15)
    assert scaled.low <= scaled.value <= scaled.high


def test_frozen_parameters_count():
    wide = sources.FromScipy(stats.expon(loc=3.0, scale=2.0), n_experts=8)
    assert modulus(wide, 2) == modulus(sources.Exponential(n_experts=8, scale=2.0), 2)
    positional = sources.FromScipy(stats.pareto(1.5, 0.0, 2.0), n_experts=8)
    named = sources.Pareto(n_experts=8, tail_index=1.5, scale=2.0)
    assert modulus(positional, 2).value == pytest.approx(modulus(named, 2).value, rel=1e-15)


def test_a_constant_in_the_bias_changes_nothing():
    source = sources.Normal(n_experts=8, offsets="iqr")
    minimiser = source.population_bias()
    assert modulus(source, 2, bias=minimiser + 5.0) == modulus(source, 2)


class TestDomain:
    @pytest.mark.parametrize(("n_experts", "k"), [(16, 1), (16, 2), (64, 8), (8, 7)])
    @pytest.mark.parametrize("radius", [0.0, 1e-9, 0.01, 0.1, 0.3])
    def test_against_closed_forms(self, n_experts, k, radius):
        # Uniform: E/(E-1) (1 - 2R)^(E-1). Exponential of scale s: the plain modulus times exp(-2 (K+1) R/s).
        uniform = modulus(sources.Uniform(n_experts=n_experts), k, radius=radius)
        expected = n_experts / (n_experts - 1) * (1 - 2 * radius) ** (n_experts - 1)
        assert uniform.value == pytest.approx(expected, rel=1e-11)
        exponential = modulus(sources.Exponential(n_experts=n_experts, scale=2.0), k, radius=radius)
        expected = k / (n_experts - 1) / 2.0 * math.exp(-(k + 1) * radius)
        assert exponential.value == pytest.approx(expected, rel=1e-11)
        assert exponential.low <= expected <= exponential.high

    @pytest.mark.parametrize("radius", [0.1, 1.0])
    def test_against_an_integral_on_the_score_axis(self, radius):
        from scipy.integrate import quad

        normal = stats.norm()

        def integrand(z):
            least = min(normal.pdf(z - radius), normal.pdf(z + radius))
            return least**2 * normal.sf(z + radius) * normal.cdf(z - radius) ** 5

        halves = [quad(integrand, *ends, epsabs=0, epsrel=1e-11)[0] for ends in ((-8.0, 0.0), (0.0, 12.0))]
        expected = 8 * special.binom(6, 1) * sum(halves)
        found = modulus(sources.Normal(n_experts=8), 2, radius=radius)
        # quad's own tolerance on either half.
        assert found.value == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize(
        "source",
        [
            sources.Normal(n_experts=16),
            sources.Cauchy(n_experts=16),
            sources.Pareto(n_experts=16, tail_index=0.8),
            sources.LogNormal(n_experts=16, sigma=1.0),
            sources.StudentT(n_experts=16, degrees=2.0),
            sources.FromScipy(stats.gamma(2.5), n_experts=16),
        ],
        ids=lambda source: source.describe(),
    )
    def test_reduces_to_the_modulus_and_falls_with_the_radius(self, source):
        point = modulus(source, 2).value
        values = [modulus(source, 2, radius=radius).value for radius in (0.0, 1e-7, 0.1, 0.3, 1.0, 3.0)]
        assert values[0] == pytest.approx(point, rel=1e-11)
        # Continuous at 0: the densities' logarithmic slopes are below 10 where the weight is.
        assert values[1] == pytest.approx(point, rel=1e-4)
        assert all(later < earlier for earlier, later in itertools.pairwise(values))
        assert values[-1] > 0.0

    def test_uniform_scores_lose_all_curvature(self):
        assert modulus(sources.Uniform(n_experts=8), 2, radius=0.5).value == 0.0
        assert modulus(sources.Uniform(n_experts=8), 2, radius=2.0).value == 0.0

    def test_bounds_the_curvature_inside(self):
        # At the corner p = (r, -r) of two experts the curvature is twice the tie density N(0, 2) at 2 r.
        radius = 0.4
        inside = 2 * stats.norm(scale=math.sqrt(2)).pdf(2 * radius)
        assert 0.0 < modulus(sources.Normal(n_experts=2), 1, radius=radius).value <= inside

    def test_offsets_widen_by_half_their_range(self):
        shifted = sources.Normal(n_experts=4, offsets=(0.0, 0.1, 0.1, 0.6), scale=2.0)
        wider = sources.Normal(n_experts=4, scale=2.0)
        assert modulus(shifted, 2, radius=0.5).value == pytest.approx(
            modulus(wider, 2, radius=0.8).value, rel=1e-12
        )

    def test_two_humps_are_refused(self):
        counts, edges = np.array([4, 1, 4]), np.array([0.0, 1.0, 2.0, 3.0])
        source = sources.FromScipy(stats.rv_histogram((counts, edges)), n_experts=8)
        assert modulus(source, 2).value > 0.0
        with pytest.raises(InputError, match="rises and then falls"):
            modulus(source, 2, radius=0.1)


class TestRefusals:
    source = sources.Normal(n_experts=8)

    @pytest.mark.parametrize("k", [0, -1, 8, 9, 2.0, "2"])
    @pytest.mark.parametrize("method", ["quadrature", "gap"])
    def test_k(self, k, method):
        with pytest.raises(InputError, match="`k`"):
            modulus(self.source, k, method=method)
        with pytest.raises(InputError, match="`k`"):
            boundary_spread(self.source, k)

    @pytest.mark.parametrize("radius", [-0.1, math.nan, math.inf, "wide"])
    def test_radius(self, radius):
        with pytest.raises(InputError, match="`radius`"):
            modulus(self.source, 2, radius=radius)

    def test_radius_with_gap(self):
        with pytest.raises(InputError, match="`radius`"):
            modulus(self.source, 2, radius=1.0, method="gap")

    @pytest.mark.parametrize("method", ["quadrature", "gap"])
    @pytest.mark.parametrize("bias", [np.zeros(7), np.full(8, math.nan), np.zeros((8, 1))])
    def test_bias(self, bias, method):
        with pytest.raises(InputError, match="`bias`"):
            modulus(self.source, 2, bias=bias, method=method)

    def test_method(self):
        with pytest.raises(InputError, match="did you mean 'quadrature'"):
            modulus(self.source, 2, method="quadratur")

    @pytest.mark.parametrize("transform", ["sigmoid", "softmax"])
    def test_transform(self, transform):
        with pytest.raises(InputError, match='method="gap"'):
            modulus(sources.Normal(n_experts=8, transform=transform), 2)

    def test_correlated_experts(self):
        with pytest.raises(InputError, match=r'independent.*method="gap"'):
            modulus(sources.Factor(n_experts=8), 2)

    def test_array(self):
        with pytest.raises(InputError, match='method="gap"'):
            modulus(np.zeros((4, 8)), 2)

    def test_no_density(self):
        with pytest.raises(InputError, match="without a density"):
            modulus(sources.FromScipy(stats.poisson(3.0), n_experts=8), 2)

    def test_infinite_curvature(self):
        # f ~ 1/sqrt(1 - z) at the upper end: with K = 1 the integral of f^2 F^(E-2) diverges.
        with pytest.raises(InputError, match="unbounded"):
            modulus(sources.FromScipy(stats.arcsine(), n_experts=8), 1)


class TestBoundarySpread:
    def test_quantiles(self):
        source = sources.Exponential(n_experts=16, scale=3.0, offsets="iqr")
        # Upper-tail shares K/(2E) = 1/16 and 2K/E = 1/4: the spread is ln 4 scales.
        assert boundary_spread(source, 2) == pytest.approx(3.0 * math.log(4.0), rel=1e-12)

    def test_large_k_stays_finite_and_continuous(self):
        source = sources.Normal(n_experts=12)
        assert boundary_spread(source, 4) == pytest.approx(stats.norm.ppf(5 / 6) - stats.norm.ppf(1 / 3))
        assert math.isfinite(boundary_spread(source, 11))

    def test_an_array_is_refused(self):
        with pytest.raises(InputError, match=r"`source` must be a source of scores, got ndarray"):
            boundary_spread(np.zeros((512, 8)), 2)  # type: ignore[arg-type]

    def test_pooled_scores(self):
        source = sources.Normal(n_experts=16, transform="sigmoid")
        expected = special.expit(stats.norm.ppf(15 / 16)) - special.expit(stats.norm.ppf(3 / 4))
        # 262,144 scores: the standard error of either quantile is below 0.0007.
        assert boundary_spread(source, 2) == pytest.approx(expected, abs=0.004)

    def test_masked_scores_are_left_out(self):
        scores = np.random.default_rng(0).normal(size=(512, 8))
        masked = np.concatenate([scores, np.full((512, 8), -np.inf)], axis=1)
        spread = boundary_spread(sources.Recorded(masked), 2)
        pooled = np.quantile(scores, [1 - 4 / 16, 1 - 1 / 16])
        assert spread == pytest.approx(pooled[1] - pooled[0], rel=1e-12)

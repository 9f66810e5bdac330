"""Curvature counted in tokens: against slow counts, routed loads and quadrature; intervals; refusals."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

import balancesim as bs
from balancesim import sources
from balancesim.errors import InputError
from balancesim.theory import curvature, estimate_curvature, modulus
from paper_checks.primal_dual.curvature import least_modulus


def scores_of(n_tokens, n_experts, seed=0):
    return np.random.default_rng(seed).normal(size=(n_tokens, n_experts))


def slow_gap(scores, k, width):
    found = np.zeros((scores.shape[1],) * 2)
    for row in scores:
        for a, b in itertools.combinations(range(row.size), 2):
            others = np.delete(row, [a, b])
            if abs(row[a] - row[b]) < width and (others > (row[a] + row[b]) / 2).sum() == k - 1:
                found[a, b] += 1
                found[b, a] += 1
    found /= 2 * width * len(scores)
    return np.diag(found.sum(axis=1)) - found


def slow_difference(scores, k, width):
    """Column j: loads with price j up by the width, less those with it down; then made symmetric."""
    columns = []
    for unit in np.eye(scores.shape[1]):
        up = bs.route(scores, width * unit, k=k).loads
        down = bs.route(scores, -width * unit, k=k).loads
        columns.append((up - down) / (2 * width * len(scores)))
    found = np.stack(columns, axis=1)
    return (found + found.T) / 2


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize(("method", "slow"), [("gap", slow_gap), ("difference", slow_difference)])
@pytest.mark.parametrize("width", [0.05, 0.8])
def test_equals_the_slow_count(k, method, slow, width):
    scores = scores_of(300, 6, seed=k)
    found = estimate_curvature(scores, k, method=method, width=width)
    off = ~np.eye(6, dtype=bool)
    # Integer counts over one number: rounding alone. The diagonal makes the sums of rows zero.
    np.testing.assert_allclose(found.hessian[off], slow(scores, k, width)[off], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found.hessian.sum(axis=1), 0.0, atol=1e-12)


def test_a_bias_moves_the_place():
    scores, bias = scores_of(200, 5), np.array([0.5, -0.25, 0.0, 0.25, -0.5])
    found = estimate_curvature(scores, 2, bias=bias, width=0.3)
    np.testing.assert_allclose(found.hessian, slow_gap(scores + bias, 2, 0.3), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", ["gap", "difference"])
def test_masked_experts_have_no_curvature(method):
    scores = scores_of(400, 6)
    scores[:, 5] = -np.inf
    found = estimate_curvature(scores, 2, method=method, width=0.3)
    whole = estimate_curvature(scores[:, :5], 2, method=method, width=0.3)
    assert (found.hessian[5] == 0.0).all()
    np.testing.assert_allclose(found.hessian[:5, :5], whole.hessian, rtol=1e-12)


def test_parts_agree():
    scores = scores_of(2000, 5)
    for method in ("gap", "difference"):
        found = estimate_curvature(scores, 2, method=method)
        np.testing.assert_array_equal(found.hessian, curvature(scores, 2, method=method))
        assert found.modulus == modulus(scores, 2, method=method)
        assert found.mean_eigenvalue.value == pytest.approx(np.trace(found.hessian) / 4, rel=1e-12)
        off = ~np.eye(5, dtype=bool)
        assert (found.low[off] <= -found.hessian[off]).all()
        assert (found.high[off] >= -found.hessian[off]).all()
        assert (found.low[~off] == 0.0).all()
        assert found.n_tokens == 2000
        assert f"{found.n_near_ties} near-ties" in found.modulus.method


@pytest.mark.parametrize("method", ["gap", "difference"])
def test_unequal_prices_against_quadrature(method):
    source, bias = sources.StudentT(n_experts=8, degrees=2.0, seed=3), np.linspace(-0.8, 0.8, 8)
    exact, found = curvature(source, 3, bias=bias), estimate_curvature(source, 3, bias=bias, method=method)
    mean = np.trace(exact) / 7
    # Three half-widths of a 95 % interval: 6 standard errors, a false alarm once in 10^8 runs.
    _, low, high, _ = found.mean_eigenvalue
    assert abs(found.mean_eigenvalue.value - mean) < 1.5 * (high - low)
    assert found.modulus.low <= modulus(source, 3, bias=bias).value <= found.modulus.high
    pairs = np.triu_indices(8, 1)
    # The seed was fixed before the first run; 28 intervals miss 1.4 times on average, 7 times once in 3000.
    assert np.sum((found.low > -exact)[pairs] | (found.high < -exact)[pairs]) < 7
    assert np.corrcoef(exact[pairs], found.hessian[pairs])[0, 1] > 0.95


def test_recorded_statistics_by_either_count():
    source = sources.TokenStream(seed=5)
    gap, difference = (
        estimate_curvature(source, 8, bias=np.zeros(64), method=method) for method in ("gap", "difference")
    )
    # Both intervals hold the same number but for misses in 1 of 20 and biases below 1 %.
    ratio = difference.mean_eigenvalue.value / gap.mean_eigenvalue.value
    assert ratio == pytest.approx(1.0, abs=0.06)
    assert gap.modulus.low <= difference.modulus.high
    assert difference.modulus.low <= gap.modulus.high


def covers(source, k, n_tokens, method, n_runs):
    """Shares of replications whose intervals hold h_kj, the trace and lambda_2."""
    exact, mu = curvature(source, k), modulus(source, k).value
    mean, pairs = np.trace(exact) / (len(exact) - 1), np.triu_indices(len(exact), 1)
    inside = []
    for run in range(n_runs):
        found = estimate_curvature(source.batch(run, n_tokens).astype(float), k, method=method)
        held = (found.low <= -exact) & (-exact <= found.high)
        inside.append(
            (
                held[pairs].mean(),
                found.mean_eigenvalue.low <= mean <= found.mean_eigenvalue.high,
                found.modulus.low <= mu <= found.modulus.high,
            )
        )
    return np.mean(inside, axis=0)


@pytest.mark.parametrize("method", ["gap", "difference"])
def test_intervals_cover(method):
    weights, mean, least = covers(sources.Normal(n_experts=8, seed=51), 2, 2048, method, n_runs=200)
    # Standard error of a share of 95 % in 200 runs: 1.5 %; 4 are allowed (2e-4 for either end), less for the
    # mean over 28 pairs.
    assert 0.93 < weights < 0.97
    assert 0.89 < mean <= 1.0
    assert least > 0.89


@pytest.mark.deep
@pytest.mark.parametrize("method", ["gap", "difference"])
@pytest.mark.parametrize(
    ("source", "k"),
    [
        (sources.Normal(n_experts=8, seed=52), 2),
        (sources.Exponential(n_experts=8, seed=53), 2),
        (sources.Gumbel(n_experts=8, seed=54), 1),
        (sources.StudentT(n_experts=16, degrees=2.0, seed=55), 4),
    ],
    ids=lambda value: value.describe() if isinstance(value, sources.Source) else str(value),
)
def test_intervals_cover_in_1000_replications(source, k, method):
    weights, mean, least = covers(source, k, 4096, method, n_runs=1000)
    # The numbers asked for; an exact 95 % interval leaves them once in 250 for the trace.
    assert 0.93 <= weights <= 0.97
    assert 0.93 <= mean <= 0.97
    assert least >= 0.93


def test_counting_two_places_alone_has_a_first_order_bias():
    # Exponential scores: the K-th leads the (K+1)-th by an exponential lead of rate K, so that the count of
    # those two alone expects (1 - exp(-K w))/w for the trace K; gaps expect K itself but for the edge at 0.
    k, width = 2, 0.4
    scores = sources.Exponential(n_experts=8, seed=56).batch(0, 200_000).astype(float)
    ranked = np.sort(scores, axis=1)[:, ::-1]
    alone = np.mean(ranked[:, k - 1] - ranked[:, k] < width) / width
    # Standard errors below 0.006 for the first, 0.012 for the second: five are allowed.
    assert alone == pytest.approx((1 - math.exp(-k * width)) / width, abs=0.03)
    gap = estimate_curvature(scores, k, width=width)
    assert gap.mean_eigenvalue.value * 7 == pytest.approx(k, abs=0.06)


@pytest.mark.parametrize(
    ("source", "k", "radius"),
    [
        (sources.Normal(n_experts=5), 2, 0.5),
        (sources.Gumbel(n_experts=4, offsets=(0.0, 0.2, 0.1, 0.3)), 1, 0.2),
        (sources.Uniform(n_experts=4), 2, 0.1),
    ],
    ids=["normal", "gumbel with offsets", "uniform"],
)
def test_least_modulus_of_a_domain_exceeds_its_bound(source, k, radius):
    bound = modulus(source, k, radius=radius).value
    found = least_modulus(source, k, radius, n_trials=8)
    assert 0.0 < bound <= found < modulus(source, k).value


class TestRefusals:
    source = sources.Normal(n_experts=8)

    @pytest.mark.parametrize("k", [0, 8, 2.0])
    @pytest.mark.parametrize("method", ["quadrature", "gap", "difference"])
    def test_k(self, k, method):
        with pytest.raises(InputError, match="`k`"):
            curvature(self.source, k, method=method)

    @pytest.mark.parametrize("function", [curvature, modulus, estimate_curvature])
    def test_method(self, function):
        with pytest.raises(InputError, match="did you mean 'difference'"):
            function(self.source, 2, method="differences")

    def test_estimates_do_not_integrate(self):
        with pytest.raises(InputError, match=r'"gap" or "difference".*`curvature`'):
            estimate_curvature(self.source, 2, method="quadrature")

    @pytest.mark.parametrize("bias", [np.zeros(7), np.full(8, math.nan)])
    @pytest.mark.parametrize("method", ["quadrature", "gap", "difference"])
    def test_bias(self, bias, method):
        with pytest.raises(InputError, match="`bias`"):
            curvature(self.source, 2, bias=bias, method=method)

    @pytest.mark.parametrize("width", [0.0, -1.0, math.inf, "wide"])
    def test_width(self, width):
        with pytest.raises(InputError, match="`width`"):
            estimate_curvature(self.source, 2, width=width)

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            (np.zeros((64, 8)), "array"),
            (sources.Normal(n_experts=8, transform="softmax"), "softmax couples"),
            (sources.Normal(n_experts=8, transform="sigmoid"), "sigmoid saturates"),
            (sources.Factor(n_experts=8), "independent"),
            (sources.FromScipy(stats.poisson(3.0), n_experts=8), "without a density"),
        ],
        ids=["array", "softmax", "sigmoid", "correlated", "atoms"],
    )
    @pytest.mark.parametrize("function", [curvature, modulus])
    def test_quadrature_says_what_works(self, source, message, function):
        with pytest.raises(InputError, match=rf'{message}.*method="gap" or "difference"'):
            function(source, 2)

    def test_radius(self):
        for arguments in ({"method": "difference"}, {"method": "gap"}, {"bias": np.zeros(8)}):
            with pytest.raises(InputError, match="`radius`"):
                modulus(self.source, 2, radius=0.1, **arguments)

    @pytest.mark.parametrize("method", ["gap", "difference"])
    def test_too_few_tokens(self, method):
        with pytest.raises(InputError, match="at least 16 tokens"):
            estimate_curvature(scores_of(15, 4), 2, method=method)

    def test_too_few_near_ties(self):
        with pytest.raises(InputError, match=r"give about \d+ tokens or more"):
            estimate_curvature(scores_of(64, 4), 2, width=1e-3)

    @pytest.mark.parametrize("function", [curvature, modulus, estimate_curvature])
    @pytest.mark.parametrize("method", ["gap", "difference"])
    def test_too_few_near_ties_whatever_is_asked(self, function, method):
        with pytest.raises(InputError, match=r"0 near-ties among 2000 tokens .* about [0-9]+ tokens"):
            function(scores_of(2000, 3), 1, bias=[50.0, 0.0, -50.0], method=method)
        with pytest.raises(InputError, match="near-ties among 16 tokens are too few"):
            function(scores_of(16, 3), 1, method=method)

    def test_near_ties_within_a_given_width_grow_like_the_tokens(self):
        scores = np.zeros((2000, 3))
        scores[:, 1:] = [-1.0, -2.0]
        scores[7, 1] = -0.01
        with pytest.raises(InputError, match=r"1 near-ties among 2000 tokens .* about 40000 tokens"):
            estimate_curvature(scores, 1, width=0.02)
        # The default narrows as the tokens grow: there are more near-ties only like their number to the 3/4.
        with pytest.raises(InputError, match=r"about 108577 tokens"):
            estimate_curvature(scores_of(2000, 3), 1, bias=[50.0, 0.0, -50.0])

    def test_what_it_says_is_enough(self):
        scores = scores_of(4096, 4)
        with pytest.raises(InputError) as refused:
            estimate_curvature(scores[:16], 1)
        needed = int(str(refused.value).split("give about ")[1].split(" ")[0])
        assert estimate_curvature(scores[:needed], 1).n_near_ties >= 10

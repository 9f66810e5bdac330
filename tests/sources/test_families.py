"""Each family against its distribution, tails included; false alarms 1e-4 a test, seeds fixed before."""

import math

import numpy as np
import pytest
from scipy import stats

from balancesim import sources

FALSE_ALARM = 1e-4

FAMILIES = [
    sources.Uniform(n_experts=5, seed=11),
    sources.Normal(n_experts=5, seed=12),
    sources.Logistic(n_experts=5, seed=13),
    sources.Gumbel(n_experts=5, seed=14),
    sources.Exponential(n_experts=5, seed=15),
    sources.StudentT(n_experts=5, seed=16, degrees=2.0),
    sources.StudentT(n_experts=5, seed=17, degrees=0.7),
    sources.StudentT(n_experts=5, seed=18, degrees=30.0),
    sources.StudentT(n_experts=5, seed=27, degrees=1e10),
    sources.Pareto(n_experts=5, seed=28, tail_index=1e6),
    sources.Cauchy(n_experts=5, seed=19),
    sources.LogNormal(n_experts=5, seed=20, sigma=0.5),
    sources.LogNormal(n_experts=5, seed=21, sigma=3.0),
    sources.Pareto(n_experts=5, seed=22, tail_index=1.5),
    sources.Pareto(n_experts=5, seed=23, tail_index=0.8),
    sources.Pareto(n_experts=5, seed=24, tail_index=0.1),
    sources.FromScipy(stats.genextreme(-0.3), n_experts=5, seed=25),
]


@pytest.mark.parametrize("source", FAMILIES, ids=lambda source: source.describe())
def test_distribution(source):
    scores = source.batch(7, 40_000).astype(np.float64)
    distribution = source.noise_distribution()
    assert stats.kstest(scores.ravel(), distribution.cdf).pvalue > FALSE_ALARM
    # Experts are independent of each other, whatever pairs of them share a random word.
    ranks = stats.rankdata(scores, axis=0) / len(scores)
    correlations = np.corrcoef(ranks.T)[np.triu_indices(5, 1)]
    assert np.abs(correlations).max() < stats.norm.isf(FALSE_ALARM / 20) / math.sqrt(len(scores))
    # Magnitudes as well: Box-Muller pairs share a radius.
    spread = np.abs(ranks - 0.5)
    correlations = np.corrcoef(spread.T)[np.triu_indices(5, 1)]
    assert np.abs(correlations).max() < stats.norm.isf(FALSE_ALARM / 20) / math.sqrt(len(scores))


@pytest.mark.parametrize("source", FAMILIES[:9], ids=lambda source: source.describe())
def test_steps_are_independent(source):
    first, second = (source.batch(step, 40_000).astype(np.float64) for step in (0, 1))
    ranks = [stats.rankdata(x[:, 0]) for x in (first, second)]
    limit = stats.norm.isf(FALSE_ALARM / 2) / math.sqrt(len(first))
    assert abs(np.corrcoef(*ranks)[0, 1]) < limit


HEAVY = [
    (sources.Pareto(n_experts=8, seed=31, tail_index=0.8), 0.8),
    (sources.Pareto(n_experts=8, seed=32, tail_index=1.5), 1.5),
    (sources.Pareto(n_experts=8, seed=33, tail_index=0.1), 0.1),
    (sources.StudentT(n_experts=8, seed=34, degrees=2.0), 2.0),
    (sources.Cauchy(n_experts=8, seed=35), 1.0),
]


def hill(magnitudes, n_extremes):
    """The maximum-likelihood tail index of the largest order statistics (Hill 1975)."""
    extremes = np.sort(np.partition(magnitudes, -n_extremes - 1)[-n_extremes - 1 :])
    return 1.0 / np.log(extremes[1:] / extremes[0]).mean()


def check_tail(source, index, n_draws, n_extremes):
    steps = -(-n_draws // (source.n_experts * 50_000))
    largest = []
    for step in range(steps):
        magnitudes = np.abs(source.batch(step, 50_000).astype(np.float64).ravel())
        largest.append(np.partition(magnitudes, -n_extremes - 1)[-n_extremes - 1 :])
    pooled = np.concatenate(largest)
    n_total = steps * 50_000 * source.n_experts
    # Hill's estimate has relative standard error 1/sqrt(n_extremes); Student's second-order bias is far less.
    sigmas = stats.norm.isf(FALSE_ALARM / 2)
    assert hill(pooled, n_extremes) == pytest.approx(index, rel=sigmas / math.sqrt(n_extremes))
    # The extremes reach where they must: n times the tail probability of the largest is exponential.
    distribution = source.noise_distribution()
    two_sided = distribution.sf(pooled.max()) + distribution.cdf(-pooled.max())
    assert FALSE_ALARM / 2 < -math.expm1(-n_total * two_sided) < 1 - FALSE_ALARM / 2


@pytest.mark.parametrize(("source", "index"), HEAVY, ids=lambda value: str(value))
def test_tail_index(source, index):
    check_tail(source, index, 800_000, 400)


@pytest.mark.deep
@pytest.mark.parametrize(("source", "index"), HEAVY, ids=lambda value: str(value))
def test_tail_index_of_many_draws(source, index):
    check_tail(source, index, 10_000_000, 2_000)


def test_light_tails_have_no_grain():
    """The largest of a million normals and exponentials are distinct and where they should be."""
    for source in (sources.Normal(n_experts=8, seed=41), sources.Exponential(n_experts=8, seed=42)):
        scores = np.concatenate([source.batch(step, 25_000).ravel() for step in range(5)]).astype(np.float64)
        extremes = np.sort(scores)[-50:]
        assert np.unique(extremes).size == 50
        reached = -math.expm1(-scores.size * source.noise_distribution().sf(extremes[-1]))
        assert FALSE_ALARM / 2 < reached < 1 - FALSE_ALARM / 2


@pytest.mark.parametrize(
    ("source", "dtype"),
    [
        (sources.Normal(n_experts=4), np.float32),
        (sources.Normal(n_experts=4, scale=1e-5, offsets=(0.0, 0.0, 0.0, 100.0)), np.float64),
        (sources.Cauchy(n_experts=4), np.float32),
        (sources.Cauchy(n_experts=4, scale=1e25), np.float64),
        (sources.Pareto(n_experts=4, tail_index=0.4), np.float32),
        (sources.Pareto(n_experts=4, tail_index=0.3), np.float64),
        (sources.StudentT(n_experts=4, degrees=0.3), np.float64),
        (sources.LogNormal(n_experts=4, sigma=5.0), np.float32),
        (sources.LogNormal(n_experts=4, sigma=20.0), np.float64),
    ],
    ids=lambda value: str(value),
)
def test_float64_where_float32_would_overflow(source, dtype):
    scores = source.batch(0, 1000)
    assert scores.dtype == dtype
    assert np.isfinite(scores).all()
    beyond = float(np.finfo(np.float32).max) * 1e-3 / source.scale
    distribution = source.noise_distribution()
    too_likely = distribution.sf(beyond) + distribution.cdf(-beyond) > 1e-12
    blurred = any(abs(offset) > 4096 * source.scale for offset in source.offsets or ())
    assert (too_likely or blurred) == (dtype == np.float64)


def test_offsets_scale_and_transform():
    plain = sources.Normal(n_experts=4, seed=5).batch(0, 50).astype(np.float64)
    offsets = (0.0, 1.0, -2.0, 0.5)
    moved = sources.Normal(n_experts=4, seed=5, offsets=offsets, scale=3.0).batch(0, 50)
    np.testing.assert_allclose(moved, offsets + 3.0 * plain, rtol=1e-5, atol=1e-5)
    squashed = sources.Normal(n_experts=4, seed=5, offsets=offsets, scale=3.0, transform="sigmoid").batch(
        0, 50
    )
    np.testing.assert_allclose(squashed, 1 / (1 + np.exp(-(offsets + 3.0 * plain))), rtol=1e-5, atol=1e-7)
    shares = sources.Normal(n_experts=4, seed=5, transform="softmax").batch(0, 50)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-5)
    spread = sources.Logistic(n_experts=5, offsets="iqr", scale=2.0).expert_offsets()
    assert np.ptp(spread) == pytest.approx(2.0 * 2.0 * math.log(3.0))
    assert spread.mean() == pytest.approx(0.0, abs=1e-15)


def test_population_bias():
    offsets = (0.0, 1.0, 2.0, 5.0)
    assert sources.Gumbel(n_experts=4, offsets=offsets).population_bias().tolist() == [2.0, 1.0, 0.0, -3.0]
    assert sources.Gumbel(n_experts=4, transform="softmax").population_bias().tolist() == [0.0] * 4
    assert sources.Gumbel(n_experts=4, transform="softmax", offsets=offsets).population_bias() is None
    assert sources.Drifting(n_experts=4, walk_rate=0.0, offsets=offsets).population_bias() is not None
    for source in (
        sources.Drifting(n_experts=4, offsets=offsets),
        sources.Drifting(n_experts=4, walk_rate=0.0, offsets=offsets, switch_at=5),
        sources.Factor(n_experts=4),
        sources.Clustered(n_experts=4),
        sources.TokenStream(),
    ):
        assert source.population_bias() is None

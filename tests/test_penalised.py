"""P6's minimiser: quadrature against enumeration, counting against quadrature, and what neither can do."""

import math

import numpy as np
import pytest
from scipy import stats

from balancesim import sources
from balancesim.errors import InputError
from balancesim.penalised import penalised_minimiser, share_slope
from balancesim.potentials import LogBarrier, NegativeEntropy, PNorm, SquaredNorm

OFFSETS = (0.7, 0.2, 0.0, -0.4)


def test_gumbel_with_one_choice_is_softmax():
    """K = 1 and Gumbel scores: the expected shares are a softmax, in closed form."""
    source = sources.Gumbel(n_experts=4, offsets=OFFSETS)
    found = penalised_minimiser(source, NegativeEntropy(), strength=0.8, k=1)
    weights = np.exp(np.array(OFFSETS) + found.bias)
    np.testing.assert_allclose(found.shares, weights / weights.sum(), rtol=1e-11)
    assert found.method == "quadrature"
    assert found.residual < 1e-12
    # Where the entropy's gradient is 1 + ln m, offsets o leave m ~ exp(o / (1 + lambda)).
    expected = np.exp(np.array(OFFSETS) / 1.8)
    np.testing.assert_allclose(found.shares, expected / expected.sum(), rtol=1e-11)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("kind", ["uniform", "pareto", "cauchy"])
def test_counting_agrees_with_quadrature(kind, k):
    """10^6 draws at the minimiser's bias: every share within five standard deviations of 5e-4."""
    made = {
        "uniform": sources.Uniform(n_experts=4, offsets=OFFSETS),
        "pareto": sources.Pareto(n_experts=4, tail_index=0.5, offsets=OFFSETS),
        "cauchy": sources.Cauchy(n_experts=4, offsets=OFFSETS),
    }[kind]
    found = penalised_minimiser(made, PNorm(3.0), strength=3.0, k=k)
    n_tokens = 1_000_000
    scores = made.batch(0, n_tokens).astype(np.float64) + found.bias
    chosen = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    shares = np.bincount(chosen.ravel(), minlength=4) / (n_tokens * k)
    np.testing.assert_allclose(shares, found.shares, atol=5 * 0.5 / math.sqrt(n_tokens))
    assert found.shares.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("potential", [NegativeEntropy(), SquaredNorm(), LogBarrier()], ids=repr)
def test_a_sample_gives_the_same_within_its_error(potential):
    """The same scores with the distribution hidden, so that they are counted."""

    class Hidden(sources.Normal):
        def noise_distribution(self):
            raise InputError("hidden")

    exact = penalised_minimiser(sources.Normal(n_experts=4, offsets=OFFSETS), potential, strength=1.0, k=2)
    counted = penalised_minimiser(Hidden(n_experts=4, offsets=OFFSETS), potential, strength=1.0, k=2)
    assert "tokens counted" in counted.method
    # Shares of 2^18 tokens: standard deviations of at most 0.5 / (K sqrt(N)); five of them, damped by 1.
    np.testing.assert_allclose(counted.shares, exact.shares, atol=5 * 0.25 / math.sqrt(2**18))
    assert 0.0 < counted.excess < 1e-3
    assert exact.excess == 0.0


def test_extreme_offsets():
    """theory.md P7: the log barrier's m* is about lambda/(K d), the entropy's is nothing at all."""
    source = sources.Normal(n_experts=3, offsets=(0.0, 0.0, -1e4))
    barrier = penalised_minimiser(source, LogBarrier(), strength=1.0, k=1)
    assert barrier.residual < 1e-12
    assert barrier.shares[2] == pytest.approx(1e-4, rel=1e-3)
    entropy = penalised_minimiser(source, NegativeEntropy(), strength=1.0, k=1)
    assert entropy.shares[2] < 1e-12
    np.testing.assert_allclose(entropy.shares[:2], 0.5, atol=1e-12)


def test_balanced_sources_need_no_search():
    symmetric = penalised_minimiser(
        sources.Normal(n_experts=4, transform="softmax"), NegativeEntropy(), strength=1.0, k=2
    )
    assert symmetric.method == "balanced without a bias"
    assert (symmetric.bias == 0.0).all()


def test_a_scipy_distribution():
    source = sources.FromScipy(stats.laplace(), n_experts=4, offsets=OFFSETS)
    found = penalised_minimiser(source, SquaredNorm(), strength=1.0, k=2)
    assert found.method == "quadrature"
    assert found.residual < 1e-12


def test_bad_input():
    with pytest.raises(InputError, match="`strength` must be a positive finite number"):
        penalised_minimiser(sources.Normal(n_experts=4), SquaredNorm(), strength=0.0, k=2)
    with pytest.raises(InputError, match="changes along the run"):
        penalised_minimiser(sources.Drifting(n_experts=4, offsets="iqr"), SquaredNorm(), strength=1.0, k=2)
    with pytest.raises(InputError, match="`k` must satisfy"):
        penalised_minimiser(sources.Normal(n_experts=4), SquaredNorm(), strength=1.0, k=4)


def test_slope_of_the_shares():
    """K = 1 and Gumbel scores: shares are a softmax, whose derivative is diag(s) - s s'."""
    bias = np.array([0.1, 0.0, -0.3, 0.2])
    weights = np.exp(np.array(OFFSETS) + bias)
    shares = weights / weights.sum()
    expected = np.diag(shares) - np.outer(shares, shares)
    found = share_slope(sources.Gumbel(n_experts=4, offsets=OFFSETS), bias, k=1)
    np.testing.assert_allclose(found, expected, atol=1e-11)
    with pytest.raises(InputError, match="`bias`"):
        share_slope(sources.Gumbel(n_experts=4), [0.0, 1.0], k=1)

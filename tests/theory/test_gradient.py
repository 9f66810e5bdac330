"""The gradient's covariance, and the bound on its mean square from expected loads."""

import numpy as np
import pytest

from balancesim import sources
from balancesim.errors import InputError
from balancesim.theory import gradient_covariance, squared_gradient_bound


def test_exchangeable_covariance():
    found = gradient_covariance(sources.Cauchy(n_experts=10, offsets="iqr"), 3)
    assert np.trace(found) == pytest.approx(3 * 0.7)
    np.testing.assert_allclose(found.sum(axis=0), 0.0, atol=1e-15)
    assert found[0, 1] == found[8, 3]


def test_counted_covariance_agrees():
    source = sources.Gumbel(n_experts=6, offsets="iqr", seed=11)
    exact = gradient_covariance(source, 2)
    counted = gradient_covariance(source, 2, source.population_bias(), n_samples=2**17)
    # Entries of at most 1/4 in size: five standard errors, one false alarm in a million for 21 entries.
    np.testing.assert_allclose(counted, exact, atol=5 * 0.5 / 2**8.5)
    # The diagonal halved, as if tokens were taken in pairs, is far outside.
    assert np.abs(counted - 0.5 * exact).max() > 5 * 0.5 / 2**8.5


def test_an_array_is_refused():
    with pytest.raises(InputError, match=r"`source` must be a source of scores, got ndarray; .*Recorded"):
        gradient_covariance(np.zeros((2000, 4)), 1)


def test_trace_away_from_balance():
    # trace = K - |share|^2, exactly, up to the n/(n-1) of a sample.
    source = sources.Normal(n_experts=5, seed=2)
    bias = np.array([1.0, 0.5, 0.0, -0.5, -1.0])
    n = 4096
    found = gradient_covariance(source, 2, bias, n_samples=n)
    scores = source.batch(0, n) + bias.astype(np.float32)
    chosen = np.argsort(-scores, axis=1, kind="stable")[:, :2]
    share = np.bincount(chosen.ravel(), minlength=5) / n
    assert np.trace(found) == pytest.approx((2 - share @ share) * n / (n - 1), rel=1e-12)


def test_recorded_scores():
    rows = np.random.default_rng(4).normal(size=(2000, 4))
    source = sources.Recorded(rows)
    found = gradient_covariance(source, 1, np.zeros(4))
    assert np.trace(found) == pytest.approx(0.75, abs=0.01)
    with pytest.raises(InputError, match="`bias` must be given"):
        gradient_covariance(source, 1)
    with pytest.raises(InputError, match="1024 at least"):
        gradient_covariance(sources.Recorded(rows[:500]), 1, np.zeros(4))
    with pytest.raises(InputError, match="`n_samples`"):
        gradient_covariance(source, 1, np.zeros(4), n_samples=10)


def test_squared_gradient_bound():
    balanced = np.full((3, 4), 0.5)
    np.testing.assert_allclose(squared_gradient_bound(balanced, k=2, n_tokens=10), 0.1)
    # One expert takes every token: 1 of the worst case K(1 - K/E), plus noise.
    assert squared_gradient_bound([1.0, 0.0], k=1, n_tokens=4) == pytest.approx(0.5 + 0.125)


def test_squared_gradient_is_bounded():
    # Batches at a fixed bias: the mean of |g|^2 over 400 batches, five standard errors wide.
    source, k, n_tokens = sources.Logistic(n_experts=6, seed=5), 2, 8
    bias = np.linspace(-1.0, 1.0, 6)
    wide = source.with_seed(6).batch(0, 2**16) + bias.astype(np.float32)
    share = np.bincount(np.argsort(-wide, axis=1)[:, :k].ravel(), minlength=6) / 2**16
    squares = []
    for step in range(400):
        scores = source.batch(step, n_tokens) + bias.astype(np.float32)
        loads = np.bincount(np.argsort(-scores, axis=1)[:, :k].ravel(), minlength=6)
        squares.append(((loads / n_tokens - k / 6) ** 2).sum())
    mean, error = np.mean(squares), np.std(squares) / 20
    bound = squared_gradient_bound(share, k=k, n_tokens=n_tokens)
    assert mean < bound + 5 * error
    assert mean > bound - (share @ share - k * k / 6) / n_tokens - 5 * error
    # Noise alone does not do: the mean part counts.
    assert mean > k * (1 - k / 6) / n_tokens + 5 * error


@pytest.mark.parametrize(
    ("loads", "text"),
    [
        (0.5, "one entry per expert"),
        ([0.5, 0.6], "must sum to k"),
        ([1.5, -0.5], "probabilities"),
        ([np.nan, 1.0], "probabilities"),
    ],
)
def test_bad_loads(loads, text):
    with pytest.raises(InputError, match=text):
        squared_gradient_bound(loads, k=1, n_tokens=4)

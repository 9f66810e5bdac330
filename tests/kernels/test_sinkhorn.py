"""Sinkhorn's kernel against plain matrix scaling, and against logarithms where that underflows."""

import numpy as np
import pytest
from scipy.special import logsumexp

from balancesim.kernels.jit import kernel
from balancesim.kernels.sinkhorn import EMPTY_COLUMN, decay, scale_columns


@kernel
def decays(arguments, results):
    for i in range(arguments.size):
        results[i] = decay(arguments[i])


def test_decay_is_the_exponential():
    arguments = np.concatenate([-np.geomspace(1e-20, 707.9, 3001), [0.0, -708.5, -1e300, -np.inf]])
    results = np.empty_like(arguments)
    decays(arguments, results)
    # Half a unit in the last place each for the series, its last sum and the argument's reduction.
    np.testing.assert_allclose(results[:-3], np.exp(arguments[:-3]), rtol=2 * 2.0**-52)
    assert results[-4:].tolist() == [1.0, 0.0, 0.0, 0.0]


def plain(scores, k, temperature, n_iterations):
    """Rows and columns of exp(scores/temperature) scaled in turn, as a textbook has it: price and error."""
    n_tokens, n_experts = scores.shape
    load = n_tokens * k / n_experts
    matrix, scale = np.exp(scores / temperature), np.ones(n_experts)
    for _ in range(n_iterations):
        rows = k / (matrix @ scale)
        scale = load / (matrix.T @ rows)
    rows = k / (matrix @ scale)
    return temperature * np.log(scale), np.abs(scale * (matrix.T @ rows) / load - 1.0).max()


def by_logarithms(scores, temperature, n_iterations):
    n_tokens, n_experts = scores.shape
    price = np.zeros(n_experts)
    for iteration in range(n_iterations + 1):
        biased = (scores + price) / temperature
        columns = logsumexp(biased - logsumexp(biased, axis=1, keepdims=True), axis=0)
        columns += np.log(n_experts / n_tokens)
        if iteration < n_iterations:
            price = price - temperature * columns
    return price, np.abs(np.exp(columns) - 1.0).max()


def scaled(scores, k, temperature, n_iterations, tolerance=0.0):
    price = np.zeros(scores.shape[1])
    return price, *scale_columns(scores, k, temperature, n_iterations, tolerance, price)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_scales_as_the_textbook_does(seed, dtype):
    rng = np.random.default_rng(seed)
    n_tokens, n_experts, k = rng.integers(3, 30), rng.integers(2, 9), 1
    scores = rng.standard_normal((n_tokens, n_experts)).astype(dtype)
    scores[0, 0] = -np.inf
    price, n_done, error = scaled(scores, k, 0.3, 7)
    expected = plain(scores.astype(np.float64), k, 0.3, 7)
    assert n_done == 7
    # Seven scalings of sums of thirty terms: a few hundred roundings at most.
    np.testing.assert_allclose(price, expected[0], atol=1e-13)
    assert error == pytest.approx(expected[1], abs=1e-13)


@pytest.mark.parametrize("temperature", [1e-2, 1e-3, 1e-5])
def test_nothing_underflows(temperature):
    rng = np.random.default_rng(3)
    scores = rng.standard_normal((20, 5)) - np.array([0.0, 0.0, 0.0, 0.0, 30.0])
    with np.errstate(all="ignore"):  # the negative control
        assert not np.isfinite(plain(scores, 1, temperature, 5)[0]).all()
    price, _, error = scaled(scores, 1, temperature, 5)
    expected = by_logarithms(scores, temperature, 5)
    # Exponents up to 30/temperature, each right to 2**-53 of itself, times the temperature, some 20 of them.
    np.testing.assert_allclose(price, expected[0], atol=1e-13)
    # The error is a sum of exponentials of such exponents.
    assert error == pytest.approx(expected[1], abs=1e-13 / temperature)


def test_it_stops_within_the_tolerance():
    scores = np.random.default_rng(0).standard_normal((40, 4))
    price, n_done, error = scaled(scores, 2, 0.5, 1000, tolerance=1e-6)
    assert error <= 1e-6
    before = scaled(scores, 2, 0.5, n_done - 1)
    assert before[2] > 1e-6
    plan = np.exp((scores + price) / 0.5)
    plan *= 2.0 / plan.sum(axis=1, keepdims=True)
    assert np.abs(plan.sum(axis=0) / 20.0 - 1.0).max() == pytest.approx(error, abs=1e-13)


def test_an_expert_without_a_token():
    scores = np.random.default_rng(0).standard_normal((8, 3))
    scores[:, 1] = -np.inf
    assert scaled(scores, 1, 0.5, 10)[1] == EMPTY_COLUMN

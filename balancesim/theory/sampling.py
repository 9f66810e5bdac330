"""The imbalance that sampling alone leaves: MaxVio of a perfectly balanced random router."""

import functools
import math

import numpy as np

from balancesim.numbers import check_int
from balancesim.theory.arguments import sizes
from balancesim.types import Estimate, Float64Array, IntArray

_Z95 = 1.959963984540054
# Below this many tokens on either side of an expert (chosen, or not) the order-statistics form is not
# trusted.
_MIN_COUNT = 64.0
_MAX_REPLICATES, _MIN_REPLICATES = 20_000, 32
# Rough costs in seconds that share out 0.2 s of work; they set the number of replicates and nothing else.
_WORK, _PER_CALL, _PER_BINOMIAL, _PER_BATCH, _PER_KEY = 0.2, 3e-6, 35e-9, 15e-6, 15e-9


def max_violation_floor(n_tokens: int, n_experts: int, k: int) -> Estimate:
    """Compute the expected MaxVio when every token picks K of E experts uniformly at random.

    Parameters
    ----------
    n_tokens : int
        Tokens in the batch or window.
    n_experts, k : int
        1 <= k < n_experts.

    Returns
    -------
    Estimate
        The mean of max_k A_k/L - 1. From ``min(L, T - L)`` = 64 on: (m - L) sqrt(E/(E-1))/L, m the mean of
        the largest of E independent binomial loads, the root for the correlation -1/(E-1) that the fixed sum
        brings. The interval is 2 % times sqrt(8/min(L, T - L)), which covers the error seen against
        simulations for E from 2 to 1024 and min(L, T - L) >= 8 (largest: 1.5 % at 8, 0.4 % at 32). Below 64:
        the mean of up to 20,000 simulated batches with a fixed seed and its 95 % interval.

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    The loads' exact binomial law keeps the skewness and the steps that the normal form sigma
    sqrt(E/(E-1)) m_E/L leaves out (it is 3 % low at T=256, E=16, K=2 and 8 % low at T=64, E=64, K=8). Results
    are remembered, about 0.2 s each at most.
    """
    n_experts, k = sizes(n_experts, k)
    tokens = check_int("n_tokens", n_tokens, 1)
    return _floor(tokens, n_experts, k)


@functools.lru_cache(maxsize=256)
def _floor(n_tokens: int, n_experts: int, k: int) -> Estimate:
    capacity = n_tokens * k / n_experts
    fewest = min(capacity, n_tokens - capacity)
    if n_tokens == 1:
        exact = n_experts / k - 1.0
        return Estimate(exact, exact, exact, "exact: one token")
    if fewest >= _MIN_COUNT:
        value = _order_statistics(n_tokens, n_experts, k)
        error = 0.02 * math.sqrt(8.0 / fewest) * value
        return Estimate(value, value - error, value + error, "largest of E binomial loads")
    largest = _simulated_maxima(n_tokens, n_experts, k) / capacity - 1.0
    value = float(largest.mean())
    error = _Z95 * float(largest.std(ddof=1)) / math.sqrt(largest.size)
    return Estimate(value, value - error, value + error, f"{largest.size} simulated batches")


def _order_statistics(n_tokens: int, n_experts: int, k: int) -> float:
    """Mean of the largest of E independent binomial loads, widened for the fixed sum."""
    from scipy.stats import binom

    share = k / n_experts
    capacity = n_tokens * share
    sigma = math.sqrt(capacity * (1.0 - share))
    # P(max > m) on a grid; for wide distributions every stride-th m, at the middle of its stride, is enough.
    stride = 2 * int(sigma / 200.0) + 1
    start = max(0, int(capacity - 10.0 * sigma))
    middles = np.arange(start + stride // 2, min(n_tokens, capacity + 14.0 * sigma + 40.0), stride)
    exceeds = -np.expm1(n_experts * binom.logcdf(middles, n_tokens, share))
    mean = start + stride * float(exceeds.sum())
    return (mean - capacity) * math.sqrt(n_experts / (n_experts - 1)) / capacity


def _simulated_maxima(n_tokens: int, n_experts: int, k: int) -> Float64Array:
    """Largest loads of independent balanced batches, by whichever exact sampler is cheaper."""
    by_expert = int((_WORK / (n_experts * k) - _PER_CALL) / _PER_BINOMIAL)
    by_token = int(_WORK / (_PER_BATCH + n_tokens * n_experts * _PER_KEY))
    rng = np.random.default_rng(20_240_815)
    n_replicates = min(_MAX_REPLICATES, max(_MIN_REPLICATES, by_expert, by_token))
    if by_expert >= min(by_token, _MAX_REPLICATES):
        return _maxima_by_expert(rng, n_replicates, n_tokens, n_experts, k).astype(np.float64)
    return _maxima_by_token(rng, n_replicates, n_tokens, n_experts, k).astype(np.float64)


def _maxima_by_expert(
    rng: np.random.Generator, n_replicates: int, n_tokens: int, n_experts: int, k: int
) -> IntArray:
    """Experts in turn: a token with r picks left takes one of the n experts left with probability r/n."""
    with_picks_left = np.zeros((k + 1, n_replicates), dtype=np.int64)
    with_picks_left[k] = n_tokens
    largest = np.zeros(n_replicates, dtype=np.int64)
    for expert in range(n_experts):
        load = np.zeros(n_replicates, dtype=np.int64)
        for picks in range(1, k + 1):
            # In rising order of picks, tokens that move down a row are not drawn again for the same expert.
            taken = rng.binomial(with_picks_left[picks], min(1.0, picks / (n_experts - expert)))
            with_picks_left[picks] -= taken
            with_picks_left[picks - 1] += taken
            load += taken
        np.maximum(largest, load, out=largest)
    return largest


def _maxima_by_token(
    rng: np.random.Generator, n_replicates: int, n_tokens: int, n_experts: int, k: int
) -> IntArray:
    """Tokens one by one: the K largest of E uniform keys."""
    largest = np.empty(n_replicates, dtype=np.int64)
    for replicate in range(n_replicates):
        keys = rng.random((n_tokens, n_experts))
        chosen = np.argpartition(keys, n_experts - k, axis=1)[:, n_experts - k :]
        largest[replicate] = np.bincount(chosen.ravel(), minlength=n_experts).max()
    return largest

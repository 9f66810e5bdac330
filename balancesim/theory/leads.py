"""Each token's experts in exact order of the biased scores, and by how much each leads the K-th choice.

What the deterministic statements D1 to D3 measure is a function of these leads: numbers near zero where
choices hang, whatever the size of the scores (S5).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balancesim.batches import as_bias, check_masks, checked_scores
from balancesim.types import Float64Array, IntArray


class Leads(NamedTuple):
    """One batch, ordered at one bias.

    Attributes
    ----------
    order : (T, E) ndarray of int64
        Experts by falling biased score, compared exactly; equal ones by rising index. The first K are chosen.
    lead : (T, E) ndarray of float64
        Biased score of ``order`` less that of the K-th choice, rounded about once: at least 0 among the first
        K, at most 0 behind.
    loads : (E,) ndarray of int64
        Tokens per expert; sums to T K.
    tied : (T,) ndarray of bool
        Whether the K-th and the next biased score are the same real number.
    """

    order: IntArray
    lead: Float64Array
    loads: IntArray
    tied: NDArray[np.bool_]


def find_leads(scores: ArrayLike, bias: ArrayLike | None, k: int) -> Leads:
    """Order the experts of each token at a bias.

    Parameters
    ----------
    scores : (T, E) array_like of float32 or float64
    bias : (E,) array_like, optional
        In float64: it is not rounded to the scores' dtype.
    k : int

    Returns
    -------
    Leads

    Raises
    ------
    InputError
        As `route`.

    Notes
    -----
    A sum of two numbers is its rounded value and the rounding error (Knuth's TwoSum). The rounded value is
    monotone in the sum, so that these pairs compare as the sums do.
    """
    array = checked_scores(scores, None, k)[0].astype(np.float64)
    if not np.isfinite(array).all():
        check_masks(array, k)
    n_tokens, n_experts = array.shape
    prices = np.zeros(n_experts) if bias is None else as_bias(bias, n_experts, "bias")
    with np.errstate(invalid="ignore"):
        rounded, error = two_sum(array, prices)
    error[np.isinf(rounded)] = 0.0
    order = np.lexsort((-error, -rounded), axis=1)
    last, following = order[:, k - 1 : k], order[:, k : k + 1]
    tied = np.ones(n_tokens, np.bool_)
    for part in (rounded, error):
        tied &= (np.take_along_axis(part, last, 1) == np.take_along_axis(part, following, 1))[:, 0]
    ranked = np.take_along_axis(array, order, 1)
    with np.errstate(invalid="ignore"):
        lead = sum_of_differences(ranked, ranked[:, k - 1 : k], prices[order], prices[last])
    lead[np.isneginf(ranked)] = -np.inf
    np.maximum(lead[:, :k], 0.0, out=lead[:, :k])
    np.minimum(lead[:, k:], 0.0, out=lead[:, k:])
    loads = np.bincount(order[:, :k].ravel(), minlength=n_experts)
    return Leads(order, lead, loads, tied)


def two_sum(a: Float64Array, b: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Return a + b rounded, and the rounding error: together exact (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def sum_of_differences(a: Float64Array, b: Float64Array, c: Float64Array, d: Float64Array) -> Float64Array:
    """Return (a - b) + (c - d), rounded about once, though the two differences may nearly cancel."""
    first, first_error = two_sum(a, -b)
    second, second_error = two_sum(c, -d)
    total, error = two_sum(first, second)
    return np.asarray(total + (error + (first_error + second_error)))

"""Which expert a token drops for which in one step, and whether the price moved that way (D4)."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balancesim.batches import as_bias, checked_scores
from balancesim.routing import route
from balancesim.theory.leads import sum_of_differences, two_sum
from balancesim.types import Float64Array, IntArray


class Preference(NamedTuple):
    """The switches of one step, and the pairs that go against the price.

    Attributes
    ----------
    n_switches : int
        Pairs of an expert that a token leaves and one that it enters, over all tokens.
    token, leaving, entering : (M,) ndarray of int64
        The pairs whose entering expert's price did not move up against the leaving one's: none in exact
        arithmetic.
    gap : (M,) ndarray of float64
        How far apart the pair's biased scores are, exactly, in units in the last place of the scores' dtype:
        the larger of the values before and after the step. Rounding explains up to 2.
    """

    n_switches: int
    token: IntArray
    leaving: IntArray
    entering: IntArray
    gap: Float64Array


def preference(scores: ArrayLike, bias: ArrayLike, new_bias: ArrayLike, *, k: int) -> Preference:
    """Compare every pair of a left and an entered expert with how their prices moved (D4).

    Parameters
    ----------
    scores : (T, E) array_like of float32 or float64
        The batch, the same before and after the step.
    bias, new_bias : (E,) array_like
        p and p+, in float64.
    k : int
        Experts per token.

    Returns
    -------
    Preference

    Raises
    ------
    InputError
        As `route`; or if a bias that `route` rounds to the scores' dtype is infinite there.

    Notes
    -----
    Choices are those of `route`: biased scores as rounded, ties to the lower index. Prices are compared
    exactly, as given. The unit in the last place is that of the largest of the pair's prices and biased
    scores: rounding the price and the sum moves a biased score by at most one such unit, hence a pair by 2.
    Source: theory.md D4.
    """
    array, _ = checked_scores(scores, None, k)
    n_experts = array.shape[1]
    prices, moved = as_bias(bias, n_experts, "bias"), as_bias(new_bias, n_experts, "new_bias")
    old = _members(array, prices, k)
    new = _members(array, moved, k)
    rows = np.flatnonzero((old != new).any(axis=1))
    leaving, entering = old[rows] & ~new[rows], new[rows] & ~old[rows]
    n_switches = int((entering.sum(axis=1) ** 2).sum())
    rank = _ranks(prices, moved)
    least = np.where(entering, rank, n_experts).min(axis=1, initial=n_experts)
    most = np.where(leaving, rank, -1).max(axis=1, initial=-1)
    against = np.flatnonzero(least <= most)
    row, left, entered = np.nonzero(
        leaving[against, :, None] & entering[against, None, :] & (rank[None, :, None] >= rank[None, None, :])
    )
    token = rows[against[row]]
    gaps = [_gap(array, price, token, left, entered) for price in (prices, moved)]
    unit = np.maximum(*(unit for _, unit in gaps))
    gap = np.maximum(*(apart for apart, _ in gaps)) / unit
    return Preference(n_switches, token, left, entered, gap)


def _members(scores: NDArray[Any], bias: NDArray[Any], k: int) -> NDArray[np.bool_]:
    members = np.zeros(scores.shape, np.bool_)
    experts: Any = route(scores, bias, k=k, experts=True).experts
    np.put_along_axis(members, experts, True, axis=1)
    return members


def _ranks(prices: Float64Array, moved: Float64Array) -> IntArray:
    """Ranks of the exact moves, equal where these are."""
    move, error = two_sum(moved, -prices)
    order = np.lexsort((error, move))
    differs = (np.diff(move[order]) != 0.0) | (np.diff(error[order]) != 0.0)
    rank = np.empty(prices.size, np.int64)
    rank[order] = np.concatenate([[0], np.cumsum(differs)])
    return rank


def _gap(
    scores: NDArray[Any], prices: Float64Array, token: IntArray, left: IntArray, entered: IntArray
) -> tuple[Float64Array, Float64Array]:
    """Distance of a pair's biased scores, and the unit in the last place of its largest number."""
    pair = [(scores[token, expert].astype(np.float64), prices[expert]) for expert in (left, entered)]
    (a, p), (b, q) = pair
    largest = np.max([np.abs(a + p), np.abs(b + q), np.abs(p), np.abs(q)], axis=0)
    unit = np.spacing(largest.astype(scores.dtype)).astype(np.float64)
    return np.abs(sum_of_differences(a, b, p, q)), unit

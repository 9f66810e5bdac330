"""The curvature without a model: tokens whose choice hangs by a thread are counted (S3 b).

The entry -h_kj of the Hessian is minus the density of experts k and j tying exactly at the K-th place. Tokens
with |x_k - x_j| < w and exactly K - 1 other scores above the pair's midpoint estimate it with a bias of order
w squared.
"""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from balancesim.batches import check_masks
from balancesim.errors import InputError
from balancesim.types import Estimate, Float64Array, IntArray

_Z95 = 1.959963984540054
# No event in n trials leaves rates up to 3.7/n in a 97.5 % interval (the rule of three).
_NO_EVENT = 3.7
_MIN_TOKENS = 16
_BLOCK = 2**20


class NearTies(NamedTuple):
    """Counted near-ties: the token, the expert just chosen, the expert just left out; all of shape (M,)."""

    token: IntArray
    chosen: IntArray
    left_out: IntArray
    n_exact: int


def gap_modulus(batches: Iterable[Float64Array], n_tokens: int, bias: Float64Array, k: int) -> Estimate:
    """lambda_2 of the counted Laplacian, with a conservative 95 % interval.

    Parameters
    ----------
    batches : iterable of (T_b, E) arrays
        Scores, ``n_tokens`` rows in all; the width is chosen from the first batch.
    n_tokens : int
    bias : (E,) array
    k : int

    Notes
    -----
    The width is the median over tokens of the score gap across the K-th place, between the ranks
    that half and double the number of experts on either side, times n_tokens**(-1/4). The mean-square optimum
    falls as n_tokens**(-1/5): this width is smaller (undersmoothing), so that the bias of order w squared
    stays well below the sampling error.
    """
    if n_tokens < _MIN_TOKENS:
        raise InputError(f'`source` must give at least {_MIN_TOKENS} tokens for method="gap", got {n_tokens}')
    width = 0.0
    found: list[NearTies] = []
    n_seen = 0
    for scores in batches:
        check_masks(scores, k, n_seen)
        biased = scores + bias
        if n_seen == 0:
            width = _spread_across_boundary(biased, k) * n_tokens**-0.25
        found.extend(_near_ties(biased, k, width, first_token=n_seen))
        n_seen += len(scores)
    ties = NearTies(
        token=np.concatenate([part.token for part in found]),
        chosen=np.concatenate([part.chosen for part in found]),
        left_out=np.concatenate([part.left_out for part in found]),
        n_exact=sum(part.n_exact for part in found),
    )
    if ties.n_exact > 0.05 * max(20, ties.token.size):
        raise InputError(
            f"scores tie exactly at the K-th place {ties.n_exact} times among {ties.token.size} near-ties: "
            "a distribution with atoms has no curvature (S1); use scores of higher precision, or a transform "
            "that does not saturate"
        )
    return _estimate(ties, n_tokens, bias.size, width)


def _spread_across_boundary(biased: Float64Array, k: int) -> float:
    """Median score gap between the ranks that halve or double the experts on either side of place K."""
    n_experts = biased.shape[1]
    upper = max(math.ceil(k / 2), 2 * k - n_experts + 1)
    lower = min(2 * k, n_experts + 1 - math.ceil((n_experts - k) / 2))
    ranked = np.sort(biased, axis=1)[:, ::-1]
    gaps = ranked[:, upper - 1] - ranked[:, lower - 1]
    spread = float(np.median(gaps))
    if not 0.0 < spread < math.inf:
        raise InputError(
            f"scores around the K-th place have the median spread {spread}: near-ties cannot be counted "
            "(constant scores, or more than half of the tokens masked down to the boundary)"
        )
    return spread


def _near_ties(biased: Float64Array, k: int, width: float, first_token: int) -> Iterator[NearTies]:
    """Count within one batch, in blocks of bounded size.

    With the scores of a token in falling order, exactly K - 1 others lie above the midpoint of a pair just
    when the pair has one member among the first K and the other below, and the midpoint falls between places
    K and K + 1.
    """
    n_experts = biased.shape[1]
    split = np.partition(biased, (n_experts - k - 1, n_experts - k), axis=1)
    near = np.flatnonzero(split[:, n_experts - k] < split[:, n_experts - k - 1] + width)
    order = np.argsort(-biased[near], axis=1, kind="stable")
    ranked = np.take_along_axis(biased[near], order, axis=1)
    last, first_out = ranked[:, k - 1 : k], ranked[:, k : k + 1]
    n_up = int((ranked[:, :k] < first_out + width).sum(axis=1).max(initial=1))
    n_down = int((ranked[:, k:] > last - width).sum(axis=1).max(initial=1))
    rows = max(1, _BLOCK // (n_up * n_down))
    for start in range(0, max(1, near.size), rows):
        block = slice(start, start + rows)
        above = ranked[block, k - n_up : k, None]
        below = ranked[block, None, k : k + n_down]
        middle = 0.5 * (above + below)
        inside = (middle <= last[block, :, None]) & (middle >= first_out[block, :, None])
        counted = (above - below < width) & inside
        row, up, down = np.nonzero(counted)
        ids = order[block]
        yield NearTies(
            token=first_token + near[block][row],
            chosen=ids[row, k - n_up + up],
            left_out=ids[row, k + down],
            n_exact=int(np.count_nonzero(counted & (above == below))),
        )


def _estimate(ties: NearTies, n_tokens: int, n_experts: int, width: float) -> Estimate:
    """Smallest eigenvalue on the zero-sum subspace, and an interval that errs on the wide side.

    E lambda_2(estimate) <= lambda_2, so the sampling error along the eigenvector, subtracted, gives a lower
    end. For any unit v that sums to zero lambda_2 <= v'Hv; with v from one half of the tokens the other half
    estimates v'Hv without bias, which gives the upper end.
    """
    value, vector = _least_eigenpair(ties, n_tokens, n_experts, width)
    _, deviation = _along(vector, ties, n_tokens, width)
    means, deviations, heaviest = [], [], 0.0
    odd = ties.token % 2 == 1
    n_odd = n_tokens // 2
    for half, n_half in ((odd, n_odd), (~odd, n_tokens - n_odd)):
        direction = _least_eigenpair(_subset(ties, half), n_half, n_experts, width)[1]
        mean, spread = _along(direction, _subset(ties, ~half), n_tokens - n_half, width)
        means.append(mean)
        deviations.append(spread)
        heaviest = max(heaviest, float(np.ptp(direction)) ** 2 / (2.0 * width))
    high = sum(means) / 2 + _Z95 * sum(deviations) / 2 + _NO_EVENT * heaviest / n_tokens
    method = f"boundary gaps (S3 b): {ties.token.size} near-ties within {width:.3g} in {n_tokens} tokens"
    return Estimate(value, max(0.0, value - _Z95 * deviation), max(value, high), method)


def _subset(ties: NearTies, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> NearTies:
    return NearTies(ties.token[keep], ties.chosen[keep], ties.left_out[keep], ties.n_exact)


def _least_eigenpair(
    ties: NearTies, n_tokens: int, n_experts: int, width: float
) -> tuple[float, Float64Array]:
    flat = np.bincount(ties.chosen * n_experts + ties.left_out, minlength=n_experts * n_experts)
    counts = flat.reshape(n_experts, n_experts).astype(np.float64)
    weights = (counts + counts.T) / (2.0 * width * n_tokens)
    laplacian = np.diag(weights.sum(axis=1)) - weights
    # With the all-ones direction lifted above every other, the zero-sum subspace's least eigenvalue is first.
    lift = 1.0 + 2.0 * float(laplacian.max())
    values, vectors = np.linalg.eigh(laplacian + lift / n_experts)
    return max(0.0, float(values[0])), vectors[:, 0]


def _along(vector: Float64Array, ties: NearTies, n_tokens: int, width: float) -> tuple[float, float]:
    """Quadratic form v'Hv and its standard error; pairs of one token are added first, as they depend."""
    squares = (vector[ties.chosen] - vector[ties.left_out]) ** 2 / (2.0 * width)
    _, position = np.unique(ties.token, return_inverse=True)
    per_token = np.bincount(position, weights=squares)
    mean = float(per_token.sum()) / n_tokens
    variance = max(0.0, float((per_token**2).sum()) / n_tokens - mean**2)
    return mean, math.sqrt(variance / n_tokens)

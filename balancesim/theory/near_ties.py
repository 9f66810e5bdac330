"""The curvature without a model: tokens whose choice hangs by a thread are counted (S3).

The entry -h_kj of the Hessian is minus the density of experts k and j tying exactly at the K-th place. Two
counts estimate it, with a bias of order w squared where densities are smooth:

- *gap*: tokens with |x_k - x_j| < w and exactly K - 1 other scores above the pair's midpoint;
- *difference*: the central difference of the loads when one price is moved by w and back by w, all tokens the
  same. Expert j then changes places with the last expert chosen, or with the first one left out, if that is
  within w of it: the pairs of those two experts. Each move tells of one row; rows and columns are averaged.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from balancesim.batches import check_masks
from balancesim.errors import InputError
from balancesim.theory.hessian import least_eigenvalue
from balancesim.types import Estimate, Float64Array, IntArray

_Z95 = 1.959963984540054
# No event in n trials leaves rates up to 3.7/n in a 97.5 % interval (the rule of three).
_NO_EVENT = 3.7
# Differences of loads have the larger bias of the two, several times that of gaps at one width.
_RATE = {"gap": -1 / 4, "difference": -1 / 3}
_MIN_TOKENS = 16
_MIN_EVENTS = 10
_BLOCK = 2**20


class NearTies(NamedTuple):
    """Counted near-ties, each (M,): token, expert chosen, expert left out, and how much the pair counts."""

    token: IntArray
    chosen: IntArray
    left_out: IntArray
    weight: Float64Array
    n_exact: int


class Counted(NamedTuple):
    """All near-ties within a width of a number of tokens; they grow like n_tokens to the power ``growth``."""

    ties: NearTies
    width: float
    n_tokens: int
    n_experts: int
    growth: float


class Interval(NamedTuple):
    """An estimate with the ends of its interval, each of one shape."""

    value: Float64Array
    low: Float64Array
    high: Float64Array


def count_near_ties(
    batches: Iterable[Float64Array],
    n_tokens: int,
    bias: Float64Array,
    k: int,
    method: str = "gap",
    width: float | None = None,
) -> Counted:
    """Count near-ties over batches of scores, ``n_tokens`` rows in all.

    Parameters
    ----------
    batches : iterable of (T_b, E) arrays
        The width is chosen from the first batch, if none is given.
    n_tokens : int
    bias : (E,) array
    k : int
    method : {"gap", "difference"}
    width : float, optional
        In score units.

    Notes
    -----
    The width is the median over tokens of the score gap across the K-th place, between the ranks that halve
    and double the number of experts on either side, times n_tokens**(-1/4) for gaps and n_tokens**(-1/3) for
    differences. The mean-square optimum falls as n_tokens**(-1/5): these widths are smaller (undersmoothing),
    so that the bias of order w squared stays below the sampling error, and the more so the more tokens there
    are.
    """
    if n_tokens < _MIN_TOKENS:
        raise InputError(
            f'`source` must give at least {_MIN_TOKENS} tokens for method="{method}", got {n_tokens}'
        )
    pairs = _gap_pairs if method == "gap" else _difference_pairs
    reach = width
    found: list[NearTies] = []
    n_seen = 0
    for scores in batches:
        check_masks(scores, k, n_seen)
        biased = scores + bias
        if reach is None:
            reach = _spread_across_boundary(biased, k) * n_tokens ** _RATE[method]
        found.extend(_near_ties(biased, k, reach, n_seen, pairs))
        n_seen += len(scores)
    ties = NearTies(
        token=np.concatenate([part.token for part in found]),
        chosen=np.concatenate([part.chosen for part in found]),
        left_out=np.concatenate([part.left_out for part in found]),
        weight=np.concatenate([part.weight for part in found]),
        n_exact=sum(part.n_exact for part in found),
    )
    if ties.n_exact > 0.05 * max(20, ties.token.size):
        raise InputError(
            f"scores tie exactly at the K-th place {ties.n_exact} times among {ties.token.size} near-ties: "
            "a distribution with atoms has no curvature (S1); use scores of higher precision, or a transform "
            "that does not saturate"
        )
    growth = 1.0 if width is not None else 1.0 + _RATE[method]
    return Counted(ties, float(reach or 0.0), n_tokens, bias.size, growth)


def require_enough(counted: Counted) -> None:
    """Refuse fewer than 10 near-ties, and say with how many tokens twice as many may be expected."""
    n_found = counted.ties.token.size
    if n_found < _MIN_EVENTS:
        needed = math.ceil(counted.n_tokens * (2 * _MIN_EVENTS / max(1, n_found)) ** (1.0 / counted.growth))
        raise InputError(
            f"{n_found} near-ties among {counted.n_tokens} tokens are too few for an estimate with an "
            f"interval, which needs {_MIN_EVENTS}; give about {needed} tokens or more, "
            "or a bias at which experts meet at the K-th place"
        )


def counted_weights(counted: Counted) -> Interval:
    """Estimates of all h_kj, (E, E), each with its own 95 % interval; the diagonals are zero."""
    total = _matrix(counted.ties, counted.n_experts, counted.ties.weight)
    squares = _matrix(counted.ties, counted.n_experts, counted.ties.weight**2)
    low, high = _rate_interval(total, squares, counted.n_tokens)
    per = 1.0 / (2.0 * counted.width * counted.n_tokens)
    for end in (low, high):
        np.fill_diagonal(end, 0.0)
    return Interval(total * per, low * per, high * per)


def counted_hessian(counted: Counted) -> Float64Array:
    """The (E, E) Laplacian of the counted h_kj."""
    weights = counted_weights(counted).value
    return np.diag(weights.sum(axis=1)) - weights


def counted_mean_eigenvalue(counted: Counted, method: str) -> Estimate:
    """trace(H)/(E-1), the mean eigenvalue on the zero-sum subspace, with a 95 % interval."""
    _, position = np.unique(counted.ties.token, return_inverse=True)
    # Pairs of one token are added first, as they depend on each other.
    per_token = np.bincount(position, weights=counted.ties.weight)
    total, squares = np.array(per_token.sum()), np.array((per_token**2).sum())
    low, high = _rate_interval(total, squares, counted.n_tokens)
    per = 1.0 / (counted.width * counted.n_tokens * (counted.n_experts - 1))
    return Estimate(float(total) * per, float(low) * per, float(high) * per, describe(counted, method))


def counted_modulus(counted: Counted, method: str) -> Estimate:
    """lambda_2 of the counted Laplacian, and an interval that errs on the wide side.

    E lambda_2(estimate) <= lambda_2, so the sampling error along the eigenvector, subtracted, gives a lower
    end. For any unit v that sums to zero lambda_2 <= v'Hv; with v from one half of the tokens the other half
    estimates v'Hv without bias, which gives the upper end.
    """
    ties, width, n_tokens, n_experts, _ = counted
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
    low = max(0.0, value - _Z95 * deviation)
    return Estimate(value, low, max(value, high), describe(counted, method))


def describe(counted: Counted, method: str) -> str:
    """One line on how near-ties were counted."""
    form = "boundary gaps (S3 b)" if method == "gap" else "differences of loads (S3 a)"
    return (
        f"{form}: {counted.ties.token.size} near-ties within {counted.width:.3g} in {counted.n_tokens} tokens"
    )


def _rate_interval(
    total: Float64Array, squares: Float64Array, n_tokens: int
) -> tuple[Float64Array, Float64Array]:
    """Score interval of an expected sum over tokens, from the sum and the tokens' squares.

    Score intervals keep their level at small counts, where the sum's normal interval would not: the sum is
    taken as a Poisson count of events of one size, that which gives the tokens' variance.
    """
    variance = np.maximum(squares - total**2 / n_tokens, 0.0)
    size = np.divide(variance, total, out=np.ones_like(total), where=total > 0.0)
    n_events = np.divide(total, size, out=np.zeros_like(total), where=size > 0.0)
    centre = n_events + _Z95**2 / 2.0
    half = _Z95 * np.sqrt(n_events + _Z95**2 / 4.0)
    low, high = np.maximum(centre - half, 0.0) * size, (centre + half) * size
    # Without variance every token counts the same.
    return np.where(size > 0.0, low, total), np.where(size > 0.0, high, total)


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


_Pairs = Callable[[Float64Array, Float64Array, float], Float64Array]
"""How much pairs count: members above (M, a, 1), members below (M, 1, b), the width; (M, a, b)."""


def _near_ties(
    biased: Float64Array, k: int, width: float, first_token: int, pairs: _Pairs
) -> Iterator[NearTies]:
    """Count within one batch, in blocks of bounded size.

    Of either kind of pair, one member is among the first K scores of the token and the other is below, and
    the K-th and (K+1)-th score are within the width.
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
        weight = pairs(above, below, width)
        row, up, down = np.nonzero(weight)
        ids = order[block]
        yield NearTies(
            token=first_token + near[block][row],
            chosen=ids[row, k - n_up + up],
            left_out=ids[row, k + down],
            weight=weight[row, up, down],
            n_exact=int(np.count_nonzero((weight > 0.0) & (above == below))),
        )


def _gap_pairs(above: Float64Array, below: Float64Array, width: float) -> Float64Array:
    """1 where the midpoint falls between places K and K + 1: just then exactly K - 1 others are above it."""
    middle = 0.5 * (above + below)
    inside = (middle <= above[:, -1:]) & (middle >= below[:, :, :1])
    return ((above - below < width) & inside).astype(np.float64)


def _difference_pairs(above: Float64Array, below: Float64Array, width: float) -> Float64Array:
    """1/2 for each of the two experts of a pair that changes places with the other when its price moves."""
    weight = np.zeros(np.broadcast_shapes(above.shape, below.shape))
    close = above - below < width
    weight[:, :, 0] += 0.5 * close[:, :, 0]
    weight[:, -1, :] += 0.5 * close[:, -1, :]
    return weight


def _subset(ties: NearTies, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> NearTies:
    return NearTies(ties.token[keep], ties.chosen[keep], ties.left_out[keep], ties.weight[keep], ties.n_exact)


def _matrix(ties: NearTies, n_experts: int, amounts: Float64Array) -> Float64Array:
    """Symmetric (E, E) sums over near-ties of each pair of experts."""
    flat = np.bincount(ties.chosen * n_experts + ties.left_out, weights=amounts, minlength=n_experts**2)
    sums = flat.astype(np.float64).reshape(n_experts, n_experts)
    return sums + sums.T


def _least_eigenpair(
    ties: NearTies, n_tokens: int, n_experts: int, width: float
) -> tuple[float, Float64Array]:
    weights = _matrix(ties, n_experts, ties.weight) / (2.0 * width * n_tokens)
    return least_eigenvalue(np.diag(weights.sum(axis=1)) - weights)


def _along(vector: Float64Array, ties: NearTies, n_tokens: int, width: float) -> tuple[float, float]:
    """Quadratic form v'Hv and its standard error; pairs of one token are added first, as they depend."""
    squares = ties.weight * (vector[ties.chosen] - vector[ties.left_out]) ** 2 / (2.0 * width)
    _, position = np.unique(ties.token, return_inverse=True)
    per_token = np.bincount(position, weights=squares)
    mean = float(per_token.sum()) / n_tokens
    variance = max(0.0, float((per_token**2).sum()) / n_tokens - mean**2)
    return mean, math.sqrt(variance / n_tokens)

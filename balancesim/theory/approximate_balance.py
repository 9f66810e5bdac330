"""The sign rule on one batch, repeated: when it balances, how far, how soon (D5)."""

import itertools
import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from balancesim.batches import as_bias, checked_scores
from balancesim.errors import InputError
from balancesim.numbers import check_int, check_positive
from balancesim.problem import check_sizes
from balancesim.routing import route
from balancesim.theory.leads import two_sum
from balancesim.types import Float64Array, IntArray


class SignRun(NamedTuple):
    """A run of the sign rule on the same scores at every step.

    Attributes
    ----------
    loads : (N, E) ndarray of int64
        Row n holds the loads at the bias after n steps.
    deviation : (N,) ndarray of float64
        max_k |A_k - L| of each row.
    entered : int or None
        The first row from which on every row, for ever if there is a cycle, lies within the band that was
        asked about; None without one.
    cycle_start, period : int or None
        The first row whose state comes back, and after how many steps; a period of 1 is a fixed point. None
        if no state came back within the horizon.
    """

    loads: IntArray
    deviation: Float64Array
    entered: int | None
    cycle_start: int | None
    period: int | None


def breakpoint_gap(scores: ArrayLike) -> Fraction:
    """The least distance of two tokens' breakpoints of one pair of experts, exactly.

    Parameters
    ----------
    scores : (T, E) array_like of float32 or float64
        Finite.

    Returns
    -------
    Fraction
        The least |(x_ik - x_ij) - (x_mk - x_mj)| over tokens i != m and experts k != j. The sign rule with a
        step size of at most half of it exchanges at most one token between two experts in a step (D5).

    Raises
    ------
    InputError
        As `route`; or if a score is infinite, or there is only one token.

    Notes
    -----
    E(E-1)/2 sorts of T breakpoints, each a rounded difference and its error, hence exact.
    Source: theory.md D5.
    """
    array = _finite(scores)
    n_tokens, n_experts = array.shape
    if n_tokens < 2:
        raise InputError("`scores` must hold at least 2 tokens: one has no gap, and every step size will do")
    found = []
    for k, j in itertools.combinations(range(n_experts), 2):
        point, error = two_sum(array[:, k], -array[:, j])
        order = np.lexsort((error, point))
        found.append(_least_gap(point[order], error[order]))
    return min(found)


def _least_gap(point: Float64Array, error: Float64Array) -> Fraction:
    """Return the least difference of neighbours among sorted numbers, each a rounded value and the rest."""
    upper, upper_rest = two_sum(point[1:], -point[:-1])
    lower, lower_rest = two_sum(error[1:], -error[:-1])
    total, rest = two_sum(upper, lower)
    rounded = total + (rest + (upper_rest + lower_rest))
    exact = (rest == 0.0) & (upper_rest == 0.0) & (lower_rest == 0.0)
    candidates = rounded <= rounded.min() * (1.0 + 1e-15)
    found = {Fraction(float(gap)) for gap in np.unique(total[candidates & exact])}
    for i in np.flatnonzero(candidates & ~exact):
        high, low = (Fraction(float(point[t])) + Fraction(float(error[t])) for t in (i + 1, i))
        found.add(high - low)
    return min(found)


def balance_band(n_tokens: int, n_experts: int, k: int) -> tuple[Fraction, Fraction]:
    """How far below and above L the loads stay in the end, if D5's hypothesis holds.

    Parameters
    ----------
    n_tokens, n_experts, k : int
        Tokens per batch, experts, experts per token.

    Returns
    -------
    below, above : Fraction
        L - below <= A_k <= L + above from some step on: E - 2 for integer L, at most E - 2 + 1/E else.

    Raises
    ------
    InputError
        If an argument is out of range.

    Notes
    -----
    With r = T K mod E > 0, below = max(E - 1 - r, E - 3) + r/E, and above the same of E - r. For E = 2 and
    integer L the loads end up at L. Source: docs/theory.md D5.
    """
    check_sizes(n_experts, k, n_tokens)
    remainder = n_tokens * k % n_experts
    if remainder == 0:
        return Fraction(n_experts - 2), Fraction(n_experts - 2)
    below, above = (
        max(n_experts - 1 - r, n_experts - 3) + Fraction(r, n_experts)
        for r in (remainder, n_experts - remainder)
    )
    return below, above


def sign_run(
    scores: ArrayLike,
    *,
    k: int,
    step_size: float,
    horizon: int,
    bias: ArrayLike | None = None,
    band: float | Fraction | None = None,
) -> SignRun:
    """Repeat the sign rule on one batch until a state comes back, or to the horizon (D5).

    Parameters
    ----------
    scores : (T, E) array_like of float32 or float64
        The same at every step.
    k : int
        Experts per token.
    step_size : float
        u.
    horizon : int
        The most steps.
    bias : (E,) array_like, optional
        The price to start from; zero if omitted.
    band : float or Fraction, optional
        The largest max|A_k - L| of the band whose entry is reported; E - 1 if omitted.

    Returns
    -------
    SignRun
        Ends with the row before the first state that came back. Steps in the cycle repeat for ever.

    Raises
    ------
    InputError
        As `route`, or if a number is not positive.

    Notes
    -----
    The price is kept as whole steps of each expert, less the least: bias + u (n - min n). Equal states have
    equal futures, so that a period is exact; the price is that of `AlfLB(schedule="sign")` up to a constant
    wherever multiples of u are exact, as for dyadic u. sign(A_k - L) is that of the integer A_k E - T K.
    Source: theory.md D5.
    """
    array, _ = checked_scores(scores, None, k)
    n_tokens, n_experts = array.shape
    start = np.zeros(n_experts) if bias is None else as_bias(bias, n_experts, "bias")
    check_positive("step_size", step_size)
    check_int("horizon", horizon, 1)
    steps = np.zeros(n_experts, np.int64)
    seen: dict[bytes, int] = {}
    rows: list[IntArray] = []
    cycle_start = None
    while len(rows) <= horizon:
        cycle_start = seen.setdefault(steps.tobytes(), len(rows))
        if cycle_start < len(rows):
            break
        cycle_start = None
        loads = route(array, start + step_size * steps, k=k).loads
        rows.append(loads)
        steps = steps - np.sign(loads * n_experts - n_tokens * k)
        steps -= steps.min()
    loads = np.array(rows)
    deviation = np.abs(loads * n_experts - n_tokens * k).max(axis=1)
    width = Fraction(n_experts - 1) if band is None else Fraction(band)
    outside = np.flatnonzero(deviation > math.floor(width * n_experts))
    entered = int(outside[-1]) + 1 if outside.size else 0
    # What a cycle leaves the band for comes back; without one the rows that were run must do.
    stays = entered <= (len(rows) - 1 if cycle_start is None else cycle_start)
    return SignRun(
        loads=loads,
        deviation=deviation / n_experts,
        entered=entered if stays else None,
        cycle_start=cycle_start,
        period=None if cycle_start is None else len(rows) - cycle_start,
    )


def _finite(scores: ArrayLike) -> Float64Array:
    array = checked_scores(scores, None, 1)[0].astype(np.float64)
    if not np.isfinite(array).all():
        token, expert = np.argwhere(~np.isfinite(array))[0]
        raise InputError(
            f"`scores` must be finite, got {array[token, expert]} at token {token}, expert {expert}: "
            "a masked expert has no breakpoints"
        )
    return array

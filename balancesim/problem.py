"""Definitions and sign conventions: what a load, a capacity and a violation are (docs/theory.md, "Symbols").

``bias`` is added to the scores for selection only; it is the dual price with DeepSeek's sign, so that a
bias rises where an expert has too few tokens.
"""

from fractions import Fraction
from math import ceil, floor
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from balancesim.errors import InputError
from balancesim.numbers import check_int
from balancesim.types import Float64Array, IntArray


def check_sizes(n_experts: int, k: int, n_tokens: int | None = None) -> None:
    """Raise `InputError` unless 1 <= k < n_experts and n_tokens >= 1."""
    check_int("n_experts", n_experts, 2)
    if not 1 <= check_int("k", k, -(1 << 62)) < n_experts:
        raise InputError(
            f"`k` must satisfy 1 <= k < n_experts = {n_experts}, got {k}; at k = n_experts nothing is chosen"
        )
    if n_tokens is not None:
        check_int("n_tokens", n_tokens, 1)


def balanced_load(n_tokens: int, n_experts: int, k: int) -> float:
    """Tokens per expert under perfect balance, L = T K / E; may be fractional."""
    return n_tokens * k / n_experts


def check_rounding(rounding: str) -> None:
    """Raise `InputError` unless the argument says how a fractional capacity is rounded."""
    if rounding not in ("ceil", "floor"):
        raise InputError(f'`rounding` must be "ceil" or "floor", got {rounding!r}')


def expert_capacity(
    n_tokens: int, n_experts: int, k: int, *, rounding: Literal["ceil", "floor"], factor: float = 1.0
) -> int:
    """Tokens that an expert may keep: factor T K / E, rounded; the factor is its shortest decimal number."""
    exact = Fraction(repr(factor)) * n_tokens * k / n_experts
    return ceil(exact) if rounding == "ceil" else floor(exact)


def max_violation(loads: ArrayLike) -> float | Float64Array:
    """MaxVio of Wang et al. (2024): the largest load over the mean load, minus one.

    Parameters
    ----------
    loads : (..., E) array_like
        Tokens per expert, of one batch or summed over a window.

    Returns
    -------
    float or (...) ndarray of float64
        0 under perfect balance, E/K - 1 at worst.

    Raises
    ------
    InputError
        If there is no expert, a load is negative or not finite, or all loads of a batch are zero.
    """
    loads_array = _checked_loads(loads)
    return _plain(loads_array.max(axis=-1) / loads_array.mean(axis=-1) - 1.0)


def coefficient_of_variation(loads: ArrayLike) -> float | Float64Array:
    """Standard deviation of the loads over their mean (population formula).

    Parameters
    ----------
    loads : (..., E) array_like
        Tokens per expert.

    Returns
    -------
    float or (...) ndarray of float64
        0 under perfect balance.
    """
    loads_array = _checked_loads(loads)
    return _plain(loads_array.std(axis=-1) / loads_array.mean(axis=-1))


def dead_experts(loads: ArrayLike) -> int | np.ndarray:
    """Number of experts that received no token.

    Parameters
    ----------
    loads : (..., E) array_like
        Tokens per expert.

    Returns
    -------
    int or (...) ndarray of int64
        Experts with load zero.
    """
    dead = (_checked_loads(loads) == 0).sum(axis=-1)
    return int(dead) if dead.ndim == 0 else dead


def _checked_loads(loads: ArrayLike) -> Float64Array:
    try:
        array = np.asarray(loads, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"`loads` must be numbers of one shape, got {loads!r}") from None
    if array.ndim == 0 or array.shape[-1] == 0:
        raise InputError(f"`loads` must have one entry per expert, got shape {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise InputError("`loads` must be finite and not negative")
    if (array.sum(axis=-1) == 0).any():
        raise InputError("`loads` must hold at least one token per batch, got all zeros")
    return array


def _plain(value: Float64Array) -> float | Float64Array:
    return float(value) if np.ndim(value) == 0 else value


def load_limits(
    capacity: ArrayLike | None, n_tokens: int, n_experts: int, k: int
) -> tuple[IntArray, IntArray]:
    """Least and largest load of each expert.

    Parameters
    ----------
    capacity : None, (E,) or (E, 2) array_like of int
        None: the floor and the ceiling of T K / E. (E,): both limits at once. (E, 2): least and largest.
    n_tokens, n_experts, k : int
        Tokens, experts, experts per token.

    Returns
    -------
    low, high : (E,) ndarray of int64
        ``0 <= low <= high <= T`` and ``sum(low) <= T K <= sum(high)``.

    Raises
    ------
    InputError
        If the capacity is not one of these; the message names the expert or the sum.
    """
    total = n_tokens * k
    if capacity is None:
        floor, remainder = divmod(total, n_experts)
        low = np.full(n_experts, floor)
        return low, low + (remainder > 0)
    try:
        given = np.asarray(capacity)
    except ValueError:
        raise InputError("`capacity` must be one array, got rows of different lengths") from None
    if given.shape not in {(n_experts,), (n_experts, 2)} or not np.issubdtype(given.dtype, np.integer):
        raise InputError(
            f"`capacity` must be integers, (E,) = ({n_experts},) loads or ({n_experts}, 2) least and largest "
            f"loads, got {given.dtype} {given.shape}"
        )
    limits = given.astype(np.int64)
    low, high = (limits, limits) if limits.ndim == 1 else (limits[:, 0].copy(), limits[:, 1].copy())
    wrong = np.flatnonzero((low < 0) | (high > n_tokens) | (low > high))
    if wrong.size:
        expert = int(wrong[0])
        if limits.ndim == 1:
            raise InputError(
                f"`capacity` must lie between 0 and T = {n_tokens}, got {low[expert]} at expert {expert}"
            )
        raise InputError(
            f"`capacity` must satisfy 0 <= least <= largest <= T = {n_tokens}, "
            f"got {low[expert]} and {high[expert]} at expert {expert}"
        )
    if limits.ndim == 1 and low.sum() != total:
        raise InputError(f"`capacity` must sum to T K = {total}, got {low.sum()}")
    if not low.sum() <= total <= high.sum():
        raise InputError(
            f"`capacity` must leave room for T K = {total}: least loads sum to {low.sum()}, "
            f"largest to {high.sum()}"
        )
    return low, high


def cheapest_loads(
    bias: Float64Array, low: IntArray, high: IntArray, total: int, near: IntArray | None = None
) -> IntArray:
    """Loads within limits whose price is least: the dual function subtracts ``loads @ bias``.

    Parameters
    ----------
    bias : (E,) ndarray of float64
        The price.
    low, high : (E,) ndarray of int64
        Limits; ``sum(low) <= total <= sum(high)``.
    total : int
        Sum of the loads, T K.
    near : (E,) ndarray of int64, optional
        Where prices tie, loads as close to these as the sum allows.

    Returns
    -------
    (E,) ndarray of int64
        Cheap experts at their largest load, dear ones at their least, and at most one price between.
    """
    loads = low.copy()
    left = total - int(low.sum())
    order = np.argsort(bias, kind="stable")
    if near is None:
        room = np.cumsum(high[order] - low[order])
        loads[order] += np.clip(left - room + (high - low)[order], 0, (high - low)[order])
        return loads
    first = 0
    while left > 0:
        last = int(np.searchsorted(bias[order], bias[order[first]], side="right"))
        tied = order[first:last]
        wanted = np.clip(near[tied], low[tied], high[tied]) - low[tied]
        if int((high[tied] - low[tied]).sum()) <= left:
            wanted = high[tied] - low[tied]
        for amount in (wanted, high[tied] - low[tied]):
            for expert, most in zip(tied, amount, strict=True):
                more = min(left, max(0, int(low[expert] + most - loads[expert])))
                loads[expert] += more
                left -= more
        first = last
    return loads

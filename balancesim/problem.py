"""Definitions and sign conventions: what a load, a capacity and a violation are (docs/theory.md, "Symbols").

``bias`` is added to the scores for selection only; it is the dual price with DeepSeek's sign, so that a
bias rises where an expert has too few tokens.
"""

import numpy as np
from numpy.typing import ArrayLike

from balancesim.errors import InputError
from balancesim.numbers import check_int
from balancesim.types import Float64Array


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

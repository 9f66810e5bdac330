"""The state of a descent on the dual, and how it begins: from a few tokens, whatever their scores' scale."""

import numpy as np

from balancesim.kernels.newton import Descent
from balancesim.types import Float64Array

FEW_ROWS = 128
"""Tokens that tell where to start."""

_LIMIT = 4.0
"""Ranges of those tokens' scores beyond which a price changes nothing more."""

_SAME = 1e-14
"""Gaps, relative to the scores and prices that make them, that are rounding."""

_HUGE = 1e300
_TINY = 1e-290
"""Least width: a smaller one could not be divided by."""

_TIED = 0.1
"""Share of tokens whose K-th place ties from which noise breaks ties."""

_TIE_NOISE = 0.05
"""Noise that breaks ties in the end, relative to the least distance of scores that do not tie."""


def new_descent(low: Float64Array, high: Float64Array) -> Descent:
    """Make the state of a descent that asks for loads between ``low`` and ``high``, (E,) float64 each."""
    n_experts = low.size
    return Descent(
        price=np.zeros(n_experts),
        before=np.zeros(n_experts),
        step=np.zeros(n_experts),
        best=np.zeros(n_experts),
        low=low,
        high=high,
        residual=np.zeros(n_experts),
        held=np.zeros(n_experts, np.bool_),
        loads=np.zeros(n_experts, np.int64),
        ties=np.zeros((n_experts, n_experts), np.int64),
        graph=np.zeros((n_experts, n_experts)),
        work=np.zeros((4, n_experts)),
        width=np.zeros(1),
        amplitude=np.zeros(2),
        reach=np.zeros(1),
        limit=np.zeros(1),
        n_near=np.zeros(1, np.int64),
        slope=np.zeros(1),
        best_wrong=np.full(1, np.inf),
        since=np.zeros(1, np.int64),
    )


def look(state: Descent, rows: Float64Array, k: int, share: float, start: Float64Array | None = None) -> None:
    """Set where a descent starts, and its scales, from a few tokens.

    Parameters
    ----------
    state : Descent
        Gets its price, width, limit and the noise that breaks ties.
    rows : (n, E) ndarray of float64
        Scores of some tokens.
    k : int
        Experts per token.
    share : float
        What share of the tokens these are.
    start : (E,) ndarray of float64, optional
        A price to start from.
    """
    size = len(rows)
    least = rows.min(axis=1)
    if least.min() == -np.inf:
        least = np.where(rows == -np.inf, np.inf, rows).min(axis=1)
    spans = np.sort(rows.max(axis=1) - least)
    span = 0.5 * float(spans[(size - 1) // 2] + spans[size // 2])
    price = _quantile_start(rows, state, share) if start is None else np.clip(start, -_HUGE, _HUGE)
    dearest = float(np.abs(price).max())
    state.limit[0] = _LIMIT * (span + dearest) or 1.0
    state.price[:] = price - price.mean()
    ordered = rows + state.price
    ordered.sort(axis=1)
    kth, following = ordered[:, -k], ordered[:, -k - 1]
    same = _SAME * (np.abs(kth) + np.abs(state.price).max())
    gaps = kth - following
    apart = gaps[(gaps > same) & (gaps < np.inf)]
    state.width[0] = max(np.exp(np.log(apart).mean()), _TINY) if apart.size else state.limit[0]
    if apart.size < (1.0 - _TIED) * size and (gaps <= same).sum() > _TIED * size:
        # Scores come from a few levels: noise well below their distance tells them apart.
        with np.errstate(invalid="ignore"):
            # Between two masked experts there is no difference, and NaN counts for nothing.
            levels = np.diff(ordered, axis=1)
        levels = levels[(levels > same[:, None]) & (levels < np.inf)]
        state.amplitude[0] = levels.min() if levels.size else state.limit[0]
        state.amplitude[1] = _TIE_NOISE * state.amplitude[0]


def _quantile_start(rows: Float64Array, state: Descent, share: float) -> Float64Array:
    """Where every expert alone would choose its own load: minus a quantile of its scores in a few tokens.

    The quantile lies between two scores: a token at it would tie wherever it decides for two experts.
    """
    size, n_experts = rows.shape
    if size < 2 or (state.low < state.high).any():
        return np.zeros(n_experts)
    columns = np.sort(rows.T, axis=1)
    place = np.clip(np.rint(size - state.high * share).astype(np.int64), 1, size - 1)
    every = np.arange(n_experts)
    price: Float64Array = -0.5 * (columns[every, place - 1] + columns[every, place])
    finite = np.isfinite(price)
    if not finite.all():
        if not finite.any():
            return np.zeros(n_experts)
        price[~finite] = price[finite].max()
    price -= price.mean()
    return price

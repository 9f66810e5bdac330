"""The state of a descent on the dual, and how it begins: from a few tokens, whatever their scores' scale."""

import numpy as np

from balancesim.kernels.newton import Descent
from balancesim.types import Float64Array

FEW_ROWS = 128
"""Tokens that tell where to start."""

_LIMIT = 4.0
"""Ranges of those tokens' scores beyond which a price changes nothing more."""

_SAME = 1e-12
"""Gaps, relative to the range of the scores, that are rounding."""

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
    finite = rows[rows > -np.inf]
    span = float(finite.max() - finite.min()) or 1.0
    state.limit[0] = _LIMIT * span
    price = _quantile_start(rows, state, share) if start is None else start - start.mean()
    state.price[:] = np.clip(price, -state.limit[0], state.limit[0])
    ordered = np.sort(rows + state.price, axis=1)
    gaps = ordered[:, -k] - ordered[:, -k - 1]
    apart = gaps[(gaps > _SAME * span) & (gaps < np.inf)]
    state.width[0] = np.exp(np.log(apart).mean()) if apart.size else span
    if (gaps <= _SAME * span).sum() > _TIED * size:
        # Scores come from a few levels: noise well below their distance tells them apart.
        ordered[ordered == -np.inf] = np.nan
        levels = np.diff(ordered, axis=1)
        levels = levels[levels > _SAME * span]
        state.amplitude[0] = levels.min() if levels.size else span
        state.amplitude[1] = _TIE_NOISE * state.amplitude[0]


def _quantile_start(rows: Float64Array, state: Descent, share: float) -> Float64Array:
    """Where every expert alone would choose its own load: minus a quantile of its scores in a few tokens.

    The quantile lies between two scores: a token at it would tie wherever it decides for two experts.
    """
    size, n_experts = rows.shape
    if size < 2 or (state.low < state.high).any():
        return np.zeros(n_experts)
    columns = np.ascontiguousarray(rows.T)
    place = np.clip(np.round(size - state.high * share).astype(np.int64), 1, size - 1)
    price = np.empty(n_experts)
    for rank in np.unique(place):
        alike = place == rank
        ordered = np.partition(columns[alike], (rank - 1, rank), axis=1)
        price[alike] = -0.5 * (ordered[:, rank - 1] + ordered[:, rank])
    finite = np.isfinite(price)
    if not finite.any():
        return np.zeros(n_experts)
    price[~finite] = price[finite].max()
    price -= price.mean()
    return price

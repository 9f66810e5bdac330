"""Batches of scores as the kernels take them: validated, cut into parts for threads, laid out in tiles."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balancesim.errors import InputError
from balancesim.groups import GroupLimit
from balancesim.kernels.model import LANES, n_rows
from balancesim.problem import check_sizes
from balancesim.types import Float64Array, FloatArray

_Part = TypeVar("_Part")

EXPONENT_BITS = {4: np.array([0x7F800000], np.int32), 8: np.array([0x7FF << 52], np.int64)}
"""The exponent bits of a float, all set: infinite or NaN."""

_PARALLEL_FROM = 1 << 20
"""Scores from which a second thread pays for its start (about 0.05 ms)."""


@dataclass(frozen=True, eq=False)
class BlockedScores:
    """Scores laid out for routing them many times: tiles of 128 tokens, expert-major.

    SIMD runs over tokens, and nothing is moved before the choice; `blocked` makes them.

    Attributes
    ----------
    tiles : (ceil(T/128), E', 128) ndarray of float32 or float64
        E' is E rounded up to a multiple of eight; what lies past the last expert or token is minus infinity.
    n_tokens, n_experts : int
        T and E.
    least_unmasked : int
        Experts left to the token that has the fewest.
    """

    tiles: FloatArray
    n_tokens: int
    n_experts: int
    least_unmasked: int

    @property
    def shape(self) -> tuple[int, int]:
        """(T, E)."""
        return self.n_tokens, self.n_experts

    @property
    def dtype(self) -> np.dtype[Any]:
        """The scores' dtype."""
        return self.tiles.dtype


def blocked(scores: ArrayLike) -> BlockedScores:
    """Lay scores out for `route` and `dual_value`, which take them in place of an array.

    Parameters
    ----------
    scores : (T, E) array_like of float32 or float64
        Token-expert affinities; minus infinity masks an expert for a token.

    Returns
    -------
    BlockedScores
        A copy, checked once: routing it is 1.3 to 2.3 times as fast as routing the array.

    Raises
    ------
    InputError
        If shape or dtype are wrong, or a score is NaN or plus infinity.

    Notes
    -----
    Costs about one routing of the array. Results have the same bits as those of the array.
    """
    from balancesim.kernels.route import fill_blocks

    array, _ = checked_scores(scores, None, 1)
    n_tokens, n_experts = array.shape
    tiles = np.empty((-(-n_tokens // LANES), n_rows(n_experts), LANES), array.dtype)
    tiles[-1] = -np.inf
    exponent = EXPONENT_BITS[array.dtype.itemsize]
    parts = in_parts(lambda first, last: fill_blocks(array, first, last, tiles, exponent), array.shape)
    least = n_experts
    if any(parts):
        check_masks(array, 1)
        least = int((array > -np.inf).sum(axis=1).min())
    return BlockedScores(tiles, n_tokens, n_experts, least)


def checked_scores(scores: ArrayLike, bias: ArrayLike | None, k: int) -> tuple[FloatArray, FloatArray]:
    """Validate all but the scores' values; return them, C-contiguous, and the bias in their dtype."""
    try:
        array = np.asarray(scores)
    except ValueError:
        raise InputError("`scores` must be one (T, E) array, got rows of different lengths") from None
    prices = checked_bias(array, bias, k)
    return np.ascontiguousarray(array), prices


def checked_bias(scores: Any, bias: ArrayLike | None, k: int) -> FloatArray:
    """Validate an array of scores, its values apart, and return the bias in its dtype."""
    if scores.dtype not in (np.float32, np.float64):
        raise InputError(f"`scores` must be float32 or float64, got {scores.dtype}; convert them first")
    if scores.ndim != 2 or scores.shape[0] == 0:
        raise InputError(f"`scores` must be (T, E) with at least one token, got shape {scores.shape}")
    check_sizes(scores.shape[1], k)
    return as_prices(bias, scores.shape[1], scores.dtype)


def as_prices(bias: ArrayLike | None, n_experts: int, dtype: np.dtype[Any]) -> FloatArray:
    """Return a bias, zero where there is none, in the scores' dtype; raise `InputError` where it is wrong."""
    if bias is None:
        return np.zeros(n_experts, dtype)
    try:
        prices = np.asarray(bias, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"`bias` must be numbers, one per expert, got {bias!r}") from None
    if prices.shape != (n_experts,):
        raise InputError(f"`bias` must have one entry per expert, ({n_experts},), got {prices.shape}")
    with np.errstate(over="ignore"):
        rounded: FloatArray = prices.astype(dtype)
    if not np.isfinite(rounded).all():
        worst = int(np.flatnonzero(~np.isfinite(rounded))[0])
        raise InputError(f"`bias` must be finite in {dtype}, got {prices[worst]} at expert {worst}")
    return rounded


def check_masks(scores: NDArray[Any], k: int, first_token: int = 0, where: str = "") -> None:
    """Raise `InputError` where a score is NaN or plus infinity, or fewer than k experts are unmasked.

    ``where`` says which experts these are, if not all.
    """
    bad = np.isnan(scores) | (scores == np.inf)
    if bad.any():
        token, expert = np.argwhere(bad)[0]
        raise InputError(
            f"`scores` must be finite, or minus infinity for a masked expert, "
            f"got {scores[token, expert]} at token {first_token + token}, expert {expert}"
        )
    available = (scores > -np.inf).sum(axis=1)
    if available.min() < k:
        token = int(available.argmin())
        raise InputError(
            f"`scores` must leave at least k = {k} experts{where} unmasked, "
            f"got {available[token]} at token {first_token + token}"
        )


def check_groups(groups: Any, n_experts: int, k: int) -> None:
    """Raise `InputError` unless the argument is a `GroupLimit` that fits these experts and this K."""
    if not isinstance(groups, GroupLimit):
        raise InputError(f"`groups` must be a GroupLimit or None, got {groups!r}")
    groups.check(n_experts, k)


def padded(bias: NDArray[Any]) -> NDArray[Any]:
    """The bias with zeros for the rows that fill up a tile."""
    result = np.zeros(n_rows(bias.size), bias.dtype)
    result[: bias.size] = bias
    return result


def in_parts(
    function: Callable[[int, int], _Part], shape: tuple[int, ...], parallel_from: int = _PARALLEL_FROM
) -> list[_Part]:
    """Call ``function(first, last)`` on parts of the (T, E) tokens, each on a thread; results in order.

    ``parallel_from`` is the number of scores from which a second thread pays for its start.
    """
    n_tokens, n_experts = shape
    n_tiles = -(-n_tokens // LANES)
    n_parts = min(_n_threads(), n_tiles) if n_tokens * n_experts >= parallel_from else 1
    borders = [min(LANES * (n_tiles * i // n_parts), n_tokens) for i in range(n_parts + 1)]
    others = [_threads().submit(function, borders[i], borders[i + 1]) for i in range(1, n_parts)]
    return [function(borders[0], borders[1]), *(other.result() for other in others)]


def n_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _n_threads() -> int:
    return min(n_cores(), 8)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_n_threads(), thread_name_prefix="balancesim-route")


def as_bias(bias: ArrayLike, n_experts: int, name: str) -> Float64Array:
    """Return a bias as finite float64 (E,); raise `InputError` naming the argument otherwise."""
    try:
        array = np.asarray(bias, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"`{name}` must be numbers, one per expert, got {bias!r}") from None
    if array.shape != (n_experts,):
        raise InputError(f"`{name}` must have one entry per expert, ({n_experts},), got {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"`{name}` must be finite, got {array[~np.isfinite(array)][0]}")
    return array

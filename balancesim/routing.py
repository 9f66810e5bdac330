"""Routing one batch: validation, and the choice of backend.

`route` adds the bias, takes the K best experts of each token, and counts. The NumPy backend is the readable
reference; the Numba backend gives the same choices, and is the default.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balancesim.errors import InputError, unknown_name
from balancesim.groups import GroupLimit
from balancesim.kernels.model import LANES, n_rows
from balancesim.problem import balanced_load, cheapest_loads, check_sizes, load_limits
from balancesim.types import Float64Array, FloatArray, IntArray

_Part = TypeVar("_Part")

BACKENDS = ("cupy", "numba", "numpy")

_EXPONENT = {4: np.array([0x7F800000], np.int32), 8: np.array([0x7FF << 52], np.int64)}
"""The exponent bits of a float, all set: infinite or NaN."""

_PARALLEL_FROM = 1 << 20
"""Scores from which a second thread pays for its start (about 0.05 ms)."""


class Routing(NamedTuple):
    """What `route` returns.

    Attributes
    ----------
    loads : (E,) ndarray of int64
        Tokens per expert; sums to T K.
    value : float
        Sum of the chosen biased scores, sum_i topsum_K(scores_i + bias).
    score : float
        Sum of the same picks without the bias, ``value - loads @ bias``.
    experts : (T, K) ndarray of int64, or None
        The chosen experts of each token in ascending order, where asked for.
    """

    loads: IntArray
    value: float
    score: float
    experts: IntArray | None


def route(
    scores: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    k: int,
    groups: GroupLimit | None = None,
    experts: bool = False,
    backend: Literal["cupy", "numba", "numpy"] | None = None,
) -> Routing:
    """Send each token to the K experts with the largest biased scores, of all or of its best groups.

    Parameters
    ----------
    scores : (T, E) array_like of float32 or float64
        Token-expert affinities, higher is better. Minus infinity masks an expert for a token.
    bias : (E,) array_like, optional
        Added to the scores for the choice, in the scores' dtype; zero if omitted.
    k : int
        Experts per token, 1 <= k < E.
    groups : GroupLimit, optional
        Tokens choose among their best groups of experts only; the value is then no top-K sum of all experts,
        and `dual_value` bounds it without being attained.
    experts : bool, optional
        Whether to return the choice itself.
    backend : {"cupy", "numba", "numpy"}, optional
        "numba" (default); "numpy", the reference; or "cupy", a CUDA card, which also takes scores that lie on
        it (CuPy's, PyTorch's) and is then the default. Groups are limited by the other two only.

    Returns
    -------
    Routing
        Loads, value, score and, if asked for, experts. Ties go to the lower expert index, and between groups
        to the lower group.

    Raises
    ------
    InputError
        If shapes, dtypes or k are wrong, a score is NaN or plus infinity, or a token has fewer than K
        experts that are not masked, in its best groups where these are limited; or if the backend does not
        limit groups.
    MissingDependencyError
        If the backend is "cupy" and there is no CuPy or no card.

    Notes
    -----
    Costs one pass over the scores. Loads and choices are exact; sums are float64 sums of the biased scores as
    rounded to the scores' dtype, the same for any number of threads. The card adds in another order: its sum
    of n numbers x differs by at most 2 n 2**-53 sum |x|. Batches larger than its memory are streamed; where
    the scores lie on the card, so do the experts.
    """
    array, prices, name = _prepared(scores, bias, k, backend)
    if groups is not None:
        check_groups(groups, array.shape[1], k)
    loads, value, chosen = _by(name)(array, prices, k, experts, groups)
    return Routing(loads, value, value - float(loads @ prices.astype(np.float64)), chosen)


def _prepared(
    scores: ArrayLike, bias: ArrayLike | None, k: int, backend: str | None
) -> tuple[Any, FloatArray, str]:
    """Validate all but the scores' values; return them, the bias in their dtype, and the backend's name."""
    on_card = hasattr(scores, "__cuda_array_interface__")
    name = backend or ("cupy" if on_card else "numba")
    if name not in BACKENDS:
        raise InputError(unknown_name("backend", name, BACKENDS))
    if not on_card:
        return *checked_scores(scores, bias, k), name
    if name != "cupy":
        raise InputError(
            f'`scores` lie on a card, and `backend` is "{name}"; use "cupy", or copy them to the host first'
        )
    from balancesim.kernels_cupy.route import contiguous

    array = contiguous(scores)
    return array, checked_bias(array, bias, k), name


def _by(name: str) -> Callable[..., tuple[IntArray, float, Any]]:
    """The function that routes by a backend."""
    return {"cupy": route_cupy, "numba": route_numba, "numpy": route_numpy}[name]


def dual_value(
    scores: ArrayLike,
    bias: ArrayLike,
    *,
    k: int,
    capacity: Literal["integral"] | ArrayLike | None = None,
    backend: Literal["cupy", "numba", "numpy"] | None = None,
) -> float:
    """The dual function D(p) of the balanced assignment problem (docs/theory.md).

    Parameters
    ----------
    scores : (T, E) array_like of float32 or float64
        Token-expert affinities.
    bias : (E,) array_like
        The price p.
    k : int
        Experts per token.
    capacity : None, "integral", (E,) or (E, 2) array_like of int, optional
        None: every load is L = T K / E, which may be fractional. "integral": every load is the floor or the
        ceiling of L (D_int). (E,): the load of each expert; they sum to T K. (E, 2): least and largest load.
    backend : {"cupy", "numba", "numpy"}, optional
        As in `route`.

    Returns
    -------
    float
        An upper bound on the value of every assignment with those loads, at any bias.

    Raises
    ------
    InputError
        As `route`; or if the capacity is not one of these.
    """
    array, prices, name = _prepared(scores, bias, k, backend)
    n_tokens, n_experts = array.shape
    _, value, _ = _by(name)(array, prices, k, experts=False)
    exact = prices.astype(np.float64)
    if capacity is None:
        return value - balanced_load(n_tokens, n_experts, k) * float(exact.sum())
    if isinstance(capacity, str):
        if capacity != "integral":
            raise InputError(f'`capacity` must be None, "integral" or integers, got {capacity!r}')
        capacity = None
    low, high = load_limits(capacity, n_tokens, n_experts, k)
    return value - float(cheapest_loads(exact, low, high, n_tokens * k) @ exact)


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
    n_experts = scores.shape[1]
    check_sizes(n_experts, k)
    if bias is None:
        return np.zeros(n_experts, scores.dtype)
    try:
        prices = np.asarray(bias, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"`bias` must be numbers, one per expert, got {bias!r}") from None
    if prices.shape != (n_experts,):
        raise InputError(f"`bias` must have one entry per expert, ({n_experts},), got {prices.shape}")
    with np.errstate(over="ignore"):
        rounded: FloatArray = prices.astype(scores.dtype)
    if not np.isfinite(rounded).all():
        worst = int(np.flatnonzero(~np.isfinite(rounded))[0])
        raise InputError(f"`bias` must be finite in {scores.dtype}, got {prices[worst]} at expert {worst}")
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


def route_numba(
    scores: FloatArray, bias: FloatArray, k: int, experts: bool, groups: GroupLimit | None = None
) -> tuple[IntArray, float, IntArray | None]:
    """Route with the compiled kernels: loads, value, experts. Scores are checked on the way."""
    from balancesim.kernels.choices import NO_GROUPS
    from balancesim.kernels.route import route_tokens

    n_tokens, n_experts = scores.shape
    chosen = np.empty((n_tokens if experts else 0, k), np.int64)
    # One value a tile, summed in order: the same for any number of threads.
    values = np.empty(-(-n_tokens // LANES))
    prices = padded(bias)
    exponent = _EXPONENT[scores.dtype.itemsize]
    limit = NO_GROUPS if groups is None else groups.in_kernel()

    def route_part(first: int, last: int) -> tuple[IntArray, bool]:
        loads = np.zeros(n_experts, np.int64)
        special: bool = route_tokens(scores, prices, k, limit, first, last, loads, values, chosen, exponent)
        return loads, special

    parts = in_parts(route_part, (n_tokens, n_experts))
    if any(special for _, special in parts):
        check_masks(scores, k)
        if groups is not None:
            check_masks(groups.apply(scores, bias), k, where=" of its best groups")
    loads: IntArray = np.sum([loads for loads, _ in parts], axis=0)
    return loads, float(values.sum()), chosen if experts else None


def route_cupy(
    scores: Any, bias: FloatArray, k: int, experts: bool, groups: GroupLimit | None = None
) -> tuple[IntArray, float, Any]:
    """Route on a CUDA card: loads, value, experts where the scores are. Scores are checked on the way."""
    if groups is not None:
        raise InputError('`groups` are limited by the backends "numba" and "numpy" only, got "cupy"')
    from balancesim.kernels_cupy.route import route_tokens

    found = route_tokens(scores, bias, k, experts=experts)
    if found.flags:
        check_masks(scores if isinstance(scores, np.ndarray) else scores.get(), k)
    return found.loads, found.value, found.experts


def route_numpy(
    scores: FloatArray, bias: FloatArray, k: int, experts: bool, groups: GroupLimit | None = None
) -> tuple[IntArray, float, IntArray | None]:
    """Route as the definition reads: loads, value, experts."""
    if not np.isfinite(scores).all():
        check_masks(scores, k)
    if groups is not None:
        scores = groups.apply(scores, bias)
        check_masks(scores, k, where=" of its best groups")
    biased = scores + bias
    chosen = np.sort(np.argsort(-biased, axis=1, kind="stable")[:, :k], axis=1)
    loads = np.bincount(chosen.ravel(), minlength=scores.shape[1])
    value = float(np.take_along_axis(biased, chosen, axis=1).sum(dtype=np.float64))
    return loads, value, chosen if experts else None


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


@cache
def _n_threads() -> int:
    return min(os.cpu_count() or 1, 8)


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

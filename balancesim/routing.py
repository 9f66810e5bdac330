"""Routing one batch: validation, and the choice of backend.

`route` adds the bias, takes the K best experts of each token, and counts. The NumPy backend is the readable
reference; the Numba backend gives the same choices, and is the default.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from balancesim.batches import (
    EXPONENT_BITS,
    BlockedScores,
    as_prices,
    check_groups,
    check_masks,
    checked_bias,
    checked_scores,
    in_parts,
    padded,
)
from balancesim.errors import InputError, unknown_name
from balancesim.groups import GroupLimit
from balancesim.kernels.model import LANES
from balancesim.problem import balanced_load, cheapest_loads, check_sizes, load_limits
from balancesim.types import FloatArray, IntArray

BACKENDS = ("cupy", "numba", "numpy")


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
    scores: ArrayLike | BlockedScores,
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
    scores : (T, E) array_like of float32 or float64, or BlockedScores
        Token-expert affinities, higher is better. Minus infinity masks an expert for a token. A batch that
        is routed many times is faster `blocked`.
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
        it (CuPy's, PyTorch's) and is then the default. Groups are limited by the other two only, and scores
        that are `blocked` are routed by "numba" only.

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
        limit groups or take blocked scores.
    MissingDependencyError
        If the backend is "cupy" and there is no CuPy or no card.

    Notes
    -----
    Costs one pass over the scores. Loads and choices are exact; sums are float64 sums of the biased scores as
    rounded to the scores' dtype, the same for any number of threads. The card adds in another order: its sum
    of n numbers x differs by at most 2 n 2**-53 sum |x|. Batches larger than its memory are streamed; where
    the scores lie on the card, so do the experts.
    """
    if isinstance(scores, BlockedScores):
        if groups is not None:
            raise InputError("`scores` must be an array where `groups` are limited, got BlockedScores")
        prices = _blocked_prices(scores, bias, backend)
        loads, value, chosen = route_blocked(scores, prices, k, experts)
    else:
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


def _blocked_prices(scores: BlockedScores, bias: ArrayLike | None, backend: str | None) -> FloatArray:
    """Validate the bias, and that the backend takes tiles."""
    if backend not in (None, "numba"):
        raise InputError(f'`backend` must be "numba" for BlockedScores, got {backend!r}')
    return as_prices(bias, scores.n_experts, scores.dtype)


def _by(name: str) -> Callable[..., tuple[IntArray, float, Any]]:
    """The function that routes by a backend."""
    return {"cupy": route_cupy, "numba": route_numba, "numpy": route_numpy}[name]


def dual_value(
    scores: ArrayLike | BlockedScores,
    bias: ArrayLike,
    *,
    k: int,
    capacity: Literal["integral"] | ArrayLike | None = None,
    backend: Literal["cupy", "numba", "numpy"] | None = None,
) -> float:
    """The dual function D(p) of the balanced assignment problem (docs/theory.md).

    Parameters
    ----------
    scores : (T, E) array_like of float32 or float64, or BlockedScores
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
    if isinstance(scores, BlockedScores):
        n_tokens, n_experts = scores.shape
        prices = _blocked_prices(scores, bias, backend)
        _, value, _ = route_blocked(scores, prices, k, experts=False)
    else:
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
    exponent = EXPONENT_BITS[scores.dtype.itemsize]
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
    loads: IntArray = sum((loads for loads, _ in parts), np.zeros(n_experts, np.int64))
    return loads, float(values.sum()), chosen if experts else None


def route_blocked(
    scores: BlockedScores, bias: FloatArray, k: int, experts: bool
) -> tuple[IntArray, float, IntArray | None]:
    """Route tiles that are laid out, and checked but for K: loads, value, experts."""
    from balancesim.kernels.route import route_blocks

    n_tokens, n_experts = scores.shape
    check_sizes(n_experts, k)
    if scores.least_unmasked < k:
        raise InputError(
            f"`scores` must leave at least k = {k} experts unmasked, got {scores.least_unmasked} at a token"
        )
    chosen = np.empty((n_tokens if experts else 0, k), np.int64)
    values = np.empty(scores.tiles.shape[0])
    prices = padded(bias)

    def route_part(first: int, last: int) -> IntArray:
        loads = np.zeros(n_experts, np.int64)
        route_blocks(scores.tiles, prices, k, n_experts, n_tokens, first, last, loads, values, chosen)
        return loads

    loads: IntArray = sum(in_parts(route_part, scores.shape), np.zeros(n_experts, np.int64))
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

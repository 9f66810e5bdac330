"""Explicit assignments: what a current-batch rule hands over, checked, and the scores that it chose."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balancesim.balancers import Assignment, BatchRule, Rule
from balancesim.errors import InputError
from balancesim.types import Float64Array, FloatArray, IntArray


def assign(rule: BatchRule, state: Any, scores: FloatArray, k: int) -> tuple[Assignment, Any]:
    """Let a rule assign a batch, on a copy of the scores, and check what it returns.

    Raises
    ------
    InputError
        If that is not an assignment of different, unmasked experts to each token, with a bias per expert or
        none; the message names the first token that is wrong.
    """
    found: Any = rule.assign(state, scores.copy())
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[0], Assignment):
        raise InputError(f"`rule`.assign must return an Assignment and the state after it, got {found!r:.80}")
    assignment, after = found
    if assignment.experts is None:
        return assignment, after
    bias = assignment.bias
    if bias is not None:
        bias = as_price(bias, scores.shape[1], "assign must return a bias of")
    return Assignment(_checked(assignment.experts, scores, k), bias), after


@contextmanager
def at_step(rule: Rule, step: int) -> Iterator[None]:
    """Add to what goes wrong inside whose rule it was, and at which step; 0 is before the first."""
    try:
        yield
    except InputError as error:
        when = f"step {step}" if step else "before the first step"
        raise InputError(f"{error} (rule {rule.describe()}, {when})") from error
    except Exception as error:
        when = f"at step {step}" if step else "before the first step"
        error.add_note(f"in balancing rule {rule.describe()}, {when}")
        raise


def as_price(bias: Any, n_experts: int, what: str) -> Float64Array:
    """Return what a rule written in Python says its bias is, checked for shape."""
    array = np.asarray(bias, dtype=np.float64)
    if array.shape != (n_experts,):
        raise InputError(f"`rule`.{what} one number per expert, ({n_experts},), got {array.shape}")
    return array


def chosen_scores(scores: FloatArray, experts: IntArray) -> Float64Array:
    """The scores of each token's experts, (T, M) float64 ascending, after zeros for its empty places."""
    chosen = np.take_along_axis(scores, experts, axis=1).astype(np.float64)
    empty = experts < 0
    if not empty.any():
        return np.sort(chosen, axis=1)
    chosen[empty] = -np.inf
    chosen = np.sort(chosen, axis=1)
    chosen[np.isneginf(chosen)] = 0.0
    return chosen


def excess(scores: Float64Array, other: Float64Array) -> float:
    """Sum of (T, M) chosen scores minus that of (T, K), K <= M, both ascending.

    Taken place by place from the largest on, so that a large score that both sides hold never enters the
    difference (S5). An empty place scores zero, and so does one that only the other side has.
    """
    more = scores.shape[1] - other.shape[1]
    return float((scores[:, more:] - other).sum()) + float(scores[:, :more].sum())


def empty_places(experts: IntArray, k: int) -> int:
    """Places among each token's first K that stay empty, summed over tokens."""
    held = np.count_nonzero(experts >= 0, axis=1)
    return int(np.maximum(k - held, 0).sum())


def loads_of(experts: IntArray, n_experts: int) -> IntArray:
    """Tokens that each expert received, (E,)."""
    return np.bincount(experts.ravel() + 1, minlength=n_experts + 1)[1:]


def top_scores(scores: FloatArray, k: int) -> Float64Array:
    """Each token's k largest scores, (T, K) float64 ascending."""
    largest = np.partition(scores, -k, axis=1)[:, -k:]
    return np.sort(largest.astype(np.float64), axis=1)


def routed_scores(scores: FloatArray, bias: FloatArray, k: int) -> Float64Array:
    """The scores of the experts that `route` chooses, (T, K) float64 ascending; the bias has their dtype.

    In NumPy, so that a few batches do not wait for a kernel to compile; as fast as one for small batches.
    """
    biased = scores + bias
    chosen = biased >= np.partition(biased, -k, axis=1)[:, -k, None]
    if np.count_nonzero(chosen) != k * len(scores):  # ties at a K-th place go to the lower expert
        return chosen_scores(scores, np.argsort(-biased, axis=1, kind="stable")[:, :k])
    return np.sort(scores[chosen].reshape(-1, k).astype(np.float64), axis=1)


def _checked(experts: Any, scores: FloatArray, k: int) -> IntArray:
    n_tokens, n_experts = scores.shape
    array: NDArray[Any] = np.asarray(experts)
    must = "`rule`.assign must return"
    if array.ndim != 2 or len(array) != n_tokens or array.shape[1] < k:
        raise InputError(f"{must} (T, K) = ({n_tokens}, {k}) experts, or more places, got {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{must} integers for experts, got {array.dtype}")
    outside = (array < -1) | (array >= n_experts)
    if outside.any():
        token, place = np.argwhere(outside)[0]
        raise InputError(
            f"{must} experts from 0 to {n_experts - 1}, or -1 for an empty place, "
            f"got {array[token, place]} at token {token}"
        )
    ordered = np.sort(array, axis=1)
    repeated = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if repeated.any():
        token, place = np.argwhere(repeated)[0]
        raise InputError(
            f"{must} different experts for a token, got expert {ordered[token, place]} twice at token {token}"
        )
    masked = np.isneginf(np.take_along_axis(scores, ordered, axis=1)) & (ordered >= 0)
    if masked.any():
        token, place = np.argwhere(masked)[0]
        raise InputError(
            f"{must} unmasked experts, got expert {ordered[token, place]}, masked, at token {token}"
        )
    return ordered.astype(np.int64)

"""Checks that the measurements share, and the pilot tokens that some of them draw."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balancesim.batches import as_bias
from balancesim.errors import InputError
from balancesim.numbers import check_int
from balancesim.problem import check_sizes
from balancesim.sources import Source
from balancesim.types import Float64Array

# A pilot batch holds at most 4096 tokens and 2**22 scores (32 MB in float64).
_PILOT_TOKENS = 2**12
_PILOT_SCORES = 2**22


def sizes(n_experts: int, k: int) -> tuple[int, int]:
    """Return ``n_experts`` and ``k`` as integers with 1 <= k < n_experts."""
    experts, chosen = check_int("n_experts", n_experts, 2), check_int("k", k, 1)
    check_sizes(experts, chosen)
    return experts, chosen


def check_source(source: Any) -> None:
    """Refuse what cannot be drawn from, such as an array of scores."""
    if not isinstance(source, Source):
        raise InputError(
            f"`source` must be a source of scores, got {type(source).__name__}; "
            "wrap recorded scores in balancesim.sources.Recorded"
        )


def real_number(name: str, value: Any, *, positive: bool) -> float:
    """Return a finite float that is above zero, or at least zero."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"`{name}` must be a number, got {value!r}") from None
    if not math.isfinite(number) or number < 0.0 or (positive and number == 0.0):
        rule = "positive and finite" if positive else "finite and at least 0"
        raise InputError(f"`{name}` must be {rule}, got {number!r}")
    return number


def centred_bias(bias: ArrayLike, n_experts: int) -> Float64Array:
    """Return a bias less its mean, which changes no choice."""
    vector = as_bias(bias, n_experts, "bias")
    return vector - float(vector.mean())


def blocks(scores: NDArray[Any]) -> Iterator[Float64Array]:
    """Yield the rows of an array in blocks of bounded size, as float64."""
    rows = _block_rows(scores.shape[1])
    for start in range(0, len(scores), rows):
        yield np.asarray(scores[start : start + rows], dtype=np.float64)


def pilot(source: Source, n_tokens: int) -> tuple[int, Iterator[Float64Array]]:
    """Draw the tokens of steps 0, 1, 2, ... in batches of bounded size.

    Parameters
    ----------
    source : Source
    n_tokens : int
        A power of two.

    Returns
    -------
    int
        How many tokens there are: ``n_tokens``, or the whole batches that a recording has.
    iterator of (T_b, E) arrays of float64
    """
    largest = min(n_tokens, _block_rows(source.n_experts))
    n_recorded = source.n_steps(1)
    if n_recorded is not None:
        largest = max(1, min(largest, n_recorded))
        n_tokens = min(n_tokens, n_recorded) // largest * largest
    steps = range(n_tokens // largest)
    return n_tokens, (np.asarray(source.batch(step, largest), dtype=np.float64) for step in steps)


def _block_rows(n_experts: int) -> int:
    rows = _PILOT_TOKENS
    while rows > 1 and rows * n_experts > _PILOT_SCORES:
        rows //= 2
    return rows

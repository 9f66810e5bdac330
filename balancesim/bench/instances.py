"""Scores that the exact area solves: float64, from NumPy's generator and a fixed seed."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from balancesim.types import Float64Array

_OFFSETS = 0.5
"""Standard deviation of the experts' offsets, in that of a score."""

_SKEW = 4.0
_REPEATS = 64


class Shape(NamedTuple):
    """Tokens, experts, experts per token."""

    n_tokens: int
    n_experts: int
    k: int

    def __str__(self) -> str:
        return f"{self.n_tokens}x{self.n_experts} K={self.k}"


def normal(shape: Shape, seed: int = 0) -> Float64Array:
    """Standard normal scores plus normal offsets of the experts."""
    return _with_offsets(np.random.default_rng(seed), shape, _OFFSETS)


def softmax(shape: Shape) -> Float64Array:
    """The softmax of normal scores: small differences on a scale of 1/E."""
    powers: Float64Array = np.exp(normal(shape))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def pareto(shape: Shape) -> Float64Array:
    """Pareto scores of tail index 1.1: the largest are some 10^5 times the median."""
    rng = np.random.default_rng(0)
    tails = rng.pareto(1.1, shape[:2])
    tails += 1.0 + _OFFSETS * rng.standard_normal(shape.n_experts)
    return tails


def skewed(shape: Shape) -> Float64Array:
    """Normal scores whose experts' offsets spread over several standard deviations."""
    return _with_offsets(np.random.default_rng(0), shape, _SKEW)


def tied(shape: Shape) -> Float64Array:
    """Integers from 0 to 3: nearly every token ties at its K-th place."""
    return np.random.default_rng(0).integers(0, 4, shape[:2]).astype(np.float64)


def duplicates(shape: Shape) -> Float64Array:
    """Rows that occur 64 times each."""
    n_tokens, n_experts, k = shape
    rows = normal(Shape(-(-n_tokens // _REPEATS), n_experts, k))
    return np.ascontiguousarray(np.repeat(rows, _REPEATS, axis=0)[:n_tokens])


FAMILIES: dict[str, Callable[[Shape], Float64Array]] = {
    "softmax": softmax,
    "Pareto 1.1": pareto,
    "skewed": skewed,
    "integers 0-3": tied,
    "repeated rows": duplicates,
}
"""Score families that are to take hardly longer than normal scores."""


def _with_offsets(rng: np.random.Generator, shape: Shape, spread: float) -> Float64Array:
    scores: Float64Array = rng.standard_normal(shape[:2])
    scores += spread * rng.standard_normal(shape.n_experts)
    return scores

"""Methods, and instances of every source family, that several tests share."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from balancesim import sources
from balancesim.types import Float64Array, IntArray

METHODS = ("dual", "highs", "cvxpy")
"""The methods that solve every instance; "cvxpy-clarabel" has no answer where the optimum is not unique."""

GAP = {"dual": 1e-12, "highs": 1e-9, "cvxpy": 1e-9, "cvxpy-clarabel": 1e-9}
"""Relative gap that each method keeps; HiGHS is asked for prices good to 1e-10 of a typical score."""

SHAPES = [
    (n_tokens, n_experts, k)
    for n_experts in range(2, 11)
    for k in range(1, n_experts)
    for n_tokens in range(1, 20)
    if math.comb(n_experts, k) ** n_tokens <= 10**6
]
"""(T, E, K) of all instances with at most 10^6 assignments and 10 experts."""


class Instance(NamedTuple):
    scores: Float64Array
    k: int
    capacity: IntArray | None


def of_family(name: str, n_instances: int) -> Iterator[Instance]:
    """Draw small instances from a source family: every third has ties, and capacities of all kinds."""
    family = sources.registry()[name]
    for seed in range(n_instances):
        rng = np.random.default_rng([seed, *name.encode()])
        n_tokens, n_experts = int(rng.integers(1, 25)), int(rng.integers(2, 9))
        k = int(rng.integers(1, n_experts))
        if name == "recorded":
            source = sources.Recorded(rng.standard_normal((n_tokens, n_experts)))
        elif name == "token-stream":
            source = sources.TokenStream(seed=seed)
        else:
            transform = ("raw", "sigmoid", "softmax")[rng.integers(3)]
            source = family(n_experts=n_experts, seed=seed, transform=transform)
        scores = source.batch(0, n_tokens)[:, :n_experts].astype(np.float64)
        if seed % 3 == 0:
            step = np.median(np.abs(scores - np.median(scores))) / 2 or 1.0
            scores = np.round(scores / step) * step
        yield Instance(scores, k, (None, None, *capacities(rng, n_tokens, n_experts, k))[rng.integers(4)])


def capacities(rng: np.random.Generator, n_tokens: int, n_experts: int, k: int) -> tuple[IntArray, IntArray]:
    """Draw the loads of some assignment, and limits around those of another."""
    loads = []
    for _ in range(2):
        picks = rng.permuted(np.tile(np.arange(n_experts), (n_tokens, 1)), axis=1)[:, :k]
        loads.append(np.bincount(picks.ravel(), minlength=n_experts))
    room = rng.integers(0, 3, (n_experts, 2)) * np.array([-1, 1])
    return loads[0], np.clip(loads[1][:, None] + room, 0, n_tokens)

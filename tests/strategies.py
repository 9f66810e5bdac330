"""What Hypothesis draws: scores in quarters, so that ties really happen and sums are exact."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from balancesim.groups import GroupLimit
from balancesim.types import Float64Array, FloatArray, IntArray


class Batch(NamedTuple):
    scores: FloatArray
    bias: FloatArray
    k: int


@st.composite
def batches(draw: st.DrawFn, max_tokens: int = 40, max_experts: int = 20, masks: bool = False) -> Batch:
    """Scores and biases in quarters, and a K that fits."""
    n_experts = draw(st.integers(2, max_experts))
    n_tokens = draw(st.integers(1, max_tokens))
    k = draw(st.integers(1, n_experts - 1))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    quarters = st.integers(-8, 8).map(lambda q: q / 4)
    scores = draw(hnp.arrays(dtype, (n_tokens, n_experts), elements=quarters.map(dtype)))
    bias = draw(hnp.arrays(dtype, n_experts, elements=quarters.map(dtype)))
    if masks and k < n_experts - 1:
        scores[draw(st.integers(0, n_tokens - 1)), draw(st.integers(0, n_experts - 1))] = -np.inf
    return Batch(scores, bias, k)


class GroupedBatch(NamedTuple):
    scores: FloatArray
    bias: FloatArray
    k: int
    groups: GroupLimit


@st.composite
def grouped_batches(draw: st.DrawFn, max_tokens: int = 30) -> GroupedBatch:
    """Scores and biases in quarters, equal groups, and a K for which the chosen groups have room."""
    n_groups, size = draw(st.integers(2, 5)), draw(st.integers(2, 4))
    n_chosen = draw(st.integers(1, n_groups))
    groups = GroupLimit(n_groups, n_chosen, draw(st.sampled_from(["top2", "max"])))
    shape = (draw(st.integers(1, max_tokens)), n_groups * size)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    quarters = st.integers(-8, 8).map(lambda q: dtype(q / 4))
    scores = draw(hnp.arrays(dtype, shape, elements=quarters))
    bias = draw(hnp.arrays(dtype, shape[1], elements=quarters))
    k = draw(st.integers(1, min(n_chosen * size, shape[1] - 1)))
    return GroupedBatch(scores, bias, k, groups)


class Step(NamedTuple):
    """A batch and two biases; ``unit`` is eps_k if all experts have the same, else None."""

    scores: Float64Array
    bias: Float64Array
    new_bias: Float64Array
    k: int
    unit: float | None


@st.composite
def steps(draw: st.DrawFn, max_tokens: int = 10, max_experts: int = 6, ties: bool | None = None) -> Step:
    """Scores in quarters, with ties or without any, and a step of ALF-LB or any other."""
    scores, bias, k = draw(batches(max_tokens, max_experts))
    scores, bias = scores.astype(np.float64), bias.astype(np.float64)
    n_tokens, n_experts = scores.shape
    if not (draw(st.booleans()) if ties is None else ties):
        # Less than a quarter, and different for any two experts of a token.
        apart = draw(st.permutations(range(n_experts)))
        scores += (np.array(apart) + n_experts * np.arange(n_tokens)[:, None]) / 2**10
    size = draw(st.sampled_from([0.125, 0.25, 0.5, 1.0, 2.0]))
    loads = np.bincount(np.argsort(-(scores + bias), kind="stable")[:, :k].ravel(), minlength=n_experts)
    violation = loads * n_experts - n_tokens * k
    kind = draw(st.sampled_from(["common", "sign", "any"]))
    if kind == "common":
        delta = -size / 4.0 * violation
    elif kind == "sign":
        delta = -size * np.sign(violation)
    else:
        delta = draw(hnp.arrays(np.float64, n_experts, elements=st.integers(-8, 8).map(lambda q: q / 4)))
    return Step(scores, bias, bias + delta, k, size / 4.0 * n_experts if kind == "common" else None)


class Separated(NamedTuple):
    """Scores whose breakpoints are apart, an admissible step size of the sign rule, and a start."""

    scores: Float64Array
    k: int
    step_size: float
    bias: Float64Array


@st.composite
def separated(draw: st.DrawFn, max_tokens: int = 13, max_experts: int = 5) -> Separated:
    """Residues a_k i + b_k modulo a prime: differences of two experts are distinct residues, hence apart."""
    n_experts = draw(st.integers(2, max_experts))
    n_tokens = draw(st.integers(2, max_tokens))
    k = draw(st.integers(1, n_experts - 1))
    prime = next(p for p in (2, 3, 5, 7, 11, 13) if p >= max(n_tokens, n_experts))
    tokens = draw(st.permutations(range(prime)))[:n_tokens]
    slopes = draw(st.permutations(range(prime)))[:n_experts]
    shifts = [draw(st.integers(0, prime - 1)) for _ in range(n_experts)]
    residues = (np.outer(tokens, slopes) + shifts) % prime
    offsets = np.array([draw(st.integers(-8, 8)) / 4 for _ in range(n_experts)])
    start = np.array([draw(st.integers(-4, 4)) / 8 for _ in range(n_experts)])
    return Separated(residues + offsets, k, draw(st.sampled_from([0.5, 0.25])), start)


class Assignment(NamedTuple):
    """An instance of the assignment problem: ``capacity`` as `solve` takes it, ``limits`` what it means."""

    scores: FloatArray
    k: int
    capacity: IntArray | None
    limits: IntArray


@st.composite
def assignments(
    draw: st.DrawFn, max_tokens: int = 12, max_experts: int = 6, masks: bool = False
) -> Assignment:
    """Scores in quarters; balanced loads, loads of some assignment, or limits around those."""
    scores, _, k = draw(batches(max_tokens, max_experts))
    n_tokens, n_experts = scores.shape
    scores = scores.astype(np.float64)
    kind = draw(st.sampled_from(["balanced", "loads", "limits"]))
    # Some assignment that keeps to the capacity and is never masked: a feasible instance.
    if kind == "balanced":
        order = (np.arange(n_tokens)[:, None] * k + np.arange(n_experts)) % n_experts
    else:
        order = np.argsort(draw(hnp.arrays(np.int8, scores.shape)), axis=1, kind="stable")
    loads = np.bincount(order[:, :k].ravel(), minlength=n_experts)
    if masks:
        masked = draw(hnp.arrays(np.bool_, scores.shape, elements=st.sampled_from([False, False, True])))
        np.put_along_axis(masked, order[:, :k], False, axis=1)
        scores[masked] = -np.inf
    if kind == "balanced":
        floor, remainder = divmod(n_tokens * k, n_experts)
        limits = np.tile([floor, floor + (remainder > 0)], (n_experts, 1))
        return Assignment(scores, k, None, limits)
    if kind == "loads":
        return Assignment(scores, k, loads, np.stack([loads, loads], axis=1))
    room = draw(hnp.arrays(np.int64, (n_experts, 2), elements=st.integers(0, 3)))
    limits = np.clip(loads[:, None] + room * np.array([-1, 1]), 0, n_tokens)
    return Assignment(scores, k, limits, limits)

"""The best fixed bias in hindsight: the minimiser of the dual summed over a run's own batches."""

import math
from typing import Any, NamedTuple

import numpy as np

from balancesim.feed import available_steps, chunks, pilot, score_dtype, wide_limit
from balancesim.kernels.model import LANES, n_rows
from balancesim.problem import check_sizes
from balancesim.routing import padded
from balancesim.sources.base import Source
from balancesim.types import Float64Array, IntArray

_STEPS_PER_CHUNK = 1024
_NEAR_SHARE = 0.05
"""Share of tokens whose K-th place is within the near-tie width: enough to see, few to count."""

_TOLERANCE = 5e-3
"""Allowed excess of the summed dual, as a share of what one batch's sampling noise costs."""

_CONTRACTION = 0.05
"""What a Newton step near the minimum leaves of the excess, at most: 1/25 to 1/400 were seen."""

_ROUGH = 0.1
"""The same for a stretch that is not the whole run, whose own sampling noise makes more precision idle."""

_MAX_PASSES = 60


class FixedBias(NamedTuple):
    """A bias found by descent on the dual.

    Attributes
    ----------
    bias : (E,) ndarray of float64
        Zero mean.
    excess : float
        Estimated excess of the mean per-token dual over its minimum: what the last Newton step leaves of
        half its squared decrement.
    gain : float
        What the bias is expected to gain on the population minimiser over the whole run, per token, by
        fitting the run's own noise: half the trace of the pseudo-inverse Hessian times the covariance of the
        batches' violations. Along the run the gain grows linearly. Zero for scores that drift, switch or
        were made elsewhere, for which there is no such population.
    n_passes : int
        Passes over the batches, partial ones included.
    """

    bias: Float64Array
    excess: float
    gain: float
    n_passes: int


class _Pass(NamedTuple):
    change: float
    gradient: Float64Array
    covariance: Float64Array
    laplacian: Float64Array


class _Descent(NamedTuple):
    bias: Float64Array
    width: float
    excess: float
    n_passes: int
    last: _Pass


def best_fixed_bias(source: Source, *, n_tokens: int, k: int, n_steps: int) -> FixedBias:
    """Minimise the dual of ``n_steps`` replayed batches by Newton's method.

    The gradient is counted exactly; the Hessian is the graph Laplacian of near-ties between the K-th and the
    next expert (S1), with a bias of order of the width that a Newton step forgives. Short stretches of the
    run bring the bias close before the whole run is replayed.

    Parameters
    ----------
    source : Source
        Its seed keys the batches.
    n_tokens, k : int
        Tokens per batch and experts per token.
    n_steps : int
        Batches to replay; fewer if a recording ends.

    Returns
    -------
    FixedBias
        In float64; the same for any number of threads.
    """
    check_sizes(source.n_experts, k, n_tokens)
    total = available_steps(source, n_tokens, n_steps)
    bias = np.zeros(source.n_experts)
    width = _boundary_width(source, k)
    n_passes = 0
    stretch = min(total, max(1, 4096 // n_tokens))
    limit = wide_limit(source)
    while True:
        tolerance = _TOLERANCE if stretch == total else _ROUGH
        found = _descend(source, n_tokens, k, stretch, bias, width, limit, tolerance)
        bias, width, n_passes = found.bias, found.width, n_passes + found.n_passes
        if stretch == total:
            gain = _gain(found.last) if _is_stationary(source) else 0.0
            return FixedBias(bias, found.excess, gain, n_passes)
        stretch = min(total, stretch * 16)


def _descend(
    source: Source,
    n_tokens: int,
    k: int,
    n_steps: int,
    bias: Float64Array,
    width: float,
    limit: float,
    tolerance: float,
) -> _Descent:
    """Take Newton steps with halving on one stretch."""
    n_experts = source.n_experts
    noise = k * (1.0 - k / n_experts) / n_tokens
    here = _pass(source, n_tokens, k, n_steps, bias, bias, width, limit)
    used, excess = 1, math.inf
    while used < _MAX_PASSES:
        near = np.trace(here.laplacian) * width
        width *= min(4.0, max(0.25, _NEAR_SHARE / max(near, _NEAR_SHARE / 16)))
        direction = -_solve(here.laplacian, here.gradient)
        excess = -0.5 * float(here.gradient @ direction)
        stiffness = np.trace(here.laplacian) / (n_experts - 1)
        allowed = tolerance * 0.5 * noise / max(stiffness, 1e-300) / n_steps
        if _CONTRACTION * excess <= allowed or _is_settled(direction, bias):
            return _Descent(bias + direction, width, _CONTRACTION * excess, used, here)
        # Far from the minimum, near-ties describe the dual only within a few widths.
        step = min(1.0, 16.0 * width / max(np.abs(direction).max(), 1e-300))
        while True:
            candidate = bias + step * direction
            there = _pass(source, n_tokens, k, n_steps, candidate, bias, width, limit)
            used += 1
            if there.change < 0.0 or step < 1e-6:
                break
            step *= 0.5
        if there.change >= 0.0:
            return _Descent(bias, width, excess, used, here)
        bias, here = candidate - candidate.mean(), there
    return _Descent(bias, width, excess, used, here)


def _is_stationary(source: Source) -> bool:
    """Whether every step's scores are known to have one distribution."""
    model = source.kernel_model()
    return model is not None and model.phase_start.size == 1 and model.walk_rate == 0.0


def _gain(last: _Pass) -> float:
    return 0.5 * float(np.sum(np.linalg.inv(_joined(last.laplacian)) * last.covariance))


def _is_settled(direction: Float64Array, bias: Float64Array) -> bool:
    """Whether the step is below what the scores' own rounding resolves."""
    return bool(np.abs(direction).max() <= 1e-7 * max(1e-300, float(np.abs(bias).max())))


def _solve(laplacian: Float64Array, gradient: Float64Array) -> Float64Array:
    """Newton direction on the zero-sum subspace."""
    solution: Float64Array = np.linalg.solve(_joined(laplacian), gradient - gradient.mean())
    solution -= solution.mean()
    return solution


def _joined(laplacian: Float64Array) -> Float64Array:
    """Make a Laplacian invertible: the complete graph joins unseen pairs, the mean gets a value."""
    n = len(laplacian)
    mean = max(float(np.trace(laplacian)) / (n - 1), 1e-300)
    joined: Float64Array = laplacian + 1e-3 * mean * (np.eye(n) - 1.0 / n) + np.full((n, n), mean / n)
    return joined


def _boundary_width(source: Source, k: int) -> float:
    """A first near-tie width: the median gap at the K-th place of a pilot batch."""
    ordered = np.sort(pilot(source).astype(np.float64), axis=1)
    kth, following = ordered[:, -k], ordered[:, -k - 1]
    apart = (following > -np.inf) & (kth > following)
    positive = kth[apart] - following[apart]
    return float(np.median(positive)) if positive.size else 1.0


def _pass(
    source: Source,
    n_tokens: int,
    k: int,
    n_steps: int,
    bias: Float64Array,
    previous: Float64Array,
    width: float,
    limit: float,
) -> _Pass:
    """Replay the batches once at ``bias``; the change is that of the mean dual from ``previous``."""
    from balancesim.kernels.dual import dual_pass
    from balancesim.kernels.scores import draw_pointer

    n_experts = source.n_experts
    dtype = score_dtype(source)
    tile: Any = np.zeros((n_rows(n_experts), LANES), dtype)
    at, before = padded(bias.astype(dtype)), padded(previous.astype(dtype))
    loads: IntArray = np.zeros(n_experts, np.int64)
    products: Float64Array = np.zeros((n_experts, n_experts))
    near_ties: IntArray = np.zeros((n_experts, n_experts), np.int64)
    change = 0.0
    for chunk in chunks(source, n_tokens, k, n_steps, steps_per_chunk=_STEPS_PER_CHUNK):
        draw = draw_pointer(chunk.model, dtype)
        change += dual_pass(
            draw, chunk.model, tile, chunk.first, chunk.last, n_tokens, k, at, before, limit, width, loads,
            products, near_ties,
        )  # fmt: skip
    total = n_tokens * n_steps
    adjacency = (near_ties + near_ties.T) / (2.0 * width * total)
    balance = k / n_experts * float(at.astype(np.float64).sum() - before.astype(np.float64).sum())
    return _Pass(
        change / total - balance,
        loads / total - k / n_experts,
        products / n_steps,
        np.diag(adjacency.sum(axis=1)) - adjacency,
    )

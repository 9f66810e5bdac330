"""Our method where samples, candidates and threads come into play; the certificate proves each optimum."""

import numpy as np
import pytest

import balancesim as bs
from balancesim import batches, sources

GAP = 1e-12


def scores_of(kind, n_tokens, n_experts, k):
    rng = np.random.default_rng([n_tokens, n_experts])
    if kind == "skewed":
        return rng.standard_normal((n_tokens, n_experts)) + np.linspace(0.0, 6.0, n_experts)
    if kind == "tied":
        return rng.integers(0, 4, (n_tokens, n_experts)).astype(np.float64)
    if kind == "all equal":
        return np.full((n_tokens, n_experts), 0.1)
    if kind == "copies":
        return np.repeat(rng.standard_normal((-(-n_tokens // 50), n_experts)), 50, axis=0)[:n_tokens]
    if kind == "two values":
        return np.where(rng.random((n_tokens, n_experts)) < 0.05, 0.3, 0.1)
    if kind == "masked":
        scores = rng.standard_normal((n_tokens, n_experts))
        masked = rng.random(scores.shape) < 0.4
        masked[:, n_experts // 2 :] = False
        masked[masked.sum(axis=1) > n_experts - k] = False
        return np.where(masked, -np.inf, scores)
    if kind == "far from zero":
        return 1e6 + rng.standard_normal((n_tokens, n_experts))
    options = {"softmax": ("normal", "softmax"), "pareto": ("pareto", "raw"), "cauchy": ("cauchy", "raw")}
    name, transform = options.get(kind, ("normal", "raw"))
    return sources.registry()[name](n_experts=n_experts, seed=1, transform=transform).batch(0, n_tokens)


KINDS = (
    "normal", "softmax", "pareto", "cauchy", "skewed", "tied", "all equal", "copies", "two values", "masked",
    "far from zero",
)  # fmt: skip
SHAPES = ((3000, 16, 2), (2999, 24, 7), (500, 64, 1), (700, 9, 8), (60, 128, 5))


def check(solution):
    assert solution.certificate.holds(GAP), solution.status
    assert solution.certificate.row_residual == solution.certificate.column_residual == 0
    return solution


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_certified(kind, shape):
    n_tokens, n_experts, k = shape
    check(bs.solve(scores_of(kind, n_tokens, n_experts, k), k=k))


@pytest.mark.parametrize("kind", KINDS)
def test_certified_for_other_capacities(kind):
    n_tokens, n_experts, k = 2000, 12, 3
    scores = scores_of(kind, n_tokens, n_experts, k)
    rng = np.random.default_rng(0)
    picks = np.argsort(rng.random((n_tokens, n_experts)) / np.arange(1, n_experts + 1), axis=1)[:, :k]
    loads = np.bincount(picks.ravel(), minlength=n_experts)
    free = np.tile([0, n_tokens], (n_experts, 1))
    factor = np.tile([0, int(1.1 * n_tokens * k / n_experts)], (n_experts, 1))
    around = np.clip(loads[:, None] + [-30, 30], 0, n_tokens)
    values = [check(bs.solve(scores, k=k, capacity=capacity)).value for capacity in (loads, around, free)]
    # Wider limits are no worse; rounding of a sum of T K scores.
    rounding = 1e-15 * n_tokens * k * max(1.0, np.abs(scores[np.isfinite(scores)]).max())
    assert values[0] <= values[1] + rounding
    assert values[1] <= values[2] + rounding
    balanced = check(bs.solve(scores, k=k)).value
    assert balanced <= check(bs.solve(scores, k=k, capacity=factor)).value + rounding


@pytest.mark.parametrize("empty", [0, 1, 3])
def test_experts_that_are_closed_or_take_all(empty):
    """Loads of 0 and of T leave prices without a bound on one side."""
    scores = np.random.default_rng(3).standard_normal((400, 6))
    loads = np.array([0] * empty + [400] + [0] * (5 - empty))
    loads[-1] += 400 - loads[-1] if loads[-1] == 0 else 0
    solution = check(bs.solve(scores, k=2, capacity=loads))
    assert (solution.loads == loads).all()
    assert np.isfinite(solution.bias).all()


def test_warm_start_on_a_drifting_source():
    """Batch after batch from the bias before: the optimum of a cold start, and no more passes in all."""
    source = sources.Drifting(n_experts=16, seed=4, walk_rate=0.02)
    bias, warm_passes, cold_passes = None, 0, 0
    for step in range(6):
        scores = source.batch(step, 4000).astype(np.float64)
        cold = check(bs.solve(scores, k=2))
        warm = check(bs.solve(scores, k=2, bias=bias))
        # Both are certified: they may differ by both gaps.
        assert abs(warm.value - cold.value) <= 2 * GAP * abs(cold.value)
        bias = warm.bias
        warm_passes += warm.effort.n_passes
        cold_passes += cold.effort.n_passes
    assert warm_passes <= cold_passes


@pytest.mark.parametrize("bias", [1e6, -1e6, 1e-300])
def test_any_start_will_do(bias):
    scores = scores_of("normal", 3000, 16, 2)
    start = np.zeros(16)
    start[3] = bias
    expected = check(bs.solve(scores, k=2)).value
    assert check(bs.solve(scores, k=2, bias=start)).value == pytest.approx(expected, rel=2 * GAP)


@pytest.mark.parametrize("kind", ["normal", "tied"])
def test_same_bits_for_any_number_of_threads(monkeypatch, kind):
    scores = scores_of(kind, 40_001, 33, 5)
    assert scores.size > batches._PARALLEL_FROM
    monkeypatch.setattr(batches, "_n_threads", lambda: 3)
    several = check(bs.solve(scores, k=5))
    monkeypatch.setattr(batches, "_n_threads", lambda: 1)
    one = check(bs.solve(scores, k=5))
    assert (several.experts == one.experts).all()
    assert (several.bias == one.bias).all()
    assert (several.interval == one.interval).all()
    assert several.value == one.value
    assert several.gap == one.gap

"""Every method against all assignments there are, on every tiny shape; sums of quarters are exact."""

import functools

import numpy as np
import pytest

import balancesim as bs
from balancesim.errors import InputError
from balancesim.problem import load_limits
from tests import naive
from tests.exact.instances import METHODS, SHAPES, Instance, capacities


def solved(shapes, masked):
    """Yield instances of each shape and the best value that there is."""
    for n_tokens, n_experts, k in shapes:
        rng = np.random.default_rng([n_tokens, n_experts, k, masked])
        scores = rng.integers(-8, 9, (n_tokens, n_experts)) / 4.0
        if masked:
            scores[rng.random(scores.shape) < 0.3] = -np.inf
            if (np.isfinite(scores).sum(axis=1) < k).any():
                continue
        values, loads = naive.assignments(scores, k)
        for capacity in (None, *capacities(rng, n_tokens, n_experts, k)):
            low, high = load_limits(capacity, n_tokens, n_experts, k)
            yield Instance(scores, k, capacity), naive.best_value(values, loads, low, high)


@functools.cache
def every_shape():
    return list(solved(SHAPES, masked=False))


@functools.cache
def with_masks():
    small = [(T, E, k) for T, E, k in SHAPES if T >= 2 and E >= 3 and T * E <= 24]
    return list(solved(small, masked=True))


def test_shapes_include_the_corners():
    assert any(n_tokens < n_experts for n_tokens, n_experts, _ in SHAPES)
    assert any(k == n_experts - 1 >= 4 for _, n_experts, k in SHAPES)
    assert len(SHAPES) == 237


@pytest.mark.parametrize("method", METHODS)
def test_value(method, record_property):
    for (scores, k, capacity), best in every_shape():
        solution = bs.solve(scores, k=k, capacity=capacity, method=method)
        assert solution.value == best, (scores, k, capacity)
        assert solution.certificate.holds(1e-12), (solution.status, scores, k, capacity)
    record_property(
        "counted", f"{method}: {len(every_shape())} instances of {len(SHAPES)} shapes by brute force"
    )


@pytest.mark.parametrize("method", METHODS)
def test_value_or_infeasible_with_masks(method, record_property):
    infeasible = 0
    for (scores, k, capacity), best in with_masks():
        if best == -np.inf:
            infeasible += 1
            with pytest.raises(InputError, match=r"infeasible|no assignment meets `capacity`"):
                bs.solve(scores, k=k, capacity=capacity, method=method)
        else:
            solution = bs.solve(scores, k=k, capacity=capacity, method=method)
            assert solution.value == best, (scores, k, capacity)
            assert solution.certificate.holds(1e-12)
    assert infeasible > len(with_masks()) // 10
    record_property(
        "counted", f"{method}: {len(with_masks())} masked instances, {infeasible} of them infeasible"
    )


def test_clarabel_is_right_or_says_that_it_has_no_answer():
    """Where the optimum is unique it has an answer; never a wrong one."""
    answered = unique = 0
    for (scores, k, capacity), best in every_shape()[::7]:
        solution = bs.solve(scores, k=k, capacity=capacity, method="cvxpy-clarabel")
        values, loads = naive.assignments(scores, k)
        low, high = load_limits(capacity, *scores.shape, k)
        feasible = ((loads >= low) & (loads <= high)).all(axis=1)
        alone = (values[feasible] == best).sum() == 1
        unique += alone
        if solution.experts is None:
            assert "not integral" in solution.status.reason
            assert not alone
        else:
            answered += 1
            assert solution.value == best
    assert answered >= unique > 5

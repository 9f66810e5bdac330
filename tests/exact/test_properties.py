"""What every exact solution has, on instances with ties; sums of quarters are exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balancesim as bs
from tests.exact.instances import GAP, METHODS
from tests.strategies import assignments

quarters = st.integers(-16, 16).map(lambda q: q / 4)


def solve(instance, method="dual"):
    solution = bs.solve(instance.scores, k=instance.k, capacity=instance.capacity, method=method)
    assert solution.certificate.holds(GAP[method]), solution.status
    return solution


def dual_capacity(instance):
    return "integral" if instance.capacity is None else instance.capacity


@pytest.mark.parametrize("method", METHODS)
@given(instance=assignments(masks=True))
def test_a_solution_is_what_it_says(method, instance):
    scores, k, _, limits = instance
    solution = solve(instance, method)
    assert solution.experts.dtype == np.int64
    assert (np.diff(solution.experts, axis=1) > 0).all()
    assert (solution.loads == np.bincount(solution.experts.ravel(), minlength=scores.shape[1])).all()
    assert (limits[:, 0] <= solution.loads).all()
    assert (solution.loads <= limits[:, 1]).all()
    assert solution.value == np.take_along_axis(scores, solution.experts, axis=1).sum()
    assert solution.experts.shape == (len(scores), k)
    # Zero mean up to the rounding of E subtractions of prices of size 10.
    assert abs(solution.bias.mean()) <= 1e-14 * scores.shape[1]
    assert solution.gap == solution.certificate.gap
    assert solution.method == method


@pytest.mark.parametrize("method", METHODS)
@given(instance=assignments(masks=True))
def test_dual_value_at_the_bias_is_the_value(method, instance):
    scores, k, _, _ = instance
    solution = solve(instance, method)
    dual = bs.dual_value(scores, solution.bias, k=k, capacity=dual_capacity(instance))
    size = max(1.0, abs(solution.value))
    assert abs(dual - solution.value) <= GAP[method] * size
    # Both are sums of at most 2 T K + E terms of size 20: rounding far below this.
    assert abs(dual - solution.dual_value) <= 1e-12 * size


@given(assignments(masks=True), st.data())
def test_weak_duality(instance, data):
    """No bias has a dual value below the optimum (D_int where loads are rounded), and sums are exact."""
    scores, k, _, _ = instance
    bias = [data.draw(quarters) for _ in range(scores.shape[1])]
    dual = bs.dual_value(scores, bias, k=k, capacity=dual_capacity(instance))
    assert dual >= solve(instance).value


@given(assignments(masks=True))
def test_fractional_loads_cost_value(instance):
    """D with L = T K / E is below D_int, so that only D_int certifies rounded loads."""
    scores, k, _, _ = instance
    relaxed = instance._replace(capacity=None)
    if np.isfinite(scores).all():
        solution = solve(relaxed)
        least = bs.dual_value(scores, solution.bias, k=k)
        assert least <= solution.dual_value + 1e-12 * max(1.0, abs(solution.value))


@pytest.mark.parametrize("method", METHODS)
@given(instance=assignments(masks=True), random=st.randoms(use_true_random=False))
def test_permuting_tokens_and_experts(method, instance, random):
    """It never changes the value."""
    scores, _, capacity, _ = instance
    tokens, experts = list(range(scores.shape[0])), list(range(scores.shape[1]))
    random.shuffle(tokens)
    random.shuffle(experts)
    permuted = instance._replace(
        scores=scores[np.ix_(tokens, experts)], capacity=None if capacity is None else capacity[experts]
    )
    assert solve(permuted, method).value == solve(instance, method).value


@pytest.mark.parametrize("method", METHODS)
def test_permuting_permutes_the_only_optimum(method):
    """Normal scores: the optimum is unique with probability one."""
    rng = np.random.default_rng(7)
    for n_tokens, n_experts, k in ((30, 5, 2), (41, 6, 5), (3, 8, 3)):
        scores = rng.standard_normal((n_tokens, n_experts))
        tokens, experts = rng.permutation(n_tokens), rng.permutation(n_experts)
        plain = bs.solve(scores, k=k, method=method)
        permuted = bs.solve(scores[np.ix_(tokens, experts)], k=k, method=method)
        assert (permuted.loads == plain.loads[experts]).all()
        assert (np.sort(experts[permuted.experts], axis=1) == plain.experts[tokens]).all()


@pytest.mark.parametrize("method", METHODS)
@given(instance=assignments(masks=True), data=st.data())
def test_a_constant_in_a_token(method, instance, data):
    """Adding it to all scores of a token adds K times it to the value."""
    shifts = np.array([data.draw(quarters) for _ in range(len(instance.scores))])
    shifted = instance._replace(scores=instance.scores + shifts[:, None])
    assert solve(shifted, method).value == solve(instance, method).value + instance.k * shifts.sum()


@pytest.mark.parametrize("method", METHODS)
@given(instance=assignments(masks=True), data=st.data())
def test_an_offset_of_an_expert(method, instance, data):
    """At fixed loads it adds the offset times the load, and moves the optimal prices by minus the offset."""
    scores, k, _, _ = instance
    plain = solve(instance, method)
    fixed = instance._replace(capacity=plain.loads)
    offsets = np.array([data.draw(quarters) for _ in range(scores.shape[1])])
    shifted = solve(fixed._replace(scores=scores + offsets), method)
    assert shifted.value == plain.value + offsets @ plain.loads
    moved = bs.dual_value(scores, shifted.bias + offsets, k=k, capacity=plain.loads)
    assert abs(moved - plain.value) <= GAP[method] * max(1.0, abs(plain.value), abs(shifted.value))


@given(assignments(), st.data())
def test_more_room_is_never_worse(instance, data):
    scores, k, _, limits = instance
    room = np.array([data.draw(st.integers(0, 2)) for _ in range(scores.shape[1])])
    wider = np.clip(np.stack([limits[:, 0] - room, limits[:, 1] + room], axis=1), 0, len(scores))
    assert solve(instance._replace(capacity=wider)).value >= solve(instance).value
    free = np.tile([0, len(scores)], (scores.shape[1], 1))
    assert solve(instance._replace(capacity=free)).value == bs.route(scores, k=k).value


@pytest.mark.parametrize("method", METHODS)
@given(instance=assignments(masks=True), data=st.data())
def test_a_warm_start_changes_no_value(method, instance, data):
    """From any bias, the solution's own included."""
    plain = solve(instance, method)
    for bias in (plain.bias, [data.draw(quarters) for _ in range(instance.scores.shape[1])]):
        again = bs.solve(instance.scores, k=instance.k, capacity=instance.capacity, method=method, bias=bias)
        assert again.value == plain.value
        assert again.certificate.holds(GAP[method])


@given(assignments(masks=True))
def test_input_is_left_alone(instance):
    scores, k, capacity, _ = instance
    arrays = [scores] if capacity is None else [scores, capacity]
    for array in arrays:
        array.setflags(write=False)
    expected = solve(instance).value
    for layout in (np.asfortranarray(scores), np.repeat(scores, 2, axis=0)[::2]):
        assert bs.solve(layout, k=k, capacity=capacity).value == expected

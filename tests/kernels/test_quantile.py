"""Order statistics against sorting."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancesim.batches import padded
from balancesim.kernels.jit import kernel
from balancesim.kernels.model import LANES
from balancesim.kernels.quantile import descend, find_cutoffs, find_quantiles, next_scores, quantile, select
from tests import strategies
from tests.kernels import box

QUARTERS = st.integers(-6, 6).map(lambda q: q / 4)


@given(st.lists(QUARTERS | st.just(math.inf) | st.just(-math.inf), min_size=1, max_size=60), st.data())
def test_select_equals_sorting(values, data):
    rank = data.draw(st.integers(0, len(values) - 1))
    array = np.array(values)
    assert select(array, rank) == sorted(values, reverse=True)[rank]
    assert sorted(array) == sorted(values)
    assert sorted(array[:rank], reverse=True) == sorted(values, reverse=True)[:rank]


@pytest.mark.parametrize("order", ["random", "ascending", "descending", "equal"])
def test_select_among_many(order):
    values = np.random.default_rng(0).normal(size=5000)
    values = {"random": values, "equal": np.ones(5000)}.get(order, np.sort(values))
    values = values[::-1] if order == "descending" else values
    expected = -np.sort(-values)
    for rank in (0, 1, 624, 2500, 4999):
        assert select(values.copy(), rank) == expected[rank]


def test_select_ends_on_nan():
    select(np.array([math.nan, 1.0, math.nan, 0.0]), 2)


@given(st.lists(QUARTERS, min_size=2, max_size=30), st.data())
def test_quantile_is_an_end_or_the_middle_of_the_gap(values, data):
    capacity = data.draw(st.integers(0, len(values) - 1))
    ordered = sorted(values, reverse=True)
    assert quantile(np.array(values), capacity, False) == ordered[capacity]
    middle = quantile(np.array(values), capacity, True)
    assert middle == (
        ordered[capacity] if capacity == 0 else 0.5 * (ordered[capacity - 1] + ordered[capacity])
    )


@given(strategies.batches(max_tokens=300, max_experts=12, masks=True), st.data())
def test_cutoffs_equal_sorting(batch, data):
    scores, bias = np.ascontiguousarray(batch.scores.T, dtype=np.float64), batch.bias.astype(np.float64)
    n_tokens = scores.shape[1]
    first = data.draw(st.integers(0, n_tokens - 1))
    last = data.draw(st.integers(first + 1, n_tokens))
    cutoffs = np.full(n_tokens, np.nan)
    find_cutoffs(scores, bias, batch.k, first, last, cutoffs)
    expected = -np.sort(-(scores + bias[:, None]), axis=0)[batch.k]
    assert cutoffs[first:last].tolist() == expected[first:last].tolist()
    assert np.isnan(np.delete(cutoffs, slice(first, last))).all()


@given(strategies.batches(max_tokens=40, max_experts=8, masks=True))
def test_quantiles_equal_sorting(batch):
    scores = np.ascontiguousarray(batch.scores.T, dtype=np.float64)
    n_experts, n_tokens = scores.shape
    cutoffs = np.random.default_rng(0).integers(-4, 4, n_tokens) / 4
    found = np.empty(n_experts)
    find_quantiles(scores, cutoffs, batch.k, 0, n_tokens, False, np.empty(n_tokens), found)
    lead = -np.sort(-(scores - cutoffs), axis=1)
    assert found.tolist() == lead[:, n_tokens * batch.k // n_experts].tolist()


@given(strategies.batches(max_tokens=40, max_experts=8), st.integers(1, 4))
def test_clipped_descent_equals_naive(batch, n_sweeps):
    scores = batch.scores.astype(np.float64)
    n_tokens, n_experts = scores.shape
    prices = np.abs(batch.bias.astype(np.float64))
    expected = prices.copy()
    for _ in range(n_sweeps):
        tokens = np.maximum(-np.sort(-(scores - expected), axis=1)[:, batch.k], 0.0)
        lead = -np.sort(-(scores - tokens[:, None]), axis=0)
        expected = np.maximum(lead[n_tokens * batch.k // n_experts], 0.0)
    descend(np.ascontiguousarray(scores.T), batch.k, n_sweeps, prices)
    assert prices.tolist() == expected.tolist()


@kernel
def next_of(tile, bias, k, n_experts, top, n_lanes):
    return next_scores(tile, bias, k, n_experts, top, n_lanes)


@pytest.mark.parametrize("kind", box.KINDS)
def test_next_scores_over_the_box(kind):
    for case in box.cases(kind, most=LANES):
        n_lanes, n_experts = case.twin.scores.shape
        top = np.full((case.k, LANES), np.nan, case.twin.scores.dtype)
        top[:, :n_lanes] = case.twin.ranked[:, : case.k].T
        tile, bias = box.tile_of(case.twin.scores), padded(case.twin.bias)
        found = next_of(tile, bias, case.k, n_experts, top, n_lanes)
        assert (found == case.twin.ranked[:, case.k]).all(), case.name


@pytest.mark.parametrize("kind", box.KINDS)
def test_cutoffs_and_quantiles_over_the_box(kind):
    for turn, case in enumerate(box.cases(kind, np.float64)):
        if turn % 3:
            continue
        scores, k = np.ascontiguousarray(case.twin.scores.T), case.k
        n_experts, n_tokens = scores.shape
        cutoffs = np.full(n_tokens, np.nan)
        find_cutoffs(scores, case.twin.bias, k, 0, n_tokens, cutoffs)
        assert (cutoffs == case.twin.ranked[:, k]).all(), case.name
        # Where all that is left is masked, and a difference with it would be infinite or none.
        cutoffs = np.where(cutoffs > -np.inf, cutoffs, 0.0)
        found, values = np.full(n_experts, np.nan), np.full(n_tokens, np.nan)
        middle, capacity = bool(turn % 2), n_tokens * k // n_experts
        find_quantiles(scores, cutoffs, k, 0, n_tokens, middle, values, found)
        lead = -np.sort(-(scores - cutoffs), axis=1)
        expected = lead[:, capacity]
        if middle and n_tokens * k % n_experts == 0 and capacity > 0:
            last_in = lead[:, capacity - 1]
            expected = np.where(last_in < np.inf, 0.5 * (last_in + expected), expected)
        assert (found == expected).all(), case.name

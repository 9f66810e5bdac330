"""Choices other than the K best of all, and what the loop does with them, against the naive twins."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balancesim as bs
from balancesim.balancers import AlfLB, Delayed
from balancesim.batches import padded
from balancesim.kernels import choices
from balancesim.kernels.jit import kernel
from balancesim.kernels.model import LANES, n_rows
from balancesim.kernels.rules import first_token, within
from balancesim.kernels.topk import find_top, n_ranks
from balancesim.simulation import simulate
from balancesim.sources import Normal
from tests import naive
from tests.conftest import INTERPRETED
from tests.kernels import box
from tests.strategies import batches, grouped_batches


def tile_of(scores: Any) -> Any:
    """One tile, experts along rows; what no token fills is not a number."""
    tile = np.full((n_rows(scores.shape[1]), LANES), np.nan, scores.dtype)
    tile[:, : len(scores)] = -np.inf
    tile[: scores.shape[1], : len(scores)] = scores.T
    return tile


@kernel
def top_of(tile, bias, k, n_lanes):
    top = np.empty((n_ranks(k), LANES), tile.dtype)
    group = np.empty((8, LANES), tile.dtype)
    find_top(tile, bias, k, top, group, n_lanes)
    return top


@kernel
def limited_by(tile, bias, n_experts, groups, n_lanes):
    limited = np.empty_like(tile)
    group_score = np.empty((groups.n_groups, LANES), tile.dtype)
    choices.limit_groups(tile, bias, n_experts, groups, n_lanes, group_score, limited)
    return limited


@kernel
def loads_above(tile, bias, n_experts, n_lanes):
    loads = np.zeros(n_experts, np.int64)
    choices.count_above(tile, bias, n_experts, n_lanes, loads)
    return loads


@kernel
def loads_between(tile, bias, k, n_experts, first, last, by_threshold):
    top = top_of(tile, bias, k, last)
    loads = np.zeros(n_experts, np.int64)
    choices.count_lanes(tile, bias, k, n_experts, top, first, last, by_threshold, loads)
    return loads


@kernel
def lost_by(tile, unbiased, k, n_experts, limited, bias, n_lanes, above):
    lost = np.zeros(LANES)
    base_top = top_of(tile, unbiased, k, n_lanes)
    if above:
        choices.add_chosen_above(tile, unbiased, k, n_experts, base_top, bias, n_lanes, lost)
    else:
        top = top_of(limited, bias, k, n_lanes)
        choices.add_lost(tile, unbiased, k, n_experts, base_top, limited, bias, top, n_lanes, lost)
    return lost


@kernel
def has_no_choice(tile, bias, k, n_lanes):
    return choices.lacks_choice(top_of(tile, bias, k, n_lanes), k, n_lanes)


@kernel
def first_of(rank, n_tokens, n_simulated):
    return first_token(rank, n_tokens, n_simulated)


def lost_of(scores: Any, chosen: list[list[int]], k: int) -> list[float]:
    """Quarters: every sum is exact."""
    best = naive.choose(scores, np.zeros(scores.shape[1]), k)
    return [
        sum(float(row[e]) for e in theirs) - sum(float(row[e]) for e in mine)
        for row, theirs, mine in zip(scores, best, chosen, strict=True)
    ]


@given(grouped_batches())
def test_limited_tiles_equal_naive(batch: Any) -> None:
    scores, bias, k, groups = batch
    limit = groups.in_kernel()
    n_tokens, n_experts = scores.shape
    prices = padded(bias)
    limited = limited_by(tile_of(scores), prices, n_experts, limit, n_tokens)
    expected = naive.limit(scores, bias, *limit)
    assert np.array_equal(limited[:n_experts, :n_tokens].T, expected)
    assert (limited[n_experts:, :n_tokens] == -np.inf).all()
    assert np.array_equal(groups.apply(scores, bias), expected)
    lost = lost_by(
        tile_of(scores), padded(np.zeros_like(bias)), k, n_experts, limited, prices, n_tokens, False
    )
    assert lost[:n_tokens].tolist() == lost_of(scores, naive.choose(expected, bias, k), k)
    assert (lost[n_tokens:] == 0.0).all()


@given(batches(max_tokens=30, max_experts=12))
def test_all_groups_leave_a_tile_as_it_is(batch: Any) -> None:
    scores, bias, _ = batch
    n_tokens, n_experts = scores.shape
    tile = tile_of(scores)
    for limit in (choices.Groups(1, 1, 2), choices.Groups(n_experts, n_experts, 1)):
        limited = limited_by(tile, padded(bias), n_experts, limit, n_tokens)
        assert np.array_equal(limited[:, :n_tokens], tile[:, :n_tokens])


@given(batches(max_tokens=30, max_experts=12))
def test_choice_by_threshold_equals_naive(batch: Any) -> None:
    scores, bias, k = batch
    n_tokens, n_experts = scores.shape
    tile, prices = tile_of(scores), padded(bias)
    chosen = [[e for e in range(n_experts) if row[e] + bias[e] > 0.0] for row in scores]
    assert loads_above(tile, prices, n_experts, n_tokens).tolist() == naive.loads_of(chosen, n_experts)
    lost = lost_by(tile, padded(np.zeros_like(bias)), k, n_experts, tile, prices, n_tokens, True)
    assert lost[:n_tokens].tolist() == lost_of(scores, chosen, k)


@given(batches(max_tokens=30, max_experts=12), st.data())
def test_loads_of_some_lanes_equal_naive(batch: Any, data: Any) -> None:
    scores, bias, k = batch
    n_tokens, n_experts = scores.shape
    first = data.draw(st.integers(0, n_tokens - 1))
    last = data.draw(st.integers(first, n_tokens))
    tile, prices = tile_of(scores), padded(bias)
    for by_threshold in (False, True):
        chosen = naive.choose(scores, bias, k)
        if by_threshold:
            chosen = [[e for e in range(n_experts) if row[e] + bias[e] > 0.0] for row in scores]
        found = loads_between(tile, prices, k, n_experts, first, max(last, 1), by_threshold)
        assert found.tolist() == naive.loads_of(chosen[first : max(last, 1)], n_experts)


@given(batches(max_tokens=30, max_experts=12, masks=True), st.integers(0, 11), st.integers(0, 29))
def test_a_token_without_a_choice_is_seen(batch: Any, n_masked: int, token: int) -> None:
    scores, bias, k = batch
    n_tokens, n_experts = scores.shape
    assert not has_no_choice(tile_of(scores), padded(bias), k, n_tokens)
    scores[token % n_tokens, : n_masked % n_experts + 1] = -np.inf
    lacks = (scores > -np.inf).sum(axis=1).min() < k
    assert has_no_choice(tile_of(scores), padded(bias), k, n_tokens) == lacks


@given(st.integers(1, 40), st.integers(1, 200))
def test_ranks_share_the_tokens(n_simulated: int, n_tokens: int) -> None:
    borders = [first_of(rank, n_tokens, n_simulated) for rank in range(n_simulated + 1)]
    assert borders[0] == 0
    assert borders[-1] == n_tokens
    sizes = np.diff(borders)
    assert sizes.min() >= n_tokens // n_simulated
    assert sizes.max() <= -(-n_tokens // n_simulated)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf, 2.0**10, -(2.0**10)])
def test_within(bad: float) -> None:
    @kernel
    def inside(price, limit):  # compiled for numbers alone, as the loop is
        return within(price, limit)

    price = np.array([0.0, -1.0, 1023.0, 5e-324])
    assert inside(price, 1023.0)
    price[2] = bad
    assert not inside(price, 1023.0)


def lost_in_order(scores: Any, best: Any, chosen: Any) -> Any:
    """Experts ascending, as the kernel adds."""
    signed = np.where(best & ~chosen, scores, np.where(chosen & ~best, -scores, 0.0)).astype(np.float64)
    return np.add.accumulate(signed, axis=1)[:, -1]


def check_choice_in_box(case: Any) -> None:
    """Loads of a range of lanes and of experts above zero, and the score that both give up, to the bit."""
    twin, k = case.twin, case.k
    scores = twin.scores
    n_tokens, n_experts = scores.shape
    tile, prices, zero = box.tile_of(scores), padded(twin.bias), padded(np.zeros_like(twin.bias))
    best, chosen, above = box.sort(scores, zero[:n_experts]).chosen(k), twin.chosen(k), twin.biased > 0.0
    lost = lost_by(tile, zero, k, n_experts, tile, prices, n_tokens, False)
    assert lost[:n_tokens].tolist() == lost_in_order(scores, best, chosen).tolist(), case.name
    assert (lost[n_tokens:] == 0.0).all(), case.name
    lost = lost_by(tile, zero, k, n_experts, tile, prices, n_tokens, True)
    assert lost[:n_tokens].tolist() == lost_in_order(scores, best, above).tolist(), case.name
    assert loads_above(tile, prices, n_experts, n_tokens).tolist() == above.sum(axis=0).tolist(), case.name
    first, last = n_tokens // 3, n_tokens - n_tokens // 5
    for by_threshold, marks in ((False, chosen), (True, above)):
        found = loads_between(tile, prices, k, n_experts, first, last, by_threshold)
        assert found.tolist() == marks[first:last].sum(axis=0).tolist(), case.name
    assert not has_no_choice(tile, prices, k, n_tokens), case.name


def check_groups_in_box(case: Any, turn: int, may_sum: bool) -> None:
    """Equal groups by turns of the divisors of E."""
    scores, bias = case.twin.scores, case.twin.bias
    n_tokens, n_experts = scores.shape
    divisors = [n for n in range(2, n_experts + 1) if n_experts % n == 0]
    n_groups = divisors[turn % len(divisors)]
    by_sum = may_sum and n_groups < n_experts and turn % 2 == 0
    limit = bs.GroupLimit(n_groups, 1 + turn % n_groups, "top2" if by_sum else "max")
    expected = limit.apply(scores, bias)
    limited = limited_by(box.tile_of(scores), padded(bias), n_experts, limit.in_kernel(), n_tokens)
    assert np.array_equal(limited[:n_experts, :n_tokens].T, expected), case.name
    assert (limited[n_experts:, :n_tokens] == -np.inf).all(), case.name


@pytest.mark.parametrize("kind", box.KINDS)
def test_choices_over_the_box(kind: str) -> None:
    for turn, case in enumerate(box.cases(kind, most=LANES)):
        if turn % 4 == 0:
            check_choice_in_box(case)
        elif turn % 4 == 2:
            # Two huge scores have no sum in float32.
            check_groups_in_box(case, turn // 4, may_sum=kind != "huge")


SOURCE = Normal(n_experts=6, offsets="iqr", seed=2)
N_TOKENS, HORIZON = (9, 3) if INTERPRETED else (150, 8)


def constant(price: Any, loads: Any, n: int, n_tokens: int) -> Any:
    del n
    return price - 0.5 * ((loads * price.size - n_tokens * 2) / (price.size * n_tokens))


@pytest.mark.parametrize(
    "groups", [None, bs.GroupLimit(3, 2), bs.GroupLimit(3, 1), bs.GroupLimit(6, 3, "max")]
)
@pytest.mark.parametrize(("every", "lag", "n_ranks"), [(1, 0, 1), (2, 1, 1), (1, 2, 3), (3, 0, 2)])
def test_the_loop_equals_naive(groups: Any, every: int, lag: int, n_ranks: int) -> None:
    """Groups, delays and ranks together; ranks end inside tiles."""
    rule = Delayed(rule=AlfLB(schedule="constant", step_size=0.5), every=every, lag=lag, n_ranks=n_ranks)
    limit = None if groups is None else tuple(groups.in_kernel())
    options = {"every": every, "lag": lag, "n_ranks": n_ranks, "groups": limit}
    expected = naive.trained(SOURCE, constant, N_TOKENS, 2, HORIZON, **options)
    run = simulate(
        rule, SOURCE, n_tokens=N_TOKENS, k=2, horizon=HORIZON, groups=groups, n_records=HORIZON, n_exact=0
    )
    assert np.array_equal(run.loads, expected["loads"])
    # An average of prices: one rounding a rank and step.
    np.testing.assert_allclose(run.bias, expected["bias"], rtol=1e-15 * n_ranks * HORIZON, atol=1e-16)
    # Per token and step, sums of two float32 scores of order one.
    np.testing.assert_allclose(run.score_lost, expected["score_lost"], atol=8 * 6e-8 * HORIZON)

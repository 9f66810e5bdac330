"""Augmenting paths against brute force over pairs, HiGHS and matching."""

import math

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from balancesim.kernels.candidates import narrowed, write_choice
from balancesim.kernels.exchange import BALANCED, NO_PATH, TOO_NARROW, UNFINISHED
from balancesim.problem import cheapest_loads
from tests.conftest import INTERPRETED
from tests.kernels.exchanged import SEEDS, TOLERANCE, Exchanged, instance, limits_around, reserve_of
from tests.kernels.instances import optimum, quarters


@pytest.mark.parametrize("seed", SEEDS)
def test_balances_at_the_least_cost(seed):
    """From a random price to the loads asked for: no move gains at the price, so none of any length does."""
    scores, k, target = instance(seed)
    price = np.random.default_rng(seed).standard_normal(target.size)
    state = Exchanged(scores, k, price)
    wrong = np.abs(state.loads - target).sum()
    ending, moves = state.balance(target.copy())
    assert ending == BALANCED
    assert moves == wrong / 2
    assert state.loads.tolist() == target.tolist()
    assert state.violation() <= TOLERANCE
    assert state.value == pytest.approx(optimum(scores, k, target, target), abs=1e-7)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_augmentation_is_the_cheapest(seed):
    """After each, the choice is the best for the loads that it has; each brings a token home."""
    scores, k, target = instance(seed, masks=False)
    state = Exchanged(scores, k, np.zeros(target.size))
    ending, value = UNFINISHED, math.inf
    for wrong in range(int(np.abs(state.loads - target).sum()), -1, -2):
        assert np.abs(state.loads - target).sum() == wrong
        ending, moves = state.balance(target.copy(), most=1)
        assert moves == (wrong > 0)
        assert ending == (BALANCED if wrong <= 2 else UNFINISHED)
        assert state.value == pytest.approx(optimum(scores, k, state.loads, state.loads), abs=1e-7)
        assert state.value <= value + TOLERANCE
        assert state.violation() <= TOLERANCE
        value = state.value
    assert ending == BALANCED


@pytest.mark.parametrize("seed", range(5 if INTERPRETED else 20))
def test_equals_matching_of_tokens_and_places(seed):
    rng = np.random.default_rng(seed)
    n_experts, n_tokens = int(rng.integers(2, 8)), 25
    scores = rng.standard_normal((n_tokens, n_experts)) if seed % 2 else quarters(rng, (n_tokens, n_experts))
    target = np.bincount(rng.integers(0, n_experts, n_tokens), minlength=n_experts)
    state = Exchanged(scores, 1, np.zeros(n_experts))
    assert state.balance(target.copy())[0] == BALANCED
    places = scores[:, np.repeat(np.arange(n_experts), target)]
    assert state.value == pytest.approx(places[linear_sum_assignment(-places)].sum(), abs=1e-12)


def test_more_than_one_word():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((70, 70 if not INTERPRETED else 66))
    n_experts = scores.shape[1]
    target = np.full(n_experts, 3)
    target[: 70 * 3 - 3 * n_experts] += 1
    target[0] += 70 * 3 - target.sum()
    state = Exchanged(scores, 3, -scores.mean(axis=0))
    assert state.balance(target.copy())[0] == BALANCED
    assert state.loads.tolist() == target.tolist()
    assert state.violation() <= TOLERANCE


@pytest.mark.parametrize("seed", range(10))
def test_narrow_candidates_are_enough_where_the_price_stays_close(seed):
    """Few entries, found near the price: as long as the reach holds, the others could not have moved."""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((60, 5))
    state = Exchanged(scores, 2, 0.1 * rng.standard_normal(5), width=1.0)
    target = state.loads.copy()
    target[:4] += [1, -1, 2, -2]
    few, entry = narrowed(state.found, state.price, 0.6)
    assert 0 < few.expert.size < state.found.expert.size < scores.size
    whole, state.found = state.found, few
    assert state.balance(target.copy(), reach=0.6)[0] == BALANCED
    assert state.violation() <= TOLERANCE
    whole.chosen[entry] = few.chosen
    words = state.words.copy()
    write_choice(whole, words)
    assert (words == state.words).all()
    assert state.value == pytest.approx(optimum(scores, 2, target, target), abs=1e-7)


@pytest.mark.parametrize("seed", SEEDS)
def test_loads_within_limits_by_way_of_the_reserve(seed):
    scores, k, loads = instance(seed)
    low, high = limits_around(loads, len(scores), seed)
    price = quarters(np.random.default_rng(seed), loads.size, 2)
    state = Exchanged(scores, k, price)
    kept = cheapest_loads(price, low, high, loads.sum(), near=state.loads)
    state.reserve = reserve_of(price, kept, low, high)
    assert state.balance(kept, low, high)[0] == BALANCED
    assert (state.loads == kept).all()
    assert (low <= kept).all()
    assert (kept <= high).all()
    # What pays for the loads: who might keep more is no cheaper than the reserve, who fewer no dearer.
    assert (state.price[kept < high] >= state.reserve - TOLERANCE).all()
    assert (state.price[kept > low] <= state.reserve + TOLERANCE).all()
    assert state.violation() <= TOLERANCE
    assert state.value == pytest.approx(optimum(scores, k, low, high), abs=1e-7)


def test_the_reserve_is_worth_something():
    """The control: without arcs to it, loads stay what they were to be, and the value is less."""
    scores = np.array([[2.0, 0.0, 0.0]] * 4)
    low, high = np.array([0, 0, 0]), np.array([4, 4, 4])
    start = np.array([-3.0, 0.0, 0.0])
    values = []
    for limits in ((low, high), (None, None)):
        state = Exchanged(scores, 1, start)
        kept = np.array([0, 2, 2])
        assert state.balance(kept, *limits)[0] == BALANCED
        assert state.settle(kept, *limits)[0] == BALANCED
        values.append(state.value)
    assert values == [8.0, 0.0]


def test_a_price_that_would_leave_the_reach():
    """Ends at the last price within it: the choice so far is still the best for its loads."""
    scores = np.arange(8.0)[:, None] * [1.0, 0.0] + [4.0, 0.0]
    state = Exchanged(scores, 1, np.zeros(2))
    assert state.loads.tolist() == [8, 0]
    ending, moves = state.balance(np.array([4, 4]), reach=5.5)
    assert ending == TOO_NARROW
    assert moves == 2  # at gaps 4 and 5
    assert state.loads.tolist() == [6, 2]
    assert np.ptp(state.price) == 5.0
    assert state.violation() <= 0.0
    assert state.balance(np.array([4, 4]), centre=np.zeros(2), reach=7.0) == (BALANCED, 2)
    # The reach is about the centre, not about where the price was.
    again = Exchanged(scores, 1, np.zeros(2))
    assert again.balance(np.array([4, 4]), centre=np.array([-7.0, 0.0]), reach=0.5)[0] == TOO_NARROW
    assert again.balance(np.array([4, 4]), centre=np.array([-7.0, 0.0]), reach=7.0)[0] == BALANCED


def test_no_path_where_no_token_may_go():
    """Every token is masked but for the first two experts, which are to keep too few."""
    scores = np.where(np.arange(3) < 2, np.arange(6.0)[:, None] * [1.0, 0.0, 0.0], -np.inf)
    state = Exchanged(scores, 1, np.zeros(3))
    ending, _ = state.balance(np.array([2, 2, 2]))
    assert ending == NO_PATH
    assert state.loads[2] == 0
    assert optimum(scores, 1, [2, 2, 2], [2, 2, 2]) == -math.inf
    scores[0, 2] = scores[3, 2] = -5.0
    state = Exchanged(scores, 1, np.zeros(3))
    assert state.balance(np.array([2, 2, 2]))[0] == BALANCED
    assert state.experts[0] == state.experts[3] == [2]


def test_no_path_among_too_few_candidates():
    scores = np.array([[4.0, 0.0]] * 4)
    state = Exchanged(scores, 1, np.zeros(2), width=3.0)
    assert state.found.expert.size == 0
    assert state.balance(np.array([2, 2])) == (NO_PATH, 0)
    assert Exchanged(scores, 1, np.zeros(2), width=4.0).balance(np.array([2, 2])) == (BALANCED, 2)


def test_no_move_where_none_is_needed_or_allowed():
    scores, k, _ = instance(4)
    state = Exchanged(scores, k, np.zeros(scores.shape[1]))
    kept = state.loads.copy()
    price = state.price.copy()
    assert state.balance(kept) == (BALANCED, 0)
    assert (state.price == price).all()
    other = kept.copy()
    giver = int(np.argmax(kept))
    other[giver] -= 1
    other[(giver + 1) % kept.size] += 1
    assert state.balance(other, most=0) == (UNFINISHED, 0)
    assert (state.price == price).all()
    assert (state.loads == kept).all()

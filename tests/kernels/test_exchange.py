"""Augmenting paths and the price in the middle, against brute force over pairs, HiGHS and matching."""

import math

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from balancesim.kernels.candidates import Candidates, narrowed, write_choice
from balancesim.kernels.exchange import BALANCED, NO_PATH, TOO_NARROW, UNFINISHED, balance, settle
from balancesim.problem import cheapest_loads
from tests import naive
from tests.conftest import INTERPRETED
from tests.kernels.instances import (
    ALL,
    collect,
    experts_of,
    masked,
    most_violated,
    optimum,
    quarters,
    value_of,
    words_of,
)

SEEDS = range(8 if INTERPRETED else 40)
TOLERANCE = 1e-12
"""Rounding of sums of a few scores below ten."""
ENOUGH = 10_000


def instance(seed, *, smooth=None, masks=None):
    """Scores, K and the loads of some assignment."""
    rng = np.random.default_rng(seed)
    n_tokens, n_experts = int(rng.integers(2, 15)), int(rng.integers(2, 8))
    k = int(rng.integers(1, n_experts))
    smooth = seed % 2 == 0 if smooth is None else smooth
    scores = rng.standard_normal((n_tokens, n_experts)) if smooth else quarters(rng, (n_tokens, n_experts))
    if seed % 3 == 0 if masks is None else masks:
        scores = masked(rng, scores, k)
    order = np.argsort(
        np.where(np.isfinite(scores), rng.random(scores.shape), 2.0) + np.arange(n_experts) / 9
    )
    return scores, k, np.bincount(order[:, :k].ravel(), minlength=n_experts)


class Exchanged:
    """A choice that is optimal at its price, and what the kernels make of it."""

    def __init__(self, scores, k, price, *, width=ALL, words=None):
        self.scores, self.k, self.price = scores, k, np.array(price, np.float64)
        self.found, loads, self.words = collect(scores, k, self.price, width, words=words)
        self.loads = np.array(naive.loads_of(experts_of(self.words), loads.size))
        self.reserve = 0.0
        self.moves = 0

    def balance(self, kept, low=None, high=None, *, reach=ALL, most=ENOUGH, centre=None):
        low, high = (kept.copy() if limit is None else limit for limit in (low, high))
        centre = self.price.copy() if centre is None else centre
        ending, moves, self.reserve = balance(
            self.found, self.loads, kept, low, high, self.price, self.reserve, centre, reach, most
        )
        self.look()
        self.moves += moves
        return ending, moves

    def settle(self, kept, low=None, high=None, *, reach=ALL, centre=None, tolerance=TOLERANCE, most=5000):
        low, high = (kept.copy() if limit is None else limit for limit in (low, high))
        centre = self.price.copy() if centre is None else centre
        result = settle(
            self.found, self.loads, kept, low, high, self.price, self.reserve, centre, reach, tolerance, most
        )
        self.look()
        return result

    def look(self):
        """Whatever has happened, the choice is one of K experts each, and loads are in step."""
        write_choice(self.found, self.words)
        self.experts = experts_of(self.words)
        assert [len(chosen) for chosen in self.experts] == [self.k] * len(self.experts)
        assert self.loads.tolist() == naive.loads_of(self.experts, self.loads.size)
        self.value = value_of(self.scores, self.experts)

    def violation(self):
        return most_violated(self.scores, self.experts, self.price)

    def unit_slack(self):
        """The least by which any move of one token costs more than it gains; infinite without moves."""
        return -self.violation()


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


def limits_around(loads, n_tokens, seed):
    room = np.random.default_rng(seed).integers(0, 3, (loads.size, 2))
    return np.clip(loads - room[:, 0], 0, n_tokens), np.clip(loads + room[:, 1], 0, n_tokens)


def reserve_of(price, kept, low, high):
    """A price at which what is kept may be kept: no less than of those that might keep fewer."""
    dear, cheap = price[kept > low], price[kept < high]
    return float(dear.max()) if dear.size else float(cheap.min()) if cheap.size else 0.0


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


def balanced(seed, **options):
    scores, k, target = instance(seed, **options)
    state = Exchanged(scores, k, np.zeros(target.size))
    assert state.balance(target.copy())[0] == BALANCED
    return state, target


def swapped(state, n_swaps, seed):
    """The same with pairs of tokens that have traded experts; loads are what they were."""
    rng = np.random.default_rng(seed)
    chosen = [set(experts) for experts in state.experts]
    done = 0
    for _ in range(200):
        i, j = rng.permutation(len(chosen))[:2]
        ours = [e for e in chosen[i] - chosen[j] if state.scores[j, e] > -np.inf]
        theirs = [e for e in chosen[j] - chosen[i] if state.scores[i, e] > -np.inf]
        if done < n_swaps and ours and theirs:
            a, b = rng.choice(ours), rng.choice(theirs)
            chosen[i] ^= {a, b}
            chosen[j] ^= {a, b}
            done += 1
    words = words_of([sorted(int(e) for e in experts) for experts in chosen], state.loads.size)
    return Exchanged(state.scores, state.k, state.price, words=words), done


@pytest.mark.parametrize("seed", SEEDS)
def test_settling_cancels_what_was_swapped(seed):
    state, target = balanced(seed)
    best, price = state.value, state.price.copy()
    for n_swaps in (0, 1, 3):
        planted, done = swapped(state, n_swaps, seed)
        planted.look()
        lost = best - planted.value
        assert lost >= -TOLERANCE
        ending, cycles = planted.settle(target.copy())
        assert ending == BALANCED
        assert planted.loads.tolist() == target.tolist()
        assert planted.value == pytest.approx(best, abs=1e-12)
        assert planted.violation() <= 10 * TOLERANCE
        assert (cycles > 0) == (lost > 10 * TOLERANCE)
        assert done or lost == 0.0
        assert (state.price == price).all()


def test_swaps_lose_something():
    """The control for the test above."""
    lost = []
    for seed in SEEDS:
        state, _ = balanced(seed)
        planted, _ = swapped(state, 3, seed)
        planted.look()
        lost.append(state.value - planted.value)
    assert sum(x > 0.1 for x in lost) > len(lost) / 2


@pytest.mark.parametrize("seed", SEEDS)
def test_price_is_strictly_inside_where_the_optimum_is_unique(seed):
    """Smooth scores tie nowhere: every move of a token costs more than it gains, by more than rounding."""
    state, target = balanced(seed, smooth=True)
    value = state.value
    border = state.unit_slack()
    assert state.settle(target.copy()) == (BALANCED, 0)
    assert state.value == value
    assert state.unit_slack() > 1e-6
    # The control: augmenting ends on the border of what is optimal.
    assert border < 1e-9 or state.moves == 0


@pytest.mark.parametrize("seed", range(5 if INTERPRETED else 20))
def test_settling_within_limits(seed):
    """Where loads have room the reserve binds prices, and kept loads may change to cancel a cycle."""
    scores, k, loads = instance(seed)
    low, high = limits_around(loads, len(scores), seed)
    state = Exchanged(scores, k, np.zeros(loads.size))
    kept = cheapest_loads(state.price, low, high, loads.sum(), near=state.loads)
    assert state.balance(kept, low, high)[0] == BALANCED
    best = state.value
    # Loads that are worse, though within limits: those asked for at first, if they are.
    worse = Exchanged(scores, k, np.zeros(loads.size))
    assert worse.balance(loads.copy())[0] == BALANCED
    for start in (state, worse):
        kept = start.loads.copy()
        ending, cycles = start.settle(kept, low, high)
        assert ending == BALANCED
        assert (start.loads == kept).all()
        assert (low <= kept).all()
        assert (kept <= high).all()
        assert start.value == pytest.approx(best, abs=1e-12)
        assert start.violation() <= 10 * TOLERANCE
        cheapest = kept @ start.price
        assert cheapest <= cheapest_loads(start.price, low, high, kept.sum()) @ start.price + 1e-10
        assert start is worse or cycles == 0


@pytest.mark.parametrize("load", [0, 10])
def test_prices_that_nothing_bounds_stay_bounded(load):
    """An expert that is to have no token, or all: its price may go on for ever one way."""
    scores = np.random.default_rng(0).standard_normal((10, 4))
    target = np.array([load, 0, 0, 0])
    target[1:] = np.diff(np.linspace(0, 20 - load, 4).astype(np.int64))
    state = Exchanged(scores, 2, np.zeros(4))
    assert state.balance(target.copy())[0] == BALANCED
    assert state.settle(target.copy()) == (BALANCED, 0)
    assert state.unit_slack() > 1e-6
    largest = np.abs(scores[:, :, None] - scores[:, None, :]).max()
    assert np.ptp(state.price) <= 4 * largest
    assert np.abs(state.price).max() <= 8 * largest


@pytest.mark.parametrize("n", range(1, 10))
def test_a_chain_that_no_token_closes(n):
    """Each token would rather have the next expert, the last of which is to have none: the only assignment.

    Prices fall along the chain; what stands in for an arc back must cost more than that, not just as much.
    """
    scores = np.full((n, n + 1), -np.inf)
    scores[np.arange(n), np.arange(n)], scores[np.arange(n), np.arange(n) + 1] = 0.0, 1.0
    target = np.append(np.ones(n, np.int64), 0)
    state = Exchanged(scores, 1, np.zeros(n + 1), words=words_of([[e] for e in range(n)], n + 1))
    assert state.settle(target) == (BALANCED, 0)
    assert state.experts == [[e] for e in range(n)]
    assert state.unit_slack() > 1e-6
    assert np.ptp(state.price) <= 8 * (n + 1)


def test_prices_of_parts_that_no_token_joins():
    """Two halves of experts, each with its own tokens: nothing says how their prices compare."""
    rng = np.random.default_rng(1)
    scores = rng.standard_normal((12, 4))
    scores[:6, 2:] = scores[6:, :2] = -np.inf
    state = Exchanged(scores, 1, np.array([0.0, 0.0, 50.0, 50.0]))
    target = np.array([3, 3, 3, 3])
    assert state.balance(target.copy())[0] == BALANCED
    assert state.settle(target.copy()) == (BALANCED, 0)
    assert state.violation() < 0.0
    assert np.ptp(state.price) < 20.0


def test_everything_tied_is_settled_at_equal_prices():
    state = Exchanged(np.full((12, 4), 0.5), 2, np.zeros(4))
    target = np.full(4, 6)
    assert state.balance(target.copy())[0] == BALANCED
    assert state.settle(target.copy()) == (BALANCED, 0)
    assert state.price.tolist() == [0.0] * 4


def test_settling_respects_what_is_not_listed():
    """Few candidates: moves of others cost at least the reach, and the price keeps clear of them."""
    rng = np.random.default_rng(3)
    scores = rng.standard_normal((80, 5))
    start = Exchanged(scores, 2, np.zeros(5))
    target = np.full(5, 32)
    start.balance(target.copy())
    start.settle(target.copy())
    centre = start.price.copy()
    for width in (0.05, 0.2, 1.0):
        words = start.words.copy()
        state = Exchanged(scores, 2, centre, width=width, words=words)
        assert state.found.expert.size < scores.size
        assert state.settle(target.copy(), reach=width, centre=centre.copy()) == (BALANCED, 0)
        assert state.violation() < 0.0
        assert np.ptp(state.price - centre) <= width + TOLERANCE


def test_the_reach_stands_in_for_moves_that_are_not_listed():
    """One token is listed, which lets prices move by 0.25 one way; the other way the reach holds them."""
    scores = np.array([[10.25, 0.0], [10.0, 8.0]])
    for reach, middle in ((0.5, 0.125), (4.0, 1.875), (16.0, 3.875)):
        state = Exchanged(scores, 1, np.array([-10.0, 0.0]), width=reach)
        assert state.found.token.tolist() == ([0] if reach < 8.0 else [0, 1])
        assert state.settle(np.array([1, 1]), reach=reach) == (BALANCED, 0)
        assert state.price[0] - state.price[1] == -10.0 + middle


def test_settling_beyond_the_reach():
    """The choice is the best for its loads, at a price that is far from the centre."""
    scores = np.arange(8.0)[:, None] * [1.0, 0.0]
    words = words_of([[1]] * 4 + [[0]] * 4, 2)
    target = np.array([4, 4])
    for reach, ending in ((2.0, TOO_NARROW), (4.5, BALANCED)):
        state = Exchanged(scores, 1, np.zeros(2), words=words.copy())
        assert state.settle(target, reach=reach, centre=np.zeros(2)) == (ending, 0)
        assert state.loads.tolist() == [4, 4]
    assert state.price[1] - state.price[0] == 3.5  # between the scores 3 and 4
    assert state.violation() == -0.5


def test_more_cycles_than_are_cancelled():
    """Two experts, every token at the wrong one: a cycle puts two right, and 64 a node are too few."""
    half = 64 * 3 + 5
    scores = np.concatenate([np.tile([1.0, 0.0], (half, 1)), np.tile([0.0, 1.0], (half, 1))])
    wrong = words_of([[1]] * half + [[0]] * half, 2)
    state = Exchanged(scores, 1, np.zeros(2), words=wrong)
    target = np.array([half, half])
    assert state.settle(target, most=192) == (UNFINISHED, 192)
    assert state.loads.tolist() == [half, half]
    # What has been cancelled stays cancelled: the next call ends it.
    assert state.value == 2 * 64 * 3
    assert state.settle(target) == (BALANCED, 5)
    assert state.value == 2 * half


def test_candidates_of_nothing():
    """No token near any boundary: nothing to move, prices stay where they are but for a shift."""
    scores = np.array([[9.0, 0.0], [0.0, 9.0]])
    state = Exchanged(scores, 1, np.zeros(2), width=1.0)
    assert isinstance(state.found, Candidates)
    assert state.found.token.size == 0
    assert state.balance(np.array([1, 1])) == (BALANCED, 0)
    assert state.settle(np.array([1, 1]), reach=1.0) == (BALANCED, 0)
    assert state.price[0] == state.price[1]

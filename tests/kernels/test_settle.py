"""Cycles that lose are cancelled, prices end in the middle: against HiGHS and brute force over pairs."""

import numpy as np
import pytest

from balancesim.kernels.candidates import Candidates
from balancesim.kernels.exchange import BALANCED, TOO_NARROW, UNFINISHED
from balancesim.problem import cheapest_loads
from tests.conftest import INTERPRETED
from tests.kernels.exchanged import SEEDS, TOLERANCE, Exchanged, instance, limits_around
from tests.kernels.instances import words_of


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

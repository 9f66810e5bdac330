"""The auction's kernel against one that looks at every bid anew."""

import numpy as np
import pytest

from balancesim.kernels.auction import hold_auction
from tests.conftest import INTERPRETED

SEEDS = range(6 if INTERPRETED else 40)


def naive_auction(values, demand, copies, epsilons, price):
    """The same auction with lists: (price, held, bids)."""
    n_bidders, n_items = values.shape
    price, n_bids = list(price), 0
    for epsilon in epsilons:
        level, owners = [np.inf] * n_bidders, [[] for _ in range(n_items)]
        waiting = list(range(n_bidders))

        def bid(i, e, level=level):
            return values[i, e] - level[i]

        while waiting:
            i = waiting.pop(0)
            n_bids += 1
            free = [e for e in range(n_items) if i not in owners[e]]
            free.sort(key=lambda e, i=i: (price[e] - values[i, e], e))
            wanted = demand[i] - (n_items - len(free))
            runner_up = free[wanted]
            level[i] = min(level[i], values[i, runner_up] - price[runner_up] - epsilon)
            for e in free[:wanted]:
                if len(owners[e]) == copies:
                    loser = min(owners[e], key=lambda j, e=e: bid(j, e))
                    owners[e].remove(loser)
                    waiting += [] if loser in waiting else [loser]
                owners[e].append(i)
            for e in range(n_items):
                if len(owners[e]) == copies:
                    price[e] = max(price[e], min(bid(j, e) for j in owners[e]))
    return np.array(price), np.array([[i in one for one in owners] for i in range(n_bidders)]), n_bids


def instance(seed):
    rng = np.random.default_rng(seed)
    n_items = int(rng.integers(2, 7))
    copies = int(rng.integers(1, 6))
    demand = np.zeros(0, np.int64)
    while demand.sum() != n_items * copies:  # bidders that together want everything
        demand = rng.integers(1, n_items, rng.integers(copies, n_items * copies + 1))
    return rng.standard_normal((demand.size, n_items)), demand, copies


@pytest.mark.parametrize("seed", SEEDS)
def test_the_heaps_change_nothing(seed):
    values, demand, copies = instance(seed)
    epsilons, price = np.array([0.5, 0.05, 0.005]), np.zeros(values.shape[1])
    held = np.zeros(values.shape, np.bool_)
    n_bids = hold_auction(values, demand, copies, epsilons, price, held, 10**6)
    expected = naive_auction(values, demand, copies, epsilons, np.zeros(values.shape[1]))
    assert n_bids == expected[2]
    np.testing.assert_array_equal(held, expected[1])
    # The same operations on the same numbers.
    np.testing.assert_array_equal(price, expected[0])
    assert (held.sum(axis=0) == copies).all()
    np.testing.assert_array_equal(held.sum(axis=1), demand)


def worst_regret(seed, epsilons):
    """The most that a bidder would gain by giving up one item for another."""
    values, demand, copies = instance(seed)
    price, held = np.zeros(values.shape[1]), np.zeros(values.shape, np.bool_)
    hold_auction(values, demand, copies, np.array(epsilons), price, held, 10**6)
    surplus = values - price
    return (np.where(held, -np.inf, surplus).max(axis=1) - np.where(held, surplus, np.inf).min(axis=1)).max()


def test_nobody_would_gain_more_than_epsilon():
    # Sums of a few numbers below ten round by less than 1e-14.
    assert max(worst_regret(seed, [0.3, 0.01]) for seed in SEEDS) <= 0.01 + 1e-14
    # The negative control: without the last auction somebody would, and no more than its epsilon.
    assert 0.01 < max(worst_regret(seed, [0.3]) for seed in SEEDS) <= 0.3 + 1e-14


def test_bids_are_limited():
    values, demand, copies = instance(1)
    price, held = np.zeros(values.shape[1]), np.zeros(values.shape, np.bool_)
    assert hold_auction(values, demand, copies, np.array([1e-3]), price, held, 3) == 4

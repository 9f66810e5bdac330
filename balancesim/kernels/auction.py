"""Bertsekas' auction for bidders that want several different items, each sold in equal numbers of copies.

A bidder has one level, the surplus that it is content with: its bid on an item it holds is the item's value
minus the level. So a fall of the level raises all its bids at once, and bids never fall. An item's price is
the least bid on its copies once all are held, and before that the price it began with.
"""

import numpy as np

from balancesim.kernels.jit import inner, kernel


@inner
def sink(key, bidder, size, j):
    """Restore the order of a heap whose entry ``j`` has become larger."""
    while True:
        least = j
        for child in (2 * j + 1, 2 * j + 2):
            if child < size and key[child] < key[least]:
                least = child
        if least == j:
            return
        key[j], key[least] = key[least], key[j]
        bidder[j], bidder[least] = bidder[least], bidder[j]
        j = least


@inner
def least_bid(values, level, key, bidder, size, item):
    """The least bid on an item; keys lag behind the bids, which only rise."""
    while True:
        bid = values[bidder[0], item] - level[bidder[0]]
        if bid <= key[0]:
            return key[0]
        key[0] = bid
        sink(key, bidder, size, 0)


@inner
def push(key, bidder, size, bid, i):
    """Add an entry to a heap of ``size`` entries."""
    j = size
    while j > 0 and key[(j - 1) // 2] > bid:
        key[j], bidder[j] = key[(j - 1) // 2], bidder[(j - 1) // 2]
        j = (j - 1) // 2
    key[j], bidder[j] = bid, i


@inner
def find_best(values, price, held, i, n_best, best_value, best_item):
    """Write the ``n_best`` items with the largest surplus that bidder i does not hold, descending."""
    n = 0
    for e in range(price.size):
        surplus = values[i, e] - price[e]
        if held[i, e] or (n == n_best and surplus <= best_value[n - 1]):
            continue
        j = min(n, n_best - 1)
        while j > 0 and best_value[j - 1] < surplus:
            best_value[j], best_item[j] = best_value[j - 1], best_item[j - 1]
            j -= 1
        best_value[j], best_item[j] = surplus, e
        n = min(n + 1, n_best)


@kernel
def hold_auction(values, demand, copies, epsilons, price, held, max_bids):
    """Hold one auction for each epsilon, descending, from the prices of the one before; return bids made.

    ``values`` (R, E) float64, finite; ``demand`` (R,) int64, how many different items each bidder wants, in
    all E times ``copies``; ``price`` (E,) float64, changed in place; ``held`` (R, E) bool, written. More than
    ``max_bids`` bids are not made: what is returned is then larger than that, and ``held`` incomplete.

    At the end no bidder would gain more than the last epsilon by giving up one item for another at the
    prices: its surplus on each item held is at least its level, on any other at most that plus epsilon.
    """
    n_bidders, n_items = values.shape
    key, bidder = np.empty((n_items, copies)), np.empty((n_items, copies), np.int64)
    size = np.empty(n_items, np.int64)
    level, missing = np.empty(n_bidders), np.empty(n_bidders, np.int64)
    waiting = np.empty(n_bidders, np.int64)
    best_value, best_item = np.empty(n_items), np.empty(n_items, np.int64)
    n_bids = 0
    for epsilon in epsilons:
        for e in range(n_items):
            size[e] = 0
        for i in range(n_bidders):
            level[i], missing[i], waiting[i] = np.inf, demand[i], i
            for e in range(n_items):
                held[i, e] = False
        first, n_waiting = 0, n_bidders
        while n_waiting > 0:
            n_bids += 1
            if n_bids > max_bids:
                return n_bids
            i = waiting[first]
            first = (first + 1) % n_bidders
            n_waiting -= 1
            n_wanted = missing[i]
            find_best(values, price, held, i, n_wanted + 1, best_value, best_item)
            level[i] = min(level[i], best_value[n_wanted] - epsilon)
            for e in range(n_items):
                if held[i, e] and size[e] == copies and bidder[e, 0] == i:
                    price[e] = max(price[e], least_bid(values, level, key[e], bidder[e], copies, e))
            for j in range(n_wanted):
                e = best_item[j]
                bid = values[i, e] - level[i]
                held[i, e] = True
                if size[e] < copies:
                    push(key[e], bidder[e], size[e], bid, i)
                    size[e] += 1
                else:
                    loser = bidder[e, 0]
                    held[loser, e] = False
                    if missing[loser] == 0:
                        waiting[(first + n_waiting) % n_bidders] = loser
                        n_waiting += 1
                    missing[loser] += 1
                    key[e, 0], bidder[e, 0] = bid, i
                    sink(key[e], bidder[e], copies, 0)
                if size[e] == copies:
                    price[e] = max(price[e], least_bid(values, level, key[e], bidder[e], copies, e))
            missing[i] = 0
    return n_bids

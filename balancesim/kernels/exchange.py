"""Shortest augmenting paths on the residual graph of experts.

An arc moves one token from its giver to its taker at the cost of the score that is given up; its reduced
cost, with the prices as potentials, is never negative. A last node, the reserve, stands for loads that have
room within their limits: an arc to it raises what an expert may keep, an arc from it lowers that. Each
augmentation brings one token from an expert with too many to one with too few, and keeps prices optimal.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancesim.kernels.candidates import spread
from balancesim.kernels.jit import inner, kernel
from balancesim.kernels.newton import copy

# How a call ends.
BALANCED = 0
TOO_NARROW = 1
NO_PATH = 2
CYCLES = 3
UNFINISHED = 4

_FIRST_FACTOR = 4.0
"""Bound, relative to the largest cost, on costs that nothing else bounds; too small, it is tried in vain."""


class Exchange(NamedTuple):
    """The residual graph, N = E + 1 nodes.

    ``cost`` (N, N) float64, the least score given up; ``give``, ``take`` (N, N) int64, the entries that give
    it; ``potential``, ``distance`` (N,) float64; ``done`` (N,) bool; ``parent`` (N,) int64; ``stale`` (N, N)
    bool; ``owner`` (m,) int64, each entry's token; ``first``, ``entry`` (E + 1,), (m,) int64, the entries of
    each expert.
    """

    cost: NDArray[np.float64]
    give: NDArray[np.int64]
    take: NDArray[np.int64]
    potential: NDArray[np.float64]
    distance: NDArray[np.float64]
    done: NDArray[np.bool_]
    parent: NDArray[np.int64]
    stale: NDArray[np.bool_]
    owner: NDArray[np.int64]
    first: NDArray[np.int64]
    entry: NDArray[np.int64]


@inner
def make_exchange(candidates, price, reserve_price):
    """Make the graph, with no moves offered yet."""
    n_experts = price.size
    n_nodes = n_experts + 1
    m = candidates.expert.size
    exchange = Exchange(
        np.empty((n_nodes, n_nodes)),
        np.zeros((n_nodes, n_nodes), np.int64),
        np.zeros((n_nodes, n_nodes), np.int64),
        np.zeros(n_nodes),
        np.zeros(n_nodes),
        np.zeros(n_nodes, np.bool_),
        np.zeros(n_nodes, np.int64),
        np.zeros((n_nodes, n_nodes), np.bool_),
        np.empty(m, np.int64),
        np.zeros(n_experts + 1, np.int64),
        np.empty(m, np.int64),
    )
    for u in range(n_nodes):
        for v in range(n_nodes):
            exchange.cost[u, v] = np.inf
            exchange.give[u, v] = exchange.take[u, v] = -1
    copy(price, exchange.potential)
    exchange.potential[n_experts] = reserve_price
    first = exchange.first
    for j in range(m):
        first[candidates.expert[j] + 1] += 1
    for e in range(n_experts):
        first[e + 1] += first[e]
    place = np.empty(n_experts + 1, np.int64)
    copy(first, place)
    for i in range(candidates.token.size):
        for j in range(candidates.start[i], candidates.start[i + 1]):
            exchange.owner[j] = i
            e = candidates.expert[j]
            exchange.entry[place[e]] = j
            place[e] += 1
    return exchange


@inner
def offer(exchange, candidates, a, b):
    """Offer the move of a token from its chosen entry a to its other entry b."""
    giver, taker = candidates.expert[a], candidates.expert[b]
    cost = candidates.score[a] - candidates.score[b]
    if cost < exchange.cost[giver, taker]:
        exchange.cost[giver, taker] = cost
        exchange.give[giver, taker] = a
        exchange.take[giver, taker] = b


@inner
def offer_all(exchange, candidates):
    """Offer every move."""
    n_experts = exchange.first.size - 1
    start, expert, score, chosen = candidates.start, candidates.expert, candidates.score, candidates.chosen
    given, left = np.empty(n_experts, np.int64), np.empty(n_experts, np.int64)
    for i in range(candidates.token.size):
        # Sorted apart first: whether an entry is chosen is a coin toss that no processor foresees.
        n_given, n_left = 0, 0
        for j in range(start[i], start[i + 1]):
            given[n_given] = left[n_left] = j
            n_given += chosen[j]
            n_left += not chosen[j]
        for p in range(n_given):
            a = given[p]
            giver = expert[a]
            cost = exchange.cost[giver]
            for q in range(n_left):
                b = left[q]
                taker = expert[b]
                if score[a] - score[b] < cost[taker]:
                    cost[taker] = score[a] - score[b]
                    exchange.give[giver, taker], exchange.take[giver, taker] = a, b


@inner
def offer_again(exchange, candidates, giver, taker):
    """Find the cheapest move from giver to taker anew."""
    exchange.cost[giver, taker] = np.inf
    for place in range(exchange.first[giver], exchange.first[giver + 1]):
        a = exchange.entry[place]
        if candidates.chosen[a]:
            i = exchange.owner[a]
            for b in range(candidates.start[i], candidates.start[i + 1]):
                if candidates.expert[b] == taker:
                    if not candidates.chosen[b]:
                        offer(exchange, candidates, a, b)
                    break


@inner
def open_reserve(exchange, kept, low, high):
    """Set the arcs to and from the reserve: experts that may keep more, or fewer."""
    reserve = kept.size
    for e in range(kept.size):
        exchange.cost[e, reserve] = 0.0 if kept[e] < high[e] else np.inf
        exchange.cost[reserve, e] = 0.0 if kept[e] > low[e] else np.inf


@inner
def find_path(exchange, loads, kept):
    """Dijkstra from every expert with too many to the nearest with too few; -1 if there is no way.

    Leaves distances and parents; the potentials are moved so that reduced costs stay non-negative and the
    path's are zero.
    """
    cost, potential, distance = exchange.cost, exchange.potential, exchange.distance
    n_nodes = potential.size
    reserve = n_nodes - 1
    for v in range(n_nodes):
        exchange.done[v] = False
        exchange.parent[v] = -1
        distance[v] = 0.0 if v < reserve and loads[v] > kept[v] else np.inf
    while True:
        u = -1
        nearest = np.inf
        for v in range(n_nodes):
            if not exchange.done[v] and distance[v] < nearest:
                nearest = distance[v]
                u = v
        if u < 0:
            return -1
        exchange.done[u] = True
        if u < reserve and loads[u] < kept[u]:
            for v in range(n_nodes):
                if distance[v] < nearest:
                    potential[v] += distance[v] - nearest
            return u
        base = nearest + potential[u]
        for v in range(n_nodes):
            length = max(base + cost[u, v] - potential[v], nearest)
            if length < distance[v] and not exchange.done[v]:
                distance[v] = length
                exchange.parent[v] = u


@inner
def move_along(exchange, candidates, loads, kept, low, high, target, source):
    """Move a token along each arc of the path, or cycle, that ends in ``target``; mend the costs."""
    reserve = kept.size
    parent = exchange.parent
    moved = np.empty((kept.size + 2, 2), np.int64)
    n = 0
    v = target
    while True:
        u = parent[v]
        if u == reserve:
            kept[v] -= 1
        elif v == reserve:
            kept[u] += 1
        else:
            a, b = exchange.give[u, v], exchange.take[u, v]
            moved[n, 0], moved[n, 1] = a, b
            n += 1
            loads[u] -= 1
            loads[v] += 1
        v = u
        if v == source or parent[v] < 0:
            break
    for q in range(n):
        candidates.chosen[moved[q, 0]] = False
        candidates.chosen[moved[q, 1]] = True
    for q in range(n):
        mend(exchange, candidates, moved[q, 0], moved[q, 1])
    for q in range(n):
        for j in range(2):
            node = candidates.expert[moved[q, j]]
            for v in range(reserve):
                if exchange.stale[node, v]:
                    exchange.stale[node, v] = False
                    offer_again(exchange, candidates, node, v)
                if exchange.stale[v, node]:
                    exchange.stale[v, node] = False
                    offer_again(exchange, candidates, v, node)
    open_reserve(exchange, kept, low, high)


@inner
def mend(exchange, candidates, a, b):
    """After a token moved from entry a to entry b: offer its new moves, mark the costs that were its own."""
    expert = candidates.expert
    giver, taker = expert[a], expert[b]
    i = exchange.owner[a]
    for j in range(candidates.start[i], candidates.start[i + 1]):
        m = expert[j]
        if exchange.give[giver, m] == a:
            exchange.stale[giver, m] = True
        if exchange.take[m, taker] == b:
            exchange.stale[m, taker] = True
        if candidates.chosen[j]:
            if not candidates.chosen[a]:
                offer(exchange, candidates, j, a)
        elif candidates.chosen[b]:
            offer(exchange, candidates, b, j)


@kernel
def balance(candidates, loads, kept, low, high, price, reserve_price, centre, reach, max_moves):
    """Augment until every expert has the load it keeps, or as often as ``max_moves`` says.

    ``loads`` and ``kept`` (E,) int64, ``price`` (E,) float64 and the choice are updated; ``reserve_price``
    is the price at which loads within their limits are indifferent. Stops with TOO_NARROW where prices move
    apart from ``centre`` by more than ``reach``. Returns how it ended, the augmentations, and the reserve's
    price.
    """
    n_experts = loads.size
    exchange = make_exchange(candidates, price, reserve_price)
    offer_all(exchange, candidates)
    open_reserve(exchange, kept, low, high)
    before = np.empty(n_experts + 1)
    moves = 0
    ending = BALANCED
    while True:
        wrong = 0
        for e in range(n_experts):
            wrong += abs(loads[e] - kept[e])
        if wrong == 0:
            break
        if moves == max_moves:
            ending = UNFINISHED
            break
        copy(exchange.potential, before)
        target = find_path(exchange, loads, kept)
        if target < 0:
            ending = NO_PATH
            break
        if spread(exchange.potential, centre) > reach:
            copy(before, exchange.potential)
            ending = TOO_NARROW
            break
        move_along(exchange, candidates, loads, kept, low, high, target, -1)
        moves += 1
    for e in range(n_experts):
        price[e] = exchange.potential[e]
    return ending, moves, exchange.potential[n_experts]


@kernel
def settle(candidates, loads, kept, low, high, price, reserve_price, centre, reach, rounding, max_cycles):
    """Make the prices optimal for the candidates' scores, and put them in the middle of what is optimal.

    Where the choice is not optimal yet, cycles of negative cost are cancelled first (Klein 1967). Costs of
    moves that no candidate offers are at least ``reach`` at ``centre``. Each price becomes the mean over all
    roots of the shortest distances from it and to it: a point inside the set of optimal prices.
    ``rounding`` is relative to the largest cost and price. Returns how it ended, UNFINISHED after
    ``max_cycles``, and the cycles cancelled.
    """
    n_experts = loads.size
    n_nodes = n_experts + 1
    exchange = make_exchange(candidates, price, reserve_price)
    potential, parent, cost = exchange.potential, exchange.parent, exchange.cost
    offer_all(exchange, candidates)
    open_reserve(exchange, kept, low, high)
    largest = 0.0
    for u in range(n_experts):
        largest = max(largest, abs(price[u]))
        for v in range(n_experts):
            if cost[u, v] < np.inf:
                largest = max(largest, abs(cost[u, v]))
    tolerance = rounding * largest
    cycles = 0
    while True:
        end = relax(cost, potential, parent, tolerance)
        if end < 0:
            break
        if cycles == max_cycles:
            return UNFINISHED, cycles
        for _ in range(n_nodes):
            end = parent[end]
        move_along(exchange, candidates, loads, kept, low, high, end, end)
        cycles += 1
    if spread(potential, centre) > reach:
        return TOO_NARROW, cycles
    # From zero, so that prices have no more digits before the point than the scores.
    bounded = np.empty((n_nodes, n_nodes))
    factor = _FIRST_FACTOR
    while True:
        bound_costs(cost, centre, reach, factor, bounded)
        for v in range(n_nodes):
            potential[v] = 0.0
        if relax(bounded, potential, parent, tolerance) < 0:
            break
        if factor > n_experts:
            return CYCLES, cycles
        factor *= 4.0
    # Larger, so that no cycle of such a cost is free: its price would be stuck at an end of what is optimal.
    bound_costs(cost, centre, reach, 2.0 * factor, bounded)
    length = np.empty((n_nodes, n_nodes))
    for u in range(n_nodes):
        for v in range(n_nodes):
            length[u, v] = max(bounded[u, v] + potential[u] - potential[v], 0.0)
        length[u, u] = 0.0
    for u in range(n_nodes):
        for s in range(n_nodes):
            before = length[s, u]
            if before < np.inf:
                for v in range(n_nodes):
                    length[s, v] = min(length[s, v], before + length[u, v])
    for e in range(n_experts):
        move = 0.0
        for s in range(n_experts):
            move += length[s, e] - length[e, s]
        price[e] = potential[e] + move / (2.0 * n_experts)
    return BALANCED, cycles


@inner
def bound_costs(cost, centre, reach, factor, bounded):
    """Write the costs, and what the moves that no candidate offers cost at least.

    Where nothing bounds these they are a factor times the largest: for some factor up to the number of
    experts no negative cycle can hold them.
    """
    n_experts = centre.size
    for u in range(n_experts + 1):
        for v in range(n_experts + 1):
            bounded[u, v] = cost[u, v]
    largest = 0.0
    for u in range(n_experts):
        for v in range(n_experts):
            bounded[u, v] = min(cost[u, v], reach + centre[v] - centre[u])
            if cost[u, v] < np.inf:
                largest = max(largest, abs(cost[u, v]))
            largest = max(largest, -bounded[u, v])
    largest = largest if largest > 0.0 else 1.0
    for u in range(n_experts):
        for v in range(n_experts):
            bounded[u, v] = min(bounded[u, v], factor * largest)


@inner
def relax(cost, potential, parent, tolerance):
    """Bellman and Ford from the present potentials; return a node that a negative cycle leads to, or -1."""
    n_nodes = potential.size
    for v in range(n_nodes):
        parent[v] = -1
    last = -1
    for _ in range(n_nodes + 1):
        last = -1
        for u in range(n_nodes):
            for v in range(n_nodes):
                limit = potential[u] + cost[u, v]
                if potential[v] > limit + tolerance:
                    potential[v] = limit
                    parent[v] = u
                    last = v
        if last < 0:
            return -1
    return last

"""Differences of top-K sums under two biases, without subtracting two large sums (S5).

Order statistics are 1-Lipschitz in the sup norm: the j-th largest of x + p and of x + q differ by at most
max |p - q|, whatever the scores. Summing those K differences never meets a large number, and costs K
subtractions a token. What remains is the rounding of x + p itself; tokens with scores so large that it would
show are summed again by S5's membership form.
"""

import numpy as np

from balancesim.kernels.jit import inline, inner
from balancesim.kernels.lanes import as_wide, flat, start
from balancesim.kernels.topk import room_for_ties


@inline
def safe_difference(tile, t, k, n_experts, p, p_threshold, q, q_threshold):
    """topsum_K(x + p) - topsum_K(x + q) of token t: p - q where both choose, scores where only one does."""
    p_room = room_for_ties(tile, p, k, n_experts, p_threshold, t)
    q_room = room_for_ties(tile, q, k, n_experts, q_threshold, t)
    gained, lost, shared = 0.0, 0.0, 0.0
    for e in range(n_experts):
        with_p, with_q = tile[e, t] + p[e], tile[e, t] + q[e]
        by_p, by_q = with_p > p_threshold, with_q > q_threshold
        if with_p == p_threshold and p_room > 0:
            p_room -= 1
            by_p = True
        if with_q == q_threshold and q_room > 0:
            q_room -= 1
            by_q = True
        if by_p and by_q:
            shared += np.float64(p[e]) - np.float64(q[e])
        elif by_p:
            gained += np.float64(with_p)
        elif by_q:
            lost += np.float64(with_q)
    return (gained - lost) + shared


@inner
def find_wide(top, k, n_lanes, limit, wide):
    """Write the tokens that chose scores beyond ``limit`` into ``wide``; return their number."""
    best, last, lanes = flat(top), start(k - 1), np.uint64(n_lanes)
    n_wide = as_wide(0, best)
    for t in range(lanes):
        n_wide = as_wide(n_wide + ((best[t] > limit) | (best[last + t] < -limit)), best)
    if n_wide > 0:
        place = 0
        for t in range(n_lanes):
            if top[0, t] > limit or top[k - 1, t] < -limit:
                wide[place] = t
                place += 1
    return n_wide


@inner
def add_differences(tile, k, n_experts, p, p_top, q, q_top, n_lanes, wide, n_wide, scratch, sums):
    """Add each token's topsum_K(x + p) - topsum_K(x + q) to ``sums`` (LANES,) float64."""
    by_p, by_q, lanes = flat(p_top), flat(q_top), np.uint64(n_lanes)
    for t in range(lanes):
        scratch[t] = by_p[t] - by_q[t]
    for rank in range(1, k):
        first = start(rank)
        for t in range(lanes):
            scratch[t] += by_p[first + t] - by_q[first + t]
    for i in range(n_wide):
        scratch[wide[i]] = 0.0
    for t in range(lanes):
        sums[t] += np.float64(scratch[t])
    for i in range(n_wide):
        t = wide[i]
        sums[t] += safe_difference(tile, t, k, n_experts, p, p_top[k - 1, t], q, q_top[k - 1, t])

"""Routing of scores that are already there: token-major arrays, tile by tile."""

import numpy as np

from balancesim.kernels.jit import inline, inner, kernel
from balancesim.kernels.model import LANES, n_rows
from balancesim.kernels.topk import add_sums, count_loads, find_top, n_ranks, room_for_ties
from balancesim.kernels.transpose import load_tile

_rows_of = inline(n_rows)


@inner
def write_experts(tile, bias, k, n_experts, top, n_lanes, token, experts):
    """Write each token's K experts in ascending order of index."""
    for t in range(n_lanes):
        threshold = top[k - 1, t]
        room = room_for_ties(tile, bias, k, n_experts, threshold, t)
        place = 0
        for e in range(n_experts):
            biased = tile[e, t] + bias[e]
            if biased > threshold:
                experts[token + t, place] = e
                place += 1
            elif biased == threshold and room > 0:
                room -= 1
                experts[token + t, place] = e
                place += 1


@kernel
def route_tokens(scores, bias, k, first, last, loads, values, experts):
    """Route tokens ``first:last`` of (T, E) scores.

    ``bias`` has the scores' dtype and n_rows(E) entries. Loads are added to ``loads`` (E,) int64; the sum of
    the biased top-K scores of tokens ``LANES i ..`` goes to ``values[i]``; ``experts`` is (T, K) int64, or
    (0, K) where the choice itself is not wanted. ``first`` is a multiple of LANES.
    """
    n_experts = scores.shape[1]
    tile = np.empty((_rows_of(n_experts), LANES), scores.dtype)
    top = np.empty((n_ranks(k), LANES), scores.dtype)
    group = np.empty((8, LANES), scores.dtype)
    sums = np.empty(LANES)
    rows = np.empty(LANES, np.int64)
    for token in range(first, last, LANES):
        n_lanes = min(LANES, last - token)
        for t in range(n_lanes):
            rows[t] = token + t
        load_tile(scores, rows, n_lanes, tile)
        find_top(tile, bias, k, top, group, n_lanes)
        count_loads(tile, bias, k, n_experts, top, n_lanes, loads)
        for t in range(n_lanes):
            sums[t] = 0.0
        add_sums(top, k, n_lanes, sums)
        value = 0.0
        for t in range(n_lanes):
            value += sums[t]
        values[token // LANES] = value
        if experts.shape[0] > 0:
            write_experts(tile, bias, k, n_experts, top, n_lanes, token, experts)

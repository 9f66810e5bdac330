"""One pass over many batches at a fixed bias: what a Newton step on the dual needs."""

import numpy as np

from balancesim.kernels.difference import add_differences, find_wide
from balancesim.kernels.jit import inner, kernel
from balancesim.kernels.model import LANES
from balancesim.kernels.scores import offsets_at
from balancesim.kernels.topk import count_loads, find_top, hi, n_ranks


@inner
def count_near_ties(tile, bias, k, n_experts, top, n_lanes, width, second, near_ties):
    """Count tokens whose K-th and next biased scores lie within ``width``, by the pair of experts."""
    nothing = tile.dtype.type(-np.inf)
    for t in range(n_lanes):
        second[t] = nothing
    for e in range(n_experts):
        b = bias[e]
        for t in range(n_lanes):
            biased = tile[e, t] + b
            second[t] = hi(second[t], biased if biased < top[k - 1, t] else nothing)
    for t in range(n_lanes):
        if top[k - 1, t] - second[t] < width:
            inside, outside = 0, 0
            for e in range(n_experts):
                biased = tile[e, t] + bias[e]
                if biased == top[k - 1, t]:
                    inside = e
                elif biased == second[t]:
                    outside = e
            near_ties[inside, outside] += 1


@kernel
def dual_pass(
    draw, model, tile, first, last, n_tokens, k, bias, previous, limit, width, loads, products, near_ties
):
    """Route steps ``first .. last`` (counted from 0, inclusive) at ``bias``.

    Adds to ``loads`` (E,), to ``products`` (E, E), the outer products of the batches' violations, and to
    ``near_ties`` (E, E); returns the sum over tokens of topsum_K(x + bias) - topsum_K(x + previous). Biases
    have the tile's dtype and as many entries as rows.
    """
    n_experts = model.n_experts
    top = np.empty((n_ranks(k), LANES), tile.dtype)
    previous_top = np.empty_like(top)
    group = np.empty((8, LANES), tile.dtype)
    scratch = np.empty(LANES, tile.dtype)
    second = np.empty(LANES, tile.dtype)
    wide = np.empty(LANES, np.int64)
    words = np.empty((4, LANES), np.uint32)
    sums = np.zeros(LANES)
    offsets = np.empty(n_experts)
    batch_loads = np.empty(n_experts, np.int64)
    violation = np.empty(n_experts)
    for step in range(first, last + 1):
        offsets_at(model, step, offsets)
        for e in range(n_experts):
            batch_loads[e] = 0
        for token in range(0, n_tokens, LANES):
            n_lanes = min(LANES, n_tokens - token)
            draw(model, offsets, tile, step, token, n_lanes, n_tokens, words)
            find_top(tile, previous, k, previous_top, group, n_lanes)
            find_top(tile, bias, k, top, group, n_lanes)
            n_wide = find_wide(previous_top, k, n_lanes, limit, wide)
            count_loads(tile, bias, k, n_experts, top, n_lanes, batch_loads)
            add_differences(
                tile, k, n_experts, bias, top, previous, previous_top, n_lanes, wide, n_wide, scratch, sums
            )
            count_near_ties(tile, bias, k, n_experts, top, n_lanes, width, second, near_ties)
        for e in range(n_experts):
            loads[e] += batch_loads[e]
            violation[e] = batch_loads[e] / n_tokens - k / n_experts
        for e in range(n_experts):
            for other in range(n_experts):
                products[e, other] += violation[e] * violation[other]
    return sums.sum()

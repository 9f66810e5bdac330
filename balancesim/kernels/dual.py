"""One pass over many batches at a fixed bias: what a Newton step on their summed dual needs."""

import numpy as np

from balancesim.kernels.boundary import find_boundary, find_near, find_pair, make_boundary
from balancesim.kernels.candidates import append_near, make_room, used_part
from balancesim.kernels.jit import kernel
from balancesim.kernels.members import n_words
from balancesim.kernels.model import LANES
from balancesim.kernels.scores import offsets_at
from balancesim.kernels.topk import find_top, n_ranks


@kernel
def dual_pass(draw, model, tile, first, last, n_tokens, k, bias, width, near_width, loads, products, ties):
    """Route steps ``first .. last`` (counted from 0, inclusive) at ``bias``.

    Adds to ``loads`` (E,), to ``products`` (E, E), the outer products of the batches' violations, and to
    ``ties`` (E, E), the pairs at the K-th and the next place no further apart than ``width``. The bias has
    the tile's dtype and as many entries as rows. Returns the count of near-ties and, unless ``near_width``
    is negative, the candidates within that width of their boundary.
    """
    n_experts = model.n_experts
    top = np.empty((n_ranks(k), LANES), tile.dtype)
    group = np.empty((8, LANES), tile.dtype)
    words = np.empty((4, LANES), np.uint32)
    offsets = np.empty(n_experts)
    batch_loads = np.empty(n_experts, np.int64)
    violation = np.empty(n_experts)
    boundary = make_boundary(tile, n_words(n_experts))
    near = np.zeros(boundary.words.shape, np.uint64)
    room, filled = make_room()
    n_near = 0
    for step in range(first, last + 1):
        offsets_at(model, step, offsets)
        for e in range(n_experts):
            batch_loads[e] = 0
        for token in range(0, n_tokens, LANES):
            n_lanes = min(LANES, n_tokens - token)
            draw(model, offsets, tile, step, token, n_lanes, n_tokens, words)
            find_top(tile, bias, k, top, group, n_lanes)
            tied = find_boundary(tile, bias, k, n_experts, top, n_lanes, boundary, batch_loads)
            find_pair(tile, bias, k, n_experts, n_lanes, boundary, tied)
            for t in range(n_lanes):
                if boundary.least[t] - boundary.best_left[t] <= width:
                    ties[boundary.kth[t], boundary.following[t]] += 1
                    n_near += 1
            if near_width >= 0.0:
                find_near(tile, bias, k, n_experts, n_lanes, boundary, tied, near_width, near)
                at = step * n_tokens + token
                room = append_near(tile, near, boundary.words, n_experts, n_lanes, at, room, filled)
        for e in range(n_experts):
            loads[e] += batch_loads[e]
            violation[e] = batch_loads[e] / n_tokens - k / n_experts
        for e in range(n_experts):
            for other in range(n_experts):
                products[e, other] += violation[e] * violation[other]
    return n_near, used_part(room, filled)

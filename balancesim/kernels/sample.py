"""Descent on a sample of the tokens, all in one call."""

import numpy as np

from balancesim.kernels.boundary import find_boundary, find_pair, make_boundary
from balancesim.kernels.candidates import perturb
from balancesim.kernels.jit import inline, inner, kernel
from balancesim.kernels.members import n_words
from balancesim.kernels.model import LANES, n_rows
from balancesim.kernels.newton import begin, clear, copy, judge, proceed
from balancesim.kernels.topk import find_top, n_ranks
from balancesim.kernels.transpose import load_tile

_rows_of = inline(n_rows)
_PATIENCE = 6

_SOFTENING = 0.3
"""Factor from one amplitude of the noise to the next."""


@inner
def count_boundaries(scores, rows, k, state, bias, tile, top, group, boundary):
    """Route the tokens ``rows`` at the state's price: loads, and near-ties within the width."""
    n_experts = state.price.size
    near = 0
    clear(state.ties)
    for e in range(n_experts):
        state.loads[e] = 0
        bias[e] = state.price[e]
    width = state.width[0]
    for first in range(0, rows.size, LANES):
        n_lanes = min(LANES, rows.size - first)
        load_tile(scores, rows[first:], n_lanes, tile)
        if state.amplitude[0] > 0.0:
            perturb(tile, rows[first:], n_experts, n_lanes, state.amplitude[0])
        find_top(tile, bias, k, top, group, n_lanes)
        tied = find_boundary(tile, bias, k, n_experts, top, n_lanes, boundary, state.loads)
        find_pair(tile, bias, k, n_experts, n_lanes, boundary, tied)
        for t in range(n_lanes):
            if boundary.least[t] - boundary.best_left[t] <= width:
                state.ties[boundary.kth[t], boundary.following[t]] += 1
                near += 1
    state.n_near[0] = near


@kernel
def descend_sample(scores, rows, k, state, goal, max_passes):
    """Minimise the dual of the tokens ``rows`` until at most ``goal`` of them are on the wrong side.

    Noise that breaks ties is lowered on the way. ``state.price`` ends at the best price seen, the near-ties
    are those of the last price. Returns the passes and the tokens on the wrong side.
    """
    n_experts = scores.shape[1]
    n_tokens = rows.size
    tile = np.empty((_rows_of(n_experts), LANES), scores.dtype)
    top = np.empty((n_ranks(k), LANES), scores.dtype)
    group = np.empty((8, LANES), scores.dtype)
    bias = np.zeros(_rows_of(n_experts), scores.dtype)
    boundary = make_boundary(tile, n_words(n_experts))
    begin(state)
    passes = 0
    while passes < max_passes:
        count_boundaries(scores, rows, k, state, bias, tile, top, group, boundary)
        passes += 1
        if judge(state) <= goal or state.since[0] >= _PATIENCE:
            if state.amplitude[0] <= state.amplitude[1]:
                break
            soften(state)
        if passes < max_passes:
            proceed(state, n_tokens)
    copy(state.best, state.price)
    return passes, state.best_wrong[0]


@inner
def soften(state):
    """Go on with less noise from the best price so far.

    The optimum of noisy ties lies within the noise of that of the ties themselves, so that less noise at once
    would leave the price outside of all that near-ties describe.
    """
    state.amplitude[0] = max(_SOFTENING * state.amplitude[0], state.amplitude[1])
    state.width[0] *= _SOFTENING
    copy(state.best, state.price)
    begin(state)

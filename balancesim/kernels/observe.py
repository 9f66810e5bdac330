"""Scores that are already there, shown tile by tile to what a rule observes them with."""

import numpy as np

from balancesim.kernels.calls import address_of, as_observe, observe_arguments
from balancesim.kernels.jit import inline, kernel
from balancesim.kernels.model import LANES, n_rows
from balancesim.kernels.topk import find_top, n_ranks
from balancesim.kernels.transpose import load_tile
from balancesim.types import Float64Array, FloatArray

_rows_of = inline(n_rows)


@kernel
def _observe_tokens(address, parameters, scores, bias, k, memory):
    n_tokens, n_experts = scores.shape
    tile = np.empty((_rows_of(n_experts), LANES), scores.dtype)
    top = np.empty((n_ranks(k), LANES), scores.dtype)
    group = np.empty((8, LANES), scores.dtype)
    rows = np.empty(LANES, np.int64)
    observe = as_observe(address, tile)
    for token in range(0, n_tokens, LANES):
        n_lanes = min(LANES, n_tokens - token)
        for t in range(n_lanes):
            rows[t] = token + t
        load_tile(scores, rows, n_lanes, tile)
        find_top(tile, bias, k, top, group, n_lanes)
        observe(parameters, n_tokens, k, n_experts, tile, bias, top, token, n_lanes, memory)


def observe_scores(
    function: object,
    parameters: Float64Array,
    scores: FloatArray,
    bias: FloatArray,
    k: int,
    memory: Float64Array,
) -> None:
    """Show (T, E) scores that were routed with a bias, padded for tiles, to a rule's compiled function."""
    from numba import from_dtype

    address = address_of(function, observe_arguments(from_dtype(scores.dtype)))
    _observe_tokens(address, parameters, scores, bias, k, memory)

"""Routing of scores that are already there, tile by tile: token-major arrays, or tiles laid out before."""

import numpy as np

from balancesim.kernels.choices import limit_groups
from balancesim.kernels.jit import inline, inner, kernel
from balancesim.kernels.lanes import flat
from balancesim.kernels.model import LANES, n_rows
from balancesim.kernels.topk import count_loads, find_top, n_ranks, room_for_ties, top_sum
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
            # A NaN, which the caller will refuse, must not write past the token's row.
            if place < k and (biased > threshold or (biased == threshold and room > 0)):
                room -= biased == threshold
                experts[token + t, place] = e
                place += 1


@inner
def has_special(bits, first, last, exponent):
    """Whether one of the scores ``first:last`` is infinite or NaN: by its bits, as no kernel expects NaN.

    ``bits`` (T E,) are the scores as integers, ``exponent`` (1,) is the exponent's bits, all set.
    """
    ones, integer = exponent[0], bits.dtype.type
    largest = integer(0)
    for i in range(np.uint64(first), np.uint64(last)):
        found = integer(bits[i] & ones)  # of two int32 Numba makes an int64, and of eight lanes four
        largest = found if found > largest else largest
    return largest == ones


@inner
def route_tile(tile, bias, k, n_experts, n_lanes, token, top, group, sums, loads, values, experts):
    """Route one tile, whose first token is ``token``; see `route_tokens` for what is written."""
    find_top(tile, bias, k, top, group, n_lanes)
    count_loads(tile, bias, k, n_experts, top, n_lanes, loads)
    values[token // LANES] = top_sum(top, k, n_lanes, sums)
    if experts.shape[0] > 0:
        write_experts(tile, bias, k, n_experts, top, n_lanes, token, experts)


@kernel
def route_tokens(scores, bias, k, groups, first, last, loads, values, experts, exponent):
    """Route tokens ``first:last`` of (T, E) scores.

    ``bias`` has the scores' dtype and n_rows(E) entries; ``groups`` limits the choice (NO_GROUPS: not at
    all). Loads are added to ``loads`` (E,) int64; the sum of the biased top-K scores of tokens
    ``LANES i ..`` goes to ``values[i]``; ``experts`` is (T, K) int64, or (0, K) where the choice itself is
    not wanted. ``first`` is a multiple of LANES; ``exponent`` (1,) has the exponent's bits set, as an integer
    of the scores' width. Returns whether a score is not finite; unless it is minus infinity, results are then
    meaningless. A token without K experts to choose from makes its value minus infinity.
    """
    n_experts = scores.shape[1]
    tile = np.empty((_rows_of(n_experts), LANES), scores.dtype)
    top = np.empty((n_ranks(k), LANES), scores.dtype)
    group = np.empty((8, LANES), scores.dtype)
    sums = np.empty(LANES)
    rows = np.empty(LANES, np.int64)
    bits = flat(scores.view(exponent.dtype))
    limited = np.empty((tile.shape[0] if groups.n_groups > 0 else 0, LANES), scores.dtype)
    group_score = np.empty((groups.n_groups, LANES), scores.dtype)
    special = False
    for token in range(first, last, LANES):
        n_lanes = min(LANES, last - token)
        for t in range(n_lanes):
            rows[t] = token + t
        load_tile(scores, rows, n_lanes, tile)
        special = special or has_special(bits, token * n_experts, (token + n_lanes) * n_experts, exponent)
        allowed = tile
        if groups.n_groups > 0:
            limit_groups(tile, bias, n_experts, groups, n_lanes, group_score, limited)
            allowed = limited
        route_tile(allowed, bias, k, n_experts, n_lanes, token, top, group, sums, loads, values, experts)
    return special


@kernel
def route_blocks(blocks, bias, k, n_experts, n_tokens, first, last, loads, values, experts):
    """Route tokens ``first:last`` of ``blocks`` (n_tiles, n_rows(E), LANES), as `fill_blocks` writes them.

    The other arguments are those of `route_tokens`.
    """
    top = np.empty((n_ranks(k), LANES), blocks.dtype)
    group = np.empty((8, LANES), blocks.dtype)
    sums = np.empty(LANES)
    for token in range(first, last, LANES):
        tile = blocks[token // LANES]
        n_lanes = min(LANES, n_tokens - token)
        route_tile(tile, bias, k, n_experts, n_lanes, token, top, group, sums, loads, values, experts)


@kernel
def fill_blocks(scores, first, last, blocks, exponent):
    """Lay tokens ``first:last`` of (T, E) scores out as tiles; return whether a score is not finite."""
    n_experts = scores.shape[1]
    rows = np.empty(LANES, np.int64)
    for token in range(first, last, LANES):
        n_lanes = min(LANES, last - token)
        for t in range(n_lanes):
            rows[t] = token + t
        load_tile(scores, rows, n_lanes, blocks[token // LANES])
    return has_special(flat(scores.view(exponent.dtype)), first * n_experts, last * n_experts, exponent)

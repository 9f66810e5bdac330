"""What makes an assignment optimal, token by token: recomputed from the scores, whoever solved it."""

import numpy as np

from balancesim.kernels.boundary import split_at
from balancesim.kernels.extremes import least_of_two
from balancesim.kernels.jit import inline, inner, kernel
from balancesim.kernels.members import n_words
from balancesim.kernels.model import LANES, n_rows
from balancesim.kernels.newton import copy
from balancesim.kernels.topk import add_sums, find_top, n_ranks
from balancesim.kernels.transpose import load_tile

_rows_of = inline(n_rows)

# Places in ``tally``.
BAD_ROWS = 0
VIOLATED = 1
N_TALLIES = 2

_ROUNDING = 4.0 * 2.0**-52


@inner
def read_members(experts, token, n_lanes, n_experts, k, tile, bias, words, least, sums, biased_sums):
    """Set the bits of each token's experts, sum their scores, find the least; count rows not of K experts."""
    bad = 0
    for t in range(n_lanes):
        for w in range(words.shape[0]):
            words[w, t] = np.uint64(0)
        least[t] = np.inf
        sums[t] = biased_sums[t] = 0.0
        good = True
        for j in range(k):
            e = experts[token + t, j]
            if e < 0 or e >= n_experts:
                good = False
                continue
            bit = np.uint64(1) << np.uint64(e & 63)
            good &= (words[e >> 6, t] & bit) == np.uint64(0) and tile[e, t] > -np.inf
            words[e >> 6, t] |= bit
            x = tile[e, t] + bias[e]
            least[t] = min(least[t], x)
            sums[t] += tile[e, t]
            biased_sums[t] += x
        bad += not good
    return bad


@inner
def tighten_split(tile, bias, n_experts, n_lanes, least, best_left, slack, loads):
    """As `tighten_slack`, where the chosen are those that reach ``least``."""
    infinite = tile.dtype.type(np.inf)
    for e in range(n_experts):
        b = bias[e]
        down, up = infinite, infinite
        count = np.int64(0)
        for t in range(n_lanes):
            x = tile[e, t] + b
            inside = x >= least[t]
            down = least_of_two(down, x - best_left[t] if inside else infinite)
            up = least_of_two(up, infinite if inside else least[t] - x)
            count += np.int64(inside)
        slack[e, 0] = min(slack[e, 0], down)
        slack[e, 1] = min(slack[e, 1], up)
        loads[e] += count


@inner
def compare_members(tile, bias, n_experts, n_lanes, words, least, best_left):
    """Write the least biased score of each token's experts and the largest of the others."""
    nothing = tile.dtype.type(-np.inf)
    for t in range(n_lanes):
        least[t] = -nothing
        best_left[t] = nothing
    for e in range(n_experts):
        b = bias[e]
        bit = np.uint64(1) << np.uint64(e & 63)
        word = words[e >> 6]
        for t in range(n_lanes):
            x = tile[e, t] + b
            member = (word[t] & bit) != np.uint64(0)
            inside = x if member else -nothing
            outside = nothing if member else x
            least[t] = inside if inside < least[t] else least[t]
            best_left[t] = outside if outside > best_left[t] else best_left[t]


@inner
def tighten_slack(tile, bias, n_experts, n_lanes, words, least, best_left, slack, loads):
    """Lower ``slack`` (E, 2) to how far each price may fall and rise before one of the tokens moves."""
    infinite = tile.dtype.type(np.inf)
    for e in range(n_experts):
        b = bias[e]
        bit = np.uint64(1) << np.uint64(e & 63)
        word = words[e >> 6]
        down, up = infinite, infinite
        count = np.int64(0)
        for t in range(n_lanes):
            x = tile[e, t] + b
            member = (word[t] & bit) != np.uint64(0)
            lead = x - best_left[t] if member and x > -infinite else infinite
            lag = least[t] - x if not member and x > -infinite else infinite
            down = lead if lead < down else down
            up = lag if lag < up else up
            count += np.int64(member)
        slack[e, 0] = min(slack[e, 0], down)
        slack[e, 1] = min(slack[e, 1], up)
        loads[e] += count


@inner
def any_beaten(least, best_left, n_lanes):
    """Whether a token's unchosen expert beats a chosen one."""
    beaten = False
    for t in range(n_lanes):
        beaten |= best_left[t] > least[t]
    return beaten


@kernel
def certify_part(scores, k, price, experts, first, last, loads, values, excess, spread, slack, tally, worst):
    """Check tokens ``first:last`` of an assignment ``experts`` (T, K) at a price (E,) float64.

    Adds to ``loads`` (E,) int64 and ``tally`` (N_TALLIES,) int64; lowers ``slack`` (E, 2); raises ``worst``
    (1,), the most by which a token's unchosen expert beats a chosen one. ``values`` and ``excess``, one entry
    a tile, receive the sums of the chosen scores, and of what the K largest biased ones exceed the chosen by:
    exactly zero where these are the chosen (S5). ``spread`` (T,) receives how far each token's chosen
    biased scores add up to more than as often the best that is left.
    """
    n_experts = scores.shape[1]
    tile = np.empty((_rows_of(n_experts), LANES), scores.dtype)
    top = np.empty((n_ranks(k), LANES), scores.dtype)
    group = np.empty((8, LANES), scores.dtype)
    bias = np.zeros(_rows_of(n_experts), scores.dtype)
    copy(price, bias)
    rows = np.empty(LANES, np.int64)
    words = np.empty((n_words(n_experts), LANES), np.uint64)
    least, best_left = np.empty(LANES, scores.dtype), np.empty(LANES, scores.dtype)
    sums, biased_sums, top_sums = np.empty(LANES), np.empty(LANES), np.empty(LANES)
    dearest = 0.0
    for e in range(n_experts):
        dearest = max(dearest, abs(price[e]))
    for token in range(first, last, LANES):
        n_lanes = min(LANES, last - token)
        for t in range(n_lanes):
            rows[t] = token + t
            top_sums[t] = 0.0
        load_tile(scores, rows, n_lanes, tile)
        bad = read_members(experts, token, n_lanes, n_experts, k, tile, bias, words, least, sums, biased_sums)
        tally[BAD_ROWS] += bad
        # K experts reach the least of any K different ones, more only where one that is left does.
        if split_at(tile, bias, n_lanes, least, best_left) == k * n_lanes and bad == 0:
            tighten_split(tile, bias, n_experts, n_lanes, least, best_left, slack, loads)
        else:
            compare_members(tile, bias, n_experts, n_lanes, words, least, best_left)
            tighten_slack(tile, bias, n_experts, n_lanes, words, least, best_left, slack, loads)
        value, beyond = 0.0, 0.0
        if any_beaten(least, best_left, n_lanes):
            find_top(tile, bias, k, top, group, n_lanes)
            add_sums(top, k, n_lanes, top_sums)
        for t in range(n_lanes):
            value += sums[t]
            ahead = abs(biased_sums[t] - k * best_left[t])
            spread[token + t] = ahead if ahead < np.inf else 0.0
            if best_left[t] > least[t]:
                by = np.float64(best_left[t] - least[t])
                worst[0] = max(worst[0], by)
                size = max(abs(best_left[t]), abs(least[t])) + dearest
                tally[VIOLATED] += by > _ROUNDING * size
                beyond += top_sums[t] - biased_sums[t]
        values[token // LANES] = value
        excess[token // LANES] = beyond

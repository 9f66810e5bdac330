"""The K-th place of every token of a tile: who holds it, who comes next, and by how much."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancesim.kernels.jit import inline, inner
from balancesim.kernels.lanes import as_wide, flat, start
from balancesim.kernels.model import LANES
from balancesim.kernels.topk import biased4, count_loads, four, hi, room_for_ties


class Boundary(NamedTuple):
    """Per token of a tile: the experts chosen, the K-th and the next, and their biased scores.

    ``words`` (n_words(E), LANES) uint64 has the bits of the K chosen experts (`find_near`); ``kth``,
    ``following`` (LANES,) int64 (`find_pair`); ``least`` and ``best_left`` (LANES,) their biased scores, in
    the scores' dtype (`find_boundary`).
    """

    words: NDArray[np.uint64]
    kth: NDArray[np.int64]
    following: NDArray[np.int64]
    least: NDArray[Any]
    best_left: NDArray[Any]


@inline
def make_boundary(tile, n_words):
    return Boundary(
        np.zeros((n_words, LANES), np.uint64),
        np.zeros(LANES, np.int64),
        np.zeros(LANES, np.int64),
        np.zeros(LANES, tile.dtype),
        np.zeros(LANES, tile.dtype),
    )


@inner
def split_at(tile, bias, n_lanes, least, best_left):
    """Write each token's largest biased score below ``least`` (LANES,); return how many reach it in all."""
    nothing = tile.dtype.type(-np.inf)
    scores, lanes = flat(tile), np.uint64(n_lanes)
    for t in range(lanes):
        best_left[t] = nothing
    reached = as_wide(0, scores)
    # Four experts a pass: what a pass reads and writes per token costs more than its comparisons.
    for e in range(0, tile.shape[0], 4):
        biases, i = four(bias, e), start(e)
        for t in range(lanes):
            x0, x1, x2, x3 = biased4(scores, i + t, biases)
            border = least[t]
            in0, in1, in2, in3 = x0 >= border, x1 >= border, x2 >= border, x3 >= border
            reached = as_wide(reached + in0 + in1 + in2 + in3, scores)
            left01 = hi(nothing if in0 else x0, nothing if in1 else x1)
            left23 = hi(nothing if in2 else x2, nothing if in3 else x3)
            best_left[t] = hi(best_left[t], hi(left01, left23))
    return reached


@inner
def find_boundary(tile, bias, k, n_experts, top, n_lanes, boundary, loads):
    """Fill the boundary's scores from the tokens' K largest (`find_top`) and add to ``loads`` (E,).

    Returns whether more than K experts reach a K-th place; ties there go to the lower expert index.
    """
    least, best_left = boundary.least, boundary.best_left
    for t in range(n_lanes):
        least[t] = top[k - 1, t]
    count_loads(tile, bias, k, n_experts, top, n_lanes, loads)
    tied = split_at(tile, bias, n_lanes, least, best_left) != k * n_lanes
    if tied:
        for t in range(n_lanes):
            if first_left_out(tile, bias, k, n_experts, least[t], t) >= 0:
                best_left[t] = least[t]
    return tied


@inner
def first_left_out(tile, bias, k, n_experts, border, t):
    """The first expert at exactly the K-th value that token t has no room for, or -1."""
    room = room_for_ties(tile, bias, k, n_experts, border, t)
    for e in range(n_experts):
        if tile[e, t] + bias[e] == border:
            if room == 0:
                return e
            room -= 1
    return -1


@inner
def find_pair(tile, bias, k, n_experts, n_lanes, boundary, tied):
    """Fill the boundary's experts, the K-th and the next, after `find_boundary`, which said ``tied``."""
    _, kth, following, least, best_left = boundary
    for t in range(n_lanes):
        kth[t] = following[t] = -1
    # Downwards: of equals the last is the K-th, the first the next. Over a flat tile this loop is slower.
    for e in range(tile.shape[0] - 4, -1, -4):
        b0, b1, b2, b3 = bias[e], bias[e + 1], bias[e + 2], bias[e + 3]
        for t in range(n_lanes):
            x0, x1, x2, x3 = tile[e, t] + b0, tile[e + 1, t] + b1, tile[e + 2, t] + b2, tile[e + 3, t] + b3
            border, below = least[t], best_left[t]
            a, b = kth[t], following[t]
            a = e + 3 if (x3 == border) & (a < 0) else a
            a = e + 2 if (x2 == border) & (a < 0) else a
            a = e + 1 if (x1 == border) & (a < 0) else a
            a = e if (x0 == border) & (a < 0) else a
            b = e + 3 if x3 == below else b
            b = e + 2 if x2 == below else b
            b = e + 1 if x1 == below else b
            b = e if x0 == below else b
            kth[t], following[t] = a, b
    for t in range(n_lanes):
        if best_left[t] == -np.inf:
            following[t] = -1
    if tied:
        for t in range(n_lanes):
            first = first_left_out(tile, bias, k, n_experts, least[t], t)
            if first >= 0:
                following[t] = first
                for e in range(first):
                    if tile[e, t] + bias[e] == least[t]:
                        kth[t] = e


@inner
def find_near(tile, bias, k, n_experts, n_lanes, boundary, tied, width, near):
    """Fill the boundary's ``words``; set in ``near`` (n_words(E), LANES) the bits of experts that may move.

    After `find_boundary`, which said ``tied``. A price change below ``width`` may move the chosen less than
    ``width`` above the best that is left, and those left less than ``width`` below the least that is chosen;
    none where these two are further apart than that.
    """
    words, _, _, least, best_left = boundary
    nothing = np.uint64(0)
    scores, lanes = flat(tile), np.uint64(n_lanes)
    for w in range(words.shape[0]):
        for t in range(n_lanes):
            words[w, t] = near[w, t] = nothing
    for e in range(0, tile.shape[0], 4):
        biases, i = four(bias, e), start(e)
        bit0 = np.uint64(1) << np.uint64(e & 63)
        bit1, bit2, bit3 = bit0 << np.uint64(1), bit0 << np.uint64(2), bit0 << np.uint64(3)
        word, close = words[e >> 6], near[e >> 6]
        for t in range(lanes):
            x0, x1, x2, x3 = biased4(scores, i + t, biases)
            border = least[t]
            in01 = (bit0 if x0 >= border else nothing) | (bit1 if x1 >= border else nothing)
            in23 = (bit2 if x2 >= border else nothing) | (bit3 if x3 >= border else nothing)
            word[t] |= in01 | in23
            low, high = border - width, best_left[t] + width
            near01 = (bit0 if (x0 >= low) & (x0 <= high) else nothing) | (
                bit1 if (x1 >= low) & (x1 <= high) else nothing
            )
            near23 = (bit2 if (x2 >= low) & (x2 <= high) else nothing) | (
                bit3 if (x3 >= low) & (x3 <= high) else nothing
            )
            close[t] |= near01 | near23
    if tied:
        for t in range(n_lanes):
            first = first_left_out(tile, bias, k, n_experts, least[t], t)
            if first >= 0:
                for e in range(first, n_experts):
                    if tile[e, t] + bias[e] == least[t]:
                        words[e >> 6, t] &= ~(np.uint64(1) << np.uint64(e & 63))

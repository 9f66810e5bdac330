"""The K-th place of every token of a tile: who holds it, who comes next, and by how much."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancesim.kernels.jit import inline, inner
from balancesim.kernels.model import LANES
from balancesim.kernels.topk import room_for_ties


class Boundary(NamedTuple):
    """Per token of a tile: the experts chosen, the K-th and the next, and their biased scores.

    ``words`` (n_words(E), LANES) uint64 has the bits of the K chosen experts; ``kth``, ``following`` (LANES,)
    int64; ``least`` and ``best_left`` (LANES,) their biased scores, in the scores' dtype.
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
def find_boundary(tile, bias, k, n_experts, top, n_lanes, boundary, loads):
    """Fill the boundary from the tokens' K largest biased scores (`find_top`) and add to ``loads`` (E,).

    Ties at the K-th place go to the lower expert index.
    """
    words, kth, following, least, best_left = boundary
    nothing = tile.dtype.type(-np.inf)
    for t in range(n_lanes):
        least[t] = top[k - 1, t]
        best_left[t] = nothing
        following[t] = -1
        kth[t] = -1
    for w in range(words.shape[0]):
        for t in range(n_lanes):
            words[w, t] = np.uint64(0)
    counted = np.int64(0)
    for e in range(n_experts):
        b = bias[e]
        bit = np.uint64(1) << np.uint64(e & 63)
        word = words[e >> 6]
        reached = np.int64(0)
        for t in range(n_lanes):
            x = tile[e, t] + b
            inside = x >= least[t]
            reached += np.int64(inside)
            word[t] |= bit if inside else np.uint64(0)
            kth[t] = e if x == least[t] else kth[t]
            left = tile.dtype.type(-np.inf) if inside else x
            closer = left > best_left[t]
            best_left[t] = left if closer else best_left[t]
            following[t] = e if closer else following[t]
        loads[e] += reached
        counted += reached
    if counted != k * n_lanes:
        settle_ties(tile, bias, k, n_experts, n_lanes, boundary, loads)


@inner
def settle_ties(tile, bias, k, n_experts, n_lanes, boundary, loads):
    """Where more than K experts reach the K-th value, keep the lower ones; the first left out comes next."""
    words, kth, following, least, best_left = boundary
    for t in range(n_lanes):
        room = room_for_ties(tile, bias, k, n_experts, least[t], t)
        first = -1
        for e in range(n_experts):
            if tile[e, t] + bias[e] == least[t]:
                if room > 0:
                    room -= 1
                    kth[t] = e
                else:
                    words[e >> 6, t] &= ~(np.uint64(1) << np.uint64(e & 63))
                    loads[e] -= 1
                    if first < 0:
                        first = e
        if first >= 0:
            following[t] = first
            best_left[t] = least[t]


@inner
def find_near(tile, bias, n_experts, n_lanes, boundary, width, near):
    """Set in ``near`` (n_words(E), LANES) the bits of experts that a price change below ``width`` may move.

    Those are the chosen ones less than ``width`` above the best that is left, and the left ones less than
    ``width`` below the least that is chosen; none where these two are further apart than that.
    """
    for w in range(near.shape[0]):
        for t in range(n_lanes):
            near[w, t] = np.uint64(0)
    for e in range(n_experts):
        b = bias[e]
        bit = np.uint64(1) << np.uint64(e & 63)
        word = near[e >> 6]
        for t in range(n_lanes):
            x = tile[e, t] + b
            inside = (x >= boundary.least[t] - width) & (x <= boundary.best_left[t] + width)
            word[t] |= bit if inside else np.uint64(0)

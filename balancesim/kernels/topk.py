"""The running top-K of a tile, without indices, and loads by counting.

A tile is (experts, tokens), so that SIMD runs across tokens. ``top`` (ranks, tokens) holds each token's
largest biased scores so far, descending. Experts come in groups of 1, 2, 4 or 8 (the width that fits K):
a group is sorted by a network, merged into the running ranks by one row of maxima, and the bitonic result is
sorted again (Batcher 1968). For K > 8 the ranks form chunks of eight, and what a merge displaces from one
chunk goes on to the next: any K costs a whole number of the same steps. What the narrow widths bring is in
docs/benchmarks.md. Below `find_top` tiles are flat: ``scores``, ``best`` and a count of ``lanes`` without a
sign (`balancesim.kernels.lanes`).

Loads are the number of scores that reach the K-th value. Ties make that number too large; it is checked per
tile, and a tile with ties at a K-th place is counted again by (score, lower expert index).
"""

import numpy as np

from balancesim.kernels.jit import inline, inner
from balancesim.kernels.lanes import ROW, as_wide, flat, start

_2, _3, _4, _5, _6, _7 = (np.uint64(i) * ROW for i in range(2, 8))


@inline
def hi(a, b):
    return a if a > b else b


@inline
def lo(a, b):
    return b if a > b else a


@inline
def sort2(a, b):
    return hi(a, b), lo(a, b)


@inline
def merge4(a, b, c, d):
    """Sort a bitonic sequence of four."""
    a, c = sort2(a, c)
    b, d = sort2(b, d)
    a, b = sort2(a, b)
    c, d = sort2(c, d)
    return a, b, c, d


@inline
def sort4(a, b, c, d):
    a, b = sort2(a, b)
    c, d = sort2(c, d)
    return merge4(a, b, d, c)


@inline
def merge8(a, b, c, d, e, f, g, h):
    """Sort a bitonic sequence of eight."""
    a, e = sort2(a, e)
    b, f = sort2(b, f)
    c, g = sort2(c, g)
    d, h = sort2(d, h)
    a, b, c, d = merge4(a, b, c, d)
    e, f, g, h = merge4(e, f, g, h)
    return a, b, c, d, e, f, g, h


@inline
def sort8(a, b, c, d, e, f, g, h):
    """Sort eight values with 19 comparators."""
    a, c = sort2(a, c)
    b, d = sort2(b, d)
    e, g = sort2(e, g)
    f, h = sort2(f, h)
    a, e = sort2(a, e)
    b, f = sort2(b, f)
    c, g = sort2(c, g)
    d, h = sort2(d, h)
    a, b = sort2(a, b)
    c, d = sort2(c, d)
    e, f = sort2(e, f)
    g, h = sort2(g, h)
    c, e = sort2(c, e)
    d, f = sort2(d, f)
    b, e = sort2(b, e)
    d, g = sort2(d, g)
    b, c = sort2(b, c)
    d, e = sort2(d, e)
    f, g = sort2(f, g)
    return a, b, c, d, e, f, g, h


@inline
def four(bias, row):
    """The biases of four experts."""
    return bias[row], bias[row + 1], bias[row + 2], bias[row + 3]


@inline
def biased4(scores, i, b):
    """Four experts' biased scores, the first one's at index i of a flat tile."""
    return scores[i] + b[0], scores[i + ROW] + b[1], scores[i + _2] + b[2], scores[i + _3] + b[3]


@inline
def eight(bias, row):
    """The biases of eight experts."""
    return (
        bias[row], bias[row + 1], bias[row + 2], bias[row + 3],
        bias[row + 4], bias[row + 5], bias[row + 6], bias[row + 7],
    )  # fmt: skip


@inline
def biased8(scores, i, b):
    """Eight experts' biased scores, the first one's at index i of a flat tile."""
    return (
        scores[i] + b[0], scores[i + ROW] + b[1], scores[i + _2] + b[2], scores[i + _3] + b[3],
        scores[i + _4] + b[4], scores[i + _5] + b[5], scores[i + _6] + b[6], scores[i + _7] + b[7],
    )  # fmt: skip


@inline
def load8(scores, i):
    """Eight rows' entries, the first row's at index i of a flat tile."""
    return (
        scores[i], scores[i + ROW], scores[i + _2], scores[i + _3],
        scores[i + _4], scores[i + _5], scores[i + _6], scores[i + _7],
    )  # fmt: skip


@inline
def store8(scores, i, x):
    """Write eight rows' entries."""
    scores[i], scores[i + ROW], scores[i + _2], scores[i + _3] = x[0], x[1], x[2], x[3]
    scores[i + _4], scores[i + _5], scores[i + _6], scores[i + _7] = x[4], x[5], x[6], x[7]


@inline
def largest(a, b, c, d, e, f, g, h):
    """The largest of eight."""
    return hi(hi(hi(a, b), hi(c, d)), hi(hi(e, f), hi(g, h)))


@inline
def merge2(a, b, c, d):
    """The two largest of two descending pairs."""
    return hi(a, c), hi(lo(a, c), hi(b, d))


@inline
def largest2(a, b, c, d, e, f, g, h):
    """The two largest of eight."""
    a, b = merge2(*sort2(a, b), *sort2(c, d))
    c, d = merge2(*sort2(e, f), *sort2(g, h))
    return merge2(a, b, c, d)


@inner
def absorb1(scores, bias, row, best, lanes):
    """Merge eight experts' biased scores into the running maximum; row 0 begins it."""
    b, i = eight(bias, row), start(row)
    if row == 0:
        for t in range(lanes):
            best[t] = largest(*biased8(scores, i + t, b))
    else:
        for t in range(lanes):
            best[t] = hi(best[t], largest(*biased8(scores, i + t, b)))


@inner
def absorb2(scores, bias, row, best, lanes):
    """Merge eight experts' biased scores into the running two largest; row 0 begins them."""
    b, i = eight(bias, row), start(row)
    if row == 0:
        for t in range(lanes):
            best[t], best[t + ROW] = largest2(*biased8(scores, i + t, b))
    else:
        for t in range(lanes):
            first, second = largest2(*biased8(scores, i + t, b))
            best[t], best[t + ROW] = merge2(best[t], best[t + ROW], first, second)


@inner
def absorb4(scores, bias, row, best, lanes):
    """Merge four experts' biased scores into the running four largest; row 0 begins them."""
    biases, i = four(bias, row), start(row)
    for t in range(lanes):
        a, b, c, d = sort4(*biased4(scores, i + t, biases))
        if row > 0:
            a, b, c, d = merge4(
                hi(best[t], d), hi(best[t + ROW], c), hi(best[t + _2], b), hi(best[t + _3], a)
            )
        best[t], best[t + ROW], best[t + _2], best[t + _3] = a, b, c, d


@inner
def absorb8(scores, bias, row, best, lanes):
    """Merge eight experts' biased scores into the running eight largest."""
    biases, i = eight(bias, row), start(row)
    for t in range(lanes):
        a, b, c, d, e, f, g, h = sort8(*biased8(scores, i + t, biases))
        s, r, q, p, o, n, m, k = load8(best, t)
        store8(
            best, t, merge8(hi(s, h), hi(r, g), hi(q, f), hi(p, e), hi(o, d), hi(n, c), hi(m, b), hi(k, a))
        )


@inner
def load_group(scores, bias, row, group, lanes):
    """Write eight experts' biased scores, sorted, into ``group`` (8 LANES,)."""
    biases, i = eight(bias, row), start(row)
    for t in range(lanes):
        store8(group, t, sort8(*biased8(scores, i + t, biases)))


@inner
def merge_chunk(group, best, rank, lanes):
    """Merge a sorted group into ranks ``rank .. rank + 7``; the group keeps, sorted, what is displaced."""
    first = start(rank)
    for t in range(lanes):
        i = first + t
        s, r, q, p, o, n, m, k = load8(group, t)
        a, b, c, d, e, f, g, h = load8(best, i)
        a, k = sort2(a, k)
        b, m = sort2(b, m)
        c, n = sort2(c, n)
        d, o = sort2(d, o)
        e, p = sort2(e, p)
        f, q = sort2(f, q)
        g, r = sort2(g, r)
        h, s = sort2(h, s)
        store8(best, i, merge8(a, b, c, d, e, f, g, h))
        store8(group, t, merge8(s, r, q, p, o, n, m, k))


@inline
def n_ranks(k):
    """Rows that ``top`` needs for this K."""
    if k <= 2:
        return k
    if k <= 4:
        return 4
    return (k + 7) // 8 * 8


@inner
def find_top(tile, bias, k, top, group, n_lanes):
    """Write the K largest biased scores of each token, descending, into ``top`` (n_ranks(k), LANES).

    ``tile`` and ``bias`` have a multiple of eight rows, minus infinity and zero past the last expert;
    ``group`` (8, LANES) is scratch space.
    """
    n, n_top, lanes = tile.shape[0], top.shape[0], np.uint64(n_lanes)
    scores, best, displaced = flat(tile), flat(top), flat(group)
    if k == 1:
        for row in range(0, n, 8):
            absorb1(scores, bias, row, best, lanes)
    elif k == 2:
        for row in range(0, n, 8):
            absorb2(scores, bias, row, best, lanes)
    elif k <= 4:
        for row in range(0, n, 4):
            absorb4(scores, bias, row, best, lanes)
    elif k <= 8:
        load_group(scores, bias, 0, best, lanes)
        for row in range(8, n, 8):
            absorb8(scores, bias, row, best, lanes)
    else:
        nothing = tile.dtype.type(-np.inf)
        for rank in range(n_top):
            for t in range(lanes):
                best[start(rank) + t] = nothing
        for row in range(0, n, 8):
            load_group(scores, bias, row, displaced, lanes)
            # After i groups only the first 8 i ranks are filled.
            for rank in range(0, min(n_top, row + 8), 8):
                merge_chunk(displaced, best, rank, lanes)


@inner
def count_loads(tile, bias, k, n_experts, top, n_lanes, loads):
    """Add the tile's tokens per expert to ``loads`` (E,); ties at the K-th place go to the lower index."""
    scores, best, last, lanes = flat(tile), flat(top), start(k - 1), np.uint64(n_lanes)
    counted = np.int64(0)
    for e in range(0, n_experts - 3, 4):
        biases, i = four(bias, e), start(e)
        n0 = n1 = n2 = n3 = as_wide(0, scores)
        for t in range(lanes):
            least = best[last + t]
            x0, x1, x2, x3 = biased4(scores, i + t, biases)
            n0 = as_wide(n0 + (x0 >= least), scores)
            n1 = as_wide(n1 + (x1 >= least), scores)
            n2 = as_wide(n2 + (x2 >= least), scores)
            n3 = as_wide(n3 + (x3 >= least), scores)
        loads[e] += n0
        loads[e + 1] += n1
        loads[e + 2] += n2
        loads[e + 3] += n3
        counted += n0 + n1 + n2 + n3
    for e in range(n_experts // 4 * 4, n_experts):
        b, i = bias[e], start(e)
        reached = as_wide(0, scores)
        for t in range(lanes):
            reached = as_wide(reached + (scores[i + t] + b >= best[last + t]), scores)
        loads[e] += reached
        counted += reached
    if counted != k * n_lanes:
        give_ties_to_lower(tile, bias, k, n_experts, top, n_lanes, loads)


@inner
def give_ties_to_lower(tile, bias, k, n_experts, top, n_lanes, loads):
    """Take back from ``loads`` what `count_loads` gave to tied experts beyond the K-th place."""
    for t in range(n_lanes):
        threshold = top[k - 1, t]
        room = room_for_ties(tile, bias, k, n_experts, threshold, t)
        for e in range(n_experts):
            if tile[e, t] + bias[e] == threshold:
                if room > 0:
                    room -= 1
                else:
                    loads[e] -= 1


@inline
def room_for_ties(tile, bias, k, n_experts, threshold, t):
    """How many experts at exactly the K-th value token t has room for."""
    room = k
    for e in range(n_experts):
        if tile[e, t] + bias[e] > threshold:
            room -= 1
    return room


@inner
def add_sums(top, k, n_lanes, sums):
    """Add each token's top-K sum to ``sums`` (LANES,) float64."""
    best, lanes = flat(top), np.uint64(n_lanes)
    for rank in range(k):
        first = start(rank)
        for t in range(lanes):
            sums[t] += np.float64(best[first + t])


@inner
def top_sum(top, k, n_lanes, sums):
    """The sum of the tokens' K largest, in float64; ``sums`` (LANES,) float64 is scratch space.

    Each token's are added in the order of their ranks, then tokens by halves of the tile: SIMD adds them in
    the same order as one number at a time would.
    """
    best, lanes = flat(top), np.uint64(n_lanes)
    for t in range(lanes):
        sums[t] = np.float64(best[t])
    for t in range(lanes, ROW):
        sums[t] = 0.0
    for rank in range(1, k):
        first = start(rank)
        for t in range(lanes):
            sums[t] += np.float64(best[first + t])
    width = ROW
    while width > np.uint64(1):
        width >>= np.uint64(1)
        for t in range(width):
            sums[t] += sums[t + width]
    return sums[0]

"""The running top-K of a tile, without indices, and loads by counting.

A tile is (experts, tokens), so that SIMD runs across tokens. ``top`` (ranks, tokens) holds each token's
largest biased scores so far, descending. Experts come in groups of 1, 2, 4 or 8 (the width that fits K):
a group is sorted by a network, merged into the running ranks by one row of maxima, and the bitonic result is
sorted again (Batcher 1968). For K > 8 the ranks form chunks of eight, and what a merge displaces from one
chunk goes on to the next: any K costs a whole number of the same steps. The narrow widths pay: 6.4, 4.0, 2.2
and 1.45 times the chunked path at K = 1, 2, 4 and 8 (docs/benchmarks.md).

Loads are the number of scores that reach the K-th value. Ties make that number too large; it is checked per
tile, and a tile with ties at a K-th place is counted again by (score, lower expert index).
"""

import numpy as np

from balancesim.kernels.jit import inline, inner


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
def largest(tile, bias, row, t, b0, b1, b2, b3, b4, b5, b6, b7):
    """The largest of eight experts' biased scores."""
    a = hi(hi(tile[row, t] + b0, tile[row + 1, t] + b1), hi(tile[row + 2, t] + b2, tile[row + 3, t] + b3))
    b = hi(hi(tile[row + 4, t] + b4, tile[row + 5, t] + b5), hi(tile[row + 6, t] + b6, tile[row + 7, t] + b7))
    return hi(a, b)


@inline
def merge2(a, b, c, d):
    """The two largest of two descending pairs."""
    return hi(a, c), hi(lo(a, c), hi(b, d))


@inline
def largest2(tile, bias, row, t, b0, b1, b2, b3, b4, b5, b6, b7):
    """The two largest of eight experts' biased scores."""
    a, b = sort2(tile[row, t] + b0, tile[row + 1, t] + b1)
    c, d = sort2(tile[row + 2, t] + b2, tile[row + 3, t] + b3)
    a, b = merge2(a, b, c, d)
    c, d = sort2(tile[row + 4, t] + b4, tile[row + 5, t] + b5)
    e, f = sort2(tile[row + 6, t] + b6, tile[row + 7, t] + b7)
    c, d = merge2(c, d, e, f)
    return merge2(a, b, c, d)


@inline
def sorted_group(tile, bias, row, t, b0, b1, b2, b3, b4, b5, b6, b7):
    """Eight experts' biased scores, descending."""
    return sort8(
        tile[row, t] + b0,
        tile[row + 1, t] + b1,
        tile[row + 2, t] + b2,
        tile[row + 3, t] + b3,
        tile[row + 4, t] + b4,
        tile[row + 5, t] + b5,
        tile[row + 6, t] + b6,
        tile[row + 7, t] + b7,
    )


@inner
def absorb1(tile, bias, row, top, n_lanes):
    """Merge eight experts' biased scores into the running maximum; row 0 begins it."""
    b0, b1, b2, b3 = bias[row], bias[row + 1], bias[row + 2], bias[row + 3]
    b4, b5, b6, b7 = bias[row + 4], bias[row + 5], bias[row + 6], bias[row + 7]
    if row == 0:
        for t in range(n_lanes):
            top[0, t] = largest(tile, bias, row, t, b0, b1, b2, b3, b4, b5, b6, b7)
    else:
        for t in range(n_lanes):
            top[0, t] = hi(top[0, t], largest(tile, bias, row, t, b0, b1, b2, b3, b4, b5, b6, b7))


@inner
def absorb2(tile, bias, row, top, n_lanes):
    """Merge eight experts' biased scores into the running two largest; row 0 begins them."""
    b0, b1, b2, b3 = bias[row], bias[row + 1], bias[row + 2], bias[row + 3]
    b4, b5, b6, b7 = bias[row + 4], bias[row + 5], bias[row + 6], bias[row + 7]
    if row == 0:
        for t in range(n_lanes):
            top[0, t], top[1, t] = largest2(tile, bias, row, t, b0, b1, b2, b3, b4, b5, b6, b7)
    else:
        for t in range(n_lanes):
            a, b = largest2(tile, bias, row, t, b0, b1, b2, b3, b4, b5, b6, b7)
            top[0, t], top[1, t] = merge2(top[0, t], top[1, t], a, b)


@inner
def absorb4(tile, bias, row, top, n_lanes):
    """Merge four experts' biased scores into the running four largest; row 0 begins them."""
    b0, b1, b2, b3 = bias[row], bias[row + 1], bias[row + 2], bias[row + 3]
    for t in range(n_lanes):
        a, b, c, d = sort4(
            tile[row, t] + b0, tile[row + 1, t] + b1, tile[row + 2, t] + b2, tile[row + 3, t] + b3
        )
        if row > 0:
            a, b, c, d = merge4(hi(top[0, t], d), hi(top[1, t], c), hi(top[2, t], b), hi(top[3, t], a))
        top[0, t], top[1, t], top[2, t], top[3, t] = a, b, c, d


@inner
def absorb8(tile, bias, row, top, n_lanes):
    """Merge eight experts' biased scores into the running eight largest."""
    b0, b1, b2, b3 = bias[row], bias[row + 1], bias[row + 2], bias[row + 3]
    b4, b5, b6, b7 = bias[row + 4], bias[row + 5], bias[row + 6], bias[row + 7]
    for t in range(n_lanes):
        a, b, c, d, e, f, g, h = sorted_group(tile, bias, row, t, b0, b1, b2, b3, b4, b5, b6, b7)
        a, b, c, d, e, f, g, h = merge8(
            hi(top[0, t], h),
            hi(top[1, t], g),
            hi(top[2, t], f),
            hi(top[3, t], e),
            hi(top[4, t], d),
            hi(top[5, t], c),
            hi(top[6, t], b),
            hi(top[7, t], a),
        )
        top[0, t], top[1, t], top[2, t], top[3, t] = a, b, c, d
        top[4, t], top[5, t], top[6, t], top[7, t] = e, f, g, h


@inner
def load_group(tile, bias, row, group, n_lanes):
    """Write eight experts' biased scores, sorted, into ``group`` (8, tokens)."""
    b0, b1, b2, b3 = bias[row], bias[row + 1], bias[row + 2], bias[row + 3]
    b4, b5, b6, b7 = bias[row + 4], bias[row + 5], bias[row + 6], bias[row + 7]
    for t in range(n_lanes):
        a, b, c, d, e, f, g, h = sorted_group(tile, bias, row, t, b0, b1, b2, b3, b4, b5, b6, b7)
        group[0, t], group[1, t], group[2, t], group[3, t] = a, b, c, d
        group[4, t], group[5, t], group[6, t], group[7, t] = e, f, g, h


@inner
def merge_chunk(group, top, rank, n_lanes):
    """Merge a sorted group into ranks ``rank .. rank + 7``; the group keeps, sorted, what is displaced."""
    for t in range(n_lanes):
        a, s = sort2(top[rank, t], group[7, t])
        b, r = sort2(top[rank + 1, t], group[6, t])
        c, q = sort2(top[rank + 2, t], group[5, t])
        d, p = sort2(top[rank + 3, t], group[4, t])
        e, o = sort2(top[rank + 4, t], group[3, t])
        f, n = sort2(top[rank + 5, t], group[2, t])
        g, m = sort2(top[rank + 6, t], group[1, t])
        h, k = sort2(top[rank + 7, t], group[0, t])
        a, b, c, d, e, f, g, h = merge8(a, b, c, d, e, f, g, h)
        top[rank, t], top[rank + 1, t], top[rank + 2, t], top[rank + 3, t] = a, b, c, d
        top[rank + 4, t], top[rank + 5, t], top[rank + 6, t], top[rank + 7, t] = e, f, g, h
        a, b, c, d, e, f, g, h = merge8(k, m, n, o, p, q, r, s)
        group[0, t], group[1, t], group[2, t], group[3, t] = a, b, c, d
        group[4, t], group[5, t], group[6, t], group[7, t] = e, f, g, h


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
    n = tile.shape[0]
    if k == 1:
        for row in range(0, n, 8):
            absorb1(tile, bias, row, top, n_lanes)
    elif k == 2:
        for row in range(0, n, 8):
            absorb2(tile, bias, row, top, n_lanes)
    elif k <= 4:
        for row in range(0, n, 4):
            absorb4(tile, bias, row, top, n_lanes)
    elif k <= 8:
        load_group(tile, bias, 0, top, n_lanes)
        for row in range(8, n, 8):
            absorb8(tile, bias, row, top, n_lanes)
    else:
        nothing = tile.dtype.type(-np.inf)
        for rank in range(top.shape[0]):
            for t in range(n_lanes):
                top[rank, t] = nothing
        for row in range(0, n, 8):
            load_group(tile, bias, row, group, n_lanes)
            # After i groups only the first 8 i ranks are filled.
            for rank in range(0, min(top.shape[0], row + 8), 8):
                merge_chunk(group, top, rank, n_lanes)


@inner
def count_loads(tile, bias, k, n_experts, top, n_lanes, loads):
    """Add the tile's tokens per expert to ``loads`` (E,); ties at the K-th place go to the lower index."""
    counted = np.int64(0)
    for e in range(0, n_experts - 3, 4):
        b0, b1, b2, b3 = bias[e], bias[e + 1], bias[e + 2], bias[e + 3]
        n0, n1, n2, n3 = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
        for t in range(n_lanes):
            least = top[k - 1, t]
            n0 += np.int32(tile[e, t] + b0 >= least)
            n1 += np.int32(tile[e + 1, t] + b1 >= least)
            n2 += np.int32(tile[e + 2, t] + b2 >= least)
            n3 += np.int32(tile[e + 3, t] + b3 >= least)
        loads[e] += n0
        loads[e + 1] += n1
        loads[e + 2] += n2
        loads[e + 3] += n3
        counted += n0 + n1 + n2 + n3
    for e in range(n_experts // 4 * 4, n_experts):
        b = bias[e]
        reached = np.int32(0)
        for t in range(n_lanes):
            reached += np.int32(tile[e, t] + b >= top[k - 1, t])
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
    for rank in range(k):
        for t in range(n_lanes):
            sums[t] += np.float64(top[rank, t])

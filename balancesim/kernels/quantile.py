"""Order statistics for prices: each token's (K+1)-th largest biased score, each expert's quantile.

Scores lie (experts, tokens), so that an expert's are contiguous. Everything is float64.
"""

import numpy as np

from balancesim.kernels.jit import inner, kernel, strict
from balancesim.kernels.model import LANES


@strict
def select(values, rank):
    """The value that has ``rank`` values before it in descending order; ``values`` are partially sorted.

    Afterwards the first ``rank`` values are the largest, in any order. Partitions without branches, three
    ways, so that neither random order nor ties cost more than a few passes.
    """
    low, high = 0, values.size
    while True:
        a, b, c = values[low], values[(low + high) // 2], values[high - 1]
        pivot = max(min(a, b), min(max(a, b), c))
        above = low
        for i in range(low, high):
            x = values[i]
            values[i] = values[above]
            values[above] = x
            above += x > pivot
        if above == high:  # where NaN is among them: no value exceeds itself
            return pivot
        if rank < above:
            high = above
            continue
        equal = above
        for i in range(above, high):
            x = values[i]
            values[i] = values[equal]
            values[equal] = x
            equal += x == pivot
        if rank < equal or equal == low:
            return pivot
        low = equal


@strict
def quantile(values, capacity, middle):
    """The price at which ``capacity`` of the values are larger: the next one, or the middle of the gap."""
    end = select(values, capacity)
    if not middle or capacity == 0:
        return end
    least = values[0]
    for i in range(1, capacity):
        least = min(least, values[i])
    return 0.5 * (least + end) if least < np.inf else end


@inner
def next_scores(tile, bias, k, n_experts, top, n_lanes):
    """Each lane's (K+1)-th largest biased score, of a tile whose K largest are in ``top``."""
    nothing = tile.dtype.type(-np.inf)
    found, reached = np.full(n_lanes, nothing), np.zeros(n_lanes, np.int64)
    for e in range(n_experts):
        for t in range(n_lanes):
            x = tile[e, t] + bias[e]
            is_reached = x >= top[k - 1, t]
            reached[t] += is_reached
            below = nothing if is_reached else x
            found[t] = below if below > found[t] else found[t]
    for t in range(n_lanes):
        if reached[t] > k:
            found[t] = top[k - 1, t]
    return found


@strict
def find_cutoffs(scores, price, k, first, last, cutoffs):
    """Write the (K+1)-th largest of ``scores[:, i] + price`` for tokens ``first .. last - 1``."""
    n_experts = scores.shape[0]
    best = np.empty((k + 1, LANES))
    for start in range(first, last, LANES):
        n_lanes = min(LANES, last - start)
        best[:] = -np.inf
        for e in range(n_experts):
            for t in range(n_lanes):
                x = scores[e, start + t] + price[e]
                if x > best[k, t]:
                    rank = k
                    while rank > 0 and x > best[rank - 1, t]:
                        best[rank, t] = best[rank - 1, t]
                        rank -= 1
                    best[rank, t] = x
        for t in range(n_lanes):
            cutoffs[start + t] = best[k, t]


@strict
def find_quantiles(scores, cutoffs, k, first, last, middle, values, quantiles):
    """Write each expert's (floor(n K / E) + 1)-th largest lead over the cutoffs of n tokens (E,).

    The tokens are ``first .. last - 1``; ``values`` (T,) is scratch space. Masked scores come last.
    """
    n_experts, n_tokens = scores.shape[0], last - first
    capacity = n_tokens * k // n_experts
    has_gap = n_tokens * k % n_experts == 0
    for e in range(n_experts):
        for t in range(n_tokens):
            x = scores[e, first + t]
            values[t] = x - cutoffs[first + t] if x > -np.inf else x
        quantiles[e] = quantile(values[:n_tokens], capacity, middle and has_gap)


@kernel
def descend(scores, k, n_sweeps, prices):
    """Sweep ``prices`` (E,) over (experts, tokens) scores, in place, with both sides' prices clipped at zero.

    BIP (arXiv:2502.15451): a token's price is its (K+1)-th largest of score - price, an expert's its
    (floor(T K / E) + 1)-th largest of score - token's price; neither is ever negative.
    """
    n_experts, n_tokens = scores.shape
    cutoffs, values, bias = np.empty(n_tokens), np.empty(n_tokens), np.empty(n_experts)
    for _ in range(n_sweeps):
        for e in range(n_experts):
            bias[e] = -prices[e]
        find_cutoffs(scores, bias, k, 0, n_tokens, cutoffs)
        for t in range(n_tokens):
            cutoffs[t] = max(cutoffs[t], 0.0)
        find_quantiles(scores, cutoffs, k, 0, n_tokens, False, values, prices)
        for e in range(n_experts):
            prices[e] = max(prices[e], 0.0)

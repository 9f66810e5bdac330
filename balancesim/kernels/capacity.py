"""What experts with a limited capacity keep of the tokens that chose them."""

import numpy as np

from balancesim.kernels.jit import kernel
from balancesim.kernels.largest import mark_largest


@kernel
def drop_beyond(scores, experts, capacity, by_position):
    """Empty, with -1, the places of ``experts`` (T, K) beyond each expert's ``capacity``.

    An expert keeps its first tokens, or those with the best scores (T, E), ties to the lower token.
    """
    n_tokens, k = experts.shape
    n_experts = scores.shape[1]
    loads = np.zeros(n_experts + 1, np.int64)
    for t in range(n_tokens):
        for j in range(k):
            loads[experts[t, j] + 1] += 1
    for e in range(n_experts):
        loads[e + 1] += loads[e]
    # The places of each expert, one expert after the other, tokens ascending.
    place = loads.copy()
    owner = np.empty((n_tokens * k, 2), np.int64)
    offered = np.empty(n_tokens * k, scores.dtype)
    for t in range(n_tokens):
        for j in range(k):
            e = experts[t, j]
            owner[place[e], 0], owner[place[e], 1] = t, j
            offered[place[e]] = scores[t, e]
            place[e] += 1
    kept = np.empty(n_tokens, np.bool_)
    for e in range(n_experts):
        first, n = loads[e], loads[e + 1] - loads[e]
        if n <= capacity:
            continue
        if by_position:
            for i in range(n):
                kept[i] = i < capacity
        else:
            mark_largest(offered[first:], n, capacity, kept)
        for i in range(n):
            if not kept[i]:
                experts[owner[first + i, 0], owner[first + i, 1]] = -1

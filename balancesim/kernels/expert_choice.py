"""Experts that choose tokens: each the best so many of its column."""

import numpy as np

from balancesim.kernels.jit import kernel
from balancesim.kernels.largest import mark_largest


@kernel
def choose_tokens(scores, capacity, chosen, held):
    """Mark each expert's ``capacity`` best unmasked tokens; ties go to the lower token.

    ``scores`` (T, E); ``chosen`` (T, E) bool is written, and ``held`` (T,) int64, the experts of each token.
    """
    n_tokens, n_experts = scores.shape
    column = np.empty(n_tokens, scores.dtype)
    marks = np.empty(n_tokens, np.bool_)
    for e in range(n_experts):
        for t in range(n_tokens):
            column[t] = scores[t, e]
        mark_largest(column, n_tokens, capacity, marks)
        for t in range(n_tokens):
            chosen[t, e] = marks[t]
    for t in range(n_tokens):
        held[t] = 0
        for e in range(n_experts):
            held[t] += chosen[t, e]


@kernel
def list_experts(chosen, experts):
    """Write each token's marked experts, ascending, into its row of ``experts`` (T, M), -1 behind them."""
    for t in range(chosen.shape[0]):
        place = 0
        for e in range(chosen.shape[1]):
            if chosen[t, e]:
                experts[t, place] = e
                place += 1
        for rest in range(place, experts.shape[1]):
            experts[t, rest] = -1

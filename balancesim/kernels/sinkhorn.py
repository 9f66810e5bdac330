"""Sinkhorn's iterations in the log domain: prices at which the plan's columns hold equal shares."""

import numpy as np

from balancesim.kernels.elementary import exp64
from balancesim.kernels.jit import inner, kernel

# What is returned in place of a number of iterations where an expert is masked for all tokens.
EMPTY_COLUMN = -1

_SMALL = 1e-280
"""A column's sum below which its logarithm is taken about its own largest entry."""


@inner
def log_column(scores, e, price, temperature, largest, total):
    """Logarithm of the sum of a column's entries, each over its row's sum; minus infinity where masked."""
    best = -np.inf
    for t in range(scores.shape[0]):
        best = max(best, np.float64(scores[t, e]) + price[e] - largest[t] - temperature * np.log(total[t]))
    if best == -np.inf:
        return best
    rest = 0.0
    for t in range(scores.shape[0]):
        entry = np.float64(scores[t, e]) + price[e] - largest[t] - temperature * np.log(total[t])
        rest += np.exp((entry - best) / temperature)
    return best / temperature + np.log(rest)


@kernel
def scale_columns(scores, k, temperature, n_iterations, tolerance, price):
    """Move ``price`` (E,) float64 until the plan's loads are balanced; return iterations done and the error.

    The plan's entries are K exp((scores + price)/temperature) over their row's sum, so that rows hold K each;
    the error is the largest |load/(T K / E) - 1| at the price returned. At most ``n_iterations`` scalings of
    all columns; none more once the error is within the tolerance.
    """
    n_tokens, n_experts = scores.shape
    share = n_experts / n_tokens
    row, column = np.empty(n_experts), np.empty(n_experts)
    largest, total = np.empty(n_tokens), np.empty(n_tokens)
    for iteration in range(n_iterations + 1):
        for e in range(n_experts):
            column[e] = 0.0
        for t in range(n_tokens):
            best = -np.inf
            for e in range(n_experts):
                row[e] = np.float64(scores[t, e]) + price[e]
                best = max(best, row[e])
            for e in range(n_experts):
                row[e] = exp64((row[e] - best) / temperature)
            mass = 0.0
            for e in range(n_experts):
                mass += row[e]
            for e in range(n_experts):
                column[e] += row[e] / mass
            largest[t], total[t] = best, mass
        error = 0.0
        for e in range(n_experts):
            error = max(error, abs(column[e] * share - 1.0))
        if error <= tolerance or iteration == n_iterations:
            break
        for e in range(n_experts):
            if column[e] > _SMALL:
                price[e] -= temperature * np.log(column[e] * share)
            else:
                logarithm = log_column(scores, e, price, temperature, largest, total)
                if logarithm == -np.inf:
                    return EMPTY_COLUMN, error
                price[e] -= temperature * (logarithm + np.log(share))
    return iteration, error

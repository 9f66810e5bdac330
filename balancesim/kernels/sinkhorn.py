"""Sinkhorn's iterations in the log domain: prices at which the plan's columns hold equal shares."""

import math

import numpy as np

from balancesim.kernels.jit import inner, kernel, pasted

# What is returned in place of a number of iterations where an expert is masked for all tokens.
EMPTY_COLUMN = -1

_SMALL = 1e-280
"""A column's sum below which its logarithm is taken about its own largest entry."""


# Added to a float64 below 2**51 in magnitude, this leaves its nearest integer in the last bits.
_ROUNDER = 1.5 * 2.0**52
_ONE_BITS = np.float64(1.0).view(np.int64)
_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.0 / math.log(2.0), 0.6931471803691238, 1.9082149292705878e-10
(_C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12, _C13) = (
    1.0 / math.factorial(n) for n in range(2, 14)
)
_LEAST = -708.0


@pasted
def decay(x):
    """Exponential of x <= 0 (Taylor, degree 13), zero below -708: no conversion that does not vectorise."""
    y = x if x > _LEAST else _LEAST
    rounded = y * _LOG2_E + _ROUNDER
    n = rounded - _ROUNDER
    r = (y - n * _LN2_HIGH) - n * _LN2_LOW
    z = (((((_C13 * r + _C12) * r + _C11) * r + _C10) * r + _C9) * r + _C8) * r
    z = ((((((z + _C7) * r + _C6) * r + _C5) * r + _C4) * r + _C3) * r + _C2) * r
    z = (z + 1.0) * r + 1.0
    bits = (np.float64(rounded).view(np.int64) << np.int64(52)) + _ONE_BITS
    return z * np.int64(bits).view(np.float64) if x > _LEAST else 0.0


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
                row[e] = decay((row[e] - best) / temperature)
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

"""Inclusion probabilities of independent scores: who is among the K best, at nodes of a quadrature."""

import numpy as np

from balancesim.kernels.jit import rule_kernel, strict


@strict
def _count(above, row, q, k):
    """Write row ``row`` of counts: those of ``above``, P(m experts exceed), m = 0 .. K-1, with one more."""
    for m in range(k):
        fewer = above[m - 1] if m > 0 else 0.0
        row[m] = (1.0 - q) * above[m] + q * fewer


@rule_kernel
def add_inclusion(expert, k, weight, above, density, share, slope):
    """Add an expert's probability of being chosen, and how it changes with every price.

    ``weight`` (Q,) of the nodes, a probability measure of this expert's score; ``above``, ``density`` (Q, E)
    the others' probabilities of exceeding it, and their densities there; ``share`` (E,), ``slope`` (E, E) are
    added to at ``expert``.
    """
    n_nodes, n_experts = above.shape
    ahead = np.empty((n_experts + 1, k))  # ahead[e]: experts before e
    behind = np.empty((n_experts + 1, k))  # behind[e]: experts from e on
    for node in range(n_nodes):
        w = weight[node]
        for m in range(k):
            ahead[0, m] = behind[n_experts, m] = 1.0 if m == 0 else 0.0
        for e in range(n_experts):
            last = n_experts - 1 - e
            _count(ahead[e], ahead[e + 1], 0.0 if e == expert else above[node, e], k)
            _count(behind[last + 1], behind[last], 0.0 if last == expert else above[node, last], k)
        chosen = 0.0
        for m in range(k):
            chosen += ahead[n_experts, m]
        share[expert] += w * chosen
        for e in range(n_experts):
            if e != expert and density[node, e] > 0.0:
                tied = 0.0
                for m in range(k):
                    tied += ahead[e, m] * behind[e + 1, k - 1 - m]
                change = w * density[node, e] * tied
                slope[expert, expert] += change
                slope[expert, e] -= change

"""Costs in a unit of their own: the tolerances of general solvers are absolute."""

import numpy as np

from balancesim.exact.problem import AssignmentProblem
from balancesim.types import Float64Array

_RESOLVED = 1e-8
"""Smallest cost of interest, relative to the largest: prices resolve no finer."""


def costs(problem: AssignmentProblem) -> tuple[Float64Array, float]:
    """Return the scores counted from their median in units of their typical size, (T, E), and the unit.

    A constant in all scores changes no choice, and prices scale with the unit. Masked pairs cost 0.
    """
    unmasked = np.isfinite(problem.scores)
    cost = np.where(unmasked, problem.scores, 0.0) - np.median(problem.scores[unmasked])
    cost[~unmasked] = 0.0
    size = np.abs(cost)
    largest = float(size.max())
    if largest == 0.0:
        return cost, 1.0
    typical = max(float(np.median(size[size > 0.0])), _RESOLVED * largest)
    unit = 2.0 ** float(np.floor(np.log2(typical)))
    return cost / unit, unit

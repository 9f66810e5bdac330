"""The longest step that does not raise the dual (D3)."""

import math

import numpy as np
from numpy.typing import ArrayLike

from balancesim.batches import as_bias
from balancesim.theory.leads import find_leads
from balancesim.theory.line import DualLine


def max_monotone_step(scores: ArrayLike, bias: ArrayLike, direction: ArrayLike, *, k: int) -> float:
    """The end t* of the steps (0, t*] along a direction that do not raise the dual D (D3).

    Parameters
    ----------
    scores : (T, E) array_like of float32 or float64
        The batch, the same before and after the step.
    bias : (E,) array_like
        p, in float64.
    direction : (E,) array_like
        delta: the step that ALF-LB would take, or any other vector.
    k : int
        Experts per token.

    Returns
    -------
    float
        t*, a multiple of ``direction``: D(p + t delta) <= D(p) for 0 <= t <= t* and for no larger t, to a few
        units of t*'s last place. 0 where some token ties at its K-th place at p, or where the dual rises at
        once; infinity where the direction is constant (no choice changes, D neither), or where masks leave D
        falling for ever (no assignment is balanced).

    Raises
    ------
    InputError
        As `route`.

    Notes
    -----
    h(t) = D(p + t delta) - D(p) is convex and piecewise linear. t is doubled until h(t) > 0; Newton's steps
    from there stay right of t* and reach a flatter piece each, so that they end. One sort of the batch, then
    one pass for each value of h, some ten of them. At a tie the dual may still fall (docs/theory.md, D3): 0
    is then the safe answer, as A - L is but one of several subgradients. Source: theory.md D3.
    """
    leads = find_leads(scores, bias, k)
    delta = as_bias(direction, leads.loads.size, "direction")
    if np.ptp(delta) == 0.0:
        return math.inf
    if leads.tied.any():
        return 0.0
    line = DualLine(leads, delta, k)
    if line.slope_at_start > 0.0:
        return 0.0
    if not np.isfinite(leads.lead).all() and line.slope_at_infinity() <= 0.0:
        return math.inf
    # A length at which about half of the tokens could have switched.
    t = -float(np.median(leads.lead[:, k])) / float(np.ptp(delta))
    t = t if 0.0 < t < math.inf else 1.0
    change, slope, depth = line.at(t)
    while change <= 0.0:
        # Left of t* a tangent that rises meets zero to the right of t*: Newton's step is then past it.
        t = max(2.0 * t, depth / slope if slope > 0.0 else 0.0)
        if t == math.inf:
            return t
        change, slope, depth = line.at(t)
    while change > 0.0:
        nearer = depth / slope
        if not nearer < t:
            break
        t = nearer
        change, slope, depth = line.at(t)
    return t

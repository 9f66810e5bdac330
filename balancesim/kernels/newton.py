"""Newton's method on the dual of the assignment problem: one step from counted loads and counted near-ties.

The gradient of the dual is the surplus of each expert's load over what the price asks for; the Hessian is a
weighted graph Laplacian (S1), estimated by the pairs of experts at the K-th and the next place that are less
than a width apart (S3). Experts whose load may lie in an interval pay nothing inside it: their price rests at
zero until the load leaves the interval.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from balancesim.kernels.jit import inner, kernel

_PRIOR_TIES = 4.0
"""Near-ties per expert that the assumption of experts all alike counts for."""

_UNSEEN_TIES = 1e-3
"""Weight, relative to the mean, of the complete graph that joins experts which no near-tie joins."""

_FREE_STIFFNESS = 1e-6
"""Stiffness, relative to the mean, that keeps the step finite where no price is held."""

_CG_STEPS = 20
_CG_TOLERANCE = 0.05

_LARGEST_CORRECTED = 0.8
"""Share of near-ties up to which the correction for those beyond the next place is believed."""

_NEAR_SHARE = 0.3
"""Share of tokens that the width is made to count as near-ties: many, for a Hessian that is not noise."""

_LARGEST_SHARE = 0.5
_TIES_WANTED = 4.0
"""Near-ties per expert for which the share may rise to its largest."""

_REACH = 8.0
"""Widths that one step may move a price."""

_OVERSHOOT = 0.5
"""Slope after a step, relative to the one before and of other sign, from which the step was too long."""

_PROGRESS = 0.9


class Descent(NamedTuple):
    """Where a descent stands.

    ``price``, ``before``, ``step``, ``best`` (E,) float64; ``low``, ``high`` (E,) float64, the loads asked
    for; ``residual`` (E,) float64, loads minus these; ``held`` (E,) bool, prices that rest at zero;
    ``loads`` (E,) int64; ``ties`` (E, E) int64; ``graph`` (E, E) float64, scratch; ``work`` (4, E) float64;
    ``width``, ``reach``, ``limit`` (1,) float64: of near-ties, the most that a price may move in a step, and
    the most that it may be; ``amplitude`` (2,) float64, of the noise that breaks ties, now and in the end;
    ``n_near`` (1,) int64; ``slope`` (1,) float64, of the dual along the last step before it was taken;
    ``best_wrong`` (1,) float64; ``since`` (1,) int64, passes without progress.
    """

    price: NDArray[np.float64]
    before: NDArray[np.float64]
    step: NDArray[np.float64]
    best: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    residual: NDArray[np.float64]
    held: NDArray[np.bool_]
    loads: NDArray[np.int64]
    ties: NDArray[np.int64]
    graph: NDArray[np.float64]
    work: NDArray[np.float64]
    width: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    reach: NDArray[np.float64]
    limit: NDArray[np.float64]
    n_near: NDArray[np.int64]
    slope: NDArray[np.float64]
    best_wrong: NDArray[np.float64]
    since: NDArray[np.int64]


@inner
def copy(source, target):
    """Copy a vector; slices would take a second longer to compile wherever they are used."""
    for i in range(source.size):
        target[i] = source[i]


@inner
def clear(matrix):
    """Set a matrix to zero."""
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            matrix[i, j] = 0


@inner
def measure(state):
    """Write the residual of the counted loads; return the tokens that are on the wrong side."""
    surplus = 0.0
    deficit = 0.0
    for e in range(state.price.size):
        load, low, high = np.float64(state.loads[e]), state.low[e], state.high[e]
        surplus += max(load - high, 0.0)
        deficit += max(low - load, 0.0)
        price = state.price[e]
        asked = min(max(load, low), high)
        if low < high and price != 0.0:
            asked = low if price > 0.0 else high
        state.held[e] = low < high and price == 0.0 and asked == load
        state.residual[e] = load - asked
    return max(surplus, deficit)


@inner
def along(state):
    """Slope of the dual in the direction of the last step."""
    slope = 0.0
    for e in range(state.price.size):
        slope += state.residual[e] * state.step[e]
    return slope


@inner
def laplacian_times(state, degree, joined, free, x, result):
    """Multiply the Laplacian of the near-ties, restricted to prices that are not held, with x."""
    n = x.size
    mean = 0.0
    for e in range(n):
        mean += x[e]
    mean /= n
    for e in range(n):
        result[e] = (degree[e] + free + joined) * x[e] - joined * mean
    for f in range(n):
        row = state.graph[f]
        weight = x[f]
        if weight != 0.0:
            for e in range(n):
                result[e] -= row[e] * weight
    for e in range(n):
        if state.held[e]:
            result[e] = 0.0


@inner
def solve_step(state, n_tokens):
    """Write the Newton step into ``step`` by conjugate gradients; the residual is the gradient."""
    n = state.price.size
    degree, r, d, product = state.work[0], state.work[1], state.work[2], state.work[3]
    # The pairs at the K-th and the next place alone are counted. If the gaps between them are exponential, a
    # share s within the width stands for a density of -log(1 - s) per width, not s.
    share = min(state.n_near[0] / n_tokens, _LARGEST_CORRECTED)
    correction = -np.log(1.0 - share) / share if share > 0.0 else 1.0
    scale = correction / (2.0 * state.width[0])
    mean = 0.0
    any_interval = False
    for e in range(n):
        total = 0.0
        for f in range(n):
            weight = scale * (state.ties[e, f] + state.ties[f, e])
            state.graph[e, f] = weight
            total += weight
        degree[e] = total
        mean += total / n
        any_interval |= state.low[e] < state.high[e]
    mean = max(mean, scale)
    prior = _PRIOR_TIES / (_PRIOR_TIES + mean / scale)
    for e in range(n):
        degree[e] *= 1.0 - prior
        for f in range(n):
            state.graph[e, f] *= 1.0 - prior
    joined = max(prior, _UNSEEN_TIES) * mean
    free = _FREE_STIFFNESS * mean if any_interval else 0.0
    residual_norm = 0.0
    for e in range(n):
        state.step[e] = 0.0
        r[e] = 0.0 if state.held[e] else -state.residual[e]
        d[e] = r[e] / (degree[e] + joined + free)
        residual_norm += r[e] * d[e]
    first = residual_norm
    for _ in range(_CG_STEPS):
        if residual_norm <= _CG_TOLERANCE * _CG_TOLERANCE * first or residual_norm <= 0.0:
            break
        laplacian_times(state, degree, joined, free, d, product)
        curvature = 0.0
        for e in range(n):
            curvature += d[e] * product[e]
        if curvature <= 0.0:
            break
        rate = residual_norm / curvature
        after = 0.0
        for e in range(n):
            state.step[e] += rate * d[e]
            r[e] -= rate * product[e]
            after += r[e] * r[e] / (degree[e] + joined + free)
        for e in range(n):
            d[e] = r[e] / (degree[e] + joined + free) + after / residual_norm * d[e]
        residual_norm = after


@inner
def take_step(state, n_tokens):
    """Move the price by the Newton step, no further than near-ties describe; return whether that was short.

    Where one step after the other falls short, the reach doubles.
    """
    n = state.price.size
    solve_step(state, n_tokens)
    reach = max(state.reach[0], _REACH * state.width[0])
    short = False
    for e in range(n):
        state.before[e] = state.price[e]
        short |= abs(state.step[e]) > reach
        move = min(max(state.step[e], -reach), reach)
        price = state.price[e]
        after = min(max(price + move, -state.limit[0]), state.limit[0])
        if state.low[e] < state.high[e] and price * after < 0.0:
            after = 0.0
        state.price[e] = after
        state.step[e] = after - price
    state.reach[0] = 2.0 * reach if short else 0.0
    return short


@inner
def adapt_width(state, n_tokens):
    """Make the width count the wanted share of the tokens as near-ties."""
    wanted = min(max(_NEAR_SHARE, _TIES_WANTED * state.price.size / n_tokens), _LARGEST_SHARE)
    share = max(state.n_near[0] / n_tokens, wanted / 16.0)
    state.width[0] *= min(4.0, max(0.25, wanted / share))


@inner
def begin(state):
    """Forget the steps of an earlier descent."""
    state.slope[0] = 0.0
    state.best_wrong[0] = np.inf
    state.since[0] = 0
    state.reach[0] = 0.0


@inner
def judge(state):
    """Note how good the counted price is; return the tokens on the wrong side."""
    wrong = measure(state)
    state.since[0] += 1
    if wrong < _PROGRESS * state.best_wrong[0]:
        state.since[0] = 0
    if wrong < state.best_wrong[0]:
        state.best_wrong[0] = wrong
        copy(state.price, state.best)
    return wrong


@inner
def proceed(state, n_tokens):
    """Take the next step; or, where the last was too long, a part of it: the dual is convex along it."""
    slope = state.slope[0]
    if slope < 0.0:
        after = along(state)
        if after > -_OVERSHOOT * slope:
            fraction = max(0.1, slope / (slope - after))
            for e in range(state.price.size):
                state.step[e] *= fraction
                state.price[e] = state.before[e] + state.step[e]
            state.slope[0] = 0.0
            state.reach[0] = 0.0
            return
    if take_step(state, n_tokens):
        state.since[0] = 0
    state.slope[0] = along(state)
    adapt_width(state, n_tokens)


@kernel
def advance(state, n_tokens):
    """Judge counted loads and take the next step; return the tokens that were on the wrong side."""
    wrong = judge(state)
    proceed(state, n_tokens)
    return wrong

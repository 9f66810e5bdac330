"""The Hessian of F for independent scores whose experts differ by shifts (S1), by quadrature.

Entry (k, j) is minus the integral of f_k f_j P(exactly K-1 of the other E-2 exceed z). Every factor is
non-negative and the probabilities are built by additions alone, prefix and suffix: no entry loses digits to
a cancellation or a division, however many experts there are. Panels are refined on the degrees sum_j h_kj,
which cost O(E K) a node; the matrix, O(E^2 K) a node, is taken once, on the panels found.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.special import logsumexp

from balancesim.errors import InputError
from balancesim.theory.kronrod import N_NODES, NODES, WEIGHTS
from balancesim.theory.quadrature import quantile
from balancesim.types import Float64Array

_TOLERANCE = 1e-12
_NEGLIGIBLE = 1e-18
_MAX_ROUNDS = 40
_MAX_PANELS = 20_000
_FAILED = 1e-4
_BLOCK = 2**21


class Hessian(NamedTuple):
    """The (E, E) matrix, and a bound on the spectral norm of its error."""

    matrix: Float64Array
    error: float


class Conditions(NamedTuple):
    """At Q nodes, for each of E experts: P(score > node), P(score <= node), density; all (Q, E)."""

    above: Float64Array
    below: Float64Array
    density: Float64Array


def integrate_hessian(noise: Any, shifts: Float64Array, k: int) -> Hessian:
    """Integrate S1's h_kj for scores shift_k + z_k, z independent with one distribution.

    Parameters
    ----------
    noise : frozen SciPy distribution
        Has ``pdf``, ``sf``, ``cdf`` and quantiles.
    shifts : (E,) array
        Offset plus bias of each expert, in the units of ``noise``.
    k : int
        1 <= k < E.

    Raises
    ------
    InputError
        If the integrals do not converge: a density whose square is not integrable.
    """
    panels = _refine(noise, shifts, k, _first_panels(noise, shifts))
    n_experts = shifts.size
    total, doubt = np.zeros((n_experts, n_experts)), np.zeros((n_experts, n_experts))
    for panel in panels:
        at, weights = _on_panel(noise, shifts, panel[None, :])
        fine, coarse = pair_integrals(at, weights[0], k)
        total += fine
        doubt += np.abs(fine - coarse)
    matrix = np.diag(total.sum(axis=1)) - total
    # Non-negative sums and products of about E + K factors: a relative error of each weight, hence of v'Hv.
    rounding = 4.0 * (n_experts + k) * np.finfo(np.float64).eps * float(np.trace(matrix))
    return Hessian(matrix, 2.0 * float(doubt.sum(axis=1).max()) + float(rounding))


def least_eigenvalue(matrix: Float64Array) -> tuple[float, Float64Array]:
    """lambda_2 of a Laplacian (the least eigenvalue on the zero-sum subspace) and its unit eigenvector.

    Where no tie joins some experts with others it is zero, exactly; the vector then tells the largest
    connected part from the rest.
    """
    n_experts = len(matrix)
    n_parts, part = connected_components(matrix != 0.0, directed=False)
    if n_parts > 1:
        inside = part == np.bincount(part).argmax()
        n_inside = int(inside.sum())
        levels = np.where(inside, n_experts - n_inside, -n_inside)
        return 0.0, levels / math.sqrt(n_inside * (n_experts - n_inside) * n_experts)
    # With the all-ones direction lifted above every other, the zero-sum subspace's least eigenvalue is first.
    lift = 4.0 * float(matrix.max())
    values, vectors = np.linalg.eigh(matrix + lift / n_experts)
    return max(0.0, float(values[0])), vectors[:, 0]


def pair_integrals(at: Conditions, weights: Float64Array, k: int) -> Float64Array:
    """Sum over nodes of weight f_k f_j P(exactly K-1 of the other experts are above), for every pair.

    Parameters
    ----------
    at : Conditions
        At Q nodes.
    weights : (Q, R) array
        Of R rules on the same nodes.
    k : int

    Returns
    -------
    (R, E, E) array
        Symmetric, with a zero diagonal.
    """
    above, below, k = _fewer(at, k)
    density = at.density.T
    n_experts, n_nodes = above.shape
    behind = np.zeros((n_experts + 1, k, n_nodes))
    behind[n_experts, 0] = 1.0
    for e in range(n_experts - 1, -1, -1):
        _with_one_more(behind[e], behind[e + 1], above[e], below[e])
    found = np.zeros((weights.shape[1], n_experts, n_experts))
    ahead = np.zeros((n_experts, k, n_nodes))  # row i < j: counts of the experts before j but for i
    before = np.zeros((k, n_nodes))
    before[0] = 1.0
    for j in range(n_experts):
        rows = ahead[:j]
        tied = np.einsum("imq,mq->iq", rows, behind[j + 1, ::-1])
        found[:, :j, j] = ((tied * density[:j]) @ (density[j][:, None] * weights)).T
        raised = rows[:, :-1] * above[j]
        rows *= below[j]
        rows[:, 1:] += raised
        ahead[j] = before
        before = _with_one_more(np.empty_like(before), before, above[j], below[j])
    return found + np.swapaxes(found, 1, 2)


def degrees(at: Conditions, k: int) -> Float64Array:
    """Integrand of sum_j h_kj for each expert k, (Q, E), in O(E K) operations a node."""
    above, below, k = _fewer(at, k)
    density = at.density.T
    n_experts, n_nodes = above.shape
    # Index 1: no expert, or one, of those counted ties at the node.
    shape = (n_experts + 1, 2, k, n_nodes)
    ahead, behind = np.zeros(shape), np.zeros(shape)
    ahead[0, 0, 0] = behind[n_experts, 0, 0] = 1.0
    for e in range(n_experts):
        _with_one_more(ahead[e + 1], ahead[e], above[e], below[e])
        ahead[e + 1, 1] += density[e] * ahead[e, 0]
        last = n_experts - 1 - e
        _with_one_more(behind[last], behind[last + 1], above[last], below[last])
        behind[last, 1] += density[last] * behind[last + 1, 0]
    tied = np.einsum("elmq,elmq->eq", ahead[:-1], behind[1:, ::-1, ::-1])
    return np.asarray((density * tied).T)


def _fewer(at: Conditions, k: int) -> tuple[Float64Array, Float64Array, int]:
    """(E, Q) probabilities, told from the side with fewer experts: K-1 of E-2 above is E-1-K below."""
    above, below = np.ascontiguousarray(at.above.T), np.ascontiguousarray(at.below.T)
    n_experts = len(above)
    return (above, below, k) if 2 * k <= n_experts else (below, above, n_experts - k)


def _with_one_more(
    row: Float64Array, counts: Float64Array, above: Float64Array, below: Float64Array
) -> Float64Array:
    """Write P(m experts above), m = 0 .. K-1 on the last axis but one, of ``counts`` and one more expert."""
    np.multiply(counts, below, out=row)
    row[..., 1:, :] += counts[..., :-1, :] * above
    return row


def _conditions(noise: Any, shifts: Float64Array, nodes: Float64Array) -> Conditions:
    with np.errstate(all="ignore"):
        x = nodes[:, None] - shifts
        # A node at an unbounded end of the support would be infinite; refinement then does not converge.
        found = [np.nan_to_num(np.asarray(f(x), dtype=np.float64)) for f in (noise.sf, noise.cdf, noise.pdf)]
    return Conditions(*found)


def _on_panel(noise: Any, shifts: Float64Array, panels: Float64Array) -> tuple[Conditions, Float64Array]:
    """Conditions at the 21 nodes of each of P panels (P, 2), and both rules' weights (P, 21, 2)."""
    half = 0.5 * (panels[:, 1] - panels[:, 0])
    nodes = (0.5 * (panels[:, 0] + panels[:, 1]))[:, None] + half[:, None] * NODES
    return _conditions(noise, shifts, nodes.ravel()), half[:, None, None] * WEIGHTS


def _first_panels(noise: Any, shifts: Float64Array) -> Float64Array:
    """Panels (P, 2) about as long as the mixture of the experts' scores needs, ending at supports' ends.

    Candidates are quantiles of shifted noises; they are thinned to steps of 0.75 in the logit of the mixture.
    """
    far = np.arange(50.0, 700.0, 10.0)
    t = np.concatenate([-far[::-1], np.arange(-40.0, 40.25, 0.25), far])
    with np.errstate(all="ignore"):
        steps = quantile(noise, t)
        steps = np.unique(steps[np.isfinite(steps)])
        apart = float(noise.ppf(0.75) - noise.ppf(0.25))
        ordered = np.unique(shifts)
        places = [ordered[0]]
        for shift in ordered[1:]:
            if shift - places[-1] > apart or shift == ordered[-1]:
                places.append(shift)
        points = np.unique(np.add.outer(np.array(places), steps))
        x = points[:, None] - ordered
        height = logsumexp(np.asarray(noise.logcdf(x)), axis=1) - logsumexp(
            np.asarray(noise.logsf(x)), axis=1
        )
    kept, last = [points[0]], -math.inf
    for point, level in zip(points.tolist(), height.tolist(), strict=True):
        step = 0.75 if abs(level) < 45.0 else 10.0
        if math.isfinite(level) and level - last >= step:
            kept.append(point)
            last = level
    kept.append(points[-1])
    edges = [ordered + edge for edge in noise.support() if math.isfinite(edge)]
    ends = np.unique(np.concatenate([np.array(kept), *edges]))
    return np.stack([ends[:-1], ends[1:]], axis=1)


def _refine(noise: Any, shifts: Float64Array, k: int, panels: Float64Array) -> Float64Array:
    """Halve panels until both rules agree on every expert's degree; drop those that matter to none."""
    done: list[Float64Array] = []
    settled, doubt = np.zeros(shifts.size), np.zeros(shifts.size)
    n_done = 0
    fine, gap = _measure(noise, shifts, k, panels)
    outermost = np.maximum(fine[0], fine[-1])
    for _ in range(_MAX_ROUNDS):
        total = settled + fine.sum(axis=0)
        matters = (fine > _NEGLIGIBLE * total).any(axis=1)
        rough = (gap > _TOLERANCE * total).any(axis=1)
        width = panels[:, 1] - panels[:, 0]
        halvable = width > 8.0 * np.finfo(np.float64).eps * np.abs(panels).max(axis=1)
        split = matters & rough & halvable
        keep = matters & ~split
        done.append(panels[keep])
        n_done += int(keep.sum())
        settled = settled + fine[keep].sum(axis=0)
        doubt = doubt + gap[keep].sum(axis=0)
        middle = 0.5 * (panels[split, 0] + panels[split, 1])
        left, right = np.stack([panels[split, 0], middle], 1), np.stack([middle, panels[split, 1]], 1)
        panels = np.concatenate([left, right])
        if not len(panels):
            break
        fine, gap = _measure(noise, shifts, k, panels)
        if n_done + 2 * len(panels) > _MAX_PANELS:
            break
    if len(panels):
        settled, doubt = settled + fine.sum(axis=0), doubt + gap.sum(axis=0)
        done.append(panels)
    # The outermost panels hold a probability of exp(-690) or less, unless the density has no end.
    diverges = (outermost > _FAILED * settled) | (doubt > _FAILED * settled.max())
    if not np.isfinite(settled).all() or bool(diverges.any()):
        raise InputError(
            "`source` has a density that is unbounded, or cannot be computed, at an end of its support: "
            'the curvature is infinite or unknown there; use method="gap" or "difference"'
        )
    return np.concatenate(done)


def _measure(
    noise: Any, shifts: Float64Array, k: int, panels: Float64Array
) -> tuple[Float64Array, Float64Array]:
    """Degrees on each panel, (P, E), and the distance between the two rules."""
    n_counted = min(k, shifts.size - k)
    rows = max(1, _BLOCK // (4 * n_counted * shifts.size * N_NODES))
    fine, gap = np.empty((len(panels), shifts.size)), np.empty((len(panels), shifts.size))
    for start in range(0, len(panels), rows):
        block = panels[start : start + rows]
        at, weights = _on_panel(noise, shifts, block)
        # Unbounded densities overflow, and are refused for it.
        with np.errstate(over="ignore", invalid="ignore"):
            values = degrees(at, k).reshape(len(block), N_NODES, -1)
            both = np.einsum("pqe,pqr->rpe", values, weights)
            fine[start : start + rows] = both[0]
            gap[start : start + rows] = np.abs(both[0] - both[1])
    return fine, gap

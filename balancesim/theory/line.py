"""The dual along a line: h(t) = D(p + t delta) - D(p), convex and piecewise linear."""

import math

import numpy as np

from balancesim.theory.leads import Leads
from balancesim.types import Float64Array, IntArray


class DualLine:
    """h and its slopes, from the leads at p.

    Parameters
    ----------
    leads : Leads
        The batch at p.
    direction : (E,) array
        delta.
    k : int
        Experts per token.

    Notes
    -----
    At t the r-th best expert from outside the choice replaces its r-th worst member wherever it is better.
    The gains are differences of leads, the dual's change is their sum plus t times the slope at the start.
    """

    def __init__(self, leads: Leads, direction: Float64Array, k: int) -> None:
        self._leads, self._direction, self._k = leads, direction, k
        self._delta = direction[leads.order]
        n_experts = leads.order.shape[1]
        self._n_swaps = min(k, n_experts - k)
        self.slope_at_start = self._slope(leads.loads)
        """h'(0+) where no token ties at its K-th place; else a subgradient."""

    def at(self, t: float) -> tuple[float, float, float]:
        """Return h(t), a subgradient there, and how far below 0 the tangent starts at t = 0, for t >= 0.

        The tangent is slope * t - depth; the depth is a sum of leads, so that its zero is exact to rounding
        however far from t it lies.
        """
        rows, worst, best = self._swaps(t)
        lead, delta = self._leads.lead[rows], self._delta[rows]
        apart = np.take_along_axis(lead, worst, 1) - np.take_along_axis(lead, best, 1)
        slopes = np.take_along_axis(delta, best, 1) - np.take_along_axis(delta, worst, 1)
        gains = t * slopes - apart
        better = gains > 0.0
        change = float(gains[better].sum()) + t * self.slope_at_start
        return change, self.slope_at_start + float(slopes[better].sum()), float(apart[better].sum())

    def gains(self, t: float) -> tuple[IntArray, Float64Array]:
        """Return the tokens that switch between 0 and t and what each swap gains them, at least 0."""
        rows, worst, best = self._swaps(t)
        moved = self._leads.lead[rows] + t * self._delta[rows]
        return rows, np.maximum(np.take_along_axis(moved, best, 1) - np.take_along_axis(moved, worst, 1), 0.0)

    def slope_at_infinity(self) -> float:
        """Return the slope that h has in the end."""
        delta = np.where(np.isneginf(self._leads.lead), -np.inf, self._delta)
        best = np.argsort(-delta, axis=1, kind="stable")[:, : self._k]
        chosen = np.take_along_axis(self._leads.order, best, 1)
        return self._slope(np.bincount(chosen.ravel(), minlength=self._direction.size))

    def _slope(self, loads: IntArray) -> float:
        n_experts = loads.size
        return math.fsum(self._direction * (loads * n_experts - int(loads.sum()))) / n_experts

    def _swaps(self, t: float) -> tuple[IntArray, IntArray, IntArray]:
        """Rows of the tokens that switch; in pairs, the places of their worst and of the best others."""
        k, n_swaps = self._k, self._n_swaps
        moved = self._leads.lead + t * self._delta
        rows = np.flatnonzero(moved[:, k:].max(axis=1) > moved[:, :k].min(axis=1))
        moved = moved[rows]
        worst = np.argsort(moved[:, :k], axis=1, kind="stable")[:, :n_swaps]
        best = k + np.argsort(-moved[:, k:], axis=1, kind="stable")[:, :n_swaps]
        return rows, worst, best

"""What one step of the price does to the dual, term by term (D1, D2)."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from balancesim.batches import as_bias
from balancesim.theory.leads import Leads, find_leads, sum_of_differences
from balancesim.theory.line import DualLine
from balancesim.types import Float64Array, IntArray


class StepChange(NamedTuple):
    """One step p -> p+ on one batch, delta = p+ - p.

    Attributes
    ----------
    change : float
        D(p+) - D(p), by S5's differences.
    benefits : (T,) ndarray of float64
        b_i >= 0: what token i's new experts gain on its old ones, at the new prices.
    descent : float
        -sum_k delta_k (A_k - L), for a step of ALF-LB sum_k eps_k (A_k - L)^2. The identity D1 says that
        ``change`` is the sum of the benefits less this.
    ceiling : float
        sum_k delta_k (A+_k - L), at least ``change`` (D2).
    loads, new_loads : (E,) ndarray of int64
        A and A+.
    """

    change: float
    benefits: Float64Array
    descent: float
    ceiling: float
    loads: IntArray
    new_loads: IntArray

    @property
    def error(self) -> float:
        """How far D1's identity is missed, relative to the sum of its two terms; 0 where both are 0."""
        benefit = math.fsum(self.benefits)
        size = benefit + abs(self.descent)
        missed = abs(math.fsum((self.change, -benefit, self.descent)))
        return missed / size if size > 0.0 else missed


def step_change(scores: ArrayLike, bias: ArrayLike, new_bias: ArrayLike, *, k: int) -> StepChange:
    """Split the change of the dual in one step into its two terms (D1), and bound it (D2).

    Parameters
    ----------
    scores : (T, E) array_like of float32 or float64
        The batch, the same before and after the step.
    bias, new_bias : (E,) array_like
        p and p+, in float64.
    k : int
        Experts per token.

    Returns
    -------
    StepChange

    Raises
    ------
    InputError
        As `route`.

    Notes
    -----
    Choices are those of exact arithmetic, ties to the lower index. The benefits come from the leads at p, the
    change from the choices at p and at p+, found apart: an expert chosen at both prices contributes delta_k,
    only experts chosen at one contribute scores, and these as differences (S5). No large sums are subtracted:
    heavy tails cost no digits. Two sorts of the batch. Source: theory.md D1, D2.
    """
    before = find_leads(scores, bias, k)
    n_tokens, n_experts = before.order.shape
    prices, moved = as_bias(bias, n_experts, "bias"), as_bias(new_bias, n_experts, "new_bias")
    after = find_leads(scores, moved, k)
    delta = moved - prices
    line = DualLine(before, delta, k)
    benefits = np.zeros(n_tokens)
    rows, gains = line.gains(1.0)
    benefits[rows] = gains.sum(axis=1)
    change = math.fsum(_changes(np.asarray(scores, np.float64), prices, moved, before, after, k))
    balanced = n_tokens * k
    ceiling = math.fsum(delta * (after.loads * n_experts - balanced)) / n_experts
    return StepChange(
        change=math.fsum((change, -balanced * math.fsum(delta) / n_experts)),
        benefits=benefits,
        descent=-line.slope_at_start,
        ceiling=ceiling,
        loads=before.loads,
        new_loads=after.loads,
    )


def _changes(
    scores: Float64Array, prices: Float64Array, moved: Float64Array, before: Leads, after: Leads, k: int
) -> Float64Array:
    """Each token's topsum_K(x + p+) - topsum_K(x + p), by membership."""
    members = [np.zeros(scores.shape, np.bool_) for _ in range(2)]
    for member, leads in zip(members, (before, after), strict=True):
        np.put_along_axis(member, leads.order[:, :k], True, axis=1)
    old, new = members
    changes = np.where(old & new, moved - prices, 0.0).sum(axis=1)
    entering, leaving = new & ~old, old & ~new
    # Row-wise, as many enter as leave; the r-th that enters is paired with the r-th that leaves.
    token, enters = np.nonzero(entering)
    leaves = np.nonzero(leaving)[1]
    pairs = sum_of_differences(scores[token, enters], scores[token, leaves], moved[enters], prices[leaves])
    return np.asarray(changes + np.bincount(token, weights=pairs, minlength=len(scores)))

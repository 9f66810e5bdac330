"""The certificate: everything that makes an assignment optimal, recomputed from the scores."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from balancesim.batches import as_bias, in_parts
from balancesim.errors import InputError
from balancesim.exact.problem import AssignmentProblem
from balancesim.kernels.model import LANES
from balancesim.problem import cheapest_loads
from balancesim.types import Float64Array, IntArray

_ROUNDING = 8.0 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Certificate:
    """Residuals of an assignment and a price; all zero, or rounding, at an optimum.

    Attributes
    ----------
    row_residual : int
        Tokens that do not have K different experts, unmasked and in range; -1 where unsolved.
    column_residual : int
        Tokens by which loads leave their limits, summed over experts; -1 where unsolved.
    integral : bool
        Whether the assignment is one of whole tokens: experts are given by number, and relaxations with
        shares between 0 and 1 are refused before.
    gap : float
        Relative duality gap, ``(dual_value - value) / max(1, |value|)``; infinite where unsolved.
    slackness_violation : float
        The most by which a token's unchosen expert beats a chosen one at the price, in score units.
    n_violated : int
        Tokens for which that happens beyond rounding; -1 where unsolved.
    price_violation : float
        Price of the loads minus that of the cheapest loads within the limits, in score units.
    rounding : float
        What of that is rounding.
    excess : float
        Dual value minus value, summed by differences: what of the optimum is not proven, in score units.
    scale : float
        What it is held against: T times the median over tokens of what the chosen add up to beyond the best
        that is left. Neither a token's own level nor the scores' unit matters.
    """

    row_residual: int
    column_residual: int
    integral: bool
    gap: float
    slackness_violation: float
    n_violated: int
    price_violation: float
    rounding: float
    excess: float
    scale: float

    @classmethod
    def unsolved(cls) -> "Certificate":
        """Return the certificate of nothing."""
        return cls(-1, -1, False, np.inf, np.inf, -1, np.inf, 0.0, np.inf, 0.0)

    def holds(self, tolerance: float) -> bool:
        """Whether the assignment is feasible, and optimal to rounding or to ``tolerance`` times the scale."""
        feasible = self.row_residual == 0 and self.column_residual == 0 and self.integral
        exact = self.n_violated == 0 and self.price_violation <= self.rounding
        return feasible and (exact or self.excess <= tolerance * self.scale)


class Checked(NamedTuple):
    """What `certify` finds.

    ``slack`` (E, 2): how far each expert's price may fall and rise, the others fixed, before the optimum
    changes; infinite where nothing limits it.
    """

    certificate: Certificate
    loads: IntArray
    value: float
    dual_value: float
    slack: Float64Array


def certify(problem: AssignmentProblem, experts: IntArray, bias: Float64Array) -> Checked:
    """Recompute what an assignment and a price are worth.

    Parameters
    ----------
    problem : AssignmentProblem
        The scores and the limits.
    experts : (T, K) ndarray of int64
        The chosen experts of each token.
    bias : (E,) ndarray of float64
        The price.

    Returns
    -------
    Checked
        The certificate, loads, value, dual value and the prices' slack; the same for any number of threads.
    """
    _check(problem, experts, bias)
    from balancesim.kernels.certificate import BAD_ROWS, N_TALLIES, VIOLATED, certify_part

    n_tokens, n_experts = problem.scores.shape
    values = np.empty(-(-n_tokens // LANES))
    excess, spread = np.empty_like(values), np.empty(n_tokens)

    def part(first: int, last: int) -> tuple[IntArray, Float64Array, IntArray, float]:
        loads, tally, worst = np.zeros(n_experts, np.int64), np.zeros(N_TALLIES, np.int64), np.zeros(1)
        slack = np.full((n_experts, 2), np.inf)
        certify_part(
            problem.scores, problem.k, bias, experts, first, last, loads, values, excess, spread,
            slack, tally, worst,
        )  # fmt: skip
        return loads, slack, tally, float(worst[0])

    parts = in_parts(part, problem.scores.shape)
    loads: IntArray = np.sum([loads for loads, *_ in parts], axis=0)
    slack = np.min([slack for _, slack, *_ in parts], axis=0)
    tally = np.sum([tally for _, _, tally, _ in parts], axis=0)
    cheapest = cheapest_loads(bias, problem.low, problem.high, problem.n_tokens * problem.k)
    value = float(values.sum())
    price_violation = float((loads - cheapest) @ bias)
    difference = float(excess.sum()) + price_violation
    outside = np.maximum(problem.low - loads, 0) + np.maximum(loads - problem.high, 0)
    proof = Certificate(
        row_residual=int(tally[BAD_ROWS]),
        column_residual=int(outside.sum()),
        integral=True,
        gap=difference / max(1.0, abs(value)) if tally[BAD_ROWS] == 0 else np.inf,
        slackness_violation=max(worst for *_, worst in parts),
        n_violated=int(tally[VIOLATED]),
        price_violation=price_violation,
        rounding=_ROUNDING * float(np.abs(loads - cheapest) @ np.abs(bias)),
        excess=difference,
        scale=n_tokens * float(np.median(spread)),
    )
    slack = np.minimum(slack, _price_order(problem, loads, bias))
    return Checked(proof, loads, value, value + difference, np.maximum(slack, 0.0))


def _check(problem: AssignmentProblem, experts: IntArray, bias: Float64Array) -> None:
    shape = (problem.n_tokens, problem.k)
    if experts.shape != shape or not np.issubdtype(experts.dtype, np.integer):
        raise InputError(f"`experts` must be integers, (T, K) = {shape}, got {experts.dtype} {experts.shape}")
    as_bias(bias, problem.n_experts, "bias")


def _price_order(problem: AssignmentProblem, loads: IntArray, bias: Float64Array) -> Float64Array:
    """How far each price may fall and rise before other loads within the limits are cheaper, (E, 2).

    An expert that might keep more must not be cheaper than one that might keep fewer.
    """
    more, fewer = loads < problem.high, loads > problem.low
    if not (more.any() and fewer.any()):
        return np.full((problem.n_experts, 2), np.inf)
    dearest = _best_of_others(np.where(fewer, bias, -np.inf))
    cheapest = -_best_of_others(np.where(more, -bias, -np.inf))
    down = np.where(more & (dearest > -np.inf), bias - dearest, np.inf)
    up = np.where(fewer & (cheapest < np.inf), cheapest - bias, np.inf)
    return np.stack([down, up], axis=1)


def _best_of_others(values: Float64Array) -> Float64Array:
    """The largest value of all entries but each itself."""
    first = int(values.argmax())
    best = np.full(values.size, values[first])
    best[first] = np.delete(values, first).max()
    return best

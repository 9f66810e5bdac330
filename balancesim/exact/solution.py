"""What an exact solve returns: the assignment, the prices, and what proves them."""

import enum
from dataclasses import dataclass
from typing import NamedTuple

from balancesim.exact.certificate import Certificate
from balancesim.types import Float64Array, IntArray


class SolveOutcome(enum.Enum):
    """How a solve ended; the value is the sentence that the user reads."""

    OPTIMAL = "optimal: the certificate closes"
    NOT_CERTIFIED = "the method says optimal, but the certificate does not close"
    INTERRUPTED = "interrupted before an optimum was found; raise `time_limit`"
    FAILED = "the method ended without an optimum"


class SolveStatus(NamedTuple):
    """How a solve ended.

    Attributes
    ----------
    outcome : SolveOutcome
        What ended it.
    reason : str
        One sentence, with what the method said.
    """

    outcome: SolveOutcome
    reason: str


class Effort(NamedTuple):
    """What a solve cost.

    Attributes
    ----------
    build_seconds, solve_seconds : float
        Wall time to set the problem up for the method, and to solve it; the certificate comes on top.
    n_passes : int
        Passes over all scores ("dual"); 0 for the other methods.
    n_moves : int
        Shortest-path augmentations ("dual"), or iterations of the method.
    """

    build_seconds: float
    solve_seconds: float
    n_passes: int
    n_moves: int


class Answer(NamedTuple):
    """What a method hands over, before anything is checked.

    ``experts`` (T, K) int64 ascending, ``bias`` (E,) in any gauge, or None where there is no optimum; an
    outcome of OPTIMAL is the method's own claim, ``detail`` its own words.
    """

    experts: IntArray | None
    bias: Float64Array | None
    outcome: SolveOutcome
    detail: str
    effort: Effort


@dataclass(frozen=True, eq=False)
class ExactSolution:
    """An exact optimum of the balanced assignment problem, with the prices that prove it.

    Attributes
    ----------
    experts : (T, K) ndarray of int64, or None
        The chosen experts of each token, ascending; None where there is no solution.
    loads : (E,) ndarray of int64, or None
        Tokens per expert.
    value : float
        Sum of the chosen scores; NaN where there is no solution.
    bias : (E,) ndarray of float64, or None
        An optimal price, zero mean: routing by it gives this assignment wherever the optimum is unique.
    interval : (E, 2) ndarray of float64, or None
        Sensitivity: how far each expert's price may move, the others fixed, before the optimum changes.
    dual_value : float
        The dual function at ``bias``, an upper bound on every assignment's value.
    gap : float
        ``(dual_value - value) / max(1, |value|)``; infinite where there is no solution.
    certificate : Certificate
        Residuals recomputed from the data.
    status : SolveStatus
        How the solve ended.
    method : str
        One of "dual", "highs", "cvxpy" and "cvxpy-clarabel".
    effort : Effort
        What it cost.
    """

    experts: IntArray | None
    loads: IntArray | None
    value: float
    bias: Float64Array | None
    interval: Float64Array | None
    dual_value: float
    gap: float
    certificate: Certificate
    status: SolveStatus
    method: str
    effort: Effort

"""`solve`: one problem, three methods, one certificate."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from balancesim.batches import as_bias
from balancesim.errors import InputError, unknown_name
from balancesim.exact.certificate import Certificate, certify
from balancesim.exact.problem import AssignmentProblem
from balancesim.exact.solution import Answer, ExactSolution, SolveOutcome, SolveStatus
from balancesim.numbers import check_positive
from balancesim.types import Float64Array

METHODS = ("dual", "highs", "cvxpy", "cvxpy-clarabel")

TOLERANCE = 1e-9
"""Excess of the dual, relative to its scale, above which a claimed optimum is not believed."""


def solve(
    scores: ArrayLike,
    *,
    k: int,
    capacity: ArrayLike | None = None,
    method: Literal["dual", "highs", "cvxpy", "cvxpy-clarabel"] = "dual",
    bias: ArrayLike | None = None,
    time_limit: float | None = None,
) -> ExactSolution:
    """Solve the balanced assignment problem exactly, and prove it (docs/theory.md).

    Maximises the sum of the chosen scores over all assignments of K experts to each token whose loads keep
    to the capacity.

    Parameters
    ----------
    scores : (T, E) array_like of float32 or float64
        Token-expert affinities; minus infinity masks an expert for a token. float32 is solved in float64.
    k : int
        Experts per token, 1 <= k < E.
    capacity : None, (E,) or (E, 2) array_like of int, optional
        None: every load is the floor or the ceiling of T K / E, the best choice of them. (E,): the load of
        each expert; they sum to T K. (E, 2): least and largest load of each expert.
    method : {"dual", "highs", "cvxpy", "cvxpy-clarabel"}, optional
        "dual" (default): Newton's method on the E-dimensional dual, then shortest augmenting paths. "highs":
        the linear program by HiGHS' simplex. "cvxpy": the same as a CVXPY model, by HiGHS;
        "cvxpy-clarabel": by Clarabel, an interior-point method, which has no answer where the optimum is not
        unique. All but the first are witnesses, hundreds of times slower.
    bias : (E,) array_like, optional
        A warm start for "dual", such as the bias of the batch before; the others ignore it.
    time_limit : float, optional
        Seconds after which to give up, looked at between stages; the status then says so. The set-up of
        "highs" and "cvxpy" is not bounded.

    Returns
    -------
    ExactSolution
        The assignment, its value, an optimal bias of zero mean, sensitivity intervals and a certificate that
        is recomputed from the scores whatever the method.

    Raises
    ------
    InputError
        If an argument breaks its rule, or no assignment meets the capacity; the message names the expert or
        the sum.

    Notes
    -----
    "dual" usually reads the scores three times, to check them, to collect what is near a boundary and for the
    certificate, and keeps a few numbers per token; the result does not depend on the number of threads.
    Scores that spread over orders of magnitude where experts compete, such as a softmax of logits with a
    standard deviation of 5 or more, take hundreds of times longer.

    Optima need not be unique: value and dual value are, assignment and bias may not be.
    """
    if str(method) not in METHODS:
        raise InputError(unknown_name("method", str(method), METHODS))
    if time_limit is not None:
        check_positive("time_limit", time_limit, otherwise=" of seconds")
    problem = AssignmentProblem.of(scores, k=k, capacity=capacity)
    start = None if bias is None else as_bias(bias, problem.n_experts, "bias")
    answer = _answer(problem, method, start, time_limit)
    return _finished(problem, method, answer)


def _answer(
    problem: AssignmentProblem, method: str, start: Float64Array | None, time_limit: float | None
) -> Answer:
    if method == "highs":
        from balancesim.exact.by_highs import solve_highs

        return solve_highs(problem, time_limit)
    if method in ("cvxpy", "cvxpy-clarabel"):
        from balancesim.exact.by_cvxpy import solve_cvxpy

        return solve_cvxpy(problem, time_limit, "HIGHS" if method == "cvxpy" else "CLARABEL")
    from balancesim.exact.by_dual import solve_dual

    return solve_dual(problem, start, time_limit)


def _finished(problem: AssignmentProblem, method: str, answer: Answer) -> ExactSolution:
    """Check an answer against the data and say what it is worth."""
    note = "; float32 scores, solved in float64" if problem.converted else ""
    if answer.experts is None or answer.bias is None:
        reason = f"{answer.outcome.value} ({method}: {answer.detail}){note}"
        return ExactSolution(
            experts=None,
            loads=None,
            value=np.nan,
            bias=None,
            interval=None,
            dual_value=np.inf,
            gap=np.inf,
            certificate=Certificate.unsolved(),
            status=SolveStatus(answer.outcome, reason),
            method=method,
            effort=answer.effort,
        )
    bias = answer.bias - answer.bias.mean()
    checked = certify(problem, answer.experts, bias)
    proof = checked.certificate
    outcome = answer.outcome
    if outcome is SolveOutcome.OPTIMAL and not proof.holds(TOLERANCE):
        outcome = SolveOutcome.NOT_CERTIFIED
    return ExactSolution(
        experts=answer.experts,
        loads=checked.loads,
        value=checked.value,
        bias=bias,
        interval=bias[:, None] + checked.slack * np.array([-1.0, 1.0]),
        dual_value=checked.dual_value,
        gap=proof.gap,
        certificate=proof,
        status=SolveStatus(outcome, f"{outcome.value} ({method}: {answer.detail}){note}"),
        method=method,
        effort=answer.effort,
    )

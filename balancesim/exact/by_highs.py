"""The linear program by HiGHS' simplex, called directly: an independent witness."""

import time
from typing import Any

import numpy as np

from balancesim.errors import MissingDependencyError
from balancesim.exact.feasibility import infeasible
from balancesim.exact.integrality import chosen_experts
from balancesim.exact.problem import AssignmentProblem
from balancesim.exact.solution import Answer, Effort, SolveOutcome
from balancesim.exact.units import costs
from balancesim.types import Float64Array, IntArray

INTEGRAL_WITHIN = 1e-6
"""How far from 0 and 1 a vertex may lie: HiGHS keeps bounds and rows to 1e-7 only."""

_OPTIONS: dict[str, bool | int | float | str] = {
    "output_flag": False,
    "presolve": "off",
    "solver": "simplex",
    "simplex_strategy": 1,  # dual, serial
    "parallel": "off",  # and not "threads": a process keeps the number that its first run asked for
    "random_seed": 0,
    "dual_feasibility_tolerance": 1e-10,  # the least that HiGHS takes
}

_INFEASIBLE = ("kInfeasible", "kUnboundedOrInfeasible")
_INTERRUPTED = ("kTimeLimit", "kIterationLimit", "kInterrupt", "kHighsInterrupt")


def solve_highs(problem: AssignmentProblem, time_limit: float | None) -> Answer:
    """Solve the relaxation, whose vertices are integral: presolve off, dual simplex, one thread.

    Columns are the unmasked pairs, token by token; rows are the tokens, then the experts.
    """
    try:
        import highspy
    except ImportError:
        raise MissingDependencyError(
            'method "highs" needs highspy, which is not installed: pip install highspy'
        ) from None

    start = time.perf_counter()
    token, expert = np.nonzero(np.isfinite(problem.scores))
    cost, unit = costs(problem)
    solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    for name, value in _OPTIONS.items():
        solver.setOptionValue(name, value)
    solver.passModel(_model(highspy, problem, token, expert, cost[token, expert]))
    built = time.perf_counter()
    if time_limit is not None:
        solver.setOptionValue("time_limit", max(0.0, time_limit - (built - start)))
    solver.run()
    solved = time.perf_counter()

    status = solver.getModelStatus()
    words = solver.modelStatusToString(status)
    effort = Effort(built - start, solved - built, 0, int(solver.getInfo().simplex_iteration_count))
    if status.name in _INFEASIBLE and (error := infeasible(problem)) is not None:
        raise error
    if status.name in _INTERRUPTED:
        return Answer(None, None, SolveOutcome.INTERRUPTED, words, effort)
    if status.name != "kOptimal":
        return Answer(None, None, SolveOutcome.FAILED, words, effort)
    solution = solver.getSolution()
    share = np.zeros(problem.scores.shape)
    share[token, expert] = solution.col_value
    experts, detail = chosen_experts(share, problem.k, INTEGRAL_WITHIN)
    if experts is None:
        return Answer(None, None, SolveOutcome.FAILED, detail, effort)
    bias = -unit * np.array(solution.row_dual)[problem.n_tokens :]
    return Answer(experts, bias, SolveOutcome.OPTIMAL, words, effort)


def _model(
    highspy: Any, problem: AssignmentProblem, token: IntArray, expert: IntArray, cost: Float64Array
) -> Any:
    """Return the program: every column has a one in its token's row and a one in its expert's."""
    n_tokens, n_columns = problem.n_tokens, token.size
    picks = np.full(n_tokens, float(problem.k))
    program = highspy.HighsLp()
    program.num_col_ = n_columns
    program.num_row_ = n_tokens + problem.n_experts
    program.sense_ = highspy.ObjSense.kMaximize
    program.col_cost_ = cost
    program.col_lower_ = np.zeros(n_columns)
    program.col_upper_ = np.ones(n_columns)
    program.row_lower_ = np.concatenate([picks, problem.low])
    program.row_upper_ = np.concatenate([picks, problem.high])
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_ = np.arange(0, 2 * n_columns + 1, 2)
    program.a_matrix_.index_ = np.stack([token, n_tokens + expert], axis=1).ravel()
    program.a_matrix_.value_ = np.ones(2 * n_columns)
    return program

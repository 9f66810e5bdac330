"""The model as one writes it down, through CVXPY: a second witness, by HiGHS or by Clarabel."""

import time
import warnings
from typing import Any, Literal

import numpy as np

from balancesim.errors import MissingDependencyError
from balancesim.exact.feasibility import infeasible
from balancesim.exact.integrality import chosen_experts
from balancesim.exact.problem import AssignmentProblem
from balancesim.exact.solution import Answer, Effort, SolveOutcome
from balancesim.exact.units import costs

INTEGRAL_WITHIN = 1e-4
"""How far from 0 and 1 a share may lie: Clarabel ends inside the feasible set, not at a vertex."""

_PACKAGES = {"HIGHS": "highspy", "CLARABEL": "clarabel"}

_OPTIONS: dict[str, dict[str, float]] = {
    "HIGHS": {"dual_feasibility_tolerance": 1e-10},
    "CLARABEL": {"tol_gap_abs": 1e-10, "tol_gap_rel": 1e-10},
}


def solve_cvxpy(
    problem: AssignmentProblem, time_limit: float | None, solver: Literal["HIGHS", "CLARABEL"] = "HIGHS"
) -> Answer:
    """Solve the relaxation by a solver of CVXPY's.

    HiGHS ends at a vertex. Clarabel ends in the middle of all optima, which is an assignment only where the
    optimum is unique; elsewhere the answer says that it is not integral.
    """
    cvxpy = _imported(solver)
    start = time.perf_counter()
    cost, unit = costs(problem)
    allowed = np.isfinite(problem.scores)
    fixed = problem.low == problem.high

    x = cvxpy.Variable(cost.shape, bounds=[0, allowed.astype(np.float64)])
    loads = cvxpy.sum(x, axis=0)
    exact = loads[fixed] == problem.low[fixed]
    least = loads[~fixed] >= problem.low[~fixed]
    most = loads[~fixed] <= problem.high[~fixed]
    rows = cvxpy.sum(x, axis=1) == problem.k
    columns = [constraint for constraint in (exact, least, most) if constraint.size]
    model = cvxpy.Problem(cvxpy.Maximize(cvxpy.sum(cvxpy.multiply(cost, x))), [rows, *columns])

    words = _run(model, cvxpy, solver, time_limit)
    total = time.perf_counter() - start
    solve_seconds = float(model.solver_stats.solve_time or 0.0) if model.solver_stats else 0.0
    n_moves = int(model.solver_stats.num_iters or 0) if model.solver_stats else 0
    effort = Effort(total - solve_seconds, solve_seconds, 0, n_moves)
    if "infeasible" in words and (error := infeasible(problem)) is not None:
        raise error
    if words == cvxpy.USER_LIMIT:
        return Answer(None, None, SolveOutcome.INTERRUPTED, f"{solver}: {words}", effort)
    if words != cvxpy.OPTIMAL:
        return Answer(None, None, SolveOutcome.FAILED, f"{solver}: {words}", effort)
    experts, detail = chosen_experts(x.value, problem.k, INTEGRAL_WITHIN)
    if experts is None:
        return Answer(None, None, SolveOutcome.FAILED, f"{solver}: {words}, but {detail}", effort)
    bias = np.zeros(problem.n_experts)
    if exact.size:
        bias[fixed] = -exact.dual_value
    if least.size:
        bias[~fixed] = least.dual_value - most.dual_value
    return Answer(experts, unit * bias, SolveOutcome.OPTIMAL, f"{solver}: {words}", effort)


def _imported(solver: str) -> Any:
    package = _PACKAGES[solver]
    try:
        import cvxpy
    except ImportError:
        raise MissingDependencyError(
            f'method "cvxpy" needs cvxpy, which is not installed: pip install cvxpy {package}'
        ) from None
    if solver not in cvxpy.installed_solvers():  # type: ignore[no-untyped-call]
        raise MissingDependencyError(
            f'method "cvxpy" needs {package}, which is not installed: pip install {package}'
        )
    return cvxpy


def _run(model: Any, cvxpy: Any, solver: str, time_limit: float | None) -> str:
    """Solve, and return the status, or what the solver said when it gave up."""
    options = dict(_OPTIONS[solver])
    if time_limit is not None:
        options["time_limit"] = float(time_limit)
    with warnings.catch_warnings():
        # The status says the same, and only "optimal" is believed.
        warnings.filterwarnings("ignore", "Solution may be inaccurate", UserWarning)
        warnings.filterwarnings("ignore", "(?s).*problem is either infeasible or unbounded", UserWarning)
        try:
            model.solve(solver=solver, **options)
        except cvxpy.error.SolverError as error:
            return str(error)
    return str(model.status)

"""Other people's solvers of the same assignment problem; each reports set-up and solving apart.

Nothing of a peer's answer but its value is read, and reading it is not timed.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from balancesim.bench.timing import Parts
from balancesim.types import Float64Array

COST_SCALE = 1e6
"""Costs of OR-tools' min-cost flow are integers: scores times this, rounded."""


class PeerError(Exception):
    """A peer that cannot be loaded, or ends without an optimum; the message says why."""


class Answered(NamedTuple):
    """What a peer took, and the value it found."""

    parts: Parts
    value: float


Solver = Callable[[Float64Array, int], Answered]


@dataclass(frozen=True)
class Peer:
    """A solver, and the packages that it needs.

    Attributes
    ----------
    name : str
        As the table has it.
    modules : tuple of str
        What must be importable.
    package : str
        What ``pip install`` takes.
    solver : callable
        Solves (scores, k) in this process.
    """

    name: str
    modules: tuple[str, ...]
    package: str
    solver: Solver


def solve_ortools(scores: Float64Array, k: int) -> Answered:
    """Solve by OR-tools' min-cost flow: exact for the rounded scores only."""
    from ortools.graph.python import min_cost_flow

    n_tokens, n_experts = scores.shape
    start = time.perf_counter()
    load, left = divmod(n_tokens * k, n_experts)
    if left:
        raise PeerError(
            f"as a flow without a sink this needs T K / E to be whole, got {load} and {left} over"
        )
    flow: Any = min_cost_flow.SimpleMinCostFlow()
    tails = np.repeat(np.arange(n_tokens, dtype=np.int32), n_experts)
    heads = np.tile(np.arange(n_tokens, n_tokens + n_experts, dtype=np.int32), n_tokens)
    costs = np.rint(-COST_SCALE * scores).astype(np.int64).ravel()
    flow.add_arcs_with_capacity_and_unit_cost(tails, heads, np.ones(scores.size, np.int64), costs)
    supplies = np.repeat(np.array([k, -load]), [n_tokens, n_experts])
    flow.set_nodes_supplies(np.arange(n_tokens + n_experts, dtype=np.int32), supplies)
    built = time.perf_counter()
    status = flow.solve()
    solved = time.perf_counter()
    if status != flow.OPTIMAL:
        raise PeerError(f"ended with status {status}")
    return Answered(Parts(built - start, solved - built), -flow.optimal_cost() / COST_SCALE)


def solve_pot(scores: Float64Array, k: int) -> Answered:
    """Solve by POT's network simplex: optimal transport, so one expert a token."""
    import ot

    if k != 1:
        raise PeerError(f"optimal transport has K = 1, got {k}")
    n_tokens, n_experts = scores.shape
    start = time.perf_counter()
    tokens = np.full(n_tokens, 1.0 / n_tokens)
    experts = np.full(n_experts, 1.0 / n_experts)
    distances = scores.max() - scores
    built = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the log says the same
        plan, log = ot.emd(tokens, experts, distances, numItermax=10**9, log=True)
    solved = time.perf_counter()
    if log["warning"] is not None:
        raise PeerError(f"ended with: {log['warning']}")
    return Answered(Parts(built - start, solved - built), n_tokens * float((plan * scores).sum()))


def solve_highs(scores: Float64Array, k: int) -> Answered:
    """Solve by HiGHS' dual simplex, presolve off, as `balancesim.solve` calls it."""
    from balancesim.exact import solve

    found = solve(scores, k=k, method="highs")
    return _answered(found.effort.build_seconds, found.effort.solve_seconds, found.value, found.status.reason)


def solve_cvxpy(scores: Float64Array, k: int, solver: str) -> Answered:
    """Solve the CVXPY model of `balancesim.solve`; set-up is what CVXPY does around the solver."""
    from balancesim.exact import AssignmentProblem
    from balancesim.exact.by_cvxpy import solve_cvxpy as by_cvxpy

    answer = by_cvxpy(AssignmentProblem.of(scores, k=k), None, solver)  # type: ignore[arg-type]
    value = np.nan
    if answer.experts is not None:
        value = float(np.take_along_axis(scores, answer.experts, axis=1).sum())
    return _answered(answer.effort.build_seconds, answer.effort.solve_seconds, value, answer.detail)


OR_TOOLS = Peer("OR-tools min-cost flow", ("ortools",), "ortools", solve_ortools)
POT = Peer("POT emd", ("ot",), "pot", solve_pot)
HIGHS = Peer("HiGHS, presolve off", ("highspy",), "highspy", solve_highs)
CVXPY_HIGHS = Peer(
    "CVXPY + HiGHS", ("cvxpy", "highspy"), "cvxpy highspy", partial(solve_cvxpy, solver="HIGHS")
)
CVXPY_CLARABEL = Peer(
    "CVXPY + Clarabel", ("cvxpy", "clarabel"), "cvxpy clarabel", partial(solve_cvxpy, solver="CLARABEL")
)


def _answered(build: float, solve: float, value: float, reason: str) -> Answered:
    if not np.isfinite(value):
        raise PeerError(f"ended with: {reason}")
    return Answered(Parts(build, solve), value)

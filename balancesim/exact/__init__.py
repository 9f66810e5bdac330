"""Exact balanced assignment: the optimum that every approximate rule is judged against, and its proof."""

from balancesim.exact.certificate import Certificate, certify
from balancesim.exact.problem import AssignmentProblem
from balancesim.exact.solution import Effort, ExactSolution, SolveOutcome, SolveStatus
from balancesim.exact.solver import solve

__all__ = [
    "AssignmentProblem",
    "Certificate",
    "Effort",
    "ExactSolution",
    "SolveOutcome",
    "SolveStatus",
    "certify",
    "solve",
]

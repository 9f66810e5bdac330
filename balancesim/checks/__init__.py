"""Statements as checks that can fail: what a check is, how one is registered and how all are run."""

from balancesim.checks.case import Case, Verdict, at_least, at_most, between
from balancesim.checks.registry import find_statements
from balancesim.checks.runner import Outcome, run_checks
from balancesim.checks.statement import Depth, Findings, Statement, statement

__all__ = [
    "Case",
    "Depth",
    "Findings",
    "Outcome",
    "Statement",
    "Verdict",
    "at_least",
    "at_most",
    "between",
    "find_statements",
    "run_checks",
    "statement",
]

"""The CVXPY model: both solvers, and what is said where there is no answer."""

import sys

import cvxpy
import numpy as np
import pytest

import balancesim as bs
from balancesim.errors import InputError, MissingDependencyError
from balancesim.exact import SolveOutcome, by_cvxpy

BOTH = ("cvxpy", "cvxpy-clarabel")


@pytest.mark.parametrize("method", BOTH)
def test_agrees_where_the_optimum_is_unique(method):
    """Normal scores: one optimum, which the middle of all optima is as well; all kinds of capacity."""
    rng = np.random.default_rng(0)
    for capacity in (None, [8, 20, 10, 12, 10], [[0, 9], [12, 12], [5, 30], [0, 30], [1, 20]]):
        scores = rng.standard_normal((30, 5))
        scores[rng.random(scores.shape) < 0.1] = -np.inf
        expected = bs.solve(scores, k=2, capacity=capacity, method="highs")
        solution = bs.solve(scores, k=2, capacity=capacity, method=method)
        assert (solution.experts == expected.experts).all()
        assert solution.status.outcome is SolveOutcome.OPTIMAL
        assert by_cvxpy._PACKAGES[solution.status.reason.split(": ")[2]]


def test_clarabel_says_where_optima_are_many():
    solution = bs.solve(np.zeros((10, 4)), k=2, method="cvxpy-clarabel")
    assert solution.status.outcome is SolveOutcome.FAILED
    assert "not integral: a share lies 0.5 from 0 and 1" in solution.status.reason
    assert solution.experts is None
    assert bs.solve(np.zeros((10, 4)), k=2, method="cvxpy").gap == 0.0


@pytest.mark.parametrize("method", BOTH)
def test_infeasible(method, monkeypatch):
    scores = np.concatenate([np.tile([0.0, 0.0, -np.inf, -np.inf], (6, 1)), np.zeros((2, 4))])
    with pytest.raises(InputError, match="experts 2, 3 can take 2"):
        bs.solve(scores, k=1, capacity=[2, 3, 2, 1], method=method)
    monkeypatch.setattr(by_cvxpy, "infeasible", lambda _: None)
    solution = bs.solve(scores, k=1, capacity=[2, 3, 2, 1], method=method)
    assert solution.status.outcome is SolveOutcome.FAILED
    assert "infeasible" in solution.status.reason


def test_a_solver_in_trouble(monkeypatch):
    def broken(*_, **__):
        raise cvxpy.error.SolverError("Solver 'HIGHS' failed.")

    monkeypatch.setattr(cvxpy.Problem, "solve", broken)
    solution = bs.solve(np.eye(4), k=2, method="cvxpy")
    assert solution.status.outcome is SolveOutcome.FAILED
    assert "Solver 'HIGHS' failed." in solution.status.reason


@pytest.mark.parametrize("status", ["optimal_inaccurate", "unbounded", "UNKNOWN"])
def test_only_optimal_is_believed(monkeypatch, status):
    monkeypatch.setattr(cvxpy.Problem, "status", property(lambda _: status))
    solution = bs.solve(np.eye(4), k=2, method="cvxpy")
    assert solution.status.outcome is SolveOutcome.FAILED
    assert solution.status.reason.endswith(f"(cvxpy: HIGHS: {status})")


@pytest.mark.parametrize(("method", "package"), [("cvxpy", "highspy"), ("cvxpy-clarabel", "clarabel")])
def test_not_installed(monkeypatch, method, package):
    monkeypatch.setattr(cvxpy, "installed_solvers", lambda: ["SCS"])
    with pytest.raises(MissingDependencyError, match=f"pip install {package}"):
        bs.solve(np.eye(3), k=1, method=method)
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(MissingDependencyError, match=f"pip install cvxpy {package}"):
        bs.solve(np.eye(3), k=1, method=method)


@pytest.mark.parametrize("method", BOTH)
def test_prints_nothing(capfd, method):
    bs.solve(np.random.default_rng(0).standard_normal((60, 8)), k=2, method=method)
    assert capfd.readouterr() == ("", "")

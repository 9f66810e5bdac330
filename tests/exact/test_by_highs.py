"""HiGHS called directly: vertices are integral, options are taken, every other ending is reported."""

import sys

import highspy
import numpy as np
import pytest
from hypothesis import given

import balancesim as bs
from balancesim.errors import InputError, MissingDependencyError
from balancesim.exact import AssignmentProblem, SolveOutcome, by_highs
from balancesim.exact.by_highs import solve_highs
from balancesim.exact.integrality import chosen_experts
from tests.strategies import assignments


@given(instance=assignments(masks=True, max_tokens=30, max_experts=8))
def test_vertices_are_integral(instance):
    """The matrix is totally unimodular: ties and all kinds of capacity leave shares of 0 and 1 only."""
    scores, k, capacity, _ = instance
    seen = []

    def looked_at(share, k, within):
        seen.append(share)
        return chosen_experts(share, k, within)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_highs, "chosen_experts", looked_at)
        bs.solve(scores, k=k, capacity=capacity, method="highs")
    (share,) = seen
    # Basic solutions are sums of integers, divided by nothing: rounding only.
    assert np.minimum(np.abs(share), np.abs(share - 1.0)).max() <= 1e-12


def test_half_tokens_are_refused():
    """A capacity that is no integer (which `solve` does not take) makes vertices fractional: no answer."""
    half = np.array([0.5, 0.5])
    problem = AssignmentProblem(np.array([[1.0, 0.0]]), 1, half, half)
    answer = solve_highs(problem, None)
    assert answer.outcome is SolveOutcome.FAILED
    assert answer.experts is None
    assert "not integral: a share lies 0.5 from 0 and 1" in answer.detail


def test_highs_takes_every_option():
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    for name, value in by_highs._OPTIONS.items():
        assert solver.setOptionValue(name, value) == highspy.HighsStatus.kOk, name
        assert solver.getOptionValue(name)[1] == value


def test_only_unmasked_pairs_are_columns(monkeypatch):
    programs = []
    model = by_highs._model

    def kept(*arguments):
        programs.append(model(*arguments))
        return programs[-1]

    monkeypatch.setattr(by_highs, "_model", kept)
    scores = np.array([[1.0, -np.inf, 0.0], [-np.inf, 2.0, 0.0]])
    bs.solve(scores, k=1, method="highs")
    (program,) = programs
    assert (program.num_col_, program.num_row_) == (4, 5)
    assert list(program.a_matrix_.index_) == [0, 2, 0, 4, 1, 3, 1, 4]


def test_iteration_limit(monkeypatch):
    monkeypatch.setitem(by_highs._OPTIONS, "simplex_iteration_limit", 1)
    scores = np.random.default_rng(0).standard_normal((60, 8))
    solution = bs.solve(scores, k=2, method="highs")
    assert solution.status.outcome is SolveOutcome.INTERRUPTED
    assert "Iteration limit reached" in solution.status.reason
    assert solution.experts is None


def test_a_model_that_highs_refuses(monkeypatch):
    """Costs that are infinite: nothing is solved, and that is said."""
    monkeypatch.setattr(by_highs, "costs", lambda problem: (np.full(problem.scores.shape, np.inf), 1.0))
    solution = bs.solve(np.eye(4), k=2, method="highs")
    assert solution.status.outcome is SolveOutcome.FAILED
    assert solution.experts is None


def test_infeasible_must_be_confirmed(monkeypatch):
    """HiGHS says infeasible: then a cut shows it, or the solve has failed."""
    scores = np.concatenate([np.tile([0.0, 0.0, -np.inf, -np.inf], (6, 1)), np.zeros((2, 4))])
    with pytest.raises(InputError, match="experts 2, 3 can take 2"):
        bs.solve(scores, k=1, capacity=[2, 3, 2, 1], method="highs")
    monkeypatch.setattr(by_highs, "infeasible", lambda _: None)
    solution = bs.solve(scores, k=1, capacity=[2, 3, 2, 1], method="highs")
    assert solution.status.outcome is SolveOutcome.FAILED
    assert "Infeasible" in solution.status.reason


def test_prints_nothing(capfd):
    bs.solve(np.random.default_rng(0).standard_normal((60, 8)), k=2, method="highs")
    assert capfd.readouterr() == ("", "")


def test_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(MissingDependencyError, match="pip install highspy"):
        bs.solve(np.eye(3), k=1, method="highs")


@pytest.mark.parametrize("factor", [1e-200, 1e-9, 1e9, 1e200])
def test_tolerances_are_relative_to_the_scores(factor):
    scores = np.random.default_rng(1).standard_normal((80, 6))
    plain = bs.solve(scores, k=2, method="highs")
    scaled = bs.solve(scores * factor, k=2, method="highs")
    assert (scaled.experts == plain.experts).all()
    lifted = bs.solve(scores + factor, k=2, method="highs") if 1.0 <= factor < 1e10 else plain
    assert lifted.status.outcome is SolveOutcome.OPTIMAL


def test_all_scores_equal():
    solution = bs.solve(np.full((9, 4), 7.0), k=2, method="highs")
    assert solution.value == 126.0
    assert solution.gap == 0.0

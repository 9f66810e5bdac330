"""Why no assignment exists: a set of experts, found exactly where there is none."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from balancesim.exact import AssignmentProblem
from balancesim.exact.feasibility import infeasible, shortage
from tests.strategies import assignments


def room(problem, experts):
    """The most that a set of experts can take, and the least that it must, counted token by token."""
    most = sum(min(problem.k, sum(np.isfinite(row[e]) for e in experts)) for row in problem.scores.tolist())
    others = [e for e in range(problem.n_experts) if e not in experts]
    total = problem.n_tokens * problem.k
    least = max(sum(problem.low[e] for e in experts), total - sum(problem.high[e] for e in others))
    return most, least


@given(assignments(max_tokens=8, max_experts=5), st.data())
def test_finds_a_set_exactly_where_there_is_one(instance, data):
    """Hoffman's condition over all sets of experts; the set that is found is a true reason."""
    scores, k, _, limits = instance
    n_experts = scores.shape[1]
    masked = data.draw(hnp.arrays(np.bool_, scores.shape))
    for row in masked:
        row[np.flatnonzero(row)[n_experts - k :]] = False
    scores[masked] = -np.inf
    low, high = limits.T
    problem = AssignmentProblem(scores, k, low, high)
    every = (set(s) for n in range(n_experts + 1) for s in itertools.combinations(range(n_experts), n))
    violated = [s for s in every if np.less(*room(problem, s))]
    found = shortage(problem)
    assert (found is None) == (not violated)
    if found is not None:
        experts, most, least = found
        assert set(experts.tolist()) in violated
        assert (most, least) == room(problem, set(experts.tolist()))


def test_many_experts_are_counted():
    scores = np.full((40, 24), -np.inf)
    scores[:, 20:] = 0.0
    scores[:2] = 0.0
    loads = np.full(24, 1)
    loads[20:] = 5
    error = infeasible(AssignmentProblem(scores, 1, loads, loads))
    assert "experts 0, 1, 2, 3, 4, 5, 6, 7, ... (20 in all) can take 2 of the T K = 40" in str(error)
    assert "but need 20" in str(error)


def test_says_nothing_where_an_assignment_exists():
    assert infeasible(AssignmentProblem.of(np.zeros((4, 3)), k=1)) is None

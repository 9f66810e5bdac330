"""The certificate against its slow twin, and its negative controls: a perturbed solution must fail it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import balancesim as bs
from balancesim.exact import AssignmentProblem, Certificate, certify
from tests import naive
from tests.strategies import assignments

TOLERANCE = 1e-9


def fields(checked):
    return {
        **dataclasses.asdict(checked.certificate),
        "loads": checked.loads.tolist(),
        "value": checked.value,
        "dual_value": checked.dual_value,
        "slack": checked.slack.tolist(),
    }


@given(assignments(masks=True), st.data())
def test_equals_its_twin(instance, data):
    """Any choice of K different experts a token, any price, masked picks included; quarters are exact."""
    scores, k, capacity, limits = instance
    n_tokens, n_experts = scores.shape
    if data.draw(st.booleans(), label="routed"):
        bias = np.array([data.draw(st.integers(-8, 8)) / 4 for _ in range(n_experts)])
        experts = np.array(naive.choose(scores, bias, k))
    else:
        bias = np.zeros(n_experts)
        order = [data.draw(st.permutations(range(n_experts))) for _ in range(n_tokens)]
        experts = np.sort(np.array(order)[:, :k], axis=1)
    assume(np.isfinite(np.take_along_axis(scores, experts, axis=1)).all())
    found = fields(certify(AssignmentProblem.of(scores, k=k, capacity=capacity), experts, bias))
    assert found == naive.certificate(scores, k, *limits.T, experts.tolist(), bias)


@pytest.fixture
def solution():
    """A problem with fractional loads whose optimum is unique, and its solution."""
    scores = np.random.default_rng(5).standard_normal((61, 7))
    problem = AssignmentProblem.of(scores, k=3)
    solved = bs.solve(scores, k=3, method="highs")
    certificate = certify(problem, solved.experts, solved.bias).certificate
    assert certificate.holds(TOLERANCE)
    assert certificate == solved.certificate
    return problem, solved


def moved(experts, token, old, new):
    """The same choice, but for one expert of one token."""
    changed = experts.copy()
    changed[token] = np.sort(np.where(experts[token] == old, new, experts[token]))
    return changed


def test_two_tokens_swap_experts(solution):
    """Loads stay, the value falls: the gap tells."""
    problem, solved = solution
    experts, found = solved.experts, 0
    for first, second in ((0, 1), (2, 3), (10, 40), (59, 60)):
        here, there = set(experts[first]), set(experts[second])
        if not (here - there and there - here):
            continue
        a, b = min(here - there), min(there - here)
        swapped = moved(moved(experts, first, a, b), second, b, a)
        proof = certify(problem, swapped, solved.bias).certificate
        assert proof.row_residual == 0
        assert proof.column_residual == 0
        assert proof.gap > TOLERANCE
        assert proof.n_violated >= 1
        assert proof.slackness_violation > 0
        assert not proof.holds(TOLERANCE)
        found += 1
    assert found >= 2


def test_a_token_moves_elsewhere(solution):
    problem, solved = solution
    full, spare = int(solved.loads.argmin()), int(solved.loads.argmax())
    token = next(i for i, row in enumerate(solved.experts.tolist()) if full in row and spare not in row)
    proof = certify(problem, moved(solved.experts, token, full, spare), solved.bias).certificate
    assert proof.column_residual == 2
    assert not proof.holds(TOLERANCE)


@pytest.mark.parametrize("wrong", [-1, 7, "twice"])
def test_an_expert_is_dropped(solution, wrong):
    """Out of range, or twice the same: the token has too few experts."""
    problem, solved = solution
    experts = solved.experts.copy()
    experts[4, 0] = experts[4, 1] if wrong == "twice" else wrong
    proof = certify(problem, experts, solved.bias).certificate
    assert proof.row_residual == 1
    assert not proof.holds(TOLERANCE)


def test_a_masked_expert_is_taken(solution):
    problem, solved = solution
    scores = problem.scores.copy()
    scores[8, solved.experts[8, 1]] = -np.inf
    masked = dataclasses.replace(problem, scores=scores)
    proof = certify(masked, solved.experts, solved.bias).certificate
    assert proof.row_residual == 1
    assert not proof.holds(TOLERANCE)


def test_a_price_moves(solution):
    """Far enough, every single price tells; the assignment is as good as it was."""
    problem, solved = solution
    for expert in range(problem.n_experts):
        for change in (-5.0, 5.0):
            bias = solved.bias.copy()
            bias[expert] += change
            proof = certify(problem, solved.experts, bias).certificate
            assert proof.row_residual == proof.column_residual == 0
            assert proof.gap > TOLERANCE
            assert proof.n_violated > 0
            assert not proof.holds(TOLERANCE)


def test_a_price_that_asks_for_other_loads():
    """Slackness holds, yet the dearer expert may not stay full: only the price of the loads tells."""
    problem = AssignmentProblem.of(np.array([[5.0, 0.0]]), k=1, capacity=np.array([[0, 1], [0, 1]]))
    proof = certify(problem, np.array([[0]]), np.array([1.0, 0.0])).certificate
    assert proof.n_violated == 0
    assert proof.price_violation == 1.0
    assert not proof.holds(TOLERANCE)


def test_nothing_solved_proves_nothing():
    proof = Certificate.unsolved()
    assert proof.gap == np.inf
    assert not proof.holds(1e300)

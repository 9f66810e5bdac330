"""The certificate against its slow twin, and its negative controls: a perturbed solution must fail it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import balancesim as bs
from balancesim.errors import InputError
from balancesim.exact import AssignmentProblem, Certificate, SolveOutcome, certify
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
    assert 0.0 <= found.pop("rounding") <= 1e-12
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


@pytest.mark.parametrize(("factor", "row"), [(1.0, 0.0), (1e-13, 0.0), (1.0, 1e30)])
def test_neither_units_nor_one_token_hide_a_loss(factor, row):
    """The same wrong assignment fails whatever the scores' unit, and beside a token of any size."""
    rng = np.random.default_rng(3)
    scores = rng.standard_normal((504, 8))
    price = bs.solve(scores, k=2).bias * factor
    scores[0] += row
    wrong = np.sort(np.array([np.roll(np.arange(8), i)[:2] for i in range(504)]), axis=1)
    problem = AssignmentProblem.of(scores * factor, k=2)
    found = certify(problem, wrong, price).certificate
    assert found.row_residual == found.column_residual == 0
    assert not found.holds(TOLERANCE)


@pytest.mark.parametrize(
    "experts",
    [np.zeros((4, 1), int), np.zeros((5, 2), int), np.zeros((5, 1))],
    ids=["short", "wide", "float"],
)
def test_experts_of_another_shape_are_refused(experts):
    problem = AssignmentProblem.of(np.eye(5), k=1)
    with pytest.raises(InputError, match="`experts` must be integers"):
        certify(problem, experts, np.zeros(5))


def test_finite_masks_are_solved_as_masks():
    """Minus 1e20 where people mean minus infinity: the same value, and certified."""
    rng = np.random.default_rng(4)
    scores, mask = rng.standard_normal((300, 8)), rng.random((300, 8)) < 0.2
    exact = bs.solve(np.where(mask, -np.inf, scores), k=2)
    finite = bs.solve(np.where(mask, -1e20, scores), k=2)
    assert finite.status.outcome is SolveOutcome.OPTIMAL
    assert finite.value == pytest.approx(exact.value, rel=1e-12)

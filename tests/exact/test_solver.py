"""`solve`: bad input, and how each way to end reads. Never a silent answer."""

import dataclasses

import numpy as np
import pytest

import balancesim as bs
from balancesim.errors import InputError
from balancesim.exact import ExactSolution, SolveOutcome
from balancesim.exact.solution import Answer, Effort
from balancesim.exact.solver import METHODS as NAMES
from balancesim.exact.solver import TOLERANCE
from tests.exact.instances import METHODS

GOOD = np.zeros((3, 4))
SIXTH = np.arange(12).reshape(3, 4) == 6
COLUMN = np.broadcast_to(np.arange(4) == 2, (3, 4))
MASKED = np.where(COLUMN, -np.inf, 0.0)
FORCED = np.where(np.arange(4) == np.array([[1], [1], [3]]), 0.0, -np.inf)
ONLY_TWO = np.where(np.arange(4) < 2, 0.0, -np.inf) + np.zeros((6, 4))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": np.where(SIXTH, np.nan, 0.0)}, "nan at token 1, expert 2"),
        ({"scores": np.where(SIXTH, np.inf, 0.0)}, "inf at token 1, expert 2"),
        ({"scores": np.where(np.arange(4) > 0, -np.inf, GOOD), "k": 2}, "unmasked, got 1 at token 0"),
        ({"scores": GOOD.astype(np.float16)}, "`scores` must be float32 or float64, got float16"),
        ({"scores": np.zeros(4)}, r"`scores` must be \(T, E\)"),
        ({"scores": np.zeros((0, 4))}, "at least one token"),
        ({"scores": [[1.0, 2.0], [1.0]]}, "rows of different lengths"),
        ({"k": 4}, "`k` must satisfy 1 <= k < n_experts = 4, got 4"),
        ({"k": 1.5}, "`k` must be an integer"),
        ({"capacity": [1, 1, 0, 0]}, "`capacity` must sum to T K = 3, got 2"),
        ({"capacity": [2, 2, 0, -1]}, "got -1 at expert 3"),
        ({"capacity": [0, 4, 0, -1]}, "T = 3, got 4 at expert 1"),
        ({"capacity": [[0, 1], [2, 1], [0, 1], [0, 1]]}, "got 2 and 1 at expert 1"),
        ({"capacity": [[0, 4], [0, 1], [0, 1], [0, 1]]}, "got 0 and 4 at expert 0"),
        ({"capacity": [[0, 1], [0, 1], [0, 0], [0, 0]]}, "T K = 3: least loads sum to 0, largest to 2"),
        ({"capacity": [[1, 1], [1, 1], [1, 2], [1, 2]]}, "T K = 3: least loads sum to 4, largest to 6"),
        ({"capacity": [0.75] * 4}, r"`capacity` must be integers, \(E,\) = \(4,\) loads"),
        ({"capacity": [1, 1, 1]}, "got int64"),
        ({"capacity": [[1, 1], [1]]}, "rows of different lengths"),
        ({"capacity": 3}, "`capacity` must be integers"),
        ({"capacity": "integral"}, "`capacity` must be integers"),
        ({"bias": [0.0, 1.0]}, r"`bias` must have one entry per expert, \(4,\), got \(2,\)"),
        ({"bias": [0.0, np.nan, 0.0, 0.0]}, "`bias` must be finite, got nan"),
        ({"bias": ["a"] * 4}, "`bias` must be numbers"),
        ({"time_limit": 0.0}, "`time_limit` must be a positive finite number of seconds, got 0.0"),
        ({"time_limit": -1}, "`time_limit`"),
        ({"time_limit": "soon"}, "`time_limit`"),
        ({"scores": MASKED, "capacity": [1, 1, 1, 0]}, "expert 2 to 0 of 3 tokens, below its least load 1"),
        (
            {"scores": FORCED, "capacity": [[0, 3], [0, 1], [0, 3], [0, 3]]},
            "2 tokens no choice but expert 1, above its largest load 1",
        ),
        (
            {"scores": ONLY_TWO, "capacity": [[0, 6], [0, 1], [0, 6], [0, 6]], "k": 2},
            "6 tokens no choice but expert 1, above its largest load 1",
        ),
        (
            {"scores": np.concatenate([ONLY_TWO, np.zeros((2, 4))]), "capacity": [2, 3, 2, 1]},
            "no assignment meets `capacity`",
        ),
    ],
)  # fmt: skip
def test_bad_input(method, arguments, message):
    given = {"scores": GOOD, "k": 1, **arguments}
    with pytest.raises(InputError, match=message):
        bs.solve(given.pop("scores"), method=method, **given)


def test_unknown_method():
    with pytest.raises(InputError, match="unknown method 'hihgs'; did you mean 'highs'"):
        bs.solve(GOOD, k=1, method="hihgs")


@pytest.mark.parametrize("method", NAMES)
def test_float32_is_solved_in_float64_and_says_so(method):
    scores = np.random.default_rng(1).standard_normal((40, 5)).astype(np.float32)
    solution = bs.solve(scores, k=2, method=method)
    exact = bs.solve(scores.astype(np.float64), k=2, method=method)
    assert "float32 scores, solved in float64" in solution.status.reason
    assert "float32" not in exact.status.reason
    assert solution.value == exact.value
    assert (solution.experts == exact.experts).all()


def check_unsolved(solution, outcome):
    """Nothing but the status and what it cost."""
    assert solution.status.outcome is outcome
    assert solution.status.reason.startswith(outcome.value)
    assert solution.experts is solution.loads is solution.bias is solution.interval is None
    assert np.isnan(solution.value)
    assert solution.gap == solution.dual_value == np.inf
    assert not solution.certificate.holds(np.inf)


@pytest.mark.parametrize("method", NAMES)
def test_interrupted(method):
    scores = np.random.default_rng(2).standard_normal((2000, 16))
    solution = bs.solve(scores, k=2, method=method, time_limit=1e-9)
    check_unsolved(solution, SolveOutcome.INTERRUPTED)
    assert "raise `time_limit`" in solution.status.reason
    assert bs.solve(scores[:50], k=2, method=method, time_limit=60.0).status.outcome is SolveOutcome.OPTIMAL


def replace_answer(monkeypatch, **changes):
    """Let "highs" hand over another answer than it found."""
    from balancesim.exact import by_highs

    solve_highs = by_highs.solve_highs

    def changed(problem, time_limit):
        return solve_highs(problem, time_limit)._replace(**changes)

    monkeypatch.setattr(by_highs, "solve_highs", changed)


@pytest.mark.parametrize("outcome", [SolveOutcome.FAILED, SolveOutcome.INTERRUPTED])
def test_a_method_that_ends_without_an_optimum(monkeypatch, outcome):
    replace_answer(monkeypatch, experts=None, bias=None, outcome=outcome, detail="numerical trouble")
    solution = bs.solve(np.eye(4), k=2, method="highs")
    check_unsolved(solution, outcome)
    assert solution.status.reason.endswith("(highs: numerical trouble)")


def test_a_method_that_is_wrong(monkeypatch):
    """It claims an optimum, of another problem: the certificate does not believe it."""
    scores = np.array([[3.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    replace_answer(monkeypatch, experts=np.array([[1], [1], [0], [0]]))
    solution = bs.solve(scores, k=1, method="highs")
    assert solution.status.outcome is SolveOutcome.NOT_CERTIFIED
    assert "the certificate does not close" in solution.status.reason
    assert solution.value == 0.0
    assert solution.certificate.excess > TOLERANCE * solution.certificate.scale
    assert solution.gap > 1.0


def test_a_method_that_breaks_the_capacity(monkeypatch):
    replace_answer(monkeypatch, experts=np.array([[0], [0], [0], [1]]))
    solution = bs.solve(np.array([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 2.0]]), k=1, method="highs")
    assert solution.status.outcome is SolveOutcome.NOT_CERTIFIED
    assert solution.certificate.column_residual == 2


def test_a_method_with_a_bad_price(monkeypatch):
    """The assignment is optimal, yet nothing proves it."""
    replace_answer(monkeypatch, bias=np.array([9.0, 0.0, 0.0, 0.0]))
    solution = bs.solve(np.eye(4), k=2, method="highs")
    assert solution.status.outcome is SolveOutcome.NOT_CERTIFIED


@pytest.mark.parametrize("method", METHODS)
def test_effort(method):
    scores = np.random.default_rng(3).standard_normal((300, 8))
    effort = bs.solve(scores, k=2, method=method).effort
    assert effort.build_seconds >= 0.0
    assert effort.solve_seconds > 0.0
    assert (effort.n_passes > 0) == (method == "dual")
    assert effort.n_moves > 0 or method == "dual"


@pytest.mark.parametrize("method", METHODS)
def test_same_answer_twice(method):
    scores = np.random.default_rng(4).integers(-3, 4, (200, 8)) / 4.0
    first, second = (bs.solve(scores, k=3, method=method) for _ in range(2))
    for field in dataclasses.fields(ExactSolution):
        if field.name not in ("effort", "status"):
            assert np.array_equal(getattr(first, field.name), getattr(second, field.name)), field.name


def test_an_answer_is_what_a_method_hands_over():
    """Every method fills the same five fields; the solution is made from them alone."""
    assert Answer._fields == ("experts", "bias", "outcome", "detail", "effort")
    assert Effort._fields == ("build_seconds", "solve_seconds", "n_passes", "n_moves")

"""Newton's method on the dual: each part against the matrices that it stands for."""

import numpy as np
import pytest

from balancesim.exact.descent import new_descent
from balancesim.kernels import newton
from balancesim.kernels.jit import kernel
from tests import naive

N_TOKENS = 1000


@kernel
def solve(state, n_tokens):
    newton.solve_step(state, n_tokens)


@kernel
def take(state, n_tokens):
    return newton.take_step(state, n_tokens)


def solve_step(state):
    solve(state, N_TOKENS)


def take_step(state):
    return take(state, N_TOKENS)


@kernel
def measure(state):
    return newton.measure(state)


def descent(low, high=None, **values):
    """A state with some of its arrays filled."""
    low = np.asarray(low, np.float64)
    state = new_descent(low, low.copy() if high is None else np.asarray(high, np.float64))
    state.limit[0], state.width[0] = 1e9, 1.0
    for name, value in values.items():
        getattr(state, name)[:] = value
    return state


def matrix_of(state):
    """The Hessian that the step is taken with, from near-ties and what is assumed where these are few.

    A share of near-ties stands for the density that gaps have if they are exponential, up to a share of 0.8;
    as far as there are few ties experts are all alike; loads in intervals add a pinch of stiffness.
    """
    n = state.price.size
    share = min(state.n_near[0] / N_TOKENS, 0.8)
    one = (np.log(1.0 / (1.0 - share)) / share if share else 1.0) / (2.0 * state.width[0])
    graph = one * (state.ties + state.ties.T)
    mean = max(graph.sum() / n, one)
    prior = 4.0 / (4.0 + mean / one)
    matrix = (1.0 - prior) * (np.diag(graph.sum(axis=1)) - graph)
    matrix += max(prior, 1e-3) * mean * (np.eye(n) - 1.0 / n)
    return matrix + (1e-6 * mean if (state.low < state.high).any() else 0.0) * np.eye(n)


def random_ties(rng, n, most):
    ties = rng.integers(0, most + 1, (n, n))
    np.fill_diagonal(ties, 0)
    return ties


def expected_step(state):
    """The exact solution: on the zero-sum subspace where every load is asked for, on the free prices else."""
    free = ~state.held
    step = np.zeros(state.price.size)
    step[free] = np.linalg.pinv(matrix_of(state)[np.ix_(free, free)]) @ -state.residual[free]
    return step


def energy(matrix, x):
    return float(np.sqrt(x @ matrix @ x))


def check_step(state, tolerance):
    """In the norm of the matrix: conjugate gradients make that small, and a price's mean plays no part."""
    solve_step(state)
    expected = expected_step(state)
    matrix = matrix_of(state)
    assert energy(matrix, state.step - expected) <= tolerance * energy(matrix, expected)
    assert (state.step[state.held] == 0.0).all()
    return expected


@pytest.mark.parametrize("n", [2, 3, 5, 8, 16, 65])
@pytest.mark.parametrize(("most", "n_near"), [(0, 0), (1, 300), (30, 700), (30, 1000)])
def test_step_solves_the_laplacian(n, most, n_near):
    rng = np.random.default_rng([n, most])
    residual = rng.integers(-9, 10, n).astype(np.float64)
    residual -= residual.mean()
    state = descent(np.full(n, 50.0), ties=random_ties(rng, n, most), residual=residual, width=0.3)
    state.n_near[0] = n_near
    # The residual, in the norm of its preconditioner, falls to a twentieth; the error by as much, but for the
    # preconditioned matrix's least eigenvalue, which for graphs as dense as these is above a fourth.
    expected = check_step(state, 0.1)
    assert expected @ residual < 0.0
    assert state.step @ residual < 0.0


def test_two_experts_are_solved_exactly():
    state = descent([50.0, 50.0], ties=[[0, 7], [2, 0]], residual=[3.0, -3.0], width=0.25)
    solve_step(state)
    assert state.step == pytest.approx(expected_step(state), rel=1e-12)
    control = descent([50.0, 50.0], ties=[[0, 7], [2, 0]], residual=[3.0, -3.0], width=0.5)
    assert abs(expected_step(control)[0]) > 1.5 * abs(state.step[0])


def test_experts_that_no_near_tie_joins():
    """Two halves with many ties inside and none between: only the complete graph carries the surplus over."""
    ties = np.zeros((6, 6), np.int64)
    ties[:3, :3] = ties[3:, 3:] = 1000 * (1 - np.eye(3, dtype=np.int64))
    state = descent(np.full(6, 50.0), ties=ties, residual=[1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    check_step(state, 1e-6)
    assert (state.step[:3] < 0.0).all()
    assert (state.step[3:] > 0.0).all()


@pytest.mark.parametrize("n", [3, 8, 17])
def test_held_prices_do_not_move(n):
    rng = np.random.default_rng(n)
    low, high = np.full(n, 10.0), np.full(n, 20.0)
    state = descent(low, high, ties=random_ties(rng, n, 20), residual=rng.standard_normal(n))
    state.held[:] = rng.random(n) < 0.4
    state.held[:2] = True, False
    state.residual[state.held] = 0.0
    check_step(state, 0.1)


def test_all_prices_held_is_no_step():
    state = descent(np.zeros(3), np.full(3, 9.0), ties=np.ones((3, 3)) - np.eye(3), residual=0.0, step=7.0)
    state.held[:] = True
    solve_step(state)
    assert (state.step == 0.0).all()


# (low, high, price, load): held, residual
LOADS = {
    "asked, too many": (5, 5, 1.0, 7, False, 2.0),
    "asked, too few": (5, 5, 0.0, 2, False, -3.0),
    "asked, met at price zero": (5, 5, 0.0, 5, False, 0.0),
    "inside, free": (5, 9, 0.0, 6, True, 0.0),
    "at the limit, free": (5, 9, 0.0, 9, True, 0.0),
    "too many, free": (5, 9, 0.0, 11, False, 2.0),
    "too few, free": (5, 9, 0.0, 4, False, -1.0),
    "inside, paid": (5, 9, 0.5, 6, False, 1.0),
    "inside, charged": (5, 9, -0.5, 6, False, -3.0),
    "at the least, paid": (5, 9, 0.5, 5, False, 0.0),
}


def test_what_a_price_asks_for():
    low, high, price, loads, held, residual = (list(column) for column in zip(*LOADS.values(), strict=True))
    state = descent(low, high, price=price, loads=loads, held=True, residual=np.nan)
    wrong = measure(state)
    assert dict(zip(LOADS, state.held.tolist(), strict=True)) == dict(zip(LOADS, held, strict=True))
    assert dict(zip(LOADS, state.residual.tolist(), strict=True)) == dict(zip(LOADS, residual, strict=True))
    assert wrong == max(2 + 2, 3 + 1)


def crossing(low, high, **values):
    """Two experts, the first with a price just above zero and far too many tokens."""
    filled = {"price": [0.25, 0.0], "residual": [40.0, -40.0], "ties": [[0, 3], [3, 0]]}
    return descent(low, high, **(filled | values))


def test_a_price_stops_at_zero_where_the_load_has_an_interval():
    free = crossing([5.0, 5.0], [5.0, 5.0])
    take_step(free)
    assert free.price[0] < 0.0
    resting = crossing([5.0, 5.0], [9.0, 5.0])
    take_step(resting)
    assert resting.price[0] == 0.0
    assert resting.step[0] == -0.25
    from_zero = crossing([5.0, 5.0], [9.0, 5.0], price=[0.0, 0.0])
    take_step(from_zero)
    assert from_zero.price[0] < 0.0


def test_no_step_beyond_the_reach_nor_price_beyond_the_limit():
    values = {"price": [1.0, -1.0], "residual": [4000.0, -4000.0], "width": 0.125, "ties": 0}
    state = descent([5.0, 5.0], **values)
    assert take_step(state)
    assert (state.before == [1.0, -1.0]).all()
    assert (state.price == [0.0, 0.0]).all()  # eight widths
    assert (state.step == [-1.0, 1.0]).all()
    # One step after the other falls short: the reach doubles.
    assert take_step(state)
    assert (state.price == [-2.0, 2.0]).all()
    assert take_step(state)
    assert (state.price == [-6.0, 6.0]).all()
    state.limit[0] = 7.0
    assert take_step(state)
    assert (state.price == [-7.0, 7.0]).all()
    assert (state.step == [-1.0, 1.0]).all()
    state.residual[:] = 1e-3, -1e-3
    assert not take_step(state)
    assert state.reach[0] == 0.0
    assert np.abs(state.step).max() <= 1.0


def judged(loads, n_tokens=100, **values):
    state = descent(np.full(2, 50.0), ties=[[0, 20], [20, 0]], n_near=20, **values)
    state.loads[:] = loads
    return state, newton.advance(state, n_tokens)


def test_advance_goes_down_and_notes_the_slope():
    state, wrong = judged([60, 40])
    assert wrong == 10.0
    assert state.best_wrong[0] == 10.0
    assert (state.best == 0.0).all()
    assert state.price[0] < 0.0 < state.price[1]
    assert state.slope[0] == pytest.approx(state.residual @ state.step)
    assert state.slope[0] < 0.0


def test_a_step_too_far_is_taken_back_in_part():
    """The slope along the step was -s and is a s now: by convexity the least lies about 1 / (1 + a) along."""
    state, _ = judged([60, 40])
    before, step, slope = state.before.copy(), state.step.copy(), state.slope[0]
    for loads, fraction in (([40, 60], 0.5), ([20, 80], 0.25), ([0, 100], 1 / 6)):
        again = newton.Descent(*(part.copy() for part in state))
        again.loads[:] = loads
        newton.advance(again, 100)
        assert again.price == pytest.approx(before + fraction * step)
        assert again.step == pytest.approx(fraction * step)
        assert again.slope[0] == 0.0
        # The step after a part of a step is a whole one, with near-ties that were counted there.
        again.loads[:] = 52, 48
        newton.advance(again, 100)
        assert again.slope[0] < 0.0
    # The dual still falls there, or rises by little: go on.
    for loads in ([55, 45], [46, 54]):
        again = newton.Descent(*(part.copy() for part in state))
        again.loads[:] = loads
        newton.advance(again, 100)
        assert (again.before == state.price).all()
    assert slope < 0.0


def test_the_best_price_is_kept_and_patience_counted():
    state, _ = judged([60, 40])
    assert state.since[0] == 0
    start = state.price.copy()
    for loads, since, best in (([59, 41], 1, 9), ([70, 30], 2, 9), ([42, 58], 0, 8), ([58, 42], 1, 8)):
        price = state.price.copy()
        state.loads[:] = loads
        newton.advance(state, 100)
        assert state.since[0] == since, loads
        assert state.best_wrong[0] == best
        if abs(loads[0] - 50) == best and loads[0] != 58:
            assert (state.best == price).all()
    assert not (state.best == start).all()


@pytest.mark.parametrize(("share", "factor"), [(1.0, 1.0), (0.5, 2.0), (2.0, 0.5), (0.01, 4.0), (0.0, 4.0)])
def test_width_makes_the_share_near_that_is_wanted(share, factor):
    state = descent(np.full(2, 500.0), ties=[[0, 20], [20, 0]], width=0.5)
    state.loads[:], state.n_near[0] = (600, 400), round(share * newton._NEAR_SHARE * N_TOKENS)
    newton.advance(state, N_TOKENS)
    assert state.width[0] == pytest.approx(0.5 * factor)


def test_newton_balances_normal_scores():
    """The whole loop, with loads and near-ties counted by sorting."""
    rng = np.random.default_rng(2)
    n_tokens, n_experts, k = 300, 6, 2
    scores = rng.standard_normal((n_tokens, n_experts)) + np.linspace(0.0, 2.0, n_experts)
    state = descent(np.full(n_experts, n_tokens * k / n_experts), width=0.3, limit=20.0)
    wrong = []
    for _ in range(25):
        found = [naive.boundary(row, k) for row in scores + state.price]
        state.loads[:] = naive.loads_of([row[0] for row in found], n_experts)
        state.ties[:] = 0
        near = [(kth, following) for _, kth, following, a, b in found if a - b <= state.width[0]]
        np.add.at(state.ties, tuple(zip(*near, strict=True)), 1)
        state.n_near[0] = len(near)
        wrong.append(newton.advance(state, n_tokens))
    assert wrong[0] > 80
    assert state.best_wrong[0] == min(wrong) <= 3
    loads = naive.loads_of(naive.choose(scores, state.best, k), n_experts)
    assert np.maximum(np.array(loads) - state.low, 0).sum() == state.best_wrong[0]

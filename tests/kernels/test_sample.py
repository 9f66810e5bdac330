"""Descent on a sample: it reaches its goal, and says truly how far it got."""

import numpy as np
import pytest

from balancesim.exact.descent import new_descent
from balancesim.kernels.model import LANES
from balancesim.kernels.sample import descend_sample
from tests import naive
from tests.conftest import INTERPRETED
from tests.kernels.instances import masked, near_ties, noise, perturbed, quarters

N_TOKENS = 150 if INTERPRETED else 600
SHAPES = [(5, 1), (6, 3), (9, 8)] if INTERPRETED else [(2, 1), (5, 1), (8, 2), (12, 9), (65, 4)]


def descent(n_experts, n_rows, k, *, width=0.3, amplitude=(0.0, 0.0), low=None, high=None):
    load = np.full(n_experts, n_rows * k / n_experts)
    state = new_descent(load if low is None else low, load.copy() if high is None else high)
    state.width[0], state.limit[0], state.amplitude[:] = width, 50.0, amplitude
    return state


def wrong_side(scores, rows, k, price, state, amplitude):
    """Tokens on the wrong side of the loads asked for, counted by sorting."""
    shaken = scores[rows] + amplitude * np.array(
        [[noise(int(i), e) for e in range(price.size)] for i in rows]
    )
    loads = np.array(naive.loads_of(naive.choose(shaken, price, k), price.size))
    return max(np.maximum(loads - state.high, 0.0).sum(), np.maximum(state.low - loads, 0.0).sum())


COUNTED = [(5, 3, 1), (9, 9, 4), (LANES + 2, 5, 2), (3, 65, 63)]
if not INTERPRETED:
    COUNTED += [(1, 2, 1), (LANES, 8, 7), (LANES - 1, 17, 9), (40, 63, 8), (41, 64, 2), (LANES + 2, 130, 3)]


@pytest.mark.parametrize("amplitude", [0.0, 0.125])
@pytest.mark.parametrize("shape", COUNTED, ids=str)
def test_counts_like_sorting(shape, amplitude):
    n_tokens, n_experts, k = shape
    rng = np.random.default_rng(shape)
    scores, price = quarters(rng, (n_tokens, n_experts)), quarters(rng, n_experts, 2)
    if n_tokens % 2 == 0:
        scores = masked(rng, scores, k)
    shaken = perturbed(scores, amplitude)
    state = descent(n_experts, n_tokens, k, width=0.25, amplitude=(amplitude, amplitude))
    state.price[:] = price
    state.ties[:] = 99
    descend_sample(scores, np.arange(n_tokens), k, state, -1.0, 1)
    assert state.loads.tolist() == naive.loads_of(naive.choose(shaken, price, k), n_experts)
    expected = near_ties(shaken, price, k, 0.25)
    assert (state.ties == expected).all()
    assert state.n_near[0] == expected.sum()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reaches_its_goal_on_smooth_scores(shape):
    n_experts, k = shape
    rng = np.random.default_rng(n_experts)
    scores = rng.standard_normal((N_TOKENS, n_experts)) + np.linspace(0.0, 2.0, n_experts)
    rows = np.arange(0, N_TOKENS, 2) if n_experts < 65 else np.arange(N_TOKENS)
    state = descent(n_experts, rows.size, k)
    goal = 0.15 * np.sqrt(rows.size * k * n_experts)
    start = wrong_side(scores, rows, k, np.zeros(n_experts), state, 0.0)
    passes, wrong = descend_sample(scores, rows, k, state, goal, 40)
    assert wrong <= goal < start / 2
    assert passes <= 15
    assert wrong == wrong_side(scores, rows, k, state.price, state, 0.0)


def test_other_tokens_play_no_part():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((200, 5))
    rows = np.flatnonzero(rng.random(200) < 0.7)
    results = []
    for poison in (0.0, np.nan):
        filled = scores.copy()
        filled[np.setdiff1d(np.arange(200), rows)] = poison
        state = descent(5, rows.size, 2)
        results.append((*descend_sample(filled, rows, 2, state, 1.0, 10), state.price.tolist()))
    assert results[0] == results[1]
    assert rows.size > 130  # more than one tile
    state = descent(5, rows.size, 2)
    assert descend_sample(scores, rows[::-1].copy(), 2, state, 1.0, 10)[1] == results[0][1]


@pytest.mark.parametrize("seed", range(3 if INTERPRETED else 12))
def test_never_worse_than_its_start(seed):
    """Without noise; ties by the hundred and goals out of reach included."""
    rng = np.random.default_rng(seed)
    n_experts = int(rng.integers(2, 9))
    k = int(rng.integers(1, n_experts))
    scores = rng.standard_normal((90, n_experts))
    if seed % 2:
        scores = np.round(scores)
    rows = np.arange(90)
    state = descent(n_experts, 90, k, width=10.0 ** -(seed % 4))
    state.price[:] = 0.3 * rng.standard_normal(n_experts)
    before = wrong_side(scores, rows, k, state.price, state, 0.0)
    passes, wrong = descend_sample(scores, rows, k, state, 0.0, 12)
    assert wrong <= before
    assert wrong == wrong_side(scores, rows, k, state.price, state, 0.0)
    assert 1 <= passes <= 12


def test_one_pass_counts_and_stays():
    scores = np.random.default_rng(1).standard_normal((60, 4))
    state = descent(4, 60, 2)
    state.price[:] = 0.5, 0.0, 0.0, -0.5
    passes, wrong = descend_sample(scores, np.arange(60), 2, state, 0.0, 1)
    assert passes == 1
    assert state.price.tolist() == [0.5, 0.0, 0.0, -0.5]
    assert wrong == wrong_side(scores, np.arange(60), 2, state.price, state, 0.0)


def test_noise_tells_ties_apart():
    """Scores from four levels: no price can divide the tied, the noise that is left in the end does."""
    rng = np.random.default_rng(7)
    n_experts, k = 6, 2
    scores = rng.integers(0, 4, (N_TOKENS, n_experts)).astype(np.float64)
    rows = np.arange(N_TOKENS)
    goal = 0.02 * N_TOKENS
    state = descent(n_experts, N_TOKENS, k, amplitude=(1.0, 0.05))
    passes, wrong = descend_sample(scores, rows, k, state, goal, 80)
    assert state.amplitude.tolist() == [0.05, 0.05]
    assert passes < 80
    assert wrong <= goal
    assert wrong == wrong_side(scores, rows, k, state.price, state, 0.05)
    assert wrong_side(scores, rows, k, state.price, state, 1.0) > goal
    # The price is one for the ties themselves too: within the noise of it no score changes its level.
    without = descent(n_experts, N_TOKENS, k)
    assert descend_sample(scores, rows, k, without, goal, 80)[1] > goal


def test_noise_goes_down_by_steps():
    """Where each goal is met at once, every pass but the last softens."""
    scores = np.random.default_rng(3).integers(0, 3, (40, 3)).astype(np.float64)
    state = descent(3, 40, 1, amplitude=(1.0, 0.05))
    passes, _ = descend_sample(scores, np.arange(40), 1, state, 40.0, 20)
    assert passes == 4  # 1, 0.3, 0.09, 0.05
    assert state.amplitude[0] == 0.05
    stopped = descent(3, 40, 1, amplitude=(1.0, 0.05))
    assert descend_sample(scores, np.arange(40), 1, stopped, 40.0, 2)[0] == 2
    assert stopped.amplitude[0] == pytest.approx(0.09)


def test_loads_within_limits_need_no_price():
    scores = np.random.default_rng(5).standard_normal((128, 5))
    loads = naive.loads_of(naive.choose(scores, np.zeros(5), 2), 5)
    low, high = np.array(loads) - 3.0, np.array(loads) + 3.0
    state = descent(5, 128, 2, low=low, high=high)
    assert descend_sample(scores, np.arange(128), 2, state, 0.0, 9) == (1, 0.0)
    assert (state.price == 0.0).all()


@pytest.mark.parametrize("k", [1, 3])
def test_masked_scores(k):
    rng = np.random.default_rng(9)
    scores = rng.standard_normal((N_TOKENS, 8)) + np.linspace(0.0, 2.0, 8)
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    for i in range(0, N_TOKENS, 7):  # exactly K are left
        scores[i] = np.where(np.roll(np.arange(8), i) < k, 0.5, -np.inf)
    scores[:, :k] = np.where(np.isfinite(scores).sum(axis=1, keepdims=True) < k, 0.0, scores[:, :k])
    state = descent(8, N_TOKENS, k)
    _, wrong = descend_sample(scores, np.arange(N_TOKENS), k, state, 4.0, 40)
    assert wrong <= 4.0
    assert wrong == wrong_side(scores, np.arange(N_TOKENS), k, state.price, state, 0.0)
    assert np.isfinite(state.price).all()

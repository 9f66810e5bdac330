"""The best fixed bias in hindsight."""

import numpy as np
import pytest
from scipy.optimize import linprog

import balancesim as bs
from balancesim import sources
from balancesim.hindsight import best_fixed_bias


def whole(source, n_tokens, n_steps):
    return np.concatenate([source.batch(step, n_tokens) for step in range(n_steps)]).astype(np.float64)


def test_equals_the_linear_programme():
    """min D is the value of the balanced assignment problem over all tokens of the run, relaxed."""
    source, n_tokens, k, n_steps = sources.Normal(n_experts=4, offsets="iqr", seed=1), 20, 2, 6
    scores = whole(source, n_tokens, n_steps)
    n, n_experts = scores.shape
    rows = np.kron(np.eye(n), np.ones(n_experts))
    columns = np.kron(np.ones(n), np.eye(n_experts))
    solved = linprog(
        -scores.ravel(), A_eq=np.vstack([rows, columns]),
        b_eq=np.concatenate([np.full(n, k), np.full(n_experts, n * k / n_experts)]), bounds=(0, 1),
    )  # fmt: skip
    found = best_fixed_bias(source, n_tokens=n_tokens, k=k, n_steps=n_steps)
    reached = bs.dual_value(scores, found.bias, k=k) / n
    # The descent stops within a thousandth of what one batch's sampling noise costs, about K/(2 mu T).
    assert -solved.fun / n - 1e-6 <= reached <= -solved.fun / n + 2e-3


@pytest.mark.parametrize(
    "source",
    [
        sources.Normal(n_experts=16, offsets="iqr", seed=2),
        sources.Pareto(n_experts=16, tail_index=0.8, offsets="iqr", seed=2),
        sources.Factor(n_experts=16, offsets="iqr", seed=2),
        sources.Uniform(n_experts=16, transform="softmax", offsets=np.linspace(0, 3, 16), seed=2),
    ],
    ids=lambda source: source.describe(),
)
def test_balances_the_whole_run(source):
    n_tokens, k, n_steps = 128, 2, 300
    found = best_fixed_bias(source, n_tokens=n_tokens, k=k, n_steps=n_steps)
    loads = bs.route(whole(source, n_tokens, n_steps).astype(source.dtype), found.bias, k=k).loads
    assert bs.max_violation(loads) < 0.01
    assert found.bias.mean() == pytest.approx(0.0, abs=1e-12)
    assert found.n_wrong < 32
    assert found.n_passes < 200


def test_beats_the_population_minimiser_by_the_expected_amount():
    """One q for the whole run gains about K(1-K/E)/(2 mu T) on p* (theory.md, "Regret")."""
    gains, predicted = [], []
    n_tokens, k, n_steps = 64, 2, 200
    for seed in range(8):
        source = sources.Uniform(n_experts=8, offsets="iqr", seed=seed)
        found = best_fixed_bias(source, n_tokens=n_tokens, k=k, n_steps=n_steps)
        q = found.bias
        predicted.append(found.gain)
        run = bs.simulate(
            bs.balancers.NoBalance(), source, n_tokens=n_tokens, k=k, horizon=n_steps, comparator=q
        )
        other = bs.simulate(bs.balancers.NoBalance(), source, n_tokens=n_tokens, k=k, horizon=n_steps)
        gains.append(run.regret[-1] - other.regret[-1])
    expected = k * (1 - k / 8) / (2 * (8 / 7) * n_tokens)
    # Twice the gain is about a chi-square of 7 degrees times its mean/7: sd of the mean of 8 is 0.19 of it.
    assert np.mean(gains) == pytest.approx(expected, rel=4 * 0.19)
    # Near-ties over 12,800 tokens and 200 batches' covariance: a tenth is several standard errors.
    assert np.mean(predicted) == pytest.approx(expected, rel=0.1)


def test_degenerate_scores():
    same = sources.Recorded(np.zeros((64, 4)))
    assert np.isfinite(best_fixed_bias(same, n_tokens=8, k=1, n_steps=8).bias).all()
    distinct = sources.Recorded(np.tile(np.arange(4.0), (64, 1)))
    found = best_fixed_bias(distinct, n_tokens=8, k=1, n_steps=8)
    assert bs.dual_value(distinct.rows, found.bias, k=1) <= bs.dual_value(distinct.rows, np.zeros(4), k=1)


def test_gain_is_claimed_for_stationary_scores_only():
    still = best_fixed_bias(sources.Normal(n_experts=8), n_tokens=32, k=2, n_steps=60)
    assert still.gain > 0.0
    for moving in (
        sources.Drifting(n_experts=8, walk_rate=0.05),
        sources.Drifting(n_experts=8, walk_rate=0.0, offsets="iqr", switch_at=30),
        sources.Recorded(np.random.default_rng(0).standard_normal((32 * 60, 8))),
    ):
        assert best_fixed_bias(moving, n_tokens=32, k=2, n_steps=60).gain == 0.0

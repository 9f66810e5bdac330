"""Sinkhorn as a rule: its plan, its choice, its limits, and what it says when it does not converge."""

import math
from typing import Any

import numpy as np
import pytest

import balancesim as bs
from balancesim.balancers import Sinkhorn, registry
from balancesim.balancers.sinkhorn import Scaling
from balancesim.errors import InputError
from balancesim.runs import Outcome
from balancesim.sources import Normal, Pareto, Recorded
from balancesim.types import Float64Array, FloatArray

SOURCE = Normal(n_experts=6, offsets="iqr", seed=1)


def scaling(scores: FloatArray, k: int, **settings: Any) -> Scaling:
    found = Sinkhorn(**settings).scale(scores, k)
    assert isinstance(found, Scaling)
    return found


def plan_of(scores: FloatArray, bias: Float64Array, k: int, temperature: float) -> Float64Array:
    exponent = (scores + bias) / temperature
    plan: Float64Array = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return plan * (k / plan.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(("n_tokens", "k"), [(24, 1), (31, 2), (16, 5)])
def test_rows_hold_k_and_columns_their_share(n_tokens: int, k: int) -> None:
    scores = SOURCE.batch(0, n_tokens).astype(np.float64)
    found = scaling(scores, k, temperature=0.3, tolerance=1e-9, n_iterations=2000)
    plan = plan_of(scores, found.bias, k, 0.3)
    np.testing.assert_allclose(plan.sum(axis=0), n_tokens * k / 6, rtol=1.1e-9)
    assert found.error <= 1e-9
    assert found.bias.sum() == pytest.approx(0.0, abs=1e-12)
    # Optimal among all such plans: its logarithm is scores plus a term a row and a term a column.
    rest = 0.3 * np.log(plan) - scores
    rest -= rest.mean(axis=0)
    np.testing.assert_allclose(rest - rest.mean(axis=1, keepdims=True), 0.0, atol=1e-12)


def test_the_choice_is_the_k_largest_of_the_plan() -> None:
    scores = SOURCE.batch(0, 40)
    rule = Sinkhorn(temperature=0.2)
    found, state = rule.assign(rule.init(6, 2), scores.copy())
    assert found.experts is not None
    assert found.bias is not None
    plan = plan_of(scores.astype(np.float64), found.bias, 2, 0.2)
    np.testing.assert_array_equal(found.experts, np.sort(np.argsort(-plan, axis=1)[:, :2], axis=1))
    np.testing.assert_array_equal(found.experts, bs.route(scores, found.bias, k=2, experts=True).experts)
    assert state.n_batches == 1
    assert rule.remark(state) == ""


def test_ties_go_to_the_lower_expert() -> None:
    rule = Sinkhorn()
    found, _ = rule.assign(rule.init(4, 2), np.zeros((8, 4)))
    assert found.experts is not None
    assert (found.experts == [0, 1]).all()  # the plan is balanced, 1/2 everywhere; the choice is not


def test_permuting_tokens_permutes_the_choice() -> None:
    scores = SOURCE.batch(3, 40).astype(np.float64)
    order = np.random.default_rng(0).permutation(40)
    rule = Sinkhorn()
    one, _ = rule.assign(rule.init(6, 2), scores.copy())
    other, _ = rule.assign(rule.init(6, 2), scores[order])
    assert one.experts is not None
    assert other.experts is not None
    np.testing.assert_array_equal(one.experts[order], other.experts)


LOOSE: Any = {"tolerance": 1e-5, "n_iterations": 200_000}


def gap(scores: Float64Array, k: int, temperature: float) -> float:
    """What the plan's score is short of the exact optimum."""
    found = scaling(scores, k, temperature=temperature, **LOOSE)
    assert found.error <= 1e-5
    return bs.solve(scores, k=k).value - float((scores * plan_of(scores, found.bias, k, temperature)).sum())


@pytest.mark.parametrize("seed", range(6))
def test_low_temperatures_approach_the_exact_optimum_for_one_expert_a_token(seed: int) -> None:
    """The gap is at most T temperature ln E: no plan's entropy is larger, and the optimum's is zero."""
    scores = Normal(n_experts=3, offsets="iqr", seed=seed).batch(0, 12).astype(np.float64)
    # Columns off by 1e-5 move such a share of T units between scores that differ by less than ten.
    loose = 12 * 10 * 1e-5
    temperatures = (1.0, 0.3, 0.1, 0.03)
    gaps = [gap(scores, 1, temperature) for temperature in temperatures]
    assert gaps == sorted(gaps, reverse=True)
    for temperature, found in zip(temperatures, gaps, strict=True):
        assert -loose <= found <= 12 * temperature * math.log(3) + loose
    best = bs.solve(scores, k=1)
    for temperature, is_exact in ((0.03, True), (1.0, False)):  # the second is the negative control
        rule = Sinkhorn(temperature=temperature, **LOOSE)
        chosen, _ = rule.assign(rule.init(3, 1), scores.copy())
        assert np.array_equal(chosen.experts, best.experts) == is_exact


def test_but_not_for_two() -> None:
    """The negative control: with K = 2 a row may put both its units on one expert."""
    scores = 10.0 * np.eye(4)
    assert bs.solve(scores, k=2).value == 40.0
    # The plan's score tends to 80: the rows' second choice gets exp(-10/temperature) of the first.
    assert gap(scores, 2, 0.5) == pytest.approx(-40.0, abs=1e-6)


def test_unconverged_batches_are_counted_in_the_status() -> None:
    runs = [
        bs.simulate(
            Sinkhorn(n_iterations=n, temperature=0.05), SOURCE, n_tokens=64, k=2, horizon=9, n_exact=2
        )
        for n in (1, 5000)
    ]
    assert all(run.status.outcome is Outcome.HORIZON_REACHED for run in runs)
    assert "(9 steps); 9 of 9 plans not within `tolerance` after 1 iterations, the worst" in (
        runs[0].status.reason
    )
    assert runs[1].status.reason == "reached the horizon (9 steps)"
    assert runs[1].max_violation.mean() < runs[0].max_violation.mean()
    for run in runs:
        assert np.isfinite(run.regret).all()
        assert np.isfinite(run.score_over_exact).all()
        assert (run.loads.sum(axis=1) == 128).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_temperature_that_underflows_ends_the_run(dtype: Any) -> None:
    rows = SOURCE.batch(0, 64).astype(dtype)
    setting: Any = {"n_tokens": 32, "k": 2, "horizon": 2, "comparator": np.zeros(6)}
    run = bs.simulate(Sinkhorn(temperature=1e-17), Recorded(rows), **setting)
    assert run.status.outcome is Outcome.NOT_ASSIGNED
    assert "at step 1 of 2: `temperature` 1e-17 underflows beside scores of 1" in run.status.reason
    assert "use at least 2.2e-16" in run.status.reason
    # Just above: nothing is lost in silence, it does not converge and says so.
    run = bs.simulate(Sinkhorn(temperature=1e-14), Recorded(rows), **setting)
    assert run.status.outcome is Outcome.HORIZON_REACHED
    assert "2 of 2 plans not within `tolerance`" in run.status.reason


def test_heavy_tails() -> None:
    source = Pareto(n_experts=6, tail_index=0.3, seed=1)  # a few scores of 1e10 and more
    run = bs.simulate(Sinkhorn(temperature=1.0, n_iterations=500), source, n_tokens=64, k=2, horizon=5)
    assert run.status.outcome is Outcome.HORIZON_REACHED
    assert np.isfinite(run.bias).all()


def test_masks() -> None:
    rows = np.random.default_rng(0).standard_normal((48, 4))
    rows[5, 1] = rows[7, 2] = -np.inf
    rows[24:, 3] = -np.inf
    run = bs.simulate(
        Sinkhorn(), Recorded(rows), n_tokens=24, k=1, horizon=2, comparator=np.zeros(4), n_exact=0
    )
    assert run.status.outcome is Outcome.NOT_ASSIGNED
    assert "at step 2 of 2: `scores` mask expert 3 for every token" in run.status.reason
    assert run.steps.tolist() == [1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "`temperature` must be a positive finite number, got 0.0"),
        ({"temperature": math.inf}, "`temperature`"),
        ({"temperature": 1e-310}, "`temperature` must be a normal float64, at least 2.2e-308, got 1e-310"),
        ({"n_iterations": 0}, "`n_iterations` must be at least 1"),
        ({"tolerance": -1.0}, "`tolerance` must be a positive finite number"),
    ],
)
def test_bad_input(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sinkhorn(**settings)


def test_it_is_known_by_its_name() -> None:
    assert registry()["sinkhorn"] is Sinkhorn
    assert not Sinkhorn.causal
    assert Sinkhorn().describe() == "Sinkhorn, temperature 0.1"

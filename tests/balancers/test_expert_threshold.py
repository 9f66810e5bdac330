"""Expert thresholds: as many experts per token as scores exceed, K on average."""

import math

import numpy as np
import pytest

import balancesim as bs
from balancesim.balancers import Delayed, ExpertThreshold, registry
from balancesim.errors import InputError
from balancesim.sources import Normal, Recorded
from tests.balancers.twins import Flipped, InPython

SOURCE = Normal(n_experts=6, offsets="iqr", seed=4)
SHORT = {"n_tokens": 70, "k": 2, "horizon": 25, "n_records": 40, "n_exact": 0}


@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_a_run_equals_naive(rate):
    run = bs.simulate(ExpertThreshold(ema_rate=rate), SOURCE, **SHORT)
    thresholds = None
    for step in range(25):
        scores = SOURCE.batch(step, 70)
        used = np.zeros(6, np.float32) if thresholds is None else thresholds.astype(np.float32)
        assert run.loads[step].tolist() == (scores > used).sum(axis=0).tolist()
        quantile = -np.sort(-scores, axis=0)[70 * 2 // 6].astype(np.float64)
        thresholds = quantile if thresholds is None else (1 - rate) * thresholds + rate * quantile
        np.testing.assert_allclose(run.bias[step], -thresholds, atol=1e-14)


def test_a_batch_by_hand():
    """T = 4, K = 1, E = 2: the third largest scores, .7 and .45, let two tokens of four through."""
    scores = np.array([(0.9, 0.5), (0.8, 0.7), (0.7, 0.2), (0.6, 0.45)])
    rule = ExpertThreshold(ema_rate=0.5)
    state = rule.observe(rule.init(2, 1), scores)
    state = rule.update(state, np.array([4, 4]), None)
    assert rule.bias(state).tolist() == [-0.7, -0.45]
    assert (scores + rule.bias(state) > 0.0).sum(axis=0).tolist() == [2, 2]
    state = rule.update(rule.observe(state, scores + 1.0), np.array([4, 4]), None)
    np.testing.assert_allclose(rule.bias(state), [-1.2, -0.95], atol=1e-15)


@pytest.mark.parametrize("rule", [ExpertThreshold(ema_rate=0.2), Delayed(rule=ExpertThreshold(), lag=2)])
def test_the_loop_has_the_bits_of_the_python_protocol(rule):
    inside, outside = bs.simulate([rule, InPython(rule)], SOURCE, **SHORT)
    assert inside.bias.tobytes() == outside.bias.tobytes()
    assert inside.loads.tolist() == outside.loads.tolist()


def test_loads_are_balanced_on_average_and_regret_means_nothing():
    run = bs.simulate(ExpertThreshold(), SOURCE, n_tokens=300, k=2, horizon=400, n_records=9, n_exact=0)
    since = int(run.steps[-1] - run.steps[-2])
    mean = run.window_loads[-1] / since
    # A threshold's EMA over 100 batches has a spread of some sqrt(100 / 200 / 100) = 0.07 of a batch's
    # Poisson-like 10 tokens; the floor + 1 rule keeps loads within a token of 100.
    np.testing.assert_allclose(mean, 100.0, atol=4.0)
    assert np.isnan(run.regret).all()


def test_the_flipped_rule_does_not_balance():
    rules = [ExpertThreshold(), Flipped(ExpertThreshold())]
    right, wrong = bs.simulate(rules, SOURCE, n_tokens=300, k=2, horizon=50, n_exact=0)
    assert right.mean_max_violation[-1] < 0.3 < wrong.mean_max_violation[-1]


def test_masked_experts_are_never_chosen():
    rows = np.random.default_rng(0).normal(size=(500, 5))
    rows[::2, 4] = -np.inf
    run = bs.simulate(ExpertThreshold(), Recorded(rows), n_tokens=50, k=2, horizon=10, n_exact=0)
    assert np.isfinite(run.bias).all()
    assert run.loads[:, 4].max() <= 25


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.01, math.nan, math.inf, "0.1", True])
def test_bad_input(rate):
    with pytest.raises(InputError, match="`ema_rate` must be above 0 and at most 1"):
        ExpertThreshold(ema_rate=rate)


def test_it_is_known_by_its_name():
    assert registry()["expert-threshold"] is ExpertThreshold
    assert ExpertThreshold.causal
    assert ExpertThreshold.threshold

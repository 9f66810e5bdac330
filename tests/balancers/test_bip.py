"""BIP: sweeps with clipping on the batch that they route."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balancesim as bs
from balancesim.balancers import BIP, NoBalance, registry
from balancesim.errors import InputError
from balancesim.sources import Normal, Recorded
from tests import strategies

SOURCE = Normal(n_experts=6, offsets="iqr", seed=4, transform="softmax")


def naive_prices(scores, prices, k, n_sweeps):
    n_tokens, n_experts = scores.shape
    for _ in range(n_sweeps):
        tokens = np.maximum(-np.sort(-(scores - prices), axis=1)[:, k], 0.0)
        lead = -np.sort(-(scores - tokens[:, None]), axis=0)
        prices = np.maximum(lead[n_tokens * k // n_experts], 0.0)
    return prices


@given(strategies.batches(max_tokens=30, max_experts=8), st.integers(1, 5))
def test_an_assignment_equals_naive(batch, n_sweeps):
    rule = BIP(n_sweeps=n_sweeps)
    state = rule.init(batch.scores.shape[1], batch.k)
    scores, prices = batch.scores, state.prices
    for _ in range(2):  # the second starts from the first one's prices
        assignment, state = rule.assign(state, scores)
        prices = naive_prices(scores.astype(np.float64), prices, batch.k, n_sweeps)
        assert assignment.bias.tolist() == (-prices).tolist()
        assert state.prices.tolist() == prices.tolist()
        chosen = bs.route(scores, -prices, k=batch.k, experts=True).experts
        assert assignment.experts.tolist() == chosen.tolist()
        assert (prices >= 0.0).all()


def test_a_batch_by_hand():
    """theory.md's fixture: one sweep gives quantile balancing's (.15, 0), on the batch itself."""
    scores = np.array([(0.9, 0.5), (0.8, 0.7), (0.7, 0.2), (0.6, 0.45)])
    assignment, state = BIP(n_sweeps=1).assign(BIP().init(2, 1), scores)
    np.testing.assert_allclose(state.prices, (0.15, 0.0), atol=1e-15)
    np.testing.assert_allclose(assignment.bias, (-0.15, 0.0), atol=1e-15)


def test_more_sweeps_balance_better_and_lose_more_score():
    rules = [NoBalance(), BIP(n_sweeps=1), BIP(n_sweeps=8)]
    none, one, many = bs.simulate(rules, SOURCE, n_tokens=300, k=2, horizon=20, n_records=20, n_exact=0)
    assert many.max_violation.mean() < one.max_violation.mean() < none.max_violation.mean()
    assert none.score_lost[-1] == 0.0 < many.score_lost[-1]
    assert many.max_violation.mean() < 0.25 * none.max_violation.mean()
    assert (many.bias <= 0.0).all()


def test_prices_of_the_wrong_sign_push_loads_apart():
    """The negative control: the same prices added instead of subtracted."""
    scores = SOURCE.batch(0, 300)
    bias = BIP().assign(BIP().init(6, 2), scores)[0].bias
    none, right, wrong = (bs.max_violation(bs.route(scores, p, k=2).loads) for p in (0 * bias, bias, -bias))
    assert right < none < wrong


def test_masked_experts_are_never_chosen():
    rows = np.abs(np.random.default_rng(0).normal(size=(200, 5)))
    rows[::3, 4] = -np.inf
    run = bs.simulate(BIP(), Recorded(rows), n_tokens=50, k=2, horizon=4, n_exact=0)
    assert np.isfinite(run.bias).all()
    assert run.steps[-1] == 4


def test_it_is_a_current_batch_rule_known_by_its_name():
    assert registry()["bip"] is BIP
    assert not BIP.causal
    assert BIP(n_sweeps=1).describe() == "BIP, 1 sweep"


@pytest.mark.parametrize("n_sweeps", [0, -1, 1.5, True])
def test_bad_input(n_sweeps):
    with pytest.raises(InputError, match="`n_sweeps` must be"):
        BIP(n_sweeps=n_sweeps)

"""Simulations on the card's stand-in against the Numba loop: equal loads and biases, step by step."""

import numpy as np
import pytest

import balancesim as bs
from balancesim import balancers, sources
from balancesim.errors import InputError
from tests.kernels_cupy import card
from tests.kernels_cupy.compiled import COMPILER

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler: c++, g++ or clang++")

RULES = [
    balancers.AlfLB(step_size=1.0),
    balancers.AlfLB(schedule="sign", step_size=0.05),
    balancers.AlfLB(schedule="sqrt", step_size=0.5, recentre=True, delay=3),
    balancers.AlfLB(schedule="constant", step_size=0.3, radius=0.05),
    balancers.NoBalance(),
]


@pytest.fixture(autouse=True)
def _card(monkeypatch):
    card.install(monkeypatch)


def assert_same(found, expected):
    for here, there in zip(found, expected, strict=True):
        assert (here.steps == there.steps).all()
        assert (here.loads == there.loads).all()
        assert (here.window_loads == there.window_loads).all()
        assert (here.bias == there.bias).all()
        assert (here.max_violation == there.max_violation).all()
        assert here.status == there.status
        scale = 1.0 + float(np.abs(there.top_score).max())
        for name in ("regret", "score_lost", "top_score", "mean_max_violation", "drop_rate"):
            np.testing.assert_allclose(
                getattr(here, name), getattr(there, name), rtol=0.0, atol=1e-12 * scale, err_msg=name
            )


@pytest.mark.parametrize(
    ("source", "n_tokens", "k", "horizon"),
    [
        (sources.Normal(n_experts=16, seed=1, offsets=tuple(np.linspace(-1, 1, 16))), 50, 4, 40),
        (sources.Pareto(n_experts=21, seed=2, tail_index=0.2), 33, 2, 12),
        (sources.Drifting(n_experts=9, seed=3, transform="softmax"), 130, 1, 9),
        pytest.param(sources.Clustered(n_experts=12, seed=4, n_clusters=5), 20, 3, 9, marks=pytest.mark.deep),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_runs_are_the_same(source, n_tokens, k, horizon):
    zero = np.zeros(source.n_experts)
    given = {"n_tokens": n_tokens, "k": k, "horizon": horizon, "n_exact": 1, "comparator": zero}
    expected = bs.simulate(RULES, source, **given)
    found = bs.simulate(RULES, source, backend="cupy", **given)
    assert_same(found, expected)


def test_many_records_and_a_rule_that_diverges(monkeypatch):
    monkeypatch.setattr("balancesim.driver_cupy.MOST_RECORDS", 7)
    monkeypatch.setattr("balancesim.driver_cupy._STEPS_PER_LAUNCH", 11)
    rules = [RULES[1], balancers.AlfLB(schedule="constant", step_size=8e35), RULES[0]]
    source = sources.Gumbel(n_experts=8, seed=6)
    given = {"n_tokens": 16, "k": 2, "horizon": 30, "n_records": 30, "n_exact": 0}
    expected = bs.simulate(rules, source, **given)
    assert expected[1].status.step < 30
    assert_same(bs.simulate(rules, source, backend="cupy", **given), expected)


def test_data_from_python_is_handed_over():
    rng = np.random.default_rng(0)
    scores = (rng.integers(0, 8, (200, 10)) / 4.0).astype(np.float32)
    source = sources.Recorded(scores)
    given = {"n_tokens": 30, "k": 2, "horizon": 50, "n_exact": 0, "comparator": "none"}
    expected = bs.simulate(RULES[:2], source, **given)
    found = bs.simulate(RULES[:2], source, backend="cupy", **given)
    for here, there in zip(found, expected, strict=True):
        assert (here.loads == there.loads).all()
        assert here.status == there.status


@pytest.mark.parametrize(
    ("rule", "given", "what"),
    [
        (balancers.QuantileBalance(), {}, "runs ALF-LB"),
        (balancers.Delayed(rule=RULES[0], every=2), {}, "once a batch"),
        (RULES[0], {"groups": bs.GroupLimit(4, 2)}, "limit on groups"),
    ],
)
def test_what_the_card_does_not_run_is_refused(rule, given, what):
    source = sources.Normal(n_experts=8)
    with pytest.raises(InputError, match=f'{what}.*use backend "numba"'):
        bs.simulate(rule, source, n_tokens=16, k=2, horizon=5, backend="cupy", **given)
    with pytest.raises(InputError, match="unknown backend"):
        bs.simulate(RULES[0], source, n_tokens=16, k=2, horizon=5, backend="cuda")

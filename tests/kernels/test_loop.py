"""The whole loop against the naive twin: every source model, every schedule, every recorded column."""

import numpy as np
import pytest

from balancesim import sources
from balancesim.balancers import AlfLB, NoBalance
from balancesim.simulation import simulate
from tests import naive
from tests.conftest import INTERPRETED

HORIZON = 3 if INTERPRETED else 12
N_TOKENS = 9 if INTERPRETED else 150

OFFSETS = tuple(np.linspace(-1.0, 1.0, 6).tolist())
SOURCES = [
    sources.Uniform(n_experts=6, offsets=OFFSETS),
    sources.Normal(n_experts=7, transform="softmax"),
    sources.Logistic(n_experts=6, transform="sigmoid", offsets=OFFSETS),
    sources.Gumbel(n_experts=6, offsets=OFFSETS, scale=0.5),
    sources.Exponential(n_experts=6, offsets=OFFSETS),
    sources.StudentT(n_experts=6, degrees=1.5, offsets=OFFSETS),
    sources.Cauchy(n_experts=6, offsets=OFFSETS),
    sources.LogNormal(n_experts=6, sigma=3.0, offsets=OFFSETS),
    sources.Pareto(n_experts=6, tail_index=0.5, offsets=OFFSETS),
    sources.Pareto(n_experts=6, tail_index=0.05, offsets=OFFSETS),
    sources.Factor(n_experts=6, n_factors=3, offsets=OFFSETS),
    sources.Clustered(n_experts=6, offsets=OFFSETS),
    sources.Drifting(n_experts=6, offsets=OFFSETS, walk_rate=0.1, switch_at=2),
]
RULES = [
    NoBalance(),
    AlfLB(schedule="sign", step_size=0.25),
    AlfLB(schedule="constant", step_size=0.5, recentre=True),
    AlfLB(schedule="harmonic", step_size=8.0, radius=0.75),
    AlfLB(schedule="sqrt", step_size=2.0, delay=3),
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.describe())
def test_equals_naive(source):
    k = 2
    q = np.linspace(0.5, -0.5, source.n_experts)
    runs = simulate(
        RULES,
        source,
        n_tokens=N_TOKENS,
        k=k,
        horizon=HORIZON,
        comparator=q,
        n_records=10 * HORIZON,
        n_exact=0,
    )
    dtype = source.batch(0, 1).dtype
    eps = float(np.finfo(dtype).eps)
    for rule, run in zip(RULES, runs, strict=True):
        expected = naive.simulate(
            source, None if isinstance(rule, NoBalance) else rule, q, N_TOKENS, k, HORIZON
        )
        assert run.steps.tolist() == list(range(1, HORIZON + 1))
        assert run.loads.tolist() == [loads.tolist() for loads in expected["loads"]]
        assert (run.window_loads == run.loads).all()
        np.testing.assert_allclose(run.bias, np.array(expected["bias"]), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(run.top_score, expected["top_score"], rtol=1e-12)
        # Per token, K sums are rounded twice to the dtype at scores up to the limit beyond which they are
        # summed by membership; most scores are of order one, so a millionth of that limit is generous.
        largest = float(np.abs(source.batch(0, N_TOKENS)).clip(max=1e5 if eps > 1e-10 else 1e12).max())
        tolerance = 4 * k * eps * max(1.0, largest) * HORIZON
        np.testing.assert_allclose(run.regret, expected["regret"], atol=tolerance)
        np.testing.assert_allclose(run.score_lost, expected["score_lost"], atol=tolerance, rtol=1e-9)
        assert run.max_violation == pytest.approx(
            [loads.max() / loads.mean() - 1.0 for loads in expected["loads"]], abs=1e-12
        )


@pytest.mark.parametrize("k", [1, 3, 5, 9, 11])
def test_equals_naive_for_every_width_of_k(k):
    source = sources.Normal(n_experts=12, offsets="iqr")
    rule = AlfLB(schedule="constant", step_size=0.5)
    run = simulate(rule, source, n_tokens=7, k=k, horizon=3, comparator=np.zeros(12), n_records=9, n_exact=0)
    expected = naive.simulate(source, rule, np.zeros(12), 7, k, 3)
    assert run.loads.tolist() == [loads.tolist() for loads in expected["loads"]]
    np.testing.assert_allclose(run.regret, expected["regret"], atol=1e-5)

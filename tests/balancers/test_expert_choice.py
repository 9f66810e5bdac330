"""Expert choice: what each expert takes, tokens with none or many experts, and how that is counted."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balancesim as bs
from balancesim.balancers import ExpertChoice, registry
from balancesim.errors import InputError
from balancesim.runs import Outcome
from balancesim.sources import Normal
from tests.strategies import Batch, batches

SOURCE = Normal(n_experts=8, offsets="iqr", seed=3, transform="softmax")


def members(experts: Any, n_experts: int) -> Any:
    return np.array([np.isin(np.arange(n_experts), row) for row in experts])


@given(batches(masks=True), st.sampled_from(["floor", "ceil"]))
def test_against_sorting(batch: Batch, rounding: Any) -> None:
    scores, _, k = batch
    n_tokens, n_experts = scores.shape
    floor, remainder = divmod(n_tokens * k, n_experts)
    capacity = floor + (remainder > 0 and rounding == "ceil")
    rule = ExpertChoice(rounding=rounding)
    experts = rule.assign(rule.init(n_experts, k), scores.copy())[0].experts
    assert experts is not None
    assert experts.shape[1] >= k
    expected = np.zeros(scores.shape, np.bool_)
    for e in range(n_experts):
        order = sorted(range(n_tokens), key=lambda t, e=e: (-scores[t, e], t))
        expected[[t for t in order if scores[t, e] > -np.inf][:capacity], e] = True
    np.testing.assert_array_equal(members(experts, n_experts), expected)


def test_permuting_tokens_permutes_the_choice_where_none_tie() -> None:
    scores = SOURCE.batch(0, 40)
    order = np.random.default_rng(0).permutation(40)
    one, other = (ExpertChoice().assign(2, batch.copy())[0].experts for batch in (scores, scores[order]))
    np.testing.assert_array_equal(members(one, 8)[order], members(other, 8))


def test_a_run_counts_what_tokens_hold() -> None:
    run = bs.simulate(ExpertChoice(), SOURCE, n_tokens=60, k=2, horizon=12, n_records=12, n_exact=12)
    assert run.status.outcome is Outcome.HORIZON_REACHED
    assert (run.loads == 15).all()
    assert (run.max_violation == 0.0).all()
    lost = 0.0
    for step in range(12):
        scores = SOURCE.batch(step, 60).astype(np.float64)
        held = np.zeros(60, np.int64)
        kept = 0.0
        for e in range(8):
            tokens = np.argsort(-scores[:, e], kind="stable")[:15]
            held[tokens] += 1
            kept += scores[tokens, e].sum()
        assert run.drop_rate[step] == np.maximum(2 - held, 0).sum() / 120
        lost += (np.sort(scores, axis=1)[:, -2:].sum() - kept) / 60
        # A few thousand roundings of sums below one.
        assert run.score_lost[step] == pytest.approx(lost, abs=1e-12)
    assert (run.drop_rate > 0.0).all()
    assert np.isnan(run.bias).all()
    assert np.isnan(run.regret).all()
    # T K places are filled, without the tokens' constraint: no balanced assignment scores more.
    assert (run.score_over_exact > 0.0).all()
    assert run.kept_of_exact > 1.0


@pytest.mark.parametrize(("rounding", "load"), [("floor", 15), ("ceil", 16)])
def test_other_numbers_of_places_are_not_compared(rounding: Any, load: int) -> None:
    run = bs.simulate(ExpertChoice(rounding=rounding), SOURCE, n_tokens=61, k=2, horizon=3, n_exact=2)
    assert (run.loads == load).all()
    assert np.isnan(run.score_over_exact).all()
    assert np.isnan(run.kept_of_exact)
    assert np.isfinite(run.exact_score).all()
    assert np.isfinite(run.score_lost).all()


def test_experts_that_take_nothing() -> None:
    """T K < E and the floor: every place stays empty."""
    run = bs.simulate(ExpertChoice(), SOURCE, n_tokens=3, k=2, horizon=3, n_exact=0)
    assert (run.loads == 0).all()
    assert (run.drop_rate == 1.0).all()
    assert (run.max_violation == -1.0).all()
    np.testing.assert_allclose(run.score_lost, run.top_score, rtol=1e-15)


def test_bad_input_and_name() -> None:
    with pytest.raises(InputError, match='`rounding` must be "ceil" or "floor", got \'round\''):
        ExpertChoice(rounding="round")  # type: ignore[arg-type]
    assert registry()["expert-choice"] is ExpertChoice
    assert not ExpertChoice.causal
    assert ExpertChoice().describe() == "expert choice, floor of T K / E"

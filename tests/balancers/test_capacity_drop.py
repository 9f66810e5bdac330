"""Top-K with a capacity: what is kept, what is dropped, and how that is counted."""

from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balancesim as bs
from balancesim.balancers import CapacityDrop, NoBalance, registry
from balancesim.errors import InputError
from balancesim.problem import expert_capacity
from balancesim.runs import Outcome
from balancesim.sources import Normal
from tests import naive
from tests.strategies import Batch, batches

SOURCE = Normal(n_experts=8, offsets="iqr", seed=3)
SHORT: Any = {"n_tokens": 60, "k": 2, "horizon": 12, "n_records": 12}


@given(
    batches(masks=True),
    st.sampled_from(["0.25", "0.5", "1", "1.1", "1.25", "2"]),
    st.sampled_from(["ceil", "floor"]),
    st.sampled_from(["score", "position"]),
)
def test_against_sorting(batch: Batch, factor: str, rounding: Any, order: Any) -> None:
    scores, _, k = batch
    n_tokens, n_experts = scores.shape
    exact = Fraction(factor) * n_tokens * k / n_experts
    capacity = ceil(exact) if rounding == "ceil" else floor(exact)
    rule = CapacityDrop(factor=float(factor), rounding=rounding, order=order)
    experts = rule.assign(rule.init(n_experts, k), scores.copy())[0].experts
    assert experts is not None
    assert experts.shape == (n_tokens, k)
    choice = naive.choose(scores, np.zeros(n_experts), k)
    for e in range(n_experts):
        wanted = [t for t, own in enumerate(choice) if e in own]
        if order == "score":
            wanted.sort(key=lambda t, e=e: (-scores[t, e], t))
        assert set(np.flatnonzero((experts == e).any(axis=1))) == set(wanted[:capacity])


def test_a_factor_is_the_decimal_that_it_is_written_as() -> None:
    assert 1.1 * 50 > 55  # what binary arithmetic would round up
    for rounding in ("ceil", "floor"):
        assert expert_capacity(200, 8, 2, rounding=rounding, factor=1.1) == 55  # type: ignore[arg-type]
    assert expert_capacity(41, 8, 2, rounding="ceil") == 11
    assert expert_capacity(41, 8, 2, rounding="floor") == 10


@pytest.mark.parametrize("order", ["score", "position"])
def test_a_run_reports_what_is_dropped(order: Any) -> None:
    rule = CapacityDrop(factor=1.0, order=order)
    run, free = bs.simulate([rule, NoBalance()], SOURCE, **SHORT)
    assert run.status.outcome is Outcome.HORIZON_REACHED
    np.testing.assert_array_equal(run.loads, np.minimum(free.loads, 15))
    np.testing.assert_array_equal(run.drop_rate, (120 - run.loads.sum(axis=1)) / 120)
    assert (run.drop_rate > 0.0).all()
    assert (free.drop_rate == 0.0).all()
    assert (run.max_violation == 0.0).all()
    assert np.isnan(run.regret).all()
    # Empty places: a comparison with the optimum would depend on where the scores' zero is.
    assert np.isnan(run.score_over_exact).all()
    scores = SOURCE.batch(0, 60).astype(np.float64)
    experts = rule.assign(2, SOURCE.batch(0, 60))[0].experts
    assert experts is not None
    kept = np.where(experts >= 0, np.take_along_axis(scores, experts, axis=1), 0.0).sum()
    expected = (np.sort(scores, axis=1)[:, -2:].sum() - kept) / 60
    # Sums of 120 scores below ten, twice.
    assert run.score_lost[0] == pytest.approx(expected, abs=1e-12)


def test_by_score_less_score_is_dropped_than_by_position() -> None:
    """Where scores are positive, as a router's probabilities are."""
    source = Normal(n_experts=8, offsets="iqr", seed=3, transform="softmax")
    best, first = bs.simulate(
        [CapacityDrop(factor=1.0), CapacityDrop(factor=1.0, order="position")], source, **SHORT
    )
    np.testing.assert_array_equal(best.loads, first.loads)
    assert (best.score_lost < first.score_lost).all()


def test_the_records_window_is_averaged() -> None:
    every = bs.simulate(CapacityDrop(), SOURCE, **SHORT, n_exact=0)
    few = bs.simulate(CapacityDrop(), SOURCE, **{**SHORT, "n_records": 3}, n_exact=0)
    starts = np.concatenate([[0], few.steps[:-1]])
    for first, last, rate in zip(starts, few.steps, few.drop_rate, strict=True):
        assert rate == pytest.approx(every.drop_rate[first:last].mean(), rel=1e-14)


def test_room_for_all_drops_nothing() -> None:
    run, free = bs.simulate([CapacityDrop(factor=4.0), NoBalance()], SOURCE, **SHORT)
    np.testing.assert_array_equal(run.loads, free.loads)
    assert (run.drop_rate == 0.0).all()
    assert (run.score_lost == 0.0).all()
    # And the scores are held against the optimum's: T K places on both sides.
    np.testing.assert_array_equal(run.score_over_exact, free.score_over_exact)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": 0.0}, "`factor` must be a positive finite number, got 0.0"),
        ({"rounding": "up"}, '`rounding` must be "ceil" or "floor", got \'up\''),
        ({"order": "probs"}, '`order` must be "score" or "position", got \'probs\''),
    ],
)
def test_bad_input(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CapacityDrop(**settings)


def test_it_is_known_by_its_name() -> None:
    assert registry()["capacity-drop"] is CapacityDrop
    assert not CapacityDrop.causal
    assert CapacityDrop().describe() == "capacity 1.25 (ceil), dropped by score"

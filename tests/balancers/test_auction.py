"""The auction as a rule: balanced, within its bound, exact where scores are coarser than E epsilon."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given

import balancesim as bs
from balancesim.balancers import Auction, registry
from balancesim.errors import InputError
from balancesim.runs import Outcome
from balancesim.sources import FromFunction, Normal, Pareto, Recorded
from balancesim.types import FloatArray
from tests import naive
from tests.strategies import Assignment, assignments


def assigned(scores: FloatArray, k: int, **settings: Any) -> Any:
    rule = Auction(**settings)
    return rule.assign(rule.init(scores.shape[1], k), scores.copy())[0]


def value_of(scores: FloatArray, experts: Any) -> float:
    return float(np.take_along_axis(scores.astype(np.float64), experts, axis=1).sum())


def bound(scores: FloatArray, k: int, epsilon: float) -> float:
    n_tokens, n_experts = scores.shape
    remainder = n_tokens * k % n_experts
    return epsilon * (n_tokens * min(k, n_experts - k) + min(remainder, n_experts - remainder))


@given(assignments(masks=True))
def test_quarters_are_assigned_exactly(instance: Assignment) -> None:
    """Scores are multiples of 1/4 and epsilon is below that over E: any T K / E, ties and masks."""
    scores, k, _, _ = instance
    n_tokens, n_experts = scores.shape
    found = assigned(scores, k, epsilon=0.24 / n_experts)
    try:
        best = bs.solve(scores, k=k)
    except InputError as error:
        reason = str(error)
        assert (found.experts, found.reason) == (None, reason)
        return
    floor, remainder = divmod(n_tokens * k, n_experts)
    loads = np.bincount(found.experts.ravel(), minlength=n_experts)
    assert (loads >= floor).all()
    assert (loads <= floor + (remainder > 0)).all()
    assert (np.diff(np.sort(found.experts, axis=1), axis=1) > 0).all()
    assert value_of(scores, found.experts) == best.value


@pytest.mark.parametrize("seed", range(30))
def test_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_tokens, n_experts = int(rng.integers(2, 7)), int(rng.integers(2, 5))
    k = int(rng.integers(1, n_experts))
    scores = rng.integers(-8, 9, (n_tokens, n_experts)) / 4.0
    floor, remainder = divmod(n_tokens * k, n_experts)
    best = naive.best_value(*naive.assignments(scores, k), floor, floor + (remainder > 0))
    found = assigned(scores, k, epsilon=0.24 / n_experts)
    assert value_of(scores, found.experts) == best


def losses(epsilon: float) -> list[float]:
    """What instances in whole numbers lose, as (loss, E)."""
    lost = []
    for seed in range(60):
        rng = np.random.default_rng([seed, 1])
        n_experts = int(rng.integers(3, 7))
        scores = rng.integers(0, 6, (int(rng.integers(6, 30)), n_experts)).astype(np.float64)
        k = int(rng.integers(1, n_experts))
        lost.append(
            bs.solve(scores, k=k).value
            - value_of(scores, assigned(scores, k, epsilon=epsilon / n_experts).experts)
        )
    return lost


def test_epsilon_below_one_over_e_is_what_makes_it_exact() -> None:
    assert max(losses(0.99)) == 0.0
    # The negative control: the hypothesis dropped, on the same instances.
    assert max(losses(8.0)) >= 1.0


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 1e-3])
@pytest.mark.parametrize(("n_tokens", "n_experts", "k"), [(64, 8, 2), (61, 8, 3), (100, 7, 1), (30, 16, 15)])
def test_value_and_dual_are_within_the_bound(n_tokens: int, n_experts: int, k: int, epsilon: float) -> None:
    for source in (
        Normal(n_experts=n_experts, offsets="iqr", seed=1),
        Pareto(n_experts=n_experts, tail_index=1.5, seed=2),
        FromFunction(lambda u: np.floor(4.0 * u), n_experts=n_experts, seed=3),  # ties
    ):
        scores = source.batch(0, n_tokens).astype(np.float64)
        found = assigned(scores, k, epsilon=epsilon)
        value, best = value_of(scores, found.experts), bs.solve(scores, k=k).value
        dual = bs.dual_value(scores, found.bias, k=k, capacity="integral")
        # Sums of T K scores: rounding a few thousand times 2**-53 of their magnitude.
        rounding = 1e-12 * np.abs(scores).sum()
        assert value - rounding <= best <= dual + rounding
        assert dual - value <= bound(scores, k, epsilon) + rounding
        # Nobody would gain more than epsilon.
        biased = scores + found.bias
        held = np.zeros(scores.shape, np.bool_)
        np.put_along_axis(held, found.experts, True, axis=1)
        gain = np.where(held, -np.inf, biased).max(axis=1) - np.where(held, biased, np.inf).min(axis=1)
        assert gain.max() <= epsilon + rounding


def test_scaling_is_tenfold_from_the_typical_lead() -> None:
    scores = np.array([[5.0, 1.0, 0.0], [3.0, 2.0, 1.0], [4.0, -np.inf, 3.0]])
    # Leads of the best over the second: 4, 1 and 1.
    np.testing.assert_allclose(Auction(epsilon=0.02).epsilons(scores, 1), [2.0, 0.2, 0.02], rtol=1e-15)
    np.testing.assert_allclose(Auction(epsilon=3.0).epsilons(scores, 1), [3.0], rtol=1e-15)


def test_another_order_of_tokens_stays_within_the_bound() -> None:
    scores = Normal(n_experts=8, offsets="iqr", seed=5).batch(0, 60).astype(np.float64)
    order = np.random.default_rng(0).permutation(60)
    values = [value_of(one, assigned(one, 2, epsilon=0.01).experts) for one in (scores, scores[order])]
    assert abs(values[0] - values[1]) <= bound(scores, 2, 0.01)


def test_masks_that_leave_no_balanced_assignment_end_the_run() -> None:
    rows = np.random.default_rng(0).standard_normal((24, 4))
    rows[12:, 3] = -np.inf
    run = bs.simulate(Auction(), Recorded(rows), n_tokens=12, k=1, horizon=2, comparator=np.zeros(4))
    assert run.status.outcome is Outcome.NOT_ASSIGNED
    assert "at step 2 of 2: `scores` leave expert 3 to 0 of 12 tokens" in run.status.reason


def test_too_many_bids_end_the_run() -> None:
    run = bs.simulate(
        Auction(max_bids=1, epsilon=1e-6), Normal(n_experts=4), n_tokens=40, k=2, horizon=3, n_exact=0
    )
    assert run.status.outcome is Outcome.NOT_ASSIGNED
    assert "not ended after `max_bids` = 1 bids per token; raise that or `epsilon`" in run.status.reason


def test_scores_that_epsilon_is_lost_in_end_with_a_reason_or_an_assignment() -> None:
    """An epsilon far below the rounding of the scores: no endless auction."""
    scores = np.random.default_rng(0).integers(0, 3, (30, 3)) * 1e17
    found = assigned(scores, 1, epsilon=1e-3, max_bids=50)
    assert found.experts is not None or "`max_bids`" in found.reason


def test_a_run_is_exact_to_a_hair() -> None:
    source = Normal(n_experts=6, offsets="iqr", seed=1)
    run = bs.simulate(Auction(epsilon=1e-4), source, n_tokens=31, k=2, horizon=20, n_records=20)
    assert run.status.outcome is Outcome.HORIZON_REACHED
    assert set(np.unique(run.loads)) == {10, 11}
    assert (run.drop_rate == 0.0).all()
    # The bound, per token: K epsilon for the choice, and the reserve's.
    assert (run.score_over_exact <= 1e-12).all()
    assert (run.score_over_exact >= -(2 + 2 / 31) * 1e-4).all()
    assert (np.diff(run.regret, prepend=0.0) <= 1e-3).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0.0}, "`epsilon` must be a positive finite number, got 0.0"),
        ({"epsilon": float("nan")}, "`epsilon`"),
        ({"max_bids": 0}, "`max_bids` must be at least 1, got 0"),
        ({"max_bids": 1.5}, "`max_bids` must be an integer"),
    ],
)
def test_bad_input(settings: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Auction(**settings)


def test_it_is_known_by_its_name() -> None:
    assert registry()["auction"] is Auction
    assert not Auction.causal
    assert Auction().describe() == "auction, epsilon 0.001"

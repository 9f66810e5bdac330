"""Current-batch rules of one's own: twenty lines that run, and one clear error for what cannot."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given

import balancesim as bs
from balancesim.assignments import (
    chosen_scores,
    empty_places,
    excess,
    loads_of,
    routed_scores,
    top_scores,
)
from balancesim.balancers import AlfLB, Assignment, BatchRule, CompiledRule, NoBalance
from balancesim.errors import InputError
from balancesim.runs import Outcome
from balancesim.sources import Normal, Recorded, TokenStream
from balancesim.types import FloatArray
from tests.strategies import Batch, batches

SOURCE = Normal(n_experts=8, offsets="iqr", seed=3)
SHORT: Any = {"n_tokens": 60, "k": 2, "horizon": 40}


@dataclass(frozen=True)
class Greedy(BatchRule):
    """Tokens choose in order, among the experts that are not full."""

    name = "greedy"
    slack: float = 1.25

    def init(self, n_experts, k):
        del n_experts
        return k

    def assign(self, state, scores):
        n_tokens, n_experts = scores.shape
        room = np.full(n_experts, int(np.ceil(self.slack * n_tokens * state / n_experts)))
        experts = np.empty((n_tokens, state), np.int64)
        for token, row in enumerate(scores):
            order = np.argsort(-np.where(room > 0, row, -np.inf), kind="stable")
            experts[token] = order[:state]
            room[experts[token]] -= 1
        return Assignment(experts), state


@dataclass(frozen=True)
class Priced(BatchRule):
    """ALF-LB in the guise of a rule that sees the batch."""

    name = "priced"
    twin: AlfLB

    def init(self, n_experts, k):
        return self.twin.init(n_experts, k)

    def assign(self, state, scores):
        bias = self.twin.bias(state)
        routed = bs.route(scores, bias, k=state.k, experts=True)
        scores[:] = np.nan  # the copy is the rule's own
        return Assignment(routed.experts[:, ::-1], bias), self.twin.update(state, routed.loads, None)


@dataclass(frozen=True)
class Returning(BatchRule):
    """A rule that returns whatever it was given."""

    name = "returning"
    value: Any

    def init(self, n_experts, k):
        del n_experts, k

    def assign(self, state, scores):
        del state, scores
        return self.value


def test_a_rule_of_ones_own_runs():
    run = bs.simulate(Greedy(), SOURCE, **SHORT)
    assert run.status.outcome is Outcome.HORIZON_REACHED
    assert (run.loads <= 19).all()  # the ceiling of 1.25 T K / E
    assert (run.score_lost > 0.0).all()
    # It has no price: no bias and no regret are made up for it.
    assert np.isnan(run.bias).all()
    assert np.isnan(run.regret).all()
    assert run.exact_steps.size == 8
    assert run.kept_of_exact < 1.0


@pytest.mark.parametrize("source", [SOURCE, TokenStream()])
def test_a_batch_rule_that_routes_by_a_price_equals_the_price_rule(source):
    """The kernel routes and measures the one; Python routes and counts the other."""
    twin = AlfLB(schedule="sqrt", step_size=2.0)
    among = bs.simulate([twin, Priced(twin), Priced(twin), Greedy()], source, **SHORT)
    price, batch, again, _ = among
    for name in ("loads", "window_loads", "max_violation", "mean_max_violation", "regret", "top_score"):
        assert np.array_equal(getattr(price, name), getattr(batch, name)), name
        assert np.array_equal(getattr(batch, name), getattr(again, name)), name
    # Differences of sorted scores against differences of biased ones, plus the price that moved.
    np.testing.assert_allclose(batch.score_lost, price.score_lost, atol=2e-5)
    np.testing.assert_array_equal(batch.bias[1:], price.bias[:-1])
    # The bias after the last record routes the next batch of the one, the state after it that of the other.
    np.testing.assert_array_equal(batch.exact_steps, price.exact_steps)
    np.testing.assert_array_equal(batch.score_over_exact, price.score_over_exact)


def test_a_batch_rule_has_the_same_bits_alone_and_among_others():
    rules = [Greedy(), NoBalance(), Greedy(slack=1.5), Priced(AlfLB())]
    for run in bs.simulate(rules, SOURCE, **SHORT):
        alone = bs.simulate(run.rule, SOURCE, **SHORT)
        for name in ("loads", "score_lost", "regret", "top_score", "exact_score", "score_over_exact"):
            assert np.array_equal(getattr(run, name), getattr(alone, name), equal_nan=True), name


def test_replayed_scores_give_the_same_bits():
    rows = np.concatenate([SOURCE.batch(step, 60) for step in range(41)])
    drawn = bs.simulate(Greedy(), SOURCE, **SHORT, comparator=np.zeros(8))
    replayed = bs.simulate(Greedy(), Recorded(rows), **SHORT, comparator=np.zeros(8))
    for name in ("loads", "score_lost", "exact_steps", "exact_score", "score_over_exact"):
        assert np.array_equal(getattr(drawn, name), getattr(replayed, name)), name


GOOD = np.tile([0, 1], (60, 1))


def changed(token: int, place: int, expert: int) -> Any:
    experts = GOOD.copy()
    experts[token, place] = expert
    return experts


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (GOOD, "must return an Assignment and the state after it, got array"),
        ((GOOD, None), "must return an Assignment and the state after it"),
        (Assignment(GOOD), "must return an Assignment and the state after it"),
        (
            (Assignment(GOOD[:59]), None),
            r"must return \(T, K\) = \(60, 2\) experts, or more places, got \(59, 2\)",
        ),
        ((Assignment(GOOD[:, :1]), None), r"got \(60, 1\)"),
        ((Assignment(GOOD.astype(np.float64)), None), "must return integers for experts, got float64"),
        ((Assignment(changed(7, 1, 8)), None), "from 0 to 7, or -1 for an empty place, got 8 at token 7"),
        ((Assignment(changed(7, 0, -2)), None), "or -1 for an empty place, got -2 at token 7"),
        (
            (Assignment(changed(9, 1, 0)), None),
            "different experts for a token, got expert 0 twice at token 9",
        ),
        ((Assignment(GOOD, np.zeros(3)), None), r"one number per expert, \(8,\), got \(3,\)"),
    ],
)
def test_what_is_no_assignment_is_one_clear_error(value, message):
    with pytest.raises(InputError, match=message):
        bs.simulate([NoBalance(), Returning(value)], SOURCE, **SHORT)


def test_a_masked_expert_may_not_be_chosen():
    rows = np.random.default_rng(0).standard_normal((300, 8))
    rows[5, 1] = -np.inf
    with pytest.raises(InputError, match="unmasked experts, got expert 1, masked, at token 5"):
        bs.simulate(Returning((Assignment(GOOD), None)), Recorded(rows), **SHORT, comparator=np.zeros(8))


@pytest.mark.parametrize("bias", [np.full(8, np.nan), np.full(8, 1e37)])
def test_a_bias_that_no_score_can_be_added_to_ends_the_run(bias):
    run = bs.simulate(Returning((Assignment(GOOD, bias), None)), SOURCE, **SHORT)
    assert run.status.outcome is Outcome.NOT_ASSIGNED
    assert "at step 1 of 40: its bias is not finite, or too large" in run.status.reason
    assert run.steps.size == run.exact_steps.size == 0
    assert run.loads.shape == (0, 8)


def test_a_rule_may_give_up_with_a_reason():
    refusal = Returning((Assignment(None, reason="too many tokens"), None))
    run, other = bs.simulate([refusal, Greedy()], SOURCE, **SHORT)
    assert run.status.reason == "the rule found no assignment (at step 1 of 40: too many tokens)"
    assert other.status.outcome is Outcome.HORIZON_REACHED


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sorted_scores(dtype: Any):
    scores: FloatArray = np.array([[3.0, -np.inf, 1.0, 2.0], [1e30, 0.5, 0.25, -1.0]], dtype)
    assert top_scores(scores, 2).tolist() == [[2.0, 3.0], [0.5, float(dtype(1e30))]]
    assert chosen_scores(scores, np.array([[2, 0], [0, 3]])).tolist() == [
        [1.0, 3.0],
        [-1.0, float(dtype(1e30))],
    ]
    # The large score that both hold leaves no trace.
    assert (top_scores(scores, 2) - chosen_scores(scores, np.array([[2, 0], [0, 3]]))).sum() == 2.5


def test_places_that_stay_empty():
    scores = np.array([[3.0, -1.0, 2.0], [5.0, 4.0, 1.0], [1.0, 0.5, 0.0]])
    experts = np.array([[0, -1, -1], [-1, -1, -1], [2, 1, 0]])
    assert chosen_scores(scores, experts).tolist() == [[0.0, 0.0, 3.0], [0.0] * 3, [0.0, 0.5, 1.0]]
    assert loads_of(experts, 3).tolist() == [2, 1, 1]
    # A third expert for the last token does not make up for what others lack.
    assert empty_places(experts, 2) == 3
    # Lost: 2, then 9, then nothing, with 0 gained by the third expert.
    assert excess(chosen_scores(scores, experts), top_scores(scores, 2)) == -11.0


def test_a_large_score_that_both_sides_hold_leaves_no_trace():
    scores = np.array([[1e30, 0.5, 0.25, -1.0]])
    for experts, expected in (([0, -1], -0.5), ([2, 0], -0.25), ([0, 1, 2], 0.25), ([3, 2, 0], -1.25)):
        given_up = excess(chosen_scores(scores, np.array([experts])), top_scores(scores, 2))
        assert given_up == expected, experts


@dataclass(frozen=True)
class Uneven(BatchRule):
    """As many experts for a token as its number modulo four says."""

    name = "uneven"

    def init(self, n_experts, k):
        del n_experts, k

    def assign(self, state, scores):
        order = np.argsort(-scores, axis=1, kind="stable")[:, :3]
        order[np.arange(3) >= np.arange(len(scores))[:, None] % 4] = -1
        return Assignment(order[:, ::-1]), state


def test_a_variable_number_of_experts():
    run = bs.simulate(Uneven(), SOURCE, **SHORT)
    assert (run.loads.sum(axis=1) == 15 * (0 + 1 + 2 + 3)).all()
    np.testing.assert_array_equal(run.drop_rate, 15 * (2 + 1) / 120)
    # 90 places are not 120.
    assert np.isnan(run.score_over_exact).all()
    top = -np.sort(-SOURCE.batch(0, 60).astype(np.float64), axis=1)
    lost = sum(top[t, :2].sum() - top[t, : t % 4].sum() for t in range(60)) / 60
    # Sums of 150 scores below ten.
    assert run.score_lost[0] == pytest.approx(lost, abs=1e-12)


@dataclass(frozen=True, kw_only=True)
class AboveZero(CompiledRule):
    """Every expert whose score is positive: a threshold rule that learns nothing."""

    name = "above-zero"
    threshold = True
    compiled_update = None

    def parameters(self):
        return ()


def test_the_drop_rate_of_a_threshold_rule():
    run = bs.simulate(AboveZero(), SOURCE, n_tokens=75, k=2, horizon=5, n_records=9)
    for step in range(5):
        held = (SOURCE.batch(step, 75) > 0.0).sum(axis=1)
        assert run.drop_rate[step] == np.maximum(2 - held, 0).sum() / 150
    assert (run.drop_rate > 0.0).all()


@given(batches(masks=True))
def test_routed_scores_are_those_of_route(batch: Batch):
    experts = bs.route(batch.scores, batch.bias, k=batch.k, experts=True).experts
    assert experts is not None
    found = routed_scores(batch.scores, batch.bias, batch.k)
    assert np.array_equal(found, chosen_scores(batch.scores, experts))

"""Group-limited choice: against the definition, as no limit, under permutations of groups, bad input."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balancesim as bs
from balancesim.balancers import (
    AlfLB,
    Delayed,
    Exact,
    ExpertThreshold,
    NoBalance,
    PriceRule,
    QuantileBalance,
)
from balancesim.errors import InputError
from balancesim.runs import Outcome
from balancesim.sources import Normal, Recorded
from tests import naive
from tests.strategies import grouped_batches


def summed(groups: bs.GroupLimit) -> tuple[int, int, int]:
    return groups.n_groups, groups.n_chosen, 2 if groups.score == "top2" else 1


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@given(batch=grouped_batches())
def test_route_equals_the_definition(backend: Any, batch: Any) -> None:
    scores, bias, k, groups = batch
    found = bs.route(scores, bias, k=k, groups=groups, experts=True, backend=backend)
    expected = naive.choose(naive.limit(scores, bias, *summed(groups)), bias, k)
    assert found.experts is not None
    assert found.experts.tolist() == expected
    assert found.loads.tolist() == naive.loads_of(expected, scores.shape[1])
    # Quarters: every sum is exact.
    assert found.score == np.take_along_axis(scores, found.experts, axis=1).sum(dtype=np.float64)
    assert found.value == found.score + float(found.loads @ bias.astype(np.float64))


@given(grouped_batches())
def test_a_token_uses_no_more_groups_than_allowed(batch: Any) -> None:
    scores, bias, k, groups = batch
    experts = bs.route(scores, bias, k=k, groups=groups, experts=True).experts
    assert experts is not None
    used = experts // (scores.shape[1] // groups.n_groups)
    assert max(len(set(row)) for row in used.tolist()) <= groups.n_chosen


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@given(batch=grouped_batches(), one=st.booleans())
def test_one_group_and_all_groups_are_no_limit(backend: Any, batch: Any, one: bool) -> None:
    scores, bias, k, groups = batch
    wide = (1, 1) if one else (groups.n_groups, groups.n_groups)
    limit = bs.GroupLimit(*wide, score="max" if one else groups.score)
    found = bs.route(scores, bias, k=k, groups=limit, experts=True, backend=backend)
    plain = bs.route(scores, bias, k=k, experts=True, backend=backend)
    assert found.experts is not None
    assert plain.experts is not None
    assert (found.experts == plain.experts).all()
    assert (found.value, found.score) == (plain.value, plain.score)


@given(grouped_batches(), st.randoms(use_true_random=False))
def test_permuting_groups_permutes_the_loads(batch: Any, random: Any) -> None:
    """Wherever no two groups of a token and no two experts tie, which is what the tie rules are for."""
    scores, bias, k, groups = batch
    n_experts = scores.shape[1]
    # Different powers of two, all below a quarter: no two experts and no two groups' sums tie.
    scores = scores.astype(np.float64) + 2.0 ** -(3 + np.arange(n_experts))
    order = list(range(groups.n_groups))
    random.shuffle(order)
    columns = np.arange(n_experts).reshape(groups.n_groups, -1)[order].ravel()
    plain = bs.route(scores, bias, k=k, groups=groups)
    permuted = bs.route(scores[:, columns], bias[columns], k=k, groups=groups)
    assert (plain.loads[columns] == permuted.loads).all()
    assert plain.value == permuted.value


def test_ties_go_to_the_lower_group_and_the_lower_expert() -> None:
    scores = np.zeros((3, 8))
    for backend in ("numba", "numpy"):
        found = bs.route(scores, k=3, groups=bs.GroupLimit(4, 2), experts=True, backend=backend)
        assert found.experts is not None
        assert found.experts.tolist() == [[0, 1, 2]] * 3


def test_what_a_group_scores() -> None:
    scores = np.array([[4.0, 0.0, 3.0, 2.0, 1.0, 1.0]])  # groups (4, 0), (3, 2), (1, 1)
    top2, best = (bs.GroupLimit(3, 1, score=score) for score in ("top2", "max"))
    for limit, experts in ((top2, [2, 3]), (best, [0, 1])):
        found = bs.route(scores, k=2, groups=limit, experts=True).experts
        assert found is not None
        assert found.tolist() == [experts]


def test_masks() -> None:
    scores = np.array([[3.0, 1.0, 2.0, 1.0, 0.0, 0.0], [0.0, 5.0, 1.0, 1.0, 0.0, 0.0]])
    scores[1, 0] = -np.inf  # its group's best two are then masked in part: it comes last
    for backend in ("numba", "numpy"):
        found = bs.route(scores, k=2, groups=bs.GroupLimit(3, 1), experts=True, backend=backend)
        assert found.experts is not None
        assert found.experts.tolist() == [[0, 1], [2, 3]]
        message = "at least k = 2 experts of its best groups unmasked, got 1 at token 1"
        with pytest.raises(InputError, match=message):
            bs.route(scores, k=2, groups=bs.GroupLimit(3, 1, score="max"), backend=backend)
        scores[0, 5] = np.nan
        with pytest.raises(InputError, match="got nan at token 0, expert 5"):
            bs.route(scores, k=2, groups=bs.GroupLimit(3, 1), backend=backend)
        scores[0, 5] = 0.0


def test_same_bits_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).standard_normal((40_001, 32)).astype(np.float32)
    limit = bs.GroupLimit(8, 3)
    several = bs.route(scores, k=5, groups=limit, experts=True)
    monkeypatch.setattr("balancesim.batches._n_threads", lambda: 1)
    one = bs.route(scores, k=5, groups=limit, experts=True)
    assert several.experts is not None
    assert one.experts is not None
    assert several.value == one.value
    assert (several.experts == one.experts).all()


@pytest.mark.parametrize(
    ("groups", "k", "message"),
    [
        (lambda: bs.GroupLimit(5, 2), 2, "`n_groups` must divide the 12 experts, got 5"),
        (lambda: bs.GroupLimit(4, 5), 2, "`n_chosen` must be at most n_groups = 4, got 5"),
        (lambda: bs.GroupLimit(0, 1), 2, "`n_groups` must be at least 1, got 0"),
        (lambda: bs.GroupLimit(4, 0), 2, "`n_chosen` must be at least 1, got 0"),
        (lambda: bs.GroupLimit(4.0, 1), 2, "`n_groups` must be an integer, got 4.0"),  # type: ignore[arg-type]
        (lambda: bs.GroupLimit(4, 1, score="top3"), 2, "did you mean 'top2'"),  # type: ignore[arg-type]
        (lambda: bs.GroupLimit(12, 2), 2, 'leaves one expert a group; "top2" needs two, use score="max"'),
        (lambda: bs.GroupLimit(4, 1), 4, "`n_chosen` = 1 groups hold 3 experts, below k = 4"),
        (lambda: (4, 1), 2, r"`groups` must be a GroupLimit or None, got \(4, 1\)"),
    ],
)
def test_bad_input(groups: Any, k: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bs.route(np.zeros((3, 12)), k=k, groups=groups())
    with pytest.raises(InputError, match=message):
        bs.simulate(NoBalance(), Normal(n_experts=12), k=k, groups=groups(), horizon=1)


SOURCE = Normal(n_experts=12, offsets="iqr", seed=5)
SHORT = {"n_tokens": 60, "k": 3, "horizon": 30}
LIMIT = bs.GroupLimit(4, 2)


def test_a_limit_that_allows_every_group_is_none() -> None:
    plain = bs.simulate(AlfLB(step_size=2.0), SOURCE, **SHORT)
    allowed = bs.simulate(AlfLB(step_size=2.0), SOURCE, **SHORT, groups=bs.GroupLimit(4, 4))
    for name in ("loads", "bias", "regret", "score_lost", "score_over_exact"):
        assert np.array_equal(getattr(plain, name), getattr(allowed, name))


def test_regret_is_not_a_number_and_the_rest_is() -> None:
    run = bs.simulate(AlfLB(step_size=2.0), SOURCE, **SHORT, groups=LIMIT)
    assert np.isnan(run.regret).all()
    for name in ("bias", "score_lost", "top_score", "max_violation", "score_over_exact"):
        assert np.isfinite(getattr(run, name)).all()


def test_why_regret_is_not_a_number() -> None:
    """The price moves D, yet D's subgradient is not the loads: a limited choice is no maximiser."""
    scores, bias = SOURCE.batch(0, 400), np.linspace(-0.5, 0.5, 12)
    step = np.eye(12)[7] * 1e-3
    slope = (bs.dual_value(scores, bias + step, k=3) - bs.dual_value(scores, bias, k=3)) / 1e-3
    plain = bs.route(scores, bias, k=3).loads[7] - 100
    limited = bs.route(scores, bias, k=3, groups=LIMIT).loads[7] - 100
    assert abs(slope - plain) <= 1.0  # at most a token that changes its mind within the step
    assert abs(slope - limited) > 5.0


def test_exact_comparison_is_of_the_limited_choice() -> None:
    run = bs.simulate(AlfLB(step_size=2.0), SOURCE, **SHORT, groups=LIMIT, n_exact=1)
    scores = SOURCE.batch(30, 60)
    found = bs.route(scores, run.bias[-1], k=3, groups=LIMIT).score
    optimum = bs.solve(scores, k=3).value
    # Sums of 180 float32 scores of order one.
    assert run.score_over_exact[-1] * 60 == pytest.approx(found - optimum, abs=1e-3)


def test_a_rule_in_python_sees_the_limited_loads() -> None:
    class InPython(PriceRule):
        name = "in-python"
        twin = AlfLB(step_size=2.0)

        def init(self, n_experts: int, k: int) -> Any:
            return self.twin.init(n_experts, k)

        def bias(self, state: Any) -> Any:
            return self.twin.bias(state)

        def update(self, state: Any, loads: Any, probabilities: Any) -> Any:
            return self.twin.update(state, loads, probabilities)

    compiled, interpreted = bs.simulate([InPython.twin, InPython()], SOURCE, **SHORT, groups=LIMIT)
    assert np.array_equal(compiled.loads, interpreted.loads)
    assert np.array_equal(compiled.bias, interpreted.bias)


def test_a_current_batch_rule_is_refused() -> None:
    with pytest.raises(InputError, match="exact optimum of each batch assigns without one"):
        bs.simulate(Exact(), SOURCE, **SHORT, groups=LIMIT)


@pytest.mark.parametrize(
    "rule", [QuantileBalance(), ExpertThreshold(), Delayed(rule=QuantileBalance(), lag=1)]
)
def test_rules_that_balance_a_choice_among_all_experts_are_refused(rule: PriceRule) -> None:
    with pytest.raises(InputError, match="balances a choice among all"):
        bs.simulate(rule, SOURCE, **SHORT, groups=LIMIT)


def test_groups_without_room_end_the_run() -> None:
    rows = SOURCE.batch(0, 180).astype(np.float64)
    rows[150, :5] = -np.inf  # token 30 of the third batch: groups 0 and 1 keep one expert between them
    rows[150, 5:] = [9.0, -5.0, -5.0, -5.0, -5.0, -5.0, -5.0]
    limit = bs.GroupLimit(4, 1, score="max")
    run = bs.simulate(NoBalance(), Recorded(rows), n_tokens=60, k=3, horizon=3, groups=limit, n_exact=0)
    assert run.status.outcome is Outcome.NOT_ASSIGNED
    assert run.status.step == 2
    assert run.steps.tolist() == [1, 2]
    assert (
        "at step 3 of 3: a token's groups hold fewer than k = 3 unmasked experts; raise n_chosen"
        in run.status.reason
    )


@pytest.mark.parametrize("schedule", ["harmonic", "sign"])
def test_prices_balance_under_a_limit(schedule: Any) -> None:
    """One fixed draw; a mean over 150 steps has a relative standard error of about 2 %."""
    source = Normal(n_experts=16, offsets="iqr", seed=11)
    sizes = {"n_tokens": 256, "k": 4, "horizon": 1500, "n_records": 1500, "n_exact": 0}
    rules = [NoBalance(), AlfLB(schedule=schedule, step_size=1.0 if schedule == "harmonic" else 0.01)]
    none, balanced = bs.simulate(rules, source, **sizes, groups=bs.GroupLimit(4, 2))  # type: ignore[call-overload]
    floor = bs.theory.max_violation_floor(256, 16, 4).value
    assert none.max_violation[-150:].mean() > 3.0 * floor
    assert balanced.max_violation[-150:].mean() < 1.1 * floor
    # Groups are balanced with their experts: over 150 batches, to a few per cent of their load.
    loads = balanced.loads[-150:].sum(axis=0).reshape(4, -1).sum(axis=1)
    assert bs.max_violation(loads) < 0.05

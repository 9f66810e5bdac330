"""Score kept relative to the exact optimum: its definition, what bounds it, and where it ends."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import balancesim as bs
from balancesim import oracle
from balancesim.balancers import AlfLB, Exact, NoBalance
from balancesim.errors import InputError
from balancesim.exact import SolveOutcome, SolveStatus
from balancesim.runs import Outcome, Run
from balancesim.sources import Normal, Pareto, Recorded, Source, TokenStream, Uniform
from tests.test_assignments import Greedy

SOURCE = Uniform(n_experts=6, offsets="iqr", seed=5)
RULES: Any = [NoBalance(), AlfLB(schedule="sign", step_size=0.01), AlfLB(), Exact(), Greedy()]
SHORT: Any = {"n_tokens": 30, "k": 2, "horizon": 50}


def test_it_is_what_route_and_solve_say() -> None:
    """The batch after the record, routed by the bias of the record, against its own optimum."""
    run = bs.simulate(RULES[1], SOURCE, **SHORT, n_exact=3)
    assert run.exact_steps.tolist() == run.steps[-3:].tolist()
    total = best = 0.0
    for i, step in enumerate(run.exact_steps):
        scores = SOURCE.batch(int(step), 30)
        routed = bs.route(scores, run.bias[run.steps == step][0], k=2, experts=True)
        score = np.take_along_axis(scores.astype(np.float64), routed.experts, axis=1).sum()
        exact = bs.solve(scores, k=2).value
        assert run.exact_score[i] == pytest.approx(exact / 30, rel=1e-12)
        assert run.score_over_exact[i] == pytest.approx((score - exact) / 30, abs=1e-12)
        total, best = total + score, best + exact
    assert run.kept_of_exact == pytest.approx(total / best, rel=1e-12)


def test_a_following_batch_is_the_next_step_s() -> None:
    """Seen from a longer run: what is measured after step n is the score of step n + 1."""
    run = bs.simulate(RULES[1], SOURCE, **{**SHORT, "horizon": 8}, n_records=9, n_exact=3)
    longer = bs.simulate(RULES[1], SOURCE, **{**SHORT, "horizon": 9}, n_records=9)
    kept = np.diff(longer.top_score - longer.score_lost)
    np.testing.assert_allclose(run.exact_score + run.score_over_exact, kept[-3:], atol=1e-6)


@pytest.mark.parametrize("source", [SOURCE, Pareto(n_experts=6, tail_index=0.5, seed=1), TokenStream(seed=2)])
def test_exact_keeps_all(source: Source) -> None:
    run = bs.simulate(Exact(), source, **SHORT)
    scale = np.abs(run.exact_score).max()
    np.testing.assert_allclose(run.score_over_exact, 0.0, atol=1e-12 * scale)
    if run.exact_score.sum() > 0.0:
        assert run.kept_of_exact == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("n_experts", [5, 7])
def test_no_balanced_choice_beats_it_and_imbalance_does(n_experts: int) -> None:
    """Weak duality: loads within floor and ceiling keep at most all. Its negative control: other loads."""
    source = Normal(n_experts=n_experts, offsets="iqr", seed=4)
    setting: Any = {"n_tokens": 35, "k": 1, "horizon": 60, "n_records": 60, "n_exact": 60}
    free, balanced = bs.simulate([NoBalance(), Greedy(slack=1.0)], source, **setting)
    assert (balanced.loads == 35 // n_experts).all()
    assert (balanced.score_over_exact < 0.0).all()
    assert balanced.kept_of_exact < 1.0
    assert (free.score_over_exact > 0.0).all()
    assert free.kept_of_exact > 1.0


def test_a_causal_rule_with_balanced_loads_does_not_beat_it() -> None:
    """Each token has its own favourite, in turn, so that any small bias routes in perfect balance."""
    noise = np.random.default_rng(0).uniform(0.0, 0.5, (31 * 12, 6))
    rows = noise + np.eye(6)[np.arange(len(noise)) % 6]
    rules = [NoBalance(), AlfLB(schedule="constant", step_size=1.0)]
    for run in bs.simulate(rules, Recorded(rows), n_tokens=12, k=1, horizon=30, comparator=np.zeros(6)):
        assert (run.loads == 2).all()
        assert (run.score_over_exact <= 0.0).all()
        assert run.kept_of_exact == pytest.approx(1.0, abs=1e-15)


# Experts so far apart that a sign step of 1e35 climbs past what float32 allows, at the fourth step.
FAR = Normal(n_experts=3, scale=1e33, offsets=(0.0, 1e36, 2e36))
CLIMBING = AlfLB(schedule="sign", step_size=1e35)


@pytest.mark.parametrize("source", [SOURCE, FAR])
def test_a_rule_has_the_same_numbers_alone_and_among_others(source: Source) -> None:
    # One that ends early asks for other batches; they do not change what the others get.
    for run in bs.simulate([CLIMBING, *RULES], source, **SHORT):
        alone = bs.simulate(run.rule, source, **SHORT)
        for name in ("exact_steps", "exact_score", "score_over_exact"):
            assert np.array_equal(getattr(run, name), getattr(alone, name)), name


def test_a_run_that_ends_early_is_compared_as_far_as_it_went() -> None:
    run = bs.simulate(CLIMBING, FAR, **SHORT)
    assert run.status.outcome is Outcome.BIAS_NOT_FINITE
    assert run.steps.tolist() == [1, 2, 3, 4]
    assert run.exact_steps.tolist() == [1, 2, 3]
    assert np.isfinite(run.score_over_exact).all()


@pytest.mark.parametrize(("n_rows", "steps"), [(90, [1, 2]), (95, [1, 2]), (30, [])])
def test_a_recording_that_ends_has_no_batch_after_its_last(n_rows: int, steps: list[int]) -> None:
    rows = np.random.default_rng(0).standard_normal((n_rows, 6))
    for run in bs.simulate(RULES, Recorded(rows), **SHORT, comparator=np.zeros(6)):
        assert run.status.outcome is Outcome.DATA_EXHAUSTED
        assert run.exact_steps.tolist() == steps
        assert len(run.exact_score) == len(run.score_over_exact) == len(steps)
        assert math.isnan(run.kept_of_exact) == (not steps)


def test_none_when_none_is_asked_for() -> None:
    for run in bs.simulate(RULES, SOURCE, **SHORT, n_exact=0):
        assert run.exact_steps.size == run.exact_score.size == run.score_over_exact.size == 0
        assert math.isnan(run.kept_of_exact)
    with pytest.raises(InputError, match="`n_exact` must be at least 0"):
        bs.simulate(RULES, SOURCE, **SHORT, n_exact=-1)


def test_a_score_that_is_not_positive_has_no_share() -> None:
    run = bs.simulate(RULES[0], replace(SOURCE, offsets=(-5.0,) * 6), **SHORT)
    assert math.isnan(run.kept_of_exact)
    shifted = bs.simulate(RULES[0], SOURCE.__class__(n_experts=6, seed=5), **SHORT)
    np.testing.assert_allclose(run.score_over_exact, shifted.score_over_exact, atol=1e-5)


def test_heavy_tails_lose_nothing_to_cancellation() -> None:
    """Scores up to 1e60: what is over the optimum is a difference of those that differ, not of sums."""
    source = Pareto(n_experts=6, tail_index=0.05, seed=3)
    run = bs.simulate(NoBalance(), source, **SHORT)
    for step, over in zip(run.exact_steps, run.score_over_exact, strict=True):
        scores = source.batch(int(step), 30)
        # Optima of such scores are one to 1e-12 of the largest: from another start, another of them.
        exact = bs.solve(scores, k=2, bias=run.comparator.bias)
        assert exact.experts is not None
        free = bs.route(scores, k=2, experts=True).experts
        gains = [
            math.fsum([*row[list(set(a) - set(b))], *-row[list(set(b) - set(a))]])
            for row, a, b in zip(scores, free.tolist(), exact.experts.tolist(), strict=True)
        ]
        assert over == pytest.approx(math.fsum(gains) / 30, rel=1e-12)


def test_what_the_exact_optimum_pays_for_sampling_noise() -> None:
    """f_n(p*) - min f_n is half of g' H^+ g: with exchangeable experts K(1 - K/E)/(2 mu T) in the mean."""
    n_experts, k, n_tokens, n = 16, 2, 256, 200
    setting: Any = {"n_tokens": n_tokens, "k": k, "horizon": n, "n_records": n, "n_exact": n}
    free, exact = bs.simulate([NoBalance(), Exact()], Uniform(n_experts=n_experts, seed=11), **setting)
    mu = n_experts / (n_experts - 1)  # S2
    expected = k * (1 - k / n_experts) / (2 * mu * n_tokens)
    # Each batch's is close to chi-square with 15 degrees, so that the mean of 200 has a standard error of
    # 2.6 %; 12 % is four of these, a false alarm in 10^4 seeds, and what T = 256 leaves of the next order.
    assert free.score_over_exact.mean() == pytest.approx(expected, rel=0.12)
    # No balancing is at p* here, and so is the comparator.
    assert -exact.regret[-1] / n == pytest.approx(expected, rel=0.12)


def missing(run: Run) -> None:
    assert run.status.outcome is Outcome.HORIZON_REACHED
    assert math.isnan(run.kept_of_exact)
    assert np.isnan(run.score_over_exact[-1])


def test_an_optimum_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).standard_normal((120, 6))
    rows[90:, 5] = -np.inf
    run = bs.simulate(NoBalance(), Recorded(rows), n_tokens=30, k=2, horizon=3, comparator=np.zeros(6))
    missing(run)
    assert np.isfinite(run.score_over_exact[:-1]).all()
    assert run.exact_reason.startswith("after step 3: `scores` leave expert 5")

    def uncertified(*_: object, **__: object) -> object:
        found = bs.solve(rows[:30], k=2)
        return replace(found, status=SolveStatus(SolveOutcome.NOT_CERTIFIED, "its gap is 0.5"))

    monkeypatch.setattr(oracle, "solve", uncertified)
    run = bs.simulate(NoBalance(), SOURCE, **SHORT)
    missing(run)
    assert run.exact_reason == f"after step {run.exact_steps[0]}: its gap is 0.5"

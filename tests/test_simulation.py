"""Runs: shared draws, outcomes and their causes, comparators, bad input, memory."""

import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import balancesim as bs
from balancesim import driver as module
from balancesim import simulation
from balancesim.balancers import AlfLB, ExpertThreshold, NoBalance, PhiBalance, PriceRule
from balancesim.driver import record_steps
from balancesim.errors import InputError
from balancesim.hindsight import best_fixed_bias
from balancesim.oracle import compare_with_exact
from balancesim.penalised import penalised_minimiser
from balancesim.runs import Outcome
from balancesim.simulation import simulate
from balancesim.sources import FromFunction, Normal, Pareto, Recorded, Source, TokenStream, Uniform
from tests.simulated import RULES, SHORT, SOURCE, same


@pytest.mark.parametrize("source", [SOURCE, Pareto(n_experts=8, tail_index=0.05), TokenStream()])
def test_a_rule_has_the_same_bits_alone_and_among_others(source):
    together = simulate(RULES, source, **SHORT)
    assert all(same(run, simulate(run.rule, source, **SHORT)) for run in together)
    backwards = simulate(RULES[::-1], source, **SHORT)
    assert all(same(a, b) for a, b in zip(together, backwards[::-1], strict=True))


def test_where_kernel_calls_end_changes_no_bit(monkeypatch):
    whole = simulate(RULES, SOURCE, **SHORT)
    monkeypatch.setattr(module, "_SCORES_PER_CALL", 1)
    assert all(same(a, b) for a, b in zip(whole, simulate(RULES, SOURCE, **SHORT), strict=True))


def test_seed_replaces_the_sources_own():
    assert same(simulate(RULES[1], SOURCE, **SHORT, seed=9), simulate(RULES[1], SOURCE.with_seed(9), **SHORT))
    assert not same(simulate(RULES[1], SOURCE, **SHORT, seed=9), simulate(RULES[1], SOURCE, **SHORT))


def test_python_made_and_replayed_scores_give_the_same_bits():
    """The same scores through the kernel's own draws, a function, an array and a file."""
    n_steps = SHORT["horizon"] + 1  # the batch after the last is held against its exact optimum
    rows = np.concatenate([SOURCE.batch(step, 60) for step in range(n_steps)])
    q = np.zeros(8)
    drawn = simulate(RULES, SOURCE, **SHORT, comparator=q)
    replayed = simulate(RULES, Recorded(rows), **SHORT, comparator=q)
    assert all(same(a, b) for a, b in zip(drawn, replayed, strict=True))


def test_record_rows():
    run = simulate(RULES[2], SOURCE, n_tokens=30, k=3, horizon=500, n_records=12)
    assert run.steps[0] == 1
    assert run.steps[-1] == 500
    assert (run.loads.sum(axis=1) == 90).all()
    since = np.diff(run.steps, prepend=0)
    assert (run.window_loads.sum(axis=1) == 90 * since).all()
    np.testing.assert_allclose(run.max_violation, bs.max_violation(run.loads))
    assert run.mean_max_violation[0] == run.max_violation[0]
    assert (np.diff(run.top_score) > 0).all()
    assert (run.score_kept <= 1.0).all()


def test_score_lost_is_what_route_finds():
    run = simulate(
        AlfLB(schedule="constant", step_size=2.0), SOURCE, n_tokens=50, k=2, horizon=2, n_records=9
    )
    scores = SOURCE.batch(1, 50)
    free, routed = bs.route(scores, k=2), bs.route(scores, run.bias[0], k=2)
    first = bs.route(SOURCE.batch(0, 50), k=2)
    np.testing.assert_allclose(run.score_lost[0], 0.0, atol=1e-12)
    # Fifty tokens' sums of two float32 scores of order one.
    np.testing.assert_allclose(np.diff(run.score_lost)[0] * 50, free.score - routed.score, atol=1e-4)
    np.testing.assert_allclose(run.top_score * 50, [first.score, first.score + free.score], rtol=1e-6)


@given(st.integers(1, 10**6), st.integers(2, 200))
def test_record_steps(horizon, n_records):
    steps = record_steps(horizon, n_records)
    assert steps[0] == 1
    assert steps[-1] == horizon
    assert (np.diff(steps) > 0).all()
    assert len(steps) <= n_records


class TestOutcomes:
    def test_horizon(self):
        run = simulate(RULES[2], SOURCE, **SHORT)
        assert run.status.outcome is Outcome.HORIZON_REACHED
        assert run.status.step == 40
        assert "40 steps" in run.status.reason

    @pytest.mark.parametrize(
        ("rule", "step"),
        [
            (AlfLB(schedule="constant", step_size=1e300), 1),  # beyond float32
            (AlfLB(schedule="constant", step_size=1.7e308, recentre=True), 1),
            (AlfLB(schedule="sign", step_size=1e35), 4),  # grows step by step
        ],
    )
    def test_bias_not_finite(self, rule, step):
        runs = simulate([RULES[1], rule], Normal(n_experts=3, scale=1e33, offsets=(0, 1e36, 2e36)), **SHORT)
        assert runs[0].status.outcome is Outcome.HORIZON_REACHED
        assert runs[1].status.outcome is Outcome.BIAS_NOT_FINITE
        assert runs[1].status.step == step
        assert f"at step {step} of 40" in runs[1].status.reason
        assert "lower the step size, strength or rate of the rule" in runs[1].status.reason
        assert runs[1].steps[-1] <= step
        assert len(runs[1].steps) == len(runs[1].regret) == len(runs[1].loads)

    def test_bias_not_finite_in_python(self):
        @dataclass(frozen=True)
        class Exploding(PriceRule):
            name = "exploding"

            def init(self, n_experts, k):
                return np.zeros((k, n_experts))[0]

            def bias(self, state):
                return state

            def update(self, state, loads, probabilities):
                assert probabilities is None
                return state + np.where(loads == loads.max(), np.inf, 0.0)

        run = simulate(Exploding(), SOURCE, **SHORT)
        assert run.status.outcome is Outcome.BIAS_NOT_FINITE
        assert run.status.step == 1

    def test_data_exhausted(self):
        rows = np.random.default_rng(0).standard_normal((130, 8))
        run = simulate(RULES[2], Recorded(rows), **SHORT)
        assert run.status.outcome is Outcome.DATA_EXHAUSTED
        assert run.status.step == 2
        assert run.steps.tolist() == [1, 2]
        assert "after step 2 of 40" in run.status.reason

    def test_resampling_never_exhausts(self):
        rows = np.random.default_rng(0).standard_normal((13, 8))
        run = simulate(RULES[2], Recorded(rows, order="resample"), **SHORT)
        assert run.status.outcome is Outcome.HORIZON_REACHED


def test_a_rule_in_python_equals_its_kernel_twin():
    @dataclass(frozen=True)
    class InPython(PriceRule):
        name = "in-python"
        twin: AlfLB

        def init(self, n_experts, k):
            return self.twin.init(n_experts, k)

        def bias(self, state):
            return self.twin.bias(state)

        def update(self, state, loads, probabilities):
            return self.twin.update(state, loads, probabilities)

    for twin in (AlfLB(schedule="sqrt", step_size=2.0), AlfLB(step_size=5.0, radius=0.3, delay=2)):
        compiled, interpreted = simulate([twin, InPython(twin)], SOURCE, **SHORT)
        assert same(compiled, interpreted)


class TestComparators:
    def test_population_where_known(self):
        run = simulate(RULES[0], SOURCE, **SHORT)
        assert run.comparator.kind == "population"
        np.testing.assert_allclose(run.comparator.bias, SOURCE.population_bias())

    def test_hindsight_elsewhere_and_on_request(self):
        for source, comparator in ((TokenStream(), "auto"), (SOURCE, "hindsight")):
            runs = simulate(RULES, source, **SHORT, comparator=comparator)
            assert {run.comparator.kind for run in runs} == {"hindsight"}
            # The best fixed bias beats every fixed bias, so the rule that never moves has regret.
            assert runs[0].regret[-1] > 0.0

    def test_given(self):
        run = simulate(RULES[0], SOURCE, **SHORT, comparator=np.zeros(8))
        assert run.comparator.kind == "given"
        assert (run.regret == 0.0).all()

    @pytest.mark.parametrize("source", [SOURCE, TokenStream()])
    def test_none_leaves_out_regret_and_changes_no_other_bit(self, source):
        without = simulate(RULES, source, **SHORT, comparator="none", n_exact=0)
        for run, whole in zip(without, simulate(RULES, source, **SHORT, n_exact=0), strict=True):
            assert run.comparator.kind == "none"
            assert np.isnan(run.regret).all()
            assert np.isfinite(whole.regret).all()
            assert same(run, replace(whole, regret=run.regret))

    def test_regret_of_the_comparator_itself_is_zero(self):
        source = Normal(n_experts=8, seed=1)
        assert (simulate(RULES[0], source, **SHORT).regret == 0.0).all()


def test_regret_against_a_plain_difference():
    """Realised regret is the difference of two dual sums, where those are small enough to subtract."""
    source = FromFunction(lambda u: u, n_experts=5, seed=2)
    rule, q = AlfLB(schedule="constant", step_size=1.0), np.linspace(-0.2, 0.2, 5)
    run = simulate(rule, source, n_tokens=40, k=2, horizon=30, comparator=q, n_records=60)
    total, bias = 0.0, np.zeros(5)
    for step in range(30):
        scores = source.batch(step, 40)
        total += (bs.dual_value(scores, bias, k=2) - bs.dual_value(scores, q, k=2)) / 40
        bias = run.bias[step]
        assert run.regret[step] == pytest.approx(total, abs=1e-12)


def test_auto_step_size():
    source = Uniform(n_experts=8)
    run = simulate(AlfLB(step_size="auto"), source, **SHORT)
    assert run.rule.step_size == pytest.approx(7 / 8)
    for unknown in (TokenStream(), Normal(n_experts=8, transform="softmax")):
        with pytest.raises(InputError, match='"auto" needs a source whose modulus is known'):
            simulate(AlfLB(step_size="auto"), unknown, **SHORT)


def test_progress_reaches_the_end():
    seen = []
    simulate(RULES, SOURCE, **SHORT, progress=seen.append)
    assert seen[-1] == 40
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": []}, "non-empty sequence"),
        ({"rule": "alf-lb"}, "`rule` must be a rule or a sequence of rules, got 'alf-lb'"),
        ({"rule": AlfLB}, "`rule` must be a rule or a sequence of rules"),
        ({"rule": ["alf-lb"]}, "`rule` must be a PriceRule or a BatchRule"),
        ({"k": 1.5}, "`k` must be an integer, got 1.5"),
        ({"n_tokens": 2.5}, "`n_tokens` must be an integer"),
        ({"horizon": 1e2}, "`horizon` must be an integer"),
        ({"source": "normal"}, "`source` must be a Source"),
        ({"k": 8}, "`k` must satisfy 1 <= k < n_experts = 8, got 8"),
        ({"k": 0}, "got 0"),
        ({"n_tokens": 0}, "`n_tokens` must be at least 1"),
        ({"horizon": 0}, "`horizon` must be at least 1"),
        ({"n_records": 1}, "`n_records` must be at least 2"),
        ({"seed": -1}, "`seed` must not be negative"),
        ({"comparator": "best"}, "`comparator` must be"),
        ({"comparator": np.zeros(3)}, r"`comparator` must have one entry per expert, \(8,\), got \(3,\)"),
        ({"comparator": np.full(8, np.nan)}, "`comparator` must be finite"),
        ({"source": TokenStream(), "comparator": "population"}, "is not known for TokenStream"),
        ({"source": Recorded(np.zeros((5, 8)))}, "more than the recording holds"),
        ({"source": Recorded(np.where(np.arange(8) < 7, -np.inf, np.zeros((90, 8))))}, "at least k = 2"),
        (
            {"source": Recorded(np.where(np.arange(8) < 7, -np.inf, np.zeros((90, 8))), order="resample")},
            "at least k = 2",
        ),
    ],
)
def test_bad_input(change, message):
    arguments = {"rule": RULES[0], "source": SOURCE, **SHORT, **change}
    with pytest.raises(InputError, match=message):
        simulate(arguments.pop("rule"), arguments.pop("source"), **arguments)


@dataclass(frozen=True)
class Given(Source):
    """A source whose batches are whatever it was given."""

    name = "given"
    scores: object
    n_experts: int = 8
    seed: int = 0

    def batch(self, step, n_tokens):
        return self.scores[step * 0 : n_tokens]

    def with_seed(self, seed):
        return replace(self, seed=seed)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((60, 3)), r"must return \(T, E\) = \(1, 8\) scores, got \(1, 3\)"),
        (np.zeros((60, 9)), r"got \(1, 9\)"),
        (np.zeros((60, 8), np.int64), "float32 or float64 scores, got int64"),
        (np.zeros((60, 8), np.float16), "got float16"),
        (np.full((60, 8), np.nan), "got nan at token 0, expert 0"),
        (np.full((60, 8), np.inf), "got inf at token 0, expert 0"),
    ],
)
def test_batches_of_ones_own_source_are_checked(scores, message):
    with pytest.raises(InputError, match=message):
        simulate(RULES[0], Given(scores), n_tokens=60, k=2, horizon=3, comparator=np.zeros(8))


def test_masked_experts_get_nothing():
    rows = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    rows[:, 5] = -np.inf
    run = simulate(AlfLB(schedule="sign", step_size=0.1), Recorded(rows), n_tokens=60, k=2, horizon=5)
    assert (run.loads[:, 5] == 0).all()
    assert np.isfinite(run.regret).all()


def test_a_rule_that_needs_probabilities_is_refused():
    class Gradient(NoBalance):
        needs_probabilities = True

    with pytest.raises(InputError, match="needs router probabilities"):
        simulate(Gradient(), SOURCE, **SHORT)


PEAK = """
import resource, sys
from balancesim.balancers import AlfLB
from balancesim.simulation import simulate
from balancesim.sources import Normal
simulate(AlfLB(step_size=1.0), Normal(n_experts=4), n_tokens=4, k=1, horizon=int(sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_horizon():
    def peak(horizon):
        command = [sys.executable, "-c", PEAK, str(horizon)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    peak(10)  # fills the cache of compiled kernels
    assert peak(100_000) < 1.1 * peak(1_000)


def test_exact_solves_start_from_what_depends_on_no_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []

    def noted(candidates: Any, *arguments: Any, bias: Any, **settings: Any) -> Any:
        starts.append(bias)
        return compare_with_exact(candidates, *arguments, bias=bias, **settings)

    monkeypatch.setattr(module, "compare_with_exact", noted)
    phi = PhiBalance()
    for source in (SOURCE, TokenStream()):
        starts.clear()
        for rules in (phi, RULES[0], [phi, RULES[0]], [RULES[0], phi]):
            simulate(rules, source, n_tokens=60, k=2, horizon=2, comparator="rule")
        assert all(np.array_equal(start, starts[0]) for start in starts)


def test_hindsight_is_replayed_only_where_regret_is_measured_against_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replays = []

    def noted(*arguments: Any, **settings: Any) -> Any:
        replays.append(arguments)
        return best_fixed_bias(*arguments, **settings)

    monkeypatch.setattr(simulation, "best_fixed_bias", noted)
    few = {"n_tokens": 60, "k": 2, "horizon": 3}
    limit = bs.GroupLimit(4, 2)
    source = TokenStream()
    for comparator in ("auto", "hindsight", "rule"):
        for rules, groups in ((RULES, limit), ([ExpertThreshold()] * 2, None)):
            for run in simulate(rules, source, **few, comparator=comparator, groups=groups):
                assert run.comparator.kind == "none"
                assert np.isnan(run.regret).all()
    assert simulate(PhiBalance(), source, **few, comparator="rule").comparator.kind == "rule"
    assert not replays
    for rules, kinds in (([ExpertThreshold(), RULES[1]], "hindsight"), ([PhiBalance(), RULES[1]], "rule")):
        runs = simulate(rules, source, **few, comparator="rule")
        assert [run.comparator.kind for run in runs] == [kinds, "hindsight"]
        assert np.isfinite(runs[1].regret).all()
    assert len(replays) == 2


def test_what_a_sample_leaves_open_of_an_own_minimiser_is_said() -> None:
    few = {"n_tokens": 60, "k": 2, "horizon": 3, "comparator": "rule", "n_exact": 0}
    assert simulate(PhiBalance(), SOURCE, **few).comparator.excess == 0.0
    rule, source = PhiBalance(), TokenStream()
    found = penalised_minimiser(source, rule.phi, strength=rule.strength, k=2)
    assert simulate(rule, source, **few).comparator.excess == found.excess > 0.0

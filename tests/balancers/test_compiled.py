# ruff: noqa: ARG001, ARG002 -- a rule takes what the protocol hands over, whether it uses it or not
"""Rules as compiled functions: what they see in the loop and in Python, and how they fail."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest

import balancesim as bs
from balancesim.balancers import CompiledRule, Delayed, OwnObjective, PriceRule, rule_kernel
from balancesim.errors import InputError
from balancesim.runs import Outcome
from balancesim.sources import Normal
from tests import naive
from tests.conftest import INTERPRETED

SOURCE = Normal(n_experts=6, offsets="iqr", seed=8)
# More than one tile of tokens, the last one not full.
N_TOKENS = 9 if INTERPRETED else 300
SHORT = {"n_tokens": N_TOKENS, "k": 2, "horizon": 7, "n_records": 7, "n_exact": 0}


@rule_kernel
def _with_momentum(parameters, step, n_tokens, k, loads, price, memory):
    for e in range(price.size):
        memory[e] = parameters[0] * memory[e] + (loads[e] / n_tokens - k / price.size)
        price[e] -= memory[e]


class Momentum(CompiledRule):
    name = "test-momentum"
    compiled_update = staticmethod(_with_momentum)

    def parameters(self) -> Sequence[float]:
        return (0.5,)

    def memory(self, n_experts: int, n_tokens: int, k: int) -> Any:
        return np.zeros(n_experts)


@rule_kernel
def _sum_scores(parameters, n_tokens, k, n_experts, tile, bias, top, token, n_lanes, memory):
    for e in range(n_experts):
        for t in range(n_lanes):
            memory[e] += tile[e, t]
    for t in range(n_lanes):
        memory[n_experts] += (token + t) * np.float64(top[0, t] - top[k - 1, t]) + bias[0]
    memory[n_experts + 1] = n_tokens


@rule_kernel
def _towards_the_mean(parameters, step, n_tokens, k, loads, price, memory):
    n_experts = price.size
    for e in range(n_experts):
        price[e] = parameters[0] * price[e] - memory[e] / n_tokens + 1e-4 * loads[e]
    price[0] += 1e-6 * memory[n_experts] / n_tokens + 1e-9 * (memory[n_experts + 1] - n_tokens)
    for e in range(n_experts + 1):
        memory[e] = 0.0


class Mean(CompiledRule):
    """Learns each expert's mean score, and in its first price something of all else that it is shown."""

    name = "test-mean"
    compiled_update = staticmethod(_towards_the_mean)
    compiled_observe = staticmethod(_sum_scores)

    def __init__(self, threshold: bool = False) -> None:
        self.threshold = threshold  # type: ignore[misc]

    def parameters(self) -> Sequence[float]:
        return (0.25,)

    def memory(self, n_experts: int, n_tokens: int, k: int) -> Any:
        return np.zeros(n_experts + 2)


class InPython(PriceRule):
    """A rule by its protocol alone."""

    name = "in-python"
    needs_scores: ClassVar[bool] = True

    def __init__(self, rule: PriceRule) -> None:
        self.rule, self.threshold = rule, rule.threshold  # type: ignore[misc]

    def init(self, n_experts: int, k: int) -> Any:
        return self.rule.init(n_experts, k)

    def bias(self, state: Any) -> Any:
        return self.rule.bias(state)

    def observe(self, state: Any, scores: Any) -> Any:
        return self.rule.observe(state, scores)

    def update(self, state: Any, loads: Any, probabilities: Any) -> Any:
        return self.rule.update(state, loads, probabilities)


def naive_mean(above: bool = False, groups: bs.GroupLimit | None = None) -> Any:
    """The trajectory of `Mean`, token by token."""
    price, rows, all_loads = np.zeros(6), [], []
    for step in range(SHORT["horizon"]):
        scores = SOURCE.batch(step, N_TOKENS)
        bias = price.astype(np.float32)
        allowed = scores if groups is None else groups.apply(scores, bias)
        ranked = -np.sort(-(allowed + bias), axis=1)
        spread = float(sum(t * (ranked[t, 0] - ranked[t, 1]) + np.float64(bias[0]) for t in range(N_TOKENS)))
        chosen = allowed + bias > 0.0 if above else ranked[:, 1, None] <= allowed + bias
        loads = chosen.sum(axis=0)
        price = 0.25 * price - scores.sum(axis=0, dtype=np.float64) / N_TOKENS + 1e-4 * loads
        price[0] += 1e-6 * spread / N_TOKENS
        rows.append(price)
        all_loads.append(loads)
    return np.array(all_loads), np.array(rows)


@pytest.mark.parametrize("threshold", [False, True])
@pytest.mark.parametrize("lag", [0, 2])
def test_what_a_rule_sees_in_the_loop_equals_what_it_sees_in_python(threshold: bool, lag: int) -> None:
    rule = Mean(threshold)
    assert rule.needs_scores
    delayed = Delayed(rule=rule, lag=lag)
    # Beside another rule, whose K largest scores must not be taken for this one's.
    other = Momentum()
    _, compiled, interpreted = bs.simulate([other, delayed, InPython(delayed)], SOURCE, **SHORT)
    assert np.array_equal(compiled.loads, interpreted.loads)
    assert np.array_equal(compiled.bias, interpreted.bias)
    assert not np.array_equal(compiled.bias[0], compiled.bias[-1])


@pytest.mark.parametrize("threshold", [False, True])
def test_what_a_rule_sees_equals_the_definition(threshold: bool) -> None:
    run = bs.simulate(Mean(threshold), SOURCE, **SHORT)
    loads, bias = naive_mean(above=threshold)
    assert np.array_equal(run.loads, loads)
    # Differences of two float32 scores of order one, times up to 300, in one term of 1e-6 of a mean.
    np.testing.assert_allclose(run.bias, bias, atol=1e-9)


def test_what_a_rule_sees_under_a_limit_on_groups() -> None:
    groups = bs.GroupLimit(3, 2)
    run = bs.simulate(Mean(), SOURCE, **SHORT, groups=groups)
    loads, bias = naive_mean(groups=groups)
    assert np.array_equal(run.loads, loads)
    np.testing.assert_allclose(run.bias, bias, atol=1e-9)


def test_a_rule_that_sees_scores_every_other_batch() -> None:
    """All batches of one update count as one: their tokens are numbered through."""
    run = bs.simulate(Delayed(rule=Mean(), every=2), SOURCE, **SHORT)
    scores = np.concatenate([SOURCE.batch(step, N_TOKENS) for step in range(2)])
    state = Mean().observe(Mean().init(6, 2), scores)
    state = Mean().update(state, run.loads[:2].sum(axis=0), None)
    assert (run.bias[0] == 0.0).all()
    # Tiles end elsewhere when 2 T tokens come at once: sums of some hundred numbers in another order.
    np.testing.assert_allclose(run.bias[1], state.price, rtol=1e-12)
    with pytest.raises(InputError, match="`every` above 1 is for simulations"):
        Delayed(rule=Mean(), every=2).observe(Delayed(rule=Mean(), every=2).init(6, 2), scores)


def test_threshold_rules() -> None:
    run = bs.simulate(Mean(threshold=True), SOURCE, **SHORT)
    lost = 0.0
    for step in range(SHORT["horizon"]):
        scores = SOURCE.batch(step, N_TOKENS)
        bias = (run.bias[step - 1] if step else np.zeros(6)).astype(np.float32)
        chosen = scores + bias > 0.0
        assert run.loads[step].tolist() == chosen.sum(axis=0).tolist()
        best = naive.choose(scores, np.zeros(6), 2)
        lost += sum(
            sum(float(row[e]) for e in experts) - float(row[mine].astype(np.float64).sum())
            for row, mine, experts in zip(scores, chosen, best, strict=True)
        )
        # Sums of float32 scores of order one in float64: exact but for their order.
        assert run.score_lost[step] * N_TOKENS == pytest.approx(lost, abs=1e-9 * N_TOKENS)
    assert np.isnan(run.regret).all()
    assert run.exact_steps.size == 0
    balanced = N_TOKENS * 2 / 6
    np.testing.assert_allclose(run.max_violation, run.loads.max(axis=1) / balanced - 1.0)


def test_a_threshold_rule_must_learn_the_number_of_tokens() -> None:
    class Above(Momentum):
        threshold = True

    with pytest.raises(InputError, match="loads do not tell the number of tokens"):
        Above().update(Above().init(6, 2), np.arange(6), None)


@rule_kernel
def _ridge(parameters, step, n_tokens, k, loads, price, memory):
    for e in range(price.size):
        memory[0] += 0.5 * parameters[0] * price[e] ** 2
    for e in range(price.size):
        price[e] -= 0.5 * (loads[e] / n_tokens + parameters[0] * price[e])


class Ridge(CompiledRule):
    """Minimises the mean top-K sum plus ``weight``/2 |p|^2: an objective of its own."""

    name = "test-ridge"
    compiled_update = staticmethod(_ridge)
    weight = 0.75

    def parameters(self) -> Sequence[float]:
        return (self.weight,)

    def memory(self, n_experts: int, n_tokens: int, k: int) -> Any:
        return np.zeros(1)

    def own_objective(self, source: Any, n_tokens: int, k: int) -> OwnObjective:
        # By symmetry every expert gets k/E of the tokens at the minimiser, of a source without offsets.
        minimiser = np.full(source.n_experts, -k / source.n_experts / self.weight)
        return OwnObjective(minimiser, 0.5 * self.weight * float(minimiser @ minimiser))


def test_regret_on_a_rule_s_own_objective() -> None:
    source = Normal(n_experts=6, seed=8)
    own, other = bs.simulate([Ridge(), Momentum()], source, **SHORT, comparator="rule")
    assert own.comparator.kind == "rule"
    assert other.comparator.kind == "population"
    assert np.array_equal(other.regret, bs.simulate(Momentum(), source, **SHORT).regret)
    q = own.comparator.bias
    total, price = 0.0, np.zeros(6)
    for step in range(SHORT["horizon"]):
        scores = source.batch(step, N_TOKENS)
        used = price.astype(np.float32)
        gained = naive.difference(scores, used, q, 2)
        total += sum(gained) / N_TOKENS + 0.375 * float(price @ price) - 0.375 * float(q @ q)
        # Sums of two float32 biased scores of order one per token and step.
        assert own.regret[step] == pytest.approx(total, abs=8 * 6e-8 * 7)
        price = own.bias[step]
    assert own.regret[-1] > 0.0


def test_a_delayed_rule_is_measured_on_the_dual() -> None:
    run = bs.simulate(Delayed(rule=Ridge(), every=2), Normal(n_experts=6, seed=8), **SHORT, comparator="rule")
    assert run.comparator.kind == "population"


@rule_kernel
def _goes_wrong(parameters, step, n_tokens, k, loads, price, memory):
    if step == 3:
        price[1] = parameters[0]


class Wrong(CompiledRule):
    name = "test-wrong"
    compiled_update = staticmethod(_goes_wrong)

    def __init__(self, value: float = np.nan, start: int = 6, memory: Any = ()) -> None:
        self.value, self.n_start, self.remembered = value, start, memory

    def parameters(self) -> Sequence[float]:
        return (self.value,)

    def start(self, n_experts: int, k: int) -> Any:
        return np.zeros(self.n_start)

    def memory(self, n_experts: int, n_tokens: int, k: int) -> Any:
        return self.remembered


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize(("lag", "ranks"), [(0, 1), (2, 1), (0, 2)])
def test_a_compiled_rule_that_writes_no_number_stops_with_its_name_and_step(
    value: float, lag: int, ranks: int
) -> None:
    rule = Delayed(rule=Wrong(value), lag=lag, n_ranks=ranks)
    alone = bs.simulate(Momentum(), SOURCE, **SHORT)
    beside, run = bs.simulate([Momentum(), rule], SOURCE, **SHORT)
    assert run.status.outcome is Outcome.BIAS_NOT_FINITE
    assert run.status.step == 3
    assert "test-wrong" in run.status.reason
    assert "at step 3 of 7" in run.status.reason
    assert run.steps.tolist() == [1, 2, 3]
    assert np.array_equal(beside.bias, alone.bias)


def test_a_compiled_rule_with_a_wrong_shape() -> None:
    with pytest.raises(InputError, match=r"must start from one number per expert, \(6,\), got \(5"):
        bs.simulate(Wrong(start=5), SOURCE, **SHORT)
    with pytest.raises(InputError, match=r"`memory` of rule test-wrong must be \(M,\) numbers, got shape"):
        bs.simulate(Wrong(memory=np.zeros((2, 2))), SOURCE, **SHORT)
    # Integers are numbers too, in a rule's own list.
    assert bs.simulate(Wrong(memory=[1, 2]), SOURCE, **SHORT).status.step == 3


@pytest.mark.skipif(INTERPRETED, reason="without the JIT every function is a plain one")
def test_a_function_that_is_not_compiled_is_refused() -> None:
    class Plain(Wrong):
        compiled_update = staticmethod(lambda *_: None)

    with pytest.raises(InputError, match=r"not compiled, .* decorate it with rule_kernel"):
        bs.simulate(Plain(), SOURCE, **SHORT)

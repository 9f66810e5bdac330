"""Delays: the loop's form against the Python protocol and a naive loop; ranks; bad input."""

from typing import Any, ClassVar

import numpy as np
import pytest

import balancesim as bs
from balancesim.balancers import AlfLB, Delayed, Exact, NoBalance, PhiBalance, PriceRule
from balancesim.errors import InputError
from balancesim.runs import Run
from balancesim.sources import Normal
from tests import naive

SOURCE = Normal(n_experts=8, offsets="iqr", seed=4)
N_TOKENS, K, HORIZON = 90, 3, 25
RULES = (
    AlfLB(schedule="sign", step_size=0.05),
    AlfLB(schedule="constant", step_size=1.0),
    AlfLB(step_size=5.0, radius=0.75, delay=2),
)
DELAYS = ((1, 0), (4, 0), (1, 1), (1, 3), (3, 2))


def simulated(*rules: Any, **options: Any) -> list[Run]:
    settings = {"n_tokens": N_TOKENS, "k": K, "horizon": HORIZON, "n_records": HORIZON, "n_exact": 0}
    return bs.simulate(rules, SOURCE, **{**settings, **options})  # type: ignore[call-overload, no-any-return]


def same(first: Any, second: Any) -> bool:
    names = ("loads", "bias", "regret", "score_lost")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


class InPython(PriceRule):
    """A rule by its protocol alone."""

    name = "in-python"

    def __init__(self, rule: PriceRule) -> None:
        self.rule = rule

    def init(self, n_experts: int, k: int) -> Any:
        return self.rule.init(n_experts, k)

    def bias(self, state: Any) -> Any:
        return self.rule.bias(state)

    def update(self, state: Any, loads: Any, probabilities: Any) -> Any:
        return self.rule.update(state, loads, probabilities)


def step_of(rule: AlfLB) -> Any:
    """The naive update of a plain ALF-LB rule."""

    def update(price: Any, loads: Any, n: int, n_tokens: int) -> Any:
        n_experts = price.size
        violation = (loads * n_experts - n_tokens * K) / (n_experts * n_tokens)
        direction = np.sign(violation) if rule.schedule == "sign" else violation
        return price - naive.step_size(rule.schedule, float(rule.step_size), n, rule.delay) * direction

    return update


@pytest.mark.parametrize(("every", "lag"), DELAYS)
def test_the_loop_equals_the_protocol_bit_for_bit(every: int, lag: int) -> None:
    delayed = [Delayed(rule=rule, every=every, lag=lag) for rule in RULES]
    # Inside the loop; the delays in Python around the rule; and a delayed rule that is in Python itself.
    compiled = simulated(*delayed)
    around = simulated(*(InPython(rule) for rule in delayed))
    inside = simulated(*(Delayed(rule=InPython(rule), every=every, lag=lag) for rule in RULES))
    for runs in (around, inside):
        assert all(same(a, b) for a, b in zip(compiled, runs, strict=True))


@pytest.mark.parametrize(("every", "lag"), DELAYS)
@pytest.mark.parametrize("rule", RULES[:2], ids=lambda rule: rule.schedule)
def test_the_loop_equals_a_naive_loop(rule: AlfLB, every: int, lag: int) -> None:
    (run,) = simulated(Delayed(rule=rule, every=every, lag=lag))
    expected = naive.trained(SOURCE, step_of(rule), N_TOKENS, K, HORIZON, every=every, lag=lag)
    assert np.array_equal(run.loads, expected["loads"])
    assert np.array_equal(run.bias, expected["bias"])
    # Per token and step, two sums of K float32 scores of order one.
    np.testing.assert_allclose(run.score_lost, expected["score_lost"], atol=4 * K * 6e-8 * HORIZON)


def test_a_lag_moves_the_trajectory_and_no_delay_does_not() -> None:
    plain, none, late = simulated(RULES[1], Delayed(rule=RULES[1]), Delayed(rule=RULES[1], lag=1))
    assert same(plain, none)
    assert not same(plain, late)
    assert (late.bias[0] == 0.0).all()
    assert np.array_equal(late.bias[1], plain.bias[0])  # the second batch was still routed without a price
    assert np.array_equal(late.loads[1], simulated(NoBalance())[0].loads[1])


def test_every_m_batches_is_one_update_of_the_sums() -> None:
    (run,) = simulated(Delayed(rule=RULES[1], every=5), horizon=10)
    assert (run.bias[:4] == 0.0).all()
    first = run.loads[:5].sum(axis=0)
    # The same formula of the pooled batch of 5 T tokens.
    assert np.array_equal(run.bias[4], step_of(RULES[1])(np.zeros(8), first, 1, 5 * N_TOKENS))
    assert np.array_equal(run.bias[4], run.bias[8])
    second = run.loads[5:].sum(axis=0)
    assert np.array_equal(run.bias[9], step_of(RULES[1])(run.bias[8], second, 2, 5 * N_TOKENS))


@pytest.mark.parametrize("n_ranks", [2, 7])
@pytest.mark.parametrize("rule", RULES[:2], ids=lambda rule: rule.schedule)
@pytest.mark.parametrize(("every", "lag"), [(1, 0), (3, 2)])
def test_ranks_equal_a_naive_loop(rule: AlfLB, n_ranks: int, every: int, lag: int) -> None:
    (run,) = simulated(Delayed(rule=rule, every=every, lag=lag, n_ranks=n_ranks))
    options = {"every": every, "lag": lag, "n_ranks": n_ranks}
    expected = naive.trained(SOURCE, step_of(rule), N_TOKENS, K, HORIZON, **options)
    assert np.array_equal(run.loads, expected["loads"])
    # The naive sum over ranks may begin with another rank's zero: a rounding of each of n_ranks addends.
    np.testing.assert_allclose(run.bias, expected["bias"], rtol=n_ranks * 2.3e-16 * HORIZON, atol=1e-16)


def test_averaging_ranks_is_pooling_for_constant_steps_and_not_for_signs() -> None:
    sign, constant = RULES[:2]
    ranks = [Delayed(rule=rule, n_ranks=6) for rule in (constant, sign)]
    pooled_constant, pooled_sign, constant_ranks, sign_ranks = simulated(constant, sign, *ranks)
    # Six equal ranks: the mean of six violations, each rounded, is the pooled violation but for roundings of
    # numbers of order one in each of 25 steps.
    np.testing.assert_allclose(constant_ranks.bias, pooled_constant.bias, atol=10 * 2.3e-16 * HORIZON)
    assert np.array_equal(constant_ranks.loads, pooled_constant.loads)
    # A sixth of a sign step is the least that an average of signs can differ by.
    first = (sign_ranks.bias[0] - pooled_sign.bias[0]) / 0.05 * 6
    np.testing.assert_allclose(first, np.round(first), atol=1e-12)
    assert np.abs(first).max() >= 1.0
    assert not np.array_equal(sign_ranks.loads, pooled_sign.loads)


def test_ranks_remember_apart() -> None:
    """Each rank's own memory, which the average does not touch."""
    from tests.balancers.test_compiled import Momentum

    (run,) = simulated(Delayed(rule=Momentum(), n_ranks=2), horizon=4)
    price, own = np.zeros(8), np.zeros((2, 8))
    for step in range(4):
        scores = SOURCE.batch(step, N_TOKENS)
        local = []
        for rank, part in enumerate((scores[:45], scores[45:])):
            loads = np.array(naive.loads_of(naive.choose(part, price, K), 8))
            own[rank] = 0.5 * own[rank] + (loads / 45 - K / 8)
            local.append(price - own[rank])
        price = (local[0] + local[1]) / 2
        np.testing.assert_allclose(run.bias[step], price, atol=1e-14)


def test_groups_and_ranks_together() -> None:
    rule = Delayed(rule=RULES[1], every=2, n_ranks=3)
    (run,) = simulated(rule, groups=bs.GroupLimit(4, 2))
    expected = naive.trained(
        SOURCE, step_of(RULES[1]), N_TOKENS, K, HORIZON, every=2, n_ranks=3, groups=(4, 2, 2)
    )
    assert np.array_equal(run.loads, expected["loads"])
    np.testing.assert_allclose(run.bias, expected["bias"], rtol=3 * 2.3e-16 * HORIZON, atol=1e-16)
    np.testing.assert_allclose(run.score_lost, expected["score_lost"], atol=4 * K * 6e-8 * HORIZON)


def test_auto_step_size_reaches_the_rule() -> None:
    (run,) = simulated(Delayed(rule=AlfLB(step_size="auto"), every=2))
    (plain,) = simulated(AlfLB(step_size="auto"))
    assert isinstance(run.rule, Delayed)
    assert run.rule.rule == plain.rule


def test_describe() -> None:
    assert Delayed(rule=NoBalance()).describe() == "no balancing"
    whole = Delayed(rule=RULES[0], every=4, lag=1, n_ranks=2)
    assert whole.describe() == "ALF-LB sign, step 0.05, every 4 batches, 1 late, averaged over 2 ranks"


class Learner(InPython):
    needs_scores: ClassVar[bool] = True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": Exact()}, "`rule` must be a PriceRule, which has a price to delay, got Exact"),
        ({"rule": "alf-lb"}, "`rule` must be a PriceRule"),
        ({"rule": Delayed(rule=NoBalance())}, "`rule` must not be Delayed itself"),
        (
            {"rule": PhiBalance(form="gradient")},
            "`rule` must add its price to the scores; phi-balancing gradient, .* acts in the router's loss",
        ),
        ({"every": 0}, "`every` must be at least 1, got 0"),
        ({"every": 1.5}, "`every` must be an integer, got 1.5"),
        ({"lag": -1}, "`lag` must be at least 0, got -1"),
        ({"n_ranks": 0}, "`n_ranks` must be at least 1, got 0"),
        ({"n_ranks": True}, "`n_ranks` must be an integer, got True"),
        ({"rule": InPython(NoBalance()), "n_ranks": 2}, "needs a compiled rule; in-python runs in Python"),
        ({"rule": Learner(NoBalance()), "every": 2}, "`every` above 1 needs a rule that learns from loads"),
        ({"rule": Learner(NoBalance()), "n_ranks": 2}, "in-python learns from scores"),
    ],
)
def test_bad_input(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Delayed(**{"rule": RULES[0], **arguments})


def test_what_only_a_simulation_can_do() -> None:
    with pytest.raises(InputError, match="one rank's loads are all that Python sees"):
        Delayed(rule=RULES[0], n_ranks=2).init(4, 2)
    with pytest.raises(InputError, match="`n_ranks` must be at most n_tokens = 90, got 91"):
        simulated(Delayed(rule=RULES[0], n_ranks=91))

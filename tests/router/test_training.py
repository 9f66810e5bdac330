"""What training promises: theory of both ways a price acts, references, how runs end, bad input."""

import dataclasses
import math

import numpy as np
import pytest

from balancesim import simulate, sources
from balancesim.balancers import (
    AlfLB,
    Delayed,
    Exact,
    GShardLoss,
    NoBalance,
    PhiBalance,
    PriceRule,
    SwitchLoss,
)
from balancesim.errors import InputError
from balancesim.router import ClusteredTask, Router, train_router
from balancesim.runs import Outcome
from tests.router import rules, twin

TASK = ClusteredTask(n_experts=8, n_clusters=12, n_features=6, seed=1)


def trained(rule, *, task=TASK, **more):
    settings = {"n_tokens": 64, "k": 2, "horizon": 30, "n_exact": 0, **more}
    return train_router(rule, task, **settings)


def same_bits(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("weights", "loads", "reward", "entropy", "mean_max_violation")
    )


def test_weight_zero_is_no_balancing_bit_for_bit():
    plain, switch, gshard = trained([NoBalance(), SwitchLoss(weight=0.0), GShardLoss(weight=0.0)])
    assert same_bits(plain, switch)
    assert same_bits(plain, gshard)
    assert not same_bits(plain, trained(SwitchLoss(weight=1e-6)))


def test_a_rule_has_the_bits_it_has_alone():
    together = trained([SwitchLoss(weight=0.1), AlfLB(schedule="sign", step_size=0.01)])
    assert same_bits(together[0], trained(SwitchLoss(weight=0.1)))
    assert same_bits(together[1], trained(AlfLB(schedule="sign", step_size=0.01)))


def test_gradient_of_a_penalty():
    """d<mean r, v>/d logit_ik = r_ik (v_k - <r_i, v>)/T, on weights whose only other gradient is known."""
    values = tuple(np.linspace(-1.0, 2.0, 8).tolist())
    priced, plain = trained([rules.Fixed(values=values), NoBalance()], horizon=1, learning_rate=1.0)
    batch = TASK.batch(0, 64)
    start = Router().initial_weights(8, 6, TASK.seed)
    r = twin.softmax(batch.features @ start.T)
    v = np.array(values)
    expected = -(r * (v - (r @ v)[:, None])).T @ batch.features / 64
    # Weights below 1 and sums of 64 terms below 3: 64 x 3 eps.
    np.testing.assert_allclose(priced.weights - plain.weights, expected, atol=5e-14)


def test_a_constant_on_the_penalty_changes_nothing():
    """Probabilities sum to 1, so that only differences of penalties have a gradient."""
    values = np.linspace(0.0, 1.0, 8)
    one, other = trained([rules.Fixed(values=tuple(values)), rules.Fixed(values=tuple(values + 5.0))])
    # 30 steps of size 3, each off by some 6 eps of a penalty, times features below 2: 30 x 3 x 2 x 6 x 6 eps.
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-12)


def test_switch_is_p4_with_the_squared_norm_on_hard_loads():
    """phi = |m|^2/2, so v = m; EMA rate 1; hard load fractions for soft probabilities; strength w E."""
    switch, norm = trained([SwitchLoss(weight=0.05), rules.SquaredNormOnLoads(strength=0.05 * 8, rate=1.0)])
    # The same numbers in another order of multiplication: 30 steps of 3 x 2 x eps, and their feedback.
    np.testing.assert_allclose(switch.weights, norm.weights, atol=1e-12)
    assert switch.loads.tolist() == norm.loads.tolist()
    slow = trained(rules.SquaredNormOnLoads(strength=0.05 * 8, rate=0.5))
    assert abs(slow.weights - switch.weights).max() > 1e-4


def test_phi_balancing_with_the_squared_norm_at_rate_1_is_switch_with_soft_fractions():
    """P4: v = strength m and m the batch's mean probabilities; at K = 1 they are f where r is one-hot."""
    phi = PhiBalance(form="gradient", potential="squared_norm", ema_rate=1.0, strength=0.7)
    one, other = trained([phi, rules.SoftPenalty()])
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-12)  # as above
    switch = SwitchLoss(weight=0.7 / 8)
    apart = []
    for scale in (1.0, 1e6):
        start = scale * Router(initial_scale=1.0).initial_weights(8, 6, 0)
        runs = trained([phi, switch], k=1, router=Router(gate="raw"), weights=start, horizon=1)
        apart.append(abs(runs[0].price[0] - runs[1].price[0]).max())
    # Tokens whose two best logits are closer than 40 of 1e6 would show: less than one of 64.
    assert apart[0] > 0.02
    assert apart[1] < 1e-12


def test_micro_batches():
    """The mean of losses with a common f is the loss of the whole batch; with each its own f it is not."""
    whole, parts = trained([SwitchLoss(weight=0.1), SwitchLoss(weight=0.1, n_micro_batches=8)])
    assert abs(whole.weights - parts.weights).max() > 1e-3
    # On average over fresh tokens, a part's own f pushes harder: Jensen's gap of E sum f P (P5).
    batch = TASK.batch(0, 4096)
    r = twin.softmax(3.0 * batch.features @ Router(initial_scale=1.0).initial_weights(8, 6, 0).T)
    marks = twin.choose(r, 2)

    def loss(n_parts):
        f = marks.reshape(n_parts, -1, 8).mean(axis=1) / 2
        return 8 * (f * r.reshape(n_parts, -1, 8).mean(axis=1)).sum(axis=1).mean()

    assert loss(256) > loss(16) > loss(1) > 1.0


def test_gshard_counts_first_choices():
    task = dataclasses.replace(TASK, n_experts=4)
    one = trained(GShardLoss(weight=0.1), task=task, k=1, router=Router(gate="raw"))
    assert same_bits(one, trained(SwitchLoss(weight=0.1), task=task, k=1, router=Router(gate="raw")))
    assert not same_bits(trained(GShardLoss(weight=0.1)), trained(SwitchLoss(weight=0.1)))


def test_rules_balance_and_a_flipped_sign_does_not():
    plain, switch, flipped, phi, alf = trained(
        [
            NoBalance(),
            SwitchLoss(weight=0.1),
            rules.FlippedSwitch(weight=0.1),
            PhiBalance(form="gradient", strength=0.1),
            AlfLB(schedule="constant", step_size=0.5),
        ],
        task=ClusteredTask(n_experts=16),
        n_tokens=256,
        horizon=500,
        n_records=10,
    )
    assert switch.mean_max_violation[-1] < 0.8 * plain.mean_max_violation[-1]
    assert phi.mean_max_violation[-1] < plain.mean_max_violation[-1]
    assert flipped.mean_max_violation[-1] > 1.2 * plain.mean_max_violation[-1]
    assert alf.mean_max_violation[-1] < 0.5 * plain.mean_max_violation[-1]


def test_z_loss_holds_the_logits_down_beside_any_rule():
    for rule in (NoBalance(), SwitchLoss(weight=0.1)):
        free, held = (trained(rule, router=Router(z_loss=z), horizon=100) for z in (0.0, 0.01))
        assert held.squared_log_partition[-1] < free.squared_log_partition[-1]


def test_without_a_bias_the_choice_does_not_depend_on_what_it_would_be_added_to():
    runs = [trained(NoBalance(), router=Router(selection=s)) for s in ("logits", "softmax", "sigmoid")]
    assert same_bits(runs[0], runs[1])
    assert same_bits(runs[0], runs[2])


def test_references():
    run = trained(AlfLB(schedule="constant", step_size=0.5), horizon=40, n_exact=3)
    reference = run.reference
    assert reference.steps.tolist() == run.steps[-3:].tolist()
    for i, step in enumerate(reference.steps):
        expected = TASK.batch(int(step) - 1, 64).expected
        top = np.sort(expected, axis=1)
        assert reference.best[i] == pytest.approx(top[:, -1].mean(), abs=1e-14)
        assert reference.best_choice[i] == pytest.approx(top[:, -2:].mean(), abs=1e-14)
    # Rounding of sums of 128 numbers below 1.
    assert (reference.balanced <= reference.best + 1e-13).all()
    assert (reference.balanced_choice <= reference.best_choice + 1e-13).all()
    assert (reference.balanced_choice <= reference.balanced + 1e-13).all()
    assert (run.reward[-3:] <= reference.best + 1e-13).all()
    assert run.reward_lost == pytest.approx((reference.balanced - run.reward[-3:]).mean())
    assert math.isnan(trained(NoBalance()).reward_lost)
    assert trained([NoBalance()], horizon=40, n_exact=3)[0].reference.best.tolist() == reference.best.tolist()


def test_how_runs_end():
    done = trained(NoBalance())
    assert done.status.outcome is Outcome.HORIZON_REACHED
    assert done.status.step == 30
    wild = trained(NoBalance(), learning_rate=1e106)
    assert wild.status.outcome is Outcome.WEIGHTS_NOT_FINITE
    assert "no" in wild.status.reason
    assert "at step 1 of 30" in wild.status.reason
    heavy = trained(SwitchLoss(weight=1e100))
    assert heavy.status.outcome is Outcome.PENALTY_NOT_FINITE
    assert "Switch loss, weight 1e+100, at step 1 of 30" in heavy.status.reason
    assert heavy.steps.size == 0
    assert heavy.reference.steps.size == 0
    far = trained(AlfLB(schedule="constant", step_size=1e101))
    assert far.status.outcome is Outcome.BIAS_NOT_FINITE
    with np.errstate(invalid="ignore"):
        nothing = trained(rules.Fixed(values=(math.nan,) * 8))
    assert nothing.status.outcome is Outcome.PENALTY_NOT_FINITE
    assert "fixed, at step 1" in nothing.status.reason


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        (rules.OfForm(price=np.full(8, np.nan)), Outcome.PENALTY_NOT_FINITE),
        (rules.Starting(value=1e101), Outcome.BIAS_NOT_FINITE),
        (rules.InPython(rule=rules.Starting(value=math.nan)), Outcome.BIAS_NOT_FINITE),
    ],
)
def test_a_first_price_that_is_no_number(rule, outcome):
    run = trained(rule)
    assert run.status.outcome is outcome
    assert run.status.step == 0
    assert run.status.reason.endswith(f"({rule.name}, before the first step)")
    assert run.steps.size == 0
    assert (run.weights == Router().initial_weights(8, 6, TASK.seed)).all()


def test_a_rule_that_returns_a_wrong_shape():
    with pytest.raises(InputError, match=r"penalty must return one number per expert.*fixed, step 1"):
        trained(rules.Fixed(values=(1.0,)))


def test_progress_ends_at_the_horizon():
    seen = []
    trained(NoBalance(), progress=seen.append)
    assert seen[-1] == 30


class Thresholded(AlfLB):
    threshold = True


class Seeing(PriceRule):
    name = "seeing"
    needs_scores = True

    def init(self, n_experts, k):  # noqa: ARG002
        return np.zeros(n_experts)

    def bias(self, state):
        return state

    def update(self, state, loads, probabilities):  # noqa: ARG002
        return state


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": []}, "non-empty sequence"),
        ({"rule": "switch-loss"}, "`rule` must be a rule or a sequence of rules"),
        ({"rule": [3]}, "`rule` must be a PriceRule or a PenaltyRule, got 3"),
        ({"rule": Exact()}, "assigns a batch itself"),
        ({"rule": SwitchLoss(n_micro_batches=7)}, "`n_tokens` must be a multiple .* = 7, got 64"),
        ({"rule": Thresholded()}, "chooses by threshold"),
        ({"rule": Seeing()}, "learns from scores; make it a CompiledRule"),
        ({"rule": Delayed(rule=AlfLB(), n_ranks=2)}, "`n_ranks` above 1 is for `simulate`"),
        ({"rule": AlfLB(step_size="auto")}, "resolved by `simulate`"),
        ({"task": sources.Normal(n_experts=4)}, "`task` must be a ClusteredTask"),
        ({"router": "softmax"}, "`router` must be a Router"),
        ({"k": 8}, "`k` must satisfy"),
        ({"k": 1}, 'use gate="raw"'),
        ({"n_tokens": 0}, "`n_tokens`"),
        ({"horizon": 0}, "`horizon`"),
        ({"learning_rate": 0.0}, "`learning_rate` must be a positive finite number"),
        ({"n_records": 1}, "`n_records`"),
        ({"n_exact": -1}, "`n_exact`"),
        ({"weights": np.zeros((8, 5))}, r"`weights` must have a row per expert .*\(8, 6\), got \(8, 5\)"),
        ({"weights": np.full((8, 6), np.nan)}, "`weights` must be finite .* got nan"),
        ({"weights": np.full((8, 6), -1e200)}, r"at most 1e\+100 in magnitude, .* got -1e\+200"),
        ({"router": Router(initial_scale=1e200)}, "lower its initial_scale, 1e\\+200"),
        ({"rule": rules.OfForm(memory=np.zeros(7))}, "8 or more, got 7 .rule of-form, before the first step"),
        ({"rule": rules.OfForm(updates=False)}, "kernel_form must have an update, .*rule of-form, before"),
        ({"rule": rules.OfForm(price=np.zeros(7))}, "must start from .* got .7,. .rule of-form, before"),
        ({"weights": "none"}, "`weights` must be numbers"),
    ],
)
def test_bad_input(arguments, message):
    given = {"rule": NoBalance(), "task": TASK, "n_tokens": 64, "horizon": 3, **arguments}
    with pytest.raises(InputError, match=message):
        train_router(**given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"selection": "probabilities"}, "`selection` must be one of"),
        ({"gate": "softmax"}, "`gate` must be one of"),
        ({"offset": 2}, "`offset` must be true or false"),
        ({"z_loss": -1.0}, "`z_loss` must be a finite number of at least 0"),
        ({"initial_scale": 0.0}, "`initial_scale` must be a positive"),
    ],
)
def test_bad_routers(arguments, message):
    with pytest.raises(InputError, match=message):
        Router(**arguments)


def test_gradient_rules_have_no_place_where_there_is_no_router():
    with pytest.raises(InputError, match=r"use balancesim\.train_router"):
        simulate(SwitchLoss(), sources.Normal(n_experts=4), horizon=2)
    with pytest.raises(InputError, match="`rule` must be a PriceRule, which has a price to delay"):
        Delayed(rule=SwitchLoss())

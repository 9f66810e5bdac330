"""The training loop against the naive twin, and its gradient against finite differences."""

import numpy as np
import pytest

from balancesim.balancers import AlfLB, Delayed, GShardLoss, NoBalance, PhiBalance, SwitchLoss
from balancesim.router import ClusteredTask, Router, train_router
from tests.conftest import INTERPRETED
from tests.router import rules, twin

N_TOKENS = 12 if INTERPRETED else 132  # more than a tile, and no whole number of them
HORIZON = 2 if INTERPRETED else 5
RATE = 2.0
TASK = ClusteredTask(n_experts=6, n_clusters=5, n_features=5, reward_noise=0.1, seed=3)

ALF = AlfLB(schedule="constant", step_size=0.3)
RULES = [
    NoBalance(),
    ALF,
    Delayed(rule=ALF, every=2, lag=1),
    rules.InPython(rule=ALF),
    rules.Observer(),
    SwitchLoss(weight=0.1),
    SwitchLoss(weight=0.1, n_micro_batches=3),
    GShardLoss(weight=0.1, n_micro_batches=2),
    rules.SoftPenalty(n_micro_batches=2),
    rules.SquaredNormOnLoads(strength=0.3, rate=0.5),
    PhiBalance(form="gradient", strength=0.1, ema_rate=0.3),
    PhiBalance(strength=0.5),
]
ROUTERS = [
    Router(),
    Router(offset=True, selection="softmax", gate="raw", z_loss=0.05),
    Router(selection="sigmoid", gate="sigmoid"),
]
LABELS = ["plain", "offset-softmax-raw-z", "sigmoid"]


def trained(rule, router, k, horizon, task=TASK, **more):
    return train_router(
        rule, task, router=router, n_tokens=N_TOKENS, k=k, horizon=horizon, learning_rate=RATE,
        n_records=max(2, horizon), n_exact=0, **more,
    )  # fmt: skip


@pytest.mark.parametrize("router", ROUTERS, ids=LABELS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.describe())
def test_the_loop_is_the_twin(rule, router):
    run = trained(rule, router, 2, HORIZON)
    start = router.initial_weights(6, 5, TASK.seed)
    steps = twin.train(rule, TASK, router, start, N_TOKENS, 2, HORIZON, RATE)
    assert run.loads.tolist() == [step["loads"].tolist() for step in steps]
    assert run.window_loads.tolist() == run.loads.tolist()
    # Sums of at most 132 x 6 terms below 10 in magnitude, in another order: 132 x 6 x 10 eps = 2e-12.
    for name in (
        "price", "max_violation", "reward", "choice_reward", "entropy", "squared_log_partition",
    ):  # fmt: skip
        np.testing.assert_allclose(getattr(run, name), [step[name] for step in steps], atol=2e-12)
    np.testing.assert_allclose(run.weights, steps[-1]["weights"], atol=2e-12)
    for name in ("reward", "choice_reward", "max_violation"):
        np.testing.assert_array_equal(getattr(run, f"mean_{name}"), getattr(run, name))


@pytest.mark.parametrize("router", ROUTERS, ids=LABELS)
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("rule", RULES[:2] + RULES[5:8], ids=lambda rule: rule.describe())
def test_gradient_against_finite_differences(rule, router, k):
    before, after = trained(rule, router, k, HORIZON - 1), trained(rule, router, k, HORIZON)
    step = twin.train(
        rule, TASK, router, router.initial_weights(6, 5, TASK.seed), N_TOKENS, k, HORIZON, RATE
    )[-1]
    batch = TASK.batch(HORIZON - 1, N_TOKENS)
    inputs = twin.inputs_of(router, batch)

    def objective(weights):
        return twin.objective(
            router, weights, inputs, batch.rewards, step["marks"], step["penalties"], router.z_loss
        )

    h = 6e-6
    differences = np.empty_like(before.weights)
    for place in np.ndindex(differences.shape):
        nudge = np.zeros_like(differences)
        nudge[place] = h
        differences[place] = (objective(before.weights + nudge) - objective(before.weights - nudge)) / (2 * h)
    # Central differences: h^2/6 times a third derivative, below 10 |x|^3 = 100 or so: 6e-10; and the rounding
    # of an objective below 10, some 10 eps each: 10 x 10 eps/h = 4e-9.
    np.testing.assert_allclose((after.weights - before.weights) / RATE, differences, atol=5e-9)


def test_one_expert_per_token():
    router = Router(gate="raw")
    for rule in (NoBalance(), SwitchLoss(weight=0.2)):
        run = trained(rule, router, 1, HORIZON)
        steps = twin.train(
            rule, TASK, router, router.initial_weights(6, 5, TASK.seed), N_TOKENS, 1, HORIZON, RATE
        )
        assert run.loads.tolist() == [step["loads"].tolist() for step in steps]
        np.testing.assert_allclose(run.weights, steps[-1]["weights"], atol=2e-12)  # as above


def test_ties_go_to_the_lower_expert():
    run = trained(NoBalance(), Router(), 2, 1, weights=np.zeros((6, 5)))
    assert run.loads[0].tolist() == [N_TOKENS, N_TOKENS, 0, 0, 0, 0]
    assert run.entropy[0] == pytest.approx(np.log(6), abs=1e-14)


def test_where_a_run_is_cut_changes_no_bit(monkeypatch):
    whole = trained([ALF, SwitchLoss(weight=0.1)], Router(), 2, HORIZON)
    monkeypatch.setattr("balancesim.router.driver._PRODUCTS_PER_CALL", 1)
    cut = trained([ALF, SwitchLoss(weight=0.1)], Router(), 2, HORIZON)
    for one, other in zip(whole, cut, strict=True):
        for name in ("weights", "loads", "price", "reward", "entropy"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_windows_add_up():
    every = trained(ALF, Router(), 2, 4)
    two = train_router(
        ALF, TASK, n_tokens=N_TOKENS, k=2, horizon=4, learning_rate=RATE, n_records=2, n_exact=0
    )
    assert two.steps.tolist() == [1, 4]
    assert two.window_loads[1].tolist() == every.loads[1:].sum(axis=0).tolist()
    # Means of three numbers below 3: a few eps.
    np.testing.assert_allclose(two.mean_reward[1], every.reward[1:].mean(), atol=1e-14)
    np.testing.assert_allclose(two.mean_max_violation[1], every.max_violation[1:].mean(), atol=1e-14)


def test_a_delayed_rule_sees_all_batches_of_its_update():
    run = trained(Delayed(rule=rules.Observer(), every=2), Router(), 2, 2)
    steps = twin.train(NoBalance(), TASK, Router(), Router().initial_weights(6, 5, 3), N_TOKENS, 2, 2, RATE)
    batches = [TASK.batch(n, N_TOKENS).features @ step["before"].T for n, step in enumerate(steps)]
    assert run.price[0].tolist() == [0.0] * 6
    # Means of 264 numbers below 3, summed in another order.
    np.testing.assert_allclose(run.price[1], -0.5 * np.concatenate(batches).mean(axis=0), atol=2e-13)

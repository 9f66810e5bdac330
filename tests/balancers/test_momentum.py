"""SMEBU against its formulas, its limits, and what damping a proportional rule comes to."""

import math

import numpy as np
import pytest

import balancesim as bs
from balancesim.balancers import AlfLB, Momentum, NoBalance, registry
from balancesim.errors import InputError
from balancesim.sources import Normal
from tests.balancers.twins import Flipped, InPython

SOURCE = Normal(n_experts=6, offsets="iqr", seed=4)
RULE = Momentum(step_size=0.05, sharpness=1.5, momentum=0.75)


def after(rule, batches):
    state = rule.init(len(batches[0]), 2)
    for loads in batches:
        state = rule.update(state, np.array(loads), None)
    return rule.bias(state)


def naive(rule, batches):
    bias = last = np.zeros(len(batches[0]))
    for loads in np.array(batches, dtype=float):
        violation = (loads.mean() - loads) / loads.mean()
        direction = rule.step_size * np.tanh(rule.sharpness * violation)
        direction = direction - direction.mean()
        last = rule.momentum * last + (1.0 - rule.momentum) * direction
        bias = bias + last
    return bias


def test_three_steps_by_hand():
    """T = 8, K = 2, L = 4: relative violations (-1, .5, .5, 0), and tanh(2 v) of these."""
    x = math.tanh(1.0)
    y = math.tanh(2.0)
    mean = (2 * x - y) / 4
    first = 5e-4 * 0.5 * np.array([-y - mean, x - mean, x - mean, -mean])
    moves = first * [[1.0], [0.5 + 1.0], [0.25 + 0.5 + 1.0]]
    for n in (1, 2, 3):
        found = after(Momentum(), [[8, 2, 2, 4]] * n)
        np.testing.assert_allclose(found, moves[:n].sum(axis=0), rtol=1e-13)


def test_many_steps_equal_naive():
    rng = np.random.default_rng(0)
    batches = [np.bincount(rng.integers(0, 7, 80), minlength=7) for _ in range(1000)]
    # A thousand sums of numbers below 0.05: 1000 * 0.05 * 2**-53 each, for seven experts.
    np.testing.assert_allclose(after(RULE, batches), naive(RULE, batches), atol=1e-12)


def test_the_loop_has_the_bits_of_the_python_protocol():
    short = {"n_tokens": 70, "k": 2, "horizon": 25, "n_records": 40, "n_exact": 0}
    inside, outside = bs.simulate([RULE, InPython(RULE)], SOURCE, **short)
    assert inside.bias.tobytes() == outside.bias.tobytes()
    assert inside.loads.tolist() == outside.loads.tolist()


def test_small_violations_move_as_the_constant_schedule():
    """u tanh(kappa v) is about u kappa v, and v = -g E/K: the conversion of docs/theory.md."""
    loads = np.array([1001, 999, 1002, 998])
    momentum = after(Momentum(step_size=0.01, sharpness=2.0, momentum=0.0), [loads])
    constant = after(AlfLB(schedule="constant", step_size=0.01 * 2.0 * 4 / 2), [loads])
    np.testing.assert_allclose(momentum, constant, rtol=1e-4)


def test_large_violations_move_as_the_centred_sign():
    loads = np.array([4000, 0, 0, 0])
    momentum = after(Momentum(step_size=0.01, sharpness=50.0, momentum=0.0), [loads])
    sign = after(AlfLB(schedule="sign", step_size=0.01, recentre=True), [loads])
    np.testing.assert_allclose(momentum, sign, rtol=1e-12)


@pytest.mark.parametrize("damping", [0.5, 0.125])
def test_damping_a_proportional_rule_is_another_step_size(damping):
    """Why there is no damped variant: (1 - c) p + c (p - u g) is p - (c u) g."""
    rng = np.random.default_rng(1)
    batches = [np.bincount(rng.integers(0, 8, 64), minlength=8) for _ in range(50)]
    damped = np.zeros(8)
    for loads in batches:
        violation = (loads - 8) / 32
        damped = (1.0 - damping) * damped + damping * (damped - 0.25 * violation)
    found = after(AlfLB(schedule="constant", step_size=damping * 0.25), batches)
    np.testing.assert_allclose(found, damped, atol=1e-14)


def test_it_balances_and_the_flipped_rule_does_not():
    rules = [NoBalance(), RULE, Flipped(RULE)]
    runs = bs.simulate(rules, SOURCE, n_tokens=300, k=2, horizon=400, n_exact=0)
    none, right, wrong = (bs.max_violation(run.window_loads[-1]) for run in runs)
    assert right < 0.1 < none < wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step_size": 0.0}, "`step_size` must be a positive finite number"),
        ({"step_size": "auto"}, "`step_size`"),
        ({"sharpness": -1.0}, "`sharpness` must be a positive finite number"),
        ({"momentum": 1.0}, "`momentum` must be at least 0 and below 1, got 1.0"),
        ({"momentum": -0.1}, "`momentum`"),
        ({"momentum": math.nan}, "`momentum`"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        Momentum(**arguments)


def test_it_is_known_by_its_name():
    assert registry()["momentum"] is Momentum
    assert Momentum.causal
    assert (Momentum().step_size, Momentum().sharpness, Momentum().momentum) == (5e-4, 2.0, 0.5)

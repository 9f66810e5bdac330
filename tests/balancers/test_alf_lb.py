"""The rule outside the kernel: one protocol, pure updates, the published step rules."""

import math

import numpy as np
import pytest

from balancesim import balancers
from balancesim.balancers import AlfLB, NoBalance
from balancesim.errors import InputError
from tests import naive

LOADS = np.array([9, 2, 5, 0])  # T = 8, K = 2, L = 4


def after(rule, n_updates=1):
    state = rule.init(4, 2)
    for _ in range(n_updates):
        state = rule.update(state, LOADS, None)
    return rule.bias(state)


@pytest.mark.parametrize("schedule", ["sign", "constant", "harmonic", "sqrt"])
@pytest.mark.parametrize("delay", [0, 3])
def test_step_rules(schedule, delay):
    rule = AlfLB(schedule=schedule, step_size=0.5, delay=delay)
    violation = (LOADS - 4) / 8
    direction = np.sign(violation) if schedule == "sign" else violation
    total = sum(naive.step_size(schedule, 0.5, n, delay) for n in range(1, 4))
    np.testing.assert_allclose(after(rule, 3), -total * direction, atol=1e-15)


def test_balanced_experts_stay_where_they_are():
    rule = AlfLB(schedule="sign", step_size=1.0)
    state = rule.update(rule.init(4, 2), np.array([4, 4, 6, 2]), None)
    assert rule.bias(state).tolist() == [0.0, 0.0, -1.0, 1.0]


def test_recentred_and_projected():
    recentred = after(AlfLB(schedule="constant", step_size=1.0, recentre=True))
    plain = after(AlfLB(schedule="constant", step_size=1.0))
    np.testing.assert_allclose(recentred, plain - plain.mean(), atol=1e-15)
    projected = after(AlfLB(schedule="constant", step_size=8.0, radius=1.5))
    np.testing.assert_allclose(projected, naive.project(8 * plain, 1.5), atol=1e-12)
    assert abs(projected).max() <= 1.5


def test_updates_are_pure():
    rule = AlfLB(step_size=1.0)
    first = rule.init(4, 2)
    rule.update(first, LOADS, None)
    assert first.price.tolist() == [0.0] * 4
    assert first.step == 0


def test_none():
    assert after(NoBalance(), 3).tolist() == [0.0] * 4
    assert balancers.registry()["none"] is NoBalance
    assert balancers.registry()["alf-lb"] is AlfLB
    assert all(kind.causal and not kind.needs_probabilities for kind in (NoBalance, AlfLB))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": "harmonics"}, "did you mean 'harmonic'"),
        ({"step_size": 0.0}, '`step_size` must be a positive finite number, or "auto", got 0.0'),
        ({"step_size": -1}, "`step_size`"),
        ({"step_size": math.inf}, "`step_size`"),
        ({"step_size": math.nan}, "`step_size`"),
        ({"step_size": "big"}, "`step_size`"),
        ({"step_size": True}, "`step_size`"),
        ({"radius": 0.0}, "`radius` must be a positive finite number, or omitted"),
        ({"delay": -1}, "`delay` must be at least 0"),
        ({"delay": 0.5}, "`delay`"),
        ({"recentre": "yes"}, "`recentre` must be true or false"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message):
        AlfLB(**arguments)


def test_auto_needs_a_source():
    with pytest.raises(InputError, match="resolved by `simulate`"):
        after(AlfLB(step_size="auto"))

"""Switch's and GShard's losses outside the loop."""

import math

import numpy as np
import pytest

from balancesim import balancers
from balancesim.balancers import GShardLoss, PenaltyRule, PhiBalance, PriceRule, SwitchLoss
from balancesim.errors import InputError
from tests.router import rules

LOADS = np.array([9, 2, 5, 0])  # T = 8, K = 2
MEAN = np.array([0.4, 0.1, 0.3, 0.2])


def test_the_penalty_is_the_weight_times_e_f():
    rule = SwitchLoss(weight=0.5)
    state = rule.update(rule.init(4, 2), LOADS, MEAN)
    # One rounding each of a few operations.
    np.testing.assert_allclose(rule.penalty(state), 0.5 * 4 * LOADS / 16, rtol=4e-16)
    balanced = rule.update(state, np.array([4, 4, 4, 4]), MEAN)
    assert rule.penalty(balanced).tolist() == [0.5] * 4


def test_gshard_has_the_loads_of_first_choices():
    rule = GShardLoss(weight=0.5)
    state = rule.update(rule.init(4, 1), np.array([5, 0, 3, 0]), MEAN)
    np.testing.assert_allclose(rule.penalty(state), 0.5 * 4 * np.array([5, 0, 3, 0]) / 8, rtol=4e-16)
    assert rule.counts_first_choice
    assert not SwitchLoss().counts_first_choice


def test_what_they_are():
    for name, kind in (("switch-loss", SwitchLoss), ("gshard-loss", GShardLoss)):
        assert balancers.registry()[name] is kind
        assert issubclass(kind, PenaltyRule)
        assert kind.needs_probabilities
        assert kind.causal
        assert kind.in_kernel()
    assert SwitchLoss(weight=0.1, n_micro_batches=4).describe() == "Switch loss, weight 0.1, 4 micro-batches"
    assert GShardLoss(weight=0.1, n_micro_batches=4).describe() == "GShard loss, weight 0.1, 4 groups"


def test_probabilities_are_needed():
    rule = SwitchLoss()
    with pytest.raises(InputError, match="`probabilities` must be given to Switch loss"):
        rule.update(rule.init(4, 2), LOADS, None)


@pytest.mark.parametrize("kind", [SwitchLoss, GShardLoss])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -0.1}, "`weight` must be a finite number of at least 0, got -0.1"),
        ({"weight": math.nan}, "`weight`"),
        ({"weight": math.inf}, "`weight`"),
        ({"weight": "auto"}, "`weight`"),
        ({"n_micro_batches": 0}, "`n_micro_batches` must be at least 1"),
        ({"n_micro_batches": 1.5}, "`n_micro_batches`"),
    ],
)
def test_bad_input(kind, arguments, message):
    with pytest.raises(InputError, match=message):
        kind(**arguments)


def test_a_penalty_in_python_is_not_in_the_kernel():
    both = type("Both", (PriceRule, PenaltyRule), {})
    assert not any(kind.in_kernel() for kind in (PenaltyRule, rules.Fixed, both))
    assert PhiBalance.in_kernel()

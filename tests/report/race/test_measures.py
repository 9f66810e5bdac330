"""What a cell of a race came to, against sums over steps written out one by one."""

import json

import numpy as np
import pandas as pd
import pytest

from balancesim.report.race.measures import Curve, curves_of, measures, shift_of

HORIZON, SHIFT = 40, 20
STEPS = np.array([1, 2, 3, 5, 8, 13, 20, 21, 22, 24, 28, 34, 36, 40])
# MaxVio of every batch: from 2 down to the floor 0.2, twice.
EACH = np.tile(np.concatenate([[2.0, 1.4, 0.9, 0.45, 0.41, 0.38], np.full(14, 0.2)]), 2)
LOST = np.cumsum(np.linspace(0.1, 0.5, HORIZON))
CELL = {"max_violation_floor": 0.2, "final_step": HORIZON, "window_steps": 4, "causal": True}


def curve() -> Curve:
    ends = STEPS
    starts = np.concatenate([[0], ends[:-1]])
    means = np.array([EACH[a:b].mean() for a, b in zip(starts, ends, strict=True)])
    return Curve(STEPS, means, LOST[STEPS - 1])


def test_against_sums_over_steps() -> None:
    found = measures(CELL, curve(), SHIFT)
    assert found["lost"] == pytest.approx((LOST[39] - LOST[35]) / 4, rel=1e-12)
    assert found["max_violation"] == pytest.approx(EACH[36:].mean(), rel=1e-12)
    assert found["overall"] == pytest.approx(EACH.mean(), rel=1e-12)
    # Windows end at 3, 5, 8: the mean of steps 6 to 8 is the first at or below 0.4.
    assert found["reach"] == 8
    # A tenth of the 20 steps after the shift: batches 21 and 22.
    assert found["after_shift"] == pytest.approx(EACH[20:22].mean(), rel=1e-12)
    assert found["recover"] == 8
    assert np.isnan(found["drop_rate"])


def test_a_current_batch_rule_is_measured_over_all_its_steps() -> None:
    found = measures({**CELL, "causal": False}, curve(), 0)
    assert found["lost"] == pytest.approx(LOST[39] / 40, rel=1e-12)
    assert found["max_violation"] == found["overall"]
    assert np.isnan(found["after_shift"])
    assert np.isnan(found["recover"])


def test_a_goal_that_is_reached_after_the_shift_alone_is_not_reached_before_it() -> None:
    late = curve()._replace(violation=np.where(STEPS <= SHIFT, 2.0, 0.2))
    found = measures(CELL, late, SHIFT)
    assert found["reach"] == np.inf
    assert found["recover"] == 1
    assert measures(CELL, late, 0)["reach"] == 21


def test_a_dip_below_the_goal_is_no_arrival() -> None:
    dip = curve()._replace(violation=np.where((STEPS == 2) | (STEPS >= 8), 0.2, 2.0))
    assert dip.steps_to(0.4, 0) == 8
    assert dip.steps_to(0.4, 0, end=5) == np.inf
    assert dip.steps_to(0.4, 20) == 1


def test_what_an_experiment_says_of_a_shift() -> None:
    drifting = {"kind": "drifting", "n_experts": 4, "offsets": "iqr", "walk_rate": 0.0, "switch_at": [7, 9]}
    assert shift_of(json.dumps(drifting), 40) == 7
    assert shift_of(json.dumps(drifting), 7) == 0
    assert shift_of('{"kind": "normal", "n_experts": 4}', 40) == 0


def test_curves_are_told_apart_by_cell() -> None:
    frame = pd.DataFrame(
        {
            "cell": ["b", "b", "a"],
            "step": [1, 2, 1],
            "mean_max_violation": [3.0, 2.0, 1.0],
            "score_lost": [0.1, 0.3, 0.2],
        }
    )
    found = curves_of(frame)
    assert found["b"].steps.tolist() == [1, 2]
    assert found["a"].lost.tolist() == [0.2]

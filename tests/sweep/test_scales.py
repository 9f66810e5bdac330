import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from balancesim import sources, theory
from balancesim.balancers import AlfLB, Delayed
from balancesim.errors import ConfigurationError
from balancesim.sweep.scales import Scale, build_rule, scale_of, step_in_score_units
from tests.sweep.tiny import TINY, configuration, sweep

SCALE = Scale(0.5, 0.5, 0.5, "closed form (S2)", True, 8.0)
UNKNOWN = Scale(math.nan, math.nan, math.nan, "not known: atoms", False, 8.0)


@pytest.mark.parametrize(
    ("unit", "step"),
    [("score", 3.0), ("inverse-modulus", 6.0), ("spread", 24.0), ("percent-of-spread", 0.24)],
)
def test_units(unit: str, step: float) -> None:
    rule = {"kind": "alf-lb", "schedule": "sign", "step_size": 3.0, "step_unit": unit}
    found = step_in_score_units(rule, SCALE, "here")
    assert found == step
    assert build_rule(rule, found).step_size == step


def test_rules_without_a_number() -> None:
    assert step_in_score_units({"kind": "none"}, SCALE, "here") is None
    auto = {"kind": "alf-lb", "step_size": "auto", "step_unit": "score"}
    assert step_in_score_units(auto, UNKNOWN, "here") == "auto"
    assert build_rule(auto, "auto").step_size == "auto"


def test_delays_are_around_the_rule() -> None:
    rule = {"kind": "alf-lb", "schedule": "sign", "step_size": 3.0, "step_unit": "spread", "every": 4}
    built = build_rule(rule, 24.0)
    assert built == Delayed(rule=AlfLB(schedule="sign", step_size=24.0), every=4)
    assert build_rule({**rule, "lag": 1, "n_ranks": 2}, 24.0) == replace(built, lag=1, n_ranks=2)


def test_an_unknown_modulus_is_a_clear_error() -> None:
    rule = {"kind": "alf-lb", "step_size": 1.0, "step_unit": "inverse-modulus"}
    with pytest.raises(ConfigurationError, match=r"here: .* needs the modulus, which is not known: atoms"):
        step_in_score_units(rule, UNKNOWN, "here")


def test_a_known_distribution_gives_its_own_modulus(tmp_path: Path) -> None:
    group = configuration(tmp_path).groups[1]
    scale = scale_of(group)
    source = sources.Pareto(n_experts=6, tail_index=0.8, offsets="iqr")
    assert scale.exchangeable
    assert scale.modulus == theory.modulus(source, 2).value
    assert scale.spread == theory.boundary_spread(source, 2)


def test_near_ties_are_counted_where_there_is_no_form(tmp_path: Path) -> None:
    text = TINY.replace('kind = "normal"', 'kind = "factor"\nstrength = 0.0')
    counted = scale_of(configuration(tmp_path, text).groups[0])
    assert not counted.exchangeable
    assert "near-ties" in counted.modulus_method
    # A factor model of strength 0 is the normal family, whose modulus is known: the estimate's interval
    # holds it (95 %, one fixed draw), at a minimiser found from draws.
    exact = scale_of(configuration(tmp_path, TINY).groups[0])
    assert counted.modulus_low < exact.modulus < counted.modulus_high
    assert scale_of(configuration(tmp_path, text).groups[0]) == counted


def test_a_recording_with_few_near_ties_runs_in_other_units(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).standard_normal((16, 3)))
    source = f'[[source]]\nkind = "recorded"\nscores = "{(tmp_path / "rows.npy").as_posix()}"\n'
    text = f"[run]\nn_tokens = 8\nk = 1\nhorizon = 2\nseeds = 0\n{source}"
    text += '[[rule]]\nkind = "alf-lb"\nschedule = "sign"\nstep_size = 1\nstep_unit = "default"\n'
    config = configuration(tmp_path, text)
    scale = scale_of(config.groups[0])
    assert math.isnan(scale.modulus)
    assert "not known: 4 near-ties among 16 tokens are too few" in scale.modulus_method
    outcome, _ = sweep(tmp_path / "run", config)
    assert outcome.failures == {}

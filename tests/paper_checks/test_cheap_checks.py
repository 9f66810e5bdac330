"""The cheapest checks at default depth: they hold, and their negative controls fail by numbers."""

import functools
import math

import pytest

from balancesim.checks import Depth, Findings, Statement, Verdict
from paper_checks.phi_balancing import potentials
from paper_checks.primal_dual import deterministic, deterministic_loads

CHEAP = [
    deterministic.identity,
    deterministic.no_overshoot,
    deterministic_loads.preference_rule,
    potentials.uniform_minimiser,
    potentials.conjugate_pairs,
    potentials.mirror_descent,
]


@functools.cache
def findings(check: Statement) -> Findings:
    return check.run(Depth.DEFAULT)


@pytest.mark.parametrize("check", CHEAP, ids=lambda check: check.label)
def test_a_cheap_check_holds_and_its_controls_fail(check: Statement) -> None:
    found = findings(check)
    assert found.verdict is Verdict.HOLDS
    assert found.controls
    for control in found.controls:
        assert control.verdict is Verdict.FAILS, control
        assert not math.isnan(control.value)


@pytest.mark.parametrize("check", CHEAP[:2], ids=lambda check: check.label)
def test_fresh_scores_break_what_needs_the_same(check: Statement) -> None:
    dropped = [case for case in findings(check).controls if case.control == deterministic._FRESH]
    tried = {(case.instance, case.quantity) for case in dropped}
    assert len({instance for instance, _ in tried}) == 5
    assert len({quantity for _, quantity in tried}) == 2

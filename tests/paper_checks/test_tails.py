"""The checks of docs/heavy_tails.md: quick ones run, all are registered, and the page names each."""

from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest

import balancesim as bs
from balancesim.balancers import AlfLB
from balancesim.checks import Depth, Statement, Verdict
from balancesim.report import style
from balancesim.theory import estimate_curvature, modulus
from paper_checks.primal_dual import tails, tails_domain, tails_race
from paper_checks.primal_dual.tails_instances import Camps, normalised_gap
from paper_checks.primal_dual.tails_rules import AdaGrad, GapModulus

PAGE = (Path(__file__).parents[2] / "docs" / "heavy_tails.md").read_text(encoding="utf-8")
ALL = (
    tails.hazard, tails.minimiser, tails.limits, tails.gates, tails_domain.domain, tails_domain.uniformity,
    tails_domain.early, tails_domain.summed, tails_race.units, tails_race.race,
)  # fmt: skip


def passes(statement: Statement) -> None:
    found = statement.run(Depth.DEFAULT)
    assert found.verdict is Verdict.HOLDS, [
        case for case in found.trials if case.verdict is not Verdict.HOLDS
    ]
    assert found.controls_fail
    if statement.figure is not None:
        with style.settings():
            assert statement.figure(found).axes


@pytest.mark.parametrize("statement", ALL[1:3], ids=lambda statement: statement.label)
def test_a_quick_check_holds(statement: Statement) -> None:
    passes(statement)


@pytest.mark.deep
@pytest.mark.parametrize("statement", [ALL[0], *ALL[3:]], ids=lambda statement: statement.label)
def test_a_check_holds(statement: Statement) -> None:
    passes(statement)


def test_all_are_registered_and_on_the_page() -> None:
    registered = {point.name: point for point in entry_points(group="balancesim.checks")}
    assert [statement.label for statement in ALL] == [f"T{i}" for i in range(1, 11)]
    for statement in ALL:
        if statement.label in registered:
            assert registered[statement.label].load() is statement
        assert statement.label in PAGE
        if statement.figure is not None:
            assert f"figures/checks/{statement.label}.svg" in PAGE


def test_the_gap_rule_finds_the_modulus() -> None:
    """Its first step is 1/m_1: from 2^16 tokens within 5 % of 1/mu (4000 gaps counted, bias below 3 %)."""
    source = bs.sources.Exponential(n_experts=8, seed=3)
    rules = [GapModulus(wait=0.0), AlfLB(step_size=1.0 / modulus(source, 2).value)]
    ours, known = bs.simulate(rules, source, n_tokens=2**16, k=2, horizon=2, n_exact=0)
    assert ours.bias[0] == pytest.approx(known.bias[0], rel=0.05)


def test_two_halves_that_seldom_tie() -> None:
    """2 c m/(m - 1 + c m), its threshold 1/2 at c = (m - 1)/(3 m); and the ties of a source of that form."""
    m, c = 4, 0.25
    weights = np.full((2 * m, 2 * m), c)
    weights[:m, :m] = weights[m:, m:] = 1.0
    np.fill_diagonal(weights, 0.0)
    assert normalised_gap(np.diag(weights.sum(axis=1)) - weights) == pytest.approx(0.5)
    source = Camps(n_experts=8)
    ties = source.ties(1)
    across = -ties[0, 4] / -ties[0, 1]
    assert normalised_gap(ties) == pytest.approx(2 * across * 4 / (3 + across * 4))
    # Counted in 65,536 tokens the mean degree is known within 4 % (95 %).
    counted = estimate_curvature(source, 1, bias=np.zeros(8))
    assert counted.mean_eigenvalue.low < np.trace(ties) / 7 < counted.mean_eigenvalue.high


def test_adagrad_by_hand() -> None:
    rule = AdaGrad(step_size=0.5)
    state = rule.update(rule.init(2, 1), np.array([3, 1]), None)
    assert rule.bias(state).tolist() == [-0.5, 0.5]
    state = rule.update(state, np.array([4, 0]), None)
    assert rule.bias(state) == pytest.approx([-0.5 - 1 / np.sqrt(5), 0.5 + 1 / np.sqrt(5)])

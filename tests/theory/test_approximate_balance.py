"""D5: breakpoints, the band that the sign rule ends in, and what happens beyond the hypothesis."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from balancesim import balancers, simulate, sources
from balancesim.errors import InputError
from balancesim.theory import balance_band, breakpoint_gap, sign_run
from paper_checks.primal_dual.fixed_batch import widest_cycle
from tests.strategies import separated


def slow_gap(scores):
    gaps = []
    for k, j in itertools.combinations(range(scores.shape[1]), 2):
        points = sorted(Fraction(float(row[k])) - Fraction(float(row[j])) for row in scores)
        gaps += [b - a for a, b in itertools.pairwise(points)]
    return min(gaps)


def in_band(run, n_tokens, n_experts, k, first):
    below, above = balance_band(n_tokens, n_experts, k)
    load = Fraction(n_tokens * k, n_experts)
    rows = run.loads[first:]
    return load - int(rows.min()) <= below and int(rows.max()) - load <= above


@pytest.mark.properties
@given(instance=separated())
def test_the_sign_rule_ends_in_the_band(instance):
    scores, k, step_size, start = instance
    n_tokens, n_experts = scores.shape
    assert breakpoint_gap(scores) >= 2 * step_size
    run = sign_run(scores, k=k, step_size=step_size, horizon=2000, bias=start)
    assert run.period is not None
    assert in_band(run, n_tokens, n_experts, k, run.cycle_start)
    # Each expert is in the band from the first time on that it is not on the side where it started.
    excess = run.loads * n_experts - n_tokens * k
    elsewhere = np.sign(excess) != np.sign(excess[0])
    started_off = excess[0] != 0
    assert elsewhere[:, started_off].any(axis=0).all()
    assert in_band(run, n_tokens, n_experts, k, int(elsewhere.argmax(axis=0).max()))
    assert run.entered is not None


@pytest.mark.properties
@given(instance=separated(max_tokens=7, max_experts=4))
def test_one_token_a_pair_and_step(instance):
    """The lemma behind D5, on the choices themselves."""
    scores, k, step_size, start = instance
    run = sign_run(scores, k=k, step_size=step_size, horizon=200, bias=start)
    n_experts = scores.shape[1]
    sign = np.sign(run.loads * n_experts - len(scores) * k)
    for now, following, side in zip(run.loads, run.loads[1:], sign, strict=False):
        for expert in range(n_experts):
            lower, higher = (side < side[expert]).sum(), (side > side[expert]).sum()
            assert -lower <= following[expert] - now[expert] <= higher


@pytest.mark.properties
@given(
    scores=hnp.arrays(np.float64, st.tuples(st.integers(2, 8), st.integers(2, 4)), elements=st.floats(-9, 9))
)
@example(np.array([[-1.0, -2e-98, -1.0], [0.0, -1.0, -1.0]]))  # gaps that differ by less than their rounding
def test_breakpoints_are_exact(scores):
    assert breakpoint_gap(scores) == slow_gap(scores)


@pytest.mark.parametrize("n_experts", [3, 4, 5, 8])
@pytest.mark.parametrize("integral", [True, False])
def test_the_band_is_attained_for_ever(n_experts, integral):
    """E - 2 and E - 2 + 1/E come back every other step: neither can be lowered."""
    scores = widest_cycle(n_experts, integral=integral)
    assert breakpoint_gap(scores) >= 2
    run = sign_run(scores, k=1, step_size=1.0, horizon=10)
    assert (run.cycle_start, run.period) == (0, 2)
    widest = Fraction(n_experts - 2) + (0 if integral else Fraction(1, n_experts))
    assert run.deviation.max() == float(widest)
    assert max(balance_band(len(scores), n_experts, 1)) == widest


@pytest.mark.parametrize(
    ("scores", "k", "cycle"),
    [
        ([[0, 3, 3], [2, 0, 1], [4, 3, 2]], 1, [[2, 0, 1], [0, 2, 1]]),
        ([[1, 4, 0], [4, 2, 0], [1, 5, 2], [3, 2, 1]], 1, [[1, 1, 2], [2, 2, 0]]),
    ],
)
def test_small_cycles(scores, k, cycle):
    """The examples of docs/theory.md."""
    scores = np.array(scores, float)
    assert breakpoint_gap(scores) == 1
    run = sign_run(scores, k=k, step_size=0.5, horizon=100)
    assert run.loads[run.cycle_start :].tolist() == cycle


@pytest.mark.parametrize("n_experts", range(2, 9))
def test_band(n_experts):
    for n_tokens in range(1, 2 * n_experts + 1):
        for k in range(1, n_experts):
            below, above = balance_band(n_tokens, n_experts, k)
            load = Fraction(n_tokens * k, n_experts)
            assert max(below, above) <= n_experts - 2 + Fraction(load.denominator > 1, n_experts)
            assert (load - below).denominator == (load + above).denominator == 1
            assert (above, below) == balance_band(n_tokens, n_experts, n_experts - k)


def test_larger_steps_leave_the_band():
    """Breakpoints 0 apart: all tokens move at once, for ever; the hypothesis is needed."""
    run = sign_run(np.array([[0.25, 0.0]] * 8), k=1, step_size=0.25, horizon=100)
    assert run.period == 2
    assert run.deviation[run.cycle_start :].max() == 4.0
    assert run.entered is None


def test_a_cycle_that_leaves_the_band_has_not_entered_it():
    scores = widest_cycle(4, integral=True)
    run = sign_run(scores, k=1, step_size=1.0, horizon=10, band=1)
    assert run.deviation.tolist() == [1.0, 2.0]
    assert run.entered is None
    scores[:, 0] += 4.0
    run = sign_run(scores, k=1, step_size=1.0, horizon=100, band=Fraction(3, 2))
    assert run.deviation[run.cycle_start :].max() == 2.0
    assert run.entered is None
    assert sign_run(scores, k=1, step_size=1.0, horizon=100, band=2).entered is not None


def test_masks_leave_the_band():
    """Finite scores are needed: what is masked cannot be balanced, at any price."""
    scores = np.array([[0.0, -np.inf], [1.0, -np.inf], [2.0, -np.inf], [3.0, 0.0]])
    run = sign_run(scores, k=1, step_size=0.25, horizon=100)
    assert run.period is None
    assert run.deviation[-1] == 1.0
    scores = np.array([[float(i), -np.inf] for i in range(8)])
    assert sign_run(scores, k=1, step_size=0.25, horizon=100).deviation[-1] == 4.0


def test_equals_the_rule():
    """Dyadic prices: the same loads as `AlfLB` on a recording that repeats."""
    scores = np.random.default_rng(3).integers(-40, 40, size=(12, 5)) / 8
    rule = balancers.AlfLB(schedule="sign", step_size=0.125)
    run = simulate(rule, sources.Recorded(np.tile(scores, (50, 1))), n_tokens=12, k=2, horizon=50)
    again = sign_run(scores, k=2, step_size=0.125, horizon=50)
    n = min(len(again.loads), 50)
    assert (run.loads[run.steps <= n] == again.loads[run.steps[run.steps <= n] - 1]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: breakpoint_gap(np.zeros((1, 3))), "at least 2 tokens"),
        (
            lambda: breakpoint_gap(np.array([[0.0, -np.inf], [0.0, 1.0]])),
            "a masked expert has no breakpoints",
        ),
        (lambda: sign_run(np.eye(3), k=1, step_size=0.0, horizon=5), "`step_size` must be a positive"),
        (lambda: sign_run(np.eye(3), k=1, step_size=1.0, horizon=0), "`horizon` must be at least 1"),
        (lambda: balance_band(4, 3, 3), "1 <= k < n_experts"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_reports_no_entry_and_no_period():
    run = sign_run(np.array([[9.0, 0.0], [8.0, 0.0], [7.0, 0.0], [6.0, 0.0]]), k=1, step_size=0.25, horizon=5)
    assert run.entered is None
    assert run.period is None
    assert len(run.loads) == 6
    assert run.deviation[0] == 2.0

"""The batches and counts that the checks of D1 to D5 rest on, against plain counting."""

import itertools

import numpy as np
import pytest

import balancesim as bs
from balancesim.theory import breakpoint_gap, step_change
from paper_checks.primal_dual import fixed_batch
from tests import naive


@pytest.mark.parametrize(("n_tokens", "n_experts"), [(2, 2), (7, 3), (30, 12)])
def test_residues_keep_breakpoints_apart(n_tokens, n_experts):
    scores = fixed_batch.residues(n_tokens, n_experts, np.random.default_rng(n_tokens))
    assert scores.shape == (n_tokens, n_experts)
    assert breakpoint_gap(scores) >= 1


def test_moves_are_those_of_the_rule():
    scores = np.random.default_rng(1).integers(-20, 20, size=(16, 4)) / 4.0
    batch = fixed_batch.Batch("here", scores, 2, heavy=False)
    recorded = bs.sources.Recorded(np.tile(scores, (6, 1)))
    for schedule in fixed_batch.SCHEDULES:
        rule = bs.balancers.AlfLB(schedule=schedule, step_size=0.25)
        run = bs.simulate(rule, recorded, n_tokens=16, k=2, horizon=6)
        moves = list(fixed_batch.moves(batch, schedule, 0.25, 6, np.zeros(4)))
        assert moves[-1].new_bias == pytest.approx(run.bias[-1], abs=1e-14)
        assert [move.n for move in moves] == [1, 2, 3, 4, 5, 6]


def test_fresh_changes_of_the_same_scores_are_the_changes():
    scores = np.random.default_rng(3).normal(size=(32, 5))
    again = bs.sources.Recorded(np.tile(scores, (200, 1)))
    batch = fixed_batch.Batch("here", scores, 2, heavy=False, source=again)
    found = fixed_batch.changes(batch, 3)
    differences, ceilings = fixed_batch.fresh_changes(batch, found)
    np.testing.assert_allclose(differences, [change.split.change for change in found], atol=1e-11)
    np.testing.assert_allclose(ceilings, [change.split.ceiling for change in found], atol=1e-11)


def test_pairs_against_counts_every_pair():
    rng = np.random.default_rng(2)
    before, after = (np.argsort(rng.random((40, 6)), axis=1)[:, :3] for _ in range(2))
    delta = rng.integers(-2, 3, size=6).astype(float)
    n_against, rises = fixed_batch.pairs_against(before, after, delta)
    pairs = [
        delta[entered] - delta[left]
        for old, new in zip(before.tolist(), after.tolist(), strict=True)
        for left, entered in itertools.product(set(old) - set(new), set(new) - set(old))
    ]
    assert sorted(rises) == sorted(pairs)
    assert n_against == sum(rise <= 0.0 for rise in pairs)


def test_exact_change_is_exact():
    rng = np.random.default_rng(3)
    batch = fixed_batch.Batch("here", rng.normal(size=(20, 5)), 2, heavy=False)
    bias, new_bias = rng.normal(size=(2, 5))
    split = step_change(batch.scores, bias, new_bias, k=2)
    change = fixed_batch.Change(bias, new_bias, float(split.benefits.sum()), split.descent, split, 0.0)
    exact = naive.dual(batch.scores, new_bias, 2) - naive.dual(batch.scores, bias, 2)
    assert fixed_batch.exact_change(batch, change) == float(exact)

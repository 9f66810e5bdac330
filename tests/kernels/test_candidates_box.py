"""Counting and collecting over the box of shapes, bit for bit against sorting."""

import numpy as np
import pytest

from balancesim.exact.descent import new_descent
from balancesim.kernels import candidates as kernels
from balancesim.kernels.candidates import collect_part, list_members, write_choice
from balancesim.kernels.jit import kernel
from balancesim.kernels.sample import descend_sample
from tests.kernels import box

UNTOUCHED = 0x7F7F7F7F


@kernel
def count_candidates(found, state):
    kernels.count_candidates(found, state)


def ends_of(case):
    """Each token's least chosen biased score and its best left, and a width: none, the K-th gap, any."""
    least, best_left = case.twin.ranked[:, case.k - 1], case.twin.ranked[:, case.k]
    gaps = (least - best_left)[best_left > -np.inf]
    gap = float(np.median(gaps)) if gaps.size else 1.0
    return least, best_left, [0.0, gap, 1e300][(case.twin.bias.size + case.k) % 3]


def check_counts(case):
    twin, k = case.twin, case.k
    n_tokens, n_experts = twin.scores.shape
    least, best_left, width = ends_of(case)
    load = np.full(n_experts, n_tokens * k / n_experts)
    state = new_descent(load, load)
    state.price[:], state.width[0], state.ties[:], state.n_near[0] = twin.bias, width, UNTOUCHED, UNTOUCHED
    state.amplitude[:] = 0.0
    # One pass, which no goal ends and no step follows.
    descend_sample(twin.scores, np.arange(n_tokens), k, state, -1.0, 1)
    assert (state.loads == twin.chosen(k).sum(axis=0)).all(), case.name
    close = least - best_left <= width
    expected = np.zeros((n_experts, n_experts), np.int64)
    np.add.at(expected, (twin.order[close, k - 1], twin.order[close, k]), 1)
    assert (state.ties == expected).all(), case.name
    assert state.n_near[0] == close.sum(), case.name


def check_candidates(case):
    twin, k = case.twin, case.k
    n_tokens, n_experts = twin.scores.shape
    least, best_left, width = ends_of(case)
    loads = np.full(n_experts, UNTOUCHED)
    words = np.full((n_tokens, -(-n_experts // 64)), 0x7F, np.uint64)
    found = collect_part(twin.scores, k, twin.bias, width, 0.0, 0, n_tokens, loads, words, False)
    marks = twin.chosen(k)
    assert (loads - UNTOUCHED == marks.sum(axis=0)).all(), case.name
    assert (words == box.words_of(marks)).all(), case.name
    within = (twin.biased >= (least - width)[:, None]) & (twin.biased <= (best_left + width)[:, None])
    token, expert = np.nonzero(within)
    listed, first = np.unique(token, return_index=True)
    assert found.token.tolist() == listed.tolist(), case.name
    assert found.start.tolist() == [*first.tolist(), token.size], case.name
    assert (found.expert == expert).all(), case.name
    assert (found.score == twin.scores[within]).all(), case.name
    assert (found.chosen == marks[within]).all(), case.name
    # Written over bits that are wrong, and read again.
    wrong = box.words_of(marks ^ within)
    write_choice(found, wrong)
    experts = np.full((n_tokens, k), UNTOUCHED)
    list_members(wrong, 0, n_tokens, experts)
    assert (experts.ravel() == np.nonzero(marks)[1]).all(), case.name


@pytest.mark.parametrize("kind", box.KINDS)
def test_equals_sorting_over_the_box(kind):
    for n, case in enumerate(box.cases(kind, np.float64)):
        (check_counts, check_candidates)[n % 2](case)


@pytest.mark.deep
@pytest.mark.parametrize("kind", box.KINDS)
def test_every_k_of_the_box(kind, record_property):
    n_shapes = 0
    for case in box.lines(kind, np.float64):
        check_counts(case)
        check_candidates(case)
        n_shapes += 1
    record_property("counted", f"candidates: {n_shapes} shapes of {kind} scores, every E and K of the box")


def test_candidates_choose_like_sorting_over_the_box():
    """After a change of prices within the width, without ties."""
    rng = np.random.default_rng(8)
    n_moved = 0
    for case in box.cases("continuous", np.float64):
        twin, k = case.twin, case.k
        n_tokens, n_experts = twin.scores.shape
        loads, words = np.zeros(n_experts, np.int64), np.empty((n_tokens, -(-n_experts // 64)), np.uint64)
        found = collect_part(twin.scores, k, twin.bias, 0.25, 0.0, 0, n_tokens, loads, words, False)
        state = new_descent(np.zeros(n_experts), np.zeros(n_experts))
        state.loads[:], state.width[0] = loads, 0.0
        state.price[:] = twin.bias + rng.uniform(0.0, 0.249, n_experts)
        count_candidates(found, state)
        write_choice(found, words)
        marks = box.sort(twin.scores, state.price).chosen(k)
        assert (words == box.words_of(marks)).all(), case.name
        assert (state.loads == marks.sum(axis=0)).all(), case.name
        n_moved += (state.loads != loads).any()
    assert n_moved > 0

"""Experts that choose tokens, and experts that drop them, against sorting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancesim.kernels.capacity import drop_beyond
from balancesim.kernels.expert_choice import choose_tokens, list_experts
from tests import naive
from tests.kernels import box
from tests.strategies import Batch, batches


def best(tokens, scores, count):
    """The tokens with the best scores, ties to the lower; none with a masked one."""
    order = sorted((t for t in tokens if scores[t] > -np.inf), key=lambda t: (-scores[t], t))
    return order[:count]


@given(batches(masks=True), st.integers(0, 45))
def test_experts_choose_their_best(batch: Batch, capacity: int) -> None:
    scores = batch.scores
    chosen, held = np.ones(scores.shape, np.bool_), np.empty(len(scores), np.int64)
    choose_tokens(scores, capacity, chosen, held)
    for e in range(scores.shape[1]):
        assert np.flatnonzero(chosen[:, e]).tolist() == sorted(
            best(range(len(scores)), scores[:, e], capacity)
        )
    assert held.tolist() == chosen.sum(axis=1).tolist()


def test_experts_are_listed_in_order() -> None:
    chosen = np.array([[True, False, True], [False, False, False], [True, True, True]])
    experts = np.empty((3, 4), np.int64)
    list_experts(chosen, experts)
    assert experts.tolist() == [[0, 2, -1, -1], [-1] * 4, [0, 1, 2, -1]]


@pytest.mark.parametrize("by_position", [False, True])
@given(batches(masks=True), st.integers(0, 20))
def test_experts_drop_what_is_beyond(by_position: bool, batch: Batch, capacity: int) -> None:
    scores = batch.scores
    choice = naive.choose(scores, np.zeros(scores.shape[1]), batch.k)
    experts = np.array(choice)
    drop_beyond(scores, experts, capacity, by_position)
    for e in range(scores.shape[1]):
        wanted = [t for t, own in enumerate(choice) if e in own]
        kept = wanted[:capacity] if by_position else best(wanted, scores[:, e], capacity)
        assert np.flatnonzero((experts == e).any(axis=1)).tolist() == sorted(kept)
    # A place is emptied where it is: no token is sent elsewhere.
    assert ((experts == choice) | (experts == -1)).all()


@pytest.mark.parametrize("kind", box.KINDS)
def test_equals_sorting_over_the_box(kind: str) -> None:
    """Experts choose, or drop; capacities from none to more than there is."""
    for turn, case in enumerate(box.cases(kind)):
        if turn % 8:
            continue
        scores, k = case.twin.scores, case.k
        n_tokens, n_experts = scores.shape
        capacity = (0, 1, n_tokens * k // n_experts, n_tokens - 1, n_tokens, n_tokens + 5)[turn // 8 % 6]
        order = np.argsort(-scores, axis=0, kind="stable")
        place = np.empty_like(order)
        np.put_along_axis(place, order, np.arange(n_tokens)[:, None], axis=0)
        best_of_all = (place < capacity) & (scores > -np.inf)
        chosen, held = np.ones(scores.shape, np.bool_), np.empty(n_tokens, np.int64)
        choose_tokens(scores, capacity, chosen, held)
        assert (chosen == best_of_all).all(), case.name
        assert (held == best_of_all.sum(axis=1)).all(), case.name
        listed = np.empty((n_tokens, max(1, int(held.max()))), np.int64)
        list_experts(chosen, listed)
        assert listed[listed >= 0].tolist() == np.nonzero(best_of_all)[1].tolist(), case.name
        assert ((listed >= 0).sum(axis=1) == held).all(), case.name
        marks = case.twin.chosen(k)
        choice = np.nonzero(marks)[1].reshape(n_tokens, k)
        for by_position in (False, True):
            experts = choice.copy()
            drop_beyond(scores, experts, capacity, by_position)
            # Among those who want the expert: by position, or by score with ties to the lower token.
            ahead = np.cumsum(marks, axis=0) - 1
            if not by_position:
                sorted_marks = np.take_along_axis(marks, order, axis=0)
                np.put_along_axis(ahead, order, np.cumsum(sorted_marks, axis=0) - 1, axis=0)
            kept = marks & (ahead < capacity)
            assert (experts == np.where(np.take_along_axis(kept, choice, axis=1), choice, -1)).all(), (
                case.name
            )

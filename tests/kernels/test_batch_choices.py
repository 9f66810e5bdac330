"""Experts that choose tokens, and experts that drop them, against sorting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancesim.kernels.capacity import drop_beyond
from balancesim.kernels.expert_choice import choose_tokens, list_experts
from tests import naive
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

"""Choice and gate weights of a linear router over the box of shapes, against NumPy."""

import numpy as np
import pytest

from balancesim.batches import padded
from balancesim.kernels import gates
from balancesim.kernels.jit import kernel
from balancesim.kernels.model import LANES
from tests.kernels import box


@kernel
def marks_of(tile, bias, k, n_experts, top, n_lanes, chosen):
    gates.mark_chosen(tile, bias, k, n_experts, top, n_lanes, chosen)


@kernel
def softmax_of(logits, n_experts, n_lanes, probabilities, partition):
    gates.find_softmax(logits, n_experts, n_lanes, probabilities, partition)


@kernel
def gates_of(logits, probabilities, chosen, kind, n_experts, n_lanes, gate):
    gates.find_gates(logits, probabilities, chosen, kind, n_experts, n_lanes, gate)


@pytest.mark.parametrize("kind", box.KINDS)
def test_marks_equal_sorting_over_the_box(kind):
    for case in box.cases(kind, np.float64, LANES):
        n_lanes, n_experts = case.twin.scores.shape
        top, chosen = np.full((case.k, LANES), np.nan), np.full((n_experts, LANES), np.nan)
        top[:, :n_lanes] = case.twin.ranked[:, : case.k].T
        tile, bias = box.tile_of(case.twin.scores), padded(case.twin.bias)
        marks_of(tile, bias, case.k, n_experts, top, n_lanes, chosen)
        assert (case.twin.chosen(case.k) == chosen[:, :n_lanes].T).all(), case.name
        assert np.isnan(chosen[:, n_lanes:]).all(), case.name


@pytest.mark.parametrize("kind", ["continuous", "ties", "near", "zeros"])
def test_gates_over_the_box(kind):
    for turn, case in enumerate(box.cases(kind, np.float64, LANES)):
        if turn % 2:
            continue
        logits = 10.0 * case.twin.scores
        n_lanes, n_experts = logits.shape
        marks, tile = case.twin.chosen(case.k), box.tile_of(logits)[:n_experts]
        probabilities, partition = np.full((n_experts, LANES), np.nan), np.full(LANES, np.nan)
        softmax_of(tile, n_experts, n_lanes, probabilities, partition)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = weights / weights.sum(axis=1, keepdims=True)
        # A sum of E, exponentials and a quotient: an ulp or so each.
        bound = (n_experts + 8) * np.finfo(float).eps
        np.testing.assert_allclose(probabilities[:, :n_lanes].T, shares, rtol=bound, err_msg=case.name)
        expected = logits.max(axis=1) + np.log(weights.sum(axis=1))
        np.testing.assert_allclose(partition[:n_lanes], expected, rtol=bound, atol=bound, err_msg=case.name)
        gate, chosen = np.full((n_experts, LANES), np.nan), box.tile_of(marks.astype(np.float64))[:n_experts]
        own = (gates.RENORMALISED, gates.RAW, gates.SIGMOID_GATE)[turn // 2 % 3]
        gates_of(tile, probabilities, chosen, own, n_experts, n_lanes, gate)
        if own == gates.RENORMALISED:
            weights = np.where(
                marks, np.exp(logits - np.where(marks, logits, -np.inf).max(axis=1)[:, None]), 0.0
            )
        elif own == gates.SIGMOID_GATE:
            weights = np.where(marks, 1.0 / (1.0 + np.exp(-logits)), 0.0)
        expected = shares * marks if own == gates.RAW else weights / weights.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(gate[:, :n_lanes].T, expected, rtol=bound, err_msg=case.name)
        assert np.isnan(gate[:, n_lanes:]).all(), case.name

"""The running top-K of one tile, its loads and its sum, against sorting."""

import numpy as np
import pytest
from numba.core.errors import TypingError

from balancesim.kernels.jit import kernel
from balancesim.kernels.lanes import flat
from balancesim.kernels.model import LANES, n_rows
from balancesim.kernels.topk import count_loads, find_top, n_ranks, top_sum
from tests.conftest import INTERPRETED
from tests.kernels.box import by_halves


@kernel
def run_tile(tile, bias, k, n_experts, top, group, n_lanes, loads, sums):
    find_top(tile, bias, k, top, group, n_lanes)
    count_loads(tile, bias, k, n_experts, top, n_lanes, loads)
    return top_sum(top, k, n_lanes, sums)


@kernel
def write_flat(tile, value):
    row = flat(tile)
    row[LANES + 1] = value
    return row.size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 8, 9, 16, 17])
@pytest.mark.parametrize("n_lanes", [1, 8, 127, LANES])
def test_one_tile(dtype, k, n_lanes):
    rng = np.random.default_rng(1000 * k + n_lanes)
    for n_experts in (k + 1, k + 8, 40):
        rows = n_rows(n_experts)
        tile = np.full((rows, LANES), -np.inf, dtype)
        tile[:n_experts, :n_lanes] = rng.integers(-20, 20, (n_experts, n_lanes)) / 4.0
        bias = np.zeros(rows, dtype)
        bias[:n_experts] = rng.integers(-8, 8, n_experts) / 4.0
        # Scratch space and lanes past the last hold anything.
        top = np.full((n_ranks(k), LANES), np.nan, dtype)
        group = np.full((8, LANES), np.nan, dtype)
        sums = np.full(LANES, np.nan)
        loads = np.full(n_experts, 7)
        value = run_tile(tile, bias, k, n_experts, top, group, n_lanes, loads, sums)
        biased = (tile + bias[:, None])[:n_experts, :n_lanes]
        order = np.argsort(-biased, axis=0, kind="stable")[:k]
        best = np.take_along_axis(biased, order, axis=0)
        assert np.array_equal(top[:k, :n_lanes], best)
        assert np.array_equal(loads - 7, np.bincount(order.ravel(), minlength=n_experts))
        each = np.zeros(LANES)
        for rank in range(k):
            each[:n_lanes] += best[rank]
        assert value == by_halves(each[None])[0]


@pytest.mark.skipif(INTERPRETED, reason="NumPy copies what is not contiguous")
def test_no_flat_view_of_a_part():
    with pytest.raises(TypingError, match="C-contiguous"):
        write_flat(np.zeros((3, 2 * LANES))[:, :LANES], 5.0)


def test_the_flat_view_shares_the_tile():
    tile = np.zeros((3, LANES))
    assert write_flat(tile, 5.0) == 3 * LANES
    assert tile[1, 1] == 5.0
    assert np.count_nonzero(tile) == 1

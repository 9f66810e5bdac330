"""Block transposes against plain indexing."""

import numpy as np
import pytest

from balancesim.kernels.jit import kernel
from balancesim.kernels.model import LANES, n_rows
from balancesim.kernels.transpose import add_rows, load_tile
from tests.kernels import box


@kernel
def load(scores, rows, n_lanes, tile):
    load_tile(scores, rows, n_lanes, tile)


@kernel
def add(table, rows, n_lanes, tile):
    add_rows(table, rows, n_lanes, tile)


def check(dtype, n_experts, n_lanes):
    rng = np.random.default_rng([n_experts, n_lanes])
    scores = rng.standard_normal((40, n_experts)).astype(dtype)
    rows = rng.integers(0, 40, LANES)
    rows[n_lanes:] = 1 << 40  # what is read there would crash
    poison = np.full((n_rows(n_experts), LANES), 99.0, dtype)
    load(scores, rows, n_lanes, poison)
    assert (poison[:n_experts, :n_lanes] == scores[rows[:n_lanes]].T).all()
    assert (poison[n_experts:, :n_lanes] == -np.inf).all()
    assert (poison[:, n_lanes:] == 99.0).all()
    tile = np.ones((n_rows(n_experts), LANES), dtype)
    add(scores, rows, n_lanes, tile)
    assert (tile[:n_experts, :n_lanes] == 1 + scores[rows[:n_lanes]].T).all()
    assert (tile[:, n_lanes:] == 1.0).all()
    assert (tile[n_experts:] == 1.0).all()


@pytest.mark.parametrize("dtype", box.DTYPES)
def test_load_and_add(dtype):
    """Every number of experts with eight numbers of lanes, which are all met."""
    place = box.DTYPES.index(dtype)
    for n_experts in box.EXPERTS:
        for n_lanes in range(1 + (n_experts + 8 * place) % 16, LANES + 1, 16):
            check(dtype, n_experts, n_lanes)

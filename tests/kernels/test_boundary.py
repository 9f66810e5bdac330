"""The K-th place of every token against sorting."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancesim.batches import padded
from balancesim.kernels.boundary import Boundary, find_boundary, find_near, find_pair, make_boundary
from balancesim.kernels.jit import kernel
from balancesim.kernels.members import n_words
from balancesim.kernels.model import LANES, n_rows
from tests import naive
from tests.conftest import INTERPRETED
from tests.kernels import box
from tests.kernels.instances import experts_of, masked, quarters
from tests.strategies import batches


@kernel
def made(tile, n):
    return make_boundary(tile, n)


@kernel
def fill(tile, bias, k, n_experts, top, n_lanes, width, boundary, near, loads):
    tied = find_boundary(tile, bias, k, n_experts, top, n_lanes, boundary, loads)
    find_pair(tile, bias, k, n_experts, n_lanes, boundary, tied)
    find_near(tile, bias, k, n_experts, n_lanes, boundary, tied, width, near)


def near_of(biased, chosen, width):
    """Chosen experts at most ``width`` above the best that is left, left ones as near to the least chosen."""
    left = set(range(len(biased))) - set(chosen)
    best_left, least = max(biased[e] for e in left), min(biased[e] for e in chosen)
    return sorted(
        {e for e in chosen if biased[e] <= best_left + width}
        | {e for e in left if biased[e] >= least - width}
    )


def check(scores, bias, k, width):
    n_lanes, n_experts = scores.shape
    tile = np.full((n_rows(n_experts), LANES), np.nan, scores.dtype)
    tile[:, :n_lanes] = -np.inf
    tile[:n_experts, :n_lanes] = scores.T
    bias = bias.astype(scores.dtype)
    # Whatever a tile before left there: nothing of it may stay, and the lanes past the last are not touched.
    boundary = Boundary(*(np.full_like(part, 7) for part in made(tile, n_words(n_experts))))
    near = np.full_like(boundary.words, 5)
    loads = np.full(n_experts, 1000)
    top = np.full((k, LANES), np.nan, scores.dtype)
    top[:, :n_lanes] = -np.sort(-(scores + bias), axis=1)[:, :k].T
    fill(tile, padded(bias), k, n_experts, top, n_lanes, np.float64(width), boundary, near, loads)
    expected = [naive.boundary(row, k) for row in scores + bias]
    assert experts_of(boundary.words.T[:n_lanes]) == [chosen for chosen, *_ in expected]
    for i, name in enumerate(("kth", "following", "least", "best_left"), start=1):
        assert getattr(boundary, name)[:n_lanes].tolist() == [row[i] for row in expected], name
    assert loads.tolist() == [1000 + n for n in naive.loads_of([row[0] for row in expected], n_experts)]
    biased = (scores + bias).astype(np.float64)
    sets = [near_of(row, found[0], width) for row, found in zip(biased, expected, strict=True)]
    assert experts_of(near.T[:n_lanes]) == sets
    assert all((part[..., n_lanes:] == 7).all() for part in boundary)
    assert (near[:, n_lanes:] == 5).all()
    return expected, sets


@given(batches(masks=True), st.sampled_from([0.0, 0.25, 1.0, 1e300]))
def test_equals_sorting_with_ties(batch, width):
    check(*batch, width)


EXPERTS = (2, 9, 65) if INTERPRETED else (2, 3, 8, 9, 17, 63, 64, 65, 130)


@pytest.mark.parametrize("n_experts", EXPERTS)
@pytest.mark.parametrize("n_lanes", (5,) if INTERPRETED else (1, 7, 9, LANES - 1, LANES))
def test_every_k_across_borders(n_experts, n_lanes):
    rng = np.random.default_rng([n_experts, n_lanes])
    ranks = range(1, n_experts) if n_experts <= 17 else (1, 2, 4, 5, 9, 62, 63, 64, n_experts - 1)
    for k in (k for k in ranks if k < n_experts):
        dtype = np.float32 if k % 2 else np.float64
        scores = quarters(rng, (n_lanes, n_experts))
        if k % 3:
            scores = masked(rng, scores, k)
        if k % 5 == 0:
            scores += rng.standard_normal(scores.shape)
        check(scores.astype(dtype), quarters(rng, n_experts), k, 0.25 * (k % 4))


def test_ties_at_the_boundary_go_to_the_lower_index():
    scores = np.array([[0.0, 1.0, 0.0, 0.0, 1.0, 0.0]])
    expected, sets = check(scores, np.zeros(6), 3, 0.0)
    assert expected == [([0, 1, 4], 0, 2, 0.0, 0.0)]
    assert sets == [[0, 2, 3, 5]]


def test_exactly_k_experts_that_are_not_masked():
    """Nothing is next and nothing is near, however wide."""
    scores = np.array([[0.0, -np.inf, 1.0, -np.inf]])
    expected, sets = check(scores, np.zeros(4), 2, 1e300)
    assert expected == [([0, 2], 0, -1, 0.0, -np.inf)]
    assert sets == [[]]


def test_the_width_itself_is_near():
    scores = np.array([[0.0, 1.0, 1.5, 2.0, -0.5]])
    assert check(scores, np.zeros(5), 2, 0.5)[1] == [[1, 2]]
    assert check(scores, np.zeros(5), 2, 0.25)[1] == [[]]
    assert check(scores, np.zeros(5), 2, 1.0)[1] == [[1, 2, 3]]
    assert check(scores, np.zeros(5), 2, 1.5)[1] == [[0, 1, 2, 3]]


def check_in_box(case):
    """Words, places, scores, loads and what is near, at no width, at the K-th gap and at any."""
    twin, k = case.twin, case.k
    n_lanes, n_experts = twin.scores.shape
    top = np.full((k, LANES), np.nan, twin.scores.dtype)
    top[:, :n_lanes] = twin.ranked[:, :k].T
    least, best_left = twin.ranked[:, k - 1].astype(np.float64), twin.ranked[:, k].astype(np.float64)
    gaps = (least - best_left)[best_left > -np.inf]
    width = [0.0, float(np.median(gaps)) if gaps.size else 1.0, 1e300][(n_experts + k) % 3]
    boundary = Boundary(
        *(np.full_like(part, 7) for part in made(box.tile_of(twin.scores), n_words(n_experts)))
    )
    near, loads = np.full_like(boundary.words, 5), np.full(n_experts, 1000)
    tile, bias = box.tile_of(twin.scores), padded(twin.bias)
    fill(tile, bias, k, n_experts, top, n_lanes, np.float64(width), boundary, near, loads)
    marks = twin.chosen(k)
    following = np.where(best_left > -np.inf, twin.order[:, k], -1)
    expected = (box.words_of(marks).T, twin.order[:, k - 1], following, least, best_left)
    for name, part, other in zip(Boundary._fields, boundary, expected, strict=True):
        assert (part[..., :n_lanes] == other).all(), (case.name, name)
        assert (part[..., n_lanes:] == 7).all(), (case.name, name)
    assert (loads == 1000 + marks.sum(axis=0)).all(), case.name
    biased = twin.biased.astype(np.float64)
    within = (biased >= (least - width)[:, None]) & (biased <= (best_left + width)[:, None])
    assert (box.words_of(within) == near[:, :n_lanes].T).all(), case.name
    assert (near[:, n_lanes:] == 5).all(), case.name


@pytest.mark.parametrize("kind", box.KINDS)
def test_equals_sorting_over_the_box(kind):
    for case in box.cases(kind, most=LANES):
        check_in_box(case)


@pytest.mark.deep
@pytest.mark.parametrize("kind", box.KINDS)
def test_every_k_of_the_box(kind, record_property):
    n_shapes = 0
    for case in box.lines(kind, most=LANES):
        check_in_box(case)
        n_shapes += 1
    record_property("counted", f"boundaries: {n_shapes} shapes of {kind} scores, every E and K of the box")

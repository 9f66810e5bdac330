"""Tiles of scores: independence of the batch, drifts, masks, and each layer of the model."""

import numpy as np
import pytest

from balancesim import sources
from balancesim.kernels.jit import kernel
from balancesim.kernels.model import LANES, RAW, SIGMOID, SOFTMAX
from balancesim.kernels.scores import draw_uniforms, offsets_at, transform_tile
from balancesim.rng import philox_key

OFFSETS = (0.5, -1.0, 0.25, 0.0, 2.0)


@kernel
def offsets_of(model, step, offsets):
    offsets_at(model, step, offsets)


@kernel
def transform(tile, n_experts, n_lanes, kind):
    transform_tile(tile, n_experts, n_lanes, kind)


@pytest.mark.parametrize(
    "source",
    [
        sources.Normal(n_experts=5, seed=4, offsets=OFFSETS),
        sources.StudentT(n_experts=5, seed=4),
        sources.Pareto(n_experts=5, seed=4, tail_index=0.05),
        sources.Factor(n_experts=5, seed=4, n_factors=3),
        sources.Clustered(n_experts=5, seed=4, n_clusters=3),
        sources.Drifting(n_experts=5, seed=4, transform="softmax"),
    ],
    ids=lambda source: source.describe(),
)
@pytest.mark.parametrize("n_tokens", [1, 7, LANES + 1])
def test_a_token_is_the_same_in_any_batch(source, n_tokens):
    whole = source.batch(3, LANES + 9)
    assert (source.batch(3, n_tokens) == whole[:n_tokens]).all()
    assert not (source.batch(4, n_tokens) == whole[:n_tokens]).any()
    assert not (source.with_seed(5).batch(3, n_tokens) == whole[:n_tokens]).any()


def test_more_experts_leave_the_others_alone():
    few, many = (sources.Gumbel(n_experts=n, seed=1).batch(0, 20) for n in (5, 11))
    assert (few == many[:, :5]).all()


def walk(source, steps):
    offsets = np.empty((len(steps), source.n_experts))
    for row, step in zip(offsets, steps, strict=True):
        offsets_of(source.kernel_model(), step, row)
    return offsets


def test_walk_has_independent_increments():
    source = sources.Drifting(n_experts=6, walk_rate=0.5, seed=2)
    path = walk(source, range(400))
    assert (path[0] == 0.0).all()
    increments = np.diff(path, axis=0)
    n = increments.size
    # Standard error of a variance is var sqrt(2/n), of a lag-1 correlation 1/sqrt(n); five of each.
    assert increments.var() == pytest.approx(0.25, abs=5 * 0.25 * np.sqrt(2 / n))
    assert abs((increments[1:] * increments[:-1]).mean() / 0.25) < 5 / np.sqrt(n)


def test_walk_needs_no_replay():
    source = sources.Drifting(n_experts=6, walk_rate=0.5, seed=2)
    assert (walk(source, [123_456_789]) == walk(source, [123_456_789])).all()
    spread = walk(sources.Drifting(n_experts=64, walk_rate=1.0, seed=3), [10_000]).std()
    assert spread == pytest.approx(100.0, rel=0.5)  # 5.6 standard errors of 64 draws


def test_switch_reverses_the_offsets():
    source = sources.Drifting(n_experts=5, walk_rate=0.0, offsets=OFFSETS, switch_at=(3, 7))
    assert walk(source, [0, 2, 3, 6, 7]).tolist() == [
        list(OFFSETS), list(OFFSETS), list(OFFSETS[::-1]), list(OFFSETS[::-1]), list(OFFSETS),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transforms_keep_masks(dtype):
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 3, (5, 9)).astype(dtype)
    scores[2, 4] = -np.inf
    eps = float(np.finfo(dtype).eps)
    tile = np.full((8, LANES), -np.inf, dtype)
    for kind, exact in (
        (RAW, scores),
        (SIGMOID, np.where(scores == -np.inf, -np.inf, 1 / (1 + np.exp(-scores.astype(np.float64))))),
    ):
        tile[:5, :9] = scores
        if kind == SIGMOID:
            transform(tile, 5, 9, kind)
        np.testing.assert_allclose(tile[:5, :9], exact, rtol=4 * eps)
    tile[:5, :9] = scores
    transform(tile, 5, 9, SOFTMAX)
    share = np.exp(scores.astype(np.float64) - scores.max(axis=0))
    np.testing.assert_allclose(
        tile[:5, :9], np.where(scores == -np.inf, -np.inf, share / share.sum(axis=0)), rtol=16 * eps
    )


def test_uniforms_come_with_their_complements():
    uniform, complement = np.empty((40, 5)), np.empty((40, 5))
    draw_uniforms(*(np.uint64(word) for word in philox_key(1)), 0, uniform, complement)
    np.testing.assert_allclose(uniform + complement, 1.0, rtol=1e-15)
    assert ((uniform > 0) & (uniform < 1)).all()
    assert np.unique(uniform).size == uniform.size

"""Routing on the card against the reference: every border of the kernels, ties, masks, extremes."""

import numpy as np
import pytest

import balancesim as bs
from balancesim.errors import InputError
from balancesim.kernels_cupy import device, route
from balancesim.routing import route_numpy

# The borders of lanes and slots, and E that is no multiple of a chunk, a piece or a part.
SHAPES = (
    (2, 1), (3, 2), (7, 4), (8, 2), (9, 8), (16, 1), (17, 16), (33, 3), (61, 5), (64, 8), (65, 8), (100, 16),
    (128, 4), (130, 6), (257, 8), (1000, 2), (2048, 8), (2049, 8), (40, 17), (130, 100), (9000, 3),
)  # fmt: skip


def scores_of(kind, n_tokens, n_experts, k, dtype):
    rng = np.random.default_rng([n_tokens, n_experts, k])
    if kind == "quarters":
        scores = rng.integers(-40, 40, (n_tokens, n_experts)) / 4.0
        masked = rng.random(scores.shape) < 0.1
        masked[:, :k] = False
        scores[masked] = -np.inf
    elif kind == "denormal":
        scores = rng.integers(-40, 40, (n_tokens, n_experts)) * float(np.finfo(dtype).smallest_subnormal)
    elif kind == "extreme":
        # Their sums, in float64, must not overflow.
        part = 1e-2 if dtype == np.float32 else 1e-8
        scores = rng.standard_normal((n_tokens, n_experts)) * (float(np.finfo(dtype).max) * part)
    else:
        scores = rng.standard_normal((n_tokens, n_experts))
    return scores.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n_experts", "k"), SHAPES)
def test_loads_equal_the_reference(n_experts, k, dtype):
    cupy = device.cupy()
    for kind in ("normal", "quarters", "denormal", "extreme"):
        for n_tokens in (1, 31, 300, 5001 if n_experts < 3000 else 33):
            scores = scores_of(kind, n_tokens, n_experts, k, dtype)
            bias = np.random.default_rng(1).integers(-8, 8, n_experts) / 4.0
            bias *= {"denormal": float(np.finfo(dtype).smallest_subnormal)}.get(kind, 1.0)
            bias = bias.astype(dtype)
            loads, value, experts = route_numpy(scores, bias, k, True)
            for given in (scores, cupy.asarray(scores)):
                found = bs.route(given, bias, k=k, backend="cupy", experts=True)
                assert (found.loads == loads).all(), (kind, n_tokens)
                assert (cupy.asnumpy(found.experts) == experts).all()
                # Sums of n numbers in two orders: each within n 2**-53 of the sum of magnitudes.
                n, largest = n_tokens * k, float(np.abs(scores[np.isfinite(scores)]).max()) + 2.0
                assert abs(found.value - value) <= 2 * n * 2.0**-53 * n * largest
                assert (bs.route(given, bias, k=k, backend="cupy").loads == loads).all()


def test_the_value_is_the_same_every_time_and_near_the_reference():
    scores = scores_of("normal", 100_000, 64, 8, np.float32)
    bias = np.linspace(-0.1, 0.1, 64)
    found = {bs.route(scores, bias, k=8, backend="cupy").value for _ in range(5)}
    assert len(found) == 1
    expected = bs.route(scores, bias, k=8).value
    assert abs(found.pop() - expected) <= 2 * 800_000 * 2.0**-53 * 800_000 * 6.0
    assert bs.dual_value(scores, bias, k=8, backend="cupy") == pytest.approx(
        bs.dual_value(scores, bias, k=8), rel=1e-12
    )


def test_parts_that_are_streamed_add_up():
    scores = scores_of("quarters", 10_007, 61, 5, np.float32)
    bias = np.zeros(61, np.float32)
    loads, value, experts = route_numpy(scores, bias, 5, True)
    for chunk_bytes in (61 * 4 * 99, 1 << 20, 1 << 30):
        found = route.route_tokens(scores, bias, 5, experts=True, chunk_bytes=chunk_bytes)
        assert (found.loads == loads).all()
        assert found.value == value
        assert (found.experts == experts).all()


def test_scores_on_the_card_choose_the_backend():
    cupy = device.cupy()
    scores = cupy.asarray(scores_of("normal", 500, 16, 2, np.float32))
    assert (bs.route(scores, k=2).loads == bs.route(scores.get(), k=2).loads).all()
    assert (bs.route(scores[1::2], k=2).loads == bs.route(scores.get()[1::2], k=2).loads).all()
    with pytest.raises(InputError, match="lie on a card"):
        bs.route(scores, k=2, backend="numba")


def test_bad_scores_are_refused_as_on_the_processor():
    scores = scores_of("normal", 500, 16, 2, np.float32)
    for bad in (np.nan, np.inf):
        wrong = scores.copy()
        wrong[499, 7] = bad
        with pytest.raises(InputError, match="token 499, expert 7"):
            bs.route(wrong, k=2, backend="cupy")
    wrong = scores.copy()
    wrong[3, 1:] = -np.inf
    with pytest.raises(InputError, match="at least k = 2 experts unmasked, got 1 at token 3"):
        bs.route(wrong, k=2, backend="cupy")
    assert bs.route(wrong, k=1, backend="cupy").loads.sum() == 500

"""The card's arithmetic, compiled for the processor, against the Numba kernels: equal bits."""

import numpy as np
import pytest

from balancesim import sources
from balancesim.kernels import elementary
from balancesim.kernels.jit import kernel
from balancesim.kernels.model import LANES, ScoreModel
from balancesim.kernels.philox import philox
from balancesim.kernels.scores import draw_batch, draw_pointer
from tests.kernels_cupy import host
from tests.kernels_cupy.compiled import COMPILER

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler: c++, g++ or clang++")

FAMILIES = (
    sources.Uniform(n_experts=13, seed=3),
    sources.Normal(n_experts=13, seed=3),
    sources.Logistic(n_experts=13, seed=3),
    sources.Gumbel(n_experts=13, seed=3),
    sources.Exponential(n_experts=13, seed=3),
    sources.StudentT(n_experts=13, seed=3),
    sources.Cauchy(n_experts=13, seed=3),
    sources.LogNormal(n_experts=13, seed=3),
    sources.Pareto(n_experts=13, seed=3, tail_index=0.8),
)


@kernel
def philox_of(counters, keys, words):
    for i in range(counters.shape[0]):
        x = philox(counters[i, 0], counters[i, 1], counters[i, 2], counters[i, 3], keys[i, 0], keys[i, 1])
        words[i, 0], words[i, 1], words[i, 2], words[i, 3] = x


def drawn(model: ScoreModel, dtype, step, n_tokens):
    """Noise as the Numba kernels draw it, of unit scale, without offsets."""
    plain = model._replace(
        scale=1.0, offsets=np.zeros((1, model.n_experts)), table=np.zeros((0, model.n_experts), dtype)
    )
    scores = np.empty((n_tokens, model.n_experts), dtype)
    draw_batch(draw_pointer(plain, np.dtype(dtype)), plain, step, scores)
    return scores


def test_philox_gives_the_same_words():
    rng = np.random.default_rng(0)
    counters = rng.integers(0, 1 << 32, (500, 4), np.uint64)
    keys = rng.integers(0, 1 << 32, (500, 2), np.uint64)
    expected = np.empty((500, 4), np.uint64)
    philox_of(counters, keys, expected)
    found = [host.words(counter, key) for counter, key in zip(counters, keys, strict=True)]
    assert (np.array(found) == expected).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("source", FAMILIES, ids=lambda source: source.name)
def test_noise_has_the_same_bits(source, dtype):
    model = source.kernel_model()
    keys = (model.key0, model.key1)
    for step, n_tokens in ((0, 2000), ((1 << 32) - 1, 3 * LANES + 5)):
        expected = drawn(model, dtype, step, n_tokens)
        found = host.noise(model.family, dtype, n_tokens, model.n_experts, model.shape, keys, step, 0)
        assert (found == expected).all()


def test_a_last_bit_is_noticed():
    model = FAMILIES[4].kernel_model()
    expected = drawn(model, np.float32, 0, 2000)
    change = ("        y = C::a11 * z;\n", "        y = C::a11 * z * R(1.25);\n")
    found = host.noise(model.family, np.float32, 2000, 13, 1.0, (model.key0, model.key1), 0, 0, *change)
    apart = np.abs(found.view(np.int32) - expected.view(np.int32))
    assert 0 < apart.max() < 100
    assert (apart > 0).any()


def test_another_step_or_key_gives_other_bits():
    model = FAMILIES[1].kernel_model()
    keys = (model.key0, model.key1)
    base = host.noise(model.family, np.float32, 50, 8, 1.0, keys, 4, 0)
    assert not (host.noise(model.family, np.float32, 50, 8, 1.0, keys, 5, 0) == base).any()
    other = (model.key0, model.key1 ^ np.uint64(1))
    assert not (host.noise(model.family, np.float32, 50, 8, 1.0, other, 4, 0) == base).any()


def vectorised(function):
    @kernel
    def loop(values, results):
        for i in range(values.size):
            results[i] = function(values[i])

    return loop


def sine_of(sincos):
    @kernel
    def loop(values, results):
        for i in range(values.size):
            results[0, i], results[1, i] = sincos(values[i])

    return loop


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_elementary_functions_have_the_same_bits(dtype):
    bits = 8 * np.dtype(dtype).itemsize
    rng = np.random.default_rng(1)
    span = 80.0 if dtype == np.float32 else 700.0
    exponents = rng.uniform(-span, span, 20_000).astype(dtype)
    exponents = np.concatenate([exponents, np.array([0.0, -1e4, 1e4, -np.inf, np.inf], dtype)])
    positive = np.exp(rng.uniform(-80.0, 80.0, 20_000)).astype(dtype)
    turns = rng.uniform(-2.0, 2.0, 20_000).astype(dtype)
    for name, values in (("exp", exponents), ("log", positive)):
        expected = np.empty_like(values)
        with np.errstate(all="ignore"):
            vectorised(getattr(elementary, f"{name}{bits}"))(values, expected)
        found = host.elementary(name, values)
        assert (found[np.isfinite(values)] == expected[np.isfinite(values)]).all()
    expected = np.empty((2, turns.size), dtype)
    sine_of(getattr(elementary, f"sincos{bits}"))(turns, expected)
    assert (host.elementary("sin", turns) == expected[0]).all()
    assert (host.elementary("cos", turns) == expected[1]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 16])
def test_networks_keep_the_largest(ranks, dtype):
    rng = np.random.default_rng(ranks)
    for n_experts in (ranks + 1, 16, 61, 130):
        scores = (rng.integers(-40, 40, (200, n_experts)) / 4.0).astype(dtype)
        scores[rng.random(scores.shape) < 0.05] = -np.inf
        expected = -np.sort(-scores, axis=1)[:, :ranks]
        assert (host.top(ranks, scores)[:, : expected.shape[1]] == expected).all()

"""The card's kernels, run on the processor thread by thread, against the Numba kernels."""

import numpy as np
import pytest

from balancesim import sources
from balancesim.kernels_cupy import program
from balancesim.kernels_cupy.route import NOT_FINITE, TOO_FEW, route_tokens
from balancesim.kernels_cupy.scores import DeviceModel, draw_and_route, draw_batch
from balancesim.routing import route, route_numpy
from tests.kernels_cupy import card
from tests.kernels_cupy.compiled import COMPILER

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler: c++, g++ or clang++")


@pytest.fixture(autouse=True)
def _card(monkeypatch):
    card.install(monkeypatch)


def quarters(n_tokens, n_experts, dtype=np.float32, seed=0):
    """Scores in quarters, so that ties happen, and some masks."""
    rng = np.random.default_rng(seed)
    scores = (rng.integers(-40, 40, (n_tokens, n_experts)) / 4.0).astype(dtype)
    scores[:, 2:][rng.random((n_tokens, n_experts - 2)) < 0.02] = -np.inf
    bias = (rng.integers(-8, 8, n_experts) / 4.0).astype(dtype)
    return scores, bias


@pytest.mark.parametrize(
    ("n_tokens", "n_experts", "k", "dtype"),
    [
        (1, 2, 1, np.float32),
        pytest.param(70, 8, 2, np.float32, marks=pytest.mark.deep),
        (300, 64, 8, np.float32),
        (100, 61, 3, np.float64),
        (77, 130, 16, np.float32),
        pytest.param(40, 200, 5, np.float64, marks=pytest.mark.deep),
        (30, 40, 17, np.float32),
        pytest.param(9, 2100, 40, np.float64, marks=pytest.mark.deep),
    ],
)
@pytest.mark.parametrize("experts", [False, True])
def test_routing_equals_the_reference(n_tokens, n_experts, k, dtype, experts):
    scores, bias = quarters(n_tokens, n_experts, dtype)
    scores[:, : min(k, n_experts)] = np.where(
        np.isinf(scores[:, : min(k, n_experts)]), 0.25, scores[:, : min(k, n_experts)]
    )
    loads, value, chosen = route_numpy(scores, bias, k, experts)
    found = route_tokens(scores, bias, k, experts=experts, chunk_bytes=scores[:1].nbytes * 33)
    assert (found.loads == loads).all()
    assert found.value == value  # sums of quarters are exact
    assert found.flags & TOO_FEW == 0
    if experts:
        assert (found.experts == chosen).all()
    on_card = route_tokens(card.asarray(scores), bias, k, experts=experts)
    assert (on_card.loads == loads).all()


def test_a_kernel_that_breaks_ties_wrongly_is_caught(monkeypatch):
    good = program.Program.source
    right, wrong = "return biased == threshold && room-- > 0;", "return biased == threshold;"
    assert right in program.program("route", "float").source()
    monkeypatch.setattr(program.Program, "source", lambda self: good(self).replace(right, wrong))
    card.forget()
    scores, bias = quarters(100, 16)
    scores[:] = np.where(np.isinf(scores), 0.0, scores)
    loads, _, _ = route_numpy(scores, bias, 3, False)
    assert (route_tokens(scores, bias, 3, experts=False).loads != loads).any()
    monkeypatch.undo()
    card.forget()


def test_what_cannot_be_routed_is_flagged():
    scores, bias = quarters(40, 16)
    scores[:] = np.where(np.isinf(scores), 0.0, scores)
    assert route_tokens(scores, bias, 3, experts=True).flags == 0
    for bad, flag in ((np.nan, NOT_FINITE), (np.inf, NOT_FINITE)):
        wrong = scores.copy()
        wrong[37, 5] = bad
        assert route_tokens(wrong, bias, 3, experts=True).flags & flag
        assert route_tokens(wrong, bias, 3, experts=False).flags & flag
    wrong = scores.copy()
    wrong[11, 2:] = -np.inf
    assert route_tokens(wrong, bias, 3, experts=True).flags == TOO_FEW
    assert route_tokens(wrong, bias, 2, experts=False).flags == 0


OFFSETS = tuple(np.linspace(-0.5, 0.7, 21))
SOURCES = (
    sources.Normal(n_experts=21, seed=5, offsets=OFFSETS),
    sources.Uniform(n_experts=21, seed=5, transform="softmax"),
    sources.Pareto(n_experts=21, seed=5, tail_index=0.3),
    sources.StudentT(n_experts=21, seed=5, transform="sigmoid"),
    sources.Factor(n_experts=21, seed=5, n_factors=3),
    sources.Clustered(n_experts=21, seed=5, n_clusters=7),
    sources.Drifting(n_experts=21, seed=5, transform="softmax"),
)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_batches_have_the_same_bits(source):
    model = source.kernel_model()
    for step, n_tokens in ((0, 5), (977, 150)):
        expected = source.batch(step, n_tokens)
        found = draw_batch(model, step, n_tokens, expected.dtype)
        assert found.dtype == expected.dtype
        assert (found == expected).all()


@pytest.mark.parametrize("source", SOURCES[:2], ids=lambda source: source.name)
def test_drawing_and_routing_equals_both(source):
    rng = np.random.default_rng(1)
    model = DeviceModel(source.kernel_model(), source.dtype)
    for k, n_tokens in ((3, 203), (8, 64)):
        biases = 0.1 * rng.standard_normal((5, 21))
        loads, values = draw_and_route(model, 4, n_tokens, k, biases)
        scores = source.batch(4, n_tokens)
        for s in range(5):
            expected = route(scores, biases[s], k=k)
            assert (loads[s] == expected.loads).all()
            assert values[s] == pytest.approx(expected.value, rel=1e-12)

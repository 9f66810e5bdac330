"""Draws and simulations on the card against the Numba kernels': equal bits, for every built-in source."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import balancesim as bs
from balancesim import balancers, sources
from balancesim.kernels_cupy import device
from balancesim.kernels_cupy.scores import DeviceModel, draw_and_route, draw_batch

E = 64
OFFSETS = tuple(np.linspace(-1.0, 1.0, E))
SOURCES = (
    sources.Normal(n_experts=E, seed=1, offsets=OFFSETS),
    sources.Uniform(n_experts=E, seed=2),
    sources.Logistic(n_experts=E, seed=3, transform="sigmoid"),
    sources.Gumbel(n_experts=E, seed=4, transform="softmax"),
    sources.Exponential(n_experts=E, seed=5),
    sources.StudentT(n_experts=E, seed=6),
    sources.Cauchy(n_experts=E, seed=7),
    sources.LogNormal(n_experts=E, seed=8),
    sources.Pareto(n_experts=E, seed=9, tail_index=0.3),
    sources.Factor(n_experts=E, seed=10, n_factors=3),
    sources.Clustered(n_experts=E, seed=11, n_clusters=9),
    sources.Drifting(n_experts=E, seed=12),
    sources.TokenStream(counts="olmoe-wikipedia", layer=7, seed=13),
)
RULES = (
    balancers.AlfLB(step_size=1.0),
    balancers.AlfLB(schedule="sign", step_size=0.01),
    balancers.AlfLB(schedule="sqrt", step_size=0.5, recentre=True, delay=3),
    balancers.AlfLB(schedule="constant", step_size=0.3, radius=0.05),
    balancers.NoBalance(),
)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_every_source_has_the_same_bits_and_loads(source):
    model = source.kernel_model()
    biases = 0.1 * np.random.default_rng(0).standard_normal((3, source.n_experts))
    for step, n_tokens in ((0, 100), (123_456, 5000)):
        expected = source.batch(step, n_tokens)
        found = draw_batch(model, step, n_tokens, expected.dtype).get()
        assert (found == expected).all()
        loads, values = draw_and_route(DeviceModel(model, expected.dtype), step, n_tokens, 8, biases)
        for s in range(3):
            routed = bs.route(expected, biases[s], k=8)
            assert (loads[s] == routed.loads).all()
            assert values[s] == pytest.approx(routed.value, rel=1e-11)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_every_run_has_the_same_loads_and_biases(source):
    zero = np.zeros(source.n_experts)
    given = {"n_tokens": 333, "k": 4, "horizon": 60, "n_exact": 0, "n_records": 30, "comparator": zero}
    expected = bs.simulate(RULES, source, **given)
    found = bs.simulate(RULES, source, backend="cupy", **given)
    for here, there in zip(found, expected, strict=True):
        assert (here.loads == there.loads).all()
        assert (here.window_loads == there.window_loads).all()
        assert (here.bias == there.bias).all()
        assert here.status == there.status
        scale = 1.0 + float(np.abs(there.top_score).max())
        for name in ("regret", "score_lost", "top_score", "mean_max_violation"):
            assert np.abs(getattr(here, name) - getattr(there, name)).max() <= 1e-12 * scale, name


@pytest.mark.parametrize(("n_tokens", "k", "n_rules"), [(1, 1, 1), (32, 8, 40), (1024, 16, 16), (9000, 8, 3)])
def test_any_number_of_tokens_and_rules(n_tokens, k, n_rules):
    rules = [balancers.AlfLB(step_size=size) for size in np.geomspace(0.01, 10.0, n_rules)]
    source = SOURCES[0]
    given = {"n_tokens": n_tokens, "k": k, "horizon": 40, "n_exact": 0, "n_records": 40}
    expected = bs.simulate(rules, source, **given)
    found = bs.simulate(rules, source, backend="cupy", **given)
    for here, there in zip(found, expected, strict=True):
        assert (here.loads == there.loads).all()
        assert (here.bias == there.bias).all()


def test_a_thread_that_has_not_met_the_card_runs_too():
    device.kernel.cache_clear()
    given = {"n_tokens": 64, "k": 2, "horizon": 20, "n_exact": 0, "backend": "cupy"}
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: bs.simulate(RULES[0], SOURCES[0], **given), range(4)))
    assert all((run.loads == runs[0].loads).all() for run in runs)


def test_where_launches_are_cut_does_not_matter(monkeypatch):
    given = {"n_tokens": 64, "k": 2, "horizon": 500, "n_exact": 0, "backend": "cupy"}
    whole = bs.simulate(RULES[0], SOURCES[0], **given)
    monkeypatch.setattr("balancesim.driver_cupy._STEPS_PER_LAUNCH", 37)
    cut = bs.simulate(RULES[0], SOURCES[0], **given)
    assert (whole.loads == cut.loads).all()
    assert (whole.bias == cut.bias).all()
    assert np.abs(whole.regret - cut.regret).max() <= 1e-12

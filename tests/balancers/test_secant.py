"""Harmonic secant steps: a naive twin, units that do not matter, and a logarithm without a modulus."""

import dataclasses
import math

import numpy as np
import pytest

import balancesim as bs
from balancesim.balancers import AlfLB, Delayed, SecantHarmonic, registry
from balancesim.errors import InputError
from balancesim.sources import FromFunction, Normal, Pareto, Recorded
from tests.balancers.twins import Flipped, InPython

SOURCE = Normal(n_experts=6, offsets="iqr", seed=4)
SHORT = {"n_tokens": 70, "k": 2, "horizon": 25, "n_records": 40, "n_exact": 0}


def naive_margins(biased, k):
    """Each score less the K-th largest of the token's other scores."""
    n_tokens, n_experts = biased.shape
    margins = np.empty((n_tokens, n_experts))
    for i in range(n_tokens):
        for e in range(n_experts):
            others = np.sort(np.delete(biased[i], e))[::-1]
            margins[i, e] = float(biased[i, e]) - float(others[k - 1])
    return margins


def naive_run(rule, source, n_tokens, k, horizon):
    """The price after each batch, (N, E), from the rule's description."""
    n_experts = source.n_experts
    share = min(k, n_experts - k) / n_experts
    pooled = max(1, math.ceil(max(rule.pool, 1.0) / (share * n_tokens)))
    price, prices, waiting, loads = np.zeros(n_experts), [], [], np.zeros(n_experts)
    moves, violations, n = np.zeros(n_experts), np.zeros(n_experts), 0
    for step in range(horizon):
        scores = source.batch(step, n_tokens)
        used = price.astype(scores.dtype)
        waiting.append(naive_margins(scores + used, k))
        loads += bs.route(scores, price, k=k).loads
        if len(waiting) == pooled:
            n += 1
            margins = np.sort(np.concatenate(waiting), axis=0)[::-1]
            wanted = len(margins) * k / n_experts
            # Rank L + 1/2, counted from 1, interpolated.
            place = np.arange(1, len(margins) + 1)
            move = [abs(np.interp(wanted + 0.5, place, margins[:, e])) for e in range(n_experts)]
            moves += n * np.array(move)
            violations += n * np.abs(loads - wanted)
            ratio = np.divide(moves, violations, out=np.zeros(n_experts), where=violations > 0.0)
            price = price - rule.multiple / (n + rule.delay) * (loads - wanted) * ratio
            price = price - price.mean()
            waiting, loads = [], np.zeros(n_experts)
        prices.append(price)
    return np.array(prices)


@pytest.mark.parametrize(
    ("rule", "n_tokens", "k"),
    [
        (SecantHarmonic(), 70, 2),
        (SecantHarmonic(multiple=1.5, delay=2.5), 33, 4),
        (SecantHarmonic(pool=20), 7, 1),
        (SecantHarmonic(), 1, 5),
    ],
)
def test_a_run_equals_naive(rule, n_tokens, k):
    horizon = 25 if n_tokens > 1 else 150
    run = bs.simulate(rule, SOURCE, n_tokens=n_tokens, k=k, horizon=horizon, n_records=horizon, n_exact=0)
    expected = naive_run(rule, SOURCE, n_tokens, k, horizon)
    # Sums of some tens of terms in another order.
    np.testing.assert_allclose(run.bias, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "rule", [SecantHarmonic(), SecantHarmonic(pool=100), Delayed(rule=SecantHarmonic(), lag=2)]
)
def test_the_loop_has_the_bits_of_the_python_protocol(rule):
    inside, outside = bs.simulate([rule, InPython(rule)], SOURCE, **SHORT)
    assert inside.bias.tobytes() == outside.bias.tobytes()
    assert inside.loads.tolist() == outside.loads.tolist()


def test_a_pool_of_batches_is_one_larger_batch_between_its_updates():
    """With ``every`` the pool is filled by the protocol instead; the price is held either way."""
    pooled = bs.simulate(
        SecantHarmonic(pool=40), SOURCE, n_tokens=60, k=2, horizon=24, n_records=24, n_exact=0
    )
    every = Delayed(rule=SecantHarmonic(), every=2)
    held = bs.simulate(every, SOURCE, n_tokens=60, k=2, horizon=24, n_records=24, n_exact=0)
    assert pooled.bias.tobytes() == held.bias.tobytes()


@pytest.mark.parametrize("exponent", [-14, 14])
def test_units_do_not_matter(exponent):
    """Scores times a power of two: prices times the same, to the bit, and the same loads."""
    source = Pareto(n_experts=8, tail_index=0.8, seed=3)
    scaled = dataclasses.replace(source, scale=2.0**exponent)
    one, other = (bs.simulate(SecantHarmonic(), s, **SHORT) for s in (source, scaled))
    assert other.loads.tolist() == one.loads.tolist()
    assert np.array_equal(other.bias, one.bias * 2.0**exponent)
    plain, stretched = (bs.simulate(AlfLB(), s, **SHORT) for s in (source, scaled))
    assert plain.loads.tolist() != stretched.loads.tolist()


def mixed_experts(u):
    """Experts with tails of different kinds: the price that balances them is no offset."""
    from scipy import special

    scores = np.empty_like(u)
    scores[:, :3] = special.ndtri(u[:, :3])
    scores[:, 3:6] = 2.0 * u[:, 3:6]
    scores[:, 6:] = u[:, 6:] ** (-1 / 1.5)
    return scores


def test_regret_is_logarithmic_on_experts_of_different_shapes():
    """Four seeds, fixed before the first run; a constant step is the negative control.

    Growth over the last factor of 8 in N, in units of that over the factor of 8 before: 1 for a logarithm,
    8 for noise that stays.
    """
    source = FromFunction(mixed_experts, n_experts=8)
    comparator = bs.simulate(
        AlfLB(schedule="harmonic", step_size=8.0),
        source,
        n_tokens=2048,
        k=2,
        horizon=150,
        n_exact=0,
        seed=100,
    ).bias[-1]
    rules = [SecantHarmonic(), AlfLB(schedule="constant", step_size=2.0)]
    growth = []
    for seed in range(4):
        runs = bs.simulate(
            rules,
            source,
            n_tokens=32,
            k=2,
            horizon=1600,
            n_records=4000,
            n_exact=0,
            seed=seed,
            comparator=comparator,
        )
        growth.append([(r.regret[1599] - r.regret[199], r.regret[199] - r.regret[24]) for r in runs])
    late, early = np.array(growth).mean(axis=0).T
    ratio = late / early
    assert ratio[0] < 2.5
    assert ratio[1] > 4.0


def test_the_flipped_rule_does_not_balance():
    rules = [SecantHarmonic(), Flipped(SecantHarmonic())]
    right, wrong = bs.simulate(rules, SOURCE, n_tokens=300, k=2, horizon=60, n_exact=0)
    assert right.mean_max_violation[-1] < 0.5 < 1.0 < wrong.mean_max_violation[-1]


def test_masked_experts_are_no_obstacle():
    rng = np.random.default_rng(2)
    scores = rng.standard_normal((40, 64, 6))
    scores[:, :, 5] = np.where(rng.random((40, 64)) < 0.7, -np.inf, scores[:, :, 5])
    source = Recorded(scores.reshape(-1, 6))
    run = bs.simulate(SecantHarmonic(), source, n_tokens=64, k=2, horizon=40, n_exact=0)
    assert np.isfinite(run.bias).all()
    assert run.bias[-1][5] > run.bias[-1][:5].max()


def test_what_it_declares():
    assert registry()["secant"] is SecantHarmonic
    assert SecantHarmonic.needs_scores
    assert SecantHarmonic.causal
    assert SecantHarmonic(multiple=1.5, delay=2).describe() == "harmonic secant steps, times 1.5, delay 2"


@pytest.mark.parametrize(
    ("field", "value"), [("multiple", 0.0), ("delay", -1.0), ("pool", math.inf), ("pool", True)]
)
def test_bad_numbers_are_named(field, value):
    with pytest.raises(InputError, match=f"`{field}` must be"):
        SecantHarmonic(**{field: value})
